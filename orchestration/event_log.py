"""Dagster's SQLite event log, with batches written as batches.

A backfill of 60 trading days reports a materialization per table and day. The stock SQLite storage opens several
connections for each event (16 ms an event, 26 s for 17 tables, 2 cores, Dagster 1.13.27); Dagster hands events of one
step over in batches when DAGSTER_EVENT_BATCH_SIZE is set, and this class writes such a batch in one transaction per file.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Self

from dagster._core.events import ASSET_EVENTS
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, create_engine, event

BUSY_SECONDS = 60


class BatchingSqliteEventLogStorage(SqliteEventLogStorage):
    """SqliteEventLogStorage whose `store_event_batch` is one transaction instead of a loop of single writes, and which
    keeps an engine per file: with it SQLAlchemy remembers the statements it has compiled."""

    @cached_property
    def _engines(self) -> dict[str, Engine]:
        return {}

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            engine = self._engines.get(shard)
            if engine is None:
                # Connections stay open: closing a file's last one makes SQLite write its whole log back and sync twice.
                engine = create_engine(self.conn_string_for_shard(shard), connect_args={"timeout": BUSY_SECONDS})
                event.listen(engine, "connect", _sync_at_checkpoints)
                self._initdb(engine)
                self._initialized_dbs.add(shard)
                self._engines[shard] = engine
            with engine.connect() as connection, connection.begin():
                yield connection

    def has_table(self, table_name: str) -> bool:
        if table_name not in self._tables:
            self._tables[table_name] = super().has_table(table_name)
        return self._tables[table_name]

    @cached_property
    def _tables(self) -> dict[str, bool]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data=inst_data, **config_value)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        batchable = [entry for entry in events if entry.is_dagster_event and entry.dagster_event_type in ASSET_EVENTS]
        if len(batchable) != len(events) or len({entry.run_id for entry in events}) != 1:
            super().store_event_batch(events)
            return
        inserts = [self.prepare_insert_event(entry) for entry in events]
        with self.run_connection(events[0].run_id) as connection:
            for insert in inserts:
                connection.execute(insert)
        newest = {}
        with self.index_transaction() as connection:
            ids = [int((connection.execute(insert).inserted_primary_key or (0,))[0]) for insert in inserts]
            self._store_asset_event_tags(connection, events, ids)
            for entry, entry_id in zip(events, ids, strict=True):
                newest[entry.get_dagster_event().asset_key, entry.dagster_event_type] = (entry, entry_id)
            for entry, entry_id in newest.values():
                self._store_asset_event(connection, entry, entry_id)


def _sync_at_checkpoints(connection: Any, _: object) -> None:
    """A power cut may cost the last events of a run's history, never its consistency; what runs made is synced elsewhere."""
    connection.execute("PRAGMA synchronous = NORMAL")
