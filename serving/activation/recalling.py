"""Calling people back whose consent ended after they were sent out: found in the ledger, told to the recipient, followed to its answer."""

import json
import shutil
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from serving.activation import members
from serving.activation.carriers import carrier_of
from serving.activation.deliveries import ERASED, OPEN, Book, Delivery, Recall
from serving.activation.dispatch import Dispatch
from serving.activation.errors import ActivationError
from serving.activation.sending import call_back, staged_folder
from serving.hub.delivery import MOST_ATTEMPTS, wait
from troth.home import Home

FORMAT = "troth recall 1"


def find(dispatch: Dispatch, book: Book) -> list[Recall]:
    """Look through what is out, and call back whoever may not be contacted any more. What cannot have changed is not asked about.

    Raises: LedgerError where the ledger cannot be read or does not verify.
    """
    out, at = [each for each in book.deliveries() if each.is_out and _is_kept(dispatch, each)], dispatch.clock.now()
    given_up = [each for each in out if each.state == "failed"]
    found = [made for each in given_up if (made := call_back(dispatch, book, each))]
    out = [each for each in out if each not in given_up]
    if not out:
        return found
    basis = members.basis_now(dispatch.home, at)
    due = [each for each in out if not book.is_looked_through(each.delivery_id, basis, at)]
    if not due:
        return found
    now, known = dispatch.wall.now(), members.standings(dispatch.home, at)
    for number, each in enumerate(due, start=1):
        ended, until = known.ended(each, members.read_members(dispatch.home, each.delivery_id))
        if made := book.recall(each, ended, now, now + timedelta(hours=each.to.answer_hours)):
            found.append(made)
        book.look_through(each.delivery_id, known.basis, until)
        dispatch.advance("recall", number, len(due))
    return found


def foreseen(dispatch: Dispatch) -> dict[str, dict[str, int]]:
    """Whom `find` would call back now: how many by reason, by delivery. Changes nothing."""
    known, found = None, {}
    with Book(dispatch.home) as book:
        for each in book.deliveries():
            if not each.is_out or not _is_kept(dispatch, each):
                continue
            known = known or members.standings(dispatch.home, dispatch.clock.now())
            ended, _ = known.ended(each, members.read_members(dispatch.home, each.delivery_id))
            before = book.called_back(each.delivery_id)
            if new := Counter(reason for ref, reason in ended.items() if ref not in before):
                found[each.delivery_id] = dict(sorted(new.items()))
    return found


def tell(dispatch: Dispatch, book: Book, *, again: bool = False) -> list[Recall]:
    """Tell recipients of recalls that are due, and take over the answers they left. `again`: those given up, too, and at once."""
    now, changed = dispatch.wall.now(), []
    for recall in book.recalls(("pending", "told", *(("failed",) if again else ()))):
        of = book.delivery(recall.delivery_id)
        if recall.state == "told":
            receipt = carrier_of(dispatch, of).answer(recall.number)
            if receipt is not None:
                changed.append(_answered(book, recall, now, recall.destination, receipt))
        elif again or recall.next_attempt_at is None or recall.next_attempt_at <= now:
            changed.append(_tried(dispatch, book, of, recall))
    return changed


def acknowledge(
    dispatch: Dispatch, delivery_id: str, number: int | None = None, *, by: str, receipt: str = ""
) -> list[Recall]:
    """Write down that the recipient answered in some other way: to one recall of a delivery, or to all it was told of."""
    with Book(dispatch.home) as book:
        waiting = [
            each
            for each in book.recalls(("pending", "told", "failed"), book.delivery(delivery_id).delivery_id)
            if number in (None, each.number)
        ]
        if not waiting:
            raise ActivationError(
                f"recall of {delivery_id}: expected one that waits for an answer, found none. See `troth activate show`."
            )
        return [_answered(book, each, dispatch.wall.now(), by, receipt) for each in waiting]


def body_of(book: Book, recall: Recall, of: Delivery) -> bytes:
    """What a recipient is told: the references it has, and why. Says nothing to anybody who was not given them."""
    told = {
        "format": FORMAT,
        "delivery_id": recall.delivery_id,
        "number": recall.number,
        "manifest_sha256": of.manifest_sha256,
        "recalled_at": recall.made_at.astimezone(UTC).isoformat(),
        "answer_by": recall.answer_by.astimezone(UTC).isoformat(),
        "members": [{"member_ref": ref, "reason": reason} for ref, reason in book.lines(recall)],
    }
    return (json.dumps(told, sort_keys=True, indent=1) + "\n").encode()


def recall_erased(home: Home, identifiers: Collection[str], now: datetime) -> dict[str, int]:
    """Call an erased person back from everywhere, and forget who they were: recalls name references that lead nowhere any more.

    What is staged with them goes, and is staged anew without them. May be done twice.
    """
    lines = 0
    found = members.deliveries_with(home, identifiers)
    if not found:
        return {"deliveries": 0, "recalled": 0}
    with Book(home) as book:
        for delivery_id, refs in found.items():
            of = book.delivery(delivery_id)
            if of.state in OPEN:
                shutil.rmtree(staged_folder(home, delivery_id), ignore_errors=True)
            if of.is_out:
                made = book.recall(of, dict.fromkeys(refs, ERASED), now, now + timedelta(hours=of.to.answer_hours))
                lines += made.count if made else 0
            members.forget_person(home, delivery_id, refs)
    return {"deliveries": len(found), "recalled": lines}


def deliveries_of(home: Home, identifiers: Collection[str]) -> list[Delivery]:
    """The deliveries that a person (customer ids, tokens) went out in, as far as they are still remembered: newest first."""
    found = members.deliveries_with(home, identifiers)
    if not found:
        return []
    with Book(home) as book:
        return [each for each in book.deliveries() if each.delivery_id in found and each.is_out]


def has_answered(home: Home, delivery_id: str) -> bool:
    """Whether the recipient of a delivery answered everything it was told."""
    with Book(home) as book:
        return all(each.state == "acknowledged" for each in book.recalls(delivery_id=delivery_id))


@dataclass(frozen=True)
class Waiting:
    """A recipient that has not answered: how long, and whether longer than was agreed."""

    recall: Recall
    age: timedelta
    is_overdue: bool


def waiting(home: Home, now: datetime) -> list[Waiting]:
    """Recalls without an answer, the oldest first."""
    with Book(home) as book:
        found = book.recalls(("pending", "told", "failed"))
    return [Waiting(each, each.age(now), each.is_overdue(now)) for each in found]


def _tried(dispatch: Dispatch, book: Book, of: Delivery, recall: Recall) -> Recall:
    now, count = dispatch.wall.now(), recall.attempt_count + 1
    outcome = carrier_of(dispatch, of).recall(recall.number, body_of(book, recall, of))
    if outcome.is_acknowledged:
        told = book.change_recall(recall, now, "told", "troth", f"recall {recall.number}", state="told", told_at=now)
        return _answered(book, told, now, recall.destination, outcome.receipt_id or "")
    if outcome.fault is None:
        return book.change_recall(
            recall, now, "told", "troth", f"recall {recall.number}",
            state="told", told_at=now, attempt_count=count, last_fault=None, next_attempt_at=None,
        )  # fmt: skip
    is_over = count >= MOST_ATTEMPTS
    return book.change_recall(
        recall, now, state="failed" if is_over else "pending", attempt_count=count, last_fault=outcome.fault,
        next_attempt_at=None if is_over else now + wait(count, dispatch.jitter()),
    )  # fmt: skip


def _answered(book: Book, recall: Recall, now: datetime, by: str, receipt: str) -> Recall:
    return book.change_recall(
        recall, now, "acknowledged", by, f"recall {recall.number}{f', receipt {receipt}' if receipt else ''}",
        state="acknowledged", acknowledged_at=now, acknowledged_by=by, receipt_id=receipt or None, next_attempt_at=None, last_fault=None,
    )  # fmt: skip


def _is_kept(dispatch: Dispatch, of: Delivery) -> bool:
    return members.path_of(dispatch.home, of.delivery_id).exists()
