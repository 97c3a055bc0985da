"""The promises that were given, written once and never changed, and how much of each slot they take.

The seam is `Recorder`: whoever keeps promises elsewhere, an event log say, gives the same three answers. A record names no person and no
place of theirs: distances are left out, for three of them would tell where somebody lives.
"""

import sqlite3
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Protocol

import msgspec

from models.promise.asking import Option, Promise
from troth.sqlite import write_ahead

_FRESH_SECONDS = 0.25  # how old what is known of other processes' promises may be
_SCHEMA = """
create table if not exists promises (
    number integer primary key, promise_id text not null unique, key text unique, given_at text not null, body blob not null
);
create table if not exists work (number integer primary key, location_code text not null, starts_at integer not null, lines integer not null);
"""


class Recorder(Protocol):
    """Keeps promises that were given. Every call may be repeated without harm."""

    def record(self, promise: Promise, key: str | None) -> Promise:
        """Keep it, durably. Gives the one that was kept under this key before, where there is one."""
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
        self._connection.executescript(_SCHEMA)
        self._lines: dict[tuple[str, int], int] = {}
        self._read_to, self._read_at = 0, float("-inf")

    def close(self) -> None:
        self._connection.close()

    def record(self, promise: Promise, key: str | None) -> Promise:
        kept = without_distances(promise)
        with self._lock:
            self._connection.execute("begin immediate")
            try:
                before = None if key is None else self._find("key", key)
                if before is None:
                    self._connection.execute(
                        "insert or ignore into promises (promise_id, key, given_at, body) values (?, ?, ?, ?)",
                        (promise.promise_id, key, promise.asked_at.isoformat(), msgspec.json.encode(kept)),
                    )
                    self._connection.executemany(
                        "insert into work (location_code, starts_at, lines) values (?, ?, ?)",
                        [
                            (parcel.location_code, int(parcel.starts_at.timestamp()), len(parcel.lines))
                            for parcel in (promise.chosen.parcels if promise.chosen else ())
                        ],
                    )
            except BaseException:
                self._connection.execute("rollback")
                raise
            self._connection.execute("commit")
        return before or promise

    def of_key(self, key: str) -> Promise | None:
        with self._lock:
            return self._find("key", key)

    def of_id(self, promise_id: str) -> Promise | None:
        with self._lock:
            return self._find("promise_id", promise_id)

    def ages(self) -> list[tuple[datetime, float]]:
        """When each promise was given, and how many seconds old the stock was that it rested on, where that was known."""
        query = "select given_at, json_extract(cast(body as text), '$.age_seconds') as age from promises where age is not null order by number"
        with self._lock:
            rows = self._connection.execute(query).fetchall()
        return [(datetime.fromisoformat(given_at), float(seconds)) for given_at, seconds in rows]

    def load(self, location_code: str, starts_at: int) -> int:
        """Lines promised in a slot, those of other processes as of a moment ago."""
        now = time.monotonic()
        if now - self._read_at > _FRESH_SECONDS:
            with self._lock:
                query = "select number, location_code, starts_at, lines from work where number > ? order by number"
                for number, code, starts, lines in self._connection.execute(query, (self._read_to,)).fetchall():
                    self._lines[code, starts] = self._lines.get((code, starts), 0) + lines
                    self._read_to = number
                self._read_at = now
        return self._lines.get((location_code, starts_at), 0)

    def _find(self, column: str, value: str) -> Promise | None:
        query = {
            "key": "select body from promises where key = ?",
            "promise_id": "select body from promises where promise_id = ?",
        }
        row = self._connection.execute(query[column], (value,)).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=Promise)


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
