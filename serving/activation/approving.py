"""Who asks for a delivery and who lets it out: two people where the destination wants two, and what exactly they agreed on."""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from unicodedata import normalize

import msgspec

from models.purpose_flow.kept import refuse_uncovered
from models.segments.definition import Segment, parse, written
from models.segments.described import load, loader
from models.segments.export import ExportReport, export
from serving.activation.deliveries import Book, Delivery, new_id
from serving.activation.destinations import SHARING, Destination, check_fits, destination_of
from serving.activation.dispatch import Dispatch
from serving.activation.errors import ActivationError
from serving.records.uses import sent
from troth.errors import TrothError

COUNTED_FOR = timedelta(hours=12)  # what was begun and not asked for is over
ASKED_FOR = timedelta(days=7)  # a question that nobody answers is over
APPROVED_FOR = timedelta(days=3)  # what was let out has to go
MOST_REASON = 300


def ask(
    dispatch: Dispatch,
    segment_name: str,
    destination_name: str,
    channel: str | None = None,
    *,
    by: str,
    why: str,
    dry_run: bool = False,
) -> Delivery:
    """Decide everything, write no file, and keep the question: `asked` where a second person has to answer, `approved` else.

    `empty` where nobody may be contacted. Raises: ActivationError for a destination that may not receive it; ModelsError.
    """
    found = _question(dispatch, segment_name, destination_name, channel, by, _said("why", why))
    counts = _counts(counted(dispatch, found))
    found = msgspec.structs.replace(found, **counts, **_put(found, dispatch.wall.now()))
    if not counts["expected"]:
        found = msgspec.structs.replace(found, state="empty")
    if not dry_run:
        with Book(dispatch.home) as book:
            book.add(found)
    return found


def begin(
    dispatch: Dispatch, segment_name: str, destination_name: str, channel: str | None = None, *, by: str
) -> Delivery:
    """Keep a question that nobody waits for: `count` decides everything, then `put` asks it. Raises as `ask`."""
    found = _question(dispatch, segment_name, destination_name, channel, by, "")
    with Book(dispatch.home) as book:
        book.add(found, "begun")
    return found


def count(dispatch: Dispatch, delivery_id: str) -> Delivery:
    """Decide everything about a delivery that is to be counted; any other is left as it is. A fault ends it, and is in the book."""
    with Book(dispatch.home) as book:
        found = book.delivery(delivery_id)
        if found.state != "counting":
            return found
        try:
            counts = _counts(counted(dispatch, found))
        except TrothError as fault:
            return book.change(found, dispatch.wall.now(), "failed", "troth", str(fault), state="failed", last_fault=str(fault))  # fmt: skip
        state, said = "counted" if counts["expected"] else "empty", f"{counts['expected']} of {counts['matched']}"
        return book.change(found, dispatch.wall.now(), "counted", "troth", said, state=state, **counts)


def put(dispatch: Dispatch, delivery_id: str, *, by: str, why: str) -> Delivery:
    """Ask for what was counted, by whoever began it: `asked` or `approved`. Raises: ActivationError where it may not be, and says why."""
    by, why = _said("who asks", by), _said("why", why)
    with Book(dispatch.home) as book:
        found = book.delivery(delivery_id)
        _expect(found, "counted")
        if not is_same_person(by, found.asked_by):
            raise ActivationError(
                f"delivery {delivery_id}: expected whoever began it to ask for it, found {by}. Begin one of your own."
            )
        found, now = still_valid(dispatch, book, found), dispatch.wall.now()
        return book.change(found, now, "asked", by, why, why=why, **_put(found, now))


def _question(
    dispatch: Dispatch, segment_name: str, destination_name: str, channel: str | None, by: str, why: str
) -> Delivery:
    """A delivery that is not counted yet, to a destination that may receive it."""
    by = _said("who asks", by)
    destination = destination_of(dispatch.home, destination_name)
    segment = load(dispatch.home, segment_name)
    channel = _channel(segment, destination, channel)
    check_fits(destination, segment.purpose, channel)
    refuse_uncovered(dispatch.home, sent([destination]))
    now = dispatch.wall.now()
    return Delivery(
        delivery_id=new_id(), state="counting", segment_name=segment.name, segment_version=segment.version,
        definition=written(segment), definition_hash=segment.hash, purpose_code=segment.purpose, channel_code=channel,
        to=destination, asked_by=by, asked_at=now, why=why, expires_at=now + COUNTED_FOR,
        matched=0, expected=0, refused={}, ledger_size=0,
    )  # fmt: skip


def _put(found: Delivery, now: datetime) -> dict[str, Any]:
    """What becomes of a delivery that is asked for now."""
    is_for_two = found.to.needs_approval
    return {"state": "asked" if is_for_two else "approved", "expires_at": now + (ASKED_FOR if is_for_two else APPROVED_FOR)}  # fmt: skip


def approve(dispatch: Dispatch, delivery_id: str, *, by: str, why: str) -> Delivery:
    """Let a delivery out that somebody else asked for. Raises: ActivationError where it may not be, and says why."""
    by, why = _said("who approves", by), _said("why", why)
    with Book(dispatch.home) as book:
        found, now = book.delivery(delivery_id), dispatch.wall.now()
        _expect(found, "asked")
        if is_same_person(by, found.asked_by):
            raise ActivationError(
                f"delivery {delivery_id}, approval: expected another person than asked for it, found {by}. Ask a colleague."
            )
        found = still_valid(dispatch, book, found)
        return book.change(
            found, now, "approved", by, why,
            state="approved", decided_by=by, decided_at=now, decided_why=why, expires_at=now + APPROVED_FOR,
        )  # fmt: skip


def refuse(dispatch: Dispatch, delivery_id: str, *, by: str, why: str) -> Delivery:
    """Say no to a delivery that was not begun; whoever asked for it may take it back so."""
    by, why = _said("who refuses", by), _said("why", why)
    with Book(dispatch.home) as book:
        found, now = book.delivery(delivery_id), dispatch.wall.now()
        _expect(found, "asked", "approved")
        return book.change(
            found, now, "refused", by, why, state="refused", decided_by=by, decided_at=now, decided_why=why
        )


def still_valid(dispatch: Dispatch, book: Book, found: Delivery) -> Delivery:
    """The delivery, if it is neither too old nor about something that has changed since; else it ends, and ActivationError is raised."""
    now = dispatch.wall.now()
    if now > found.expires_at:
        book.change(
            found, now, "expired", "troth", f"valid until {found.expires_at:%Y-%m-%d %H:%M} UTC", state="expired"
        )
        raise ActivationError(
            f"delivery {found.delivery_id}: expected one that is still valid, found one that was until "
            f"{found.expires_at:%Y-%m-%d %H:%M} UTC. Ask for it again."
        )
    if changed := _changed(dispatch, found):
        book.change(found, now, "void", "troth", f"{changed} changed since it was asked for", state="void")
        raise ActivationError(
            f"delivery {found.delivery_id}: expected the {changed} that was asked for, found it changed or gone. Ask for it again."
        )
    return found


def counted(dispatch: Dispatch, found: Delivery) -> ExportReport:
    """What would go out now, and why the others would not; writes nothing."""
    return export(
        dispatch.home,
        parse(found.definition),
        dispatch.home.root / "activation" / "staged" / new_id(),
        dispatch.clock.now(),
        dry_run=True,
        channel=found.channel_code,
        rules=dispatch.rules,
        loaded=loader(dispatch.home),
        also=SHARING if found.is_third_party else None,
    )


def _counts(report: ExportReport) -> dict[str, Any]:
    return {
        "matched": report.matched,
        "expected": report.exported,
        "refused": dict(report.refused),
        "ledger_size": report.ledger_size,
    }


def _changed(dispatch: Dispatch, found: Delivery) -> str | None:
    """What is not as it was asked for: definition or destination."""
    with suppress(TrothError):
        if load(dispatch.home, found.segment_name).hash == found.definition_hash:
            with suppress(TrothError):
                if destination_of(dispatch.home, found.destination).hash == found.to.hash:
                    return None
            return "destination"
    return "definition"


def _channel(segment: Segment, destination: Destination, channel: str | None) -> str:
    """The channel asked for, or the only one that segment and destination share."""
    both = [each for each in segment.channels if each in destination.channels]
    if channel is None and len(both) == 1:
        return both[0]
    if channel is None:
        raise ActivationError(
            f"segment {segment.name} for {destination.name}, channel: expected one of {', '.join(both) or 'none'}, found none. "
            "Choose one: a delivery is for one channel."
        )
    return channel


def _expect(found: Delivery, *states: str) -> None:
    if found.state not in states:
        raise ActivationError(
            f"delivery {found.delivery_id}: expected one that is {' or '.join(states)}, found {found.state}. "
            "See it with `troth activate show`."
        )


def _said(what: str, text: str) -> str:
    said = " ".join(text.split())
    if not said or len(said) > MOST_REASON:
        raise ActivationError(f"{what}: expected 1 to {MOST_REASON} characters, found {len(said)}. Say it.")
    return said


def is_same_person(one: str, other: str) -> bool:
    return normalize("NFKC", one).casefold().strip() == normalize("NFKC", other).casefold().strip()
