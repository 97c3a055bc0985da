"""The databases a ledger can rest in: connections, transactions, durability and dialect of SQLite and of PostgreSQL.

Statements are written with `?` for a value. Schemas are made and brought up to date by Alembic (migrations/).
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from consent.errors import LedgerError

HEAD = "0001"  # newest migration


class Database(Protocol):
    """What a store asks of a database. Threads share it."""

    def writing(self) -> AbstractContextManager[None]:
        """A transaction of the only writer; durable on leaving, or it never happened."""
        ...

    def read(self, query: str, values: Sequence[object] = ()) -> list[Any]: ...
    def write(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Run the statement for every row. Inside `writing` only."""
        ...

    def shred(self) -> None: ...
    def close(self) -> None: ...


class SQLiteDatabase:
    """One SQLite file: WAL, synchronous FULL. One connection writes, another reads meanwhile; other processes may join."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._name = path.name
        self._writer_lock = threading.RLock()
        self._reader_lock = threading.Lock()
        self._writer_thread: int | None = None
        try:
            self._writer = self._connect(path)
            try:
                self._prepare(path)
                self._reader = self._connect(path)
            except BaseException:
                self._writer.close()
                raise
        except sqlite3.DatabaseError as fault:
            raise LedgerError(
                f"ledger {self._name}: expected a SQLite database, found {fault}. Restore it from a backup."
            ) from fault

    def close(self) -> None:
        with self._writer_lock, self._reader_lock:
            self._reader.close()
            self._writer.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._writer_lock:
            self._writer.execute("begin immediate")
            self._writer_thread = threading.get_ident()
            try:
                yield
                self._writer.execute("commit")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("rollback")
                raise
            finally:
                self._writer_thread = None

    def read(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        try:
            if self._writer_thread == threading.get_ident():
                return self._writer.execute(query, values).fetchall()
            with self._reader_lock:
                return self._reader.execute(query, values).fetchall()
        except sqlite3.Error as fault:
            raise LedgerError(
                f"ledger {self._name}: expected a readable database, found {fault}. Restore it from a backup."
            ) from fault

    def write(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        self._writer.executemany(statement, rows)

    def shred(self) -> None:
        """Zeros over deleted rows were written by `secure_delete`; here the journal that still names them goes."""
        with self._writer_lock:
            self._writer.execute("pragma wal_checkpoint(truncate)")

    def _connect(self, path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=60)
        try:
            connection.execute("pragma busy_timeout = 60000")
            connection.execute("pragma synchronous = full")
            connection.execute("pragma cache_size = -65536")  # KiB
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, path: Path) -> None:
        self._writer.execute("pragma journal_mode = wal")
        self._writer.execute("pragma wal_autocheckpoint = 8000")  # pages: 32 MB, or key pages are written over and over
        found = self._version()
        if found is None:
            migrate(f"sqlite:///{path}")
            found = self._version()
        if found != HEAD:
            raise LedgerError(_other_version(found))

    def _version(self) -> str | None:
        tables = self._writer.execute("select count(*) from sqlite_master where name = 'alembic_version'").fetchone()
        if not tables[0]:
            return None
        row = self._writer.execute("select version_num from alembic_version").fetchone()
        return str(row[0]) if row else None


class PostgresDatabase:
    """A PostgreSQL schema. Writers of all processes take turns by an advisory lock; synchronous_commit is on."""

    def __init__(self, url: str) -> None:
        """`url`: `postgresql://...` as psycopg takes it; `?options=-csearch_path%3D<schema>` names the schema.

        Raises: LedgerError when there is no database, or its schema is of another version.
        """
        import psycopg

        self._psycopg = psycopg
        self._writer_lock, self._reader_lock = threading.RLock(), threading.Lock()
        self._writer_thread: int | None = None
        try:
            self._writer = psycopg.connect(url, autocommit=True)
        except psycopg.Error as fault:
            # the driver's words may repeat the address and the user
            raise LedgerError(
                f"ledger: expected a PostgreSQL database, found {type(fault).__name__}. Check that it runs, and its address."
            ) from None
        try:
            self._prepare(url)
            self._reader = psycopg.connect(url, autocommit=True)
        except BaseException:
            self._writer.close()
            raise

    def close(self) -> None:
        with self._writer_lock, self._reader_lock:
            self._reader.close()
            self._writer.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._writer_lock, self._writer.transaction():
            self._writer.execute("select pg_advisory_xact_lock(hashtext('troth ledger'), hashtext(current_schema()))")
            self._writer_thread = threading.get_ident()
            try:
                yield
            finally:
                self._writer_thread = None

    def read(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        try:
            if self._writer_thread == threading.get_ident():
                return self._writer.execute(_percent(query), values, binary=True).fetchall()
            with self._reader_lock:
                return self._reader.execute(_percent(query), values, binary=True).fetchall()
        except self._psycopg.Error as fault:
            raise LedgerError(
                f"ledger: expected a readable database, found {type(fault).__name__}. Restore it from a backup."
            ) from fault

    def write(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        if len(rows) == 1:
            self._writer.execute(_percent(statement), rows[0], binary=True)
        elif rows:
            with self._writer.cursor(binary=True) as cursor:
                cursor.executemany(_percent(statement), rows)

    def shred(self) -> None:
        """Rewrite the table of keys, so that no dead row of it is left; the server's log recycles itself."""
        with self._writer_lock:
            self._writer.execute("vacuum (full) subject_keys")

    def _prepare(self, url: str) -> None:
        self._writer.execute("set synchronous_commit = on")
        if self._version() is None:
            migrate(url.replace("postgresql://", "postgresql+psycopg://", 1))
        if (found := self._version()) != HEAD:
            raise LedgerError(_other_version(found))

    def _version(self) -> str | None:
        if self._writer.execute("select to_regclass('alembic_version')").fetchone() == (None,):
            return None
        row = self._writer.execute("select version_num from alembic_version").fetchone()
        return str(row[0]) if row else None


def _percent(statement: str) -> str:
    return statement.replace("?", "%s")


def _other_version(found: str | None) -> str:
    return f"ledger schema: expected version {HEAD}, found {found}. Use the release that wrote it, or migrate it."


def migrate(url: str) -> None:
    """Bring the ledger's schema at a SQLAlchemy URL to the newest version."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["url"] = url
    command.upgrade(config, "head")


def stored_size(path: Path) -> int:
    """Size of the newest checkpoint of a SQLite ledger, read in microseconds without opening it for writing, unverified.

    Raises: LedgerError when there is no ledger to read.
    """
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=1)
        try:
            found = connection.execute("select max(size) from checkpoints").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.Error as fault:
        raise LedgerError(f"ledger {path.name}: expected a readable ledger, found {fault}. Restore it.") from fault
    if found is None:
        raise LedgerError(f"ledger {path.name}: expected a signed checkpoint, found none. Restore it from a backup.")
    return int(found)
