"""What is done again and again: what is approved goes out, what stopped goes on, what ended is called back, what is over is forgotten."""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from serving.activation import approving, members, recalling, sending
from serving.activation.deliveries import Book, Delivery
from serving.activation.destinations import Schedule, read_schedules
from serving.activation.dispatch import Dispatch
from serving.activation.errors import ActivationError
from troth.errors import TrothError

STOPPED_AFTER = timedelta(minutes=10)  # whoever counts no longer than that is at it still


@dataclass
class Round:
    """What a round did. `faults` names deliveries that could not go on, each with the reason; they are tried again."""

    sent: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    recalled_people: int = 0
    told: int = 0
    acknowledged: int = 0
    overdue: int = 0
    faults: dict[str, str] = field(default_factory=dict)


def go_round(dispatch: Dispatch, *, again: bool = False) -> Round:
    """One round. A delivery that fails holds up no other. `again`: recalls that were given up are tried again.

    Raises: LedgerError where the ledger cannot be read: then nobody can say who is still to be called back.
    """
    done, now = Round(), dispatch.wall.now()
    with Book(dispatch.home) as book:
        for each in book.deliveries(("counting", "counted", "asked", "approved")):
            if now > each.expires_at:
                book.change(each, now, "expired", "troth", "nobody asked for it, or answered, in time", state="expired")
                done.expired.append(each.delivery_id)
        due = [
            each.delivery_id
            for each in book.deliveries(("approved", "sending", "committing"))
            if each.next_attempt_at is None or each.next_attempt_at <= now
        ]
        stopped = [each.delivery_id for each in book.deliveries(("counting",)) if now - each.asked_at > STOPPED_AFTER]
        for each in book.deliveries():
            if (
                each.delete_by is not None
                and now > each.delete_by
                and members.path_of(dispatch.home, each.delivery_id).exists()
            ):
                members.forget_members(dispatch.home, each.delivery_id)
                done.forgotten.append(each.delivery_id)
    for delivery_id in stopped:
        with suppress(ActivationError):  # somebody was at it after all
            approving.count(dispatch, delivery_id)
    for delivery_id in due:
        _go_on(dispatch, done, delivery_id)
    with Book(dispatch.home) as book, sending.turn(dispatch.home, "recalls"):
        done.recalled_people = sum(each.count for each in recalling.find(dispatch, book))
        for recall in recalling.tell(dispatch, book, again=again):
            done.told += recall.state == "told"
            done.acknowledged += recall.state == "acknowledged"
            if recall.last_fault:
                done.faults[f"{recall.delivery_id} recall {recall.number}"] = recall.last_fault
    done.overdue = sum(each.is_overdue for each in recalling.waiting(dispatch.home, now))
    return done


def follow_schedule(dispatch: Dispatch, name: str) -> Delivery:
    """Ask for what a schedule says, and send it where nobody else has to agree. What it asked for before and nobody answered is over."""
    schedule = _schedule(dispatch, name)
    why = f"schedule {name}"
    with Book(dispatch.home) as book:
        for each in book.deliveries(("asked", "approved")):
            if each.why == why:
                book.change(
                    each, dispatch.wall.now(), "expired", "troth", "asked for again by its schedule", state="expired"
                )
    found = approving.ask(
        dispatch, schedule.segment, schedule.destination, schedule.channel, by=schedule.asked_by, why=why
    )
    return sending.send(dispatch, found.delivery_id) if found.state == "approved" else found


def _schedule(dispatch: Dispatch, name: str) -> Schedule:
    schedules = {each.name: each for each in read_schedules(dispatch.home)}
    if name not in schedules:
        raise ActivationError(
            f"schedule: expected one of {', '.join(schedules) or 'none'}, found {name[:60]!r}. Correct destinations.yml."
        )
    return schedules[name]


def _go_on(dispatch: Dispatch, done: Round, delivery_id: str) -> None:
    try:
        found = sending.send(dispatch, delivery_id)
    except TrothError as fault:
        done.faults[delivery_id] = str(fault)
        return
    (done.sent if found.state == "sent" else done.waiting).append(delivery_id)
    if found.last_fault:
        done.faults[delivery_id] = found.last_fault
