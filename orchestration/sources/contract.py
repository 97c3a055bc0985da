"""What a raw table must look like, and how rows that do not are set aside.

A contract is the one definition of a raw table: Polars types, dbt source columns, Great Expectations suites and
personal-data classes all follow from it. Reading native formats is the business of the source modules.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
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
    Column(
        "record_offset",
        "integer",
        "Place of the record in the file: line, or position among records, from 1.",
        required=True,
    ),
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
# Where a day's files are read together, a record's place is file number * FILE_STRIDE + its place in the file.
FILE_STRIDE = 1 << 40


@dataclass(frozen=True)
class FileKind:
    """Files of a source that one reader understands, by name pattern (`fnmatch`), and the tables they give.

    `read_together` reads many small files at once (file number -> path): shaping rows costs Polars milliseconds however
    few they are, and a chain of stores sends thousands of files a day. It sets unreadable files aside itself.
    """

    pattern: str
    tables: tuple[str, ...]
    read: Reader
    read_together: Callable[[Mapping[int, Path]], Reading] | None = None


@dataclass(frozen=True)
class Source:
    """A system data comes from: its contracts and the kinds of file it lands."""

    name: str
    description: str
    contracts: tuple[Contract, ...]
    files: tuple[FileKind, ...]


Token = Callable[[str, str | None], str | None]


def conform(frame: pl.DataFrame, contract: Contract, token: Token) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Cast a frame to its contract.

    Returns the rows that keep it (contract columns and `record_offset`, in contract order) and the rows set aside:
    `record_offset`, `reason_code` (`wrong_type`, `missing_value`, `unknown_code`, `below_minimum`, `too_long`,
    `nul_character`) and `detail` (the column and what was expected of it, never the value found). A row has its first
    reason only. Blank text is no value.
    """
    plan = _plan(contract, tuple(frame.schema.items()))
    both = frame.lazy().select(plan.given).with_columns(plan.parts).with_columns(plan.typed).collect()
    met = both.select(test.any().alias(str(i)) for i, (test, _, _) in enumerate(plan.faults))
    faults = [fault for fault, column in zip(plan.faults, met.iter_columns(), strict=True) if column.item()]
    aside = pl.DataFrame(schema={"record_offset": pl.Int64, "reason_code": pl.String, "detail": pl.String})
    if faults:
        first = pl.coalesce(pl.when(test).then(pl.lit(i, pl.Int32)) for i, (test, _, _) in enumerate(faults))
        both = both.with_columns(first.alias(_FAULT))
        fault = both.filter(pl.col(_FAULT).is_not_null())[_FAULT]
        aside = both.filter(pl.col(_FAULT).is_not_null()).select(
            "record_offset",
            pl.Series("reason_code", [code for _, code, _ in faults])[fault],
            pl.Series("detail", [detail for _, _, detail in faults])[fault],
        )
        both = both.filter(pl.col(_FAULT).is_null())
    kept = both.select(plan.kept)
    kept = kept.with_columns(_tokens(kept, c, token) for c in contract.columns if c.token_of)
    return kept.select(*[c.name for c in contract.columns], "record_offset"), aside


@dataclass(frozen=True)
class _Plan:
    """The expressions of `conform`, step by step: what one step uses twice is not computed twice."""

    given: list[pl.Expr]
    parts: list[pl.Expr]
    typed: list[pl.Expr]
    faults: list[tuple[pl.Expr, str, str]]
    kept: list[pl.Expr]


@lru_cache(maxsize=1_000)
def _plan(contract: Contract, found: tuple[tuple[str, pl.DataType], ...]) -> _Plan:
    """Built once for a contract and a frame's schema: for the few rows of a small file that costs more than computing."""
    stated = [column for column in contract.columns if not column.token_of]
    schema = dict(found)
    given = [_given(column.name, schema.get(column.name)) for column in stated]
    types = {c.name: _given_type(schema.get(c.name)) for c in stated}
    times = [c.name for c in stated if c.type.endswith("timestamp") and types[c.name] == pl.String()]
    return _Plan(
        given=[*given, pl.col("record_offset").cast(pl.Int64)],
        parts=[pl.col(name).str.strip_chars().str.extract_groups(_TIME).alias(_parts(name)) for name in times],
        typed=[_cast(c.name, types[c.name], c.type).alias(_typed(c.name)) for c in stated],
        faults=[fault for column in stated for fault in _faults(column, types[column.name])],
        kept=[*(pl.col(_typed(c.name)).alias(c.name) for c in stated), pl.col("record_offset")],
    )


_FAULT = "fault\0"  # column names of our own: no contract's can hold a NUL


def _typed(name: str) -> str:
    return f"{name}\0typed"


def _parts(name: str) -> str:
    return f"{name}\0parts"


def _given_type(found: pl.DataType | None) -> pl.DataType:
    is_text = found is None or isinstance(found, pl.Null | pl.Categorical | pl.Enum)
    return pl.String() if is_text or found is None else found


def _given(name: str, found: pl.DataType | None) -> pl.Expr:
    """A column as found, with blank text as null; a column that is not there is null text."""
    if found is None or isinstance(found, pl.Null):
        return pl.lit(None, pl.String()).alias(name)
    value = pl.col(name)
    if _given_type(found) != pl.String():
        return value
    text = value if found == pl.String() else value.cast(pl.String())
    return pl.when(text.str.contains(r"\S")).then(text).alias(name)


def _faults(column: Column, found: pl.DataType) -> list[tuple[pl.Expr, str, str]]:
    """Tests of one column, in the order in which they count, with reason code and detail."""
    name, value, given = column.name, pl.col(_typed(column.name)), pl.col(column.name)
    faults = []
    if found != POLARS_TYPES[column.type] or column.type == "decimal":
        faults.append((value.is_null() & given.is_not_null(), "wrong_type", f"{name}: expected {column.type}"))
    if column.required:
        faults.append((given.is_null(), "missing_value", f"{name}: expected a value"))
    if column.type == "text":
        detail = f"{name}: expected at most {MAXIMUM_TEXT} characters"
        faults.append((value.str.len_chars() > MAXIMUM_TEXT, "too_long", detail))
        detail = f"{name}: expected text without NUL"
        faults.append((value.str.contains("\0", literal=True), "nul_character", detail))
    if column.values:
        detail = f"{name}: expected one of {', '.join(column.values)}"
        faults.append((~value.is_in(list(column.values)), "unknown_code", detail))
    if column.minimum is not None:
        detail = f"{name}: expected at least {column.minimum:g}"
        faults.append((value < column.minimum, "below_minimum", detail))
    return faults


def _tokens(kept: pl.DataFrame, column: Column, token: Token) -> pl.Series:
    """Tokens of an identifier column: each distinct identifier is hashed once."""
    kind, source = column.token_of or ("", "")
    type_of = pl.col(kind[1:]) if kind.startswith("@") else pl.lit(kind)
    pairs = kept.select(type_of.alias("kind"), pl.col(source).alias("value"))
    distinct = pairs.unique()
    made = [token(*pair) if pair[1] is not None else None for pair in distinct.iter_rows()]
    distinct = distinct.with_columns(pl.Series(column.name, made, pl.String()))
    return pairs.join(distinct, on=["kind", "value"], how="left", nulls_equal=True, maintain_order="left")[column.name]


def _cast(name: str, found: pl.DataType, wanted: ColumnType) -> pl.Expr:
    """A column as its type; what cannot be cast without loss becomes null."""
    value, target = pl.col(name), POLARS_TYPES[wanted]
    if found == target and wanted != "decimal":  # a real may be infinite, or no number
        return value
    if found == pl.String():
        return _FROM_TEXT[wanted](pl.col(_parts(name)) if wanted.endswith("timestamp") else value.str.strip_chars())
    if found.is_float() or found.is_decimal():
        return _from_real(value, found, wanted)
    if found.is_integer() and wanted == "boolean":
        return pl.when(value.is_in([0, 1])).then(value == 1)
    if isinstance(found, pl.Datetime):
        return _from_datetime(value, found, wanted)
    same = (found.is_integer() and wanted in ("integer", "decimal")) or (wanted == "text" and not found.is_nested())
    return value.cast(target, strict=False) if same else pl.lit(None, target)


def _from_real(value: pl.Expr, found: pl.DataType, wanted: ColumnType) -> pl.Expr:
    target = POLARS_TYPES[wanted]
    if wanted == "decimal":
        real = value.cast(pl.Float64())
        return pl.when(real.is_finite()).then(real)
    if wanted == "integer":
        return pl.when(value == value.floor()).then(value).cast(target, strict=False)
    return value.cast(target, strict=False) if wanted == "text" else pl.lit(None, target)


def _from_datetime(value: pl.Expr, found: pl.Datetime, wanted: ColumnType) -> pl.Expr:
    """A wall clock is not a point in time, and a point in time is not a wall clock."""
    if wanted == "timestamp" and found.time_zone:
        return value.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    if wanted == "local_timestamp" and not found.time_zone:
        return value.dt.cast_time_unit("us")
    if wanted == "date" and not found.time_zone:
        return pl.when(value == value.dt.truncate("1d")).then(value.dt.date())
    return pl.lit(None, POLARS_TYPES[wanted])


# ISO 8601 as RFC 3339 narrows it, but seconds may be missing, and an offset's colon or minutes.
_TIME = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2})(:[0-9]{2})?(?:[.,]([0-9]{1,9}))?"
    r"(?:([Zz])|([+-](?:0[0-9]|1[0-4]))(?::?([0-5][0-9]))?)?$"
)
_FIRST, _LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


def _wall_clock(parts: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """Parts of a time as wall clock, and its offset: null when it has none."""
    minute = pl.concat_str(parts.struct.field("1"), pl.lit("T"), parts.struct.field("2"))
    second = pl.concat_str(minute, parts.struct.field("3").fill_null(":00"))
    microseconds = parts.struct.field("4").fill_null("0").str.pad_end(6, "0").str.head(6).cast(pl.Int64)
    wall = second.str.to_datetime("%Y-%m-%dT%H:%M:%S", time_unit="us", strict=False)
    hours = pl.when(parts.struct.field("5").is_not_null()).then(pl.lit("+00")).otherwise(parts.struct.field("6"))
    minutes = hours.str.tail(2).cast(pl.Int64) * 60 + parts.struct.field("7").fill_null("0").cast(pl.Int64)
    signed = pl.when(hours.str.starts_with("-")).then(-minutes).otherwise(minutes)
    return wall + pl.duration(microseconds=microseconds), pl.duration(minutes=signed)


def _parts_to_timestamp(parts: pl.Expr) -> pl.Expr:
    wall, offset = _wall_clock(parts)
    at = (wall - offset).dt.replace_time_zone("UTC")
    return pl.when(at.is_between(_FIRST, _LAST)).then(at)


def _parts_to_local(parts: pl.Expr) -> pl.Expr:
    wall, offset = _wall_clock(parts)
    return pl.when(offset.is_null() & (wall >= _FIRST.replace(tzinfo=None))).then(wall)


def _text_to_date(text: pl.Expr) -> pl.Expr:
    date = text.str.to_date("%Y-%m-%d", strict=False)
    return pl.when(text.str.contains(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$") & (date >= _FIRST.date())).then(date)


def _text_to_boolean(text: pl.Expr) -> pl.Expr:
    low = text.str.to_lowercase()
    is_true, is_false = low.is_in(["true", "1", "yes", "y"]), low.is_in(["false", "0", "no", "n"])
    return pl.when(is_true).then(True).when(is_false).then(False)


def _text_to_decimal(text: pl.Expr) -> pl.Expr:
    real = text.cast(pl.Float64(), strict=False)
    return pl.when(real.is_finite() & text.str.contains("^[0-9.eE+-]+$")).then(real)


_FROM_TEXT: dict[ColumnType, Callable[[pl.Expr], pl.Expr]] = {
    "text": lambda text: text,
    "integer": lambda text: text.cast(pl.Int64(), strict=False),
    "decimal": _text_to_decimal,
    "boolean": _text_to_boolean,
    "date": _text_to_date,
    "timestamp": _parts_to_timestamp,
    "local_timestamp": _parts_to_local,
}


def cents(amount: pl.Expr) -> pl.Expr:
    """Text such as `12.50` to whole cents, as text; other text stays, so that `conform` sets it aside.

    Two decimals at most, but for zeros behind them: a third would be money that the receipt did not print. Exact to
    twelve digits before the point, where a double still tells half cents apart.
    """
    text = amount.str.strip_chars()
    is_amount = text.str.contains(r"^[+-]?[0-9]{1,12}(\.[0-9]{1,2}0*)?$")
    whole = (text.cast(pl.Float64(), strict=False) * 100).round().cast(pl.Int64(), strict=False).cast(pl.String())
    # An amount that is none must not pass for an integer number of cents.
    return pl.when(is_amount).then(whole).when(text.str.contains(r"^[+-]?[0-9]+$")).then(pl.lit("?")).otherwise(text)
