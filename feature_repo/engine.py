"""Feast's compute engine that takes rows from Parquet to a packed store as columns, a part at a time: `feast materialize` in bounded memory.

All that is materialised in one go is read from one moment on: nobody sees half of it. An older row never wins, and how many were
skipped is told (`PackedJob.written`). Where the online store is another one, or the source is not Parquet, Feast's own engine does it.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from feature_repo.catalogue import View
from feature_repo.feast_import import feast
from feature_repo.feast_views import Bound
from feature_repo.online_store import PackedOnlineStore, writable
from feature_repo.packed import to_microseconds
from feature_repo.store import Written

feast()  # first, so that what follows does not import Feast the slow way

from feast.infra.common.materialization_job import MaterializationJobStatus  # noqa: E402
from feast.infra.compute_engines.local.compute import LocalComputeEngine, LocalComputeEngineConfig  # noqa: E402
from feast.infra.compute_engines.local.job import LocalMaterializationJob  # noqa: E402
from feast.infra.offline_stores.file_source import FileSource  # noqa: E402

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from feature_repo.columns import Encoded

ROWS_AT_A_TIME = 100_000
ROWS_OF_A_PART = 1_000_000  # what is sorted at once, where an entity has several rows
_MEMORY = "256MB"


class PackedComputeEngineConfig(LocalComputeEngineConfig):  # type: ignore[misc]
    """Nothing to choose."""

    type: Literal["feature_repo.engine.PackedComputeEngine"] = "feature_repo.engine.PackedComputeEngine"


class PackedJob(LocalMaterializationJob):  # type: ignore[misc]
    """A materialisation that is done; `written` says what became of the rows."""

    def __init__(self, job_id: str, written: Written | None = None, error: Exception | None = None) -> None:
        status = MaterializationJobStatus.ERROR if error else MaterializationJobStatus.SUCCEEDED
        super().__init__(job_id=job_id, status=status, error=error)
        self.written = written


class PackedComputeEngine(LocalComputeEngine):  # type: ignore[misc]
    """Materialises into a packed online store; history is Feast's own."""

    def _materialize_one(self, registry: Any, task: Any, **options: Any) -> Any:
        table, store = task.feature_view, self.online_store
        source = getattr(table, "batch_source", None)
        if not (isinstance(store, PackedOnlineStore) and isinstance(source, FileSource) and not _is_computed(table)):
            return super()._materialize_one(registry, task, **options)
        name = f"{table.name}-{task.start_time}-{task.end_time}"
        try:
            bound = store.bound(self.repo_config, table)
            copy, packed = store.copy(self.repo_config, bound.view), store.store(self.repo_config)
            keys: list[pa.Array] | None = [] if copy else None
            written = _materialized(packed, bound, table, source, task.start_time, task.end_time, keys)
            if copy and keys:
                copy.follow(table, (key.decode() for some in keys for key in some.to_pylist()))
            return PackedJob(name, written)
        except Exception as error:  # the job carries it; Feast raises it
            return PackedJob(name, error=error)


def _is_computed(table: Any) -> bool:
    """Whether Feast works something out on the way: transformations and windows are its own."""
    return any(getattr(table, name, None) for name in ("feature_transformation", "aggregations", "udf"))


def _materialized(
    store: Any, bound: Bound, table: Any, source: Any, start: datetime, end: datetime, keys: "list[pa.Array] | None"
) -> Written:
    """Rows whose event time is from `start` to `end` into the store. `keys`: where to put whose they were, if anywhere."""
    import duckdb

    from feature_repo.columns import ahead

    view = writable(bound.view)
    connection = duckdb.connect(config={"memory_limit": _MEMORY, "preserve_insertion_order": False})
    try:
        rows = _Rows(connection, bound, table, source, start, end)
        version = f"materialized/{end.isoformat()}/{time.time_ns()}"
        with store.refresh(view, version, to_microseconds(end), rows.count) as coming:
            for batch in ahead(rows.encoded(view)):
                coming.write(batch)
                if keys is not None:
                    keys.append(batch.keys)
        return coming.written  # type: ignore[no-any-return]
    finally:
        connection.close()


class _Rows:
    """The rows of a source between two times, encoded."""

    def __init__(
        self, connection: "duckdb.DuckDBPyConnection", bound: Bound, table: Any, source: Any, start: datetime, end: datetime
    ) -> None:  # fmt: skip
        self._connection, self._bound = connection, bound
        mapping = {name: given for given, name in (source.field_mapping or {}).items()}
        names = (*bound.view.entity.join_keys, *(each.name for each in bound.view.online_fields))
        self._columns = [(mapping.get(name, name), name) for name in names]
        self._event = (mapping.get(source.timestamp_field, source.timestamp_field), bound.view.event_column)
        self._created = source.created_timestamp_column or None
        self._keys = [_quoted(mapping.get(name, name)) for name in bound.view.entity.join_keys]
        self._given = [source.path, start, end]
        event = _quoted(self._event[0])
        self._from = f"from read_parquet(?) where {event} >= ? and {event} <= ?"
        keys = ", ".join(self._keys)
        found = connection.execute(
            f"select count(*), approx_count_distinct(hash({keys})) {self._from}", self._given
        ).fetchall()  # fmt: skip
        self.count: int
        ((self.count, entities),) = found
        # Where an entity has several rows only the newest is wanted, and to find it its rows must meet. The count of entities is a
        # guess: were it one row to each and a half, the guard still keeps the newest.
        self._is_single = self.count <= 1.5 * entities and self._created is None

    def encoded(self, view: View) -> "Iterator[Encoded]":
        from feature_repo.columns import encoded

        for table in self._tables():
            rows = encoded(view, self._bound.table(table))
            for begin in range(0, len(rows), ROWS_AT_A_TIME):
                yield rows.slice(begin, ROWS_AT_A_TIME)

    def _tables(self) -> "Iterator[pa.Table]":
        import pyarrow as pa

        chosen = ", ".join(f"{_quoted(given)} as {_quoted(name)}" for given, name in [*self._columns, self._event])
        if self._is_single:
            found = self._connection.sql(f"select {chosen} {self._from}", params=self._given)
            for batch in found.to_arrow_reader(ROWS_AT_A_TIME):
                yield pa.Table.from_batches([batch])
            return
        parts = -(-self.count // ROWS_OF_A_PART)
        order: Sequence[str] = [_quoted(self._created)] if self._created else []
        ordered = f" order by {', '.join(order)}" if order else ""
        for part in range(parts):
            query = f"select {chosen} {self._from} and hash({', '.join(self._keys)}) % ? = ?{ordered}"
            yield self._connection.sql(query, params=[*self._given, parts, part]).to_arrow_table()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
