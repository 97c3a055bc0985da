"""The check on a small shop: every way that a birth date can take to a use that may not have it, and every way to end one."""

from dataclasses import replace
from datetime import date

import pytest

from models.purpose_flow import declarations
from models.purpose_flow.checking import Report, Use, check
from models.purpose_flow.declarations import Breaker, Personal
from models.purpose_flow.errors import FlowError
from models.purpose_flow.graph import Graph, Made, Table, built
from models.purpose_flow.relations import Place

MEMBERS = Table("raw_members", ("member_id", "card_ref", "email", "birth_date", "city"))
SALES = Table("raw_sales", ("sale_id", "card_ref", "sku", "cents"))
EVERYTHING = frozenset({"service", "marketing"})
DECLARED: dict[Place, Personal] = {
    ("raw_members", "card_ref"): Personal("identifier", EVERYTHING),
    ("raw_members", "email"): Personal("contact", EVERYTHING),
    ("raw_members", "birth_date"): Personal("birth_date", frozenset({"service"})),
    ("raw_sales", "card_ref"): Personal("identifier", EVERYTHING),
    ("raw_sales", "cents"): Personal("behaviour", EVERYTHING),
}
BIRTH_DATE = ("raw_members", "birth_date")


def shop(**models: str) -> Graph:
    """A graph of the two raw tables and these models, in the order written."""
    tables = [MEMBERS, SALES]
    for name, sql in models.items():
        tables.append(Table(name, sql=sql, needs=tuple(each.name for each in tables)))
    return built(tables)


def use(*reads: str, purpose: str | None = "marketing") -> Use:
    return Use("segment", "birthdays", purpose, tuple(map(declarations.place, reads)), "birthdays.yml")


def found(graph: Graph, asked: Use, *breakers: Breaker) -> Report:
    return check(graph, DECLARED, [asked], breakers, purposes=EVERYTHING)


ADULTS = "select card_ref, city, birth_date < '2000-01-01' as is_grown from raw_members"
PLANTS = {
    "direct": ({"mart": "select card_ref, birth_date as born from raw_members"}, "mart.born"),
    "through three models": (
        {"stg": ADULTS, "int": "select *, is_grown or city = 'Portland' as is_close from stg",
         "mart": "select card_ref, case when is_close then 'yes' else 'no' end as invited from int"},
        "mart.invited",
    ),
    "a join key": ({"mart": "select sale_id from raw_sales join raw_members on cast(birth_date as varchar) = sku"}, "mart.sale_id"),
    "a window's partition": ({"mart": "select count(*) over (partition by birth_date) as twins from raw_members"}, "mart.twins"),
    "a window's order": ({"mart": "select row_number() over (order by birth_date) as place from raw_members"}, "mart.place"),
    "select *": ({"stg": "select * from raw_members", "mart": "select * exclude (email) from stg"}, "mart.birth_date"),
    "a filter": ({"mart": "select city from raw_members where birth_date is not null"}, "mart.city"),
    "a filter two models up": (
        {"stg": "select card_ref from raw_members where birth_date > '2000-01-01'",
         "mart": "select sum(cents) as cents from raw_sales where card_ref in (select card_ref from stg)"},
        "mart.cents",
    ),
    "a group's key": ({"mart": "select count(*) as people from raw_members group by birth_date"}, "mart.people"),
    "a subquery": ({"mart": "select city from raw_members as m where exists (select 1 from raw_members as o where o.birth_date = m.birth_date and o.card_ref <> m.card_ref)"}, "mart.city"),
    "a branch of a union": ({"mart": "select city as word from raw_members union all select cast(birth_date as varchar) from raw_members"}, "mart.word"),
    "a struct": ({"stg": "select {'b': birth_date, 'c': city} as packed from raw_members", "mart": "select packed.b as b from stg"}, "mart.b"),
    "a list unnested": ({"mart": "select u.v as v from raw_members, unnest([birth_date]) as u(v)"}, "mart.v"),
    "an order that a limit cuts": ({"mart": "select city from raw_members order by birth_date limit 10"}, "mart.city"),
}  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_road_is_found_and_named_from_the_column_to_the_use(plant: str) -> None:
    models, read = PLANTS[plant]
    report = found(shop(**models), use(read))
    (finding,) = report.findings
    assert finding.column == BIRTH_DATE
    path = finding.paths[0]
    assert path.places[0] == BIRTH_DATE
    assert path.places[-1] == declarations.place(read)
    assert {name for name, _ in path.places} == {"raw_members", *models}
    assert path.text in finding.sentence
    assert finding.sentence.startswith(
        "segment birthdays: expected data that may be used for marketing, found raw_members.birth_date"
    )
    assert not report.is_verified


@pytest.mark.parametrize("plant", PLANTS)
def test_the_same_road_is_no_finding_for_a_purpose_that_is_covered(plant: str) -> None:
    models, read = PLANTS[plant]
    assert found(shop(**models), use(read, purpose="service")).is_verified


def test_a_table_that_python_makes_carries_what_it_reads() -> None:
    scores = Made("pred_age", "models/age.py", (BIRTH_DATE, ("raw_members", "card_ref")), "service", ("card_ref", "age_group"),
                  {"card_ref": (("raw_members", "card_ref"),)})  # fmt: skip
    mart = Table("mart", sql="select age_group from pred_age", needs=("pred_age",))
    graph = built([MEMBERS, SALES, mart], [scores])
    (finding,) = found(graph, use("mart.age_group")).findings
    assert [place for place, _ in finding.paths[0].places] == ["raw_members", "pred_age", "mart"]
    # What is copied is not computed from the birth date, but which rows there are may be.
    (copied,) = found(graph, use("pred_age.card_ref")).findings
    assert not copied.paths[0].is_direct


def test_direct_and_deciding_roads_are_told_apart() -> None:
    graph = shop(
        mart="select city, case when birth_date > '2000-01-01' then 1 end as young, birth_date as born from raw_members"
    )
    (finding,) = found(graph, use("mart.young", "mart.born")).findings
    assert {path.places[-1][1]: path.is_direct for path in finding.paths} == {"young": False, "born": True}
    assert found(graph, use("mart.city")).is_verified


def test_without_a_purpose_nothing_of_a_person_may_arrive() -> None:
    graph = shop(mart="select sku, sum(cents) as cents from raw_sales group by sku")
    (finding,) = found(graph, use("mart.cents", purpose=None)).findings
    assert finding.column == ("raw_sales", "cents")
    assert found(graph, use("mart.sku", purpose=None)).is_verified


def test_data_that_was_carried_on_is_told_once_from_where_it_began() -> None:
    declared = {**DECLARED, ("stg", "birth_date"): DECLARED[BIRTH_DATE]}
    graph = shop(stg="select birth_date from raw_members", mart="select birth_date from stg")
    report = check(graph, declared, [use("mart.birth_date")], [])
    assert [finding.column for finding in report.findings] == [BIRTH_DATE]


REVIEWED = Breaker("counted", "aggregate", ("mart.*",), "privacy_office", date(2026, 1, 1), "Counts of many people.", least_people=10)  # fmt: skip
COUNTED = "select city, count(distinct card_ref) as people, max(birth_date) as youngest from raw_members group by city having count(distinct card_ref) >= 10"


def test_a_reviewed_count_over_enough_people_ends_a_road() -> None:
    report = found(shop(mart=COUNTED), use("mart.youngest"), REVIEWED)
    assert report.is_verified
    assert report.ended["counted"] > 0


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (COUNTED.replace(">= 10", ">= 9"), "HAVING COUNT(DISTINCT <who>) >= 10"),
        (COUNTED.replace(">= 10", ">= 10 or true"), "HAVING COUNT(DISTINCT <who>) >= 10"),
        (COUNTED.replace("having count(distinct card_ref)", "having count(distinct city)"), "HAVING COUNT(DISTINCT <who>) >= 10"),
        (COUNTED.replace("max(birth_date)", "birth_date"), "expected an aggregate, found raw_members.birth_date as it stands"),
        (COUNTED.replace("select city", "select card_ref, city"), "expected an aggregate, found raw_members.card_ref as it stands"),
    ],
)  # fmt: skip
def test_a_count_that_is_none_is_a_fault(sql: str, said: str) -> None:
    report = found(shop(mart=sql), use("mart.youngest", purpose="service"), REVIEWED)
    assert not report.is_verified
    assert any(said in fault for fault in report.faults), report.faults


def test_a_floor_of_one_person_is_no_floor() -> None:
    report = found(shop(mart=COUNTED), use("mart.city"), replace(REVIEWED, least_people=1))
    assert any("expected a floor of two people or more" in fault for fault in report.faults)


GOODS = Breaker("goods", "goods", ("mart.*",), "privacy_office", date(2026, 1, 1), "Pieces of an item.")
PIECES = "select sku, sum(cents) as cents from raw_sales group by sku"


def test_things_may_be_counted_by_things() -> None:
    asked = use("mart.cents", purpose=None)
    assert not found(shop(mart=PIECES), asked).is_verified
    assert found(shop(mart=PIECES), asked, GOODS).is_verified


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (PIECES.replace("by sku", "by sku, card_ref"), "found raw_sales.card_ref among their keys"),
        ("with s as (select upper(card_ref) as who, cents from raw_sales) select sum(cents) as cents from s group by who", "found raw_sales.card_ref among their keys"),
        (PIECES.replace("select sku, sum(cents)", "select sku, any_value(cents) + cents"), "expected an aggregate, found raw_sales.cents as it stands"),
    ],
)  # fmt: skip
def test_people_are_not_counted_as_things(sql: str, said: str) -> None:
    faults = found(shop(mart=sql), use("mart.cents", purpose="service"), GOODS).faults
    assert any(said in fault for fault in faults), faults


BEGUN = "select m.card_ref from raw_members as m join raw_sales as s on m.birth_date <= s.sale_id"
BEGINS = Breaker(
    "begins", "begins", ("mart.[*]",), "privacy_office", date(2026, 1, 1), "From when on.", of="raw_members.birth_date"
)


def test_a_table_over_time_may_begin_with_a_moment_that_decides_nothing_else() -> None:
    assert [each.column for each in found(shop(mart=BEGUN), use("mart.card_ref")).findings] == [BIRTH_DATE]
    assert found(shop(mart=BEGUN), use("mart.card_ref"), BEGINS).is_verified


@pytest.mark.parametrize(
    "sql",
    [
        BEGUN.replace("<=", ">="),
        BEGUN.replace("<=", "="),
        BEGUN.replace("<= s.sale_id", "<= current_date"),
        f"{BEGUN} where m.birth_date > '2000-01-01'",
        BEGUN.replace("select m.card_ref", "select m.card_ref, extract(year from m.birth_date) as year"),
    ],
)
def test_a_moment_that_decides_more_is_a_fault(sql: str) -> None:
    (fault,) = found(shop(mart=sql), use("mart.card_ref", purpose="service"), BEGINS).faults
    assert "expected birth_date only in `on birth_date <= ...` of a join" in fault


def test_a_token_ends_what_it_decides_and_not_where_it_is_shown() -> None:
    declared = {**DECLARED, ("raw_sales", "card_ref"): Personal("identifier", frozenset({"service"}))}
    token = Breaker(
        "tokens", "token", ("raw_sales.card_ref",), "privacy_office", date(2026, 1, 1), "Compared, not shown."
    )
    graph = shop(
        mart="select city, s.card_ref as shown from raw_sales as s join raw_members as m on s.card_ref = m.card_ref"
    )
    keyed = [("raw_sales", "card_ref")]
    assert check(graph, declared, [use("mart.city")], [token], keyed).is_verified
    assert not check(graph, declared, [use("mart.city")], [], keyed).is_verified
    assert [each.column for each in check(graph, declared, [use("mart.shown")], [token], keyed).findings] == keyed
    (fault,) = check(graph, declared, [], [token]).faults
    assert "expected a token made under a key, found raw_sales.card_ref in it" in fault


def test_a_field_picked_from_rows_rests_on_what_that_field_is_made_of() -> None:
    fields = (
        "select card_ref, 'city' as field_name, city as field_value from raw_members "
        "union all select card_ref, 'birth_date', cast(birth_date as varchar) from raw_members"
    )
    mart = (
        "select card_ref, max(case when field_name = 'city' then field_value end) as city from fields group by card_ref"
    )
    picked = Breaker("city", "picked", ("mart.city",), "privacy_office", date(2026, 1, 1), "One field of many.",
                     of="fields", where=("field_name", "city"), rests_on=(("raw_members", "city"),))  # fmt: skip
    rows = Breaker("who", "keyed", ("mart.[*]",), "privacy_office", date(2026, 1, 1), "Who is a member.")
    graph = shop(fields=fields, mart=mart)
    assert not found(graph, use("mart.city"), rows).is_verified
    assert found(graph, use("mart.city"), rows, picked).is_verified
    born = replace(picked, columns=("mart.city",), rests_on=(BIRTH_DATE,))
    assert [each.column for each in found(graph, use("mart.city"), rows, born).findings] == [BIRTH_DATE]
    other = replace(picked, where=("field_name", "birth_date"))
    assert "case when field_name = 'birth_date'" in found(graph, use("mart.city"), rows, other).faults[0]


def test_a_breaker_that_names_nothing_is_a_fault() -> None:
    nobody = replace(REVIEWED, columns=("strangers.*",))
    assert "found none that its patterns name" in found(shop(), use("raw_members.city"), nobody).faults[0]


def test_what_a_use_reads_and_is_for_must_exist() -> None:
    with pytest.raises(FlowError, match=r"expected columns of the project, found mart\.nothing"):
        found(shop(mart="select city from raw_members"), use("mart.nothing"))
    with pytest.raises(FlowError, match="expected a purpose of marketing, service, found profit"):
        found(shop(), use("raw_members.city", purpose="profit"))
    with pytest.raises(FlowError, match=r"expected columns of the project, found raw_members\.shoe_size"):
        built([MEMBERS], [Made("pred", "models/pred.py", (("raw_members", "shoe_size"),))])
    with pytest.raises(FlowError, match="mart, column nobody"):
        shop(mart="select nobody from raw_members")
