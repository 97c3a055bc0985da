"""What became of customers from one state to the next: told by type, complete, and replayable."""

from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from models.identity.changes import CHANGE_SCHEMA, EVENT_TYPES, changes

MONDAY = datetime(2025, 3, 3, 4)
State = Mapping[str, str]


def frame(state: State) -> pl.DataFrame:
    return pl.DataFrame(
        {"identity_ref": list(state), "customer_id": list(state.values())},
        schema={"identity_ref": pl.String, "customer_id": pl.String},
    )


def told(before: State, after: State) -> pl.DataFrame:
    return changes(frame(before), frame(after), MONDAY)


def rows(before: State, after: State) -> list[tuple[str, str, str | None, str | None]]:
    """identity_ref, change_type, from, to."""
    found = told(before, after)
    return found.select("identity_ref", "change_type", "from_customer_id", "customer_id").rows()


def test_nothing_is_told_where_nothing_moved() -> None:
    found = told({"a": "A", "b": "B"}, {"b": "B", "a": "A", "a2": "A"})
    assert found.is_empty()
    assert dict(found.schema) == CHANGE_SCHEMA


def test_two_customers_become_one() -> None:
    assert rows({"a": "A", "b": "B", "b2": "B"}, {"a": "A", "b": "A", "b2": "A"}) == [
        ("b", "merged", "B", "A"),
        ("b2", "merged", "B", "A"),
    ]


def test_one_customer_becomes_two() -> None:
    assert rows({"a": "A", "b": "A"}, {"a": "A", "b": "B"}) == [("b", "split", "A", "B")]


def test_one_part_leaves_and_joins_another() -> None:
    assert rows({"a": "A", "b": "A", "c": "C"}, {"a": "A", "b": "C", "c": "C"}) == [("b", "regrouped", "A", "C")]


def test_a_customer_is_renamed_by_an_older_identifier_and_does_not_appear_anew() -> None:
    found = told({"b": "B"}, {"a": "A", "b": "A"})
    assert found.select("identity_ref", "change_type", "from_customer_id", "customer_id", "reason").rows() == [
        ("b", "renamed", "B", "A", "an older identifier of the same person was learned of")
    ]


def test_a_customer_whose_oldest_identifier_left_is_renamed_and_that_is_the_reason() -> None:
    found = told({"a": "A", "b": "A"}, {"b": "B"})
    assert found.select("identity_ref", "change_type", "from_customer_id", "customer_id", "reason").rows() == [
        ("b", "renamed", "A", "B", "the identifier it was named after is spoken of no more")
    ]


def test_who_is_new_appears_once_and_who_is_not_spoken_of_is_gone_once() -> None:
    assert rows({"a": "A", "a2": "A", "b": "B"}, {"b": "B", "c": "C", "c2": "C"}) == [
        ("c", "appeared", None, "C"),
        ("a", "gone", "A", None),
    ]


def test_the_first_state_of_all_is_of_people_who_appear() -> None:
    assert rows({}, {"a": "A", "a2": "A"}) == [("a", "appeared", None, "A")]


REFS = [f"ref{number}" for number in range(8)]
GROUPED = st.dictionaries(st.sampled_from(REFS), st.integers(0, 3), max_size=8)


def _named(groups: Mapping[str, int], ages: Mapping[str, int]) -> dict[str, str]:
    """A state in which each customer is named after its oldest identifier."""
    oldest: dict[int, str] = {}
    for ref in sorted(groups, key=lambda ref: ages[ref]):
        oldest.setdefault(groups[ref], ref)
    return {ref: f"cus_{oldest[group]}" for ref, group in groups.items()}


@settings(max_examples=80, deadline=None)
@given(GROUPED, GROUPED, st.permutations(range(len(REFS))))
def test_changes_replayed_lead_from_the_first_state_to_the_last_and_name_each_customer_in_one_way(
    first: Mapping[str, int], last: Mapping[str, int], order: list[int]
) -> None:
    ages = dict(zip(REFS, order, strict=True))
    before, after = _named(first, ages), _named(last, ages)
    found = told(before, after)
    assert set(found["change_type"]) <= set(EVENT_TYPES)
    assert found["change_id"].n_unique() == found.height
    moved = found.filter(~pl.col("change_type").is_in(["appeared", "gone"]))
    assert moved["identity_ref"].n_unique() == moved.height
    state = dict(before)
    for ref, old, new in moved.select("identity_ref", "from_customer_id", "customer_id").iter_rows():
        assert state[ref] == old
        state[ref] = new
    assert {ref: state[ref] for ref in before.keys() & after.keys()} == {
        ref: after[ref] for ref in before.keys() & after.keys()
    }
    lasting = before.keys() & after.keys()
    appeared = set(after.values()) - {after[ref] for ref in lasting}
    gone = set(before.values()) - {before[ref] for ref in lasting}
    assert set(found.filter(change_type="appeared")["customer_id"]) == appeared
    assert set(found.filter(change_type="gone")["from_customer_id"]) == gone
    assert told(before, after).equals(changes(frame(before).reverse(), frame(after).reverse(), MONDAY))


@settings(max_examples=50, deadline=None)
@given(GROUPED, GROUPED, st.permutations(range(len(REFS))))
def test_a_type_says_what_happened_to_the_customers_on_both_sides(
    first: Mapping[str, int], last: Mapping[str, int], order: list[int]
) -> None:
    ages = dict(zip(REFS, order, strict=True))
    before, after = _named(first, ages), _named(last, ages)
    lasting = before.keys() & after.keys()
    found = told(before, after).filter(~pl.col("change_type").is_in(["appeared", "gone"]))
    assert set(found["identity_ref"]) == {ref for ref in lasting if before[ref] != after[ref]}
    for kind, old, new in found.select("change_type", "from_customer_id", "customer_id").iter_rows():
        is_fused = len({before[ref] for ref in lasting if after[ref] == new}) > 1
        is_torn = len({after[ref] for ref in lasting if before[ref] == old}) > 1
        assert kind == {(True, True): "regrouped", (True, False): "merged", (False, True): "split"}.get(
            (is_fused, is_torn), "renamed"
        )


def test_a_payment_card_that_goes_to_another_customer_is_no_change_of_who_is_who() -> None:
    def members(card: str | None) -> pl.DataFrame:
        rows = [("account", "a", "A"), ("account", "b", "B"), *([("payment", "visa", card)] if card else [])]
        return pl.DataFrame(rows, ["identity_type", "identity_ref", "customer_id"], orient="row")

    states = [members(card) for card in ("A", "B", None, "A")]
    assert all(changes(old, new, MONDAY).is_empty() for old, new in pairwise(states))
