"""A few records compared alone say what they say among all, as Splink would have said it."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.identity.comparisons import Comparisons
from models.identity.explanations import Comparison
from models.identity.keys import MOST_PER_VALUE
from models.identity.matching import Matcher
from models.identity.model import unlearned
from models.identity.preparing import FREQUENT, frequencies_of
from tests.unit.models.identity.made_people import frame, person, records

KEY = b"k" * 32
CROWD = [
    {**person(number, seed=9), "record_id": f"hall_{number:04}", "phone": "+15185550100"}
    for number in range(MOST_PER_VALUE + 1)
]  # who all gave the number of the village hall, so that nobody is compared by it
PEOPLE = pl.concat([records(40, seed=3), frame(CROWD)], how="diagonal").drop("person").sort("record_id")
MODEL = replace(unlearned(), frequencies=frequencies_of(PEOPLE), records=PEOPLE.height)
ALL = Comparisons(PEOPLE, MODEL)
MEMORY = Matcher(PEOPLE, MODEL).memory(KEY)


def told(of: Comparisons, one: str, other: str) -> Comparison:
    first, second = of.rows[one], of.rows[other]
    return of.told(first, second, of.scored([(first, second)]).row(0, named=True))


def test_the_levels_are_those_that_splink_finds() -> None:
    matcher = Matcher(PEOPLE, MODEL)
    rows = [*range(0, PEOPLE.height, 6)]
    pairs = np.array([*combinations(rows, 2)], np.int64)
    expected = matcher.scored(matcher.compared_these(pairs[:, 0], pairs[:, 1])).sort("first", "second")
    found = ALL.scored([(second, first) for first, second in pairs.tolist()])
    assert found["pattern"].n_unique() > 50
    assert found.equals(expected)
    assert ALL.scored([]).is_empty()


def weighed(of: Comparisons, ids: list[str]) -> list[tuple[object, ...]]:
    """All pairs of these, by name, with all that a score is made of."""
    rows = [of.rows[name] for name in sorted(ids)]
    return [(of.names[row[0]], of.names[row[1]], *row[2:]) for row in of.scored([*combinations(rows, 2)]).iter_rows()]


@settings(deadline=None, max_examples=15)
@given(st.lists(st.sampled_from(PEOPLE["record_id"].to_list()), min_size=2, max_size=6, unique=True))
def test_a_few_records_are_told_as_among_all(ids: list[str]) -> None:
    chosen = pl.col("record_id").is_in(ids)
    few = Comparisons(PEOPLE.filter(chosen), MODEL, among=MEMORY.filter(chosen))
    assert few.are_as_remembered(KEY)
    assert weighed(few, ids) == weighed(ALL, ids)
    assert told(few, *ids[:2]) == told(ALL, *ids[:2])


def test_what_is_too_common_among_all_is_no_key_of_a_few() -> None:
    ids = ["hall_0001", "hall_0002"]
    chosen = pl.col("record_id").is_in(ids)
    remembered = told(Comparisons(PEOPLE.filter(chosen), MODEL, among=MEMORY.filter(chosen)), *ids)
    assert "phone" in remembered.keys_too_common
    assert next(step.level for step in remembered.fields if step.field == "phone") == "same_shared"
    alone = told(Comparisons(PEOPLE.filter(chosen), MODEL), *ids)
    assert "phone" in alone.keys_shared
    assert len(CROWD) > FREQUENT


@pytest.mark.parametrize("column", ["first_name", "last_name", "email", "phone", "city", "birth_date"])
def test_what_was_said_anew_is_not_as_remembered(column: str) -> None:
    few, among = PEOPLE.head(3), MEMORY.head(3)
    assert Comparisons(few, MODEL, among=among).are_as_remembered(KEY)
    anew = few.with_columns(pl.when(pl.int_range(pl.len()) == 1).then(pl.lit("anew")).otherwise(column).alias(column))
    assert not Comparisons(anew, MODEL, among=among).are_as_remembered(KEY)


def test_without_the_memory_of_this_model_nothing_is_as_remembered() -> None:
    few, among = PEOPLE.head(3), MEMORY.head(3)
    assert not Comparisons(few, MODEL).are_as_remembered(KEY)
    assert not Comparisons(few, MODEL, among=among.head(2)).are_as_remembered(KEY)
    assert not Comparisons(few, replace(MODEL, keys=MODEL.keys[:2]), among=among).are_as_remembered(KEY)
    assert not Comparisons(few, MODEL, among=among).are_as_remembered(b"another key of the home.........")
