"""Dead letters: what could not be taken as an event, or not applied, kept with its reason until somebody mends or drops it.

A reason names fields and positions, never a value. What was sent stands in `payload`, which may hold contact data: no list shows it.
"""

from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b

import msgspec

from serving.event_log.databases import Database
from serving.event_log.events import NewEvent
from troth.clock import microseconds, moment

STATES = ("waiting", "replayed", "dropped")
_ADD = (
    "insert into dead_letters (letter_key, route, source_name, event_id, event_type, topic, reason_code, detail, event_offset, "
    "received_at, seen_count, state, settled_at, payload) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 'waiting', null, ?) "
    "on conflict (letter_key) do update set seen_count = dead_letters.seen_count + 1, state = 'waiting', settled_at = null"
)
_COLUMNS = "letter_id, route, source_name, event_id, event_type, topic, reason_code, detail, event_offset, received_at, seen_count, state"
_LIST = f"select {_COLUMNS} from dead_letters where letter_id > ? and (? = '' or state = ?) order by letter_id limit ?"  # noqa: S608 (our own columns)


class NewLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Something set aside: by which route it came, and why it could not be taken. `event_offset`: of the event in the log it is about."""

    route: str
    source_name: str
    reason_code: str
    detail: str
    received_at: datetime
    payload: bytes
    event_id: str = ""
    event_type: str = ""
    topic: str = ""
    event_offset: int | None = None

    @classmethod
    def of(cls, event: NewEvent, offset: int, route: str, reason_code: str, detail: str) -> "NewLetter":
        """An event of the log, or one that would have been."""
        return cls(
            route=route,
            source_name=event.source_name,
            event_id=event.event_id,
            event_type=event.event_type,
            topic=event.topic,
            reason_code=reason_code,
            detail=detail,
            event_offset=offset,
            received_at=event.received_at,
            payload=event.payload,
        )


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter as a list shows it: everything but what was sent."""

    letter_id: int
    route: str
    source_name: str
    event_id: str
    event_type: str
    topic: str
    reason_code: str
    detail: str
    event_offset: int | None
    received_at: datetime
    seen_count: int
    state: str


class Letters:
    """The dead letters of a log, in its database."""

    def __init__(self, database: Database, most: int) -> None:
        self._database, self._most = database, most

    def add(self, letters: Sequence[NewLetter]) -> bool:
        """Set letters aside, durable on return; the same one again is counted. False, and none kept, when there are too many."""
        if not letters:
            return True
        with self._database.writing():
            if self.count("waiting") + len(letters) > self._most:
                return False
            self.add_within(letters)
        return True

    def add_within(self, letters: Sequence[NewLetter]) -> None:
        """The same inside a transaction of the log, however many there are."""
        self._database.write(_ADD, [_row(letter) for letter in letters])

    def count(self, state: str) -> int:
        return int(self._database.read("select count(*) from dead_letters where state = ?", (state,))[0][0])

    def list(self, state: str | None = "waiting", after: int = 0, most: int = 1_000) -> list[Letter]:
        """Letters by number behind one, without what was sent; of every state for None."""
        rows = self._database.read(_LIST, (after, state or "", state or "", most))
        return [_letter(row) for row in rows]

    def payload(self, letter_id: int) -> bytes:
        """What was sent; nothing when there is no such letter, or it was erased."""
        rows = self._database.read("select payload from dead_letters where letter_id = ?", (letter_id,))
        return bytes(rows[0][0]) if rows else b""

    def settle(self, letter_ids: Sequence[int], state: str, at: datetime) -> None:
        """Letters are replayed or dropped; what they held is emptied."""
        settled_at = microseconds(at)
        with self._database.writing():
            self._database.write(
                "update dead_letters set state = ?, settled_at = ? where letter_id = ?",
                [(state, settled_at, each) for each in letter_ids],
            )
            self.blank_within(letter_ids)

    def erase(self, letter_ids: Sequence[int], at: datetime) -> int:
        """Empty what letters held and drop those that wait; how many. The log's files keep a trace until it is shredded."""
        waiting = [
            each.letter_id for each in self.list("waiting", most=self._most) if each.letter_id in set(letter_ids)
        ]
        self.settle(waiting, "dropped", at)
        return len(waiting)

    def blank_within(self, letter_ids: Sequence[int]) -> None:
        """Empty what letters held, inside a transaction of the log; their keys, which rest on it, go too."""
        self._database.write(
            "update dead_letters set payload = ?, letter_key = ? where letter_id = ?",
            [(b"", f"erased/{each}".encode(), each) for each in letter_ids],
        )


def _row(letter: NewLetter) -> tuple[object, ...]:
    head = f"{letter.route}\0{letter.source_name}\0{letter.event_id}\0{letter.topic}\0{letter.reason_code}\0".encode()
    return (
        blake2b(head + letter.payload, digest_size=16).digest(),
        *(letter.route, letter.source_name, letter.event_id, letter.event_type, letter.topic),
        *(letter.reason_code, letter.detail, letter.event_offset),
        microseconds(letter.received_at),
        letter.payload,
    )


def _letter(row: Sequence[object]) -> Letter:
    names = (name.strip() for name in _COLUMNS.split(","))
    values = dict(zip(names, row, strict=True))
    values["received_at"] = moment(int(values["received_at"]))  # type: ignore[call-overload]
    return msgspec.convert(values, Letter)
