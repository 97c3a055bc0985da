"""How old the stock was that answers rested on when they were given: counted by hour, kind of answer and bucket, and nothing else kept.

A running service counts in memory and adds what it counted to a small file of the home now and then, and when it is stopped.
"""

import sqlite3
import threading
from bisect import bisect_left
from collections.abc import Iterable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from troth.home import Home
from troth.sqlite import write_ahead

Kind = Literal["promise", "held_promise", "availability", "promisable"]
# Upper ends in seconds, ten to each power of ten; the last bucket is of what is older than them all.
BOUNDS = tuple(10 ** (step / 10) for step in range(-10, 61))
KEPT = timedelta(days=800)
_PAUSE_SECONDS = 20.0
_SCHEMA = """
create table if not exists answer_ages (
    hour integer not null, kind text not null, bucket integer not null, answers integer not null, seconds real not null,
    primary key (hour, kind, bucket)
) without rowid;
"""
_ADD = """
insert into answer_ages values (?, ?, ?, ?, ?) on conflict (hour, kind, bucket)
do update set answers = answers + excluded.answers, seconds = seconds + excluded.seconds
"""


class Aged(NamedTuple):
    """Answers of a kind in an hour and bucket (number in `BOUNDS`), and their ages in sum."""

    hour: datetime
    kind: str
    bucket: int
    answers: int
    seconds: float


class HasAge(Protocol):
    @property
    def age_seconds(self) -> float | None: ...


class Ages:
    """The ages of a service's answers. Threads share it; the file is made when there is something to write."""

    def __init__(self, home: Home, pause_seconds: float = _PAUSE_SECONDS) -> None:
        self._path, self._pause = _path(home), pause_seconds
        self._counts: dict[tuple[int, str, int], tuple[int, float]] = {}
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._writing: threading.Thread | None = None

    def note(self, kind: Kind, at: datetime, found: Iterable[HasAge]) -> None:
        """Count one answer, by the first of what it found whose age is known: all of one answer is read at once."""
        for each in found:
            age = each.age_seconds
            if age is None:
                continue
            key = (int(at.timestamp()) // 3600, kind, bucket_of(age))
            with self._lock:
                answers, seconds = self._counts.get(key, (0, 0.0))
                self._counts[key] = answers + 1, seconds + age
                if self._writing is None:
                    self._begin()
            return

    def flush(self) -> None:
        """Add what was counted to the file. What cannot be written now is kept for later."""
        with self._lock:
            counts, self._counts = self._counts, {}
        if not counts:
            return
        try:
            self._write(counts)
        except (sqlite3.Error, OSError):
            with self._lock:
                for key, (answers, seconds) in counts.items():
                    more = self._counts.get(key, (0, 0.0))
                    self._counts[key] = answers + more[0], seconds + more[1]

    def close(self) -> None:
        self._stopped.set()
        if self._writing is not None:
            self._writing.join()
        self.flush()

    def _begin(self) -> None:
        self._writing = threading.Thread(target=self._run, name="answer ages", daemon=True)
        self._writing.start()

    def _run(self) -> None:
        while not self._stopped.wait(self._pause):
            self.flush()

    def _write(self, counts: dict[tuple[int, str, int], tuple[int, float]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=30, isolation_level=None)) as connection:
            write_ahead(connection)
            connection.executescript(_SCHEMA)
            with connection:
                connection.execute("begin immediate")
                connection.executemany(_ADD, [(*key, *counted) for key, counted in counts.items()])
                oldest = max(hour for hour, _, _ in counts) - int(KEPT.total_seconds()) // 3600
                connection.execute("delete from answer_ages where hour < ?", (oldest,))


def bucket_of(age_seconds: float) -> int:
    """The first bucket whose upper end an age does not exceed."""
    return bisect_left(BOUNDS, age_seconds)


def read_ages(home: Home) -> list[Aged]:
    """What services of a home counted and wrote down, by hour; nothing where none ever ran."""
    path = _path(home)
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=30)) as connection, suppress(sqlite3.OperationalError):
        rows = connection.execute("select hour, kind, bucket, answers, seconds from answer_ages").fetchall()
        return [Aged(datetime.fromtimestamp(hour * 3600, UTC), *counted) for hour, *counted in rows]
    return []


def _path(home: Home) -> Path:
    return home.stock / "answer_ages.db"
