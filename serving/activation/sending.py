"""A delivery on its way out: staged, put part by part, committed. Killed at any instant, it goes on where it was when it is called again.

Staged is what the export wrote under standing of that moment; contact data lies there no longer than it takes. Before the recipient
is told that it may use it, everybody in it is asked about once more; who says no until then is not in what is committed.
"""

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from models.segments import kept
from models.segments.definition import parse
from models.segments.described import loader
from models.segments.export import MANIFEST, ExportReport, File, export
from serving.activation import members
from serving.activation.approving import counted, still_valid
from serving.activation.carriers import TAKEN, Carrier, carrier_of
from serving.activation.deliveries import Book, Delivery, Recall
from serving.activation.destinations import SHARING
from serving.activation.dispatch import Dispatch
from serving.activation.errors import ActivationError
from serving.activation.files import files_of
from serving.hub.delivery import MOST_ATTEMPTS, wait
from serving.hub.webhooks import Outcome
from troth.errors import TrothError
from troth.home import Home
from troth.ids import file_hash

ABANDONED = "abandoned"  # why everybody of a delivery that was given up half way is called back
MOST_GROWTH = 1.2  # of what was approved, and a hundred besides
_ROUNDS = 3  # of staging anew for those who said no meanwhile


def staged_folder(home: Home, delivery_id: str) -> Path:
    return home.root / "activation" / "staged" / delivery_id


def send(dispatch: Dispatch, delivery_id: str, *, by: str = "troth") -> Delivery:
    """Send what is approved, or go on with what was begun. Gives it as it is then: sent, or sending with its last fault.

    Raises: ActivationError where it may not be sent, or somebody else is at it; ModelsError, LedgerError: then nothing went out.
    """
    with turn(dispatch.home, delivery_id), Book(dispatch.home) as book:
        found = book.delivery(delivery_id)
        if found.state == "sent":
            return found
        if found.state not in ("approved", "sending", "committing"):
            raise ActivationError(
                f"delivery {delivery_id}: expected one that is approved, found {found.state}. "
                "See it with `troth activate show`."
            )
        if found.state == "approved":
            found = still_valid(dispatch, book, found)
            found = book.change(found, dispatch.wall.now(), "began", by, state="sending")
        sending = _Sending(dispatch, book, found, by)
        try:
            return sending.run()
        except TrothError as fault:
            sending.note(str(fault))
            raise


def foreseen(dispatch: Dispatch, delivery_id: str) -> tuple[Delivery, ExportReport]:
    """What would go out now, and why the others would not; changes nothing."""
    with Book(dispatch.home) as book:
        found = book.delivery(delivery_id)
    return found, counted(dispatch, found)


@contextmanager
def turn(home: Home, name: str) -> Iterator[None]:
    """Nobody else sends it meanwhile; the operating system takes the turn back when a process dies."""
    path = home.root / "activation" / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ActivationError(
                f"{name}: expected nobody else at it, found somebody who is. Wait and look again."
            ) from None
        yield


def abandon(dispatch: Dispatch, book: Book, found: Delivery, why: str) -> Delivery:
    """Give a delivery up: nothing of it stays with us, and whoever may have been handed over already is called back."""
    carrier_of(dispatch, found).clear()
    shutil.rmtree(staged_folder(dispatch.home, found.delivery_id), ignore_errors=True)
    now = dispatch.wall.now()
    if not found.is_out:
        kept.forget(dispatch.home, found.mark)
        members.forget_members(dispatch.home, found.delivery_id)
    given_up = book.change(
        found, now, "gave up", "troth", why,
        state="failed", last_fault=why, next_attempt_at=None, delete_by=now + timedelta(days=found.to.keep_days),
    )  # fmt: skip
    call_back(dispatch, book, given_up)
    return given_up


def call_back(dispatch: Dispatch, book: Book, given_up: Delivery) -> Recall | None:
    """Everybody of a delivery that was given up after some of it may have been taken."""
    people, now = members.read_members(dispatch.home, given_up.delivery_id), dispatch.wall.now()
    lines = dict.fromkeys(people["member_ref"], ABANDONED)
    return book.recall(given_up, lines, now, now + timedelta(hours=given_up.to.answer_hours))


class _Sending:
    """One try. Every step is written down when it is done, and may be done twice."""

    def __init__(self, dispatch: Dispatch, book: Book, found: Delivery, by: str) -> None:
        self._dispatch = dispatch
        self._home = dispatch.home
        self._book = book
        self._by = by
        self.found = found
        self._folder = staged_folder(dispatch.home, found.delivery_id)

    def run(self) -> Delivery:
        if self.found.state == "committing":
            return self._commit()
        is_fresh = not self._is_whole()
        if is_fresh and not self._stage():
            return self.found
        for _ in range(_ROUNDS):
            outcome = self._put()
            if not outcome.is_acknowledged:
                return self._stopped(outcome)
            if not self._has_lost(is_fresh):
                break
            if not self._stage():
                return self.found
            is_fresh = True
        return self._commit()

    def note(self, fault: str) -> None:
        """Keep why it could not go on, where it is not over."""
        if self.found.state in ("sending", "committing"):
            self.found = self._save(last_fault=fault[:500])

    @property
    def _carrier(self) -> Carrier:
        return carrier_of(self._dispatch, self.found)

    def _is_whole(self) -> bool:
        """Whether what is staged is what the book says, to the byte. An erasure may have taken it away."""
        manifest = self._folder / MANIFEST
        if not manifest.exists() or file_hash(manifest) != self.found.manifest_sha256:
            return False
        said = json.loads(manifest.read_bytes())["files"]
        return all(
            (self._folder / name).exists() and file_hash(self._folder / name) == file["sha256"]
            for name, file in said.items()
        )

    def _stage(self) -> bool:
        """Decide everything anew and write the files here. False, and the delivery over, where nobody may be contacted."""
        shutil.rmtree(self._folder, ignore_errors=True)
        kept.forget(self._home, self.found.mark)
        coming = self._changed(attempt=self.found.attempt + 1)
        segment, at, chosen = parse(coming.definition), self._dispatch.clock.now(), pl.DataFrame()

        def files(_channel: str, people: pl.DataFrame) -> Mapping[str, File]:
            nonlocal chosen
            most = int(coming.expected * MOST_GROWTH) + 100
            if people.height > most:
                raise ActivationError(
                    f"delivery {coming.delivery_id}: expected at most {most:,} people, some more than the {coming.expected:,} asked "
                    f"for, found {people.height:,}. Ask for it again."
                )
            chosen = members.with_refs(self._home, coming.delivery_id, people)
            return files_of(coming, chosen, at)

        try:
            report = export(
                self._home, segment, self._folder, at,
                channel=coming.channel_code, rules=self._dispatch.rules, loaded=loader(self._home), files=files,
                also=SHARING if coming.is_third_party else None, told={"delivery": self._told(coming)}, mark=coming.mark,
            )  # fmt: skip
        except ActivationError as fault:
            self.found = abandon(self._dispatch, self._book, self.found, str(fault))
            raise
        if not report.exported and not self.found.is_out:
            self._clean()
            kept.forget(self._home, self.found.mark)
            self.found = self._save("empty", state="empty")
            return False
        people = chosen.with_columns(attempt=pl.lit(coming.attempt, pl.Int64)).select(*members.SCHEMA)
        if self.found.is_out:  # whoever was handed over in an earlier attempt stays known, to be called back
            people = pl.concat([people, members.read_members(self._home, coming.delivery_id)])
        members.keep_members(self._home, coming.delivery_id, people)
        manifest = (self._folder / MANIFEST).read_bytes()
        self.found = self._save(
            attempt=coming.attempt, exported=report.exported, receipt_numbers=_receipts(report.manifest),
            manifest=manifest.decode(), manifest_sha256=sha256(manifest).hexdigest(),
        )  # fmt: skip
        return True

    def _told(self, coming: Delivery) -> dict[str, object]:
        """What the manifest says of the delivery itself."""
        to = coming.to
        return {
            "id": coming.delivery_id,
            "destination": to.name,
            "destination_hash": to.hash,
            "recipient": {
                "legal_name": to.recipient.legal_name,
                "role": to.recipient.role,
                "country": to.recipient.country,
            },
            "is_third_party": to.is_third_party,
            "purposes": list(coming.purposes),
            "fields": ["member_ref", *to.fields],
            "approval": coming.approves if to.needs_approval else None,
            "delete_within_days": to.keep_days,
            "answer_recalls_within_hours": to.answer_hours,
        }

    def _put(self) -> Outcome:
        """Bring every part that was not taken yet."""
        names = sorted(json.loads(self.found.manifest or "{}")["files"])
        taken, carrier = self._book.taken(self.found), self._carrier
        for number, name in enumerate(names, start=1):
            if number in taken:
                continue
            if self.found.to.kind == "webhook" and not self.found.is_out:
                self.found = self._save(is_out=True)
            outcome = carrier.put(number, self._folder / name)
            if not outcome.is_acknowledged:
                return outcome
            self._book.take(self.found, number, outcome.receipt_id, self._dispatch.wall.now())
            self._dispatch.advance("send", number, len(names))
        return TAKEN

    def _has_lost(self, is_fresh: bool) -> bool:
        """Whether anybody in it may not be contacted any more. Asked of the whole ledger only where something was said since."""
        at = self._dispatch.clock.now()
        staged = json.loads(self.found.manifest or "{}")["consent"]["ledger_size"]
        if is_fresh and members.basis_now(self._home, at).startswith(f"{staged} "):
            return False
        people = members.read_members(self._home, self.found.delivery_id)
        going = people.filter(pl.col("attempt") == self.found.attempt)
        ended, _ = members.standings(self._home, at).ended(self.found, going)
        return bool(ended)

    def _commit(self) -> Delivery:
        manifest = (self.found.manifest or "").encode()
        if self.found.state != "committing":
            self.found = self._save(state="committing", is_out=True)
        self._clean()  # all of it is with the recipient, and the manifest is in the book
        carrier = self._carrier
        outcome = TAKEN if carrier.is_committed(manifest) else carrier.commit(manifest)
        if not outcome.is_acknowledged:
            return self._stopped(outcome)
        now = self._dispatch.wall.now()
        self.found = self._save(
            "sent", state="sent", sent_at=now, receipt_id=outcome.receipt_id, last_fault=None, next_attempt_at=None,
            delete_by=now + timedelta(days=self.found.to.keep_days),
        )  # fmt: skip
        return self.found

    def _stopped(self, outcome: Outcome) -> Delivery:
        """Not there yet: tried again later, or given up. What nobody can have taken is staged anew then, under standing of then."""
        count, now = self.found.attempt_count + 1, self._dispatch.wall.now()
        fault = outcome.fault or "refused"
        fault = f"{fault} ({outcome.status})" if outcome.status else fault
        if count >= MOST_ATTEMPTS:
            return abandon(self._dispatch, self._book, self.found, f"{count} attempts, the last: {fault}")
        if not self.found.is_out:
            self._clean()
        self.found = self._save(
            attempt_count=count, last_fault=fault, next_attempt_at=now + wait(count, self._dispatch.jitter())
        )
        return self.found

    def _clean(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _save(self, act: str | None = None, **new: Any) -> Delivery:
        return self._book.change(self.found, self._dispatch.wall.now(), act, self._by, **new)

    def _changed(self, **new: Any) -> Delivery:
        changed: Delivery = msgspec.structs.replace(self.found, **new)
        return changed


def _receipts(manifest: Mapping[str, Any]) -> tuple[int, ...]:
    """Numbers of every receipt that a manifest names."""
    sets = [manifest, *manifest.get("also_asked", {}).values()]
    return tuple(
        sorted(each[name]["number"] for each in sets for name in ("decision", "decided_again") if name in each)
    )
