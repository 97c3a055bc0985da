"""What members have in common, in ranges and never about a few: a sample that shows nobody."""

from collections.abc import Mapping
from datetime import datetime

from models.segments.conditions import Comparison
from models.segments.decision import Audience
from models.segments.definition import Segment, field_text
from models.segments.fields import Checked, fields
from models.segments.sql import fields_of
from troth.home import Home

LEAST_ALIKE = 10  # people of whom a line speaks at least
_MOST_FIELDS = 4
_MOST_LINES = 5
_BOUNDS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 1_000_000)
_OF_PEOPLE = (("customers", "tier_code"), ("customers", "region_code"))  # shown where a definition speaks of no field


def shown_fields(home: Home, segment: Segment, at: datetime) -> dict[str, Comparison]:
    """The fields that the sample tells of: those that the definition speaks of, else some of the person's."""
    checked = Checked(home, f"segment {segment.name}", at)
    checked.condition(segment.where)
    asked_for = fields_of(segment)
    if not asked_for:
        there = fields(home, "customers")
        asked_for = [Comparison(subject, name, "known", ()) for subject, name in _OF_PEOPLE if name in there]
    return {f"shown_{number}": field for number, field in enumerate(asked_for[:_MOST_FIELDS])}


def sample(
    home: Home, segment: Segment, at: datetime, audience: Audience, shown: Mapping[str, Comparison]
) -> list[dict[str, str | int]]:
    """The most frequent combinations of the fields in ranges; no line is about fewer than ten people."""
    if not shown:
        return []
    checked = Checked(home, f"segment {segment.name}", at)
    kinds = {name: checked.kind(by) for name, by in shown.items()}
    ranges = ", ".join(f"{_range(name, kinds[name])} as {name}" for name in shown)
    names = ", ".join(shown)
    rows = audience.query(
        f"select {names}, count(*) as people from (select {ranges} from matched where not is_test) r "  # noqa: S608 - ours
        f"group by {names} having count(*) >= {LEAST_ALIKE} order by people desc, {names} limit {_MOST_LINES}"
    )
    return [
        {
            **{
                field_text(by): _said(value, kinds[name]) for (name, by), value in zip(shown.items(), row, strict=False)
            },
            "people": int(str(row[-1])),
        }
        for row in rows
    ]


def _range(name: str, kind: str) -> str:
    """The beginning of the range that a value is in."""
    if kind in ("text", "boolean"):
        return name
    if kind in ("date", "timestamp"):
        return f"date_trunc('month', {name})"
    below = " ".join(f"when {name} < {bound} then {low}" for low, bound in zip((0, *_BOUNDS), _BOUNDS, strict=False))
    tenths = f"when {name} < 1 then floor({name} * 10) / 10 " if kind == "number" else ""
    return f"case when {name} is null then null when {name} < 0 then -1 {tenths}{below} else {_BOUNDS[-1]} end"


def _said(value: object, kind: str) -> str:
    if value is None:
        return "missing"
    if kind in ("date", "timestamp"):
        return str(value)[:7]
    if kind in ("text", "boolean"):
        return str(value).lower() if kind == "boolean" else str(value)
    return _numbers_from(float(str(value)), kind == "whole")


def _numbers_from(low: float, is_whole: bool) -> str:
    """The range of numbers that begins here."""
    high = next((bound for bound in _BOUNDS if bound > low), None)
    if low < 0:
        return "below 0"
    if high is None:
        return f"{low:g} and more"
    if not is_whole:
        return f"{low:.1f} to {low + 0.1:.1f}" if low < 1 else f"{low:g} to {high}"
    return f"{low:g}" if high == low + 1 else f"{low:g} to {high - 1}"
