"""Orders, refunds and levels in the plain contract: what is refused, and that a shop's webhook saying the same does the same."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.stock.stream import Base, Stream, Told
from serving.event_log.events import Event, NewEvent
from serving.intake import plain, shopify
from serving.intake.changes import Places, changes, hold_of
from tests.unit.serving.open_hub import MONDAY
from tests.unit.serving.test_intake_events import OpenIntake, statuses

SHOP_IDS = {"S001": 70_001, "S002": 70_002}
PLACES = Places({str(number): code for code, number in SHOP_IDS.items()}, frozenset(SHOP_IDS))
SKUS = ("kettle", "tent", "rope")
AT = "2026-03-02T09:59:00Z"
ORDER: dict[str, Any] = {
    "event_type": "order", "event_id": "mp/1001/1", "occurred_at": AT, "order_id": "5001", "order_name": "#1001",
    "placed_at": "2026-03-02T09:58:00Z", "location_code": "S001", "currency_code": "USD", "placed_on": "bazaar",
    "lines": [{"line_id": "1", "sku": "kettle", "units": 2, "unit_price_cents": 1995, "discount_cents": 90, "tax_cents": 310}],
}  # fmt: skip
REFUND: dict[str, Any] = {
    "event_type": "refund", "event_id": "mp/r1", "occurred_at": AT, "refund_id": "9", "order_id": "5001", "currency_code": "USD",
    "paid_cents": 1000, "lines": [{"refund_line_id": "1", "line_id": "1", "sku": "kettle", "units": 1, "restock_type": "cancel", "net_cents": 1000}],
}  # fmt: skip
LEVEL: dict[str, Any] = {
    "event_type": "stock_level", "event_id": "wms/l1", "occurred_at": AT, "location_code": "S001", "sku": "kettle",
    "level_type": "on_hand", "reported_units": 7,
}  # fmt: skip


@pytest.fixture
def intake(tmp_path: Path) -> OpenIntake:
    return OpenIntake(tmp_path)


def test_orders_refunds_and_levels_are_kept_by_the_keys_they_are_ordered_by(intake: OpenIntake) -> None:
    status, found = intake.send(ORDER, REFUND, LEVEL, source_name="bazaar")
    assert (status, statuses(found)) == (200, ["kept"] * 3)
    events = intake.desk.log.read(0, 10)
    assert [(each.event_type, each.key) for each in events] == [
        ("order", "order/5001"),
        ("refund", "order/5001"),
        ("stock_level", "position/S001/kettle"),
    ]
    assert {each.source_name for each in events} == {"bazaar"}


def test_an_order_sent_again_is_known_and_with_another_content_a_conflict(intake: OpenIntake) -> None:
    later = {**ORDER, "event_id": "mp/1001/2", "occurred_at": "2026-03-02T09:59:30Z", "fulfillment_status": "fulfilled"}
    other = {**ORDER, "location_code": "S002"}
    _, found = intake.send(ORDER, dict(reversed(ORDER.items())), later, other)
    assert statuses(found) == ["kept", "known", "kept", "conflict"]


def line(**odd: object) -> dict[str, Any]:
    return {"lines": [{**ORDER["lines"][0], **odd}]}


@pytest.mark.parametrize(
    ("event", "odd", "field"),
    [
        (ORDER, {"lines": []}, "lines"),
        (ORDER, line(units=0), "lines"),
        (ORDER, line(discount_cents=4000), "discount_cents"),
        (ORDER, {"lines": ORDER["lines"] * 2}, "line_id"),
        (ORDER, {"placed_at": "2026-03-02T09:59:01Z"}, "placed_at"),
        (ORDER, {"cancelled_at": "2026-03-02T09:59:01Z"}, "cancelled_at"),
        (ORDER, {"cancel_reason": "customer"}, "cancel_reason"),
        (ORDER, {"fulfillment_status": "sent"}, "fulfillment_status"),
        (ORDER, {"account_id": "rosalind@pier.example"}, "account_id"),
        (ORDER, {"email": "rosalind@pier.example"}, "event"),
        (ORDER, {"currency_code": "dollars"}, "currency_code"),
        (REFUND, {"lines": REFUND["lines"] * 2}, "refund_line_id"),
        (REFUND, {"occurred_at": "2026-03-09T09:59:00Z"}, "occurred_at"),
        (REFUND, {"paid_cents": -1}, "paid_cents"),
        (LEVEL, {"level_type": "hoped_for"}, "level_type"),
        (LEVEL, {"sku": ""}, "sku"),
    ],
)
def test_what_cannot_be_is_told_by_its_field_and_never_by_its_value(
    event: dict[str, Any], odd: dict[str, Any], field: str, intake: OpenIntake
) -> None:
    status, found = intake.send({**event, **odd})
    assert (status, statuses(found), found["events"][0]["field"]) == (207, ["set_aside"], field)
    assert "rosalind" not in json.dumps(found)
    assert intake.desk.log.head() == 0


def test_a_location_that_no_shop_knows_is_named_by_its_code() -> None:
    (change,) = changes(kept(plain_event({**ORDER, "location_code": "ATTIC"}), 1), PLACES)
    assert (change.location_code, change.lines) == ("ATTIC", {"kettle": 2})  # type: ignore[union-attr]


def plain_event(told: dict[str, Any]) -> NewEvent:
    event = plain.read(json.dumps(told).encode(), "bazaar", MONDAY)
    assert isinstance(event, NewEvent)
    return event


def webhook(topic: str, body: dict[str, Any]) -> NewEvent:
    return shopify.read(shopify.Delivery(topic, "pier.example", "e", MONDAY, json.dumps(body).encode()), MONDAY)


def kept(event: NewEvent, offset: int) -> Event:
    return Event(**{name: getattr(event, name) for name in NewEvent.__struct_fields__}, offset=offset)


def money(cents: int) -> str:
    return f"{cents / 100:.2f}"


moments = st.integers(0, 10_000_000).map(lambda us: MONDAY - timedelta(microseconds=us + 1))
lines = st.lists(st.tuples(st.sampled_from(SKUS), st.integers(1, 9), st.integers(1, 9_999)), min_size=1, max_size=4)


@st.composite
def orders(draw: st.DrawFn) -> tuple[dict[str, Any], NewEvent]:
    """An order in the plain contract, and the webhook of a shop that says the same."""
    number, at = draw(st.integers(1, 3)), draw(moments)
    place = draw(st.sampled_from([*SHOP_IDS, None]))
    status = draw(st.sampled_from([None, "partial", "fulfilled", "restocked"]))
    cancelled = draw(st.none() | st.just(at))
    hold = draw(st.none() | st.just("hold_7"))
    is_test = draw(st.booleans())
    items = draw(lines)
    told = {
        "event_type": "order", "event_id": f"o/{draw(st.integers(0, 10**9))}", "occurred_at": at.isoformat(), "order_id": str(number),
        "order_name": f"#{number}", "placed_at": (at - timedelta(hours=1)).isoformat(), "currency_code": "USD", "is_test": is_test,
        "lines": [
            {"line_id": str(at), "sku": sku, "units": units, "unit_price_cents": cents} for at, (sku, units, cents) in enumerate(items)
        ],
    } | {name: value for name, value in (("location_code", place), ("fulfillment_status", status), ("hold_id", hold)) if value}  # fmt: skip
    if cancelled:
        told |= {"cancelled_at": cancelled.isoformat(), "cancel_reason": "customer"}
    body = {
        "id": number, "admin_graphql_api_id": f"gid://shopify/Order/{number}", "name": f"#{number}", "updated_at": at.isoformat(),
        "created_at": (at - timedelta(hours=1)).isoformat(), "cancelled_at": cancelled and cancelled.isoformat(), "test": is_test,
        "fulfillment_status": status, "location_id": place and SHOP_IDS[place], "customer": {"id": 3, "email": "ann@pier.example"},
        "line_items": [
            {"id": 880 + at, "sku": sku, "quantity": units, "price": money(cents)} for at, (sku, units, cents) in enumerate(items)
        ],
        "note_attributes": [{"name": "troth_hold", "value": hold}] if hold else [],
    }  # fmt: skip
    return told, webhook("orders/updated", body)


@st.composite
def refunds(draw: st.DrawFn) -> tuple[dict[str, Any], NewEvent]:
    number, at = draw(st.integers(1, 3)), draw(moments)
    items = [
        (*item, draw(st.sampled_from(["cancel", "return", "no_restock"])), draw(st.sampled_from([*SHOP_IDS, None])))
        for item in draw(lines)
    ]
    refund = draw(st.integers(1, 4))
    told = {
        "event_type": "refund", "event_id": f"r/{draw(st.integers(0, 10**9))}", "occurred_at": at.isoformat(), "refund_id": str(refund),
        "order_id": str(number), "currency_code": "USD", "paid_cents": 0,
        "lines": [
            {"refund_line_id": str(at), "line_id": str(at), "sku": sku, "units": units, "restock_type": kind, "net_cents": cents}
            | ({"location_code": place} if place else {})
            for at, (sku, units, cents, kind, place) in enumerate(items)
        ],
    }  # fmt: skip
    body = {
        "id": refund, "order_id": number, "created_at": at.isoformat(),
        "refund_line_items": [
            {"id": at, "line_item": {"id": at, "sku": sku}, "quantity": units, "restock_type": kind, "subtotal": money(cents),
             "location_id": place and SHOP_IDS[place]}
            for at, (sku, units, cents, kind, place) in enumerate(items)
        ],
    }  # fmt: skip
    return told, webhook("refunds/create", body)


def shown(events: list[NewEvent]) -> dict[tuple[str, str], dict[str, int]]:
    """Parts of every position after these events, in the order they came."""
    stream = Stream(
        Base(pl.DataFrame(schema={"location_code": pl.String, "sku": pl.String, "last_event_at": pl.Int64}))
    )
    for offset, event in enumerate(events, 1):
        stream.apply([Told(offset, change) for change in changes(kept(event, offset), PLACES)])
    places = [(code, sku) for code in SHOP_IDS for sku in SKUS]
    parts = stream.parts(places)
    return {
        place: {name: int(np.asarray(values)[at]) for name, values in parts.items()} for at, place in enumerate(places)
    }


@settings(deadline=None)
@given(told=st.lists(orders() | refunds(), max_size=6), plainly=st.lists(st.booleans(), min_size=6, max_size=6))
def test_a_plain_order_or_refund_shows_on_the_board_what_a_webhook_that_says_the_same_shows(
    told: list[tuple[dict[str, Any], NewEvent]], plainly: list[bool]
) -> None:
    webhooks = [event for _, event in told]
    plain_events = [plain_event(said) for said, _ in told]
    for one, other in zip(plain_events, webhooks, strict=True):
        assert (one.key, one.occurred_at, one.event_type) == (other.key, other.occurred_at, other.event_type)
        assert changes(kept(one, 1), PLACES) == changes(kept(other, 1), PLACES)
        assert hold_of(kept(one, 1)) == hold_of(kept(other, 1))
    mixed = [a if is_plain else b for a, b, is_plain in zip(plain_events, webhooks, plainly, strict=False)]
    assert shown(plain_events) == shown(webhooks) == shown(mixed)


def test_an_order_told_plainly_and_by_the_shop_is_ordered_once() -> None:
    body = {
        "id": 5001, "name": "#1001", "created_at": AT, "updated_at": AT, "location_id": SHOP_IDS["S001"],
        "line_items": [{"id": 1, "sku": "kettle", "quantity": 2}],
    }  # fmt: skip
    both = [plain_event(ORDER), webhook("orders/create", body)]
    assert shown(both) == shown(both[:1]) == shown(both[1:])
    assert shown(both)["S001", "kettle"]["committed_units"] == 2


def test_a_level_says_nothing_of_recorded_stock() -> None:
    assert changes(kept(plain_event(LEVEL), 1), PLACES) == []
    assert datetime(2026, 3, 2, 9, 59, tzinfo=UTC) == plain_event(LEVEL).occurred_at
