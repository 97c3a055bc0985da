"""Where the log rests: a SQLite file of the home, or a PostgreSQL schema. Connections, transactions, durability, schema.

One writer at a time, over all threads and processes: that is why offsets are dense, and seen in their order. Statements are
written with `?` for a value and run on both.
"""

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from serving.event_log.events import LogError, LogFullError
from troth.postgres import WriterAndReader, connect, driver
from troth.sqlite import write_ahead

VERSION = 1
RETRY_SECONDS = 5  # when the disk is full: somebody must make room
_PATIENCE = 60  # seconds to wait for others who write
_AGAIN = "Send it again: what is kept already is not kept twice."
_TABLES = """
create table if not exists log_version (version bigint not null);
create table if not exists events (
    event_offset {rowid} primary key,
    source_name text not null,
    event_id text not null,
    event_type text not null,
    topic text not null,
    order_key text not null,
    occurred_at bigint not null,
    recorded_at bigint not null,
    received_at bigint not null,
    payload {blob} not null
);
create table if not exists known_events (
    event_key {blob} primary key,
    event_offset bigint not null,
    content_key {blob} not null,
    received_at bigint not null
) {clustered};
create table if not exists consumers (
    consumer_name text primary key,
    event_offset bigint not null,
    committed_at bigint not null
);
create table if not exists counters (
    counter_name text primary key,
    counted bigint not null
);
create table if not exists dead_letters (
    letter_id {serial},
    letter_key {blob} not null unique,
    route text not null,
    source_name text not null,
    event_id text not null,
    event_type text not null,
    topic text not null,
    reason_code text not null,
    detail text not null,
    event_offset bigint,
    received_at bigint not null,
    seen_count bigint not null,
    state text not null,
    settled_at bigint,
    payload {blob} not null
);
"""


class Database(Protocol):
    """What the log asks of a database. Threads share it."""

    def writing(self) -> AbstractContextManager[None]:
        """A transaction of the only writer; durable on leaving, or it never happened. Raises: LogError, LogFullError."""
        ...

    def read(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """Rows as they are now; inside `writing`, of its thread, as they will be."""
        ...

    def write(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Run the statement for every row. Inside `writing` only."""
        ...

    def free_bytes(self) -> int | None:
        """Room on the disk, where that can be told."""
        ...

    def shred(self) -> None:
        """Leave no trace of deleted content in the database's files."""
        ...

    def close(self) -> None: ...


class SQLiteDatabase:
    """One file: write-ahead, synchronous FULL. One connection writes, another reads meanwhile; other processes may join."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = path
        self._writer_lock, self._reader_lock = threading.RLock(), threading.RLock()
        self._writer_thread: int | None = None
        try:
            self._writer = self._connect()
            try:
                write_ahead(self._writer, _PATIENCE)
                with self.writing():
                    self._make_tables()
                self._reader = self._connect()
            except BaseException:
                self._writer.close()
                raise
        except sqlite3.DatabaseError as fault:
            raise LogError(f"event log {path.name}: expected a SQLite database, found {fault}. Restore it.") from fault
        path.chmod(0o600)

    def close(self) -> None:
        with self._writer_lock, self._reader_lock:
            self._reader.close()
            self._writer.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._writer_lock, self._refusing("written", _AGAIN):
            self._writer.execute("begin immediate")
            self._writer_thread = threading.get_ident()
            try:
                yield
                self._writer.execute("commit")
            finally:
                self._writer_thread = None
                if self._writer.in_transaction:
                    self._writer.execute("rollback")

    def read(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        with self._refusing("read", "Restore it from a backup."):
            if self._writer_thread == threading.get_ident():
                return self._writer.execute(query, values).fetchall()
            with self._reader_lock:
                return self._reader.execute(query, values).fetchall()

    def write(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        self._writer.executemany(statement, rows)

    def free_bytes(self) -> int | None:
        return shutil.disk_usage(self._path.parent).free

    def shred(self) -> None:
        """`secure_delete` wrote zeros over it; here the journal that may still hold it goes."""
        with self._writer_lock, self._reader_lock, self._refusing("written", _AGAIN):
            until = time.monotonic() + _PATIENCE
            while self._writer.execute("pragma wal_checkpoint(truncate)").fetchone()[0]:  # another process is at it too
                if time.monotonic() > until:
                    raise LogError(
                        f"event log {self._path.name}: expected to empty its journal, found it in use. Try again."
                    )
                time.sleep(0.005)
            with self._path.with_name(f"{self._path.name}-wal").open("rb") as journal:
                os.fsync(journal.fileno())  # or a power cut could bring the journal back

    @contextmanager
    def _refusing(self, verb: str, advice: str) -> Iterator[None]:
        """Faults of the database as those of the log."""
        try:
            yield
        except (sqlite3.Error, OSError) as fault:
            if getattr(fault, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise LogFullError(_NO_ROOM, RETRY_SECONDS) from fault
            raise LogError(
                f"event log {self._path.name}: expected a database that can be {verb}, found {fault}. {advice}"
            ) from fault

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=_PATIENCE)
        try:
            for pragma in (
                "page_size = 8192",  # of a new file
                "synchronous = full",
                "secure_delete = on",
                "cache_size = -32768",  # KiB
                "wal_autocheckpoint = 4000",  # 32 MB of pages: those of ids are written over and over
            ):
                connection.execute(f"pragma {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_tables(self) -> None:
        tables = _TABLES.format(
            rowid="integer", blob="blob", serial="integer primary key autoincrement", clustered="without rowid"
        )
        for statement in tables.split(";"):
            self._writer.execute(statement)
        check_version(self)


class PostgresDatabase(WriterAndReader):
    """A PostgreSQL schema. What was written is seen in the order of its turns: no reader meets a gap that is filled later."""

    turn = "troth event log"

    def __init__(self, address: str) -> None:
        """`address`: `postgresql://...` as libpq takes it. Raises: LogError where there is no database or no driver."""
        super().__init__(driver("TROTH_LOG", LogError), address)

    def free_bytes(self) -> int | None:
        return None  # the server's own business; a full disk is refused when it is met

    def shred(self) -> None:
        self._vacuum("events", "dead_letters")

    def _connect(self) -> Any:
        try:
            return connect(self._psycopg, self._address)
        except self._psycopg.Error:
            raise LogError(
                "TROTH_LOG: expected a PostgreSQL that answers, found none. Check that it runs, and its address."
            ) from None

    def _take_part(self) -> None:
        """Nothing: whoever comes may write."""

    @contextmanager
    def _refusing(self, verb: str) -> Iterator[None]:
        try:
            yield
        except self._psycopg.errors.DiskFull:
            raise LogFullError(_NO_ROOM, RETRY_SECONDS) from None
        except self._psycopg.Error as fault:
            raise LogError(
                f"event log: expected a database that can be {verb}, found {type(fault).__name__}. {_AGAIN}"
            ) from None

    def _prepare(self) -> None:
        with self.writing():
            if self.read("select to_regclass('log_version')")[0][0] is None:
                tables = _TABLES.format(
                    rowid="bigint", blob="bytea", serial="bigint generated by default as identity primary key", clustered=""
                )  # fmt: skip
                for statement in tables.strip().rstrip(";").split(";"):
                    self._writer.execute(statement)
            check_version(self)


_NO_ROOM = "event log: expected room on the disk, found none. Make room; then send it again."


def check_version(database: Database) -> None:
    """Write the schema's version down, or refuse another. Raises: LogError."""
    found = database.read("select version from log_version")
    if not found:
        database.write("insert into log_version values (?)", [(VERSION,)])
    elif found[0][0] != VERSION:
        raise LogError(
            f"event log: expected schema version {VERSION}, found {found[0][0]}. Use the release that wrote it."
        )
