"""Who was joined to whom, and when: the table of pairs against a slow reading of its sentences."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.events import Event
from consent.rule.identity import JOINED_SCHEMA, PROVED, Joined, company, joined, joined_frame, joined_of
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
    link_changes,
    recorded,
)

LINKS = st.lists(link_changes, max_size=8)


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


def told(rows: Sequence[Joined], one: str, other: str, is_proved: bool | None = None) -> list[tuple[int | None, ...]]:
    """The rows of a pair, in days after Monday."""
    times = [
        (row.linked_at, row.split_at, row.unlinked_at)
        for row in rows
        if (row.subject_id, row.other_subject_id) == (one, other) and is_proved in (None, row.is_proved)
    ]
    return [tuple(None if at is None else (at - MONDAY).days for at in row) for row in times]


def test_a_link_joins_both_ways_and_a_chain_joins_its_ends() -> None:
    rows = joined([link(1, ALMA, BORIS), link(3, CARLA, BORIS)])
    assert told(rows, ALMA, BORIS) == told(rows, BORIS, ALMA) == [(1, None, None)]
    assert told(rows, ALMA, CARLA) == told(rows, CARLA, ALMA) == [(3, None, None)]


def test_an_unlink_of_one_type_leaves_the_other_and_one_of_no_type_ends_all() -> None:
    both = [link(1, ALMA, BORIS, "hub"), link(2, BORIS, ALMA, "contact")]
    proved_no_more = joined([*both, unlink(4, ALMA, BORIS, "hub")])
    assert told(proved_no_more, ALMA, BORIS, is_proved=False) == [(1, None, None)]
    assert told(proved_no_more, ALMA, BORIS, is_proved=True) == [(1, 4, 4)]
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


def test_a_chain_passes_one_contact_and_no_second() -> None:
    """Two housemates give one telephone number; each has an account and a card."""
    housemates = [link(1, ALMA, CARLA), link(2, ALMA, BORIS, "contact"), link(3, DORA, BORIS, "contact")]
    rows = joined(housemates)
    assert told(rows, ALMA, CARLA, is_proved=True) == [(1, None, None)]
    for one, other, since in ((ALMA, BORIS, 2), (CARLA, BORIS, 2), (DORA, BORIS, 3)):
        assert told(rows, one, other) == told(rows, other, one) == [(since, None, None)]
        assert told(rows, one, other, is_proved=True) == []
    assert told(rows, ALMA, DORA) == told(rows, CARLA, DORA) == []
    moved_out = joined([*housemates, unlink(5, ALMA, BORIS), unlink(7, DORA, BORIS)])
    assert told(moved_out, ALMA, DORA) == told(moved_out, DORA, ALMA) == told(moved_out, DORA, CARLA) == []
    proved = joined([*housemates, link(4, DORA, BORIS, "deterministic")])
    assert told(proved, ALMA, DORA) == told(proved, DORA, CARLA) == [(4, None, None)]


def test_a_chain_of_contacts_that_follow_one_another_is_as_long_as_one_of_contacts_at_once() -> None:
    passed_on = joined([link(1, ALMA, BORIS, "contact"), unlink(3, ALMA, BORIS), link(4, BORIS, CARLA, "contact"),
                        unlink(6, BORIS, CARLA)])  # fmt: skip
    assert told(passed_on, CARLA, ALMA) == []
    proved = joined(
        [link(1, ALMA, BORIS, "contact"), unlink(3, ALMA, BORIS), link(4, BORIS, CARLA), unlink(6, BORIS, CARLA)]
    )
    assert told(proved, CARLA, ALMA) == [(4, 3, 6)]


def test_an_erasure_ends_the_links_of_who_is_erased_until_they_are_linked_anew() -> None:
    erased = event(MONDAY + 3 * DAY, event_type="erased", subject_id=BORIS)
    rows = joined(
        [link(1, ALMA, BORIS), link(2, BORIS, CARLA, "contact"), link(2, ALMA, DORA), erased, link(5, ALMA, BORIS)]
    )
    assert told(rows, ALMA, BORIS) == [(1, 3, 3), (5, None, None)]
    assert told(rows, ALMA, CARLA) == told(rows, CARLA, BORIS) == [(2, 3, 3)]
    assert told(rows, ALMA, DORA) == [(2, None, None)]


def test_a_link_to_itself_or_to_nobody_joins_nothing() -> None:
    assert joined([link(1, ALMA, ALMA), event(event_type="identity_linked"), event()]) == []


def slowly(events: Sequence[Event], at: datetime) -> dict[tuple[str, str], int]:
    """Who is joined at a time, and over how many contacts, read off the sentences: the last change of each typed link, and every
    chain of them."""
    on: dict[frozenset[str], int] = {}
    for one in SUBJECTS:
        for other in SUBJECTS:
            mine = [e for e in events if {e.subject_id, e.linked_subject_id} == {one, other}]
            gone = [(e.received_at, 0) for e in events if e.event_type == "erased" and e.subject_id in (one, other)]
            for kind in {e.link_type for e in mine}:
                moments = [
                    *gone,
                    *(
                        (min(e.occurred_at, e.recorded_at, e.received_at), 1)
                        for e in mine
                        if e.event_type == "identity_linked" and e.link_type == kind
                    ),
                    *(
                        (e.received_at, 0)
                        for e in mine
                        if e.event_type == "identity_unlinked" and e.link_type in (kind, None)
                    ),
                ]
                last = max((moment for moment in moments if moment[0] <= at), default=None)
                if last is not None and last[1]:
                    pair = frozenset((one, other))
                    on[pair] = min(on.get(pair, 1), kind not in PROVED)
    passed = {(one, one): 0 for one in SUBJECTS}
    for _ in SUBJECTS:
        for (one, other), contacts in list(passed.items()):
            for pair, more in on.items():
                for end in pair - {other} if other in pair else ():
                    passed[one, end] = min(passed.get((one, end), 9), contacts + more)
    return {pair: contacts for pair, contacts in passed.items() if contacts < 2 and pair[0] != pair[1]}


@settings(max_examples=100, deadline=None)
@given(LINKS, instants)
def test_the_table_joins_whom_the_links_join_at_every_time(history: list[Event], at: datetime) -> None:
    rows = [row for row in joined(history) if row.holds(at)]
    meant = slowly(history, at)
    assert {(row.subject_id, row.other_subject_id) for row in rows} == set(meant)
    assert {(row.subject_id, row.other_subject_id) for row in rows if row.is_proved} == {
        pair for pair, contacts in meant.items() if not contacts
    }


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
            proved, passed = ([s for s in told(rows, one, other, kind) if s[1] == s[2]] for kind in (True, False))
            for spans in (proved, passed):
                assert all(before[1] is not None and before[1] < after[0] for before, after in pairwise(spans))
            assert not set(proved) & set(passed)  # a contact adds nothing to what is proved


@settings(max_examples=100, deadline=None)
@given(LINKS)
def test_who_is_proved_to_be_one_is_joined_whatever_contacts_there_are(history: list[Event]) -> None:
    alone = [one for one in history if one.event_type == "erased" or one.link_type in (*PROVED, None)]
    no_contacts = [one for one in alone if one.link_type or one.event_type != "identity_linked"]
    assert [row for row in joined(history) if row.is_proved] == joined(no_contacts)


@settings(max_examples=60, deadline=None)
@given(LINKS, st.none() | instants)
def test_the_frame_the_ledger_and_the_list_give_one_table(history: list[Event], known_at: datetime | None) -> None:
    # Each side of a link has an event of its own.
    links = [one for one in history if one.linked_subject_id]
    sides = [replace(one, subject_id=str(one.linked_subject_id), linked_subject_id=one.subject_id) for one in links]
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
