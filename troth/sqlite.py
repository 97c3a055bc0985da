"""What every SQLite file of ours needs of SQLite, and SQLite does not do by itself."""

import sqlite3
import time
from pathlib import Path

_PAUSE = 0.005  # seconds


def write_ahead(connection: sqlite3.Connection, patience: float = 60) -> None:
    """Put the file into write-ahead mode, waiting `patience` seconds for others who open a new file at the same time.

    SQLite's own timeout does not hold here: it refuses at once. Raises: sqlite3.OperationalError.
    """
    until = time.monotonic() + patience
    while True:
        try:
            connection.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError as fault:
            if fault.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_PAUSE)


def private_file(path: Path, tables: str) -> sqlite3.Connection:
    """A file that its owner alone reads, with these tables, in write-ahead mode. Threads may share it, one at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=30, check_same_thread=False)
    path.chmod(0o600)
    write_ahead(connection)
    connection.executescript(tables)
    return connection
