"""Proofs from tiles and the frontier, many at once, against proofs over all the leaves."""

import functools
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.errors import LedgerError
from consent.ledger.frontier import TILE_HASHES, Frontier
from consent.ledger.proving import Prover, Tiles
from consent.ledger.store import StoredTile
from consent.log import merkle
from consent.log.merkle import VerificationError, verify_consistency, verify_inclusion

SIZES = [1, 2, 255, 256, 257, 700, 4_096, 65_535, 65_536, 65_537, 70_000]
LARGEST = SIZES[-1]


class Nodes:
    """Every perfect subtree of the first `LARGEST` leaves, hashed on demand."""

    def __init__(self) -> None:
        leaves = b"".join(sha256(b"\0" + leaf.to_bytes(8)).digest() for leaf in range(LARGEST))
        self.levels = [leaves]
        while len(self.levels[-1]) > 32:
            below = self.levels[-1]
            self.levels.append(merkle.level_above(below[: len(below) // 64 * 64]))

    def __call__(self, level: int, at: int) -> bytes:
        return self.levels[level][at * 32 : at * 32 + 32]

    def leaves(self, size: int) -> list[bytes]:
        return [self(0, leaf) for leaf in range(size)]


@functools.cache
def nodes() -> Nodes:
    return Nodes()


@functools.cache
def grown(size: int) -> tuple[Frontier, dict[tuple[int, int], StoredTile]]:
    frontier, tiles = Frontier().grown(nodes().leaves(size))
    return frontier, {(tile.level, tile.number): StoredTile(tile.hashes, tile.inner) for tile in tiles}


def prover(size: int) -> Prover:
    frontier, stored = grown(size)
    return Prover(Tiles(lambda level, number: stored.get((level, number))), frontier)


@settings(max_examples=60, deadline=None)
@given(size=st.sampled_from(SIZES), data=st.data())
def test_many_proofs_at_once_are_those_over_all_leaves_in_the_order_asked(size: int, data: st.DataObject) -> None:
    past = data.draw(st.integers(1, size))
    leaves = data.draw(st.lists(st.integers(0, past - 1), max_size=40))
    found = prover(size).inclusion_proofs(leaves, past)
    assert found == [merkle.inclusion_proof(leaf, past, nodes()) for leaf in leaves]
    root = merkle.tree_root(past, nodes())
    for leaf, proof in zip(leaves, found, strict=True):
        verify_inclusion(nodes()(0, leaf), leaf, past, proof, root)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_one_prover_answers_for_all_sizes_there_were_in_any_order(data: st.DataObject) -> None:
    mine = prover(LARGEST)
    for past in data.draw(st.lists(st.integers(1, LARGEST), min_size=2, max_size=5)):
        leaves = [0, past // 2, past - 1]
        assert mine.inclusion_proofs(leaves, past) == [merkle.inclusion_proof(leaf, past, nodes()) for leaf in leaves]


@settings(max_examples=60, deadline=None)
@given(size=st.sampled_from(SIZES), data=st.data())
def test_a_past_is_proved_to_be_the_beginning_of_a_later_one(size: int, data: st.DataObject) -> None:
    new = data.draw(st.integers(1, size))
    old = data.draw(st.integers(1, new))
    node = prover(size).node
    proof = merkle.consistency_proof(old, new, node)
    assert merkle.tree_root(old, node) == merkle.tree_root(old, nodes())
    verify_consistency(old, new, merkle.tree_root(old, node), merkle.tree_root(new, node), proof)


@pytest.mark.parametrize("size", SIZES)
def test_every_perfect_subtree_is_at_hand_and_none_beyond(size: int) -> None:
    mine = prover(size)
    for level in range(size.bit_length()):
        whole = size >> level
        for at in {0, whole // 3, whole - 1}:
            assert mine.node(level, at) == nodes()(level, at)
        with pytest.raises(LedgerError, match="a subtree beyond"):
            mine.node(level, whole)


@given(size=st.sampled_from(SIZES[3:]), data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_proof_is_of_its_leaf_its_size_and_its_root_alone(size: int, data: st.DataObject) -> None:
    leaf = data.draw(st.integers(0, size - 1))
    (proof,) = prover(size).inclusion_proofs([leaf], size)
    root, hashed = merkle.tree_root(size, nodes()), nodes()(0, leaf)
    at, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
    changed = [*proof]
    changed[at] = (int.from_bytes(proof[at]) ^ 1 << bit).to_bytes(32)
    for other in (changed, proof[:-1], [*proof, proof[0]], proof[1:], proof[::-1] if len(set(proof)) > 1 else []):
        with pytest.raises(VerificationError):
            verify_inclusion(hashed, leaf, size, other, root)
    for wrong in (leaf ^ 1, leaf + size):
        with pytest.raises(VerificationError):
            verify_inclusion(hashed, wrong, size, proof, root)


@pytest.mark.parametrize("cut", [0, 32, TILE_HASHES * 32 - 32, TILE_HASHES * 32 + 32])
def test_a_tile_that_is_missing_or_has_another_length_is_refused(cut: int) -> None:
    frontier, stored = grown(700)
    damaged = {place: StoredTile((tile.hashes * 2)[:cut], tile.inner) for place, tile in stored.items()} if cut else {}
    mine = Prover(Tiles(lambda level, number: damaged.get((level, number))), frontier)
    for read in (lambda: mine.inclusion_proofs([3], 700), lambda: mine.node(4, 2)):
        with pytest.raises(LedgerError, match="expected 256 hashes"):
            read()


def test_tiles_above_the_leaves_are_read_once() -> None:
    frontier, stored = grown(LARGEST)
    asked: list[tuple[int, int]] = []

    def read(level: int, number: int) -> StoredTile | None:
        asked.append((level, number))
        return stored.get((level, number))

    tiles = Tiles(read)
    for _ in range(3):
        Prover(tiles, frontier).inclusion_proofs([5, 300], LARGEST)
    assert asked.count((1, 0)) == 1
