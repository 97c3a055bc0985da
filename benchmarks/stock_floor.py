"""Published stock as the warehouse would publish it, made of a few mappings: for benchmarks and tests of what happens online."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl

from models.stock.base import announce
from models.tables import write
from troth.home import Home

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
_AT = pl.Datetime("us")
_LOCATIONS = [("S001", "store", "701"), ("S002", "store", "702"), ("DC1", "distribution_center", "801")]
_COLUMNS: Mapping[str, Mapping[str, Any]] = {
    "availability": {"location_code": pl.String, "sku": pl.String, "on_hand_units": pl.Int64, "committed_units": pl.Int64,
                     "safety_units": pl.Int64, "last_movement_at": _AT, "as_of_at": _AT},
    "locations": {"location_code": pl.String, "location_type": pl.String, "ecommerce_location_id": pl.String},
    "order_events": {"order_id": pl.String, "source_table": pl.String, "recorded_at": _AT},
    "order_lines": {"order_id": pl.String, "sku": pl.String, "quantity_units": pl.Int64},
    "orders": {"order_id": pl.String, "order_name": pl.String, "source_name": pl.String, "order_status": pl.String,
               "location_code": pl.String, "known_at": _AT},
    "products": {"sku": pl.String},
    "refunds": {"refund_line_id": pl.String, "order_id": pl.String, "sku": pl.String, "quantity_units": pl.Int64,
                "refund_type": pl.String, "received_at": _AT},
    "stock_movements": {"movement_id": pl.String, "movement_type": pl.String, "location_code": pl.String, "sku": pl.String, "units": pl.Int64,
                        "source_ref": pl.String, "source_name": pl.String, "received_at": _AT},
}  # fmt: skip


def publish_stock(
    home: Home,
    on_hand: Mapping[tuple[str, str], int],
    offset: int = 0,
    at: datetime = NOON,
    orders: Mapping[str, tuple[str, Mapping[str, int]]] | None = None,
    movements: Mapping[str, tuple[str, str, int, str]] | None = None,
) -> None:
    """Publish and announce. `on_hand`: by (location, SKU), one piece of each safety stock. `orders`: name to (location, SKU to units), all open, none gone. `movements`: id to (location, SKU, units, source)."""
    home.published.mkdir(parents=True, exist_ok=True)
    naive = at.replace(tzinfo=None)
    orders, movements = orders or {}, movements or {}
    committed: dict[tuple[str, str], int] = {}
    for location, lines in orders.values():
        for sku, units in lines.items():
            committed[location, sku] = committed.get((location, sku), 0) + units
    ids = {name: f"ecommerce/{name.strip('#')}" for name in orders}
    rows: Mapping[str, list[tuple[object, ...]]] = {
        "availability": [
            (*place, units, committed.get(place, 0), 1, naive, naive) for place, units in sorted(on_hand.items())
        ],
        "locations": list(_LOCATIONS),
        "order_events": [(ids[name], "raw_ecommerce__orders", naive) for name in orders],
        "order_lines": [(ids[name], sku, units) for name, (_, lines) in orders.items() for sku, units in lines.items()],
        "orders": [(ids[name], name, "ecommerce", "open", place, naive) for name, (place, _) in orders.items()],
        "products": [("tent",), ("rope",), ("stove",)],
        "refunds": [],
        "stock_movements": [
            (each, "sale", place, sku, units, "", source, naive)
            for each, (place, sku, units, source) in movements.items()
        ],
    }
    for table, columns in _COLUMNS.items():
        frame = pl.DataFrame(rows[table], schema=dict(columns), orient="row")
        if table == "availability":
            free = pl.col("on_hand_units") - pl.col("committed_units") - pl.col("safety_units")
            frame = frame.with_columns(available_units=free.clip(0))
            write(home, "ftr_sku_location_availability", _features(frame))
        write(home, table, frame)
    announce(home, offset, at)


def _features(availability: pl.DataFrame) -> pl.DataFrame:
    """The rows of `ftr_sku_location_availability` that follow: three pieces of each sold in 28 days."""
    return availability.select(
        "sku", "location_code", "on_hand_units", "available_units", feature_at="as_of_at", sold_units_28d=pl.lit(3, pl.Int64),
        days_since_last_movement=pl.lit(0, pl.Int64), has_stock=pl.col("available_units") > 0,
    )  # fmt: skip
