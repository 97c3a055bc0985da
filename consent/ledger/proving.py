"""Hashes of perfect subtrees and inclusion proofs, from stored tiles and the frontier, many at once where they share tiles."""

from collections.abc import Callable, Sequence
from itertools import groupby

from consent.errors import LedgerError
from consent.ledger.frontier import TILE_HASHES, TILE_HEIGHT, Frontier
from consent.ledger.store import INNER_HEIGHT, StoredTile
from consent.log import merkle
from consent.log.merkle import HASH_BYTES

_CACHED = 1_024  # upper tiles with their inner levels, 16 KiB each: those of 67 million leaves
_GROUP = 1 << INNER_HEIGHT


class Tiles:
    """Full tiles, which never change, from where they rest. Those above the leaves are kept in memory."""

    def __init__(self, read: Callable[[int, int], StoredTile | None]) -> None:
        self._read = read
        self._upper: dict[tuple[int, int], list[bytes]] = {}

    def stored(self, level: int, number: int) -> StoredTile:
        """Raises: LedgerError when the tile is missing or cut short."""
        tile = self._read(level, number)
        held = len(tile.hashes) // HASH_BYTES if tile else 0
        if tile is None or held != TILE_HASHES:
            raise LedgerError(
                f"ledger tile {level}/{number}: expected {TILE_HASHES} hashes, found {held}. "
                "Restore the ledger from a backup."
            )
        return tile

    def levels(self, level: int, number: int) -> list[bytes]:
        """All levels inside a tile."""
        found = self._upper.get((level, number))
        if found is None:
            found = merkle.levels_over(self.stored(level, number).hashes)
            if level:
                if len(self._upper) >= _CACHED:
                    self._upper.clear()
                self._upper[(level, number)] = found
        return found


class Prover:
    """Proves over the tree of one frontier."""

    def __init__(self, tiles: Tiles, frontier: Frontier) -> None:
        self._tiles = tiles
        self._frontier = frontier
        self._edges: dict[int, list[bytes]] = {}
        self._paths: dict[tuple[int, int], list[bytes]] = {}  # of tiles of tiles, by (number, size)

    def node(self, level: int, at: int) -> bytes:
        """Hash of the perfect subtree `at` of a level, from the tile that holds it or its children."""
        tile_level, inside = divmod(level, TILE_HEIGHT)
        number, offset = divmod(at << inside, TILE_HASHES)
        if (at + 1) << level > self._frontier.size:
            size = self._frontier.size
            raise LedgerError(f"ledger: expected leaves below {size}, found a subtree beyond. Ask for less.")
        if (number + 1) * TILE_HASHES > self._frontier.size >> (tile_level * TILE_HEIGHT):
            return _at(self._edge(tile_level)[inside], offset >> inside)
        return _at(self._tiles.levels(tile_level, number)[inside], offset >> inside)

    def inclusion_proofs(self, leaves: Sequence[int], size: int) -> list[list[bytes]]:
        """RFC 9162 audit paths of leaves in the tree of the first `size`, in the order asked."""
        proofs: dict[int, list[bytes]] = {}
        whole = size // TILE_HASHES
        for number, group in groupby(sorted(set(leaves)), key=lambda leaf: leaf // TILE_HASHES):
            if number >= whole:
                proofs.update((leaf, merkle.inclusion_proof(leaf, size, self.node)) for leaf in group)
                continue
            tile, above = self._tiles.stored(0, number), self._path_of_tile(number, size)
            for leaf in group:
                proofs[leaf] = _path_in_tile(tile, leaf % TILE_HASHES) + above
        return [proofs[leaf] for leaf in leaves]

    def _path_of_tile(self, number: int, size: int) -> list[bytes]:
        """The path of a whole tile of leaves, as if tiles were the leaves and a partial last one were one too."""
        upper, offset = divmod(number, TILE_HASHES)
        if (upper + 1) * TILE_HASHES > size // TILE_HASHES:
            return merkle.subtree_path(number, TILE_HEIGHT, size, self.node)
        levels = self._tiles.levels(1, upper)
        inside = [_at(levels[level], (offset >> level) ^ 1) for level in range(TILE_HEIGHT)]
        above = self._paths.get((upper, size))
        if above is None:
            above = self._paths[(upper, size)] = merkle.subtree_path(upper, 2 * TILE_HEIGHT, size, self.node)
        return inside + above

    def _edge(self, tile_level: int) -> list[bytes]:
        """All levels inside the incomplete tile of a level, as far as its hashes reach."""
        levels = self._edges.get(tile_level)
        if levels is None:
            levels = self._edges[tile_level] = merkle.levels_over(b"".join(self._frontier.hashes(tile_level)))
        return levels


def _path_in_tile(tile: StoredTile, offset: int) -> list[bytes]:
    """Siblings on the way from a leaf to its tile's root: few hashes, for the tile brings the levels above its sixteens."""
    group, at = divmod(offset, _GROUP)
    hashes = tile.hashes[group * _GROUP * HASH_BYTES : (group + 1) * _GROUP * HASH_BYTES]
    path = [_at(hashes, at ^ 1)]
    while len(hashes) > 2 * HASH_BYTES:
        hashes, at = merkle.level_above(hashes), at >> 1
        path.append(_at(hashes, at ^ 1))
    start, width = 0, TILE_HASHES // _GROUP
    while width > 1:
        path.append(_at(tile.inner, start + (group ^ 1)))
        start, width, group = start + width, width // 2, group // 2
    return path


def _at(hashes: bytes, number: int) -> bytes:
    return hashes[number * HASH_BYTES : (number + 1) * HASH_BYTES]
