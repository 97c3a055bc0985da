"""What a segment says: a small YAML file, read strictly. What a condition says is in `conditions.py`.

name: tent_lookers
version: 1
description: People who looked at tents more than once and have not bought one.
owner: web_team
purpose: marketing
channels: [email, sms]
holdout_percent: 10            (optional: this share is never contacted, to compare with)
where:
  all:
    - viewed category_name = Tents at least 2 times in 14 days
    - not: bought category_name = Tents in 90 days
rank:                          (optional: no more than these, ties by customer id)
  by: customer_purchases.net_cents_90d
  order: highest               (or lowest; highest when left out)
  top: 10000
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from models.segments.conditions import (
    Comparison,
    Condition,
    Group,
    Lookalike,
    Reader,
    SegmentError,
    leaves,
    plain,
    shown,
)

__all__ = [
    "FOLDER",
    "Comparison",
    "Group",
    "Rank",
    "Segment",
    "SegmentError",
    "load",
    "names",
    "parse",
    "read_strictly",
    "written",
]

FOLDER = Path(__file__).parent / "definitions"
MAXIMUM_BYTES = 64_000
MAXIMUM_TOP = 1_000_000_000
_KEYS = ("name", "version", "description", "owner", "purpose", "channels", "holdout_percent", "where", "rank")
_OPTIONAL = ("holdout_percent", "rank")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_MOST_PLACES = 5_000


@dataclass(frozen=True)
class Rank:
    """Of those that match, the `top` with the highest or lowest value of a field; whoever has none is not among them."""

    by: Comparison  # subject and field alone
    order: Literal["highest", "lowest"]
    top: int


@dataclass(frozen=True)
class Segment:
    """A definition as read: who owns it, what it is for, over which channels, and whom it matches."""

    name: str
    version: int
    description: str
    owner: str
    purpose: str
    channels: tuple[str, ...]
    holdout_percent: int
    where: Condition
    rank: Rank | None = None

    @property
    def content(self) -> dict[str, Any]:
        """What it says, as YAML holds it. Equal definitions have equal contents, however their files are laid out."""
        rank = self.rank
        return {
            "name": self.name,
            "version": self.version,
            "description": self.description,
            "owner": self.owner,
            "purpose": self.purpose,
            "channels": list(self.channels),
            "holdout_percent": self.holdout_percent,
            "where": plain(self.where),
            **({"rank": {"by": field_text(rank.by), "order": rank.order, "top": rank.top}} if rank else {}),
        }

    @property
    def hash(self) -> str:
        """SHA-256 of the content in hex: layout and comments of the file do not matter."""
        text = json.dumps(self.content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def names(folder: Path = FOLDER) -> list[str]:
    """The segments there are, by name."""
    return sorted(path.stem for path in folder.glob("*.yml"))


def load(name: str, folder: Path = FOLDER) -> Segment:
    """The segment of a name. Raises: SegmentError listing the names there are, or saying what is wrong in the file."""
    if name not in names(folder):
        raise SegmentError(
            f"segment: expected one of {', '.join(names(folder)) or 'none'}, found {name[:60]!r}. "
            f"Choose one, or add {folder.name}/{name[:60]}.yml."
        )
    return read(folder / f"{name}.yml")


def read(path: Path) -> Segment:
    """The segment in a file, which is named as it is. Raises: SegmentError."""
    if not path.is_file():
        raise SegmentError(f"segment file: expected one, found none at {path.name}. Correct the path.")
    if path.stat().st_size > MAXIMUM_BYTES:
        raise SegmentError(
            f"segment {path.stem}: expected at most {MAXIMUM_BYTES} bytes, found {path.stat().st_size}. Shorten the file."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SegmentError(f"segment {path.stem}: expected UTF-8, found other bytes. Save the file as UTF-8.") from None
    segment = parse(text)
    if segment.name != path.stem:
        raise SegmentError(
            f"segment {path.stem}: expected the file's own name, found name: {segment.name}. Rename one of them."
        )
    return segment


def parse(text: str) -> Segment:
    """A definition from YAML text. Raises: SegmentError: the place, what was expected, what was found, what to do."""
    content, lines = read_strictly("segment", text, _KEYS, _OPTIONAL)
    what = f"segment {content['name']}" if isinstance(content["name"], str) else "segment"
    reader = Reader(what, lines)
    return Segment(
        name=text_of(reader, content, "name", _NAME),
        version=whole_of(reader, content, "version", 1, 1_000_000),
        description=text_of(reader, content, "description"),
        owner=text_of(reader, content, "owner"),
        purpose=text_of(reader, content, "purpose", _NAME),
        channels=_channels(reader, content["channels"]),
        holdout_percent=whole_of(reader, content, "holdout_percent", 0, 90) if "holdout_percent" in content else 0,
        where=reader.condition("where", content["where"]),
        rank=_rank(reader, content["rank"]) if "rank" in content else None,
    )


def written(segment: Segment) -> str:
    """A definition as a file; parsed again it is equal."""
    return yaml.safe_dump(segment.content, sort_keys=False, allow_unicode=True, width=100)


def likes(segment: Segment) -> list[str]:
    """The segments that its lookalikes start from, by name."""
    return sorted({leaf.like for leaf in leaves(segment.where) if isinstance(leaf, Lookalike) and leaf.like})


def field_text(comparison: Comparison) -> str:
    """The field of a comparison, as a definition names it."""
    return f"{comparison.subject}.{comparison.field}"


def read_strictly(
    what: str, text: str, keys: tuple[str, ...], optional: tuple[str, ...] = ()
) -> tuple[dict[str, Any], dict[str, int]]:
    """A mapping with these keys from YAML text, and the line of every place in it. Raises: SegmentError."""
    try:
        loader = _StrictLoader(text)
        try:
            node = loader.get_single_node()
            lines: dict[str, int] = {}
            _place(node, "", lines)
            content = loader.construct_document(node) if node else None
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark else "the file"
        problem = getattr(error, "problem", None) or (
            "a value" if isinstance(error, ValueError) else "too deeply nested"
        )
        raise SegmentError(f"{what}, {place}: expected YAML, found a fault ({problem}). Correct that line.") from None
    if not isinstance(content, dict):
        raise SegmentError(
            f"{what}: expected {', '.join(keys)}, found {shown(content)}. Write them as `key: value` lines."
        )
    what = f"{what} {content['name']}" if isinstance(content.get("name"), str) else what
    unknown = [str(key)[:40] for key in content if key not in keys]
    missing = [key for key in keys if key not in content and key not in optional]
    if unknown or missing:
        found = [*(f"unknown {key}" for key in unknown), *(f"no {key}" for key in missing)]
        at = f", line {lines[unknown[0]]}" if unknown and unknown[0] in lines else ""
        raise SegmentError(f"{what}{at}: expected {', '.join(keys)}, found {', '.join(found)}. Add or remove them.")
    return content, lines


def text_of(reader: Reader, content: dict[str, Any], key: str, pattern: re.Pattern[str] | None = None) -> str:
    value = content[key]
    if not isinstance(value, str) or not value.strip() or len(value) > 500:
        raise reader.error(
            key, "a text of at most 500 characters", shown(value), "Write one, in quotes if it looks like a number."
        )
    if pattern and not pattern.fullmatch(value):
        raise reader.error(key, "small letters, digits and underscores", repr(value[:60]), "Correct it.")
    return value.strip()


def whole_of(reader: Reader, content: dict[str, Any], key: str, least: int, most: int, place: str = "") -> int:
    value = content[key]
    if type(value) is not int or not least <= value <= most:
        raise reader.error(f"{place}{key}", f"a whole number from {least} to {most}", f"{value!r:.40}", "Correct it.")
    return value


def _channels(reader: Reader, content: Any) -> tuple[str, ...]:
    listed = content if isinstance(content, list) else []
    if not listed or not all(isinstance(one, str) and _NAME.fullmatch(one) for one in listed):
        raise reader.error("channels", "a list of channels", shown(content), "Write them like [email, sms].")
    if len(set(listed)) < len(listed):
        raise reader.error("channels", "every channel once", ", ".join(listed)[:100], "Remove what is there twice.")
    return tuple(listed)


def _rank(reader: Reader, content: Any) -> Rank:
    keys = {"by", "order", "top"}
    if not isinstance(content, dict) or not {"by", "top"} <= set(content) <= keys:
        raise reader.error(
            "rank", "by, top and, if wanted, order", shown(content), "Write by: <subject>.<field> and top: <number>."
        )
    match = (
        re.fullmatch(r"([a-z][a-z0-9_]*)\.([a-z][a-z0-9_]*)", content["by"]) if isinstance(content["by"], str) else None
    )
    if not match:
        raise reader.error("rank.by", "`<subject>.<field>`", shown(content["by"]), "Name one field.")
    order = content.get("order", "highest")
    if order not in ("highest", "lowest"):
        raise reader.error("rank.order", "highest or lowest", shown(order), "Choose one of them.")
    by = Comparison(match[1], match[2], "known", (), reader.place("rank.by"))
    return Rank(by, order, whole_of(reader, content, "top", 1, MAXIMUM_TOP, "rank."))


class _StrictLoader(yaml.SafeLoader):
    """YAML's plain types, and no key twice: of two `where:` one would be lost in silence."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
    if twice is not None:
        raise yaml.constructor.ConstructorError(None, None, f"the key {twice} twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _place(node: yaml.Node | None, place: str, lines: dict[str, int]) -> None:
    """The line of every place below a node, by the names that errors use; no more of them than a definition can have."""
    if node is None or len(lines) > _MOST_PLACES:
        return
    if place:
        lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                _place(value, f"{place}.{key.value}" if place else key.value, lines)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value, start=1):
            _place(value, f"{place}[{number}]", lines)
