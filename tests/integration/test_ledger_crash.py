"""`kill -9` at any moment, in SQLite and in PostgreSQL: every acknowledged event is there once, erased is erased, the roots re-derive."""

import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consent.ledger.ledger import Ledger
from tests.integration.postgres import fresh_schema
from tests.integration.writers import Writers, forking_process
from tests.unit.consent.builders import events, open_ledger_at, subject

KILLS = 12  # of one ledger, one after the other
BIRTHS = 15  # ledgers killed while they are made


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    with forking_process() as forking:
        yield forking


def killed_after(writers: Writers, place: str, seed: int, seconds: float, since: str) -> dict[str, int]:
    """Let one writer write, kill it some time after it said `since`; what was acknowledged."""
    told: dict[str, int] = {}
    pid = 0
    writers.start(place, seed)
    for _, kind, *said in writers.heard():
        if kind == "pid":
            pid = int(said[0])
        if kind == since:
            threading.Timer(seconds, os.kill, (pid, signal.SIGKILL)).start()
        if kind == "told":
            told.update(zip(said[::2], said[1::2], strict=True))
    return told


def examine(ledger: Ledger, told: dict[str, int]) -> dict[str, int]:
    """That everything told is there, once, or erased by an event that is there; the leaf of every signal that can be read."""
    ledger.verify()
    kept: dict[str, int] = {}
    for recorded in ledger.events():
        assert recorded.event.signal_id not in kept, "an event twice"
        kept[recorded.event.signal_id] = recorded.leaf_index
    hidden: set[int] = set()
    for who in range(1, 6):
        leaves = ledger.leaves_of(subject(who))
        erased = [
            recorded.leaf_index for recorded in ledger.events_of(subject(who)) if "erased" in recorded.event.signal_id
        ]
        last = max(erased, default=-1)
        assert all(leaf not in kept.values() for leaf in leaves if leaf < last), "half erased"
        hidden.update(leaf for leaf in leaves if leaf < last)
    assert hidden == set(range(ledger.size)) - set(kept.values())
    assert [each for each, leaf in told.items() if kept.get(each, leaf if leaf in hidden else None) != leaf] == []
    return kept


def test_killed_again_and_again_it_keeps_every_acknowledged_event_once(writers: Writers, place: str) -> None:
    told: dict[str, Any] = {}
    for seed in range(KILLS):
        told |= killed_after(writers, place, seed, random.Random(seed).uniform(0, 0.08), since="open")
        with open_ledger_at(place) as ledger:
            examine(ledger, told)
    assert len(told) > 20


def test_killed_while_it_is_made_a_ledger_is_made_by_the_next_who_opens_it(
    writers: Writers, tmp_path: Path, postgres_server: str
) -> None:
    made = 0
    for seed in range(BIRTHS):
        seconds = random.Random(seed).uniform(0, 0.06)
        with fresh_schema(postgres_server) as schema:
            for place in (str(tmp_path / str(seed)), schema):
                told = killed_after(writers, place, seed, seconds, since="pid")
                made += bool(told)
                with open_ledger_at(place) as ledger:
                    examine(ledger, told)
                    leaves = ledger.append(events(5))
                    assert ledger.append(events(5)) == leaves
    assert made < 2 * BIRTHS


def test_killed_while_others_write_it_holds_nobody_up(writers: Writers, place: str) -> None:
    told: dict[str, int] = {}
    pids: list[int] = []
    writers.start(place, seed=77, writers=3, batches=25)
    for _, kind, *said in writers.heard():
        if kind == "pid":
            pids.append(int(said[0]))
        if kind == "told":
            told.update(zip(said[::2], said[1::2], strict=True))
            if len(told) > 60 and len(pids) == 3:
                os.kill(pids.pop(), signal.SIGKILL)
    with open_ledger_at(place) as ledger:
        examine(ledger, told)
