"""A few days at one store and one distribution centre, as Parquet, built by dbt once: what the marts make of them."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.builders import build_marts, raw_home, rows_of

AS_OF = "2025-03-10T00:00:00Z"
DAY = date(2025, 3, 3)
STORE, CENTER = "0614141000012", "0614141999994"
TENT, ROPE = "SKU-00001", "SKU-00002"


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2025, 3, day, hour, minute, tzinfo=UTC)


def receipt(number: int, hour: int, **changes: Any) -> dict[str, Any]:
    return {
        "sequence_number": number, "business_date": DAY,
        "ended_at_local": at(3, hour).replace(tzinfo=None), "received_at": at(4, 2), **changes,
    }  # fmt: skip


def line(number: int, **changes: Any) -> dict[str, Any]:
    return {"sequence_number": number, "business_date": DAY, "sku": ROPE, "received_at": at(4, 2), **changes}


def order(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "order_id": str(number), "order_name": f"#{number}", "created_at": at(4, 12), "updated_at": at(4, 12),
        "location_id": "7000000002", "received_at": at(5, 2), **changes,
    }  # fmt: skip


def order_line(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "order_id": str(number),
        "line_id": f"{number}1",
        "updated_at": at(4, 12),
        "received_at": at(5, 2),
        **changes,
    }


STORY: dict[str, list[dict[str, Any]]] = {
    "raw_wms__locations": [
        {},
        {"location_code": "DC1", "location_type": "distribution_center", "gln": CENTER, "pos_store_code": None,
         "ecommerce_location_id": "7000000002", "opens_at": None, "closes_at": None},
    ],
    "raw_ecommerce__products": [
        {},
        {"sku": ROPE, "gtin": "614141000029", "inventory_item_id": "9000000002", "category_name": "Ropes", "cost_cents": None},
    ],
    # HotWax: at 08:00 both say 10, at 09:00 two leave and the shop is not told, next morning its figure is still 10.
    "raw_wms__epcis_events": [{"event_id": "count", "item_number": 1, "quantity_units": 10, "occurred_at": at(3, 8)}],
    "raw_wms__picks": [
        {"pick_id": "p1", "order_ref": "bazaar-77", "requested_units": 2, "picked_units": 2, "finished_at": at(3, 9)}
    ],
    "raw_ecommerce__inventory_levels": [
        {"available_units": 10, "updated_at": at(3, 8)},
        {"available_units": 10, "updated_at": at(4, 7), "received_at": at(4, 8)},
    ],
    # A newcomer: the centre's ropes were never counted, but its system says how many there are.
    "raw_wms__stock_advice": [
        {"advice_ref": "A1", "gln": CENTER, "sku": ROPE, "quantity_units": 40, "known_until_at": at(3, 23)},
        {"advice_ref": "A2", "gln": CENTER, "sku": ROPE, "quantity_units": 35, "known_until_at": at(6, 23)},
    ],
    "raw_pos__transactions": [
        receipt(1, 10, loyalty_card_ref="card_ann"),
        receipt(1, 10, loyalty_card_ref="card_ann", received_at=at(5, 2)),  # the same file sent again, with a late one
        receipt(2, 11, is_voided=True),
        receipt(3, 12, is_training=True),
        receipt(4, 13),
        receipt(5, 14, order_name="#10"),
        receipt(6, 15, currency_code="EUR", loyalty_card_ref="card_ann", gross_cents=700, tendered_cents=660),
        receipt(8, 17, order_name="#99"),
        receipt(9, 18),
        receipt(7, 16, received_at=at(12, 2)),
    ],
    "raw_pos__sale_lines": [
        line(1, line_number=1, quantity_units=3, net_cents=3000, tax_cents=240),
        line(1, line_number=1, quantity_units=3, net_cents=3000, tax_cents=240, received_at=at(5, 2)),
        line(1, line_number=2, is_voided=True),
        line(2, line_number=1), line(3, line_number=1),
        line(4, line_number=1, line_type="return", is_restocked=True, original_store_code="1", original_workstation_code="1",
             original_sequence_number=1, original_business_date=DAY),
        line(6, line_number=1, net_cents=700, tax_cents=0),
        line(9, line_number=1, line_type="return", original_store_code="1", original_workstation_code="1",
             original_sequence_number=777, original_business_date=DAY),
    ],
    "raw_ecommerce__customers": [
        {"account_id": "1", "account_ref": "account_ann", "email_ref": "email_ann", "phone_ref": "phone_home"},
        {"account_id": "2", "account_ref": "account_bob", "email_ref": "email_bob", "phone_ref": "phone_home",
         "is_email_verified": False},
        {"account_id": "3", "account_ref": "account_test", "email_ref": "email_test", "is_test": True},
    ],
    "raw_loyalty__members": [{"member_id": "M1", "card_ref": "card_ann", "account_ref": "account_ann", "points_balance": 30}],
    "raw_loyalty__points": [{"member_id": "M1", "points": 50}, {"member_id": "M1", "points": -20, "entry_type": "redeem"}],
    "raw_ecommerce__orders": [
        order(10, account_ref="account_ann"),
        order(11, email_ref="email_ann", financial_status="paid"),  # signed out, but the e-mail is proved
        order(11, email_ref="email_ann", financial_status="paid", fulfillment_status="fulfilled", updated_at=at(5, 9, 10)),
        order(12, email_ref="email_bob"),  # nobody proved this one: a guest
        order(13, account_ref="account_test"),
        order(14, is_test=True),
        order(15, account_ref="account_ann", updated_at=at(5, 9), cancelled_at=at(5, 9), cancel_reason="inventory"),
        order(15, account_ref="account_ann"),  # the older version, received with it
    ],
    "raw_ecommerce__order_lines": [
        *(order_line(number) for number in (10, 11, 12, 13, 14, 15)),
        order_line(11, updated_at=at(5, 9, 10)),
        order_line(15, updated_at=at(5, 9)),
    ],
    "raw_ecommerce__fulfillment_orders": [
        {"order_id": "11", "created_at": at(4, 12), "updated_at": at(4, 12), "promised_at": at(7, 12), "received_at": at(5, 2)},
    ],
    "raw_ecommerce__fulfillments": [
        {"fulfillment_id": "f", "order_id": "11", "line_id": "111", "created_at": at(5, 9), "updated_at": at(5, 9), "received_at": at(6, 2)},
        {"fulfillment_id": "f", "order_id": "11", "line_id": "111", "created_at": at(5, 9), "updated_at": at(7, 13, 30),
         "shipment_status": "delivered", "received_at": at(8, 2)},
    ],
    "raw_ecommerce__refunds": [
        {"refund_id": "r10", "order_id": "10", "created_at": at(6, 9), "shipping_cents": 495, "shipping_tax_cents": 40, "paid_cents": 715},
    ],
    "raw_ecommerce__refund_lines": [
        {"order_id": "15", "restock_type": "cancel", "created_at": at(5, 9)},
        {"order_id": "10", "refund_id": "r10", "restock_type": "no_restock", "created_at": at(6, 9), "net_cents": 200, "tax_cents": 0},
        {"order_id": "10", "restock_type": "return", "location_id": "7000000002", "created_at": at(7, 9), "net_cents": 0, "tax_cents": 0},
        {"order_id": "77", "restock_type": "no_restock", "created_at": at(6, 9)},
    ],
    "raw_ecommerce__events": [
        {"message_id": "a", "device_ref": "device_ann", "account_ref": "account_ann", "sku": TENT},
        {"message_id": "b", "device_ref": "device_ann", "sku": TENT},
        {"message_id": "b", "device_ref": "device_ann", "sku": TENT},
        {"message_id": "c", "device_ref": "device_stranger", "sku": ROPE},
    ],
    "consent_ledger": [
        {"subject_id": "account_ann", "signal_id": "s1", "occurred_at": at(1, 8)},
        # A shared phone carries Bob's refusal to Ann, and no grant to either.
        {"subject_id": "phone_home", "signal_id": "s2", "event_type": "refuse", "purpose_code": "analytics", "occurred_at": at(1, 8)},
        {"subject_id": "phone_home", "signal_id": "s3", "purpose_code": "model_training", "occurred_at": at(1, 8)},
        # Withdrawn, then an older grant is replayed and received last.
        {"subject_id": "email_ann", "signal_id": "s4", "event_type": "withdraw", "purpose_code": "marketing", "channel_code": "email",
         "occurred_at": at(2, 8), "recorded_at": at(2, 8), "received_at": at(2, 9)},
        {"subject_id": "email_ann", "signal_id": "s5", "purpose_code": "marketing", "channel_code": "email",
         "occurred_at": at(1, 8), "recorded_at": at(1, 8), "received_at": at(4, 9)},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("story")
    # One receipt is received after as_of_at: the past is rebuilt on purpose, and must not know it.
    return build_marts(raw_home(folder / "raw", STORY), folder, AS_OF, rebuilds_the_past=True)


def test_a_snapshot_that_ignores_what_shipped_does_not_put_it_back(warehouse: Path) -> None:
    query = "select on_hand_units, reported_units, told_units, in_flight_units, unexplained_units from stock_positions"
    assert rows_of(warehouse, f"{query} where location_code = 'S001' and sku = '{TENT}'") == [(8, 10, 10, -2, 0)]


def test_a_newcomers_first_report_opens_its_stock_and_a_later_one_changes_nothing(warehouse: Path) -> None:
    query = "select on_hand_units, movement_count, reported_units, unexplained_units from stock_positions"
    assert rows_of(warehouse, f"{query} where location_code = 'DC1' and sku = '{ROPE}'") == [(40, 1, 35, -5)]


def test_stock_that_nobody_counted_or_reported_starts_at_nothing(warehouse: Path) -> None:
    query = "select on_hand_units, reported_units from stock_positions"
    assert rows_of(warehouse, f"{query} where location_code = 'S001' and sku = '{ROPE}'") == [(-3, None)]


def test_only_paid_receipts_with_something_sold_are_orders_and_each_counts_once(warehouse: Path) -> None:
    query = "select order_name, ordered_at, currency_code, gross_cents from orders where source_name = 'pos' order by 1"
    assert rows_of(warehouse, query) == [
        ("1/1/1/2025-03-03", datetime(2025, 3, 3, 18), "USD", 3240),
        ("1/1/6/2025-03-03", datetime(2025, 3, 3, 23), "EUR", 700),
    ]


def test_a_return_at_the_till_goes_back_to_its_receipt(warehouse: Path) -> None:
    query = """
        select returns.order_id, gross_cents, restock_type, returns.location_code
        from returns join refunds using (return_line_id) where returns.source_name = 'pos' and returns.order_id is not null"""
    assert rows_of(warehouse, query) == [("pos/1/1/1/2025-03-03", 1080, "restocked", "S001")]


def test_money_without_goods_is_a_refund_and_goods_without_money_a_return(warehouse: Path) -> None:
    refunds = "select refund_type, gross_cents, return_line_id is null from refunds where order_id = 'ecommerce/10' order by all"
    assert rows_of(warehouse, refunds) == [("kept", 200, True), ("shipping", 535, True)]
    returns = "select quantity_units, restock_type, location_code from returns where order_id = 'ecommerce/10'"
    assert rows_of(warehouse, returns) == [(1, "restocked", "DC1")]
    of_order = "select refunded_cents, returned_units from orders where order_id = 'ecommerce/10'"
    assert rows_of(warehouse, of_order) == [(735, 1)]


def test_an_orders_timeline_holds_what_sources_said_each_with_the_record_it_rests_on(warehouse: Path) -> None:
    query = """
        select event_type, cast(occurred_at as varchar), source_table, units from order_events
        where order_id = 'ecommerce/11' order by occurred_at, event_type"""
    assert rows_of(warehouse, query) == [
        ("paid", "2025-03-04 12:00:00", "raw_ecommerce__orders", None),
        ("placed", "2025-03-04 12:00:00", "raw_ecommerce__orders", 1),
        ("promised", "2025-03-04 12:00:00", "raw_ecommerce__fulfillment_orders", None),
        ("shipped", "2025-03-05 09:00:00", "raw_ecommerce__fulfillments", 1),
        ("fulfilled", "2025-03-05 09:10:00", "raw_ecommerce__orders", None),
        ("delivered", "2025-03-07 13:30:00", "raw_ecommerce__fulfillments", 1),
    ]
    query = "select order_stage, order_status, promise_type, is_late, late_minutes from orders where order_id = 'ecommerce/11'"
    assert rows_of(warehouse, query) == [("delivered", "fulfilled", "delivered_by", True, 90)]


def test_what_fits_no_order_is_an_exception_with_its_reason(warehouse: Path) -> None:
    query = """
        select exception_type, reason_code, amount_cents from order_exceptions
        where exception_type not in ('late') order by all"""
    assert rows_of(warehouse, query) == [
        ("cancelled_by_shop", "inventory", None),
        ("handover_of_unknown_order", "order_unknown", None),
        ("payment_mismatch", "refund_differs", -20),
        ("payment_mismatch", "tender_differs", -40),
        ("refund_without_order", "order_not_named_or_unknown", 1080),
        ("return_without_receipt", "receipt_unknown", None),
    ]


def test_orders_belong_to_the_account_the_proved_email_or_the_guest_and_tests_to_nobody(warehouse: Path) -> None:
    hubs = "select order_name, hub_identity_ref, order_status from orders join customers using (customer_id)"
    assert rows_of(warehouse, f"{hubs} where source_name = 'ecommerce' order by 1") == [
        ("#10", "account_ann", "open"),
        ("#11", "account_ann", "fulfilled"),
        ("#12", "email_bob", "open"),
        ("#15", "account_ann", "cancelled"),
    ]


def test_a_test_account_is_a_customer_and_nothing_else(warehouse: Path) -> None:
    found = rows_of(warehouse, "select customer_id from customers where is_test")
    assert len(found) == 1
    named = rows_of(
        warehouse,
        "select distinct table_name from information_schema.columns where table_schema = 'main' and column_name = 'customer_id'",
    )
    told = {table for (table,) in named if any(found[0][0] in row for row in rows_of(warehouse, f"table {table}"))}
    assert len(named) > 15
    assert told == {"customers", "customer_identities", "int_identities__resolved"}


def test_open_orders_are_committed_where_they_will_be_filled(warehouse: Path) -> None:
    query = "select on_hand_units, committed_units, safety_units, available_units from availability"
    assert rows_of(warehouse, f"{query} where location_code = 'S001' and sku = '{TENT}'") == [(8, 0, 1, 7)]
    assert rows_of(warehouse, "select count(*) from orders where order_status = 'open' and location_code = 'DC1'") == [
        (2,)
    ]


def test_money_in_a_second_currency_is_never_added_to_the_first(warehouse: Path) -> None:
    query = """
        select order_count_90d, net_cents_90d, average_order_cents_90d, favourite_category_name, days_since_last_order
        from ftr_customer_purchases join customers using (customer_id)
        where hub_identity_ref = 'account_ann' and feature_at = cast(? as timestamp)"""
    assert rows_of(warehouse, query, AS_OF) == [(4, 5000, 1667, "Ropes", 5)]


def test_a_week_earlier_nothing_of_it_was_known(warehouse: Path) -> None:
    last_week = datetime.fromisoformat(AS_OF[:10]) - timedelta(days=7)
    query = "select * from ftr_customer_purchases where feature_at = ? and order_count_90d > 0"
    assert rows_of(warehouse, query, last_week) == []


def test_a_device_speaks_for_the_only_account_it_signed_in_as(warehouse: Path) -> None:
    query = "select message_id, hub_identity_ref from web_events left join customers using (customer_id) order by 1"
    assert rows_of(warehouse, query) == [("a", "account_ann"), ("b", "account_ann"), ("c", None)]


def test_points_add_up(warehouse: Path) -> None:
    query = "select points_balance_stated, points_balance_ledger, is_reconciled from loyalty_members"
    assert rows_of(warehouse, query) == [(30, 30, True)]


@pytest.mark.parametrize(
    ("person", "purpose", "channel", "reason"),
    [
        ("account_ann", "personalization", "*", "granted"),
        ("account_ann", "analytics", "*", "refused"),
        ("account_bob", "analytics", "*", "refused"),
        ("account_ann", "model_training", "*", "never_asked"),
        ("account_ann", "marketing", "email", "withdrawn"),
        ("account_ann", "marketing", "sms", "never_asked"),
        ("account_ann", "service", "*", "contract"),
        ("email_bob", "personalization", "*", "never_asked"),
    ],
)
def test_standing_narrows_over_every_link_and_widens_over_none(
    warehouse: Path, person: str, purpose: str, channel: str, reason: str
) -> None:
    query = """
        select reason_code, is_allowed from consent_standing join customers using (customer_id)
        where hub_identity_ref = ? and purpose_code = ? and channel_code = ?"""
    assert rows_of(warehouse, query, person, purpose, channel) == [(reason, reason in ("granted", "contract"))]


def test_the_standing_of_a_subject_says_the_same_side_by_side(warehouse: Path) -> None:
    query = """
        select is_personalization_allowed, reason_analytics, reason_marketing_email, reason_service
        from ftr_subject_standing join customers using (customer_id) where hub_identity_ref = 'account_ann'"""
    assert rows_of(warehouse, query) == [(True, "refused", "withdrawn", "contract")]
