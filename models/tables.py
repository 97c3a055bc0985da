"""Published tables as frames. Times are naive UTC here, whatever the file states. Only predictions are written."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import polars as pl
import polars.selectors as cs

from models.errors import ModelsError
from troth.home import Home
from troth.published import current, publish


def naive(at: datetime) -> datetime:
    """A moment as the tables hold it: UTC without a zone. Raises: ModelsError for a time without a zone."""
    if at.tzinfo is None:
        raise ModelsError(f"time: expected one with a zone, found {at.isoformat()}. Hand in an aware UTC datetime.")
    return at.astimezone(UTC).replace(tzinfo=None)


def read(home: Home, table: str, columns: Sequence[str]) -> pl.DataFrame:
    """These columns of a table's current version, all rows, decimals as floats.

    Raises: TrothError when the table is not published; ModelsError when a column is missing.
    """
    path = current(home, table)
    missing = [name for name in columns if name not in pl.read_parquet_schema(path)]
    if missing:
        raise ModelsError(
            f"published table {table}: expected column {', '.join(missing)}, found none of that name. "
            "Run `troth run` to build and publish it again."
        )
    return (
        pl.read_parquet(path, columns=list(columns))
        .select(columns)
        .with_columns(
            cs.datetime(time_zone="*").dt.convert_time_zone("UTC").dt.replace_time_zone(None),
            cs.decimal().cast(pl.Float64),
        )
        .with_columns(cs.datetime().dt.cast_time_unit("us"))
    )


def versions(home: Home, tables: Iterable[str]) -> dict[str, str]:
    """The version of each table that its pointer names now."""
    return {table: current(home, table).stem for table in sorted(set(tables))}


def write(home: Home, table: str, frame: pl.DataFrame) -> str:
    """Publish a frame as the table's current version; returns the version."""
    home.published.mkdir(parents=True, exist_ok=True)
    draft = home.published / f".{table}.parquet.draft"
    frame.rechunk().write_parquet(draft)
    publish(home, table, draft)
    return current(home, table).stem
