"""A log as files that any reader of tiles understands (c2sp.org/tlog-tiles), and back, every byte checked.

    checkpoint    tile/<level>/<index>[.p/<width>]    tile/entries/<index>[.p/<width>]

The writer puts a checkpoint in its place only when all it stands on is on the disk; the reader believes nothing that
the checkpoint's signature does not lead to. Of ours it imports `merkle`, `note` and the ground floor alone.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from itertools import count
from pathlib import Path

from consent.log.merkle import HASH_BYTES, Node, VerificationError, level_above, tree_root
from consent.log.note import Checkpoint, Verifier, open_checkpoint
from troth.home import alone, sync

# Entries [start, stop) of the log.
Entries = Callable[[int, int], Sequence[bytes]]

WIDTH = 256  # hashes in a full tile: a subtree of height 8
HEIGHT = 8
CHECKPOINT = "checkpoint"
ENTRIES = "entries"
INCOMING = ".incoming"  # files on their way, in the exported folder; no reader looks there
MAXIMUM_ENTRY_BYTES = 2**16 - 1
_BLOCK = 64 * WIDTH
_CACHED_TILES = 1024  # 8 MiB
_SYNCS_AT_ONCE = 8
_NAME = re.compile(r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII)
_AGAIN = "Take the tiles again from their source"


def tile_path(level: int | str, index: int, width: int = WIDTH) -> str:
    """Where a tile lies: `tile/0/x001/x234/067.p/12`. `level`: from 0, or ENTRIES for the entries under level 0."""
    parts = [f"{index % 1000:03d}"]
    while index := index // 1000:
        parts.insert(0, f"x{index % 1000:03d}")
    return f"tile/{level}/{'/'.join(parts)}" + (f".p/{width}" if width < WIDTH else "")


def export_tiles(folder: Path, note: str, verifier: Verifier, node: Node, entries: Entries) -> Checkpoint:
    """Write the log of a checkpoint's note, or what is new in it since the last export into the same folder.

    Every tile is compared with the tree, the tree with the checkpoint, and the checkpoint with the one exported before:
    a log that shrank or forked is refused and the folder stays as it was. Partial tiles go when the full one is there.
    Raises: VerificationError.
    """
    checkpoint = open_checkpoint(note, verifier)
    _compare_root(checkpoint, node)
    folder.mkdir(parents=True, exist_ok=True)
    with _only_writer(folder) as writer:
        before = _text(folder / CHECKPOINT) if (folder / CHECKPOINT).exists() else None
        start = 0
        if before is not None:
            exported = open_checkpoint(before, verifier)
            if exported.size > checkpoint.size:
                raise VerificationError(
                    "checkpoint", f"at least size {exported.size}", f"{checkpoint.size}", "The log was rolled back"
                )
            _compare_root(exported, node)
            start = exported.size
        if before != note:
            _write_entries(writer, start, checkpoint.size, node, entries)
            _write_levels(writer, start, checkpoint.size, node)
            writer.sync()
            writer.write(CHECKPOINT, note.encode())
            writer.sync()
            _remove_superseded(folder, start, checkpoint.size)
    return checkpoint


class Tiles:
    """An exported log, read back. What `node` and `entries` give was traced to the signed checkpoint first."""

    def __init__(self, folder: Path, verifier: Verifier) -> None:
        """Raises: VerificationError unless a checkpoint of this key and the tiles of its right edge give one root."""
        self._folder = folder
        self._full: dict[tuple[int, int], bytes] = {}
        self.note = _text(folder / CHECKPOINT)
        self.checkpoint = open_checkpoint(self.note, verifier)
        widths = {level: self.width(level, index) for level, index in _edge(self.checkpoint.size)}
        self._edge = {
            level: _hashes(folder, level, index, widths[level])
            for level, index in _edge(self.checkpoint.size)
            if widths[level]
        }
        _compare_root(self.checkpoint, self.node)

    def width(self, level: int | str, index: int) -> int:
        """How many hashes or entries a tile has under this checkpoint."""
        held = self.checkpoint.size >> HEIGHT * (0 if isinstance(level, str) else level)
        return max(0, min(WIDTH, held - WIDTH * index)) if index >= 0 else 0

    def node(self, level: int, index: int) -> bytes:
        """The hash of the perfect subtree at (level, index). Raises: VerificationError."""
        tile_level, height = divmod(level, HEIGHT)
        first = index << height
        tile = self.tile(tile_level, first // WIDTH)
        hashes = tile[first % WIDTH * HASH_BYTES :][: HASH_BYTES << height]
        if len(hashes) != HASH_BYTES << height:
            raise VerificationError(
                "tree", f"subtrees of {self.checkpoint.size} entries", f"{level}, {index}", "Ask for what it holds"
            )
        return _top(hashes)

    def entries(self, start: int, stop: int) -> list[bytes]:
        """Entries [start, stop). Raises: VerificationError."""
        if not 0 <= start <= stop <= self.checkpoint.size:
            raise VerificationError(
                "entries", f"a range up to {self.checkpoint.size}", f"{start} to {stop}", "Ask for what the log holds"
            )
        found: list[bytes] = []
        for index in range(start // WIDTH, -(-stop // WIDTH)):
            first = index * WIDTH
            found += self.bundle(index)[max(0, start - first) : stop - first]
        return found

    def tile(self, level: int, index: int) -> bytes:
        """The hashes of a tile, as many as this checkpoint covers. Raises: VerificationError."""
        width = self.width(level, index)
        if width < WIDTH:
            return self._edge[level] if width else b""
        known = self._full.get((level, index))
        if known is None:
            known = _hashes(self._folder, level, index, WIDTH)
            if (top := _top(known)) != (expected := self.node(HEIGHT * (level + 1), index)):
                raise VerificationError(tile_path(level, index), f"tree hash {expected.hex()}", top.hex(), _AGAIN)
            if len(self._full) >= _CACHED_TILES:
                self._full.clear()
            self._full[level, index] = known
        return known

    def bundle(self, index: int) -> list[bytes]:
        """The entries under a tile of level 0, as many as this checkpoint covers. Raises: VerificationError."""
        width = self.width(ENTRIES, index)
        path, raw = _read(self._folder, ENTRIES, index, width)
        found = _unbundled(path, raw)[:width]
        if len(found) != width:
            raise VerificationError(path, f"{width} entries", f"{len(found)}", _AGAIN)
        hashes, expected = _leaf_hashes(found), self.tile(0, index)
        if hashes != expected:
            place = next(n for n in count() if hashes[n * 32 : n * 32 + 32] != expected[n * 32 : n * 32 + 32])
            raise VerificationError(
                f"entry {index * WIDTH + place}",
                f"leaf hash {expected[place * 32 : place * 32 + 32].hex()}",
                hashes[place * 32 : place * 32 + 32].hex(),
                "The entry was changed, moved or replaced",
            )
        return found


def verify_tiles(folder: Path, verifier: Verifier) -> Checkpoint:
    """Check every file of an exported log: each tile, each entry, the root and the signature of the checkpoint.

    Tiles of other sizes, which a reader may still hold a checkpoint of, must agree as far as both go. A file that is
    no tile is refused. Raises: VerificationError.
    """
    tiles = Tiles(folder, verifier)
    size = tiles.checkpoint.size
    for index in range(-(-size // WIDTH)):
        tiles.bundle(index)
    for tile_level, last in _edge(size):
        for index in range(last):
            tiles.tile(tile_level, index)
    for path in _files(folder):
        name = _NAME.fullmatch(path)
        level, index, width = _parts(name) if name else ("", 0, 0)
        if not name or tile_path(level, index, width) != path:
            raise VerificationError(
                path, "a tile or the checkpoint", "another file", "Remove it, or find who put it here"
            )
        if width != tiles.width(level, index):
            _compare_other_size(folder, tiles, level, index, width)
    return tiles.checkpoint


def _compare_other_size(folder: Path, tiles: Tiles, level: int | str, index: int, width: int) -> None:
    """That a tile from before or after the checkpoint says nothing else where both say something."""
    path = tile_path(level, index, width)
    raw = (folder / path).read_bytes()
    if isinstance(level, str):
        theirs, mine = _unbundled(path, raw), tiles.bundle(index) if tiles.width(level, index) else []
    else:
        theirs, mine = _split(raw), _split(tiles.tile(level, index))
    both = min(len(theirs), len(mine))
    if len(theirs) != width or theirs[:both] != mine[:both]:
        raise VerificationError(path, "what the newer tiles hold", "something else", _AGAIN)


class _Writer:
    """Puts files into the folder whole, and makes them durable together."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._incoming = folder / INCOMING
        self._files: list[Path] = []
        self._folders: set[Path] = set()

    def write(self, path: str, data: bytes) -> None:
        target = self._folder / path
        if target.parent not in self._folders:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._folders |= {parent for parent in target.parents if parent.is_relative_to(self._folder)}
        (self._incoming / "file").write_bytes(data)
        os.replace(self._incoming / "file", target)
        self._files.append(target)

    def sync(self) -> None:
        """Returns when all that was written, and its names, would survive a loss of power."""
        with ThreadPoolExecutor(_SYNCS_AT_ONCE) as pool:
            list(pool.map(sync, [*self._files, *self._folders]))
        self._files.clear()
        self._folders.clear()


@contextmanager
def _only_writer(folder: Path) -> Iterator[_Writer]:
    """One export at a time into a folder; what a broken one left on its way is thrown away."""
    with alone(folder):
        shutil.rmtree(folder / INCOMING, ignore_errors=True)
        (folder / INCOMING).mkdir()
        yield _Writer(folder)
        (folder / INCOMING).rmdir()


def _write_entries(writer: _Writer, start: int, size: int, node: Node, entries: Entries) -> None:
    """Entries and tiles of level 0, from the first that is not full yet."""
    for first in range(start // WIDTH * WIDTH if size > start else size, size, _BLOCK):
        block = entries(first, min(first + _BLOCK, size))
        if len(block) != min(_BLOCK, size - first):
            raise VerificationError("entries", f"{min(_BLOCK, size - first)}", f"{len(block)}", "The log has a hole")
        for offset in range(0, len(block), WIDTH):
            chunk = block[offset : offset + WIDTH]
            index = (first + offset) // WIDTH
            hashes = _leaf_hashes(chunk)
            if len(chunk) == WIDTH:
                found, expected = _top(hashes), node(HEIGHT, index)
            else:
                found, expected = hashes, b"".join([node(0, index * WIDTH + n) for n in range(len(chunk))])
            if found != expected:
                raise VerificationError(
                    f"entries from {index * WIDTH}", "those the tree was made of", "others", "The log was changed"
                )
            writer.write(tile_path(ENTRIES, index, len(chunk)), _bundled(chunk))
            writer.write(tile_path(0, index, len(chunk)), hashes)


def _write_levels(writer: _Writer, start: int, size: int, node: Node) -> None:
    """Tiles of level 1 and above, from the first that has a hash more than before."""
    for level, last in _edge(size)[1:]:
        held = size >> HEIGHT * level
        if held == start >> HEIGHT * level:
            continue
        for index in range((start >> HEIGHT * level) // WIDTH, last + 1):
            stop = min(held, (index + 1) * WIDTH)
            hashes = [node(HEIGHT * level, place) for place in range(index * WIDTH, stop)]
            if hashes:
                writer.write(tile_path(level, index, len(hashes)), b"".join(hashes))


def _remove_superseded(folder: Path, start: int, size: int) -> None:
    """Partial tiles of the export before, where the full tile is there now; while it is not, all of them stay."""
    for level, index in _edge(start):
        if (size >> HEIGHT * level) // WIDTH > index:
            shutil.rmtree(folder / (tile_path(level, index) + ".p"), ignore_errors=True)
            if level == 0:
                shutil.rmtree(folder / (tile_path(ENTRIES, index) + ".p"), ignore_errors=True)


def _edge(size: int) -> list[tuple[int, int]]:
    """The last tile of each level, which is partial or empty: (level, index)."""
    return [(level, size >> HEIGHT * (level + 1)) for level in range(max(1, -(-size.bit_length() // HEIGHT)))]


def _compare_root(checkpoint: Checkpoint, node: Node) -> None:
    if (root := tree_root(checkpoint.size, node)) != checkpoint.root:
        raise VerificationError(
            f"checkpoint of size {checkpoint.size}",
            f"root {checkpoint.root.hex()}",
            root.hex(),
            "The tree is not the one the log signed: keep both as evidence",
        )


def _read(folder: Path, level: int | str, index: int, width: int) -> tuple[str, bytes]:
    """A tile's file, or the full one where a partial one is gone, with its path."""
    for path in dict.fromkeys([tile_path(level, index, width), tile_path(level, index)]):
        try:
            return path, (folder / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
    raise VerificationError(tile_path(level, index, width), "a file", "none", _AGAIN)


def _hashes(folder: Path, level: int, index: int, width: int) -> bytes:
    path, raw = _read(folder, level, index, width)
    expected = HASH_BYTES * (width if path == tile_path(level, index, width) else WIDTH)
    if len(raw) != expected:
        raise VerificationError(path, f"{expected} bytes", f"{len(raw)}", _AGAIN)
    return raw[: HASH_BYTES * width]


def _bundled(entries: Sequence[bytes]) -> bytes:
    """Each entry behind its length in two bytes."""
    lengths = set(map(len, entries))
    if len(lengths) == 1:
        prefix = _length(lengths.pop())
        return prefix + prefix.join(entries)
    return b"".join([_length(len(entry)) + entry for entry in entries])


def _length(length: int) -> bytes:
    if length > MAXIMUM_ENTRY_BYTES:
        raise VerificationError("entry", f"up to {MAXIMUM_ENTRY_BYTES} bytes", f"{length}", "No tile can hold it")
    return length.to_bytes(2, "big")


def _unbundled(path: str, raw: bytes) -> list[bytes]:
    entries = []
    place = 0
    while place < len(raw):
        stop = place + 2 + int.from_bytes(raw[place : place + 2], "big")
        entries.append(raw[place + 2 : stop])
        place = stop
    if place != len(raw) or len(entries) > WIDTH:
        raise VerificationError(path, f"up to {WIDTH} entries, each behind its length", "another shape", _AGAIN)
    return entries


def _leaf_hashes(entries: Sequence[bytes]) -> bytes:
    return b"".join([sha256(b"\0" + entry).digest() for entry in entries])


def _top(hashes: bytes) -> bytes:
    while len(hashes) > HASH_BYTES:
        hashes = level_above(hashes)
    return hashes


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[place : place + HASH_BYTES] for place in range(0, len(hashes), HASH_BYTES)]


def _parts(name: re.Match[str]) -> tuple[int | str, int, int]:
    level, index, width = name.groups()
    return level if level == ENTRIES else int(level), int(re.sub(r"[x/]", "", index)), int(width or WIDTH)


def _files(folder: Path) -> Iterator[str]:
    """Every file but the checkpoint, in order."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if (parent, name) != (str(folder), INCOMING))
        for name in sorted(files):
            path = Path(parent, name).relative_to(folder).as_posix()
            if path != CHECKPOINT:
                yield path


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except (FileNotFoundError, UnicodeDecodeError):
        raise VerificationError(path.name, "a file in UTF-8", "none", _AGAIN) from None
