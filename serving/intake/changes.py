"""What an event means for stock: the changes it tells, by the same rules as the warehouse's models. Pure.

An event that says nothing of recorded stock (a count, a level some system reports, what a shopper looked at) tells no change: the
warehouse compares and weighs those.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from models.stock.stream import Change, GivenUp, Gone, Moved, Ordered
from serving.event_log.events import Event
from serving.intake.orders import BY_CODE, HOLD_ATTRIBUTE
from serving.intake.plain import Movement, Pick
from troth.clock import microseconds

Scalar = str | int | float | bool | None
_CLOSED = ("fulfilled", "restocked")  # fulfilment states of an order that commits nothing any more
_PUT_BACK = ("return", "legacy_restock")  # kinds of refund after which goods are on a shelf again


class MeaninglessError(Exception):
    """An event that should tell a change of stock and cannot be understood: the field, and what was expected of it."""


@dataclass(frozen=True)
class Places:
    """Names of locations: `by_shop` gives the location code of the shop's id; `stores` are those that pick from their own shelf."""

    by_shop: Mapping[str, str]
    stores: frozenset[str]

    def code(self, location_id: Scalar) -> str | None:
        """The location that an order or a refund names, by the shop's id or by its own code."""
        told = str(location_id)
        return told.removeprefix(BY_CODE) if told.startswith(BY_CODE) else self.by_shop.get(told)


class _Line(msgspec.Struct):
    sku: Scalar = None
    quantity: Scalar = None


class _Attribute(msgspec.Struct):
    name: Scalar = None
    value: Scalar = None


class _Order(msgspec.Struct):
    id: Scalar = None
    admin_graphql_api_id: Scalar = None
    name: Scalar = None
    cancelled_at: Scalar = None
    fulfillment_status: Scalar = None
    location_id: Scalar = None
    test: Scalar = None
    line_items: list[_Line] = []
    note_attributes: list[_Attribute] = []


class _RefundLine(msgspec.Struct):
    id: Scalar = None
    quantity: Scalar = None
    restock_type: Scalar = None
    location_id: Scalar = None
    line_item: _Line | None = None


class _Refund(msgspec.Struct):
    id: Scalar = None
    admin_graphql_api_id: Scalar = None
    order_id: Scalar = None
    refund_line_items: list[_RefundLine] = []


def changes(event: Event, places: Places) -> list[Change]:
    """What an event changes. Raises: MeaninglessError."""
    if event.is_erased or event.event_type not in _READERS:
        return []
    try:
        return _READERS[event.event_type](event, places)
    except msgspec.MsgspecError as fault:
        raise MeaninglessError(
            f"{event.event_type}: expected its form, found otherwise ({type(fault).__name__})."
        ) from None


def hold_of(event: Event) -> str | None:
    """The hold that an order took up, where it names one among its note attributes."""
    if event.event_type != "order" or HOLD_ATTRIBUTE.encode() not in event.payload:
        return None
    try:
        told = msgspec.json.decode(event.payload, type=_Order)
    except msgspec.MsgspecError:
        return None
    return next((str(each.value)[:200] for each in told.note_attributes if each.name == HOLD_ATTRIBUTE), None)


def _of_movement(event: Event, places: Places) -> list[Change]:
    told = msgspec.json.decode(event.payload, type=Movement)
    return [Moved(told.movement_id, told.location_code, told.sku, told.units, microseconds(event.occurred_at))]


def _of_pick(event: Event, places: Places) -> list[Change]:
    """What a store picks leaves with the pick; what a distribution centre picks leaves by its shipping advice."""
    told = msgspec.json.decode(event.payload, type=Pick)
    if not told.picked_units or told.location_code not in places.stores:
        return []
    effect_id = f"pick/{told.pick_id}"
    return [
        Moved(effect_id, told.location_code, told.sku, -told.picked_units, microseconds(event.occurred_at)),
        Gone(effect_id, told.order_ref, told.sku, told.picked_units),
    ]


def _of_order(event: Event, places: Places) -> list[Change]:
    told = msgspec.json.decode(event.payload, type=_Order)
    if told.test is True:
        return []
    lines: dict[str, int] = {}
    for line in told.line_items:
        if line.sku is not None:
            sku = _text(line.sku, "line_items.sku")
            lines[sku] = lines.get(sku, 0) + _pieces(line.quantity)
    return [
        Ordered(
            order_id=f"ecommerce/{_tail(told)}",
            order_name=_text(told.name, "name"),
            updated_at=microseconds(event.occurred_at),
            is_open=told.cancelled_at is None and told.fulfillment_status not in _CLOSED,
            location_code=None if told.location_id is None else places.code(told.location_id),
            lines=lines,
        )
    ]


def _of_refund(event: Event, places: Places) -> list[Change]:
    """A refund is not a restock: goods came back only where it is said; a line that was never sent is given up."""
    told = msgspec.json.decode(event.payload, type=_Refund)
    found: list[Change] = []
    for line in told.refund_line_items:
        if line.line_item is None or line.line_item.sku is None:
            continue
        effect_id = f"ecommerce/{_tail(told)}/{_text(line.id, 'refund_line_items.id')}"
        sku, units = _text(line.line_item.sku, "refund_line_items.sku"), _pieces(line.quantity)
        kind = str(line.restock_type).lower()
        if kind == "cancel":
            found.append(GivenUp(effect_id, f"ecommerce/{_text(told.order_id, 'order_id')}", sku, units))
        elif kind in _PUT_BACK and (location_code := places.code(line.location_id)):
            found.append(Moved(effect_id, location_code, sku, units, microseconds(event.occurred_at)))
    return found


_READERS = {"movement": _of_movement, "pick": _of_pick, "order": _of_order, "refund": _of_refund}


def _tail(told: _Order | _Refund) -> str:
    """The tail of the gid where there is one: plain ids above 2^53 are rounded by many senders."""
    gid = told.admin_graphql_api_id
    return _text(gid.rpartition("/")[2].partition("?")[0] if isinstance(gid, str) and gid else told.id, "id")


def _text(value: Scalar, name: str) -> str:
    text = "" if value is None or isinstance(value, bool) else str(value).strip()
    if not text:
        raise MeaninglessError(f"{name}: expected a text or a number, found none.")
    return text


def _pieces(value: Scalar) -> int:
    try:
        units = int(str(value))
    except ValueError:
        units = -1
    if not 0 <= units <= 1_000_000:
        raise MeaninglessError("quantity: expected pieces from 0 to a million, found otherwise.")
    return units
