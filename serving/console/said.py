"""What one customer said and what follows from it, in words for whoever serves them: standing by purpose and channel, and the events behind it.

Asked of the ledger itself, by the rule of `consent`, over the identities that published tables give the customer. Decides nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from consent.events import Event, Recorded
from consent.rule.explanations import because
from consent.rule.identity import PROVED, Readable
from consent.rule.policy import EVERY, Policy
from consent.rule.standing import Standing, merged_groups, standing
from serving.hub import pages as hub_pages

MOST_EVENTS = 60
_SAID = {
    "grant": "Said yes: {what}",
    "renew": "Said yes again: {what}",
    "confirm": "Confirmed the yes: {what}",
    "refuse": "Said no: {what}",
    "withdraw": "Took the yes back: {what}",
    "object": "Objected: {what}",
    "restrict": "Asked us to leave the data untouched while a request is looked at",
    "unrestrict": "The data may be used again as was said before",
    "expire": "The yes ended by itself: {what}",
    "notice_shown": "Was told about: {what}",
    "signal_seen": "The browser asked not to have data sold or shared",
    "erased": "The data was erased",
}
_UNREAD = {
    "projection_missing": "what this person allows is not known here yet",
    "projection_stale": "what is known of what this person allows is too old",
    "projection_behind": "newer words of this person could not be read",
    "projection_ahead": "the record of consents is older than what was read of it",
    "ledger_unreadable": "the record of consents could not be read",
}


class Identity(NamedTuple):
    """An identifier of a customer, and how it came to be theirs. `group_ref`: the hub of those proved to be one person."""

    identity_type: str
    identity_ref: str
    link_type: str
    group_ref: str | None
    source_name: str
    linked_at: datetime | None


@dataclass(frozen=True)
class May:
    """Whether something may be done. `why` is for staff, `tell` may be read out to the person."""

    purpose_code: str
    channel_code: str
    title: str
    is_allowed: bool
    reason_code: str
    why: str
    tell: str
    until: datetime | None


class Said(NamedTuple):
    """An event in words: when, what, where it was said. `who` says who entered it, where that was not the person."""

    at: datetime
    text: str
    place: str
    who: str


@dataclass(frozen=True)
class Once:
    """A ledger whose subjects are read once."""

    ledger: Readable
    known: dict[str, Sequence[Recorded]] = field(default_factory=dict)

    def events_of(self, subject_id: str) -> Sequence[Recorded]:
        if subject_id not in self.known:
            self.known[subject_id] = self.ledger.events_of(subject_id)
        return self.known[subject_id]


def standings(
    events: Readable, identities: Sequence[Identity], policy: Policy, at: datetime
) -> Mapping[tuple[str, str], Standing]:
    """Standing of a customer for every purpose and channel the policy asks, in its order. Who has no identity was never asked."""
    return {
        (code, channel): merged_groups(
            (each.group_ref, each.link_type, standing(events, each.identity_ref, code, channel, at, policy=policy))
            for each in identities
        )
        if not purpose.rests_on_contract
        else Standing(True, "contract")
        for code, purpose in policy.purposes.items()
        for channel in purpose.channels
    }


def may(found: Mapping[tuple[str, str], Standing], policy: Policy) -> list[May]:
    """Standing in words, in the same order."""
    return [
        May(
            purpose_code=code,
            channel_code=channel,
            title=_use(policy, code, channel),
            is_allowed=each.is_allowed,
            reason_code=each.reason_code,
            why=because(each, "marketer"),
            tell=because(each, "shopper"),
            until=each.expires_at,
        )
        for (code, channel), each in found.items()
    ]


def history(events: Readable, identities: Sequence[Identity], policy: Policy) -> list[Said]:
    """What was said under identities proved to be the customer's, newest first: nothing of contacts, nor of who only looks alike."""
    own = {each.identity_ref for each in identities if each.link_type in PROVED}
    recorded = [each.event for ref in sorted(own) for each in events.events_of(ref)]
    told = {(_happened(event), text, _place(event), _who(event)) for event in recorded if (text := said(event, policy))}
    return [Said(*each) for each in sorted(told, reverse=True)]


def said(event: Event, policy: Policy) -> str | None:
    """What an event says, in words; None for one that only says who is whom."""
    return in_words(event.event_type, event.purpose_code, event.channel_code, policy)


def in_words(event_type: str, purpose_code: str, channel_code: str, policy: Policy) -> str | None:
    """What an event of a type says about a purpose and a channel; None for one that only says who is whom."""
    words = _SAID.get(event_type)
    if words is None:
        return None
    return f"{words.format(what=what(policy, purpose_code, channel_code))}."


def what(policy: Policy, purpose_code: str, channel_code: str) -> str:
    """A purpose, and its channel where it is asked by channel, as the preference centre calls them."""
    words = hub_pages.languages()[hub_pages.DEFAULT_LANGUAGE]
    if purpose_code == EVERY:
        return "everything"
    if channel_code == EVERY:
        return str(hub_pages.purpose_words(words, policy, purpose_code)["title"])
    return hub_pages.name(words, policy, purpose_code, channel_code)


def reason(reason_code: str) -> str:
    """A reason of the gate, where the rule has no more to say of it."""
    return f"Refused: {_UNREAD.get(reason_code, reason_code.replace('_', ' '))}."


def _use(policy: Policy, purpose_code: str, channel_code: str) -> str:
    """A use as the policy describes it, and how."""
    described = policy.purposes[purpose_code].description.rstrip(".")
    return described if channel_code == EVERY else f"{described}: {policy.channels[channel_code].rstrip('.')}"


def _happened(event: Event) -> datetime:
    return min(event.occurred_at, event.recorded_at, event.received_at)


def _place(event: Event) -> str:
    place = event.capture_place.replace("_", " ")
    notice = f", notice {event.notice_id.replace('_', ' ')}, version {event.notice_version}" if event.notice_id else ""
    return f"{place}{notice}"


def _who(event: Event) -> str:
    return {"associate": "entered by an associate", "system": "by a system"}.get(event.actor_type, "")
