"""Available to promise: the one definition. SQL, the stream and the service build theirs from it, and tests compare the three.

Words are Shopify's and IBM's: what is damaged, in quality control, committed, held, kept as safety stock or protected for other channels is still on hand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

# What makes up what is available, each a count of pieces: the first is there, the others are not to be had.
PARTS = (
    "on_hand_units",
    "damaged_units",  # here, and not to be sold
    "quality_control_units",  # here, and not yet to be sold
    "committed_units",  # ordered, and neither gone nor given up
    "held_units",  # set aside for a basket, for a while
    "safety_units",  # kept back because records are wrong
    "protected_units",  # kept back for other channels than the one that asks
)


@dataclass(frozen=True)
class Stock:
    """The parts of one SKU at one location, pieces. `on_hand_units` may be negative: records can be wrong."""

    on_hand_units: int = 0
    damaged_units: int = 0
    quality_control_units: int = 0
    committed_units: int = 0
    held_units: int = 0
    safety_units: int = 0
    protected_units: int = 0


@dataclass(frozen=True)
class Dated:
    """Pieces that come (positive) or are promised to go (negative) at a time."""

    at: datetime
    units: int


def available(stock: Stock) -> int:
    """Pieces that may be promised now: on hand less everything that is not to be had, never below nothing."""
    first, *others = PARTS
    return max(0, int(getattr(stock, first)) - sum(int(getattr(stock, part)) for part in others))


def available_arrays(parts: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """The same for arrays of one shape, or such as broadcast; a part that is not given counts as nothing."""
    first, *others = PARTS
    free = np.asarray(parts[first], dtype=np.int64)
    for part in others:
        if part in parts:
            free = free - np.asarray(parts[part], dtype=np.int64)
    return np.maximum(free, 0)


def available_expression() -> pl.Expr:
    """The same for columns named as `PARTS`."""
    first, *others = PARTS
    return pl.max_horizontal(pl.lit(0, dtype=pl.Int64), pl.col(first) - pl.sum_horizontal(others)).alias(
        "available_units"
    )


def available_sql(prefix: str = "") -> str:
    """The same as SQL over columns named as `PARTS`, none of them null; `prefix` is a table's name and a dot."""
    first, *others = PARTS
    return f"greatest(0, {prefix}{first} - {' - '.join(prefix + part for part in others)})"


def available_at(free_units: int, changes: Sequence[Dated], at: datetime) -> int:
    """Pieces that may be promised for `at` without taking any from what is promised for later: cumulative ATP with look-ahead.

    `free_units`: on hand less what is not to be had, before the floor of nothing. `changes`: supply that comes and demand promised, in any order; of one
    instant supply counts first. The running sum up to `at` bounds the promise, and so does every lower point after it.
    """
    running = lowest = free_units
    for change in sorted(changes, key=lambda each: (each.at, -each.units)):
        running += change.units
        lowest = running if change.at <= at else min(lowest, running)
    return max(0, lowest)
