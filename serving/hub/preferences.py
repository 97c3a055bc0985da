"""What one subject has said about every purpose and channel, and the events that a change of mind makes.

Reads and writes the ledger; knows nothing of HTTP or pages.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Protocol

from consent.events import Event, Recorded
from consent.rule.identity import company
from consent.rule.policy import EVERY, Policy
from consent.rule.standing import Standing, standing

NOTICE_ID = "preference_centre"
SAID_NO = ("refused", "withdrawn", "objected")
GPC = "gpc"
GPC_PURPOSE = "third_party_sharing"  # what the signal is about by itself; the policy says what else it reaches


class Ledger(Protocol):
    """What the hub asks of the ledger."""

    @property
    def size(self) -> int: ...
    def append(self, events: Sequence[Event]) -> list[int]: ...
    def events(self, start: int = 0, stop: int | None = None) -> Iterable[Recorded]: ...
    def events_of(self, subject_id: str) -> list[Recorded]: ...
    def checkpoint(self) -> str: ...


@dataclass(frozen=True)
class Choice:
    """How one purpose and channel stand for a subject, and the event behind it, if there is one.

    `is_own`: whether that was said under this identity, and not under one it is or was joined to.
    """

    purpose_code: str
    channel_code: str
    may_choose: bool
    standing: Standing
    decided_by: Event | None
    is_own: bool

    @property
    def is_own_no(self) -> bool:
        """Whether the person said no under this identity, so that a further no adds nothing."""
        return self.is_own and self.standing.reason_code in SAID_NO


@dataclass(frozen=True)
class Wish:
    """A yes or a no to a purpose and channel; `*` for a no to all channels, or to everything."""

    purpose_code: str
    channel_code: str
    is_allowed: bool


@dataclass(frozen=True)
class Act:
    """How a wish came about: who, when, under which text, by which method and where, and what makes it itself."""

    subject_id: str
    at: datetime
    method: str
    place: str
    origin: str
    notice: tuple[str, int, str] | None = None


def history(ledger: Ledger, subject_id: str) -> list[Recorded]:
    """Every event of a subject and of those it was ever joined to, whose no may be its own. By leaf."""
    everyone = (each for one in company(ledger, subject_id) for each in ledger.events_of(one))
    return sorted(everyone, key=lambda each: each.leaf_index)


def choices(recorded: Sequence[Recorded], policy: Policy, subject_id: str, at: datetime) -> list[Choice]:
    """Every asked purpose and channel, in the policy's order, from a subject's `history`."""
    by_leaf = {each.leaf_index: each.event for each in recorded}
    found = []
    for purpose in policy.purposes.values():
        for channel in purpose.channels:
            stands = standing(recorded, subject_id, purpose.purpose_code, channel, at, policy=policy)
            decided_by = None if stands.leaf_index is None else by_leaf.get(stands.leaf_index)
            may_choose = not purpose.rests_on_contract
            is_own = decided_by is not None and decided_by.subject_id == subject_id
            found.append(Choice(purpose.purpose_code, channel, may_choose, stands, decided_by, is_own))
    return found


def record(ledger: Ledger, policy: Policy, wishes: Sequence[Wish], act: Act) -> list[int]:
    """Append what a person wished. Gives the leaves; none when all of it stands already by their own word.

    A click sent twice makes one event: an event is named by the link, the wish and the subject's newest leaf before it.
    That leaf moves with every event, so a change of mind back and forth is never taken for a repeat.
    """
    recorded = history(ledger, act.subject_id)
    found = choices(recorded, policy, act.subject_id, act.at)
    own = [each for each in recorded if each.event.subject_id == act.subject_id]
    before = max((each.leaf_index for each in own), default=-1)
    place = jurisdiction(own)
    events: list[Event] = []
    for wish in wishes:
        for purpose_code, channel_code, touched in _meant(wish, found):
            if wish.is_allowed and all(_is_granted_under(each, act.notice) for each in touched):
                continue
            if not wish.is_allowed and all(each.is_own_no for each in touched):
                continue
            kind = "grant" if wish.is_allowed else _kind_of_no(purpose_code, touched, policy)
            for said in ("notice_shown", kind) if act.notice else (kind,):
                name = f"{act.origin}\0{said}\0{purpose_code}\0{channel_code}\0{before}"
                signal_id = f"hub:{sha256(name.encode()).hexdigest()[:32]}"
                events.append(_event(said, purpose_code, channel_code, act, place, signal_id))
    return ledger.append(events) if events else []


def see_gpc(ledger: Ledger, subject_id: str, at: datetime) -> None:
    """Record that a subject's browser sent Global Privacy Control: once a day, however often it is sent."""
    act = Act(subject_id, at, GPC, "preference_centre", "")
    place = jurisdiction(ledger.events_of(subject_id))
    ledger.append([_event("signal_seen", GPC_PURPOSE, EVERY, act, place, f"gpc:{at:%Y-%m-%d}")])


def confirm(ledger: Ledger, subject_id: str, purpose_code: str, channel_code: str, act_id: str, at: datetime) -> None:
    """Record the second event of a double opt-in. Named by its link, so that it is there once."""
    act = Act(subject_id, at, "double_opt_in", "confirm_link", act_id)
    place = jurisdiction(ledger.events_of(subject_id))
    ledger.append([_event("confirm", purpose_code, channel_code, act, place, act_id)])


def jurisdiction(recorded: Sequence[Recorded]) -> str:
    """Where the subject was when last heard; `*` where nobody knows."""
    newest = max(recorded, key=lambda each: each.leaf_index, default=None)
    return newest.event.jurisdiction_code if newest else EVERY


def _meant(wish: Wish, found: Sequence[Choice]) -> list[tuple[str, str, list[Choice]]]:
    """(purpose, channel, choices touched) of a wish. A no to everything is a no to each purpose by name."""
    purposes = {each.purpose_code: None for each in found if each.may_choose}
    if wish.purpose_code != EVERY:
        purposes = {wish.purpose_code: None}
    meant = []
    for purpose_code in purposes:
        touched = [
            each
            for each in found
            if each.purpose_code == purpose_code
            and (each.channel_code == wish.channel_code or EVERY in (wish.channel_code, each.channel_code))
        ]
        meant.append((purpose_code, wish.channel_code, touched))
    return meant


def _is_granted_under(choice: Choice, notice: tuple[str, int, str] | None) -> bool:
    event = choice.decided_by
    if not choice.standing.is_allowed or not choice.is_own or event is None or event.event_type != "grant":
        return False
    return notice is not None and (event.notice_id, event.notice_version) == notice[:2]


def _kind_of_no(purpose_code: str, touched: Sequence[Choice], policy: Policy) -> str:
    """A no to what was agreed takes it back; to what never rested on an agreement it objects; else it refuses."""
    purpose = policy.purposes.get(purpose_code)
    if purpose and not purpose.rests_on_consent:
        return "object"
    return "withdraw" if any(each.standing.is_allowed for each in touched) else "refuse"


def _event(kind: str, purpose_code: str, channel_code: str, act: Act, place: str, signal_id: str) -> Event:
    notice_id, version, language = act.notice or (None, None, None)
    return Event(
        subject_id=act.subject_id,
        event_type=kind,
        purpose_code=purpose_code,
        channel_code=channel_code,
        occurred_at=act.at,
        recorded_at=act.at,
        received_at=act.at,
        notice_id=notice_id,
        notice_version=version,
        language_code=language,
        capture_method=act.method,
        capture_place=act.place,
        actor_type="subject",
        jurisdiction_code=place,
        signal_id=signal_id,
    )
