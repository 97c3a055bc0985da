"""Bounds of differences, against printed examples and against worlds whose truth is known."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.results import intervals
from models.results.intervals import ONE_LOOK, Bounded, Moments, Share, moments, reach

SHARES = st.integers(1, 400).flatmap(lambda people: st.builds(Share, st.integers(0, people), st.just(people)))
SPENDING = st.lists(st.floats(0, 1e5), min_size=2, max_size=60).map(lambda said: np.array(said, dtype=np.float64))


def spent(chance: np.random.Generator, people: int, share: float, spread: float = 1.0) -> NDArray[np.float64]:
    """What the few who spend anything do: many little, some a lot."""
    return chance.lognormal(0.0, spread, chance.binomial(people, share))


def covers(found: Bounded, truth: float) -> bool:
    return found.low <= truth <= found.high


def test_proportions_have_the_bounds_that_are_printed() -> None:
    assert intervals.wilson(Share(0, 10), ONE_LOOK) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert intervals.wilson(Share(81, 263), ONE_LOOK) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    found = intervals.share_difference(
        Share(56, 70), Share(48, 80), ONE_LOOK
    )  # Newcombe 1998, table II, (a), method 10
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    found = intervals.share_difference(Share(10, 10), Share(0, 20), ONE_LOOK)  # the same table, (g)
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 0.6791, 1.0), abs=1e-4)


@given(SHARES, SHARES)
def test_bounds_of_proportions_hold_the_difference_and_turn_round_with_the_arms(one: Share, other: Share) -> None:
    found, turned = intervals.share_difference(one, other, ONE_LOOK), intervals.share_difference(other, one, ONE_LOOK)
    assert -1 - 1e-9 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1 + 1e-9
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    wider = intervals.share_difference(one, other, reach(one.people + other.people))
    assert wider.low <= found.low + 1e-12
    assert found.high - 1e-12 <= wider.high


@given(SPENDING, SPENDING, st.integers(0, 50))
def test_moments_are_those_of_everybody_counted_one_by_one(
    values: NDArray[np.float64], others: NDArray[np.float64], zeros: int
) -> None:
    everybody = np.concatenate([values, np.zeros(zeros)])
    about = everybody - everybody.mean()
    found = moments(values, len(everybody))
    assert (found.mean, found.squares) == pytest.approx((everybody.mean(), (about**2).sum()), rel=1e-9, abs=1e-6)
    assert found.cubes == pytest.approx((about**3).sum(), rel=1e-6, abs=max(1.0, np.abs(about).max() ** 3) * 1e-6)
    bounded = intervals.mean_difference(found, moments(others, len(others)), ONE_LOOK)
    turned = intervals.mean_difference(moments(others, len(others)), found, ONE_LOOK)
    assert (turned.low, turned.high) == pytest.approx((-bounded.high, -bounded.low), rel=1e-6, abs=1e-6)


def test_arms_of_one_size_have_the_bounds_of_students_test() -> None:
    one, other = (moments(np.arange(100.0) + shift, 100) for shift in (0.0, 3.0))
    found = intervals.mean_difference(one, other, 2.0)
    error = sqrt(np.arange(100.0).var(ddof=1) * 2 / 100)
    assert (found.value, found.low, found.high) == pytest.approx((-3.0, -3 - 2 * error, -3 + 2 * error))


def test_arms_without_any_spread_differ_by_what_they_differ() -> None:
    found = intervals.mean_difference(Moments(50, 2.0, 0.0, 0.0), Moments(50, 1.0, 0.0, 0.0), ONE_LOOK)
    assert found == Bounded(1.0, 1.0, 1.0)


@pytest.mark.parametrize(("treated", "held_out"), [(0.1, 0.1), (0.15, 0.1), (0.02, 0.03), (0.5, 0.4)])
def test_bounds_of_proportions_cover_the_truth_at_the_rate_they_say(treated: float, held_out: float) -> None:
    chance, worlds = np.random.default_rng(11), 2_000
    hits = sum(
        covers(
            intervals.share_difference(
                Share(chance.binomial(2_700, treated), 2_700), Share(chance.binomial(300, held_out), 300), ONE_LOOK
            ),
            treated - held_out,
        )
        for _ in range(worlds)
    )
    assert 0.935 <= hits / worlds <= 0.97


@pytest.mark.parametrize(("share", "lift", "least"), [(0.1, 1.0, 0.935), (0.3, 1.0, 0.935), (0.1, 1.3, 0.935), (0.1, 0.8, 0.91)])  # fmt: skip
def test_bounds_of_skewed_means_cover_the_truth_at_about_the_rate_they_say(
    share: float, lift: float, least: float
) -> None:
    chance, worlds, mean = np.random.default_rng(12), 2_000, np.exp(0.5)
    found = [
        intervals.mean_difference(
            moments(spent(chance, 2_700, share * lift), 2_700), moments(spent(chance, 300, share), 300), ONE_LOOK
        )
        for _ in range(worlds)
    ]
    truth = share * (lift - 1) * mean
    assert least <= sum(covers(each, truth) for each in found) / worlds <= 0.985
    assert (
        sum(each.low > truth for each in found) / worlds <= 0.05
    )  # Welch's says a lift of none in one world of eleven


def test_welchs_bounds_would_find_lifts_where_there_are_none() -> None:
    chance, worlds, lifts = np.random.default_rng(13), 2_000, 0
    for _ in range(worlds):
        one, other = moments(spent(chance, 2_700, 0.1), 2_700), moments(spent(chance, 300, 0.1), 300)
        error = sqrt(sum(arm.squares / (arm.people - 1) / arm.people for arm in (one, other)))
        lifts += one.mean - other.mean > ONE_LOOK * error
    assert lifts / worlds > 0.07  # 0.025 were right


def test_bounds_of_ratios_cover_the_truth_at_about_the_rate_they_say() -> None:
    chance, worlds, hits = np.random.default_rng(14), 1_000, 0
    for _ in range(worlds):
        sums, arms = [], []
        for people in (2_700, 300):
            orders = 1.0 + chance.poisson(0.4, chance.binomial(people, 0.3))
            arms.append((people, orders, np.array([chance.lognormal(0, 0.8, int(n)).sum() for n in orders])))
            sums.append((arms[-1][2].sum(), orders.sum()))
        common, per_person = sum(s for s, _ in sums) / sum(o for _, o in sums), sum(o for _, o in sums) / 3_000
        treated, held_out = (moments(money - common * orders, people) for people, orders, money in arms)
        ratios = (sums[0][0] / sums[0][1], sums[1][0] / sums[1][1])
        hits += covers(intervals.ratio_difference(ratios, treated, held_out, per_person, ONE_LOOK), 0.0)
    assert 0.925 <= hits / worlds <= 0.97


@pytest.mark.parametrize("kind", ["shares", "means"])
def test_whoever_looks_every_day_is_seldom_wrong_by_the_wide_bounds_and_often_by_the_narrow(kind: str) -> None:
    chance, worlds, looks = np.random.default_rng(15), 400, 40
    wrong = {"once": 0, "always": 0}
    for _ in range(worlds):
        treated, held_out = np.array([]), np.array([])
        fooled = set[str]()
        for look in range(1, looks + 1):  # 160 and 40 people more each day
            sizes = 160 * look, 40 * look
            treated = np.concatenate([treated, spent(chance, 160, 0.25, 0.8)])
            held_out = np.concatenate([held_out, spent(chance, 40, 0.25, 0.8)])
            if len(held_out) < 10:
                continue
            for name, z in (("once", ONE_LOOK), ("always", reach(sum(sizes)))):
                if kind == "shares":
                    found = intervals.share_difference(Share(len(treated), sizes[0]), Share(len(held_out), sizes[1]), z)
                else:
                    found = intervals.mean_difference(moments(treated, sizes[0]), moments(held_out, sizes[1]), z)
                if not covers(found, 0.0):
                    fooled.add(name)
        for name in fooled:
            wrong[name] += 1
    assert wrong["always"] / worlds <= 0.05
    assert wrong["once"] / worlds >= 0.15


def test_the_smallest_difference_is_seen_in_four_cases_of_five() -> None:
    chance, worlds = np.random.default_rng(16), 1_500
    z = reach(3_000)
    least = intervals.smallest_share(Share(660, 2_400), Share(150, 600), z)
    seen = sum(
        intervals.share_difference(
            Share(chance.binomial(2_400, 0.25 + least), 2_400), Share(chance.binomial(600, 0.25), 600), z
        ).low > 0
        for _ in range(worlds)
    )  # fmt: skip
    assert 0.72 <= seen / worlds <= 0.88
    one, other = moments(spent(chance, 24_000, 0.25, 0.6), 24_000), moments(spent(chance, 6_000, 0.25, 0.6), 6_000)
    z = reach(30_000)
    least = intervals.smallest_mean(one, other, z)
    lift = 1 + least / (0.25 * np.exp(0.18))
    seen = sum(
        intervals.mean_difference(
            moments(spent(chance, 24_000, 0.25 * lift, 0.6), 24_000), moments(spent(chance, 6_000, 0.25, 0.6), 6_000), z
        ).low > 0
        for _ in range(400)
    )  # fmt: skip
    assert 0.7 <= seen / 400 <= 0.9


def test_arms_that_lost_people_are_found_and_honest_ones_are_not_accused() -> None:
    chance = np.random.default_rng(17)
    honest = [chance.binomial(5_000, 0.1) for _ in range(2_000)]
    accused = sum(intervals.mismatch(5_000 - held_out, held_out, 10) < intervals.MISMATCH_BELOW for held_out in honest)
    assert accused <= 8
    assert intervals.mismatch(4_500, 400, 10) < intervals.MISMATCH_BELOW  # a fifth of the held out lost
    assert intervals.mismatch(4_500, 500, 10) == 1.0
    assert intervals.mismatch(0, 0, 10) == 1.0
    assert intervals.mismatch(30, 10, 5) < intervals.MISMATCH_BELOW < intervals.mismatch(30, 3, 5)  # exactly, of few


def test_chi_square_and_the_exact_test_agree_where_both_may_be_used() -> None:
    from scipy.stats import binomtest, chisquare

    for held_out in range(60, 141, 5):
        found = intervals.mismatch(1_000 - held_out, held_out, 10)
        assert found == pytest.approx(chisquare([1_000 - held_out, held_out], [900, 100]).pvalue)
        assert found == pytest.approx(binomtest(held_out, 1_000, 0.1).pvalue, abs=0.06)
