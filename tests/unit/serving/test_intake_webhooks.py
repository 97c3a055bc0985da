"""Webhooks of a shop and messages of tracking libraries: who is believed, what is a duplicate, what becomes consent."""

import hmac
import json
import os
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import keys
from serving.errors import ServingError
from serving.intake.shops import Shops, add_shop
from tests.unit.serving.open_hub import MONDAY
from tests.unit.serving.open_shop import Caller
from tests.unit.serving.test_intake_events import OpenIntake

DOMAIN, SECRET = "pier-outfitters.myshopify.com", "shpss_of_the_pier"
ORDER = {
    "id": 5_001,
    "admin_graphql_api_id": "gid://shopify/Order/5001",
    "name": "#10001",
    "created_at": "2026-03-02T04:00:00-05:00",
    "updated_at": "2026-03-02T04:30:00-05:00",
    "line_items": [{"id": 1, "sku": "SKU-00001", "quantity": 2}],
}
LEVEL = {"inventory_item_id": 77, "location_id": 8, "available": 4, "updated_at": "2026-03-02T04:30:00-05:00"}
CUSTOMER = {
    "id": 901,
    "email": "rosalind@pier.example",
    "updated_at": "2026-03-02T04:30:00-05:00",
    "email_marketing_consent": {
        "state": "unsubscribed",
        "opt_in_level": "single_opt_in",
        "consent_updated_at": "2026-03-02T04:29:00-05:00",
    },
}


@pytest.fixture
def intake(tmp_path: Path) -> OpenIntake:
    opened = OpenIntake(tmp_path)
    add_shop(opened.home, DOMAIN, SECRET, jurisdiction_code="US-OR")
    return opened


def deliver(intake: OpenIntake, topic: str, body: object, secret: str = SECRET, **changes: str) -> httpx.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {
        "X-Shopify-Topic": topic,
        "X-Shopify-Shop-Domain": DOMAIN,
        "X-Shopify-Event-Id": "98880550-7158-44d4-b7cd-2c97c8a091b5",
        "X-Shopify-Webhook-Id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
        "X-Shopify-Triggered-At": "2026-03-02T09:30:01.123456789Z",
        "X-Shopify-Hmac-Sha256": b64encode(hmac.digest(secret.encode(), data, "sha256")).decode(),
        "Content-Type": "application/json",
    }
    return Caller(intake.app).post("/v1/webhooks/shopify", content=data, headers=headers | changes)


def said(intake: OpenIntake) -> list[tuple[str, str, str]]:
    return [(e.event.event_type, e.event.purpose_code, e.event.channel_code) for e in intake.hub.ledger.events(0)]


def test_a_signed_order_is_kept_as_it_came_before_it_is_acknowledged(intake: OpenIntake) -> None:
    assert deliver(intake, "orders/create", ORDER).status_code == 200
    (event,) = intake.desk.log.read(0, 10)
    assert (event.source_name, event.event_type, event.topic, event.key) == (
        "ecommerce",
        "order",
        "orders/create",
        "order/5001",
    )
    assert event.occurred_at == datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
    assert event.recorded_at == datetime(2026, 3, 2, 9, 30, 1, 123456, tzinfo=UTC)
    assert event.payload == json.dumps(ORDER).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"X-Shopify-Hmac-Sha256": "bm90IHRoZSBzaG9w"},
        {"X-Shopify-Hmac-Sha256": ""},
        {"X-Shopify-Hmac-Sha256": "\u00e9"},
        {"X-Shopify-Shop-Domain": "elsewhere.myshopify.com"},
        {"X-Shopify-Shop-Domain": ""},
    ],
)
def test_what_no_known_shop_signed_is_refused_in_one_way_and_kept_nowhere(
    changes: dict[str, str], intake: OpenIntake
) -> None:
    encoded = {name: value.encode("latin-1") for name, value in changes.items()}
    answer = deliver(intake, "orders/create", ORDER, **encoded)  # type: ignore[arg-type]  # httpx takes bytes too
    assert (answer.status_code, answer.json()["type"]) == (401, "urn:troth:problem:not_signed")
    assert intake.desk.log.head() == 0
    assert intake.desk.log.letters.list() == []


def test_one_changed_byte_breaks_the_signature(intake: OpenIntake) -> None:
    data = json.dumps(ORDER).encode()
    signature = b64encode(hmac.digest(SECRET.encode(), data, "sha256")).decode()
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        shop = intake.desk.shops.find(DOMAIN)
        assert shop is not None
        from serving.intake.shops import is_signed

        assert not is_signed(shop, changed, signature)


def test_while_a_secret_is_changed_both_are_good_and_then_the_new_one_alone(intake: OpenIntake) -> None:
    add_shop(intake.home, DOMAIN, "shpss_second")
    assert deliver(intake, "orders/create", ORDER).status_code == 200
    assert deliver(intake, "orders/create", ORDER, "shpss_second").status_code == 200
    add_shop(intake.home, DOMAIN, "shpss_third")
    assert deliver(intake, "orders/create", ORDER).status_code == 401


def test_secrets_that_others_may_read_are_not_used(intake: OpenIntake) -> None:
    path = intake.home.root / "keys" / "shops.json"
    assert path.stat().st_mode & 0o777 == 0o600
    os.chmod(path, 0o640)
    with pytest.raises(ServingError, match="expected a file that its owner alone may read"):
        Shops(intake.home).find(DOMAIN)
    assert deliver(intake, "orders/create", ORDER).status_code == 503


def test_a_duplicate_by_another_subscription_or_a_retry_is_one_event(intake: OpenIntake) -> None:
    for webhook in ("first", "retried", "other subscription"):
        assert deliver(intake, "orders/updated", ORDER, **{"X-Shopify-Webhook-Id": webhook}).status_code == 200
    assert intake.desk.log.head() == 1
    assert intake.desk.log.counters()["known"] == 2


def test_one_event_of_the_shop_may_be_several_webhooks_and_none_is_lost(intake: OpenIntake) -> None:
    deliver(intake, "orders/updated", ORDER)
    deliver(intake, "orders/fulfilled", ORDER)
    deliver(intake, "orders/updated", {**ORDER, "note": "a second later in the same second"})
    deliver(intake, "inventory_levels/update", LEVEL)
    deliver(intake, "inventory_levels/update", {**LEVEL, "inventory_item_id": 78})
    assert [each.key for each in intake.desk.log.read(0, 10)] == ["order/5001"] * 3 + ["level/8/77", "level/8/78"]
    assert intake.desk.log.letters.list() == []


def test_refunds_and_fulfilments_go_by_the_key_of_their_order(intake: OpenIntake) -> None:
    deliver(intake, "refunds/create", {"id": 1, "order_id": 5001, "created_at": "2026-03-02T04:30:00-05:00"})
    deliver(intake, "fulfillments/create", {"id": 2, "order_id": 5001, "updated_at": "2026-03-02T04:30:00-05:00"})
    events = intake.desk.log.read(0, 10)
    assert [(each.event_type, each.key) for each in events] == [("refund", "order/5001"), ("fulfilment", "order/5001")]


@pytest.mark.parametrize(
    ("topic", "body", "reason"),
    [
        ("carts/update", ORDER, "unknown_topic"),
        ("", ORDER, "unknown_topic"),
        ("orders/create", b"{", "not_as_described"),
        ("orders/create", [], "not_as_described"),
        ("orders/create", {"id": 1}, "not_as_described"),
        ("orders/create", {"updated_at": "2026-03-02T04:30:00-05:00"}, "not_as_described"),
        ("inventory_levels/update", {**LEVEL, "updated_at": "yesterday"}, "not_as_described"),
        ("inventory_levels/update", {**LEVEL, "updated_at": "2036-03-02T04:30:00-05:00"}, "not_as_described"),
    ],
)
def test_what_is_signed_and_cannot_be_used_is_acknowledged_and_set_aside(
    topic: str, body: object, reason: str, intake: OpenIntake
) -> None:
    assert deliver(intake, topic, body).status_code == 200
    assert intake.desk.log.head() == 0
    (letter,) = intake.desk.log.letters.list()
    assert (letter.reason_code, letter.topic) == (reason, topic)
    assert [each.outcome for each in intake.desk.replay(None)] == ["dead"]


def test_an_unsubscription_is_a_withdrawal_in_the_ledger_once(intake: OpenIntake) -> None:
    for event_id in ("one", "two"):
        deliver(intake, "customers/update", CUSTOMER, **{"X-Shopify-Event-Id": event_id})
    assert said(intake) == [("withdraw", "marketing", "email")]
    assert [each.event_type for each in intake.desk.log.read(0, 10)] == ["customer", "customer"]


def test_a_subscription_counts_only_under_the_notice_the_shop_shows_and_with_its_own_time(intake: OpenIntake) -> None:
    consent = {
        "state": "subscribed",
        "opt_in_level": "confirmed_opt_in",
        "consent_updated_at": "2026-03-02T04:29:00-05:00",
    }
    body = {"customer_id": 901, "email_address": "rosalind@pier.example", "email_marketing_consent": consent}
    topic = "customers_email_marketing_consent/update"
    assert deliver(intake, topic, body).status_code == 200
    assert said(intake) == []
    (notice,) = {
        each.notice_id for each in intake.hub.notices.texts.values() if each.notice_id == "preference_centre"
    } or {next(iter(intake.hub.policy.notices))}
    version = intake.hub.policy.notices[notice].current_version
    add_shop(intake.home, DOMAIN, SECRET, notice_id=notice, notice_version=version, language_code="en")
    deliver(intake, topic, {**body, "email_marketing_consent": {**consent, "consent_updated_at": None}})
    assert said(intake) == []
    deliver(intake, topic, body)
    assert said(intake) == [("grant", "marketing", "email"), ("confirm", "marketing", "email")]
    assert intake.desk.log.head() == 0
    assert intake.desk.log.letters.list() == []


def test_consent_that_cannot_be_recorded_is_set_aside_and_the_customer_is_kept(intake: OpenIntake) -> None:
    assert deliver(intake, "customers/update", {**CUSTOMER, "email": "no address"}).status_code == 200
    assert intake.desk.log.head() == 1
    (letter,) = intake.desk.log.letters.list()
    assert "no address" not in letter.detail
    assert said(intake) == []


TRACK: dict[str, Any] = {
    "messageId": "m-1",
    "anonymousId": "a-77",
    "event": "Product Viewed",
    "timestamp": "2026-03-02T09:59:00Z",
    "sentAt": "2026-03-02T09:59:01Z",
    "properties": {"sku": "SKU-00001"},
}


def test_a_message_is_kept_once_however_often_its_library_sends_it(intake: OpenIntake) -> None:
    first = intake.caller.post("/v1/track", json=TRACK)
    again = intake.caller.post("/v1/track", json={**TRACK, "sentAt": "2026-03-02T10:09:01Z"})
    assert first.json() == {"success": True, "kept": 1, "known": 0, "set_aside": 0}
    assert again.json()["known"] == 1
    (event,) = intake.desk.log.read(0, 10)
    assert (event.event_type, event.topic) == ("web_event", "track")
    assert event.key.startswith("subject/device_")
    assert json.loads(event.payload)["messageId"] == "m-1"


def test_a_batch_gives_each_message_what_it_says_for_all(intake: OpenIntake) -> None:
    page = {"type": "page", "userId": "901", "messageId": "m-2"}
    answer = intake.caller.post(
        "/v1/batch", json={"batch": [{"type": "track", **TRACK}, page, {"type": "track"}, 7], "context": {"gpc": True}}
    )
    assert answer.json() == {"success": True, "kept": 2, "known": 0, "set_aside": 2}
    events = intake.desk.log.read(0, 10)
    assert [json.loads(each.payload)["context"]["gpc"] for each in events] == [True, True]
    assert events[1].key.startswith("subject/account_")


def test_a_message_without_an_id_gets_one_from_what_it_says(intake: OpenIntake) -> None:
    bare = {name: value for name, value in TRACK.items() if name != "messageId"}
    assert intake.caller.post("/v1/track", json=bare).json()["kept"] == 1
    assert intake.caller.post("/v1/track", json={**bare, "sentAt": "later"}).json()["known"] == 1
    assert json.loads(intake.desk.log.read(0, 1)[0].payload)["messageId"]


def test_a_library_sends_its_key_as_a_user_name(intake: OpenIntake) -> None:
    key = keys.make_key(intake.home, "web", [], MONDAY, ["events"])
    anybody = Caller(intake.app)
    for given, status in (
        (key, 200),
        ("wrong", 401),
        (keys.make_key(intake.home, "hub", [], MONDAY, ["capture"]), 403),
    ):
        basic = "Basic " + b64encode(f"{given}:".encode()).decode()
        assert anybody.post("/v1/track", json=TRACK, headers={"Authorization": basic}).status_code == status
    assert anybody.post("/v1/track", json=TRACK, headers={"Authorization": "Basic !"}).status_code == 401
    assert anybody.post("/v1/track", json=TRACK).status_code == 401


def test_a_message_over_its_size_is_refused(intake: OpenIntake) -> None:
    long = {**TRACK, "properties": {"query": "x" * 33_000}}
    assert intake.caller.post("/v1/track", json=long).status_code == 413
    assert intake.caller.post("/v1/batch", json={"batch": [{"type": "track", **long}]}).json()["set_aside"] == 1
