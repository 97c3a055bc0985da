"""Where stock differs: breaks as they are published, and counters beside the movements they count. What a break is, the warehouse decides."""

import os
from dataclasses import dataclass
from typing import Any

import polars as pl

from troth.home import Home
from troth.published import current, publish

COUNTERS = "stock_positions"
_COUNTED = ("on_hand_units", "movement_count", "last_movement_at")


@dataclass(frozen=True)
class Breaks:
    """Breaks, dearest first, and their sums by type and owner."""

    breaks: pl.DataFrame
    sums: pl.DataFrame


def breaks(
    home: Home,
    is_open: bool | None = True,
    break_type: str | None = None,
    owner: str | None = None,
    location: str | None = None,
) -> Breaks:
    """What differs, either sign alike. Raises: TrothError when nothing has been published."""
    found = pl.read_parquet(current(home, "stock_breaks"))
    asked = (("is_open", is_open), ("break_type", break_type), ("owner_role", owner), ("location_code", location))
    for column, wanted in asked:
        if wanted is not None:
            found = found.filter(pl.col(column) == wanted)
    dearest = [pl.col("value_cents").abs().fill_null(0), pl.col("units").abs(), pl.col("age_days")]
    found = found.sort([*dearest, "stock_break_id"], descending=[True, True, True, False])
    sums = found.group_by("break_type", "owner_role").agg(
        breaks=pl.len().cast(pl.Int64),
        units_more=pl.col("units").filter(pl.col("units") > 0).sum(),
        units_less=pl.col("units").filter(pl.col("units") < 0).sum(),
        value_cents=pl.col("value_cents").sum(),
        value_either_way_cents=pl.col("value_cents").abs().sum(),
        oldest_days=pl.col("age_days").max(),
    )
    return Breaks(
        found, sums.sort("value_either_way_cents", "break_type", "owner_role", descending=[True, False, False])
    )


def rebuilt(home: Home) -> pl.DataFrame:
    """Counters as their movements add up, one row per location and SKU. Raises: TrothError when no movements have been published."""
    movements = pl.scan_parquet(current(home, "stock_movements"))
    counted = movements.group_by("location_code", "sku").agg(
        on_hand_units=pl.col("units").sum(),
        movement_count=pl.len().cast(pl.Int64),
        last_movement_at=pl.col("occurred_at").max(),
    )
    return counted.sort("location_code", "sku").collect()


def differences(home: Home) -> pl.DataFrame:
    """Counters that are not the sum of their movements: location_code, sku, counter_units, movement_units, by how much they are apart.

    Raises: TrothError when counters or movements have not been published.
    """
    counters = pl.read_parquet(current(home, COUNTERS), columns=["location_code", "sku", *_COUNTED])
    both = counters.join(rebuilt(home), on=["location_code", "sku"], how="full", coalesce=True, suffix="_of_movements")
    apart = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_of_movements")) for name in _COUNTED)
    return (
        both.filter(apart)
        .select(
            "location_code",
            "sku",
            counter_units="on_hand_units",
            movement_units="on_hand_units_of_movements",
            apart_units=pl.col("on_hand_units").fill_null(0) - pl.col("on_hand_units_of_movements").fill_null(0),
        )
        .sort("location_code", "sku")
    )


def rebuild(home: Home) -> int:
    """Publish the counters again as their movements add up, and what follows from them within the table; gives how many were wrong.

    A position without movements is gone, one without a counter appears without what was reported of it, which the next run adds.
    """
    wrong = differences(home).height
    if wrong:
        draft = home.published / ".drafts" / f"{COUNTERS}.{os.getpid()}.parquet"
        draft.parent.mkdir(parents=True, exist_ok=True)
        _mended(pl.read_parquet(current(home, COUNTERS)), rebuilt(home)).write_parquet(draft, compression="zstd")
        publish(home, COUNTERS, draft)
    return wrong


def _mended(counters: pl.DataFrame, counted: pl.DataFrame) -> pl.DataFrame:
    """What was published, with what the movements say in place of what was counted."""
    cost = pl.when(pl.col("on_hand_units_before") != 0).then(pl.col("value_cents") // pl.col("on_hand_units_before"))
    before = counters.rename({name: f"{name}_before" for name in _COUNTED})
    mended: dict[str, Any] = {
        "in_flight_units": pl.col("on_hand_units") - pl.col("told_units"),
        "value_cents": pl.when(pl.col("on_hand_units") == pl.col("on_hand_units_before"))
        .then("value_cents")
        .otherwise(pl.col("on_hand_units") * cost),
    }
    joined = counted.join(before, on=["location_code", "sku"], how="left", maintain_order="left").with_columns(**mended)
    return joined.select(counters.columns).cast(counters.schema)
