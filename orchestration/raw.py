"""Raw tables from the other side: rows as they arrived, each record once, and the tables that steps make for SQL to read."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import polars as pl

from orchestration.catalog import contract_of
from troth.home import Home


def raw_rows(home: Home, table: str, columns: Sequence[str], until: datetime | None = None) -> pl.DataFrame:
    """Rows of a raw table in the order of arrival, each record once; only what was received by `until`, where given."""
    contract = contract_of(table)
    order = ["received_at", "source_file", "record_offset"]
    files = pl.scan_parquet(
        home.raw / table / "**/*.parquet", schema=contract.schema
    )  # none: taken before there was such a table
    rows = files.select({*columns, *contract.key, *order})
    if until is not None:
        rows = rows.filter(pl.col("received_at") <= until)
    kept = rows.collect().sort(*order, maintain_order=True).unique(contract.key, keep="first", maintain_order=True)
    return kept.select(columns)


def made_table(home: Home, table: str) -> Path:
    """Where a table lies that a step makes whole."""
    return home.raw / table / "data.parquet"


def write_table(home: Home, table: str, frame: pl.DataFrame) -> None:
    """Put a frame in the place of what a step made before, whole or not at all."""
    path = made_table(home, table)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(".draft.parquet")
    frame.write_parquet(draft, compression="zstd", compression_level=1)
    draft.replace(path)


def read_table(home: Home, table: str) -> pl.DataFrame | None:
    """What a step made, or None while it has not."""
    path = made_table(home, table)
    return pl.read_parquet(path) if path.exists() else None
