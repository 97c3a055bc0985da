"""How well promises, stock and hands did: the published measures as they are asked for, and the age of what answers rested on.

Read from `fulfilment_measures` and from the book of promises; defined in dbt_project/README.md and nowhere here.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from math import ceil
from typing import Literal

import msgspec
import polars as pl

from models.promise.book import Book
from models.tables import read, versions
from serving.errors import ServingError
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
        measures += _stale(_ages(home), by == "week", monday)
    return Measures(
        by=by, since=since, table_version=versions(home, [TABLE])[TABLE], measures=measures, left_out=left_out
    )


def _summed(weeks: pl.DataFrame, grain: Sequence[str]) -> pl.DataFrame:
    sums = weeks.filter(pl.col("numerator").is_not_null()).group_by(*_WHAT, *grain)
    return sums.agg(pl.col("numerator", "denominator").sum()).select(
        *_WHAT, *grain, "numerator", "denominator", value=pl.col("numerator") / pl.col("denominator")
    )


def _ages(home: Home) -> list[tuple[datetime, float]]:
    """Of promises that were kept in the book: those with a hold. Answers that set nothing aside leave no trace."""
    path = home.stock / "promises.db"
    if not path.exists():
        return []
    book = Book(path)
    try:
        return book.ages()
    finally:
        book.close()


def _stale(ages: Sequence[tuple[datetime, float]], by_week: bool, monday: date | None) -> Iterator[Measured]:
    """How old the stock was that promises rested on, when they were given."""
    found: dict[date | None, list[float]] = {}
    for given_at, seconds in ages:
        week = _week_of(given_at)
        if monday is None or week >= monday:
            found.setdefault(week if by_week else None, []).append(seconds)
    for period, each in sorted(found.items(), key=lambda item: item[0] or date.min):
        each.sort()
        total = round(sum(each))
        statistics = {name: each[ceil(share * len(each)) - 1] for name, share in PERCENTILES.items()}
        for name, value in {"mean": total / len(each), **statistics}.items():
            yield Measured(
                measure_name="answer_staleness", statistic_type=name, value=value, unit_type="seconds",
                numerator=total if name == "mean" else None, denominator=len(each), period_start=period,
            )  # fmt: skip


def _week_of(at: datetime) -> date:
    day = at.astimezone(UTC).date()
    return day - timedelta(days=day.weekday())
