"""Entrants of the benchmark: the seam an engine stands behind, rules over books, and beliefs. What is learned from labels is in `learned.py`."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.availability.replay import Setting, Told
from models.stock.belief.beliefs import Beliefs
from models.stock.belief.believing import groups_of, update
from models.stock.belief.calibration import Calibration
from models.stock.belief.counting import count_list
from models.stock.belief.evidence import Tables
from models.stock.belief.filtering import Scores, found_probability
from models.stock.belief.parameters import Parameters

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Engine(Protocol):
    """Anything that can be told of a retailer's days and asked what will be found."""

    def observe(self, told: Told) -> None:
        """Hear what became known since the last morning."""
        ...

    def found(self, position: Ints, units: Ints) -> Floats:
        """P(at least so many pieces can be found there now), one for each pair."""
        ...

    def count_list(self, count: int) -> Ints:
        """Positions to count today, the most worthwhile first."""
        ...


Made = Callable[[Setting], Engine]


class NaiveAtp:
    """What the books say is there; counts what nobody asked for: any position."""

    def __init__(self, setting: Setting, safety_units: int = 0) -> None:
        self.safety_units = safety_units
        self.books = np.zeros(len(setting.positions), np.int64)
        self._rng = np.random.default_rng(5)

    def observe(self, told: Told) -> None:
        np.add.at(self.books, told.movements["position"].to_numpy(), told.movements["units"].to_numpy())

    def found(self, position: Ints, units: Ints) -> Floats:
        return (self.books[position] - self.safety_units >= units).astype(np.float64)

    def count_list(self, count: int) -> Ints:
        return self._rng.choice(len(self.books), count, replace=False)


class ZeroBalanceWalk(NaiveAtp):
    """The books; and the walk that stores know: count what they say is gone, then what is nearly so."""

    def count_list(self, count: int) -> Ints:
        distance = np.abs(self.books) + self._rng.random(len(self.books)) * 0.5
        return np.argsort(distance, kind="stable")[:count]


class Belief:
    """Beliefs as the platform keeps them, updated every morning."""

    def __init__(
        self,
        setting: Setting,
        parameters: Parameters,
        calibration: Calibration | None = None,
        scores: Scores | None = None,
    ) -> None:
        self.beliefs = Beliefs(parameters=parameters)
        self.scores = scores
        self._calibration, self._setting = calibration, setting
        self._movements: list[pl.DataFrame] = []
        self._chances = np.zeros((len(setting.positions), 0))
        self._row = np.zeros(0, np.int64)

    def observe(self, told: Told) -> None:
        self._movements.append(told.movements)
        tables = Tables(
            pl.concat(self._movements[-6:]), told.picks, told.counts, self._setting.products, self._setting.locations
        )
        update(self.beliefs, tables, told.at, self.scores)
        if len(self._row) != len(self.beliefs):
            numbered = self._setting.positions.with_row_index("row")
            joined = self.beliefs.positions.join(
                numbered, on=["location_code", "sku"], how="left", maintain_order="left"
            )
            self._row = joined["row"].to_numpy().astype(np.int64)
        chances = found_probability(self.beliefs, (1, 2, 3))
        if self._calibration:
            chances = self._calibration.applied(chances, groups_of(self.beliefs))
        self._chances = np.zeros((len(self._setting.positions), 3))
        self._chances[self._row] = chances

    def found(self, position: Ints, units: Ints) -> Floats:
        return np.asarray(self._chances[position, units - 1])

    def count_list(self, count: int) -> Ints:
        listed = count_list(self.beliefs, self._setting.products, count, calibration=self._calibration)
        numbered = self._setting.positions.with_row_index("row")
        return (
            listed.join(numbered, on=["location_code", "sku"], how="left", maintain_order="left")["row"]
            .to_numpy()
            .astype(np.int64)
        )


def doubtful_first(engine: Engine, books: Ints, count: int) -> Ints:
    """An engine's own doubt as a count list: where the books promise and it does not."""
    shown = np.flatnonzero(books > 0)
    doubt = 1 - engine.found(shown, np.ones(len(shown), np.int64))
    return shown[np.argsort(-doubt, kind="stable")[:count]]


def entrants(parameters: Parameters, calibration: Calibration, learned: Sequence[tuple[str, Made]]) -> dict[str, Made]:
    """Every engine by its name in the table."""
    return {
        "naive_atp": NaiveAtp,
        "fixed_safety_stock": lambda setting: NaiveAtp(setting, safety_units=1),
        "zero_balance_walk": ZeroBalanceWalk,
        "belief_uncalibrated": lambda setting: Belief(setting, parameters),
        "belief": lambda setting: Belief(setting, parameters, calibration),
        **dict(learned),
    }
