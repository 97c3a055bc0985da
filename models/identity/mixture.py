"""What agreement means: how often the records of one person, of two people of one household and of strangers agree in each field.

A mixture of three classes over the patterns of agreement, with fields independent within a class (Fellegi and Sunter 1969, doi
10.1080/01621459.1969.10501049, has two). The third is why a household is not a person: spouses share a name, an address, a phone and at
times an e-mail, and what two spouses share must not be counted as evidence against their being strangers alone. Strangers are known
from random pairs; the rest is learned by expectation maximisation (Dempster, Laird and Rubin 1977) from the pairs that keys
brought together, in view of the pairs that they did not. Expectations of `fields.py` weigh in as if they had been seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.identity.fields import Field
from models.identity.keys import Reached

CLASS_NAMES = ("person", "household", "strangers")
CLASSES = PERSON, HOUSEHOLD, STRANGERS = range(3)
_EXPECTED = 40.0  # pairs that an expectation counts for
_LEAST = 1e-7
MOST_STEPS = 200
_STEADY = 1e-6

Numbers = np.ndarray


@dataclass(frozen=True)
class Mixture:
    """Shares of the three classes among all pairs; by field, a row per class of shares of its levels; how often both records have it."""

    shares: Numbers
    levels: tuple[Numbers, ...]
    present: Numbers
    steps: int
    changes: tuple[float, ...]

    def log_likelihoods(self, patterns: Numbers) -> Numbers:
        """log2 of each pattern's likelihood by class (patterns x 3). `patterns`: patterns x fields, level or -1 for missing."""
        found = np.zeros((len(patterns), len(CLASSES)))
        for field, levels in enumerate(self.levels):
            seen = patterns[:, field]
            found += np.where(seen[:, None] >= 0, np.log2(levels).T[np.maximum(seen, 0)], 0.0)
        return found

    def probabilities(self, patterns: Numbers) -> Numbers:
        """Of each class, given each pattern (patterns x 3)."""
        return _normalised(self.log_likelihoods(patterns) + np.log2(self.shares))


def expected(
    fields: Sequence[Field], strangers: Sequence[Numbers], present: Numbers, pairs: float, records: float
) -> Mixture:
    """Before anything was learned: what `fields.py` expects, and one pair of each kind for every two records."""
    levels = [
        np.maximum(np.array([[level.person for level in field.levels], [level.household for level in field.levels], unlike]), _LEAST)
        for field, unlike in zip(fields, strangers, strict=True)
    ]  # fmt: skip
    share = min(0.1, 0.5 * records / max(pairs, 1.0))
    return Mixture(
        np.array([share, share, 1 - 2 * share]),
        tuple(rows / rows.sum(1, keepdims=True) for rows in levels),
        present,
        0,
        (),
    )


def learned(
    start: Mixture, patterns: Numbers, counts: Numbers, pairs: float, keys: Reached, most_steps: int = MOST_STEPS
) -> Mixture:
    """The mixture that the patterns of the compared pairs, each with its count, make most likely, among `pairs` pairs in all."""
    prior = [_EXPECTED * levels for levels in start.levels]
    rest = max(pairs - counts.sum(), 0.0)
    now, changes = start, []
    for _ in range(most_steps):
        weights = now.probabilities(patterns) * counts[:, None]
        of_class = [[field[kind] for field in now.levels] for kind in CLASSES]
        missed = np.array([max(1 - keys.share(levels, now.present), 1e-12) for levels in of_class])
        unseen = rest * _normalised(np.log2(now.shares * missed))
        shares = np.maximum((weights.sum(0) + unseen) / max(pairs, 1.0), 1e-15)
        reached = [keys.shares(levels, now.present) for levels in of_class[:STRANGERS]]
        levels = []
        for field, rows in enumerate(now.levels):
            new = rows.copy()
            for kind in (PERSON, HOUSEHOLD):
                seen = np.bincount(patterns[:, field] + 1, weights[:, kind], rows.shape[1] + 1)[1:]
                hidden = np.clip(1 - reached[kind][field], 0, 1) * rows[kind] / missed[kind]
                new[kind] = seen + unseen[kind] * now.present[field] * hidden + prior[field][kind]
                new[kind] = np.maximum(new[kind] / new[kind].sum(), _LEAST)
            levels.append(new)
        change = max(float(np.abs(a - b).max()) for a, b in zip(levels, now.levels, strict=True))
        changes.append(change)
        now = Mixture(shares / shares.sum(), tuple(levels), now.present, len(changes), tuple(changes))
        if change < _STEADY:
            break
    return now


def _normalised(logs: Numbers) -> Numbers:
    powers = np.exp2(logs - logs.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))
