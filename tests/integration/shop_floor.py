"""Events as a shop, its tills and its stores would send them: `S001` and `S002` are stores, `DC1` a distribution centre."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from benchmarks.stock_floor import NOON
from serving.event_log.events import NewEvent


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
