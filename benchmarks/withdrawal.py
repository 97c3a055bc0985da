"""From a withdrawal to its effect, while features are read and a segment goes out: how long, and how many slipped through."""

import csv
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.harness import Measure, conditions

SUMMARY = "Withdrawals under load: milliseconds until reads are refused, and answers or exported rows that slipped through (goal 0)"
WITHDRAWALS = 300
READERS = 3
PAUSE_SECONDS = 0.03
SERVICE = "recommend_v1"
SEGMENT = """
name: everybody
version: 1
description: Every customer there is.
owner: benchmarks
purpose: marketing
channels: [email]
where:
  all:
    - customers.first_seen_at >= 2000-01-01
"""


@dataclass
class _Heard:
    """What happened when, in seconds of one clock."""

    called: dict[str, float] = field(default_factory=dict)
    acknowledged: dict[str, float] = field(default_factory=dict)
    refused: dict[str, float] = field(default_factory=dict)
    answered: list[tuple[float, str]] = field(default_factory=list)  # when asked, whom: allowed answers only
    reads: int = 0
    exports: list[tuple[float, set[str]]] = field(default_factory=list)  # when it was there, who is in it


def measure(scale: str | None) -> Iterator[Measure]:
    """Milliseconds from the call and from its acknowledgement to the first refused read (p50, p99, longest); leaks of
    reads and of exports; reads/s and exports meanwhile. `scale`: tiny or small (default) retailer.
    """
    from orchestration.progress import Silent
    from orchestration.run import run
    from simulator import SCALES, TINY, simulate_whole
    from troth.settings import here

    with tempfile.TemporaryDirectory() as folder:
        settings = here(Path(folder) / "home")
        chosen = {**SCALES, "tiny": TINY}[scale or "small"]
        simulate_whole(settings.home, chosen, seed=7)
        run(settings, Silent(), sample=False)
        heard, people = _loaded(settings.home, Path(folder))
    state = conditions(
        scale=scale or "small", customers_watched=people, readers=READERS, withdrawals=len(heard.acknowledged),
        reads=heard.reads, load_1min=round(os.getloadavg()[0], 2), exports=len(heard.exports), allowed_reads=len(heard.answered),
    )  # fmt: skip
    for name, since in (("called", heard.called), ("acknowledged", heard.acknowledged)):
        waits = sorted((heard.refused[who] - since[who]) * 1e3 for who in since)
        for share, at in (("p50", 0.5), ("p99", 0.99), ("longest", 1)):
            value = waits[min(int(len(waits) * at), len(waits) - 1)]
            goal = 1_000 if share == "p99" else None
            yield Measure(f"{name}_to_refused_{share}", value, "ms", "lower", goal, conditions=state)
    leaked = [who for when, who in heard.answered if when > heard.acknowledged.get(who, float("inf"))]
    yield Measure("leaked_reads", len(leaked), "answers", "lower", 0, conditions=state)
    gone = sum(
        heard.acknowledged.get(who, float("inf")) < there_at for there_at, members in heard.exports for who in members
    )
    yield Measure("leaked_export_rows", gone, "rows", "lower", 0, conditions=state)
    yield Measure("exports_meanwhile", len(heard.exports), "exports", "higher", 1, conditions=state)


def _loaded(home: Any, folder: Path) -> tuple[_Heard, int]:
    import polars as pl

    from consent.ledger.opening import open_ledger
    from models.segments.definition import parse
    from models.segments.export import export
    from models.segments.rules import Rules
    from orchestration.stages import known_until
    from serving.answers import ask_customer, desk
    from troth.clock import FixedClock
    from troth.published import current

    at = known_until(home)
    standing = pl.read_parquet(current(home, "consent_standing")).filter("is_allowed")
    # The no comes under the hub of the last of a customer's groups, so that one which is only likely the same person is heard too.
    links = pl.read_parquet(current(home, "customer_identities")).filter(
        pl.col("link_type").is_in(["hub", "probabilistic"])
    )
    both = [
        set(standing.filter(pl.col("purpose_code") == purpose, pl.col("channel_code") == channel)["customer_id"])
        for purpose, channel in (("personalization", "*"), ("marketing", "email"))
    ]
    hubs = dict(
        links.sort(pl.col("link_type") == "probabilistic", "identity_ref")
        .select("customer_id", "identity_ref")
        .iter_rows()
    )
    people = sorted(who for who in both[0] & both[1] if who in hubs)
    going, heard, is_done = people[:WITHDRAWALS], _Heard(), threading.Event()
    at_desk, lock = desk(home), threading.Lock()

    def ask(who: str) -> bool:
        began = time.perf_counter()
        is_allowed = ask_customer(at_desk, who, SERVICE, at).is_allowed
        with lock:
            heard.reads += 1
            if is_allowed:
                heard.answered.append((began, who))
        return is_allowed

    def read(number: int) -> None:
        chance = random.Random(number)
        while not is_done.is_set():
            ask(chance.choice(people))

    def send(number: int = 0) -> None:
        while not is_done.is_set():
            number += 1
            to = folder / f"out-{number}"
            export(home, parse(SEGMENT), to, at, rules=Rules())  # no caps: it goes out over and over
            there_at = time.perf_counter() - (time.time() - to.stat().st_ctime)  # renamed into place
            with (to / "members.csv").open(newline="") as file:
                heard.exports.append((there_at, {row["customer_id"] for row in csv.DictReader(file)}))

    workers = [threading.Thread(target=read, args=(number,)) for number in range(READERS)]
    workers.append(threading.Thread(target=send))
    for worker in workers:
        worker.start()
    with open_ledger(home, FixedClock(at)) as ledger:
        for number, who in enumerate(going):
            heard.called[who] = time.perf_counter()
            ledger.append([_withdrawal(hubs[who], number, at)])
            heard.acknowledged[who] = time.perf_counter()
            while ask(who):
                pass
            heard.refused[who] = time.perf_counter()
            time.sleep(PAUSE_SECONDS)
    is_done.set()
    for worker in workers:
        worker.join()
    return heard, len(people)


def _withdrawal(subject_id: str, number: int, at: datetime) -> Any:
    from consent.events import Event

    return Event(
        subject_id=subject_id, event_type="withdraw", purpose_code="*", channel_code="*", occurred_at=at, recorded_at=at,
        received_at=at, notice_id="preference_centre", notice_version=1, language_code="en", capture_method="one_click",
        capture_place="preference_centre", actor_type="subject", jurisdiction_code="US-CA", signal_id=f"withdrawal-{number}",
    )  # fmt: skip
