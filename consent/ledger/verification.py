"""Re-derives a ledger from what it stores, and writes it out for somebody who trusts neither of us."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl

from consent.errors import ConsentError, LedgerError
from consent.events import KEY_FIELDS, decode_frame, encode_frame
from consent.ledger.frontier import TILE_HASHES, Frontier
from consent.ledger.store import SignedSize, Store, Tile
from consent.log import audit, merkle
from consent.log.audit import Opened, Silence
from consent.log.entry import ENTRY_BYTES, entry_keys
from consent.log.index import Rows, Run, make_run
from consent.log.merkle import VerificationError
from consent.log.note import Checkpoint, Verifier, open_checkpoint
from troth.ids import file_hash

_AT_ONCE = 64 * TILE_HASHES
_RESTORE = "Restore the ledger from a backup"
Opener = Callable[[int, int], Iterator[tuple[int, bytes, Opened | None]]]


def verify(store: Store, verifier: Verifier, opened: Opener | None, silence: Silence) -> Checkpoint:
    """Tree, tiles and index from every stored entry, against every checkpoint; and every payload against its entry.

    Without `opened` the payloads stay closed. Others may write meanwhile. Raises: LedgerError with the evidence.
    """
    try:
        return _verified(store, verifier, opened, silence)
    except VerificationError as evidence:
        raise LedgerError(str(evidence)) from evidence


def rederived_root(store: Store, size: int) -> bytes:
    """Root over the stored entries of leaves [0, size), without looking at tiles."""
    frontier = Frontier()
    for start in range(0, size, _AT_ONCE):
        frontier, _ = frontier.grown(_leaf_hashes(store.entries(start, min(start + _AT_ONCE, size))))
    return frontier.root()


def export(store: Store, verifier: Verifier, opened: Opener, folder: Path) -> Path:
    """Everything an auditor needs, in a folder (README, Export), replacing an earlier export.

    Somebody erased meanwhile is exported with the erasure, so up to a newer checkpoint. Raises: LedgerError.
    """
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    with (draft / audit.ENTRIES).open("wb") as file:
        checkpoints = _write_entries(store, opened, file)
    newest = checkpoints[-1]
    (draft / audit.CHECKPOINTS).write_bytes(b"".join(merkle.canonical(each.note) + b"\n" for each in checkpoints))
    (draft / audit.CHECKPOINT).write_text(newest.note, encoding="utf-8", newline="")
    (draft / audit.KEY).write_text(verifier.text + "\n", encoding="utf-8", newline="")
    hashes = {path.name: file_hash(path) for path in draft.iterdir()}
    (draft / audit.MANIFEST).write_bytes(
        audit.manifest(open_checkpoint(newest.note, verifier), len(checkpoints), hashes)
    )
    shutil.rmtree(folder, ignore_errors=True)
    draft.replace(folder)
    return folder


def _write_entries(store: Store, opened: Opener, file: BinaryIO) -> list[SignedSize]:
    """Every leaf up to a checkpoint by which each that cannot be opened is explained; the checkpoints up to there."""
    silence, written = Silence(), 0
    while True:
        checkpoints = store.checkpoints()
        size = checkpoints[-1].size
        for leaf, entry, found in opened(written, size):
            silence.hear(leaf, entry, found)
            file.write(audit.entry_line(leaf, entry, found))
        if not silence.unexplained:
            return checkpoints
        if size == written:
            leaf = min(silence.unexplained.values())
            raise LedgerError(
                f"leaf {leaf}: expected an event, or the erasure of its subject after it, found neither. {_RESTORE}."
            )
        written = size


class _Walk:
    """Tree and index of a ledger's entries, from one checkpoint to the next, compared with what is signed and stored."""

    def __init__(self, store: Store, verifier: Verifier) -> None:
        self._store = store
        self._verifier = verifier
        self._frontier = Frontier()
        self._growth = audit.IndexGrowth()
        self._seen = 0
        self.newest: Checkpoint | None = None

    def go_on(self) -> None:
        """To the newest checkpoint there is."""
        for stored in self._store.checkpoints()[self._seen :]:
            claimed = open_checkpoint(stored.note, self._verifier)
            entries = self._store.entries(self._frontier.size, claimed.size)
            self._frontier, tiles = self._frontier.grown(_leaf_hashes(entries))
            for tile in tiles:
                _compare_tile(self._store, tile)
            self._growth.extend(entries)
            audit.compare_root(claimed, self._frontier.size, self._frontier.root(), self._growth.state_root())
            self._seen, self.newest = self._seen + 1, claimed

    def compare_index(self) -> None:
        if self._store.runs() != self._growth.runs:
            raise VerificationError("index", "the runs its entries give", "others", _RESTORE)
        for run in self._growth.runs:
            _compare_run(self._store, run, self._growth.rows[run])


def _verified(store: Store, verifier: Verifier, opened: Opener | None, silence: Silence) -> Checkpoint:
    walk = _Walk(store, verifier)
    walk.go_on()
    with store.reading():  # writers may have gone on; what they replace stays readable until the index is compared
        walk.go_on()
        newest, count = walk.newest, store.leaf_count()
        if newest is None:
            raise VerificationError("ledger", "a signed checkpoint", "none", _RESTORE)
        if count != newest.size:
            raise VerificationError("ledger", f"{newest.size} events", f"{count}", _RESTORE)
        walk.compare_index()
    told, count = opened(0, newest.size) if opened else iter(()), 0
    while part := list(islice(told, _AT_ONCE)):
        _check_events([(leaf, entry, found) for leaf, entry, found in part if found is not None])
        for leaf, entry, found in part:
            if leaf != count:
                raise VerificationError("ledger", f"leaf {count}", f"leaf {leaf}", _RESTORE)
            silence.hear(leaf, entry, found)
            count += 1
    return newest


def _check_events(told: Sequence[tuple[int, bytes, Opened]]) -> None:
    """`audit.check_event` of each. All at once, and one by one for the evidence where that is not as it must be."""
    try:
        rows = decode_frame([found.event for _, _, found in told], [leaf for leaf, _, _ in told], 0)
        same = zip(encode_frame(rows), entry_keys(rows.select(KEY_FIELDS).iter_rows()), told, strict=True)
        is_good = all(
            event == found.event and entry == key + merkle.commitment(found.salt, event)
            for event, key, (_, entry, found) in same
        )
    except (ConsentError, pl.exceptions.PolarsError, ValueError):
        is_good = False
    if not is_good:
        for leaf, entry, found in told:
            audit.check_event(f"leaf {leaf}", entry, found)


def _compare_run(store: Store, run: Run, rows: Rows) -> None:
    expected, chunks = make_run(run.start, run.stop, rows)
    found = store.run(run)
    if (
        found is None
        or store.run_rows(run) != b"".join(chunks)
        or found.chunk_roots != expected.chunk_roots
        or not np.array_equal(found.first_rows, expected.first_rows)
        or not np.array_equal(found.filter, expected.filter)
    ):
        raise VerificationError(f"index of leaves {run.start} to {run.stop}", "rows of its entries", "others", _RESTORE)


def _compare_tile(store: Store, tile: Tile) -> None:
    if store.tile(tile.level, tile.number) != (tile.hashes, tile.inner):
        raise VerificationError(f"tile {tile.level}/{tile.number}", "hashes of its entries", "others", _RESTORE)


def _leaf_hashes(entries: bytes) -> list[bytes]:
    return [merkle.leaf_hash(entries[at : at + ENTRY_BYTES]) for at in range(0, len(entries), ENTRY_BYTES)]
