"""What a segment says: a small YAML file, read strictly. What its fields mean is in `fields.py`.

    name: lapsed_regulars
    version: 1
    description: Regular customers who have not ordered for four weeks.
    owner: customer_marketing
    purpose: marketing
    channel: email
    holdout_percent: 10            (optional: this share is never contacted, to compare with)
    where:
      all:
        - customer_purchases.order_count_90d >= 3
        - customer_purchases.days_since_last_order > 28
        - not: customers.tier_code in silver, gold

A condition is `<subject>.<field> <operator> <value>`, or `all:` / `any:` with a list of conditions, or `not:` with one.
A missing value satisfies no comparison, `!=` included; `not:` turns the answer round.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from models.errors import ModelsError

FOLDER = Path(__file__).parent
OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "in")
MAXIMUM_BYTES = 64_000
MAXIMUM_CONDITIONS = 200
MAXIMUM_DEPTH = 12
_KEYS = ("name", "version", "description", "owner", "purpose", "channel", "holdout_percent", "where")
_OPTIONAL = ("holdout_percent",)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_COMPARISON = re.compile(
    r"([a-z][a-z0-9_]*)\.([a-z][a-z0-9_]*)\s*((?:<=|>=|!=|=|<|>)(?![=<>!])|\bin\b)\s*(.+)", re.DOTALL
)


class SegmentError(ModelsError):
    """A definition that cannot be read, or asks for what there is not."""


@dataclass(frozen=True)
class Comparison:
    """One field compared with values as text; one value, or several for `in`."""

    subject: str
    field: str
    operator: str
    values: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{self.subject}.{self.field} {self.operator} {', '.join(self.values)}"


@dataclass(frozen=True)
class Group:
    """`all`, `any` or `not` of conditions; `not` has exactly one."""

    kind: Literal["all", "any", "not"]
    conditions: tuple["Condition", ...]


Condition = Comparison | Group


@dataclass(frozen=True)
class Segment:
    """A definition as read: who owns it, what it is for, over which channel, and whom it matches."""

    name: str
    version: int
    description: str
    owner: str
    purpose: str
    channel: str
    holdout_percent: int
    where: Condition

    @property
    def hash(self) -> str:
        """SHA-256 of the definition's content in hex: layout and comments of the file do not matter."""
        content = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()


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
    path = folder / f"{name}.yml"
    if path.stat().st_size > MAXIMUM_BYTES:
        raise SegmentError(
            f"segment {name}: expected at most {MAXIMUM_BYTES} bytes, found {path.stat().st_size}. Shorten the file."
        )
    segment = parse(path.read_text(encoding="utf-8"))
    if segment.name != name:
        raise SegmentError(
            f"segment {name}: expected the file's own name, found name: {segment.name}. Rename one of them."
        )
    return segment


def parse(text: str) -> Segment:
    """A definition from YAML text. Raises: SegmentError: the place, what was expected, what was found, what to do."""
    try:
        content = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader that also refuses repeated keys
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark else "the file"
        problem = getattr(error, "problem", None) or "too deeply nested"
        raise SegmentError(f"segment, {place}: expected YAML, found a fault ({problem}). Correct that line.") from None
    if not isinstance(content, dict):
        raise SegmentError(
            f"segment: expected {', '.join(_KEYS)}, found {_kind(content)}. Write them as `key: value` lines."
        )
    what = f"segment {content.get('name')}" if isinstance(content.get("name"), str) else "segment"
    unknown = [str(key) for key in content if key not in _KEYS]
    missing = [key for key in _KEYS if key not in content and key not in _OPTIONAL]
    if unknown or missing:
        found = [*(f"unknown {key}" for key in unknown), *(f"no {key}" for key in missing)]
        raise SegmentError(f"{what}: expected {', '.join(_KEYS)}, found {', '.join(found)}. Add or remove them.")
    counter = [0]
    return Segment(
        name=_text(what, content, "name", _NAME),
        version=_whole(what, content, "version", 1, 1_000_000),
        description=_text(what, content, "description"),
        owner=_text(what, content, "owner"),
        purpose=_text(what, content, "purpose", _NAME),
        channel=_text(what, content, "channel", _NAME),
        holdout_percent=_whole(what, content, "holdout_percent", 0, 90) if "holdout_percent" in content else 0,
        where=_condition(what, "where", content["where"], counter, 0),
    )


def comparisons(condition: Condition) -> list[Comparison]:
    """Every comparison of a condition, in the order written."""
    if isinstance(condition, Comparison):
        return [condition]
    return [comparison for inner in condition.conditions for comparison in comparisons(inner)]


class _StrictLoader(yaml.SafeLoader):
    """YAML's plain types, and no key twice: of two `where:` one would be lost in silence."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
    if twice is not None:
        raise yaml.constructor.ConstructorError(None, None, f"the key {twice} twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _condition(what: str, place: str, content: Any, counter: list[int], depth: int) -> Condition:
    counter[0] += 1
    if counter[0] > MAXIMUM_CONDITIONS or depth > MAXIMUM_DEPTH:
        raise SegmentError(
            f"{what}, {place[:100]}: expected at most {MAXIMUM_CONDITIONS} conditions, {MAXIMUM_DEPTH} deep, "
            "found more. Split the segment."
        )
    if isinstance(content, str):
        return _comparison(what, place, content)
    kind = next(iter(content)) if isinstance(content, dict) and len(content) == 1 else None
    if kind == "not":
        return Group("not", (_condition(what, f"{place}.not", content["not"], counter, depth + 1),))
    if kind in ("all", "any"):
        listed = content[kind]
        if not isinstance(listed, list) or not listed:
            raise SegmentError(
                f"{what}, {place}.{kind}: expected a list of conditions, found {_kind(listed)}. "
                "Write one `- condition` per line."
            )
        return Group(
            kind,
            tuple(
                _condition(what, f"{place}.{kind}[{i}]", inner, counter, depth + 1) for i, inner in enumerate(listed, 1)
            ),
        )
    raise SegmentError(
        f"{what}, {place}: expected `<subject>.<field> <operator> <value>`, or one of all, any, not, "
        f"found {_kind(content)}. "
        "Write one condition, or one of those keys with conditions under it."
    )


def _comparison(what: str, place: str, text: str) -> Comparison:
    match = _COMPARISON.fullmatch(text.strip())
    if not match:
        raise SegmentError(
            f"{what}, {place}: expected `<subject>.<field> <operator> <value>` with one of {' '.join(OPERATORS)}, "
            f"found {text[:80]!r}. Write it like `customers.tier_code = gold`."
        )
    subject, field, operator, rest = match.groups()
    values = tuple(value.strip() for value in rest.split(",")) if operator == "in" else (rest.strip(),)
    if not all(values):
        raise SegmentError(
            f"{what}, {place}: expected values between the commas, found an empty one. Remove the comma."
        )
    return Comparison(subject, field, operator, values)


def _text(what: str, content: dict[str, Any], key: str, pattern: re.Pattern[str] | None = None) -> str:
    value = content[key]
    if not isinstance(value, str) or not value.strip() or len(value) > 500:
        raise SegmentError(
            f"{what}, {key}: expected a text of at most 500 characters, found {_kind(value)}. "
            "Write one, in quotes if it looks like a number."
        )
    if pattern and not pattern.fullmatch(value):
        raise SegmentError(
            f"{what}, {key}: expected small letters, digits and underscores, found {value[:60]!r}. Correct it."
        )
    return value.strip()


def _whole(what: str, content: dict[str, Any], key: str, least: int, most: int) -> int:
    value = content[key]
    if type(value) is not int or not least <= value <= most:
        raise SegmentError(
            f"{what}, {key}: expected a whole number from {least} to {most}, found {value!r:.40}. Correct it."
        )
    return value


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"keys {', '.join(str(key)[:40] for key in list(value)[:5]) or 'none'}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "nothing" if value is None else f"{type(value).__name__} {value!r:.60}"
