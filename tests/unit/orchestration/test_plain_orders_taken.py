"""Orders, refunds and levels told in the plain contract: landed and taken, the rows of what a web shop's webhooks would have given."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestration import taking
from orchestration.catalog import SOURCES, contract_of
from orchestration.raw import raw_rows
from orchestration.sources.ecommerce import ORDERS, REFUND_LINES
from serving.event_log.events import NewEvent
from serving.event_log.log import open_log
from serving.intake import orders, plain, shopify
from serving.intake.landing import land
from troth.home import Home

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
AT = NOON - timedelta(hours=1)
ORDER: dict[str, Any] = {
    "event_type": "order", "event_id": "o/1", "occurred_at": AT.isoformat(), "order_id": "5001", "order_name": "#1001",
    "placed_at": (AT - timedelta(minutes=1)).isoformat(), "currency_code": "USD", "location_code": "S001", "placed_on": "bazaar",
    "marketplace_order_id": "B-77", "account_id": "901", "fulfillment_method": "click_and_collect", "financial_status": "paid",
    "shipping_cents": 499, "shipping_tax_cents": 40, "cancelled_at": AT.isoformat(), "cancel_reason": "fraud",
    "lines": [
        {"line_id": "1", "sku": "kettle", "units": 2, "unit_price_cents": 1995, "discount_cents": 90, "tax_cents": 310},
        {"line_id": "2", "sku": "tent", "units": 1, "unit_price_cents": 20000},
    ],
}  # fmt: skip
REFUND: dict[str, Any] = {
    "event_type": "refund", "event_id": "r/1", "occurred_at": AT.isoformat(), "refund_id": "9", "order_id": "5001", "currency_code": "USD",
    "paid_cents": 2400, "shipping_cents": 499, "shipping_tax_cents": 40, "adjustment_cents": -34,
    "lines": [{"refund_line_id": "3", "line_id": "1", "sku": "kettle", "units": 1, "restock_type": "return", "net_cents": 1745, "tax_cents": 150,
               "location_code": "S001"}],
}  # fmt: skip
LEVEL: dict[str, Any] = {
    "event_type": "stock_level", "event_id": "l/1", "occurred_at": AT.isoformat(), "location_code": "S001", "sku": "kettle",
    "level_type": "available", "reported_units": -2,
}  # fmt: skip


def money(amount: str) -> dict[str, Any]:
    return {"shop_money": {"amount": amount, "currency_code": "USD"}}


SHOPS_ORDER = {
    "id": 5001, "name": "#1001", "created_at": ORDER["placed_at"], "updated_at": ORDER["occurred_at"], "cancelled_at": ORDER["cancelled_at"],
    "cancel_reason": "fraud", "source_name": "bazaar", "source_identifier": "B-77", "customer": {"id": 901}, "financial_status": "paid",
    "location_id": 70001, "currency": "USD", "subtotal_price": "239.00", "total_discounts": "0.90", "total_tax": "3.50",
    "total_shipping_price_set": money("4.99"), "total_price": "247.49", "test": False,
    "shipping_lines": [{"code": "CLICK_AND_COLLECT", "price": "4.99"}],
    "line_items": [
        {"id": 1, "sku": "kettle", "quantity": 2, "price": "19.95", "total_discount": "0.90", "tax_lines": [{"price": "3.10"}]},
        {"id": 2, "sku": "tent", "quantity": 1, "price": "200.00", "total_discount": "0.00"},
    ],
}  # fmt: skip
SHOPS_REFUND = {
    "id": 9, "order_id": 5001, "created_at": REFUND["occurred_at"], "transactions": [{"kind": "refund", "status": "success", "amount": "24.00"}],
    "refund_line_items": [{"id": 3, "line_item_id": 1, "line_item": {"id": 1, "sku": "kettle"}, "quantity": 1, "restock_type": "return",
                           "location_id": 70001, "subtotal_set": money("17.45"), "total_tax_set": money("1.50")}],
    "refund_shipping_lines": [{"subtotal_amount_set": money("4.99"), "tax_amount_set": money("0.40")}],
    "order_adjustments": [{"kind": "refund_discrepancy", "amount": "0.34", "tax_amount": "0.00"}],
}  # fmt: skip


def plainly(told: dict[str, Any]) -> NewEvent:
    event = plain.read(json.dumps(told).encode(), "bazaar", NOON)
    assert isinstance(event, NewEvent)
    return event


def by_the_shop(topic: str, body: dict[str, Any]) -> NewEvent:
    return shopify.read(shopify.Delivery(topic, "pier.example", "e", NOON, json.dumps(body).encode()), NOON)


def taken(home: Home, *events: NewEvent) -> dict[str, list[dict[str, object]]]:
    """Rows by table of a home whose log held some events."""
    log = open_log(home)
    log.append(events)
    land(log, home)
    log.close()
    taking.take(home, [plan for source in SOURCES for plan in taking.plan(home, source.name)], workers=1)
    assert taking.quarantined(home).to_dicts() == []
    tables = (contract.table for source in SOURCES for contract in source.contracts)
    found = {
        table: raw_rows(home, table, [each.name for each in contract_of(table).columns]).to_dicts() for table in tables
    }
    return {table: rows for table, rows in found.items() if rows}


@pytest.mark.parametrize(
    ("told", "topic", "body"),
    [(ORDER, "orders/cancelled", SHOPS_ORDER), (REFUND, "refunds/create", SHOPS_REFUND)],
    ids=["order", "refund"],
)
def test_rows_of_a_plain_event_are_those_of_the_shops_webhook_but_for_how_the_location_is_named(
    told: dict[str, Any], topic: str, body: dict[str, Any], tmp_path: Path
) -> None:
    mine = taken(Home(tmp_path / "plain"), plainly(told))
    theirs = taken(Home(tmp_path / "shop"), by_the_shop(topic, body))
    named = {row.pop("location_id") for rows in mine.values() for row in rows if "location_id" in row}
    assert named == {"code/S001"}
    assert {row.pop("location_id") for rows in theirs.values() for row in rows if "location_id" in row} == {"70001"}
    for found in (mine, theirs):  # a token is a home's own
        assert all(row.pop("account_ref") for row in found.get("raw_ecommerce__orders", []))
    assert mine == theirs


def test_a_level_is_a_row_with_its_high_water_mark(tmp_path: Path) -> None:
    found = taken(Home(tmp_path), plainly(LEVEL))
    ((table, (row,)),) = found.items()
    assert table == "raw_stock__levels"
    assert (row["level_type"], row["reported_units"], row["occurred_at"]) == ("available", -2, AT)


def test_closed_lists_of_the_plain_contract_are_those_of_the_raw_tables() -> None:
    assert ORDERS.column("fulfillment_method").values == orders.METHODS
    assert ORDERS.column("fulfillment_status").values == orders.FULFILLED
    assert ORDERS.column("financial_status").values == orders.PAID
    assert ORDERS.column("cancel_reason").values == orders.CANCEL_REASONS
    assert set(orders.RESTOCKED) < set(REFUND_LINES.column("restock_type").values)
