"""What became of an order, told to the shopper and to the contact centre, and to nobody without standing."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from consent.ledger.opening import open_ledger
from serving import keys
from serving.answers import Desk, OrderAnswer, ask_order, in_short
from serving.app import create_app
from serving.errors import ServingError
from serving.orders import NoSuchOrderError
from tests.unit.feature_repo.published_home import ADA, AS_OF, BRAM, LEDGER_SIZE, STANDING, view_frame
from tests.unit.serving.open_hub import OpenHub
from tests.unit.serving.open_shop import AT, Caller, open_shop
from troth.clock import FixedClock

ID = "ecommerce/5000"
TIME = pl.Datetime("us")
PERSONAL = ("ada@", "555-", "email_", "phone_")


def hours(before: float) -> datetime:
    return AS_OF - timedelta(hours=before)


def order(**changes: Any) -> dict[str, Any]:
    return {
        "order_id": ID, "order_name": "#10001", "marketplace_order_id": "BZ-77", "source_name": "ecommerce", "channel_type": "web",
        "fulfillment_method": "click_and_collect", "customer_id": ADA, "location_code": "S001", "ordered_at": hours(30),
        "currency_code": "USD", "gross_cents": 3240, "order_stage": "ready_for_pickup", "promised_at": hours(28), "promise_type": "ready_by",
        "fulfilled_at": hours(27), "is_late": True, "late_minutes": 60, "refunded_cents": 1080, **changes,
    }  # fmt: skip


def event(event_type: str, before: float, **changes: Any) -> dict[str, Any]:
    plain = dict.fromkeys(
        ("order_line_id", "sku", "location_code", "units", "amount_cents", "reason_code", "promised_at")
    )
    parcel = {"carrier_name": None, "tracking_number": None}
    return {
        "order_id": ID, "order_event_id": f"{event_type}/{before}", "event_type": event_type, "occurred_at": hours(before),
        "recorded_at": hours(before), "received_at": hours(before - 1), "source_name": "ecommerce", "source_table": "raw_ecommerce__orders",
        "source_ref": "r-1", **plain, **parcel, **changes,
    }  # fmt: skip


def line(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "order_id": ID, "order_line_id": f"{ID}/{number}", "line_number": number, "sku": "SKU-00001", "quantity_units": 2, "sent_units": 1,
        "cancelled_units": 1, "returned_units": 0, "refunded_cents": 1080,
        "customer_id": ADA, "ordered_at": hours(30), "is_cancelled": False, **changes,
    }  # fmt: skip


EVENTS = [
    event("placed", 30, units=2),
    event("paid", 30, amount_cents=3240),
    event("promised", 30, promised_at=hours(28)),
    event("pick_failed", 29, sku="SKU-00001", units=1, reason_code="missing", location_code="S001", source_name="wms"),
    event("picked", 29, sku="SKU-00001", units=1, location_code="S001", source_name="wms"),
    event("partially_refunded", 28, sku="SKU-00001", amount_cents=1080),
    event("ready_for_pickup", 27, sku="SKU-00001", units=1, location_code="S001"),
    event("shipped", 26, sku="SKU-00001", units=1, carrier_name="UPS", tracking_number="1Z9"),
]
EXCEPTION = {
    "order_id": ID, "order_line_id": None, "sku": None, "occurred_at": hours(28), "source_table": "raw_ecommerce__fulfillment_orders",
    "source_ref": "r-2", "location_code": "S001", "units": None, "amount_cents": None, "late_minutes": None,
}  # fmt: skip
EXCEPTIONS = [
    EXCEPTION | {"exception_type": "late", "reason_code": "ready_late", "late_minutes": 60},
    EXCEPTION | {"exception_type": "short_pick", "reason_code": "missing", "sku": "SKU-00001", "units": 1},
    EXCEPTION | {"exception_type": "payment_mismatch", "reason_code": "refund_differs", "amount_cents": -20},
]
REFUND = {
    "order_id": ID, "refund_line_id": "ecommerce/9/1", "refund_type": "cancelled", "sku": "SKU-00001", "quantity_units": 1,
    "gross_cents": 1080, "refunded_at": hours(28), "location_code": None,
}  # fmt: skip
RETURN = {
    "order_id": ID, "return_line_id": "pos/1/1/7/2026-03-01/1", "sku": "SKU-00001", "quantity_units": 1, "returned_at": hours(2),
    "restock_type": "not_said", "location_code": "S001",
}  # fmt: skip


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows with times as tables hold them, and no column without a type."""
    made = pl.DataFrame(rows, infer_schema_length=None)
    times = [name for name in made.columns if name.endswith("_at")]
    texts = [name for name, kind in made.schema.items() if kind == pl.Null and name not in times]
    return made.with_columns(pl.col(times).cast(TIME), pl.col(texts).cast(pl.String))


def tables(*orders: dict[str, Any]) -> dict[str, pl.DataFrame]:
    return {
        "orders": frame([*orders] or [order()]),
        "order_lines": frame([line(1)]),
        "order_events": frame(EVENTS),
        "order_exceptions": frame(EXCEPTIONS),
        "refunds": frame([REFUND]),
        "returns": frame([RETURN]),
        "products": pl.DataFrame(
            {"sku": ["SKU-00001"], "product_name": ["Storm lantern"], "category_name": ["Lamps"], "price_cents": [3900], "weight_grams": [700]}
        ),
        "locations": pl.DataFrame(
            {
                "location_code": ["S001"], "location_name": ["Pier 9"], "location_type": ["store"], "timezone_name": ["America/Los_Angeles"],
                "latitude": [37.8], "longitude": [-122.4], "region_code": ["CA"], "country_code": ["US"], "opens_at": ["09:00"], "closes_at": ["18:00"],
            }
        ),
    }  # fmt: skip


def shop(root: Path, *orders: dict[str, Any]) -> Desk:
    return open_shop(root, **tables(*orders))


def told(answer: OrderAnswer) -> list[str]:
    assert answer.view is not None
    return [each.text for each in answer.view.timeline]


@pytest.mark.parametrize("name", ["#10001", "10001", ID, "5000", "BZ-77"])
def test_an_order_answers_to_its_name_its_id_and_what_its_marketplace_calls_it(name: str, tmp_path: Path) -> None:
    answer = ask_order(shop(tmp_path), name, AT)
    assert (answer.order, answer.is_allowed, answer.reason_code, answer.purpose_code) == (
        "#10001", True, "contract", "service",
    )  # fmt: skip


def test_a_receipt_answers_to_the_number_printed_on_it(tmp_path: Path) -> None:
    receipt = order(order_id="pos/1/2/33/2026-03-01", order_name="1/2/33/2026-03-01", customer_id=None, order_stage="sold",
                    promised_at=None, promise_type=None, is_late=None, late_minutes=None)  # fmt: skip
    answer = ask_order(shop(tmp_path, order(), receipt), "1/2/33/2026-03-01", AT)
    assert answer.view is not None
    assert (answer.reason_code, answer.view.status, answer.view.promise.text) == (
        "not_personal", "Bought at Pier 9.", "No time was promised.",
    )  # fmt: skip


def test_the_contact_centre_hears_everything_in_order_with_the_record_it_rests_on(tmp_path: Path) -> None:
    answer = ask_order(shop(tmp_path), "10001", AT)
    assert told(answer) == [
        "Order placed.",
        "Paid: 32.40 USD.",
        "Promised by Sat 28 Feb 2026, 22:00 UTC.",
        "1 x Storm lantern picked at Pier 9.",
        "1 x Storm lantern not found at Pier 9: not on the shelf.",
        "Refunded: 10.80 USD.",
        "1 x Storm lantern ready to be picked up at Pier 9.",
        "1 x Storm lantern sent with UPS.",
    ]
    assert answer.view is not None
    first = answer.view.timeline[0]
    assert (first.source_name, first.source_table, first.source_ref) == ("ecommerce", "raw_ecommerce__orders", "r-1")
    assert answer.view.tracking == ["UPS 1Z9"]
    assert [(each.exception_type, each.text) for each in answer.view.exceptions] == [
        ("late", "It was ready 1 hour later than promised."),
        ("short_pick", "We could not find 1 x Storm lantern."),
        ("payment_mismatch", "What the payment service gave back is 0.20 USD off what was due."),
    ]


def test_the_shopper_hears_plain_words_and_no_codes(tmp_path: Path) -> None:
    answer = ask_order(shop(tmp_path), "10001", AT, "shopper")
    assert answer.view is not None
    assert answer.view.status == "It is ready to be picked up at Pier 9."
    assert [text for text in told(answer) if "picked at" in text or "not found" in text] == []
    assert [each.text for each in answer.view.exceptions] == [
        "It was ready 1 hour later than promised.", "We could not find 1 x Storm lantern.",
    ]  # fmt: skip
    text = msgspec.json.encode(answer.view).decode()
    for code in (
        "SKU-",
        "S001",
        "cus_",
        "raw_",
        "r-1",
        "ecommerce/",
        "payment_mismatch",
        "missing",
        "restock_type",
        "null,null",
    ):
        assert code not in text, code


@pytest.mark.parametrize("audience", ["shopper", "contact_centre"])
def test_nobody_is_shown_contact_data(audience: str, tmp_path: Path) -> None:
    text = msgspec.json.encode(ask_order(shop(tmp_path), "10001", AT, audience)).decode()
    assert [trace for trace in PERSONAL if trace in text] == []


def test_promise_line_refund_and_return_say_what_became_of_each_money_and_goods_apart(tmp_path: Path) -> None:
    view = ask_order(shop(tmp_path), "10001", AT).view
    assert view is not None
    assert view.promise.text == "Promised to be ready by Sat 28 Feb 2026, 22:00 UTC. Late by 1 hour."
    assert [(each.item, each.units, each.text) for each in view.lines] == [
        ("Storm lantern", 2, "1 sent, 1 cancelled, 10.80 USD refunded")
    ]
    assert [each.text for each in view.refunds] == ["10.80 USD for 1 x Storm lantern that never left."]
    assert [each.text for each in view.returns] == [
        "1 x Storm lantern came back at Pier 9: not yet inspected, or nobody says."
    ]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"is_late": False, "late_minutes": 0}, "Kept."),
        ({"is_late": True, "late_minutes": 1530, "fulfilled_at": None}, "Late by 1 day and 1 hour so far."),
        ({"is_late": False, "late_minutes": 0, "fulfilled_at": None}, "22:00 UTC."),
    ],
)
def test_a_promise_says_whether_it_was_kept(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    view = ask_order(shop(tmp_path, order(**changes)), "10001", AT).view
    assert view is not None
    assert view.promise.text.endswith(text)


def test_an_answer_says_how_old_it_is_and_what_each_source_last_said(tmp_path: Path) -> None:
    answer = ask_order(shop(tmp_path), "10001", AT)
    assert answer.age_seconds == 3_600
    assert {name: at.replace(tzinfo=None) for name, at in answer.newest_by_source.items()} == {
        "ecommerce": hours(26), "wms": hours(29),
    }  # fmt: skip
    assert answer.evidence.ledger_size == LEDGER_SIZE
    assert set(answer.evidence.versions) >= {"orders", "order_events", "refunds", "returns"}


def test_without_standing_for_service_not_a_word_is_told(tmp_path: Path) -> None:
    refused = [row | {"is_service_allowed": False, "reason_service": "erased"} for row in STANDING]
    desk = open_shop(
        tmp_path, **tables(order(customer_id=BRAM)), ftr_subject_standing=view_frame("subject_standing", refused)
    )
    answer = ask_order(desk, "10001", AT)
    assert (answer.is_allowed, answer.reason_code, answer.view, answer.newest_by_source) == (False, "erased", None, {})
    assert BRAM not in msgspec.json.encode(answer).decode()


def test_an_order_nobody_knows_and_an_audience_there_is_none_of_are_refused_in_words(tmp_path: Path) -> None:
    desk = shop(tmp_path)
    with pytest.raises(NoSuchOrderError, match=r"order: expected the name or id of one order, .* found none"):
        ask_order(desk, "10002", AT)
    with pytest.raises(ServingError, match="audience: expected one of"):
        ask_order(desk, "10001", AT, "neighbour")


def test_a_name_that_two_orders_share_names_neither(tmp_path: Path) -> None:
    with pytest.raises(NoSuchOrderError, match="found 2"):
        ask_order(shop(tmp_path, order(), order(order_id="ecommerce/5001")), "#10001", AT)


def test_on_a_terminal_the_timeline_is_time_words_and_source(tmp_path: Path) -> None:
    short = in_short(ask_order(shop(tmp_path), "10001", AT)).view
    assert short is not None
    assert set(msgspec.to_builtins(short.timeline[0])) == {"occurred_at", "text", "source_name"}


def client(root: Path, *purposes: str) -> Caller:
    standing = view_frame("subject_standing", [row | {"ledger_size": 0} for row in STANDING])
    home = open_shop(root, **tables(), ftr_subject_standing=standing).home
    open_ledger(home, FixedClock(AT)).close()
    return Caller(create_app(home, FixedClock(AT)), keys.make_key(home, "test", purposes or keys.ALL_PURPOSES, AT))


def test_over_http_the_shopper_is_the_one_told_unless_the_contact_centre_asks(tmp_path: Path) -> None:
    caller = client(tmp_path)
    shopper = caller.get("/v1/orders", params={"order": "#10001"})
    centre = caller.get("/v1/orders", params={"order": "#10001", "audience": "contact_centre"}).json()
    assert (shopper.status_code, shopper.headers["cache-control"], shopper.json()["audience"]) == (
        200,
        "no-store",
        "shopper",
    )
    assert "order_id" not in shopper.json()["view"]
    assert centre["view"]["order_id"] == ID


@pytest.mark.parametrize(
    ("query", "status", "kind"),
    [
        ("", 400, "bad_request"),
        ("?order=%2310002", 404, "no_such_order"),
        ("?order=10001&audience=neighbour", 400, "bad_request"),
        (f"?order={'1' * 201}", 400, "bad_request"),
    ],
)
def test_a_wrong_question_is_told_what_was_expected(query: str, status: int, kind: str, tmp_path: Path) -> None:
    found = client(tmp_path).get(f"/v1/orders{query}").json()
    assert (found["status"], found["type"].rpartition(":")[2]) == (status, kind)
    assert "10002" not in found["detail"]


@pytest.mark.parametrize("audience", ["shopper", "contact_centre"])
def test_an_order_is_had_as_message_pack_too(audience: str, tmp_path: Path) -> None:
    shop, path = client(tmp_path), f"/v1/orders?order=10001&audience={audience}"
    packed = shop.get(path, headers={"Accept": "application/msgpack"})
    assert (packed.status_code, packed.headers["content-type"]) == (200, "application/msgpack")
    assert msgspec.to_builtins(msgspec.msgpack.decode(packed.content)) == shop.get(path).json()


def test_a_key_without_purpose_service_is_told_nothing(tmp_path: Path) -> None:
    assert client(tmp_path, "analytics").get("/v1/orders?order=10001").status_code == 403


def test_what_people_hold_opens_no_order(tmp_path: Path) -> None:
    """Keys are for systems; a link into the preference centre, its path or its seal, is no key."""
    hub = OpenHub(tmp_path)
    path = hub.link()
    for said in (path, path.rpartition("/")[2]):
        assert Caller(hub.app, said).get("/v1/orders?order=10001").status_code == 401
    assert hub.links.get("/v1/orders?order=10001").status_code == 403
