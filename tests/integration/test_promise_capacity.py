"""Processes that promise the last hands of slots at once: no slot is ever promised more than it has."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from models.promise.book import Book
from models.stock.holds.sqlite import sqlite_holds
from tests.integration.slot_taker import HANDS, SLOTS, STOCK
from tests.unit.models.promise.high_street import TUESDAY

WORKERS, GIVEN, WRITTEN = 3, 30, 1_500
ROOT = Path(__file__).parents[2]


def test_processes_never_promise_more_of_a_slot_than_it_has_and_hold_only_what_they_promised(tmp_path: Path) -> None:
    Book(tmp_path / "promises.db").close()
    with closing(sqlite_holds(tmp_path / "stock.db")) as holds:
        holds.set_free([(*place, units) for place, units in STOCK.items()], 1)
        workers = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.integration.slot_taker", tmp_path, str(worker), str(GIVEN), str(WRITTEN)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
            )
            for worker in range(WORKERS)
        ]
        told = [list(map(int, worker.communicate()[0].split())) for worker in workers]
        assert [worker.returncode for worker in workers] == [0] * WORKERS
        held = sum(holds.held(list(STOCK), TUESDAY))
    given, written = (sum(each) for each in zip(*told, strict=True))
    with closing(sqlite3.connect(tmp_path / "promises.db")) as book:
        slots = book.execute("select location_code, sum(lines) from taken group by location_code, starts_at").fetchall()
        kept = book.execute("select count(*) from promises").fetchone()[0]
    assert max(lines for _, lines in slots) == HANDS
    assert sum(lines for code, lines in slots if code != "KIOSK") == given == held
    assert [lines for code, lines in slots if code == "KIOSK"] == [HANDS] * SLOTS
    assert (written, kept) == (HANDS * SLOTS, given + written)
