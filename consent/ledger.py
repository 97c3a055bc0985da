"""The append-only ledger of consent events: one transaction and one signed checkpoint per batch.

Appending, proving, checking and exporting. What events mean is in `standing.py`; how bytes rest is in `store.py`.
"""

import secrets
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import polars as pl

from consent import audit, merkle
from consent.errors import ConsentError, LedgerError
from consent.events import KEY_FIELDS, Event, Recorded, decode, decode_frame, encode, encode_frame, event_key
from consent.merkle import HASH_BYTES, VerificationError
from consent.note import Checkpoint, Ed25519Signer, Signer, open_checkpoint, sign_note
from consent.store import Entry, SignedSize, SQLiteStore, Store, Tile, stored_size
from troth.clock import Clock
from troth.home import Home, write_atomically
from troth.ids import file_hash

ORIGIN = "troth/consent-ledger"
SALT_BYTES = 16  # 128 bits: as hard to guess as the tokens are
TILE_HEIGHT = 8
TILE_HASHES = 1 << TILE_HEIGHT
TILE_BYTES = TILE_HASHES * HASH_BYTES
_CACHED_TILES = 512  # 16 KiB each with the levels inside
_MARKING = threading.Lock()  # the draft of an atomic write is named by process, not by thread


class Ledger:
    """A ledger over a store. Several processes may append: each write starts from what is on disk."""

    def __init__(self, store: Store, signer: Signer, clock: Clock, mark: Path | None = None) -> None:
        """`mark`: file that remembers the last checkpoint outside the store, so that an older store is noticed."""
        self._store = store
        self._signer = signer
        self._clock = clock
        self._mark = mark
        self._cache: dict[tuple[int, int], list[bytes]] = {}  # full tiles, which never change again
        self._caching = threading.Lock()
        if store.last_checkpoint() is None:
            with store.writing():
                if store.last_checkpoint() is None:
                    self._sign(0, merkle.EMPTY_ROOT)
        self._refuse_rollback()

    @classmethod
    def open(cls, path: Path, signer: Signer, clock: Clock) -> Self:
        """The ledger in a SQLite file, made when absent; `<name>.checkpoint` beside it remembers the newest checkpoint.

        Raises: LedgerError when the file is no ledger of this signer, was rolled back or disagrees with its checkpoint.
        """
        store = SQLiteStore(path)
        try:
            return cls(store, signer, clock, path.with_suffix(".checkpoint"))
        except BaseException:
            store.close()
            raise

    def close(self) -> None:
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def size(self) -> int:
        """Number of events a signed checkpoint covers."""
        return self._last().size

    def append(self, events: Sequence[Event]) -> list[int]:
        """Leaf indexes of the events, durable and under a signed checkpoint on return. A repeat gets its first index.

        Raises: ConsentError when an event is outside the grammar; then nothing is written.
        """
        keys = [event_key(*(getattr(event, name) for name in KEY_FIELDS)) for event in events]
        return self._append([event.subject_id for event in events], keys, [encode(event) for event in events])

    def append_frame(self, frame: pl.DataFrame) -> list[int]:
        """`append` for a frame with the event's columns."""
        encoded = encode_frame(frame)
        keys = [event_key(*row) for row in frame.select(KEY_FIELDS).iter_rows()]
        return self._append(frame["subject_id"].to_list(), keys, encoded)

    def checkpoint(self) -> str:
        """The newest checkpoint, a signed note."""
        return self._stored().note

    def checkpoints(self) -> list[str]:
        """Every checkpoint, oldest first."""
        return [checkpoint.note for checkpoint in self._store.checkpoints()]

    def root(self, size: int | None = None) -> bytes:
        """Root of the first `size` leaves, from the stored tiles."""
        return merkle.tree_root(self.size if size is None else size, self._node)

    def leaf_hash(self, index: int) -> bytes:
        return self._node(0, index)

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """RFC 9162 audit path of a leaf in the tree of `size` leaves."""
        size = self._size(size)
        if not 0 <= index < size:
            raise ConsentError(f"ledger: expected a leaf below {size}, found {index}. Ask for a leaf it holds.")
        return merkle.inclusion_proof(index, size, self._node)

    def consistency_proof(self, old_size: int, new_size: int | None = None) -> list[bytes]:
        """RFC 9162 proof that the tree of `new_size` begins with that of `old_size`."""
        return merkle.consistency_proof(self._size(old_size), self._size(new_size), self._node)

    def events(self, start: int = 0, stop: int | None = None) -> Iterator[Recorded]:
        """Events by leaf index."""
        for entry in self._store.entries(start, self._size(stop)):
            yield Recorded(entry.leaf_index, decode(entry.event))

    def events_of(self, subject_id: str) -> list[Recorded]:
        """Every event of one subject, by leaf index."""
        return [Recorded(entry.leaf_index, decode(entry.event)) for entry in self._store.entries_of(subject_id)]

    def frame(self, size: int | None = None) -> pl.DataFrame:
        """The first `size` events as rows, in the shape of the raw table `consent_ledger`."""
        size = self._size(size)
        return decode_frame([entry.event for entry in self._store.entries(0, size)], 0, size)

    def verify(self) -> Checkpoint:
        """Re-derive the tree from every stored event and compare it with every stored tile, root and signature.

        Raises: LedgerError with the evidence.
        """
        tree = merkle.CompactRange()
        stored = self._store.checkpoints()
        try:
            for checkpoint in stored:
                claimed = open_checkpoint(checkpoint.note, self._signer.verifier)
                leaves = [
                    self._leaf(entry, index)
                    for index, entry in enumerate(self._store.entries(tree.size, claimed.size), tree.size)
                ]
                self._compare_leaves(tree.size, leaves)
                tree.extend(leaves)
                audit.compare_root(claimed, tree)
            newest = open_checkpoint(stored[-1].note, self._signer.verifier)
            if (count := self._store.entry_count()) != newest.size:
                raise VerificationError("ledger", f"{newest.size} events", f"{count}", "Restore it from a backup")
            if (root := self.root(newest.size)) != newest.root:
                raise VerificationError(
                    "stored tiles", f"root {newest.root.hex()}", root.hex(), "Restore the ledger from a backup"
                )
        except VerificationError as evidence:
            raise LedgerError(str(evidence)) from evidence
        return newest

    def check_extends(self, note: str) -> None:
        """That this ledger begins with the tree of a checkpoint somebody kept.

        Raises: LedgerError when it was rolled back behind it, or forked from it.
        """
        try:
            kept, now = open_checkpoint(note, self._signer.verifier), self._last()
            if kept.size > now.size:
                raise VerificationError(
                    "ledger",
                    f"at least {kept.size} events",
                    f"{now.size}",
                    "It was rolled back: restore a newer backup",
                )
            if (root := merkle.tree_root(kept.size, self._node)) != kept.root:
                fork = "It was forked: keep both checkpoints as evidence and restore a backup"
                raise VerificationError(f"ledger at size {kept.size}", f"root {kept.root.hex()}", root.hex(), fork)
        except VerificationError as evidence:
            raise LedgerError(str(evidence)) from evidence

    def export(self, folder: Path) -> Path:
        """Write everything an auditor needs into a folder (README, Export), replacing an earlier export."""
        checkpoints = self._store.checkpoints()
        newest = checkpoints[-1]
        draft = folder.with_name(f".{folder.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        with (draft / audit.ENTRIES).open("wb") as file:
            for entry in self._store.entries(0, newest.size):
                file.write(audit.entry_line(entry.event, entry.leaf_index, entry.salt))
        (draft / audit.CHECKPOINTS).write_bytes(
            b"".join(merkle.canonical(checkpoint.note) + b"\n" for checkpoint in checkpoints)
        )
        (draft / audit.CHECKPOINT).write_text(newest.note, encoding="utf-8", newline="")
        (draft / audit.KEY).write_text(self._signer.verifier.text + "\n", encoding="utf-8", newline="")
        hashes = {path.name: file_hash(path) for path in draft.iterdir()}
        manifest = audit.manifest(open_checkpoint(newest.note, self._signer.verifier), len(checkpoints), hashes)
        (draft / audit.MANIFEST).write_bytes(manifest)
        shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)
        return folder

    def _append(self, subjects: Sequence[str], keys: Sequence[bytes], encoded: Sequence[bytes]) -> list[int]:
        try:
            with self._store.writing():
                size = self._trusted_size()
                indexes = self._store.indexes_of(keys)
                entries: list[Entry] = []
                for subject_id, key, event in zip(subjects, keys, encoded, strict=True):
                    if key not in indexes:
                        indexes[key] = size + len(entries)
                        entries.append(Entry(indexes[key], subject_id, key, secrets.token_bytes(SALT_BYTES), event))
                if entries:
                    self._store.add_entries(entries)
                    leaves = [merkle.leaf_hash(merkle.commitment(entry.salt, entry.event)) for entry in entries]
                    self._grow(size, leaves)
        except BaseException:
            self._cache.clear()  # it may hold tiles of the write that did not happen
            raise
        if entries:
            self._remember(self.checkpoint())
        return [indexes[key] for key in keys]

    def _trusted_size(self) -> int:
        """Size to append at. Never signs over a tree that does not match the last checkpoint. Raises: LedgerError."""
        now = self._last()
        count = self._store.entry_count()
        root = merkle.tree_root(now.size, self._node)
        if count != now.size or root != now.root:
            raise LedgerError(
                f"ledger: expected {now.size} events under root {now.root.hex()}, found {count} under {root.hex()}. "
                "It was changed by hand: restore it from a backup."
            )
        return now.size

    def _grow(self, size: int, leaves: list[bytes]) -> None:
        """Extend the tiles from `size` and sign the new root, once it is proved to contain the old one."""
        old = self._last()
        hashes, first, level = b"".join(leaves), size, 0
        while hashes:
            number, offset = divmod(first, TILE_HASHES)
            run = self._store.tile(level, number)[: offset * HASH_BYTES] + hashes
            tiles = [
                Tile(level, number + i, run[at : at + TILE_BYTES])
                for i, at in enumerate(range(0, len(run), TILE_BYTES))
            ]
            self._store.put_tiles(tiles)
            hashes = b"".join(_levels(tile.hashes)[-1] for tile in tiles if len(tile.hashes) == TILE_BYTES)
            first >>= TILE_HEIGHT
            level += 1
        new_size = size + len(leaves)
        root = merkle.tree_root(new_size, self._node)
        if size:
            proof = merkle.consistency_proof(size, new_size, self._node)
            merkle.verify_consistency(size, new_size, old.root, root, proof)
        self._sign(new_size, root)

    def _sign(self, size: int, root: bytes) -> None:
        note = sign_note(Checkpoint(self._signer.verifier.name, size, root).text, self._signer)
        self._store.add_checkpoint(SignedSize(size, note, self._clock.now().isoformat()))

    def _refuse_rollback(self) -> None:
        self._trusted_size()
        if self._mark is not None and self._mark.exists():
            self.check_extends(self._mark.read_text(encoding="utf-8"))

    def _remember(self, note: str) -> None:
        if self._mark is not None:
            with _MARKING:
                write_atomically(self._mark, note.encode())

    def _stored(self) -> SignedSize:
        stored = self._store.last_checkpoint()
        if stored is None:
            raise LedgerError("ledger: expected a signed checkpoint, found none. Restore it from a backup.")
        return stored

    def _last(self) -> Checkpoint:
        try:
            return open_checkpoint(self._stored().note, self._signer.verifier)
        except VerificationError as evidence:
            raise LedgerError(str(evidence)) from evidence

    def _size(self, size: int | None) -> int:
        now = self.size
        if size is not None and not 0 <= size <= now:
            raise ConsentError(f"ledger: expected a size up to {now}, found {size}. Ask for a size it has had.")
        return now if size is None else size

    def _node(self, level: int, index: int) -> bytes:
        """Hash of a perfect subtree, from the tile that holds it or its children."""
        tile_level, inside = divmod(level, TILE_HEIGHT)
        number, offset = divmod(index << inside, TILE_HASHES)
        levels = self._cache.get((tile_level, number))
        if levels is None:
            hashes = self._store.tile(tile_level, number)
            needed, held = offset + (1 << inside), len(hashes) // HASH_BYTES
            if held < needed:
                tile = f"ledger tile {tile_level}/{number}"
                raise LedgerError(f"{tile}: expected {needed} hashes, found {held}. Restore the ledger from a backup.")
            if len(hashes) < TILE_BYTES:
                return _levels(hashes[offset * HASH_BYTES : needed * HASH_BYTES])[-1]
            levels = _levels(hashes)
            with self._caching:
                if len(self._cache) >= _CACHED_TILES:
                    self._cache.pop(next(iter(self._cache)))
                self._cache[(tile_level, number)] = levels
        at = (offset >> inside) * HASH_BYTES
        return levels[inside][at : at + HASH_BYTES]

    def _leaf(self, entry: Entry, index: int) -> bytes:
        if entry.leaf_index != index:
            raise VerificationError("ledger", f"leaf {index}", f"leaf {entry.leaf_index}", "Restore it from a backup")
        return merkle.leaf_hash(merkle.commitment(entry.salt, entry.event))

    def _compare_leaves(self, first: int, leaves: list[bytes]) -> None:
        for index, leaf in enumerate(leaves, first):
            if (stored := self._node(0, index)) != leaf:
                raise VerificationError(
                    f"leaf {index}",
                    f"hash {stored.hex()}",
                    leaf.hex(),
                    "The event was changed: restore the ledger from a backup",
                )


def open_ledger(home: Home, clock: Clock) -> Ledger:
    """The home's ledger, signed with the home's key."""
    return Ledger.open(home.ledger, Ed25519Signer(ORIGIN, home.key("ledger")), clock)


def ledger_size(path: Path) -> int:
    """How many events the ledger of a file covers, for readers that must notice when it has grown.

    Raises: LedgerError when there is no ledger to read.
    """
    return stored_size(path)


def _levels(hashes: bytes) -> list[bytes]:
    """The hashes of a power-of-two run and of every level above it, up to its root."""
    levels = [hashes]
    while len(levels[-1]) > HASH_BYTES:
        levels.append(merkle.level_above(levels[-1]))
    return levels
