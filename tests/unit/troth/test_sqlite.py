"""Several who open a new file at once all get into write-ahead mode, or are told that it is in use."""

import sqlite3
import threading
from pathlib import Path

import pytest

from troth.sqlite import write_ahead


def test_whoever_makes_the_file_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    modes: list[str] = []

    def enter() -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        write_ahead(connection)
        modes.append(connection.execute("pragma journal_mode").fetchone()[0])
        connection.close()

    maker = sqlite3.connect(path, isolation_level=None)
    maker.execute("begin exclusive")
    maker.execute("create table made (number integer)")
    waiting = threading.Thread(target=enter)
    waiting.start()
    waiting.join(timeout=0.05)
    assert waiting.is_alive()
    maker.execute("commit")
    waiting.join()
    assert modes == ["wal"]
    maker.close()


def test_patience_ends(tmp_path: Path) -> None:
    maker = sqlite3.connect(tmp_path / "new.db", isolation_level=None)
    maker.execute("begin exclusive")
    other = sqlite3.connect(tmp_path / "new.db", isolation_level=None, timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        write_ahead(other, patience=0.02)
    other.close()
    maker.close()
