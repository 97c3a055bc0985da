"""What recorded stock was at a time, as it was known at another: sums over published movements, those that no longer stand included.

Valid time is when goods moved (`occurred_at`), known time when that was received here (`known_at` until `superseded_at`). Nothing here
decides what a movement is: that is the work of the warehouse.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from troth.home import Home
from troth.published import current

QUESTION: dict[str, pl.DataType] = {
    "location_code": pl.String(),
    "sku": pl.String(),
    "valid_at": pl.Datetime("us"),
    "known_at": pl.Datetime("us"),
}
MOVEMENTS, SUPERSEDED = "stock_movements", "superseded_movements"
_READ = ("location_code", "sku", "units", "occurred_at", "known_at")


@dataclass(frozen=True)
class StockAsOf:
    """Recorded stock of one SKU at one location. `on_hand_units` is None where no movement by then was known."""

    location_code: str
    sku: str
    valid_at: datetime
    known_at: datetime
    on_hand_units: int | None
    movement_count: int
    last_movement_at: datetime | None
    last_known_at: datetime | None


def stock_as_of(home: Home, location_code: str, sku: str, valid_at: datetime, known_at: datetime) -> StockAsOf:
    """What was on hand at `valid_at`, as it was known at `known_at`; times with their zone.

    Raises: TrothError when no movements have been published.
    """
    asked = pl.DataFrame([(location_code, sku, _naive(valid_at), _naive(known_at))], schema=QUESTION, orient="row")
    answer: dict[str, Any] = stock_as_of_frame(home, asked).row(0, named=True)
    zoned: dict[str, Any] = {
        name: value.replace(tzinfo=UTC) if isinstance(value, datetime) else value for name, value in answer.items()
    }
    return StockAsOf(**zoned)


def stock_as_of_frame(home: Home, asked: pl.DataFrame) -> pl.DataFrame:
    """The same for many questions (`QUESTION`, times naive UTC), in their order: on_hand_units, movement_count and the newest times behind it.

    Raises: TrothError when no movements have been published.
    """
    return as_of([current(home, MOVEMENTS), current(home, SUPERSEDED)], asked)


def as_of(movements: Sequence[Path], asked: pl.DataFrame) -> pl.DataFrame:
    """The same over given files of movements; a file without `superseded_at` holds what still stands."""
    numbered = asked.select(pl.col(name).cast(kind) for name, kind in QUESTION.items()).with_row_index("question")
    positions = numbered.select("location_code", "sku").unique()
    known = pl.concat(
        [_movements(path).join(positions.lazy(), on=["location_code", "sku"], how="semi") for path in movements]
    )
    counted = (
        numbered.lazy()
        .join(known, on=["location_code", "sku"], suffix="_of_movement")
        .filter(
            pl.col("occurred_at") <= pl.col("valid_at"),
            pl.col("known_at_of_movement") <= pl.col("known_at"),
            pl.col("superseded_at").is_null() | (pl.col("superseded_at") > pl.col("known_at")),
        )
        .group_by("question")
        .agg(
            on_hand_units=pl.col("units").sum(),
            movement_count=pl.len().cast(pl.Int64),
            last_movement_at=pl.col("occurred_at").max(),
            last_known_at=pl.col("known_at_of_movement").max(),
        )
        .collect()
    )
    answers = numbered.join(counted, on="question", how="left", maintain_order="left")
    return answers.drop("question").with_columns(pl.col("movement_count").fill_null(0))


def _movements(path: Path) -> pl.LazyFrame:
    scanned = pl.scan_parquet(path)
    ended = "superseded_at" in scanned.collect_schema().names()
    until = pl.col("superseded_at") if ended else pl.lit(None, pl.Datetime("us")).alias("superseded_at")
    return scanned.select(*_READ, until)


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
