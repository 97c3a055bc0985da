"""Consent events that systems report: read, checked against grammar, policy and notices, turned into events.

All or nothing: one bad event refuses the batch, with the position and field of every bad one. Contact data in the clear
comes in through `identifier` alone, becomes a token here and is not kept.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from consent.errors import ConsentError
from consent.events import ACTOR_TYPES, Event, encode
from consent.notices import Notices
from consent.rule.policy import EVERY, Policy
from serving.hub.links import SUBJECT
from serving.problems import FieldProblem, ProblemError
from serving.requests import decoded
from troth.ids import normalised

MOST_EVENTS = 1_000
MOST_PROBLEMS = 100
# What a system may report. Links between identities and erasures are written by the parts of the platform that do them.
REPORTED = (
    *("grant", "renew", "confirm", "refuse", "withdraw", "object", "restrict", "unrestrict", "expire"),
    *("notice_shown", "signal_seen"),
)
UNDER_A_NOTICE = ("grant", "renew", "notice_shown")  # these say nothing without the text they were said under
YES = ("grant", "renew", "confirm")
# Spelling of each identifier after normalisation (troth.ids).
_IDENTIFIERS = {
    "email": r"[^\s@]{1,64}@[^\s@]{1,189}",
    "phone": r"[0-9]{6,15}",
    "card": r"[0-9]{4,30}",
    "account": r"\S{1,200}",
    "device": r"\S{1,200}",
}
_PLACE = re.compile(r"[A-Z]{2}(?:-[A-Z0-9]{1,3})?")  # ISO 3166-1 alpha-2, or 3166-2
_TELLING = 6  # an identifier of fewer characters occurs in codes by chance
_FIRST_YEAR, _LAST_YEAR = 1970, 9998

Code = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:/*=-]{1,100}$")]
Asked = Annotated[str, msgspec.Meta(pattern=r"^(\*|[a-z_]{1,40})$")]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]
Token = Callable[[str, str | None], str | None]


class Identifier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the person is known by, in the clear: the one place for it."""

    type: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(_IDENTIFIERS)})$")]
    value: Annotated[str, msgspec.Meta(min_length=1, max_length=254)]


class Said(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing a person said, as the capturing system knows it. Either `identifier` or `subject_id` says who."""

    signal_id: Code
    event_type: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(REPORTED)})$")]
    purpose_code: Asked
    channel_code: Asked
    occurred_at: Instant
    capture_method: Code
    capture_place: Code
    actor_type: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(ACTOR_TYPES)})$")]
    jurisdiction_code: Annotated[str, msgspec.Meta(pattern=f"^{_PLACE.pattern}$")]
    identifier: Identifier | None = None
    subject_id: Annotated[str, msgspec.Meta(pattern=f"^{SUBJECT}$")] | None = None
    recorded_at: Instant | None = None
    notice_id: Code | None = None
    notice_version: Annotated[int, msgspec.Meta(ge=1, le=999_999_999)] | None = None
    language_code: Annotated[str, msgspec.Meta(pattern=r"^[a-z]{2,3}(-[A-Z]{2})?$")] | None = None
    actor_id: Code | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events to record together: all of them or none."""

    events: Annotated[list[Said], msgspec.Meta(min_length=1, max_length=MOST_EVENTS)]


class _Unread(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A batch whose events are read one by one, so that each bad one is named."""

    events: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=MOST_EVENTS)]


class Captured(msgspec.Struct, frozen=True, kw_only=True):
    """Where each event is in the ledger, in the order sent (a repeat keeps its first leaf), and a checkpoint over all."""

    leaf_indexes: list[int]
    ledger_size: int
    checkpoint: str
    received_at: datetime


@dataclass(frozen=True)
class Rules:
    """What events are checked against, and what makes tokens."""

    policy: Policy
    notices: Notices
    token: Token


def read_batch(data: bytes, rules: Rules, received_at: datetime) -> list[Event]:
    """The events of a request body. Raises: ProblemError 400 or 422; the latter names every bad event."""
    unread = decoded(data, _Unread)
    events: list[Event] = []
    problems: list[FieldProblem] = []
    for position, raw in enumerate(unread.events):
        found = _read(raw, rules, received_at)
        if isinstance(found, Event):
            events.append(found)
        else:
            problems += [FieldProblem(position=position, field=name, detail=detail) for name, detail in found]
    if problems:
        bad = len({problem.position for problem in problems})
        raise ProblemError(
            422,
            "events_refused",
            f"events: expected {len(unread.events)} as described, found {bad} otherwise. "
            "None was recorded: correct them and send the batch again.",
            problems[:MOST_PROBLEMS],
        )
    return events


def subject_of(
    identifier: Identifier | None, subject_id: str | None, token: Token
) -> tuple[str | None, Iterator[tuple[str, str]]]:
    """The subject's token, and what is wrong with how it was told."""
    problems = list(_identity_problems(identifier, subject_id))
    made = token(identifier.type, identifier.value) if identifier and not problems else subject_id
    return made, iter(problems)


def _read(raw: msgspec.Raw, rules: Rules, received_at: datetime) -> Event | Sequence[tuple[str, str]]:
    """The event, or what is wrong with it as (field, detail)."""
    try:
        said = decoded(raw, Said)
    except ProblemError as problem:
        detail = problem.details.detail
        field = re.search(r"`\$\.(\w+)|field `(\w+)`", detail)
        return [((field[1] or field[2]) if field else "event", detail.replace("body:", "event:", 1))]
    subject_id, identity = subject_of(said.identifier, said.subject_id, rules.token)
    problems = [
        *identity,
        *_clock_problems(said),
        *_policy_problems(said, rules.policy),
        *_notice_problems(said, rules),
    ]
    problems += _leaks(said)
    if problems or subject_id is None:
        return problems
    event = Event(
        subject_id=subject_id,
        event_type=said.event_type,
        purpose_code=said.purpose_code,
        channel_code=said.channel_code,
        occurred_at=said.occurred_at.astimezone(UTC),
        recorded_at=(said.recorded_at or received_at).astimezone(UTC),
        received_at=received_at,
        notice_id=said.notice_id,
        notice_version=said.notice_version,
        language_code=said.language_code,
        capture_method=said.capture_method,
        capture_place=said.capture_place,
        actor_type=said.actor_type,
        jurisdiction_code=said.jurisdiction_code,
        signal_id=said.signal_id,
        actor_id=said.actor_id,
    )
    try:
        encode(event)
    except ConsentError as error:
        return [("event", str(error))]
    return event


def _identity_problems(identifier: Identifier | None, subject_id: str | None) -> Iterator[tuple[str, str]]:
    if (identifier is None) == (subject_id is None):
        yield "identifier", "expected either identifier or subject_id, found both or none. Send one of them."
    elif identifier and not re.fullmatch(_IDENTIFIERS[identifier.type], normalised(identifier.type, identifier.value)):
        yield "identifier", f"expected the spelling of an {identifier.type}, found another. Correct it."


def _clock_problems(said: Said) -> Iterator[tuple[str, str]]:
    for name, at in (("occurred_at", said.occurred_at), ("recorded_at", said.recorded_at)):
        if at is not None and not _FIRST_YEAR <= at.year <= _LAST_YEAR:
            yield name, f"expected a year from {_FIRST_YEAR} to {_LAST_YEAR}, found another. Correct the clock."


def _policy_problems(said: Said, policy: Policy) -> Iterator[tuple[str, str]]:
    purpose = policy.purposes.get(said.purpose_code)
    if purpose is None and said.purpose_code != EVERY:
        yield "purpose_code", f"expected * or one of {', '.join(policy.purposes)}, found another. Correct it."
    if said.channel_code not in (EVERY, *policy.channels):
        yield "channel_code", f"expected * or one of {', '.join(policy.channels)}, found another. Correct it."
    elif purpose and said.event_type in YES and said.channel_code not in (EVERY, *purpose.channels):
        # A yes must cover all that is asked: this one would never count.
        yield (
            "channel_code",
            f"expected * or one of {', '.join(purpose.channels)} for this purpose, found another. Correct it.",
        )


def _notice_problems(said: Said, rules: Rules) -> Iterator[tuple[str, str]]:
    told = (said.notice_id, said.notice_version, said.language_code)
    if said.notice_id is None or said.notice_version is None or said.language_code is None:
        if any(told) or said.event_type in UNDER_A_NOTICE:
            missing = ("notice_id", "notice_version", "language_code")[told.index(None)]
            yield (
                missing,
                f"expected notice_id, notice_version and language_code for a {said.event_type}, found none. Add them.",
            )
    elif said.notice_id not in rules.policy.notices:
        yield "notice_id", f"expected one of {', '.join(rules.policy.notices)}, found another. Correct it."
    elif not rules.notices.has(said.notice_id, said.notice_version):
        yield "notice_version", "expected a version of /v1/notices, found another. Correct it."
    elif rules.notices.find(said.notice_id, said.notice_version, said.language_code) is None:
        yield "language_code", "expected a language of /v1/notices for this version, found another. Correct it."


def _leaks(said: Said) -> Iterator[tuple[str, str]]:
    """Fields of codes that carry the identifier itself."""
    if said.identifier is None:
        return
    value = normalised(said.identifier.type, said.identifier.value)
    if len(value) < _TELLING:
        return
    for name in ("signal_id", "actor_id", "capture_method", "capture_place", "notice_id"):
        told = getattr(said, name)
        if (told and value.lower() in (told.lower(), re.sub(r"\D", "", told))) or (
            told and value.lower() in told.lower()
        ):
            yield name, "expected a code, found the identifier in it. Use a code that says nothing about the person."
