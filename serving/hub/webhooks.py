"""Webhooks: who downstream is told of consent events, and the outbox between the ledger and them.

Each destination has a cursor over the ledger's leaves. Moving it and filling the outbox is one transaction, so no event
can be missed, whatever dies when. The outbox holds keys and leaf numbers, neither events nor tokens.
"""

import hmac
import re
import secrets
import sqlite3
import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any

import msgspec

from consent.events import Event
from consent.rule.policy import EVERY, Policy
from serving.errors import ServingError
from serving.hub.addresses import check_url
from serving.hub.preferences import Ledger
from troth.home import Home
from troth.sqlite import write_ahead

OUTBOX_FILE = "webhooks.db"
MOST_DESTINATIONS = 100
MOST_DELIVERIES = 200  # in one answer
AT_ONCE = 1_000  # leaves read in one go
STATES = ("pending", "delivered", "dead", "withheld")
# Events that touch every purpose, whatever purpose they carry.
TOUCHING_ALL = ("restrict", "unrestrict", "erased", "identity_linked", "identity_unlinked")
_SCHEMA = """
create table if not exists destinations (
    destination_id text primary key,
    name text not null unique,
    url text not null,
    purposes text not null,
    cursor integer not null,
    made_at text not null
);
create table if not exists deliveries (
    delivery_id integer primary key autoincrement,
    destination_id text not null references destinations (destination_id) on delete cascade,
    leaf_index integer not null,
    subject_key blob not null,
    state text not null,
    attempt_count integer not null default 0,
    due_at text not null,
    last_attempt_at text,
    last_status integer,
    last_fault text,
    receipt_id text,
    unique (destination_id, leaf_index)
);
create index if not exists deliveries_by_state on deliveries (destination_id, state, leaf_index);
"""


class NewDestination(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A downstream processor to be told of events of some purposes; from a leaf on, or from now."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_-]{1,60}$")]
    url: Annotated[str, msgspec.Meta(min_length=8, max_length=2_000)]
    purposes: Annotated[
        list[Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,40}$")]], msgspec.Meta(min_length=1, max_length=50)
    ]
    from_leaf: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] | None = None


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """A destination as it stands; `cursor` is the first leaf it has not been given yet."""

    destination_id: str
    name: str
    url: str
    purposes: list[str]
    cursor: int
    made_at: datetime


class MadeDestination(msgspec.Struct, frozen=True, kw_only=True):
    """A new destination and its secret, which is shown this once."""

    destination: Destination
    secret: str


class DestinationState(msgspec.Struct, frozen=True, kw_only=True):
    """A destination, how many deliveries are in each state, and how many leaves it is behind the ledger."""

    destination: Destination
    counts: dict[str, int]
    behind: int


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event for one destination: how far it got. `receipt_id` is what the receiver acknowledged it under."""

    delivery_id: int
    leaf_index: int
    state: str
    attempt_count: int
    due_at: datetime
    last_attempt_at: datetime | None
    last_status: int | None
    last_fault: str | None
    receipt_id: str | None


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: acknowledged, or why not. `status` is HTTP's, null when there was no answer."""

    is_acknowledged: bool
    status: int | None = None
    fault: str | None = None
    receipt_id: str | None = None


class Outbox:
    """Destinations and deliveries in `webhooks.db`. Threads share it; each call is one transaction."""

    def __init__(self, home: Home) -> None:
        path = home.root / OUTBOX_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        self._secret = home.key("webhooks")
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        self._connection.row_factory = sqlite3.Row
        try:
            write_ahead(self._connection)
            self._connection.executescript(f"pragma synchronous = full; pragma foreign_keys = on; {_SCHEMA}")
        except sqlite3.DatabaseError as fault:
            self._connection.close()
            raise ServingError(f"{path.name}: expected a SQLite database, found {fault}. Restore it.") from fault
        path.chmod(0o600)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def add(
        self, wanted: NewDestination, policy: Policy, ledger_size: int, at: datetime, *, allow_loopback: bool = False
    ) -> MadeDestination:
        """Register a destination. Raises: ServingError for a purpose, an address or a name that cannot be used."""
        unknown = sorted(set(wanted.purposes) - set(policy.purposes))
        if unknown:
            raise ServingError(f"purposes: expected some of {', '.join(policy.purposes)}, found another. Correct them.")
        check_url(wanted.url, allow_loopback=allow_loopback)
        cursor = ledger_size if wanted.from_leaf is None else wanted.from_leaf
        if cursor > ledger_size:
            raise ServingError(
                f"from_leaf: expected at most {ledger_size}, found {cursor}. Leave it out for: from now on."
            )
        made = Destination(
            destination_id=f"dst_{secrets.token_hex(8)}",
            name=wanted.name,
            url=wanted.url,
            purposes=list(dict.fromkeys(wanted.purposes)),
            cursor=cursor,
            made_at=at,
        )
        with self._writing() as run:
            if run("select count(*) from destinations").fetchone()[0] >= MOST_DESTINATIONS:
                raise ServingError(f"destinations: expected at most {MOST_DESTINATIONS}, found as many. Remove one.")
            if run("select 1 from destinations where name = ?", (made.name,)).fetchone():
                raise ServingError("name: expected one that is not taken, found one that is. Choose another.")
            values = (made.destination_id, made.name, made.url, ",".join(made.purposes), made.cursor, at.isoformat())
            run("insert into destinations values (?, ?, ?, ?, ?, ?)", values)
        return MadeDestination(destination=made, secret=self.secret(made.destination_id))

    def remove(self, destination_id: str) -> bool:
        """Forget a destination and its deliveries; its secret is never made again."""
        with self._writing() as run:
            return bool(run("delete from destinations where destination_id = ?", (destination_id,)).rowcount)

    def destinations(self) -> list[Destination]:
        with self._lock:
            rows = self._connection.execute("select * from destinations order by made_at, destination_id").fetchall()
        return [
            Destination(
                destination_id=row["destination_id"],
                name=row["name"],
                url=row["url"],
                purposes=row["purposes"].split(","),
                cursor=row["cursor"],
                made_at=datetime.fromisoformat(row["made_at"]),
            )
            for row in rows
        ]

    def states(self, ledger_size: int) -> list[DestinationState]:
        found = []
        for destination in self.destinations():
            with self._lock:
                counted = self._connection.execute(
                    "select state, count(*) from deliveries where destination_id = ? group by state",
                    (destination.destination_id,),
                ).fetchall()
            counts = dict.fromkeys(STATES, 0) | {row[0]: row[1] for row in counted}
            found.append(
                DestinationState(
                    destination=destination, counts=counts, behind=max(0, ledger_size - destination.cursor)
                )
            )
        return found

    def deliveries(self, destination_id: str, state: str | None, after: int, most: int) -> list[Delivery] | None:
        """Deliveries of a destination by number, `after` the last one seen; None when there is no such destination."""
        with self._lock:
            known = self._connection.execute(
                "select 1 from destinations where destination_id = ?", (destination_id,)
            ).fetchone()
            rows = self._connection.execute(
                "select * from deliveries where destination_id = ? and delivery_id > ? and (? is null or state = ?) "
                "order by delivery_id limit ?",
                (destination_id, after, state, state, most),
            ).fetchall()
        return [_delivery(row) for row in rows] if known else None

    def redeliver(self, destination_id: str, at: datetime) -> int | None:
        """Make the dead deliveries of a destination due again. How many; None when there is no such destination."""
        with self._writing() as run:
            if not run("select 1 from destinations where destination_id = ?", (destination_id,)).fetchone():
                return None
            revived = run(
                "update deliveries set state = 'pending', attempt_count = 0, due_at = ? "
                "where destination_id = ? and state = 'dead'",
                (_text(at), destination_id),
            )
            return int(revived.rowcount)

    def secret(self, destination_id: str) -> str:
        """What a destination's messages are signed with: derived from the home's key, kept nowhere."""
        return "whsec_" + b64encode(hmac.digest(self._secret, destination_id.encode(), "sha256")).decode()

    def fill(self, destination: Destination, ledger: Ledger, at: datetime) -> None:
        """Put every event from the destination's cursor on that concerns its purposes into the outbox."""
        cursor, size = destination.cursor, ledger.size
        while cursor < size:
            stop = min(size, cursor + AT_ONCE)
            rows = [
                (destination.destination_id, each.leaf_index, subject_key(each.event.subject_id), _text(at))
                for each in ledger.events(cursor, stop)
                if concerns(each.event, destination.purposes)
            ]
            with self._writing() as run:
                moved = run(
                    "update destinations set cursor = ? where destination_id = ? and cursor = ?",
                    (stop, destination.destination_id, cursor),
                ).rowcount
                if not moved:
                    return  # removed, or moved by another process
                self._connection.executemany(
                    "insert or ignore into deliveries (destination_id, leaf_index, subject_key, state, due_at) "
                    "values (?, ?, ?, 'pending', ?)",
                    rows,
                )
            cursor = stop

    def due(self, destination_id: str, at: datetime, most: int) -> list[Delivery]:
        """Deliveries to try now, oldest leaf first: of each subject the first that is pending, if its time has come."""
        with self._lock:
            rows = self._connection.execute(
                "select * from deliveries where delivery_id in ("
                "  select first from (select min(leaf_index), delivery_id as first, due_at from deliveries"
                "  where destination_id = ? and state = 'pending' group by subject_key) where due_at <= ?"
                ") order by leaf_index limit ?",
                (destination_id, _text(at), most),
            ).fetchall()
        return [_delivery(row) for row in rows]

    def settle(self, delivery: Delivery, outcome: Outcome, state: str, at: datetime, due_at: datetime) -> None:
        """Write down how an attempt ended and what the delivery is now."""
        with self._writing() as run:
            run(
                "update deliveries set state = ?, attempt_count = attempt_count + 1, due_at = ?, last_attempt_at = ?, "
                "last_status = ?, last_fault = ?, receipt_id = ? where delivery_id = ?",
                (
                    *(state, _text(due_at), _text(at), outcome.status, outcome.fault, outcome.receipt_id),
                    delivery.delivery_id,
                ),
            )

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        with self._lock:
            self._connection.execute("begin immediate")
            try:
                yield self._connection.execute
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise


def concerns(event: Event, purposes: Sequence[str]) -> bool:
    """Whether a destination with these purposes must hear of an event. A signal may reach any purpose: all hear it."""
    return event.purpose_code in (EVERY, *purposes) or event.event_type in (*TOUCHING_ALL, "signal_seen")


def subject_key(subject_id: str) -> bytes:
    """The key under which a subject stands in the public log: says nothing to who does not have the token."""
    return sha256(b"troth-consent-subject-v1\0" + subject_id.encode()).digest()[:16]


def is_destination_id(text: str) -> bool:
    return re.fullmatch(r"dst_[0-9a-f]{16}", text) is not None


def _text(at: datetime) -> str:
    """One spelling, so that text order is time order."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _delivery(row: sqlite3.Row) -> Delivery:
    return Delivery(
        delivery_id=row["delivery_id"],
        leaf_index=row["leaf_index"],
        state=row["state"],
        attempt_count=row["attempt_count"],
        due_at=datetime.fromisoformat(row["due_at"]),
        last_attempt_at=datetime.fromisoformat(row["last_attempt_at"]) if row["last_attempt_at"] else None,
        last_status=row["last_status"],
        last_fault=row["last_fault"],
        receipt_id=row["receipt_id"],
    )
