"""Entrants that learn from labels - outcomes of picks and of counts, in training worlds - and the hidden Markov model that learns from till sales alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.availability.engines import Floats, Ints, NaiveAtp, doubtful_first
from benchmarks.availability.replay import MOST_UNITS, Setting, Told

WEEK, MONTH, LONG_AGO = 7, 28, 90.0
BOOKS_MOST = 12
STATES = 3  # nothing to be found; there and little asked for; there and much
EVERY = 4  # of the store positions, one that the hidden Markov model learns from: a thousand a world
LIKENESS = 5.0  # gamma shape of a position's own pace around its SKU's


class Sights(NaiveAtp):
    """What can be seen of each position on a morning: books, pace, and how long ago things happened. The features of boosted trees."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        size = len(setting.positions)
        self.setting, self.day = setting, 0
        self.recent = np.zeros((MONTH, size), np.float32)
        self.sold, self.exposure, self.quiet, self.today, self.expected = (np.zeros(size) for _ in range(5))
        self.since = {name: np.full(size, LONG_AGO) for name in ("sale", "in", "picked", "missed", "counted")}
        self.last_change = np.zeros(size)

    def observe(self, told: Told) -> None:
        super().observe(told)
        size, kind = len(self.books), told.movements["movement_type"]
        sales = told.movements.filter(kind == "sale")["position"].to_numpy()
        self.today = np.bincount(sales, minlength=size).astype(np.float64)
        by_place = np.bincount(self.setting.place[sales], minlength=self.setting.place.max() + 1).astype(np.float64)
        traffic = by_place[self.setting.place]
        self.expected = self.rate() * traffic
        self.sold += self.today
        self.exposure += traffic
        self.quiet = np.where(self.today > 0, 0, self.quiet + self.expected)
        self.recent[told.day % MONTH] = self.today
        self.day = told.day
        for name, when in self.since.items():
            self.since[name] = np.minimum(when + 1, LONG_AGO)
        incoming = told.movements.filter(kind.is_in(["receipt", "transfer_in", "return", "web_return"]))[
            "position"
        ].to_numpy()
        short = told.picks["picked_units"] < told.picks["asked_units"]
        for name, rows in (
            ("sale", sales), ("in", incoming), ("picked", told.picks.filter(~short)["position"].to_numpy()),
            ("missed", told.picks.filter(short)["position"].to_numpy()), ("counted", told.counts["position"].to_numpy()),
        ):  # fmt: skip
            self.since[name][rows] = 0

    def rate(self) -> Floats:
        """Till lines of a position per line of its location: its SKU's, then its own."""
        sold = np.bincount(self.setting.item, self.sold)
        exposure = np.bincount(self.setting.item, self.exposure)
        prior = ((sold + 1) / (exposure + 1_000))[self.setting.item]
        return np.asarray((LIKENESS + self.sold) / (LIKENESS / prior + self.exposure))

    def features(self, position: Ints, units: Ints) -> NDArray[np.float32]:
        week = self.recent[[(self.day - ago) % MONTH for ago in range(WEEK)]].sum(axis=0)
        columns = [
            self.books[position], units, self.books[position] - units, week[position], self.recent.sum(axis=0)[position], self.quiet[position],
            self.expected[position], self.setting.is_store[position], self.setting.category[position], *(when[position] for when in self.since.values()),
        ]  # fmt: skip
        return np.column_stack(columns).astype(np.float32)


class Labels:
    """Rows of training worlds: what could be seen on the morning before, and what a picker or a counter then found."""

    def __init__(self) -> None:
        self.features: list[NDArray[np.float32]] = []
        self.found: list[NDArray[np.bool_]] = []

    def gather(self, seen: Sights, told: Told) -> None:
        """Labels of the day that `told` tells, seen as of the morning before it."""
        picked = told.picks["position"].to_numpy(), told.picks["asked_units"].to_numpy()
        self.features.append(seen.features(*picked))
        self.found.append(told.picks["picked_units"].to_numpy() >= picked[1])
        counted, pieces = told.counts["position"].to_numpy(), told.counts["counted_units"].to_numpy()
        for units in range(1, MOST_UNITS + 1):
            self.features.append(seen.features(counted, np.full(len(counted), units)))
            self.found.append(pieces >= units)


class Boosted(Sights):
    """Gradient boosted trees over what can be seen (scikit-learn's histogram trees)."""

    def __init__(self, setting: Setting, model: Any) -> None:
        super().__init__(setting)
        self._model = model

    def found(self, position: Ints, units: Ints) -> Floats:
        return (
            np.asarray(self._model.predict_proba(self.features(position, units))[:, 1])
            if len(position)
            else np.zeros(0)
        )

    def count_list(self, count: int) -> Ints:
        return doubtful_first(self, self.books, count)


def boosted_model(labels: Labels) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        learning_rate=0.05, max_iter=300, early_stopping=True, validation_fraction=0.15, random_state=3
    )
    return model.fit(np.concatenate(labels.features), np.concatenate(labels.found))


class BooksCurve(NaiveAtp):
    """The share found at what the books say, learned from the same labels: what calibration alone is worth."""

    def __init__(self, setting: Setting, curve: Floats) -> None:
        super().__init__(setting)
        self._curve = curve

    def found(self, position: Ints, units: Ints) -> Floats:
        return np.asarray(self._curve[np.clip(self.books[position], 0, BOOKS_MOST), units])

    def count_list(self, count: int) -> Ints:
        return doubtful_first(self, self.books, count)


def books_curve(labels: Labels) -> Floats:
    """Share found by books and units asked, by counts and picks alike."""
    seen, found = np.concatenate(labels.features), np.concatenate(labels.found)
    books = np.clip(seen[:, 0], 0, BOOKS_MOST).astype(np.int64)
    units = np.clip(seen[:, 1], 0, MOST_UNITS).astype(np.int64)
    cell = books * (MOST_UNITS + 1) + units
    size = (BOOKS_MOST + 1) * (MOST_UNITS + 1)
    share = (np.bincount(cell, found, size) + 0.5) / (np.bincount(cell, minlength=size) + 1)
    return np.asarray(share.reshape(BOOKS_MOST + 1, MOST_UNITS + 1))


class Markov(Sights):
    """Hidden Markov model over till sales (after Montoya & Gonzalez 2019, doi 10.1287/msom.2018.0732; from memory, see README.md).

    Hidden: nothing to be found, or there with little or much asked for. Seen: lines sold a day, Poisson around the position's own pace (empirical Bayes).
    Filtered forward every morning. It knows no pieces, so for more than one it says what it says for one, where the books have that many.
    """

    def __init__(self, setting: Setting, moves: Floats, pace: Floats) -> None:
        super().__init__(setting)
        self._moves, self._pace = moves, pace
        self._state = np.tile(_settled(moves), (len(setting.positions), 1))

    def observe(self, told: Told) -> None:
        super().observe(told)
        heard = self.expected > 0
        likely = _likelihood(self.today, self.expected, self._pace)
        likely[~heard] = 1
        state = (self._state @ self._moves) * likely
        self._state = state / state.sum(axis=1, keepdims=True)

    def found(self, position: Ints, units: Ints) -> Floats:
        there = np.where(self.setting.is_store, 1 - self._state[:, 0], 1.0)
        return np.asarray(np.where(self.books[position] >= units, there[position], 0.0))

    def count_list(self, count: int) -> Ints:
        return doubtful_first(self, self.books, count)


def markov_model(
    series: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]], rounds: int = 25
) -> tuple[Floats, Floats]:
    """Transitions and paces by expectation maximisation (Baum-Welch) over (lines sold, lines expected), day x position, of several worlds."""
    moves = np.array([[0.9, 0.07, 0.03], [0.02, 0.9, 0.08], [0.02, 0.18, 0.8]])
    pace = np.array([0.01, 0.7, 2.0])
    for _ in range(rounds):
        jumps, weight, sold = np.zeros((STATES, STATES)), np.zeros(STATES), np.zeros(STATES)
        for lines, expected in series:
            forward, likely = [], []
            state = np.tile(_settled(moves), (lines.shape[1], 1))
            for seen, due in zip(lines, expected, strict=True):
                likely.append(np.where((due > 0)[:, None], _likelihood(seen, due, pace), 1.0))
                state = (state @ moves) * likely[-1]
                state /= state.sum(axis=1, keepdims=True)
                forward.append(state)
            later = np.ones_like(state)
            for day in range(len(lines) - 1, -1, -1):
                both = forward[day] * later
                both /= both.sum(axis=1, keepdims=True)
                sold += lines[day] @ both
                weight += expected[day] @ both
                if day:
                    ahead = likely[day] * later
                    pairs = forward[day - 1][:, :, None] * moves[None] * ahead[:, None, :]
                    jumps += (pairs / pairs.sum(axis=(1, 2), keepdims=True)).sum(axis=0)
                    later = ahead @ moves.T
                    later /= later.sum(axis=1, keepdims=True)
        moves = jumps / jumps.sum(axis=1, keepdims=True)
        pace = np.r_[np.clip(sold[0] / weight[0], 1e-4, 0.05), sold[1:] / weight[1:]]
    return moves, pace


def _likelihood(lines: NDArray[Any], expected: NDArray[Any], pace: Floats) -> Floats:
    """Poisson, up to a factor that is the same for every state."""
    mean = np.maximum(expected[:, None] * pace, 1e-6)
    logs = lines[:, None] * np.log(mean) - mean
    return np.asarray(np.exp(logs - logs.max(axis=1, keepdims=True)))


def _settled(moves: Floats) -> Floats:
    """Shares of the states after many days."""
    return np.asarray(np.linalg.matrix_power(moves, 200)[0])


def lines_of(
    mornings: Sequence[tuple[NDArray[Any], NDArray[Any]]], setting: Setting
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lines sold and expected, day x store position."""
    sold, expected = (
        np.stack([day[part] for day in mornings])[:, setting.is_store].astype(np.float32) for part in range(2)
    )
    return sold, expected
