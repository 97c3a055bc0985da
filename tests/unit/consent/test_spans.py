"""Standing over time: at every moment the spans say what the rule says of it, as it was known then."""

import random
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.errors import ConsentError
from consent.events import Event
from consent.rule.policy import Policy, read_policy
from consent.rule.spans import SPAN_SCHEMA, every_span, standing_spans
from consent.rule.standing import standing_frame
from tests.unit.consent.builders import ALMA, MONDAY, event
from tests.unit.consent.histories import (
    BORIS,
    DAY,
    crowd,
    customers,
    frame_of,
    histories,
    linked_frame,
    policy_of,
    recorded,
)

TICK = timedelta(microseconds=1)
ANSWER = ["is_allowed", "reason_code", "since_at", "expires_at", "leaf_index"]
ASKED = st.sampled_from((("analytics", "*"), ("sharing", "*"), ("fraud", "*"), ("marketing", "email")))
MOMENTS = [MONDAY + day * DAY + around for day in range(-1, 14) for around in (-TICK, timedelta(0), TICK)]
NEVER = (False, "never_asked", None, None, None)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return policy_of(tmp_path_factory.mktemp("policy"))


def by_the_spans(spans: pl.DataFrame, customer_id: str, at: datetime) -> tuple[Any, ...]:
    holding = (pl.col("from_at") <= at) & ((pl.col("until_at") > at) | pl.col("until_at").is_null())
    found = spans.filter(pl.col("customer_id") == customer_id, holding).select(ANSWER).rows()
    assert len(found) < 2
    return found[0] if found else NEVER


def compare(
    events: pl.DataFrame, links: pl.DataFrame, policy: Policy, asked: tuple[str, str], moments: list[datetime]
) -> None:
    spans = standing_spans(events, links, policy, *asked)
    every = every_span(events, links, policy).filter(purpose_code=asked[0], channel_code=asked[1])
    for at in moments:
        whole = standing_frame(events, links, policy, at, known_at=at)
        rows = whole.filter(purpose_code=asked[0], channel_code=asked[1]).select("customer_id", *ANSWER).rows()
        for found in (spans, every):
            assert [(who, *by_the_spans(found, who, at)) for who, *_ in rows] == rows, at


@settings(max_examples=25, deadline=None)
@given(histories, customers, ASKED, st.lists(st.sampled_from(MOMENTS), min_size=4, max_size=8, unique=True))
def test_at_any_moment_the_spans_say_what_the_rule_says_of_it_as_known_then(
    policy: Policy, history: list[Event], owned: list[tuple[str, ...]], asked: tuple[str, str], moments: list[datetime]
) -> None:
    compare(frame_of(recorded(*history)), linked_frame(owned), policy, asked, moments)


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10_000), ASKED, st.lists(st.sampled_from(MOMENTS), min_size=5, max_size=5, unique=True))
def test_it_holds_of_a_crowd_whose_identities_are_linked_and_parted(
    policy: Policy, seed: int, asked: tuple[str, str], moments: list[datetime]
) -> None:
    found, owned = crowd(random.Random(seed), 40)
    compare(frame_of(found), linked_frame(owned), policy, asked, moments)


@settings(max_examples=20, deadline=None)
@given(histories, customers, ASKED)
def test_the_spans_of_a_customer_follow_one_another_without_gaps_and_differ(
    policy: Policy, history: list[Event], owned: list[tuple[str, ...]], asked: tuple[str, str]
) -> None:
    spans = standing_spans(frame_of(recorded(*history)), linked_frame(owned), policy, *asked)
    for mine in spans.partition_by("customer_id"):
        assert mine["from_at"][1:].to_list() == mine["until_at"][:-1].to_list()
        assert mine["until_at"][-1] is None
        answers = mine.select(ANSWER).rows()
        assert all(one != other for one, other in pairwise(answers))


def test_a_grant_that_is_withdrawn_and_given_again_and_ends_is_four_spans() -> None:
    said = recorded(
        event(MONDAY), event(MONDAY + 3 * DAY, event_type="withdraw"), event(MONDAY + 5 * DAY), event(subject_id=BORIS)
    )
    links = linked_frame([("cus_alma", ALMA, "hub")])
    spans = standing_spans(frame_of(said), links, read_policy(), "personalization", "*")
    days = [(at - MONDAY) // DAY for at in spans["from_at"]]
    assert list(zip(days, spans["reason_code"], strict=True)) == [
        (0, "granted"), (3, "withdrawn"), (5, "granted"), (735, "expired"),
    ]  # fmt: skip


def test_a_late_arrival_counts_from_when_it_was_received() -> None:
    said = recorded(event(MONDAY, received_at=MONDAY + 2 * DAY))
    spans = standing_spans(
        frame_of(said), linked_frame([("cus_alma", ALMA, "hub")]), read_policy(), "personalization", "*"
    )
    assert spans["from_at"][0] == MONDAY + 2 * DAY
    assert spans["since_at"][0] == MONDAY


def test_what_is_renewed_later_is_renewed_from_then_on_and_not_before() -> None:
    said = recorded(
        event(MONDAY), event(MONDAY + DAY, event_type="renew", notice_version=None),
        event(MONDAY + 2 * DAY, event_type="renew"),
    )  # fmt: skip
    links = linked_frame([("cus_alma", ALMA, "hub")])
    spans = standing_spans(frame_of(said), links, read_policy(), "personalization", "*")
    assert spans["reason_code"].to_list() == ["granted", "stale_notice", "granted", "expired"]
    assert spans["leaf_index"].to_list() == [0, 0, 0, 0]
    assert spans["expires_at"].to_list()[2] == MONDAY + 732 * DAY


def test_nobody_and_nothing_said_is_an_empty_table(policy: Policy) -> None:
    empty = standing_spans(frame_of([]), linked_frame([]), policy, "analytics", "*")
    assert dict(empty.schema) == SPAN_SCHEMA
    assert not every_span(frame_of([]), linked_frame([]), policy).height
    assert not empty.height


@pytest.mark.parametrize("asked", [("service", "*"), ("gossip", "*"), ("marketing", "*")])
def test_what_nobody_is_asked_for_has_no_standing_over_time(policy: Policy, asked: tuple[str, str]) -> None:
    with pytest.raises(ConsentError, match="expected a purpose and a channel that people are asked for"):
        standing_spans(frame_of([]), linked_frame([]), policy, *asked)
