"""From an event to changed availability that can be read, and to changed features, over HTTP into a real service; and the same while it is killed.

Everything is what `troth serve` runs: the intake in one process, the projector in another, readers in more, a log in SQLite or PostgreSQL.
"""

import asyncio
import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.databases import postgres_address
from benchmarks.harness import Measure, conditions
from benchmarks.stock_floor import publish_stock
from feature_repo.catalogue import SKU_LOCATION_AVAILABILITY
from feature_repo.publish import publish
from feature_repo.store import entity_key, online_store
from models.stock.board.layout import BoardError
from models.stock.board.reader import Board
from models.stock.holds.opening import open_holds
from serving import keys
from serving.event_log.log import PROJECTOR, open_log
from serving.operations.freshness import STREAMED, shown
from troth.home import Home

SUMMARY = "Event in to changed availability and features readable, and intake and projector killed at random."
SECONDS = {"minute": 60, "sqlite": 300, "postgresql": 300}
KILLS = {"kills": 50, "few_kills": 4}
RATE = 1_000  # events a second
AT_ONCE = 20  # events a request, as a till server that gathers what its tills say sends them
CALLERS = 4
AGAIN = 0.02  # share of requests that are sent again, as senders do whose answer was lost
STORES, SKUS = 50, 2_000
_PIECES = 1_000_000
_POLL_SECONDS = 0.002
_PROJECTED_SECONDS = 120


def measure(scale: str | None) -> Iterator[Measure]:
    """`minute`, `sqlite` (default, five minutes) or `postgresql`: latency at 1,000 events a second; `kills`: 50 of them, `few_kills`: 4."""
    name = scale or "sqlite"
    if name not in {*SECONDS, *KILLS}:
        raise SystemExit(f"scale: expected one of {', '.join([*SECONDS, *KILLS])}, found {name}.")
    with (
        tempfile.TemporaryDirectory() as folder,
        _log_in(Path(folder), "postgresql" if name == "postgresql" else "sqlite"),
    ):
        home = Home(Path(folder) / "home")
        places = [(f"S{store:03}", f"SKU-{sku:05}") for store in range(STORES) for sku in range(SKUS)]
        publish_stock(home, dict.fromkeys(places, _PIECES), at=datetime.now(UTC))
        publish(home, views=STREAMED)
        if name in KILLS:
            yield from _killed(home, places, KILLS[name])
        else:
            yield from _streamed(home, places, SECONDS[name], name)


@dataclass
class Sent:
    """What was acknowledged: how much of each position, and when each request was sent and acknowledged, with its newest offset."""

    units: Counter[tuple[str, str]] = field(default_factory=Counter)
    events: int = 0
    again: int = 0
    refused: int = 0
    requests: list[tuple[float, float, int, int]] = field(
        default_factory=list
    )  # sent, acknowledged, newest offset, events


def _streamed(home: Home, places: Sequence[tuple[str, str]], seconds: int, name: str) -> Iterator[Measure]:
    with _service(home) as (port, key):
        _wait_for_board(home)
        readers = [
            multiprocessing.get_context("spawn").Process(target=_read_along, args=(home.root, port, key, number))
            for number in range(2)
        ]
        seen = _Watch(home)
        for each in (*readers, seen):
            each.start()
        began = time.monotonic()
        try:
            sent = asyncio.run(_send(port, key, places, seconds))
            took = time.monotonic() - began
            lost, twice = _settled(home, places, sent)
        finally:
            seen.stop()
            for reader in readers:
                reader.terminate()
                reader.join()
    acknowledged, readable, featured = seen.latencies(sent)
    told = conditions(
        scale=name, positions=len(places), events=sent.events, seconds=round(took, 1), events_per_second=round(sent.events / took), events_a_request=AT_ONCE,
        callers=CALLERS, sent_again=sent.again, refused=sent.refused, readers=2, load=os.getloadavg()[0],
    )  # fmt: skip
    yield Measure("readable_p99", float(np.percentile(readable, 99)), "ms", goal=1_000, conditions=told)
    yield Measure("readable_p50", float(np.percentile(readable, 50)), "ms", conditions=told)
    yield Measure("readable_max", float(np.max(readable)), "ms", conditions=told)
    yield Measure("features_p99", float(np.percentile(featured, 99)), "ms", goal=1_000, conditions=told)
    yield Measure("features_p50", float(np.percentile(featured, 50)), "ms", conditions=told)
    yield Measure("features_max", float(np.max(featured)), "ms", conditions=told)
    yield Measure("acknowledged_p99", float(np.percentile(acknowledged, 99)), "ms", conditions=told)
    yield Measure("acknowledged_p50", float(np.percentile(acknowledged, 50)), "ms", conditions=told)
    yield Measure(
        "events_per_second", sent.events / took, "events/s", better="higher", goal=RATE * 0.98, conditions=told
    )
    yield Measure("lost", lost, "pieces", goal=0, conditions=told)
    yield Measure("twice", twice, "pieces", goal=0, conditions=told)


def _killed(home: Home, places: Sequence[tuple[str, str]], kills: int) -> Iterator[Measure]:
    """Senders try again until they are answered; intake and projector are killed in turns of chance meanwhile."""
    chance = random.Random(11)
    key = keys.first_key(home, datetime.now(UTC)) or ""
    port = _free_port()
    children = {"intake": _started_intake(home, port), "projector": _started_projector(home)}
    stop = threading.Event()
    killed: Counter[str] = Counter()

    def kill() -> None:
        for _ in range(kills):
            time.sleep(chance.uniform(0.5, 5))
            name = chance.choice(["intake", "projector", "both"])
            for each in children if name == "both" else [name]:
                children[each].send_signal(signal.SIGKILL)
                children[each].wait()
                children[each] = _started_intake(home, port) if each == "intake" else _started_projector(home)
            killed[name] += 1
        stop.set()

    killer = threading.Thread(target=kill, daemon=True)
    try:
        _wait_for_board(home)
        _wait_for_port(port)
        killer.start()
        sent = asyncio.run(_send(port, key, places, None, stop, rate=300))
        killer.join()
        lost, twice = _settled(home, places, sent)
    finally:
        for child in children.values():
            child.kill()
            child.wait()
    told = conditions(
        scale="kills", kills=dict(killed), events=sent.events, sent_again=sent.again, load=os.getloadavg()[0]
    )
    yield Measure("kills", sum(killed.values()), "kills", better="higher", goal=kills, conditions=told)
    yield Measure("acknowledged_events", sent.events, "events", better="higher", conditions=told)
    yield Measure("lost", lost, "pieces", goal=0, conditions=told)
    yield Measure("twice", twice, "pieces", goal=0, conditions=told)


async def _send(
    port: int,
    key: str,
    places: Sequence[tuple[str, str]],
    seconds: float | None,
    stop: threading.Event | None = None,
    rate: int = RATE,
) -> Sent:
    """At a steady rate from several callers, until the time is over or told to stop. Every request is sent until it is answered."""
    sent, number = Sent(), iter(range(10**9))
    chance = random.Random(3)
    began = time.monotonic()
    pause = CALLERS * AT_ONCE / rate

    def is_over() -> bool:
        return stop.is_set() if stop is not None else time.monotonic() - began >= (seconds or 0)

    async def call(caller: int) -> None:
        connection = _Connection(port, key)
        due = began + caller * pause / CALLERS
        while not is_over():
            await asyncio.sleep(max(0, due - time.monotonic()))
            due += pause
            body, units = _batch(chance, places, [next(number) for _ in range(AT_ONCE)])
            for again in range(2 if chance.random() < AGAIN else 1):
                at = time.monotonic()
                offset = await connection.post(body, sent)
                if not again:
                    sent.requests.append((at, time.monotonic(), offset, AT_ONCE))
                    sent.events += AT_ONCE
                    sent.units.update(units)
                else:
                    sent.again += AT_ONCE
        await connection.close()

    await asyncio.gather(*(call(caller) for caller in range(CALLERS)))
    return sent


class _Connection:
    """One kept-alive connection. A request that is not answered is sent again on a new one."""

    def __init__(self, port: int, key: str) -> None:
        self._port, self._key = port, key
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes, sent: Sent) -> int:
        """The newest offset of the events."""
        while True:
            try:
                status, answer = await asyncio.wait_for(self._ask(body), 30)
            except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError):
                await self.close()
                await asyncio.sleep(0.05)
                continue
            if status == 200:
                return max(each["offset"] for each in json.loads(answer)["events"])
            sent.refused += 1
            await asyncio.sleep(0.2)

    async def _ask(self, body: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        head = (
            f"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.split(":")[1]) for line in answer.lower().split("\r\n") if line.startswith("content-length:")
        )
        return int(answer.split(" ", 2)[1]), await reader.readexactly(length)

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            with suppress(OSError):
                await self._streams[1].wait_closed()
        self._streams = None


def _batch(
    chance: random.Random, places: Sequence[tuple[str, str]], numbers: Sequence[int]
) -> tuple[bytes, Mapping[tuple[str, str], int]]:
    units: Counter[tuple[str, str]] = Counter()
    events = []
    now = datetime.now(UTC).isoformat()
    for number in numbers:
        place, pieces = chance.choice(places), chance.randint(1, 3)
        units[place] += pieces
        events.append(
            {
                "event_type": "movement", "event_id": f"e{number}", "occurred_at": now, "location_code": place[0], "sku": place[1],
                "movement_id": f"till/{number}", "movement_type": "sale", "units": -pieces,
            }
        )  # fmt: skip
    return json.dumps({"source_name": "till", "events": events}).encode(), units


class _Watch(threading.Thread):
    """When the board first told each offset, and when the features did, which is after they were written."""

    def __init__(self, home: Home) -> None:
        super().__init__(daemon=True)
        self._home, self._board = home, Board(home.stock / "board")
        self._on_board: list[tuple[float, int]] = []
        self._in_features: list[tuple[float, int]] = []
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.is_set():
            told = shown(self._home)
            for seen, offset in (
                (self._on_board, self._board.known().offset),
                (self._in_features, -1 if told is None else told.offset),
            ):
                if offset > (seen[-1][1] if seen else -1):
                    seen.append((time.monotonic(), offset))
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        self._is_over.set()
        self.join()

    def latencies(self, sent: Sent) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Milliseconds from sending to the acknowledgement, to being readable, and to being in the features, of every event."""
        begun, ended, newest, counts = (np.array(column) for column in zip(*sent.requests, strict=True))
        weights = counts.astype(int)
        found = [np.repeat((ended - begun) * 1000, weights)]
        for seen in (self._on_board, self._in_features):
            at, offsets = np.array([each[0] for each in seen]), np.array([each[1] for each in seen])
            readable = at[np.minimum(np.searchsorted(offsets, newest), len(at) - 1)]
            found.append(np.repeat((readable - begun) * 1000, weights))
        return found[0], found[1], found[2]


def _settled(home: Home, places: Sequence[tuple[str, str]], sent: Sent) -> tuple[int, int]:
    """Once all is projected: pieces that were acknowledged and are not on the board, among the holds or in the features, and pieces there beyond."""
    log = open_log(home)
    holds = open_holds(home)
    try:
        until = time.monotonic() + _PROJECTED_SECONDS
        while log.position(PROJECTOR) < log.head() or (told := shown(home)) is None or told.offset < log.head():
            if time.monotonic() > until:
                raise SystemExit("projector: expected it at the end of the log, found it behind. Look at its log.")
            time.sleep(0.1)
        board = Board(home.stock / "board")
        lost = twice = abs(log.head() - sent.events)
        taken = _PIECES - board.cells(places).data["on_hand_units"].astype(np.int64)
        levels = holds.levels(places, datetime.now(UTC))
        free = np.array([level.free_units if level else _PIECES - 1 for level in levels])
        for found in (taken, _PIECES - 1 - free, _PIECES - _in_features(home, places)):
            wanted = np.array([sent.units[place] for place in places])
            lost += int(np.maximum(wanted - found, 0).sum())
            twice += int(np.maximum(found - wanted, 0).sum())
        return lost, twice
    finally:
        holds.close()
        log.close()


def _in_features(home: Home, places: Sequence[tuple[str, str]]) -> np.ndarray:
    """Pieces on hand as the features say."""
    view, store = SKU_LOCATION_AVAILABILITY, online_store(home.features)
    keys = [entity_key(view.entity, (sku, location)) for location, sku in places]
    rows = store.read([view], keys)
    return np.array([rows[view.name, key].values["on_hand_units"] if (view.name, key) in rows else 0 for key in keys])


def _read_along(root: Path, port: int, key: str, number: int) -> None:
    """What online services do meanwhile: rows of SKUs from the board, and now and then an answer over HTTP."""
    from urllib.request import Request, urlopen

    board, chance = Board(Home(root).stock / "board"), random.Random(number)
    while True:
        skus = [f"SKU-{chance.randrange(SKUS):05}" for _ in range(5)]
        for _ in range(20):
            board.rows(skus)
            time.sleep(0.01)
        request = Request(
            f"http://127.0.0.1:{port}/v1/availability?sku={skus[0]}", headers={"Authorization": f"Bearer {key}"}
        )
        with suppress(OSError), urlopen(request, timeout=10) as answer:  # noqa: S310 (our own port)
            answer.read()


@contextmanager
def _service(home: Home) -> Iterator[tuple[int, str]]:
    """The service as `troth serve` starts it: intake and, beside it, its projector."""
    key, port = keys.first_key(home, datetime.now(UTC)) or "", _free_port()
    code = f"from pathlib import Path; from serving.server import serve; from troth.home import Home; from troth.clock import SystemClock; serve(Home(Path({str(home.root)!r})), port={port}, clock=SystemClock())"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    try:
        _wait_for_port(port)
        yield port, key
    finally:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _started_intake(home: Home, port: int) -> subprocess.Popen[bytes]:
    code = (
        "import sys, uvicorn; from pathlib import Path; from serving.app import create_app; from troth.home import Home; from troth.clock import SystemClock; "
        "uvicorn.run(create_app(Home(Path(sys.argv[1])), SystemClock()), port=int(sys.argv[2]), log_level='critical', access_log=False)"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(home.root), str(port)])


def _started_projector(home: Home) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "serving.intake.projector", str(home.root)])


def _wait_for_board(home: Home) -> None:
    until = time.monotonic() + _PROJECTED_SECONDS
    while True:
        with suppress(BoardError):
            if Board(home.stock / "board").known().known_at is not None:
                return
        if time.monotonic() > until:
            raise SystemExit("board: expected one from the projector, found none.")
        time.sleep(0.1)


def _wait_for_port(port: int) -> None:
    until = time.monotonic() + 60
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if time.monotonic() > until:
            raise SystemExit("service: expected it to listen, found nobody.")
        time.sleep(0.1)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def _log_in(folder: Path, database: str) -> Iterator[None]:
    if database == "sqlite":
        yield
        return
    with postgres_address(folder) as address:
        os.environ["TROTH_LOG"] = address
        try:
            yield
        finally:
            del os.environ["TROTH_LOG"]
