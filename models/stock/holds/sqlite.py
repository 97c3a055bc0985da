"""Holds in a SQLite file that threads and processes share: write-ahead mode, one writer at a time, synced before it answers."""

import sqlite3
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from models.stock.holds.connections import Connections
from models.stock.holds.store import Holds, Joined, Keeper
from models.stock.holds.tables import SCHEMA, Tables, prepare
from models.stock.holds.words import HoldsError, Limits
from troth.sqlite import write_ahead

T = TypeVar("T")
_PATIENCE = 30  # seconds to wait for others who write
_SCHEMA = tuple(f"{statement} without rowid" if "primary key (" in statement else statement for statement in SCHEMA)


_ASKED = """(select json_extract(value, '$[0]') as location_code, json_extract(value, '$[1]') as sku,
    json_extract(value, '$[2]') as units from json_each(?))"""


class SQLiteSession:
    """Statements of a transaction that somebody else began."""

    locks = False

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, statement: str, *values: object) -> list[Any]:
        cursor = self._connection.cursor()
        cursor.row_factory = None
        return cursor.execute(_spoken(statement), values).fetchall()


@cache
def _spoken(statement: str) -> str:
    return statement.replace("$asked", _ASKED).replace("$ids", "(select value as hold_id from json_each(?))")


class SQLitePlace:
    """`synchronous = full`: in write-ahead mode every commit is synced, so what was acknowledged outlives a power cut."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._writer = threading.Lock()  # threads queue here: SQLite would have them poll
        self._connections = Connections(self._connect)
        self.writing(lambda _: None)

    def close(self) -> None:
        self._connections.close()

    def writing(self, work: Callable[[Keeper], T]) -> T:
        with self._writer:
            return self._within("begin immediate", work)

    def reading(self, work: Callable[[Keeper], T]) -> T:
        return self._within("begin", work)

    def _within(self, begin: str, work: Callable[[Keeper], T]) -> T:
        try:
            with self._connections.one() as connection:
                connection.execute(begin)
                done = work(Tables(SQLiteSession(connection)))
                connection.execute("commit")
                return done
        except sqlite3.Error as fault:
            raise HoldsError(
                f"holds {self._path.name}: expected a database that works, found {fault}. "
                "Do it again: what is held already is not held twice."
            ) from fault

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=_PATIENCE)
        try:
            connection.execute("pragma synchronous = full")
            write_ahead(connection, _PATIENCE)
            connection.execute("begin immediate")
            prepare(SQLiteSession(connection), _SCHEMA)
            connection.execute("commit")
        except BaseException:
            connection.close()
            raise
        return connection


def sqlite_holds(path: Path, limits: Limits | None = None) -> Holds:
    """The holds of a SQLite file, made on first use. Raises: HoldsError when it cannot be opened."""
    return Holds(SQLitePlace(path), limits)


def join_sqlite(connection: sqlite3.Connection, limits: Limits | None = None) -> Holds:
    """The same within the caller's transaction, begun with `begin immediate`: its commit is theirs, and so is its fault.

    The tables are there: somebody opened `sqlite_holds` of the file before. Raises: HoldsError outside of a transaction.
    """
    if not connection.in_transaction:
        raise HoldsError("holds: expected a transaction to join, found none. Execute `begin immediate` first.")
    return Holds(Joined(Tables(SQLiteSession(connection))), limits)
