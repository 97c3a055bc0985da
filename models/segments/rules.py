"""What holds for every segment: exclusions, caps on how often, test groups. Read strictly from `rules.yml`."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from consent.rule.policy import EVERY, Policy, read_policy
from models.segments.conditions import Condition, Reader, SegmentError, shown
from models.segments.definition import read_strictly, text_of, whole_of

RULES_FILE = Path(__file__).with_name("rules.yml")
_KEYS = ("exclusions", "caps", "test_groups")
_WHAT = "segment rules"


@dataclass(frozen=True)
class Exclusion:
    """Whoever matches the condition is excluded from every segment."""

    name: str
    description: str
    where: Condition


@dataclass(frozen=True)
class Cap:
    """At most so many contacts in so many days, over one channel or (`*`) over all together, for these purposes together."""

    channel: str
    purposes: tuple[str, ...]
    at_most: int
    days: int


@dataclass(frozen=True)
class TestGroup:
    """A stable share of people whom nobody contacts for these purposes."""

    __test__ = False

    name: str
    description: str
    salt: str
    percent: int
    purposes: tuple[str, ...]


@dataclass(frozen=True)
class Rules:
    """All of them, and the hash of the text they were read from."""

    exclusions: tuple[Exclusion, ...] = ()
    caps: tuple[Cap, ...] = ()
    test_groups: tuple[TestGroup, ...] = ()
    hash: str = ""


@lru_cache(maxsize=2)
def read_rules(path: Path = RULES_FILE) -> Rules:
    """The rules in a file. Raises: SegmentError: the place, what was expected, what was found, what to do."""
    return parse_rules(path.read_text(encoding="utf-8"))


def parse_rules(text: str) -> Rules:
    """Rules from YAML text. Raises: SegmentError."""
    content, lines = read_strictly(_WHAT, text, _KEYS)
    reader, policy = Reader(_WHAT, lines), read_policy()
    caps = content["caps"] or []
    if not isinstance(caps, list):
        raise reader.error("caps", "a list", shown(caps), "Write one `- {channel: ...}` per line.")
    return Rules(
        exclusions=tuple(
            Exclusion(
                name, text_of(part, said, "description"), part.condition(f"exclusions.{name}.where", said["where"])
            )
            for name, said, part in _named(reader, content, lines, "exclusions", {"description", "where"})
        ),
        caps=tuple(_cap(reader, policy, f"caps[{number}]", said) for number, said in enumerate(caps, start=1)),
        test_groups=tuple(
            TestGroup(
                name=name,
                description=text_of(part, said, "description"),
                salt=text_of(part, said, "salt"),
                percent=whole_of(part, said, "percent", 0, 50, f"test_groups.{name}."),
                purposes=_purposes(part, policy, f"test_groups.{name}", said),
            )
            for name, said, part in _named(
                reader, content, lines, "test_groups", {"description", "salt", "percent", "purposes"}
            )
        ),
        hash=hashlib.sha256(text.encode()).hexdigest(),
    )


def _named(
    reader: Reader, content: Mapping[str, Any], lines: Mapping[str, int], key: str, keys: set[str]
) -> list[tuple[str, dict[str, Any], Reader]]:
    """The entries of a mapping of mappings, each with exactly these keys, and a reader of its own."""
    entries = content[key] or {}
    if not isinstance(entries, dict):
        raise reader.error(key, "names with what they hold", shown(entries), "Write them as `name:` lines.")
    for name, said in entries.items():
        if not isinstance(said, dict) or set(said) != keys:
            raise reader.error(f"{key}.{name}", ", ".join(sorted(keys)), shown(said), "Write exactly these.")
    return [(str(name), said, Reader(f"{_WHAT}, {key} {name}", lines)) for name, said in entries.items()]


def _cap(reader: Reader, policy: Policy, place: str, said: Any) -> Cap:
    keys = {"channel", "purposes", "at_most", "days"}
    if not isinstance(said, dict) or set(said) != keys:
        raise reader.error(place, ", ".join(sorted(keys)), shown(said), "Write exactly these.")
    if said["channel"] not in (*policy.channels, EVERY):
        known = ", ".join((*policy.channels, EVERY))
        raise reader.error(f"{place}.channel", f"one of {known}", shown(said["channel"]), "Choose one of them.")
    return Cap(
        channel=said["channel"],
        purposes=_purposes(reader, policy, place, said),
        at_most=whole_of(reader, said, "at_most", 1, 1_000, f"{place}."),
        days=whole_of(reader, said, "days", 1, 366, f"{place}."),
    )


def _purposes(reader: Reader, policy: Policy, place: str, said: Mapping[str, Any]) -> tuple[str, ...]:
    listed = said["purposes"]
    if not isinstance(listed, list) or not listed or not set(map(str, listed)) <= set(policy.purposes):
        raise _unknown(reader, f"{place}.purposes", policy, listed)
    return tuple(listed)


def _unknown(reader: Reader, place: str, policy: Policy, listed: Any) -> SegmentError:
    found = ", ".join(map(str, listed))[:100] if isinstance(listed, list) else shown(listed)
    return reader.error(place, f"a list of {', '.join(policy.purposes)}", found, "Choose some of them.")
