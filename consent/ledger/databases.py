"""What a store asks of a database, and the embedded one, SQLite: connections, transactions, durability. PostgreSQL: `postgres.py`.

Statements are written with `?` for a value. Schemas are made and brought up to date by Alembic (migrations/).
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from consent.errors import LedgerError
from troth.home import sync
from troth.sqlite import write_ahead

HEAD = "0001"  # newest migration
_PATIENCE = 60  # seconds to wait for others who write
AGAIN = "Do it again: what is kept already is not kept twice."
CLOSED = "ledger: expected an open one, found it closed. Open it again."
RESTORE = "Restore it from a backup."
IN_USE = (
    "key rotation: expected {what} to be open nowhere else, found it in use. "
    "Stop `troth serve` and running steps, then rotate again: until then both keys open."
)
_MIGRATING = threading.Lock()  # Alembic's context is one for the process


class Database(Protocol):
    """What a store asks of a database. Threads share it."""

    def writing(self) -> AbstractContextManager[None]:
        """A transaction of the only writer; durable on leaving, or it never happened."""
        ...

    def reading(self) -> AbstractContextManager[None]:
        """Reads of this thread see one state of the database until leaving, whatever others write meanwhile."""
        ...

    def read(self, query: str, values: Sequence[object] = ()) -> list[Any]: ...
    def write(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Run the statement for every row. Inside `writing` only."""
        ...

    def shred(self) -> None:
        """Leave no trace of deleted rows in the database's files. Raises: LedgerError while somebody still reads them."""
        ...

    def close(self) -> None: ...


class SQLiteDatabase:
    """One SQLite file: WAL, synchronous FULL. One connection writes, another reads meanwhile; other processes may join."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._name = path.name
        self._is_doubtful = self._is_closed = False
        self._writer_lock = threading.RLock()
        self._reader_lock = threading.RLock()
        self._writer_thread: int | None = None
        try:
            self._writer = self._connect(may_make=not path.with_name(f"{path.name}-wal").exists())
            try:
                self._prepare(path)
                self._reader = self._connect()
            except BaseException:
                self._writer.close()
                raise
        except sqlite3.DatabaseError as fault:
            raise LedgerError(
                f"ledger {self._name}: expected a SQLite database, found {fault}. Restore it from a backup."
            ) from fault

    def close(self) -> None:
        with self._writer_lock, self._reader_lock:
            self._is_closed = True
            self._reader.close()
            self._writer.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._writer_lock, self._refusing("written", AGAIN):
            self._begin_writing()
            self._writer_thread = threading.get_ident()
            try:
                yield
                self._writer.execute("commit")
            except BaseException:
                self._is_doubtful = True
                if self._writer.in_transaction:
                    self._writer.execute("rollback")
                raise
            finally:
                self._writer_thread = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        if self._writer_thread == threading.get_ident():
            yield
            return
        with self._reader_lock:
            if self._reader.in_transaction:
                yield
                return
            with self._refusing("read", RESTORE):
                self._reader.execute("begin")
            try:
                yield
            finally:
                self._reader.execute("rollback")

    def read(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        with self._refusing("read", RESTORE):
            if self._writer_thread == threading.get_ident():
                return self._writer.execute(query, values).fetchall()
            with self._reader_lock:
                return self._reader.execute(query, values).fetchall()

    def write(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        self._writer.executemany(statement, rows)

    def shred(self) -> None:
        """Zeros over deleted rows were written by `secure_delete`; here the journal that still names them goes."""
        with self._writer_lock, self._refusing("written", AGAIN):
            until = time.monotonic() + _PATIENCE
            while self._writer.execute("pragma wal_checkpoint(truncate)").fetchone()[0]:  # another process is at it too
                if time.monotonic() > until:
                    raise LedgerError(f"ledger {self._name}: expected to empty its journal, found it in use. {AGAIN}")
                time.sleep(0.005)
            sync(self._path.with_name(f"{self._name}-wal"))  # or a power cut could bring the journal back

    @contextmanager
    def _refusing(self, verb: str, advice: str) -> Iterator[None]:
        """Faults of the database as those of the ledger."""
        try:
            yield
        except (sqlite3.Error, OSError) as fault:
            found = f"expected a database that can be {verb}, found {fault}"
            raise LedgerError(f"ledger {self._name}: {found}. {advice}") from fault

    def _begin_writing(self) -> None:
        if self._is_doubtful:
            self._connect_again()
        try:
            self._writer.execute("begin immediate")
        except sqlite3.Error:
            self._is_doubtful = True
            raise

    def _connect_again(self) -> None:
        """Both: what a fault left of a connection may be good for reading only, and its shared memory is the other's too."""
        with self._reader_lock:
            if self._is_closed:
                raise LedgerError(CLOSED)
            self._writer.close()
            self._reader.close()
            self._writer, self._reader = self._connect(), self._connect()
            self._is_doubtful = False

    def _connect(self, *, may_make: bool = False) -> sqlite3.Connection:
        """To the file that is there. Where it was moved away and its journal was not, SQLite would make an empty one and throw away
        the journal, with what was acknowledged and is nowhere else yet."""
        address = f"file:{quote(str(self._path.absolute()))}?mode={'rwc' if may_make else 'rw'}"
        connection = sqlite3.connect(
            address, uri=True, isolation_level=None, check_same_thread=False, timeout=_PATIENCE
        )
        try:
            connection.execute("pragma page_size = 8192")  # of a new file: half the pages, a microsecond less per event
            connection.execute("pragma synchronous = full")
            connection.execute("pragma secure_delete = on")
            connection.execute("pragma cache_size = -65536")  # KiB
            # 32 MB of pages, or those of keys are written over and over
            connection.execute("pragma wal_autocheckpoint = 4000")
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, path: Path) -> None:
        write_ahead(self._writer, _PATIENCE)
        found = self._version()
        if found is None:
            from sqlalchemy import URL

            migrate(URL.create("sqlite", database=str(path)))
            found = self._version()
        if found != HEAD:
            raise LedgerError(other_version(found))

    def _version(self) -> str | None:
        tables = self._writer.execute("select count(*) from sqlite_master where name = 'alembic_version'").fetchone()
        if not tables[0]:
            return None
        row = self._writer.execute("select version_num from alembic_version").fetchone()
        return str(row[0]) if row else None


def other_version(found: str | None) -> str:
    return f"ledger schema: expected version {HEAD}, found {found}. Use the release that wrote it, or migrate it."


@contextmanager
def one_writer(connection: sqlite3.Connection, lock: AbstractContextManager[Any]) -> Iterator[None]:
    """A transaction of the only writer of a small SQLite file; all of it is durable on leaving, or none of it happened."""
    with lock:
        connection.execute("begin immediate")
        try:
            yield
            connection.execute("commit")
        finally:
            if connection.in_transaction:
                connection.execute("rollback")


def migrate(url: Any, **engine: Any) -> None:
    """Bring the ledger's schema at a SQLAlchemy URL to the newest version. `engine`: what its engine takes. Raises: LedgerError."""
    from alembic import command
    from alembic.config import Config
    from sqlalchemy.exc import SQLAlchemyError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["engine"] = {"url": url, **engine}
    try:
        with _MIGRATING:
            command.upgrade(config, "head")
    except SQLAlchemyError as fault:
        found = type(fault).__name__
        raise LedgerError(f"ledger schema: expected to bring it to version {HEAD}, found {found}. {AGAIN}") from None


_SIZES = threading.local()


def stored_size(path: Path) -> int:
    """Size of the newest checkpoint of a SQLite ledger, read in microseconds without opening it for writing, unverified.

    Each thread keeps its connection for as long as the file is the same one. Raises: LedgerError when there is no ledger to read.
    """
    kept: dict[Path, tuple[tuple[int, int], sqlite3.Connection]] = vars(_SIZES).setdefault("kept", {})
    try:
        now = os.stat(path)
        mark, connection = kept.get(path, (None, None))
        if connection is None or mark != (now.st_dev, now.st_ino):
            if connection is not None:
                connection.close()
            kept.pop(path, None)
            connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=1, isolation_level=None)
            kept[path] = (now.st_dev, now.st_ino), connection
        found = connection.execute("select max(size) from checkpoints").fetchone()[0]
    except (sqlite3.Error, OSError) as fault:
        if path in kept:
            kept.pop(path)[1].close()
        told = fault if isinstance(fault, sqlite3.Error) else fault.strerror
        raise LedgerError(f"ledger {path.name}: expected a readable ledger, found {told}. Restore it.") from fault
    if found is None:
        raise LedgerError(f"ledger {path.name}: expected a signed checkpoint, found none. Restore it from a backup.")
    return int(found)


def refuse_in_use(path: Path) -> None:
    """SQLite leaves write-ahead mode only when nobody else has the file open; whoever opens it next enters it again.

    Raises: LedgerError while somebody has.
    """
    if not path.exists():
        return
    connection = sqlite3.connect(path, isolation_level=None, timeout=1)
    try:
        connection.execute("pragma journal_mode = delete")
    except sqlite3.OperationalError:
        raise LedgerError(IN_USE.format(what=path.name)) from None
    finally:
        connection.close()
