"""What was sent, is waited for, or is called back: `activation.db` of the home. Counts, names of files and hashes; nobody's data.

A delivery is one segment for one destination, from the first question to the last recall. Each change is one transaction with
its line in the log of acts; of two who change the same one, one is told to look again.
"""

import hashlib
import json
import secrets
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Self

import msgspec

from serving.activation.destinations import SHARING, Destination, Recipient
from serving.activation.errors import ActivationError
from troth.home import Home
from troth.sqlite import write_ahead

FILE = "activation.db"
# counting, counted: begun on a page, and not asked for yet. asked: waits for somebody else. approved: may be sent, until `expires_at`. sending: under way, or stopped on the way; is taken up again.
# committing: the recipient is being told that it is whole. empty: nobody may be contacted any more. failed: given up.
OPEN = ("counting", "counted", "asked", "approved", "sending", "committing")
STATES = (*OPEN, "sent", "refused", "expired", "void", "empty", "failed")
RECALL_STATES = ("pending", "told", "acknowledged", "failed")
ERASED = "erased"
DELIVERY = "dlv_"  # what ids of deliveries begin with
_TABLES = """
create table if not exists deliveries (
    delivery_id text primary key, state text not null, asked_at text not null, told text not null
) strict;
create table if not exists acts (
    number integer primary key autoincrement, delivery_id text not null, at text not null, act text not null, who text not null, why text not null
) strict;
create table if not exists recalls (
    delivery_id text not null, number integer not null, state text not null, told text not null,
    primary key (delivery_id, number)
) strict;
create table if not exists recall_lines (
    delivery_id text not null, member_ref text not null, number integer not null, reason_code text not null,
    primary key (delivery_id, member_ref, reason_code)
) strict;
create table if not exists scans (delivery_id text primary key, basis text not null, until text) strict;
create table if not exists parts (
    delivery_id text not null, attempt integer not null, number integer not null, receipt_id text, taken_at text not null,
    primary key (delivery_id, attempt, number)
) strict;
"""


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """Something that somebody did about a delivery: asked, approved, refused, sent, recalled, acknowledged ..."""

    at: datetime
    act: str
    who: str
    why: str


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One segment for one destination. `matched`, `expected` and `refused` count the dry run, `exported` what went out.

    `is_out`: whether anything may have left the house, and is called back when consent ends. `definition` is YAML; `to` is the
    destination as it was when it was asked for, whatever is declared since.
    """

    delivery_id: str
    state: str
    segment_name: str
    segment_version: int
    definition: str
    definition_hash: str
    purpose_code: str
    channel_code: str
    to: Destination
    asked_by: str
    asked_at: datetime
    why: str
    expires_at: datetime
    matched: int
    expected: int
    refused: dict[str, int]
    ledger_size: int
    decided_by: str | None = None
    decided_at: datetime | None = None
    decided_why: str | None = None
    is_out: bool = False
    attempt: int = 0
    attempt_count: int = 0
    next_attempt_at: datetime | None = None
    last_fault: str | None = None
    sent_at: datetime | None = None
    exported: int | None = None
    receipt_numbers: tuple[int, ...] = ()
    manifest: str | None = None
    manifest_sha256: str | None = None
    receipt_id: str | None = None
    delete_by: datetime | None = None

    @property
    def destination(self) -> str:
        return self.to.name

    @property
    def recipient(self) -> Recipient:
        return self.to.recipient

    @property
    def is_third_party(self) -> bool:
        return self.to.is_third_party

    @property
    def purposes(self) -> tuple[str, ...]:
        """Everything people are asked for: the segment's purpose, and sharing where the recipient is a third party."""
        return (self.purpose_code, SHARING) if self.is_third_party else (self.purpose_code,)

    @property
    def approves(self) -> str:
        """SHA-256 in hex of what a second person says yes to: definition, destination, channel and the dry run's counts."""
        said = [self.definition_hash, self.to.hash, self.channel_code, self.matched, self.expected, self.refused]
        return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def mark(self) -> str:
        """16 hexadecimal digits that are its own."""
        return self.delivery_id.removeprefix(DELIVERY)


class Recall(msgspec.Struct, frozen=True, kw_only=True):
    """People of a delivery who may not be contacted any more, told to its recipient at once; and whether it answered."""

    delivery_id: str
    number: int
    state: str
    destination: str
    recipient: Recipient
    made_at: datetime
    answer_by: datetime
    count: int
    reasons: dict[str, int]
    attempt_count: int = 0
    next_attempt_at: datetime | None = None
    last_fault: str | None = None
    told_at: datetime | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    receipt_id: str | None = None

    def age(self, at: datetime) -> timedelta:
        """From the finding to the answer, or until now."""
        return (self.acknowledged_at or at) - self.made_at

    def is_overdue(self, at: datetime) -> bool:
        """Whether the answer came, or still comes, too late."""
        return (self.acknowledged_at or at) > self.answer_by


class Sharing(msgspec.Struct, frozen=True, kw_only=True):
    """Data of people went to a recipient, or was called back: when, of how many, for what, let out by whom, decided by which receipts."""

    at: datetime
    event: str  # sent or recalled
    delivery_id: str
    segment_name: str
    definition_hash: str
    purposes: tuple[str, ...]
    channel_code: str
    fields: tuple[str, ...]
    destination: str
    recipient: Recipient
    is_third_party: bool
    people: int
    asked_by: str
    approved_by: str | None
    receipt_numbers: tuple[int, ...]
    manifest_sha256: str | None


class Book:
    """The deliveries of a home, open."""

    def __init__(self, home: Home) -> None:
        path = home.root / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        self._connection.row_factory = sqlite3.Row
        try:
            path.chmod(0o600)
            write_ahead(self._connection)
            self._connection.executescript(f"pragma synchronous = full; {_TABLES}")
        except sqlite3.DatabaseError as fault:
            self._connection.close()
            raise ActivationError(f"{FILE}: expected a SQLite database, found {fault}. Restore it.") from fault

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def add(self, delivery: Delivery, act: str = "asked") -> None:
        with self._writing():
            self._connection.execute(
                "insert into deliveries values (?, ?, ?, ?)",
                (delivery.delivery_id, delivery.state, delivery.asked_at.isoformat(), _encoded(delivery)),
            )
            self._act(delivery.delivery_id, delivery.asked_at, act, delivery.asked_by, delivery.why)

    def deliveries(self, states: Sequence[str] = STATES) -> list[Delivery]:
        """Newest first."""
        marks = ", ".join("?" * len(states))
        rows = self._connection.execute(
            f"select told from deliveries where state in ({marks}) order by asked_at desc, delivery_id",  # noqa: S608
            tuple(states),
        )
        return [msgspec.json.decode(row["told"], type=Delivery) for row in rows]

    def delivery(self, delivery_id: str) -> Delivery:
        """Raises: ActivationError where there is none."""
        row = self._connection.execute("select told from deliveries where delivery_id = ?", (delivery_id,)).fetchone()
        if row is None:
            raise ActivationError(
                f"delivery: expected one of `troth activate list`, found {delivery_id[:40]!r}. Correct the id."
            )
        return msgspec.json.decode(row["told"], type=Delivery)

    def change(
        self, before: Delivery, at: datetime, act: str | None = None, who: str = "", why: str = "", /, **new: Any
    ) -> Delivery:
        """A delivery with something else in it. Raises: ActivationError where somebody changed it since it was read."""
        after: Delivery = msgspec.structs.replace(before, **new)
        with self._writing():
            changed = self._connection.execute(
                "update deliveries set state = ?, told = ? where delivery_id = ? and told = ?",
                (after.state, _encoded(after), before.delivery_id, _encoded(before)),
            ).rowcount
            if not changed:
                raise ActivationError(
                    f"delivery {before.delivery_id}: expected it as it was read, found it changed by somebody else. Look again."
                )
            if act:
                self._act(before.delivery_id, at, act, who, why)
        return after

    def acts(self, delivery_id: str) -> list[Act]:
        """What was done about a delivery, oldest first."""
        rows = self._connection.execute(
            "select at, act, who, why from acts where delivery_id = ? order by number", (delivery_id,)
        )
        return [
            Act(at=datetime.fromisoformat(row["at"]), act=row["act"], who=row["who"], why=row["why"]) for row in rows
        ]

    def take(self, delivery: Delivery, number: int, receipt_id: str | None, at: datetime) -> None:
        """Write down that the recipient took a part of this attempt."""
        with self._writing():
            self._connection.execute(
                "insert or ignore into parts values (?, ?, ?, ?, ?)",
                (delivery.delivery_id, delivery.attempt, number, receipt_id, at.isoformat()),
            )

    def taken(self, delivery: Delivery) -> set[int]:
        """Numbers of the parts that the recipient took of this attempt."""
        rows = self._connection.execute(
            "select number from parts where delivery_id = ? and attempt = ?", (delivery.delivery_id, delivery.attempt)
        )
        return {row["number"] for row in rows}

    def recall(self, delivery: Delivery, lines: Mapping[str, str], at: datetime, answer_by: datetime) -> Recall | None:
        """Call people back (reason by member_ref) who were not called back before; None where there is nobody new.

        Who was called back for another reason and is erased now is called back once more: to be forgotten is more than to be left alone.
        """
        with self._writing():
            known = set(self._lines(delivery.delivery_id))
            refs = {ref for ref, _ in known}
            new = {
                ref: reason
                for ref, reason in lines.items()
                if ref not in refs or (reason == ERASED and (ref, ERASED) not in known)
            }
            if not new:
                return None
            numbers = self._connection.execute(
                "select coalesce(max(number), 0) + 1 from recalls where delivery_id = ?", (delivery.delivery_id,)
            )
            found = Recall(
                delivery_id=delivery.delivery_id, number=numbers.fetchone()[0], state="pending",
                destination=delivery.destination, recipient=delivery.recipient, made_at=at, answer_by=answer_by,
                count=len(new), reasons=dict(sorted(Counter(new.values()).items())),
                next_attempt_at=at,
            )  # fmt: skip
            self._connection.execute(
                "insert into recalls values (?, ?, ?, ?)",
                (found.delivery_id, found.number, found.state, _encoded(found)),
            )
            self._connection.executemany(
                "insert into recall_lines values (?, ?, ?, ?)",
                [(found.delivery_id, ref, found.number, reason) for ref, reason in sorted(new.items())],
            )
            reasons = ", ".join(f"{count} {reason}" for reason, count in found.reasons.items())
            self._act(found.delivery_id, at, "recalled", "troth", f"recall {found.number}: {reasons}")
        return found

    def is_looked_through(self, delivery_id: str, basis: str, at: datetime) -> bool:
        """Whether nobody's standing in it can have changed since it was last looked through."""
        row = self._connection.execute(
            "select basis, until from scans where delivery_id = ?", (delivery_id,)
        ).fetchone()
        if row is None or row["basis"] != basis:
            return False
        return row["until"] is None or at < datetime.fromisoformat(row["until"])

    def look_through(self, delivery_id: str, basis: str, until: datetime | None) -> None:
        """Remember under what everybody in it was asked, and when the next yes of theirs ends."""
        with self._writing():
            self._connection.execute(
                "insert or replace into scans values (?, ?, ?)",
                (delivery_id, basis, None if until is None else until.isoformat()),
            )

    def recalls(self, states: Sequence[str] = RECALL_STATES, delivery_id: str | None = None) -> list[Recall]:
        """Oldest first."""
        marks = ", ".join("?" * len(states))
        rows = self._connection.execute(
            f"select told from recalls where state in ({marks}) and (? is null or delivery_id = ?) order by rowid",  # noqa: S608
            (*states, delivery_id, delivery_id),
        )
        return [msgspec.json.decode(row["told"], type=Recall) for row in rows]

    def lines(self, recall: Recall) -> list[tuple[str, str]]:
        """member_ref and reason of everybody in a recall, in order."""
        return self._lines(recall.delivery_id, recall.number)

    def called_back(self, delivery_id: str) -> set[str]:
        """The member_refs that were called back from a delivery."""
        return {ref for ref, _ in self._lines(delivery_id)}

    def change_recall(
        self, before: Recall, at: datetime, act: str | None = None, who: str = "", why: str = "", **new: Any
    ) -> Recall:
        """Raises: ActivationError where somebody changed it since it was read."""
        after: Recall = msgspec.structs.replace(before, **new)
        with self._writing():
            changed = self._connection.execute(
                "update recalls set state = ?, told = ? where delivery_id = ? and number = ? and told = ?",
                (after.state, _encoded(after), before.delivery_id, before.number, _encoded(before)),
            ).rowcount
            if not changed:
                raise ActivationError(
                    f"recall {before.delivery_id}/{before.number}: expected it as it was read, found it changed. Look again."
                )
            if act:
                self._act(before.delivery_id, at, act, who, why)
        return after

    def _lines(self, delivery_id: str, number: int | None = None) -> list[tuple[str, str]]:
        rows = self._connection.execute(
            "select member_ref, reason_code from recall_lines where delivery_id = ? and (? is null or number = ?) order by member_ref",
            (delivery_id, number, number),
        )
        return [(row["member_ref"], row["reason_code"]) for row in rows]

    def _act(self, delivery_id: str, at: datetime, act: str, who: str, why: str) -> None:
        self._connection.execute(
            "insert into acts (delivery_id, at, act, who, why) values (?, ?, ?, ?, ?)",
            (delivery_id, at.isoformat(), act, who, why),
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._connection.execute("begin immediate")
        try:
            yield
            self._connection.execute("commit")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("rollback")
            raise


def new_id() -> str:
    return f"{DELIVERY}{secrets.token_hex(8)}"


def deliveries(home: Home, states: Sequence[str] = STATES) -> list[Delivery]:
    """Every delivery of a home in one of these states, newest first."""
    if not (home.root / FILE).exists():
        return []
    with Book(home) as book:
        return book.deliveries(states)


def delivery(home: Home, delivery_id: str) -> Delivery:
    """Raises: ActivationError where there is none of that id."""
    with Book(home) as book:
        return book.delivery(delivery_id)


def acts(home: Home, delivery_id: str) -> list[Act]:
    """Who asked, approved, refused, sent, acknowledged: oldest first."""
    with Book(home) as book:
        return book.acts(delivery_id)


def recalls(home: Home, delivery_id: str | None = None) -> list[Recall]:
    """Every recall of a home, or of one delivery, oldest first."""
    if not (home.root / FILE).exists():
        return []
    with Book(home) as book:
        return book.recalls(delivery_id=delivery_id)


def sharing(home: Home) -> list[Sharing]:
    """What left for whom, and what was called back, oldest first."""
    found = []
    sent = {each.delivery_id: each for each in deliveries(home) if each.is_out}
    for each in sent.values():
        found.append(_shared(each, "sent", each.sent_at or each.asked_at, each.exported or 0))
    for recall in recalls(home):
        if recall.delivery_id in sent:
            found.append(_shared(sent[recall.delivery_id], "recalled", recall.made_at, recall.count))
    return sorted(found, key=lambda each: (each.at, each.delivery_id))


def _shared(of: Delivery, event: str, at: datetime, people: int) -> Sharing:
    return Sharing(
        at=at, event=event, delivery_id=of.delivery_id, segment_name=of.segment_name,
        definition_hash=of.definition_hash, purposes=of.purposes, channel_code=of.channel_code, fields=of.to.fields,
        destination=of.destination, recipient=of.recipient, is_third_party=of.is_third_party, people=people,
        asked_by=of.asked_by, approved_by=of.decided_by if of.to.needs_approval else None,
        receipt_numbers=of.receipt_numbers, manifest_sha256=of.manifest_sha256,
    )  # fmt: skip


def _encoded(value: Delivery | Recall) -> str:
    return msgspec.json.encode(value).decode()
