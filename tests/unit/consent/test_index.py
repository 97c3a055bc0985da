"""The state index against what it says it is: everything sorted once, a dictionary, and ten lines of RFC 9162."""

import copy
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.log import index
from consent.log.index import BLOCK, KEY_BYTES, RADIX, ROW_BYTES, SCOPE_BYTES, SUBJECT_BYTES, Run, StoredRun
from consent.log.merkle import VerificationError, levels_over

ENTRY_BYTES = 64
SIZES = (1, 31, 32, 33, 2_047, 2_049, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 40, 4 * BLOCK, 5 * BLOCK + 2_100)
SUBJECTS = 23
NOBODY = b"\x80" + bytes(15)


def subject_key(number: int) -> bytes:
    """The lowest and the highest key there can be, ones with zeros inside, and others."""
    special = [bytes(16), b"\xff" * 16, bytes(15) + b"\1", b"\0a" * 8, b"a" + bytes(15)]
    return special[number] if number < len(special) else sha256(bytes([number])).digest()[:SUBJECT_BYTES]


def entries_of(size: int, seed: int) -> bytes:
    """Log entries of a few subjects with three scopes each; most have one signal, every ninth repeats one."""
    drawn = np.random.default_rng(seed)
    whole = drawn.integers(0, 256, (size, ENTRY_BYTES), np.uint8)
    subjects = np.array([list(subject_key(number)) for number in range(SUBJECTS)], np.uint8)
    whole[:, :SUBJECT_BYTES] = subjects[drawn.zipf(1.3, size) % SUBJECTS]
    whole[:, SUBJECT_BYTES : SUBJECT_BYTES + SCOPE_BYTES] = drawn.integers(0, 3, (size, 1), np.uint8)
    if size > 9:
        whole[9::9, :KEY_BYTES] = whole[: len(whole[9::9]), :KEY_BYTES]
    return whole.tobytes()


def keys_of(entries: bytes) -> list[bytes]:
    return [entries[at : at + KEY_BYTES] for at in range(0, len(entries), ENTRY_BYTES)]


def leaves_with(entries: bytes, prefix: bytes) -> list[int]:
    return [leaf for leaf, key in enumerate(keys_of(entries)) if key.startswith(prefix)]


def sorted_once(entries: bytes, start: int, stop: int) -> bytes:
    """The rows of a run as the format says, by nothing but Python's order of bytes."""
    keys = keys_of(entries)
    return b"".join(sorted(keys[leaf] + leaf.to_bytes(8) for leaf in range(start, stop)))


def tree(hashes: Sequence[bytes]) -> bytes:
    """RFC 9162, 2.1.1."""
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return sha256(b"\1" + tree(hashes[:split]) + tree(hashes[split:])).digest()


def borders(size: int) -> Iterator[tuple[int, int]]:
    """The runs a ledger of this size has: the digits of its whole blocks to the base of four, then the rest."""
    start, width = 0, BLOCK
    while width * RADIX <= size:
        width *= RADIX
    while width >= BLOCK:
        while start + width <= size:
            yield start, start + width
            start += width
        width //= RADIX
    if start < size:
        yield start, size


def expected_state(entries: bytes) -> list[Run]:
    runs = []
    for start, stop in borders(len(entries) // ENTRY_BYTES):
        rows = sorted_once(entries, start, stop)
        pages = [rows[at : at + 32 * ROW_BYTES] for at in range(0, len(rows), 32 * ROW_BYTES)]
        runs.append(Run(start, stop, tree([sha256(b"\0" + page).digest() for page in pages])))
    return runs


@dataclass
class Log:
    """An index that grows in memory, as the ledger's grows in its store."""

    runs: list[Run] = field(default_factory=list)
    young: index.Rows = field(default_factory=lambda: np.empty(0, index.ROW))
    stored: dict[Run, tuple[StoredRun, list[bytes]]] = field(default_factory=dict)
    size: int = 0

    def extend(self, entries: bytes) -> None:
        rows = index.rows_of(entries, self.size)
        self.runs, self.young, steps = index.grown(self.runs, self.young, rows, self.rows)
        for step in steps:
            for run in step.replaced:
                self.stored.pop(run, None)
            self.stored[step.made.run] = (step.made, step.chunks)
        self.size += len(rows)

    def rows(self, run: Run) -> index.Rows:
        return np.frombuffer(b"".join(self.stored[run][1]), index.ROW)

    @property
    def state(self) -> list[Run]:
        return index.all_runs(self.runs, self.young)

    def parts(self) -> list[tuple[StoredRun, list[bytes]]]:
        found = [self.stored[run] for run in self.runs]
        start = self.runs[-1].stop if self.runs else 0
        return [*found, index.make_run(start, self.size, self.young)] if len(self.young) else found

    def prove(self, prefix: bytes) -> dict[str, Any]:
        return index.state_proof(
            prefix, [index.prove_run(run, chunks.__getitem__, prefix) for run, chunks in self.parts()]
        )

    def verified(self, proof: dict[str, Any], prefix: bytes) -> list[int]:
        return index.verify_state_proof(proof, prefix, self.size, index.state_root(self.state))


@functools.cache
def log_of(size: int, seed: int = 1) -> tuple[bytes, Log]:
    entries, log = entries_of(size, seed), Log()
    log.extend(entries)
    return entries, log


prefixes = st.one_of(
    st.integers(0, SUBJECTS - 1).map(subject_key),
    st.tuples(st.integers(0, SUBJECTS - 1), st.integers(0, 3)).map(lambda at: subject_key(at[0]) + bytes([at[1]]) * 8),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=24, max_size=24),
)


@settings(max_examples=25, deadline=None)
@given(size=st.sampled_from(SIZES), cuts=st.lists(st.floats(0, 1), max_size=6), seed=st.integers(0, 3))
def test_in_any_batches_runs_and_roots_are_those_of_sorting_everything_once(
    size: int, cuts: list[float], seed: int
) -> None:
    entries, log = entries_of(size, seed), Log()
    places = [0, *sorted(int(cut * size) for cut in cuts), size]
    for start, stop in pairwise(places):
        log.extend(entries[start * ENTRY_BYTES : stop * ENTRY_BYTES])
    assert log.state == expected_state(entries)
    assert list(log.stored) == log.runs
    for run, (_, chunks) in log.stored.items():
        assert b"".join(chunks) == sorted_once(entries, run.start, run.stop)


def test_one_row_at_a_time_is_the_same_as_all_at_once() -> None:
    entries, log = entries_of(BLOCK + 3, 4), Log()
    log.extend(entries[: (BLOCK - 3) * ENTRY_BYTES])
    for leaf in range(BLOCK - 3, BLOCK + 3):
        log.extend(entries[leaf * ENTRY_BYTES : (leaf + 1) * ENTRY_BYTES])
    assert log.state == expected_state(entries)


def test_the_state_root_is_what_the_format_says() -> None:
    runs = [Run(0, 4096, b"\1" * 32), Run(4096, 4100, b"\2" * 32)]
    whole = b"troth-consent-index-v1\0" + bytes(8) + (4096).to_bytes(8) + b"\1" * 32
    whole += (4096).to_bytes(8) + (4100).to_bytes(8) + b"\2" * 32
    assert index.state_root(runs) == sha256(whole).digest()
    assert index.state_root([]) == sha256(b"troth-consent-index-v1\0").digest()


@settings(max_examples=150, deadline=None)
@given(size=st.sampled_from(SIZES), prefix=prefixes)
def test_a_proof_gives_all_leaves_of_a_subject_or_a_scope_and_none_for_who_was_never_asked(
    size: int, prefix: bytes
) -> None:
    entries, log = log_of(size)
    assert log.verified(log.prove(prefix), prefix) == leaves_with(entries, prefix)


def test_an_empty_ledger_proves_that_nobody_was_asked() -> None:
    assert Log().verified(Log().prove(NOBODY), NOBODY) == []


@settings(max_examples=150, deadline=None)
@given(size=st.sampled_from(SIZES), prefix=prefixes)
def test_what_is_looked_up_is_what_a_dictionary_holds(size: int, prefix: bytes) -> None:
    entries, log = log_of(size)
    found = [
        int(leaf)
        for run, chunks in log.parts()
        for leaf in index.leaf_indexes(index.rows_with(run, chunks.__getitem__, prefix))
    ]
    assert sorted(found) == leaves_with(entries, prefix)


@settings(max_examples=30, deadline=None)
@given(size=st.sampled_from(SIZES), width=st.sampled_from([SUBJECT_BYTES, KEY_BYTES]), data=st.data())
def test_many_keys_are_found_at_their_first_leaf_and_absent_ones_are_not(
    size: int, width: int, data: st.DataObject
) -> None:
    entries, log = log_of(size)
    held = [key[:width] for key in keys_of(entries)]
    absent = data.draw(st.lists(st.binary(min_size=width, max_size=width), max_size=5))
    asked = [held[data.draw(st.integers(0, size - 1))] for _ in range(20)]
    asked = data.draw(st.permutations([*asked, *absent, bytes(width), b"\xff" * width, *held[:: max(size // 300, 1)]]))
    rows = index.rows_of_keys(b"".join(asked), width)
    prints = (index.fingerprints if width == KEY_BYTES else index.subject_fingerprints)(rows)
    for run, chunks in log.parts():
        first: dict[bytes, int] = {}
        for leaf in range(run.run.start, run.run.stop):
            first.setdefault(held[leaf], leaf)
        expected = {at: first[key] for at, key in enumerate(asked) if key in first}
        assert index.find_in_run(run, chunks.__getitem__, rows, prints, width) == expected
        positions, leaves = index.find(np.frombuffer(b"".join(chunks), index.ROW), rows, width)
        assert dict(zip(positions.tolist(), leaves.tolist(), strict=True)) == expected


def test_a_filter_never_hides_what_is_there_and_seldom_lets_through_what_is_not() -> None:
    _, log = log_of(SIZES[-1])
    for run, chunks in log.parts():
        rows = np.frombuffer(b"".join(chunks), index.ROW)
        assert len(index.may_hold(run, index.fingerprints(rows))) == len(rows)
        assert len(index.may_hold(run, index.subject_fingerprints(rows))) == len(rows)
        others = index.rows_of(entries_of(5_000, 77), 0)
        assert len(index.may_hold(run, index.fingerprints(others))) < 100


def lies(proof: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every way to leave something out of a proof, or to say another thing in it."""

    def changed(at: int, **values: Any) -> dict[str, Any]:
        return {**proof, "runs": [*proof["runs"][:at], {**proof["runs"][at], **values}, *proof["runs"][at + 1 :]]}

    yield "without format", {**proof, "format": "troth state proof 2"}
    yield "no runs", {**proof, "runs": []}
    yield "runs in another order", {**proof, "runs": proof["runs"][::-1]} if len(proof["runs"]) > 1 else {}
    yield "no list", {**proof, "runs": None}
    for at, run in enumerate(proof["runs"]):
        start, stop, first, pages, paths = (run[name] for name in ("start", "stop", "first_page", "pages", "paths"))
        yield f"run {at} left out", {**proof, "runs": proof["runs"][:at] + proof["runs"][at + 1 :]}
        yield f"run {at} twice", {**proof, "runs": [*proof["runs"][: at + 1], run, *proof["runs"][at + 1 :]]}
        for name in run:
            without = {key: value for key, value in run.items() if key != name}
            yield (
                f"run {at} without {name}",
                {**proof, "runs": [*proof["runs"][:at], without, *proof["runs"][at + 1 :]]},
            )
        for name, wrong in (("start", start), ("stop", stop), ("first_page", first)):
            for value in (wrong + 1, wrong - 1, -wrong - 1, float(wrong), str(wrong), None, 2**64 + wrong):
                yield f"run {at}, {name} {value!r}", changed(at, **{name: value})
        yield f"run {at}, no pages", changed(at, pages=[], paths=[])
        yield f"run {at}, another root", changed(at, root="00" * 32)
        for page, held in enumerate(pages):
            fewer = {"pages": pages[:page] + pages[page + 1 :], "paths": paths[:page] + paths[page + 1 :]}
            later = {"first_page": first + 1} if page == 0 else {}
            if len(pages) == 1 or 0 < page < len(pages) - 1:
                yield f"run {at}, page {page} left out", changed(at, **fewer, **later)
            for row in range(0, len(held), 10 * ROW_BYTES):
                cut = held[:row] + held[row + 2 * ROW_BYTES :]
                yield (
                    f"run {at}, page {page}, row {row} left out",
                    changed(at, pages=[*pages[:page], cut, *pages[page + 1 :]]),
                )
            for other in {f" {held}", held.upper()} - {held}:
                yield (
                    f"run {at}, page {page} written otherwise",
                    changed(at, pages=[*pages[:page], other, *pages[page + 1 :]]),
                )
            yield f"run {at}, page {page}, no path", changed(at, paths=[*paths[:page], *paths[page + 1 :]])
            yield (
                f"run {at}, page {page}, longer path",
                changed(at, paths=[*paths[:page], [*paths[page], "00" * 32], *paths[page + 1 :]]),
            )
            if paths[page]:
                yield (
                    f"run {at}, page {page}, shorter path",
                    changed(at, paths=[*paths[:page], paths[page][:-1], *paths[page + 1 :]]),
                )


@pytest.mark.parametrize("size", [40, BLOCK + 100, 2 * BLOCK + 40])
@pytest.mark.parametrize("prefix", [subject_key(0), subject_key(1), subject_key(7) + b"\1" * 8, NOBODY], ids=bytes.hex)
def test_whatever_is_left_out_of_a_proof_or_said_otherwise_is_refused(size: int, prefix: bytes) -> None:
    _, log = log_of(size)
    proof = log.prove(prefix)
    log.verified(proof, prefix)
    for lie, told in lies(proof):
        with pytest.raises(VerificationError):
            pytest.fail(f"{lie}: accepted as {log.verified(told, prefix)}")


@pytest.mark.parametrize("size", [40, BLOCK + 33])
def test_every_one_bit_change_of_a_proof_is_refused(size: int) -> None:
    _, log = log_of(size)
    prefix = subject_key(SUBJECTS - 1)
    proof = log.prove(prefix)
    places = [
        (run, name, at)
        for run, shown in enumerate(proof["runs"])
        for name, values in (("root", [shown["root"]]), ("pages", shown["pages"]), ("paths", [*chain(*shown["paths"])]))
        for at in range(len(values))
    ]
    for run, name, at in places:
        length = {"root": 32, "pages": ROW_BYTES * 8, "paths": 32}[name]
        for bit in range(0, length * 8, 1 if name != "pages" else 7):
            told = copy.deepcopy(proof)
            _flip(told["runs"][run], name, at, bit)
            with pytest.raises(VerificationError):
                log.verified(told, prefix)


def _flip(shown: dict[str, Any], name: str, at: int, bit: int) -> None:
    def flipped(text: str) -> str:
        data = bytearray.fromhex(text)
        data[bit // 8 % len(data)] ^= 1 << bit % 8
        return data.hex()

    if name == "root":
        shown["root"] = flipped(shown["root"])
    elif name == "pages":
        shown["pages"][at] = flipped(shown["pages"][at])
    else:
        for path in shown["paths"]:
            if at < len(path):
                path[at] = flipped(path[at])
                return
            at -= len(path)


def test_a_proof_of_one_state_is_none_of_another() -> None:
    _, log = log_of(BLOCK + 100)
    _, other = log_of(BLOCK + 100, seed=2)
    prefix = subject_key(3)
    for told, asked in ((other.prove(prefix), prefix), (log.prove(subject_key(4)), prefix)):
        with pytest.raises(VerificationError):
            log.verified(told, asked)
    with pytest.raises(VerificationError):
        index.verify_state_proof(log.prove(prefix), prefix, log.size + 1, index.state_root(log.state))


def test_a_keeper_who_sorted_wrongly_is_refused() -> None:
    """The root is the keeper's own, so only the order of the rows shown can tell."""
    entries, prefix = entries_of(100, 6), subject_key(0)
    rows = np.sort(index.rows_of(entries, 0), kind="stable")
    mine = index.matching(rows, prefix)
    assert mine.stop - mine.start >= 2
    hidden = np.concatenate(
        [
            rows[: mine.start],
            rows[mine.start + 1 : mine.start + 40],
            rows[mine.start : mine.start + 1],
            rows[mine.start + 40 :],
        ]
    )
    run, chunks = index.make_run(0, 100, hidden)
    proof = index.state_proof(prefix, [index.prove_run(run, chunks.__getitem__, prefix)])
    proof["runs"][0].update(first_page=0)
    everything = [b"".join(chunks)[at : at + 32 * ROW_BYTES] for at in range(0, 100 * ROW_BYTES, 32 * ROW_BYTES)]
    hashes = [sha256(b"\0" + page).digest() for page in everything]
    proof["runs"][0]["pages"] = [page.hex() for page in everything]
    proof["runs"][0]["paths"] = [
        [each.hex() for each in index._path(at, 4, levels_over(b"".join(hashes)))] for at in range(4)
    ]
    with pytest.raises(VerificationError, match="rows in order"):
        index.verify_state_proof(proof, prefix, 100, index.state_root([run.run]))
