"""Orders and refunds in the plain contract, and the same in the form a web shop sends: one form in the log, for all who read it.

Sums of an order are reckoned here from its lines, so that no sender can contradict itself. Who buys is an account at most, never contact data.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from serving.hub.capture import Instant
from serving.intake.terms import Cents, Ident, Sent, SomePieces, UnreadableError, check_time
from serving.requests import Text

HOLD_ATTRIBUTE = "troth_hold"  # how an order names the hold its basket was kept in
BY_CODE = "code/"  # before a location's own code, where a shop would write its id of the location
ORDER_TOPIC, REFUND_TOPIC = "orders/updated", "refunds/create"
_MOST_LINES = 1_000
METHODS = ("ship_to_home", "ship_from_store", "click_and_collect", "curbside", "drop_ship", "in_store")
FULFILLED = ("fulfilled", "partial", "restocked")
PAID = ("pending", "authorized", "partially_paid", "paid", "partially_refunded", "refunded", "voided")
CANCEL_REASONS = ("customer", "declined", "fraud", "inventory", "other", "staff")
RESTOCKED = ("cancel", "return", "no_restock")
Currency = Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]


class OrderedItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of an order. Money is of the whole line but for the price, which is of one piece."""

    line_id: Ident
    sku: Text
    units: SomePieces
    unit_price_cents: Cents
    discount_cents: Cents = 0
    tax_cents: Cents = 0

    @property
    def net_cents(self) -> int:
        return self.units * self.unit_price_cents - self.discount_cents


class Order(Sent, frozen=True, kw_only=True, omit_defaults=True, tag="order"):
    """An order as it stands at `occurred_at`, whole: of two versions the later one counts. `order_id` is what the shop names it by,
    in webhooks and files too: told twice, it is ordered once. `placed_on`: web, app, pos, or a marketplace. `hold_id`: of its basket."""

    order_id: Ident
    order_name: Ident
    placed_at: Instant
    lines: Annotated[tuple[OrderedItem, ...], msgspec.Meta(min_length=1, max_length=_MOST_LINES)]
    currency_code: Currency
    location_code: Text | None = None
    placed_on: Ident = "web"
    marketplace_order_id: Ident | None = None
    account_id: Ident | None = None
    hold_id: Ident | None = None
    fulfillment_method: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(METHODS)})$")] = "ship_to_home"
    fulfillment_status: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(FULFILLED)})$")] | None = None
    financial_status: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(PAID)})$")] | None = None
    cancelled_at: Instant | None = None
    cancel_reason: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(CANCEL_REASONS)})$")] | None = None
    shipping_cents: Cents = 0
    shipping_tax_cents: Cents = 0
    is_test: bool = False


class RefundedItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A refunded line. A refund is not a restock: `return` goods are on the shelf of `location_code` again, `cancel` were never sent."""

    refund_line_id: Ident
    line_id: Ident
    sku: Text
    units: SomePieces
    restock_type: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(RESTOCKED)})$")]
    net_cents: Cents
    tax_cents: Cents = 0
    location_code: Text | None = None


class Refund(Sent, frozen=True, kw_only=True, omit_defaults=True, tag="refund"):
    """Money given back at `occurred_at`, and what became of the goods. `refund_id` is what the shop names it by. `adjustment_cents`:
    of what was paid, for no line and no shipping; negative where less was paid than was due."""

    refund_id: Ident
    order_id: Ident
    currency_code: Currency
    paid_cents: Cents
    lines: Annotated[tuple[RefundedItem, ...], msgspec.Meta(max_length=_MOST_LINES)] = ()
    shipping_cents: Cents = 0
    shipping_tax_cents: Cents = 0
    adjustment_cents: Annotated[int, msgspec.Meta(ge=-1_000_000_000, le=1_000_000_000)] = 0


def check_order(order: Order, received_at: datetime) -> None:
    """Raises: UnreadableError for an order that cannot be."""
    for name in ("placed_at", "cancelled_at"):
        at = getattr(order, name)
        if at is not None:
            check_time(name, at, received_at)
            if at > order.occurred_at:
                raise UnreadableError(name, "expected a time up to occurred_at, found a later one. Correct it.")
    if order.cancel_reason is not None and order.cancelled_at is None:
        raise UnreadableError("cancel_reason", "expected it beside cancelled_at, found it alone. Send both.")
    _check_ids("line_id", [line.line_id for line in order.lines])
    if any(line.net_cents < 0 for line in order.lines):
        raise UnreadableError("discount_cents", "expected at most what the line costs, found more. Correct it.")


def check_refund(refund: Refund) -> None:
    """Raises: UnreadableError for a refund that cannot be."""
    _check_ids("refund_line_id", [line.refund_line_id for line in refund.lines])


def order_body(order: Order) -> bytes:
    """The order as a web shop would send it."""
    net = sum(line.net_cents for line in order.lines)
    tax = sum(line.tax_cents for line in order.lines) + order.shipping_tax_cents
    body: dict[str, Any] = {
        "id": order.order_id,
        "name": order.order_name,
        "created_at": _time(order.placed_at),
        "updated_at": _time(order.occurred_at),
        "cancelled_at": None if order.cancelled_at is None else _time(order.cancelled_at),
        "cancel_reason": order.cancel_reason,
        "source_name": order.placed_on,
        "source_identifier": order.marketplace_order_id,
        "financial_status": order.financial_status,
        "fulfillment_status": order.fulfillment_status,
        "location_id": _place(order.location_code),
        "customer": None if order.account_id is None else {"id": order.account_id},
        "currency": order.currency_code,
        "subtotal_price": _money(net),
        "total_discounts": _money(sum(line.discount_cents for line in order.lines)),
        "total_shipping_price_set": _amount(order.shipping_cents, order.currency_code),
        "total_tax": _money(tax),
        "total_price": _money(net + order.shipping_cents + tax),
        "test": order.is_test,
        "shipping_lines": [{"code": order.fulfillment_method, "price": _money(order.shipping_cents)}],
        "line_items": [
            {
                "id": line.line_id,
                "sku": line.sku,
                "quantity": line.units,
                "price": _money(line.unit_price_cents),
                "total_discount": _money(line.discount_cents),
                "tax_lines": [{"price": _money(line.tax_cents)}],
            }
            for line in order.lines
        ],
        "note_attributes": [] if order.hold_id is None else [{"name": HOLD_ATTRIBUTE, "value": order.hold_id}],
    }
    return msgspec.json.encode(body)


def refund_body(refund: Refund) -> bytes:
    """The refund as a web shop would send it."""
    currency = refund.currency_code
    body: dict[str, Any] = {
        "id": refund.refund_id,
        "order_id": refund.order_id,
        "created_at": _time(refund.occurred_at),
        "transactions": [
            {"kind": "refund", "status": "success", "amount": _money(refund.paid_cents), "currency": currency}
        ],
        "refund_line_items": [
            {
                "id": line.refund_line_id,
                "line_item_id": line.line_id,
                "line_item": {"id": line.line_id, "sku": line.sku},
                "quantity": line.units,
                "restock_type": line.restock_type,
                "location_id": _place(line.location_code),
                "subtotal_set": _amount(line.net_cents, currency),
                "total_tax_set": _amount(line.tax_cents, currency),
            }
            for line in refund.lines
        ],
        "refund_shipping_lines": [
            {
                "subtotal_amount_set": _amount(refund.shipping_cents, currency),
                "tax_amount_set": _amount(refund.shipping_tax_cents, currency),
            }
        ],
        # A shop writes it from its own side.
        "order_adjustments": [{"kind": "refund_discrepancy", "amount": _money(-refund.adjustment_cents)}],
    }
    return msgspec.json.encode(body)


def _check_ids(name: str, ids: list[str]) -> None:
    if len(set(ids)) < len(ids):
        raise UnreadableError(name, "expected each line once, found one twice. Correct it.")


def _place(location_code: str | None) -> str | None:
    return None if location_code is None else BY_CODE + location_code


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()


def _money(cents: int) -> str:
    return f"{'-' if cents < 0 else ''}{abs(cents) // 100}.{abs(cents) % 100:02d}"


def _amount(cents: int, currency_code: str) -> dict[str, dict[str, str]]:
    return {"shop_money": {"amount": _money(cents), "currency_code": currency_code}}
