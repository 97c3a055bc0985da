"""What the ledger keeps, as SQL that SQLite and PostgreSQL both speak. Knows nothing of hashing, signing or sealing.

Batches, tiles and checkpoints only grow: triggers (migrations/) refuse to update or delete them. Runs are a projection of the
batches, keys are there to be destroyed. Connections, transactions and dialects are in `databases.py`.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from consent.errors import LedgerError
from consent.ledger.databases import Database
from consent.ledger.keyring import WrappedKey
from consent.log.index import ROW, Run, StoredRun
from consent.log.merkle import HASH_BYTES

_AT_ONCE = 8_000  # values bound in one statement: SQLite takes 32,766, PostgreSQL 65,535
_BATCHES_AT_ONCE = 64
INNER_HEIGHT = 4  # of the subtrees from whose roots on a tile brings its levels along
_KEYS = "select block, subject_key, key_id, kek_id, wrapped from subject_keys"


class Batch(NamedTuple):
    """What one write added: its first leaf, how many, their 64-byte entries; lengths and payloads as in `payloads.py`."""

    first_leaf: int
    leaf_count: int
    entries: bytes
    lengths: bytes
    payloads: bytes


class Tile(NamedTuple):
    """256 neighbouring hashes of every eighth level (c2sp.org/tlog-tiles); the roots of its sixteens, those over them, its own."""

    level: int
    number: int
    hashes: bytes
    inner: bytes

    @property
    def root(self) -> bytes:
        return self.inner[-HASH_BYTES:]


class StoredTile(NamedTuple):
    """A full tile's hashes, and its inner roots."""

    hashes: bytes
    inner: bytes


class SignedSize(NamedTuple):
    """A checkpoint as stored: its size, its signed note, when it was signed (ISO 8601)."""

    size: int
    note: str
    signed_at: str


class Store:
    """The ledger's tables in a database. Reads see the last finished write or, inside a write, their own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read = database.read
        self._write = database.write

    def close(self) -> None:
        self._database.close()

    def writing(self) -> AbstractContextManager[None]:
        """One writer at a time, over all processes; on leaving, all of it is durable, or none of it happened."""
        return self._database.writing()

    def reading(self) -> AbstractContextManager[None]:
        """One state of the database for several reads: runs are replaced while others read them."""
        return self._database.reading()

    def shred(self) -> None:
        """Overwrite what was deleted, so that the database's files no longer hold it."""
        self._database.shred()

    def add_batch(self, batch: Batch) -> None:
        self._write("insert into batches values (?, ?, ?, ?, ?)", [batch])

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches that hold leaves [start, stop), in order."""
        query = (
            "select first_leaf, leaf_count, entries, lengths, payloads from batches "
            "where first_leaf >= ? and first_leaf < ? order by first_leaf limit ?"
        )
        return map(Batch._make, self._walk(query, start, stop))

    def entries(self, start: int, stop: int) -> bytes:
        """Entries of leaves [start, stop), concatenated."""
        query = (
            "select first_leaf, leaf_count, entries from batches "
            "where first_leaf >= ? and first_leaf < ? order by first_leaf limit ?"
        )
        rows = list(self._walk(query, start, stop))
        if not rows:
            return b""
        width = len(rows[0][2]) // rows[0][1]
        return b"".join(row[2] for row in rows)[(start - rows[0][0]) * width : (stop - rows[0][0]) * width]

    def leaf_count(self) -> int:
        rows = self._read("select first_leaf + leaf_count from batches order by first_leaf desc limit 1")
        return int(rows[0][0]) if rows else 0

    def add_tiles(self, tiles: Iterable[Tile]) -> None:
        self._write("insert into tiles values (?, ?, ?, ?)", list(tiles))

    def tile(self, level: int, number: int) -> StoredTile | None:
        rows = self._read("select hashes, inner_roots from tiles where level = ? and number = ?", (level, number))
        return StoredTile(bytes(rows[0][0]), bytes(rows[0][1])) if rows else None

    def tile_roots(self, level: int, start: int, stop: int) -> list[bytes]:
        """Roots of full tiles [start, stop) of a level."""
        query = "select inner_roots from tiles where level = ? and number >= ? and number < ? order by number"
        return [bytes(row[0])[-HASH_BYTES:] for row in self._read(query, (level, start, stop))]

    def add_checkpoint(self, checkpoint: SignedSize) -> None:
        self._write("insert into checkpoints values (?, ?, ?)", [checkpoint])

    def last_checkpoint(self) -> SignedSize | None:
        rows = self._read("select size, note, signed_at from checkpoints order by size desc limit 1")
        return SignedSize._make(rows[0]) if rows else None

    def checkpoints(self) -> list[SignedSize]:
        return [
            SignedSize._make(row) for row in self._read("select size, note, signed_at from checkpoints order by size")
        ]

    def add_run(self, stored: StoredRun, chunks: Sequence[bytes]) -> None:
        run = stored.run
        self._write(
            "insert into runs values (?, ?, ?, ?, ?, ?)",
            [(run.start, run.stop, run.root, stored.first_rows.tobytes(), stored.chunk_roots, stored.filter.tobytes())],
        )
        self._write(
            "insert into run_chunks values (?, ?, ?, ?)",
            [(run.start, run.stop, number, rows) for number, rows in enumerate(chunks)],
        )

    def drop_runs(self, runs: Iterable[Run]) -> None:
        borders = [(run.start, run.stop) for run in runs]
        self._write("delete from runs where start_leaf = ? and stop_leaf = ?", borders)
        self._write("delete from run_chunks where start_leaf = ? and stop_leaf = ?", borders)

    def runs(self) -> list[Run]:
        rows = self._read("select start_leaf, stop_leaf, root from runs order by start_leaf")
        return [Run(int(start), int(stop), bytes(root)) for start, stop, root in rows]

    def run(self, run: Run) -> StoredRun | None:
        rows = self._read(
            "select first_rows, chunk_roots, filter from runs where start_leaf = ? and stop_leaf = ?",
            (run.start, run.stop),
        )
        if not rows:
            return None
        first_rows, chunk_roots, filtered = (bytes(value) for value in rows[0])
        return StoredRun(run, np.frombuffer(first_rows, ROW), chunk_roots, np.frombuffer(filtered, np.uint8))

    def run_chunk(self, run: Run, number: int) -> bytes:
        rows = self._read(
            "select chunk_rows from run_chunks where start_leaf = ? and stop_leaf = ? and number = ?",
            (run.start, run.stop, number),
        )
        return bytes(rows[0][0]) if rows else b""

    def run_rows(self, run: Run) -> bytes:
        """All rows of a run, concatenated."""
        rows = self._read(
            "select chunk_rows from run_chunks where start_leaf = ? and stop_leaf = ? order by number",
            (run.start, run.stop),
        )
        return b"".join(bytes(row[0]) for row in rows)

    def keys_of(self, places: Iterable[tuple[int, bytes]]) -> list[WrappedKey]:
        found: list[WrappedKey] = []
        for block, group in groupby(sorted(places), key=itemgetter(0)):
            subjects = [subject for _, subject in group]
            for start in range(0, len(subjects), _AT_ONCE):
                part = subjects[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                query = f"{_KEYS} where block = ? and subject_key in ({marks})"
                found.extend(map(_key, self._read(query, (block, *part))))
        return found

    def keys_after(self, block: int, subject_key: bytes, limit: int) -> list[WrappedKey]:
        """Wrapped keys in order, for walking over all of them."""
        query = f"{_KEYS} where (block, subject_key) > (?, ?) order by block, subject_key limit ?"
        return list(map(_key, self._read(query, (block, subject_key, limit))))

    def add_keys(self, keys: Iterable[WrappedKey]) -> None:
        self._write("insert into subject_keys values (?, ?, ?, ?, ?)", list(keys))

    def drop_keys(self, places: Iterable[tuple[int, bytes]]) -> None:
        """Forget the keys of these (block, subject)."""
        self._write("delete from subject_keys where block = ? and subject_key = ?", list(places))

    def _walk(self, query: str, start: int, stop: int) -> Iterator[Any]:
        """Rows of batches that overlap leaves [start, stop), some at a time."""
        if start >= stop:
            return
        found = self._read("select max(first_leaf) from batches where first_leaf <= ?", (start,))[0][0]
        at = start if found is None else int(found)
        while rows := self._read(query, (at, stop, _BATCHES_AT_ONCE)):
            if rows[-1][0] < at:
                raise LedgerError(f"ledger: expected batches from leaf {at}, found another. Restore it from a backup.")
            yield from rows
            at = rows[-1][0] + 1


def _key(row: Sequence[Any]) -> WrappedKey:
    return WrappedKey(int(row[0]), *(bytes(value) for value in row[1:]))
