"""Snapshots of stock against the last one seen: which rows say something, before any work is done on them.

A figure that is repeated says nothing only while nothing moved at its position since: a source that repeats 10 although two have shipped
says that it was not told. So what moved is asked, too.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

NEVER = np.iinfo(np.int32).min  # a position of which no snapshot spoke yet
ROWS_AT_A_TIME = 1_000_000
_COLUMNS = ("location_code", "sku", "units")


@dataclass
class LastSeen:
    """The last figure of every position as a grid of locations by SKUs, four bytes each; codes in the order they were first seen."""

    locations: list[str] = field(default_factory=list)
    skus: list[str] = field(default_factory=list)
    units: NDArray[np.int32] = field(default_factory=lambda: np.empty((0, 0), np.int32))

    def positions(self, rows: pl.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of each position in the grid, which grows by what is new."""
        places, items = (
            _coded(rows[name], codes) for name, codes in (("location_code", self.locations), ("sku", self.skus))
        )
        height, width = self.units.shape
        if (len(self.locations), len(self.skus)) != (height, width):
            grown = np.full((len(self.locations), len(self.skus)), NEVER, np.int32)
            grown[:height, :width] = self.units
            self.units = grown
        return places, items

    def news(self, rows: pl.DataFrame, moved: "Moved | None" = None) -> pl.DataFrame:
        """The rows (location_code, sku, units) that differ from the last figure, or whose position moved since; all are remembered.

        Of rows that name one position twice, the last is remembered.
        """
        places, items = self.positions(rows)
        units = rows["units"].to_numpy().astype(np.int32)
        says = self.units[places, items] != units
        if moved is not None:
            says |= moved.among(self, places, items)
        self.units[places[says], items[says]] = units[says]
        return rows.filter(pl.Series(says))

    def save(self, path: Path) -> None:
        """Write the grid and its codes whole or not at all."""
        draft = path.with_name(f".{path.name}.draft")
        with draft.open("wb") as file:
            np.savez(file, locations=np.array(self.locations, "U"), skus=np.array(self.skus, "U"), units=self.units)
        draft.replace(path)

    @classmethod
    def load(cls, path: Path) -> "LastSeen":
        """What was saved; nothing seen where there is no file."""
        if not path.exists():
            return cls()
        with np.load(path, allow_pickle=False) as saved:
            return cls(saved["locations"].tolist(), saved["skus"].tolist(), saved["units"])


@dataclass(frozen=True)
class Moved:
    """Positions of which a source should have heard something since its last snapshot: columns location_code and sku."""

    rows: pl.DataFrame

    def among(self, seen: LastSeen, places: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the positions moved."""
        mine = np.zeros(0, np.int64)
        if self.rows.height:
            known = self.rows.filter(pl.col("location_code").is_in(seen.locations), pl.col("sku").is_in(seen.skus))
            its_places, its_items = seen.positions(known)
            mine = np.unique(its_places * len(seen.skus) + its_items)
        return np.isin(places * len(seen.skus) + items, mine)


def news_of(path: Path, seen: LastSeen, moved: Moved | None = None) -> Iterator[pl.DataFrame]:
    """The rows of a snapshot file (Parquet: location_code, sku, units) that say something, some at a time."""
    scanned = pl.scan_parquet(path).select(_COLUMNS)
    rows = int(scanned.select(pl.len()).collect().item())
    for start in range(0, rows, ROWS_AT_A_TIME):
        yield seen.news(scanned.slice(start, ROWS_AT_A_TIME).collect(), moved)


def _coded(values: pl.Series, codes: list[str]) -> NDArray[np.int64]:
    """Numbers of the values among the codes; codes that are new are added."""
    found = values.cast(pl.Enum(codes), strict=False)
    if found.null_count():
        known = set(codes)
        codes += [value for value in values.unique(maintain_order=True) if value not in known]
        found = values.cast(pl.Enum(codes))
    return found.to_physical().to_numpy().astype(np.int64)
