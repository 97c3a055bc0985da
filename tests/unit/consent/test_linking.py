"""What the ledger is told of identities: the link events that follow from what the warehouse believes."""

from datetime import datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.events import FIELDS, Event, encode
from consent.rule.identity import LINK_EVENTS, joined
from consent.rule.linking import record_links
from tests.unit.consent.builders import ALMA, MONDAY, event
from tests.unit.consent.histories import BORIS, CARLA, DAY, DORA, SUBJECTS, frame_of, linked_frame, recorded
from tests.unit.consent.test_identity import told

BELIEVED = linked_frame(
    [("cus_1", DORA, "hub"), ("cus_1", ALMA, "deterministic"), ("cus_1", BORIS, "contact"), ("cus_2", CARLA, "hub")]
)


def to_append(ledger: list[Event], current: pl.DataFrame, at: datetime) -> list[Event]:
    found = record_links(frame_of(recorded(*ledger)), current, at)
    assert found.columns == list(FIELDS)
    events = [Event(*row) for row in found.iter_rows()]
    assert all(encode(one) for one in events)
    return events


def kinds(events: list[Event]) -> set[tuple[str, str, str | None, str | None]]:
    return {(one.event_type, one.subject_id, one.linked_subject_id, one.link_type) for one in events}


def names(events: list[Event]) -> set[tuple[str, str, str]]:
    return {(one.signal_id, one.subject_id, one.event_type) for one in events}


def both(event_type: str, one: str, other: str, link_type: str) -> set[tuple[str, str, str | None, str | None]]:
    return {(event_type, one, other, link_type), (event_type, other, one, link_type)}


def seen_at(current: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """As a published table has it: first seen at a time in naive UTC."""
    return current.with_columns(linked_at=pl.lit(at.replace(tzinfo=None)))


def test_a_customers_identities_are_linked_to_its_hub_with_an_event_for_each_side() -> None:
    first = to_append([], BELIEVED, MONDAY)
    assert kinds(first) == {
        *both("identity_linked", DORA, ALMA, "deterministic"),
        *both("identity_linked", DORA, BORIS, "contact"),
    }
    rows = joined(first)
    assert told(rows, DORA, ALMA, is_proved=True) == [(0, None, None)]
    assert told(rows, ALMA, BORIS, is_proved=False) == [(0, None, None)]
    assert not [row for row in rows if CARLA in (row.subject_id, row.other_subject_id)]


def test_an_identity_told_twice_is_linked_by_the_stronger_proof() -> None:
    for weaker, stronger in (("deterministic", "hub"), ("contact", "deterministic")):
        twice = linked_frame([("cus_1", DORA, "hub"), ("cus_1", ALMA, weaker), ("cus_1", ALMA, stronger)])
        assert kinds(to_append([], twice, MONDAY)) == both("identity_linked", ALMA, DORA, "deterministic")


LIKELY = linked_frame(
    [("cus_1", DORA, "hub", DORA), ("cus_1", ALMA, "deterministic", DORA),
     ("cus_1", CARLA, "probabilistic", CARLA), ("cus_1", BORIS, "contact", CARLA)]
)  # fmt: skip


def test_each_group_is_a_star_and_the_hubs_of_a_customers_groups_are_linked_by_likeness() -> None:
    first = to_append([], LIKELY, MONDAY)
    assert kinds(first) == {
        *both("identity_linked", DORA, ALMA, "deterministic"),
        *both("identity_linked", CARLA, BORIS, "contact"),
        *both("identity_linked", DORA, CARLA, "probabilistic"),
    }
    rows = joined(first)
    assert told(rows, ALMA, CARLA, is_proved=False) == [(0, None, None)]  # one link is not proved
    assert told(rows, ALMA, BORIS) == []  # two are not
    third = linked_frame([("cus_1", "card_" + "e" * 22, "probabilistic", "card_" + "e" * 22)])
    assert len(to_append(first, pl.concat([LIKELY, third]), MONDAY + DAY)) == 4  # with each of the two other hubs


def test_groups_that_are_parted_are_unlinked_and_stay_what_they_are() -> None:
    first = to_append([], LIKELY, MONDAY)
    parted = LIKELY.with_columns(
        pl.when(group_ref=CARLA).then(pl.lit("cus_2")).otherwise("customer_id").alias("customer_id"),
        pl.col("link_type").replace("probabilistic", "hub"),
    )
    second = to_append(first, parted, MONDAY + DAY)
    assert kinds(second) == both("identity_unlinked", DORA, CARLA, "probabilistic")
    assert to_append([*first, *second], parted, MONDAY + 2 * DAY) == []


def test_of_a_likely_group_that_was_erased_nothing_is_linked_and_the_others_stay() -> None:
    first = to_append([], LIKELY, MONDAY)
    gone = event(MONDAY + DAY, event_type="erased", subject_id=CARLA)
    assert to_append([*first, gone], LIKELY, MONDAY + 2 * DAY) == []
    assert kinds(to_append([gone], LIKELY, MONDAY + 2 * DAY)) == both("identity_linked", DORA, ALMA, "deterministic")


def test_what_the_ledger_already_says_is_not_said_again() -> None:
    first = to_append([], BELIEVED, MONDAY)
    assert to_append(first, BELIEVED, MONDAY + DAY) == []
    assert names(to_append([], BELIEVED, MONDAY + DAY)) == names(first)  # asked twice before the first was appended


def test_what_the_warehouse_no_longer_believes_is_unlinked_and_may_be_linked_again() -> None:
    first = to_append([], BELIEVED, MONDAY)
    second = to_append(first, BELIEVED.filter(pl.col("identity_ref") != BORIS), MONDAY + 2 * DAY)
    assert kinds(second) == both("identity_unlinked", BORIS, DORA, "contact")
    third = to_append([*first, *second], BELIEVED, MONDAY + 4 * DAY)
    assert {one.event_type for one in third} == {"identity_linked"}
    assert not names(third) & names([*first, *second])
    assert told(joined([*first, *second, *third]), DORA, BORIS) == [(0, 2, 2), (4, None, None)]


def test_a_changed_proof_replaces_the_link_without_parting() -> None:
    first = to_append([], linked_frame([("cus_1", DORA, "hub"), ("cus_1", ALMA, "contact")]), MONDAY)
    proved = linked_frame([("cus_1", DORA, "hub"), ("cus_1", ALMA, "deterministic")])
    second = to_append(first, proved, MONDAY + DAY)
    assert [one.event_type for one in second] == ["identity_unlinked"] * 2 + ["identity_linked"] * 2
    assert told(joined([*first, *second]), DORA, ALMA, is_proved=False) == [(0, None, None)]
    assert told(joined([*first, *second]), DORA, ALMA, is_proved=True) == [(1, None, None)]


def test_a_link_is_not_ended_at_the_instant_it_was_made_but_later() -> None:
    """At one instant linked wins: what ends nothing would be said again and again."""
    first, nobody = to_append([], BELIEVED, MONDAY), BELIEVED.clear()
    assert to_append(first, nobody, MONDAY) == []
    assert len(to_append(first, nobody, MONDAY + timedelta(microseconds=1))) == len(first)


def test_an_old_table_does_not_link_the_erased_again_nor_their_contacts_to_one_another() -> None:
    """And that they are gone is not said of them: it would be a new record of who they were."""
    first = to_append([], BELIEVED, MONDAY)
    gone = [event(MONDAY + 2 * DAY, event_type="erased", subject_id=one) for one in (DORA, ALMA)]
    others = [("cus_2", CARLA, "hub"), ("cus_2", ALMA, "contact")]
    old = pl.concat([BELIEVED.filter(customer_id="cus_1"), linked_frame(others)])
    for current in (old, seen_at(old, MONDAY), BELIEVED.filter(customer_id="cus_2")):
        assert to_append([*first, *gone], current, MONDAY + 3 * DAY) == []
        assert to_append(gone, current, MONDAY + 3 * DAY) == []


def test_what_was_first_seen_after_an_erasure_is_linked_under_names_of_its_own() -> None:
    first = to_append([], BELIEVED, MONDAY)
    gone = [event(MONDAY + 2 * DAY, event_type="erased", subject_id=one) for one in (DORA, ALMA)]
    unread = [one for one in first if one.subject_id == BORIS]  # what of the links can still be read
    back = seen_at(BELIEVED, MONDAY + 3 * DAY)
    again = to_append([*unread, *gone], back, MONDAY + 4 * DAY)
    assert kinds(again) == kinds(first)
    assert not names(again) & names(first)
    assert to_append([*unread, *gone, *again], back, MONDAY + 5 * DAY) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(
                st.sampled_from(("cus_1", "cus_2")),
                st.sampled_from(SUBJECTS),
                st.sampled_from(("hub", "deterministic", "contact")),
                st.sampled_from(SUBJECTS[:2]),
            ),
            max_size=5,
        ),
        max_size=4,
    )
)
def test_after_appending_the_ledger_joins_whom_the_warehouse_joins_and_nothing_is_left_to_say(
    beliefs: list[list[tuple[str, str, str, str]]],
) -> None:
    ledger: list[Event] = []
    for day, owned in enumerate(beliefs):
        current, now = linked_frame(owned), MONDAY + day * DAY
        ledger += to_append(ledger, current, now)
        assert to_append(ledger, current, now + DAY) == []
        rows = [row for row in joined(ledger) if row.holds(now)]
        proved = {(row.subject_id, row.other_subject_id) for row in rows if row.is_proved}
        near = {(row.subject_id, row.other_subject_id) for row in rows}
        sures: dict[str, list[set[str]]] = {}
        for group in {(owner, group) for owner, _, _, group in owned}:
            mine = [(who, kind) for owner, who, kind, of in owned if (owner, of) == group]
            sure = {who for who, kind in mine if kind != "contact"}
            if not any(kind == "hub" for _, kind in mine):
                continue
            assert {(a, b) for a in sure for b in sure if a != b} <= proved
            assert {(a, b) for a in sure for b, _ in mine if a != b} <= near
            sures.setdefault(group[0], []).append(sure)
        for groups in sures.values():
            assert {(a, b) for one in groups for other in groups for a in one for b in other if a != b} <= near
    assert {one.event_type for one in ledger} <= set(LINK_EVENTS)
