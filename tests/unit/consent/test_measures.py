"""Opt-in rates beside a row-by-row reference, the control table, what is hidden, and how soon consumers hear a no."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consent.errors import ConsentError
from consent.events import Event, Recorded
from consent.measures import DELIVERIES_SCHEMA, DIMENSIONS, MEASURES, USES_SCHEMA, Measured, measure, propagation
from consent.rule.identity import joined
from consent.rule.policy import EVERY, Policy, read_policy
from consent.rule.standing import HELPING, REFUSALS, standing
from consent.suppression import hidden_cells
from tests.unit.consent.builders import ALMA, MONDAY, event, subject
from tests.unit.consent.histories import BORIS, DAY, asked_of, frame_of, histories, linked_frame, policy_of, recorded

LATER = MONDAY + 7 * DAY
POLICY = read_policy()
COUNTED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def measured(*said: Event, at: datetime = LATER, policy: Policy = POLICY, **named: Any) -> Measured:
    found = recorded(*said)
    return measure(frame_of(found), policy, at, len(found), **named)


def rates(found: Measured, *by: str, least: int = 1) -> list[dict[str, Any]]:
    return found.rates(by, least).to_dicts()


def outcomes(found: Measured) -> list[tuple[str, ...]]:
    return sorted(found.answers.select("subject_id", "purpose_code", "channel_code", "outcome").rows())


def expected_outcomes(found: Sequence[Recorded], policy: Policy, at: datetime) -> list[tuple[str, ...]]:
    """Who was asked what and what came of it, event by event; the rule of standing is asked, not said again."""
    links = joined([one.event for one in found])
    rows = []
    for who in sorted({one.event.subject_id for one in found}):
        mine = [one.event for one in found if one.event.subject_id == who and happened(one.event) <= at]
        erased = max((rank(one) for one in mine if one.event_type == "erased"), default=None)
        heard = [one for one in mine if erased is None or rank(one) > erased]
        for purpose, channel in asked_of(policy):
            kinds = {one.event_type for one in heard if asks(one, purpose, channel, policy)}
            if not kinds:
                continue
            own = standing(found, who, purpose, channel, at, policy=policy, links=())
            whole = standing(found, who, purpose, channel, at, policy=policy, links=links)
            outcome = "unanswered"
            if own.reason_code in REFUSALS:
                outcome = own.reason_code
            elif "grant" in kinds:
                outcome = "standing" if whole.is_allowed else "lapsed"
            elif "refuse" in kinds:
                outcome = "refused"
            rows.append((who, purpose, channel, outcome))
    return sorted(rows)


def happened(one: Event) -> datetime:
    return min(one.occurred_at, one.recorded_at, one.received_at)


def rank(one: Event) -> datetime:
    return happened(one) if one.event_type in HELPING else min(one.recorded_at, one.received_at)


def asks(one: Event, purpose: str, channel: str, policy: Policy) -> bool:
    terms = policy.purposes[purpose]
    if terms.rests_on_contract or one.purpose_code not in (purpose, EVERY):
        return False
    if one.event_type == "grant" and one.purpose_code == EVERY and not terms.rests_on_consent:
        return False
    touches = one.event_type == "refuse" and channel == EVERY
    return one.event_type in ("grant", "refuse", "notice_shown") and (one.channel_code in (channel, EVERY) or touches)


@COUNTED
@given(said=histories, day=st.integers(0, 7))
def test_answers_are_those_of_a_count_event_by_event(said: list[Event], day: int, tmp_path: Path) -> None:
    policy, at = policy_of(tmp_path), MONDAY + day * DAY
    found = recorded(*said)
    assert outcomes(measure(frame_of(found), policy, at, len(found))) == expected_outcomes(found, policy, at)


@COUNTED
@given(said=histories, day=st.integers(0, 7), gone=st.integers(0, 5), known=st.none() | st.integers(0, 7))
def test_every_leaf_is_in_one_cell_of_the_control_table_and_every_answer_rests_on_one_leaf(
    said: list[Event], day: int, gone: int, known: int | None, tmp_path: Path
) -> None:
    policy, found = policy_of(tmp_path), recorded(*said)
    known_at = None if known is None else MONDAY + known * DAY
    whole = measure(frame_of(found), policy, MONDAY + day * DAY, len(found) + gone, gone, known_at)
    control, answers = whole.control, whole.answers
    assert control["leaves"].sum() == len(found) + gone
    assert control.filter(pl.col("outcome") == "destroyed")["leaves"].sum() == gone
    told = {outcome: rows["answers"].sum() for (outcome,), rows in control.group_by("outcome")}
    kinds = answers["outcome"].to_list()
    assert told.get("yes", 0) == sum(kind in ("standing", "lapsed") for kind in kinds)
    assert told.get("asked", 0) == kinds.count("unanswered")
    assert told.get("no", 0) == sum(kind in REFUSALS for kind in kinds)
    assert (control["why"].is_not_null() == control["outcome"].is_in(["nothing"])).all()


@COUNTED
@given(said=histories, by=st.lists(st.sampled_from(DIMENSIONS), unique=True))
def test_cells_add_up_to_the_answers_whatever_they_are_cut_by(said: list[Event], by: list[str], tmp_path: Path) -> None:
    found = recorded(*said)
    whole = measure(frame_of(found), policy_of(tmp_path), LATER, len(found))
    cells = whole.rates(by, least=1)
    mine = cells.filter(~pl.col("is_total"))
    assert mine["asked"].sum() == whole.answers.height
    assert (cells["asked"] == cells["yes"] + cells["no"] + cells["unanswered"]).all()
    assert (cells["yes"] == cells["standing"] + cells["lapsed"]).all()
    assert (cells["no"] == sum(cells[name] for name in REFUSALS)).all()
    totals = cells.filter(pl.col("is_total"))
    if totals.height:
        for name in MEASURES:
            assert totals[name].sum() == mine[name].sum()


@pytest.mark.parametrize("fault", ["missing", "twice"])
def test_a_leaf_that_is_missing_or_there_twice_is_refused_with_both_numbers(fault: str) -> None:
    found = recorded(*(event(signal_id=f"s-{n}") for n in range(5)))
    kept = found[:4] if fault == "missing" else [*found[:4], found[0]]
    with pytest.raises(ConsentError, match=r"measures, leaves: expected 5, found 4\. Do not publish them"):
        measure(frame_of(kept), POLICY, LATER, 5)


def test_a_leaf_counted_as_destroyed_and_as_readable_is_refused() -> None:
    with pytest.raises(ConsentError, match="expected 1, found 2"):
        measured(event(), destroyed_count=1)


def test_a_withdrawal_counts_against_the_notice_and_the_place_the_yes_was_given_at() -> None:
    withdrawn = event(
        MONDAY + DAY, event_type="withdraw", signal_id="w", capture_place="preference_centre", notice_id=None,
        notice_version=None,
    )  # fmt: skip
    (cell, total) = rates(
        measured(event(notice_version=2), withdrawn), "purpose_code", "notice_version", "capture_place"
    )
    assert (cell["notice_version"], cell["capture_place"]) == (2, "web_banner")
    assert (cell["asked"], cell["yes"], cell["withdrawn"], total["withdrawn"]) == (1, 0, 1, 1)


def test_a_person_asked_in_two_places_counts_once_where_they_were_asked_last() -> None:
    again = event(
        MONDAY + DAY, event_type="refuse", signal_id="r", capture_place="till_tablet", notice_id="till_tablet"
    )
    cells = rates(measured(event(), again), "capture_place")
    assert [(cell["capture_place"], cell["asked"], cell["refused"]) for cell in cells] == [
        ("till_tablet", 1, 1), (None, 1, 1),
    ]  # fmt: skip


def test_a_no_of_somebody_who_was_not_asked_is_no_answer_and_the_control_table_says_so() -> None:
    found = measured(event(event_type="withdraw"))
    assert found.answers.is_empty()
    assert found.control.select("outcome", "why", "leaves").rows() == [("nothing", "unasked", 1)]


def test_a_yes_under_one_identity_does_not_stand_where_the_same_customer_said_no_under_another() -> None:
    no = event(MONDAY + DAY, event_type="withdraw", subject_id=BORIS, signal_id="w")
    links = linked_frame([("cus_1", ALMA, "hub"), ("cus_1", BORIS, "contact")])
    assert outcomes(measured(event(), no))[0][-1] == "standing"
    assert outcomes(measured(event(), no, links=links))[0][-1] == "lapsed"


def test_what_was_not_known_then_is_not_counted_then() -> None:
    late = event(MONDAY, signal_id="late", received_at=MONDAY + 3 * DAY, subject_id=BORIS)
    found = measured(event(), late, known_at=MONDAY + DAY)
    assert outcomes(found) == [(ALMA, "personalization", "*", "standing")]
    assert ("nothing", "not_known_then") in found.control.select("outcome", "why").rows()


def test_the_interval_is_wilsons() -> None:
    """81 of 263, from R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    said = [event(subject_id=subject(n), event_type="grant" if n < 81 else "refuse") for n in range(263)]
    (cell,) = rates(measured(*said), "purpose_code")
    assert (cell["rate"], cell["rate_low"], cell["rate_high"]) == (0.308, 0.2553, 0.3662)


def test_weeks_tell_what_those_asked_in_them_had_said_by_their_end() -> None:
    said = [
        event(MONDAY, subject_id=subject(1)),
        event(MONDAY + DAY, subject_id=subject(1), event_type="withdraw", signal_id="w"),
        event(MONDAY + DAY, subject_id=subject(2)),
        event(MONDAY + 8 * DAY, subject_id=subject(2), event_type="withdraw", signal_id="w"),
        event(MONDAY + 9 * DAY, subject_id=subject(3)),
    ]
    weeks = measured(*said, at=MONDAY + 20 * DAY).weekly(["purpose_code"], least=1)
    assert weeks.select("week", "asked", "yes", "withdrawn").rows() == [
        (MONDAY.date(), 2, 1, 1),
        ((MONDAY + 7 * DAY).date(), 1, 1, 0),
    ]


def test_a_small_cell_is_hidden_together_with_what_would_give_it_away() -> None:
    places = [("web_banner", 40, 30), ("till_tablet", 30, 3), ("kiosk", 25, 12)]
    said, person = [], 0
    for place, yes, no in places:
        for number in range(yes + no):
            kind = "grant" if number < yes else "refuse"
            said.append(event(subject_id=subject(person), capture_place=place, event_type=kind))
            person += 1
    cells = {row["capture_place"]: row for row in rates(measured(*said), "purpose_code", "capture_place", least=10)}
    assert cells["till_tablet"]["no"] is None
    assert cells["till_tablet"]["refused"] is None
    assert cells["kiosk"]["no"] is None  # else the total less the other two would tell
    assert cells["till_tablet"]["yes"] is None or cells["till_tablet"]["asked"] is None
    assert cells[None]["no"] == 45
    assert cells["till_tablet"]["rate"] is None


def test_people_are_counted_not_answers_where_a_cell_holds_several_of_each() -> None:
    said = [
        event(purpose_code="marketing", channel_code=channel, signal_id=channel) for channel in ("email", "sms", "post")
    ]
    (cell,) = rates(measured(*said), "purpose_code", least=2)
    assert cell["asked"] is None


tables = st.integers(1, 5).flatmap(
    lambda rows: st.lists(st.lists(st.integers(0, 25), min_size=3, max_size=3), min_size=rows, max_size=rows)
)


@settings(deadline=None)
@given(inner=tables, has_total=st.booleans(), least=st.integers(2, 12))
def test_no_hidden_count_follows_from_what_is_shown(inner: list[list[int]], has_total: bool, least: int) -> None:
    rows = [[sum(row), *row] for row in inner]
    if has_total:
        rows.append([sum(column) for column in zip(*rows, strict=True)])
    counts = np.array(rows, np.int64)
    hidden = hidden_cells(counts, counts, {0: [1, 2, 3]}, least, has_total)
    assert hidden[(counts > 0) & (counts < least)].all()
    sums = [[(row, 1, 1), (row, 2, 1), (row, 3, 1), (row, 0, -1)] for row in range(len(rows))]
    if has_total:
        last = len(rows) - 1
        sums += [[*((row, column, 1) for row in range(last)), (last, column, -1)] for column in range(4)]
    for line in sums:
        parts = [(row, column) for row, column, _ in line[:-1] if hidden[row, column]]
        if parts and not hidden[line[-1][0], line[-1][1]]:
            assert sum(counts[part] for part in parts) >= least
    places = [(int(row), int(column)) for row, column in np.argwhere(hidden)]
    matrix = [[Fraction(sum(sign for r, c, sign in line if (r, c) == place)) for place in places] for line in sums]
    assert not any(is_fixed(matrix, number) for number in range(len(places)))


def is_fixed(matrix: list[list[Fraction]], number: int) -> bool:
    """Whether the sums alone settle an unknown: its unit vector adds nothing to their rank."""
    unit = [Fraction(int(at == number)) for at in range(len(matrix[0]))]
    return rank_of([*matrix, unit]) == rank_of(matrix)


def rank_of(matrix: list[list[Fraction]]) -> int:
    """By elimination in whole fractions."""
    rows, rank_ = [row[:] for row in matrix], 0
    for column in range(len(rows[0]) if rows else 0):
        pivot = next((row for row in rows[rank_:] if row[column]), None)
        if pivot is None:
            continue
        rows.remove(pivot)
        rows.insert(rank_, pivot)
        for row in rows[rank_ + 1 :]:
            factor = row[column] / pivot[column]
            row[:] = [mine - factor * theirs for mine, theirs in zip(row, pivot, strict=True)]
        rank_ += 1
    return rank_


def test_rates_by_what_is_no_dimension_are_refused() -> None:
    with pytest.raises(ConsentError, match="expected some of purpose_code"):
        measured(event()).rates(["colour"])


def test_an_empty_ledger_measures_nothing() -> None:
    found = measured()
    assert (found.answers.height, found.control.height, found.rates().height, found.weekly().height) == (0, 0, 0, 0)


SIGNED = pl.DataFrame(
    [(2, MONDAY + timedelta(seconds=5)), (4, MONDAY + 2 * DAY)],
    schema={"size": pl.Int64(), "signed_at": pl.Datetime("us", "UTC")},
    orient="row",
)
WITHDRAWN = recorded(
    event(purpose_code="marketing", channel_code="email"),
    event(MONDAY, event_type="withdraw", purpose_code="marketing", channel_code="*", signal_id="w"),
    event(MONDAY + DAY, event_type="object", purpose_code="analytics", signal_id="o"),
    event(MONDAY + DAY, event_type="withdraw", purpose_code="marketing", channel_code="sms", signal_id="v"),
)


def heard(uses: list[tuple[Any, ...]] | None = None, deliveries: list[tuple[Any, ...]] | None = None) -> dict[str, Any]:
    found = propagation(
        frame_of(WITHDRAWN),
        POLICY,
        SIGNED,
        pl.DataFrame(uses or [], schema=USES_SCHEMA, orient="row"),
        pl.DataFrame(deliveries or [], schema=DELIVERIES_SCHEMA, orient="row"),
    )
    return {row["consumer"]: row for row in found.to_dicts()}


def test_a_no_blocks_from_the_first_signed_checkpoint_that_covers_it() -> None:
    stage = heard()["all, to signed checkpoint"]
    assert (stage["acted"], stage["not_yet"]) == (3, 0)
    assert (stage["p50_seconds"], stage["longest_seconds"]) == (86_400.0, 86_400.0)


def test_a_use_acts_on_what_the_ledger_it_was_decided_under_held_and_on_its_own_purpose_alone() -> None:
    uses = [("crm", "marketing", 2, MONDAY + timedelta(hours=1)), ("ads", "analytics", 2, MONDAY + timedelta(hours=1))]
    found = heard(uses)
    assert (found["crm"]["acted"], found["crm"]["not_yet"], found["crm"]["longest_seconds"]) == (1, 1, 3_600.0)
    assert found["crm"]["waiting_since_at"] == MONDAY + DAY
    assert (found["ads"]["acted"], found["ads"]["not_yet"]) == (0, 1)


def test_a_use_decided_without_a_no_that_was_covered_by_then_is_late() -> None:
    uses = [("crm", "marketing", 1, MONDAY + timedelta(hours=1)), ("early", "marketing", 1, MONDAY)]
    found = heard(uses)
    assert (found["crm"]["late_uses"], found["early"]["late_uses"]) == (1, 0)


def test_a_webhook_has_acted_when_it_was_acknowledged() -> None:
    found = heard(deliveries=[("mail", 1, MONDAY + timedelta(seconds=2)), ("mail", 3, None), ("mail", 0, MONDAY)])[
        "mail"
    ]
    assert (found["acted"], found["not_yet"], found["p99_seconds"]) == (1, 1, 2.0)
