"""Destinations, the outbox and the pump, stepped by hand: a receiver that lives in this file, a clock that is moved."""

import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import ServingError
from serving.hub import addresses
from serving.hub.delivery import (
    LONGEST_WAIT,
    MOST_ATTEMPTS,
    REPLAY_WINDOW,
    Pump,
    deliver,
    post,
    signature,
    wait,
)
from serving.hub.webhooks import Outbox, Outcome
from serving.operations.traces import Traces
from tests.unit.serving.open_hub import MONDAY, PHONE, OpenHub, grant, problem
from tests.unit.serving.told_spans import ToldProvider
from troth.errors import TrothError

NEWS = {"name": "newsletter", "url": "https://news.example/consents", "purposes": ["marketing"], "from_leaf": 0}


@dataclass
class Receiver:
    """A processor downstream: takes what it is sent, unless told to answer otherwise."""

    secret: str = ""
    answers: list[Outcome | BaseException] = field(default_factory=list)
    taken: list[dict[str, object]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        outcome = self.answers.pop(0) if self.answers else Outcome(True, 200, receipt_id=f"r-{len(self.taken)}")
        if isinstance(outcome, Outcome) and not outcome.is_acknowledged:
            return outcome
        self.taken.append(json.loads(body)["data"])
        self.headers.append(headers)
        self.bodies.append(body)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    @property
    def leaves(self) -> list[object]:
        return [each["leaf_index"] for each in self.taken]


class TornError(Exception):
    pass


class TornLedger:
    """A ledger that stops in the middle of what it is asked for."""

    def __init__(self, ledger: object) -> None:
        self.__dict__["inner"] = ledger

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def events(self, start: int, stop: int) -> object:
        yield from list(self.inner.events(start, stop))[:1]
        raise TornError


def told(shop: OpenHub, receiver: Receiver, **changes: object) -> tuple[Pump, str]:
    """A pump with one destination; gives the destination's id too."""
    made = shop.admin.post("/v1/webhooks", json=NEWS | changes).json()
    receiver.secret = made["secret"]
    pump = replace(shop.hub.pump(shop.clock), send=receiver, jitter=lambda: 1.0)
    return pump, made["destination"]["destination_id"]


REFUSED = Outcome(False, 503, "refused")


def test_every_event_of_its_purposes_is_told_in_order_and_acknowledged_with_a_receipt(tmp_path: Path) -> None:
    shop, receiver = OpenHub(tmp_path), Receiver()
    shop.say(grant(1), grant(2, purpose_code="analytics", channel_code="*"), grant(3, event_type="withdraw"))
    shop.person.get(shop.link(), headers={"Sec-GPC": "1"})
    pump, destination_id = told(shop, receiver)
    assert deliver(pump) == 3
    assert receiver.leaves == [0, 2, 3]  # a signal may reach any purpose, so all hear it
    found = shop.admin.get(f"/v1/webhooks/{destination_id}/deliveries").json()
    assert [(each["state"], each["receipt_id"], each["last_status"]) for each in found] == [
        ("delivered", f"r-{n}", 200) for n in range(3)
    ]
    assert deliver(pump) == 0


def test_a_message_says_what_is_so_now_under_which_checkpoint_and_never_how_to_reach_anyone(tmp_path: Path) -> None:
    shop, receiver = OpenHub(tmp_path), Receiver()
    shop.say(grant(1), grant(2, event_type="withdraw", occurred_at="2026-03-01T11:00:00Z", recorded_at=None))
    deliver(told(shop, receiver)[0])
    first = receiver.taken[0]
    assert (first["event_type"], first["subject_id"]) == ("grant", shop.alma())
    assert first["checkpoint"] == shop.hub.ledger.checkpoint()
    standings = first["standings"]
    assert isinstance(standings, list)
    now = {each["channel_code"]: (each["is_allowed"], each["reason_code"]) for each in standings}
    assert now["email"] == (False, "withdrawn")
    assert {each["purpose_code"] for each in standings} == {"marketing"}
    assert b"pier" not in b"".join(receiver.bodies).lower()


def test_a_message_is_signed_as_standard_webhooks_says(tmp_path: Path) -> None:
    shop, receiver = OpenHub(tmp_path), Receiver()
    shop.say(grant(1))
    deliver(told(shop, receiver)[0])
    headers, body = receiver.headers[0], receiver.bodies[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = b64decode(receiver.secret[len("whsec_") :])
    assert len(key) == 32
    assert headers["webhook-signature"] == "v1," + b64encode(hmac.new(key, signed, sha256).digest()).decode()
    assert abs(int(headers["webhook-timestamp"]) - MONDAY.timestamp()) < REPLAY_WINDOW.total_seconds()


def test_a_message_is_sent_under_a_trace_of_its_own_where_somebody_listens_and_under_none_else(tmp_path: Path) -> None:
    shop, receiver, provider = OpenHub(tmp_path), Receiver(answers=[REFUSED]), ToldProvider()
    shop.say(grant(1))
    pump, destination_id = told(shop, receiver)
    assert pump.traces is None
    deliver(replace(pump, traces=Traces(provider)))
    (span,) = provider.spans
    assert (span.name, span.parent.is_valid, span.ended) == ("POST webhook", False, True)
    assert span.attributes == {
        "http.request.method": "POST", "server.address": "news.example", "troth.destination": destination_id, "troth.attempt": 1,
        "http.response.status_code": 503,
    }  # fmt: skip
    shop.clock.at += LONGEST_WAIT
    deliver(replace(pump, traces=Traces(provider)))
    context = provider.spans[1].get_span_context()
    assert receiver.headers[0]["traceparent"].split("-")[1:3] == [f"{context.trace_id:032x}", f"{context.span_id:016x}"]
    shop.say(grant(2, purpose_code="marketing", channel_code="sms"))
    deliver(pump)
    assert "traceparent" not in receiver.headers[1]


def test_the_published_example_of_standard_webhooks_verifies() -> None:
    found = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_what_was_refused_is_tried_again_later_and_later_and_nothing_of_its_subject_overtakes_it(
    tmp_path: Path,
) -> None:
    shop, receiver = OpenHub(tmp_path), Receiver(answers=[REFUSED])
    shop.say(grant(1), grant(2, event_type="withdraw"), grant(3, identifier=PHONE))
    pump, _ = told(shop, receiver)
    deliver(pump)
    assert receiver.leaves == [2]  # somebody else's is not held up
    receiver.answers = [REFUSED]
    shop.clock.at += timedelta(seconds=5)
    deliver(pump)
    shop.clock.at += timedelta(seconds=9)
    assert deliver(pump) == 0
    shop.clock.at += timedelta(seconds=1)
    deliver(pump)
    assert receiver.leaves == [2, 0, 1]


def test_what_is_never_taken_is_dead_after_so_many_attempts_says_so_and_can_be_revived(tmp_path: Path) -> None:
    shop, receiver = OpenHub(tmp_path), Receiver(answers=[Outcome(False, fault="no_answer")] * MOST_ATTEMPTS)
    shop.say(grant(1))
    pump, destination_id = told(shop, receiver)
    for _ in range(MOST_ATTEMPTS + 3):
        deliver(pump)
        shop.clock.at += LONGEST_WAIT
    (found,) = shop.admin.get(f"/v1/webhooks/{destination_id}/deliveries?state=dead").json()
    assert (found["attempt_count"], found["last_fault"], found["receipt_id"]) == (MOST_ATTEMPTS, "no_answer", None)
    assert shop.admin.get("/v1/webhooks").json()[0]["counts"]["dead"] == 1
    assert shop.admin.post(f"/v1/webhooks/{destination_id}/redeliver").json() == {"count": 1}
    deliver(pump)
    assert receiver.leaves == [0]


def test_a_process_that_dies_between_sending_and_writing_it_down_sends_again_and_loses_nothing(tmp_path: Path) -> None:
    shop, receiver = OpenHub(tmp_path), Receiver(answers=[KeyboardInterrupt()])
    shop.say(grant(1), grant(2, event_type="withdraw"))
    pump, _ = told(shop, receiver)
    with pytest.raises(KeyboardInterrupt):
        deliver(pump)
    pump.outbox.close()
    deliver(replace(pump, outbox=Outbox(shop.home)))
    assert receiver.leaves == [0, 0, 1]
    assert len({headers["webhook-id"] for headers in receiver.headers}) == 2  # by which the receiver tells a repeat


@settings(deadline=None, max_examples=40)
@given(acts=st.lists(st.sampled_from(["say", "step", "fail", "die", "wait"]), max_size=25))
def test_whatever_happens_in_between_every_event_arrives_at_least_once_and_first_arrivals_are_in_order(
    acts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    shop, receiver = OpenHub(tmp_path_factory.mktemp("hub")), Receiver()
    pump, _ = told(shop, receiver)
    for number, act in enumerate(acts):
        if act == "say":
            shop.say(grant(number, event_type=("grant", "withdraw")[number % 2]))
        elif act == "wait":
            shop.clock.at += timedelta(minutes=1)
        else:
            receiver.answers = {"step": [], "fail": [REFUSED], "die": [KeyboardInterrupt()]}[act]
            try:
                deliver(pump)
            except KeyboardInterrupt:
                pump = replace(pump, outbox=Outbox(shop.home))
    receiver.answers = []
    shop.clock.at += timedelta(days=2)
    deliver(pump)
    assert list(dict.fromkeys(receiver.leaves)) == list(range(shop.hub.ledger.size))


def test_the_cursor_and_what_it_passed_are_written_together(tmp_path: Path) -> None:
    shop, receiver = OpenHub(tmp_path), Receiver()
    shop.say(grant(1), grant(2))
    pump, _ = told(shop, receiver)
    with pytest.raises(TornError):
        deliver(replace(pump, ledger=TornLedger(pump.ledger)))  # type: ignore[arg-type]
    assert pump.outbox.destinations()[0].cursor == 0
    deliver(pump)
    assert receiver.leaves == [0, 1]


def test_what_was_erased_meanwhile_is_withheld_and_holds_up_nothing(tmp_path: Path) -> None:
    class Erased(TornLedger):
        def events(self, start: int, stop: int) -> object:
            return (each for each in self.inner.events(start, stop) if each.leaf_index != 0)

    shop, receiver = OpenHub(tmp_path), Receiver(answers=[REFUSED])
    shop.say(grant(1), grant(2, event_type="withdraw"))
    pump, destination_id = told(shop, receiver)
    deliver(pump)
    shop.clock.at += LONGEST_WAIT
    deliver(replace(pump, ledger=Erased(pump.ledger)))  # type: ignore[arg-type]
    assert receiver.leaves == [1]
    found = shop.admin.get(f"/v1/webhooks/{destination_id}/deliveries").json()
    assert [(each["state"], each["last_fault"]) for each in found] == [("withheld", "erased"), ("delivered", None)]


def test_of_links_a_destination_hears_those_by_which_something_stands_otherwise(tmp_path: Path) -> None:
    shop, receiver = OpenHub(tmp_path), Receiver()
    bruno = {"type": "email", "value": "bruno@pier.example"}
    carla = {"type": "email", "value": "carla@pier.example"}
    shop.say(grant(1), grant(2, identifier=bruno), grant(3, identifier=carla, event_type="withdraw"))
    alma, other, silent = (event.subject_id for event in shop.said())
    pump, destination_id = told(shop, receiver)
    for number, pair in enumerate(((alma, other), (other, silent))):
        link = replace(
            shop.said()[0], event_type="identity_linked", link_type="deterministic", purpose_code="*", channel_code="*"
        )
        shop.hub.ledger.append(
            [
                replace(link, subject_id=one, linked_subject_id=two, signal_id=f"link-{number}")
                for one, two in (pair, pair[::-1])
            ]
        )
        deliver(pump)
    assert receiver.leaves == [0, 1, 2, 5, 6]  # two who agree were linked at 3 and 4; then Carla's no reached both
    found = shop.admin.get(f"/v1/webhooks/{destination_id}/deliveries").json()
    assert [each["last_fault"] for each in found if each["state"] == "withheld"] == ["nothing_changed"] * 2
    stands = json.loads(receiver.bodies[-1])["data"]["standings"]
    assert {(each["subject_id"], each["is_allowed"]) for each in stands} == {
        (one, False) for one in (alma, other, silent)
    }


def test_rounds_take_turns(tmp_path: Path) -> None:
    shop, receiver = OpenHub(tmp_path), Receiver()
    shop.say(grant(1))
    pump, _ = told(shop, receiver)
    seen: list[int] = []

    def send(url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        seen.append(deliver(pump))  # another round while this one is at it
        return receiver(url, headers, body)

    assert deliver(replace(pump, send=send)) == 1
    assert (seen, receiver.leaves) == ([0], [0])


def test_one_destination_that_is_down_holds_up_no_other(tmp_path: Path) -> None:
    shop, receiver, other = OpenHub(tmp_path), Receiver(), Receiver()
    shop.say(grant(1), grant(2, identifier=PHONE))
    pump, _ = told(shop, receiver)
    shop.admin.post("/v1/webhooks", json=NEWS | {"name": "loyalty", "url": "https://loyalty.example/"})

    def send(url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        return other(url, headers, body) if "loyalty" in url else Outcome(False, fault="unreachable")

    assert deliver(replace(pump, send=send)) == 3  # who does not answer at all is asked once a round
    assert other.leaves == [0, 1]


def test_a_new_destination_is_told_from_now_on_unless_it_asks_for_more(tmp_path: Path) -> None:
    shop, receiver = OpenHub(tmp_path), Receiver()
    shop.say(grant(1))
    pump, _ = told(shop, receiver, from_leaf=None)
    shop.say(grant(2))
    deliver(pump)
    assert receiver.leaves == [1]


def test_a_removed_destination_is_told_nothing_and_is_gone(tmp_path: Path) -> None:
    shop, receiver = OpenHub(tmp_path), Receiver()
    shop.say(grant(1))
    pump, destination_id = told(shop, receiver)
    assert shop.admin.request("DELETE", f"/v1/webhooks/{destination_id}").status_code == 204
    assert deliver(pump) == 0
    for method, path in (("DELETE", ""), ("GET", "/deliveries"), ("POST", "/redeliver")):
        answer = shop.admin.request(method, f"/v1/webhooks/{destination_id}{path}")
        assert problem(answer) == (404, "no_such_destination")


def test_a_secret_is_shown_once_and_kept_nowhere(tmp_path: Path) -> None:
    shop, receiver = OpenHub(tmp_path), Receiver()
    told(shop, receiver)
    assert receiver.secret not in shop.admin.get("/v1/webhooks").text
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert receiver.secret.encode() not in kept
    assert b64decode(receiver.secret[len("whsec_") :]) not in kept
    assert (tmp_path / "webhooks.db").stat().st_mode & 0o777 == 0o600


def test_the_outbox_names_nobody(tmp_path: Path) -> None:
    shop, receiver = OpenHub(tmp_path), Receiver(answers=[REFUSED])
    shop.say(grant(1))
    deliver(told(shop, receiver)[0])
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("webhooks.db*"))
    assert shop.alma().encode() not in kept


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "http://news.example/"},
        {"url": "ftp://news.example/"},
        {"url": "https://user:secret@news.example/"},
        {"url": "https://127.0.0.1/"},
        {"url": "https://[::1]/"},
        {"url": "https://[::ffff:10.0.0.1]/"},
        {"url": "https://10.1.2.3/"},
        {"url": "https://169.254.169.254/latest/"},
        {"url": "https://localhost/"},
        {"url": "https://db.internal/"},
        {"url": "https://news.example:99999/"},
        {"url": "https://news example/"},
        {"url": "https:///x"},
        {"purposes": ["astrology"]},
        {"purposes": []},
        {"name": "Alma's shop"},
        {"from_leaf": 7},
        {"secret": "mine"},
    ],
)
def test_a_destination_that_cannot_be_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    status, code = problem(shop.admin.post("/v1/webhooks", json=NEWS | changes))
    assert (status, code in ("destination_refused", "not_as_described")) == (422, True)
    assert shop.admin.get("/v1/webhooks").json() == []


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    assert shop.admin.post("/v1/webhooks", json=NEWS).status_code == 200
    assert problem(shop.admin.post("/v1/webhooks", json=NEWS)) == (422, "destination_refused")


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        *(
            (each, False)
            for each in ("127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "0.0.0.1")
        ),
        *(
            (each, False)
            for each in ("100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "fe80::1", "fd00::1", "ff02::1")
        ),
        *((each, False) for each in ("::ffff:127.0.0.1", "2002:7f00:1::", "64:ff9b::a00:1", "::ffff:169.254.169.254")),
    ],
)
def test_only_public_addresses_are_sent_to_however_they_are_written(address: str, is_public: bool) -> None:
    assert addresses.is_allowed(ip_address(address)) is is_public


def test_a_name_that_leads_home_is_refused_when_it_is_resolved() -> None:
    assert addresses.resolve("localhost", 80, allow_loopback=True) in ("127.0.0.1", "::1")
    with pytest.raises(ServingError):
        addresses.resolve("localhost", 80)
    assert post("https://127.0.0.1:9/", {}, b"") == Outcome(False, fault="unreachable")


@pytest.mark.parametrize(("jitter", "share"), [(lambda: 0.0, 0.5), (lambda: 1.0, 1.0)])
def test_waits_double_up_to_half_a_day_and_are_spread(jitter: Callable[[], float], share: float) -> None:
    waits = [wait(count, jitter()) / timedelta(seconds=1) for count in range(1, MOST_ATTEMPTS + 8)]
    assert waits[:3] == [5 * share, 10 * share, 20 * share]
    assert waits[-1] == LONGEST_WAIT.total_seconds() * share
    assert waits == sorted(waits)


def test_a_damaged_outbox_says_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "webhooks.db").write_bytes(b"not a database, and long enough to be looked at" * 40)
    with pytest.raises(TrothError, match=r"webhooks\.db: expected a SQLite database"):
        Outbox(OpenHub(tmp_path).home)
