"""A promise for a basket of five over 500 stores and 20,000 SKUs while the board is written: in process, over HTTP, and from SQL."""

import asyncio
import json
import multiprocessing
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from benchmarks.callers import asked, free_port, is_open, processor, request, workers
from benchmarks.harness import Measure, conditions

SUMMARY = "Promises over 500 stores and 20,000 SKUs, baskets of five, writes running: in process, at 16 callers over HTTP, and from SQL"
SIZES = {"full": (500, 20_000), "small": (50, 2_000)}
CENTRES, LINES, CALLERS, PAIRS = 6, 5, 16, 10_000
PACES, WORKERS = (8, 20), 2  # requests a second of each caller; processes that answer
CELLS_A_SECOND, AT_ONCE = 1_000, 20
CALLS, WARM, CALLS_OVER_HTTP, CALLS_OF_SQL, BATCHES = 2_000, 300, 3_200, 200, 20
_KM_TO_COLLECT = 40
# What an analyst would ask: the nearest store with the whole basket, else the nearest centre with it.
_SQL = """
with whole as (
    select location_code from stock where sku in (?, ?, ?, ?, ?) and available_units >= 1 group by location_code having count(*) = 5
), placed as (
    select location_code, location_type,
        2 * 6371 * asin(sqrt(pow(sin(radians(latitude - :latitude) / 2), 2)
            + cos(radians(:latitude)) * cos(radians(latitude)) * pow(sin(radians(longitude - :longitude) / 2), 2))) as km
    from whole join locations using (location_code)
)
select location_code from placed where km <= :near or location_type = 'distribution_center' order by location_type = 'distribution_center', km limit 1
"""


@dataclass(frozen=True)
class World:
    """A retailer in the folder of a home: its places, SKUs, and a basket and place for every call."""

    home: Any
    skus: Sequence[str]
    codes: Sequence[str]
    towns: Sequence[tuple[float, float]]

    def basket(self, chance: random.Random) -> tuple[list[str], tuple[float, float]]:
        return chance.sample(self.skus, LINES), chance.choice(self.towns)


def measure(scale: str | None) -> Iterator[Measure]:
    """Milliseconds of a promise (p50, p99), of 10,000 positions in one call, and of the same question in SQLite. `scale`: `full` or `small`."""
    if (scale or "full") not in SIZES:
        raise SystemExit(f"scale: expected one of {', '.join(SIZES)}, found {scale}.")
    stores, skus = SIZES[scale or "full"]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        world = _made(Path(folder), stores, skus)
        state = {
            "stores": stores, "centres": CENTRES, "skus": skus, "lines": LINES, "cells_written_a_second": CELLS_A_SECOND,
            "build_seconds": round(time.perf_counter() - began, 1),
        }  # fmt: skip
        with _written(world):
            yield from _in_process(world, state)
            yield from _over_http(world, state)
        yield from _from_sql(world, state)


def _in_process(world: World, state: dict[str, Any]) -> Iterator[Measure]:
    from models.promise.asking import Ask, Line, Spot
    from models.promise.promising import promise
    from serving import answers
    from serving.promising.shop import Shop

    shop, chance = Shop(world.home), random.Random(7)
    asked = []
    for _ in range(CALLS):
        skus, (latitude, longitude) = world.basket(chance)
        asked.append(Ask(lines=tuple(Line(sku, 1) for sku in skus), spot=Spot(latitude=latitude, longitude=longitude)))
    ways: dict[str, int] = {}
    for ask in asked[:WARM]:
        found = promise(ask, datetime.now(UTC), shop.grounds())
        way = found.chosen.way if found.chosen else "nothing"
        ways[way] = ways.get(way, 0) + 1
    times, work = _timed([lambda ask=ask: promise(ask, datetime.now(UTC), shop.grounds()) for ask in asked])  # type: ignore[misc]
    here = conditions(**state, calls=CALLS, load_1min=_load(), of_the_first=ways, processor_p50_ms=_at(work, 0.5), processor_p99_ms=_at(work, 0.99))  # fmt: skip
    yield Measure("promise_p50", _at(times, 0.5), "ms", conditions=here)
    yield Measure("promise_p99", _at(times, 0.99), "ms", goal=10, conditions=here)
    desk, pairs = answers.desk(world.home), _pairs(world)
    times, work = _timed([lambda: answers.ask_availabilities(desk, pairs, datetime.now(UTC))] * BATCHES)
    here = conditions(**state, calls=BATCHES, pairs=PAIRS, load_1min=_load(), processor_p50_ms=_at(work, 0.5))
    yield Measure("availability_10000_p50", _at(times, 0.5), "ms", conditions=here)


def _over_http(world: World, state: dict[str, Any]) -> Iterator[Measure]:
    from serving import keys

    key, chance = keys.make_key(world.home, "benchmark", [], datetime.now(UTC), ["promise"]), random.Random(11)
    bodies = []
    for _ in range(CALLS_OVER_HTTP):
        skus, (latitude, longitude) = world.basket(chance)
        lines = [{"sku": sku, "units": 1} for sku in skus]
        bodies.append(json.dumps({"lines": lines, "spot": {"latitude": latitude, "longitude": longitude}}).encode())
    with _served() as (port, _):
        nothing = asyncio.run(_asked_in_time(port, key, "/", bodies[: CALLS_OVER_HTTP // 2], PACES[0]))
    with _served(world) as (port, pid):

        def timed(calls: Callable[[], list[float]]) -> tuple[list[float], dict[str, Any]]:
            began, spent, ours = time.perf_counter(), _processor(pid), time.process_time()
            times = calls()
            seconds, work = time.perf_counter() - began, [each - before for each, before in zip(_processor(pid), spent, strict=True)]  # fmt: skip
            return times, conditions(
                **state, callers=CALLERS, workers=WORKERS, calls=len(times), requests_a_second=round(len(times) / seconds),
                processor_ms_a_request=round(sum(work) / len(times) * 1e3, 2), shares_of_workers=[round(each / max(sum(work), 0.01), 2) for each in work],
                processor_ms_a_request_of_callers=round((time.process_time() - ours) / len(times) * 1e3, 2), load_1min=_load(),
            )  # fmt: skip

        _asked(port, key, "/v1/promises", bodies[:WARM], CALLERS)
        for pace in PACES:
            times, here = timed(lambda pace=pace: asyncio.run(_asked_in_time(port, key, "/v1/promises", bodies, pace)))  # type: ignore[misc]
            here |= {
                "pace": f"{CALLERS} callers, each {pace} times a second at random moments, from the moment due",
                "nothing_p50_ms": _at(nothing, 0.5), "nothing_p99_ms": _at(nothing, 0.99),
            }  # fmt: skip
            suffix = "" if pace == PACES[0] else f"_at_{CALLERS * pace}_a_second"
            yield Measure(f"promise_http_p50{suffix}", _at(times, 0.5), "ms", conditions=here)
            yield Measure(f"promise_http_p99{suffix}", _at(times, 0.99), "ms", goal=25, conditions=here)
        times, here = timed(lambda: _asked(port, key, "/v1/promises", bodies, CALLERS))
        here["pace"] = f"{CALLERS} callers, each again as soon as it is answered"
        yield Measure("promise_http_saturated_p50", _at(times, 0.5), "ms", conditions=here)
        yield Measure("promise_http_saturated_p99", _at(times, 0.99), "ms", conditions=here)
        body = json.dumps({"pairs": [{"sku": sku, "location_code": code} for sku, code in _pairs(world)]}).encode()
        times = _asked(port, key, "/v1/availability", [body] * BATCHES, 1)
        here = conditions(**state, callers=1, calls=BATCHES, pairs=PAIRS, load_1min=_load())
        yield Measure("availability_10000_http_p50", _at(times, 0.5), "ms", conditions=here)


def _from_sql(world: World, state: dict[str, Any]) -> Iterator[Measure]:
    """Stock of the same board in a SQLite file under an index, and the plain question; the places it finds are compared with the board's."""
    from models.stock.board.reader import Board
    from models.tables import read

    board = Board(world.home.stock / "board")
    with sqlite3.connect(world.home.root / "peer.db", isolation_level=None) as peer:
        peer.execute("pragma journal_mode = off")
        peer.execute("create table stock (sku text, location_code text, available_units integer, primary key (sku, location_code)) without rowid")  # fmt: skip
        peer.execute("create table locations (location_code text primary key, location_type text, latitude real, longitude real)")  # fmt: skip
        peer.execute("begin")
        for first in range(0, len(world.skus), 200):
            some = world.skus[first : first + 200]
            cells, codes = board.rows(some)
            rows = ((sku, code, units) for sku, of in zip(some, cells.available_units.tolist(), strict=True) for code, units in zip(codes, of, strict=True))  # fmt: skip
            peer.executemany("insert into stock values (?, ?, ?)", rows)
        columns = ["location_code", "location_type", "latitude", "longitude"]
        places = read(world.home, "locations", columns)
        peer.executemany("insert into locations values (?, ?, ?, ?)", places.iter_rows())
        peer.execute("commit")
        chance, calls = random.Random(7), []
        for _ in range(CALLS_OF_SQL):
            skus, (latitude, longitude) = world.basket(chance)
            calls.append((skus, latitude, longitude))
            _compare(peer, board, skus)
        statement = _SQL.replace("?, ?, ?, ?, ?", ", ".join(f":sku{number}" for number in range(LINES)))
        questions = [
            {f"sku{number}": sku for number, sku in enumerate(skus)} | {"latitude": latitude, "longitude": longitude, "near": _KM_TO_COLLECT}
            for skus, latitude, longitude in calls
        ]  # fmt: skip
        times, work = _timed([lambda asked=asked: peer.execute(statement, asked).fetchone() for asked in questions])  # type: ignore[misc]
    from models.promise.asking import Ask, Line, Spot
    from models.promise.promising import promise
    from serving.promising.shop import Shop

    shop = Shop(world.home)
    asks = [Ask(lines=tuple(Line(sku, 1) for sku in skus), spot=Spot(latitude=latitude, longitude=longitude)) for skus, latitude, longitude in calls]  # fmt: skip
    ours, our_work = _timed([lambda ask=ask: promise(ask, datetime.now(UTC), shop.grounds()) for ask in asks])  # type: ignore[misc]
    here = conditions(**state, calls=CALLS_OF_SQL, load_1min=_load(), sqlite=sqlite3.sqlite_version, processor_p50_ms=_at(our_work, 0.5), peer_processor_p50_ms=_at(work, 0.5))  # fmt: skip
    yield Measure("promise_p50_beside_sql", _at(ours, 0.5), "ms", peer="SQLite, nearest place with the whole basket", peer_value=_at(times, 0.5), conditions=here)  # fmt: skip


def _compare(peer: sqlite3.Connection, board: Any, skus: Sequence[str]) -> None:
    marks = ", ".join("?" * len(skus))
    asked = f"select location_code from stock where sku in ({marks}) and available_units >= 1 group by 1 having count(*) = {len(skus)}"  # noqa: S608 (marks alone)
    theirs = {code for (code,) in peer.execute(asked, skus)}
    cells, codes = board.rows(skus)
    ours = {code for code, has in zip(codes, (cells.available_units >= 1).all(axis=0).tolist(), strict=True) if has}
    if ours != theirs:
        raise SystemExit(f"promise: expected the places SQL finds, found {len(ours ^ theirs)} others.")


def _made(folder: Path, stores: int, skus: int) -> World:
    """Stores in random towns of the contiguous states, centres with nearly everything, stores with some of it."""
    import numpy as np
    import polars as pl

    from models.stock.board.writer import BoardWriter
    from models.tables import write
    from simulator.places import postal_codes
    from troth.home import Home

    home, chance = Home(folder), np.random.default_rng(5)
    towns = postal_codes()
    chosen = towns[chance.choice(len(towns), stores + CENTRES, replace=False)]
    codes = [f"DC{n + 1}" for n in range(CENTRES)] + [f"S{n + 1:03d}" for n in range(stores)]
    is_store = pl.Series([False] * CENTRES + [True] * stores)
    write(home, "locations", chosen.select(
        location_code=pl.Series(codes), location_type=pl.select(pl.when(is_store).then(pl.lit("store")).otherwise(pl.lit("distribution_center"))).to_series(),
        location_name=pl.col("city"), timezone_name=pl.col("timezone"), latitude=pl.col("latitude"), longitude=pl.col("longitude"),
        region_code=pl.col("state"), country_code=pl.lit("US"),
        opens_at=pl.select(pl.when(is_store).then(pl.lit("08:00"))).to_series(), closes_at=pl.select(pl.when(is_store).then(pl.lit("22:00"))).to_series(),
    ))  # fmt: skip
    names = [f"SKU-{n:05d}" for n in range(skus)]
    write(home, "products", pl.DataFrame({
        "sku": names, "category_name": ["goods"] * skus, "price_cents": chance.integers(500, 9_000, skus), "weight_grams": chance.integers(50, 3_000, skus),
    }))  # fmt: skip
    at = datetime.now(UTC)
    with BoardWriter(home.stock / "board", skus, len(codes)) as writer:
        for first in range(0, skus, 200):
            some = [(code, sku) for sku in names[first : first + 200] for code in codes]
            centre = np.tile(~is_store.to_numpy(), len(some) // len(codes))
            on_hand = np.where(centre, chance.integers(0, 400, len(some)) * (chance.random(len(some)) < 0.9), chance.poisson(1.5, len(some)))  # fmt: skip
            committed = np.minimum(on_hand, chance.poisson(np.where(centre, 3, 0.1)))
            writer.write(some, {"on_hand_units": on_hand, "committed_units": committed}, np.full(len(some), int(at.timestamp() * 1e6)), 1)  # fmt: skip
            first_piece = np.where(on_hand > 0, np.where(centre, 0.995, chance.uniform(0.75, 0.99, len(some))), 0.01)
            further = np.where(centre, 0.9995, 0.85)
            writer.believe(some, first_piece[:, None] * further[:, None] ** np.arange(8), at)
        writer.tell(1, at, at)
    return World(home, names, codes, list(towns.select("latitude", "longitude").iter_rows()))


@contextmanager
def _written(world: World) -> Iterator[None]:
    """Another process writes cells all the while, as a projector does."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    writer = context.Process(target=_write, args=(world.home.root, list(world.skus), list(world.codes), stop), daemon=True)  # fmt: skip
    writer.start()
    time.sleep(2)
    try:
        yield
    finally:
        stop.set()
        writer.join(20)


def _write(root: Path, skus: Sequence[str], codes: Sequence[str], stop: Event) -> None:
    import numpy as np

    from models.stock.board.writer import BoardWriter
    from troth.home import Home

    chance, offset = random.Random(3), 1
    with BoardWriter(Home(root).stock / "board") as writer:
        began, written = time.monotonic(), 0
        while not stop.is_set():
            places = list({(chance.choice(codes), chance.choice(skus)) for _ in range(AT_ONCE)})
            offset += 1
            units = np.array([chance.randrange(6) for _ in places])
            writer.write(places, {"on_hand_units": units}, np.full(len(places), int(time.time() * 1e6)), offset)
            writer.tell(offset, datetime.now(UTC))
            written += len(places)
            time.sleep(max(0.0, began + written / CELLS_A_SECOND - time.monotonic()))


@contextmanager
def _served(world: World | None = None) -> Iterator[tuple[int, int]]:
    """The service as `serve` runs it, its port and process; the writer stands in for the projector, and nobody has webhooks. Without
    a world: the same server in one process, answering nothing, which tells what machine and callers take."""
    port = free_port()
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.promise", str(port), *([str(world.home.root)] if world else [])]
    )
    try:
        until = time.monotonic() + 60
        while not is_open(port) or (world and len(workers(child.pid)) < WORKERS):
            if time.monotonic() > until or child.poll() is not None:
                raise SystemExit("promise: expected a service that answers, found none. See what it says.")
            time.sleep(0.1)
        yield port, child.pid
    finally:
        child.terminate()
        child.wait(30)


def _processor(pid: int) -> list[float]:
    """Seconds of processor each worker has used."""
    return processor([each.pid for each in workers(pid)])


class _Caller:
    """One connection that is kept."""

    def __init__(self, key: str, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._head = f"POST {path} HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: "
        self._reader, self.writer = reader, writer

    async def ask(self, body: bytes) -> None:
        self.writer.write(f"{self._head}{len(body)}\r\n\r\n".encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await self._reader.readexactly(length)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"promise: expected 200, found {answer[:40]!r}.")


def _asked(port: int, key: str, path: str, bodies: Sequence[bytes], callers: int) -> list[float]:
    """Milliseconds of each request, sorted; every caller asks again as soon as it is answered."""
    return asked(port, [request(path, body, key) for body in bodies], callers)[0]


async def _asked_in_time(port: int, key: str, path: str, bodies: Sequence[bytes], pace: int) -> list[float]:
    """Milliseconds of each request from when it was due, sorted; a caller that is still waiting asks late, and that counts.
    `pace`: requests a second of each caller."""
    times: list[float] = []
    began = time.perf_counter() + 0.5

    async def call(number: int) -> None:
        caller = _Caller(key, path, *await asyncio.open_connection("127.0.0.1", port))
        chance, due = random.Random(number), began
        for body in bodies[number::CALLERS]:
            due += chance.expovariate(pace)
            await asyncio.sleep(due - time.perf_counter())
            await caller.ask(body)
            times.append((time.perf_counter() - due) * 1e3)
        caller.writer.close()

    await asyncio.gather(*(call(number) for number in range(CALLERS)))
    return sorted(times)


def _timed(calls: Sequence[Callable[[], object]]) -> tuple[list[float], list[float]]:
    """Milliseconds of each call by the wall and by the processor, sorted."""
    wall, work = [], []
    for call in calls:
        began, spent = time.perf_counter(), time.thread_time()
        call()
        work.append((time.thread_time() - spent) * 1e3)
        wall.append((time.perf_counter() - began) * 1e3)
    return sorted(wall), sorted(work)


def _pairs(world: World) -> list[tuple[str, str]]:
    chance = random.Random(13)
    return [(chance.choice(world.skus), chance.choice(world.codes)) for _ in range(PAIRS)]


def _at(times: Sequence[float], share: float) -> float:
    return round(statistics.median(times) if share == 0.5 else times[int(len(times) * share)], 3)


def _load() -> float:
    return round(os.getloadavg()[0], 1)


def _serve_nothing(port: int) -> None:
    import uvicorn

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"{}"})

    uvicorn.run(nothing, port=port, log_level="warning", access_log=False, server_header=False, lifespan="off")


def _serve(port: int, root: Path) -> None:
    from serving.hub.routes import Hub
    from serving.server import LOOPBACK, bound
    from troth.clock import SystemClock
    from troth.home import Home

    home, clock = Home(root), SystemClock()
    bound(home, LOOPBACK, port, clock, Hub(home, clock), workers=WORKERS)()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        _serve(int(sys.argv[1]), Path(sys.argv[2]))
    else:
        _serve_nothing(int(sys.argv[1]))
