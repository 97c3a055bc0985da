"""Who was joined to whom, and when: the table of pairs against a slow reading of its sentences, and the events to append."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.events import Event, encode
from consent.rule.identity import (
    JOINED_SCHEMA,
    LINK_EVENTS,
    Joined,
    company,
    joined,
    joined_frame,
    joined_of,
    record_links,
)
from tests.unit.consent.builders import ALMA, MONDAY, event
from tests.unit.consent.histories import (
    BORIS,
    CARLA,
    DAY,
    DORA,
    SUBJECTS,
    frame_of,
    instants,
    joined_table,
    link_events,
    linked_frame,
    recorded,
)

LINKS = st.lists(link_events, max_size=8)


def link(day: int, one: str, other: str, kind: str | None = "hub", **changes: Any) -> Event:
    said = {
        "event_type": "identity_linked",
        "linked_subject_id": other,
        "link_type": kind,
        "subject_id": one,
        **changes,
    }
    return event(MONDAY + day * DAY, **said)


def unlink(day: int, one: str, other: str, kind: str | None = None) -> Event:
    return link(day, one, other, kind, event_type="identity_unlinked")


def told(rows: Sequence[Joined], one: str, other: str) -> list[tuple[int | None, ...]]:
    """The rows of a pair, in days after Monday."""
    times = [
        (row.linked_at, row.split_at, row.unlinked_at)
        for row in rows
        if (row.subject_id, row.other_subject_id) == (one, other)
    ]
    return [tuple(None if at is None else (at - MONDAY).days for at in row) for row in times]


def test_a_link_joins_both_ways_and_a_chain_joins_its_ends() -> None:
    rows = joined([link(1, ALMA, BORIS), link(3, CARLA, BORIS)])
    assert told(rows, ALMA, BORIS) == told(rows, BORIS, ALMA) == [(1, None, None)]
    assert told(rows, ALMA, CARLA) == told(rows, CARLA, ALMA) == [(3, None, None)]


def test_an_unlink_of_one_type_leaves_the_other_and_one_of_no_type_ends_all() -> None:
    both = [link(1, ALMA, BORIS, "hub"), link(2, BORIS, ALMA, "contact")]
    assert told(joined([*both, unlink(4, ALMA, BORIS, "hub")]), ALMA, BORIS) == [(1, None, None)]
    assert told(joined([*both, unlink(4, ALMA, BORIS)]), ALMA, BORIS) == [(1, 4, 4)]


def test_a_link_counts_from_its_earliest_clock_and_an_unlink_from_when_it_came() -> None:
    early = link(3, ALMA, BORIS, occurred_at=MONDAY)
    late = link(4, ALMA, BORIS, None, event_type="identity_unlinked", received_at=MONDAY + 6 * DAY)
    assert told(joined([early, late]), ALMA, BORIS) == [(0, 6, 6)]


def test_at_the_same_instant_linked_wins_so_that_a_new_link_takes_over_without_a_gap() -> None:
    moved = [link(1, ALMA, BORIS), unlink(3, ALMA, BORIS), link(3, ALMA, CARLA), link(3, CARLA, BORIS)]
    assert told(joined(moved), ALMA, BORIS) == [(1, None, None)]
    assert told(joined([link(1, ALMA, BORIS), unlink(1, ALMA, BORIS)]), ALMA, BORIS) == [(1, None, None)]


def test_who_was_joined_to_one_parted_from_a_third_hears_the_third_until_that_ended_too() -> None:
    rows = joined([link(1, ALMA, BORIS), unlink(3, ALMA, BORIS), link(5, BORIS, CARLA), unlink(7, BORIS, CARLA)])
    assert told(rows, CARLA, ALMA) == [(5, 3, 7)]
    assert told(rows, ALMA, CARLA) == []  # what Carla says after Alma left is not Alma's
    still = joined([link(1, ALMA, BORIS), unlink(3, ALMA, BORIS), link(5, BORIS, CARLA)])
    assert told(still, CARLA, ALMA) == []  # while joined, Boris brings what he heard


def test_a_link_to_itself_or_to_nobody_joins_nothing() -> None:
    assert joined([link(1, ALMA, ALMA), event(event_type="identity_linked"), event()]) == []


def slowly(events: Sequence[Event], at: datetime) -> set[tuple[str, str]]:
    """Who is joined at a time, read off the sentences: the last change of each typed link, and every chain of them."""
    on: set[frozenset[str]] = set()
    for one in SUBJECTS:
        for other in SUBJECTS:
            mine = [e for e in events if {e.subject_id, e.linked_subject_id} == {one, other}]
            for kind in {e.link_type for e in mine}:
                moments = [
                    (min(e.occurred_at, e.recorded_at, e.received_at), 1)
                    for e in mine
                    if e.event_type == "identity_linked" and e.link_type == kind
                ] + [
                    (e.received_at, 0)
                    for e in mine
                    if e.event_type == "identity_unlinked" and e.link_type in (kind, None)
                ]
                last = max((moment for moment in moments if moment[0] <= at), default=None)
                if last is not None and last[1]:
                    on.add(frozenset((one, other)))
    reached = {one: {one} for one in SUBJECTS}
    for _ in SUBJECTS:
        for pair in on:
            for one in SUBJECTS:
                if reached[one] & pair:
                    reached[one] |= pair
    return {(one, other) for one in SUBJECTS for other in reached[one] if one != other}


@settings(max_examples=100, deadline=None)
@given(LINKS, instants)
def test_the_table_joins_whom_the_links_join_at_every_time(history: list[Event], at: datetime) -> None:
    assert {(row.subject_id, row.other_subject_id) for row in joined(history) if row.holds(at)} == slowly(history, at)


@settings(max_examples=100, deadline=None)
@given(LINKS, st.randoms(use_true_random=False))
def test_repeats_and_order_of_link_events_change_nothing(history: list[Event], chance: random.Random) -> None:
    shuffled = [*history, *history]
    chance.shuffle(shuffled)
    assert joined(shuffled) == joined(history)


@settings(max_examples=100, deadline=None)
@given(LINKS)
def test_times_of_a_pair_do_not_touch_and_what_is_heard_through_others_ends_after_the_split(
    history: list[Event],
) -> None:
    rows = joined(history)
    assert len(set(rows)) == len(rows)
    for row in rows:
        assert row.unlinked_at is None or row.linked_at < row.unlinked_at
        assert (row.split_at is None) == (row.unlinked_at is None)
        if row.split_at != row.unlinked_at:
            assert row.split_at is not None
            assert row.unlinked_at is None or row.split_at < row.unlinked_at
    for one in SUBJECTS:
        for other in SUBJECTS:
            spans = [s for s in told(rows, one, other) if s[1] == s[2]]
            assert all(before[1] is not None and before[1] < after[0] for before, after in pairwise(spans))


@settings(max_examples=60, deadline=None)
@given(LINKS, st.none() | instants)
def test_the_frame_the_ledger_and_the_list_give_one_table(history: list[Event], known_at: datetime | None) -> None:
    # Each side of a link has an event of its own.
    sides = [replace(one, subject_id=str(one.linked_subject_id), linked_subject_id=one.subject_id) for one in history]
    found = recorded(*history, *sides, event())
    known = [one.event for one in found if known_at is None or one.event.received_at <= known_at]
    assert joined_frame(frame_of(found), known_at).equals(joined_table(joined(known)))

    class Shelf:
        def events_of(self, subject_id: str) -> list[Any]:
            return [one for one in found if one.event.subject_id == subject_id]

    rows = joined(known)
    for who in SUBJECTS:
        followed = joined_of(Shelf(), who, known_at)
        assert [row for row in followed if row.subject_id == who] == [row for row in rows if row.subject_id == who]
        assert company(Shelf(), who) >= {who, *(row.other_subject_id for row in rows if row.subject_id == who)}


def test_without_link_events_the_table_is_empty_and_has_its_columns() -> None:
    assert joined_frame(frame_of(recorded(event()))).schema == JOINED_SCHEMA
    assert joined_frame(pl.DataFrame({"event_type": ["grant"]})).schema == JOINED_SCHEMA


BELIEVED = linked_frame(
    [("cus_1", DORA, "hub"), ("cus_1", ALMA, "deterministic"), ("cus_1", BORIS, "contact"), ("cus_2", CARLA, "hub")]
)


def test_a_customers_identities_are_linked_to_its_hub_with_an_event_for_each_side() -> None:
    said = record_links([], BELIEVED, MONDAY)
    assert {(one.event_type, one.subject_id, one.linked_subject_id, one.link_type) for one in said} == {
        ("identity_linked", DORA, ALMA, "deterministic"),
        ("identity_linked", ALMA, DORA, "deterministic"),
        ("identity_linked", DORA, BORIS, "contact"),
        ("identity_linked", BORIS, DORA, "contact"),
    }
    assert all(encode(one) for one in said)
    rows = joined(said)
    assert told(rows, ALMA, BORIS) == [(0, None, None)]
    assert not [row for row in rows if CARLA in (row.subject_id, row.other_subject_id)]


def test_what_the_ledger_already_says_is_not_said_again() -> None:
    said = record_links([], BELIEVED, MONDAY)
    assert record_links(said, BELIEVED, MONDAY + DAY) == []
    again = record_links([], BELIEVED, MONDAY + DAY)  # asked twice before the first was appended
    assert {(one.signal_id, one.subject_id, one.event_type) for one in again} == {
        (one.signal_id, one.subject_id, one.event_type) for one in said
    }


def test_what_the_warehouse_no_longer_believes_is_unlinked_and_may_be_linked_again() -> None:
    first = record_links([], BELIEVED, MONDAY)
    fewer = BELIEVED.filter(pl.col("identity_ref") != BORIS)
    second = record_links(first, fewer, MONDAY + 2 * DAY)
    assert [(one.event_type, one.subject_id, one.link_type) for one in second] == [
        ("identity_unlinked", one, "contact")
        for one in sorted((BORIS, DORA), key=[*min((BORIS, DORA), (DORA, BORIS))].index)
    ]
    third = record_links([*first, *second], BELIEVED, MONDAY + 4 * DAY)
    assert {one.event_type for one in third} == {"identity_linked"}
    assert not {one.signal_id for one in third} & {one.signal_id for one in (*first, *second)}
    rows = joined([*first, *second, *third])
    assert told(rows, DORA, BORIS) == [(0, 2, 2), (4, None, None)]


def test_a_changed_proof_replaces_the_link_without_parting() -> None:
    first = record_links([], linked_frame([("cus_1", DORA, "hub"), ("cus_1", ALMA, "contact")]), MONDAY)
    proved = linked_frame([("cus_1", DORA, "hub"), ("cus_1", ALMA, "deterministic")])
    second = record_links(first, proved, MONDAY + DAY)
    assert sorted(one.event_type for one in second) == ["identity_linked"] * 2 + ["identity_unlinked"] * 2
    assert told(joined([*first, *second]), DORA, ALMA) == [(0, None, None)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(
                st.sampled_from(("cus_1", "cus_2")),
                st.sampled_from(SUBJECTS),
                st.sampled_from(("hub", "deterministic", "contact")),
            ),
            max_size=5,
        ),
        max_size=4,
    )
)
def test_after_appending_the_ledger_joins_whom_the_warehouse_joins_and_nothing_is_left_to_say(
    beliefs: list[list[tuple[str, str, str]]],
) -> None:
    ledger: list[Event] = []
    for day, owned in enumerate(beliefs):
        current = linked_frame(owned)
        ledger += record_links(ledger, current, MONDAY + day * DAY)
        assert record_links(ledger, current, MONDAY + (day + 1) * DAY) == []
        names = {customer: {who for owner, who, _ in owned if owner == customer} for customer, _, _ in owned}
        meant = {(a, b) for mine in names.values() for a in mine for b in mine if a != b}
        now = {(row.subject_id, row.other_subject_id) for row in joined(ledger) if row.holds(MONDAY + day * DAY)}
        assert meant <= now  # one identity of two customers joins all of them
    assert {one.event_type for one in ledger} <= set(LINK_EVENTS)
