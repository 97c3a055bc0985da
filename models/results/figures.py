"""The figures of one window: what people of both arms did, the difference and its bounds, and when there is too little to say it.

No figure is about fewer than ten people: nor, of a share, leaves fewer than ten over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.results import intervals
from models.results.arms import ARMS, Measured
from models.results.intervals import (
    LEAST_EVENTS,
    LEAST_PEOPLE,
    MISMATCH_BELOW,
    ONE_LOOK,
    Bounded,
    Moments,
    Share,
    moments,
    reach,
)
from models.segments.decision import HELD_OUT, TREATED

Unit = Literal["share", "number", "cents"]
Verdict = Literal["more", "less", "no_difference_seen", "not_enough_data", "nobody_held_out", "arms_mismatch"]


@dataclass(frozen=True)
class Measure:
    """What is measured of a person. `column`: of what they did, summed; `at_least`: whether so much; `per`: divided by another sum.

    `doing` is what there have to be ten people of.
    """

    name: str
    title: str
    unit: Unit
    column: str
    doing: str
    at_least: int | None = None
    per: str | None = None
    by_day: bool = False


MEASURES = (
    Measure("ordered", "ordered", "share", "orders", "ordered", at_least=1, by_day=True),
    Measure("ordered_again", "ordered twice or more", "share", "orders", "ordered twice", at_least=2),
    Measure("net_cents", "spent per person", "cents", "net_cents", "spent something", by_day=True),
    Measure("net_cents_per_order", "spent per order", "cents", "net_cents", "spent something", per="paid_orders"),
    Measure("visited", "visited", "share", "events", "visited", at_least=1),
    Measure("views", "products viewed per person", "number", "views", "viewed a product"),
)
MAIN = MEASURES[0].name  # what a segment is judged by, said before anybody looks; the others explain it
_DID = ("events", "views", "orders", "paid_orders", "net_cents")


@dataclass(frozen=True)
class Difference:
    """Treated less held out. `low` and `high` hold for one look at a time set before, `always_*` however often anybody looks."""

    value: float
    low: float
    high: float
    always_low: float
    always_high: float


@dataclass(frozen=True)
class Estimate:
    """One measure in both arms; None where there is too little to say it, and `why` says what is missing.

    `smallest`: the smallest difference that would be seen in four cases of five, however often anybody looks.
    `is_like_for_like`: those compared were told apart by chance alone. Who ordered at all was not.
    """

    measure: str
    title: str
    unit: Unit
    treated: float | None
    held_out: float | None
    difference: Difference | None
    smallest: float | None
    verdict: Verdict
    why: str
    is_like_for_like: bool


@dataclass(frozen=True)
class DayAfter:
    """A measure from a person's file to the end of a day after it; of the same people every day."""

    day: int
    treated: float | None
    held_out: float | None
    difference: Difference | None


@dataclass(frozen=True)
class Window:
    """So many days after each person's file. Assigned = people + left out, summed over reasons.

    `mismatch_*`: how likely arms so far from their shares are by chance, of all who were assigned and of those measured.
    """

    days: int
    assigned: Mapping[str, int]
    people: Mapping[str, int]
    left_out: Mapping[str, int]
    another_share: int
    mismatch_assigned: float
    mismatch_people: float
    has_mismatch: bool
    estimates: Sequence[Estimate]
    by_day: Mapping[str, Sequence[DayAfter]]


def window(found: Measured, days: int, holdout_percent: int) -> Window:
    """The figures of one window."""
    of_assigned, of_people = (
        intervals.mismatch(people[TREATED], people[HELD_OUT], holdout_percent) if holdout_percent else 1.0
        for people in (found.assigned, found.people)
    )
    has_mismatch = min(of_assigned, of_people) < MISMATCH_BELOW
    whole = _arms(found.did, found.people)
    return Window(
        days, found.assigned, found.people, found.left_out, found.another_share, of_assigned, of_people, has_mismatch,
        [_estimate(measure, whole, holdout_percent, has_mismatch) for measure in MEASURES],
        {
            measure.name: _days_after(measure, found, days, holdout_percent) for measure in MEASURES if measure.by_day
        },
    )  # fmt: skip


@dataclass(frozen=True)
class _Arm:
    """An arm's people, and the sums of each of them who did something, column by column."""

    people: int
    sums: Mapping[str, NDArray[np.float64]]

    def did(self, measure: Measure) -> int:
        sums = self.sums[measure.per or measure.column]
        return int(np.count_nonzero(sums >= measure.at_least if measure.at_least else sums))

    def total(self, column: str) -> float:
        return float(self.sums[column].sum())

    def value(self, measure: Measure) -> float:
        if measure.at_least:
            return self.did(measure) / self.people
        return self.total(measure.column) / (self.total(measure.per) if measure.per else self.people)

    def is_enough(self, measure: Measure) -> bool:
        did = self.did(measure)
        others = self.people - did if measure.at_least else LEAST_EVENTS
        return self.people >= LEAST_PEOPLE and min(did, others) >= LEAST_EVENTS


def _arms(did: pl.DataFrame, people: Mapping[str, int]) -> dict[str, _Arm]:
    each = did.group_by("person", "arm", maintain_order=True).agg(pl.col(_DID).sum().cast(pl.Float64))
    is_in = {arm: (each["arm"] == arm).to_numpy() for arm in ARMS}
    return {arm: _Arm(people[arm], {name: each[name].to_numpy()[is_in[arm]] for name in _DID}) for arm in ARMS}


def _days_after(measure: Measure, found: Measured, days: int, holdout_percent: int) -> list[DayAfter]:
    told = found.did.filter(pl.col(measure.column) != 0)
    after = []
    for day in range(1, days + 1):
        arms = _arms(told.filter(pl.col("day") <= day), found.people)
        said = _estimate(measure, arms, holdout_percent, has_mismatch=False)
        after.append(DayAfter(day, said.treated, said.held_out, said.difference))
    return after


def _estimate(measure: Measure, arms: Mapping[str, _Arm], holdout_percent: int, has_mismatch: bool) -> Estimate:
    told = {arm: each.value(measure) if each.is_enough(measure) else None for arm, each in arms.items()}
    difference, smallest = None, None
    verdict: Verdict
    if not holdout_percent:
        verdict, why = "nobody_held_out", "nobody was held out, so there is nothing to compare with. Hold some out."
    else:
        smallest = _smallest(measure, arms)
        if None in told.values():
            verdict, why = "not_enough_data", _missing(measure, arms)
        else:
            difference = _difference(measure, arms)
            verdict, why = "arms_mismatch" if has_mismatch else _verdict(difference), ""
    return Estimate(
        measure.name, measure.title, measure.unit, told[TREATED], told[HELD_OUT], difference, smallest, verdict, why,
        is_like_for_like=measure.per is None,
    )  # fmt: skip


def _verdict(found: Difference) -> Verdict:
    """More or less is said only where it would be however often anybody looked."""
    if found.always_low > 0:
        return "more"
    return "less" if found.always_high < 0 else "no_difference_seen"


def _difference(measure: Measure, arms: Mapping[str, _Arm]) -> Difference:
    once, always = (_bounded(measure, arms, z) for z in (ONE_LOOK, _reach(arms)))
    return Difference(once.value, once.low, once.high, always.low, always.high)


def _bounded(measure: Measure, arms: Mapping[str, _Arm], z: float) -> Bounded:
    if measure.at_least:
        return intervals.share_difference(*_shares(measure, arms), z)
    if measure.per is None:
        return intervals.mean_difference(*_moments(measure, arms), z)
    treated, held_out = (arms[arm].value(measure) for arm in ARMS)
    return intervals.ratio_difference((treated, held_out), *_moments(measure, arms), _per_person(measure, arms), z)


def _smallest(measure: Measure, arms: Mapping[str, _Arm]) -> float | None:
    """None where so few people are there, or did anything, that it would be a figure about them."""
    if min(arm.people for arm in arms.values()) < LEAST_EVENTS:
        return None
    if measure.at_least:
        return intervals.smallest_share(*_shares(measure, arms), _reach(arms))
    if sum(arm.did(measure) for arm in arms.values()) < LEAST_EVENTS:
        return None
    return intervals.smallest_mean(*_moments(measure, arms), _reach(arms)) / _per_person(measure, arms)


def _reach(arms: Mapping[str, _Arm]) -> float:
    return reach(sum(arm.people for arm in arms.values()))


def _shares(measure: Measure, arms: Mapping[str, _Arm]) -> tuple[Share, Share]:
    treated, held_out = (Share(arms[arm].did(measure), arms[arm].people) for arm in ARMS)
    return treated, held_out


def _moments(measure: Measure, arms: Mapping[str, _Arm]) -> tuple[Moments, Moments]:
    """Of the number per person; of a ratio, of what a person is above it."""
    common = 0.0
    if measure.per:
        common = sum(arm.total(measure.column) for arm in arms.values()) / sum(
            arm.total(measure.per) for arm in arms.values()
        )
    treated, held_out = (
        moments(arm.sums[measure.column] - common * arm.sums[measure.per or measure.column], arm.people)
        for arm in (arms[name] for name in ARMS)
    )
    return treated, held_out


def _per_person(measure: Measure, arms: Mapping[str, _Arm]) -> float:
    """How much there is, per person, of what a ratio is divided by."""
    if measure.per is None:
        return 1.0
    return sum(arm.total(measure.per) for arm in arms.values()) / sum(arm.people for arm in arms.values())


def _missing(measure: Measure, arms: Mapping[str, _Arm]) -> str:
    if few := [arm for arm in ARMS if arms[arm].people < LEAST_PEOPLE]:
        listed = " and ".join(f"{arms[arm].people} {_spelled(arm)}" for arm in few)
        return f"expected at least {LEAST_PEOPLE} people measured in each arm, found {listed}. Wait, or write to more."
    listed = " and ".join(f"the {_spelled(arm)}" for arm in ARMS if not arms[arm].is_enough(measure))
    others = f" and {LEAST_EVENTS} who did not" if measure.at_least else ""
    return f"expected at least {LEAST_EVENTS} people of each arm who {measure.doing}{others}, found fewer among {listed}. Wait, or hold out more."


def _spelled(arm: str) -> str:
    return arm.replace("_", " ")
