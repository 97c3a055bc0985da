"""The warehouse's last word on stock, from published tables: one consistent set of versions, named in one file.

Tables are published one after the other. `announce` names those that belong together once all are there; `read_base` reads these, whatever
is being published meanwhile.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.stock.atp import PARTS
from models.stock.stream import Base, Ordered, Place, hashed
from models.tables import versions
from troth.home import Home, write_atomically
from troth.published import POINTER

TABLES = (
    "availability",
    "locations",
    "order_events",
    "order_lines",
    "orders",
    "products",
    "refunds",
    "stock_movements",
)
REMEMBERED = timedelta(days=3)  # how far back a stream may tell again what files told
_ANNOUNCED = "base.json"


class Announced(msgspec.Struct, frozen=True, kw_only=True):
    """Versions of tables that belong together, the log offset up to which they know the stream, and when they were made."""

    offset: int
    recomputed_at: datetime
    tables: dict[str, str]


def announce(home: Home, offset: int, recomputed_at: datetime) -> Announced:
    """Name the published tables as the warehouse's last word. Raises: TrothError when one is not published."""
    told = Announced(offset=offset, recomputed_at=recomputed_at, tables=versions(home, TABLES))
    write_atomically(home.stock / _ANNOUNCED, msgspec.json.encode(told))
    return told


def announced(home: Home) -> Announced | None:
    """What was announced last; None before the first run."""
    path = home.stock / _ANNOUNCED
    return msgspec.json.decode(path.read_bytes(), type=Announced) if path.exists() else None


def renamed(home: Home, table: str, version: str, now: str) -> None:
    """Announce the same again where a version that it names is to be found under another name, because an erasure changed it."""
    told = announced(home)
    if told is not None and told.tables.get(table) == version:
        again = msgspec.structs.replace(told, tables={**told.tables, table: now})
        write_atomically(home.stock / _ANNOUNCED, msgspec.json.encode(again))


def read_base(home: Home, told: Announced) -> Base:
    """The base that was announced. What commits an order is reckoned as the mart `availability` does."""
    availability = _table(home, told, "availability")
    said = (
        _table(home, told, "order_events").filter(pl.col("source_table") == "raw_ecommerce__orders")
        .group_by("order_id").agg(updated_at=pl.col("recorded_at").max().cast(pl.Datetime("us")).dt.epoch("us"))
    )  # fmt: skip
    orders = _table(home, told, "orders").filter(pl.col("source_name") == "ecommerce").join(said, on="order_id")
    movements = _table(home, told, "stock_movements")
    refunds = _table(home, told, "refunds")
    recent = pl.lit(told.recomputed_at.astimezone(UTC).replace(tzinfo=None) - REMEMBERED, dtype=pl.Datetime("us"))
    known = orders.filter(pl.col("order_status").is_in(["open", "partial"]) | (pl.col("known_at") >= recent)).collect()
    lines = (
        _table(home, told, "order_lines").group_by("order_id", "sku").agg(pl.col("quantity_units").sum())
        .join(known.lazy().select("order_id"), on="order_id", how="semi").collect()
    )  # fmt: skip
    gone = (
        movements.filter(pl.col("movement_type").is_in(["pick", "shipment"])).rename({"source_ref": "order_name"})
        .filter(pl.col("order_name").is_in(known["order_name"].implode()) | (pl.col("received_at") >= recent))
        .group_by("order_name", "sku").agg(-pl.col("units").sum()).collect()
    )  # fmt: skip
    given_up = (
        refunds.filter(pl.col("refund_type") == "cancelled")
        .filter(pl.col("order_id").is_in(known["order_id"].implode()) | (pl.col("received_at") >= recent))
        .group_by("order_id", "sku").agg(pl.col("quantity_units").sum()).collect()
    )  # fmt: skip
    booked = pl.concat(
        [
            movements.filter(pl.col("received_at") >= recent).select(effect_id="movement_id"),
            refunds.filter(pl.col("received_at") >= recent).select(effect_id="refund_line_id"),
        ]
    ).collect()
    parts = [part for part in PARTS if part in availability.collect_schema() and part != "held_units"]
    by_order = _by_name(lines)
    frame = availability.select(
        pl.col("location_code", "sku").cast(pl.String),
        pl.col(parts).cast(pl.Int64),
        last_event_at=pl.col("last_movement_at").cast(pl.Datetime("us")).dt.epoch("us").fill_null(0),
    )
    return Base(
        frame.collect(),
        {row["order_id"]: _ordered(row, by_order) for row in known.iter_rows(named=True)},
        _by_name(gone),
        _by_name(given_up),
        np.unique(hashed(booked["effect_id"].cast(pl.String))),
        told.offset,
    )


BELIEF = "pred_stock_belief"


class Believed(msgspec.Struct, frozen=True, kw_only=True):
    """What is believed of positions (location_code, sku): P(found >= q), a row each and a column for each q from 1; of when, and by which version."""

    version: str
    places: list[Place]
    found: NDArray[np.float64]
    as_of_at: datetime


def belief_version(home: Home) -> str | None:
    """The version of the belief that is published; None before there is one."""
    pointer = home.published / BELIEF / POINTER
    return pointer.read_text().strip() if pointer.exists() else None


def read_belief(home: Home, version: str) -> Believed:
    """A published belief."""
    frame = pl.read_parquet(home.published / BELIEF / version)
    columns = sorted(name for name in frame.columns if name.startswith("p_found_"))
    newest = frame["as_of_at"].max()
    return Believed(
        version=version,
        places=frame.select(pl.col("location_code", "sku").cast(pl.String)).rows(),
        found=frame.select(pl.col(columns).cast(pl.Float64)).to_numpy(),
        as_of_at=newest.replace(tzinfo=UTC) if isinstance(newest, datetime) else datetime.fromtimestamp(0, UTC),
    )


def _table(home: Home, told: Announced, name: str) -> pl.LazyFrame:
    return pl.scan_parquet(home.published / name / f"{told.tables[name]}.parquet")


def _by_name(units: pl.DataFrame) -> Mapping[str, dict[str, int]]:
    """Rows of (name, SKU, units) as a mapping of mappings."""
    found: dict[str, dict[str, int]] = {}
    for name, sku, count in units.iter_rows():
        found.setdefault(name, {})[sku] = int(count)
    return found


def _ordered(row: Mapping[str, object], lines: Mapping[str, dict[str, int]]) -> Ordered:
    order_id = str(row["order_id"])
    return Ordered(
        order_id=order_id,
        order_name=str(row["order_name"]),
        updated_at=int(str(row["updated_at"])),
        is_open=row["order_status"] in ("open", "partial"),
        location_code=None if row["location_code"] is None else str(row["location_code"]),
        lines=lines.get(order_id, {}),
    )


def places_of(home: Home, told: Announced) -> tuple[dict[str, str], frozenset[str]]:
    """Location codes by the shop's ids, and the codes of stores."""
    frame = _table(home, told, "locations").select("location_code", "location_type", "ecommerce_location_id").collect()
    shops = frame.drop_nulls("ecommerce_location_id")
    stores = frame.filter(pl.col("location_type") == "store")["location_code"]
    return dict(zip(shops["ecommerce_location_id"].cast(pl.String), shops["location_code"], strict=True)), frozenset(
        stores
    )
