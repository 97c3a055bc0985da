"""Reading the board: cells by position, or whole rows by SKU, as copies that are whole."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.stock.board.layout import (
    CELL,
    PATIENCE_SECONDS,
    BoardError,
    Cells,
    Known,
    current,
    mapped,
    names,
    places,
    time_of,
)

_WORDS = CELL.itemsize // 8


@dataclass(frozen=True)
class _View:
    """What a reader knows of one generation: never changed, so that threads may share it."""

    generation: Path
    header: NDArray[Any]
    words: NDArray[np.uint64]  # every cell as eight words: copied ten times as fast as by their fields
    versions: NDArray[np.uint32]
    stride: int
    skus: Sequence[str]
    locations: Sequence[str]
    sku_places: Mapping[str, int]
    location_places: Mapping[str, int]


class Board:
    """A reader. Threads may share one."""

    def __init__(self, folder: Path) -> None:
        """Raises: BoardError where there is no board yet."""
        self._folder = folder
        self._seen = _viewed(folder)

    @property
    def skus(self) -> Sequence[str]:
        return self._view().skus

    @property
    def locations(self) -> Sequence[str]:
        return self._view().locations

    def known(self) -> Known:
        header = self._view().header[0]
        return Known(
            int(header["offset"]), *(time_of(header[name]) for name in ("known_at", "recomputed_at", "believed_at"))
        )

    def rows(self, skus: Sequence[str]) -> tuple[Cells, Sequence[str]]:
        """Cells of these SKUs everywhere, shape (SKUs, locations), and the locations of the columns."""
        view = self._view()
        places = np.array([view.sku_places.get(sku, -1) for sku in skus], dtype=np.int64)
        columns = np.arange(len(view.locations), dtype=np.int64)
        shape = (len(places), len(columns))
        if (places >= 0).all():
            data = _rows(view, places)
            if data is not None:
                return Cells(data, data["version"] > 0), view.locations
        return _read(view, np.broadcast_to(places[:, None], shape), np.broadcast_to(columns, shape)), view.locations

    def cells(self, positions: Sequence[tuple[str, str]]) -> Cells:
        """Cells of positions (location_code, sku), in their order."""
        view = self._view()
        rows = np.array([view.sku_places.get(sku, -1) for _, sku in positions], dtype=np.int64)
        columns = np.array([view.location_places.get(location, -1) for location, _ in positions], dtype=np.int64)
        return _read(view, rows, columns)

    def _view(self) -> _View:
        view = self._seen
        header = view.header[0]
        is_behind = (
            header["is_closed"]
            or header["sku_count"] != len(view.skus)
            or header["location_count"] != len(view.locations)
        )
        if is_behind:
            self._seen = view = _viewed(self._folder)
        return view


def _read(view: _View, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Cells:
    is_named = (rows >= 0) & (columns >= 0)
    at = np.where(is_named, rows * view.stride + columns, 0).ravel()
    versions = view.versions
    data = _copied(view, at)
    torn = np.flatnonzero((data["version"] & 1 == 1) | (versions[at] != data["version"]))
    until = time.monotonic() + PATIENCE_SECONDS
    while torn.size:
        if time.monotonic() > until:
            raise BoardError(
                f"board: expected cells that are whole, found {torn.size} half written. Start the projector: it writes them anew."
            )
        again = at[torn]
        before = versions[again]
        fresh = _copied(view, again)
        whole = (before & 1 == 0) & (before == fresh["version"]) & (before == versions[again])
        data[torn[whole]] = fresh[whole]
        torn = torn[~whole]
    data = data.reshape(rows.shape)
    data[~is_named] = np.zeros((), dtype=CELL)
    return Cells(data, is_named & (data["version"] > 0))


def _rows(view: _View, places: NDArray[np.int64]) -> NDArray[Any] | None:
    """Whole rows, each copied in one piece; None where a cell was written meanwhile."""
    count = len(view.locations)
    data = np.take(view.words.reshape(-1, view.stride * _WORDS), places, axis=0).view(CELL)[:, :count]
    versions = data["version"]
    is_whole = (versions & 1 == 0) & (view.versions.reshape(-1, view.stride)[places, :count] == versions)
    return data if is_whole.all() else None


def _copied(view: _View, at: NDArray[np.int64]) -> NDArray[Any]:
    return np.take(view.words, at, axis=0).view(CELL)[:, 0]


def _viewed(folder: Path) -> _View:
    """The generation that is pointed to. One that is taken away meanwhile has a successor."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        name = current(folder)
        if name is None:
            raise BoardError("board: expected one, found none. Start `troth serve`, or `troth stock project`.")
        try:
            header, cells = mapped(folder / name, "r")
            skus = names(folder / name / "skus", int(header[0]["sku_count"]))
            locations = names(folder / name / "locations", int(header[0]["location_count"]))
            break
        except FileNotFoundError:
            if time.monotonic() > until:
                raise
    flat = cells.reshape(-1)
    words = flat.view(np.uint64).reshape(-1, _WORDS)
    return _View(
        folder / name, header, words, flat["version"], cells.shape[1], skus, locations, places(skus), places(locations)
    )
