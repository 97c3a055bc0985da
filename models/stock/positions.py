"""Positions by name to rows of a frame, many at once."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

_ROOM = 8  # cells of a matrix a position may cost; where names are spread thinner, rows are looked up in a sorted list
_SMALL = 1_000_000


class Positions:
    """Rows of positions: the row of each in the frame it was made of, and the frame's height for those it does not have."""

    def __init__(self, frame: pl.DataFrame) -> None:
        """`frame`: location_code, sku. Raises: ValueError for a position twice."""
        self._skus, self._locations = (frame[name].cast(pl.String).unique().sort() for name in ("sku", "location_code"))
        self._sku_places, self._location_places = (
            {name: place for place, name in enumerate(names)} for names in (self._skus, self._locations)
        )
        self.count, self._stride = frame.height, len(self._locations) + 1
        keys = self._keys(frame["sku"], frame["location_code"])
        size = (len(self._skus) + 1) * self._stride
        order = np.argsort(keys, kind="stable")
        self._sorted, self._order = np.append(keys[order], size), np.append(order, self.count)
        if (self._sorted[1:] == self._sorted[:-1]).any():
            raise ValueError("positions: expected each once, found one twice.")
        self._matrix: NDArray[np.int32] | None = None
        if size <= _ROOM * self.count + _SMALL:
            self._matrix = np.full(size, self.count, dtype=np.int32)
            self._matrix[keys] = np.arange(self.count, dtype=np.int32)

    def rows(self, skus: pl.Series, locations: pl.Series) -> NDArray[np.int64]:
        """Rows of positions in two columns."""
        return self._found(self._keys(skus, locations))

    def rows_of(self, places: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
        """Rows of positions (location_code, sku)."""
        skus, locations, none = self._sku_places, self._location_places, (len(self._skus), len(self._locations))
        keys = [skus.get(sku, none[0]) * self._stride + locations.get(place, none[1]) for place, sku in places]
        return self._found(np.array(keys, dtype=np.int64))

    def _keys(self, skus: pl.Series, locations: pl.Series) -> NDArray[np.int64]:
        return _coded(skus, self._skus) * self._stride + _coded(locations, self._locations)

    def _found(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        if self._matrix is not None:
            return self._matrix[keys].astype(np.int64)
        at = np.searchsorted(self._sorted, keys)
        return np.where(self._sorted[at] == keys, self._order[at], self.count)


def _coded(names: pl.Series, known: pl.Series) -> NDArray[np.int64]:
    coded = names.cast(pl.String).cast(pl.Enum(known), strict=False).to_physical().cast(pl.Int64)
    return coded.fill_null(len(known)).to_numpy()
