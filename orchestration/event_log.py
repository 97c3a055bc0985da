"""Dagster's SQLite event log, with batches written as batches.

A backfill of 60 trading days reports a materialization per table and day. The stock SQLite storage opens several
connections for each event (16 ms an event, 26 s for 17 tables, 2 cores, Dagster 1.13.27); Dagster hands events of one
step over in batches when DAGSTER_EVENT_BATCH_SIZE is set, and this class writes such a batch in one transaction per file.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from dagster._core.events import ASSET_EVENTS
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage
from dagster._serdes import ConfigurableClassData


class BatchingSqliteEventLogStorage(SqliteEventLogStorage):
    """SqliteEventLogStorage whose `store_event_batch` is one transaction instead of a loop of single writes."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data=inst_data, **config_value)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        batchable = [event for event in events if event.is_dagster_event and event.dagster_event_type in ASSET_EVENTS]
        if len(batchable) != len(events) or len({event.run_id for event in events}) != 1:
            super().store_event_batch(events)
            return
        inserts = [self.prepare_insert_event(event) for event in events]
        with self.run_connection(events[0].run_id) as connection:
            for insert in inserts:
                connection.execute(insert)
        newest = {}
        with self.index_transaction() as connection:
            ids = [int((connection.execute(insert).inserted_primary_key or (0,))[0]) for insert in inserts]
            self._store_asset_event_tags(connection, events, ids)
            for event, event_id in zip(events, ids, strict=True):
                newest[event.get_dagster_event().asset_key, event.dagster_event_type] = (event, event_id)
            for event, event_id in newest.values():
                self._store_asset_event(connection, event, event_id)
