"""A ledger in PostgreSQL: connections, transactions, durability and dialect; and how readers learn its size, cheaply.

Needs the extra `postgresql`. The address may hold a password: no error repeats it, nor the driver's words.
"""

import threading
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from consent.errors import LedgerError
from consent.ledger.databases import AGAIN, CLOSED, HEAD, IN_USE, migrate, other_version
from troth.postgres import WriterAndReader, connect, driver

_CHECK = "Check that it runs, and its address."
_PATIENCE = 2  # seconds a reader waits for a server before it knows nothing
_OPEN = "(hashtext('troth ledger open'), hashtext(current_schema()))"  # a lock that all who may write hold together


class PostgresDatabase(WriterAndReader):
    """A PostgreSQL schema, written in turns."""

    turn = "troth ledger"

    def __init__(self, url: str, keks: Collection[bytes] | None = None, *, alone: bool = False) -> None:
        """`url`: `postgresql://...` as libpq takes it; `?options=-csearch_path%3D<schema>` names the schema.

        `keks`: ids of the key-encryption keys at hand; where keys are under another it is refused. `alone`: also where somebody
        else has it open, and whoever opens it meanwhile waits.
        Raises: LedgerError for these, when there is no database, its schema is of another version, or there is no driver.
        """
        self._keks = keks
        self._is_alone, self._is_closed = alone, False
        super().__init__(driver("ledger", LedgerError), url)

    def close(self) -> None:
        with self._writer_lock, self._reader_lock:
            self._is_closed = True
            super().close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        if self._writer_thread == threading.get_ident():
            yield
            return
        with self._reader_lock:
            if self._has_snapshot:
                yield
                return
            self.read("begin isolation level repeatable read read only")
            self._has_snapshot = True
            try:
                yield
            finally:
                self._has_snapshot = False
                with suppress(self._psycopg.Error):
                    self._reader.rollback()

    def shred(self) -> None:
        self._vacuum("subject_keys")

    def _connect(self) -> Any:
        if self._is_closed:
            raise LedgerError(CLOSED)
        with _refusing_address(self._psycopg):
            connection = connect(self._psycopg, self._address)
        # Who lets go of an open ledger leaves no connection behind. Not at exit: in a forked process it is the parent's.
        weakref.finalize(self, connection.close).atexit = False  # type: ignore[misc]  # it is a property
        return connection

    def _take_part(self) -> None:
        """As one of all who may write, or alone. While a connection was lost, somebody may have rotated the keys."""
        if not self._is_alone:
            self._writer.execute(f"select pg_advisory_lock_shared{_OPEN}")
        elif self._writer.execute(f"select pg_try_advisory_lock{_OPEN}").fetchone() == (False,):
            raise LedgerError(IN_USE.format(what="the ledger"))
        first = "select kek_id from subject_keys order by block, subject_key limit 1"
        found = self._writer.execute(first).fetchone()
        if found and self._keks is not None and bytes(found[0]) not in self._keks:
            self._writer.close()
            raise LedgerError(
                f"ledger: expected keys under a key-encryption key at hand, found them under {bytes(found[0]).hex()}. "
                "Give that one; if it was rotated meanwhile, start again."
            )

    @contextmanager
    def _refusing(self, verb: str) -> Iterator[None]:
        """Faults of the database as those of the ledger; without the driver's words, which may repeat values."""
        try:
            yield
        except self._psycopg.Error as fault:
            found = f"expected a database that can be {verb}, found {type(fault).__name__}"
            raise LedgerError(f"ledger: {found}. Check that it runs. {AGAIN}") from None

    def _prepare(self) -> None:
        with self._refusing("read"):
            if self._version() is None:
                migrate("postgresql+psycopg://", creator=partial(self._psycopg.connect, self._address))
            if (found := self._version()) != HEAD:
                raise LedgerError(other_version(found))
            self._take_part()

    def _version(self) -> str | None:
        if self._writer.execute("select to_regclass('alembic_version')").fetchone() == (None,):
            return None
        row = self._writer.execute("select version_num from alembic_version").fetchone()
        return str(row[0]) if row else None


class PostgresReader:
    """What readers ask before every answer, over one kept connection: how large the ledger is. Threads share it.

    A connection that was lost is made anew by whoever asks next. A server that is gone, or takes longer than two seconds, is an error.
    """

    def __init__(self, url: str, mark: Path) -> None:
        """`mark`: file with a checkpoint the ledger must hold; asked for at every new connection, where there is one."""
        self._psycopg = driver("ledger", LedgerError)
        self._url = url
        self._mark = mark
        self._lock = threading.Lock()
        self._connection: Any = None

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()

    def size(self) -> int:
        """Size of the newest checkpoint, unverified. Raises: LedgerError when there is none to read."""
        found = self._asked("select max(size) from checkpoints")
        if found is None:
            raise LedgerError("ledger: expected a signed checkpoint, found none. Restore it from a backup.")
        return int(found)

    def has_ledger(self) -> bool:
        """Whether there is one. Raises: LedgerError when that cannot be told."""
        return self._asked("select to_regclass('checkpoints') is not null") is True

    def _asked(self, query: str) -> Any:
        if not self._lock.acquire(timeout=_PATIENCE):
            raise LedgerError(f"ledger: expected an answer within {_PATIENCE} s, found the server busy. {_CHECK}")
        try:
            with _refusing_address(self._psycopg):
                if self._connection is not None:
                    try:
                        return self._connection.execute(query).fetchone()[0]
                    except self._psycopg.OperationalError:
                        if not self._connection.closed:  # it answers, but too late
                            raise
                self._connection = self._connect()
                return self._connection.execute(query).fetchone()[0]
        finally:
            self._lock.release()

    def _connect(self) -> Any:
        """Of the primary server only: a copy may not have heard the newest withdrawal."""
        connection = self._psycopg.connect(
            self._url, autocommit=True, connect_timeout=_PATIENCE, tcp_user_timeout=1000 * _PATIENCE,
            target_session_attrs="primary",
        )  # fmt: skip
        try:
            connection.execute(f"set statement_timeout = {1000 * _PATIENCE}")
            self._refuse_other(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _refuse_other(self, connection: Any) -> None:
        if not self._mark.exists():
            return
        note = self._mark.read_text(encoding="utf-8")
        size = int(note.split("\n", 2)[1])
        if connection.execute("select to_regclass('checkpoints')").fetchone()[0] is None:
            return  # `has_ledger` tells
        found = connection.execute("select note from checkpoints where size = %s", (size,)).fetchone()
        if found is None or found[0] != note:
            raise LedgerError(
                f"ledger: expected the checkpoint of size {size} that the home remembers, "
                f"found {'none' if found is None else 'another'}. It was rolled back, or is another home's: {_CHECK}"
            )


@contextmanager
def _refusing_address(psycopg: Any) -> Iterator[None]:
    """Faults of the driver as those of the ledger; without its words, which may repeat the address and the user."""
    try:
        yield
    except psycopg.Error as fault:
        raise LedgerError(f"ledger: expected a PostgreSQL database, found {type(fault).__name__}. {_CHECK}") from None
