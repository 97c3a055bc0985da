"""Events in the plain contract: what may be sent as JSON to `/v1/events`, and how each event is read, one by one.

Movements, supplies, picks, counts and levels of stock, orders and refunds (`orders.py`), and consent. A bad event is named by its
position and field, never by a value.
"""

import re
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from serving.event_log.events import NewEvent
from serving.hub.capture import Instant, Said
from serving.intake import orders
from serving.intake.orders import Order, Refund
from serving.intake.terms import Ident, Pieces, Sent, SignedPieces, SomePieces, SourceName, UnreadableError, check_time
from serving.problems import ProblemError
from serving.requests import Text, decoded

MOST_EVENTS = 1_000
# Movements as the mart `stock_movements` names them; openings are counted or derived, never sent.
GOODS_OUT = ("sale", "transfer_out", "destruction", "shipment", "pick")
GOODS_IN = ("return", "receipt", "transfer_in", "web_return")
MOVEMENT_TYPES = (*GOODS_OUT, *GOODS_IN, "adjustment")
SUPPLY_TYPES = ("purchase_order", "transfer")
LEVEL_TYPES = ("available", "on_hand")
PICK_REASONS = ("missing", "damaged", "misplaced", "other")


class _OfPosition(Sent, frozen=True, kw_only=True):
    """What every event of stock says besides: which SKU at which location it is about."""

    location_code: Text
    sku: Text


class Movement(_OfPosition, frozen=True, kw_only=True, omit_defaults=True, tag="movement"):
    """Stock that came or went. `movement_id` is what a file names the same fact by, such as the receipt line: told twice, it moved once."""

    movement_id: Ident
    movement_type: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(MOVEMENT_TYPES)})$")]
    units: SignedPieces
    source_ref: Ident | None = None


class Supply(_OfPosition, frozen=True, kw_only=True, omit_defaults=True, tag="supply"):
    """Pieces on their way: how many of a document are still to come, and by when. A later word on the same document replaces it."""

    supply_id: Ident
    supply_type: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(SUPPLY_TYPES)})$")]
    open_units: Pieces
    expected_at: Instant


class Pick(_OfPosition, frozen=True, kw_only=True, omit_defaults=True, tag="pick"):
    """What came of looking for an order's pieces; `occurred_at` is when the pick ended."""

    pick_id: Ident
    order_ref: Ident
    requested_units: SomePieces
    picked_units: Pieces
    reason_code: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(PICK_REASONS)})$")] | None = None
    started_at: Instant | None = None
    packed_at: Instant | None = None


class Count(_OfPosition, frozen=True, kw_only=True, omit_defaults=True, tag="count"):
    """Pieces that somebody counted."""

    count_id: Ident
    counted_units: Pieces


class StockLevel(_OfPosition, frozen=True, kw_only=True, omit_defaults=True, tag="stock_level"):
    """What a system's own books say there is, absolute, with all it knew by `occurred_at`; it is compared, and changes no stock.

    `available`: a web shop's figure, less what is ordered. `on_hand`: a warehouse system's."""

    level_type: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(LEVEL_TYPES)})$")]
    reported_units: SignedPieces


class UnreadConsent(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="event_type", tag="consent"
):
    """The same as it came: the hub reads what was said."""

    said: msgspec.Raw


OfStock = Movement | Supply | Pick | Count | StockLevel


class ConsentEvent(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="event_type", tag="consent"
):
    """Something a person said about the use of their data, as `/v1/consents` takes it. It goes into the ledger at once."""

    said: Said


class Events(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events of one system; each is taken or refused by itself."""

    source_name: SourceName
    events: Annotated[
        list[Movement | Supply | Pick | Count | StockLevel | Order | Refund | ConsentEvent],
        msgspec.Meta(min_length=1, max_length=MOST_EVENTS),
    ]


class Unread(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events as they came, to be read one by one."""

    source_name: SourceName
    events: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=MOST_EVENTS)]


def read(raw: bytes | msgspec.Raw, source_name: str, received_at: datetime) -> NewEvent | UnreadConsent:
    """One event. Raises: UnreadableError."""
    try:
        sent = decoded(raw, OfStock | Order | Refund | UnreadConsent)  # type: ignore[arg-type]  # msgspec takes a union
    except ProblemError as problem:
        detail = problem.details.detail
        field = re.search(r"`\$\.(\w+)|field `(\w+)`", detail)
        name = (field[1] or field[2]) if field else "event"
        raise UnreadableError(name, detail.replace("body:", "event:", 1)) from None
    if isinstance(sent, UnreadConsent):
        return sent
    assert isinstance(sent, Sent)  # noqa: S101 (what else the union holds was returned)
    for name in ("occurred_at", "recorded_at"):
        at = getattr(sent, name)
        if at is not None:
            check_time(name, at, received_at)
    key, topic, payload = _placed(sent, received_at)
    return NewEvent(
        source_name=source_name,
        event_id=sent.event_id,
        event_type=str(type(sent).__struct_config__.tag),
        key=key,
        occurred_at=sent.occurred_at.astimezone(UTC),
        recorded_at=(sent.recorded_at or received_at).astimezone(UTC),
        received_at=received_at,
        payload=payload,
        topic=topic,
    )


def _placed(sent: Sent, received_at: datetime) -> tuple[str, str, bytes]:
    """Order key, topic and payload of an event that can be. Orders and refunds take the form and the key that a shop's have."""
    if isinstance(sent, Order):
        orders.check_order(sent, received_at)
        return f"order/{sent.order_id}", orders.ORDER_TOPIC, orders.order_body(sent)
    if isinstance(sent, Refund):
        orders.check_refund(sent)
        return f"order/{sent.order_id}", orders.REFUND_TOPIC, orders.refund_body(sent)
    assert isinstance(sent, _OfPosition)  # noqa: S101 (what else there is)
    _check(sent, received_at)
    return f"position/{sent.location_code}/{sent.sku}", "", msgspec.json.encode(sent)


def _check(sent: _OfPosition, received_at: datetime) -> None:
    for name in ("started_at", "packed_at"):
        at = getattr(sent, name, None)
        if at is not None:
            check_time(name, at, received_at)
    if isinstance(sent, Movement):
        if (sent.movement_type in GOODS_OUT and sent.units > 0) or (sent.movement_type in GOODS_IN and sent.units < 0):
            sign = "negative" if sent.movement_type in GOODS_OUT else "positive"
            raise UnreadableError(
                "units", f"expected {sign} units for this movement_type, found the contrary. Correct it."
            )
    elif isinstance(sent, Pick) and sent.picked_units > sent.requested_units:
        raise UnreadableError("picked_units", "expected at most requested_units, found more. Correct it.")
