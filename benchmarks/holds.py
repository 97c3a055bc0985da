"""Holds under a rush: few positions, baskets of several lines, retries, from threads and processes; and how many units too many."""

import os
import random
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.databases import postgres_address, redis_address
from benchmarks.harness import Measure, conditions
from benchmarks.naive_holds import naive_holds
from models.stock.holds.words import Hold, Line, Refusal, Request

SUMMARY = "Holds of the last units under a rush, in SQLite, PostgreSQL or Redis: tries/s, time of one, and oversell"
TRIES = 100_000
PEER_TRIES = 20_000
PROCESSES, THREADS = 2, 4
PLACES = [("mitte", f"sku{n}") for n in range(8)]
UNITS = 15
LASTING = timedelta(seconds=1)
_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Diary:
    """What one worker was told: units that were certainly its own, from when until when, and what it waited for."""

    certain: list[tuple[tuple[str, str], int, int, float]] = field(default_factory=list)
    micros: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)

    def took(self, hold: Hold, since: int, released: int | None = None, is_ordered: bool = False) -> None:
        """Who gives back late gives back what was no longer theirs: a hold ends when it expires, unless it was ordered."""
        expires = (hold.expires_at - _BEGAN) // timedelta(microseconds=1)
        over = float("inf") if is_ordered else min(expires, expires if released is None else released)
        self.certain += [((line.location_code, line.sku), line.units, since, over) for line in hold.lines]


def measure(scale: str | None) -> Iterator[Measure]:
    """Of `scale`: sqlite (default), postgresql or redis. Oversell is summed from what the workers were told, by nothing of the store."""
    kind = scale or "sqlite"
    with _place(kind) as place:
        synced = _sync_micros()
        ours, seconds = _rush("troth", place, TRIES)
        peers, peer_seconds = _rush("naive", place, PEER_TRIES)
    state = conditions(
        sync_us=round(synced), store=kind, tries=TRIES, processes=PROCESSES, threads=THREADS, positions=len(PLACES), units=UNITS,
        load_1min=round(os.getloadavg()[0], 2), answers=dict(sorted(ours.answers.items())),
        peer_tries=PEER_TRIES, peer_answers=dict(sorted(peers.answers.items())),
    )  # fmt: skip
    peer = "check, then allocate"
    yield Measure("oversold_units", oversold(ours), "units", "lower", 0, peer, oversold(peers), conditions=state)
    yield Measure(
        "tries", TRIES / seconds, "tries/s", "higher", None, peer, PEER_TRIES / peer_seconds, conditions=state
    )
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        yield Measure(f"hold_{name}", _at(ours, share), "us", "lower", None, peer, _at(peers, share), conditions=state)


def oversold(diary: Diary) -> int:
    """Units that were promised beyond those there were: the worst moment of each position, summed."""
    changes: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    for place, units, since, until in diary.certain:
        if since < until:
            changes[place] += [(since, units), (until, -units)]
    worst = 0
    for each in changes.values():
        running = most = 0
        for _, units in sorted(each):  # of one moment, what ends counts first
            running += units
            most = max(most, running)
        worst += max(0, most - UNITS)
    return worst


def _rush(kind: str, place: str, tries: int) -> tuple[Diary, float]:
    store = _opened(kind, place)
    store.set_free([(*each, UNITS) for each in PLACES], 1)
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        list(pool.map(_warm, [kind] * PROCESSES, [place] * PROCESSES))
        began = time.perf_counter()
        share = tries // (PROCESSES * THREADS)
        parts = list(pool.map(_process, [kind] * PROCESSES, [place] * PROCESSES, range(PROCESSES), [share] * PROCESSES))
        seconds = time.perf_counter() - began
    store.close()
    return _together([diary for part in parts for diary in part]), seconds


def _warm(kind: str, place: str) -> None:
    _opened(kind, place).close()


def _process(kind: str, place: str, number: int, tries: int) -> list[Diary]:
    store = _opened(kind, place)
    diaries = [Diary() for _ in range(THREADS)]
    threads = [
        threading.Thread(
            target=_shop, args=(store, diary, random.Random(100 * number + each), tries, f"{number}-{each}")
        )
        for each, diary in enumerate(diaries)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    return diaries


def _shop(store: Any, diary: Diary, chance: random.Random, tries: int, name: str) -> None:
    """One shopper after the other: asks, asks again, changes the basket under its key, gives back, orders, or goes away."""
    done = 0
    while done < tries:
        request = Request(f"{name}-{done}", _basket(chance), LASTING)
        hold, since = _asked(store, diary, request), _micros()
        done += 1
        if chance.random() < 0.2:
            again, since_again = _asked(store, diary, request), _micros()
            done += 1
            if hold and again and again.hold_id == hold.hold_id:
                diary.answers.update(same_again=1, held=-1)
            elif hold and again:
                diary.answers["retry_took_again"] += 1
                diary.took(again, since_again)
            elif again and hold is None:
                hold, since = again, since_again
        if hold is None:
            continue
        if chance.random() < 0.05:
            _asked(store, diary, Request(request.key, (Line(*PLACES[0], UNITS),), LASTING))
            done += 1
        fate = chance.random()
        if fate < 0.5:
            diary.took(hold, since, _micros())
            store.release(hold.hold_id, _now())
            diary.answers["released"] += 1
        elif fate < 0.501:
            order = store.settle(hold.hold_id, _now())
            diary.took(hold, since, is_ordered=order.was == "held")
            diary.answers[f"ordered_when_{order.was}"] += 1
        else:
            diary.took(hold, since)


def _micros() -> int:
    """The machine's clock that never goes back, one for all its processes. Nobody sets it, as somebody may set the other."""
    return time.monotonic_ns() // 1000


def _now() -> datetime:
    return _BEGAN + timedelta(microseconds=_micros())


def _basket(chance: random.Random) -> tuple[Line, ...]:
    """One to three lines; of five, one has the same position twice; of a hundred, one a position that nobody knows."""
    lines = [Line(*chance.choice(PLACES), chance.randint(1, 2)) for _ in range(chance.randint(1, 3))]
    if chance.random() < 0.2:
        lines.append(lines[0])
    if chance.random() < 0.01:
        lines.append(Line("mitte", "ghost", 1))
    return tuple(lines)


def _asked(store: Any, diary: Diary, request: Request) -> Hold | None:
    at, began = _now(), time.perf_counter()
    answer: Hold | Refusal = store.hold(request, at)
    diary.micros.append((time.perf_counter() - began) * 1e6)
    if isinstance(answer, Refusal):
        diary.answers[answer.reason] += 1
        return None
    diary.answers["held"] += 1
    return answer


def _together(diaries: list[Diary]) -> Diary:
    whole = Diary()
    for each in diaries:
        whole.certain += each.certain
        whole.micros += each.micros
        whole.answers += each.answers
    whole.micros.sort()
    return whole


def _at(diary: Diary, share: float) -> float:
    return diary.micros[int(len(diary.micros) * share)]


def _sync_micros() -> float:
    """What one sync of a file costs now, the median of 50: every granted hold waits for at least one."""
    times = []
    with tempfile.TemporaryFile() as file:
        for _ in range(50):
            file.write(bytes(4096))
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return sorted(times)[25] * 1e6


def _opened(kind: str, place: str) -> Any:
    if kind == "naive":
        return naive_holds(place)
    if place.startswith("postgresql://"):
        from models.stock.holds.postgres import postgres_holds

        return postgres_holds(place)
    if place.startswith("redis://"):
        from models.stock.holds.redis import redis_holds

        return redis_holds(place)
    from models.stock.holds.sqlite import sqlite_holds

    return sqlite_holds(Path(place))


@contextmanager
def _place(kind: str) -> Iterator[str]:
    """A file, or a server of the benchmark's own that keeps what it acknowledges."""
    with tempfile.TemporaryDirectory(prefix="troth-holds-") as folder:
        if kind == "sqlite":
            yield f"{folder}/stock.db"
        elif kind == "postgresql":
            with postgres_address(Path(folder)) as address:
                yield address
        elif kind == "redis":
            with redis_address(Path(folder), appendonly="yes", appendfsync="always") as address:
                yield address
        else:
            raise SystemExit(f"benchmark holds: expected scale sqlite, postgresql or redis, found {kind}. Correct it.")
