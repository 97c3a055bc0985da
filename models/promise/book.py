"""The promises that were given, written once and never changed, and how much of each slot they take.

The seam is `Recorder`: whoever keeps promises elsewhere, an event log say, gives the same three answers. A record names no person and no
place of theirs: distances are left out, for three of them would tell where somebody lives.
"""

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from models.promise.asking import Option, Parcel, Promise
from models.promise.loads import Hands
from troth.sqlite import write_ahead

_FRESH_SECONDS = 0.25  # how old what is known of other processes' promises may be
_SCHEMA = """
create table if not exists promises (
    number integer primary key, promise_id text not null unique, key text unique, given_at text not null, body blob not null
);
create table if not exists taken (
    number integer primary key, location_code text not null, starts_at integer not null, is_pickup integer not null, lines integer not null
);
create index if not exists taken_by_hands on taken (location_code, starts_at, is_pickup, lines);
"""
# Until hands of a slot and of a departure were told apart there was a table `work`.
_FROM_WORK = """
insert into taken (location_code, starts_at, is_pickup, lines)
select value ->> 'location_code', unixepoch(value ->> 'starts_at'), value ->> 'carrier' is null, json_array_length(value, '$.lines')
from promises, json_each(cast(body as text), '$.chosen.parcels');
drop table work;
"""
_TAKEN = "select coalesce(sum(lines), 0) from taken where location_code = ? and starts_at = ? and is_pickup = ?"


class Full(msgspec.Struct, frozen=True):
    """Nothing was kept, for these hands have no room for it: the lines promised of each."""

    loads: dict[Hands, int]


class Recorder(Protocol):
    """Keeps promises that were given. Every call may be repeated without harm."""

    def record(self, promise: Promise, key: str | None, capacity: Mapping[Hands, int]) -> Promise | Full:
        """Keep it, durably, and take its lines of their hands: both or, where more lines than their `capacity` would be promised of
        some, neither. Gives the one that was kept under this key before, where there is one."""
        ...

    def of_key(self, key: str) -> Promise | None: ...

    def of_id(self, promise_id: str) -> Promise | None: ...


class Book:
    """A `Recorder` in a SQLite file, and the `Loads` that follow from it. Threads and processes share it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
        write_ahead(self._connection)
        self._connection.execute("pragma synchronous = full")
        self._make_tables()
        self._lines: Counter[Hands] = Counter()
        self._read_to, self._read_at = 0, float("-inf")

    def close(self) -> None:
        self._connection.close()

    def record(self, promise: Promise, key: str | None, capacity: Mapping[Hands, int]) -> Promise | Full:
        work = work_of(promise, capacity)
        with self._lock:
            self._connection.execute("begin immediate")  # whoever else counts or takes hands waits
            try:
                before = self._find("promise_id", promise.promise_id) if key is None else self._find("key", key)
                full = {} if before else self._without_room(work, capacity)
                if before is None and not full:
                    self._add(promise, key, work)
            except BaseException:
                self._connection.execute("rollback")
                raise
            self._connection.execute("commit")
        return Full(full) if full else before or promise

    def of_key(self, key: str) -> Promise | None:
        with self._lock:
            return self._find("key", key)

    def of_id(self, promise_id: str) -> Promise | None:
        with self._lock:
            return self._find("promise_id", promise_id)

    def load(self, hands: Hands) -> int:
        """Lines promised of some hands, those of other processes as of a moment ago."""
        now = time.monotonic()
        if now - self._read_at > _FRESH_SECONDS:
            with self._lock:
                query = "select number, location_code, starts_at, is_pickup, lines from taken where number > ? order by number"
                for number, code, starts, is_pickup, lines in self._connection.execute(
                    query, (self._read_to,)
                ).fetchall():
                    self._lines[Hands(code, starts, bool(is_pickup))] += lines
                    self._read_to = number
                self._read_at = now
        return self._lines.get(hands, 0)

    def _without_room(self, work: Mapping[Hands, int], capacity: Mapping[Hands, int]) -> dict[Hands, int]:
        """Hands that the work is too much for, with what is promised of them."""
        promised = {
            hands: int(self._connection.execute(_TAKEN, hands).fetchone()[0]) for hands in work if hands in capacity
        }
        return {hands: lines for hands, lines in promised.items() if lines + work[hands] > capacity[hands]}

    def _add(self, promise: Promise, key: str | None, work: Mapping[Hands, int]) -> None:
        body = msgspec.json.encode(without_distances(promise))
        self._connection.execute(
            "insert into promises (promise_id, key, given_at, body) values (?, ?, ?, ?)",
            (promise.promise_id, key, promise.asked_at.isoformat(), body),
        )
        self._connection.executemany(
            "insert into taken (location_code, starts_at, is_pickup, lines) values (?, ?, ?, ?)",
            [(*hands, lines) for hands, lines in work.items()],
        )

    def _find(self, column: str, value: str) -> Promise | None:
        query = {
            "key": "select body from promises where key = ?",
            "promise_id": "select body from promises where promise_id = ?",
        }
        row = self._connection.execute(query[column], (value,)).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=Promise)

    def _make_tables(self) -> None:
        self._connection.executescript(_SCHEMA)
        with self._connection:
            self._connection.execute("begin immediate")
            if self._connection.execute("select 1 from sqlite_master where name = 'work'").fetchone():
                for statement in _FROM_WORK.split(";"):
                    self._connection.execute(statement)


def hands_of(parcel: Parcel) -> Hands:
    """Who gets a parcel ready."""
    return Hands(parcel.location_code, int(parcel.starts_at.timestamp()), parcel.carrier is None)


def work_of(promise: Promise, capacity: Mapping[Hands, int]) -> dict[Hands, int]:
    """Lines that a promise takes of each hands; more than they have in all is all they have."""
    lines: Counter[Hands] = Counter()
    for parcel in promise.chosen.parcels if promise.chosen else ():
        lines[hands_of(parcel)] += len(parcel.lines)
    return {hands: min(count, capacity.get(hands, count)) for hands, count in lines.items()}


def without_distances(promise: Promise) -> Promise:
    """A promise as it is kept."""
    return msgspec.structs.replace(
        promise,
        chosen=_unplaced(promise.chosen) if promise.chosen else None,
        runners_up=tuple(_unplaced(option) for option in promise.runners_up),
    )


def _unplaced(option: Option) -> Option:
    parcels = tuple(msgspec.structs.replace(parcel, distance_km=None) for parcel in option.parcels)
    return msgspec.structs.replace(option, parcels=parcels)
