"""The right edge of the tree against ten lines of RFC 9162, however the leaves come in."""

import functools
from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.ledger.frontier import TILE_HASHES, Edge, Frontier
from consent.ledger.store import INNER_HEIGHT, Tile
from consent.log.merkle import EMPTY_ROOT, levels_over

SIZES = [0, 1, 2, 3, 255, 256, 257, 511, 512, 5_000, 65_535, 65_536, 65_537, 66_000]


@functools.cache
def leaves(size: int) -> list[bytes]:
    return [sha256(b"\0" + leaf.to_bytes(8)).digest() for leaf in range(size)]


def tree(hashes: Sequence[bytes]) -> bytes:
    """RFC 9162, 2.1.1."""
    if len(hashes) < 2:
        return hashes[0] if hashes else sha256(b"").digest()
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return sha256(b"\1" + tree(hashes[:split]) + tree(hashes[split:])).digest()


@functools.cache
def root_of(size: int) -> bytes:
    return tree(leaves(66_000)[:size])


@functools.cache
def tiles_of(size: int) -> list[Tile]:
    """Every full tile, level by level, each hash by the reference."""
    found, hashes, level = [], leaves(66_000)[:size], 0
    while len(hashes) >= TILE_HASHES:
        parts = [
            hashes[at : at + TILE_HASHES] for at in range(0, len(hashes) // TILE_HASHES * TILE_HASHES, TILE_HASHES)
        ]
        for number, part in enumerate(parts):
            widths = [1 << height for height in range(INNER_HEIGHT, 9)]
            inner = b"".join(tree(part[at : at + width]) for width in widths for at in range(0, TILE_HASHES, width))
            found.append(Tile(level, number, b"".join(part), inner))
        hashes, level = [tree(part) for part in parts], level + 1
    return found


@settings(max_examples=30, deadline=None)
@given(size=st.sampled_from(SIZES), cuts=st.lists(st.floats(0, 1), max_size=8))
def test_in_any_batches_the_root_and_the_tiles_are_those_of_the_whole_tree(size: int, cuts: list[float]) -> None:
    frontier, tiles = Frontier(), list[Tile]()
    for start, stop in pairwise([0, *sorted(int(cut * size) for cut in cuts), size]):
        frontier, complete = frontier.grown(leaves(66_000)[start:stop])
        tiles += complete
        assert frontier.size == stop
    assert frontier.root() == root_of(size)
    assert sorted(tiles) == tiles_of(size)


def test_leaf_by_leaf_every_size_has_its_root() -> None:
    frontier = Frontier()
    for size in range(600):
        assert frontier.root() == root_of(size)
        frontier, _ = frontier.grown([leaves(66_000)[size]])


def test_an_empty_tree_has_the_root_of_nothing() -> None:
    assert Frontier().root() == EMPTY_ROOT == root_of(0)
    assert Frontier().grown([]) == (Frontier(), [])


def test_growing_changes_nothing_of_what_was() -> None:
    before, _ = Frontier().grown(leaves(66_000)[:300])
    kept = (before.size, before.edges, before.root())
    before.grown(leaves(66_000)[300:900])
    assert (before.size, before.edges, before.root()) == kept


@pytest.mark.parametrize("size", [1, 255, 256, 300, 65_536, 65_900])
def test_a_frontier_is_found_again_in_tiles_and_leaves(size: int) -> None:
    grown, tiles = Frontier().grown(leaves(66_000)[:size])
    edges, hashes, level, count = [], leaves(66_000)[:size], 0, size
    while count:
        edges.append(Edge.over(hashes[count - count % TILE_HASHES :]))
        hashes = [tile.root for tile in tiles if tile.level == level]
        count, level = count // TILE_HASHES, level + 1
    assert Frontier(size, tuple(edges)) == grown
    assert all(grown.hashes(at) == edge.hashes for at, edge in enumerate(edges))
    assert grown.hashes(len(edges)) == ()


@given(st.integers(1, 256))
def test_levels_over_any_number_of_neighbours_hold_every_perfect_subtree(count: int) -> None:
    hashes = leaves(66_000)[:count]
    for level, found in enumerate(levels_over(b"".join(hashes))):
        width = 1 << level
        assert [found[at : at + 32] for at in range(0, len(found), 32)] == [
            tree(hashes[at : at + width]) for at in range(0, count // width * width, width)
        ]
