"""What the intake kept, landed and taken: as rows of the tables that files of the same systems give."""

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from orchestration import taking
from orchestration.catalog import SOURCES, contract_of
from orchestration.raw import raw_rows
from serving import keys
from serving.app import create_app
from serving.hub.routes import Hub
from serving.intake.desk import IntakeDesk
from serving.intake.landing import land
from serving.intake.shopify import Delivery
from serving.intake.shops import Shop
from tests.unit.serving.open_shop import Caller
from troth.clock import FixedClock
from troth.home import Home

MONDAY = datetime(2026, 3, 2, 10, tzinfo=UTC)
WHERE = {"location_code": "S001", "sku": "SKU-00001", "occurred_at": "2026-03-02T09:00:00Z"}
SHOP = Shop(secrets=["of the pier"], jurisdiction_code="US-OR")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home that took one event of each kind, and landed and read them."""
    home, clock = Home(tmp_path), FixedClock(MONDAY)
    desk = IntakeDesk(home, clock, Hub(home, clock))
    caller = Caller(create_app(home, clock, None, desk), keys.make_key(home, "tills", [], MONDAY, ["events"]))
    events = [
        {
            **WHERE,
            "event_type": "movement",
            "event_id": "1",
            "movement_id": "r/1",
            "movement_type": "sale",
            "units": -1,
        },
        {**WHERE, "event_type": "supply", "event_id": "2", "supply_id": "po/1", "supply_type": "purchase_order"}
        | {"open_units": 12, "expected_at": "2026-03-09T08:00:00Z", "recorded_at": "2026-03-02T09:00:01Z"},
        {**WHERE, "event_type": "count", "event_id": "3", "count_id": "c/1", "counted_units": 4},
        {**WHERE, "event_type": "pick", "event_id": "4", "pick_id": "p/1", "order_ref": "#10001"}
        | {"requested_units": 2, "picked_units": 1, "reason_code": "missing"},
    ]
    assert caller.post("/v1/events", json={"source_name": "tills", "events": events}).status_code == 200
    message = {"messageId": "m/1", "anonymousId": "a-1", "event": "Product Viewed", "timestamp": "2026-03-02T09:00:00Z"}
    assert caller.post("/v1/track", json=message).json()["kept"] == 1
    for topic, body in (
        ("orders/create", {"id": 7, "name": "#10001", "created_at": WHERE["occurred_at"], "source_name": "web"}
         | {"currency": "USD", "subtotal_price": "10.00", "total_discounts": "0.00", "total_tax": "1.00", "total_price": "11.00",
            "total_shipping_price_set": {"shop_money": {"amount": "0.00", "currency_code": "USD"}},
            "line_items": [{"id": 70, "sku": "SKU-00001", "quantity": 1, "price": "10.00"}]}),
        ("inventory_levels/update", {"inventory_item_id": 77, "location_id": 8, "available": 4}),
    ):  # fmt: skip
        sent = json.dumps({**body, "updated_at": WHERE["occurred_at"]}).encode()
        desk.take_webhook(Delivery(topic, "pier.example", "e-1", MONDAY, sent), SHOP)
    assert desk.log.letters.list() == []
    land(desk.log, home)
    desk.close()
    taking.take(home, [plan for source in SOURCES for plan in taking.plan(home, source.name)], workers=1)
    return home


def rows(home: Home, table: str) -> list[dict[str, object]]:
    return raw_rows(home, table, [column.name for column in contract_of(table).columns]).to_dicts()


def test_every_event_is_a_row_and_none_is_set_aside(home: Home) -> None:
    counted = {
        contract.table: len(rows(home, contract.table))
        for source in SOURCES
        for contract in source.contracts
        if rows(home, contract.table)
    }
    assert counted == {
        "raw_ecommerce__orders": 1,
        "raw_ecommerce__order_lines": 1,
        "raw_ecommerce__inventory_levels": 1,
        "raw_ecommerce__events": 1,
        "raw_wms__picks": 1,
        "raw_stock__movements": 1,
        "raw_stock__supplies": 1,
        "raw_stock__counts": 1,
    }
    assert taking.quarantined(home).height == 0


def test_a_movement_is_as_it_was_sent_and_received_when_it_came(home: Home) -> None:
    (movement,) = rows(home, "raw_stock__movements")
    assert movement["movement_id"] == "r/1"
    assert (movement["movement_type"], movement["units"], movement["source_name"]) == ("sale", -1, "tills")
    assert movement["occurred_at"] == datetime(2026, 3, 2, 9, tzinfo=UTC)
    assert (movement["recorded_at"], movement["source_ref"]) == (None, None)
    received = pl.scan_parquet(home.raw / "raw_stock__movements" / "**/*.parquet").select("received_at").collect()
    assert received["received_at"].to_list() == [MONDAY]


def test_a_supply_and_a_count_say_their_units(home: Home) -> None:
    (supply,), (count,) = rows(home, "raw_stock__supplies"), rows(home, "raw_stock__counts")
    assert (supply["open_units"], supply["expected_at"]) == (12, datetime(2026, 3, 9, 8, tzinfo=UTC))
    assert count["counted_units"] == 4


def test_a_pick_is_a_row_of_the_warehouses_own_table(home: Home) -> None:
    (pick,) = rows(home, "raw_wms__picks")
    assert (pick["pick_status"], pick["picked_units"], pick["reason_code"]) == ("short", 1, "missing")
    assert pick["finished_at"] == datetime(2026, 3, 2, 9, tzinfo=UTC)


def test_a_line_that_is_no_movement_is_set_aside_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    day = home.landing / "stock" / "2026-03-02"
    day.mkdir(parents=True)
    good = {**WHERE, "event_id": "1", "source_name": "pos", "movement_id": "m", "movement_type": "sale", "units": -1}
    odd = ({**good, "units": "few"}, {**good, "movement_type": "opening"}, {**good, "movement_id": None})
    (day / "movements_till.jsonl").write_text("\n".join(json.dumps(each) for each in (good, *odd)) + "\nnot json\n")
    taking.take(home, taking.plan(home, "stock"), workers=1)
    assert len(rows(home, "raw_stock__movements")) == 1
    reasons = taking.quarantined(home)["reason_code"].to_list()
    assert sorted(reasons) == ["missing_value", "not_json", "unknown_code", "wrong_type"]
