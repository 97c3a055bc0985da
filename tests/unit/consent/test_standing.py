"""The rule of standing: its cases by name, its laws by property, and its two forms compared."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NoReturn

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.errors import LedgerError
from consent.events import FIELDS, SCHEMA, Event, Recorded
from consent.policy import Notice, Policy, read_policy
from consent.standing import REASONS, Standing, merged, standing, standing_frame
from tests.unit.consent.builders import ALMA, MONDAY, event

POLICY = read_policy()
DAY = timedelta(days=1)
NOW = MONDAY + 10 * DAY
BORIS = "phone_" + "boris" * 4 + "zz"


def recorded(*said: Event) -> list[Recorded]:
    return [Recorded(leaf, one) for leaf, one in enumerate(said)]


def ask(said: Sequence[Recorded], purpose: str = "personalization", channel: str = "*", **changes: Any) -> Standing:
    asked = {"subject_id": ALMA, "at": NOW, "policy": POLICY, **changes}
    return standing(
        said, asked["subject_id"], purpose, channel, asked["at"], policy=asked["policy"], known_at=asked.get("known_at")
    )


def grant(at: Any = MONDAY, **changes: Any) -> Event:
    return event(at, **changes)


def withdraw(at: Any = MONDAY, **changes: Any) -> Event:
    return event(at, event_type="withdraw", **changes)


def test_a_grant_allows_until_it_expires() -> None:
    found = ask(recorded(grant()))
    assert found == Standing(True, "granted", MONDAY, MONDAY + 730 * DAY, 0)
    assert ask(recorded(grant()), at=MONDAY + 730 * DAY - timedelta(microseconds=1)).is_allowed
    assert ask(recorded(grant()), at=MONDAY + 730 * DAY) == Standing(False, "expired", MONDAY, None, 0)


def test_who_was_never_asked_is_refused() -> None:
    assert ask([]) == Standing(False, "never_asked")
    assert ask(recorded(grant(subject_id=BORIS))).reason_code == "never_asked"


@pytest.mark.parametrize(("said", "reason"), [("refuse", "refused"), ("withdraw", "withdrawn"), ("object", "objected")])
def test_every_way_to_say_no_has_its_reason(said: str, reason: str) -> None:
    assert ask(recorded(grant(), event(MONDAY + DAY, event_type=said))) == Standing(
        False, reason, MONDAY + DAY, None, 1
    )


def test_only_a_later_explicit_grant_undoes_a_withdrawal() -> None:
    said = recorded(grant(), withdraw(MONDAY + DAY), grant(MONDAY + 2 * DAY))
    assert ask(said).is_allowed
    assert not ask(said, at=MONDAY + DAY).is_allowed


def test_at_the_same_instant_a_no_beats_a_yes_in_whatever_order_they_arrive() -> None:
    assert not ask(recorded(grant(), withdraw())).is_allowed
    assert not ask(recorded(withdraw(), grant())).is_allowed


def test_an_old_grant_that_arrives_late_does_not_bring_permission_back() -> None:
    late = event(MONDAY - DAY, received_at=MONDAY + 5 * DAY)
    assert ask(recorded(withdraw(), late)).reason_code == "withdrawn"


def test_a_grant_dated_into_the_future_by_its_device_counts_from_when_it_was_recorded() -> None:
    ahead = event(MONDAY, occurred_at=MONDAY + 365 * DAY)
    assert ask(recorded(ahead, withdraw(MONDAY + DAY))).reason_code == "withdrawn"


def test_a_withdrawal_dated_into_the_past_by_its_device_still_beats_the_grant_before_it() -> None:
    behind = event(MONDAY + DAY, event_type="withdraw", occurred_at=MONDAY - 9000 * DAY)
    assert ask(recorded(grant(), behind)).reason_code == "withdrawn"


def test_a_withdrawal_dated_into_the_future_can_be_followed_by_a_grant() -> None:
    ahead = event(MONDAY, event_type="withdraw", occurred_at=MONDAY + 9000 * DAY)
    assert ask(recorded(ahead, grant(MONDAY + DAY))).is_allowed


def test_what_we_knew_then_is_told_apart_from_what_we_know_now() -> None:
    said = recorded(grant(), event(MONDAY + DAY, event_type="withdraw", received_at=MONDAY + 5 * DAY))
    assert ask(said, at=MONDAY + 2 * DAY, known_at=MONDAY + 2 * DAY).is_allowed
    assert not ask(said, at=MONDAY + 2 * DAY, known_at=NOW).is_allowed


@pytest.mark.parametrize("notice", [{"notice_id": None}, {"notice_version": None}, {"notice_id": "rumour"}])
def test_a_grant_without_a_notice_that_counts_is_stale(notice: dict[str, Any]) -> None:
    assert ask(recorded(grant(**notice))).reason_code == "stale_notice"


def test_raising_the_minimum_version_makes_older_grants_stale() -> None:
    stricter = Policy(
        POLICY.purposes, POLICY.channels, {"web_banner": Notice("web_banner", 2, 2)}, POLICY.jurisdictions
    )
    assert ask(recorded(grant()), policy=stricter).reason_code == "stale_notice"
    assert ask(recorded(grant(notice_version=2)), policy=stricter).is_allowed


def test_the_law_of_the_place_may_shorten_a_grant() -> None:
    in_california = recorded(grant(purpose_code="third_party_sharing", jurisdiction_code="US-CA"))
    assert ask(in_california, "third_party_sharing", at=MONDAY + 179 * DAY).is_allowed
    assert ask(in_california, "third_party_sharing", at=MONDAY + 180 * DAY).reason_code == "expired"


def test_a_global_privacy_control_signal_refuses_third_party_sharing_and_nothing_else() -> None:
    seen = event(
        MONDAY + DAY, event_type="signal_seen", capture_method="gpc", purpose_code="analytics", channel_code="email"
    )
    said = recorded(grant(purpose_code="*"), seen)
    assert ask(said, "third_party_sharing").reason_code == "gpc"
    assert ask(said, "analytics").is_allowed


def test_a_signal_of_another_kind_says_nothing() -> None:
    seen = event(
        MONDAY + DAY, event_type="signal_seen", capture_method="banner_shown", purpose_code="third_party_sharing"
    )
    assert ask(recorded(seen), "third_party_sharing").reason_code == "never_asked"


def test_marketing_by_one_channel_is_no_marketing_by_another() -> None:
    said = recorded(grant(purpose_code="marketing", channel_code="email"))
    assert ask(said, "marketing", "email").is_allowed
    assert ask(said, "marketing", "sms").reason_code == "never_asked"
    assert ask(said, "marketing", "*").reason_code == "never_asked"


def test_leaving_one_channel_leaves_the_others_and_leaving_all_leaves_each() -> None:
    everything = grant(purpose_code="marketing")
    one = withdraw(MONDAY + DAY, purpose_code="marketing", channel_code="email")
    every = withdraw(MONDAY + DAY, purpose_code="marketing")
    assert not ask(recorded(everything, one), "marketing", "email").is_allowed
    assert ask(recorded(everything, one), "marketing", "sms").is_allowed
    assert not ask(recorded(everything, every), "marketing", "sms").is_allowed
    assert ask(
        recorded(everything, every, grant(MONDAY + 2 * DAY, purpose_code="marketing", channel_code="sms")),
        "marketing",
        "sms",
    ).is_allowed


def test_a_yes_must_cover_all_that_is_asked_and_a_no_need_only_touch_it() -> None:
    assert ask(recorded(grant(channel_code="email"))).reason_code == "never_asked"
    assert ask(recorded(grant(), withdraw(MONDAY + DAY, channel_code="email"))).reason_code == "withdrawn"


def test_a_purpose_asked_as_a_whole_is_answered_as_a_whole_for_any_channel() -> None:
    assert ask(recorded(grant()), channel="onsite").is_allowed


def test_what_the_policy_does_not_know_is_refused() -> None:
    assert ask(recorded(grant(purpose_code="*")), "gossip").reason_code == "unknown_purpose"
    assert ask(recorded(grant()), channel="fax").reason_code == "unknown_channel"


def test_a_ledger_that_cannot_be_read_means_no() -> None:
    class Burnt:
        def events_of(self, subject_id: str) -> NoReturn:
            raise LedgerError("ledger: expected a file, found ashes. Restore it.")

    assert standing(Burnt(), ALMA, "personalization", "*", NOW, policy=POLICY) == Standing(False, "ledger_unreadable")


def test_service_rests_on_the_contract_and_no_event_touches_it() -> None:
    said = recorded(withdraw(purpose_code="*"), event(event_type="object", purpose_code="service"))
    assert ask(said, "service") == Standing(True, "contract")


def test_every_reason_has_its_sentence() -> None:
    assert all(sentence.endswith(".") for sentence in REASONS.values())


def test_a_revoked_consent_does_not_come_back_by_merging_in_an_older_profile() -> None:
    """Apache Unomi drops a revoked consent and takes the other profile's older grant."""
    revoked = ask(recorded(grant(), withdraw(MONDAY + DAY)))
    other = ask(recorded(grant()))
    assert merged([("hub", revoked), ("deterministic", other)]).reason_code == "withdrawn"


def test_a_shared_mailbox_carries_a_refusal_and_never_a_grant() -> None:
    yes, no, old = ask(recorded(grant())), ask(recorded(withdraw())), ask(recorded(grant()), at=MONDAY + 900 * DAY)
    asked_never = Standing(False, "never_asked")
    assert merged([("hub", asked_never), ("contact", yes)]) == asked_never
    assert merged([("hub", yes), ("contact", no)]).reason_code == "withdrawn"
    assert merged([("hub", yes), ("contact", old)]).is_allowed
    assert merged([("hub", yes), ("contact", Standing(False, "ledger_unreadable"))]).reason_code == "ledger_unreadable"


def test_an_expired_grant_under_one_identity_leaves_the_merged_customer_refused() -> None:
    old, new = grant(), grant(MONDAY + 800 * DAY)
    at = MONDAY + 801 * DAY
    found = merged([("hub", ask(recorded(old), at=at)), ("deterministic", ask(recorded(new), at=at))])
    assert found.reason_code == "expired"


def test_a_merged_grant_ends_when_the_first_of_its_grants_ends() -> None:
    first, second = ask(recorded(grant())), ask(recorded(grant(MONDAY + DAY)))
    assert merged([("hub", first), ("deterministic", second)]) == Standing(
        True, "granted", MONDAY + DAY, MONDAY + 730 * DAY, 0
    )


# Small worlds, so that events meet: few instants, purposes, channels, subjects.
# Days and a grant's whole life apart, so that ends are met to the instant.
instants = st.builds(
    lambda day, lives: MONDAY + (day - 730 * lives) * DAY, st.integers(0, 6), st.sampled_from((0, 0, 0, 1))
)
SUBJECTS = (ALMA, BORIS, "card_" + "carla" * 4 + "zz")
said_events = st.builds(
    event,
    subject_id=st.sampled_from(SUBJECTS),
    event_type=st.sampled_from(("grant", "grant", "grant", "refuse", "withdraw", "object", "signal_seen")),
    purpose_code=st.sampled_from(("*", "personalization", "marketing", "third_party_sharing", "service", "gossip")),
    channel_code=st.sampled_from(("*", "*", "email", "sms")),
    occurred_at=instants,
    recorded_at=instants,
    received_at=instants,
    capture_method=st.sampled_from(("gpc", "form_tick")),
    notice_id=st.sampled_from(("web_banner", "web_banner", "rumour", None)),
    notice_version=st.sampled_from((1, 1, 2, None)),
    jurisdiction_code=st.sampled_from(("US-CA", "US-OR")),
)
histories = st.lists(said_events, max_size=10)
link_types = st.sampled_from(("hub", "deterministic", "contact", "guess"))
links = st.lists(st.tuples(st.sampled_from(("cus_1", "cus_2")), st.sampled_from(SUBJECTS), link_types), max_size=6)
ASKED = [(code, channel) for code, purpose in POLICY.purposes.items() for channel in purpose.channels]


def frame_of(found: Sequence[Recorded]) -> pl.DataFrame:
    rows = [(one.leaf_index, *(getattr(one.event, name) for name in FIELDS), len(found)) for one in found]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def everyone(found: Sequence[Recorded], **changes: Any) -> dict[tuple[str, str, str], Standing]:
    return {(s, p, c): ask(found, p, c, subject_id=s, **changes) for s in SUBJECTS for p, c in ASKED}


def linked_frame(linked: Sequence[tuple[str, str, str]]) -> pl.DataFrame:
    schema = dict.fromkeys(("customer_id", "identity_ref", "link_type"), pl.String())
    return pl.DataFrame(linked, schema=schema, orient="row")


@pytest.mark.parametrize(("at", "reason"), [(MONDAY + 729 * DAY, "granted"), (MONDAY + 730 * DAY, "expired")])
def test_for_all_at_once_a_merged_grant_ends_with_the_first_of_its_grants(at: Any, reason: str) -> None:
    found = recorded(grant(), grant(MONDAY + DAY, subject_id=BORIS))
    both = linked_frame([("cus_1", ALMA, "hub"), ("cus_1", BORIS, "deterministic")])
    frame = standing_frame(frame_of(found), both, POLICY, at).filter(purpose_code="personalization")
    (row,) = frame.select("reason_code", "since_at", "expires_at").rows()
    assert row == ((reason, MONDAY + DAY, MONDAY + 730 * DAY) if reason == "granted" else (reason, MONDAY, None))


@settings(max_examples=60, deadline=None)
@given(histories, links, instants, st.none() | instants)
def test_the_frame_says_for_all_what_the_function_says_for_each(
    history: list[Event], linked: list[tuple[str, str, str]], at: Any, known_at: Any
) -> None:
    found = recorded(*history)
    frame = standing_frame(frame_of(found), linked_frame(linked), POLICY, at, known_at)
    one_by_one = everyone(found, at=at, known_at=known_at)
    expected = []
    for customer in sorted({customer for customer, _, _ in linked}):
        for purpose, channel in sorted(ASKED):
            bound = [
                (link, one_by_one[subject, purpose, channel]) for owner, subject, link in linked if owner == customer
            ]
            whole = merged(bound) if purpose != "service" else Standing(True, "contract")
            answer = (whole.is_allowed, whole.reason_code, whole.since_at, whole.expires_at, whole.leaf_index)
            expected.append((customer, purpose, channel, *answer, len(found)))
    assert frame.rows() == expected


@settings(max_examples=60, deadline=None)
@given(histories, instants, st.randoms(use_true_random=False))
def test_the_order_of_arrival_never_changes_what_is_allowed(history: list[Event], at: Any, chance: Any) -> None:
    shuffled = list(history)
    chance.shuffle(shuffled)
    before, after = everyone(recorded(*history), at=at), everyone(recorded(*shuffled), at=at)
    assert [one.is_allowed for one in before.values()] == [one.is_allowed for one in after.values()]


@settings(max_examples=60, deadline=None)
@given(histories, instants)
def test_replaying_everything_changes_nothing(history: list[Event], at: Any) -> None:
    once, twice = everyone(recorded(*history), at=at), everyone(recorded(*history, *history), at=at)
    told = [(one.is_allowed, one.since_at, one.expires_at) for one in once.values()]
    assert told == [(one.is_allowed, one.since_at, one.expires_at) for one in twice.values()]


@settings(max_examples=60, deadline=None)
@given(histories, said_events.filter(lambda one: one.event_type != "grant"), instants)
def test_one_more_no_never_allows_anything(history: list[Event], denial: Event, at: Any) -> None:
    before, after = everyone(recorded(*history), at=at), everyone(recorded(*history, denial), at=at)
    assert all(before[asked].is_allowed for asked, one in after.items() if one.is_allowed)


@settings(max_examples=60, deadline=None)
@given(
    histories, st.lists(st.tuples(link_types, st.sampled_from(SUBJECTS)), min_size=1, max_size=4), link_types, instants
)
def test_linking_one_more_identity_never_enlarges_permission(
    history: list[Event], linked: list[tuple[str, str]], link_type: str, at: Any
) -> None:
    one_by_one = everyone(recorded(*history), at=at)
    for purpose, channel in ASKED[:-1]:
        before = merged([(link, one_by_one[subject, purpose, channel]) for link, subject in linked])
        for subject in SUBJECTS:
            joined = one_by_one[subject, purpose, channel]
            after = merged([*((link, one_by_one[s, purpose, channel]) for link, s in linked), (link_type, joined)])
            if after.is_allowed:
                assert before.is_allowed or before.reason_code == "never_asked"
                assert (
                    joined.is_allowed
                    or joined.reason_code == "never_asked"
                    or link_type not in ("hub", "deterministic")
                )
            if after.is_allowed and not before.is_allowed:
                assert link_type in ("hub", "deterministic")
