"""Re-derives a ledger from what it stores, and writes it out for somebody who trusts neither of us."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from consent import audit, merkle
from consent.audit import Opened
from consent.entry import ENTRY_BYTES
from consent.errors import LedgerError
from consent.frontier import TILE_HASHES, Frontier
from consent.merkle import VerificationError
from consent.note import Checkpoint, Verifier, open_checkpoint
from consent.store import Store, Tile
from troth.ids import file_hash

_AT_ONCE = 64 * TILE_HASHES
_RESTORE = "Restore the ledger from a backup"
Opener = Callable[[int, int], Iterator[tuple[int, bytes, Opened | None]]]


def verify(store: Store, verifier: Verifier, opened: Opener | None) -> Checkpoint:
    """Tree, tiles and index from every stored entry, against every checkpoint; and every payload against its entry.

    Without `opened` the payloads stay closed. Raises: LedgerError with the evidence.
    """
    try:
        return _verified(store, verifier, opened)
    except VerificationError as evidence:
        raise LedgerError(str(evidence)) from evidence


def rederived_root(store: Store, size: int) -> bytes:
    """Root over the stored entries of leaves [0, size), without looking at tiles."""
    frontier = Frontier()
    for start in range(0, size, _AT_ONCE):
        frontier, _ = frontier.grown(_leaf_hashes(store.entries(start, min(start + _AT_ONCE, size))))
    return frontier.root()


def export(store: Store, verifier: Verifier, opened: Opener, folder: Path) -> Path:
    """Everything an auditor needs, in a folder (README, Export), replacing an earlier export."""
    checkpoints = store.checkpoints()
    newest = checkpoints[-1]
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    with (draft / audit.ENTRIES).open("wb") as file:
        for leaf, entry, found in opened(0, newest.size):
            file.write(audit.entry_line(leaf, entry, found))
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


def _verified(store: Store, verifier: Verifier, opened: Opener | None) -> Checkpoint:
    stored = [open_checkpoint(each.note, verifier) for each in store.checkpoints()]
    if not stored:
        raise VerificationError("ledger", "a signed checkpoint", "none", _RESTORE)
    newest = stored[-1]
    if (count := store.leaf_count()) != newest.size:
        raise VerificationError("ledger", f"{newest.size} events", f"{count}", _RESTORE)
    frontier, growth = Frontier(), audit.IndexGrowth()
    for before, claimed in zip([0, *(each.size for each in stored)], stored, strict=False):
        entries = store.entries(before, claimed.size)
        frontier, tiles = frontier.grown(_leaf_hashes(entries))
        for tile in tiles:
            _compare_tile(store, tile)
        growth.extend(entries)
        audit.compare_root(claimed, frontier.size, frontier.root(), growth.state_root())
    if store.runs() != growth.runs:
        raise VerificationError("index", "the runs its entries give", "others", _RESTORE)
    for run in growth.runs:
        if store.run_rows(run) != growth.rows[run].tobytes():
            raise VerificationError(
                f"index of leaves {run.start} to {run.stop}", "rows of its entries", "others", _RESTORE
            )
    for leaf, entry, found in opened(0, newest.size) if opened else ():
        if found is not None:
            audit.check_event(f"leaf {leaf}", entry, found)
    return newest


def _compare_tile(store: Store, tile: Tile) -> None:
    if store.tile(tile.level, tile.number) != (tile.hashes, tile.inner):
        raise VerificationError(f"tile {tile.level}/{tile.number}", "hashes of its entries", "others", _RESTORE)


def _leaf_hashes(entries: bytes) -> list[bytes]:
    return [merkle.leaf_hash(entries[at : at + ENTRY_BYTES]) for at in range(0, len(entries), ENTRY_BYTES)]
