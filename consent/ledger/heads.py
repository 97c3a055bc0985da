"""The newest signed state of a store, and where it keeps the leaves that speak of somebody."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from consent.errors import LedgerError
from consent.ledger.frontier import TILE_HASHES, TILE_HEIGHT, Edge, Frontier
from consent.ledger.store import SignedSize, Store
from consent.log import index, merkle
from consent.log.entry import ENTRY_BYTES
from consent.log.index import KEY_BYTES, SUBJECT_BYTES, Rows, Run, Step, StoredRun
from consent.log.merkle import VerificationError
from consent.log.note import Checkpoint, Verifier, open_checkpoint


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


class Heads:
    """The newest head of a store, held as long as nobody else writes. Threads share it."""

    def __init__(self, store: Store, verifier: Verifier) -> None:
        self._store = store
        self._verifier = verifier
        self._stored_runs: dict[Run, StoredRun] = {}
        self.known: Head | None = None

    def stored(self) -> SignedSize:
        """The newest checkpoint. Raises: LedgerError."""
        found = self._store.last_checkpoint()
        if found is None:
            raise LedgerError("ledger: expected a signed checkpoint, found none. Restore it from a backup.")
        return found

    def signed(self) -> Checkpoint:
        """The same, verified."""
        stored, known = self.stored(), self.known
        return known.checkpoint if known is not None and known.note == stored.note else self._checked(stored.note)

    def newest(self) -> Head:
        """For reading."""
        known, stored = self.known, self.stored()
        if known is None or known.note != stored.note:
            with self._store.reading():
                known = self.known = self._loaded(self.stored())
        return known

    def to_append_to(self) -> Head:
        """Inside a write; never one that does not match its checkpoint, or does not cover all there is. Raises: LedgerError."""
        known, stored = self.known, self.stored()
        head = known if known is not None and known.note == stored.note else self._loaded(stored)
        self.refuse_other_count(head)
        return head

    def refuse_other_count(self, head: Head) -> None:
        """Raises: LedgerError where leaves are stored that no checkpoint covers, or fewer than it covers."""
        if (count := self._store.leaf_count()) != head.size:
            raise LedgerError(
                f"ledger: expected {head.size} events, found {count}. It was changed by hand: restore it from a backup."
            )

    def frontier(self, size: int) -> Frontier:
        """Edge of the tree of the first `size` leaves, from the stored roots of full tiles."""
        edges = []
        entries = self._store.entries(size - size % TILE_HASHES, size)
        hashes = [merkle.leaf_hash(entries[at : at + ENTRY_BYTES]) for at in range(0, len(entries), ENTRY_BYTES)]
        count, level = size, 0
        while count:
            edges.append(Edge.over(hashes))
            count, level = count >> TILE_HEIGHT, level + 1
            hashes = self._store.tile_roots(level - 1, count - count % TILE_HASHES, count)
        return Frontier(size, tuple(edges))

    def stored_run(self, run: Run) -> StoredRun:
        found = self._stored_runs.get(run)
        if found is None:
            found = self._store.run(run)
            if found is None:
                raise LedgerError(f"ledger index: expected leaves {run.start} to {run.stop}, found none. Rebuild it.")
            self._stored_runs[run] = found
        return found

    def chunks(self, run: Run) -> Callable[[int], bytes]:
        """Reads the rows of a chunk of a run by its number."""
        return lambda number: self._store.run_chunk(run, number)

    def rows(self, run: Run) -> Rows:
        """All rows of a stored run."""
        return np.frombuffer(self._store.run_rows(run), index.ROW)

    def store_steps(self, steps: Sequence[Step], runs: Sequence[Run]) -> None:
        """Inside a write: store what changes of the index."""
        for step in steps:
            self._store.drop_runs(step.replaced)
            self._store.add_run(step.made, step.chunks)
            self._stored_runs[step.made.run] = step.made
        if steps:
            self._stored_runs = {run: stored for run, stored in self._stored_runs.items() if run in runs}

    def forget(self) -> None:
        """What is known may be ahead of a write that did not happen."""
        self.known = None

    def first_leaves(self, head: Head, subjects: Sequence[bytes]) -> dict[bytes, int]:
        """The first leaf of each of the subjects that the ledger holds."""
        if not subjects:
            return {}
        asked = index.rows_of_keys(b"".join(subjects), SUBJECT_BYTES)
        found = self._found(head, asked, index.subject_fingerprints(asked), SUBJECT_BYTES)
        return {subjects[position]: leaf for position, leaf in found.items()}

    def held(self, head: Head, rows: Rows, prints: NDArray[np.uint64]) -> dict[int, int]:
        """Position and leaf of each of the rows whose key the ledger holds; `prints` are their fingerprints."""
        return self._found(head, index.without_leaves(rows), prints, KEY_BYTES)

    def leaves_with(self, prefix: bytes, head: Head) -> list[int]:
        """The leaves whose index rows begin with a prefix, in order."""
        parts = [index.rows_with(self.stored_run(run), self.chunks(run), prefix) for run in head.runs]
        parts.append(head.young[index.matching(head.young, prefix)])
        return sorted(int(leaf) for rows in parts for leaf in index.leaf_indexes(rows))

    def _found(self, head: Head, asked: Rows, prints: NDArray[np.uint64], width: int) -> dict[int, int]:
        """Position and first leaf of those that are held. Whoever is found in an older run is not looked for in younger ones."""
        found, left = dict[int, int](), np.arange(len(asked))
        for run in head.runs:
            here = index.find_in_run(self.stored_run(run), self.chunks(run), asked, prints, width)
            if here:
                found.update((int(left[position]), leaf) for position, leaf in here.items())
                others = np.delete(np.arange(len(left)), list(here))
                asked, prints, left = asked[others], prints[others], left[others]
        positions, leaves = index.find(head.young, asked, width)
        found.update(zip(left[positions].tolist(), leaves.tolist(), strict=True))
        return found

    def _checked(self, note: str) -> Checkpoint:
        try:
            return open_checkpoint(note, self._verifier)
        except VerificationError as evidence:
            raise LedgerError(str(evidence)) from evidence

    def _loaded(self, stored: SignedSize) -> Head:
        """The state of a checkpoint, from the store, compared with what was signed. Raises: LedgerError."""
        signed = self._checked(stored.note)
        size, frontier = signed.size, self.frontier(signed.size)
        runs = tuple(self._store.runs())
        start = runs[-1].stop if runs else 0
        young = index.merged([index.rows_of(self._store.entries(start, size), start)])
        head = Head(signed, stored.note, frontier, runs, young)
        found = (head.frontier.root(), head.state_root)
        if found != (signed.root, signed.state_root):
            raise LedgerError(
                f"ledger: expected root {signed.root.hex()} and state {(signed.state_root or b'').hex()} at size {size}, "
                f"found {found[0].hex()} and {found[1].hex()}. It was changed by hand: restore it from a backup."
            )
        return head
