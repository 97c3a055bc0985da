"""From a definition to SQL: portable, every value a parameter, over the published tables by name.

Runs in DuckDB in memory on the published Parquet files. The warehouse file is never opened.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import duckdb

from models.segments.conditions import PRESENCE, Comparison, Condition, Happened, Lookalike, leaves
from models.segments.definition import Segment, SegmentError, likes, load
from models.segments.fields import EVENTS, SCORES, SUBJECTS, Checked, FieldType, Value
from troth.home import Home
from troth.published import current

LEAST_SEED = 30  # fewer people who have a score say nothing of what scores like theirs are
_COLUMNS = {"customer_id": "of_customers.customer_id", "is_test": "coalesce(of_customers.is_test, true)"}
_AND = "\n  and "
_MAIN_CURRENCY = (
    "select currency_code from orders where not is_cancelled "
    "group by currency_code order by count(*) desc, currency_code limit 1"
)
_JOINED_BY = {"all": " and ", "any": " or "}
_PRODUCTS = (
    "(select sku, max(category_name) as category_name, max(brand_name) as brand_name from products group by sku)"
)


@dataclass(frozen=True)
class Compiled:
    """A query for customer_id and is_test of everybody who matches, its parameters, and the tables it reads."""

    sql: str
    parameters: Mapping[str, Value]
    tables: tuple[str, ...]


def compiled(
    home: Home,
    segment: Segment,
    at: datetime,
    *,
    carried: Iterable[str] = (),
    shown: Mapping[str, Comparison] | None = None,
    loaded: Callable[[str], Segment] = load,
) -> Compiled:
    """The segment's query as of a naive UTC time. `carried`: columns of `customers` that it gives besides; `shown`: fields, by name.

    `loaded` gives the segments that lookalikes start from. Raises: SegmentError for what the published tables do not have.
    """
    query = _Query(home, f"segment {segment.name}", at, loaded)
    sql = query.of_segment(segment, carried, shown or {})
    return Compiled(sql, query.parameters, tuple(sorted(query.tables)))


def compiled_condition(home: Home, what: str, condition: Condition, at: datetime) -> Compiled:
    """The query for customer_id and is_test of whoever matches a condition by itself; `what` is named by errors."""
    query = _Query(home, what, at, load)
    sql = query.of_condition(condition)
    return Compiled(sql, query.parameters, tuple(sorted(query.tables)))


def rendered(query: Compiled, dialect: str) -> str:
    """The query for another engine, by sqlglot. Parameters keep their names. Raises: SegmentError for an unknown dialect."""
    import sqlglot
    from sqlglot.dialects.dialect import Dialect

    if dialect not in Dialect.classes:
        known = ", ".join(sorted(name for name in Dialect.classes if name))
        raise SegmentError(f"dialect: expected one of {known}, found {dialect[:40]!r}. Choose one of them.")
    (statement,) = sqlglot.transpile(query.sql, read="duckdb", write=dialect, pretty=True)
    return statement


def connected(home: Home, tables: Iterable[str]) -> duckdb.DuckDBPyConnection:
    """A connection in memory that sees these published tables by name, each in one immutable version; times are UTC."""
    connection = duckdb.connect(":memory:")
    connection.execute("set TimeZone = 'UTC'")
    connection.execute(
        "set preserve_insertion_order = false"
    )  # a third of the time of a table; who wants an order says so
    show(connection, home, tables)
    return connection


def show(connection: duckdb.DuckDBPyConnection, home: Home, tables: Iterable[str]) -> None:
    """Let a connection see these published tables, too; what it sees already stays the version it is."""
    for table in tables:
        path = str(current(home, table)).replace("'", "''")
        connection.execute(f"create view if not exists {table} as select * from read_parquet('{path}')")  # noqa: S608


class _Query:
    """One query while it grows: its common table expressions, parameters and tables."""

    def __init__(self, home: Home, what: str, at: datetime, loaded: Callable[[str], Segment]) -> None:
        self.parameters: dict[str, Value] = {}
        self.tables = {"customers"}
        self._home = home
        self._what = what
        self._at = at
        self._loaded = loaded
        self._checked = Checked(home, what, at)
        self._ctes: dict[str, str] = {}
        self._names: dict[object, str] = {}  # of what was asked for already

    def of_segment(
        self, segment: Segment, carried: Iterable[str] = (), shown: Mapping[str, Comparison] | None = None
    ) -> str:
        columns = _COLUMNS | {name: f"of_customers.{name}" for name in carried}
        columns |= {name: self._field(by) for name, by in (shown or {}).items()}
        where = self._where(segment.where)
        if segment.rank is None:
            return self._select(columns, where)
        value, top = self._field(segment.rank.by), self._parameter(segment.rank.top)
        inner = self._select({**columns, "ranked_by": value}, f"{where}\n  and {value} is not null", with_ctes=False)
        self._ctes["matching"] = inner
        names, order = ", ".join(columns), "desc" if segment.rank.order == "highest" else "asc"
        # Customers made for tests are placed among themselves, so that none takes the place of a person.
        placed = (
            f"(select {names} from matching where {tested} order by ranked_by {order}, customer_id limit {top})"  # noqa: S608
            for tested in ("not is_test", "is_test")
        )
        return f"{self._with()}select {names}\nfrom (\n{f'{chr(10)}union all{chr(10)}'.join(placed)}\n) placed"

    def of_condition(self, condition: Condition) -> str:
        where = self._where(condition)
        return self._select(_COLUMNS, where)

    def _select(self, columns: Mapping[str, str], where: str, *, with_ctes: bool = True) -> str:
        listed = ", ".join(f"{value} as {name}" for name, value in columns.items())
        joins = "".join(
            f"\nleft join {name} on {name}.customer_id = of_customers.customer_id" for name in self._names.values()
        )
        return f"{self._with() if with_ctes else ''}select {listed}\nfrom customers of_customers{joins}\nwhere {where}"

    def _with(self) -> str:
        return f"with {self._text_of_ctes()}\n" if self._ctes else ""

    def _text_of_ctes(self) -> str:
        return ",\n".join(f"{name} as (\n{sql.strip()}\n)" for name, sql in self._ctes.items())

    def _where(self, condition: Condition) -> str:
        """True exactly where the condition holds; elsewhere false or unknown, which `and`, `or` and `where` take alike.

        So only `not` has to settle it, and an engine may see that whoever has no row in a table cannot match.
        """
        if isinstance(condition, Comparison):
            return self._compared(self._field(condition), condition, self._checked.kind(condition))
        if isinstance(condition, Happened):
            counted, count = f"{self._counted(condition)}.counted", self._parameter(condition.count)
            is_absence_no = condition.operator == ">=" and condition.count > 0
            return f"{counted if is_absence_no else f'coalesce({counted}, 0)'} {condition.operator} {count}"
        if isinstance(condition, Lookalike):
            return f"{self._scored(condition)}.customer_id is not null"
        inner = [self._where(one) for one in condition.conditions]
        if condition.kind == "not":
            return f"not coalesce({inner[0]}, false)"
        return f"({_JOINED_BY[condition.kind].join(inner)})"

    def _compared(self, column: str, comparison: Comparison, kind: FieldType) -> str:
        names = [self._parameter(value) for value in self._checked.values(comparison, kind)]
        if comparison.operator in PRESENCE:
            return f"{column} is {'not ' if comparison.operator == 'known' else ''}null"
        operator = "<>" if comparison.operator == "!=" else comparison.operator
        right = f"({', '.join(names)})" if operator == "in" else names[0]
        return f"{column} {operator} {right}"

    def _field(self, comparison: Comparison) -> str:
        """The column of a subject's field; the subject is joined."""
        self._checked.kind(comparison)
        name = f"of_{comparison.subject}"
        if comparison.subject != "customers" and name not in self._ctes:
            subject = SUBJECTS[comparison.subject]
            self._ctes[name] = self._at_time(subject.sql)
            self._names[name] = name
            self.tables |= set(subject.tables)
        return f"{name}.{comparison.field}"

    def _counted(self, asked: Happened) -> str:
        """How often an event happened, by customer: the name of the expression."""
        self._checked.condition(asked)
        key = (asked.event, asked.filters, asked.counted, asked.hours, asked.unless)
        if key in self._names:
            return self._names[key]
        event, name = EVENTS[asked.event], f"event_{len(self._names)}"
        joined, tests = self._rows(asked.event, asked.filters, asked.hours)
        counted = event.units if asked.counted == "units" else event.times
        if asked.counted in event.sums:
            counted = f"coalesce(sum(e.{asked.counted}), 0)"
            tests += self._in_one_currency(asked)
        if asked.unless:
            same, other = asked.unless.same, f"unless_{len(self._names)}"
            theirs, such = self._rows(asked.unless.event, asked.unless.filters, asked.unless.hours)
            self._ctes[other] = (
                f"select distinct e.customer_id, e.{same}\nfrom ({EVENTS[asked.unless.event].sql}) e{theirs}\nwhere {_AND.join(such)}"
            )
            joined += f"\nleft join {other} on {other}.customer_id = e.customer_id and {other}.{same} = e.{same}"
            tests += [f"e.{same} is not null", f"{other}.customer_id is null"]
        self._ctes[name] = (
            f"select e.customer_id, {counted} as counted\nfrom ({event.sql}) e{joined}\nwhere {_AND.join(tests)}\ngroup by e.customer_id"
        )
        self._names[key] = name
        return name

    def _rows(self, name: str, filters: Iterable[Comparison], hours: int) -> tuple[str, list[str]]:
        """What is joined to rows `e` of an event, and what holds of those asked for."""
        event = EVENTS[name]
        self.tables |= set(event.tables)
        joined, tests = "", ["e.customer_id is not null"]
        tests.append(f"e.happened_at > {self._parameter(self._at - timedelta(hours=hours))}")
        tests.append(f"e.happened_at <= {self._parameter(self._at)}")
        for each in filters:
            is_of_product = each.field in event.of_products
            if is_of_product and not joined:
                joined = f"\nleft join {_PRODUCTS} p on p.sku = e.sku"
                self.tables.add("products")
            column = f"{'p' if is_of_product else 'e'}.{each.field}"
            tests.append(self._compared(column, each, event.all_fields[each.field]))
        return joined, tests

    def _in_one_currency(self, asked: Happened) -> list[str]:
        """Amounts of several currencies cannot be added: where none is asked for, those of the currency most orders are in."""
        if any((each.field, each.operator) == ("currency_code", "=") for each in asked.filters):
            return []
        self.tables.add("orders")
        self._ctes["main_currency"] = _MAIN_CURRENCY
        return ["e.currency_code = (select currency_code from main_currency)"]

    def _scored(self, asked: Lookalike) -> str:
        """Whoever a lookalike means, customers made for tests left out: the name of the expression."""
        self._checked.condition(asked)
        key = (asked.score, asked.percent, asked.like)
        if key in self._names:
            return self._names[key]
        score, number = SCORES[asked.score], len(self._names)
        name, of_model, percent = f"lookalike_{number}", f"scores_{number}", self._parameter(asked.percent)
        self.tables.add(score.table)
        self._ctes[of_model] = f"""
select s.customer_id, s.{score.column} as score
from {score.table} s join customers c on c.customer_id = s.customer_id
where not c.is_test and s.{score.column} is not null"""  # noqa: S608
        if asked.like is None:
            self._ctes[name] = f"""
select customer_id
from (
    select customer_id, row_number() over (order by score desc, customer_id) as place, count(*) over () as people
    from {of_model}
) placed
where place * 100 <= people * {percent}"""  # noqa: S608
        else:
            seed = f"seed_{number}"
            self._ctes[seed] = self._seed(asked)
            self._ctes[f"range_{number}"] = f"""
select min(score) as lowest, max(score) as highest
from (
    select score, row_number() over (order by score, customer_id) as place, count(*) over () as people
    from {of_model} where customer_id in (select customer_id from {seed})
) placed
where people >= {LEAST_SEED}
  and place * 200 > people * (100 - {percent}) and (people - place + 1) * 200 > people * (100 - {percent})"""  # noqa: S608
            self._ctes[name] = f"""
select m.customer_id
from {of_model} m
join range_{number} r on m.score >= r.lowest and m.score <= r.highest
left join {seed} on {seed}.customer_id = m.customer_id
where {seed}.customer_id is null"""  # noqa: S608
        self._names[key] = name
        return name

    def _seed(self, asked: Lookalike) -> str:
        seed = self._loaded(asked.like or "")
        if likes(seed):
            raise SegmentError(
                f"{self._what}, {asked.place or 'lookalike'}: expected a segment that is no lookalike of another, found "
                f"{seed.name}, which is. Name what it starts from."
            )
        inner = _Query(self._home, f"segment {seed.name}", self._at, self._loaded)
        inner.parameters = self.parameters  # one namespace
        sql = inner.of_segment(seed)
        self.tables |= inner.tables
        return sql

    def _at_time(self, sql: str) -> str:
        if "$at" in sql:
            self.parameters["at"] = self._at
        return sql

    def _parameter(self, value: Value) -> str:
        name = f"v{len(self.parameters)}"
        self.parameters[name] = value
        return f"${name}"


def fields_of(segment: Segment) -> list[Comparison]:
    """The fields that a definition speaks of, each once: of its conditions first, then what it ranks by."""
    asked = [leaf for leaf in leaves(segment.where) if isinstance(leaf, Comparison)]
    asked += [segment.rank.by] if segment.rank else []
    return list({(each.subject, each.field): each for each in asked}.values())
