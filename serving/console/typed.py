"""What was typed into the form of a segment, read: a definition, or what is wrong at which field."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache

from consent.rule.policy import read_policy
from models.errors import ModelsError
from models.permission import asked_channel
from models.segments.conditions import (
    COUNTED,
    MAXIMUM_HOURS,
    PRESENCE,
    Comparison,
    Condition,
    Group,
    Happened,
    Lookalike,
    Reader,
    SegmentError,
    Unless,
)
from models.segments.decision import CONTACT_POINTS
from models.segments.definition import MAXIMUM_TOP, Rank, Segment, parse, written
from models.segments.fields import EVENTS, OPERATORS_OF, Checked, FieldType
from models.tables import naive
from serving.console.builder import GROUPED, SAME, TIMES, UNITS, Draft, Row
from troth.home import Home

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_EXPECTED = re.compile(r".*?\bexpected (.*)", re.DOTALL)


def segment_of(draft: Draft, home: Home, at: datetime, purposes: Sequence[str], version: int = 1) -> Segment | None:
    """The definition that was typed, checked against what the home has; None where something is wrong, which `faults` then tell.

    `purposes`: those that whoever types may ask for.
    """
    said, faults = draft.said, draft.faults
    if not _NAME.fullmatch(said["name"]):
        faults["name"] = "Expected small letters, digits and underscores, a letter first. Correct it."
    for name in ("description", "owner"):
        if not said[name]:
            faults[name] = "Expected a text, found none. Write one."
    if said["purpose"] not in purposes:
        faults["purpose"] = f"Expected one of {', '.join(purposes) or 'none'}. Choose one."
    if not draft.channels:
        faults["channels"] = "Expected at least one channel, found none. Choose how these people are reached."
    holdout = _whole(said["holdout"] or "0", 0, 90)
    if holdout is None:
        faults["holdout"] = "Expected a whole number of percent from 0 to 90. Correct it."
    checked = Checked(home, "", at=naive(at))
    where = condition_of(draft.where, checked)
    rank = _rank(draft, checked)
    if "purpose" not in faults:
        _check_channels(draft)
    if draft.all_faults or where is None or holdout is None:
        return None
    segment = Segment(
        said["name"],
        version,
        said["description"],
        said["owner"],
        said["purpose"],
        tuple(draft.channels),
        holdout,
        where,
        rank,
    )
    try:
        is_same = parse(written(segment)) == segment
    except SegmentError as error:
        faults["w"] = told_fault(error)
        return None
    if not is_same:
        faults["w"] = "Expected conditions that can be written down, found some that cannot. Edit them as text."
    return segment if is_same else None


def told_fault(error: Exception) -> str:
    """What was expected, found and advised, without the place, which is where it is shown."""
    match = _EXPECTED.fullmatch(str(error))
    return f"Expected {match[1]}" if match else str(error)


@cache
def choices() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The purposes that people are written to for, and the channels they are reached by, as the policy that came with the service has them."""
    policy = read_policy()
    channels = tuple(name for name in CONTACT_POINTS if name in policy.channels)
    pairs = [(purpose, channel) for purpose in policy.purposes for channel in channels]
    return tuple(dict.fromkeys(purpose for purpose, channel in pairs if _is_asked(purpose, channel))), channels


@cache
def _is_asked(purpose: str, channel: str) -> bool:
    try:
        asked_channel(read_policy(), "segment", purpose, channel)
    except ModelsError:
        return False
    return True


def _check_channels(draft: Draft) -> None:
    wrong = [channel for channel in draft.channels if not _is_asked(draft.said["purpose"], channel)]
    if wrong:
        draft.faults["channels"] = (
            f"Expected channels that people are asked about for {draft.said['purpose']}, found {', '.join(wrong)}. "
            "Choose others, or another purpose."
        )


def condition_of(row: Row, checked: Checked) -> Condition | None:
    """The condition of a row; what is wrong stays at it."""
    if row.kind == "group":
        return _group(row, checked)
    made: Comparison | Happened | Lookalike | None
    if row.kind == "fact":
        made = _fact(row)
    elif row.kind == "event":
        made = _event(row)
    else:
        made = _score(row)
    if made is None:
        return None
    _check(row, made, checked)
    if row.faults:
        return None
    return Group("not", (made,)) if row.said.get("not") else made


def _check(row: Row, made: Comparison | Happened | Lookalike, checked: Checked) -> None:
    """Hold a condition against what the home has; what does not fit is told at its field."""
    try:
        if isinstance(made, Comparison):
            _check_values(row, made, checked, checked.kind(made), ("operator", "value"))
        elif isinstance(made, Lookalike):
            checked.condition(made)
        else:
            _check_event(row, made, checked)
    except ModelsError as error:
        row.faults[next(iter(row.said))] = told_fault(error)  # what it is about


def _check_event(row: Row, made: Happened, checked: Checked) -> None:
    try:
        checked.condition(replace(made, filters=(), unless=None))
    except SegmentError as error:
        row.faults["times" if made.event in EVENTS else "event"] = told_fault(error)
        return
    try:
        checked.condition(replace(made, filters=()))
    except SegmentError as error:
        row.faults["unless"] = told_fault(error)
    known = EVENTS[made.event].all_fields
    for number, each in enumerate(made.filters, start=1):
        if kind := known.get(each.field):
            _check_values(row, each, checked, kind, (f"is{number}", f"to{number}"))
            continue
        try:
            checked.condition(replace(made, filters=(each,), unless=None))
        except SegmentError as error:
            row.faults[f"on{number}"] = told_fault(error)


def _check_values(row: Row, each: Comparison, checked: Checked, kind: FieldType, at: tuple[str, str]) -> None:
    at_operator, at_value = at
    try:
        checked.values(each, kind)
    except SegmentError as error:
        row.faults[at_value if each.operator in OPERATORS_OF[kind] else at_operator] = told_fault(error)


def _group(row: Row, checked: Checked) -> Condition | None:
    inner = [condition_of(each, checked) for each in row.rows]
    if row.said["of"] not in GROUPED:
        row.faults["of"] = f"Expected one of {', '.join(GROUPED)}. Choose one."
        return None
    if not inner:
        row.faults["of"] = "Expected at least one condition in this group, found none. Add one, or remove the group."
    known = tuple(each for each in inner if each is not None)
    if not inner or len(known) < len(inner):
        return None
    kind, is_not = GROUPED[row.said["of"]]
    group = Group(kind, known)  # type: ignore[arg-type]
    return Group("not", (group,)) if is_not else group


def _fact(row: Row) -> Comparison | None:
    subject, _, name = row.said["field"].partition(".")
    if not name:
        row.faults["field"] = "Expected a fact, found none. Choose what this is about."
    return _compared(row, (subject, name), row.said["operator"], row.said["value"], "operator", "value")


def _compared(
    row: Row, of: tuple[str, str], operator: str, typed: str, at_operator: str, at_value: str
) -> Comparison | None:
    if operator not in ("=", "!=", "<", "<=", ">", ">=", "in", *PRESENCE):
        row.faults[at_operator] = "Expected a comparison, found none of ours. Choose one."
        return None
    values: tuple[str, ...] | None = ()
    if operator not in PRESENCE:
        values = _values(row, operator, typed, at_value)
    return None if row.faults or values is None else Comparison(*of, operator, values)


def _values(row: Row, operator: str, typed: str, at_value: str) -> tuple[str, ...] | None:
    if not typed:
        row.faults[at_value] = "Expected a value, found none. Write one."
        return None
    if operator != "in" and not typed.startswith('"'):
        return (typed,)
    try:
        read = Reader("", {}).condition("value", f"a.b {'in' if operator == 'in' else '='} {typed}")
    except SegmentError as error:
        row.faults[at_value] = told_fault(error)
        return None
    return read.values if isinstance(read, Comparison) else None


def _event(row: Row) -> Happened | None:
    said = row.said
    if not said["event"]:
        row.faults["event"] = "Expected something that people do, found none. Choose one."
    if said["times"] not in TIMES:
        row.faults["times"] = "Expected a way to count, found none of ours. Choose one."
    count = _whole(said["count"], 0, 999_999_999)
    if count is None:
        row.faults["count"] = "Expected a whole number. Correct it."
    hours = _hours(row, "amount", "unit")
    unless = None
    if said["unless"] and (within := _hours(row, "within", "per")):
        unless = Unless(said["unless"], (), SAME, within)
    filters = [
        _compared(row, ("", each["on"]), each["is"], each["to"], f"is{number}", f"to{number}")
        for number, each in enumerate(row.filters, start=1)
        if _has_field(row, each, number)
    ]
    if row.faults or count is None or hours is None:
        return None
    words, _, counted = said["times"].rpartition(" ")
    return Happened(
        said["event"],
        tuple(each for each in filters if each),
        counted,
        COUNTED[words],
        count,
        hours,
        unless,
    )


def _hours(row: Row, amount: str, unit: str) -> int | None:
    hours = UNITS.get(row.said[unit])
    many = _whole(row.said[amount], 1, MAXIMUM_HOURS // hours) if hours else None
    if hours is None or many is None:
        row.faults[amount] = "Expected a time of an hour to ten years. Correct it."
        return None
    return many * hours


def _has_field(row: Row, filtered: Mapping[str, str], number: int) -> bool:
    if not filtered["on"]:
        row.faults[f"on{number}"] = "Expected something to compare, found none. Choose one, or remove this line."
    return bool(filtered["on"])


def _score(row: Row) -> Lookalike | None:
    percent = _whole(row.said["percent"], 1, 100)
    if percent is None:
        row.faults["percent"] = "Expected a whole number of percent from 1 to 100. Correct it."
    like = row.said["like"]
    if like and not _NAME.fullmatch(like):
        row.faults["like"] = "Expected the name of a segment. Choose one."
    if not row.said["score"]:
        row.faults["score"] = "Expected a score, found none. Choose one."
    return None if row.faults or percent is None else Lookalike(row.said["score"], percent, like or None)


def _rank(draft: Draft, checked: Checked) -> Rank | None:
    by, order, top = (draft.said[name] for name in ("rank_by", "rank_order", "rank_top"))
    if not by:
        if top:
            draft.faults["rank_by"] = "Expected what to rank by, found none. Choose one, or leave the number empty."
        return None
    subject, _, name = by.partition(".")
    number = _whole(top, 1, MAXIMUM_TOP)
    if number is None:
        draft.faults["rank_top"] = "Expected a whole number from 1 on: how many at most. Correct it."
    if order not in ("highest", "lowest"):
        draft.faults["rank_order"] = "Expected highest or lowest. Choose one."
    compared = Comparison(subject, name, "known", ())
    try:
        checked.kind(compared)
    except ModelsError as error:
        draft.faults["rank_by"] = told_fault(error)
        return None
    return Rank(compared, "lowest" if order == "lowest" else "highest", number) if number else None


def _whole(typed: str, least: int, most: int) -> int | None:
    if not (typed.isascii() and typed.isdigit() and len(typed) <= 10):
        return None
    return int(typed) if least <= int(typed) <= most else None
