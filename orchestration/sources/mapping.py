"""Mappings: YAML that says how the columns of somebody's export become the columns of our contracts.

Here a mapping is read and checked, all of it before any row is read. What is done with it is in `mapped`.
"""

import difflib
import re
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl
import yaml

from orchestration.sources import consent, ecommerce, loyalty, pos, wms
from orchestration.sources.contract import POLARS_TYPES, Column, Contract
from troth.errors import TrothError
from troth.ids import file_hash

CONTRACTS = {c.table: c for module in (pos, ecommerce, wms, loyalty, consent) for c in module.CONTRACTS}
SOURCES = tuple(dict.fromkeys(contract.source for contract in CONTRACTS.values()))
OPTIONS = {"parquet": (), "csv": ("separator", "encoding", "decimal")}
FORMS = {"cents": "SQL for an amount of money, rounded to whole cents", "text": "a constant"}
OFFSET = "record_offset"


class MappingError(TrothError):
    """A mapping that cannot be used: every fault in it, one a line."""


@dataclass(frozen=True)
class TableMapping:
    """How lines of the file become rows of one contract."""

    contract: Contract
    columns: dict[str, pl.Expr]
    where: pl.Expr | None = None
    group_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measure:
    """A sum that must come back: over the file, and over the tables its lines became."""

    in_file: pl.Expr
    in_tables: dict[str, pl.Expr]


@dataclass(frozen=True)
class Mapping:
    """A checked mapping. `columns` are those of the file; `derived` are computed from them over the whole file."""

    sha256: str
    text: str
    source: str
    timezone: str
    currency: str
    file_format: str
    options: dict[str, str]
    columns: tuple[Column, ...]
    time_formats: dict[str, str]
    derived: dict[str, pl.Expr]
    trading_day: pl.Expr
    tables: dict[str, TableMapping]
    reconcile: dict[str, Measure] = field(default_factory=dict)


def load_mapping(path: Path) -> Mapping:
    """A mapping, checked. Raises: MappingError naming every fault."""
    check = _Check(path)
    mapping = check.mapping()
    if mapping is None or check.faults:
        raise MappingError("\n".join(check.faults))
    return mapping


def check_mapping(path: Path) -> list[str]:
    """Every fault of a mapping, in its own order; none when it can be used. Reads no data."""
    check = _Check(path)
    check.mapping()
    return check.faults


class _Loader(yaml.SafeLoader):
    """YAML in which a key may stand once only; plain YAML would silently take the last."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name} twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


class _Check:
    """Reads a mapping and gathers its faults."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: list[str] = []
        self.frame = pl.DataFrame(schema={OFFSET: pl.Int64()})  # no rows; what an expression gives is found on it

    def fault(self, key: str, expected: str, found: str, todo: str) -> None:
        self.faults.append(f"{self.path.name}, {key}: expected {expected}, found {found}. {todo}")

    def mapping(self) -> Mapping | None:
        document = self.document()
        if document is None:
            return None
        known = ("source", "timezone", "currency", "files", "columns", "derive", "trading_day", "tables", "reconcile")
        self.keys("", document, known, required=tuple(k for k in known if k not in ("derive", "reconcile")))
        if self.faults:
            return None
        self.one_of("source", document["source"], SOURCES)
        self.timezone(document["timezone"])
        if not re.fullmatch("[A-Z]{3}", str(document["currency"])):
            self.fault("currency", "an ISO 4217 code", repr(document["currency"]), "Write it such as GBP.")
        file_format, options = self.files(document["files"])
        columns, time_formats = self.columns(document["columns"])
        self.frame = pl.DataFrame(schema={OFFSET: pl.Int64(), **{c.name: POLARS_TYPES[c.type] for c in columns}})
        derived = self.derive(document.get("derive") or {})
        trading_day = self.expression("trading_day", document["trading_day"], self.frame)
        if trading_day is not None and not isinstance(self.type_of(trading_day), pl.Date | pl.Datetime):
            self.fault(
                "trading_day", "a date or a time", str(self.type_of(trading_day)), "Name a column that holds one."
            )
        tables = {}
        if self.is_mapping("tables", document["tables"], "raw tables with their columns"):
            for name, body in document["tables"].items():
                table = self.table(str(name), body, str(document["source"]))
                if table:
                    tables[str(name)] = table
        reconcile = self.reconcile(document.get("reconcile") or {}, tables)
        if self.faults or trading_day is None:
            return None
        return Mapping(
            file_hash(self.path),
            self.path.read_text(encoding="utf-8"),
            document["source"],
            document["timezone"],
            document["currency"],
            file_format,
            options,
            tuple(columns),
            time_formats,
            derived,
            trading_day,
            tables,
            reconcile,
        )

    def document(self) -> dict | None:
        try:
            document = _Loader(self.path.read_text(encoding="utf-8")).get_single_data()
        except OSError as error:
            self.fault("file", "a YAML file", error.strerror or "nothing", "Give the path of a mapping.")
        except UnicodeDecodeError:
            self.fault("file", "UTF-8", "another encoding", "Save the mapping as UTF-8.")
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"line {mark.line + 1}" if mark else "file"
            self.fault(where, "YAML", getattr(error, "problem", None) or "something else", "Correct that line.")
        except (ValueError, RecursionError):
            self.fault(
                "file", "YAML", "a value that is none of its kind, such as a thirteenth month", "Put it in quotes."
            )
        else:
            if isinstance(document, dict):
                return document
            self.fault(
                "file", "keys such as source, columns and tables", type(document).__name__, "See examples/README.md."
            )
        return None

    def is_mapping(self, key: str, value: Any, expected: str) -> bool:
        if isinstance(value, dict) and value:
            return True
        self.fault(key, expected, "nothing" if not value else type(value).__name__, "See examples/README.md.")
        return False

    def keys(self, key: str, value: AnyMapping, known: tuple[str, ...], required: tuple[str, ...] = ()) -> None:
        for name in value:
            if name not in known:
                at = f"{key}.{name}" if key else str(name)
                self.fault(at, f"one of {', '.join(known)}", repr(name), _suggestion(str(name), known))
        for name in required:
            if value.get(name) is None:
                self.fault(f"{key}.{name}" if key else name, "a value", "none", f"Add `{name}:`.")

    def one_of(self, key: str, value: Any, known: tuple[str, ...]) -> bool:
        if value in known:
            return True
        self.fault(key, f"one of {', '.join(known)}", repr(value), _suggestion(str(value), known))
        return False

    def timezone(self, name: Any) -> None:
        try:
            ZoneInfo(str(name))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self.fault("timezone", "an IANA name", repr(name), "Write it such as Europe/London.")

    def files(self, value: Any) -> tuple[str, dict[str, str]]:
        if not self.is_mapping("files", value, "`format` and, for CSV, `options`"):
            return "", {}
        self.keys("files", value, ("format", "options"), required=("format",))
        options = value.get("options") or {}
        if self.one_of("files.format", value.get("format"), tuple(OPTIONS)) and isinstance(options, dict):
            self.keys("files.options", options, OPTIONS[value["format"]])
            if len(str(options.get("separator", ","))) != 1:
                self.fault(
                    "files.options.separator", "one character", repr(options["separator"]), "Write it such as ';'."
                )
            if "decimal" in options:
                self.one_of("files.options.decimal", options["decimal"], (".", ","))
            try:
                "".encode(str(options.get("encoding", "utf-8")))
            except LookupError:
                self.fault(
                    "files.options.encoding", "an encoding", repr(options["encoding"]), "Write it such as cp1252."
                )
        elif not isinstance(options, dict):
            self.fault("files.options", "named options", type(options).__name__, "See examples/README.md.")
            options = {}
        return str(value.get("format")), {str(k): str(v) for k, v in options.items()}

    def columns(self, value: Any) -> tuple[list[Column], dict[str, str]]:
        columns: list[Column] = []
        formats: dict[str, str] = {}
        if self.is_mapping("columns", value, "the file's columns, each with its type"):
            for name, stated in value.items():
                body = stated if isinstance(stated, dict) else {"type": stated}
                self.keys(f"columns.{name}", body, ("type", "format"), required=("type",))
                if self.one_of(f"columns.{name}", body.get("type"), tuple(POLARS_TYPES)):
                    columns.append(Column(str(name), body["type"], "A column of the file."))
                    if body.get("format"):
                        formats[str(name)] = str(body["format"])
                if str(name) in (OFFSET, "reason_code", "detail"):
                    self.fault(f"columns.{name}", "another name", "one that is ours", "Rename it in the export.")
        return columns, formats

    def derive(self, value: Any) -> dict[str, pl.Expr]:
        derived: dict[str, pl.Expr] = {}
        if not isinstance(value, dict):
            self.fault(
                "derive", "new columns, each with an expression", type(value).__name__, "See examples/README.md."
            )
            return derived
        for name, stated in value.items():
            key = f"derive.{name}"
            if name in self.frame.columns:
                self.fault(key, "a new name", "a column of the file", "Choose another.")
            expression = self.expression(key, stated, self.frame)
            if expression is not None:
                derived[str(name)] = expression.alias(str(name))
                self.frame = self.frame.with_columns(derived[str(name)])
        return derived

    def expression(self, key: str, stated: Any, frame: pl.DataFrame, keys: tuple[str, ...] = ()) -> pl.Expr | None:
        """An expression that is known to work on a frame, or on its groups; None with the fault noted."""
        if isinstance(stated, bool | int | float) or stated is None:
            return pl.lit(stated)
        form, sql = next(iter(stated.items())) if isinstance(stated, dict) and len(stated) == 1 else ("sql", stated)
        if form == "text":
            return pl.lit(str(sql))
        if form not in ("sql", *FORMS) or not isinstance(sql, str):
            forms = " or ".join(f"{{{name}: {what}}}" for name, what in FORMS.items())
            self.fault(key, f"SQL over the columns, or {forms}", repr(stated), "Write one of these.")
            return None
        try:
            expression = pl.sql_expr(sql)
        except pl.exceptions.PolarsError as error:
            self.fault(key, "one SQL expression", f"`{sql}` ({_short(error)})", 'Correct it; odd names go in "".')
            return None
        names, known = tuple(expression.meta.root_names()), tuple(frame.columns)
        unknown = [name for name in dict.fromkeys(names) if name not in known]
        if unknown:
            todo = _suggestion(unknown[0], known, "Declare it under `columns` or `derive`, or correct it.")
            self.fault(key, f"columns among {', '.join(known)}", ", ".join(unknown), todo)
            return None
        if names and set(names) <= set(keys):
            expression = expression.first()
        expression = whole_cents(expression) if form == "cents" else expression
        return expression if self.works(key, sql, expression, frame, keys) else None

    def works(self, key: str, sql: str, expression: pl.Expr, frame: pl.DataFrame, keys: tuple[str, ...]) -> bool:
        """Whether an expression fits the types of its columns and, over groups, gives one value each."""
        named = expression.alias("_")
        try:
            found = (frame.group_by(keys).agg(named) if keys else frame.select(named)).schema["_"]
        except pl.exceptions.PolarsError as error:
            self.fault(
                key, "SQL that fits the types of its columns", f"`{sql}` ({_short(error)})", "Correct or cast it."
            )
            return False
        if isinstance(found, pl.List):
            todo = "Use one such as SUM, MIN, MAX, FIRST, or add its columns to group_by."
            self.fault(key, f"an aggregate, or columns among {', '.join(keys)}", f"`{sql}`", todo)
            return False
        return True

    def type_of(self, expression: pl.Expr, keys: tuple[str, ...] = ()) -> pl.DataType:
        named = expression.alias("_")
        return (self.frame.group_by(keys).agg(named) if keys else self.frame.select(named)).schema["_"]

    def table(self, name: str, body: Any, source: str) -> TableMapping | None:
        key = f"tables.{name}"
        mine = tuple(table for table, contract in CONTRACTS.items() if contract.source == source)
        if not self.one_of(key, name, mine) or not self.is_mapping(
            key, body, "`columns` and, if needed, `where`, `group_by`"
        ):
            return None
        self.keys(key, body, ("where", "group_by", "columns"), required=("columns",))
        keys = body.get("group_by") or ()
        keys = tuple(map(str, keys if isinstance(keys, list | tuple) else (keys,)))
        for column in keys:
            if not self.one_of(f"{key}.group_by", column, tuple(self.frame.columns)):
                return None
        where = None
        if "where" in body:
            where = self.expression(f"{key}.where", body["where"], self.frame)
            if where is not None and self.type_of(where) != pl.Boolean():
                found = str(self.type_of(where))
                self.fault(f"{key}.where", "a condition", found, "Compare with something, such as Quantity > 0.")
        if not self.is_mapping(
            f"{key}.columns", body.get("columns"), "the contract's columns, each with an expression"
        ):
            return None
        columns = self.contract_columns(f"{key}.columns", CONTRACTS[name], body["columns"], keys)
        return TableMapping(CONTRACTS[name], columns, where, keys)

    def contract_columns(self, key: str, contract: Contract, stated: dict, keys: tuple[str, ...]) -> dict[str, pl.Expr]:
        open_columns = {column.name: column for column in contract.columns if not column.token_of}
        columns: dict[str, pl.Expr] = {}
        for name, body in stated.items():
            if not self.one_of(f"{key}.{name}", name, tuple(open_columns)):
                continue
            expression = self.expression(f"{key}.{name}", body, self.frame, keys)
            if expression is None:
                continue
            columns[name] = expression
            found, wanted = self.type_of(expression, keys), open_columns[name].type
            if not _fits(found, wanted):
                self.fault(f"{key}.{name}", wanted, str(found), "Cast it; for money use {cents: ...}.")
        for column in open_columns.values():
            if column.required and column.name not in stated and column.name != "currency_code":
                todo = f"Add `{column.name}:` ({column.description})"
                self.fault(f"{key}.{column.name}", f"an expression that gives {column.type}", "none", todo)
        return columns

    def reconcile(self, value: Any, tables: dict[str, TableMapping]) -> dict[str, Measure]:
        measures: dict[str, Measure] = {}
        if not isinstance(value, dict):
            self.fault("reconcile", "measures", type(value).__name__, "See examples/README.md.")
            return measures
        for name, body in value.items():
            key = f"reconcile.{name}"
            if not self.is_mapping(key, body, "`file` and `tables`"):
                continue
            self.keys(key, body, ("file", "tables"), required=("file", "tables"))
            in_file = self.expression(f"{key}.file", body.get("file"), self.frame)
            in_tables: dict[str, pl.Expr] = {}
            if self.is_mapping(
                f"{key}.tables", body.get("tables"), "mapped tables, each with an expression over its columns"
            ):
                for table, stated in body["tables"].items():
                    if table in tables or self.one_of(f"{key}.tables.{table}", table, tuple(tables)):
                        empty = pl.DataFrame(schema=CONTRACTS[table].schema)
                        expression = self.expression(f"{key}.tables.{table}", stated, empty)
                        if expression is not None:
                            in_tables[table] = expression
            if in_file is not None:
                measures[str(name)] = Measure(in_file, in_tables)
        return measures


def whole_cents(amount: pl.Expr) -> pl.Expr:
    """Money to whole cents, halves away from zero. What a double adds beyond a millionth of a cent is not money."""
    exact = (amount.cast(pl.Float64()) * 100).round(6)
    return (exact.sign() * (exact.abs() + 0.5).floor()).cast(pl.Int64(), strict=False)


def _fits(found: pl.DataType, wanted: str) -> bool:
    if found in (pl.String(), pl.Null()) or found == POLARS_TYPES[wanted]:
        return True
    if isinstance(found, pl.Datetime | pl.Date):
        return wanted == "timestamp" or (wanted == "text" and isinstance(found, pl.Date))
    if found == pl.Boolean():
        return False
    if found.is_float():
        return wanted in ("decimal", "text")
    return found.is_integer() and wanted in ("integer", "decimal", "text")


def _suggestion(name: str, known: tuple[str, ...], otherwise: str = "Correct it.") -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"Did you mean {close[0]}?" if close else otherwise


def _short(error: Exception) -> str:
    return str(error).splitlines()[0]
