"""Differences between two arms with their bounds, and whether the arms are as large as they were meant to be. Pure arithmetic.

Every bound takes its reach `z` in standard errors: `ONE_LOOK` holds for whoever looks once, at a time set before; `reach(people)`
holds however often anybody looks, and when they stop.
"""

from dataclasses import dataclass
from math import erfc, log, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
POWER = 0.8
LEAST_PEOPLE = 30  # in each arm
LEAST_EVENTS = 10  # people of each arm who did it, and who did not: fewer bound nothing, and are nobody else's business
MISMATCH_BELOW = (
    0.001  # Fabijan and others 2019, doi 10.1145/3292500.3330722: what so rarely happens by chance is a fault
)
ONE_LOOK = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
_POWER_REACH = NormalDist().inv_cdf(POWER)
_TIGHTEST_AT = 1_000  # people; set once and for all, for it may not follow the data. 3.0 there, 3.4 at 30,000
_LEAST_EXPECTED = 5.0  # people of an arm, below which the chi-square is no good


@dataclass(frozen=True)
class Bounded:
    """A difference, treated less held out, and its bounds."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Share:
    """How many of how many people did something."""

    did: int
    people: int

    @property
    def value(self) -> float:
        return self.did / self.people


@dataclass(frozen=True)
class Moments:
    """A number per person: how many people, its mean, and the sums of squares and cubes about the mean."""

    people: int
    mean: float
    squares: float
    cubes: float


def moments(values: NDArray[np.float64], people: int) -> Moments:
    """Of so many people of whom these have a value; that of all others is zero."""
    mean = float(values.sum()) / people
    about, zeros = values - mean, people - len(values)
    return Moments(people, mean, float((about**2).sum()) + zeros * mean**2, float((about**3).sum()) - zeros * mean**3)


def reach(people: int) -> float:
    """Standard errors that hold at every look at once: the asymptotic confidence sequence for that many people.

    Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, Annals of Statistics 52(6), doi 10.1214/24-AOS2408: a normal mixture,
    tightest at `_TIGHTEST_AT` people.
    """
    doubt = 1 - CONFIDENCE
    spread = (-2 * log(doubt) + log(1 - 2 * log(doubt))) / _TIGHTEST_AT
    grown = people * spread
    return sqrt(2 * (grown + 1) / grown * log(sqrt(grown + 1) / doubt))


def wilson(share: Share, z: float) -> tuple[float, float]:
    """Bounds of a proportion: Wilson 1927, doi 10.1080/01621459.1927.10502953."""
    n, p = share.people, share.value
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    reached = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - reached), min(1.0, middle + reached)


def share_difference(treated: Share, held_out: Share, z: float) -> Bounded:
    """Of two proportions: Newcombe 1998, method 10, doi 10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I."""
    (low_1, high_1), (low_0, high_0) = wilson(treated, z), wilson(held_out, z)
    p, q = treated.value, held_out.value
    return Bounded(p - q, p - q - sqrt((p - low_1) ** 2 + (high_0 - q) ** 2), p - q + sqrt((high_1 - p) ** 2 + (q - low_0) ** 2))  # fmt: skip


def mean_difference(treated: Moments, held_out: Moments, z: float) -> Bounded:
    """Of two means of what most people have none of and a few much: one variance for both arms, set right for skewness.

    Quantiles by Cornish and Fisher 1938 (doi 10.2307/1400905), first term. Why not Welch's or a bootstrap's: README.
    """
    return _bounded(treated.mean - held_out.mean, treated, held_out, z)


def ratio_difference(
    ratios: tuple[float, float], treated: Moments, held_out: Moments, per_person: float, z: float
) -> Bounded:
    """Of two ratios of sums over people, by the delta method (Deng, Knoblich and Lu 2018, doi 10.1145/3219819.3219919).

    Handed the moments of what a person is above the common ratio, and how much of the divisor there is per person.
    """
    found = _bounded((ratios[0] - ratios[1]) * per_person, treated, held_out, z)
    return Bounded(ratios[0] - ratios[1], found.low / per_person, found.high / per_person)


def _bounded(value: float, treated: Moments, held_out: Moments, z: float) -> Bounded:
    error, skewness = _spread(treated, held_out)
    shift = skewness * (z * z - 1) / 6
    return Bounded(value, value - (z + shift) * error, value - (shift - z) * error)


def _spread(treated: Moments, held_out: Moments) -> tuple[float, float]:
    """Standard error of the difference of two means where both arms vary alike, and its skewness."""
    n, m = treated.people, held_out.people
    variance = (treated.squares + held_out.squares) / (n + m - 2)
    if variance <= 0:
        return 0.0, 0.0
    third = (treated.cubes + held_out.cubes) / (n + m)
    each = 1 / n + 1 / m
    return sqrt(variance * each), third / variance**1.5 * (1 / n**2 - 1 / m**2) / each**1.5


def smallest_share(treated: Share, held_out: Share, z: float) -> float:
    """The smallest difference of proportions that would be seen in four cases of five. Nothing is told of fewer than ten people."""
    people = treated.people + held_out.people
    least = min(0.5, LEAST_EVENTS / people)
    common = min(max((treated.did + held_out.did) / people, least), 1 - least)
    return (z + _POWER_REACH) * sqrt(common * (1 - common) * (1 / treated.people + 1 / held_out.people))


def smallest_mean(treated: Moments, held_out: Moments, z: float) -> float:
    """The smallest difference of means that would be seen in four cases of five."""
    return (z + _POWER_REACH) * _spread(treated, held_out)[0]


def mismatch(treated: int, held_out: int, percent: int) -> float:
    """How likely arms so far from their shares are by chance: chi-square with one degree of freedom, exactly where few are expected."""
    people = treated + held_out
    expected = people * percent / 100
    if not people:
        return 1.0
    if min(expected, people - expected) < _LEAST_EXPECTED:
        from scipy.stats import binomtest

        return float(binomtest(held_out, people, percent / 100).pvalue)
    square = (held_out - expected) ** 2 * (1 / expected + 1 / (people - expected))
    return erfc(sqrt(square / 2))
