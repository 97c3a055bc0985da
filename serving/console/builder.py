"""The form that describes a segment: from what a browser sends to a definition and back, with every fault at its field.

A field is named by its place: `w` is the outermost condition, `w.2` the second below it, `w.2.value` its value. Which kind a
condition is shows in what was sent of it, so that the form needs no script and the service remembers nothing of it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from models.segments.conditions import (
    COUNTED,
    MAXIMUM_DEPTH,
    PRESENCE,
    Comparison,
    Condition,
    Group,
    Happened,
)
from models.segments.decision import CONTACT_POINTS
from models.segments.definition import Segment, field_text
from models.segments.fields import EVENTS
from serving.console.wording import unfolded

TOP = "w"
MOST_FIELDS = 170  # of one form; the frame takes 200
MOST_TEXT = 500
MOST_VALUE = 1_000
UNITS = {"hours": 1, "days": 24, "weeks": 168}
_COUNTED_IN = dict.fromkeys(counted for event in EVENTS.values() for counted in event.counted_in)
TIMES = [f"{said} {counted}" for counted in _COUNTED_IN for said in COUNTED]
SAME = "sku"  # the thing of which something else must not have happened, as the form asks it
_KEY = re.compile(r"(w(?:\.[1-9][0-9]?){0,12})\.([a-z]+)([1-9]?)")
_MARKS = {"of": "group", "field": "fact", "event": "event", "score": "score"}
_NO_UNLESS = {"unless": "", "within": "30", "per": "days"}
_NEW: dict[str, dict[str, str]] = {
    "fact": {"field": "", "operator": "=", "value": ""},
    "event": {"event": "", "times": TIMES[0], "count": "1", "amount": "90", "unit": "days", **_NO_UNLESS},
    "score": {"score": "", "percent": "10", "like": ""},
    "group": {"of": "any"},
}
_NEW_FILTER = {"on": "", "is": "=", "to": ""}
GROUPED = {"all": ("all", False), "any": ("any", False), "none": ("any", True), "not_all": ("all", True)}
Kind = Literal["group", "fact", "event", "score"]


class UnfitError(Exception):
    """A definition that the form cannot show without changing it: it is edited as text."""


@dataclass
class Row:
    """One condition of the form, as typed. `said`: its fields by name; `filters`: of an event; `rows`: of a group."""

    kind: Kind
    said: dict[str, str]
    filters: list[dict[str, str]] = field(default_factory=list)
    rows: list["Row"] = field(default_factory=list)
    path: str = TOP
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """As an address within the page."""
        return self.path.replace(".", "-")

    @property
    def number(self) -> str:
        return self.path.removeprefix(TOP).lstrip(".")

    def placed(self, path: str = TOP) -> "Row":
        """With the paths that its places in the form give."""
        self.path = path
        for number, row in enumerate(self.rows, start=1):
            row.placed(f"{path}.{number}")
        return self

    def all(self) -> Iterator["Row"]:
        yield self
        for row in self.rows:
            yield from row.all()

    @property
    def field_count(self) -> int:
        return sum(len(row.said) + 1 + 3 * len(row.filters) for row in self.all())


@dataclass
class Draft:
    """What was typed so far: `said` by field, the conditions, and what is wrong, by field."""

    said: dict[str, str]
    channels: list[str]
    where: Row
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def all_faults(self) -> list[tuple[str, str]]:
        """Every fault with the id of the field it is at."""
        found = [(name, fault) for name, fault in self.faults.items()]
        for row in self.where.all():
            which = f"Condition {row.number}" if row.number else "Conditions"
            found += [(f"{row.path}.{name}", f"{which}: {fault}") for name, fault in row.faults.items()]
        return found


def empty(owner: str) -> Draft:
    """A form that says nothing yet."""
    said = {"name": "", "description": "", "owner": owner, "purpose": "marketing", "holdout": "0", **_no_rank()}
    return Draft(said, ["email"], Row("group", {"of": "all"}, rows=[_new("fact")]).placed())


def of_segment(segment: Segment) -> Draft:
    """The form of a definition. Raises: UnfitError where it cannot be shown whole."""
    said = {
        "name": segment.name,
        "description": segment.description,
        "owner": segment.owner,
        "purpose": segment.purpose,
        "holdout": str(segment.holdout_percent),
        **_no_rank(),
    }
    if segment.rank:
        said |= {
            "rank_by": field_text(segment.rank.by),
            "rank_order": segment.rank.order,
            "rank_top": str(segment.rank.top),
        }
    if any(text != " ".join(text.split()) or not text.isprintable() for text in said.values()):
        raise UnfitError  # a browser, or `of_form`, would not send it back as it is
    draft = Draft(said, list(segment.channels), _row(segment.where).placed())
    if draft.where.field_count > MOST_FIELDS:
        raise UnfitError
    return draft


def of_form(form: Mapping[str, str]) -> Draft:
    """What a browser sent."""
    said = {
        name: _said(form, name, MOST_TEXT)
        for name in ("name", "description", "owner", "purpose", "holdout", *_no_rank())
    }
    channels = [name for name in CONTACT_POINTS if f"channel_{name}" in form]
    rows: dict[str, dict[str, str]] = {}
    filters: dict[str, dict[str, dict[str, str]]] = {}
    for key, value in form.items():
        if match := _KEY.fullmatch(key):
            path, name, number = match.groups()
            typed = value.strip()[:MOST_VALUE]
            if number:
                filters.setdefault(path, {}).setdefault(number, dict(_NEW_FILTER))[name] = typed
            else:
                rows.setdefault(path, {})[name] = typed
    return Draft(said, channels, _collected(TOP, rows, filters) or Row("group", {"of": "all"}))


def changed(draft: Draft, act: str) -> str | None:
    """Do what a button of the form says (`add-fact w.2`, `drop w.1`, `filter w.1`, `drop-filter w.1 2`); the id of the field to go on at.

    None where there is nothing such to do.
    """
    what, _, where = act.partition(" ")
    path, _, number = where.partition(" ")
    rows = {row.path: row for row in draft.where.all()}
    row = rows.get(path)
    if row is None:
        return None
    if what.startswith("add-") and (kind := what.removeprefix("add-")) in _NEW:
        return _add(draft, row, kind)
    if what == "filter" and row.kind == "event" and len(row.filters) < 9 and _has_room(draft):
        row.filters.append(dict(_NEW_FILTER))
        return f"{row.path}.on{len(row.filters)}"
    if what == "drop-filter" and number.isdigit() and 0 < int(number) <= len(row.filters):
        del row.filters[int(number) - 1]
        return f"{row.path}.event"
    if what == "drop" and path != TOP:
        parent = rows[path.rpartition(".")[0]]
        parent.rows.remove(row)
        draft.where.placed()
        return f"{parent.path}.of"
    return None


def _no_rank() -> dict[str, str]:
    return {"rank_by": "", "rank_order": "highest", "rank_top": ""}


def _said(form: Mapping[str, str], name: str, most: int) -> str:
    return " ".join(form.get(name, "").split())[:most]


def _new(kind: str) -> Row:
    return Row(kind, dict(_NEW[kind]), rows=[_new("fact")] if kind == "group" else [])  # type: ignore[arg-type]


def _has_room(draft: Draft) -> bool:
    if draft.where.field_count + 8 <= MOST_FIELDS:
        return True
    draft.faults["w"] = "Expected fewer conditions: the form holds no more. Edit it as text, or split the segment."
    return False


def _add(draft: Draft, row: Row, kind: str) -> str | None:
    if not _has_room(draft):
        return None
    if row.kind != "group":  # the outermost alone can be such
        draft.where = row = Row("group", {"of": "all"}, rows=[row])
    elif row.path.count(".") >= MAXIMUM_DEPTH - 2:
        draft.faults["w"] = f"Expected at most {MAXIMUM_DEPTH - 2} groups within each other. Edit it as text."
        return None
    new = _new(kind)
    row.rows.append(new)
    draft.where.placed()
    return f"{new.path}.{next(iter(new.said))}"


def _collected(
    path: str, rows: Mapping[str, dict[str, str]], filters: Mapping[str, Mapping[str, dict[str, str]]]
) -> Row | None:
    """The row at a path, with those below it in the order of their numbers."""
    typed = rows.get(path, {})
    kind = next((kind for mark, kind in _MARKS.items() if mark in typed), None)
    if kind is None:
        return None
    names = {**_NEW[kind], "not": ""}
    said = {name: typed.get(name, "") for name in names if name != "not" or typed.get("not")}
    row = Row(kind, said, path=path)  # type: ignore[arg-type]
    if kind == "event":
        found = filters.get(path, {})
        row.filters = [{name: found[number].get(name, "") for name in _NEW_FILTER} for number in sorted(found)]
    if kind == "group":
        below = (_collected(f"{path}.{number}", rows, filters) for number in range(1, 100))
        row.rows = [each for each in below if each]
    return row


def _row(condition: Condition) -> Row:
    if isinstance(condition, Group):
        kind, inner = unfolded(condition)
        if kind is not None:
            return Row("group", {"of": kind}, rows=[_row(each) for each in inner])
        row = _row(inner[0])
        if row.kind == "group" or "not" in row.said:
            raise UnfitError
        row.said["not"] = "on"
        return row
    if isinstance(condition, Comparison):
        return Row("fact", {"field": field_text(condition), "operator": condition.operator, "value": _typed(condition)})
    if isinstance(condition, Happened):
        said = next(words for words, operator in COUNTED.items() if operator == condition.operator)
        amount, unit = _window(condition.hours)
        return Row(
            "event",
            {
                "event": condition.event,
                "times": f"{said} {condition.counted}",
                "count": str(condition.count),
                "amount": amount,
                "unit": unit,
                **_unless(condition),
            },
            [{"on": each.field, "is": each.operator, "to": _typed(each)} for each in condition.filters],
        )
    return Row("score", {"score": condition.score, "percent": str(condition.percent), "like": condition.like or ""})


def _unless(asked: Happened) -> dict[str, str]:
    if asked.unless is None:
        return _NO_UNLESS
    if asked.unless.filters or asked.unless.same != SAME:
        raise UnfitError
    within, per = _window(asked.unless.hours)
    return {"unless": asked.unless.event, "within": within, "per": per}


def _window(hours: int) -> tuple[str, str]:
    unit = next(unit for unit in ("days", "hours") if hours % UNITS[unit] == 0)
    return str(hours // UNITS[unit]), unit


def _typed(asked: Comparison) -> str:
    """The values as they are typed: a single one as it is, unless its own spaces or quotes would be lost."""
    if asked.operator in PRESENCE:
        return ""
    if len(asked.values) == 1 and asked.operator != "in":
        (value,) = asked.values
        text = (
            value
            if value and value == value.strip() and not value.startswith('"')
            else '"' + value.replace('"', '""') + '"'
        )
    else:
        text = Comparison("", "x", "in", asked.values).text.removeprefix("x in ")
    if not text.isprintable() or len(text) > MOST_VALUE:
        raise UnfitError
    return text
