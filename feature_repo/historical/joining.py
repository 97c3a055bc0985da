"""The point-in-time join: to every entity row the newest feature row at or before its time, as an ASOF join of DuckDB.

Only keys, times and row numbers are joined; features are then taken from their Parquet column by column, so that memory
holds the answer and two columns more. Knows neither Feast nor consent.
"""

# ruff: noqa: S608 (names are quoted or numbers, values are parameters)

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from feature_repo.errors import FeatureError

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa

POSITION = "__position"  # of an entity row among those handed in
AT = "__at"  # whole microseconds or nanoseconds since 1970 in UTC
ID = "__id"  # of a key, among those asked about
_COLUMNS_AT_ONCE = 2  # taken side by side: Arrow lets go of the interpreter


@dataclass(frozen=True)
class Engine:
    """What DuckDB may use: `memory_limit` as it writes it; beyond it spills into a folder of its own in `temp_directory`
    (None: the system's), which goes when the read ends. `threads`: None for one per core."""

    memory_limit: str = "2GB"
    temp_directory: Path | None = None
    threads: int | None = None

    @contextmanager
    def opened(self) -> Iterator["duckdb.DuckDBPyConnection"]:
        """A connection in memory whose times without a zone are UTC. Raises: FeatureError for what DuckDB refuses."""
        import duckdb

        with TemporaryDirectory(prefix="troth-", dir=self.temp_directory) as spill:
            config: dict[str, Any] = {"memory_limit": self.memory_limit, "temp_directory": spill}
            if self.threads is not None:
                config["threads"] = self.threads
            try:
                with duckdb.connect(config=config) as connection:
                    connection.execute("set timezone = 'UTC'")
                    yield connection
            except duckdb.Error as error:
                raise FeatureError(
                    f"historical read: expected rows and tables that can be joined, found {type(error).__name__}: "
                    f"{str(error).splitlines()[0]}. Correct the entity rows, or the source that it names."
                ) from error


@dataclass(frozen=True)
class Joinable:
    """A view to join: Parquet files, the names of their columns, and how old a row may be (None or nought: any age).

    `keys`: column of the entity rows to column of the files. `features`: name in the answer to column of the files. Of rows
    with the same key and time the one created last counts, else the last in the files.
    """

    name: str
    files: tuple[Path, ...]
    keys: Mapping[str, str]
    event_column: str
    features: Mapping[str, str]
    time_to_live: timedelta | None = None
    created_column: str | None = None


@dataclass(frozen=True)
class EntityRows:
    """Entity rows (Arrow, any columns) and the column that says when each happened.

    Raises: FeatureError where that column is missing or holds no times.
    """

    table: "pa.Table"
    time_column: str = "event_timestamp"

    def __post_init__(self) -> None:
        import pyarrow as pa

        if self.time_column not in self.table.column_names:
            raise FeatureError(
                f"entity rows: expected a column {self.time_column} with the time of each row, "
                f"found {self.table.column_names}. Add it."
            )
        kind = self.table.schema.field(self.time_column).type
        if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
            raise FeatureError(
                f"entity rows, {self.time_column}: expected timestamps, found {kind}. "
                "Convert them; those without a zone are UTC."
            )

    @property
    def is_nanosecond(self) -> bool:
        return is_nanosecond(self.table.schema.field(self.time_column).type)


class Asked:
    """Entity rows in a connection: each key as a small number, made once for all views of an entity.

    Numbers sort faster than texts, and what nobody asks about is left out of every join.
    """

    def __init__(self, connection: "duckdb.DuckDBPyConnection", entities: EntityRows) -> None:
        self.connection, self.entities = connection, entities
        self._numbers: dict[tuple[tuple[str, ...], bool], int] = {}

    def number(self, keys: Collection[str], nanoseconds: bool) -> int:
        """Of the tables for these key columns, times in microseconds or nanoseconds.

        `ids_<number>`: the key columns and __id. `asked_<number>`: __id, __at, __position; rows without a key or a time are in neither.
        """
        names = tuple(sorted(keys))
        if (names, nanoseconds) not in self._numbers:
            self._numbers[names, nanoseconds] = len(self._numbers)
            self._put(names, nanoseconds, self._numbers[names, nanoseconds])
        return self._numbers[names, nanoseconds]

    def keep(self, positions: "np.ndarray[Any, Any]") -> None:
        """Go on with these rows alone; `positions` is in order."""
        import numpy as np
        import pyarrow as pa

        self.entities = EntityRows(self.entities.table.take(pa.array(positions)), self.entities.time_column)
        places = np.arange(len(positions), dtype=np.int32)
        self.connection.register("kept", pa.table({POSITION: positions.astype(np.int32), "place": places}))
        for number in self._numbers.values():
            self.connection.execute(
                f"create or replace temp table asked_{number} as "
                f"select {ID}, {AT}, kept.place as {POSITION} from asked_{number} join kept using ({POSITION})"
            )
        self.connection.unregister("kept")

    def _put(self, keys: Sequence[str], nanoseconds: bool, number: int) -> None:
        import numpy as np
        import pyarrow as pa

        table = self.entities.table
        missing = sorted(set(keys) - set(table.column_names))
        if missing:
            raise FeatureError(f"entity rows: expected the keys {list(keys)}, found none named {missing}. Add them.")
        given = {name: table.column(name) for name in keys}
        given |= {AT: table.column(self.entities.time_column)}
        given |= {POSITION: pa.array(np.arange(table.num_rows, dtype=np.int32))}
        names = ", ".join(quoted(name) for name in keys)
        columns = f"{epoch(AT, nanoseconds)} as {AT}, {POSITION}"
        is_known = " and ".join(f"{quoted(name)} is not null" for name in [*keys, AT])
        self.connection.register("given", pa.table(given))
        run = self.connection.execute
        if keys:
            run(
                f"create temp table ids_{number} as select *, (row_number() over ())::integer as {ID} "
                f"from (select distinct {names} from given where {is_known})"
            )
            run(
                f"create temp table asked_{number} as "
                f"select {ID}, {columns} from given join ids_{number} using ({names}) where {is_known}"
            )
        else:
            run(f"create temp table asked_{number} as select 0::integer as {ID}, {columns} from given where {is_known}")
        self.connection.unregister("given")


def joined(asked: Asked, views: Sequence[Joinable]) -> "pa.Table":
    """The entity rows, all of them and in their order, with the features of every view beside them; null where none was known.

    Raises: FeatureError for a column that is not there, or one that would be there twice.
    """
    answer = asked.entities.table
    names = [*answer.column_names, *(name for view in views for name in view.features)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FeatureError(
            f"historical read: expected every column once, found {twice} twice. Rename it, or ask for full feature names."
        )
    for view in views:
        for name, column in _gathered(view, _matched(asked, view)).items():
            answer = answer.append_column(name, column)
    return answer


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def epoch(column: str, nanoseconds: bool) -> str:
    """SQL of a time as a whole number, which compares exactly whatever unit and zone it was written in."""
    return f"{'epoch_ns' if nanoseconds else 'epoch_us'}({column})"


def is_nanosecond(kind: "pa.DataType") -> bool:
    """Whether times of a type are finer than a microsecond."""
    import pyarrow as pa

    return bool(pa.types.is_timestamp(kind) and kind.unit == "ns")


def _matched(asked: Asked, view: Joinable) -> "np.ndarray[Any, Any]":
    """The row of the view's files that answers each entity row, counted over all of them; -1 for none."""
    import numpy as np

    nanoseconds = asked.entities.is_nanosecond or _source_is_nanosecond(view)
    number = asked.number(view.keys, nanoseconds)
    found = asked.connection.sql(
        f"select asked.{POSITION}, known.row_number from asked_{number} asked "
        f"asof join ({_source(view, number, nanoseconds)}) known on asked.{ID} = known.{ID} and asked.{AT} >= known.{AT} "
        f"where known.{AT} >= asked.{AT} - $age",
        params={
            "age": _age(view.time_to_live, nanoseconds),
            "files": [str(path) for path in view.files],
            **({"first_rows": _first_rows(view)} if len(view.files) > 1 else {}),
        },
    ).to_arrow_table()
    rows = np.full(asked.entities.table.num_rows, -1, np.int64)
    rows[found.column(0).to_numpy()] = found.column(1).to_numpy()
    return rows


def _source(view: Joinable, number: int, nanoseconds: bool) -> str:
    """SQL of the id, time and row number of a view's rows: one per id and time."""
    event_at = f"source.{quoted(view.event_column)}"
    on = " and ".join(f"source.{quoted(theirs)} = ids.{quoted(ours)}" for ours, theirs in view.keys.items())
    row, files = "source.file_row_number", "read_parquet($files, file_row_number = true) source"
    if len(view.files) > 1:
        row = "files.first_row + source.file_row_number"
        files = (
            "read_parquet($files, file_row_number = true, filename = true) source "
            "join (select unnest($files) as filename, unnest($first_rows) as first_row) files using (filename)"
        )
    newest = f"max({row})"
    if view.created_column:
        created = f"coalesce({epoch(f'source.{quoted(view.created_column)}', nanoseconds)}, -9223372036854775808)"
        newest = f"arg_max({row}, ({created}, {row}))"
    return (
        f"select {f'ids.{ID}' if view.keys else '0::integer'} as {ID}, {epoch(event_at, nanoseconds)} as {AT}, "
        f"{newest} as row_number from {files} {f'join ids_{number} ids on {on}' if view.keys else ''} "
        f"where {event_at} is not null group by all"
    )


def _first_rows(view: Joinable) -> list[int]:
    """How many rows are before each file."""
    import pyarrow.parquet as pq

    counts = [pq.read_metadata(path).num_rows for path in view.files]
    return [sum(counts[:number]) for number in range(len(counts))]


def _gathered(view: Joinable, rows: "np.ndarray[Any, Any]") -> "dict[str, pa.ChunkedArray]":
    """Each feature of the rows, null where there is no row."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    source = ds.dataset([str(path) for path in view.files], format="parquet")
    missing = sorted(set(view.features.values()) - set(source.schema.names))
    if missing:
        raise FeatureError(
            f"feature view {view.name}: expected columns of its source, found none named {missing}. Correct the view."
        )
    where = pa.array(rows, mask=rows < 0)

    def taken(column: str) -> "pa.ChunkedArray":
        found = source.to_table(columns=[column]).column(0).combine_chunks().take(where)
        return found if isinstance(found, pa.ChunkedArray) else pa.chunked_array([found])

    with ThreadPoolExecutor(_COLUMNS_AT_ONCE) as pool:
        return dict(zip(view.features, pool.map(taken, view.features.values()), strict=True))


def _age(time_to_live: timedelta | None, nanoseconds: bool) -> int:
    """How far back a row may lie, in the unit of the times; without a limit further than any time."""
    microseconds = (time_to_live or timedelta()) // timedelta(microseconds=1)
    return microseconds * (1_000 if nanoseconds else 1) if microseconds else 1 << 70


def _source_is_nanosecond(view: Joinable) -> bool:
    import pyarrow.parquet as pq

    schema = pq.read_schema(view.files[0])
    wanted = [name for name in (view.event_column, view.created_column) if name]
    missing = sorted({*wanted, *view.keys.values()} - set(schema.names))
    if missing:
        raise FeatureError(
            f"feature view {view.name}: expected columns of its source, found none named {missing}. Correct the view."
        )
    return any(is_nanosecond(schema.field(name).type) for name in wanted)
