"""The rule of standing: its cases by name, its laws by property, and its two Python forms compared."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import combinations
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.errors import LedgerError
from consent.events import Event, Recorded
from consent.rule.identity import joined
from consent.rule.policy import Notice, Policy, read_policy
from consent.rule.standing import REFUSALS, Standing, merged, merged_groups, standing, standing_frame
from tests.unit.consent.builders import ALMA, MONDAY, event
from tests.unit.consent.histories import (
    BORIS,
    CARLA,
    DAY,
    DORA,
    SUBJECTS,
    asked_of,
    crowd,
    customers,
    expected_rows,
    frame_of,
    histories,
    instants,
    link_changes,
    linked_frame,
    policy_of,
    recorded,
    spoken_events,
)

POLICY = read_policy()
NOW = MONDAY + 10 * DAY


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


@pytest.mark.parametrize(("at", "reason"), [(MONDAY + 729 * DAY, "granted"), (MONDAY + 730 * DAY, "expired")])
def test_for_all_at_once_a_merged_grant_ends_with_the_first_of_its_grants(at: Any, reason: str) -> None:
    found = recorded(grant(), grant(MONDAY + DAY, subject_id=BORIS))
    both = linked_frame([("cus_1", ALMA, "hub"), ("cus_1", BORIS, "deterministic")])
    frame = standing_frame(frame_of(found), both, POLICY, at).filter(purpose_code="personalization")
    (row,) = frame.select("reason_code", "since_at", "expires_at").rows()
    assert row == ((reason, MONDAY + DAY, MONDAY + 730 * DAY) if reason == "granted" else (reason, MONDAY, None))


# What others got wrong, by name.


def test_absence_of_consent_data_is_a_no_under_every_mechanism() -> None:
    """Segment and RudderStack deliver what carries no consent; Fides' `unless` lets it through."""
    frame = standing_frame(frame_of([]), linked_frame([("cus_1", ALMA, "hub")]), POLICY, NOW)
    assert frame.filter("is_allowed")["purpose_code"].to_list() == ["service"]
    in_britain = event(purpose_code="marketing", jurisdiction_code="GB")
    assert ask(recorded(in_britain), "analytics").reason_code == "never_asked"


def test_an_expired_grant_leaves_by_itself() -> None:
    """Apache Unomi's segments ask for the status alone, and nothing turns it when the date has passed."""
    found, owned = frame_of(recorded(grant())), linked_frame([("cus_1", ALMA, "hub")])
    for at, reason in ((MONDAY + 729 * DAY, "granted"), (MONDAY + 730 * DAY, "expired")):
        frame = standing_frame(found, owned, POLICY, at)
        assert frame.filter(purpose_code="personalization")["reason_code"].to_list() == [reason]


def test_privacy_control_counts_from_the_instant_it_is_seen_even_with_the_banners_yes() -> None:
    """fides#3489: the signal was applied after the first event had fired."""
    yes = grant(purpose_code="third_party_sharing")
    seen = event(event_type="signal_seen", capture_method="gpc")
    assert ask(recorded(yes, seen), "third_party_sharing", at=MONDAY) == Standing(False, "gpc", MONDAY, None, 1)


def test_an_unsubscribe_from_one_channel_leaves_the_others() -> None:
    """mautic#2009: the unsubscription was too broad."""
    said = recorded(
        grant(purpose_code="marketing"), withdraw(MONDAY + DAY, purpose_code="marketing", channel_code="email")
    )
    assert [ask(said, "marketing", channel).is_allowed for channel in ("email", "sms", "post")] == [False, True, True]


def test_whoever_opted_out_can_opt_in_again() -> None:
    """alloy#353: an opted-out person could never opt in again."""
    out = [event(MONDAY + DAY, event_type=said) for said in ("refuse", "withdraw", "object", "expire", "erased")]
    for no in out:
        assert ask(recorded(grant(), no, grant(MONDAY + 2 * DAY))).is_allowed
    freed = event(MONDAY + 3 * DAY, event_type="unrestrict", purpose_code="*")
    held = event(MONDAY + DAY, event_type="restrict")
    assert ask(recorded(held, grant(MONDAY + 2 * DAY), freed)).is_allowed


# What an event of each kind does.

MAILED: dict[str, Any] = {"purpose_code": "marketing", "channel_code": "email"}
IN_GERMANY: dict[str, Any] = {**MAILED, "jurisdiction_code": "DE"}
SHOWN: dict[str, Any] = {
    "event_type": "notice_shown", "purpose_code": "analytics", "jurisdiction_code": "GB",
    "notice_id": "preference_centre", "notice_version": 2,
}  # fmt: skip


def test_a_renewal_moves_the_end_of_a_grant_and_never_its_rank() -> None:
    renewal = event(MONDAY + 700 * DAY, event_type="renew")
    at = MONDAY + 800 * DAY
    assert ask(recorded(grant(), renewal), at=at) == Standing(True, "granted", MONDAY, MONDAY + 1430 * DAY, 0)
    assert ask(recorded(grant(), withdraw(MONDAY + DAY), renewal), at=at).reason_code == "withdrawn"
    assert ask(recorded(renewal), at=at).reason_code == "never_asked"


def test_a_renewal_after_the_end_brings_nothing_back() -> None:
    late = event(MONDAY + 730 * DAY, event_type="renew")
    assert ask(recorded(grant(), late), at=MONDAY + 731 * DAY).reason_code == "expired"
    in_time = [event(MONDAY + day * DAY, event_type="renew") for day in (1400, 729)]
    assert ask(recorded(grant(), *in_time), at=MONDAY + 2000 * DAY).is_allowed


def test_a_renewal_brings_its_own_notice_and_reaches_only_what_it_covers() -> None:
    stale = event(MONDAY + DAY, event_type="renew", notice_version=None)
    assert ask(recorded(grant(), stale)).reason_code == "stale_notice"
    assert ask(recorded(grant(notice_version=None), event(MONDAY + DAY, event_type="renew"))).is_allowed
    one_channel = event(MONDAY + DAY, event_type="renew", channel_code="email")
    assert ask(recorded(grant(), one_channel), at=MONDAY + 730 * DAY).reason_code == "expired"


@pytest.mark.parametrize(
    ("after", "reason"),
    [(None, "unconfirmed"), (-1, "unconfirmed"), (0, "granted"), (14, "granted"), (15, "unconfirmed")],
)
def test_where_two_steps_are_asked_a_grant_counts_once_confirmed_in_time(after: int | None, reason: str) -> None:
    mailed = grant(**IN_GERMANY)
    confirms = [] if after is None else [event(MONDAY + after * DAY, event_type="confirm", **MAILED)]
    assert ask(recorded(mailed, *confirms), "marketing", "email", at=MONDAY + 20 * DAY).reason_code == reason
    assert ask(recorded(event(**MAILED)), "marketing", "email").is_allowed


def test_a_confirmation_by_itself_is_no_yes_and_comes_before_no_withdrawal() -> None:
    confirm = event(MONDAY + 2 * DAY, event_type="confirm", **IN_GERMANY)
    assert ask(recorded(confirm), "marketing", "email").reason_code == "never_asked"
    no = withdraw(MONDAY + DAY, **MAILED)
    assert ask(recorded(grant(**IN_GERMANY), no, confirm), "marketing", "email").reason_code == "withdrawn"


def test_asked_for_every_channel_at_once_the_strictest_channel_counts() -> None:
    everywhere = grant(purpose_code="marketing", jurisdiction_code="DE")
    assert ask(recorded(everywhere), "marketing", "*").reason_code == "unconfirmed"
    assert ask(recorded(everywhere), "marketing", "sms").is_allowed


def test_a_grant_that_was_never_complete_hides_no_refusal() -> None:
    stale = grant(MONDAY + 2 * DAY, notice_version=None)
    found = ask(recorded(withdraw(MONDAY + DAY), stale))
    assert found == Standing(False, "withdrawn", MONDAY + DAY, None, 0)
    assert merged([("hub", ask(recorded(grant()))), ("contact", found)]).reason_code == "withdrawn"
    ended = event(MONDAY + 3 * DAY, event_type="expire")
    assert ask(recorded(withdraw(MONDAY + DAY), ended)).reason_code == "withdrawn"
    assert ask(recorded(grant(), stale)).reason_code == "stale_notice"
    assert ask(recorded(withdraw(), grant(MONDAY + DAY), ended)).reason_code == "expired"


def test_a_restriction_holds_against_every_grant_until_it_is_lifted() -> None:
    held = event(MONDAY + DAY, event_type="restrict", purpose_code="analytics", channel_code="email")
    said = recorded(grant(), held, grant(MONDAY + 2 * DAY))
    assert ask(said) == Standing(False, "restricted", MONDAY + DAY, None, 1)
    assert ask(said, "service").is_allowed
    lifted = event(MONDAY + 3 * DAY, event_type="unrestrict", purpose_code="*")
    assert ask([*said, Recorded(3, lifted)]).is_allowed
    for other in ({"purpose_code": "analytics"}, {"channel_code": "email"}, {"occurred_at": MONDAY}):
        assert ask([*said, Recorded(3, replace(lifted, **other))]).reason_code == "restricted"


def test_after_erasure_nothing_said_before_counts_and_only_a_new_grant_allows() -> None:
    gone = event(MONDAY + DAY, event_type="erased", purpose_code="analytics")
    said = recorded(grant(), event(event_type="restrict"), gone)
    assert ask(said) == Standing(False, "erased", MONDAY + DAY, None, 2)
    assert ask([*said, Recorded(3, event(MONDAY + 2 * DAY, event_type="renew"))]).reason_code == "erased"
    assert ask([*said, Recorded(3, event(MONDAY + 2 * DAY, **SHOWN))], "analytics").reason_code == "erased"
    assert ask([*said, Recorded(3, grant(MONDAY + 2 * DAY))]).is_allowed


def test_where_silence_after_a_notice_is_a_yes_the_yes_rests_on_the_notice() -> None:
    shown = event(**SHOWN)
    assert ask(recorded(shown), "analytics") == Standing(True, "not_opted_out", MONDAY, MONDAY + 730 * DAY, 0)
    assert ask(recorded(shown), "analytics", at=MONDAY + 730 * DAY) == Standing(False, "expired", MONDAY, None, 0)
    for other in ({"notice_id": "rumour"}, {"jurisdiction_code": "US-OR"}, {"channel_code": "email"}):
        assert ask(recorded(replace(shown, **other)), "analytics").reason_code == "never_asked"
    for silent in ({"notice_version": 1}, {"notice_version": None}, {"notice_id": "web_banner"}):  # they do not say so
        assert ask(recorded(replace(shown, **silent)), "analytics").reason_code == "never_asked"
    assert ask(recorded(shown), "personalization").reason_code == "never_asked"


@pytest.mark.parametrize("no", ["refuse", "withdraw", "object", "expire", "restrict", "erased"])
def test_whoever_said_no_where_silence_is_a_yes_is_not_allowed_by_the_next_notice(no: str) -> None:
    said = recorded(event(**SHOWN), event(MONDAY + DAY, event_type=no, purpose_code="analytics"))
    assert not ask(said, "analytics").is_allowed
    assert not ask([*said, Recorded(2, event(MONDAY + 2 * DAY, **SHOWN))], "analytics").is_allowed


def test_a_notice_shown_since_under_another_law_ends_the_yes_of_silence() -> None:
    moved = event(MONDAY + DAY, **{**SHOWN, "jurisdiction_code": "DE"})
    assert ask(recorded(event(**SHOWN), moved), "analytics").reason_code == "never_asked"


def test_a_legitimate_interest_needs_a_notice_and_yields_to_an_objection(tmp_path: Path) -> None:
    policy = policy_of(tmp_path)
    shown = event(**{**SHOWN, "purpose_code": "*", "jurisdiction_code": "DE", "notice_id": "banner"})
    found = ask(recorded(shown), "fraud", policy=policy, at=MONDAY + DAY)
    assert found == Standing(True, "notice_given", MONDAY, MONDAY + 5 * DAY, 0)
    objects = event(MONDAY + DAY, event_type="object", purpose_code="*")
    assert ask(recorded(shown, objects), "fraud", policy=policy).reason_code == "objected"
    assert ask([], "fraud", policy=policy).reason_code == "never_asked"
    assert (
        ask(recorded(grant(purpose_code="*", notice_id="banner")), "fraud", policy=policy).reason_code == "never_asked"
    )


def test_privacy_control_refuses_what_the_policy_lists_also_where_silence_is_a_yes(tmp_path: Path) -> None:
    shown = event(**{**SHOWN, "notice_id": "banner"})
    seen = event(MONDAY - DAY, event_type="signal_seen", capture_method="gpc")
    assert ask(recorded(shown), "analytics", at=MONDAY, policy=policy_of(tmp_path)).is_allowed
    assert ask(recorded(shown, seen), "analytics", at=MONDAY, policy=policy_of(tmp_path)).reason_code == "gpc"


# Several identities.


def linked(
    at: Any,
    one: str = ALMA,
    other: str = BORIS,
    kind: str = "identity_linked",
    link_type: str | None = "deterministic",
    **changes: Any,
) -> list[Event]:
    sides = ((one, other), (other, one))
    return [
        event(
            at,
            event_type=kind,
            subject_id=a,
            linked_subject_id=b,
            link_type=link_type,
            purpose_code="*",
            **changes,
        )
        for a, b in sides
    ]


def unlinked(at: Any, one: str = ALMA, other: str = BORIS) -> list[Event]:
    return linked(at, one, other, "identity_unlinked", None)


def test_the_unomi_merge_keeps_the_withdrawal() -> None:
    """Grant on A and B, withdrawal on A, merge: Apache Unomi drops A's entry and takes B's grant."""
    said = recorded(grant(), grant(subject_id=BORIS), withdraw(MONDAY + DAY), *linked(MONDAY + 2 * DAY))
    both = [("hub", ask(said)), ("deterministic", ask(said, subject_id=BORIS))]
    assert merged(both).reason_code == merged(both[::-1]).reason_code == "withdrawn"
    assert ask(said, subject_id=BORIS) == Standing(False, "withdrawn", MONDAY + DAY, None, 2)
    owned = linked_frame([("cus_1", ALMA, "hub"), ("cus_1", BORIS, "deterministic")])
    frame = standing_frame(frame_of(said), owned, POLICY, NOW).filter(purpose_code="personalization")
    assert frame["reason_code"].to_list() == ["withdrawn"]


def test_the_unomi_merge_by_likeness_keeps_the_withdrawal_and_takes_no_yes_along() -> None:
    """The same by a link that is only likely: the no of A is heard under B, and B's yes does not stand for an A who is silent."""
    likely = linked(MONDAY + 2 * DAY, link_type="probabilistic")
    for said, reason in (
        (recorded(grant(), grant(subject_id=BORIS), withdraw(MONDAY + DAY), *likely), "withdrawn"),
        (recorded(grant(subject_id=BORIS), *likely), "never_asked"),
    ):
        groups = [(ALMA, "hub", ask(said)), (BORIS, "probabilistic", ask(said, subject_id=BORIS))]
        assert merged_groups(groups).reason_code == merged_groups(groups[::-1]).reason_code == reason
        assert merged_groups(groups).is_by_likeness
        owned = linked_frame([("cus_1", ALMA, "hub", ALMA), ("cus_1", BORIS, "probabilistic", BORIS)])
        for links in (
            owned,
            owned.drop("group_ref"),
        ):  # what is likely is a group of its own, also where nobody says so
            frame = standing_frame(frame_of(said), links, POLICY, NOW).filter(purpose_code="personalization")
            assert frame["reason_code"].to_list() == [reason]


def test_of_several_groups_a_persons_no_decides_before_an_end_and_an_end_before_silence() -> None:
    no, end = Standing(False, "withdrawn", MONDAY, None, 1), Standing(False, "expired", MONDAY + DAY, None, 2)
    silence, unread = Standing(False, "never_asked"), Standing(False, "ledger_unreadable")
    yes, later = (Standing(True, "granted", MONDAY + n * DAY, MONDAY + (9 - n) * DAY, n) for n in (3, 4))
    hub = [(str(n), "hub", found) for n, found in enumerate((silence, end, no, unread, yes, later))]
    for count, decided in ((1, silence), (2, end), (3, no), (4, unread)):
        for order in (hub[:count], hub[:count][::-1]):
            assert merged_groups([*order, hub[4]]) == decided
    assert merged_groups(hub[4:]) == replace(later, expires_at=MONDAY + 5 * DAY)
    assert merged_groups([]) == silence
    assert merged_groups([("0", "hub", silence), ("0", "deterministic", yes)]) == yes  # proved: one group


def test_likeness_is_the_reason_only_where_some_group_alone_might() -> None:
    alone = recorded(grant(), withdraw(MONDAY + DAY), grant(subject_id=BORIS), withdraw(MONDAY + DAY, subject_id=BORIS))
    groups = [(who, "hub", ask(alone, subject_id=who)) for who in (ALMA, BORIS)]
    assert not merged_groups(groups).is_by_likeness
    assert not merged_groups(groups[:1]).is_by_likeness


def test_a_split_does_not_free_from_a_no_and_a_grant_given_since_does() -> None:
    joined_up = [grant(), grant(subject_id=BORIS), *linked(MONDAY), withdraw(MONDAY + DAY)]
    again = grant(MONDAY + 2 * DAY, subject_id=BORIS)
    parted = recorded(*joined_up, again, *unlinked(MONDAY + 3 * DAY))
    assert ask(parted, subject_id=BORIS) == Standing(False, "withdrawn", MONDAY + DAY, None, 4)
    since = Recorded(99, grant(MONDAY + 4 * DAY, subject_id=BORIS))
    assert ask([*parted, since], subject_id=BORIS).is_allowed
    assert not ask([*parted, since]).is_allowed


def test_what_is_said_after_a_split_is_nobody_elses() -> None:
    said = recorded(grant(subject_id=BORIS), *linked(MONDAY), *unlinked(MONDAY + DAY), withdraw(MONDAY + 2 * DAY))
    assert ask(said, subject_id=BORIS).is_allowed


def test_a_no_taken_back_while_joined_frees_both() -> None:
    said = recorded(grant(), grant(subject_id=BORIS), *linked(MONDAY), withdraw(MONDAY + DAY), grant(MONDAY + 2 * DAY))
    assert ask(said).is_allowed
    assert ask(said, subject_id=BORIS).is_allowed
    parted = [*said, *(Recorded(50 + n, one) for n, one in enumerate(unlinked(MONDAY + 3 * DAY)))]
    assert ask(parted, subject_id=BORIS).is_allowed


def test_joining_again_does_not_free_from_what_was_heard_before() -> None:
    said = recorded(
        grant(subject_id=BORIS), *linked(MONDAY), withdraw(MONDAY + DAY), *unlinked(MONDAY + 2 * DAY),
        grant(MONDAY + 3 * DAY), *linked(MONDAY + 4 * DAY),
    )  # fmt: skip
    assert ask(said, subject_id=BORIS).reason_code == "withdrawn"
    assert not ask(said).is_allowed  # while they are joined
    parted = [*said, *(Recorded(50 + n, one) for n, one in enumerate(unlinked(MONDAY + 5 * DAY)))]
    assert not ask(parted).is_allowed  # nor does parting again
    assert ask([*parted, Recorded(99, grant(MONDAY + 6 * DAY))]).is_allowed


def test_who_was_silenced_by_company_is_not_freed_by_leaving_it() -> None:
    said = recorded(
        grant(subject_id=BORIS), grant(subject_id=CARLA),
        *linked(MONDAY), withdraw(MONDAY + DAY), *unlinked(MONDAY + 2 * DAY),
        *linked(MONDAY + 3 * DAY, BORIS, CARLA), *unlinked(MONDAY + 4 * DAY, BORIS, CARLA),
    )  # fmt: skip
    for at in (MONDAY + 3 * DAY, NOW):
        assert ask(said, subject_id=CARLA, at=at).reason_code == "withdrawn"


def test_an_erasure_is_heard_by_everyone_who_was_ever_joined() -> None:
    said = recorded(
        grant(subject_id=BORIS), *linked(MONDAY), *unlinked(MONDAY + DAY), event(MONDAY + 2 * DAY, event_type="erased")
    )
    assert ask(said, subject_id=BORIS).reason_code == "erased"
    assert ask([*said, Recorded(99, grant(MONDAY + 3 * DAY, subject_id=BORIS))], subject_id=BORIS).is_allowed


# Alma and Carla live together and both gave Boris' number; Dora is Alma's card.
HOUSEHOLD = [
    *linked(MONDAY, ALMA, DORA),
    *linked(MONDAY, ALMA, BORIS, link_type="contact"),
    *linked(MONDAY, CARLA, BORIS, link_type="contact"),
]
AT_HOME = linked_frame(
    [("cus_alma", ALMA, "hub"), ("cus_alma", DORA, "deterministic"), ("cus_alma", BORIS, "contact"),
     ("cus_carla", CARLA, "hub"), ("cus_carla", BORIS, "contact")]
)  # fmt: skip


def answers(said: Sequence[Recorded]) -> dict[str, str]:
    """What each identity and each customer of the household is told; the frame says of customers what `merged` says."""
    found = {who: ask(said, subject_id=who) for who in SUBJECTS}
    told = {who: one.reason_code for who, one in found.items()}
    for customer, mine in AT_HOME.group_by("customer_id"):
        told[str(customer[0])] = merged((kind, found[who]) for _, who, kind in mine.iter_rows()).reason_code
    frame = standing_frame(frame_of(said), AT_HOME, POLICY, NOW).filter(purpose_code="personalization")
    assert dict(frame.select("customer_id", "reason_code").iter_rows()) == {
        name: reason for name, reason in told.items() if name.startswith("cus_")
    }
    return told


def test_a_housemates_no_reaches_the_number_they_share_and_nobody_behind_it() -> None:
    yeses = [grant(subject_id=who) for who in SUBJECTS]
    said = [*yeses, *HOUSEHOLD, withdraw(MONDAY + DAY)]
    silent = dict.fromkeys((ALMA, BORIS, DORA, "cus_alma"), "withdrawn")
    free = dict.fromkeys((CARLA, "cus_carla"), "granted")
    assert answers(recorded(*said)) == {**silent, **free}
    for leaver in (ALMA, CARLA):  # whoever moves out
        assert answers(recorded(*said, *unlinked(MONDAY + 2 * DAY, leaver, BORIS))) == {**silent, **free}


def test_a_no_said_under_a_shared_number_reaches_everybody_who_has_it() -> None:
    yeses = [grant(subject_id=who) for who in SUBJECTS]
    said = [*yeses, *HOUSEHOLD, withdraw(MONDAY + DAY, subject_id=BORIS)]
    assert set(answers(recorded(*said)).values()) == {"withdrawn"}
    parted = [*unlinked(MONDAY + 2 * DAY, ALMA, BORIS), *unlinked(MONDAY + 2 * DAY, CARLA, BORIS)]
    assert set(answers(recorded(*said, *parted)).values()) == {"withdrawn"}


def test_a_number_that_turns_out_to_be_one_persons_own_carries_that_persons_no_to_the_other() -> None:
    yeses = [grant(subject_id=who) for who in SUBJECTS]
    said = [*yeses, *HOUSEHOLD, withdraw(MONDAY + DAY, subject_id=DORA), *linked(MONDAY + 2 * DAY, ALMA, BORIS)]
    assert set(answers(recorded(*said)).values()) == {"withdrawn"}
    # And is not taken back when the proof ends, and the number is but shared again.
    no_more = linked(MONDAY + 3 * DAY, ALMA, BORIS, "identity_unlinked")
    assert set(answers(recorded(*said, *no_more)).values()) == {"withdrawn"}


def test_a_ledger_is_asked_for_everyone_the_links_lead_to() -> None:
    said = recorded(grant(), *linked(MONDAY), *linked(MONDAY, BORIS, CARLA), withdraw(MONDAY + DAY, subject_id=CARLA))

    class Shelf:
        def events_of(self, subject_id: str) -> list[Recorded]:
            if subject_id not in (ALMA, BORIS, CARLA):
                raise LookupError(subject_id)
            return [one for one in said if one.event.subject_id == subject_id]

    assert standing(Shelf(), ALMA, "personalization", "*", NOW, policy=POLICY).reason_code == "withdrawn"


# The laws, over random histories.


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return policy_of(tmp_path_factory.mktemp("policy"))


LAWS = settings(max_examples=50, deadline=None)


def everyone(found: Sequence[Recorded], policy: Policy, at: Any) -> dict[tuple[str, str, str], Standing]:
    links = joined(one.event for one in found)
    return {
        (who, purpose, channel): standing(found, who, purpose, channel, at, policy=policy, links=links)
        for who in SUBJECTS
        for purpose, channel in asked_of(policy)
    }


def as_customers(found: Sequence[Recorded], policy: Policy, at: Any) -> dict[tuple[str, str, str], Standing]:
    """Each identity's customer, as the links of the ledger make it: proved ones bring all, others their nos."""
    one_by_one = everyone(found, policy, at)
    holding = [row for row in joined(one.event for one in found) if row.holds(at)]
    sure = {(row.subject_id, row.other_subject_id) for row in holding if row.is_proved}
    near = {(row.subject_id, row.other_subject_id) for row in holding}
    answers = {}
    for who, purpose, channel in one_by_one:
        kinds = {who: "hub", **{b: "contact" for a, b in near if a == who}}
        kinds |= {b: "deterministic" for a, b in sure if a == who}
        brought = [(kind, one_by_one[one, purpose, channel]) for one, kind in kinds.items()]
        answers[who, purpose, channel] = merged(brought)
    return answers


@LAWS
@given(histories, customers, instants, st.none() | instants)
def test_the_frame_says_for_all_what_the_function_says_for_each(
    policy: Policy, history: list[Event], owned: list[tuple[str, str, str]], at: Any, known_at: Any
) -> None:
    found = recorded(*history)
    frame = standing_frame(frame_of(found), linked_frame(owned), policy, at, known_at)
    assert frame.rows() == expected_rows(found, owned, policy, at, known_at)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), instants, st.none() | instants)
def test_the_frame_agrees_with_the_function_over_a_crowd(policy: Policy, seed: int, at: Any, known_at: Any) -> None:
    found, owned = crowd(random.Random(seed), 60)
    frame = standing_frame(frame_of(found), linked_frame(owned), policy, at, known_at)
    assert frame.rows() == expected_rows(found, owned, policy, at, known_at)


@LAWS
@given(histories, instants, st.randoms(use_true_random=False))
def test_the_order_of_the_log_and_repeats_in_it_change_nothing(
    policy: Policy, history: list[Event], at: Any, chance: random.Random
) -> None:
    found = recorded(*history)
    shuffled = [*found, *found]
    chance.shuffle(shuffled)
    assert everyone(shuffled, policy, at) == everyone(found, policy, at)


@LAWS
@given(histories, instants, st.randoms(use_true_random=False))
def test_the_order_of_arrival_never_changes_what_is_allowed(
    policy: Policy, history: list[Event], at: Any, chance: random.Random
) -> None:
    shuffled = list(history)
    chance.shuffle(shuffled)
    before, after = as_customers(recorded(*history), policy, at), as_customers(recorded(*shuffled), policy, at)
    assert [one.is_allowed for one in before.values()] == [one.is_allowed for one in after.values()]


@LAWS
@given(histories, instants)
def test_replaying_everything_under_new_leaves_changes_nothing(policy: Policy, history: list[Event], at: Any) -> None:
    once, twice = everyone(recorded(*history), policy, at), everyone(recorded(*history, *history), policy, at)
    told = [(one.is_allowed, one.reason_code in REFUSALS, one.since_at, one.expires_at) for one in once.values()]
    assert told == [
        (one.is_allowed, one.reason_code in REFUSALS, one.since_at, one.expires_at) for one in twice.values()
    ]


NOS = ("refuse", "withdraw", "object", "expire", "restrict", "signal_seen")


@LAWS
@given(histories, spoken_events.filter(lambda one: one.event_type in NOS), instants)
def test_one_more_no_never_allows_anything(policy: Policy, history: list[Event], denial: Event, at: Any) -> None:
    before = as_customers(recorded(*history), policy, at)
    after = as_customers(recorded(*history, denial), policy, at)
    assert all(before[asked].is_allowed for asked, one in after.items() if one.is_allowed)


@LAWS
@given(histories, instants)
def test_a_persons_no_is_a_no_for_all_who_are_proved_to_be_them_and_for_those_with_one_contact_between(
    policy: Policy, history: list[Event], at: Any
) -> None:
    found = recorded(*history)
    links = joined(history)
    proved = [row for row in links if row.is_proved]
    for row in links:
        for purpose, channel in asked_of(policy) if row.holds(at) else ():
            asked = (purpose, channel, at)
            theirs = standing(
                found, row.other_subject_id, *asked, policy=policy, links=links if row.is_proved else proved
            )
            if theirs.reason_code in REFUSALS:
                mine = standing(found, row.subject_id, *asked, policy=policy, links=links)
                assert mine.reason_code in REFUSALS


@LAWS
@given(histories, instants)
def test_what_came_over_a_contact_is_kept_apart_from_what_did_not(
    policy: Policy, history: list[Event], at: Any
) -> None:
    """`over_contact` is the standing by proved links alone, where that is a person's no."""
    found, links = recorded(*history), joined(history)
    for who in SUBJECTS:
        for purpose, channel in asked_of(policy):
            whole, alone = (
                standing(found, who, purpose, channel, at, policy=policy, links=rows)
                for rows in (links, [row for row in links if row.is_proved])
            )
            passing = whole.over_contact or whole
            assert passing == alone if alone.reason_code in REFUSALS else passing.reason_code not in REFUSALS


@settings(max_examples=200, deadline=None)
@given(
    histories,
    st.permutations(SUBJECTS).map(lambda order: order[:2]),
    st.sampled_from(("identity_linked", "identity_unlinked", "identity_unlinked", "erased")),
    st.sampled_from(("hub", "contact", None)),
)
def test_no_link_unlink_or_erasure_made_now_turns_a_no_into_a_yes(
    policy: Policy, history: list[Event], sides: list[str], kind: str, link_type: str | None
) -> None:
    """Except that who was never asked may stand under the yes of an identity proved to be the same person."""
    at = MONDAY + 8 * DAY  # after everything said
    told = {} if kind == "erased" else {"linked_subject_id": sides[1], "link_type": link_type}
    change = event(at, event_type=kind, subject_id=sides[0], **told)
    before = as_customers(recorded(*history), policy, at)
    after = as_customers(recorded(*history, change), policy, at)
    for asked, one in after.items():
        if one.is_allowed and not before[asked].is_allowed:
            was = before[asked].reason_code
            if kind == "identity_linked":
                assert (was, link_type) == ("never_asked", "hub")
            else:
                assert was not in (*REFUSALS, "never_asked")


words = st.builds(
    lambda kind, who: event(
        event_type=kind, subject_id=who, purpose_code="analytics", notice_id="banner", notice_version=2
    ),
    st.sampled_from(("grant", "withdraw", "withdraw")),
    st.sampled_from(SUBJECTS),
)


links_made_and_broken = st.builds(
    lambda sides, kind: event(
        event_type="identity_linked" if kind else "identity_unlinked",
        subject_id=sides[0],
        linked_subject_id=sides[1],
        link_type=kind,
    ),
    st.sampled_from(list(combinations(SUBJECTS[:3], 2))),
    st.sampled_from(("hub", "contact", None, None)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(words, *[links_made_and_broken] * 3, link_changes), min_size=4, max_size=14))
def test_whatever_is_joined_parted_and_erased_in_whatever_order_only_a_grant_takes_a_no_back(
    policy: Policy, history: list[Event]
) -> None:
    ledger = [grant(MONDAY, subject_id=who, purpose_code="analytics") for who in SUBJECTS]
    refused: set[tuple[str, str, str]] = set()
    for day, change in enumerate(history, 1):
        at = MONDAY + day * DAY
        ledger.append(replace(change, occurred_at=at, recorded_at=at, received_at=at))
        answers = as_customers(recorded(*ledger), policy, at)
        freed = {asked for asked in refused if answers[asked].is_allowed}
        assert not freed or change.event_type == "grant"
        refused = {asked for asked, one in answers.items() if one.reason_code in REFUSALS}


@LAWS
@given(histories, instants)
def test_an_erasure_is_the_same_once_what_was_said_before_it_cannot_be_read(
    policy: Policy, history: list[Event], at: Any
) -> None:
    found = recorded(*history)
    erased_at = {
        who: max(
            (
                min(one.event.recorded_at, one.event.received_at)
                for one in found
                if one.event.subject_id == who
                and one.event.event_type == "erased"
                and min(one.event.occurred_at, one.event.recorded_at, one.event.received_at) <= at
            ),
            default=MONDAY - DAY,
        )
        for who in SUBJECTS
    }
    left = [
        one
        for one in found
        if one.event.event_type == "erased"
        or one.event.linked_subject_id
        or max(one.event.occurred_at, one.event.recorded_at, one.event.received_at) > erased_at[one.event.subject_id]
    ]
    assert everyone(left, policy, at) == everyone(found, policy, at)


def test_a_frame_claims_to_have_heard_no_event_that_had_not_happened_or_was_not_known_by_its_time() -> None:
    later = NOW + DAY
    said = recorded(grant(), grant(NOW, subject_id=BORIS), withdraw(later), grant(NOW, subject_id=CARLA))
    events = frame_of(said)
    links = linked_frame([("cus_alma", ALMA, "hub")])
    sizes = {at: standing_frame(events, links, POLICY, at)["ledger_size"].unique().to_list() for at in (NOW, later)}
    assert sizes == {NOW: [2], later: [4]}
    known = standing_frame(events, links, POLICY, later, known_at=NOW)["ledger_size"].unique().to_list()
    assert known == [2]
