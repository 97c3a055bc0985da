"""The append-only ledger of consent events: durable, sealed under a key per subject, and covered by a signed checkpoint.

Appending, reading, proving. What events mean is in `standing.py`, how bytes rest in `store.py`, re-deriving all of it in
`verification.py`.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import polars as pl

from consent.errors import ConsentError, LedgerError
from consent.events import KEY_FIELDS, Event, Recorded, decode, decode_frame, encode
from consent.ledger import payloads, verification
from consent.ledger.databases import SQLiteDatabase
from consent.ledger.heads import Head, Heads
from consent.ledger.keyring import KeyRing
from consent.ledger.preparing import BATCH, Prepared, prepared_of
from consent.ledger.proving import Prover, Tiles
from consent.ledger.store import SignedSize, Store
from consent.ledger.writer import Mark, Writer
from consent.log import index, merkle
from consent.log.audit import Opened, Silence, is_erasure
from consent.log.entry import ENTRY_BYTES, entry_keys, prefix_of
from consent.log.merkle import VerificationError
from consent.log.note import Checkpoint, Signer, Verifier, open_checkpoint
from consent.log.tiles import export_tiles
from troth.clock import Clock


class Ledger:
    """A ledger over a store. Threads and processes may append at once: whoever commits takes along all who wait."""

    def __init__(self, store: Store, signer: Signer, ring: KeyRing, clock: Clock, mark: Path | None = None) -> None:
        """`mark`: file that remembers a recent checkpoint outside the store, so that an older store is noticed."""
        self._store = store
        self._signer = signer
        self._ring = ring
        self._tiles = Tiles(store.tile)
        self._heads = Heads(store, signer.verifier)
        self._mark = Mark(mark)
        self._writer = Writer(store, self._heads, signer, ring, clock, self._mark)
        self._proving: tuple[Head, Prover] | None = None
        self._refuse_rollback()
        self._writer.begin_at(self.size)

    @classmethod
    def open(cls, path: Path, signer: Signer, ring: KeyRing, clock: Clock) -> Self:
        """The ledger in a SQLite file, made when absent; `<name>.checkpoint` beside it remembers a recent checkpoint.

        Raises: LedgerError when the file is no ledger of this signer, was rolled back or disagrees with its checkpoint.
        """
        store = Store(SQLiteDatabase(path))
        try:
            return cls(store, signer, ring, clock, path.with_suffix(".checkpoint"))
        except BaseException:
            store.close()
            raise

    def close(self) -> None:
        """Raises: LedgerError when the mark cannot be written; nothing appended is lost by that."""
        try:
            self._mark.close()
        finally:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def verifier(self) -> Verifier:
        """The key this ledger's checkpoints verify under."""
        return self._signer.verifier

    @property
    def size(self) -> int:
        """Number of events a signed checkpoint covers."""
        return self._heads.signed().size

    def append(self, events: Sequence[Event]) -> list[int]:
        """Leaf indexes of the events, durable and under a signed checkpoint on return. A repeat gets its first index.

        Up to 1,000 events become durable together. Raises: ConsentError when an event is outside the grammar; then
        nothing is written.
        """
        encoded = [encode(event) for event in events]
        leaves: list[int] = []
        for at in range(0, len(events), BATCH):
            keys = _keys_of(events[at : at + BATCH])
            leaves += self._writer.append(Prepared.of(keys, encoded[at : at + BATCH]))
        return leaves

    def append_frame(self, frame: pl.DataFrame) -> list[int]:
        """`append` for a frame with the event's columns, 1,000 rows to a checkpoint."""
        leaves: list[int] = []
        with closing(prepared_of(frame)) as parts:
            for prepared in parts:
                leaves += self._writer.append(prepared)
        return leaves

    def erase(self, erased: Event) -> int:
        """Destroy the key of a subject and say so under a new one, in one write. Gives the leaf of the `erased` event.

        What the ledger held of the subject cannot be read from then on; every proof of it still verifies. A repeat gets its
        first leaf and touches nothing said since. Raises: ConsentError for any other event; LedgerError where something
        could still be read, in the ledger or in what its database leaves lying about: erase again.
        """
        if erased.event_type != "erased":
            raise ConsentError(
                f"erasure: expected an event erased, found {erased.event_type}. Append that one instead."
            )
        leaf = self._writer.erase(Prepared.of(_keys_of([erased]), [encode(erased)]), prefix_of(erased.subject_id))
        if any(self.opened(earlier) for earlier in self.leaves_of(erased.subject_id) if earlier < leaf):
            raise LedgerError(
                "erasure: expected an event of its own, found one that was appended before and destroyed nothing. "
                "Erase under another signal_id."
            )
        self._store.shred()
        return leaf

    def checkpoint(self) -> str:
        """The newest checkpoint, a signed note."""
        return self._heads.stored().note

    def signed_at(self) -> datetime:
        """When the newest checkpoint was signed."""
        return datetime.fromisoformat(self._heads.stored().signed_at)

    def checkpoints(self) -> list[str]:
        """Every checkpoint, oldest first."""
        return [checkpoint.note for checkpoint in self._store.checkpoints()]

    def signed_sizes(self) -> list[SignedSize]:
        """Every checkpoint with the size it covers and when it was signed, oldest first."""
        return list(self._store.checkpoints())

    def root(self, size: int | None = None) -> bytes:
        """Root of the first `size` leaves, from the stored tiles."""
        head = self._heads.newest()
        return merkle.tree_root(self._size(size, head), self._prover(head).node)

    def entry(self, leaf: int) -> bytes:
        """The log's 64 public bytes of an event."""
        self._refuse_absent(leaf, self.size)
        return self._store.entries(leaf, leaf + 1)

    def leaf_hash(self, leaf: int) -> bytes:
        return merkle.leaf_hash(self.entry(leaf))

    def opened(self, leaf: int) -> Opened | None:
        """An event and its salt; None when its subject's key was destroyed."""
        self._refuse_absent(leaf, self.size)
        return next(found for _, _, found in self._opened(leaf, leaf + 1))

    def inclusion_proof(self, leaf: int, size: int | None = None) -> list[bytes]:
        """RFC 9162 audit path of a leaf in the tree of `size` leaves."""
        return self.inclusion_proofs([leaf], size)[0]

    def inclusion_proofs(self, leaves: Sequence[int], size: int | None = None) -> list[list[bytes]]:
        """`inclusion_proof` of many, in the order asked; those that share tiles cost less together."""
        head = self._heads.newest()
        size = self._size(size, head)
        for leaf in leaves:
            self._refuse_absent(leaf, size)
        return self._prover(head).inclusion_proofs(leaves, size)

    def consistency_proof(self, old_size: int, new_size: int | None = None) -> list[bytes]:
        """RFC 9162 proof that the tree of `new_size` begins with that of `old_size`."""
        head = self._heads.newest()
        return merkle.consistency_proof(self._size(old_size, head), self._size(new_size, head), self._prover(head).node)

    def state_proof(
        self, subject_id: str, purpose_code: str | None = None, channel_code: str | None = None
    ) -> dict[str, Any]:
        """Proof of which leaves speak of a subject, or of just a purpose and channel, all of them, at the newest checkpoint."""
        prefix = prefix_of(subject_id, purpose_code, channel_code)
        with self._store.reading():
            head = self._heads.newest()
            shown = [index.prove_run(self._heads.stored_run(run), self._heads.chunks(run), prefix) for run in head.runs]
        if len(head.young):
            start = head.runs[-1].stop if head.runs else 0
            young, chunks = index.make_run(start, head.size, head.young)
            shown.append(index.prove_run(young, chunks.__getitem__, prefix))
        return index.state_proof(prefix, shown)

    def events(self, start: int = 0, stop: int | None = None) -> Iterator[Recorded]:
        """Events by leaf index, without those of who was erased. Raises: LedgerError at the end where that explains not all."""
        silence = Silence()
        for leaf, entry, opened in self._opened(start, self._size(stop, self._heads.newest())):
            silence.hear(leaf, entry, opened)
            if opened is not None:
                yield Recorded(leaf, decode(opened.event))
        self._refuse_unexplained(silence)

    def events_of(self, subject_id: str) -> list[Recorded]:
        """Every event of one subject, by leaf index, without those before its erasure."""
        found, silence = [], Silence()
        for leaf in self.leaves_of(subject_id):
            for _, entry, opened in self._opened(leaf, leaf + 1):
                silence.hear(leaf, entry, opened)
                if opened is not None:
                    found.append(Recorded(leaf, decode(opened.event)))
        self._refuse_unexplained(silence)
        return found

    def leaves_of(self, subject_id: str) -> list[int]:
        """The leaves that speak of a subject, in order, erased ones included."""
        with self._store.reading():
            return self._heads.leaves_with(prefix_of(subject_id), self._heads.newest())

    def frame(self, size: int | None = None, start: int = 0) -> pl.DataFrame:
        """Events of leaves [start, size) as rows, in the shape of the raw table `consent_ledger`; destroyed ones are left out.

        Raises: LedgerError when the entries they are bound to do not make the tree that was signed.
        """
        with self._store.reading():
            head = self._heads.newest()
            size = self._size(size, head)
            frontier, root = self._heads.frontier(start), merkle.tree_root(size, self._prover(head).node)
        leaves, events, hashes, silence = [], [], [], Silence()
        for leaf, entry, opened in self._opened(start, size):
            silence.hear(leaf, entry, opened)
            hashes.append(merkle.leaf_hash(entry))
            if opened is not None:
                leaves.append(leaf)
                events.append(opened.event)
        found = frontier.grown(hashes)[0]
        if (found.size, found.root()) != (size, root):
            raise LedgerError(
                f"ledger at size {size}: expected root {root.hex()}, found {found.root().hex()} at size {found.size}. "
                "It was changed by hand: restore it from a backup."
            )
        self._refuse_unexplained(silence)
        return decode_frame(events, leaves, size)

    @contextmanager
    def still(self) -> Iterator[None]:
        """While inside, nothing is appended, by any process. Keep it short: everybody waits."""
        with self._writer.still():
            yield

    def verify(self) -> Checkpoint:
        """Re-derive the tree and the index from every stored entry and compare them with all that is stored and signed.

        Raises: LedgerError with the evidence.
        """
        silence = Silence()
        newest = verification.verify(self._store, self._signer.verifier, self._opened, silence)
        self._refuse_unexplained(silence)
        return newest

    def rederived_root(self, size: int | None = None) -> bytes:
        """Root of the first `size` leaves from their entries alone; `root` takes it from the tiles."""
        return verification.rederived_root(self._store, self._size(size, self._heads.newest()))

    def check_extends(self, note: str) -> None:
        """That this ledger begins with the tree of a checkpoint somebody kept.

        Raises: LedgerError when it was rolled back behind it, or forked from it.
        """
        try:
            kept, head = open_checkpoint(note, self._signer.verifier), self._heads.newest()
            if kept.size > head.size:
                rolled_back = "It was rolled back: restore a newer backup"
                raise VerificationError("ledger", f"at least {kept.size} events", f"{head.size}", rolled_back)
            if (root := merkle.tree_root(kept.size, self._prover(head).node)) != kept.root:
                fork = "It was forked: keep both checkpoints as evidence and restore a backup"
                raise VerificationError(f"ledger at size {kept.size}", f"root {kept.root.hex()}", root.hex(), fork)
        except VerificationError as evidence:
            raise LedgerError(str(evidence)) from evidence

    def export(self, folder: Path) -> Path:
        """Write everything an auditor needs into a folder (README, Export), replacing an earlier export."""
        return verification.export(self._store, self._signer.verifier, self._opened, folder)

    def export_tiles(self, folder: Path, note: str | None = None) -> Checkpoint:
        """Write the log as C2SP tiles into a folder, or what is new since the last time. No event is in them.

        `note`: its checkpoint with cosignatures; the newest as it is where not given. Raises: VerificationError.
        """
        with self._store.reading():
            head = self._heads.newest()
            return export_tiles(folder, note or head.note, self.verifier, self._prover(head).node, self._entry_list)

    def _entry_list(self, start: int, stop: int) -> list[bytes]:
        joined = self._store.entries(start, stop)
        return [joined[at : at + ENTRY_BYTES] for at in range(0, len(joined), ENTRY_BYTES)]

    def rewrap_keys(self) -> int:
        """Put every subject's key under the current key-encryption key. How many were under another. May be repeated."""
        count, after = 0, (-1, b"")
        while True:
            with self._store.writing():
                keys = self._store.keys_after(*after, BATCH)
                stale = [key for key in keys if not self._ring.is_current(key)]
                self._store.drop_keys((key.block, key.subject_key) for key in stale)
                self._store.add_keys(self._ring.rewrapped(key) for key in stale)
            count += len(stale)
            if not keys:
                self._store.shred()
                return count
            after = (keys[-1].block, keys[-1].subject_key)

    def _size(self, size: int | None, head: Head) -> int:
        if size is not None and not 0 <= size <= head.size:
            raise ConsentError(f"ledger: expected a size up to {head.size}, found {size}. Ask for a size it has had.")
        return head.size if size is None else size

    def _refuse_absent(self, leaf: int, size: int) -> None:
        if not 0 <= leaf < size:
            raise ConsentError(f"ledger: expected a leaf below {size}, found {leaf}. Ask for a leaf it holds.")

    def _prover(self, head: Head) -> Prover:
        known = self._proving
        if known is None or known[0] is not head:
            known = self._proving = (head, Prover(self._tiles, head.frontier))
        return known[1]

    def _refuse_unexplained(self, silence: Silence) -> None:
        """Raises: LedgerError for a leaf that cannot be opened although its subject was never erased since."""
        for subject, leaf in silence.unexplained.items():
            with self._store.reading():
                later = [each for each in self._heads.leaves_with(subject, self._heads.newest()) if each > leaf]
            following = next((opened for each in later if (opened := self.opened(each))), None)
            if following is None or not is_erasure(following):
                raise LedgerError(
                    f"leaf {leaf}: expected an event, or the erasure of its subject after it, found neither. "
                    "Its key or its payload was destroyed by hand: restore the ledger from a backup."
                )

    def _opened(self, start: int, stop: int) -> Iterator[tuple[int, bytes, Opened | None]]:
        """Leaves [start, stop) in order, each with its entry and what its payload holds."""
        for batch in self._store.batches(start, stop):
            yield from payloads.opened(batch, start, stop, lambda places: self._ring.for_opening(places, self._store))

    def _refuse_rollback(self) -> None:
        with self._store.reading():
            self._heads.refuse_other_count(self._heads.newest())
        if (note := self._mark.read()) is not None:
            self.check_extends(note)


def _keys_of(events: Sequence[Event]) -> list[bytes]:
    return entry_keys(tuple(getattr(event, name) for name in KEY_FIELDS) for event in events)
