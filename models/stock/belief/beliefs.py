"""The belief itself: for each position a window of probabilities over the pieces that can be found there.

Position p has `mass[p, j]` = P(`base[p]` + j pieces can be found). `base` is never negative; at base 0 cell 0 is an empty shelf. Above 0 the first
cell stands for "that many or fewer", the last cell for "that many or more". A window of 32 cells follows shelves and warehouses alike: goods that come
and go move the base, and only what nobody wrote down widens the distribution.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.stock.belief.parameters import Parameters

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
CELLS = 32
CHUNK = 65_536  # positions in work at a time: 8 MB of cells


def _numbers() -> Ints:
    return np.zeros(0, np.int32)


def _rates() -> Floats:
    return np.zeros(0, np.float32)


@dataclass
class Beliefs:
    """Beliefs over all positions of a retailer, arrays by position, a few by location.

    `place`, `item`: row of a position's location in `locations` and SKU in `items`. `books`: recorded pieces. `sold`: till lines heard. `exposure`: till lines of its location
    while it was probably there. `asked`: pick lines. `traffic`, `silent`: a location's lines on a usual day, and days without word from its tills.
    Times of evidence are days since 1970, 0 for never.
    """

    parameters: Parameters = field(default_factory=Parameters)
    locations: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(
            schema={"location_code": pl.String, "location_type": pl.String, "timezone_name": pl.String}
        )
    )
    items: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema={"sku": pl.String, "category": pl.String}))
    as_of_at: datetime | None = None  # naive UTC
    place: Ints = field(default_factory=_numbers)
    item: Ints = field(default_factory=_numbers)
    base: Ints = field(default_factory=_numbers)
    mass: Floats = field(default_factory=lambda: np.zeros((0, CELLS), np.float32))
    books: Ints = field(default_factory=_numbers)
    sold: Floats = field(default_factory=_rates)
    exposure: Floats = field(default_factory=_rates)
    asked: Floats = field(default_factory=_rates)
    scale: Floats = field(default_factory=_rates)  # odds of the position's kind
    quiet: Floats = field(default_factory=_rates)  # lines expected since the last that was heard
    seen_day: Ints = field(default_factory=_numbers)  # last piece that was certainly there
    counted_day: Ints = field(default_factory=_numbers)
    missed_day: Ints = field(default_factory=_numbers)  # last pick that failed
    traffic: Floats = field(default_factory=_rates)
    silent: Floats = field(default_factory=_rates)
    days: float = 0.0  # how long evidence was gathered

    @property
    def positions(self) -> pl.DataFrame:
        """location_code and sku of each position."""
        return pl.DataFrame(
            {"location_code": self.locations["location_code"][self.place], "sku": self.items["sku"][self.item]}
        )

    def __len__(self) -> int:
        return len(self.base)

    def copy(self) -> "Beliefs":
        """One that may be changed while this one is read."""
        other = replace(self)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(other, name, value.copy())
        return other

    def nbytes(self) -> int:
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))


def at_least(base: Ints, mass: Floats, units: Sequence[int]) -> Floats:
    """P(at least so many pieces), position x units. Nothing or fewer is always there."""
    above = np.cumsum(mass[:, ::-1], axis=1, dtype=np.float32)[:, ::-1]
    answers = np.empty((len(base), len(units)), np.float32)
    for column, wanted in enumerate(units):
        cell = wanted - base
        inside = np.take_along_axis(above, np.clip(cell, 0, mass.shape[1] - 1)[:, None], axis=1)[:, 0]
        answers[:, column] = np.where(cell <= 0, 1, np.where(cell >= mass.shape[1], 0, inside))
    return np.clip(answers, 0, 1)


def mean_units(base: Ints, mass: Floats) -> Floats:
    """Expected pieces, by position."""
    expected = base + mass @ np.arange(mass.shape[1], dtype=np.float32)
    return expected.astype(np.float32)
