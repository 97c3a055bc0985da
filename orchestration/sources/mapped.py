"""The mapped source: anybody's CSV or Parquet, taken through the same road as the native formats.

An export is split by trading day and landed as Parquet (`land_mapped`); from there it is read like any landed file
(`mapped_source`). Which column becomes which is said by a mapping; see `mapping` and examples/README.md.
"""

import csv
import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path

import polars as pl

from orchestration.sources.contract import Column, Contract, FileKind, Reading, Source, UnreadableFile, conform
from orchestration.sources.csv_rows import read_csv_rows
from orchestration.sources.encoding import as_utf8, from_encoding
from orchestration.sources.mapping import OFFSET, Mapping, MappingError, TableMapping, check_mapping, load_mapping
from troth.home import Home, write_atomically
from troth.ids import file_hash

__all__ = [
    "Balance",
    "Mapping",
    "MappingError",
    "check_file",
    "check_mapping",
    "land_mapped",
    "load_mapping",
    "mapped_source",
    "read_mapped",
    "reconcile",
    "trading_days",
]
_FAULTS = {"reason_code": pl.String(), "detail": pl.String()}


def mapped_source(mapping: Mapping) -> Source:
    """The source whose landed Parquet files a mapping reads."""
    return Source(
        name=mapping.source,
        description=f"Exports mapped onto the contracts of {mapping.source}.",
        contracts=tuple(table.contract for table in mapping.tables.values()),
        files=(FileKind("*.parquet", tuple(mapping.tables), partial(read_mapped, mapping)),),
    )


def check_file(mapping: Mapping, path: Path) -> None:
    """Raises: MappingError when the file is not there, is not of its format, or lacks a column the mapping declares."""
    try:
        names = _header(mapping, path)
    except OSError as error:
        raise MappingError(
            f"{path.name}: expected a file, found {error.strerror}. Give the path of the export."
        ) from None
    except (pl.exceptions.PolarsError, csv.Error):
        found = "something else"
        raise MappingError(
            f"{path.name}: expected {mapping.file_format} with a header, found {found}. Correct `files` in the mapping."
        ) from None
    missing = [column.name for column in mapping.columns if names.count(column.name) != 1]
    if missing:
        raise MappingError(
            f"{path.name}: expected once each the columns {', '.join(missing)}, found {', '.join(names)}. "
            "Correct `columns` in the mapping, or export the file with them."
        )


def trading_days(mapping: Mapping, path: Path, otherwise: date) -> dict[date, pl.DataFrame]:
    """An export as it will land: per trading day its lines, typed, with derived columns and their place in the export.

    A line that is no record or not of its types lands as its place, `reason_code` and `detail` alone, on the day
    `otherwise`, where lines without a trading day go as well. Raises: MappingError as `check_file`.
    """
    check_file(mapping, path)
    lines = _typed_lines(mapping, path)
    by_day = lines.partition_by("trading_day\0", as_dict=True, include_key=False, maintain_order=True)
    days: dict[date, pl.DataFrame] = {}
    for (day,), frame in by_day.items():
        days.setdefault(day or otherwise, frame.clear()).vstack(frame, in_place=True)
    return dict(sorted((day, frame.sort(OFFSET)) for day, frame in days.items()))


def land_mapped(home: Home, mapping: Mapping, file: Path, received_at: datetime | None = None) -> list[Path]:
    """Split an export by trading day into `landing/<source>/<day>/<name>_<hash>.parquet`, and put the mapping beside.

    Without `received_at` each day counts as received when it closed (midnight UTC): an export of the past is then known
    as a running shop would have known it, and windows count back from its own last day.
    The same export and mapping give the same bytes. Each file carries the mapping's SHA-256 as `mapping_sha256`.
    Raises: MappingError as `check_file`, for an export without lines, and for one that landed before on other days.
    """
    days = trading_days(mapping, file, received_at.date() if received_at else date.fromtimestamp(file.stat().st_mtime))
    if not days:
        raise MappingError(f"{file.name}: expected lines, found none. Export it again.")
    landing = home.landing / mapping.source
    name = f"{file.stem}_{file_hash(file)[:8]}.parquet"
    paths = {landing / day.isoformat() / name: frame for day, frame in days.items()}
    stale = sorted(path.parent.name for path in landing.glob(f"*/{name}") if path not in paths)
    if stale:
        raise MappingError(
            f"{file.name}: expected the trading days of its first landing, found {len(stale)} days it would leave, "
            f"such as {stale[0]}. Land it in a fresh home, or restore `trading_day` in the mapping."
        )
    write_atomically(landing / "mapping.yml", mapping.text.encode())
    for path, frame in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
        frame.write_parquet(draft, compression="zstd", compression_level=1, metadata={"mapping_sha256": mapping.sha256})
        received = (received_at or _close(date.fromisoformat(path.parent.name))).timestamp()
        os.utime(draft, (received, received))
        draft.replace(path)
    return list(paths)


def _close(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC) + timedelta(days=1)


def read_mapped(mapping: Mapping, path: Path) -> Reading:
    """Rows for every mapped table from one landed file. A line that landed with a fault is set aside, under the first.

    Raises: UnreadableFile when the file was landed by a mapping with other columns.
    """
    try:
        lines = pl.read_parquet(path)
    except pl.exceptions.PolarsError:
        raise UnreadableFile(f"{path.name}: expected Parquet, found something else. Land the export again.") from None
    missing = {*(c.name for c in mapping.columns), *mapping.derived, OFFSET, *_FAULTS} - set(lines.columns)
    if missing:
        raise UnreadableFile(
            f"{path.name}: expected the columns {', '.join(sorted(missing))}, found a file without them. "
            "It was landed under another mapping: land the export again."
        )
    return _read_lines(mapping, lines)


@dataclass(frozen=True)
class Balance:
    """A measure of an export and of what it became; `difference` is what the tables lack.

    `lines_aside` of the export could not be typed: they are in neither sum.
    """

    measure: str
    in_file: float
    in_tables: dict[str, float]
    lines_aside: int

    @property
    def difference(self) -> float:
        return self.in_file - sum(self.in_tables.values())


def reconcile(mapping: Mapping, path: Path) -> list[Balance]:
    """Does everything come back? Each measure of the mapping over the export's lines and over the rows that keep their
    contracts. What sub-cent prices leave over, and what was set aside by a contract, shows as difference."""
    check_file(mapping, path)
    lines = _typed_lines(mapping, path)
    reading = _read_lines(mapping, lines)
    good = lines.filter(pl.col("reason_code").is_null())
    kept = {t: conform(frame, mapping.tables[t].contract, _no_token)[0] for t, frame in reading.frames.items()}
    return [
        Balance(
            name,
            _sum(good, measure.in_file),
            {table: _sum(kept[table], expression) for table, expression in measure.in_tables.items()},
            lines.height - good.height,
        )
        for name, measure in mapping.reconcile.items()
    ]


def _sum(frame: pl.DataFrame, expression: pl.Expr) -> float:
    return float(frame.select(expression.cast(pl.Float64()).sum()).item())


def _no_token(identifier_type: str, value: str | None) -> None:
    return None


def _read_lines(mapping: Mapping, lines: pl.DataFrame) -> Reading:
    reading = Reading()
    first = next(iter(mapping.tables))
    for row in lines.filter(pl.col("reason_code").is_not_null()).select(OFFSET, *_FAULTS).iter_rows():
        reading.rejections.add(first, *row)
    good = lines.filter(pl.col("reason_code").is_null()).drop(*_FAULTS)
    for name, table in mapping.tables.items():
        try:
            reading.frames[name] = _table(good, table, mapping)
        except pl.exceptions.PolarsError as error:
            raise MappingError(
                f"tables.{name}: expected SQL that works on every line, found `{type(error).__name__}`. "
                "Use TRY_CAST where a value may not be what is cast to."
            ) from None
    return reading


def _table(lines: pl.DataFrame, table: TableMapping, mapping: Mapping) -> pl.DataFrame:
    chosen = lines if table.where is None else lines.filter(table.where)
    columns = [expression.alias(name) for name, expression in table.columns.items()]
    if table.group_by:
        grouped = chosen.group_by(table.group_by, maintain_order=True)
        offset = pl.col(OFFSET).min().alias("offset\0")
        rows = grouped.agg(*[c.name.suffix("\0") for c in columns], offset).select(pl.col("^.*\0$").name.map(_bare))
        rows = rows.rename({"offset": OFFSET})
    else:
        rows = chosen.select(*columns, pl.col(OFFSET))
    return rows.with_columns(_at_home(rows, table.contract, mapping))


def _bare(name: str) -> str:
    return name.removesuffix("\0")


def _at_home(rows: pl.DataFrame, contract: Contract, mapping: Mapping) -> list[pl.Expr]:
    """Wall clocks to points in time, and the mapping's currency where the contract asks for one.

    An hour that the clock shows twice in autumn is taken as the first; one it leaves out in spring is no time.
    """
    made = []
    for column in contract.columns:
        found = rows.schema.get(column.name)
        if column.type == "timestamp" and (
            found == pl.Date() or (isinstance(found, pl.Datetime) and not found.time_zone)
        ):
            wall = pl.col(column.name).cast(pl.Datetime("us"))
            zoned = wall.dt.replace_time_zone(mapping.timezone, ambiguous="earliest", non_existent="null")
            made.append(zoned.dt.convert_time_zone("UTC"))
        if column.name == "currency_code" and found is None:
            made.append(pl.lit(mapping.currency).alias("currency_code"))
    return made


def _typed_lines(mapping: Mapping, path: Path) -> pl.DataFrame:
    """Every line of an export: declared columns typed, derived ones, place, faults, and `trading_day`."""
    contract = Contract("mapped", "", (), mapping.columns)
    found = _given_lines(mapping, path)
    lines, aside = conform(found.frames["mapped"], contract, _no_token)
    try:
        for name, expression in mapping.derived.items():
            lines = lines.with_columns(expression.alias(name))
        lines = lines.with_columns(_day(mapping, lines).alias("trading_day\0"))
    except pl.exceptions.PolarsError as error:
        raise MappingError(
            f"derive: expected SQL that works on every line, found `{type(error).__name__}`. "
            "Use TRY_CAST where a value may not be what is cast to."
        ) from None
    bad = found.rejections
    faults = pl.DataFrame(
        {OFFSET: bad.record_offset, "reason_code": bad.reason_code, "detail": bad.detail}, schema=aside.schema
    )
    faults = faults.filter(pl.col("reason_code") != "unknown_column")  # a mapping takes what it needs
    return pl.concat([lines, aside, faults], how="diagonal")


def _day(mapping: Mapping, lines: pl.DataFrame) -> pl.Expr:
    found = lines.select(mapping.trading_day.alias("_")).schema["_"]
    if isinstance(found, pl.Datetime) and found.time_zone:
        return mapping.trading_day.dt.convert_time_zone(mapping.timezone).dt.date()
    return mapping.trading_day.cast(pl.Date())


def _header(mapping: Mapping, path: Path) -> list[str]:
    if mapping.file_format == "parquet":
        return list(pl.read_parquet_schema(path))
    text = _utf8(path.read_bytes(), mapping.options).decode(errors="replace")
    first = next((line for line in text.splitlines() if line.strip()), "")
    return [title.strip() for title in next(csv.reader([first], delimiter=mapping.options.get("separator", ",")), [])]


def _given_lines(mapping: Mapping, path: Path) -> Reading:
    """The declared columns as the export has them, and each record's place: its position, or its line in a CSV file."""
    names = [column.name for column in mapping.columns]
    if mapping.file_format == "parquet":
        frame = pl.read_parquet(path, columns=names)
        return Reading({"mapped": frame.with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int64()).alias(OFFSET))})
    # The CSV reader splits at commas only. Another separator trades places with the comma, there and back again.
    separator = mapping.options.get("separator", ",")
    there = bytes.maketrans(f",{separator}".encode(), f"{separator},".encode())
    contract = Contract("mapped", "", (), tuple(Column(_swapped(name, separator), "text", "") for name in names))
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / path.name
        plain.write_bytes(_utf8(path.read_bytes(), mapping.options).translate(there))
        reading = read_csv_rows(plain, contract)
    texts = reading.frames["mapped"].rename({_swapped(name, separator): name for name in names})
    if separator != ",":
        texts = texts.with_columns(pl.col(names).str.replace_many([",", separator], [separator, ","]))
    plainer = [_plainer(column, mapping) for column in mapping.columns]
    return Reading({"mapped": texts.with_columns(plainer)}, reading.rejections)


def _plainer(column: Column, mapping: Mapping) -> pl.Expr:
    """Text as the contracts read it: decimal points, ISO 8601 times. What does not fit stays, to be set aside."""
    text = pl.col(column.name)
    if column.type == "decimal" and mapping.options.get("decimal") == ",":
        return text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    form = mapping.time_formats.get(column.name)
    if not form:
        return text
    if column.type == "date":
        iso = text.str.strip_chars().str.to_date(form, strict=False).dt.to_string("%Y-%m-%d")
    else:
        parsed = text.str.strip_chars().str.to_datetime(form, time_unit="us", strict=False)
        iso = parsed.dt.to_string("%Y-%m-%dT%H:%M:%S%.6f%:z" if column.type == "timestamp" else "%Y-%m-%dT%H:%M:%S%.6f")
    return pl.coalesce(iso, text).alias(column.name)


def _utf8(data: bytes, options: dict[str, str]) -> bytes:
    return from_encoding(data, options["encoding"]) if "encoding" in options else as_utf8(data)


def _swapped(text: str, separator: str) -> str:
    return text.translate({ord(","): separator, ord(separator): ","})
