"""A segment's conditions in words, for whoever reads no YAML."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from models.segments.conditions import Comparison, Condition, Group, Happened, Lookalike

OPERATORS = {
    "=": "is",
    "!=": "is another than",
    "<": "is less than",
    "<=": "is at most",
    ">": "is more than",
    ">=": "is at least",
    "in": "is one of",
    "known": "is known",
    "missing": "is missing",
}
GROUPS = {
    "all": "All of these hold",
    "any": "Any of these holds",
    "none": "None of these holds",
    "not_all": "Not all of these hold",
}
_WINDOW = re.compile(r"_(\d+)d$")
_COUNTED = {">=": "at least", "<=": "at most", "=": "exactly"}


@dataclass(frozen=True)
class Told:
    """A sentence, and those below it."""

    text: str
    inner: tuple["Told", ...] = ()


def field_words(name: str) -> str:
    """order_count_90d: order count in 90 days."""
    return _WINDOW.sub(r" in \1 days", name).replace("_", " ")


def told(condition: Condition) -> Told:
    """A condition as a sentence, with further ones below it where it is a group."""
    if isinstance(condition, Group):
        kind, inner = unfolded(condition)
        if kind is None:
            only = told(inner[0])
            return Told(f"Not: {only.text}", only.inner)
        return Told(f"{GROUPS[kind]}:", tuple(told(each) for each in inner))
    if isinstance(condition, Comparison):
        return Told(f"{condition.subject.replace('_', ' ')}: {_compared(condition)}")
    if isinstance(condition, Happened):
        return Told(_happened(condition))
    return Told(_alike(condition))


def unfolded(group: Group) -> tuple[str | None, tuple[Condition, ...]]:
    """A group by its word in GROUPS, a `not` over all or any taken into it; None for a `not` over anything else."""
    if group.kind != "not":
        return group.kind, group.conditions
    (inner,) = group.conditions
    if isinstance(inner, Group) and inner.kind != "not":
        return {"all": "not_all", "any": "none"}[inner.kind], inner.conditions
    return None, (inner,)


def _compared(asked: Comparison) -> str:
    values = " or ".join(f"“{value}”" if " " in value or not value else value for value in asked.values)
    return " ".join(part for part in (field_words(asked.field), OPERATORS[asked.operator], values) if part)


def _happened(asked: Happened) -> str:
    often = f"{_COUNTED[asked.operator]} {asked.count:,} {asked.counted if asked.count != 1 else asked.counted[:-1]}"
    if asked.counted not in ("times", "units"):
        often = f"{_COUNTED[asked.operator]} {asked.count / 100:,.2f} {asked.counted.removesuffix('_cents').replace('_', ' ')} in all"
    said = _such(asked.event, asked.filters, often, asked.hours)
    if asked.unless is None:
        return said
    unless = _such(asked.unless.event, asked.unless.filters, "", asked.unless.hours)
    return f"{said}, of each {asked.unless.same} only where not: {unless}"


def _such(event: str, filters: Sequence[Comparison], often: str, hours: int) -> str:
    such = " and ".join(_compared(each) for each in filters)
    window = f"{hours // 24:,} days" if not hours % 24 else f"{hours:,} hours"
    parts = (event.replace("_", " "), f"where {such}," if such else "", often, f"in the last {window}")
    return " ".join(part for part in parts if part)


def _alike(asked: Lookalike) -> str:
    if asked.like is None:
        return f"among the highest {asked.percent} % by the score of {asked.score}"
    return f"scored by {asked.score} as the middle {asked.percent} % of {asked.like} are"
