"""PostgreSQL as our stores use it: the driver where it is installed, connections that wait for the disk, and two of them to a schema,
one that writes in turns with all other processes and one that reads meanwhile. No error repeats the address, nor the driver's words.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from troth.errors import TrothError


def driver(what: str, error: Callable[[str], TrothError]) -> Any:
    """psycopg. Raises: `error` where it is not installed."""
    try:
        import psycopg
    except ImportError:
        raise error(
            f"{what}: expected psycopg to reach PostgreSQL with, found none. Install Troth with its extra `postgresql`."
        ) from None
    return psycopg


def connect(psycopg: Any, address: str, settings: str = "") -> Any:
    """A connection each of whose statements is a transaction, synced before it is answered. Raises: what psycopg does."""
    connection = psycopg.connect(address, autocommit=True)
    try:
        connection.execute(f"set synchronous_commit = on{settings}")
    except BaseException:
        connection.close()
        raise
    return connection


class WriterAndReader(ABC):
    """Two connections to a schema, shared by threads. Writers of all processes take turns by an advisory lock, which the server lets go
    of after what was written can be seen. A connection that was lost is made anew by whoever needs it next. Statements have `?` for a value.
    """

    turn: str  # what the lock is of

    def __init__(self, psycopg: Any, address: str) -> None:
        self._psycopg, self._address = psycopg, address
        self._writer_lock, self._reader_lock = threading.RLock(), threading.RLock()
        self._writer_thread: int | None = None
        self._has_snapshot = False  # what is read meanwhile is of one moment: it cannot be begun anew
        self._writer = self._connect()
        try:
            self._prepare()
            self._reader = self._connect()
        except BaseException:
            self._writer.close()
            raise

    def close(self) -> None:
        with self._writer_lock, self._reader_lock:
            self._reader.close()
            self._writer.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._writer_lock, self._refusing("written"):
            try:
                self._begin()
                self._writer_thread = threading.get_ident()
                yield
                self._writer.execute("commit")
            except BaseException:
                with suppress(self._psycopg.Error):
                    self._writer.rollback()
                raise
            finally:
                self._writer_thread = None

    def read(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        with self._refusing("read"):
            if self._writer_thread == threading.get_ident():
                return _rows(self._writer, query, values)
            with self._reader_lock:
                try:
                    return _rows(self._reader, query, values)
                except self._psycopg.OperationalError:
                    if self._has_snapshot or not self._reader.closed:
                        raise
                    self._reader = self._connect()
                    return _rows(self._reader, query, values)

    def write(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        if len(rows) == 1:
            self._writer.execute(_spoken(statement), rows[0], binary=True)
        elif rows:
            with self._writer.cursor(binary=True) as cursor:
                cursor.executemany(_spoken(statement), rows)

    def _vacuum(self, *tables: str) -> None:
        """Rewrite tables, so that no dead row of them is left; the server's log recycles itself."""
        with self._writer_lock, self._refusing("written"):
            for table in tables:
                self._writer.execute(f"vacuum (full) {table}")

    def _begin(self) -> None:
        """A transaction whose statements see what writers before it did, however the server is set up."""
        begin = "begin isolation level read committed read write"
        try:
            self._writer.execute(begin)
        except self._psycopg.OperationalError:
            if not self._writer.closed:
                raise
            self._writer = self._connect()
            self._take_part()
            self._writer.execute(begin)
        self._writer.execute(f"select pg_advisory_xact_lock(hashtext('{self.turn}'), hashtext(current_schema()))")

    @abstractmethod
    def _take_part(self) -> None:
        """What a writer's connection that was made anew does first."""

    @abstractmethod
    def _connect(self) -> Any:
        """A connection. Raises: what the room does."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make or check the tables over the writer, before there is a reader."""

    @abstractmethod
    def _refusing(self, verb: str) -> AbstractContextManager[None]:
        """Faults of the database as those of the room."""


def _rows(connection: Any, query: str, values: Sequence[object]) -> list[Any]:
    cursor = connection.execute(_spoken(query), values, binary=True)
    return list(cursor.fetchall()) if cursor.description else []


def _spoken(statement: str) -> str:
    return statement.replace("%", "%%").replace("?", "%s")
