"""The index beside the log: which leaves speak of a subject, and of which purpose and channel, provably all of them.

Rows are sorted within runs, runs cover the log without gap; a checkpoint signs the roots of all runs. Pure functions and
values over bytes: where runs rest is in `store.py`, how a proof is checked alone is here too (`verify_state_proof`).
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consent.log import merkle
from consent.log.merkle import HASH_BYTES, VerificationError

SUBJECT_BYTES = 16
SCOPE_BYTES = 8
SIGNAL_BYTES = 8
KEY_BYTES = SUBJECT_BYTES + SCOPE_BYTES + SIGNAL_BYTES
ROW_BYTES = KEY_BYTES + 8
PAGE_ROWS = 32
PAGE_BYTES = PAGE_ROWS * ROW_BYTES
CHUNK_PAGES = 16  # a power of two, so that a chunk is a perfect subtree of its run's pages
CHUNK_ROWS = CHUNK_PAGES * PAGE_ROWS
CHUNK_BYTES = CHUNK_ROWS * ROW_BYTES
BLOCK = 4096  # leaves of the smallest run that rests in the store; younger leaves make one run that is sorted anew
RADIX = 4  # runs of one size that are merged into the next
FORMAT = "troth state proof 1"
_TAG = b"troth-consent-index-v1\0"
_FILTER_BITS = 16  # per row; with four probes 0.2 % of lookups go on in vain
_PROBES = 4

Rows = NDArray[np.bytes_]  # shape (n,), dtype S40: key, then leaf index as eight bytes, big-endian
ROW = np.dtype(f"S{ROW_BYTES}")
Found = tuple[NDArray[np.int64], NDArray[np.int64]]  # positions of the keys that are there, and the first leaf of each


@dataclass(frozen=True)
class Run:
    """What a checkpoint commits to: the sorted rows of leaves [start, stop) under one root."""

    start: int
    stop: int
    root: bytes

    @property
    def page_count(self) -> int:
        return -(-(self.stop - self.start) // PAGE_ROWS)


@dataclass(frozen=True)
class StoredRun:
    """A run with what finding its rows needs: first row and root of every chunk, and a filter of its keys."""

    run: Run
    first_rows: Rows
    chunk_roots: bytes
    filter: NDArray[np.uint8]

    @cached_property
    def levels(self) -> list[bytes]:
        """Every level of the tree over its chunks, from their roots up."""
        return merkle.levels_over(self.chunk_roots)


def rows_of(entries: bytes, first: int) -> Rows:
    """Unsorted index rows of consecutive 64-byte log entries, counted from leaf `first`."""
    keys = np.frombuffer(entries, np.uint8).reshape(-1, KEY_BYTES + HASH_BYTES)[:, :KEY_BYTES]
    rows = np.empty((len(keys), ROW_BYTES), np.uint8)
    rows[:, :KEY_BYTES] = keys
    rows[:, KEY_BYTES:] = np.arange(first, first + len(keys), dtype=">u8").view(np.uint8).reshape(-1, 8)
    return rows.view(ROW).reshape(-1)


def rows_of_keys(keys: bytes, width: int = KEY_BYTES) -> Rows:
    """Rows that begin with concatenated keys of `width` bytes and are zero after, for asking which of them are held."""
    rows = np.zeros((len(keys) // width, ROW_BYTES), np.uint8)
    rows[:, :width] = np.frombuffer(keys, np.uint8).reshape(-1, width)
    return rows.view(ROW).reshape(-1)


def without_leaves(rows: Rows) -> Rows:
    """The same keys, for asking which of them are held."""
    found = np.ascontiguousarray(rows).view(np.uint8).reshape(-1, ROW_BYTES).copy()
    found[:, KEY_BYTES:] = 0
    return found.view(ROW).reshape(-1)


def merged(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts in order. Fast where each part is sorted already."""
    return np.sort(np.concatenate(parts), kind="stable")


def leaf_indexes(rows: Rows) -> NDArray[np.int64]:
    """The leaf of every row."""
    return _fields(rows)[:, -1].astype(np.int64)


def fingerprints(rows: Rows) -> NDArray[np.uint64]:
    """One well-mixed number per key (subject, scope, signal), for filters."""
    fields = _fields(rows)
    found: NDArray[np.uint64] = (fields[:, 0] ^ fields[:, 2] ^ fields[:, 3]).astype(np.uint64)
    return found


def subject_fingerprints(rows: Rows) -> NDArray[np.uint64]:
    """The same for the subject alone."""
    return _fields(rows)[:, 1].astype(np.uint64)


def page_hashes(rows: bytes) -> list[bytes]:
    """Leaf hash of every page of sorted rows."""
    return [sha256(b"\x00" + rows[at : at + PAGE_BYTES]).digest() for at in range(0, len(rows), PAGE_BYTES)]


def root_of(rows: Rows) -> bytes:
    """Root of a run over its sorted rows."""
    return _tree(page_hashes(rows.tobytes()))


def state_root(runs: Iterable[Run]) -> bytes:
    """What a checkpoint signs: every run with its borders and root."""
    digest = sha256(_TAG)
    for run in runs:
        digest.update(run.start.to_bytes(8) + run.stop.to_bytes(8) + run.root)
    return digest.digest()


def make_run(start: int, stop: int, rows: Rows) -> tuple[StoredRun, list[bytes]]:
    """A run over sorted rows, and its rows in chunks for the store."""
    whole = rows.tobytes()
    chunks = [whole[at : at + CHUNK_BYTES] for at in range(0, len(whole), CHUNK_BYTES)]
    roots = [_tree(page_hashes(chunk)) for chunk in chunks]
    run = Run(start, stop, _tree(roots))
    return StoredRun(run, rows[::CHUNK_ROWS].copy(), b"".join(roots), _filter(rows)), chunks


@dataclass(frozen=True)
class Step:
    """One run that takes the place of others, or of young rows alone."""

    made: StoredRun
    chunks: list[bytes]
    replaced: tuple[Run, ...]

    @property
    def made_rows(self) -> Rows:
        return np.frombuffer(b"".join(self.chunks), ROW)


def grown(
    runs: Sequence[Run], young: Rows, fresh: Rows, rows_of_run: Callable[[Run], Rows]
) -> tuple[list[Run], Rows, list[Step]]:
    """The runs and the young rows after `fresh` ones came, and the steps that lead there.

    Every full block of young leaves becomes a run; four runs of one size become one of the next. So the borders of runs
    follow from the size of the log alone.
    """
    runs, young = list(runs), merged([young, fresh])
    steps: list[Step] = []
    start = runs[-1].stop if runs else 0
    while len(young) >= BLOCK:
        in_block = leaf_indexes(young) < start + BLOCK
        parts, replaced = [young[in_block]], list[Run]()
        young = young[~in_block]
        width = BLOCK
        while len(same := [run for run in runs[1 - RADIX :] if run.stop - run.start == width]) == RADIX - 1:
            replaced = same + replaced
            made = {step.made.run: step for step in steps}
            parts += [made[run].made_rows if run in made else rows_of_run(run) for run in same]
            del runs[1 - RADIX :]
            width *= RADIX
        start += BLOCK
        stored, chunks = make_run(start - width, start, merged(parts))
        steps.append(Step(stored, chunks, tuple(replaced)))
        runs.append(stored.run)
    return runs, young, steps


def all_runs(runs: Sequence[Run], young: Rows) -> list[Run]:
    """The runs a checkpoint signs: those of full blocks, and one of the young rows."""
    start = runs[-1].stop if runs else 0
    return [*runs, Run(start, start + len(young), root_of(young))] if len(young) else list(runs)


def may_hold(run: StoredRun, found: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Positions of the fingerprints that may be in the run: of all that are, and of few others."""
    left = np.arange(len(found))
    for number in range(_PROBES):
        at = _probe(found[left], number, len(run.filter) * 8)
        left = left[run.filter[at >> 3] >> (at & 7).astype(np.uint8) & 1 == 1]
    return left


def matching(rows: Rows, prefix: bytes) -> slice:
    """Where in sorted rows the ones that begin with `prefix` are."""
    low, high = _bounds(prefix)
    return slice(int(np.searchsorted(rows, low, "left")), int(np.searchsorted(rows, high, "right")))


def rows_with(stored: StoredRun, chunk: Callable[[int], bytes], prefix: bytes) -> Rows:
    """The rows of a run that begin with `prefix`; `chunk` reads the rows of a chunk by its number."""
    low, high = _bounds(prefix)
    start = max(int(np.searchsorted(stored.first_rows, low, "left")) - 1, 0)
    stop = int(np.searchsorted(stored.first_rows, high, "right"))
    rows = np.frombuffer(b"".join(chunk(number) for number in range(start, stop)), ROW)
    return rows[matching(rows, prefix)]


def find(rows: Rows, keys: Rows, width: int = KEY_BYTES) -> Found:
    """Which keys (rows that are zero after `width` bytes) are in sorted rows: their positions, and the first leaf of each."""
    at = np.searchsorted(rows, keys)
    there = np.flatnonzero(at < len(rows))
    words = width // 8
    there = there[(_fields(rows[at[there]])[:, :words] == _fields(keys[there])[:, :words]).all(axis=1)]
    if width == KEY_BYTES or not len(there):
        return there, leaf_indexes(rows[at[there]])
    ends = np.searchsorted(rows, _last_rows(keys[there], width), "right")  # a subject's rows are in order of scopes
    borders = np.stack([at[there], ends], axis=1).ravel()
    return there, np.minimum.reduceat(np.append(leaf_indexes(rows), 0), borders)[::2]


def find_in_run(
    stored: StoredRun, chunk: Callable[[int], bytes], keys: Rows, prints: NDArray[np.uint64], width: int = KEY_BYTES
) -> dict[int, int]:
    """Position and first leaf of those keys, or subjects, that a run holds; `prints` are their fingerprints."""
    maybe = may_hold(stored, prints)
    asked, found = keys[maybe], dict[int, int]()
    starts = np.maximum(np.searchsorted(stored.first_rows, asked, "right") - 1, 0)
    whole, read = asked.tobytes(), lru_cache(2)(chunk)
    for at in np.argsort(starts, kind="stable").tolist():  # neighbours share chunks
        key = whole[at * ROW_BYTES : at * ROW_BYTES + width]
        leaf = _first_leaf(read, int(starts[at]), len(stored.first_rows), key)
        if leaf is not None:
            found[int(maybe[at])] = leaf
    return found


def _first_leaf(chunk: Callable[[int], bytes], number: int, count: int, key: bytes) -> int | None:
    """The least leaf of the rows that begin with a key, from the chunk on in which they would begin."""
    rows, width = chunk(number), len(key)
    at = ROW_BYTES * bisect_left(
        range(len(rows) // ROW_BYTES), key, key=lambda row: rows[row * ROW_BYTES : row * ROW_BYTES + width]
    )
    leaves = []
    while True:
        while rows[at : at + width] == key:
            leaves.append(int.from_bytes(rows[at + KEY_BYTES : at + ROW_BYTES]))
            at += ROW_BYTES
        number += 1
        if at < len(rows) or number == count:
            return min(leaves, default=None)
        rows, at = chunk(number), 0


def prove_run(stored: StoredRun, chunk: Callable[[int], bytes], prefix: bytes) -> dict[str, Any]:
    """What a state proof shows of one run: the pages around every row that begins with `prefix`, each with its path.

    `chunk` reads the rows of a chunk of the run by its number.
    """
    low, high = _bounds(prefix)
    first_rows, run = stored.first_rows, stored.run
    start = max(int(np.searchsorted(first_rows, low, "left")) - 1, 0)
    stop = max(int(np.searchsorted(first_rows, high, "right")), start + 1)
    shown = b"".join(chunk(number) for number in range(start, stop))
    found = matching(np.frombuffer(shown, ROW), prefix)
    if found.stop * ROW_BYTES == len(shown) and stop < len(first_rows):
        shown += chunk(stop)
        stop += 1
    before, after = max(found.start - 1, 0), min(found.stop, len(shown) // ROW_BYTES - 1)
    hashes = page_hashes(shown)
    pages, paths = [], []
    for page in range(before // PAGE_ROWS, after // PAGE_ROWS + 1):
        number, offset = divmod(page, CHUNK_PAGES)
        inside = hashes[number * CHUNK_PAGES : (number + 1) * CHUNK_PAGES]
        path = _path(offset, len(inside), merkle.levels_over(b"".join(inside)))
        path += _path(start + number, len(first_rows), stored.levels)
        pages.append(shown[page * PAGE_BYTES : (page + 1) * PAGE_BYTES].hex())
        paths.append([sibling.hex() for sibling in path])
    return {
        "start": run.start,
        "stop": run.stop,
        "root": run.root.hex(),
        "first_page": start * CHUNK_PAGES + before // PAGE_ROWS,
        "pages": pages,
        "paths": paths,
    }


def state_proof(prefix: bytes, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A state proof of what `prove_run` shows of every run, in order."""
    return {"format": FORMAT, "prefix": prefix.hex(), "runs": list(runs)}


def verify_state_proof(proof: Mapping[str, Any], prefix: bytes, size: int, root: bytes) -> list[int]:
    """Leaf indexes of all rows that begin with `prefix`, ascending; empty when the ledger never spoke of it.

    `size` and `root`: of the ledger and its state, from a checkpoint that was verified. Raises: VerificationError.
    """
    if proof.get("format") != FORMAT or proof.get("prefix") != prefix.hex():
        raise VerificationError(
            "state proof", f"{FORMAT} for {prefix.hex()}", "another", "Ask for this subject's proof"
        )
    runs: list[Run] = []
    leaves: list[int] = []
    try:
        for shown in proof["runs"]:
            run = Run(_whole(shown["start"]), _whole(shown["stop"]), _unhex(shown["root"]))
            pages = [_unhex(page) for page in shown["pages"]]
            paths = [[_unhex(sibling) for sibling in path] for path in shown["paths"]]
            runs.append(run)
            leaves += _matching_leaves(run, _whole(shown["first_page"]), pages, paths, prefix)
    except (KeyError, TypeError, ValueError):
        raise VerificationError("state proof", "runs with pages and paths", "another shape", "Ask again") from None
    borders = [0, *(run.stop for run in runs)]
    if [run.start for run in runs] != borders[:-1] or borders[-1] != size or any(r.stop <= r.start for r in runs):
        raise VerificationError("state proof", f"runs that cover leaves 0 to {size}", "others", "A run was left out")
    if (found := state_root(runs)) != root:
        raise VerificationError("state proof", f"state root {root.hex()}", found.hex(), "It is of another state")
    return sorted(leaves)


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _unhex(text: str) -> bytes:
    """One text for one value: what verifies cannot be told apart by its letters."""
    found = bytes.fromhex(text)
    if found.hex() != text:
        raise ValueError
    return found


def _matching_leaves(
    run: Run, first_page: int, pages: Sequence[bytes], paths: Sequence[Sequence[bytes]], prefix: bytes
) -> list[int]:
    """Check one run's pages, that no row of the prefix can be outside of them, and give its rows' leaves."""
    what = f"state proof, run {run.start} to {run.stop}"
    last_page = first_page + len(pages) - 1
    if not pages or len(paths) != len(pages) or not 0 <= first_page <= last_page < run.page_count:
        raise VerificationError(what, "pages of the run, each with its path", "others", "Ask for the proof again")
    for number, (page, path) in enumerate(zip(pages, paths, strict=True), first_page):
        rest = run.stop - run.start - number * PAGE_ROWS
        if len(page) != min(rest, PAGE_ROWS) * ROW_BYTES:
            raise VerificationError(f"{what}, page {number}", "a whole page", f"{len(page)} bytes", "Rows are missing")
        merkle.verify_inclusion(merkle.leaf_hash(page), number, run.page_count, path, run.root)
    shown = b"".join(pages)
    rows = [shown[at : at + ROW_BYTES] for at in range(0, len(shown), ROW_BYTES)]
    if any(row >= after for row, after in pairwise(rows)):
        raise VerificationError(what, "rows in order", "others", "The index was not built as it must be")
    if (first_page and rows[0][: len(prefix)] >= prefix) or (
        last_page < run.page_count - 1 and rows[-1][: len(prefix)] <= prefix
    ):
        raise VerificationError(what, "the rows around all that were asked for", "fewer", "Rows may have been left out")
    leaves = [int.from_bytes(row[KEY_BYTES:]) for row in rows if row.startswith(prefix)]
    if any(not run.start <= leaf < run.stop for leaf in leaves):
        raise VerificationError(what, "leaves of the run", "others", "The index was not built as it must be")
    return leaves


def _filter(rows: Rows) -> NDArray[np.uint8]:
    subjects = subject_fingerprints(rows)
    is_first = np.append(True, subjects[1:] != subjects[:-1])
    found = np.concatenate([fingerprints(rows), subjects[is_first]])
    bits = 1 << max(3, (len(found) * _FILTER_BITS - 1).bit_length())
    marks = np.zeros(bits, np.bool_)
    for number in range(_PROBES):
        marks[_probe(found, number, bits)] = True
    return np.packbits(marks, bitorder="little")


def _probe(found: NDArray[np.uint64], number: int, bits: int) -> NDArray[np.int64]:
    if number:
        found = found + ((found >> np.uint64(32)) | np.uint64(1)) * np.uint64(number)
    return (found & np.uint64(bits - 1)).view(np.int64)


def _fields(rows: Rows) -> NDArray[Any]:
    return np.ascontiguousarray(rows).view(">u8").reshape(-1, ROW_BYTES // 8)


def _last_rows(keys: Rows, width: int) -> Rows:
    """What no row that begins with the first `width` bytes of a key comes after."""
    rows = np.ascontiguousarray(keys).view(np.uint8).reshape(-1, ROW_BYTES).copy()
    rows[:, width:] = 0xFF
    return rows.view(ROW).reshape(-1)


def _bounds(prefix: bytes) -> tuple[np.bytes_, np.bytes_]:
    return np.bytes_(prefix.ljust(ROW_BYTES, b"\0")), np.bytes_(prefix.ljust(ROW_BYTES, b"\xff"))


def _path(index: int, size: int, levels: Sequence[bytes]) -> list[bytes]:
    return merkle.inclusion_proof(index, size, lambda level, at: levels[level][at * HASH_BYTES : (at + 1) * HASH_BYTES])


def _tree(hashes: Sequence[bytes]) -> bytes:
    tree = merkle.CompactRange()
    tree.extend(hashes)
    return tree.root()
