"""The whole HTTP surface against its own document, in process: whatever is sent is answered as described, never with a fault.

The same requests every time. Operations behind a link get a real one; each key has every scope, so that the depths are reached.
"""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from consent.ledger.opening import open_ledger
from serving import keys, openapi
from serving.app import create_app
from serving.hub.delivery import MOST_ANSWER_BYTES, post
from serving.hub.routes import Hub
from serving.hub.seams import Seams
from serving.hub.webhooks import Outcome
from serving.server import tell
from tests.unit.serving.open_hub import ALMA, OpenHub, grant
from tests.unit.serving.open_shop import AT, Caller, open_shop, train
from tests.unit.serving.test_app import DECIDED_AT_ZERO
from tests.unit.serving.test_orders import tables
from tests.unit.serving.test_supply import publish_supply
from troth.clock import FixedClock

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 8
SCHEMA = schemathesis.openapi.from_dict(openapi.document())
OPERATIONS = [each.ok() for each in SCHEMA.get_all_operations()]
# What can be spoilt: an operation without parameters and body has nothing to get wrong.
ASKED = [(each, GenerationMode.POSITIVE) for each in OPERATIONS]
ASKED += [(each, GenerationMode.NEGATIVE) for each in OPERATIONS if each.body or each.query or each.headers]


class Processor(BaseHTTPRequestHandler):
    """A processor downstream, over a real socket. Its path says how it answers."""

    taken: list[tuple[str, str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.taken.append((self.path, self.headers["webhook-id"], body))
        status, answer = {
            "/takes": (202, b'{"receipt_id": "r-1"}'),
            "/talks": (200, b" " * (MOST_ANSWER_BYTES * 4)),
            "/mumbles": (200, b'["receipt_id"]'),
            "/moves": (302, b""),
        }.get(self.path, (500, b"{}"))
        self.send_response(status)
        self.send_header("Location", "/takes")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer[:MOST_ANSWER_BYTES])  # more was announced than anybody reads

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def processor() -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """Address of a processor on this machine, and what it took."""
    taken: list[tuple[str, str, bytes]] = []
    server = HTTPServer(("127.0.0.1", 0), type("Here", (Processor,), {"taken": taken}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", taken
    server.shutdown()
    thread.join()
    server.server_close()


class Surface:
    """The service with something in it: published tables, a model, consents, a link of each kind, a destination."""

    def __init__(self, root: Path) -> None:
        home = open_shop(root, ftr_subject_standing=DECIDED_AT_ZERO, **tables()).home
        publish_supply(home)
        clock = FixedClock(AT)
        open_ledger(home, clock).close()
        train(home)
        key = keys.first_key(home, AT)
        hub = Hub(home, clock, Seams(lambda *_: {"a": 1}, lambda *_: {"b": 2}, lambda *_: "R-1"))
        self.caller = Caller(create_app(home, clock, hub), key)
        assert self.caller.post("/v1/consents", json={"events": [grant()]}).status_code == 200
        about = {"purpose_code": "marketing", "channel_code": "email", "identifier": ALMA}
        wanted = [
            {"kind": "preferences", "identifier": ALMA},
            *({"kind": k} | about for k in ("unsubscribe", "confirm")),
        ]
        made = self.caller.post("/v1/links", json={"links": wanted}).json()["links"]
        self._links = {path.split("/")[1]: path.split("/")[2] for path in (each["path"] for each in made)}
        new = {"name": "news", "url": "https://news.example/", "purposes": ["marketing"]}
        destination = self.caller.post("/v1/webhooks", json=new).json()["destination"]
        self._destination_id = destination["destination_id"]

    def known(self, path: str) -> dict[str, str] | None:
        """Path parameters that lead somewhere, for operations about something the service has made."""
        if "{link}" in path:
            return {"link": self._links[path.removeprefix("/v1").split("/")[1]]}
        if "{destination_id}" in path:
            return {"destination_id": self._destination_id}
        if "{notice_id}" in path:
            return {"notice_id": "web_banner", "version": "2", "language_code": "es"}
        return None

    def ask(self, case: Case) -> Any:
        sent = case.as_transport_kwargs(base_url="http://shop.test")
        kept = {name: sent[name] for name in ("params", "headers", "json", "files") if sent.get(name) is not None}
        data = sent.get("data")
        if data is not None:
            kept["content" if isinstance(data, bytes | str) else "data"] = data
        return self.caller.request(sent["method"], sent["url"], **kept)


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Surface:
    return Surface(tmp_path_factory.mktemp("surface"))


@pytest.mark.parametrize(("operation", "mode"), ASKED, ids=lambda each: getattr(each, "label", None) or each.value)
def test_whatever_is_sent_is_answered_as_the_document_says(
    operation: APIOperation, mode: GenerationMode, surface: Surface
) -> None:
    known = surface.known(operation.path)
    # Not to be ready is no fault: no projector shows this home's stock on a board.
    checks = [each for each in CHECKS if operation.path != "/v1/ready" or each is not not_a_server_error]
    ways = [operation.as_strategy(mode, path_parameters=known) if known else operation.as_strategy(mode)]
    if known and mode is GenerationMode.POSITIVE:
        ways.append(operation.as_strategy(mode))  # leads nowhere
    for way in ways:

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=way)
        def answered(case: Case) -> None:
            case.validate_response(surface.ask(case), checks=checks)

        answered()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/takes", Outcome(True, 202, receipt_id="r-1")),
        ("/talks", Outcome(True, 200)),
        ("/mumbles", Outcome(True, 200)),
        ("/moves", Outcome(False, 302, "refused")),
        ("/fails", Outcome(False, 500, "refused")),
    ],
)
def test_a_processor_acknowledges_with_a_2xx_alone_and_redirects_are_not_followed(
    path: str, expected: Outcome, processor: tuple[str, list[tuple[str, str, bytes]]]
) -> None:
    address, taken = processor
    found = post(address + path, {"webhook-id": "m-1"}, b"{}", allow_loopback=True)
    assert found == expected
    assert [each[0] for each in taken] == [path]


def test_this_machine_is_not_sent_to_unless_that_was_allowed(
    processor: tuple[str, list[tuple[str, str, bytes]]],
) -> None:
    address, taken = processor
    assert post(f"{address}/takes", {}, b"{}") == Outcome(False, fault="unreachable")
    assert taken == []


def test_the_servers_thread_tells_what_was_captured_and_stops_when_told(
    processor: tuple[str, list[tuple[str, str, bytes]]], tmp_path: Path
) -> None:
    address, taken = processor
    shop = OpenHub(tmp_path, allow_loopback=True)
    stop = threading.Event()
    telling = threading.Thread(target=tell, args=(shop.hub, stop, 0.01), daemon=True)
    telling.start()
    new = {"name": "news", "url": f"{address}/takes", "purposes": ["marketing"]}
    destination_id = shop.admin.post("/v1/webhooks", json=new).json()["destination"]["destination_id"]
    shop.say(grant())
    deliveries: list[Any] = []
    for _ in range(1_000):
        deliveries = shop.admin.get(f"/v1/webhooks/{destination_id}/deliveries?state=delivered").json()
        if deliveries:
            break
        stop.wait(0.02)
    stop.set()
    telling.join(timeout=30)
    assert not telling.is_alive()
    assert [(each["leaf_index"], each["receipt_id"]) for each in deliveries] == [(0, "r-1")]
    assert [each[1] for each in taken] == [f"{destination_id}.0"]
