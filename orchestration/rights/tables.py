"""Tables without a person: rows about them gone, or, where the books need the row, without what says who it was.

Every text column of every table is compared with what identifies them, whatever anybody declared.
"""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import polars as pl

from consent.receipts.uses import LINKS, replaced
from models.stock.base import renamed
from orchestration.catalog import contract_of
from orchestration.rights.held import KEPT, personal_columns
from orchestration.rights.traces import CONSENT_TABLES
from troth.home import Home, write_atomically
from troth.ids import file_hash
from troth.published import POINTER

# What the books keep, from raw to mart: the row stays, and what identifies the person in it becomes null.
KEPT_MODELS = frozenset(
    {
        *("stg_pos__transactions", "stg_ecommerce__orders", "stg_ecommerce__refund_lines", "int_receipts__timed"),
        *("int_receipt_lines__timed", "int_orders__placed", "int_refund_lines__told_once"),
        *("orders", "order_lines", "refunds", "returns"),
    }
)
# Columns that go with the identifiers, named as the contracts of the kept tables name them.
_PERSONAL = frozenset(name for table in KEPT for name in personal_columns(contract_of(table)))


def erase_published(home: Home, identifiers: Collection[str], subjects: Collection[str]) -> dict[str, int]:
    """Every version of every published table, old ones too, without the person. Rows changed, by table.

    A version is named by its bytes, so one that changes gets a new name; the pointer, and what was announced to the stock projector, follow
    before the old file goes.
    """
    counts: dict[str, int] = {}
    for path in sorted(home.published.glob("*/*.parquet")):
        draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
        changed = _rewritten(path, draft, path.parent.name, identifiers, subjects)
        if not changed:
            continue
        hashed = file_hash(draft)
        version = f"{hashed[:32]}.parquet"
        if path.parent.name == LINKS:  # decisions name the version they were made over
            whom = rows_about(LINKS, pl.scan_parquet(path), identifiers, subjects)["customer_id"].unique()
            replaced(home, file_hash(path), hashed, whom)
        draft.replace(path.with_name(version))
        pointer = path.parent / POINTER
        if pointer.exists() and pointer.read_text().strip() == path.name:
            write_atomically(pointer, version.encode())
        renamed(home, path.parent.name, path.stem, hashed[:32])
        path.unlink()
        counts[path.parent.name] = counts.get(path.parent.name, 0) + changed
    return counts


def erase_file(path: Path, identifiers: Collection[str]) -> int:
    """A Parquet file that no pointer names, without the person's rows. How many went."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    changed = _rewritten(path, draft, path.parent.name, identifiers, ())
    if changed:
        draft.replace(path)
    return changed


def count_published(home: Home, identifiers: Collection[str], subjects: Collection[str]) -> dict[str, int]:
    """Rows about the person in every version of every published table."""
    counts: dict[str, int] = {}
    for path in sorted(home.published.glob("*/*.parquet")):
        frame = pl.scan_parquet(path)
        about = _about(path.parent.name, frame.collect_schema(), identifiers, subjects)
        if rows := int(frame.select(about.sum()).collect().item() or 0):
            counts[path.parent.name] = counts.get(path.parent.name, 0) + rows
    return counts


def rows_about(
    table: str, frame: pl.LazyFrame, identifiers: Collection[str], subjects: Collection[str]
) -> pl.DataFrame:
    """The rows of a table about the person."""
    return frame.filter(_about(table, frame.collect_schema(), identifiers, subjects)).collect()


def _rewritten(path: Path, draft: Path, table: str, identifiers: Collection[str], subjects: Collection[str]) -> int:
    frame = pl.scan_parquet(path, hive_partitioning=False)
    about = _about(table, frame.collect_schema(), identifiers, subjects)
    changed = int(frame.select(about.sum()).collect().item() or 0)
    if changed:
        _without(frame, table, about, identifiers).collect().write_parquet(draft, compression="zstd", statistics=True)
    return changed


def _about(table: str, schema: pl.Schema, identifiers: Collection[str], subjects: Collection[str]) -> pl.Expr:
    """Whether a row is about the person; of consent events, whether one of theirs before the erasure."""
    if table in CONSENT_TABLES and "event_type" in schema:
        return pl.col("subject_id").is_in(list(subjects)) & (pl.col("event_type") != "erased")
    tests = [
        pl.col(name).is_in(list(identifiers)).fill_null(False) for name, kind in schema.items() if kind == pl.String()
    ]
    return pl.any_horizontal(pl.lit(False), *tests)


def _without(frame: pl.LazyFrame, table: str, about: pl.Expr, identifiers: Collection[str]) -> pl.LazyFrame:
    schema = frame.collect_schema()
    if table not in KEPT_MODELS:
        return frame.filter(~about)
    wanted = list(identifiers)
    return frame.with_columns(
        pl.when(~(about if name in _PERSONAL else pl.col(name).is_in(wanted)).fill_null(False))
        .then(pl.col(name))
        .alias(name)
        for name, kind in schema.items()
        if kind == pl.String()
    )


def erase_warehouse(home: Home, identifiers: Collection[str], subjects: Collection[str]) -> dict[str, int]:
    """The warehouse without the person, in a file of its own: rows that are deleted would stay in the old one's free blocks.

    Rows changed, by table. Killed before the new file takes its place, it starts again.
    """
    import duckdb

    if not home.warehouse.exists():
        return {}
    counts: dict[str, int] = {}
    draft = home.warehouse.with_name(f".{home.warehouse.name}.draft")
    for path in (draft, draft.with_name(f"{draft.name}.wal")):
        path.unlink(missing_ok=True)
    with duckdb.connect(str(home.warehouse)) as connection:
        connection.execute("create temp table erased_ids (id varchar)")
        connection.execute("create temp table erased_subjects (id varchar)")
        for name, ids in (("erased_ids", identifiers), ("erased_subjects", subjects)):
            connection.execute(f"insert into {name} select unnest($1)", [sorted(ids)])
        for table, columns in _text_columns(connection).items():
            tests = {name: f'"{name}" in (select id from erased_ids)' for name in columns}  # noqa: S608
            about = " or ".join(tests.values())
            if table in CONSENT_TABLES and "event_type" in columns:
                about = "subject_id in (select id from erased_subjects) and event_type <> 'erased'"
            counts[table] = connection.execute(f'select count(*) from "{table}" where {about}').fetchone()[0]  # noqa: S608
            if not counts[table]:
                continue
            if table in KEPT_MODELS:
                gone = [
                    f'"{name}" = case when {about if name in _PERSONAL else test} then null else "{name}" end'
                    for name, test in tests.items()
                ]
                connection.execute(f'update "{table}" set {", ".join(gone)} where {about}')  # noqa: S608
            else:
                connection.execute(f'delete from "{table}" where {about}')  # noqa: S608
        connection.execute("checkpoint")
        name = connection.execute("select current_database()").fetchone()[0]
        target = str(draft).replace("'", "''")
        connection.execute(f"attach '{target}' as without_them")
        connection.execute(f'copy from database "{name}" to without_them')
        connection.execute("detach without_them")
    draft.replace(home.warehouse)
    home.warehouse.with_name(f"{home.warehouse.name}.wal").unlink(missing_ok=True)
    return {table: count for table, count in counts.items() if count}


def count_warehouse(home: Home, identifiers: Collection[str]) -> dict[str, int]:
    """Rows about the person, by table of the warehouse."""
    import duckdb

    if not home.warehouse.exists():
        return {}
    with duckdb.connect(str(home.warehouse), read_only=True) as connection:
        wanted = sorted(identifiers)
        counts = {}
        for table, columns in _text_columns(connection).items():
            about = " or ".join(f'"{name}" in (select unnest($1))' for name in columns)
            counts[table] = connection.execute(f'select count(*) from "{table}" where {about}', [wanted]).fetchone()[0]  # noqa: S608
    return {table: count for table, count in counts.items() if count}


def _text_columns(connection: Any) -> dict[str, list[str]]:  # duckdb is not typed
    rows = connection.execute(
        "select c.table_name, c.column_name from duckdb_columns() c join duckdb_tables() t "
        "on c.table_name = t.table_name and c.database_name = t.database_name "
        "where c.data_type = 'VARCHAR' and c.database_name = current_database() and not t.temporary order by 1, 2"
    ).fetchall()
    columns: dict[str, list[str]] = {}
    for table, name in rows:
        columns.setdefault(table, []).append(name)
    return columns
