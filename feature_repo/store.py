"""The embedded online store: one packed value per entity and view, in one SQLite file. Knows nothing of Feast.

Writers take the file's one write lock for a whole batch, so a reader sees a batch entirely or not at all.
Whose rows may be read, and for what, is decided in `reads.py`; nothing else hands rows to anybody.
"""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.catalogue import Entity, View
from feature_repo.errors import FeatureError
from feature_repo.packed import Layout, Row
from troth.sqlite import write_ahead

if TYPE_CHECKING:
    import polars as pl

FILE_NAME = "online.db"
_TABLES = """
create table if not exists views (
    view_id integer primary key, name text not null unique, version text, as_of_us integer
);
create table if not exists layouts (schema_id integer primary key, definition text not null);
create table if not exists entity_rows (
    view_id integer not null, entity text not null, event_us integer not null, value blob not null,
    primary key (view_id, entity)
) without rowid;
create table if not exists tombstones (mark blob primary key, erased_us integer not null) without rowid;
"""
# `cross join` keeps SQLite to this order: keys asked for, then one look into the primary key for each.
_READ = """
select views.name, entity_rows.entity, entity_rows.event_us, entity_rows.value, views.version
from json_each(?) as asked_views
cross join views on views.name = asked_views.value
cross join json_each(?) as asked_keys
cross join entity_rows on entity_rows.view_id = views.view_id and entity_rows.entity = asked_keys.value
"""
_ANY = "select event_us, value, version from entity_rows join views using (view_id) where name = ? limit 1"
_LAYOUT = "select definition from layouts where schema_id = ?"
_READ_FOR_MERGE = """
select entity, event_us, value from entity_rows where view_id = ? and entity in (select value from json_each(?))
"""
_UPSERT = """
insert into entity_rows (view_id, entity, event_us, value) values (?, ?, ?, ?)
on conflict (view_id, entity) do update set event_us = excluded.event_us, value = excluded.value
"""


@dataclass(frozen=True)
class Written:
    """What became of a batch: `written` are new or changed, `skipped` older than what is there, `unchanged` equal."""

    written: int = 0
    skipped: int = 0
    unchanged: int = 0
    removed: int = 0


@dataclass(frozen=True)
class StoredRow:
    """A row as stored: when it was true, what it says, and the published version its view stands at."""

    event_us: int
    values: Row
    version: str | None


def entity_key(entity: Entity, values: Sequence[Any]) -> str:
    """The text an entity is stored under. All parts but the last carry their length, so no two entities share one."""
    if len(values) != len(entity.join_keys) or any(value is None for value in values):
        raise FeatureError(
            f"entity {entity.name}: expected values of {list(entity.join_keys)}, found others. Give each of them."
        )
    *head, last = [str(value) for value in values]
    return "".join(f"{len(part.encode())}:{part}" for part in head) + last


def entity_values(entity: Entity, key: str) -> list[str]:
    """The parts of a stored key: the inverse of `entity_key`."""
    values = []
    rest = key.encode()
    for _ in entity.join_keys[1:]:
        length, _, rest = rest.partition(b":")
        values.append(rest[: int(length)].decode())
        rest = rest[int(length) :]
    return [*values, rest.decode()]


class PackedStore:
    """Online rows of one home. Safe to share between threads: each has its own connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._layouts: dict[int, Layout] = {}

    def read(self, views: Iterable[str], keys: Iterable[str]) -> dict[tuple[str, str], StoredRow]:
        """Rows by (view, key), in one query. What is not there is not in the answer."""
        found = self._reader().execute(_READ, (json.dumps(list(views)), json.dumps(list(keys)))).fetchall()
        return {(view, key): StoredRow(at, self._decode(value), version) for view, key, at, value, version in found}

    def scan(self, view: str, prefix: str = "") -> dict[str, StoredRow]:
        """All rows of a view whose key begins so, by key."""
        found = self._reader().execute(
            "select entity, event_us, value, version from entity_rows join views using (view_id) "
            "where name = ? and entity >= ? and entity < ?",
            (view, prefix, prefix + "\U0010ffff"),
        )
        return {key: StoredRow(at, self._decode(value), version) for key, at, value, version in found}

    def any_row(self, view: str) -> StoredRow | None:
        """Some row of a view, or None: enough to see what a projection has seen."""
        found = self._reader().execute(_ANY, (view,)).fetchone()
        return StoredRow(found[0], self._decode(found[1]), found[2]) if found else None

    def versions(self) -> dict[str, tuple[str | None, int | None]]:
        """Per view: the published version it stands at, and the newest event time of that version in microseconds."""
        return {
            name: (version, at)
            for name, version, at in self._reader().execute("select name, version, as_of_us from views")
        }

    def count(self, view: str) -> int:
        """Rows held for a view."""
        query = "select count(*) from entity_rows join views using (view_id) where name = ?"
        return int(self._reader().execute(query, (view,)).fetchone()[0])

    def write_rows(self, view: View, rows: Sequence[tuple[Sequence[Any], int, Mapping[str, Any]]]) -> Written:
        """Write (key values, event microseconds, features) one by one encoded: for small batches.

        Of several rows of one entity the newest is kept; at the same time, the last given.
        """
        layout = Layout(view.online_fields)
        newest: dict[str, tuple[int, bytes]] = {}
        for values, event_us, features in rows:
            key = entity_key(view.entity, values)
            if key not in newest or newest[key][0] <= event_us:
                newest[key] = (event_us, layout.encode(features))
        with self._writing() as connection:
            counts = self._merge(connection, view, layout, [(key, *rest) for key, rest in newest.items()])
        return Written(counts.written, counts.skipped + len(rows) - len(newest), counts.unchanged)

    def write_frame(self, view: View, frame: "pl.DataFrame") -> Written:
        """Write a frame with the view's keys, event column and fields: vectorised, under the event-time guard."""
        layout = Layout(view.online_fields)
        rows = encoded(view, layout, frame)
        with self._writing() as connection:
            counts = self._merge(connection, view, layout, rows)
        return Written(counts.written, counts.skipped + frame.height - len(rows), counts.unchanged)

    def replace(self, view: View, frame: "pl.DataFrame", version: str) -> Written:
        """Make a full version the content of a view: write what changed, remove what it no longer has.

        A row with a newer event time than anything in the version came over the near-time path and stays.
        """
        layout = Layout(view.online_fields)
        rows = encoded(view, layout, frame)
        as_of_us = max((row[1] for row in rows), default=0)
        with self._writing() as connection:
            counts = self._merge(connection, view, layout, rows)
            view_id = _view_id(connection, view.name)
            held = connection.execute(
                "select entity from entity_rows where view_id = ? and event_us <= ?", (view_id, as_of_us)
            )
            gone = {key for (key,) in held}.difference(row[0] for row in rows)
            connection.executemany(
                "delete from entity_rows where view_id = ? and entity = ?", [(view_id, key) for key in gone]
            )
            connection.execute(
                "update views set version = ?, as_of_us = ? where view_id = ?", (version, as_of_us, view_id)
            )
        return Written(counts.written, counts.skipped + frame.height - len(rows), counts.unchanged, removed=len(gone))

    def keep(self, views: Iterable[str]) -> None:
        """Make room for views, so that an empty store answers 'not found' instead of failing."""
        with self._writing() as connection:
            for name in views:
                _view_id(connection, name)

    def drop(self, views: Iterable[str]) -> None:
        """Forget views and all their rows."""
        with self._writing() as connection:
            for name in views:
                view_id = _view_id(connection, name)
                connection.execute("delete from entity_rows where view_id = ?", (view_id,))
                connection.execute("delete from views where view_id = ?", (view_id,))

    def erase(self, keys: Iterable[str], erased_us: int) -> int:
        """Remove entities from every view, and rows of others that name them; how many rows went.

        A late write of what was true before does not bring them back: a tombstone, which names nobody, keeps it out.
        """
        if not self.path.exists():
            return 0
        asked = list(dict.fromkeys(keys))
        with self._writing() as connection:
            connection.execute("pragma secure_delete = on")
            connection.executemany(
                "insert into tombstones values (?, ?) "
                "on conflict (mark) do update set erased_us = max(erased_us, excluded.erased_us)",
                [(_mark(key), erased_us) for key in asked],
            )
            removed = connection.execute(
                "delete from entity_rows where exists (select 1 from json_each(?) as gone "
                "where entity_rows.entity = gone.value or instr(entity_rows.value, cast(gone.value as blob)) > 0)",
                (json.dumps(asked),),
            ).rowcount
        self._rewrite()
        return removed

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
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def close(self) -> None:
        """Close this thread's connection."""
        connection = self._local.__dict__.pop("reader", None)
        if connection is not None:
            connection.close()

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = self._local.__dict__.get("reader")
        if connection is None:
            if not self.path.exists():
                raise FeatureError(f"online store: expected {self.path}, found no file. Run `troth run` first.")
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=5
            )
            self._local.reader = connection
        return connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A connection inside one write transaction; committed at the end, rolled back on any error."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=60)
        try:
            write_ahead(connection)
            connection.execute("pragma synchronous = normal")  # after a power cut the store is published again
            connection.executescript(_TABLES)
            connection.execute("begin immediate")
            yield connection
            connection.execute("commit")
        finally:
            connection.close()  # an open transaction is rolled back

    def _merge(
        self, connection: sqlite3.Connection, view: View, layout: Layout, rows: Sequence[tuple[str, int, bytes]]
    ) -> Written:
        """Write the rows that are new, newer or corrected; leave equal ones; never let an older one win."""
        view_id = _view_id(connection, view.name)
        connection.execute("insert or ignore into layouts values (?, ?)", (layout.schema_id, layout.definition))
        offered = len(rows)
        rows = _without_erased(connection, rows)
        keys = json.dumps([row[0] for row in rows])
        held = {key: (at, value) for key, at, value in connection.execute(_READ_FOR_MERGE, (view_id, keys))}
        changes = []
        skipped, unchanged = offered - len(rows), 0
        for key, event_us, value in rows:
            before = held.get(key)
            if before is None or before[0] < event_us:
                changes.append((view_id, key, event_us, value))
            elif before[0] > event_us:
                skipped += 1
            elif before[1] == value:
                unchanged += 1
            else:
                changes.append((view_id, key, event_us, value))
        connection.executemany(_UPSERT, changes)
        return Written(len(changes), skipped, unchanged)

    def _decode(self, value: bytes) -> Row:
        schema_id = int.from_bytes(value[:4], "little")
        layout = self._layouts.get(schema_id)
        if layout is None:
            row = self._reader().execute(_LAYOUT, (schema_id,)).fetchone()
            if row is None:
                raise FeatureError(
                    f"online store: expected the layout {schema_id}, found none. "
                    f"Delete {self.path.name} and run `troth run`."
                )
            layout = self._layouts[schema_id] = Layout.of_definition(row[0])
        return layout.decode(value)


def online_store(features: Path) -> PackedStore:
    """The store in a home's `features` folder."""
    return PackedStore(features / FILE_NAME)


def encoded(view: View, layout: Layout, frame: "pl.DataFrame") -> list[tuple[str, int, bytes]]:
    """(key, event microseconds, value) of the newest row of each entity, sorted by key.

    Raises: FeatureError when a key or an event time is missing.
    """
    import polars as pl

    needed = (*view.entity.join_keys, view.event_column)
    for name in needed:
        if name not in frame.columns or frame[name].null_count():
            raise FeatureError(
                f"view {view.name}: expected a value of {name} in every row, found none in some. Drop or fix them."
            )
    *head, last = [pl.col(name).cast(pl.String) for name in view.entity.join_keys]
    marked = [pl.concat_str(part.str.len_bytes(), pl.lit(":"), part) for part in head]
    key = pl.concat_str(*marked, last).alias("entity")
    event = pl.col(view.event_column).cast(pl.Datetime("us")).cast(pl.Int64).alias("event_us")
    rows = frame.with_columns(key, event).sort("entity", "event_us", maintain_order=True)
    rows = rows.unique("entity", keep="last", maintain_order=True)
    return list(zip(rows["entity"].to_list(), rows["event_us"].to_list(), layout.encode_frame(rows), strict=True))


def _without_erased(
    connection: sqlite3.Connection, rows: Sequence[tuple[str, int, bytes]]
) -> Sequence[tuple[str, int, bytes]]:
    """Rows without those that tell of an erased entity as it was before."""
    erased = dict(connection.execute("select mark, erased_us from tombstones").fetchall())
    return [row for row in rows if erased.get(_mark(row[0]), row[1] - 1) < row[1]] if erased else rows


def _mark(key: str) -> bytes:
    """What a tombstone knows an entity by."""
    return hashlib.sha256(b"troth-online-tombstone-v1\0" + key.encode()).digest()[:16]


def _view_id(connection: sqlite3.Connection, name: str) -> int:
    connection.execute("insert or ignore into views (name) values (?)", (name,))
    return int(connection.execute("select view_id from views where name = ?", (name,)).fetchone()[0])
