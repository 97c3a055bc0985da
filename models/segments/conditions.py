"""What a condition says, and how it is read: one line each, or all, any and not over further ones.

    customers.tier_code in silver, gold                         a field: =, !=, <, <=, >, >=, in; `is known`, `is missing`
    customers.last_seen_at < 30 days ago                        times may be told from the time asked for
    bought category_name = Tents at least 2 times in 90 days    an event, counted over a window that ends now
    viewed sku in SKU-1, SKU-2 and device_type = phone in 14 days
    ordered channel_type = web at least 5000 net_cents in 90 days    the sum of an amount, in cents
    viewed at least 2 times in 14 days and not bought same sku in 30 days    views of what they did not then buy
    lookalike: {score: churn, top_percent: 10}                  the highest tenth of all scores of a model
    lookalike: {score: churn, like: gold_members, middle_percent: 80}

A missing value satisfies no comparison, `!=` included; `not:` turns the answer round. A value that holds a comma, `and` or a
count's words is put in double quotes, a double quote in it twice. What fields and events there are is in `fields.py`.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from models.errors import ModelsError

OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "in")
PRESENCE = ("known", "missing")
COUNTED: dict[str, str] = {"at least": ">=", "at most": "<=", "exactly": "="}
MAXIMUM_CONDITIONS = 200
MAXIMUM_DEPTH = 12
MAXIMUM_CHARACTERS = 2_000
MAXIMUM_HOURS = 24 * 3_660
_HOURS = {"hour": 1, "day": 24, "week": 168}
_WINDOW = r"\s+in\s+([0-9]{1,6})\s+(hour|day|week)s?"
_WORD = r"[a-z][a-z0-9_]*"
_OPERATOR = r"((?:<=|>=|!=|=|<|>)(?![=<>!])|\bin\b)"
_FIELD = re.compile(rf"({_WORD})\.({_WORD})\s*(?:{_OPERATOR}\s*(.+)|\bis\s+({'|'.join(PRESENCE)}))", re.DOTALL)
_FILTER = re.compile(rf"({_WORD})\s*(?:{_OPERATOR}\s*(.+)|\bis\s+({'|'.join(PRESENCE)}))", re.DOTALL)
_EVENT = re.compile(
    rf"({_WORD})(?:\s+(.+?))??(?:\s+({'|'.join(COUNTED)})\s+([0-9]{{1,9}})\s+(times?|units?|{_WORD}_cents))?{_WINDOW}",
    re.DOTALL,
)
_AND_NOT = r"\s+and\s+not\s+"
_UNLESS = re.compile(rf"({_WORD})(?:\s+(.+?))??\s+same\s+({_WORD}){_WINDOW}", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_BARE = re.compile(r"[\w.:+/-]+(?: (?:hours?|days?|weeks?) ago)?")
_EXAMPLES = "`customers.tier_code = gold` or `bought category_name = Tents at least 2 times in 90 days`"


class SegmentError(ModelsError):
    """A definition that cannot be read, or asks for what there is not."""


@dataclass(frozen=True)
class Comparison:
    """One field against values as text: one, several for `in`, none for `known` and `missing`. `place` is for errors alone."""

    subject: str
    field: str
    operator: str
    values: tuple[str, ...]
    place: str = dataclasses.field(default="", compare=False, repr=False)

    @property
    def text(self) -> str:
        name = f"{self.subject}.{self.field}" if self.subject else self.field
        if self.operator in PRESENCE:
            return f"{name} is {self.operator}"
        return f"{name} {self.operator} {', '.join(map(_written_value, self.values))}"


@dataclass(frozen=True)
class Unless:
    """What must not have happened with the same thing: an event with filters over hours, and the field that says which thing."""

    event: str
    filters: tuple[Comparison, ...]
    same: str
    hours: int

    @property
    def text(self) -> str:
        filters = " and ".join(each.text for each in self.filters)
        parts = ("and not", self.event, filters, f"same {self.same}", _window_text(self.hours))
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Happened:
    """An event counted over the hours before the time asked for: `filters` are comparisons without a subject, all of them true.

    `counted`: times, units, or an amount in cents that is summed. `unless`: only rows of things of which that is not so count.
    """

    event: str
    filters: tuple[Comparison, ...]
    counted: str
    operator: str
    count: int
    hours: int
    unless: Unless | None = None
    place: str = dataclasses.field(default="", compare=False, repr=False)

    @property
    def text(self) -> str:
        said = next(words for words, operator in COUNTED.items() if operator == self.operator)
        filters = " and ".join(each.text for each in self.filters)
        is_once = (self.operator, self.count, self.counted) == (">=", 1, "times")
        times = "" if is_once else f"{said} {self.count} {self.counted}"
        unless = self.unless.text if self.unless else ""
        return " ".join(part for part in (self.event, filters, times, _window_text(self.hours), unless) if part)


@dataclass(frozen=True)
class Lookalike:
    """By a model's score: the highest percent of all, or whoever scores as the middle percent of a segment's members do."""

    score: str
    percent: int
    like: str | None = None
    place: str = dataclasses.field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class Group:
    """`all`, `any` or `not` of conditions; `not` has exactly one."""

    kind: Literal["all", "any", "not"]
    conditions: tuple["Condition", ...]


Condition = Comparison | Happened | Lookalike | Group
Leaf = Comparison | Happened | Lookalike


def leaves(condition: Condition) -> Iterator[Leaf]:
    """Every condition that is not a group, in the order written."""
    if isinstance(condition, Group):
        for inner in condition.conditions:
            yield from leaves(inner)
    else:
        yield condition


def plain(condition: Condition) -> Any:
    """A condition as YAML holds it; read again it is equal."""
    if isinstance(condition, Group):
        inner = [plain(one) for one in condition.conditions]
        return {condition.kind: inner[0] if condition.kind == "not" else inner}
    if isinstance(condition, Lookalike):
        if condition.like is None:
            return {"lookalike": {"score": condition.score, "top_percent": condition.percent}}
        return {"lookalike": {"score": condition.score, "like": condition.like, "middle_percent": condition.percent}}
    return condition.text


class Reader:
    """Reads the conditions of one file. `what` is named by errors, and so are lines where `lines` has them by place."""

    def __init__(self, what: str, lines: Mapping[str, int]) -> None:
        self._what = what
        self._lines = lines
        self._count = 0

    def condition(self, place: str, content: Any, depth: int = 0) -> Condition:
        """Raises: SegmentError: the place, what was expected, what was found, what to do."""
        self._count += 1
        if self._count > MAXIMUM_CONDITIONS or depth > MAXIMUM_DEPTH:
            raise self.error(
                place[:100],
                f"at most {MAXIMUM_CONDITIONS} conditions, {MAXIMUM_DEPTH} deep",
                "more",
                "Split the segment.",
            )
        if isinstance(content, str):
            return self._line(place, content)
        kind = next(iter(content)) if isinstance(content, dict) and len(content) == 1 else None
        if kind == "not":
            return Group("not", (self.condition(f"{place}.not", content["not"], depth + 1),))
        if kind in ("all", "any"):
            listed = content[kind]
            if not isinstance(listed, list) or not listed:
                raise self.error(
                    f"{place}.{kind}", "a list of conditions", shown(listed), "Write one `- condition` per line."
                )
            inner = (self.condition(f"{place}.{kind}[{i}]", each, depth + 1) for i, each in enumerate(listed, 1))
            return Group(kind, tuple(inner))
        if kind == "lookalike":
            return self._lookalike(f"{place}.lookalike", content[kind])
        raise self.error(
            place,
            f"a line such as {_EXAMPLES}, or one of all, any, not, lookalike",
            shown(content),
            "Write one condition, or one of those keys with conditions under it.",
        )

    def error(self, place: str, expected: str, found: str, advice: str) -> SegmentError:
        return SegmentError(f"{self._what}, {self.place(place)}: expected {expected}, found {found}. {advice}")

    def place(self, place: str) -> str:
        """A place as errors tell it: `line 9, where.all[2]`."""
        return f"line {self._lines[place]}, {place}" if place in self._lines else place

    def _line(self, place: str, text: str) -> Comparison | Happened:
        text = text.strip()
        if len(text) > MAXIMUM_CHARACTERS:
            raise self.error(place, f"a line of at most {MAXIMUM_CHARACTERS} characters", str(len(text)), "Split it.")
        if match := _FIELD.fullmatch(text):
            subject, name, operator, rest, presence = match.groups()
            return self._compared(place, subject, name, operator or presence, rest)
        *before, last = _split(text, _AND_NOT)
        unless = _UNLESS.fullmatch(last) if before else None
        if match := _EVENT.fullmatch(re.sub(f"{_AND_NOT}$", "", text[: -len(last)]) if unless else text):
            event, filters, said, count, counted, *window = match.groups()
            return Happened(
                event=event,
                filters=self._filters(place, filters),
                counted=f"{counted}s" if counted in ("time", "unit") else counted or "times",
                operator=COUNTED[said] if said else ">=",
                count=int(count) if count else 1,
                hours=self._hours(place, *window),
                unless=self._unless(place, *unless.groups()) if unless else None,
                place=self.place(place),
            )
        raise self.error(
            place,
            f"`<subject>.<field> <operator> <value>` with one of {' '.join(OPERATORS)}, or `<event> ... in <n> days`",
            repr(text[:80]),
            f"Write it like {_EXAMPLES}.",
        )

    def _unless(self, place: str, event: str, filters: str | None, same: str, *window: str) -> Unless:
        return Unless(event, self._filters(place, filters), same, self._hours(place, *window))

    def _hours(self, place: str, amount: str, unit: str) -> int:
        hours = int(amount) * _HOURS[unit]
        if not 0 < hours <= MAXIMUM_HOURS:
            raise self.error(place, "a window of an hour to ten years", f"{amount} {unit}s", "Change the window.")
        return hours

    def _filters(self, place: str, text: str | None) -> tuple[Comparison, ...]:
        return tuple(self._filter(place, part) for part in _split(text, r"\s+and\s+")) if text else ()

    def _filter(self, place: str, text: str) -> Comparison:
        match = _FILTER.fullmatch(text)
        if not match:
            raise self.error(
                place,
                f"`<field> <operator> <value>` with one of {' '.join(OPERATORS)} after the event",
                repr(text[:80]),
                f"Write it like {_EXAMPLES}.",
            )
        name, operator, rest, presence = match.groups()
        return self._compared(place, "", name, operator or presence, rest)

    def _compared(self, place: str, subject: str, name: str, operator: str, rest: str | None) -> Comparison:
        parts = [] if rest is None else _split(rest, r",") if operator == "in" else [rest]
        values = tuple(self._value(place, part.strip()) for part in parts)
        return Comparison(subject, name, operator, values, self.place(place))

    def _value(self, place: str, text: str) -> str:
        if not text:
            raise self.error(place, "values between the commas", "an empty one", "Remove the comma.")
        if not text.startswith('"'):
            return text
        match = _QUOTED.fullmatch(text)
        if not match:
            raise self.error(
                place, "one value in double quotes", repr(text[:80]), "Close the quotes; write one inside twice."
            )
        return match[1].replace('""', '"')

    def _lookalike(self, place: str, content: Any) -> Lookalike:
        keys = {"score", "top_percent"}, {"score", "like", "middle_percent"}
        if not isinstance(content, dict) or set(content) not in keys:
            raise self.error(
                place,
                "score and top_percent, or score, like and middle_percent",
                shown(content),
                "Write it like {score: churn, top_percent: 10}.",
            )
        for key in ("score", "like"):
            if key in content and not (isinstance(content[key], str) and re.fullmatch(_WORD, content[key])):
                raise self.error(f"{place}.{key}", "a name", shown(content[key]), "Correct it.")
        percent = content.get("top_percent", content.get("middle_percent"))
        if type(percent) is not int or not 1 <= percent <= 100:
            raise self.error(place, "a whole number of percent from 1 to 100", shown(percent), "Correct it.")
        return Lookalike(content["score"], percent, content.get("like"), self.place(place))


def shown(value: Any) -> str:
    """A value as an error tells it: its kind, and no more than the beginning."""
    if isinstance(value, dict):
        return f"keys {', '.join(str(key)[:40] for key in list(value)[:5]) or 'none'}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "nothing" if value is None else f"{type(value).__name__} {value!r:.60}"


def _window_text(hours: int) -> str:
    return f"in {hours} hours" if hours % 24 else f"in {hours // 24} days"


def _split(text: str, separator: str) -> list[str]:
    """Parts between separators that stand outside of double quotes."""
    parts, start = [], 0
    for match in re.finditer(rf"{_QUOTED.pattern}|({separator})", text):
        if match[2] is not None:
            parts.append(text[start : match.start()])
            start = match.end()
    return [*parts, text[start:]]


def _written_value(value: str) -> str:
    return value if _BARE.fullmatch(value) and value != "and" else '"' + value.replace('"', '""') + '"'
