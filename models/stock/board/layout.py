"""The board: what online reads see of stock. A memory-mapped matrix of cells, SKU by location; one writer, readers in any process.

It is a projection: what it shows is kept elsewhere, and whoever writes it can write it anew. A cell is 64 bytes, one line of a processor's cache; its
version is odd while it is written, so that a reader knows a half-written cell and reads it again (a sequence lock).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.errors import ModelsError
from models.stock.atp import PARTS, available_arrays
from troth.clock import moment

MOST_FOUND = 8  # P(found >= q) is kept for q = 1 .. 8; for more, that of 8 is a bound from above
CELL = np.dtype(
    [
        ("version", "<u4"),
        *((part, "<i4") for part in PARTS),
        ("last_event_at", "<i8"),  # microseconds since 1970 of the newest event behind it; 0: none
        ("offset", "<i8"),  # log offset up to which it is told
        ("found", "<u2", (MOST_FOUND,)),  # probability in 65,535ths
    ]
)
HEADER = np.dtype(
    [
        ("format", "<u4"),
        ("is_writing", "<u4"),
        ("is_closed", "<u4"),
        ("sku_count", "<u4"),
        ("location_count", "<u4"),
        ("padding", "<u4"),
        ("offset", "<i8"),
        ("known_at", "<i8"),
        ("recomputed_at", "<i8"),
        ("believed_at", "<i8"),
    ]
)
FORMAT = 1
MOST_UNITS = 2**31 - 1
FULL = 65_535
PATIENCE_SECONDS = 0.25  # a writer that takes longer for a cell has died over it


class BoardError(ModelsError):
    """A board that cannot be read or written, in words."""


@dataclass(frozen=True)
class Known:
    """How far a board is told: log offset, when that was, when the warehouse last recomputed it and when beliefs are of. None: never."""

    offset: int
    known_at: datetime | None
    recomputed_at: datetime | None
    believed_at: datetime | None


@dataclass(frozen=True)
class Cells:
    """Copies of cells, any shape. `is_known`: whether the board has such a position; parts of others are zero."""

    data: NDArray[Any]
    is_known: NDArray[np.bool_]

    @property
    def available_units(self) -> NDArray[np.int64]:
        return available_arrays({part: self.data[part] for part in PARTS})

    def found_probability(self, units: NDArray[np.int64] | int) -> NDArray[np.float64]:
        """P(at least `units` are found), of the shape of the cells; 1 for nothing, for more than `MOST_FOUND` that of `MOST_FOUND`."""
        asked = np.broadcast_to(np.asarray(units, dtype=np.int64), self.data.shape).ravel()
        place = np.minimum(np.maximum(asked, 1), MOST_FOUND) - 1
        found = self.data["found"].reshape(-1, MOST_FOUND)[np.arange(len(place)), place] / FULL
        return np.where(asked <= 0, 1.0, found).reshape(self.data.shape)


def current(folder: Path) -> str | None:
    pointer = folder / "current"
    return pointer.read_text() if pointer.exists() else None


def mapped(generation: Path, mode: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    header = np.memmap(generation / "header", dtype=HEADER, mode=mode)
    shape = tuple(msgspec.json.decode((generation / "shape").read_bytes(), type=list[int]))
    return header.view(np.ndarray), np.memmap(generation / "cells", dtype=CELL, mode=mode, shape=shape).view(np.ndarray)


def names(path: Path, count: int) -> list[str]:
    return msgspec.json.decode(path.read_bytes(), type=list[str])[:count]


def time_of(microseconds: Any) -> datetime | None:
    return moment(int(microseconds)) if microseconds else None


def places(names: Sequence[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}
