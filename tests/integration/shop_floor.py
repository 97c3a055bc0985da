"""A home with published stock, small and by hand: two stores, one distribution centre, three SKUs; and events as a shop would send them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from models.stock.base import announce
from models.tables import write
from serving.intake.events import NewEvent
from troth.home import Home

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
_AT = pl.Datetime("us")
_LOCATIONS = [("S001", "store", "701"), ("S002", "store", "702"), ("DC1", "distribution_center", "801")]
_COLUMNS: Mapping[str, Mapping[str, Any]] = {
    "availability": {"location_code": pl.String, "sku": pl.String, "on_hand_units": pl.Int64, "committed_units": pl.Int64,
                     "safety_units": pl.Int64, "last_movement_at": _AT},
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
    """Publish and announce. `orders`: name to (location, SKU to units), all open, none gone. `movements`: id to (location, SKU, units, source)."""
    naive = at.replace(tzinfo=None)
    orders, movements = orders or {}, movements or {}
    committed: dict[tuple[str, str], int] = {}
    for location, lines in orders.values():
        for sku, units in lines.items():
            committed[location, sku] = committed.get((location, sku), 0) + units
    ids = {name: f"ecommerce/{name.strip('#')}" for name in orders}
    rows: Mapping[str, list[tuple[object, ...]]] = {
        "availability": [
            (*place, units, committed.get(place, 0), 1, naive) for place, units in sorted(on_hand.items())
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
        write(home, table, pl.DataFrame(rows[table], schema=dict(columns), orient="row"))
    announce(home, offset, at)


def movement(number: int, location: str, sku: str, units: int, movement_id: str | None = None) -> NewEvent:
    told = {
        "event_type": "movement", "event_id": f"event-{number}", "occurred_at": NOON.isoformat(), "location_code": location, "sku": sku,
        "movement_id": movement_id or f"till/{number}", "movement_type": "sale" if units < 0 else "return", "units": units,
    }  # fmt: skip
    return _event("till", f"event-{number}", "movement", f"position/{location}/{sku}", told)


def pick(number: int, location: str, sku: str, units: int, order_name: str) -> NewEvent:
    told = {
        "event_type": "pick", "event_id": f"pick-{number}", "occurred_at": NOON.isoformat(), "location_code": location, "sku": sku,
        "pick_id": str(number), "order_ref": order_name, "requested_units": units, "picked_units": units,
    }  # fmt: skip
    return _event("wms", f"pick-{number}", "pick", f"position/{location}/{sku}", told)


def order(number: int, location_id: str, lines: Mapping[str, int], at: datetime = NOON, **more: object) -> NewEvent:
    told = {
        "id": number, "name": f"#{number}", "updated_at": at.isoformat(), "cancelled_at": None, "fulfillment_status": None, "location_id": location_id,
        "line_items": [{"sku": sku, "quantity": units} for sku, units in lines.items()], **more,
    }  # fmt: skip
    return _event("ecommerce", f"order-{number}-{at.timestamp()}", "order", f"order/{number}", told, at)


def refund(number: int, order_number: int, sku: str, units: int, kind: str, location_id: str | None = None) -> NewEvent:
    line = {
        "id": number,
        "quantity": units,
        "restock_type": kind,
        "location_id": location_id,
        "line_item": {"sku": sku},
    }
    told = {"id": number, "order_id": order_number, "refund_line_items": [line]}
    return _event("ecommerce", f"refund-{number}", "refund", f"order/{order_number}", told)


def _event(source: str, event_id: str, kind: str, key: str, told: object, at: datetime = NOON) -> NewEvent:
    return NewEvent(
        source_name=source, event_id=event_id, event_type=kind, key=key, occurred_at=at, recorded_at=at, received_at=at,
        payload=msgspec.json.encode(told),
    )  # fmt: skip


def home_at(folder: Path) -> Home:
    home = Home(folder)
    home.published.mkdir(parents=True, exist_ok=True)
    return home
