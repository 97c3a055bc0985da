"""Probabilities held to what pickers found: beta calibration, by group, and the reliability table that is published with it.

Beta calibration (Kull, Silva Filho & Flach 2017, doi 10.1214/17-EJS1338SI): logit of the answer = a ln p - b ln(1 - p) + c, with a and b not below nothing, so
that more pieces are never likelier than fewer. Each group (route and category) moves c by what it has shown, shrunk to none: its own picks against `SURE`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.stock.belief.beliefs import Floats
from models.stock.belief.filtering import Scores

FLOOR = 1e-4  # no picker was ever surer
SURE = 8.0  # curvature that holds a group's own level back: about 8 / (p (1 - p)) picks weigh as much
STEADY = 4.0  # the same for a and b, toward leaving probabilities as they are
ROUNDS = 50
LEAST_PICKS = 200  # with fewer, probabilities stay as they are


@dataclass(frozen=True)
class Calibration:
    """What pick outcomes make of a probability. The default leaves it as it is."""

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0
    groups: Mapping[str, float] = field(default_factory=dict)
    picks: int = 0

    def applied(self, probability: Floats, groups: Sequence[str] | NDArray[np.str_] | None = None) -> Floats:
        """Calibrated probabilities, in rows of `groups`; 0 and 1 stay what they are."""
        chance = np.clip(probability.astype(np.float64), FLOOR, 1 - FLOOR)
        level = self._levels(groups, len(probability))
        level = level.reshape(-1, *([1] * (chance.ndim - 1))) if isinstance(level, np.ndarray) else level
        told = _sigmoid(self.a * np.log(chance) - self.b * np.log1p(-chance) + level)
        return np.where((probability <= 0) | (probability >= 1), probability, told).astype(np.float32)

    def _levels(self, groups: Sequence[str] | NDArray[np.str_] | None, size: int) -> NDArray[np.float64] | float:
        if groups is None or not self.groups:
            return self.c
        names, which = np.unique(np.asarray(groups), return_inverse=True)
        return self.c + np.array([self.groups.get(str(name), 0.0) for name in names])[which.reshape(size)]

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), sort_keys=True, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Calibration":
        return cls(**json.loads(text))


def fitted(
    probability: Floats, outcome: NDArray[np.bool_], groups: Sequence[str] | NDArray[np.str_] | None = None
) -> Calibration:
    """The calibration that pick outcomes ask for: penalised likelihood, by Newton's steps."""
    count = len(probability)
    if count < LEAST_PICKS or outcome.all() or not outcome.any():
        return Calibration(picks=count)
    chance = np.clip(probability.astype(np.float64), FLOOR, 1 - FLOOR)
    names, which = np.unique(np.asarray(groups) if groups is not None else np.full(count, ""), return_inverse=True)
    curve = np.column_stack([np.log(chance), -np.log1p(-chance), np.ones(count)])
    weights, levels = np.array([1.0, 1.0, 0.0]), np.zeros(len(names))
    hold = np.diag([STEADY, STEADY, 0.0])
    for _ in range(ROUNDS):
        told = _sigmoid(curve @ weights + levels[which])
        spread = np.maximum(told * (1 - told), 1e-9)
        # The groups' own levels are solved for first: one number each, so the three of the curve are left.
        each = np.bincount(which, spread) + SURE
        across = np.stack([np.bincount(which, spread * column) for column in curve.T], axis=1)
        slope = curve.T @ (outcome - told) - hold @ (weights - [1.0, 1.0, 0.0])
        pull = np.bincount(which, outcome - told) - SURE * levels
        bend = (curve * spread[:, None]).T @ curve + hold - across.T @ (across / each[:, None])
        change = np.linalg.solve(bend, slope - across.T @ (pull / each))
        weights = weights + change
        weights[:2] = np.maximum(weights[:2], 0.05)
        levels = levels + (pull - across @ change) / each
        if np.abs(change).max() < 1e-7:
            break
    own = (
        {str(name): round(float(level), 6) for name, level in zip(names, levels, strict=True)}
        if groups is not None
        else {}
    )
    a, b, c = (round(float(each), 6) for each in weights)
    return Calibration(a, b, c, own, count)


def picks_of(scores: Scores) -> tuple[NDArray[np.int32], Floats, NDArray[np.bool_]]:
    """Position, P(complete) as foreseen, and whether it was, of each pick."""
    if not scores.position:
        return np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, bool)
    picked = ~np.concatenate(scores.is_count)
    return (
        np.concatenate(scores.position)[picked], np.concatenate(scores.probability)[picked], np.concatenate(scores.outcome)[picked] == 1,
    )  # fmt: skip


def reliability(
    probability: Floats,
    outcome: NDArray[np.bool_],
    groups: Sequence[str] | NDArray[np.str_] | None = None,
    bins: int = 15,
) -> pl.DataFrame:
    """What was told beside what was found, in bins of equal width: group, bin_from, bin_to, picks, mean_predicted, observed, lower, upper.

    `lower` and `upper` hold the observed share with 95 % (Wilson 1927). One row per group and bin that has picks; group `all` is everybody.
    """
    frame = pl.DataFrame({"probability": probability.astype(np.float64), "found": outcome.astype(np.float64)})
    everything = [frame.with_columns(group=pl.lit("all"))]
    if groups is not None:
        everything.append(frame.with_columns(group=pl.Series(np.asarray(groups).astype(str))))
    z2 = 1.959964**2
    share, count = pl.col("observed"), pl.col("picks")
    middle, width = (
        (share + z2 / (2 * count)) / (1 + z2 / count),
        (share * (1 - share) / count + z2 / (4 * count**2)).sqrt() * 1.959964 / (1 + z2 / count),
    )
    return (
        pl.concat(everything)
        .with_columns(bin=(pl.col("probability") * bins).floor().clip(0, bins - 1).cast(pl.Int32))
        .group_by("group", "bin")
        .agg(picks=pl.len(), mean_predicted=pl.col("probability").mean(), observed=pl.col("found").mean())
        .with_columns(
            bin_from=pl.col("bin") / bins,
            bin_to=(pl.col("bin") + 1) / bins,
            lower=(middle - width).clip(0, 1),
            upper=(middle + width).clip(0, 1),
        )
        .sort("group", "bin")
        .select("group", "bin_from", "bin_to", "picks", "mean_predicted", "observed", "lower", "upper")
    )


def calibration_error(probability: Floats, outcome: NDArray[np.bool_], bins: int = 15) -> float:
    """ECE: the mean distance of told and found over bins of equal width, by how much is in them."""
    if not len(probability):
        return 0.0
    which = np.clip((probability * bins).astype(np.int64), 0, bins - 1)
    told, found = np.bincount(which, probability), np.bincount(which, outcome)
    return float(np.abs(told - found).sum() / len(probability))


def brier(probability: Floats, outcome: NDArray[np.bool_]) -> float:
    """Mean squared distance of the probability from what happened."""
    return float(np.mean((probability - outcome) ** 2))


def _sigmoid(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(value, -40, 40)))
