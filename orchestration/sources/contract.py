"""What a raw table must look like, and how rows that do not are set aside.

A contract is the one definition of a raw table: Polars types, dbt source columns, Great Expectations suites and
personal-data classes all follow from it. Reading native formats is the business of the source modules.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl

from troth.errors import TrothError

ColumnType = Literal["text", "integer", "decimal", "boolean", "date", "timestamp", "local_timestamp"]
PersonalClass = Literal["none", "identifier", "contact", "name", "address", "birth_date", "behaviour", "device"]

# Timestamps are microseconds; `timestamp` is UTC, `local_timestamp` a wall clock without a zone.
POLARS_TYPES: dict[str, pl.DataType] = {
    "text": pl.String(),
    "integer": pl.Int64(),
    "decimal": pl.Float64(),
    "boolean": pl.Boolean(),
    "date": pl.Date(),
    "timestamp": pl.Datetime("us", "UTC"),
    "local_timestamp": pl.Datetime("us"),
}
MAXIMUM_TEXT = 1_000  # characters; a longer field is a fault of the file, not a fact about a retailer


class UnreadableFile(TrothError):  # noqa: N818 - it names what was found, like the rest of the vocabulary
    """A landed file in which nothing at all can be read: the file as a whole is set aside."""


@dataclass(frozen=True)
class Column:
    """One column of a raw table.

    `personal` says what kind of personal data the column holds. `token_of` names the identifier type (or `@column`
    that says it per row) and the column whose keyed token this column carries: made at landing, where the key is, so
    that no key ever reaches SQL.
    """

    name: str
    type: ColumnType
    description: str
    required: bool = False
    values: tuple[str, ...] = ()
    personal: PersonalClass = "none"
    token_of: tuple[str, str] | None = None
    minimum: float | None = None


@dataclass(frozen=True)
class Contract:
    """One raw table: name, grain sentence, key columns, columns, and how old its newest row may be."""

    table: str
    description: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    freshness_hours: int = 36

    @property
    def source(self) -> str:
        return self.table.removeprefix("raw_").split("__")[0]

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Polars schema of the table as stored, provenance included."""
        return {c.name: POLARS_TYPES[c.type] for c in (*self.columns, *PROVENANCE)}


# Every raw row says where it came from and when we received it.
PROVENANCE = (
    Column("source_file", "text", "Landed file, relative to the source's landing folder.", required=True),
    Column("file_hash", "text", "SHA-256 of the landed file, hex.", required=True),
    Column("record_offset", "integer", "Place of the record in the file: line, or position among records, from 1.", required=True),
    Column("received_at", "timestamp", "When the file was landed here.", required=True),
)


@dataclass
class Rejections:
    """Rows set aside while reading: parallel lists of table, record offset, reason code and detail.

    The detail never quotes a value: it may name columns, positions and types.
    """

    table: list[str] = field(default_factory=list)
    record_offset: list[int] = field(default_factory=list)
    reason_code: list[str] = field(default_factory=list)
    detail: list[str] = field(default_factory=list)

    def add(self, table: str, record_offset: int, reason_code: str, detail: str = "") -> None:
        self.table.append(table)
        self.record_offset.append(record_offset)
        self.reason_code.append(reason_code)
        self.detail.append(detail)


@dataclass
class Reading:
    """What a reader found in one file: per table a frame with the contract's columns, as text or already typed, and
    `record_offset`. Columns of the contract that the frame lacks are null."""

    frames: dict[str, pl.DataFrame] = field(default_factory=dict)
    rejections: Rejections = field(default_factory=Rejections)


Reader = Callable[[Path], Reading]


@dataclass(frozen=True)
class FileKind:
    """Files of a source that one reader understands, by name pattern (`fnmatch`), and the tables they give."""

    pattern: str
    tables: tuple[str, ...]
    read: Reader


@dataclass(frozen=True)
class Source:
    """A system data comes from: its contracts and the kinds of file it lands."""

    name: str
    description: str
    contracts: tuple[Contract, ...]
    files: tuple[FileKind, ...]


def conform(
    frame: pl.DataFrame, contract: Contract, token: Callable[[str, str | None], str | None]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Cast a frame to its contract.

    Returns the rows that keep it (contract columns and `record_offset`, in contract order) and the rows set aside:
    `record_offset`, `reason_code` (`wrong_type`, `missing_value`, `unknown_code`, `below_minimum`, `too_long`) and
    `detail` (the column and what was expected of it, never the value found). A row has its first reason only.
    """
    bad: list[tuple[pl.Expr, str, str]] = []
    typed: list[pl.Expr] = []
    for column in contract.columns:
        name = column.name
        if column.token_of:
            continue
        if name not in frame.columns:
            frame = frame.with_columns(pl.lit(None, pl.String()).alias(name))
        target = POLARS_TYPES[column.type]
        value = _cast(pl.col(name), frame.schema[name], column.type).alias(name)
        typed.append(value)
        if frame.schema[name] != target:
            bad.append((value.is_null() & pl.col(name).is_not_null(), "wrong_type", f"{name}: expected {column.type}"))
        if column.required:
            bad.append((pl.col(name).is_null(), "missing_value", f"{name}: expected a value"))
        if column.type == "text" and frame.schema[name] == pl.String():
            bad.append((pl.col(name).str.len_chars() > MAXIMUM_TEXT, "too_long", f"{name}: expected at most {MAXIMUM_TEXT} characters"))
        if column.values:
            bad.append((~value.is_in(list(column.values)), "unknown_code", f"{name}: expected one of {', '.join(column.values)}"))
        if column.minimum is not None:
            bad.append((value < column.minimum, "below_minimum", f"{name}: expected at least {column.minimum:g}"))
    reason = pl.coalesce([pl.when(test.fill_null(False)).then(pl.lit(i, pl.Int32)) for i, (test, _, _) in enumerate(bad)])
    marked = frame.with_columns(reason.alias("_reason"))
    kept = marked.filter(pl.col("_reason").is_null()).select(*typed, pl.col("record_offset").cast(pl.Int64))
    tokens = [
        pl.Series(column.name, _tokens(kept, *column.token_of, token), pl.String())
        for column in contract.columns
        if column.token_of
    ]
    kept = kept.with_columns(tokens).select(*[c.name for c in contract.columns], "record_offset")
    aside = marked.filter(pl.col("_reason").is_not_null()).select(
        pl.col("record_offset").cast(pl.Int64),
        pl.col("_reason").replace_strict(list(range(len(bad))), [code for _, code, _ in bad], return_dtype=pl.String()).alias("reason_code"),
        pl.col("_reason").replace_strict(list(range(len(bad))), [detail for _, _, detail in bad], return_dtype=pl.String()).alias("detail"),
    )
    return kept, aside


def _tokens(
    frame: pl.DataFrame, identifier_type: str, column: str, token: Callable[[str, str | None], str | None]
) -> list[str | None]:
    if identifier_type.startswith("@"):
        return [token(kind, value) for kind, value in zip(frame[identifier_type[1:]], frame[column], strict=True)]
    return [token(identifier_type, value) for value in frame[column]]


def _cast(value: pl.Expr, found: pl.DataType, wanted: ColumnType) -> pl.Expr:
    """Text (or anything else) to a column type; what cannot be cast becomes null."""
    target = POLARS_TYPES[wanted]
    if found == target:
        return value
    if found == pl.String():
        text = value.str.strip_chars()
        if wanted == "boolean":
            low = text.str.to_lowercase()
            return pl.when(low.is_in(["true", "1", "yes", "y"])).then(True).when(low.is_in(["false", "0", "no", "n"])).then(False)
        if wanted == "date":
            return text.str.to_date("%Y-%m-%d", strict=False)
        if wanted == "timestamp":
            # ISO 8601 with an offset or Z; a time without one is not a point in time.
            return pl.when(text.str.contains(r"(Z|[+-]\d\d:?\d\d)$")).then(
                text.str.replace(r"Z$", "+00:00").str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", time_unit="us", strict=False)
            )
        if wanted == "local_timestamp":
            return text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
    if found == pl.Float64() and wanted == "integer":
        return pl.when(value == value.floor()).then(value).cast(target, strict=False)
    return value.cast(target, strict=False)


def cents(amount: pl.Expr) -> pl.Expr:
    """Text such as `12.50` to whole cents, as text when it is no amount (so that `conform` sets the row aside).

    Two decimals at most: a third would be money that the receipt did not print.
    """
    text = amount.str.strip_chars()
    parts = text.str.extract_groups(r"^([+-]?)(\d{1,12})(?:\.(\d{1,2}))?$")
    whole = parts.struct.field("2").cast(pl.Int64) * 100
    fraction = parts.struct.field("3").fill_null("").str.pad_end(2, "0").cast(pl.Int64)
    signed = pl.when(parts.struct.field("1") == "-").then(-(whole + fraction)).otherwise(whole + fraction)
    return pl.when(whole.is_not_null()).then(signed.cast(pl.String)).otherwise(text)
