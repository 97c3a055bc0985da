"""The right edge of the log's tree, tile by tile: enough to append to it, to name its root and to cut full tiles off it."""

from collections.abc import Sequence
from dataclasses import dataclass

from consent.ledger.store import INNER_HEIGHT, Tile
from consent.log.merkle import CompactRange, joined, levels_over

TILE_HEIGHT = 8
TILE_HASHES = 1 << TILE_HEIGHT


@dataclass(frozen=True)
class Edge:
    """The incomplete tile of one level: its hashes, and the roots of the perfect subtrees they form."""

    hashes: tuple[bytes, ...] = ()
    peaks: tuple[bytes, ...] = ()

    @staticmethod
    def over(hashes: Sequence[bytes]) -> "Edge":
        tree = CompactRange()
        tree.extend(hashes)
        return Edge(tuple(hashes), tree.peaks)


@dataclass(frozen=True)
class Frontier:
    """Edges of a tree of `size` leaves, from the leaves up."""

    size: int = 0
    edges: tuple[Edge, ...] = ()

    def root(self) -> bytes:
        return joined([peak for edge in reversed(self.edges) for peak in edge.peaks])

    def hashes(self, level: int) -> tuple[bytes, ...]:
        """Hashes of the incomplete tile at a tile level."""
        return self.edges[level].hashes if level < len(self.edges) else ()

    def grown(self, leaf_hashes: Sequence[bytes]) -> tuple["Frontier", list[Tile]]:
        """The frontier with more leaves, and the tiles they completed."""
        edges, tiles = list(self.edges), []
        fresh, level, size = list(leaf_hashes), 0, self.size
        while fresh:
            if level == len(edges):
                edges.append(Edge())
            edges[level], complete = _extended(edges[level], fresh, level, size // TILE_HASHES)
            tiles += complete
            fresh = [tile.root for tile in complete]
            size //= TILE_HASHES
            level += 1
        return Frontier(self.size + len(leaf_hashes), tuple(edges)), tiles


def _extended(edge: Edge, fresh: list[bytes], level: int, number: int) -> tuple[Edge, list[Tile]]:
    tiles: list[Tile] = []
    hashes, tree = list(edge.hashes), CompactRange(len(edge.hashes), edge.peaks)
    at = 0
    while at < len(fresh):
        part = fresh[at : at + TILE_HASHES - len(hashes)]
        at += len(part)
        hashes += part
        if len(hashes) == TILE_HASHES:
            levels = levels_over(b"".join(hashes))
            tiles.append(Tile(level, number + len(tiles), levels[0], b"".join(levels[INNER_HEIGHT:])))
            hashes, tree = [], CompactRange()
        else:
            tree.extend(part)
    return Edge(tuple(hashes), tree.peaks), tiles
