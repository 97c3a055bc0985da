"""What every SQLite file of ours needs of SQLite, and SQLite does not do by itself."""

import sqlite3
import time

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
