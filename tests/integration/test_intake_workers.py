"""Events over several connections to two workers, one of which is killed in the middle: what was acknowledged is there, once."""

import hmac
import http.client
import json
import random
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consent.ledger.opening import open_ledger
from serving import keys
from serving.event_log.log import open_log
from serving.intake.shops import add_shop
from serving.server import LOOPBACK
from tests.integration.two_workers import PATIENCE_SECONDS, Started, until
from troth.clock import SystemClock
from troth.home import Home

DOMAIN, SECRET = "pier.example", "shpss_of_the_pier"
SENDERS, REQUESTS = 6, 40
NOW = datetime.now(UTC).isoformat()


class Sender:
    """Sends what it has until it is acknowledged, over a connection of its own, and now and then once more over another."""

    def __init__(self, number: int, port: int, key: str, is_halfway: threading.Barrier) -> None:
        self.number, self.port, self.key, self.is_halfway = number, port, key, is_halfway
        self.chance = random.Random(number)
        self.again = 0
        self.orders: list[str] = []
        self.events: list[str] = []
        self.signals: list[str] = []
        self.connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=PATIENCE_SECONDS)

    def run(self) -> "Sender":
        for request in range(REQUESTS):
            if request == REQUESTS // 2:
                self.is_halfway.wait(PATIENCE_SECONDS)
            name = f"{self.number}x{request}"
            send = self._webhook if request % 2 else self._batch
            send(name)
            if self.chance.random() < 0.3:
                self.connection.close()  # the next one may lead to the other worker
                send(name)
        self.connection.close()
        return self

    def _webhook(self, name: str) -> None:
        order = str(self.number * 1_000 + int(name.partition("x")[2]))
        body = {"id": int(order), "name": f"#{order}", "updated_at": NOW, "created_at": NOW, "line_items": []}
        data = json.dumps(body).encode()
        signature = b64encode(hmac.digest(SECRET.encode(), data, "sha256")).decode()
        self._send(
            "/v1/webhooks/shopify",
            data,
            {
                "X-Shopify-Hmac-Sha256": signature,
                "X-Shopify-Shop-Domain": DOMAIN,
                "X-Shopify-Topic": "orders/updated",
                "X-Shopify-Event-Id": name,
            },
        )
        self.orders.append(order)

    def _batch(self, name: str) -> None:
        sales: list[dict[str, Any]] = [
            {"event_type": "movement", "event_id": f"{name}/{line}", "movement_id": f"{name}/{line}", "movement_type": "sale",
             "location_code": "S001", "sku": "kettle", "units": -1, "occurred_at": NOW}
            for line in range(4)
        ]  # fmt: skip
        order = {"event_type": "order", "event_id": name, "occurred_at": NOW, "placed_at": NOW, "order_id": name, "order_name": name,
                 "currency_code": "USD", "lines": [{"line_id": "1", "sku": "kettle", "units": 1, "unit_price_cents": 100}]}  # fmt: skip
        said = {"signal_id": name, "event_type": "withdraw", "purpose_code": "marketing", "channel_code": "email", "occurred_at": NOW,
                "capture_method": "form", "capture_place": "till_tablet", "actor_type": "subject", "jurisdiction_code": "US-OR",
                "identifier": {"type": "email", "value": f"{name}@pier.example"}}  # fmt: skip
        events = [*sales, order, {"event_type": "consent", "said": said}]
        answer = self._send(
            "/v1/events",
            json.dumps({"source_name": "pos", "events": events}).encode(),
            {"Authorization": f"Bearer {self.key}"},
        )
        assert json.loads(answer)["not_taken"] == 0
        self.events += [*(sale["event_id"] for sale in sales), name]
        self.signals.append(name)

    def _send(self, path: str, data: bytes, headers: dict[str, str]) -> bytes:
        """Until it is acknowledged, however often the connection breaks."""
        while True:
            try:
                self.connection.request("POST", path, data, {**headers, "Content-Type": "application/json"})
                answer = self.connection.getresponse()
                told = answer.read()
            except (OSError, http.client.HTTPException):
                self.again += 1
                self.connection.close()
                continue
            assert answer.status == 200, told
            return told


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def key(home: Home) -> str:
    add_shop(home, DOMAIN, SECRET, jurisdiction_code="US-OR")
    return keys.make_key(home, "tills", [], SystemClock().now(), ["events"])


@pytest.fixture
def started(home: Home, key: str) -> Iterator[Started]:
    service = Started(home.root)
    try:
        until(service.is_whole)
        yield service
    finally:
        service.end()


def test_what_two_workers_acknowledged_is_there_once_though_one_of_them_was_killed(
    started: Started, home: Home, key: str
) -> None:
    is_halfway = threading.Barrier(SENDERS + 1)
    first = started.workers()
    with ThreadPoolExecutor(SENDERS) as pool:
        senders = [pool.submit(Sender(number, started.port, key, is_halfway).run) for number in range(SENDERS)]
        is_halfway.wait(PATIENCE_SECONDS)
        answering = [
            worker for worker in first if any(each.status == "ESTABLISHED" for each in worker.net_connections())
        ]
        answering[0].kill()
        done = [each.result() for each in senders]
    until(lambda: started.is_whole() and answering[0] not in started.workers())
    started.run.terminate()
    assert started.run.wait(PATIENCE_SECONDS) == 0
    assert sum(sender.again for sender in done) > 0
    with closing(open_log(home)) as log:
        kept = log.read(0, 10_000)
        assert [each.offset for each in kept] == list(range(1, len(kept) + 1))
        assert log.letters.list() == []
    by_shop = Counter(str(json.loads(each.payload)["id"]) for each in kept if each.source_name == "ecommerce")
    plainly = Counter(each.event_id for each in kept if each.source_name == "pos")
    assert by_shop == Counter({order for sender in done for order in sender.orders})
    assert plainly == Counter({event for sender in done for event in sender.events})
    with open_ledger(home, SystemClock()) as ledger:
        heard = Counter(each.event.signal_id for each in ledger.events(0))
    assert set(heard.values()) == {1}
    assert len(heard) == len({signal for sender in done for signal in sender.signals})
