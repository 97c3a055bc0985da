"""Who is erased is gone from the event log too: what stock rests on stays without them, the rest goes whole."""

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from orchestration.rights.logged import bring_in, erase_logged, search_logged
from orchestration.rights.traces import Traces
from serving.event_log.events import NewEvent
from serving.event_log.letters import NewLetter
from serving.event_log.log import LANDING, open_log
from tests.unit.serving.test_event_log import NOON, sale
from troth.home import Home

APRIL = datetime(2026, 4, 1, tzinfo=UTC)
TOKEN = "device_abcdefghijklmnopqrstuv"
# What is looked for of Rosalind: her e-mail, her token, and a shop account too short to be looked for in every byte.
ROSALIND = Traces.of(["rosalind@pier.example", TOKEN], {"account_id": ["901"]})
ORDER = {
    "id": 7001,
    "name": "#10001",
    "updated_at": "2026-03-02T09:00:00Z",
    "email": "rosalind@pier.example",
    "customer": {"id": 901, "first_name": "Rosalind"},
    "shipping_address": {"first_name": "Rosalind", "address1": "4 Harbour Stairs", "country_code": "US"},
    "note": "ring twice, says Rosalind",
    "line_items": [{"id": 70, "sku": "SKU-00001", "quantity": 2}],
}
PARCEL = {
    "id": 8001,
    "order_id": 7001,
    "status": "success",
    "email": "rosalind@pier.example",
    "destination": {"name": "Rosalind", "address1": "4 Harbour Stairs"},
    "line_items": [{"sku": "SKU-00001", "quantity": 2}],
}
PROFILE = {"id": 901, "email": "rosalind@pier.example", "email_marketing_consent": {"state": "subscribed"}}


def told(event_id: str, event_type: str, body: object, **changes: object) -> NewEvent:
    plain = sale(event_id, source_name="ecommerce", event_type=event_type, key=f"order/{event_id}")
    return msgspec.structs.replace(plain, payload=json.dumps(body).encode(), **changes)


def letter(payload: bytes) -> NewLetter:
    return NewLetter(
        route="segment",
        source_name="ecommerce",
        reason_code="not_as_described",
        detail="type: expected another.",
        received_at=NOON,
        payload=payload,
    )


def test_an_order_keeps_its_goods_and_loses_its_person_and_everything_else_goes_whole(tmp_path: Path) -> None:
    home = Home(tmp_path)
    log = open_log(home)
    log.append(
        [
            told("order", "order", ORDER),
            told("parcel", "fulfilment", PARCEL),
            told("profile", "customer", PROFILE),
            told("silent profile", "customer", {**PROFILE, "email": None}),
            told("look", "web_event", {"anonymousId": "a"}, key=f"subject/{TOKEN}"),
            told("bought", "web_event", {"userId": "901"}),
            told("other order", "order", {**ORDER, "email": "bram@pier.example", "customer": {"id": 902}}),
            told("other look", "web_event", {"userId": "19012"}),
        ]
    )
    log.letters.add([letter(b'{"traits": "rosalind@pier.example"}'), letter(b'{"traits": "bram@pier.example"}')])
    log.close()
    assert len(search_logged(home, ROSALIND)) == 7
    assert erase_logged(home, ROSALIND, APRIL) == {"events": 6, "dead_letters": 1}
    assert search_logged(home, ROSALIND) == []
    held = b"".join(path.read_bytes() for path in home.log.iterdir())
    for trace in (b"rosalind@pier.example", TOKEN.encode(), b'"customer": {"id": 901'):
        assert trace not in held
    log = open_log(home)
    order, parcel, *gone, other_order, other_look = log.read(0, 10)
    kept = json.loads(order.payload)
    assert (kept["name"], kept["line_items"][0]["quantity"]) == ("#10001", 2)
    assert {"email", "customer", "note"}.isdisjoint(kept)
    assert "Rosalind" not in order.payload.decode()
    assert json.loads(parcel.payload) == {
        "id": 8001, "order_id": 7001, "status": "success", "line_items": [{"sku": "SKU-00001", "quantity": 2}],
    }  # fmt: skip
    assert [each.is_erased for each in gone] == [True] * 4
    assert json.loads(other_order.payload)["email"] == "bram@pier.example"
    assert not other_look.is_erased
    assert [log.letters.payload(each.letter_id) for each in log.letters.list()] == [b'{"traits": "bram@pier.example"}']
    assert log.append([told("order", "order", ORDER)]) == [1]
    log.close()
    assert erase_logged(home, ROSALIND, APRIL) == {"events": 0, "dead_letters": 0}


def test_a_home_without_a_log_has_nothing_to_erase_and_gets_none(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert (bring_in(home), search_logged(home, ROSALIND)) == ([], [])
    assert erase_logged(home, ROSALIND, APRIL) == {"events": 0, "dead_letters": 0}
    assert not home.log.exists()


def test_what_is_not_landed_yet_is_landed_and_read_before_anybody_is_looked_for(tmp_path: Path) -> None:
    home = Home(tmp_path)
    log = open_log(home)
    log.append([told("profile", "customer", PROFILE, topic="customers/update")])
    brought = bring_in(home)
    assert brought == ["ecommerce/2026-03-02/customers_log_000000000001-000000000001.jsonl"]
    assert (log.position(LANDING), bring_in(home)) == (1, [])
    log.close()


@pytest.mark.parametrize("payload", [b"not json", b"[]", b'{"customer": 901}', b'"901"'])
def test_a_payload_of_any_form_is_looked_through(payload: bytes, tmp_path: Path) -> None:
    home = Home(tmp_path)
    log = open_log(home)
    log.append([sale("odd", payload=payload)])
    log.close()
    assert search_logged(home, ROSALIND) == []
