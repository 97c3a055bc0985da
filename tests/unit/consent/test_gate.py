"""The gate answers as the frame it was built from, lets no yes outlive its end, and hears a withdrawal at once."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.errors import ConsentError, LedgerError
from consent.events import Event, Recorded
from consent.rule.gate import Gate
from consent.rule.policy import Policy, read_policy
from consent.rule.standing import REASONS, standing, standing_frame
from tests.unit.consent.builders import ALMA, MONDAY, event
from tests.unit.consent.histories import (
    BORIS,
    CARLA,
    DAY,
    TERMS,
    asked_of,
    crowd,
    frame_of,
    instants,
    linked_frame,
    policy_of,
    recorded,
)

POLICY = read_policy()
OWNED = linked_frame([("cus_alma", ALMA, "hub"), ("cus_boris", BORIS, "hub"), ("cus_carla", CARLA, "hub")])
NOW = MONDAY + 10 * DAY


class Shelf:
    """A ledger that a test can read."""

    def __init__(self, found: Sequence[Recorded]) -> None:
        self.found = found

    def events_of(self, subject_id: str) -> list[Recorded]:
        return [one for one in self.found if one.event.subject_id == subject_id]


class Burnt:
    def events_of(self, subject_id: str) -> NoReturn:
        raise LedgerError("ledger: expected a file, found ashes. Restore it.")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return policy_of(tmp_path_factory.mktemp("policy"), TERMS)


def gate_of(*said: Event, links: pl.DataFrame = OWNED, at: datetime = NOW) -> Gate:
    return Gate.build(standing_frame(frame_of(recorded(*said)), links, POLICY, at), POLICY, links)


def test_a_grant_is_a_yes_to_the_instant_it_ends() -> None:
    gate = gate_of(event())
    ends_at = MONDAY + 730 * DAY
    last = ends_at - timedelta(microseconds=1)
    assert gate.allows("cus_alma", "personalization", "*", last) == (True, "granted")
    assert gate.allows("cus_alma", "personalization", "onsite", last) == (True, "granted")
    assert gate.allows("cus_alma", "personalization", "*", ends_at) == (False, "expired")
    assert gate.allows_many(["cus_alma"], "personalization", "*", last).all()
    assert not gate.allows_many(["cus_alma"], "personalization", "*", ends_at).any()


def test_whom_and_what_a_gate_does_not_know_it_refuses() -> None:
    gate = gate_of(event(purpose_code="*"))
    assert gate.allows("cus_nobody", "personalization", "*", NOW) == (False, "never_asked")
    assert gate.allows("cus_nobody", "service", "*", NOW) == (False, "never_asked")
    assert gate.allows("cus_alma", "gossip", "*", NOW) == (False, "unknown_purpose")
    assert gate.allows("cus_alma", "marketing", "fax", NOW) == (False, "unknown_channel")
    assert gate.allows("cus_alma", "marketing", "*", NOW) == (False, "unknown_channel")
    assert not gate.allows_many(["cus_nobody"], "service", "*", NOW).any()
    assert not gate.allows_many(["cus_alma"], "gossip", "*", NOW).any()
    assert not gate.allows_many(np.array([-1]), "service", "*", NOW).any()
    assert gate.allows_many(["cus_alma"], "service", "*", NOW).all()


def test_a_gate_for_nobody_can_be_asked() -> None:
    gate = gate_of(links=OWNED.clear())
    assert gate.allows("cus_alma", "service", "*", NOW) == (False, "never_asked")
    assert gate.allows_many(None, "service", "*", NOW).shape == (0,)


def test_rows_that_do_not_answer_everything_asked_are_refused() -> None:
    rows = standing_frame(frame_of([]), OWNED, POLICY, NOW)
    for wrong in (rows.slice(1), pl.concat([rows, rows.head(1)])):
        with pytest.raises(ConsentError, match="expected one answer for each of 3 customers, found"):
            Gate.build(wrong, POLICY)


def test_a_withdrawal_blocks_at_once_and_a_later_grant_allows_again() -> None:
    said = [event()]
    gate = gate_of(*said)
    no = event(NOW, event_type="withdraw")
    yes = event(NOW + DAY)
    for number, (one, answer) in enumerate([(no, (False, "withdrawn")), (yes, (True, "granted"))], start=1):
        shelf = Shelf(recorded(*said))  # the ledger's reader lags behind by this event
        assert gate.overlay([Recorded(number, one)], shelf, NOW + DAY, number + 1) == 1
        assert gate.ledger_size == number + 1
        assert gate.allows("cus_alma", "personalization", "*", NOW + DAY) == answer
        said.append(one)


def test_a_link_brings_the_no_of_the_other_side_at_once() -> None:
    gate = gate_of(event(), event(event_type="withdraw", subject_id=BORIS))
    assert gate.allows("cus_alma", "personalization", "*", NOW)[0]
    shelf = Shelf(recorded(event(), event(event_type="withdraw", subject_id=BORIS)))
    told = [
        event(NOW, event_type="identity_linked", subject_id=one, linked_subject_id=other, link_type="contact")
        for one, other in ((ALMA, BORIS), (BORIS, ALMA))
    ]
    assert gate.overlay([Recorded(2 + n, one) for n, one in enumerate(told)], shelf, NOW, 4) == 2
    assert gate.allows("cus_alma", "personalization", "*", NOW) == (False, "withdrawn")
    assert gate.allows("cus_alma", "service", "*", NOW) == (True, "contract")


@pytest.mark.parametrize("said_under", [ALMA, BORIS, CARLA])
def test_a_no_under_any_group_of_a_customer_blocks_all_of_it_at_once(said_under: str) -> None:
    links = linked_frame(
        [
            ("cus_1", ALMA, "hub", ALMA),
            ("cus_1", BORIS, "probabilistic", BORIS),
            ("cus_1", CARLA, "deterministic", BORIS),
        ]
    )
    yeses = [event(subject_id=who) for who in (ALMA, BORIS)]
    gate = gate_of(*yeses, links=links)
    assert gate.allows("cus_1", "personalization", "*", NOW) == (True, "granted")
    no = Recorded(2, event(NOW, event_type="withdraw", subject_id=said_under))
    assert gate.overlay([no], Shelf(recorded(*yeses)), NOW, 3) == 1
    assert gate.allows("cus_1", "personalization", "*", NOW) == (False, "withdrawn")


def test_the_same_tail_twice_changes_nothing_and_an_older_tail_is_refused() -> None:
    gate = gate_of(event())
    tail, shelf = [Recorded(1, event(NOW, event_type="withdraw"))], Shelf(recorded(event()))
    for _ in range(2):
        gate.overlay(tail, shelf, NOW, 2)
        assert gate.allows("cus_alma", "personalization", "*", NOW) == (False, "withdrawn")
    with pytest.raises(ConsentError, match="expected events from leaf 2 up to ledger size 1"):
        gate.overlay([], shelf, NOW, 1)
    with pytest.raises(ConsentError, match="Hand over the tail of one ledger"):
        gate.overlay([Recorded(9, event(NOW))], shelf, NOW, 5)


def test_where_the_ledger_cannot_be_read_the_gate_closes() -> None:
    gate = gate_of(event(), event(subject_id=BORIS))
    gate.overlay([Recorded(2, event(NOW))], Burnt(), NOW, 3)
    for who in ("cus_alma", "cus_boris"):
        assert gate.allows(who, "personalization", "*", NOW) == (False, "ledger_unreadable")
        assert gate.allows(who, "service", "*", NOW) == (True, "contract")
    assert gate.ledger_size == 2  # it still says how old it is
    assert gate.allows("cus_nobody", "personalization", "*", NOW) == (False, "never_asked")


def test_a_gate_of_subjects_needs_no_links() -> None:
    of_subjects = linked_frame([(ALMA, ALMA, "hub"), (BORIS, BORIS, "hub")])
    gate = Gate.build(standing_frame(frame_of(recorded(event())), of_subjects, POLICY, NOW), POLICY)
    assert gate.allows(ALMA, "personalization", "*", NOW) == (True, "granted")
    gate.overlay([Recorded(1, event(NOW, event_type="object"))], Shelf(recorded(event())), NOW, 2)
    assert gate.allows(ALMA, "personalization", "*", NOW) == (False, "objected")


def test_whoever_knows_less_is_told_nothing_of_a_person_who_said_more_since() -> None:
    said = [event(), event(subject_id=BORIS)]
    gate, asked = gate_of(*said), ("personalization", "*", NOW)
    no, shelf = event(NOW, event_type="withdraw"), Shelf(recorded(*said))
    assert gate.allows_as_of(2, "cus_alma", *asked) == (True, "granted")
    assert gate.allows_as_of(1, "cus_alma", *asked) is None  # it was built under more
    assert gate.allows_as_of(3, "cus_alma", *asked) is None  # it has not heard so much
    gate.overlay([Recorded(2, no)], shelf, NOW, 3)
    assert gate.allows_as_of(3, "cus_alma", *asked) == (False, "withdrawn")
    assert gate.allows_as_of(2, "cus_alma", *asked) is None
    assert gate.allows_as_of(2, "cus_boris", *asked) == (True, "granted")
    assert gate.allows_as_of(2, "cus_nobody", *asked) == (False, "never_asked")


def test_who_asks_while_a_tail_is_laid_over_hears_the_old_answer_or_none() -> None:
    links = linked_frame([("cus_alma", ALMA, "hub"), ("cus_alma", BORIS, "deterministic")])
    said = [event(), event(subject_id=BORIS)]
    gate, heard = gate_of(*said, links=links), []

    class Asking(Shelf):
        def events_of(self, subject_id: str) -> list[Recorded]:
            heard.append([gate.allows_as_of(size, "cus_alma", "personalization", "*", NOW) for size in (2, 3)])
            return super().events_of(subject_id)

    gate.overlay([Recorded(2, event(NOW, event_type="withdraw"))], Asking(recorded(*said)), NOW, 3)
    assert heard == [[(True, "granted"), None], [None, None]]  # each identity is read once


instants_in_zones = st.builds(
    lambda minutes, zone: (MONDAY + timedelta(minutes=minutes)).astimezone(zone),
    st.integers(10 * 24 * 60, 740 * 24 * 60) | st.integers(729 * 24 * 60, 733 * 24 * 60),
    st.sampled_from([UTC, ZoneInfo("America/New_York"), timezone(timedelta(hours=-14)), timezone(timedelta(hours=14))]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3 * 24 * 60), min_size=3, max_size=3), st.lists(instants_in_zones, min_size=1))
def test_in_whatever_order_times_are_asked_a_yes_ends_when_the_rule_says(minutes: list[int], times: list[Any]) -> None:
    said = recorded(
        *(
            event(MONDAY + timedelta(minutes=late), subject_id=who)
            for late, who in zip(minutes, (ALMA, BORIS, CARLA), strict=True)
        )
    )
    gate, shelf = gate_of(*(one.event for one in said)), Shelf(said)
    for at in times:
        for customer, subject in (("cus_alma", ALMA), ("cus_boris", BORIS), ("cus_carla", CARLA)):
            meant = standing(shelf, subject, "personalization", "*", at, policy=POLICY)
            assert gate.allows(customer, "personalization", "*", at) == (meant.is_allowed, meant.reason_code)
            assert gate.allows_many([customer], "personalization", "*", at).tolist() == [meant.is_allowed]


def agrees(gate: Gate, rows: pl.DataFrame, policy: Policy, at: datetime) -> None:
    """Every row of the frame, one by one and all at once."""
    for customer, purpose, channel, is_allowed, reason, *_ in rows.iter_rows():
        assert gate.allows(customer, purpose, channel, at) == (is_allowed, reason)
        assert reason in REASONS
    for purpose, channel in asked_of(policy):
        mine = rows.filter(purpose_code=purpose, channel_code=channel)
        meant = mine["is_allowed"].to_list()
        ids = mine["customer_id"].to_list()
        assert gate.allows_many(ids, purpose, channel, at).tolist() == meant
        assert gate.allows_many(None, purpose, channel, at).tolist() == meant
        positions = np.array([gate.positions[one] for one in ids], np.int64)
        assert gate.allows_many(positions, purpose, channel, at).tolist() == meant


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), instants)
def test_the_gate_answers_as_the_frame(policy: Policy, seed: int, at: Any) -> None:
    found, owned = crowd(random.Random(seed), 12)
    rows = standing_frame(frame_of(found), linked_frame(owned), policy, at, at)
    agrees(Gate.build(rows, policy), rows, policy, at)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(1, 4))
def test_a_gate_with_the_tail_laid_over_it_answers_as_one_built_anew(
    policy: Policy, seed: int, share: float, parts: int
) -> None:
    found, owned = crowd(random.Random(seed), 5)
    links, at = linked_frame(owned), MONDAY + 8 * DAY
    cut = int(share * len(found))
    old = standing_frame(frame_of(found[:cut]), links, policy, at)
    gate = Gate.build(old.with_columns(ledger_size=pl.lit(cut, pl.Int64)), policy, links)
    step = max(1, (len(found) - cut) // parts)
    for start in range(cut, len(found), step):
        upto = min(start + step, len(found))
        gate.overlay(found[start:upto], Shelf(found[:start]), at, upto)
    assert gate.ledger_size == len(found)
    agrees(gate, standing_frame(frame_of(found), links, policy, at), policy, at)
