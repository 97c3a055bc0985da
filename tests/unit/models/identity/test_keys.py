"""Which records are worth comparing: what keys reach, counted out by brute force, and what they may cost."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.identity.fields import FIELDS, KEYS, Key
from models.identity.keys import (
    MOST_PER_VALUE,
    PAIRS_PER_RECORD,
    Reach,
    Reached,
    chosen,
    column_of,
    pair_counts,
    reach,
    with_keys,
)

LEVELS = (3, 2, 4)  # of three fields
NAMELESS = Key(("first_name",), ())


def keys(*best: tuple[dict[int, int], float]) -> list[Reach]:
    return [Reach(NAMELESS, each, coverage) for each, coverage in best]


def counted_out(
    some: Sequence[Reach], levels: Sequence[np.ndarray], present: Sequence[float], given: tuple[int, int] | None = None
) -> float:
    """The share of pairs that a key reaches, over all levels, missing included; or of the pairs with a level (field, level) given."""
    total = 0.0
    for combination in product(*(range(-1, len(each)) for each in levels)):
        if given is not None and combination[given[0]] != given[1]:
            continue
        chance = 1.0
        for field, level in enumerate(combination):
            if given is None or field != given[0]:
                chance *= present[field] * levels[field][level] if level >= 0 else 1 - present[field]
        fitting = [
            each.coverage
            for each in some
            if all(0 <= combination[field] < number for field, number in each.best.items())
        ]
        total += chance * (1 - float(np.prod([1 - coverage for coverage in fitting])))
    return total


BEST = st.tuples(
    st.dictionaries(st.integers(0, 2), st.integers(1, 2), min_size=1, max_size=3),
    st.one_of(st.just(1.0), st.floats(0.01, 1)),
)
SHARES = st.lists(st.floats(0.01, 1), min_size=sum(LEVELS), max_size=sum(LEVELS))
PRESENT = st.lists(st.floats(0, 1), min_size=3, max_size=3)


@settings(max_examples=150, deadline=None)
@given(st.lists(BEST, max_size=5), SHARES, PRESENT)
def test_what_keys_reach_is_what_counting_all_combinations_of_levels_gives(
    best: list[tuple[dict[int, int], float]], weights: list[float], present: list[float]
) -> None:
    parts = np.split(np.array(weights), np.cumsum(LEVELS)[:-1])
    levels = [part / part.sum() for part in parts]
    some = keys(*best)
    reached = Reached(some, len(LEVELS))
    assert reached.share(levels, np.array(present)) == pytest.approx(counted_out(some, levels, present), abs=1e-9)
    for field, shares in enumerate(reached.shares(levels, np.array(present))):
        assert list(shares) == pytest.approx(
            [counted_out(some, levels, present, (field, level)) for level in range(LEVELS[field])], abs=1e-9
        )


def test_no_keys_reach_nothing() -> None:
    levels = [np.full(count, 1 / count) for count in LEVELS]
    assert Reached([], 3).share(levels, np.ones(3)) == 0
    assert [list(each) for each in Reached([], 3).shares(levels, np.ones(3))] == [[0.0] * count for count in LEVELS]


def test_one_more_key_reaches_what_all_of_them_together_reach() -> None:
    some = keys(({0: 1}, 0.9), ({1: 1, 2: 2}, 1.0), ({0: 2, 2: 1}, 0.4))
    levels, present = [np.full(count, 1 / count) for count in LEVELS], np.array([0.9, 0.8, 0.7])
    apart = Reached(some[:2], 3).joined_by(some[2])
    assert apart.share(levels, present) == pytest.approx(Reached(some, 3).share(levels, present), abs=1e-12)


def test_every_key_names_levels_and_columns_that_there_are() -> None:
    for key in KEYS:
        found = reach(key, FIELDS)
        assert found is not None
        assert all(0 < number < len(FIELDS[field].levels) for field, number in found.best.items())
    assert reach(KEYS[0], FIELDS[:2]) is None


def test_a_value_that_too_many_share_is_no_key_and_one_that_just_fewer_share_is() -> None:
    email = next(key for key in KEYS if key.columns == ("email",))
    crowd, town = ["info@example.org"] * (MOST_PER_VALUE + 1), ["family@example.org"] * MOST_PER_VALUE
    records = pl.DataFrame({"email": [*crowd, *town, None, None, "ann@example.org"]})
    each = reach(email, FIELDS)
    assert each is not None
    values = with_keys(records, [each])[column_of(each)]
    assert values.drop_nulls().value_counts(sort=True).rows() == [
        ("family@example.org", MOST_PER_VALUE),
        ("ann@example.org", 1),
    ]
    pairs, coverage = pair_counts(records, [email])[email]
    assert pairs == MOST_PER_VALUE * (MOST_PER_VALUE - 1) / 2
    assert coverage == (MOST_PER_VALUE + 1) / (2 * MOST_PER_VALUE + 2)


def test_a_key_of_two_columns_needs_both_and_does_not_run_them_together() -> None:
    key = next(key for key in KEYS if key.columns == ("last_name", "postal_code"))
    records = pl.DataFrame({"last_name": ["lee", "lee1", "lee"], "postal_code": ["10", "0", None]})
    each = reach(key, FIELDS)
    assert each is not None
    values = with_keys(records, [each])[column_of(each)]
    assert values.null_count() == 1
    assert values.drop_nulls().n_unique() == 2


PERSON = [np.array([level.person for level in field.levels]) for field in FIELDS]


def people(count: int, emails: int, birthdays: int) -> pl.DataFrame:
    numbers = pl.int_range(count, eager=True)
    columns = dict.fromkeys({column for key in KEYS for column in key.columns})
    return pl.DataFrame(
        {
            **{name: pl.repeat(None, count, dtype=pl.String, eager=True) for name in columns},
            "email": (numbers % emails).cast(pl.String),
            "birth_date": (numbers % birthdays).cast(pl.String),
        }
    )


def test_keys_are_chosen_by_what_they_reach_and_stay_within_the_budget() -> None:
    present = np.ones(len(FIELDS))
    names = [each.key.name for each in chosen(people(2_000, 1_000, 100), FIELDS, PERSON, present)]
    assert names == ["email", "birth_date"]
    costly = people(2_000, 1_000, 2_000 // (int(PAIRS_PER_RECORD) * 2 + 10))
    assert [each.key.name for each in chosen(costly, FIELDS, PERSON, present)] == ["email"]
    assert chosen(people(2_000, 2_000, 2_000), FIELDS, PERSON, present) == []


@settings(max_examples=15, deadline=None)
@given(st.integers(20, 400), st.integers(1, 200), st.integers(1, 200))
def test_all_keys_taken_together_cost_no_more_than_the_budget(count: int, emails: int, birthdays: int) -> None:
    records = people(count, emails, birthdays)
    taken = chosen(records, FIELDS, PERSON, np.ones(len(FIELDS)))
    spent = sum(cost for cost, _ in pair_counts(records, [each.key for each in taken]).values())
    assert spent <= PAIRS_PER_RECORD * count
