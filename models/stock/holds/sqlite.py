"""Holds in a SQLite file that threads and processes share: write-ahead mode, one writer at a time, synced before it answers."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
_AGAIN = "Do it again: what is held already is not held twice."
_INTERRUPTED = f"expected a commit, found it interrupted. {_AGAIN}"
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

    def ask(self, *asked: tuple[Any, ...]) -> list[list[Any]]:
        return [self.run(*each) for each in asked]

    def do(self, statement: str, *values: object) -> None:
        self.run(statement, *values)


@cache
def _spoken(statement: str) -> str:
    return statement.replace("$asked", _ASKED).replace("$ids", "(select value as hold_id from json_each(?))")


class _Turn:
    """The work of one thread, and what became of it."""

    def __init__(self, work: Callable[[Keeper], Any]) -> None:
        self.work = work
        self.given: Any = None
        self.fault: Exception | None = None
        self.is_over = False


class SQLitePlace:
    """`synchronous = full`: in write-ahead mode every commit is synced, so what was acknowledged outlives a power cut.

    One sync serves all threads that wait: whoever comes first does the work of the others too, and everybody is answered after it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._writer, self._door = threading.Lock(), threading.Lock()
        self._waiting: list[_Turn] = []
        self._connections = Connections(self._connect)
        self.writing(lambda _: None)

    def close(self) -> None:
        self._connections.close()

    def writing(self, work: Callable[[Keeper], T]) -> T:
        mine = _Turn(work)
        with self._door:
            self._waiting.append(mine)
        with self._writer:
            if not mine.is_over:
                self._commit()
        if mine.fault is not None:
            raise mine.fault
        given: T = mine.given
        return given

    def reading(self, work: Callable[[Keeper], T]) -> T:
        with self._refusing(), self._connections.one() as connection:
            connection.execute("begin")
            given = work(Tables(SQLiteSession(connection)))
            connection.execute("commit")
            return given

    def _commit(self) -> None:
        """The work of all who wait, in one transaction."""
        with self._door:
            turns, self._waiting = self._waiting, []
        try:
            with self._refusing(), self._connections.one() as connection:
                connection.execute("begin immediate")
                for turn in turns:
                    _take(turn, connection)
                connection.execute("commit")
        except BaseException as fault:
            for turn in turns:
                turn.fault = fault if isinstance(fault, HoldsError) else HoldsError(f"holds: {_INTERRUPTED}")
            if not isinstance(fault, HoldsError):
                raise
        finally:
            for turn in turns:
                turn.is_over = True

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as fault:
            raise HoldsError(
                f"holds {self._path.name}: expected a database that works, found {fault}. {_AGAIN}"
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


def _take(turn: _Turn, connection: sqlite3.Connection) -> None:
    """Do the work, or none of it: a fault of one is not that of the others."""
    connection.execute("savepoint turn")
    try:
        turn.given = turn.work(Tables(SQLiteSession(connection)))
    except HoldsError as fault:
        turn.fault = fault
        connection.execute("rollback to turn")
    connection.execute("release turn")


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
