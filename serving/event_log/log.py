"""The durable event log of the near-time path: what was acknowledged is here, in one order, until everybody has had it.

`EventLog` is what a log is to those who write and read it: four methods, which a broker could answer too. `Log` is ours, in SQLite or
PostgreSQL, with what an operator needs besides. Dead letters: `letters.py`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import accumulate, pairwise
from typing import Any, Literal, Protocol

import msgspec

from serving.event_log.databases import RETRY_SECONDS, Database, PostgresDatabase, SQLiteDatabase
from serving.event_log.events import EVENT_TYPES, Event, EventConflictError, LogError, LogFullError, NewEvent
from serving.event_log.group import GroupCommit
from serving.event_log.letters import Letters, NewLetter
from troth.clock import microseconds, moment
from troth.home import Home
from troth.settings import given_log

LOG_FILE = "events.db"
PROJECTOR, LANDING = "projector", "landing"  # the consumers every home has
_CONFLICT = "event_id: expected the content it was first sent with, found another."
_GROUP = 5_000  # events in one transaction
_AT_ONCE = 500  # ids looked up in one query
_DISK_SECONDS = 1.0  # how old what is known of the disk may be
_COLUMNS = (
    "event_offset, source_name, event_id, event_type, topic, order_key, occurred_at, recorded_at, received_at, payload"
)
_READ = f"select {_COLUMNS} from events where event_offset > ? order by event_offset limit ?"  # noqa: S608 (our own columns)
_ADD_EVENT = f"insert into events ({_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_ADD_KNOWN = "insert into known_events (event_key, event_offset, content_key, received_at) values (?, ?, ?, ?)"
_COUNT = "insert into counters values (?, ?) on conflict (counter_name) do update set counted = counters.counted + excluded.counted"


class EventLog(Protocol):
    """What writers and readers of the log need of it."""

    def append(self, events: Sequence[NewEvent]) -> list[int]:
        """Offsets of events, durable on return; one whose id its source used before keeps its first offset.

        Raises: LogFullError (nothing was kept), EventConflictError, LogError.
        """
        ...

    def read(self, after: int, limit: int) -> list[Event]:
        """Up to `limit` events behind an offset, in order, none left out."""
        ...

    def commit(self, consumer: str, offset: int) -> None:
        """A consumer has had everything up to an offset, and will not ask for it again. It never goes back."""
        ...

    def position(self, consumer: str) -> int:
        """The offset a consumer committed; 0 before it did."""
        ...


@dataclass(frozen=True)
class Bounds:
    """How much the log takes. Behind a bound it refuses, with a time to try again, rather than grow without end."""

    most_bytes: int = 900_000  # of one payload; readers of landed files take lines of a million
    most_events: int = 1_000  # of one append
    # Events a consumer may be behind. A landing is a cycle behind by design: 15 minutes of 1,000 events a second are 900,000.
    most_behind: dict[str, int] = field(default_factory=lambda: {PROJECTOR: 200_000})
    most_behind_otherwise: int = 20_000_000
    least_free_bytes: int = 256 * 1024 * 1024
    most_letters: int = 100_000


Kind = Literal["new", "known", "conflict"]


class Verdict(msgspec.Struct, frozen=True):
    """What became of one event: its offset (of a conflict, the one its id has) and whether it was new."""

    offset: int
    kind: Kind


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """How far a consumer is, and how old the oldest event is that it has not had."""

    consumer_name: str
    offset: int
    behind: int
    oldest_received_at: datetime | None
    committed_at: datetime | None


class Log:
    """The home's event log. Threads share it, and other processes may append and read meanwhile."""

    def __init__(self, database: Database, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self.letters = Letters(database, self.bounds.most_letters)
        self._database = database
        self._line: GroupCommit[Sequence[NewEvent], list[Verdict]] = GroupCommit(self._take, len, _GROUP)
        self._looked_at = float("-inf")
        self._is_disk_full = False

    def close(self) -> None:
        self._database.close()

    def append(self, events: Sequence[NewEvent]) -> list[int]:
        verdicts = self.take(events)
        if odd := [position for position, verdict in enumerate(verdicts) if verdict.kind == "conflict"]:
            raise EventConflictError(
                f"events {odd[:10]}: expected ids not used before, or used for the same content, found another content. "
                "They are set aside, the others are kept: give them ids of their own.",
                odd,
            )
        return [verdict.offset for verdict in verdicts]

    def take(self, events: Sequence[NewEvent]) -> list[Verdict]:
        """What became of each event, durable on return; what conflicts is set aside as a dead letter.

        Raises: LogFullError (nothing was kept), LogError.
        """
        if len(events) > self.bounds.most_events:
            raise LogError(
                f"events: expected at most {self.bounds.most_events}, found {len(events)}. Send fewer at once."
            )
        for position, event in enumerate(events):
            self._check(position, event)
        return self._line.submit(events) if events else []

    def read(self, after: int, limit: int) -> list[Event]:
        rows = self._database.read(_READ, (after, limit))
        return [_event(row) for row in rows]

    def commit(self, consumer: str, offset: int) -> None:
        with self._database.writing():
            if offset > self._head():
                raise LogError(f"offset: expected at most {self._head()}, found {offset}. Commit what was read.")
            self._database.write(
                "insert into consumers values (?, ?, ?) on conflict (consumer_name) do update set "
                "event_offset = excluded.event_offset, committed_at = excluded.committed_at "
                "where consumers.event_offset < excluded.event_offset",
                [(consumer, offset, microseconds(datetime.now(UTC)))],
            )

    def position(self, consumer: str) -> int:
        rows = self._database.read("select event_offset from consumers where consumer_name = ?", (consumer,))
        return int(rows[0][0]) if rows else 0

    def head(self) -> int:
        """The newest offset; 0 of an empty log."""
        return self._head()

    def first(self) -> int:
        """The oldest offset that is still here; 0 of an empty log."""
        return int(self._database.read("select coalesce(min(event_offset), 0) from events")[0][0])

    def counters(self) -> dict[str, int]:
        """How often events came again (`known`) and how many conflicted (`conflict`), since the log was made."""
        found = {str(row[0]): int(row[1]) for row in self._database.read("select counter_name, counted from counters")}
        return {"known": 0, "conflict": 0} | found

    def consumers(self) -> list[Consumer]:
        """How far everybody is who ever committed."""
        head = self._head()
        rows = self._database.read(
            "select consumer_name, event_offset, committed_at, (select min(received_at) from events where events.event_offset "
            "= (select min(event_offset) from events where events.event_offset > consumers.event_offset)) "
            "from consumers order by consumer_name"
        )
        return [
            Consumer(
                consumer_name=str(row[0]),
                offset=int(row[1]),
                behind=max(0, head - int(row[1])),
                oldest_received_at=None if row[3] is None else moment(row[3]),
                committed_at=moment(row[2]),
            )
            for row in rows
        ]

    def forget_consumer(self, consumer: str) -> bool:
        """A consumer that is no more holds nothing back. False when there was none of that name."""
        with self._database.writing():
            was = self._database.read("select 1 from consumers where consumer_name = ?", (consumer,))
            self._database.write("delete from consumers where consumer_name = ?", [(consumer,)])
        return bool(was)

    def trim(self, before: int, remembered_since: datetime | None = None) -> int:
        """Remove events before an offset that every consumer has had, landing and projector among them; how many.

        Their ids stay known, and settled dead letters listed, but for those before `remembered_since`. The newest event stays, and with it the place
        the next offset follows.
        """
        with self._database.writing():
            had = [self.position(LANDING), self.position(PROJECTOR), *(each.offset for each in self.consumers())]
            before = min(before, min(had) + 1, self._head())
            count = self._database.read("select count(*) from events where event_offset < ?", (before,))[0][0]
            self._database.write("delete from events where event_offset < ?", [(before,)])
            if remembered_since is not None:
                self._database.write(
                    "delete from known_events where received_at < ? and event_offset < ?",
                    [(microseconds(remembered_since), before)],
                )
                self._database.write(
                    "delete from dead_letters where state <> 'waiting' and settled_at < ?",
                    [(microseconds(remembered_since),)],
                )
        return int(count)

    def trim_older(self, received_before: datetime, remembered_since: datetime | None = None) -> int:
        """Trim what was received before a time, as far as `trim` may go."""
        query = "select coalesce(min(event_offset), 0) from events where received_at >= ?"
        younger = int(self._database.read(query, (microseconds(received_before),))[0][0])
        return self.trim(younger or self._head(), remembered_since)

    def blank(self, offsets: Sequence[int]) -> int:
        """Empty the payloads and order keys of events, leaving no trace of them in the database's files; how many."""
        return self.rewrite(dict.fromkeys(offsets, b""))

    def rewrite(self, payloads: Mapping[int, bytes]) -> int:
        """Put other payloads in the place of those of some offsets, and leave no trace of these; how many. An empty one takes the order key with it.

        Their ids stay known, whatever content they come with again.
        """
        if not payloads:
            return 0
        with self._database.writing():
            there = self._there(list(payloads))
            for statement, rows in (
                ("update events set payload = ? where event_offset = ?", [(payloads[each], each) for each in there]),
                (
                    "update events set order_key = '' where event_offset = ?",
                    [(each,) for each in there if not payloads[each]],
                ),
                ("update known_events set content_key = ? where event_offset = ?", [(b"", each) for each in there]),
            ):
                self._database.write(statement, rows)
        self.shred()
        return len(there)

    def shred(self) -> None:
        """Leave no trace of removed content in the database's files."""
        self._database.shred()

    def _there(self, offsets: Sequence[int]) -> list[int]:
        found: list[int] = []
        for at in range(0, len(offsets), _AT_ONCE):
            some = list(offsets[at : at + _AT_ONCE])
            query = f"select event_offset from events where event_offset in ({_marks(some)})"  # noqa: S608 (question marks)
            rows = self._database.read(query, some)
            found += [int(row[0]) for row in rows]
        return found

    def _check(self, position: int, event: NewEvent) -> None:
        if event.event_type not in EVENT_TYPES:
            raise LogError(f"event {position}: expected a type of {', '.join(EVENT_TYPES)}, found another. Correct it.")
        if not 0 < len(event.payload) <= self.bounds.most_bytes:
            raise LogError(
                f"event {position}: expected a payload of 1 to {self.bounds.most_bytes} bytes, found {len(event.payload)}. "
                "Send less in one event."
            )
        texts = (event.source_name, event.event_id, event.key, event.topic)
        if not (event.source_name and event.event_id) or any("\0" in text or len(text) > 500 for text in texts):
            raise LogError(
                f"event {position}: expected a source, an id and a key of at most 500 characters, found otherwise. Correct it."
            )

    def _take(self, batches: Sequence[Sequence[NewEvent]]) -> list[list[Verdict]]:
        """One transaction for the batches of all who wait."""
        events = [event for batch in batches for event in batch]
        keys = [_event_key(event) for event in events]
        contents = [_content_key(event) for event in events]
        verdicts: list[Verdict] = []
        with self._database.writing():
            head = self._head()
            self._refuse_when_full(head)
            known = self._known(keys)
            rows: list[tuple[object, ...]] = []
            ids: list[tuple[object, ...]] = []
            conflicts: list[NewLetter] = []
            for event, key, content in zip(events, keys, contents, strict=True):
                if key not in known:
                    offset = head + len(rows) + 1
                    known[key] = (offset, content)
                    rows.append(_row(offset, event))
                    ids.append((key, offset, content, microseconds(event.received_at)))
                    verdicts.append(Verdict(offset, "new"))
                    continue
                offset, before = known[key]
                is_same = before in (content, b"")  # of who was erased nobody knows what it was
                verdicts.append(Verdict(offset, "known" if is_same else "conflict"))
                if not is_same:
                    conflicts.append(NewLetter.of(event, offset, "log", "conflict", _CONFLICT))
            self._database.write(_ADD_EVENT, rows)
            self._database.write(_ADD_KNOWN, ids)
            counted = {"known": len(events) - len(rows) - len(conflicts), "conflict": len(conflicts)}
            self._database.write(_COUNT, [each for each in counted.items() if each[1]])
            self.letters.add_within(conflicts)
        starts = accumulate((len(batch) for batch in batches), initial=0)
        return [verdicts[start:stop] for start, stop in pairwise(starts)]

    def _known(self, keys: Sequence[bytes]) -> dict[bytes, tuple[int, bytes]]:
        found: dict[bytes, tuple[int, bytes]] = {}
        for at in range(0, len(keys), _AT_ONCE):
            some = keys[at : at + _AT_ONCE]
            query = f"select event_key, event_offset, content_key from known_events where event_key in ({_marks(some)})"  # noqa: S608
            rows = self._database.read(query, some)
            found |= {bytes(row[0]): (int(row[1]), bytes(row[2])) for row in rows}
        return found

    def _head(self) -> int:
        return int(self._database.read("select coalesce(max(event_offset), 0) from events")[0][0])

    def _refuse_when_full(self, head: int) -> None:
        """Raises: LogFullError when somebody who reads is too far behind, or the disk has no room."""
        for name, offset in self._database.read("select consumer_name, event_offset from consumers") or [
            ("anybody", 0)
        ]:
            most = self.bounds.most_behind.get(name, self.bounds.most_behind_otherwise)
            if head - offset >= most:
                raise LogFullError(
                    f"event log: expected {name} less than {most} events behind, found it further. Send it again later; "
                    "see `troth events status`.",
                    RETRY_SECONDS,
                )
        if time.monotonic() - self._looked_at >= _DISK_SECONDS:
            free = self._database.free_bytes()
            self._is_disk_full = free is not None and free < self.bounds.least_free_bytes
            self._looked_at = time.monotonic()
        if self._is_disk_full:
            raise LogFullError(
                f"event log: expected {self.bounds.least_free_bytes} bytes free on its disk, found less. Make room.",
                RETRY_SECONDS,
            )


def open_log(home: Home, bounds: Bounds | None = None) -> Log:
    """The home's event log, made on first use: in PostgreSQL where `TROTH_LOG` says so, else a file of the home."""
    address = given_log()
    database: Database = SQLiteDatabase(home.log / LOG_FILE) if address is None else PostgresDatabase(address)
    return Log(database, bounds)


def has_log(home: Home) -> bool:
    """Whether there may be a log to look into; makes nothing."""
    return given_log() is not None or (home.log / LOG_FILE).exists()


def _event_key(event: NewEvent) -> bytes:
    """What an event is known by, long after the event itself is gone; it tells nobody what the id was."""
    return blake2b(f"{event.source_name}\0{event.event_id}".encode(), digest_size=16).digest()


def _content_key(event: NewEvent) -> bytes:
    head = f"{event.event_type}\0{event.topic}\0{event.key}\0".encode()
    return blake2b(head + (event.same_by or event.payload), digest_size=16).digest()


def _row(offset: int, event: NewEvent) -> tuple[object, ...]:
    return (
        *(offset, event.source_name, event.event_id, event.event_type, event.topic, event.key),
        *(microseconds(at) for at in (event.occurred_at, event.recorded_at, event.received_at)),
        event.payload,
    )


def _event(row: Any) -> Event:
    offset, source_name, event_id, event_type, topic, key, occurred, recorded, received, payload = row
    return Event(
        offset=offset,
        source_name=source_name,
        event_id=event_id,
        event_type=event_type,
        topic=topic,
        key=key,
        occurred_at=moment(occurred),
        recorded_at=moment(recorded),
        received_at=moment(received),
        payload=bytes(payload),
    )


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
