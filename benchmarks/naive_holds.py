"""The peer of `holds`: look whether there is enough, line by line, then take it in a second transaction. Many shops did, or do.

Synced like ours, and nothing else of ours: no key, no sum of two lines of one position, no lock between the two.
"""

import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any, Protocol

from models.stock.holds.words import HeldLine, Hold, Level, Line, Refusal, Request, Settlement, Shortage

_TABLES = (
    "create table if not exists naive_free (location_code text, sku text, units bigint, primary key (location_code, sku))",
    "create table if not exists naive_held (hold_id text, location_code text, sku text, units bigint, expires_at double precision)",
    "create index if not exists naive_held_position on naive_held (location_code, sku)",
    "create index if not exists naive_held_hold on naive_held (hold_id)",
)


class _Database(Protocol):
    def set_free(self, rows: Sequence[tuple[str, str, int]]) -> None: ...
    def level(self, location_code: str, sku: str, at: float) -> Level | None: ...
    def take(self, hold_id: str, lines: Sequence[Line], expires_at: float) -> None: ...
    def end(self, hold_id: str, lines: Sequence[Line], is_order: bool) -> None: ...
    def close(self) -> None: ...


class NaiveHolds:
    def __init__(self, database: _Database) -> None:
        self._database = database
        self._lines: dict[str, Sequence[Line]] = {}

    def set_free(self, rows: Sequence[tuple[str, str, int]], version: int) -> None:
        self._database.set_free(rows)

    def hold(self, request: Request, at: datetime) -> Hold | Refusal:
        for line in request.lines:
            level = self._database.level(line.location_code, line.sku, at.timestamp())
            if level is None:
                return Refusal("unknown_position", (Shortage(*line),))
            if line.units > level.available_units:
                return Refusal("not_enough", (Shortage(*line, level.free_units, level.held_units),))
        hold_id, expires_at = secrets.token_hex(8), at + request.lasting
        self._database.take(hold_id, request.lines, expires_at.timestamp())
        self._lines[hold_id] = request.lines
        lines = tuple(HeldLine(*line, 0, line.units) for line in request.lines)
        return Hold(hold_id, request.key, "held", lines, at, expires_at)

    def release(self, hold_id: str, at: datetime) -> None:
        self._database.end(hold_id, self._lines[hold_id], is_order=False)

    def settle(self, hold_id: str, at: datetime) -> Settlement:
        lines = self._lines[hold_id]
        self._database.end(hold_id, lines, is_order=True)
        return Settlement(Hold(hold_id, "", "settled", (), at, at), "held")

    def close(self) -> None:
        self._database.close()


class _Tables:
    """A connection for each thread; `mark` stands for a value in a statement."""

    mark = "?"

    def __init__(self, place: str) -> None:
        self._place, self._mine = place, threading.local()
        with self._transaction() as connection:
            for statement in _TABLES:
                connection.execute(statement)

    def set_free(self, rows: Sequence[tuple[str, str, int]]) -> None:
        for row in rows:
            self._write("insert into naive_free values (?, ?, ?)", [row])

    def level(self, location_code: str, sku: str, at: float) -> Level | None:
        free = "select units from naive_free where location_code = ? and sku = ?"
        held = "select coalesce(sum(units), 0) from naive_held where location_code = ? and sku = ? and expires_at > ?"
        with self._transaction() as connection:
            found = connection.execute(self._said(free), (location_code, sku)).fetchone()
            taken = connection.execute(self._said(held), (location_code, sku, at)).fetchone()
        return Level(found[0], int(taken[0])) if found else None

    def take(self, hold_id: str, lines: Sequence[Line], expires_at: float) -> None:
        self._write("insert into naive_held values (?, ?, ?, ?, ?)", [(hold_id, *line, expires_at) for line in lines])

    def end(self, hold_id: str, lines: Sequence[Line], is_order: bool) -> None:
        self._write("delete from naive_held where hold_id = ?", [(hold_id,)])
        for line in lines if is_order else ():
            less = "update naive_free set units = units - ? where location_code = ? and sku = ?"
            self._write(less, [(line.units, line.location_code, line.sku)])

    def close(self) -> None:
        """Connections are the threads'."""

    def _write(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        with self._transaction() as connection:
            for row in rows:
                connection.execute(self._said(statement), row)

    def _said(self, statement: str) -> str:
        return statement.replace("?", self.mark)

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        if not hasattr(self._mine, "connection"):
            self._mine.connection = self._connect()
        with self._begun(self._mine.connection):
            yield self._mine.connection

    def _begun(self, connection: Any) -> AbstractContextManager[Any]:
        begun: AbstractContextManager[Any] = connection
        return begun

    def _connect(self) -> Any:
        connection = sqlite3.connect(self._place, timeout=60)
        connection.execute("pragma synchronous = full")
        return connection


class _PostgresTables(_Tables):
    mark = "%s"

    def _begun(self, connection: Any) -> AbstractContextManager[Any]:
        begun: AbstractContextManager[Any] = connection.transaction()
        return begun

    def _connect(self) -> Any:
        import psycopg

        return psycopg.connect(self._place, autocommit=True)


class _Redis:
    def __init__(self, place: str) -> None:
        import redis

        self._client: Any = redis.Redis.from_url(place)

    def set_free(self, rows: Sequence[tuple[str, str, int]]) -> None:
        for location_code, sku, units in rows:
            self._client.hset("naive:free", f"{location_code} {sku}", units)

    def level(self, location_code: str, sku: str, at: float) -> Level | None:
        free = self._client.hget("naive:free", f"{location_code} {sku}")
        held = self._client.zrangebyscore(f"naive:held:{location_code} {sku}", f"({at}", "+inf")
        return Level(int(free), sum(int(member.split()[0]) for member in held)) if free else None

    def take(self, hold_id: str, lines: Sequence[Line], expires_at: float) -> None:
        with self._client.pipeline() as transaction:
            for n, line in enumerate(lines):
                member = f"{line.units} {hold_id} {n}"
                transaction.zadd(f"naive:held:{line.location_code} {line.sku}", {member: expires_at})
            transaction.execute()

    def end(self, hold_id: str, lines: Sequence[Line], is_order: bool) -> None:
        with self._client.pipeline() as transaction:
            for n, line in enumerate(lines):
                transaction.zrem(f"naive:held:{line.location_code} {line.sku}", f"{line.units} {hold_id} {n}")
                if is_order:
                    transaction.hincrby("naive:free", f"{line.location_code} {line.sku}", -line.units)
            transaction.execute()

    def close(self) -> None:
        self._client.close()


def naive_holds(place: str) -> NaiveHolds:
    """In a SQLite file that is in write-ahead mode already, in PostgreSQL or in Redis."""
    if place.startswith("redis://"):
        return NaiveHolds(_Redis(place))
    return NaiveHolds(_PostgresTables(place) if place.startswith("postgresql://") else _Tables(place))
