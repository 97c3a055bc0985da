"""Where the ledger's bytes rest: the seam (`Store`) and its SQLite form. Knows nothing of hashing or signing.

Tables only grow: triggers refuse to update or delete an entry or a checkpoint.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self
from urllib.parse import quote

from consent.errors import LedgerError

SCHEMA_VERSION = 1
_SCHEMA = """
create table if not exists entries (
    leaf_index integer primary key,
    subject_id text not null,
    event_key blob not null,
    salt blob not null,
    event blob not null
);
create unique index if not exists entries_by_key on entries (event_key);
create index if not exists entries_by_subject on entries (subject_id);
create table if not exists tiles (
    level integer not null, number integer not null, hashes blob not null, primary key (level, number)
);
create table if not exists checkpoints (size integer primary key, note text not null, signed_at text not null);
create trigger if not exists entries_are_kept before delete on entries
begin select raise(abort, 'the ledger only grows'); end;
create trigger if not exists entries_stay before update on entries
begin select raise(abort, 'the ledger only grows'); end;
create trigger if not exists checkpoints_are_kept before delete on checkpoints
begin select raise(abort, 'the ledger only grows'); end;
create trigger if not exists checkpoints_stay before update on checkpoints
begin select raise(abort, 'the ledger only grows'); end;
"""
# A hand that edits the file may leave text where bytes were; it must still reach the check that tells on it.
_ENTRY = "select leaf_index, subject_id, event_key, cast(salt as blob), cast(event as blob) from entries"
_AT_ONCE = 10_000  # SQLite binds up to 32,766 values in a statement


class Entry(NamedTuple):
    """An event as stored: its leaf, its salt and its canonical bytes."""

    leaf_index: int
    subject_id: str
    event_key: bytes
    salt: bytes
    event: bytes


class Tile(NamedTuple):
    """Up to 256 neighbouring hashes of every eighth level (c2sp.org/tlog-tiles), concatenated."""

    level: int
    number: int
    hashes: bytes


class SignedSize(NamedTuple):
    """A checkpoint as stored: its size, its signed note, when it was signed (ISO 8601)."""

    size: int
    note: str
    signed_at: str


class Store(Protocol):
    """What the ledger asks of a database. Reads see the last finished write or, inside a write, their own."""

    def writing(self) -> AbstractContextManager[None]:
        """One writer at a time; on leaving, all of it is durable, or none of it happened."""
        ...

    def add_entries(self, entries: Iterable[Entry]) -> None: ...
    def put_tiles(self, tiles: Iterable[Tile]) -> None: ...
    def add_checkpoint(self, checkpoint: SignedSize) -> None: ...
    def indexes_of(self, event_keys: Sequence[bytes]) -> dict[bytes, int]: ...
    def entries(self, start: int, stop: int) -> Iterator[Entry]: ...
    def entries_of(self, subject_id: str) -> list[Entry]: ...
    def entry_count(self) -> int: ...
    def tile(self, level: int, number: int) -> bytes: ...
    def last_checkpoint(self) -> SignedSize | None: ...
    def checkpoints(self) -> list[SignedSize]: ...
    def close(self) -> None: ...


def stored_size(path: Path) -> int:
    """Size of the newest checkpoint of a ledger file, read in microseconds without opening it for writing, unverified.

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


class SQLiteStore:
    """A ledger in one SQLite file: WAL, synchronous FULL. Threads share it; other processes may open it too."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        run = self._connection.execute
        try:
            run("pragma journal_mode = wal")
            run("pragma synchronous = full")
            run("pragma cache_size = -65536")  # KiB; a batch of 100,000 touches pages all over the two indexes
            version = run("pragma user_version").fetchone()[0]
            if version == 0:
                self._connection.executescript(
                    f"begin immediate; {_SCHEMA} pragma user_version = {SCHEMA_VERSION}; commit;"
                )
            elif version != SCHEMA_VERSION:
                raise LedgerError(
                    f"ledger schema: expected version {SCHEMA_VERSION}, found {version}. Use the release that wrote it."
                )
        except sqlite3.DatabaseError as fault:
            self._connection.close()
            raise LedgerError(
                f"ledger {path.name}: expected a SQLite database, found {fault}. Restore it from a backup."
            ) from fault
        except LedgerError:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._lock:
            self._connection.execute("begin immediate")
            try:
                yield
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise

    def add_entries(self, entries: Iterable[Entry]) -> None:
        with self._lock:
            self._connection.executemany("insert into entries values (?, ?, ?, ?, ?)", entries)

    def put_tiles(self, tiles: Iterable[Tile]) -> None:
        with self._lock:
            self._connection.executemany("insert or replace into tiles values (?, ?, ?)", tiles)

    def add_checkpoint(self, checkpoint: SignedSize) -> None:
        with self._lock:
            self._connection.execute("insert into checkpoints values (?, ?, ?)", checkpoint)

    def indexes_of(self, event_keys: Sequence[bytes]) -> dict[bytes, int]:
        found: dict[bytes, int] = {}
        for start in range(0, len(event_keys), _AT_ONCE):
            part = event_keys[start : start + _AT_ONCE]
            marks = ",".join("?" * len(part))
            found.update(self._read(f"select event_key, leaf_index from entries where event_key in ({marks})", part))  # noqa: S608
        return found

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for first in range(start, stop, _AT_ONCE):
            last = min(first + _AT_ONCE, stop)
            rows = self._read(f"{_ENTRY} where leaf_index >= ? and leaf_index < ? order by leaf_index", (first, last))
            yield from map(Entry._make, rows)

    def entries_of(self, subject_id: str) -> list[Entry]:
        rows = self._read(f"{_ENTRY} where subject_id = ? order by leaf_index", (subject_id,))
        return [Entry._make(row) for row in rows]

    def entry_count(self) -> int:
        return int(self._read("select coalesce(max(leaf_index) + 1, 0) from entries")[0][0])

    def tile(self, level: int, number: int) -> bytes:
        rows = self._read("select cast(hashes as blob) from tiles where level = ? and number = ?", (level, number))
        return bytes(rows[0][0]) if rows else b""

    def last_checkpoint(self) -> SignedSize | None:
        rows = self._read("select size, note, signed_at from checkpoints order by size desc limit 1")
        return SignedSize._make(rows[0]) if rows else None

    def checkpoints(self) -> list[SignedSize]:
        return [
            SignedSize._make(row) for row in self._read("select size, note, signed_at from checkpoints order by size")
        ]

    def _read(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        try:
            with self._lock:
                return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as fault:
            raise LedgerError(
                f"ledger: expected a readable database, found {fault}. Restore it from a backup."
            ) from fault
