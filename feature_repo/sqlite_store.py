"""The embedded online store: one packed value per entity and view, in one SQLite file.

Writers take the file's one write lock for a whole batch, so a reader sees a batch, or a published version, entirely or not at all.
"""

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.catalogue import Entity, View
from feature_repo.errors import FeatureError
from feature_repo.packed import layout_of
from feature_repo.store import Fetched, OnlineStore, Refresh, Standing, StoredRow, Written
from troth.sqlite import write_ahead

if TYPE_CHECKING:
    from feature_repo.columns import Encoded

_NOTHING, _NEVER = Standing(), -(2**63)
VERSION = 5  # of the tables; another is emptied, for whatever is in it is published again
# How a row came: at once, over the near-time path; with a published version; or so that it goes on being true with later ones.
AT_ONCE, PUBLISHED, FOLLOWS = 0, 1, 2
_TABLES = """
create table if not exists views (
    view_id integer primary key, name text not null unique, entity text not null, version text, as_of_us integer, row_count integer, mark integer
);
create table if not exists layouts (schema_id integer primary key, definition text not null);
create table if not exists entity_rows (
    view_id integer not null, entity text not null, event_us integer not null, came integer not null, value blob not null,
    primary key (entity, view_id)
) without rowid;
create index if not exists at_once on entity_rows (view_id) where came = 0;
create table if not exists tombstones (mark blob primary key, erased_us integer not null) without rowid;
create table if not exists erasures (erasure_id integer primary key autoincrement);
"""
# What a row that goes on being true says, it says as of the newest version.
_AT = "iif(entity_rows.came = 2, max(entity_rows.event_us, coalesce(views.as_of_us, 0)), entity_rows.event_us)"
_SCAN = f"""
select entity_rows.entity, {_AT}, entity_rows.value from views join entity_rows using (view_id) where name = ? and entity_rows.entity >= ? and entity_rows.entity < ?
"""  # noqa: S608 (as above)
_STANDINGS = "select name, version, as_of_us, row_count, mark from views where name in (select value from json_each(?))"
_LAYOUT = "select definition from layouts where schema_id = ?"
_HELD = (
    "select event_us, came, entity from entity_rows where view_id = ? and entity in (select value from json_each(?))"
)
# Asked of a row that is there: its event time, given the newest of the version that is read.
_WAS = "iif(came = 2, max(event_us, ?), event_us)"
_UPSERT = f"""
insert into entity_rows (view_id, entity, event_us, came, value) values (?, ?, ?, ?, ?)
on conflict (view_id, entity) do update set event_us = excluded.event_us, came = excluded.came, value = excluded.value
where excluded.event_us >= {_WAS} and not (excluded.value = value and (excluded.event_us = {_WAS} or (excluded.came = 2 and came = 2)))
"""  # noqa: S608 (constants alone)


class SqliteStore(OnlineStore):
    """Online rows of one home. Each thread has its own connection."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._local = threading.local()

    def exists(self) -> bool:
        return self.path.exists()

    def fetch(self, views: Sequence[View], keys: Sequence[str]) -> Fetched:
        names = [view.name for view in views]
        told = self._asked(_read_of(len(names)), (*names, json.dumps(keys)))
        by_name = {row[1]: _standing(*row[2:6]) for row in told[: -len(keys) or None]}
        standings = [by_name.get(name, _NOTHING) for name in names]
        columns = list(zip(*told[len(told) - len(keys) :], strict=True)) or [()] * (3 * len(names) + 1)
        found = [
            _rows(columns[place], columns[place + 1], columns[place + 2], standing.as_of_us or _NEVER)
            for place, standing in zip(range(1, len(columns), 3), standings, strict=False)
        ]
        return Fetched(found, standings)

    def scan(self, view: View, prefix: str = "") -> Iterator[tuple[str, StoredRow]]:
        (standing,) = self.standings([view])
        for key, at, value in self._asked(_SCAN, (view.name, prefix, prefix + "\U0010ffff")):
            yield key, StoredRow(at, self.decoded(value), standing.version)

    def standings(self, views: Sequence[View]) -> list[Standing]:
        names = [view.name for view in views]
        found = {
            name: _standing(version, as_of_us, count, mark)
            for name, version, as_of_us, count, mark in self._asked(_STANDINGS, (json.dumps(names),))
        }
        return [found.get(name, _NOTHING) for name in names]

    def write(self, view: View, rows: "Encoded") -> Written:
        with self._writing() as connection:
            return _Writing(connection, view, is_at_once=True).write(rows, AT_ONCE)[0]

    @contextmanager
    def refresh(self, view: View, version: str, as_of_us: int, rows: int, mark: int | None = None) -> Iterator[Refresh]:
        with self._writing() as connection:
            coming = _Coming(_Writing(connection, view), as_of_us)
            yield coming
            connection.execute(
                "update views set version = ?, as_of_us = ?, row_count = ?, mark = ? where name = ?",
                (version, as_of_us, rows, mark, view.name),
            )

    def touched(self, view: View) -> set[str]:
        found = self._asked(
            "select entity_rows.entity from entity_rows join views using (view_id) where name = ? and came = 0",
            (view.name,),
        )
        return {key for (key,) in found}

    def keep(self, views: Iterable[View]) -> None:
        with self._writing() as connection:
            for view in views:
                _view_id(connection, view)

    def drop(self, views: Iterable[View]) -> None:
        with self._writing() as connection:
            for view in views:
                view_id = _view_id(connection, view)
                connection.execute("delete from entity_rows where view_id = ?", (view_id,))
                connection.execute("delete from views where view_id = ?", (view_id,))

    def erase(self, entity: Entity | None, keys: Sequence[str], erased_us: int) -> int:
        if not self.path.exists():
            return 0
        asked = list(dict.fromkeys(keys))
        kind = "+".join(entity.join_keys) if entity else None
        with self._writing() as connection:
            connection.execute("pragma secure_delete = on")
            connection.execute("insert into erasures default values")
            connection.executemany(
                "insert into tombstones values (?, ?) "
                "on conflict (mark) do update set erased_us = max(erased_us, excluded.erased_us)",
                [(_mark(key, kind), erased_us) for key in asked],
            )
            removed = connection.execute(
                "delete from entity_rows where exists (select 1 from json_each(?) as gone where entity_rows.entity = gone.value "
                "or (? is null and instr(entity_rows.value, cast(gone.value as blob)) > 0)) "
                "and (? is null or view_id in (select view_id from views where entity = ?))",
                (json.dumps(asked), kind, kind, kind),
            ).rowcount
        self._rewrite()
        return removed

    def erasures(self) -> int:
        return int(self._asked("select coalesce(max(erasure_id), 0) from erasures", ())[0][0])

    def _rewrite(self) -> None:
        """Write the file anew: values that were overwritten or removed are not in it any more."""
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=60)
        try:
            connection.execute("vacuum")
            if connection.execute("pragma wal_checkpoint(truncate)").fetchone()[0]:
                raise FeatureError("online store: expected to empty its journal, found it being read. Try again.")
        finally:
            connection.close()

    def destroy(self) -> None:
        """Remove the file and what SQLite keeps beside it."""
        self.close()
        self._layouts.clear()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def close(self) -> None:
        kept = self._local.__dict__.pop("reader", None)
        if kept is not None:
            kept[1].close()

    def _definition(self, schema_id: int) -> str | None:
        found = self._asked(_LAYOUT, (schema_id,))
        return found[0][0] if found else None

    def _asked(self, query: str, given: Sequence[Any]) -> list[Any]:
        """All rows of a query. Raises: FeatureError for a file that is not there or cannot be read."""
        try:
            return self._reader().execute(query, given).fetchall()
        except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
            raise
        except sqlite3.Error as fault:
            self.close()
            raise FeatureError(
                f"online store: expected a file that can be read, found {type(fault).__name__}. Try again, or run `troth run`."
            ) from None

    def _reader(self) -> sqlite3.Connection:
        """This thread's connection, for as long as the file is the same one."""
        try:
            now = os.stat(self.path)
        except FileNotFoundError:
            self.close()
            raise FeatureError(f"online store: expected {self.path}, found no file. Run `troth run` first.") from None
        kept: tuple[int, sqlite3.Connection] | None = self._local.__dict__.get("reader")
        if kept is not None and kept[0] == now.st_ino:
            return kept[1]
        self.close()
        connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=5)  # fmt: skip
        if connection.execute("pragma user_version").fetchone()[0] != VERSION:
            connection.close()
            raise FeatureError(
                f"online store: expected tables of version {VERSION}, found others. Run `troth run`: it publishes again."
            )
        self._local.reader = now.st_ino, connection
        return connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A connection inside one write transaction; committed at the end, rolled back on any error."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=60)
        try:
            write_ahead(connection)
            connection.execute("pragma synchronous = normal")  # after a power cut the store is published again
            connection.execute("begin immediate")
            _prepare(connection)
            yield connection
            connection.execute("commit")
        finally:
            connection.close()  # an open transaction is rolled back


class _Writing:
    """Rows of one view into an open transaction, under the guard."""

    def __init__(self, connection: sqlite3.Connection, view: View, *, is_at_once: bool = False) -> None:
        layout = layout_of(view.online_fields)
        self.connection, self._kind = connection, "+".join(view.entity.join_keys)
        self.view_id = _view_id(connection, view)
        connection.execute("insert or ignore into layouts values (?, ?)", (layout.schema_id, layout.definition))
        self._erased = dict(connection.execute("select mark, erased_us from tombstones").fetchall())
        # What follows versions says so as of the newest to what is written at once; among versions the row's own time counts.
        told = connection.execute(
            "select coalesce(as_of_us, 0) from views where view_id = ?", (self.view_id,)
        ).fetchone()
        self._as_of_us = told[0] if is_at_once else _NEVER

    def write(self, rows: "Encoded", came: int, follows: Sequence[bool] | None = None) -> tuple[Written, list[str]]:
        """Rows that are new, newer or corrected; equal ones are left alone, and older ones never win: their keys are told."""
        view_id, as_of_us = self.view_id, self._as_of_us
        keys: list[str] = rows.keys.cast("string").to_pylist()
        events, values = rows.event_us.tolist(), rows.values.to_pylist()
        cames = [FOLLOWS if each else came for each in follows] if follows is not None else [came] * len(keys)
        given = [
            (view_id, key, at, how, value, as_of_us, as_of_us)
            for key, at, how, value in zip(keys, events, cames, values, strict=True)
            if not (self._erased and self._is_erased(key, at))
        ]
        before = self.connection.total_changes
        self.connection.executemany(_UPSERT, given)
        written = self.connection.total_changes - before
        skipped = list(set(keys).difference(row[1] for row in given)) if self._erased else []
        if written < len(given):
            skipped += self._older(given)
        return Written(written, len(skipped), len(keys) - written - len(skipped)), skipped

    def remove(self, keys: Sequence[str], as_of_us: int) -> int:
        """Entities that are gone as of a time; what is newer stays."""
        before = self.connection.total_changes
        self.connection.executemany(
            f"delete from entity_rows where view_id = ? and entity = ? and {_WAS} <= ?",  # noqa: S608 (a constant)
            [(self.view_id, key, self._as_of_us, as_of_us) for key in keys],
        )
        return self.connection.total_changes - before

    def _older(self, given: Sequence[tuple[Any, ...]]) -> list[str]:
        """Keys of rows, that were written where they could be, of which something newer is there."""
        asked = json.dumps([row[1] for row in given])
        held = {key: (at, came) for at, came, key in self.connection.execute(_HELD, (self.view_id, asked))}
        older = []
        for _, key, at, _, _, as_of_us, _ in given:
            was, came = held[key]
            if (max(was, as_of_us) if came == FOLLOWS else was) > at:
                older.append(key)
        return older

    def _is_erased(self, key: str, at: int) -> bool:
        return any(self._erased.get(_mark(key, kind), at - 1) >= at for kind in (None, self._kind))


class _Coming(Refresh):
    """A version on its way into the file."""

    def __init__(self, writing: _Writing, as_of_us: int) -> None:
        super().__init__()
        self._writing, self._as_of_us = writing, as_of_us

    def write(self, rows: "Encoded", follows: Sequence[bool] | None = None) -> None:
        written, skipped = self._writing.write(rows, PUBLISHED, follows)
        self.written += written
        self.skipped += skipped

    def remove(self, keys: Sequence[str]) -> None:
        removed = self._writing.remove(keys, self._as_of_us)
        self.written += Written(removed=removed)


@lru_cache(maxsize=256)
def _standing(version: str | None, as_of_us: int | None, count: int | None, mark: int | None) -> Standing:
    return Standing(version, as_of_us, count or 0, mark)


def _rows(
    times: Sequence[int], cames: Sequence[int], values: Sequence[bytes | None], as_of_us: int
) -> list[tuple[int, bytes] | None]:
    """Rows of a view. What one says that goes on being true, it says as of the newest version."""
    if None not in values:  # as nearly always, and then mostly all came in one way
        follow = cames.count(FOLLOWS)
        if not follow:
            return list(zip(times, values, strict=True))  # type: ignore[arg-type]
        if follow == len(cames) and max(times) <= as_of_us:
            return [(as_of_us, value) for value in values]  # type: ignore[misc]
    return [
        None if value is None else (as_of_us if how == FOLLOWS and as_of_us > at else at, value)
        for at, how, value in zip(times, cames, values, strict=True)
    ]


@lru_cache(maxsize=64)
def _read_of(views: int) -> str:
    """What so many views stand at, and then for each key what each has: in one statement, and so as of one moment."""
    numbers = range(views)
    columns = [f"r{n}.{name}" for n in numbers for name in ("event_us", "came", "value")]
    width = 1 + max(len(columns), 5)
    standing = ["'view'", "name", "version", "as_of_us", "row_count", "mark"]
    joins = " ".join(
        f"left join entity_rows r{n} on r{n}.entity = keys.value and r{n}.view_id = (select view_id from views where name = ?{n + 1})"  # noqa: S608 (numbers alone)
        for n in numbers
    )
    # Numbered marks: the names of views stand twice.
    return (
        f"select {', '.join(standing + ['null'] * (width - len(standing)))} from views where name in ({', '.join(f'?{n + 1}' for n in numbers)}) "  # noqa: S608 (constants and marks alone)
        f"union all select {', '.join(['null', *columns] + ['null'] * (width - 1 - len(columns)))} from json_each(?{views + 1}) as keys {joins}"
    )


def _prepare(connection: sqlite3.Connection) -> None:
    """Tables of this version; those of another are emptied, but for tombstones."""
    found = connection.execute("pragma user_version").fetchone()[0]
    if found != VERSION:
        for table in ("views", "layouts", "entity_rows"):
            connection.execute(f"drop table if exists {table}")  # a constant
        connection.execute(f"pragma user_version = {VERSION}")
        for statement in _TABLES.split(";"):
            connection.execute(statement)


def _view_id(connection: sqlite3.Connection, view: View) -> int:
    connection.execute("insert or ignore into views (name, entity) values (?, ?)", (view.name, "+".join(view.entity.join_keys)))  # fmt: skip
    return int(connection.execute("select view_id from views where name = ?", (view.name,)).fetchone()[0])


def _mark(key: str, kind: str | None) -> bytes:
    """What a tombstone knows an entity by: of one kind, or of all."""
    said = key.encode() if kind is None else kind.encode() + b"\0" + key.encode()
    return hashlib.sha256(b"troth-online-tombstone-v1\0" + said).digest()[:16]
