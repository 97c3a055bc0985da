"""What queries rest on: named constructs by example, and everything that really changes an answer by experiment."""

from collections.abc import Iterator
from random import Random

import duckdb
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from sqlglot import parse_one

from models.purpose_flow.errors import FlowError
from models.purpose_flow.following import follow
from models.purpose_flow.relations import ROWS, Place, Relation, table
from tests.unit.models.purpose_flow import chains
from tests.unit.models.purpose_flow.chains import TABLES, Chain


def followed(sql: str, **tables: tuple[str, ...]) -> Relation:
    named = tables or TABLES
    return follow(parse_one(sql, dialect="duckdb"), {name: table(name, columns) for name, columns in named.items()})


def upstream(chain: Chain) -> dict[Place, set[Place]]:
    """Every column and row set of a chain's models, and all that it rests on, however far back."""
    tables = {name: table(name, columns) for name, columns in TABLES.items()}
    rests: dict[Place, set[Place]] = {}
    for name, sql in chain.models.items():
        relation = follow(parse_one(sql, dialect="duckdb"), tables)
        rows = {place for place, _ in relation.rows}
        for column, flow in ((ROWS, relation.rows), *relation.columns.items()):
            direct = {place for place, _ in flow} | rows
            rests[name, column] = direct.union(*(rests.get(place, set()) for place in direct))
        tables[name] = table(name, relation.columns)
    return rests


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:", config={"threads": 1}) as opened:
        yield opened


def assert_found(connection: duckdb.DuckDBPyConnection, chain: Chain, seed: int) -> None:
    """Run a chain, then again with each column of each table changed: what was not found to rest on it must be as it was."""
    chance = Random(seed)
    rests, rows = upstream(chain), chains.filled(chance)
    columns = {name: [column for of, column in rests if of == name and column != ROWS] for name in chain.models}
    before = chains.answers(connection, chain, rows)
    for planted in [(name, column) for name, listed in TABLES.items() for column in listed]:
        after = chains.answers(connection, chain, chains.changed(rows, *planted, chance))
        for name in chain.models:
            if planted in rests[name, ROWS]:
                continue
            clean = [i for i, column in enumerate(columns[name]) if planted not in rests[name, column]]
            assert chains.shown(before[name], clean) == chains.shown(after[name], clean), (planted, name)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(chain=chains.chains(), seed=st.integers(0, 2**32))
def test_whatever_a_changed_column_changes_was_found_to_rest_on_it(
    connection: duckdb.DuckDBPyConnection, chain: Chain, seed: int
) -> None:
    try:
        assert_found(connection, chain, seed)
    except duckdb.Error as error:
        event(f"not run: {str(error)[:80]}")
        assume(False)


@pytest.mark.parametrize(
    "sql",
    [
        "select a, count(*) as n from people group by a having max(b) > 1",
        "select max(a) over w as m from people window w as (partition by b)",
        "select id from people as p where exists (select 1 from visits as v where v.b = p.b and v.c > 0)",
        "select p.id, (select count(*) from visits as v where v.b = p.b) as n from people as p",
        "select id, unnest(list_filter([a], lambda e: e > 0)) as v from people",
        "select p.id from people as p, range(coalesce(abs(p.a), 0)) as r(i)",
        "select p.id from people as p, lateral (select p.a as v where p.b > 0) as q",
        "select count(*) filter (where b > 0) as n from people",
        "select list_sum([e for e in [a, 1] if e > b]) as n from people",
        "select first(id order by a, b, id) as f from people",
        "with recursive up as (select a as f, 0 as d from people union all select f, d + 1 from up where d < f) select d from up",
        "select x.b as n from (select p as x from people as p) as packed",
        "select id as first_id from people order by all limit 3",
        "select a + 1 as q, q * 2 as r from people",
        "select id from people semi join visits using (b)",
        "select p.id from people as p left join (select b as k, a, count(*) as n from people group by b, a) as u on u.k = p.id",
        "select p.id from people as p left join (select b as k, count(*) as n from people group by b) as u on u.k = u.n",
        "select p.a from people as p left join (select id, count(*) as n from visits group by id) as u on p.id = 1",
        "select p.id from people as p left join (select b, c, row_number() over (partition by b order by c, id) as n from visits) as v on v.b = p.b and v.n = 1",
        "select p.id from people as p left join (select b, c, row_number() over (partition by b order by c, id) as n from visits) as v on v.b = p.b and v.n < 3",
        "select p.id from people as p left join (select c, row_number() over (partition by b order by c, id) as n from visits) as v on v.c = p.b and v.n = 1",
        "select p.id from people as p left join (select b, c, row_number() over (partition by b + 1 order by c, id) as n from visits) as v on v.b = p.b and v.n = 1",
        "select p.id from people as p left join (select b, c, rank() over (partition by b order by c) as n from visits) as v on v.b = p.b and v.n = 1",
        "select p.id from people as p left join (select k, d from (select b as k, c as d, count(*) as n from visits group by b, c) as g where d = 1) as v on v.k = p.b",
        "select p.id from people as p left join (select k, d from (select b as k, c as d, count(*) as n from visits group by b, c) as g where d = 1 or n > 1) as v on v.k = p.b",
        "select p.id from people as p left join (select k, d from (select b as k, c as d, count(*) as n from visits group by b, c) as g where d = n) as v on v.k = p.b",
    ],
)
def test_a_construct_that_chance_seldom_draws_is_held_to_the_same(
    connection: duckdb.DuckDBPyConnection, sql: str
) -> None:
    for seed in range(3):
        assert_found(connection, Chain({"model": sql}), seed)


def how(sql: str, column: str) -> dict[str, set[str]]:
    """By `table.column`: in which ways a column of the answer rests on it, its rows left out."""
    found: dict[str, set[str]] = {}
    for (name, of), kind in followed(sql).columns[column]:
        found.setdefault(f"{name}.{of}", set()).add(kind)
    return found


def rows(sql: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for (name, of), kind in followed(sql).rows:
        found.setdefault(f"{name}.{of}", set()).add(kind)
    return found


@pytest.mark.parametrize(
    ("sql", "meant"),
    [
        ("select a as x from people", {"people.a": {"IDENTITY"}}),
        ("select upper(a) as x from people", {"people.a": {"TRANSFORMATION"}}),
        ("select sum(a + 1) as x from people", {"people.a": {"AGGREGATION"}}),
        ("select case when a > 1 then b end as x from people", {"people.a": {"CONDITIONAL"}, "people.b": {"TRANSFORMATION"}}),
        ("select sum(a) over (partition by b order by id) as x from people",
         {"people.a": {"AGGREGATION"}, "people.b": {"WINDOW"}, "people.id": {"WINDOW"}}),
        ("select count(*) filter (where a > 0) as x from people", {"people.a": {"CONDITIONAL"}}),
        ("select arg_max(a, b) as x from people", {"people.a": {"AGGREGATION"}, "people.b": {"SORT"}}),
        ("with s as (select *, a as c from people), t as (from s) select s2.c as x from t as s2", {"people.a": {"IDENTITY"}}),
        ("select (select max(c) from visits where visits.id = people.id) as x from people",
         {"visits.c": {"AGGREGATION"}, "visits.id": {"FILTER"}, "people.id": {"FILTER"}, "visits.*": {"ROWS"}}),
        ("select list_transform([a], lambda id: id + b)[1] as x from people", {"people.a": {"TRANSFORMATION"}, "people.b": {"TRANSFORMATION"}}),
        ("select {'id': a}.id as x from people", {"people.a": {"TRANSFORMATION"}}),
        ("select u.v as x from people, unnest([a]) as u(v)", {"people.a": {"TRANSFORMATION"}}),
        ("select a as x from people union all select c from visits", {"people.a": {"IDENTITY"}, "visits.c": {"IDENTITY"}}),
        ("select p.x from people as p(w, x, y)", {"people.a": {"IDENTITY"}}),
        ("select main.people.a as x from main.people", {"people.a": {"IDENTITY"}}),
        ("select 1 as x from people", {}),
    ],
)  # fmt: skip
def test_a_column_rests_on_what_it_is_made_of_and_what_decides_in_its_own_way(
    sql: str, meant: dict[str, set[str]]
) -> None:
    assert how(sql, "x") == meant


@pytest.mark.parametrize(
    ("sql", "meant"),
    [
        ("select a from people where b > 0", {"people.b": {"FILTER"}}),
        ("select a from people join visits on people.id = visits.id", {"people.id": {"JOIN"}, "visits.id": {"JOIN"}, "visits.*": {"ROWS"}}),
        ("select a from people semi join visits using (id)", {"people.id": {"JOIN"}, "visits.id": {"JOIN"}, "visits.*": {"ROWS"}}),
        ("select a, count(*) from people group by all having max(b) > 1", {"people.a": {"GROUP_BY"}, "people.b": {"FILTER"}}),
        ("select distinct a from people", {"people.a": {"GROUP_BY"}}),
        ("select a from people qualify row_number() over (order by b) = 1", {"people.b": {"WINDOW"}}),
        ("select a from people order by b", {"people.b": {"SORT"}}),
        ("select a from people except select c from visits", {"people.a": {"GROUP_BY"}, "visits.c": {"GROUP_BY"}, "visits.*": {"ROWS"}}),
        ("select a from people where exists (select 1 from visits where c > people.b)", {"visits.c": {"FILTER"}, "people.b": {"FILTER"}, "visits.*": {"ROWS"}}),
    ],
)  # fmt: skip
def test_rows_rest_on_what_decides_which_there_are(sql: str, meant: dict[str, set[str]]) -> None:
    assert rows(sql) == {"people.*": {"ROWS"}} | meant


def test_a_left_join_to_one_row_a_key_decides_about_its_own_columns_alone() -> None:
    looked_up = "select a, n from people left join ({}) as v on people.id = v.id"
    grouped = looked_up.format("select id, count(*) as n from visits where c > 0 group by id")
    assert rows(grouped) == {"people.*": {"ROWS"}}
    assert how(grouped, "a") == {"people.a": {"IDENTITY"}}
    assert "visits.c" in how(grouped, "n")
    assert "visits.c" in rows(looked_up.format("select id, c as n from visits where c > 0"))
    assert "visits.c" in rows(grouped.replace("left join", "join"))


def test_one_row_of_each_partition_is_one_row_a_key() -> None:
    looked_up = "select a, n from people left join ({}) as v on people.id = v.id and v.n = 1"
    numbered = "select id, c, row_number() over (partition by id order by c) as n from visits"
    assert rows(looked_up.format(numbered)) == {"people.*": {"ROWS"}}
    assert "visits.c" in how(looked_up.format(numbered), "n")
    assert "visits.c" in rows(looked_up.format(numbered.replace("row_number()", "rank()")))
    assert "visits.id" in rows(looked_up.format(numbered).replace("and v.n = 1", "and v.n > 1"))
    distinct = numbered.replace("select id, c", "select distinct id, c")
    assert "visits.c" in rows(looked_up.format(distinct))


def test_a_column_that_is_one_value_takes_no_part_in_a_key() -> None:
    grouped = "select id, kind, n from (select id, c as kind, count(*) as n from visits group by id, c) as g where {}"
    looked_up = f"select a, n from people left join ({grouped}) as v on people.id = v.id"  # noqa: S608
    assert rows(looked_up.format("kind = cast('3' as integer)")) == {"people.*": {"ROWS"}}
    for asked in ("kind = n", "kind > 3", "kind = 3 or kind = 4", "not kind = 3"):
        assert "visits.c" in rows(looked_up.format(asked)), asked


def test_a_table_whose_key_is_tested_is_looked_up_without_touching_rows() -> None:
    named = {"people": table("people", ("id", "a")), "visits": table("visits", ("id", "c"), key=("id",))}
    sql = parse_one("with v as (select * from visits where c > 0) select a from people left join v on v.id = people.id")
    assert {place for place, _ in follow(sql, named).rows} == {("people", ROWS)}


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("select nobody from people", "column nobody"),
        ("select a from strangers", "table strangers"),
        ("select * from range(3)", "table function"),
        ("pivot people on a using sum(b)", "PIVOT"),
        ("select columns('a.*') from people", "COLUMNS"),
        ("select a from people union all select id, c from visits", "as many columns on both sides"),
    ],
)
def test_what_cannot_be_followed_is_said_and_never_left_out(sql: str, said: str) -> None:
    with pytest.raises(FlowError, match=r".+: expected .+, found .+\. .+\.") as error:
        followed(sql)
    assert said in str(error.value)
