"""Which places a basket comes from: every way to share its lines out over lanes, what each costs, and which nobody can call worse.

A lane is a place and how goods leave it. Within the lanes handed in the search is exact as long as the ways to share are fewer than
`MOST_WAYS`; bounds leave out what cannot matter. Beyond, each set of lanes is tried in its cheapest, greenest and surest form.
Sourcing under pick failure by expected cost: Das, Ravi & Sridhar; Baron, Cire & Savaser, doi 10.1177/10591478241255066.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
MOST_WAYS = 40_000  # shares of lines over lanes that are tried at once
_FIRST = 24  # sets of lanes that are tried first, the most promising ones; then twice as many
_ENDLESS = np.iinfo(np.int64).max // 1024


@dataclass(frozen=True)
class Lanes:
    """Lanes in one order. Money in cents, carbon in grams, times in seconds; (lanes, lines) where a line has a say."""

    is_pickup: Bools
    promised: Ints
    on_time: Floats
    cents: Ints
    grams: Ints
    serves: Bools
    found: Floats
    line_cents: Ints
    line_grams: Ints

    def __len__(self) -> int:
        return len(self.promised)

    def take(self, which: Ints) -> "Lanes":
        return Lanes(
            self.is_pickup[which], self.promised[which], self.on_time[which], self.cents[which], self.grams[which],
            self.serves[which], self.found[which], self.line_cents[which], self.line_grams[which],
        )  # fmt: skip

    def of_lines(self, lines: Sequence[int]) -> "Lanes":
        return replace(
            self, serves=self.serves[:, lines], found=self.found[:, lines], line_cents=self.line_cents[:, lines],
            line_grams=self.line_grams[:, lines],
        )  # fmt: skip


@dataclass(frozen=True)
class Routes:
    """Ways to have the whole basket, one a row. `lane_of`: for each line the lane it comes by."""

    lane_of: Ints
    promised: Ints
    kept: Floats
    cents: Ints
    grams: Ints
    is_exact: bool = True

    def __len__(self) -> int:
        return len(self.promised)

    def take(self, which: Ints | Bools) -> "Routes":
        return Routes(
            self.lane_of[which], self.promised[which], self.kept[which], self.cents[which], self.grams[which], self.is_exact
        )  # fmt: skip

    @property
    def burdens(self) -> Floats:
        """What is better the smaller it is: cents, seconds, grams, chance to fail; shape (routes, 4)."""
        return _beside(self.cents, self.promised, self.grams, 1 - self.kept)


@dataclass(frozen=True)
class Worth:
    """What ways are compared by, in cents: money, waiting since `now`, carbon, and the chance to fail times what a failure costs."""

    hour_cents: float
    carbon_kg_cents: float
    failure_cents: float
    now: int

    def score(self, burdens: Floats) -> Floats:
        """What is worse in everything scores worse, so that the best by score is never beaten."""
        weights = np.array([1, self.hour_cents / 3600, self.carbon_kg_cents / 1000, self.failure_cents])
        scores: Floats = (burdens - np.array([0, self.now, 0, 0])) @ weights
        return scores


def routes(
    lanes: Lanes,
    parcels: int,
    *,
    may_mix: bool,
    least_kept: float = 0.0,
    worth: Worth | None = None,
    within_cents: float = math.inf,
) -> Routes:
    """Ways that nobody can call worse in cost, time, carbon and P(kept) at once, from at most so many lanes, one of them for pickup.

    Ways that are alike in all four count once. A basket is split only into what scores at most `within_cents` above the best way:
    whatever beats such a split scores better still, so that what is returned is the same as without this limit, less the splits beyond it.
    """
    lines = lanes.serves.shape[1]
    whole = np.flatnonzero(lanes.serves.all(axis=1))
    best = _front(_evaluate(lanes, whole[:, None], np.zeros((1, lines), dtype=np.int64)), least_kept)
    is_exact = True
    for count in range(2, min(parcels, lines, len(lanes)) + 1):
        best, was_exact = _with_splits(best, lanes, count, may_mix, least_kept, worth, within_cents)
        is_exact &= was_exact
    if worth and len(best):
        scores = worth.score(best.burdens)
        is_split = (best.lane_of != best.lane_of[:, :1]).any(axis=1)
        best = best.take(~is_split | (scores <= scores.min() + within_cents))
    return Routes(best.lane_of, best.promised, best.kept, best.cents, best.grams, is_exact)


def undominated(lanes: Lanes) -> Ints:
    """Lanes worth a look: none other serves the same lines, and each of them, at least as well in everything.

    Whatever a worse lane does in a way to share, the better one does as well, and two parcels become one.
    """
    needs = lanes.serves
    better = (
        (lanes.promised[:, None] <= lanes.promised)
        & (lanes.on_time[:, None] >= lanes.on_time)
        & (lanes.cents[:, None] <= lanes.cents)
        & (lanes.grams[:, None] <= lanes.grams)
        & (lanes.is_pickup[:, None] == lanes.is_pickup)
    )
    as_good = (
        needs[:, None]
        & (lanes.found[:, None] >= lanes.found)
        & (lanes.line_cents[:, None] <= lanes.line_cents)
        & (lanes.line_grams[:, None] <= lanes.line_grams)
    )
    better &= (as_good | ~needs).all(axis=2)
    number = np.arange(len(lanes))
    better &= ~better.T | (number[:, None] < number)  # of two alike the first stays
    return np.flatnonzero(~better.any(axis=0))


def _with_splits(
    best: Routes, lanes: Lanes, count: int, may_mix: bool, least_kept: float, worth: Worth | None, within_cents: float
) -> tuple[Routes, bool]:
    """The best ways and those over so many lanes, the most promising sets of lanes first; and whether every share of lines was tried."""
    lines, is_exact = lanes.serves.shape[1], True
    chosen = _combinations(len(lanes), count)
    limit = _limit(best, worth, within_cents)
    if worth and limit < math.inf:
        chosen = chosen[_least(lanes, chosen, worth) <= limit + 1]  # and a cent for sums of another order
    if not len(chosen):
        return best, True
    pickups = lanes.is_pickup[chosen].sum(axis=1)
    chosen = chosen[(pickups <= 1) if may_mix else (pickups == 0)]
    chosen = chosen[lanes.serves[chosen].any(axis=1).all(axis=1)]
    if not len(chosen):
        return best, True
    bounds = _bounds(lanes, chosen)
    scores = worth.score(bounds) if worth else np.zeros(len(chosen))
    order = np.argsort(scores, kind="stable")
    chosen, bounds, scores = chosen[order], bounds[order], scores[order]
    size = _FIRST
    while len(chosen):
        left = (1 - bounds[:, 3] >= least_kept) & (scores <= limit)
        left[left] = ~_is_worse(bounds[left], best.burdens)
        chosen, bounds, scores = chosen[left], bounds[left], scores[left]
        now, size = chosen[:size], size * 2
        if not len(now):
            break
        if len(now) * _ways(lines, count) <= MOST_WAYS:
            more = _evaluate(lanes, now, _patterns(lines, count))
        else:
            more, is_exact = _leaning(lanes, now), False
        if worth:
            more = more.take(worth.score(more.burdens) <= limit)
        best = _front(_joined(best, more), least_kept)
        limit = _limit(best, worth, within_cents)
        chosen, bounds, scores = chosen[len(now) :], bounds[len(now) :], scores[len(now) :]
    return best, is_exact


def _evaluate(lanes: Lanes, chosen: Ints, patterns: Ints) -> Routes:
    """Every pattern on every set of lanes; those in which each line is served by its lane."""
    lines = np.arange(lanes.serves.shape[1])
    lane_of = chosen[:, patterns]
    fits = lanes.serves[lane_of, lines].all(axis=2)
    which = np.nonzero(fits)[0]
    return _routes(lanes, chosen[which], lane_of[fits])


def _routes(lanes: Lanes, used: Ints, lane_of: Ints) -> Routes:
    """`used`: the lanes of each route, each once; `lane_of`: by line."""
    lines = np.arange(lanes.serves.shape[1])
    return Routes(
        lane_of=lane_of,
        promised=lanes.promised[used].max(axis=1, initial=0),
        kept=_chance(lanes.found[lane_of, lines].prod(axis=1), lanes.on_time[used].prod(axis=1)),
        cents=lanes.cents[used].sum(axis=1) + lanes.line_cents[lane_of, lines].sum(axis=1),
        grams=lanes.grams[used].sum(axis=1) + lanes.line_grams[lane_of, lines].sum(axis=1),
    )


def _leaning(lanes: Lanes, chosen: Ints) -> Routes:
    """For each set of lanes the ways in which every line takes the cheapest, the greenest, or the surest of them."""
    found: Routes | None = None
    for burden in (lanes.line_cents, lanes.line_grams, -lanes.found):
        weight = np.where(lanes.serves, burden, np.inf)[chosen]  # (sets, lanes of a set, lines)
        lane_of = np.take_along_axis(chosen, weight.argmin(axis=1), axis=1)
        is_used = (chosen[:, :, None] == lane_of[:, None, :]).any(axis=2)
        everywhere = is_used.all(axis=1)  # a set of which a lane is left over was tried among smaller ones
        leaning = _routes(lanes, chosen[everywhere], lane_of[everywhere])
        found = leaning if found is None else _joined(found, leaning)
    assert found is not None  # noqa: S101 (three were tried)
    return found


def _bounds(lanes: Lanes, chosen: Ints) -> Floats:
    """No way over a set of lanes is better than this in any of the four."""
    serves = lanes.serves[chosen]
    cents = np.where(serves, lanes.line_cents[chosen], _ENDLESS).min(axis=1).sum(axis=1)
    grams = np.where(serves, lanes.line_grams[chosen], _ENDLESS).min(axis=1).sum(axis=1)
    found = np.where(serves, lanes.found[chosen], 0).max(axis=1).prod(axis=1)
    return _beside(
        lanes.cents[chosen].sum(axis=1) + cents,
        lanes.promised[chosen].max(axis=1),
        lanes.grams[chosen].sum(axis=1) + grams,
        1 - _chance(found, lanes.on_time[chosen].prod(axis=1)),
    )


def _limit(best: Routes, worth: Worth | None, within_cents: float) -> float:
    """What a split may score."""
    return float(worth.score(best.burdens).min(initial=math.inf)) + within_cents if worth else math.inf


def _least(lanes: Lanes, chosen: Ints, worth: Worth) -> Floats:
    """What a way over each set of lanes scores at least, were every line to come by the best of all lanes: quickly told."""
    hour, kilogram = worth.hour_cents / 3600, worth.carbon_kg_cents / 1000
    lines = np.where(lanes.serves, lanes.line_cents + lanes.line_grams * kilogram, np.inf).min(axis=0).sum()
    found = np.where(lanes.serves, lanes.found, 0).max(axis=0).prod() * lanes.on_time.max() ** chosen.shape[1]
    by_parcel = chosen.T  # a few long rows: twice as fast as many short ones
    waiting = (lanes.promised[by_parcel].max(axis=0) - worth.now) * hour
    fixed: Floats = (lanes.cents + lanes.grams * kilogram)[by_parcel].sum(axis=0)
    least: Floats = fixed + waiting + (lines + (1 - found) * worth.failure_cents)
    return least


def _beside(*columns: NDArray[Any]) -> Floats:
    table = np.empty((len(columns[0]), len(columns)))
    for number, column in enumerate(columns):
        table[:, number] = column
    return table


def _chance(found: Floats, on_time: Floats) -> Floats:
    """Both, as independent; to nine digits, so that products of the same in another order are alike."""
    return np.round(found * on_time, 9)


def _is_worse(burdens: Floats, best: Floats) -> Bools:
    """Which rows some row of `best` is at least as good as in everything."""
    worse = np.zeros(len(burdens), dtype=np.bool_)
    for one in best:
        worse |= (one <= burdens).all(axis=1)
    return worse


def _front(found: Routes, least_kept: float) -> Routes:
    """Those nobody can call worse; of alike ones the first."""
    found = found.take(found.kept >= least_kept)
    burdens = found.burdens
    order = np.lexsort((burdens[:, 3], burdens[:, 2], burdens[:, 1], burdens[:, 0]))
    kept: list[int] = []
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(int(first))
        order = rest[~(burdens[first] <= burdens[rest]).all(axis=1)]
    return found.take(np.array(kept, dtype=np.int64))


def _joined(one: Routes, other: Routes) -> Routes:
    return Routes(
        np.concatenate([one.lane_of, other.lane_of]), np.concatenate([one.promised, other.promised]),
        np.concatenate([one.kept, other.kept]), np.concatenate([one.cents, other.cents]),
        np.concatenate([one.grams, other.grams]),
    )  # fmt: skip


@lru_cache(maxsize=256)
def _combinations(lanes: int, count: int) -> Ints:
    return np.asfortranarray(np.array(list(combinations(range(lanes), count)), dtype=np.int64).reshape(-1, count))


@lru_cache(maxsize=64)
def _patterns(lines: int, count: int) -> Ints:
    """Every way to give each line one of `count` lanes so that none is left over; shape (ways, lines)."""
    every = np.stack(np.meshgrid(*[np.arange(count)] * lines, indexing="ij"), axis=-1).reshape(-1, lines)
    whole: Bools = (every[:, :, None] == np.arange(count)).any(axis=1).all(axis=1)
    ways: Ints = every[whole]
    return ways


def _ways(lines: int, count: int) -> int:
    """How many patterns there are, at most; too many to be counted are as good as endless."""
    return count**lines if lines <= 12 else MOST_WAYS * 1000
