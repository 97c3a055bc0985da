"""Parameters from a retailer's own counts and picks: those under which beliefs foresee both best. The truth is never asked.

Maximum likelihood of every count and every pick as it was foreseen just before (prequential), by a search from the expectations of `parameters.py`; then
each kind's odds (location type and category), shrunk to one by how much it has shown (empirical Bayes).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from models.stock.belief.beliefs import Beliefs
from models.stock.belief.believing import cuts
from models.stock.belief.evidence import Tables, gathered
from models.stock.belief.filtering import ASK, COUNT, Evidence, Scores, step
from models.stock.belief.parameters import Parameters

LEARNED = (
    "wrong_share", "wrong_share_center", "surplus_share", "error_tail", "loss_per_day", "gain_per_day", "mis_scan", "count_error", "pick_error", "slip",
)  # fmt: skip
LEAST, MOST = 1e-4, 0.95
SURE = 40.0  # wrong records a kind must have shown for its own odds to weigh as much as everybody's
SAMPLE = 2_000  # positions of each retailer: enough for ten numbers, and quick
PRIOR_WIDTH = 1.5  # in logits: how far expectations may be off before evidence has to insist


@dataclass(frozen=True)
class Learned:
    """Parameters, and what speaks for them."""

    parameters: Parameters
    log_likelihood: float  # per count and pick
    log_likelihood_before: float  # of the expectations that learning began from
    counts: int
    picks: int
    trials: int

    def diagnostics(self) -> Mapping[str, float]:
        return {
            "log_likelihood": round(self.log_likelihood, 5), "log_likelihood_before": round(self.log_likelihood_before, 5),
            "counts": self.counts, "picks": self.picks, "trials": self.trials,
        }  # fmt: skip


def learn(
    retailers: Sequence[tuple[Tables, datetime]],
    start: Parameters | None = None,
    trials: int = 120,
    learned: Sequence[str] = LEARNED,
) -> Learned:
    """Parameters learned from one retailer's tables up to a time, or from several alike. Deterministic."""
    from scipy.optimize import minimize

    start = start or Parameters()
    told = [_told(tables, until) for tables, until in retailers]
    centre = np.array([_logit(getattr(start, name)) for name in learned])
    used = 0

    def loss(point: np.ndarray) -> float:
        nonlocal used
        used += 1
        scores = _scored(told, _at(start, learned, point))[1]
        value, count = _log_likelihood(scores)
        return -(value - 0.5 * float((((point - centre) / PRIOR_WIDTH) ** 2).sum())) / max(count, 1)

    simplex = np.vstack([centre, centre + 0.8 * np.eye(len(learned))])
    found = minimize(
        loss,
        centre,
        method="Nelder-Mead",
        options={"maxfev": trials, "initial_simplex": simplex, "adaptive": True, "xatol": 0.02, "fatol": 1e-6},
    )
    best = _at(start, learned, found.x)
    before = _log_likelihood(_scored(told, start)[1])
    beliefs, scores = _scored(told, best)
    best = best.changed(likeness=_likeness(beliefs), odds=_odds(beliefs, scores))
    _, scores = _scored(told, best)
    total, count = _log_likelihood(scores)
    counts = int(sum(each.sum() for score in scores for each in score.is_count))
    return Learned(best, total / max(count, 1), before[0] / max(before[1], 1), counts, count - counts, used)


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def _at(start: Parameters, learned: Sequence[str], point: np.ndarray) -> Parameters:
    values = np.clip(1 / (1 + np.exp(-point)), LEAST, MOST)
    return start.changed(**dict(zip(learned, map(float, values), strict=True)))


def _told(tables: Tables, until: datetime) -> list[Evidence]:
    """What became known, day by day: what it is does not depend on what is made of it."""
    beliefs, told = Beliefs(), []
    for cut in cuts(tables, until):
        told.append(gathered(beliefs, tables, cut))
        beliefs.place, beliefs.item = told[-1].place, told[-1].item
        beliefs.locations, beliefs.items, beliefs.as_of_at = told[-1].locations, told[-1].items, cut
    return _sampled(told)


def _sampled(told: list[Evidence]) -> list[Evidence]:
    """Evidence of the positions that were counted or asked for, the most evident `SAMPLE` of them: nothing is foreseen of the others."""
    size = len(told[-1].place) if told else 0
    weight = np.zeros(size)
    for evidence in told:
        np.add.at(
            weight, evidence.position, np.select([evidence.kind == COUNT, evidence.kind == ASK], [1_000.0, 1.0], 0.0)
        )
    keep = np.zeros(size, bool)
    keep[np.argsort(-weight, kind="stable")[:SAMPLE]] = True
    keep &= weight > 0
    number = np.cumsum(keep, dtype=np.int32) - 1
    sampled = []
    for evidence in told:
        here, some = keep[: len(evidence.place)], keep[evidence.position]
        sampled.append(
            replace(
                evidence, position=number[evidence.position[some]], kind=evidence.kind[some], units=evidence.units[some], day=evidence.day[some],
                found=evidence.found[some], lines=evidence.lines[here], place=evidence.place[here], item=evidence.item[here],
            )
        )  # fmt: skip
    return sampled


def _scored(retailers: Sequence[Sequence[Evidence]], parameters: Parameters) -> tuple[list[Beliefs], list[Scores]]:
    beliefs, scores = [], []
    for told in retailers:
        scores.append(Scores())
        beliefs.append(Beliefs(parameters=parameters))
        for evidence in told:
            step(beliefs[-1], evidence, scores[-1])
    return beliefs, scores


def _log_likelihood(scores: Sequence[Scores]) -> tuple[float, int]:
    """Of all counts and picks, and how many there were."""
    total, count = 0.0, 0
    for score in scores:
        if not score.probability:
            continue
        chance = np.clip(np.concatenate(score.probability).astype(np.float64), 1e-6, 1 - 1e-6)
        counted, outcome = np.concatenate(score.is_count), np.concatenate(score.outcome) == 1
        total += float(np.log(np.where(counted | outcome, chance, 1 - chance)).sum())
        count += len(chance)
    return total, count


def _likeness(beliefs: Sequence[Beliefs]) -> float:
    """Gamma shape of a location's own demand around its SKU's, by moments."""
    expected_square = surplus = 0.0
    for each in beliefs:
        sold = np.bincount(each.item, each.sold, len(each.items))
        exposure = np.bincount(each.item, each.exposure, len(each.items))
        expected = (sold / np.maximum(exposure, 1e-9))[each.item] * each.exposure
        told = each.exposure > 0
        expected_square += float((expected[told] ** 2).sum())
        surplus += float(((each.sold[told] - expected[told]) ** 2 - expected[told]).sum())
    return float(np.clip(expected_square / surplus if surplus > 0 else 50.0, 0.5, 50.0))


def _odds(beliefs: Sequence[Beliefs], scores: Sequence[Scores]) -> dict[str, float]:
    """By location type and category: wrong books found at counts beside those foreseen, shrunk to one."""
    found: dict[str, list[float]] = {}
    for belief, score in zip(beliefs, scores, strict=True):
        if not score.probability:
            continue
        counted = np.concatenate(score.is_count)
        position = np.concatenate(score.position)[counted]
        wrong = 1.0 - np.concatenate(score.outcome)[counted]
        foreseen = np.concatenate(score.wrong)[counted]
        types = belief.locations["location_type"].fill_null("store").to_list()
        categories = belief.items["category"].fill_null("").to_list()
        for at, was, expected in zip(position, wrong, foreseen, strict=True):
            kind = f"{types[belief.place[at]]}/{categories[belief.item[at]]}"
            pair = found.setdefault(kind, [0.0, 0.0])
            pair[0] += float(was)
            pair[1] += float(expected)
    return {kind: round((SURE + was) / (SURE + expected), 4) for kind, (was, expected) in sorted(found.items())}
