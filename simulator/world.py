"""One simulated retailer while it trades: its parts, its running numbers, and its random streams."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np
import polars as pl

from simulator.landing import Landing
from simulator.people import People
from simulator.places import Places
from simulator.products import Products
from simulator.scale import Scale
from simulator.spelling import DAY, epoch_day, fractions
from simulator.stock import MOVEMENTS, Stock
from simulator.truth import Truth


@dataclass
class World:
    """Everything a day of trading reads and changes."""

    scale: Scale
    seed: int
    places: Places
    products: Products
    people: People
    stock: Stock
    landing: Landing
    truth: Truth
    totals: Counter[str] = field(default_factory=Counter)
    _next: Counter[str] = field(default_factory=Counter)

    def random(self, stream: int, day: int) -> np.random.Generator:
        """The same draws for the same seed, purpose and day, whatever else was drawn before."""
        return np.random.default_rng([self.seed, stream, day])

    def take(self, name: str, count: int) -> int:
        """Reserve consecutive numbers; returns the first."""
        first = self._next[name]
        self._next[name] += count
        return first

    def date(self, day: int) -> date:
        return self.scale.first_day + timedelta(day)

    def day_start(self, day: int) -> int:
        """Seconds from the epoch to midnight of the wall clock, as if it were UTC."""
        return (epoch_day(self.scale.first_day) + day) * DAY

    def epoch(self, place: np.ndarray, day: int, second: np.ndarray | int) -> np.ndarray:
        """UTC seconds of a wall-clock second of a trading day at a place."""
        wall = self.day_start(day) + np.asarray(second, np.int64)
        return np.asarray(wall - self.places.offset_minutes[place, day].astype(np.int64) * 60)

    def position(self, place: np.ndarray | int, sku: np.ndarray) -> np.ndarray:
        return np.asarray(np.asarray(place, np.int64) * len(self.products) + sku)

    def split(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place and SKU of positions."""
        return position // len(self.products), position % len(self.products)

    def offered(self, position: np.ndarray) -> np.ndarray:
        """Units the web shop believes it can sell. Where it is never told of picks it subtracts none, promised or done."""
        stock, deaf = self.stock, self.places.is_unheard[position // len(self.products)]
        return np.asarray(
            stock.recorded[position] + np.where(deaf, stock.unheard[position], -stock.committed[position])
        )

    def discount_cents(self, sku: np.ndarray, gross: np.ndarray, day: int, dice: np.ndarray) -> np.ndarray:
        """Category promotions by week, and a coupon now and then."""
        promoted = fractions(51, self.products.category[sku], (day + 3) // 7) < 0.22
        percent = np.where(promoted, 15, np.where(dice < 0.06, 10, 0))
        return gross * percent // 100

    def write_truth(self, day: int) -> np.ndarray:
        """Put the day's movements into the truth; returns the positions whose books moved."""
        kind, position, units, at = self.stock.told.taken()
        self.truth.append("recorded_movements", self._movements(kind, position, units).with_columns(
            occurred_at=pl.Series(at * 1_000_000).cast(pl.Datetime("us", "UTC"))
        ))  # fmt: skip
        kind, moved, units, _ = self.stock.true.taken()
        physical = self._movements(kind, moved, units).with_columns(day=pl.lit(self.date(day)))
        self.truth.append("physical_movements", physical)
        changed = np.unique(np.concatenate([moved, *self.stock.stirred]))
        self.stock.stirred = []
        self.truth.append("physical_stock", self._positions(changed).with_columns(
            day=pl.lit(self.date(day)), on_hand=pl.Series(self.stock.physical[changed]), misplaced=pl.Series(self.stock.misplaced[changed])
        ))  # fmt: skip
        return np.unique(position)

    def _positions(self, position: np.ndarray) -> pl.DataFrame:
        place, sku = self.split(position)
        return pl.DataFrame({"location_code": self.places.code[place], "sku": self.products.sku[sku]})

    def _movements(self, kind: np.ndarray, position: np.ndarray, units: np.ndarray) -> pl.DataFrame:
        return self._positions(position).with_columns(
            movement_type=pl.Series(MOVEMENTS)[kind], units=pl.Series(units.astype(np.int32))
        )
