"""Logs as tiles: against the specification's own numbers and formula, against damage, and while somebody reads."""

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consent.log.merkle import (
    VerificationError,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    level_above,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from consent.log.note import Checkpoint, Ed25519Signer, open_checkpoint, sign_note
from consent.log.tiles import INCOMING, Tiles, export_tiles, tile_path, verify_tiles

PIER = Ed25519Signer("pier.example/ledger", b"p" * 32)
KEY = PIER.verifier


class Log:
    """A log in memory: its entries and every level of its tree."""

    def __init__(self, size: int, seed: str = "") -> None:
        self.leaves = [hashlib.sha512(f"{seed}{n}".encode()).digest() for n in range(size)]
        self.levels = [b"".join(map(leaf_hash, self.leaves))]
        while len(self.levels[-1]) >= 64:
            self.levels.append(level_above(self.levels[-1][: len(self.levels[-1]) // 64 * 64]))

    def node(self, level: int, index: int) -> bytes:
        return self.levels[level][index * 32 : index * 32 + 32]

    def entries(self, start: int, stop: int) -> Sequence[bytes]:
        return self.leaves[start:stop]

    def note(self, size: int, *extensions: str) -> str:
        return sign_note(Checkpoint(KEY.name, size, tree_root(size, self.node), extensions).text, PIER)

    def export(self, folder: Path, size: int) -> None:
        export_tiles(folder, self.note(size), KEY, self.node, self.entries)


@pytest.fixture(scope="module")
def log() -> Log:
    return Log(70_000)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def widths(names: Iterator[str] | Sequence[str], level: int) -> list[int]:
    """Widths of the tiles of a level, most first."""
    found = [name for name in names if name.startswith(f"tile/{level}/")]
    return sorted((int(name.split(".p/")[1]) if ".p/" in name else 256 for name in found), reverse=True)


@pytest.mark.parametrize(
    ("index", "path"),
    [(0, "000"), (999, "999"), (1000, "x001/000"), (1234067, "x001/x234/067"), (10**9, "x001/x000/x000/000")],
)
def test_an_index_is_spelled_in_elements_of_three_digits(index: int, path: str) -> None:
    assert tile_path(0, index) == f"tile/0/{path}"
    assert tile_path("entries", index, 7) == f"tile/entries/{path}.p/7"


def test_a_tree_of_70000_has_the_tiles_the_specification_counts(log: Log, tmp_path: Path) -> None:
    log.export(tmp_path, 70_000)
    names = sorted(files(tmp_path))
    assert widths(names, 0) == [256] * 273 + [112]
    assert widths(names, 1) == [256, 17]
    assert widths(names, 2) == [1]
    assert len(names) == 1 + 2 * 274 + 2 + 1
    assert verify_tiles(tmp_path, KEY).size == 70_000


def test_a_tree_of_256_has_a_full_tile_and_one_of_width_1_above(log: Log, tmp_path: Path) -> None:
    log.export(tmp_path, 256)
    assert sorted(files(tmp_path)) == ["checkpoint", "tile/0/000", "tile/1/000.p/1", "tile/entries/000"]


def test_each_hash_is_the_one_the_specification_defines(log: Log, tmp_path: Path) -> None:
    def mth(leaves: Sequence[bytes]) -> bytes:
        """RFC 6962, 2.1, for a power of two of leaves."""
        if len(leaves) == 1:
            return hashlib.sha256(b"\0" + leaves[0]).digest()
        half = len(leaves) // 2
        return hashlib.sha256(b"\1" + mth(leaves[:half]) + mth(leaves[half:])).digest()

    log.export(tmp_path, 66_000)
    tiles = files(tmp_path)
    for level, index, width in [(0, 0, 256), (0, 257, 208), (1, 0, 256), (1, 1, 1), (2, 0, 1)]:
        raw = tiles[tile_path(level, index, width)]
        assert len(raw) == 32 * width
        for i in {0, width // 2, width - 1}:
            start = (index * 256 + i) * 256**level
            assert raw[32 * i : 32 * i + 32] == mth(log.leaves[start : start + 256**level])
    bundle = tiles[tile_path("entries", 257, 208)]
    assert bundle == b"".join(len(entry).to_bytes(2, "big") + entry for entry in log.leaves[257 * 256 : 66_000])


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 512, 70_000])
def test_what_is_read_back_is_what_was_written(log: Log, tmp_path: Path, size: int) -> None:
    log.export(tmp_path, size)
    tiles = Tiles(tmp_path, KEY)
    assert tiles.note == log.note(size)
    assert tiles.entries(0, size) == log.leaves[:size]
    assert tiles.entries(size // 2, size // 2) == []
    for index in {0, size // 3, size - 1} if size else set():
        assert tiles.entries(index, index + 1) == [log.leaves[index]]
        path = inclusion_proof(index, size, tiles.node)
        verify_inclusion(leaf_hash(log.leaves[index]), index, size, path, tiles.checkpoint.root)
        proof = consistency_proof(index + 1, size, tiles.node)
        verify_consistency(index + 1, size, tree_root(index + 1, log.node), tiles.checkpoint.root, proof)


@pytest.mark.parametrize(("level", "index"), [(0, 300), (9, 0), (8, 1), (0, -1), (40, 0)])
def test_what_the_checkpoint_does_not_cover_is_not_told(log: Log, tmp_path: Path, level: int, index: int) -> None:
    log.export(tmp_path, 300)
    with pytest.raises(VerificationError, match="of 300 entries"):
        Tiles(tmp_path, KEY).node(level, index)
    with pytest.raises(VerificationError, match="a range up to 300"):
        Tiles(tmp_path, KEY).entries(0, 301)


@given(sizes=st.lists(st.integers(0, 1100), min_size=1, max_size=4).map(sorted))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_exports_of_a_growing_log_end_where_one_export_does(log: Log, tmp_path: Path, sizes: list[int]) -> None:
    shutil.rmtree(tmp_path)
    for size in sizes:
        log.export(tmp_path / "grown", size)
        assert verify_tiles(tmp_path / "grown", KEY).size == size
    log.export(tmp_path / "once", sizes[-1])
    grown, once = files(tmp_path / "grown"), files(tmp_path / "once")
    assert once.items() <= grown.items()
    for name in grown.keys() - once.keys():  # partial tiles of sizes before, as long as the full one is not there
        assert ".p/" in name
        assert name.split(".p/")[0] not in grown


def test_a_second_export_writes_only_what_is_new(log: Log, tmp_path: Path) -> None:
    log.export(tmp_path, 1000)
    kept = {path: path.stat().st_ino for path in tmp_path.rglob("*") if path.is_file()}
    log.export(tmp_path, 1030)
    assert not (tmp_path / "tile/0/003.p").exists()
    assert not (tmp_path / "tile/entries/003.p").exists()
    changed = {path for path, inode in kept.items() if path.exists() and path.stat().st_ino != inode}
    assert changed == {tmp_path / "checkpoint"}
    assert not (tmp_path / INCOMING).exists()


def test_a_note_with_more_signatures_replaces_the_checkpoint_alone(log: Log, tmp_path: Path) -> None:
    log.export(tmp_path, 300)
    before = files(tmp_path)
    again = log.note(300, "one more line")
    export_tiles(tmp_path, again, KEY, log.node, log.entries)
    assert files(tmp_path) == {**before, "checkpoint": again.encode()}


def test_a_partial_tile_that_is_gone_is_read_from_the_full_one(log: Log, tmp_path: Path) -> None:
    log.export(tmp_path, 600)
    old = (tmp_path / "checkpoint").read_bytes()
    log.export(tmp_path, 800)
    (tmp_path / "checkpoint").write_bytes(old)
    assert not (tmp_path / "tile/0/002.p").exists()
    assert Tiles(tmp_path, KEY).entries(0, 600) == log.leaves[:600]
    assert verify_tiles(tmp_path, KEY).size == 600


def test_a_log_that_shrank_or_forked_is_not_exported_over_the_one_before(log: Log, tmp_path: Path) -> None:
    log.export(tmp_path, 600)
    before = files(tmp_path)
    with pytest.raises(VerificationError, match="rolled back"):
        log.export(tmp_path, 599)
    fork = Log(700, "fork")
    with pytest.raises(VerificationError, match="not the one the log signed"):
        fork.export(tmp_path, 700)
    assert files(tmp_path) == before


def test_entries_that_are_not_those_of_the_tree_are_not_exported(log: Log, tmp_path: Path) -> None:
    swapped = [*log.leaves[:300]]
    swapped[7], swapped[8] = swapped[8], swapped[7]
    for size, held in [(300, swapped), (300, log.leaves[:299]), (10, swapped)]:
        with pytest.raises(VerificationError, match=r"entries"):
            export_tiles(tmp_path, log.note(size), KEY, log.node, lambda start, stop, held=held: held[start:stop])  # type: ignore[misc]
    assert not (tmp_path / "checkpoint").exists()


def test_a_checkpoint_that_is_not_of_the_tree_is_not_exported(log: Log, tmp_path: Path) -> None:
    note = sign_note(Checkpoint(KEY.name, 300, b"r" * 32).text, PIER)
    with pytest.raises(VerificationError, match="not the one the log signed"):
        export_tiles(tmp_path / "out", note, KEY, log.node, log.entries)
    assert not (tmp_path / "out").exists()


def test_an_export_that_breaks_off_anywhere_leaves_the_one_before_whole_and_the_next_completes_it(
    log: Log, tmp_path: Path
) -> None:
    note = log.note(1100)
    log.export(tmp_path, 300)
    for allowed in range(10, 75, 5):
        asked = iter(range(allowed))

        def node(level: int, index: int, asked: Iterator[int] = asked) -> bytes:
            if next(asked, None) is None:
                raise OSError("the disk went away")
            return log.node(level, index)

        with pytest.raises(OSError, match="went away"):
            export_tiles(tmp_path, note, KEY, node, log.entries)
        assert verify_tiles(tmp_path, KEY).size == 300
        assert Tiles(tmp_path, KEY).entries(0, 300) == log.leaves[:300]
    log.export(tmp_path, 1100)
    assert verify_tiles(tmp_path, KEY).size == 1100
    assert not (tmp_path / INCOMING).exists()


def test_a_reader_never_sees_a_checkpoint_whose_tiles_are_not_there(log: Log, tmp_path: Path) -> None:
    log.export(tmp_path, 1)
    done = threading.Event()
    seen: list[int] = []
    failed: list[VerificationError] = []

    def read() -> None:
        while not done.is_set():
            try:
                tiles = Tiles(tmp_path, KEY)
                tiles.entries(0, tiles.checkpoint.size)
                seen.append(tiles.checkpoint.size)
            except VerificationError as error:
                failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for size in range(100, 3000, 100):
        log.export(tmp_path, size)
    done.set()
    reader.join()
    assert not failed
    assert seen == sorted(seen)
    assert seen


def test_two_exports_at_once_into_one_folder_take_turns(log: Log, tmp_path: Path) -> None:
    refused: list[str] = []

    def export(size: int) -> None:
        try:
            log.export(tmp_path, size)
        except VerificationError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=export, args=(size,)) for size in (700, 300, 900, 500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("rolled back" in line for line in refused)
    assert verify_tiles(tmp_path, KEY).size == 900


@contextmanager
def flipped(path: Path, place: int) -> Iterator[None]:
    """One bit of a file is another for a while."""
    with path.open("r+b", buffering=0) as file:
        held = os.pread(file.fileno(), 1, place // 8)
        os.pwrite(file.fileno(), bytes([held[0] ^ 1 << place % 8]), place // 8)
        yield
        os.pwrite(file.fileno(), held, place // 8)


def test_every_one_bit_change_of_a_small_export_is_caught(log: Log, tmp_path: Path) -> None:
    log.export(tmp_path, 2)
    for name, raw in files(tmp_path).items():
        for place in range(len(raw) * 8):
            with flipped(tmp_path / name, place), pytest.raises(VerificationError):
                verify_tiles(tmp_path, KEY)
    verify_tiles(tmp_path, KEY)


@pytest.fixture(scope="module")
def exported(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two exports, so that a partial tile of the first is still there."""
    folder = tmp_path_factory.mktemp("tiles")
    log.export(folder, 580)
    log.export(folder, 600)
    assert (folder / "tile/entries/002.p/68").exists()
    return folder


@given(choice=st.data())
@settings(max_examples=120, deadline=None)
def test_a_changed_bit_anywhere_in_an_export_is_caught(exported: Path, choice: st.DataObject) -> None:
    path = choice.draw(st.sampled_from(sorted(path for path in exported.rglob("*") if path.is_file())))
    with flipped(path, choice.draw(st.integers(0, path.stat().st_size * 8 - 1))), pytest.raises(VerificationError):
        verify_tiles(exported, KEY)


def test_a_file_that_is_missing_cut_or_of_somebody_else_is_caught(log: Log, tmp_path: Path) -> None:
    log.export(tmp_path, 600)
    for name, raw in files(tmp_path).items():
        (tmp_path / name).unlink()
        with pytest.raises(VerificationError, match="expected a file"):
            verify_tiles(tmp_path, KEY)
        for other in (b"", raw[:-1], raw + b"x", raw[1:] + raw[:1]):
            (tmp_path / name).write_bytes(other)
            with pytest.raises(VerificationError):
                verify_tiles(tmp_path, KEY)
        (tmp_path / name).write_bytes(raw)
    for foreign in ("tile/0/x000/000", "tile/00/000", "tile/0/000.p/256", "notes.txt", "tile/0/005.p/0"):
        (tmp_path / foreign).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / foreign).write_bytes(b"")
        with pytest.raises(VerificationError, match="a tile or the checkpoint"):
            verify_tiles(tmp_path, KEY)
        (tmp_path / foreign).unlink()


def test_the_error_names_the_entry_that_was_changed(log: Log, tmp_path: Path) -> None:
    log.export(tmp_path, 600)
    path = tmp_path / tile_path("entries", 1)
    raw = bytearray(path.read_bytes())
    raw[66 * 44 + 5] ^= 1
    path.write_bytes(raw)
    with pytest.raises(VerificationError, match=r"entry 300: expected leaf hash [0-9a-f]{64}"):
        verify_tiles(tmp_path, KEY)


def test_entries_of_any_length_fit_up_to_the_limit(tmp_path: Path) -> None:
    held = [b"", b"x" * 65535, b"yy"]
    log = Log(3)
    log.levels = [b"".join(map(leaf_hash, held))]
    log.levels.append(level_above(log.levels[0][:64]))
    export_tiles(tmp_path, log.note(3), KEY, log.node, lambda start, stop: held[start:stop])
    assert Tiles(tmp_path, KEY).entries(0, 3) == held
    assert open_checkpoint(Tiles(tmp_path, KEY).note, KEY).size == 3
    held[1] += b"x"
    log.levels = [b"".join(map(leaf_hash, held))]
    log.levels.append(level_above(log.levels[0][:64]))
    with pytest.raises(VerificationError, match="65536"):
        export_tiles(tmp_path / "other", log.note(3), KEY, log.node, lambda start, stop: held[start:stop])
