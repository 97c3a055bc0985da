"""The client against the service, over a socket; and against one that fails, for what it does then."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import create_server
from typing import Any

import pytest
import uvicorn

from consent.ledger.opening import open_ledger
from serving import keys
from serving.app import create_app
from serving.client import CallError, Client, NoSuchThingError, NotLetInError, TooOftenError, UnavailableError
from serving.errors import ServingError
from serving.promising.shapes import HeldPosition, NewHold
from serving.server import LOOPBACK
from tests.unit.feature_repo.published_home import ADA, BRAM, CLEO
from tests.unit.serving.open_shop import AT, open_shop, train
from tests.unit.serving.test_app import DECIDED_AT_ZERO
from tests.unit.serving.test_orders import tables
from troth.clock import FixedClock
from troth.home import Home


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, str]]:
    home = open_shop(tmp_path_factory.mktemp("home"), ftr_subject_standing=DECIDED_AT_ZERO, **tables()).home
    open_ledger(home, FixedClock(AT)).close()
    train(home)
    with create_server((LOOPBACK, 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(home, FixedClock(AT)), log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield home, f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=30)


def client(served: tuple[Home, str], name: str = "client", **changes: Any) -> Client:
    home, address = served
    made = {"purposes": keys.ALL_PURPOSES, "at": AT, "scopes": keys.SCOPES} | changes
    return Client(address, keys.make_key(home, name, **made))


def test_each_question_has_its_typed_answer(served: tuple[Home, str]) -> None:
    with client(served) as shop:
        many = shop.features("recommend_v1", {"customer_id": [ADA, BRAM, CLEO]})
        assert (many.is_allowed, many.features["net_cents_90d"]) == ([True, False, False], [12_345, None, None])
        assert many.answered_at == AT
        assert shop.customer_features(ADA, "recommend_v1").age_seconds == 3_600
        assert [each.available_units for each in shop.availability("SKU-00001", "S001")] == [7]
        assert {each.location_code for each in shop.availability("SKU-00001")} == {"S001", "DC1"}
        found = shop.availabilities([("SKU-00001", "S001"), ("SKU-00404", "S001")])
        assert [each.status for each in found] == ["PRESENT", "NOT_FOUND"]
        assert shop.recommendations(ADA, 3).is_personal
        assert shop.order("#10001").view is not None
        assert shop.health().status == "ok"
        assert shop.ready().reasons == ["board_missing"]


def test_what_is_refused_is_raised_as_what_it_is_with_the_services_words(served: tuple[Home, str]) -> None:
    with client(served, "narrow", purposes=["analytics"], scopes=[]) as narrow:
        with pytest.raises(NotLetInError, match="expected one for purpose personalization") as raised:
            narrow.features("recommend_v1", {"customer_id": [ADA]})
        assert (raised.value.code, len(raised.value.request_id or "")) == ("purpose_not_allowed", 32)
        with pytest.raises(NotLetInError):
            narrow.hold(NewHold(key="k", lines=(HeldPosition("S001", "SKU-00001", 1),)))
        with pytest.raises(NoSuchThingError, match="service: expected one of"):
            narrow.customer_features(ADA, "nope")
        with pytest.raises(CallError, match="entities: expected columns") as wrong:
            narrow.features("churn_v1", {"sku": [ADA]})
        assert wrong.value.details is not None
        assert wrong.value.details.status == 422
    with Client(served[1], "troth_nobody") as stranger, pytest.raises(NotLetInError):
        stranger.availability("SKU-00001")


def test_who_asks_too_often_waits_as_told_and_asks_again(served: tuple[Home, str]) -> None:
    home, address = served
    key, pauses = keys.make_key(home, "slow", [], AT, ["events"], 1.0), []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        time.sleep(seconds)

    with Client(address, key, pause=pause) as slow:
        for _ in range(3):
            slow.availability("SKU-00001")
        assert pauses == [1.0]
        slow.availability("SKU-00001")
    with Client(address, key, most_tries=1) as hasty, pytest.raises(TooOftenError) as raised:
        hasty.availability("SKU-00001")
    assert (raised.value.code, raised.value.retry_seconds) == ("too_many_requests", 1.0)


def test_threads_share_a_client(served: tuple[Home, str]) -> None:
    shop, found = client(served, "threads"), []

    def ask() -> None:
        with shop:
            found.extend(shop.availability("SKU-00001", "S001")[0].available_units for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [7] * 20


class Failing(BaseHTTPRequestHandler):
    """Answers as its list says: a status, with or without a pause to wait; None is silence, and closes the connection."""

    protocol_version = "HTTP/1.1"
    answers: list[tuple[int, str | None] | None]
    seen: list[tuple[str, str]]

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append((self.path, self.headers.get("traceparent", "")))
        answer = self.answers.pop(0)
        if answer is None:
            self.close_connection = True
            return
        status, wait = answer
        body = b"[]" if status == 200 else b"<html>"
        self.send_response(status)
        if wait is not None:
            self.send_header("Retry-After", wait)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def failing() -> Iterator[tuple[str, type[Failing]]]:
    handler = type("Told", (Failing,), {"answers": [], "seen": []})
    with ThreadingHTTPServer((LOOPBACK, 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://{LOOPBACK}:{server.server_port}/behind", handler
        server.shutdown()
        thread.join()


def asking(address: str, pauses: list[float]) -> Client:
    return Client(address, "troth_key", pause=pauses.append, headers=lambda: {"traceparent": "00-abc"})


def test_silence_and_a_pause_are_asked_through_and_what_travels_with_it_travels(
    failing: tuple[str, type[Failing]],
) -> None:
    address, handler = failing
    pauses: list[float] = []
    handler.answers[:] = [None, (503, "2"), (200, None)]
    with asking(address, pauses) as shop:
        assert shop.availability("a/b", "S 1") == []
    assert pauses == [0.0, 2.0]
    assert handler.seen == [("/behind/v1/availability?sku=a%2Fb&location=S+1", "00-abc")] * 3


@pytest.mark.parametrize(
    ("answers", "tries"),
    [
        ([(500, None)], 1),  # no pause was named: it may be for good
        ([(503, "3600")], 1),
        ([(503, "1")] * 3, 3),
        ([None] * 3, 3),
    ],
)
def test_what_does_not_pass_is_raised_after_so_many_tries(
    answers: list[tuple[int, str | None] | None], tries: int, failing: tuple[str, type[Failing]]
) -> None:
    address, handler = failing
    handler.answers[:] = answers
    with asking(address, []) as shop, pytest.raises(UnavailableError, match="service: expected an answer, found"):
        shop.availability("SKU-00001")
    assert len(handler.seen) == tries


def test_what_may_not_be_done_twice_is_asked_once(failing: tuple[str, type[Failing]]) -> None:
    from models.promise.asking import Spot
    from models.promise.keeping import Failed
    from serving.promising.shapes import RepromiseRequest

    address, handler = failing
    handler.answers[:] = [(503, "1")] * 3
    again = RepromiseRequest(promise_id="p", failed=(Failed("S001", "SKU-00001", 1),), spot=Spot(postal_code="94110"))
    with asking(address, []) as shop, pytest.raises(UnavailableError):
        shop.repromise(again)
    assert len(handler.seen) == 1


def test_an_answer_of_another_release_is_no_answer(failing: tuple[str, type[Failing]]) -> None:
    address, handler = failing
    handler.answers[:] = [(200, None)]
    with asking(address, []) as shop, pytest.raises(CallError, match="expected one of this client's release"):
        shop.health()


@pytest.mark.parametrize("address", ["troth.example", "ftp://troth.example", "https://", "https://troth.example/?a=b"])
def test_an_address_that_is_none_is_refused_at_once(address: str) -> None:
    with pytest.raises(ServingError, match="address: expected one such as"):
        Client(address, "troth_key")


def test_nobody_there_is_told_as_such() -> None:
    with create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UnavailableError, match="ConnectionRefusedError"):
        Client(f"http://{LOOPBACK}:{port}", "troth_key", most_tries=1).health()
