"""Events over HTTP in the plain contract: what is kept when it is answered, and what becomes of what is not as described."""

import json
from pathlib import Path
from typing import Any

import pytest

from serving import keys
from serving.app import create_app
from serving.event_log.log import PROJECTOR, Bounds, open_log
from serving.hub.routes import Hub
from serving.intake.desk import IntakeDesk
from tests.unit.serving.open_hub import MONDAY
from tests.unit.serving.open_shop import Caller
from troth.clock import FixedClock
from troth.home import Home

SALE = {
    "event_type": "movement",
    "event_id": "till-7/4711/1",
    "movement_id": "S001/7/4711/2026-03-02/1",
    "movement_type": "sale",
    "location_code": "S001",
    "sku": "SKU-00001",
    "units": -1,
    "occurred_at": "2026-03-02T09:59:00Z",
}
NO_MORE_MAIL = {
    "signal_id": "sig-1",
    "event_type": "withdraw",
    "purpose_code": "marketing",
    "channel_code": "email",
    "occurred_at": "2026-03-02T09:59:00Z",
    "capture_method": "form",
    "capture_place": "till_tablet",
    "actor_type": "subject",
    "jurisdiction_code": "US-OR",
    "identifier": {"type": "email", "value": "Rosalind@Pier.example"},
}


class OpenIntake:
    """A running intake over an empty home, and what its log holds."""

    def __init__(self, root: Path, bounds: Bounds | None = None) -> None:
        self.home = Home(root)
        self.clock = FixedClock(MONDAY)
        key = keys.make_key(self.home, "tills", [], MONDAY, ["events"])
        self.hub = Hub(self.home, self.clock)
        self.desk = IntakeDesk(self.home, self.clock, self.hub, bounds)
        self.app = create_app(self.home, self.clock, self.hub, self.desk)
        self.caller = Caller(self.app, key)

    def send(self, *events: object, source_name: str = "pos") -> tuple[int, dict[str, Any]]:
        answer = self.caller.post("/v1/events", json={"source_name": source_name, "events": list(events)})
        return answer.status_code, answer.json()


@pytest.fixture
def intake(tmp_path: Path) -> OpenIntake:
    return OpenIntake(tmp_path)


def statuses(found: dict[str, Any]) -> list[str]:
    return [each["status"] for each in found["events"]]


def test_what_was_answered_is_in_the_log_for_whoever_opens_it_next(intake: OpenIntake) -> None:
    status, found = intake.send(SALE)
    assert (status, found["taken"], found["events"][0]["offset"]) == (200, 1, 1)
    other = open_log(intake.home)
    (event,) = other.read(0, 10)
    other.close()
    assert (event.source_name, event.event_type, event.key) == ("pos", "movement", "position/S001/SKU-00001")
    assert json.loads(event.payload)["movement_id"] == SALE["movement_id"]
    assert event.received_at == MONDAY


def test_an_event_sent_again_is_known_whatever_its_spelling_and_changes_nothing(intake: OpenIntake) -> None:
    intake.send(SALE)
    status, found = intake.send(dict(reversed(SALE.items())), {**SALE, "event_id": "till-7/4711/2"})
    assert (status, statuses(found)) == (200, ["known", "kept"])
    assert [each["offset"] for each in found["events"]] == [1, 2]


def test_a_bad_event_never_stops_a_good_one_and_is_set_aside_with_its_reason(intake: OpenIntake) -> None:
    status, found = intake.send({**SALE, "units": "rosalind@pier.example"}, SALE, {"nonsense": True}, "text")
    assert status == 207
    assert statuses(found) == ["set_aside", "kept", "set_aside", "set_aside"]
    assert (found["events"][0]["field"], found["taken"], found["not_taken"]) == ("units", 1, 3)
    assert "rosalind" not in json.dumps(found)
    letters = intake.desk.log.letters.list()
    assert [each.reason_code for each in letters] == ["not_as_described"] * 3
    assert "rosalind" not in "".join(each.detail for each in letters)


@pytest.mark.parametrize(
    ("odd", "field"),
    [
        ({"units": 1}, "units"),
        ({"movement_type": "receipt"}, "units"),
        ({"movement_type": "opening"}, "movement_type"),
        ({"occurred_at": "2026-03-04T10:00:00Z"}, "occurred_at"),
        ({"occurred_at": "2026-03-02T10:00:00"}, "occurred_at"),
        ({"event_id": "rosalind@pier.example"}, "event_id"),
        ({"movement_id": ""}, "movement_id"),
        ({"sku": ""}, "sku"),
        ({"note": "hello"}, "event"),
    ],
)
def test_a_movement_that_cannot_be_is_told_by_its_field(odd: dict[str, Any], field: str, intake: OpenIntake) -> None:
    status, found = intake.send({**SALE, **odd})
    assert (status, statuses(found), found["events"][0]["field"]) == (207, ["set_aside"], field)
    assert intake.desk.log.head() == 0


def test_supplies_picks_and_counts_are_events_too(intake: OpenIntake) -> None:
    where = {"location_code": "S001", "sku": "SKU-00001", "occurred_at": "2026-03-02T09:00:00Z"}
    supply = {
        **where,
        "event_type": "supply",
        "event_id": "po-9/1",
        "supply_id": "po-9/1",
        "supply_type": "purchase_order",
    }
    pick = {
        **where,
        "event_type": "pick",
        "event_id": "p-1",
        "pick_id": "p-1",
        "order_ref": "#10001",
        "requested_units": 2,
    }
    count = {**where, "event_type": "count", "event_id": "c-1", "count_id": "c-1", "counted_units": 4}
    status, found = intake.send(
        {**supply, "open_units": 12, "expected_at": "2026-03-09T08:00:00Z"},
        {**pick, "picked_units": 1, "reason_code": "missing"},
        {**pick, "event_id": "p-2", "picked_units": 3},
        count,
    )
    assert (status, statuses(found)) == (207, ["kept", "kept", "set_aside", "kept"])
    assert [each.event_type for each in intake.desk.log.read(0, 10)] == ["supply", "pick", "count"]


def test_an_id_that_brings_another_content_is_a_conflict_and_both_are_kept_apart(intake: OpenIntake) -> None:
    intake.send(SALE)
    status, found = intake.send({**SALE, "units": -2})
    assert (status, statuses(found), found["events"][0]["offset"]) == (207, ["conflict"], 1)
    assert [each.reason_code for each in intake.desk.log.letters.list()] == ["conflict"]


def test_a_withdrawal_is_in_the_ledger_when_it_is_answered_and_its_words_are_nowhere_else(intake: OpenIntake) -> None:
    status, found = intake.send(SALE, {"event_type": "consent", "said": NO_MORE_MAIL})
    assert (status, statuses(found), found["events"][1]["leaf_index"]) == (200, ["kept", "kept"], 0)
    (recorded,) = intake.hub.ledger.events(0)
    assert (recorded.event.event_type, recorded.event.channel_code) == ("withdraw", "email")
    assert [each.event_type for each in intake.desk.log.read(0, 10)] == ["movement"]
    again, _ = intake.send({"event_type": "consent", "said": NO_MORE_MAIL})
    assert (again, intake.hub.ledger.size) == (200, 1)


def test_consent_that_is_not_as_described_is_refused_and_kept_nowhere(intake: OpenIntake) -> None:
    bad = {"event_type": "consent", "said": {**NO_MORE_MAIL, "purpose_code": "gossip"}}
    worse = {"event_type": "consent", "says": NO_MORE_MAIL}
    status, found = intake.send(bad, worse, SALE)
    assert (status, statuses(found)) == (207, ["refused", "refused", "kept"])
    assert found["events"][0]["field"] == "purpose_code"
    assert intake.desk.log.letters.list() == []


def test_a_withdrawal_is_not_held_back_by_a_full_log(tmp_path: Path) -> None:
    intake = OpenIntake(tmp_path, Bounds(most_behind={PROJECTOR: 1}))
    intake.send(SALE)
    intake.desk.log.commit(PROJECTOR, 0)
    answer = intake.caller.post(
        "/v1/events",
        json={
            "source_name": "pos",
            "events": [{**SALE, "event_id": "next"}, {"event_type": "consent", "said": NO_MORE_MAIL}],
        },
    )
    assert (answer.status_code, answer.json()["type"]) == (429, "urn:troth:problem:log_full")
    assert int(answer.headers["retry-after"]) > 0
    assert (intake.hub.ledger.size, intake.desk.log.head()) == (1, 1)


def test_where_there_is_no_room_for_dead_letters_a_bad_event_is_refused_not_set_aside(tmp_path: Path) -> None:
    intake = OpenIntake(tmp_path, Bounds(most_letters=1))
    assert statuses(intake.send({"first": 1})[1]) == ["set_aside"]
    assert statuses(intake.send({"second": 2}, SALE)[1]) == ["refused", "kept"]


def test_a_key_of_another_scope_sends_nothing(intake: OpenIntake) -> None:
    key = keys.make_key(intake.home, "hub", [], MONDAY, ["capture"])
    assert Caller(intake.app, key).post("/v1/events", json={}).status_code == 403
    assert Caller(intake.app).post("/v1/events", json={}).status_code == 401


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b"{}", 422),
        (b'{"source_name":"pos","events":[]}', 422),
        (b'{"source_name":"P O S","events":[1]}', 422),
    ],
)
def test_a_body_that_holds_no_events_is_a_problem(content: bytes, status: int, intake: OpenIntake) -> None:
    answer = intake.caller.post("/v1/events", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status


def test_a_dead_letter_that_reads_well_today_is_replayed_once_and_emptied(intake: OpenIntake) -> None:
    intake.send({**SALE, "units": 5}, {"nonsense": True})
    first, second = intake.desk.log.letters.list()
    mended = json.dumps(SALE).encode()
    database = intake.desk.log._database
    with database.writing():
        database.write("update dead_letters set payload = ? where letter_id = ?", [(mended, first.letter_id)])
    foreseen = intake.desk.replay(None, dry_run=True)
    assert [each.outcome for each in foreseen] == ["kept", "dead"]
    assert intake.desk.log.head() == 0
    done = intake.desk.replay([first.letter_id])
    assert [each.outcome for each in done] == ["kept"]
    assert intake.desk.log.head() == 1
    assert [each.letter_id for each in intake.desk.log.letters.list()] == [second.letter_id]
    assert intake.desk.log.letters.payload(first.letter_id) == b""
    assert intake.desk.replay([first.letter_id]) == []
