"""The append-only ledger of consent events: durable, sealed under a key per subject, and covered by a signed checkpoint.

Appending, reading, proving. What events mean is in `standing.py`, how bytes rest in `store.py`, re-deriving all of it in
`verification.py`.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import accumulate, compress
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from consent.errors import ConsentError, LedgerError
from consent.events import KEY_FIELDS, Event, Recorded, decode, decode_frame, encode
from consent.ledger import verification
from consent.ledger.databases import SQLiteDatabase
from consent.ledger.frontier import TILE_HASHES, TILE_HEIGHT, Edge, Frontier
from consent.ledger.keyring import NONCE_BYTES, KeyRing, block_of, seal, unseal
from consent.ledger.proving import Prover, Tiles
from consent.ledger.requests import BATCH, Request, requests_of
from consent.ledger.store import Batch, SignedSize, Store
from consent.log import index, merkle
from consent.log.audit import Opened, Silence, is_erasure
from consent.log.entry import ENTRY_BYTES, SALT_BYTES, entry_keys, prefix_of
from consent.log.index import KEY_BYTES, SUBJECT_BYTES, Rows, Run, StoredRun
from consent.log.merkle import VerificationError
from consent.log.note import Checkpoint, Signer, Verifier, open_checkpoint, sign_note, to_base64
from consent.log.tiles import export_tiles
from troth.clock import Clock
from troth.home import write_atomically

_MARK_SECONDS = 1.0  # how much the mark beside the ledger may lag: each costs two syncs
_INTERRUPTED = "append: expected to be committed with others, found their thread interrupted. Append again."


_Told = tuple[bytes, bytes, bytes]  # salt and event, entry, leaf hash


@dataclass(frozen=True)
class Head:
    """What a process knows of the newest state: enough to append to it and to prove it."""

    checkpoint: Checkpoint
    note: str
    frontier: Frontier
    runs: tuple[Run, ...] = ()  # in the store
    young: Rows = field(default_factory=lambda: np.empty(0, index.ROW))  # sorted rows of the leaves after them

    @property
    def size(self) -> int:
        return self.frontier.size

    @property
    def state_root(self) -> bytes:
        return index.state_root(index.all_runs(self.runs, self.young))


class Ledger:
    """A ledger over a store. Threads and processes may append at once: whoever commits takes along all who wait."""

    def __init__(self, store: Store, signer: Signer, ring: KeyRing, clock: Clock, mark: Path | None = None) -> None:
        """`mark`: file that remembers a recent checkpoint outside the store, so that an older store is noticed."""
        self._store = store
        self._signer = signer
        self._ring = ring
        self._clock = clock
        self._mark = mark
        self._marked_at = 0.0
        self._unmarked: str | None = None  # a newer note than the mark's
        self._waiting: list[Request] = []
        self._queueing = threading.Lock()
        self._committing = threading.Lock()
        self._tiles = Tiles(store.tile)
        self._stored_runs: dict[Run, StoredRun] = {}
        self._known: Head | None = None
        self._proving: tuple[Head, Prover] | None = None
        self._heard = 0  # leaves whose erasures the ring knows of
        if store.last_checkpoint() is None:
            with store.writing():
                if store.last_checkpoint() is None:
                    self._sign(0, merkle.EMPTY_ROOT, index.state_root([]))
        self._refuse_rollback()
        self._heard = self.size

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
            if self._unmarked is not None:
                self._write_mark(self._unmarked)
        except OSError as fault:
            raise LedgerError(
                f"ledger mark: expected to remember the newest checkpoint, found {fault.strerror}. Nothing is lost, but until "
                "a next append an older backup in its place would go unnoticed."
            ) from fault
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
        return self._last().size

    def append(self, events: Sequence[Event]) -> list[int]:
        """Leaf indexes of the events, durable and under a signed checkpoint on return. A repeat gets its first index.

        Up to 1,000 events become durable together. Raises: ConsentError when an event is outside the grammar; then
        nothing is written.
        """
        said = [tuple(getattr(event, name) for name in KEY_FIELDS) for event in events]
        return self._append(entry_keys(said), [encode(event) for event in events])

    def append_frame(self, frame: pl.DataFrame) -> list[int]:
        """`append` for a frame with the event's columns, 1,000 rows to a checkpoint."""
        leaves: list[int] = []
        with closing(requests_of(frame)) as requests:
            for request in requests:
                leaves += self._submit(request)
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
        subject = prefix_of(erased.subject_id)
        keys = entry_keys([tuple(getattr(erased, name) for name in KEY_FIELDS)])
        request = Request.of(keys, [encode(erased)])
        with self._committing:
            self._commit([request], destroyed=[subject])
        leaf = request.result()[0]
        if any(self.opened(earlier) for earlier in self.leaves_of(erased.subject_id) if earlier < leaf):
            raise LedgerError(
                "erasure: expected an event of its own, found one that was appended before and destroyed nothing. "
                "Erase under another signal_id."
            )
        self._store.shred()
        return leaf

    def checkpoint(self) -> str:
        """The newest checkpoint, a signed note."""
        return self._stored().note

    def checkpoints(self) -> list[str]:
        """Every checkpoint, oldest first."""
        return [checkpoint.note for checkpoint in self._store.checkpoints()]

    def signed_sizes(self) -> list[SignedSize]:
        """Every checkpoint with the size it covers and when it was signed, oldest first."""
        return list(self._store.checkpoints())

    def root(self, size: int | None = None) -> bytes:
        """Root of the first `size` leaves, from the stored tiles."""
        head = self._head()
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
        head = self._head()
        size = self._size(size, head)
        for leaf in leaves:
            self._refuse_absent(leaf, size)
        return self._prover(head).inclusion_proofs(leaves, size)

    def consistency_proof(self, old_size: int, new_size: int | None = None) -> list[bytes]:
        """RFC 9162 proof that the tree of `new_size` begins with that of `old_size`."""
        head = self._head()
        return merkle.consistency_proof(self._size(old_size, head), self._size(new_size, head), self._prover(head).node)

    def state_proof(
        self, subject_id: str, purpose_code: str | None = None, channel_code: str | None = None
    ) -> dict[str, Any]:
        """Proof of which leaves speak of a subject, or of just a purpose and channel, all of them, at the newest checkpoint."""
        prefix = prefix_of(subject_id, purpose_code, channel_code)
        with self._store.reading():
            head = self._head()
            shown = [index.prove_run(self._stored_run(run), self._chunks(run), prefix) for run in head.runs]
        if len(head.young):
            start = head.runs[-1].stop if head.runs else 0
            young, chunks = index.make_run(start, head.size, head.young)
            shown.append(index.prove_run(young, chunks.__getitem__, prefix))
        return index.state_proof(prefix, shown)

    def events(self, start: int = 0, stop: int | None = None) -> Iterator[Recorded]:
        """Events by leaf index, without those of who was erased. Raises: LedgerError at the end where that explains not all."""
        silence = Silence()
        for leaf, entry, opened in self._opened(start, self._size(stop, self._head())):
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
            return self._leaves_with(prefix_of(subject_id), self._head())

    def frame(self, size: int | None = None, start: int = 0) -> pl.DataFrame:
        """Events of leaves [start, size) as rows, in the shape of the raw table `consent_ledger`; destroyed ones are left out."""
        size = self._size(size, self._head())
        leaves, events, silence = [], [], Silence()
        for leaf, entry, opened in self._opened(start, size):
            silence.hear(leaf, entry, opened)
            if opened is not None:
                leaves.append(leaf)
                events.append(opened.event)
        self._refuse_unexplained(silence)
        return decode_frame(events, leaves, size)

    @contextmanager
    def still(self) -> Iterator[None]:
        """While inside, nothing is appended, by any process. Keep it short: everybody waits."""
        with self._committing, self._store.writing():
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
        return verification.rederived_root(self._store, self._size(size, self._head()))

    def check_extends(self, note: str) -> None:
        """That this ledger begins with the tree of a checkpoint somebody kept.

        Raises: LedgerError when it was rolled back behind it, or forked from it.
        """
        try:
            kept, head = open_checkpoint(note, self._signer.verifier), self._head()
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
            head = self._head()
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

    def _append(self, keys: list[bytes], events: list[bytes]) -> list[int]:
        leaves: list[int] = []
        for at in range(0, len(keys), BATCH):
            leaves += self._submit(Request.of(keys[at : at + BATCH], events[at : at + BATCH]))
        return leaves

    def _submit(self, request: Request) -> list[int]:
        """Wait in line; whoever stands first commits for all who wait, then the next in line does."""
        with self._queueing:
            self._waiting.append(request)
            is_first = len(self._waiting) == 1
        done = [request]
        try:
            if not is_first:
                request.turn.acquire()
            if not request.is_done:
                done = self._next_batch()
                with self._committing:
                    self._commit(done)
        finally:
            self._leave(request, done)
        return request.result()

    def _leave(self, request: Request, done: Sequence[Request]) -> None:
        """Take what is done out of the line, tell those who wait for it, and let the next in line begin."""
        with self._queueing:
            led = bool(self._waiting) and self._waiting[0] is request
            gone = set(map(id, done))
            self._waiting = [each for each in self._waiting if id(each) not in gone]
            following = self._waiting[:1] if led else []
        for each in done:
            if not each.is_done:
                each.fault = LedgerError(_INTERRUPTED)
        for each in (*done, *following):
            if each is not request:
                each.turn.release()

    def _next_batch(self) -> list[Request]:
        """The first in line, and those behind whose events still fit under one checkpoint."""
        with self._queueing:
            counts = accumulate(len(request.entries) for request in self._waiting)
            taken = sum(count <= BATCH for count in counts)
            return self._waiting[: max(taken, 1)]

    def _commit(self, requests: Sequence[Request], destroyed: Sequence[bytes] = ()) -> None:
        """One transaction, one checkpoint, for all requests."""
        try:
            with self._store.writing():
                head = self._newest()
                leaves, fresh = self._placed(head, requests)
                if fresh:
                    self._destroy(head, destroyed)
                    head = self._grow(head, fresh)
        except BaseException as fault:
            self._known = None  # it may be ahead of the write that did not happen
            self._tiles.clear()
            self._ring.forget()
            for request in requests:
                request.fault = fault if isinstance(fault, Exception) else LedgerError(_INTERRUPTED)
            if not isinstance(fault, Exception):
                raise
            return
        self._known, self._heard = head, head.size
        for request, found in zip(requests, leaves, strict=True):
            request.leaves = found
        if fresh:
            self._remember(head.note)

    def _destroy(self, head: Head, subjects: Sequence[bytes]) -> None:
        self._ring.forget(subjects)
        self._store.drop_keys((block, subject) for subject, block in self._blocks(head, subjects).items())

    def _placed(self, head: Head, requests: Sequence[Request]) -> tuple[list[list[int]], list[_Told]]:
        """The leaf of every event, and of the new ones in the order of their leaves what is to be stored."""
        keys = [key for request in requests for key in request.keys]
        held = self._first_leaves(head, keys, KEY_BYTES)
        is_new = [key not in held for key in keys]
        at = head.size
        for key in keys:
            if key not in held:
                held[key] = at
                at += 1
        told = (
            found for request in requests for found in zip(request.told, request.entries, request.hashes, strict=True)
        )
        fresh = list(compress(told, is_new))
        if len(fresh) != at - head.size:  # something was said twice in one batch
            firsts = {found[1][:KEY_BYTES]: found for found in reversed(fresh)}
            fresh = sorted(firsts.values(), key=lambda found: held[found[1][:KEY_BYTES]])
        return [[held[key] for key in request.keys] for request in requests], fresh

    def _blocks(self, head: Head, subjects: Sequence[bytes]) -> dict[bytes, int]:
        """The block of the first leaf of every subject the ledger knows."""
        found = self._first_leaves(head, subjects, SUBJECT_BYTES)
        return {subject: leaf // index.BLOCK for subject, leaf in found.items()}

    def _first_leaves(self, head: Head, keys: Sequence[bytes], width: int) -> dict[bytes, int]:
        """The first leaf of each key, or subject, of `width` bytes that the ledger holds."""
        if not keys:
            return {}
        asked, found = index.rows_of_keys(b"".join(keys), width), dict[bytes, int]()
        parts = [index.find(head.young, asked, width)]
        for run in reversed(head.runs):  # older ones last: the first leaf stays
            parts += index.find_in_run(self._stored_run(run), self._chunks(run), asked, width)
        for positions, leaves in parts:
            found.update(zip([keys[at] for at in positions.tolist()], leaves.tolist(), strict=True))
        return found

    def _grow(self, head: Head, fresh: Sequence[_Told]) -> Head:
        """Seal the events, extend the tree and the index, and sign."""
        first, count = head.size, len(fresh)
        told, entries, hashes = zip(*fresh, strict=True)
        nonces = secrets.token_bytes(count * NONCE_BYTES)
        here = {entry[:SUBJECT_BYTES]: (first + at) // index.BLOCK for at, entry in reversed([*enumerate(entries)])}
        ciphers = self._ring.for_sealing(here, self._blocks(head, self._ring.missing(here)), self._store)
        payloads = [
            seal(ciphers[entry[:SUBJECT_BYTES]], nonces[at : at + NONCE_BYTES], each, entry)
            for at, each, entry in zip(range(0, len(nonces), NONCE_BYTES), told, entries, strict=True)
        ]
        joined = b"".join(entries)
        lengths = np.fromiter(map(len, payloads), ">u4", count).tobytes()
        self._store.add_batch(Batch(first, count, joined, lengths, b"".join(payloads)))
        frontier, tiles = head.frontier.grown(hashes)
        if tiles:
            self._store.add_tiles(tiles)
        runs, young = self._indexed(head, index.rows_of(joined, first))
        state_root = index.state_root(index.all_runs(runs, young))
        checkpoint, note = self._sign(frontier.size, frontier.root(), state_root)
        return Head(checkpoint, note, frontier, runs, young)

    def _indexed(self, head: Head, rows: Rows) -> tuple[tuple[Run, ...], Rows]:
        """The runs and young rows with more rows; what changes is stored."""
        runs, young, steps = index.grown(head.runs, head.young, rows, self._run_rows)
        for step in steps:
            self._store.drop_runs(step.replaced)
            self._store.add_run(step.made, step.chunks)
            self._stored_runs[step.made.run] = step.made
        if steps:
            self._stored_runs = {run: stored for run, stored in self._stored_runs.items() if run in runs}
        return tuple(runs), young

    def _run_rows(self, run: Run) -> Rows:
        return np.frombuffer(self._store.run_rows(run), index.ROW)

    def _sign(self, size: int, root: bytes, state_root: bytes) -> tuple[Checkpoint, str]:
        state = f"state {to_base64(state_root)}"
        checkpoint = Checkpoint(self._signer.verifier.name, size, root, (state,))
        note = sign_note(checkpoint.text, self._signer)
        self._store.add_checkpoint(SignedSize(size, note, self._clock.now().isoformat()))
        return checkpoint, note

    def _head(self) -> Head:
        """The newest state, for reading."""
        known, stored = self._known, self._stored()
        if known is None or known.note != stored.note:
            with self._store.reading():
                known = self._known = self._loaded(self._stored())
        return known

    def _newest(self) -> Head:
        """The state to append to; never one that does not match its checkpoint. Raises: LedgerError."""
        known, stored, count = self._known, self._stored(), self._store.leaf_count()
        if known is None or known.note != stored.note:
            known = self._loaded(stored)
        if self._heard < count:  # others have written: keys they destroyed must not seal another event
            others = self._store.entries(self._heard, count)
            self._ring.forget(others[at : at + SUBJECT_BYTES] for at in range(0, len(others), ENTRY_BYTES))
            self._heard = count
        self._refuse_other_count(known, count)
        return known

    def _refuse_other_count(self, head: Head, count: int) -> None:
        if count != head.size:
            raise LedgerError(
                f"ledger: expected {head.size} events, found {count}. It was changed by hand: restore it from a backup."
            )

    def _loaded(self, stored: SignedSize) -> Head:
        """The state of a checkpoint, from the store, compared with what was signed. Raises: LedgerError."""
        signed = self._checked(stored.note)
        size, levels = signed.size, []
        entries = self._store.entries(size - size % TILE_HASHES, size)
        hashes = [merkle.leaf_hash(entries[at : at + ENTRY_BYTES]) for at in range(0, len(entries), ENTRY_BYTES)]
        count, level = size, 0
        while count:
            levels.append(Edge.over(hashes))
            count, level = count >> TILE_HEIGHT, level + 1
            hashes = self._store.tile_roots(level - 1, count - count % TILE_HASHES, count)
        runs = tuple(self._store.runs())
        start = runs[-1].stop if runs else 0
        young = index.merged([index.rows_of(self._store.entries(start, size), start)])
        head = Head(signed, stored.note, Frontier(size, tuple(levels)), runs, young)
        found = (head.frontier.root(), head.state_root)
        if found != (signed.root, signed.state_root):
            raise LedgerError(
                f"ledger: expected root {signed.root.hex()} and state {(signed.state_root or b'').hex()} at size {size}, "
                f"found {found[0].hex()} and {found[1].hex()}. It was changed by hand: restore it from a backup."
            )
        return head

    def _stored(self) -> SignedSize:
        stored = self._store.last_checkpoint()
        if stored is None:
            raise LedgerError("ledger: expected a signed checkpoint, found none. Restore it from a backup.")
        return stored

    def _last(self) -> Checkpoint:
        stored, known = self._stored(), self._known
        return known.checkpoint if known is not None and known.note == stored.note else self._checked(stored.note)

    def _checked(self, note: str) -> Checkpoint:
        try:
            return open_checkpoint(note, self._signer.verifier)
        except VerificationError as evidence:
            raise LedgerError(str(evidence)) from evidence

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

    def _stored_run(self, run: Run) -> StoredRun:
        stored = self._stored_runs.get(run)
        if stored is None:
            stored = self._store.run(run)
            if stored is None:
                raise LedgerError(f"ledger index: expected leaves {run.start} to {run.stop}, found none. Rebuild it.")
            self._stored_runs[run] = stored
        return stored

    def _chunks(self, run: Run) -> Callable[[int], bytes]:
        return lambda number: self._store.run_chunk(run, number)

    def _run_leaves(self, stored: StoredRun, prefix: bytes) -> list[int]:
        rows = index.rows_with(stored, self._chunks(stored.run), prefix)
        return [int(leaf) for leaf in index.leaf_indexes(rows)]

    def _refuse_unexplained(self, silence: Silence) -> None:
        """Raises: LedgerError for a leaf that cannot be opened although its subject was never erased since."""
        for subject, leaf in silence.unexplained.items():
            with self._store.reading():
                later = [each for each in self._leaves_with(subject, self._head()) if each > leaf]
            following = next((opened for each in later if (opened := self.opened(each))), None)
            if following is None or not is_erasure(following):
                raise LedgerError(
                    f"leaf {leaf}: expected an event, or the erasure of its subject after it, found neither. "
                    "Its key or its payload was destroyed by hand: restore the ledger from a backup."
                )

    def _leaves_with(self, prefix: bytes, head: Head) -> list[int]:
        found = [leaf for run in head.runs for leaf in self._run_leaves(self._stored_run(run), prefix)]
        young = head.young[index.matching(head.young, prefix)]
        return sorted([*found, *(int(leaf) for leaf in index.leaf_indexes(young))])

    def _opened(self, start: int, stop: int) -> Iterator[tuple[int, bytes, Opened | None]]:
        """Leaves [start, stop) in order, each with its entry and what its payload holds."""
        for batch in self._store.batches(start, stop):
            entries = [batch.entries[at : at + ENTRY_BYTES] for at in range(0, len(batch.entries), ENTRY_BYTES)]
            wanted = range(max(start - batch.first_leaf, 0), min(stop - batch.first_leaf, batch.leaf_count))
            ends = [0, *np.frombuffer(batch.lengths, ">u4").astype(np.int64).cumsum().tolist()]
            payloads = {at: batch.payloads[ends[at] : ends[at + 1]] for at in wanted}
            places = {(block_of(payload), entries[at][:SUBJECT_BYTES]) for at, payload in payloads.items()}
            ciphers = self._ring.for_opening(places, self._store)
            for at, payload in payloads.items():
                found = unseal(ciphers.get(entries[at][:SUBJECT_BYTES]), payload, entries[at])
                opened = None if found is None else Opened(found[SALT_BYTES:], found[:SALT_BYTES])
                yield batch.first_leaf + at, entries[at], opened

    def _refuse_rollback(self) -> None:
        with self._store.reading():
            self._refuse_other_count(self._head(), self._store.leaf_count())
        if self._mark is not None and self._mark.exists():
            self.check_extends(self._mark.read_text(encoding="utf-8"))

    def _remember(self, note: str) -> None:
        """Note down the newest checkpoint, now and then. What was appended is kept whether this works or not."""
        if self._mark is not None:
            self._unmarked = note
            if time.monotonic() - self._marked_at >= _MARK_SECONDS:
                with suppress(OSError):
                    self._write_mark(note)

    def _write_mark(self, note: str) -> None:
        if self._mark is not None:
            write_atomically(self._mark, note.encode())
            self._marked_at, self._unmarked = time.monotonic(), None
