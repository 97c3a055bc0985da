"""A disk that fails, fills up or loses its power at any call; a server that hangs up: nothing acknowledged is lost or there twice."""

import json
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from consent.errors import LedgerError
from consent.ledger.keyring import KeyRing
from consent.ledger.ledger import Ledger
from consent.ledger.postgres import PostgresDatabase
from consent.ledger.store import Store
from tests.integration.disk import Call, Fault, watched
from tests.integration.failing_writer import Disk, examine, work
from tests.integration.places import raw
from tests.integration.postgres import break_down, running_server
from tests.integration.power import left_after, write_out
from tests.unit.consent import builders
from tests.unit.consent.builders import KEK, MONDAY, SIGNER, events, open_ledger_at
from troth.clock import FixedClock

ROOT = Path(__file__).parents[2]
EVERY = (
    13  # each kind of fault at every 13th call, each kind at others; 1 tries all kinds at all calls, for five minutes
)
CUTS = 200
HELD = 245  # events in the ledger that is worked on, so that its first tile is completed under faults
KINDS = [(fault, False) for fault in Fault if fault is not Fault.NONE]
KINDS += [(fault, True) for fault in (Fault.IO_ERROR, Fault.DISK_FULL, Fault.HALF, Fault.LATE)]

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Runs one fork of the failing writer in a new folder."""
    held, base, numbers = tmp_path_factory.mktemp("held"), tmp_path_factory.mktemp("forks"), count()
    with builders.open_ledger(held) as ledger:
        ledger.append(events(HELD))
    command = [sys.executable, "-m", "tests.integration.failing_writer"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        requests, reports = writer.stdin, writer.stdout

        def run(is_new: bool, at: int, fault: Fault, is_lasting: bool, seed: int) -> dict[str, Any]:
            folder = base / str(next(numbers))
            if is_new:
                folder.mkdir()
            else:
                shutil.copytree(held, folder)
            asked = {"folder": str(folder), "at": at, "fault": fault.name, "is_lasting": is_lasting, "seed": seed}
            requests.write(json.dumps({**asked, "first": 0 if is_new else HELD, "is_short": is_new}) + "\n")
            requests.flush()
            report: dict[str, Any] = json.loads(reports.readline())
            shutil.rmtree(folder)
            return report

        yield run


@pytest.mark.parametrize("is_new", [True, False], ids=["making the ledger", "append, erase, wrap anew"])
def test_whichever_call_fails_and_however_what_was_acknowledged_is_there_once(ask: Ask, is_new: bool) -> None:
    whole = ask(is_new, 0, Fault.NONE, False, 0)
    assert (whole["problems"], whole["ending"], whole["raised"]) == ([], 0, 0)
    found, raised, killed = [], 0, 0
    for at in range(1, whole["calls"] + 1):
        for number, (fault, is_lasting) in enumerate(KINDS):
            if (at + number) % EVERY == 0:
                report = ask(is_new, at, fault, is_lasting, seed=at)
                found += [(at, fault.name, is_lasting, problem) for problem in report["problems"]]
                raised += report["raised"]
                killed += report["ending"] == -9
    assert found == []
    assert raised > 0
    assert killed > 0


def recorded(folder: Path, seed: int) -> list[Call | tuple[Any, ...]]:
    """Everything a writer did to the files in a folder, and what it told in between."""
    seen: list[Call | tuple[Any, ...]] = []

    def answer(call: Call) -> Fault:
        seen.append(call)
        return Fault.NONE

    with watched(folder, answer):
        work(folder, seed, 0, False, Disk(0, Fault.NONE), lambda *told: seen.append(told))
    return seen


def examine_cut(seen: list[Call | tuple[Any, ...]], at: int, seed: int, chance: random.Random, folder: Path) -> None:
    calls = [each for each in seen[:at] if isinstance(each, Call)]
    acknowledged = {each[1]: each[2] for each in seen[:at] if isinstance(each, tuple) and each[0] == "acknowledged"}
    write_out(left_after(calls, chance), folder)
    examine(folder, seed, 0, acknowledged)


@pytest.mark.parametrize("seed", range(2))
def test_a_power_cut_at_any_call_loses_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    (tmp_path / "whole").mkdir()
    seen, chance = recorded(tmp_path / "whole", seed), random.Random(seed)
    for number in range(CUTS // 2):
        at = chance.randint(0, len(seen))
        examine_cut(seen, at, seed, chance, tmp_path / f"cut-{number}")


def test_without_its_syncs_a_power_cut_would_lose_what_was_acknowledged(tmp_path: Path) -> None:
    """The model of a disk can tell."""
    (tmp_path / "whole").mkdir()
    seen = recorded(tmp_path / "whole", 1)
    unsynced = [each for each in seen if not (isinstance(each, Call) and each.kind == "sync" and each.path != ".")]
    lost = 0
    for number in range(10):
        try:
            examine_cut(unsynced, len(unsynced), 1, random.Random(number), tmp_path / f"cut-{number}")
        except (AssertionError, LedgerError):
            lost += 1
    assert lost >= 5


def test_what_an_erasure_destroyed_no_power_cut_brings_back(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    seen: list[Call] = []

    def answer(call: Call) -> Fault:
        seen.append(call)
        return Fault.NONE

    with watched(tmp_path / "whole", answer), builders.open_ledger(tmp_path / "whole") as ledger:
        ledger.append(events(3))
        with raw(str(tmp_path / "whole")) as run:
            ((wrapped,),) = run("select wrapped from subject_keys")
        ledger.erase(builders.erasure(MONDAY))
        done = len(seen)
    for seed in range(40):
        left = b"".join(left_after(seen[:done], random.Random(seed)).values())
        assert wrapped[12:28] not in left
        assert wrapped[28:44] not in left


def test_a_mark_that_cannot_be_written_costs_no_event_and_is_told_in_the_end(tmp_path: Path) -> None:
    is_failing = True

    def answer(call: Call) -> Fault:
        return Fault.IO_ERROR if is_failing and ".checkpoint" in call.path else Fault.NONE

    with watched(tmp_path, answer):
        ledger = builders.open_ledger(tmp_path)
        assert ledger.append(events(3)) == [0, 1, 2]
        assert ledger.append(events(5)) == [0, 1, 2, 3, 4]
        with pytest.raises(LedgerError, match="ledger mark: expected to remember"):
            ledger.close()
        assert not (tmp_path / "ledger.checkpoint").exists()
        is_failing = False
        with builders.open_ledger(tmp_path) as again:
            assert again.append(events(6)) == list(range(6))
    assert "\n6\n" in (tmp_path / "ledger.checkpoint").read_text()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_file_that_was_moved_away_is_not_made_anew_over_the_journal_of_the_one_that_comes_back(
    tmp_path: Path,
) -> None:
    """A new empty file beside the journal would make SQLite throw away all that is only there yet."""
    file, away = tmp_path / "ledger.db", tmp_path / "elsewhere"
    failing = threading.Event()

    def answer(call: Call) -> Fault:
        return Fault.IO_ERROR if failing.is_set() and call.path.endswith("-wal") else Fault.NONE

    with watched(tmp_path, answer), builders.open_ledger(tmp_path) as ledger:
        ledger.append(events(5))
        file.rename(away)
        failing.set()
        with pytest.raises(LedgerError, match="expected a database that can be written"):
            ledger.append(events(1, 5))
        failing.clear()
        with pytest.raises(LedgerError, match="expected a database that can be written, found unable to open"):
            ledger.append(events(1, 5))
        (tmp_path / "ledger.checkpoint").rename(tmp_path / "mark")  # nobody remembers that there was one
        with pytest.raises(LedgerError, match="expected a SQLite database, found unable to open"):
            builders.open_ledger(tmp_path)
        (tmp_path / "mark").rename(tmp_path / "ledger.checkpoint")
        away.rename(file)
        assert ledger.append(events(2, 5)) == [5, 6]
    with builders.open_ledger(tmp_path) as again:
        assert [one.leaf_index for one in again.events()] == list(range(7))
        again.verify()


def test_all_who_wait_for_one_commit_hear_of_its_fault_and_may_ask_again(tmp_path: Path) -> None:
    failing, faults, leaves = threading.Event(), list[LedgerError](), dict[int, list[int]]()

    def answer(call: Call) -> Fault:
        return Fault.IO_ERROR if failing.is_set() and call.kind == "sync" else Fault.NONE

    def append(number: int) -> None:
        batch = events(3, 3 * number)
        while number not in leaves:
            try:
                leaves[number] = ledger.append(batch)
            except LedgerError as fault:
                faults.append(fault)
                if len(faults) > 20:
                    failing.clear()

    with watched(tmp_path, answer), builders.open_ledger(tmp_path) as ledger:
        failing.set()
        writers = [threading.Thread(target=append, args=(number,)) for number in range(6)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert all("disk I/O error" in str(fault) for fault in faults)
        assert sorted(leaf for each in leaves.values() for leaf in each) == list(range(18))
        ledger.verify()


def hang_up(place: str) -> int:
    """End all connections to a place but ours. How many there were."""
    name = place.split("search_path%3D")[1]
    with psycopg.connect(place.split("&options", maxsplit=1)[0], autocommit=True) as connection:
        query = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = %s"
        found = connection.execute(query, (name,)).fetchone()
    return int(found[0]) if found else 0


class HangingUp(PostgresDatabase):
    """A database whose server hangs up at the k-th statement that writes."""

    def __init__(self, place: str, at: int) -> None:
        super().__init__(place + "&application_name=" + place.split("search_path%3D")[1])
        self._place, self._at, self.count = place, at, 0

    def write(self, statement: str, rows: Any) -> None:
        self.count += 1
        if self.count == self._at:
            assert hang_up(self._place) == 2
        super().write(statement, rows)


def test_a_server_that_hangs_up_at_any_statement_is_told_and_called_again(postgres_place: str) -> None:
    open_ledger_at(postgres_place).close()
    for at in count(1):
        database = HangingUp(postgres_place, at)
        with Ledger(Store(database), SIGNER, KeyRing([KEK]), FixedClock(MONDAY)) as ledger:
            before = ledger.size
            batch = events(260, before)
            if at == 1:  # a key is written for the first batch alone
                batch.append(builders.event(subject_id=builders.subject(1), signal_id="other"))
            faults = []
            try:
                ledger.append(batch)
            except LedgerError as fault:
                faults.append(str(fault))
                assert ledger.size == before
            leaves = ledger.append(batch)
            assert leaves == list(range(before, before + len(batch)))
            ledger.verify()
        if database.count < at:
            assert not faults
            break
        assert len(faults) == 1
        assert "found AdminShutdown" in faults[0] or "found OperationalError" in faults[0]
    assert at > 4


def test_a_statement_the_server_refuses_is_told_and_writes_nothing(postgres_place: str) -> None:
    with open_ledger_at(postgres_place) as ledger:
        ledger.append(events(3))
        with raw(postgres_place) as run:
            run("alter table checkpoints add constraint enough check (size < 4)")
        with pytest.raises(LedgerError, match="found CheckViolation") as refusal:
            ledger.append(events(5))
        assert "sig-" not in str(refusal.value)
        assert ledger.append(events(3)) == [0, 1, 2]
        ledger.verify()
        with raw(postgres_place) as run:
            run("alter table checkpoints drop constraint enough")
        assert ledger.append(events(5)) == list(range(5))
        ledger.verify()


def test_a_server_that_breaks_down_under_writers_and_comes_back_has_everything_once() -> None:
    """Stopped at once three times, as by a crash, and started again; the ledger's object lives through it."""
    with running_server() as server:
        place = server.get_uri() + "&options=-csearch_path%3Dpublic"
        leaves: dict[str, int] = {}
        is_over = threading.Event()
        faults: list[BaseException] = []

        def append(ledger: Ledger, number: int) -> None:
            for first in count(10_000 * number, 7):
                batch = events(9, first)  # the last two come again
                while not is_over.is_set():
                    try:
                        found = ledger.append(batch)
                    except LedgerError:
                        is_over.wait(0.01)
                    except BaseException as fault:
                        faults.append(fault)
                        return
                    else:
                        for each, leaf in zip(batch, found, strict=True):
                            assert leaves.setdefault(each.signal_id, leaf) == leaf
                        break
                if is_over.is_set():
                    return

        with open_ledger_at(place) as ledger:
            writers = [threading.Thread(target=append, args=(ledger, number)) for number in range(3)]
            for writer in writers:
                writer.start()
            for _ in range(3):
                known = len(leaves)
                while len(leaves) < known + 60:
                    is_over.wait(0.01)
                break_down(server)
                server.ensure_postgres_running()
            known = len(leaves)
            while len(leaves) < known + 60:
                is_over.wait(0.01)
            is_over.set()
            for writer in writers:
                writer.join()
            assert faults == []
            kept = {recorded.event.signal_id: recorded.leaf_index for recorded in ledger.events()}
            assert len(kept) == ledger.size
            assert leaves.items() <= kept.items()
            ledger.verify()
