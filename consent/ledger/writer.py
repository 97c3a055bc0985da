"""Group commit: whoever stands first in line writes for all who wait, in one transaction under one signed checkpoint."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np

from consent.errors import LedgerError
from consent.ledger.heads import Head, Heads
from consent.ledger.keyring import KeyRing
from consent.ledger.payloads import sealed, subject_runs
from consent.ledger.preparing import BATCH, Prepared
from consent.ledger.store import Batch, SignedSize, Store
from consent.log import index, merkle
from consent.log.entry import ENTRY_BYTES
from consent.log.index import KEY_BYTES, SUBJECT_BYTES, Rows, Run
from consent.log.merkle import HASH_BYTES
from consent.log.note import Checkpoint, Signer, sign_note, to_base64
from troth.clock import Clock
from troth.home import write_atomically

_MARK_SECONDS = 1.0  # how much the mark beside the ledger may lag: each costs two syncs
_INTERRUPTED = "append: expected to be committed with others, found their thread interrupted. Append again."


def _taken() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass
class _Request:
    """Events waiting to be committed together; then the leaves they have, or the fault that kept them out."""

    prepared: Prepared
    leaves: list[int] | None = None
    fault: BaseException | None = None
    turn: threading.Lock = field(default_factory=_taken)  # released when it is done, or the first in line

    @property
    def is_done(self) -> bool:
        return self.leaves is not None or self.fault is not None

    def result(self) -> list[int]:
        """The leaves. Raises: the fault."""
        if self.fault is not None:
            raise self.fault
        return self.leaves or []


class Mark:
    """A file that remembers a recent checkpoint outside the store, so that an older store is noticed."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._written_at = 0.0
        self._unwritten: str | None = None  # a newer note than the file's

    def read(self) -> str | None:
        return self._path.read_text(encoding="utf-8") if self._path is not None and self._path.exists() else None

    def remember(self, note: str) -> None:
        """Note down the newest checkpoint, now and then. What was appended is kept whether this works or not."""
        self._unwritten = note
        if time.monotonic() - self._written_at >= _MARK_SECONDS:
            with suppress(OSError):
                self._write(note)

    def close(self) -> None:
        """Raises: LedgerError when it cannot be written; nothing appended is lost by that."""
        try:
            if self._unwritten is not None:
                self._write(self._unwritten)
        except OSError as fault:
            raise LedgerError(
                f"ledger mark: expected to remember the newest checkpoint, found {fault.strerror}. Nothing is lost, but until "
                "a next append an older backup in its place would go unnoticed."
            ) from fault

    def _write(self, note: str) -> None:
        if self._path is not None:
            write_atomically(self._path, note.encode())
        self._written_at, self._unwritten = time.monotonic(), None


class Writer:
    """Appends to a store. Threads and processes may do so at once."""

    def __init__(self, store: Store, heads: Heads, signer: Signer, ring: KeyRing, clock: Clock, mark: Mark) -> None:
        self._store = store
        self._heads = heads
        self._signer = signer
        self._ring = ring
        self._clock = clock
        self._mark = mark
        self._waiting: list[_Request] = []
        self._queueing = threading.Lock()
        self._committing = threading.Lock()
        self._heard = 0  # leaves whose erasures the ring knows of
        if store.last_checkpoint() is None:
            with store.writing():
                if store.last_checkpoint() is None:
                    self._sign(0, merkle.EMPTY_ROOT, index.state_root([]))

    def begin_at(self, size: int) -> None:
        """Keys of the first `size` leaves are read from now on: erasures before need not be heard."""
        self._heard = size

    @contextmanager
    def still(self) -> Iterator[None]:
        """While inside, nothing is appended, by any process."""
        with self._committing, self._store.writing():
            yield

    def append(self, prepared: Prepared) -> list[int]:
        """Leaves of up to 1,000 events, durable and under a signed checkpoint on return."""
        request = _Request(prepared)
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

    def erase(self, prepared: Prepared, subject: bytes) -> int:
        """Append an event, its subject's key destroyed in the same write. The leaf."""
        request = _Request(prepared)
        with self._committing:
            self._commit([request], destroyed=[subject])
        return request.result()[0]

    def _leave(self, request: _Request, done: Sequence[_Request]) -> None:
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

    def _next_batch(self) -> list[_Request]:
        """The first in line, and those behind whose events still fit under one checkpoint."""
        with self._queueing:
            counts = accumulate(len(request.prepared) for request in self._waiting)
            taken = sum(count <= BATCH for count in counts)
            return self._waiting[: max(taken, 1)]

    def _commit(self, requests: Sequence[_Request], destroyed: Sequence[bytes] = ()) -> None:
        """One transaction, one checkpoint, for all requests."""
        prepared = Prepared.joined([request.prepared for request in requests])
        try:
            with self._store.writing():
                head = self._heads.to_append_to()
                self._hear_others(head.size)
                leaves, fresh = self._placed(head, prepared)
                if len(fresh):
                    self._destroy(head, destroyed)
                    head = self._grown(head, fresh)
        except BaseException as fault:
            self._heads.forget()  # what is known may be ahead of the write that did not happen
            self._ring.forget()
            for request in requests:
                request.fault = fault if isinstance(fault, Exception) else LedgerError(_INTERRUPTED)
            if not isinstance(fault, Exception):
                raise
            return
        self._heads.known, self._heard = head, head.size
        at = 0
        for request in requests:
            request.leaves = leaves[at : at + len(request.prepared)]
            at += len(request.prepared)
        if len(fresh):
            self._mark.remember(head.note)

    def _hear_others(self, size: int) -> None:
        """What others have written: keys they destroyed must not seal another event."""
        if self._heard < size:
            others = self._store.entries(self._heard, size)
            self._ring.forget(others[at : at + SUBJECT_BYTES] for at in range(0, len(others), ENTRY_BYTES))
            self._heard = size

    def _destroy(self, head: Head, subjects: Sequence[bytes]) -> None:
        self._ring.forget(subjects)
        self._store.drop_keys((block, subject) for subject, block in self._blocks(head, subjects).items())

    def _placed(self, head: Head, prepared: Prepared) -> tuple[list[int], Prepared]:
        """The leaf of every event, and the new ones in the order of their leaves."""
        rows = index.rows_of(prepared.entries, 0)
        prints = index.fingerprints(rows)
        held = self._heads.held(head, rows, prints)
        if not held and len(np.unique(prints)) == len(prints):
            return list(range(head.size, head.size + len(prepared))), prepared
        entries, leaves, fresh = prepared.entries, dict[bytes, int](), list[int]()
        keys = [entries[at : at + KEY_BYTES] for at in range(0, len(entries), ENTRY_BYTES)]
        for number, key in enumerate(keys):
            if key not in leaves:
                leaves[key] = held.get(number, head.size + len(fresh))
                if number not in held:
                    fresh.append(number)
        return [leaves[key] for key in keys], prepared.taken(fresh)

    def _blocks(self, head: Head, subjects: Sequence[bytes]) -> dict[bytes, int]:
        """The block of the first leaf of every subject the ledger knows."""
        found = self._heads.first_leaves(head, subjects)
        return {subject: leaf // index.BLOCK for subject, leaf in found.items()}

    def _grown(self, head: Head, fresh: Prepared) -> Head:
        """Seal the events, extend the tree and the index, and sign."""
        first, entries = head.size, fresh.entries
        borders = subject_runs(entries)
        here = {
            entries[at * ENTRY_BYTES : at * ENTRY_BYTES + SUBJECT_BYTES]: (first + at) // index.BLOCK
            for at in reversed(borders[:-1])
        }
        ciphers = self._ring.for_sealing(here, self._blocks(head, self._ring.missing(here)), self._store)
        self._store.add_batch(Batch(first, len(fresh), entries, *sealed(fresh, borders, ciphers)))
        hashes = [fresh.hashes[at : at + HASH_BYTES] for at in range(0, len(fresh.hashes), HASH_BYTES)]
        frontier, tiles = head.frontier.grown(hashes)
        if tiles:
            self._store.add_tiles(tiles)
        runs, young = self._indexed(head, index.rows_of(entries, first))
        state_root = index.state_root(index.all_runs(runs, young))
        checkpoint, note = self._sign(frontier.size, frontier.root(), state_root)
        return Head(checkpoint, note, frontier, runs, young)

    def _indexed(self, head: Head, rows: Rows) -> tuple[tuple[Run, ...], Rows]:
        """The runs and young rows with more rows; what changes is stored."""
        runs, young, steps = index.grown(head.runs, head.young, rows, self._heads.rows)
        self._heads.store_steps(steps, runs)
        return tuple(runs), young

    def _sign(self, size: int, root: bytes, state_root: bytes) -> tuple[Checkpoint, str]:
        state = f"state {to_base64(state_root)}"
        checkpoint = Checkpoint(self._signer.verifier.name, size, root, (state,))
        note = sign_note(checkpoint.text, self._signer)
        self._store.add_checkpoint(SignedSize(size, note, self._clock.now().isoformat()))
        return checkpoint, note
