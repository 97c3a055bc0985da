"""Events in the plain contract: what may be sent as JSON to `/v1/events`, and how each event is read, one by one.

Movements, supplies, picks and counts of stock, and consent. A bad event is named by its position and field, never by a value.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

from serving.hub.capture import Instant, Said
from serving.intake.events import NewEvent
from serving.problems import ProblemError
from serving.requests import Text, decoded

MOST_EVENTS = 1_000
MOST_AHEAD = timedelta(days=1)  # a clock further ahead than this is wrong, not fast
_FIRST_YEAR = 1970
# Movements as the mart `stock_movements` names them; openings are counted or derived, never sent.
GOODS_OUT = ("sale", "transfer_out", "destruction", "shipment", "pick")
GOODS_IN = ("return", "receipt", "transfer_in", "web_return")
MOVEMENT_TYPES = (*GOODS_OUT, *GOODS_IN, "adjustment")
SUPPLY_TYPES = ("purchase_order", "transfer")
PICK_REASONS = ("missing", "damaged", "misplaced", "other")

# No e-mail address fits: ids are kept where contact data is not.
Ident = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:/*=#-]{1,200}$")]
SourceName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Pieces = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Problem = tuple[str, str]  # field, detail


class _Sent(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="event_type"
):
    """What every event of stock says: its sender's id, when it happened there, and which SKU at which location it is about."""

    event_id: Ident
    occurred_at: Instant
    location_code: Text
    sku: Text
    recorded_at: Instant | None = None


class Movement(_Sent, frozen=True, kw_only=True, omit_defaults=True, tag="movement"):
    """Stock that came or went. `movement_id` is what a file names the same fact by, such as the receipt line: told twice, it moved once."""

    movement_id: Ident
    movement_type: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(MOVEMENT_TYPES)})$")]
    units: Annotated[int, msgspec.Meta(ge=-1_000_000, le=1_000_000)]
    source_ref: Ident | None = None


class Supply(_Sent, frozen=True, kw_only=True, omit_defaults=True, tag="supply"):
    """Pieces on their way: how many of a document are still to come, and by when. A later word on the same document replaces it."""

    supply_id: Ident
    supply_type: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(SUPPLY_TYPES)})$")]
    open_units: Pieces
    expected_at: Instant


class Pick(_Sent, frozen=True, kw_only=True, omit_defaults=True, tag="pick"):
    """What came of looking for an order's pieces; `occurred_at` is when the pick ended."""

    pick_id: Ident
    order_ref: Ident
    requested_units: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    picked_units: Pieces
    reason_code: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(PICK_REASONS)})$")] | None = None
    started_at: Instant | None = None
    packed_at: Instant | None = None


class Count(_Sent, frozen=True, kw_only=True, omit_defaults=True, tag="count"):
    """Pieces that somebody counted."""

    count_id: Ident
    counted_units: Pieces


class UnreadConsent(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="event_type", tag="consent"
):
    """The same as it came: the hub reads what was said."""

    said: msgspec.Raw


OfStock = Movement | Supply | Pick | Count


class ConsentEvent(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="event_type", tag="consent"
):
    """Something a person said about the use of their data, as `/v1/consents` takes it. It goes into the ledger at once."""

    said: Said


class Events(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events of one system; each is taken or refused by itself."""

    source_name: SourceName
    events: Annotated[
        list[Movement | Supply | Pick | Count | ConsentEvent], msgspec.Meta(min_length=1, max_length=MOST_EVENTS)
    ]


class Unread(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events as they came, to be read one by one."""

    source_name: SourceName
    events: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=MOST_EVENTS)]


class UnreadableError(Exception):
    """What was sent is not what was described: the field and what was expected of it, without the value."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field, self.detail = field, detail


def read(raw: bytes | msgspec.Raw, source_name: str, received_at: datetime) -> NewEvent | UnreadConsent:
    """One event. Raises: UnreadableError."""
    try:
        sent = decoded(raw, OfStock | UnreadConsent)  # type: ignore[arg-type]  # msgspec takes a union
    except ProblemError as problem:
        detail = problem.details.detail
        field = re.search(r"`\$\.(\w+)|field `(\w+)`", detail)
        name = (field[1] or field[2]) if field else "event"
        raise UnreadableError(name, detail.replace("body:", "event:", 1)) from None
    if isinstance(sent, UnreadConsent):
        return sent
    assert isinstance(sent, Movement | Supply | Pick | Count)  # noqa: S101 (what else the union holds was returned)
    _check(sent, received_at)
    return NewEvent(
        source_name=source_name,
        event_id=sent.event_id,
        event_type=str(type(sent).__struct_config__.tag),
        key=f"position/{sent.location_code}/{sent.sku}",
        occurred_at=sent.occurred_at.astimezone(UTC),
        recorded_at=(sent.recorded_at or received_at).astimezone(UTC),
        received_at=received_at,
        payload=msgspec.json.encode(sent),
    )


def _check(sent: OfStock, received_at: datetime) -> None:
    for name in ("occurred_at", "recorded_at", "started_at", "packed_at"):
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


def check_time(name: str, at: datetime, received_at: datetime) -> None:
    """Raises: UnreadableError for a time that no clock which goes right could tell."""
    if at.year < _FIRST_YEAR or at > received_at + MOST_AHEAD:
        raise UnreadableError(
            name, f"expected a time from {_FIRST_YEAR} to a day from now, found another. Correct the clock."
        )
