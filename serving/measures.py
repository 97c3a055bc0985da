"""How well promises, stock and hands did: the published measures as they are asked for, and the age of what answers rested on.

Read from `fulfilment_measures` and from what services counted; defined in dbt_project/README.md and nowhere here.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import Literal

import msgspec
import polars as pl

from models.tables import read, versions
from serving.errors import ServingError
from serving.promising.ages import BOUNDS, Aged, read_ages
from troth.home import Home

TABLE = "fulfilment_measures"
By = Literal["location", "method", "route", "category", "week"]
GRAINS: dict[str, tuple[str, ...]] = {
    "location": ("location_code",),
    "method": ("fulfillment_method",),
    "route": ("location_code", "fulfillment_method"),
    "category": ("category_name",),
    "week": ("period_start",),
}
PERCENTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95}
_PLACES = ("location_code", "fulfillment_method", "category_name")
_WHAT = ("measure_name", "statistic_type", "unit_type")
_VALUES = ("numerator", "denominator", "value")


class MeasureError(ServingError):
    """A measure nobody can be asked for."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One number: a share, a mean or a percentile, of how many. Of what it does not name it is of all; a percentile has no numerator."""

    measure_name: str
    statistic_type: str
    value: float
    unit_type: str
    numerator: int | None
    denominator: int
    period_start: date | None = None
    location_code: str | None = None
    fulfillment_method: str | None = None
    category_name: str | None = None
    answer_type: str | None = None


class Measures(msgspec.Struct, frozen=True, kw_only=True):
    """Measures by one dimension or overall. `left_out`: what was asked for and cannot be told so, and why."""

    by: str | None
    since: date | None
    table_version: str
    measures: list[Measured]
    left_out: list[str]


def measured(home: Home, by: By | None = None, since: date | None = None) -> Measures:
    """The measures, from the week on in which `since` is. What stands now has no weeks and is told as it stands.

    Raises: MeasureError for a dimension there is none of; TrothError where nothing was published.
    """
    if by is not None and by not in GRAINS:
        raise MeasureError(f"measures by: expected one of {', '.join(GRAINS)}, found another. Choose one of them.")
    grain = GRAINS[by] if by else ()
    monday = None if since is None else since - timedelta(days=since.weekday())
    frame = read(home, TABLE, (*_WHAT, "period_type", "period_start", *_PLACES, *_VALUES))
    told = frame.filter((pl.col(name) != "*" if name in grain else pl.col(name) == "*") for name in _PLACES)
    left_out: list[str] = []
    if by == "week":
        told = told.filter(pl.col("period_type") == "week", *([pl.col("period_start") >= monday] if monday else []))
        left_out.append("what stands now: it has no weeks")
    elif monday is None:
        told = told.filter(pl.col("period_type") != "week")
    else:
        now = told.filter(pl.col("period_type") == "now")
        weeks = told.filter(pl.col("period_type") == "week", pl.col("period_start") >= monday)
        told = pl.concat([_summed(weeks, grain), now.select(*_WHAT, *grain, *_VALUES)])
        left_out.append("percentiles since a day: they cannot be summed; ask by week")
    rows = told.select(*_WHAT, *grain, *_VALUES).sort(*grain, "measure_name", "statistic_type")
    measures = [msgspec.convert(row, Measured) for row in rows.iter_rows(named=True)]
    if by in (None, "week"):
        measures += _stale(read_ages(home), by == "week", monday)
    return Measures(
        by=by, since=since, table_version=versions(home, [TABLE])[TABLE], measures=measures, left_out=left_out
    )


def _summed(weeks: pl.DataFrame, grain: Sequence[str]) -> pl.DataFrame:
    sums = weeks.filter(pl.col("numerator").is_not_null()).group_by(*_WHAT, *grain)
    return sums.agg(pl.col("numerator", "denominator").sum()).select(
        *_WHAT, *grain, "numerator", "denominator", value=pl.col("numerator") / pl.col("denominator")
    )


def _stale(ages: Sequence[Aged], by_week: bool, monday: date | None) -> Iterator[Measured]:
    """How old the stock was that answers rested on when they were given: of all, and of each kind. A percentile is the upper end of its bucket,
    and so at most a quarter too high."""
    counts: dict[tuple[date | None, str | None], Counter[int]] = {}
    seconds: dict[tuple[date | None, str | None], float] = {}
    for each in ages:
        week = _week_of(each.hour)
        if monday is not None and week < monday:
            continue
        for kind in (None, each.kind):
            group = (week if by_week else None, kind)
            counts.setdefault(group, Counter())[each.bucket] += each.answers
            seconds[group] = seconds.get(group, 0.0) + each.seconds
    for period, kind in sorted(counts, key=lambda group: (group[0] or date.min, group[1] or "")):
        buckets = counts[period, kind]
        total = round(seconds[period, kind])
        mean = {"mean": seconds[period, kind] / buckets.total()}
        for name, value in (mean | {name: _percentile(buckets, share) for name, share in PERCENTILES.items()}).items():
            yield Measured(
                measure_name="answer_staleness", statistic_type=name, value=value, unit_type="seconds", answer_type=kind,
                numerator=total if name == "mean" else None, denominator=buckets.total(), period_start=period,
            )  # fmt: skip


def _percentile(buckets: Counter[int], share: float) -> float:
    wanted, seen = share * buckets.total(), 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= wanted:
            break
    return BOUNDS[min(bucket, len(BOUNDS) - 1)]


def _week_of(at: datetime) -> date:
    day = at.date()
    return day - timedelta(days=day.weekday())
