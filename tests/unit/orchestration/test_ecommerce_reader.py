"""Shopify bodies and Segment messages become rows; what is none of these is set aside and stops nothing."""

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration.sources import ecommerce
from orchestration.sources.contract import Reading, conform

SHOPIFY = Path(__file__).parents[4] / "shared" / "data" / "payloads" / "shopify"

LINE = {
    "id": 11,
    "admin_graphql_api_id": "gid://shopify/LineItem/9007199254740995",
    "sku": "SKU-00042",
    "quantity": 3,
    "price": "12.50",
    "total_discount": "1.25",
    "tax_lines": [{"price": "2.00"}, {"price": "0.72"}],
}
ORDER = {
    "id": 820982911946154500,
    "admin_graphql_api_id": "gid://shopify/Order/820982911946154508",
    "name": "#10001",
    "created_at": "2026-03-01T10:00:00-05:00",
    "updated_at": "2026-03-01T11:00:00-05:00",
    "customer": {"id": 7, "admin_graphql_api_id": "gid://shopify/Customer/7"},
    "email": "ida@example.com",
    "source_name": "web",
    "currency": "USD",
    "subtotal_price": "36.25",
    "total_discounts": "1.25",
    "total_shipping_price_set": {"shop_money": {"amount": "4.90"}},
    "total_tax": "2.72",
    "total_price": "43.87",
    "test": False,
    "payment_details": {"card_token": "tok_lantern"},
    "shipping_lines": [{"code": "CLICK_AND_COLLECT"}],
    "shipping_address": {"zip": "04101", "country_code": "US"},
    "line_items": [LINE],
}
MESSAGE = {
    "messageId": "m-1",
    "type": "track",
    "event": "Product Viewed",
    "anonymousId": "kiosk-3",
    "userId": 7,
    "originalTimestamp": "2026-03-01T10:00:00.5Z",
    "sentAt": "2026-03-01T10:00:01Z",
    "receivedAt": "2026-03-01T10:00:02Z",
    "context": {"device": {"type": "mobile"}, "os": {"name": "iOS"}, "gpc": True},
    "properties": {"sku": "SKU-00042", "order_id": None, "query": "storm lantern"},
}
REFUND = {
    "id": 5,
    "order_id": 10,
    "created_at": "2026-03-02T10:00:00Z",
    "transactions": [{"currency": None}, {"currency": "USD"}],
    "refund_line_items": [
        {
            "id": 51,
            "line_item_id": 11,
            "line_item": {"sku": "SKU-00042"},
            "quantity": 1,
            "restock_type": "RETURN",
            "location_id": 7000000001,
            "subtotal": 12.5,
            "total_tax": 0.30000000000000004,
        }
    ],
}
FULFILLMENT_ORDER = {
    "id": 81,
    "order_id": 10,
    "status": "open",
    "created_at": "2026-03-01T10:00:01Z",
    "updated_at": "2026-03-01T10:00:01Z",
    "assigned_location_id": 7000000001,
    "destination": {"email": "ida@example.com"},
    "delivery_method": {"method_type": "shipping", "max_delivery_date_time": "2026-03-05T20:00:00-05:00"},
}
FULFILLMENT = {
    "id": 91,
    "admin_graphql_api_id": "gid://shopify/Fulfillment/9007199254740997",
    "order_id": 10,
    "status": "success",
    "shipment_status": "delivered",
    "created_at": "2026-03-02T10:00:00Z",
    "updated_at": "2026-03-04T10:00:00Z",
    "service": "manual",
    "tracking_company": "UPS",
    "tracking_number": "1z827wk74630",
    "email": "ida@example.com",
    "line_items": [LINE],
}
READERS = {
    ecommerce.read_products: "products_2026-03-01.jsonl",
    ecommerce.read_customers: "customers_2026-03-01.jsonl",
    ecommerce.read_orders: "orders_2026-03-01.jsonl",
    ecommerce.read_fulfillment_orders: "fulfillment_orders_2026-03-01.jsonl",
    ecommerce.read_fulfillments: "fulfillments_2026-03-01.jsonl",
    ecommerce.read_refunds: "refunds_2026-03-01.jsonl",
    ecommerce.read_inventory_levels: "inventory_levels_2026-03-01.jsonl",
    ecommerce.read_events: "events_2026-03-01.jsonl",
}


def read(folder: Path, reader, *lines: object) -> Reading:
    """What a reader makes of lines: objects are written as JSON, bytes as they are."""
    path = folder / READERS[reader]
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return reader(path)


def rows(reading: Reading, contract) -> list[dict]:
    return conform(reading.frames[contract.table], contract, lambda kind, value: value and kind)[0].to_dicts()


def aside(reading: Reading, contract) -> list[tuple[int, str]]:
    """Every row set aside for a table, by the reader or by the contract: place and reason."""
    rejected = reading.rejections
    by_reader = [
        (offset, reason)
        for table, offset, reason in zip(rejected.table, rejected.record_offset, rejected.reason_code, strict=True)
        if table == contract.table
    ]
    frame = conform(reading.frames[contract.table], contract, lambda *_: None)[1]
    return by_reader + [(row["record_offset"], row["reason_code"]) for row in frame.to_dicts()]


def test_an_order_and_its_lines_land_in_cents_and_utc(tmp_path):
    reading = read(tmp_path, ecommerce.read_orders, ORDER)
    (order,), (line,) = rows(reading, ecommerce.ORDERS), rows(reading, ecommerce.ORDER_LINES)
    assert order["order_id"] == "820982911946154508"
    assert order["created_at"].isoformat() == "2026-03-01T15:00:00+00:00"
    assert (order["net_cents"], order["shipping_cents"], order["tax_cents"], order["gross_cents"]) == (
        3625,
        490,
        272,
        4387,
    )
    assert (order["fulfillment_method"], order["account_id"], order["payment_ref"]) == (
        "click_and_collect",
        "7",
        "payment",
    )
    assert line["line_id"] == "9007199254740995"
    assert (line["unit_price_cents"], line["discount_cents"], line["net_cents"], line["tax_cents"]) == (
        1250,
        125,
        3625,
        272,
    )
    assert line["updated_at"] == order["updated_at"]


def test_an_id_above_2_to_53_comes_from_the_gid(tmp_path):
    (order,) = rows(read(tmp_path, ecommerce.read_orders, ORDER), ecommerce.ORDERS)
    assert order["order_id"] != str(ORDER["id"])


def test_a_line_discount_is_the_sum_of_its_allocations_where_there_are_any(tmp_path):
    line = LINE | {"discount_allocations": [{"amount": "5.00"}, {"amount": "5.00"}]}
    (row,) = rows(read(tmp_path, ecommerce.read_orders, ORDER | {"line_items": [line]}), ecommerce.ORDER_LINES)
    assert (row["discount_cents"], row["net_cents"]) == (1000, 2750)


def test_a_wrapped_body_reads_as_a_bare_one(tmp_path):
    bare = read(tmp_path, ecommerce.read_orders, ORDER)
    wrapped = read(tmp_path, ecommerce.read_orders, {"topic": "orders/updated", "body": ORDER})
    for table in bare.frames:
        assert bare.frames[table].equals(wrapped.frames[table])


def test_a_body_under_a_foreign_topic_is_set_aside(tmp_path):
    erasure = {"topic": "customers/redact", "body": {"customer": {"id": 191167, "email": "john@example.com"}}}
    reading = read(tmp_path, ecommerce.read_customers, erasure)
    assert aside(reading, ecommerce.CUSTOMERS) == [(1, "wrong_topic")]
    assert "john" not in str(reading.rejections)


def test_an_order_without_shipping_from_a_till_is_in_store_and_any_unknown_code_is_shipped_home(tmp_path):
    till = ORDER | {"source_name": "pos", "shipping_lines": []}
    posted = ORDER | {"shipping_lines": [{"code": "Royal Mail 48", "price": "3.00"}], "total_shipping_price_set": None}
    first, second = rows(read(tmp_path, ecommerce.read_orders, till, posted), ecommerce.ORDERS)
    assert first["fulfillment_method"] == "in_store"
    assert (second["fulfillment_method"], second["shipping_cents"]) == ("ship_to_home", 300)


def test_a_bad_order_line_is_set_aside_and_its_order_and_the_other_lines_land(tmp_path):
    bad = ORDER | {
        "line_items": [LINE, LINE | {"quantity": "three"}, LINE | {"sku": {}}, None, LINE | {"price": "1.005"}]
    }
    reading = read(tmp_path, ecommerce.read_orders, bad, ORDER)
    assert len(rows(reading, ecommerce.ORDERS)) == 2
    assert [row["record_offset"] for row in rows(reading, ecommerce.ORDER_LINES)] == [1, 2]
    assert aside(reading, ecommerce.ORDER_LINES) == [(1, "wrong_type")] * 4


def test_a_bad_order_is_set_aside_and_its_lines_wait_in_raw(tmp_path):
    reading = read(tmp_path, ecommerce.read_orders, ORDER | {"financial_status": "haggled"})
    assert aside(reading, ecommerce.ORDERS) == [(1, "unknown_code")]
    assert len(rows(reading, ecommerce.ORDER_LINES)) == 1


def test_a_price_times_a_quantity_too_large_to_hold_is_set_aside(tmp_path):
    huge = ORDER | {"line_items": [LINE | {"price": "999999999999.99", "quantity": 10**18}]}
    assert aside(read(tmp_path, ecommerce.read_orders, huge), ecommerce.ORDER_LINES) == [(1, "wrong_type")]


def test_a_refund_written_in_floats_is_read_to_the_cent(tmp_path):
    (row,) = rows(read(tmp_path, ecommerce.read_refunds, REFUND), ecommerce.REFUND_LINES)
    assert (row["net_cents"], row["tax_cents"], row["currency_code"]) == (1250, 30, "USD")
    assert (row["restock_type"], row["location_id"], row["line_id"]) == ("return", "7000000001", "11")


def test_a_refund_says_what_of_it_is_for_shipping_and_what_is_goodwill_whichever_way_the_shop_spells_it(tmp_path):
    line = {
        "subtotal_amount_set": {"shop_money": {"amount": "4.95"}},
        "tax_amount_set": {"shop_money": {"amount": "0.40"}},
    }
    older = {"kind": "shipping_refund", "amount": "-4.95", "tax_amount": "-0.40"}
    goodwill = {"kind": "refund_discrepancy", "amount": -2.5, "tax_amount": "0.00"}
    paid = [
        {"kind": "refund", "status": "success", "amount": "20.65", "currency": "USD"},
        {"kind": "refund", "status": "failure", "amount": "9"},
    ]
    new = REFUND | {"transactions": paid, "refund_shipping_lines": [line], "order_adjustments": [goodwill]}
    old = REFUND | {"transactions": paid, "order_adjustments": [older, goodwill]}
    for row in rows(read(tmp_path, ecommerce.read_refunds, new, old), ecommerce.REFUNDS):
        assert (row["paid_cents"], row["shipping_cents"], row["shipping_tax_cents"]) == (2065, 495, 40)
        assert (row["adjustment_cents"], row["adjustment_tax_cents"], row["currency_code"]) == (250, 0, "USD")


def test_a_refund_without_lines_lands_with_what_was_paid(tmp_path):
    kept = {key: value for key, value in REFUND.items() if key != "refund_line_items"}
    reading = read(tmp_path, ecommerce.read_refunds, kept | {"transactions": [{"amount": "5.00", "currency": "USD"}]})
    (row,) = rows(reading, ecommerce.REFUNDS)
    assert (row["refund_id"], row["paid_cents"], rows(reading, ecommerce.REFUND_LINES)) == ("5", 500, [])


def test_a_promise_is_the_latest_time_the_shop_gave_at_the_checkout(tmp_path):
    (row,) = rows(read(tmp_path, ecommerce.read_fulfillment_orders, FULFILLMENT_ORDER), ecommerce.FULFILLMENT_ORDERS)
    assert (row["promised_at"].isoformat(), row["method_type"]) == ("2026-03-06T01:00:00+00:00", "shipping")
    assert (row["order_id"], row["location_id"], row["email_ref"]) == ("10", "7000000001", "email")


def test_a_fulfilment_gives_a_row_for_each_line_with_how_far_it_has_come(tmp_path):
    sent = FULFILLMENT | {"line_items": [LINE, LINE | {"admin_graphql_api_id": None, "quantity": 1}]}
    found = rows(read(tmp_path, ecommerce.read_fulfillments, sent), ecommerce.FULFILLMENTS)
    assert [(row["fulfillment_id"], row["line_id"], row["quantity_units"]) for row in found] == [
        ("9007199254740997", "9007199254740995", 3),
        ("9007199254740997", "11", 1),
    ]
    assert {(row["shipment_status"], row["carrier_name"], row["tracking_number"]) for row in found} == {
        ("delivered", "UPS", "1z827wk74630")
    }


def test_an_order_keeps_the_marketplaces_own_id_and_who_cancelled_it(tmp_path):
    ended = ORDER | {
        "source_identifier": "BZ-0000000007",
        "cancelled_at": ORDER["updated_at"],
        "cancel_reason": "inventory",
    }
    (row,) = rows(read(tmp_path, ecommerce.read_orders, ended), ecommerce.ORDERS)
    assert (row["marketplace_order_id"], row["cancel_reason"]) == ("BZ-0000000007", "inventory")


def test_an_event_keeps_its_three_clocks_its_device_and_its_privacy_signal(tmp_path):
    (row,) = rows(read(tmp_path, ecommerce.read_events, MESSAGE), ecommerce.EVENTS)
    assert [row[name].second for name in ("occurred_at", "sent_at", "recorded_at")] == [0, 1, 2]
    assert (row["account_id"], row["device_ref"], row["has_gpc"]) == ("7", "device", True)
    assert (row["event_name"], row["search_query"], row["os_name"]) == ("Product Viewed", "storm lantern", "iOS")


def test_an_event_with_nothing_but_its_envelope_lands(tmp_path):
    page = {k: MESSAGE[k] for k in ("messageId", "originalTimestamp", "receivedAt")} | {"type": "page", "name": "Home"}
    identify = page | {"type": "identify", "name": None, "context": None, "properties": None}
    names = [row["event_name"] for row in rows(read(tmp_path, ecommerce.read_events, page, identify), ecommerce.EVENTS)]
    assert names == ["Home", "identify"]


def test_an_account_tagged_test_is_a_test_account(tmp_path):
    customer = {
        "id": 7,
        "created_at": "2026-03-01T10:00:00Z",
        "updated_at": "2026-03-01T10:00:00Z",
        "verified_email": True,
    }
    accounts = [customer | {"tags": tags} for tags in ("vip, Test", ["test"], "tester", None)]
    found = rows(read(tmp_path, ecommerce.read_customers, *accounts), ecommerce.CUSTOMERS)
    assert [row["is_test"] for row in found] == [True, True, False, False]


def test_a_product_gives_one_row_per_variant(tmp_path):
    variants = [
        {"id": i, "inventory_item_id": 90 + i, "sku": f"SKU-0000{i}", "price": "9.90", "grams": 120} for i in (1, 2)
    ]
    product = {"id": 3, "title": "Storm lantern", "updated_at": "2026-03-01T10:00:00Z", "variants": variants}
    found = rows(read(tmp_path, ecommerce.read_products, product), ecommerce.PRODUCTS)
    assert [(r["sku"], r["inventory_item_id"], r["price_cents"], r["product_id"]) for r in found] == [
        ("SKU-00001", "91", 990, "3"),
        ("SKU-00002", "92", 990, "3"),
    ]


def test_an_untracked_level_has_no_quantity_and_one_below_zero_keeps_it(tmp_path):
    level = {"inventory_item_id": 91, "location_id": 7000000001, "updated_at": "2026-03-01T23:00:00Z"}
    reading = read(tmp_path, ecommerce.read_inventory_levels, level | {"available": None}, level | {"available": -2})
    assert [row["available_units"] for row in rows(reading, ecommerce.INVENTORY_LEVELS)] == [None, -2]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (json.dumps(ORDER).encode()[:-40], "not_json"),
        (b"\x00\x01\x02", "not_json"),
        (b"[" * 5_000, "not_an_object"),
        (b'{"name":' + b"[" * 5_000, "not_json"),
        (b'["an", "array"]', "not_an_object"),
        (b"null", "not_an_object"),
        (json.dumps(ORDER, ensure_ascii=False).replace("ida@", "idä@").encode("latin-1"), "wrong_encoding"),
        (json.dumps(ORDER | {"note": "x" * 1_000_000}).encode(), "too_long"),
        (json.dumps(ORDER | {"name": "#" * 1_001}).encode(), "too_long"),
        (json.dumps(ORDER | {"customer": "Ida"}).encode(), "wrong_type"),
        (json.dumps(ORDER | {"subtotal_price": "12,50"}).encode(), "wrong_type"),
        (json.dumps(ORDER | {"created_at": "2026-03-01T10:00:00"}).encode(), "wrong_type"),
        (json.dumps({}).encode(), "missing_value"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_line_is_set_aside_with_its_place_and_the_good_ones_land(tmp_path, line, reason):
    reading = read(tmp_path, ecommerce.read_orders, ORDER, line, ORDER)
    assert aside(reading, ecommerce.ORDERS) == [(2, reason)]
    assert [row["record_offset"] for row in rows(reading, ecommerce.ORDERS)] == [1, 3]
    assert "ida" not in str(reading.rejections).lower()


def test_a_truncated_last_line_is_set_aside(tmp_path):
    assert aside(read(tmp_path, ecommerce.read_events, MESSAGE, b'{"messageId": "m-2", "ty'), ecommerce.EVENTS) == [
        (2, "not_json")
    ]


def test_unknown_fields_blank_lines_and_windows_line_ends_change_nothing(tmp_path):
    plain = read(tmp_path, ecommerce.read_events, MESSAGE)
    dressed = json.dumps(MESSAGE | {"colour_of_the_day": {"r": 1}}).encode() + b"\r"
    reading = read(tmp_path, ecommerce.read_events, b"\xef\xbb\xbf" + dressed, b"", b"\r")
    assert reading.rejections.table == []
    assert plain.frames[ecommerce.EVENTS.table].equals(reading.frames[ecommerce.EVENTS.table])


def test_a_line_sent_twice_lands_twice_for_staging_to_choose(tmp_path):
    assert [
        row["record_offset"] for row in rows(read(tmp_path, ecommerce.read_events, MESSAGE, MESSAGE), ecommerce.EVENTS)
    ] == [1, 2]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_an_empty_file_gives_empty_frames_that_keep_their_contracts(tmp_path, reader):
    reading = read(tmp_path, reader, b"")
    for contract in (c for c in ecommerce.CONTRACTS if c.table in reading.frames):
        assert rows(reading, contract) == []
    assert reading.rejections.table == []


def test_every_file_kind_gives_the_tables_it_names(tmp_path):
    for kind, name in zip(ecommerce.SOURCE.files, READERS.values(), strict=True):
        (tmp_path / name).write_bytes(b"")
        assert tuple(kind.read(tmp_path / name).frames) == kind.tables


FUZZED = {
    ecommerce.read_orders: json.dumps(ORDER).encode(),
    ecommerce.read_fulfillment_orders: json.dumps(FULFILLMENT_ORDER).encode(),
    ecommerce.read_refunds: json.dumps(REFUND).encode(),
    ecommerce.read_events: json.dumps(MESSAGE).encode(),
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    reader=st.sampled_from(list(FUZZED)),
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3), st.integers(0, 4)), min_size=1, max_size=6),
)
def test_no_edit_of_bytes_makes_a_reader_raise_and_no_line_is_lost(tmp_path, reader, edits):
    data = FUZZED[reader]
    for place, new, dropped in edits:
        at = int(place * len(data))
        data = data[:at] + new.replace(b"\n", b" ") + data[at + dropped :]
    reading = read(tmp_path, reader, data, FUZZED[reader])
    main = next(c for c in ecommerce.CONTRACTS if c.table == next(iter(reading.frames)))
    kept, out = rows(reading, main), aside(reading, main)
    assert 2 in [row["record_offset"] for row in kept]
    for table, frame in reading.frames.items():
        conform(frame, next(c for c in ecommerce.CONTRACTS if c.table == table), lambda *_: None)
    if reader is not ecommerce.read_refunds:
        assert {1, 2} == {row["record_offset"] for row in kept} | {offset for offset, _ in out} or not data.strip()


@settings(max_examples=30, deadline=None)
@given(
    json_like=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted({*ORDER, *LINE, "body"})), inner)
        ),
        max_leaves=12,
    )
)
def test_no_json_makes_a_reader_raise(tmp_path_factory, json_like):
    folder = tmp_path_factory.mktemp("json")
    for reader in READERS:
        reading = read(folder, reader, json_like)
        for contract in (c for c in ecommerce.CONTRACTS if c.table in reading.frames):
            conform(reading.frames[contract.table], contract, lambda *_: None)


@pytest.mark.skipif(not SHOPIFY.exists(), reason="the documented webhook examples are not beside this repository")
@pytest.mark.parametrize(
    ("name", "reader", "contract", "count"),
    [
        ("orders.create", ecommerce.read_orders, ecommerce.ORDER_LINES, 5),
        ("orders.cancelled", ecommerce.read_orders, ecommerce.ORDER_LINES, 5),
        ("refunds.create", ecommerce.read_refunds, ecommerce.REFUND_LINES, 5),
        ("refunds.create", ecommerce.read_refunds, ecommerce.REFUNDS, 1),
        ("fulfillments.create", ecommerce.read_fulfillments, ecommerce.FULFILLMENTS, 5),
        ("customers.create", ecommerce.read_customers, ecommerce.CUSTOMERS, 1),
    ],
)
def test_the_documented_webhook_examples_read_wrapped_and_bare(tmp_path, name, reader, contract, count):
    example = json.loads((SHOPIFY / f"{name}.json").read_text())
    reading = read(tmp_path, reader, example, example["body"])
    assert [row["record_offset"] for row in rows(reading, contract)] == [1] * count + [2] * count
    assert reading.rejections.table == []


@pytest.mark.skipif(not SHOPIFY.exists(), reason="the documented webhook examples are not beside this repository")
def test_a_documented_example_that_names_no_item_is_set_aside_by_its_contract(tmp_path):
    product = json.loads((SHOPIFY / "products.create.json").read_text())
    assert aside(read(tmp_path, ecommerce.read_products, product), ecommerce.PRODUCTS) == [(1, "missing_value")] * 2
    level = json.loads((SHOPIFY / "inventory_levels.update.json").read_text())
    assert aside(read(tmp_path, ecommerce.read_inventory_levels, level), ecommerce.INVENTORY_LEVELS) == [
        (1, "missing_value")
    ]


def test_amounts_that_are_no_amounts_stay_text_for_the_contract_to_refuse(tmp_path):
    odd = ORDER | {"line_items": [LINE | {"tax_lines": [{"price": "1.00"}, {"price": "free"}]}]}
    assert aside(read(tmp_path, ecommerce.read_orders, odd), ecommerce.ORDER_LINES) == [(1, "wrong_type")]
    assert (
        read(tmp_path, ecommerce.read_orders, odd).frames[ecommerce.ORDER_LINES.table].schema["tax_cents"]
        == pl.String()
    )
