"""A copy in Feast's own layout, in a file of Feast's own SQLite store."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from feature_repo.compat import Copy
from feature_repo.errors import FeatureError
from feature_repo.feast_import import feast
from feature_repo.feast_views import Bound
from feature_repo.store import OnlineStore as PackedStore

feast()  # first, so that what follows does not import Feast the slow way

from feast.infra.online_stores.helpers import compute_table_id  # noqa: E402
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig  # noqa: E402


class SqliteCopy(Copy):
    """In a file of Feast's own SQLite store."""

    faults = (sqlite3.Error,)

    def __init__(self, kept: PackedStore, config: Any, bound: Callable[[Any], Bound], path: str | None) -> None:
        """`path`: as Feast's; null is `feast.db` beside ours."""
        ours = Path(config.online_store.path).absolute()
        self._path = (config.repo_path or Path()).absolute() / path if path else ours.with_name("feast.db")
        if self._path == ours:
            raise FeatureError(
                f"compat_path: expected another file than `path`, found {self._path}. Give one of its own."
            )
        super().__init__(kept, config, bound, SqliteOnlineStoreConfig(path=str(self._path)))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """As for all; the file is opened each time, for it may be another one now, and Feast would go on writing to the one that is gone."""
        with super()._told():
            self._stock = SqliteOnlineStore()
            try:
                yield
            finally:
                if self._stock._conn is not None:
                    self._stock._conn.close()

    def teardown(self, tables: Sequence[Any]) -> None:
        with self._told():
            self._stock.teardown(self._settings, tables, [])

    def _make_room(self, tables: Sequence[Any]) -> None:
        self._stock.update(self._settings, [], tables, [], [], True)

    def _remove(self, table: Any, names: Sequence[bytes]) -> None:
        with self._writing() as connection:
            name = self._table(table)
            if connection.execute("select 1 from sqlite_master where type = 'table' and name = ?", (name,)).fetchone():
                connection.execute("pragma secure_delete = on")
                connection.executemany(
                    f"delete from {_quoted(name)} where entity_key = ?",  # noqa: S608 (a name)
                    [(each,) for each in names],
                )

    def _there(self, table: Any) -> Iterator[bytes]:
        with self._writing() as connection:
            found = connection.execute(f"select distinct entity_key from {_quoted(self._table(table))}").fetchall()  # noqa: S608 (a name)
        for (name,) in found:
            yield name

    def _drop(self, tables: Sequence[Any]) -> None:
        self._stock.update(self._settings, tables, [], [], [], True)

    def _marks(self) -> dict[str, str]:
        with self._writing() as connection:
            return dict(
                connection.execute('select view, mark from "!compat" where project = ?', (self._config.project,))
            )

    def _mark(self, table: Any, mark: str) -> None:
        with self._writing() as connection:
            connection.execute(
                'insert into "!compat" values (?, ?, ?) on conflict do update set mark = excluded.mark where mark <> excluded.mark',
                (self._config.project, self._name(table), mark),
            )

    def _table(self, table: Any) -> str:
        versioning = self._config.registry.enable_online_feature_view_versioning
        return str(compute_table_id(self._config.project, table, versioning))

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=60)) as connection, connection:
            # Feast's tables begin with the name of a project, which has no such letter.
            connection.execute('create table if not exists "!compat" (project text, view text, mark text, primary key (project, view))')  # fmt: skip
            yield connection


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
