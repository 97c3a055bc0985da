import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from consent.events import encode
from serving.hub.capture import MOST_EVENTS
from serving.requests import MOST_BYTES
from tests.unit.serving.open_hub import ALMA, MONDAY, PHONE, OpenHub, grant, problem


def test_events_are_recorded_and_answered_under_a_checkpoint_that_covers_them(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    found = shop.say(grant(1), grant(2, channel_code="sms")).json()
    assert (found["leaf_indexes"], found["ledger_size"]) == ([0, 1], 2)
    assert found["checkpoint"] == shop.hub.ledger.checkpoint()
    assert [event.received_at for event in shop.said()] == [MONDAY] * 2


def test_an_identifier_becomes_a_token_at_the_door_however_it_is_written(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    shop.say(grant(1), grant(2, identifier={"type": "email", "value": " alma@pier.EXAMPLE "}))
    shop.say(grant(3, identifier=None, subject_id=shop.alma()))
    assert {event.subject_id for event in shop.said()} == {shop.alma()}
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"pier" not in kept.lower()


def test_a_batch_sent_again_keeps_its_first_leaves(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    first, again = (shop.say(grant(1), grant(2)).json() for _ in range(2))
    assert first["leaf_indexes"] == again["leaf_indexes"] == [0, 1]
    assert shop.hub.ledger.size == 2


def test_concurrent_captures_are_each_recorded_once(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(shop.app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://shop.test", headers=shop.capture.headers
        ) as client:
            sent = (client.post("/v1/consents", json={"events": [grant(n % 16)]}) for n in range(32))
            return list(await asyncio.gather(*sent))

    answers = asyncio.run(ask())
    assert {answer.status_code for answer in answers} == {200}
    assert shop.hub.ledger.size == 16
    assert sorted(each.json()["leaf_indexes"][0] for each in answers) == sorted([*range(16)] * 2)
    assert all(each.json()["ledger_size"] > each.json()["leaf_indexes"][0] for each in answers)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"purpose_code": "astrology"}, "purpose_code"),
        ({"channel_code": "fax"}, "channel_code"),
        ({"purpose_code": "analytics"}, "channel_code"),
        ({"notice_id": "small_print"}, "notice_id"),
        ({"notice_version": 3}, "notice_version"),
        ({"notice_version": 0}, "notice_version"),
        ({"language_code": "fr"}, "language_code"),
        ({"language_code": None}, "language_code"),
        ({"notice_id": None, "notice_version": None, "language_code": None}, "notice_id"),
        ({"event_type": "erased"}, "event_type"),
        ({"event_type": "identity_linked"}, "event_type"),
        ({"identifier": None}, "identifier"),
        ({"subject_id": "email_" + "a" * 22}, "identifier"),
        ({"identifier": None, "subject_id": "alma"}, "subject_id"),
        ({"identifier": {"type": "email", "value": "alma"}}, "identifier"),
        ({"identifier": {"type": "phone", "value": "none"}}, "identifier"),
        ({"identifier": {"type": "passport", "value": "A1"}}, "identifier"),
        ({"occurred_at": "2026-03-01T10:00:00"}, "occurred_at"),
        ({"occurred_at": "0001-01-01T00:00:00+14:00"}, "occurred_at"),
        ({"recorded_at": "9999-12-31T23:59:59-12:00"}, "recorded_at"),
        ({"jurisdiction_code": "Oregon"}, "jurisdiction_code"),
        ({"signal_id": "alma@pier.example"}, "signal_id"),
        ({"identifier": PHONE, "signal_id": "till-5035550142-7"}, "signal_id"),
        ({"identifier": PHONE, "actor_id": "503-555-0142"}, "actor_id"),
        ({"actor_type": "robot"}, "actor_type"),
        ({"nickname": "alma@pier.example"}, "event"),
    ],
)
def test_one_bad_event_refuses_the_batch_and_is_named_without_its_value(
    changes: dict[str, Any], field: str, tmp_path: Path
) -> None:
    shop = OpenHub(tmp_path)
    response = shop.say(grant(1), grant(2, **changes), grant(3))
    assert problem(response) == (422, "events_refused")
    assert [(error["position"], error["field"]) for error in response.json()["errors"]] == [(1, field)]
    assert shop.hub.ledger.size == 0
    told = [changes[name] for name in changes if isinstance(changes[name], str) and len(changes[name]) > 3]
    assert [value for value in told if value in response.text] == []


def test_every_bad_event_of_a_batch_is_named(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    response = shop.say(grant(1, purpose_code="a", channel_code="b"), grant(2), grant(3, actor_type="c"))
    assert [(error["position"], error["field"]) for error in response.json()["errors"]] == [
        (0, "purpose_code"),
        (0, "channel_code"),
        (2, "actor_type"),
    ]


def test_a_no_needs_no_notice_and_may_be_about_everything(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    unseen = {"notice_id": None, "notice_version": None, "language_code": None}
    assert shop.say(grant(1, event_type="withdraw", purpose_code="*", channel_code="*", **unseen)).status_code == 200
    assert shop.stands(shop.link(), "marketing", "email") == (False, "withdrawn")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (400, "bad_request")),
        (b"{", (400, "bad_request")),
        (b"\xff", (400, "bad_request")),
        (b"[]", (422, "not_as_described")),
        (b'{"events": []}', (422, "not_as_described")),
        (b'{"events": [1]}', (422, "events_refused")),
        (b'{"events": [{"identifier": {"type": "email", "value": "\\ud800@x.example"}}]}', (400, "bad_request")),
        (b'{"events": ' + b"[" * 20_000, (400, "bad_request")),
        (b'{"events": [' + b"{}," * MOST_EVENTS + b"{}]}", (422, "not_as_described")),
        (b" " * (MOST_BYTES + 1), (413, "too_large")),
    ],
)
def test_a_wrong_body_is_refused_as_what_it_is(body: bytes, expected: tuple[int, str], tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    response = shop.capture.post("/v1/consents", content=body, headers={"Content-Type": "application/json"})
    assert problem(response) == expected


def test_only_json_is_taken(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    response = shop.capture.post("/v1/consents", content=b"{}", headers={"Content-Type": "text/plain"})
    assert problem(response) == (415, "unsupported_type")


def test_a_key_does_what_its_scope_says_and_nothing_else(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    for caller in (shop.links, shop.admin):
        assert problem(caller.post("/v1/consents", json={})) == (403, "scope_not_allowed")
    for caller in (shop.capture, shop.admin):
        assert problem(caller.post("/v1/links", json={})) == (403, "scope_not_allowed")
    for caller in (shop.capture, shop.links):
        assert problem(caller.get("/v1/webhooks")) == (403, "scope_not_allowed")
        assert problem(caller.post("/v1/webhooks", json={})) == (403, "scope_not_allowed")
    for path in ("/v1/consents", "/v1/links", "/v1/webhooks"):
        assert problem(shop.person.post(path, json={})) == (401, "no_key")


def test_what_is_recorded_is_within_the_grammar_and_says_what_was_sent(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    shop.say(grant(1, actor_type="associate", actor_id="till-7", occurred_at="2026-03-01T12:00:00+02:00"))
    (event,) = shop.said()
    assert encode(event)
    assert (event.actor_id, event.occurred_at.isoformat()) == ("till-7", "2026-03-01T10:00:00+00:00")
    assert (event.notice_id, event.notice_version, event.language_code) == ("web_banner", 2, "en")
    assert event.subject_id == shop.alma(ALMA)
