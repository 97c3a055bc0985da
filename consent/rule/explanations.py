"""Every answer of standing in plain words, for the shopper it is about and for the marketer who asked. Names nobody.

Which answer it is, is decided in `standing.py`; only its wording is here.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from consent.errors import ConsentError
from consent.rule.policy import EVERY, Policy
from consent.rule.standing import Standing

Audience = Literal["shopper", "marketer"]


@dataclass(frozen=True, slots=True)
class Words:
    """What holds and by what, and what changes it, for one audience. `{purpose}`, `{since}` and `{until}` are filled in."""

    holds: str
    changes: str


EXPLANATIONS: dict[str, dict[Audience, Words]] = {
    "granted": {
        "shopper": Words("You said yes on {since}", "You can take it back at any time on your preferences page"),
        "marketer": Words(
            "Allowed: the person agreed on {since}", "A withdrawal or a newer notice that must be shown ends it"
        ),
    },
    "contract": {
        "shopper": Words(
            "We need this to do what you ordered: payment, delivery, refunds and answers",
            "It ends with what you ordered; if you think we use too much, write to our privacy team",
        ),
        "marketer": Words(
            "Allowed: needed to fulfil an order, whatever the person said about other uses",
            "Nothing the person chooses changes it; it covers the order and nothing else",
        ),
    },
    "not_opted_out": {
        "shopper": Words(
            "We told you about this on {since} and you have not said no",
            "You can say no at any time on your preferences page",
        ),
        "marketer": Words(
            "Allowed: a notice was shown on {since} where the law lets people opt out, and the person has not",
            "An opt-out, an objection or a browser's privacy signal ends it",
        ),
    },
    "notice_given": {
        "shopper": Words(
            "We told you about this on {since}; we have a good reason to do it and you have not objected",
            "You can object at any time on your preferences page",
        ),
        "marketer": Words(
            "Allowed: legitimate interest, with a notice shown on {since} and no objection",
            "An objection ends it",
        ),
    },
    "never_asked": {
        "shopper": Words(
            "You have not been asked about this, so we do not do it", "You can say yes on your preferences page"
        ),
        "marketer": Words(
            "Refused: the person was never asked, and silence is a no", "Only asking, and a yes, changes it"
        ),
    },
    "refused": {
        "shopper": Words("You said no on {since}", "Only you can change this, on your preferences page"),
        "marketer": Words(
            "Refused: the person said no when asked, on {since}", "Only a later yes of the person changes it"
        ),
    },
    "withdrawn": {
        "shopper": Words("You took your yes back on {since}", "Only you can change this, on your preferences page"),
        "marketer": Words(
            "Refused: the person withdrew on {since}, here or under another of their identities",
            "Only a later yes of the person changes it, under each identity that was parted since",
        ),
    },
    "objected": {
        "shopper": Words("You objected on {since}", "Only you can change this, on your preferences page"),
        "marketer": Words("Refused: the person objected on {since}", "Only a later yes of the person changes it"),
    },
    "gpc": {
        "shopper": Words(
            "Your browser asked us on {since} not to do this, by its privacy signal",
            "You can still say yes on your preferences page",
        ),
        "marketer": Words(
            "Refused: the person's browser sent a Global Privacy Control signal on {since}",
            "Only a later yes of the person changes it",
        ),
    },
    "restricted": {
        "shopper": Words(
            "You asked us on {since} to leave your data untouched while your request is looked at",
            "It ends when the request is answered and the hold is lifted",
        ),
        "marketer": Words(
            "Refused: processing is restricted since {since} (GDPR article 18), whatever was agreed",
            "Only lifting the restriction changes it",
        ),
    },
    "erased": {
        "shopper": Words(
            "Your data was deleted on {since}, and your choices with it", "If you come back, we ask you again"
        ),
        "marketer": Words(
            "Refused: the person's data was erased on {since}", "Only a new yes after the erasure changes it"
        ),
    },
    "expired": {
        "shopper": Words("What you agreed to on {since} has run out", "You can say yes again on your preferences page"),
        "marketer": Words(
            "Refused: the yes of {since} has ended, by its time or by the system",
            "Only asking again, and a new yes, changes it",
        ),
    },
    "stale_notice": {
        "shopper": Words(
            "You said yes on {since} to a text that has changed since", "We need to show you the new text and ask again"
        ),
        "marketer": Words(
            "Refused: the yes of {since} was given under a notice that no longer counts, or under none",
            "Only a yes under the current notice changes it",
        ),
    },
    "unconfirmed": {
        "shopper": Words(
            "You signed up on {since} and the sign-up was not confirmed in time",
            "Sign up again and press the link in the message we send",
        ),
        "marketer": Words(
            "Refused: the yes of {since} needs a second step that did not come in time",
            "Only a confirmed sign-up changes it",
        ),
    },
    "unknown_purpose": {
        "shopper": Words("We have no such use of your data", "Nothing needs to change"),
        "marketer": Words(
            "Refused: the policy does not know this purpose", "Use a purpose of the policy, or add it there"
        ),
    },
    "unknown_channel": {
        "shopper": Words("We do not reach people in this way", "Nothing needs to change"),
        "marketer": Words(
            "Refused: the policy does not ask about this channel", "Use a channel of the policy, or add it there"
        ),
    },
    "ledger_unreadable": {
        "shopper": Words("We cannot look up your choices right now, so we do nothing", "Try again in a little while"),
        "marketer": Words(
            "Refused: the record of consents could not be read", "It changes when the ledger can be read again"
        ),
    },
}

# Where a customer's identities are in part joined by likeness, and the answer is not that of each group of them.
SILENT_BY_LIKENESS: dict[Audience, Words] = {
    "shopper": Words(
        "You have not been asked about this under every account, card or address that we think is yours, and we are not sure "
        "enough that they are all yours to take a yes under one for a yes under another",
        "You can say yes under each of them on your preferences page",
    ),
    "marketer": Words(
        "Refused: the customer's identities are in part joined by likeness, some of them were never asked, and a yes under "
        "the others is not one for them",
        "A yes under those as well, or proof that they are all one person's, changes it",
    ),
}
DENIED_BY_LIKENESS: dict[Audience, str] = {
    "shopper": "That was under an account, card or address which we think is yours as well: not sure enough to take a yes there "
    "for a yes here, but we keep to the no.",
    "marketer": "That was under identities which are joined to the others by likeness: no proof that a yes could rest on, but "
    "enough for the no.",
}


def explain(found: Standing, audience: Audience, policy: Policy, purpose_code: str, channel_code: str = EVERY) -> str:
    """What holds, since when, by what, until when, and what changes it: a few sentences without a name or a code.

    Raises: ConsentError for a reason that has no words.
    """
    return f"{_subject(policy, purpose_code, channel_code)} {because(found, audience)}"


def because(found: Standing, audience: Audience) -> str:
    """The same without saying what was asked, where that stands beside it. Raises: ConsentError for a reason that has no words."""
    try:
        is_silent = found.is_by_likeness and found.reason_code == "never_asked"
        words = (SILENT_BY_LIKENESS if is_silent else EXPLANATIONS[found.reason_code])[audience]
        likely = f" {DENIED_BY_LIKENESS[audience]}" if found.is_by_likeness and not is_silent else ""
    except KeyError as fault:
        raise ConsentError(
            f"explanation: expected a reason of standing and shopper or marketer, found {fault.args[0]}. Add its words."
        ) from fault
    holds = words.holds.format(since=_day(found.since_at))
    ends = f" It ends by itself on {_day(found.expires_at)}." if found.is_allowed and found.expires_at else ""
    return f"{holds}.{ends}{likely} {words.changes}."


def _subject(policy: Policy, purpose_code: str, channel_code: str) -> str:
    """What was asked, in the policy's own words."""
    purpose = policy.purposes.get(purpose_code)
    if purpose is None:
        return "A use we do not have."
    channel = policy.channels.get(channel_code, "")
    return f"{purpose.description} {channel}".strip() if EVERY not in purpose.channels else purpose.description


def _day(at: datetime | None) -> str:
    return "an unknown day" if at is None else f"{at.day} {at:%B %Y}"
