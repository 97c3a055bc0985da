"""A marketer's pages: which segments there are, whom each matches now, what came of it, and what holds for all of them. Counts alone.

Describing one is in `describing.py`, sending one out in `exporting.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import polars as pl
from starlette.responses import Response

from models.errors import ModelsError
from models.segments import described, kept
from models.segments.definition import Segment
from models.segments.fields import EVENTS, SCORES
from models.segments.rules import read_rules
from serving.console import describing, export_work, exporting
from serving.console.counting import (
    MOST_POINTS,
    count_values,
    counted,
    moment,
    segment_named,
    sizes_over_time,
    subjects,
    went_out,
)
from serving.console.exporting import Start
from serving.console.frame import Area, Page, Visit
from serving.console.wording import field_words, told


def area(start: Start = export_work.start) -> Area:
    """`start` lets an export go on by itself, once what is to be done is written down."""
    return Area(
        "segments", "Segments", "/segments", "segments",
        [
            Page("/segments", "segments", _list),
            Page("/segments/exclusions", "segments", _exclusions),
            Page("/segments/fields", "segments", _fields),
            *describing.pages(),
            *exporting.pages(start),
            Page("/segments/{name}", "segments", _one),
            Page("/segments/{name}", "segments", partial(_one, is_now=True), "POST"),
            Page("/segments/{name}/count", "segments", _count, "POST"),
        ],
    )  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A segment of the list. `fault` where its definition cannot be read."""

    name: str
    segment: Segment | None
    fault: str | None
    is_own: bool
    sizes: Sequence[Mapping[str, Any]]


def _list(visit: Visit) -> Response:
    sizes = kept.all_sizes(visit.home)
    rows = [_row(visit, name, sizes.get(name, [])) for name in described.names(visit.home)]
    numbers = [
        {"name": row.name, **size, "as_of_at": moment(size["as_of_at"])} for row in rows for size in reversed(row.sizes)
    ]
    return visit.show("segments.html", "Segments", rows=rows, numbers=numbers, sent=_last_sent(visit), moment=moment)


def _last_sent(visit: Visit) -> dict[str, datetime]:
    """When something last went out, by segment."""
    return {row["name"]: row["exported_at"] for row in reversed(went_out(visit))}


def _row(visit: Visit, name: str, sizes: Sequence[Mapping[str, Any]]) -> Row:
    is_own = described.is_own(visit.home, name)
    try:
        return Row(name, described.load(visit.home, name), None, is_own, sizes[-MOST_POINTS:])
    except ModelsError as error:
        return Row(name, None, str(error), is_own, sizes[-MOST_POINTS:])


def _one(visit: Visit, *, is_now: bool = False) -> Response:
    """Kept sizes at once; counted now where that was asked for, as a script does when the page is there."""
    segment = segment_named(visit)
    counts, fault = None, None
    if is_now:
        try:
            counts = count_values(counted(visit, segment))
        except ModelsError as error:
            fault = str(error)
    sizes = kept.sizes(visit.home, segment.name)
    saves = described.history(visit.home, segment.name)
    return visit.show(
        "segment.html",
        segment.name,
        segment=segment,
        is_own=described.is_own(visit.home, segment.name),
        where=told(segment.where),
        rank=segment.rank and field_words(segment.rank.by.field),
        counts=counts,
        fault=fault,
        newest=sizes[-1] if sizes else None,
        over_time=sizes_over_time(sizes),
        exports=[row for row in went_out(visit) if row["name"] == segment.name],
        gone_out=kept.gone_out(visit.home, segment.name),
        saves=[
            {"saved_at": moment(each.saved_at), "by": each.saved_by, "version": each.version, "hash": each.hash}
            for each in reversed(saves)
        ],
        moment=moment,
    )


def _count(visit: Visit) -> Response:
    segment = segment_named(visit)
    try:
        return visit.fragment("segment_counts.html", **count_values(counted(visit, segment)))
    except ModelsError as error:
        return visit.fragment("wrong.html", detail=str(error))


def _exclusions(visit: Visit) -> Response:
    rules = read_rules()
    lists = [
        {"name": name, "people": pl.scan_parquet(path).select(pl.len()).collect().item()}
        for name, path in kept.exclusion_lists(visit.home).items()
    ]
    return visit.show(
        "segment_exclusions.html",
        "What holds for every segment",
        rules=[{"name": each.name, "description": each.description, "where": told(each.where)} for each in rules.exclusions],
        caps=[
            {
                "channel": "all channels together" if each.channel == "*" else each.channel,
                "at_most": each.at_most,
                "days": each.days,
                "purposes": ", ".join(each.purposes),
            }
            for each in rules.caps
        ],
        groups=[
            {"name": each.name, "percent": each.percent / 100, "purposes": ", ".join(each.purposes), "description": each.description}
            for each in rules.test_groups
        ],
        lists=lists,
    )  # fmt: skip


def _fields(visit: Visit) -> Response:
    return visit.show(
        "segment_fields.html",
        "What a segment may speak of",
        facts=[
            {"field": f"{subject}.{name}", "words": field_words(name), "type": kind}
            for subject, found in subjects(visit).items()
            for name, kind in found.items()
        ],
        events=[
            {
                "event": name,
                "counted": ", ".join(event.counted_in),
                "fields": ", ".join(event.all_fields),
            }
            for name, event in EVENTS.items()
        ],
        scores=list(SCORES),
    )
