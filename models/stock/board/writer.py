"""Writing the board: one process at a time, cells absolutely, in generations that grow."""

import fcntl
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.stock.atp import PARTS
from models.stock.board.layout import (
    CELL,
    FORMAT,
    FULL,
    HEADER,
    MOST_FOUND,
    MOST_UNITS,
    BoardError,
    current,
    mapped,
    names,
    places,
)
from troth.clock import microseconds
from troth.home import write_atomically

_GROWTH = 1.25  # how much larger a new generation is than what it must hold


class BoardWriter:
    """The one writer of a board. Use as a context manager.

    `needs_rewriting`: cells may be missing or half written (a new board, a kill, another start of the machine); write all of them.
    """

    def __init__(self, folder: Path, skus: int = 1_000, locations: int = 50) -> None:
        """`skus`, `locations`: how many to make room for at first; it grows by itself. Raises: BoardError while another process writes it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = os.open(folder / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise BoardError(
                "board: expected to be its only writer, found another process. End that projector first."
            ) from None
        generation = current(folder)
        boot = _boot()
        self.needs_rewriting = generation is None
        if generation is None:
            self._begin(skus, locations, (), ())
        else:
            self._adopt(folder / generation)
            torn = bool(self._header[0]["is_writing"]) or (folder / "boot").read_text() != boot
            if torn:
                self._begin(*self._room, self._sku_names, self._location_names)
                self.needs_rewriting = True
        write_atomically(folder / "boot", boot.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._lock)

    def write(
        self,
        positions: Sequence[tuple[str, str]],
        parts: Mapping[str, NDArray[Any]],
        last_event_at: NDArray[np.int64] | None = None,
        offset: int = 0,
    ) -> None:
        """Set parts of cells, absolutely; parts that are not given stay. `positions`: (location_code, sku), each once.

        `last_event_at`: microseconds since 1970. Raises: BoardError for a position given twice, or for more than 2^31 - 1 pieces.
        """
        fields: dict[str, Any] = {part: np.asarray(parts[part], dtype=np.int64) for part in PARTS if part in parts}
        for part, values in fields.items():
            if values.size and np.abs(values).max() > MOST_UNITS:
                raise BoardError(
                    f"board: expected at most {MOST_UNITS} pieces, found more in {part}. Check its source."
                )
        if last_event_at is not None:
            fields["last_event_at"] = last_event_at
        fields["offset"] = np.full(len(positions), offset, dtype=np.int64)
        self._put(positions, fields)

    def believe(self, positions: Sequence[tuple[str, str]], found: NDArray[np.float64], believed_at: datetime) -> None:
        """Set P(found >= q): shape (positions, up to `MOST_FOUND`); where fewer are given the last stands for what follows."""
        width = found.shape[1]
        padded = np.concatenate([found, np.repeat(found[:, -1:], MOST_FOUND - width, axis=1)], axis=1)
        # Rounded down: a board never claims more than was believed.
        self._put(positions, {"found": np.floor(np.clip(padded, 0, 1) * FULL).astype(np.uint16)})
        self._header[0]["believed_at"] = microseconds(believed_at)

    def tell(self, offset: int, known_at: datetime, recomputed_at: datetime | None = None) -> None:
        """Say how far the board is told, after the cells say it."""
        header = self._header[0]
        header["offset"] = offset
        header["known_at"] = microseconds(known_at)
        if recomputed_at is not None:
            header["recomputed_at"] = microseconds(recomputed_at)

    def _put(self, positions: Sequence[tuple[str, str]], fields: Mapping[str, Any]) -> None:
        if not positions:
            return
        at = self._cells_of(positions)
        if len(np.unique(at)) != len(at):
            raise BoardError("board: expected each position once, found one twice. Sum them before they are written.")
        flat = self._cells.reshape(-1)
        header = self._header[0]
        header["is_writing"] = 1
        versions = flat["version"]
        before = versions[at]
        versions[at] = before | 1
        for name, values in fields.items():
            flat[name][at] = values
        versions[at] = (before | 1) + 1
        header["is_writing"] = 0

    @property
    def _room(self) -> tuple[int, int]:
        skus, locations = self._cells.shape
        return skus, locations

    def _cells_of(self, positions: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
        skus = [sku for _, sku in positions if sku not in self._sku_places]
        locations = [location for location, _ in positions if location not in self._location_places]
        if skus or locations:
            self._name(list(dict.fromkeys(skus)), list(dict.fromkeys(locations)))
        sku_places, location_places, stride = self._sku_places, self._location_places, self._cells.shape[1]
        return np.array([sku_places[sku] * stride + location_places[place] for place, sku in positions], dtype=np.int64)

    def _name(self, skus: list[str], locations: list[str]) -> None:
        all_skus, all_locations = [*self._sku_names, *skus], [*self._location_names, *locations]
        room_skus, room_locations = self._room
        if len(all_skus) > room_skus or len(all_locations) > room_locations:
            self._begin(
                _room(room_skus, len(all_skus)),
                _room(room_locations, len(all_locations)),
                all_skus,
                all_locations,
                self._cells,
            )
            return
        write_atomically(self._generation / "skus", msgspec.json.encode(all_skus))
        write_atomically(self._generation / "locations", msgspec.json.encode(all_locations))
        self._learn(all_skus, all_locations)
        self._header[0]["sku_count"], self._header[0]["location_count"] = len(all_skus), len(all_locations)

    def _begin(
        self,
        room_skus: int,
        room_locations: int,
        skus: Sequence[str],
        locations: Sequence[str],
        before: NDArray[Any] | None = None,
    ) -> None:
        """A new generation, filled from the one before, then pointed to; readers of the old one are told to follow."""
        old = getattr(self, "_generation", None)
        old_header = getattr(self, "_header", None)
        number = 1 if old is None else int(old.name.split("-")[1]) + 1
        generation = self._folder / f"generation-{number:06d}"
        generation.mkdir(exist_ok=True)
        for name, size in (("header", HEADER.itemsize), ("cells", CELL.itemsize * room_skus * room_locations)):
            with (generation / name).open("wb") as file:
                file.truncate(size)
        write_atomically(generation / "shape", msgspec.json.encode([room_skus, room_locations]))
        write_atomically(generation / "skus", msgspec.json.encode(list(skus)))
        write_atomically(generation / "locations", msgspec.json.encode(list(locations)))
        self._adopt(generation)
        header = self._header[0]
        header["format"], header["sku_count"], header["location_count"] = FORMAT, len(skus), len(locations)
        self._learn(skus, locations)
        if before is not None and old_header is not None:
            self._cells[: before.shape[0], : before.shape[1]] = before
            for name in ("offset", "known_at", "recomputed_at", "believed_at"):
                header[name] = old_header[0][name]
        write_atomically(self._folder / "current", generation.name.encode())
        if old is not None and old_header is not None:
            old_header[0]["is_closed"] = 1
            for name in ("cells", "skus", "locations", "shape", "header"):
                (old / name).unlink(missing_ok=True)  # who has it open keeps it until they follow
            old.rmdir()

    def _adopt(self, generation: Path) -> None:
        self._generation = generation
        self._header, self._cells = mapped(generation, "r+")
        header = self._header[0]
        self._learn(
            names(generation / "skus", int(header["sku_count"])),
            names(generation / "locations", int(header["location_count"])),
        )

    def _learn(self, skus: Sequence[str], locations: Sequence[str]) -> None:
        self._sku_names, self._location_names = list(skus), list(locations)
        self._sku_places, self._location_places = places(skus), places(locations)


def _room(now: int, needed: int) -> int:
    return now if needed <= now else int(needed * _GROWTH) + 1


def _boot() -> str:
    """Which start of the machine this is: what a power cut left of mapped pages is not to be trusted."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else "unknown"
