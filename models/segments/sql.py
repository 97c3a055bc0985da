"""From a definition to SQL: portable, every value a parameter, over the published tables by name.

Runs in DuckDB in memory on the published Parquet files. The warehouse file is never opened.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import duckdb

from models.segments.definition import Comparison, Condition, Segment, comparisons
from models.segments.fields import SUBJECTS, Value, values
from troth.home import Home
from troth.published import current

_JOINED_BY = {"all": " and ", "any": " or "}


@dataclass(frozen=True)
class Compiled:
    """A query for customer_id and is_test of everybody who matches, its parameters, and the tables it reads."""

    sql: str
    parameters: Mapping[str, Value]
    tables: tuple[str, ...]


def compiled(home: Home, segment: Segment, at: datetime) -> Compiled:
    """The segment's query as of a naive UTC time. Raises: SegmentError for what the published tables do not have."""
    typed = values(home, segment)
    subjects = sorted({comparison.subject for comparison in comparisons(segment.where)} - {"customers"})
    parameters: dict[str, Value] = {}
    where = _where(segment.where, typed, parameters)
    ctes = ",\n".join(f"of_{name} as (\n{SUBJECTS[name].sql.strip()}\n)" for name in subjects)
    joins = "".join(f"\nleft join of_{name} on of_{name}.customer_id = of_customers.customer_id" for name in subjects)
    if any("$at" in SUBJECTS[name].sql for name in subjects):
        parameters["at"] = at
    sql = (
        (f"with {ctes}\n" if ctes else "")
        + "select of_customers.customer_id, coalesce(of_customers.is_test, true) as is_test"
        + "\nfrom customers of_customers"
        + joins
        + f"\nwhere {where}"
    )
    tables = {"customers", *(table for name in subjects for table in SUBJECTS[name].tables)}
    return Compiled(sql, parameters, tuple(sorted(tables)))


def connected(home: Home, tables: Iterable[str]) -> duckdb.DuckDBPyConnection:
    """A connection in memory that sees these published tables by name, each in one immutable version; times are UTC."""
    connection = duckdb.connect(":memory:")
    connection.execute("set TimeZone = 'UTC'")
    for table in tables:
        path = str(current(home, table)).replace("'", "''")
        connection.execute(f"create view {table} as select * from read_parquet('{path}')")  # noqa: S608 - quoted
    return connection


def _where(condition: Condition, typed: Mapping[Comparison, tuple[Value, ...]], parameters: dict[str, Value]) -> str:
    if isinstance(condition, Comparison):
        names = []
        for value in typed[condition]:
            names.append(f"${(name := f'v{len(parameters)}')}")
            parameters[name] = value
        right = f"in ({', '.join(names)})" if condition.operator == "in" else f"{_sql(condition.operator)} {names[0]}"
        return f"coalesce(of_{condition.subject}.{condition.field} {right}, false)"
    inner = [_where(one, typed, parameters) for one in condition.conditions]
    return f"not {inner[0]}" if condition.kind == "not" else f"({_JOINED_BY[condition.kind].join(inner)})"


def _sql(operator: str) -> str:
    return "<>" if operator == "!=" else operator
