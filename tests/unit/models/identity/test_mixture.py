"""What agreement means is learned right: against a slow reference, from planted parameters, and from keyed pairs alone."""

from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
import pytest

from models.identity.fields import Field, Key, Level
from models.identity.keys import Reach, Reached
from models.identity.mixture import CLASSES, HOUSEHOLD, PERSON, STRANGERS, Mixture, expected, learned

EXPECTED = 40.0  # pairs that an expectation counts for
NAMELESS = Key(("first_name",), ())


def mixture(shares: Sequence[float], levels: Sequence[Sequence[Sequence[float]]], present: Sequence[float]) -> Mixture:
    """`levels`: by field, by class."""
    return Mixture(np.array(shares), tuple(np.array(rows) for rows in levels), np.array(present), 0, ())


TRUTH = mixture(
    (0.004, 0.003, 0.993),
    [
        [[0.85, 0.10, 0.05], [0.03, 0.07, 0.90], [0.01, 0.04, 0.95]],  # first name
        [[0.90, 0.06, 0.04], [0.80, 0.05, 0.15], [0.01, 0.02, 0.97]],  # last name
        [[0.92, 0.05, 0.03], [0.02, 0.03, 0.95], [0.002, 0.018, 0.98]],  # birth date
        [[0.70, 0.30], [0.20, 0.80], [0.0005, 0.9995]],  # e-mail
        [[0.75, 0.10, 0.15], [0.88, 0.08, 0.04], [0.001, 0.009, 0.99]],  # address
    ],
    (1.0, 1.0, 0.8, 0.6, 0.9),
)
GUESS = mixture(
    (0.01, 0.01, 0.98),
    [
        [[0.70, 0.15, 0.15], [0.10, 0.10, 0.80], TRUTH.levels[0][STRANGERS]],
        [[0.75, 0.15, 0.10], [0.70, 0.10, 0.20], TRUTH.levels[1][STRANGERS]],
        [[0.80, 0.10, 0.10], [0.05, 0.05, 0.90], TRUTH.levels[2][STRANGERS]],
        [[0.50, 0.50], [0.10, 0.90], TRUTH.levels[3][STRANGERS]],
        [[0.60, 0.20, 0.20], [0.70, 0.20, 0.10], TRUTH.levels[4][STRANGERS]],
    ],
    TRUTH.present,
)
KEYED = [Reach(NAMELESS, best) for best in ({3: 1}, {1: 2, 2: 1}, {0: 2, 1: 1}, {4: 1}, {0: 1, 2: 2})]


def reaches(keys: Sequence[Reach], pattern: Sequence[int]) -> bool:
    return any(all(0 <= pattern[field] < number for field, number in each.best.items()) for each in keys)


def table(truth: Mixture, pairs: float, keys: Sequence[Reach]) -> tuple[np.ndarray, np.ndarray]:
    """Every pattern that a key reaches, with how many of so many pairs show it."""
    patterns, counts = [], []
    for pattern in product(*(range(-1, rows.shape[1]) for rows in truth.levels)):
        if reaches(keys, pattern):
            patterns.append(pattern)
            counts.append(pairs * sum(chance(truth, pattern)))
    return np.array(patterns), np.array(counts)


def chance(of: Mixture, pattern: Sequence[int]) -> list[float]:
    """Of a class and the pattern together, by class."""
    found = []
    for kind in CLASSES:
        product_of = float(of.shares[kind])
        for field, level in enumerate(pattern):
            said = of.present[field]
            product_of *= said * of.levels[field][kind, level] if level >= 0 else 1 - said
        found.append(product_of)
    return found


def reference_step(now: Mixture, prior: Mixture, patterns: np.ndarray, counts: np.ndarray, pairs: float,
                   keys: Sequence[Reach]) -> Mixture:  # fmt: skip
    """One step of expectation maximisation, every pattern by itself, those that no key reaches included."""
    every = list(product(*(range(-1, rows.shape[1]) for rows in now.levels)))
    unseen = [pattern for pattern in every if not reaches(keys, pattern)]
    hidden = [chance(now, pattern) for pattern in unseen]
    total = sum(map(sum, hidden))
    rest = max(pairs - counts.sum(), 0.0)
    weighed = [
        (pattern, [rest * part / total for part in parts]) for pattern, parts in zip(unseen, hidden, strict=True)
    ]
    for pattern, count in zip(patterns.tolist(), counts, strict=True):
        parts = chance(now, pattern)
        weighed.append((pattern, [count * part / sum(parts) for part in parts]))
    shares = np.array([sum(parts[kind] for _, parts in weighed) for kind in CLASSES])
    levels = [rows.copy() for rows in now.levels]
    for field, kind in product(range(len(levels)), (PERSON, HOUSEHOLD)):
        seen = EXPECTED * prior.levels[field][kind]
        for pattern, parts in weighed:
            if pattern[field] >= 0:
                seen[pattern[field]] += parts[kind]
        levels[field][kind] = seen / seen.sum()
    return Mixture(shares / shares.sum(), tuple(levels), now.present, now.steps + 1, ())


def penalised(
    of: Mixture, prior: Mixture, patterns: np.ndarray, counts: np.ndarray, pairs: float, keys: Reached
) -> float:
    """Log-likelihood of seen and unseen pairs, and of the expectations as if they had been seen."""
    missed = [1 - keys.share([rows[kind] for rows in of.levels], of.present) for kind in CLASSES]
    seen = np.log(np.exp2(of.log_likelihoods(patterns)) @ of.shares)
    said = sum(
        EXPECTED * float(prior.levels[field][kind] @ np.log(of.levels[field][kind]))
        for field, kind in product(range(len(of.levels)), (PERSON, HOUSEHOLD))
    )
    return float(counts @ seen + (pairs - counts.sum()) * np.log(of.shares @ missed) + said)


PAIRS = 2_000_000.0
SMALL = [Reach(NAMELESS, {0: 1}), Reach(NAMELESS, {1: 2, 2: 1})]
SMALL_TRUTH = mixture(TRUTH.shares.tolist(), [rows.tolist() for rows in TRUTH.levels[:3]], (0.95, 0.9, 0.7))
SMALL_GUESS = mixture(GUESS.shares.tolist(), [rows.tolist() for rows in GUESS.levels[:3]], (0.95, 0.9, 0.7))


def test_each_step_is_that_of_a_slow_reference_that_looks_at_every_pattern() -> None:
    patterns, counts = table(SMALL_TRUTH, PAIRS, SMALL)
    counts = np.round(counts * np.linspace(0.7, 1.3, len(counts)))  # no table of any model
    reference = SMALL_GUESS
    for steps in range(1, 9):
        reference = reference_step(reference, SMALL_GUESS, patterns, counts, PAIRS, SMALL)
        found = learned(SMALL_GUESS, patterns, counts, PAIRS, Reached(SMALL, 3), most_steps=steps)
        assert found.steps == steps
        assert found.shares == pytest.approx(reference.shares, rel=1e-8)
        for mine, theirs in zip(found.levels, reference.levels, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_the_likelihood_never_falls_from_step_to_step(seed: int) -> None:
    random = np.random.default_rng(seed)
    patterns, counts = table(SMALL_TRUTH, PAIRS, SMALL)
    counts = np.round(counts * random.uniform(0.2, 3.0, len(counts)))
    keys = Reached(SMALL, 3)
    said = [
        penalised(learned(SMALL_GUESS, patterns, counts, PAIRS, keys, most_steps=steps), SMALL_GUESS, patterns, counts, PAIRS, keys)
        for steps in range(40)
    ]  # fmt: skip
    assert all(later >= earlier - 1e-6 for earlier, later in pairwise(said))
    assert said[-1] > said[0]


def test_planted_parameters_are_found_again_households_included() -> None:
    patterns, counts = table(TRUTH, PAIRS, KEYED)
    drawn = np.random.default_rng(20_260_302).poisson(counts).astype(float)
    found = learned(GUESS, patterns, drawn, PAIRS, Reached(KEYED, 5))
    assert found.shares == pytest.approx(TRUTH.shares, rel=0.05)
    for mine, theirs in zip(found.levels, TRUTH.levels, strict=True):
        assert mine[PERSON] == pytest.approx(theirs[PERSON], abs=0.02)
        assert mine[HOUSEHOLD] == pytest.approx(theirs[HOUSEHOLD], abs=0.03)
    likely = found.probabilities(patterns)
    assert likely == pytest.approx(TRUTH.probabilities(patterns), abs=0.15)
    assert counts @ likely[:, PERSON] == pytest.approx(counts @ TRUTH.probabilities(patterns)[:, PERSON], rel=0.03)


def test_how_many_pairs_are_of_one_person_is_found_from_keyed_pairs_alone() -> None:
    """The keys bring together few of the pairs, and not all of any class; the share is of all."""
    narrow = [Reach(NAMELESS, {3: 1}), Reach(NAMELESS, {1: 1, 2: 1})]
    patterns, counts = table(TRUTH, PAIRS, narrow)
    reached = Reached(narrow, 5).share([rows[PERSON] for rows in TRUTH.levels], TRUTH.present)
    assert reached < 0.9
    assert counts.sum() < 0.02 * PAIRS
    found = learned(GUESS, patterns, counts, PAIRS, Reached(narrow, 5))
    assert found.shares[PERSON] == pytest.approx(TRUTH.shares[PERSON], rel=0.1)


def test_learned_shares_sum_to_one_and_leave_strangers_as_random_pairs_showed_them() -> None:
    patterns, counts = table(TRUTH, PAIRS, KEYED)
    found = learned(GUESS, patterns, counts, PAIRS, Reached(KEYED, 5))
    assert found.shares.sum() == pytest.approx(1, abs=1e-12)
    for rows, said in zip(found.levels, GUESS.levels, strict=True):
        assert rows.sum(1) == pytest.approx(np.ones(3), abs=1e-5)
        assert (rows[STRANGERS] == said[STRANGERS]).all()
        assert (rows > 0).all()
    assert found.probabilities(patterns).sum(1) == pytest.approx(np.ones(len(patterns)), abs=1e-12)
    assert found.steps == len(found.changes) > 1
    assert found.changes[-1] < 1e-6


def test_nothing_compared_leaves_what_was_expected() -> None:
    nothing = np.zeros((0, 5), np.int64)
    found = learned(GUESS, nothing, np.zeros(0), 0.0, Reached([], 5))
    assert all(mine == pytest.approx(said) for mine, said in zip(found.levels, GUESS.levels, strict=True))
    assert np.isfinite(found.shares).all()
    assert found.shares.sum() == pytest.approx(1)


FIELD = Field("name", ("name",), "", (Level("same", "", 0.9, 0.3, 0.1), Level("different", "", 0.1, 0.0, 0.9)))


def test_before_anything_is_learned_expectations_hold_and_no_level_is_impossible() -> None:
    start = expected([FIELD], [np.array([0.01, 0.99])], np.ones(1), pairs=4_950, records=100)
    assert start.shares == pytest.approx([50 / 4_950, 50 / 4_950, 1 - 100 / 4_950])
    assert start.levels[0] == pytest.approx(np.array([[0.9, 0.1], [1.0, 0.0], [0.01, 0.99]]), abs=1e-6)
    assert (start.levels[0] > 0).all()
    assert start.shares[PERSON] <= expected([FIELD], [np.array([0.5, 0.5])], np.ones(1), 1, 100).shares[PERSON] <= 0.1


def test_what_is_missing_says_nothing() -> None:
    known, half = np.array([[0, 0, 0, 0, 0]]), np.array([[0, -1, 0, -1, 0]])
    silent = mixture(
        TRUTH.shares.tolist(), [TRUTH.levels[field].tolist() for field in (0, 2, 4)], TRUTH.present[[0, 2, 4]].tolist()
    )
    assert TRUTH.log_likelihoods(half) == pytest.approx(silent.log_likelihoods(known[:, :3]))
    assert TRUTH.probabilities(np.full((1, 5), -1))[0] == pytest.approx(TRUTH.shares)
