"""Random chains of small models over three tables, in most of what DuckDB's SELECT can say; and what really changes in them.

Every choice that SQL leaves open is closed: rows that tie are equal in all columns, so that the same rows give the same answer.
"""

# ruff: noqa: S608 - SQL is what is made here

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import duckdb
from hypothesis import strategies as st

TABLES: Mapping[str, tuple[str, ...]] = {"people": ("id", "a", "b"), "visits": ("id", "b", "c"), "places": ("k", "d")}
ROWS_OF = 7


@dataclass(frozen=True)
class Chain:
    """Models in the order they are built: name -> SQL over tables and earlier models."""

    models: Mapping[str, str]


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    columns: dict[str, tuple[str, ...]] = dict(TABLES)
    models: dict[str, str] = {}
    for number in range(draw(st.integers(1, 3))):
        name = f"m{number}"
        left = draw(st.sampled_from([*columns, *list(models)[-1:] * 3]))
        right = draw(st.sampled_from([*columns]))
        sql, shown = draw(_model(left, columns[left], right, columns[right]))
        models[name], columns[name] = sql, shown
    return Chain(models)


def _model(left: str, of_left: tuple[str, ...], right: str, of_right: tuple[str, ...]) -> st.SearchStrategy:
    return st.sampled_from(_SHAPES).flatmap(lambda shape: shape(left, of_left, right, of_right))


def _one(names: tuple[str, ...], alias: str = "") -> st.SearchStrategy[str]:
    return st.sampled_from(names).map(lambda name: f"{alias}{name}")


@st.composite
def _value(draw: st.DrawFn, names: tuple[str, ...], alias: str = "") -> str:
    x, y, z = (draw(_one(names, alias)) for _ in range(3))
    return draw(
        st.sampled_from(
            [
                x, f"{x} + {y}", f"coalesce({x}, {y})", f"case when {x} > 1 then {y} else {z} end", f"case {x} when 1 then {y} end",
                f"if({x} > {y}, {z}, 0)", f"nullif({x}, {y})", f"greatest({x}, {y})", f"cast({x} is null as integer)",
                f"{{'u': {x}, 'v': {y}}}.u", f"[{x}, {y}][1]", f"list_sum(list_transform([{x}, 2], lambda e: e + {y}))",
                f"list_sum([e + {y} for e in [{x}, {z}] if e > 0])", f"len(list_filter([{x}, {y}], lambda e: e > 0))",
                f"{x}.abs()", f"struct_pack(u := {x}).u", f"cast({x} in ({y}, 2) as integer)", f"cast({x} between {y} and {z} as integer)",
            ]
        )
    )  # fmt: skip


@st.composite
def _condition(draw: st.DrawFn, names: tuple[str, ...], alias: str = "") -> str:
    x, y = draw(_value(names, alias)), draw(_one(names, alias))
    return draw(st.sampled_from([f"{x} > 0", f"{x} = {y}", f"{x} is not null", f"not ({x} < 1 or {y} = 2)"]))


@st.composite
def _plain(draw: st.DrawFn, left: str, of_left: tuple[str, ...], right: str, of_right: tuple[str, ...]) -> object:
    values = [draw(_value(of_left)) for _ in range(2)]
    where = draw(_condition(of_left))
    body = f"select {values[0]} as p, {values[1]} as q, p + 1 as r from {left} where {where}"
    distinct = draw(st.sampled_from(["", "distinct "]))
    return body.replace("select ", f"select {distinct}", 1), ("p", "q", "r")


@st.composite
def _starred(draw: st.DrawFn, left: str, of_left: tuple[str, ...], right: str, of_right: tuple[str, ...]) -> object:
    first, last = of_left[0], of_left[-1]
    if len(of_left) == 1:
        return f"from {left}", of_left
    kept = tuple(name for name in of_left if name != last)
    return draw(
        st.sampled_from(
            [
                (f"with s as (select * from {left}) select * from s", of_left),
                (f"from {left}", of_left),
                (f"select * exclude ({last}) from {left}", kept),
                (f"select * replace ({last} * 2 as {first}) from {left}", of_left),
                (f"select * rename ({first} as renamed) from {left}", ("renamed", *of_left[1:])),
                (f"select t.*, 1 as one from {left} as t", (*of_left, "one")),
                (f"select n1 as x1 from {left} as t(n1)", ("x1",)),
                (f"select x.{first} as s1 from (select t as x from {left} as t) as inner_rows", ("s1",)),
            ]
        )
    )


@st.composite
def _joined(draw: st.DrawFn, left: str, of_left: tuple[str, ...], right: str, of_right: tuple[str, ...]) -> object:
    x, y = draw(_one(of_left, "l.")), draw(_one(of_right, "r."))
    kind = draw(st.sampled_from(["inner", "left", "right", "full", "semi", "anti"]))
    more = draw(st.sampled_from(["", f" and {y} > 0", f" and {x} < 2"]))
    shown = [draw(_value(of_left, "l."))]
    if kind not in ("semi", "anti"):
        shown.append(draw(_value(of_right, "r.")))
    items = ", ".join(f"{value} as j{number}" for number, value in enumerate(shown))
    return f"select {items} from {left} as l {kind} join {right} as r on {x} = {y}{more}", tuple(
        f"j{number}" for number in range(len(shown))
    )


@st.composite
def _looked_up(draw: st.DrawFn, left: str, of_left: tuple[str, ...], right: str, of_right: tuple[str, ...]) -> object:
    """A LEFT JOIN to what is one row a key: adds nothing to the left side."""
    x, key, y = draw(_one(of_left, "l.")), draw(_one(of_right)), draw(_one(of_right))
    grouped = draw(st.sampled_from([f"group by {key}", "group by 1"]))
    one = draw(st.booleans())
    inner = (
        f"select max({y}) as g, 1 as key from {right}"
        if one
        else f"select {key} as key, max({y}) as g from {right} {grouped}"
    )
    on = draw(st.sampled_from([f"{x} = u.key", f"u.key = {x} and {x} > 0", f"{x} = u.key and u.g > 0"]))
    on = "true" if one and draw(st.booleans()) else on
    through = draw(st.sampled_from(["u", "v"]))
    sql = f"with u as ({inner}), v as (select * from u where g > 0) select {x} as kept, u.g as seen from {left} as l left join {through} as u on {on}"
    return sql, ("kept", "seen")


@st.composite
def _using(draw: st.DrawFn, left: str, of_left: tuple[str, ...], right: str, of_right: tuple[str, ...]) -> object:
    x, y = draw(_one(of_left)), draw(_one(of_right))
    kind = draw(st.sampled_from(["join", "left join", "full join"]))
    other = draw(_one(of_right))
    return (
        f"with l as (select {x} as key, {of_left[-1]} as mine from {left}), r as (select {y} as key, {other} as theirs from {right}) "
        f"select * from l {kind} r using (key)",
        ("key", "mine", "theirs"),
    )


@st.composite
def _grouped(draw: st.DrawFn, left: str, of_left: tuple[str, ...], right: str, of_right: tuple[str, ...]) -> object:
    key, x, y = draw(_one(of_left)), draw(_value(of_left)), draw(_one(of_left))
    value = draw(
        st.sampled_from(
            [
                f"sum({x})", f"count({x})", f"count(distinct {x})", f"count(*) filter (where {y} > 0)", "count(*)", f"min({x})",
                f"sum({x}) filter (where {y} > 0)", f"quantile_cont({x}, 0.5)", f"list_sum(list({x} order by {y}))", f"bool_or({x} > {y})",
            ]
        )
    )  # fmt: skip
    groups, keyed = draw(
        st.sampled_from([(f"group by {key}", key), ("group by 1", key), ("group by all", key), ("", "0")])
    )
    having = draw(st.sampled_from(["", "having count(*) > 1", f"having max({y}) > 0"])) if groups else ""
    return f"select {keyed} as key, cast({value} as integer) as n from {left} {groups} {having}", ("key", "n")


@st.composite
def _windowed(draw: st.DrawFn, left: str, of_left: tuple[str, ...], right: str, of_right: tuple[str, ...]) -> object:
    x, y, z = (draw(_one(of_left)) for _ in range(3))
    everything = ", ".join(of_left)
    value = draw(
        st.sampled_from(
            [
                f"sum({x}) over (partition by {y})", f"rank() over (partition by {y} order by {x})", f"count(*) over (order by {x})",
                f"row_number() over (partition by {y} order by {everything})", f"lag({x}) over (order by {everything})",
                f"max({x}) over w", f"first_value({x}) over (partition by {y} order by {everything})",
            ]
        )
    )  # fmt: skip
    window = f" window w as (partition by {z})" if " over w" in value else ""
    qualify = draw(
        st.sampled_from(["", f" qualify rank() over (partition by {y} order by {z}) = 1", " qualify wv > 1"])
    )
    return f"select {z} as z, cast({value} as integer) as wv from {left}{window}{qualify}", ("z", "wv")


@st.composite
def _combined(draw: st.DrawFn, left: str, of_left: tuple[str, ...], right: str, of_right: tuple[str, ...]) -> object:
    x, y = draw(_value(of_left)), draw(_value(of_right))
    x2, y2 = draw(_one(of_left)), draw(_one(of_right))
    kind = draw(st.sampled_from(["union all", "union", "except", "intersect", "union all by name"]))
    return f"select {x} as s, {x2} as t from {left} {kind} select {y} as s, {y2} as t from {right}", ("s", "t")


@st.composite
def _asked(draw: st.DrawFn, left: str, of_left: tuple[str, ...], right: str, of_right: tuple[str, ...]) -> object:
    """Subqueries: in WHERE, as values, correlated and not."""
    x, y, z = draw(_one(of_left, "l.")), draw(_one(of_right, "r.")), draw(_one(of_right, "r."))
    where = draw(
        st.sampled_from(
            [
                f"exists (select 1 from {right} as r where {y} = {x})", f"not exists (select 1 from {right} as r where {y} = {x} and {z} > 0)",
                f"{x} in (select {y} from {right} as r where {z} > 0)", f"{x} > (select min({y}) from {right} as r)", "true",
            ]
        )
    )  # fmt: skip
    value = draw(
        st.sampled_from(
            [f"(select max({y}) from {right} as r where {z} = {x})", f"(select count(*) from {right} as r)", x]
        )
    )
    return f"select {draw(_one(of_left, 'l.'))} as o, {value} as i from {left} as l where {where}", ("o", "i")


@st.composite
def _unnested(draw: st.DrawFn, left: str, of_left: tuple[str, ...], right: str, of_right: tuple[str, ...]) -> object:
    x, y, z = (draw(_one(of_left, "t.")) for _ in range(3))
    return draw(
        st.sampled_from(
            [
                (f"select {x} as n, e.v as v from {left} as t, unnest([{y}, {z}]) as e(v)", ("n", "v")),
                (
                    f"select {x} as n, unnest(list_filter([{y}, {z}], lambda e: e > 0)) as v from {left} as t",
                    ("n", "v"),
                ),
                (
                    f"select {x} as n, q.v as v from {left} as t, lateral (select {y} + {z} as v where {z} > 0) as q",
                    ("n", "v"),
                ),
                (f"select {x} as n, r.i as v from {left} as t, range(coalesce(abs({y}), 0)) as r(i)", ("n", "v")),
            ]
        )
    )


@st.composite
def _cut(draw: st.DrawFn, left: str, of_left: tuple[str, ...], right: str, of_right: tuple[str, ...]) -> object:
    order = ", ".join(draw(st.permutations(of_left)))
    x = draw(_one(of_left))
    return draw(
        st.sampled_from(
            [
                (f"select {x} as f from {left} order by {order} limit 2", ("f",)),
                (f"select distinct on ({x}) {x} as f, {of_left[0]} as g from {left} order by {x}, {order}", ("f", "g")),
                (f"select f from (select {x} as f from {left} order by {order} limit 3) as inner_rows where f > 0", ("f",)),
                (f"with recursive up as (select {x} as f, 0 as depth from {left} union all select f + 1, depth + 1 from up where depth < 2) select f from up", ("f",)),
            ]
        )
    )  # fmt: skip


_SHAPES = (
    _plain, _starred, _joined, _looked_up, _using, _grouped, _windowed, _combined, _asked, _unnested, _cut,
)  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """What the three tables hold: small whole numbers and nulls."""

    of: Mapping[str, tuple[tuple[int | None, ...], ...]]


def filled(chance: Random) -> Rows:
    """Tables full of small numbers and a few nulls: rows that meet, and groups of several."""
    cells = (None, -1, 0, 1, 1, 2, 2, 3)
    return Rows(
        {
            name: tuple(tuple(chance.choice(cells) for _ in columns) for _ in range(chance.randint(3, ROWS_OF)))
            for name, columns in TABLES.items()
        }
    )


def changed(rows: Rows, table: str, column: str, chance: Random) -> Rows:
    """The same rows with other values in one column."""
    at, other = TABLES[table].index(column), filled(chance).of[table]
    cells = [row[at] for row in other]
    made = tuple((*row[:at], cells[i % len(cells)], *row[at + 1 :]) for i, row in enumerate(rows.of[table]))
    return Rows({**rows.of, table: made})


def answers(connection: duckdb.DuckDBPyConnection, chain: Chain, rows: Rows) -> dict[str, list[tuple[int | None, ...]]]:
    """Every model's rows, built anew from these tables."""
    connection.execute("drop schema if exists world cascade; create schema world; set schema = 'world'")
    for name, columns in TABLES.items():
        cells = ", ".join(
            f"({', '.join('null' if cell is None else str(cell) for cell in row)})" for row in rows.of[name]
        )
        listed = ", ".join(f"cast({column} as integer) as {column}" for column in columns)
        connection.execute(f"create table {name} as select {listed} from (values {cells}) as v({', '.join(columns)})")
    for name, sql in chain.models.items():
        connection.execute(f"create table {name} as {sql}")
    return {name: connection.execute(f"from {name}").fetchall() for name in chain.models}


def shown(rows: list[tuple[int | None, ...]], places: list[int]) -> list[str]:
    """Some columns of the rows together, as text, sorted; without columns the number of rows."""
    return sorted(str([row[place] for place in places]) for row in rows)
