"""Casting to a contract: what is kept, what is set aside and why, and that money and time are exact."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.sources.contract import POLARS_TYPES, Column, Contract, cents, conform
from troth.ids import tokeniser

TOKEN = tokeniser(b"k" * 32)


def contract(*columns: Column) -> Contract:
    return Contract("raw_test__things", "Things. One row per thing.", key=(columns[0].name,), columns=columns)


def cast(found: list, kind: str, dtype: pl.DataType | None = None, **said) -> tuple[list, list[str]]:
    """Values kept as a column type, and reason codes of those set aside."""
    frame = pl.DataFrame({"value": pl.Series(found, dtype=dtype or pl.String())}).with_row_index("record_offset", 1)
    kept, aside = conform(frame, contract(Column("value", kind, "A value.", **said)), TOKEN)
    assert kept.schema == {"value": POLARS_TYPES[kind], "record_offset": pl.Int64()}
    assert kept.height + aside.height == len(found)
    return kept["value"].to_list(), aside["reason_code"].to_list()


def test_every_type_is_read_from_text():
    assert cast([" 7 ", "-7", "+7"], "integer") == ([7, -7, 7], [])
    assert cast(["0.42", "-1e3"], "decimal") == ([0.42, -1000.0], [])
    assert cast(["true", "FALSE", "1", "no"], "boolean") == ([True, False, True, False], [])
    assert cast(["2024-02-29"], "date") == ([date(2024, 2, 29)], [])
    assert cast(["2024-02-29T23:59:58"], "local_timestamp") == ([datetime(2024, 2, 29, 23, 59, 58)], [])
    assert cast([" as it is "], "text") == ([" as it is "], [])


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("integer", "1.5"),
        ("integer", "1_0"),
        ("integer", "99999999999999999999"),
        ("decimal", "nan"),
        ("decimal", "inf"),
        ("decimal", "1,5"),
        ("boolean", "perhaps"),
        ("date", "2023-02-29"),
        ("date", "24-01-01"),
        ("date", "0000-01-01"),
        ("date", "2024-01-01T00:00:00"),
        ("timestamp", "2024-01-01T00:00:00"),
        ("timestamp", "2024-01-01T24:00:01Z"),
        ("timestamp", "2024-01-01T00:00:00+19:00"),
        ("timestamp", "9999-12-31T23:59:59-05:00"),
        ("local_timestamp", "2024-01-01T00:00:00Z"),
        ("local_timestamp", "yesterday"),
    ],
)
def test_text_of_the_wrong_type_is_set_aside(kind, text):
    assert cast([text], kind) == ([], ["wrong_type"])


@pytest.mark.parametrize(
    "text",
    [
        "2024-03-10T08:30:00Z",
        "2024-03-10T08:30:00.000Z",
        "2024-03-10t08:30:00z",
        "2024-03-10 08:30:00+00:00",
        "2024-03-10T08:30Z",
        "2024-03-10T03:30:00-05:00",
        "2024-03-10T14:00:00+0530",
        "2024-03-10T14:00:00.000000+05:30",
        "2024-03-10T09:30:00,0+01",
    ],
)
def test_one_instant_in_every_spelling_is_one_timestamp(text):
    assert cast([text], "timestamp") == ([datetime(2024, 3, 10, 8, 30, tzinfo=UTC)], [])


OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.lists(st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=OFFSETS), min_size=1, max_size=20))
def test_a_timestamp_is_the_instant_python_reads(instants):
    assert cast([instant.isoformat() for instant in instants], "timestamp") == (instants, [])


@given(st.lists(st.datetimes(), min_size=1, max_size=20))
def test_a_wall_clock_comes_through_to_the_microsecond(clocks):
    assert cast([clock.isoformat() for clock in clocks], "local_timestamp") == (clocks, [])


@given(st.lists(st.text(alphabet="0123456789TZ:+-. ", max_size=26), min_size=1, max_size=50))
def test_digits_and_signs_in_disorder_are_no_instant(texts):
    kept, aside = cast(texts, "timestamp")
    assert [value for value in kept if value] == []
    assert len(aside) == len([text for text in texts if text.strip()])


@given(st.lists(st.decimals(-999_999_999_999, 999_999_999_999, places=2), min_size=1, max_size=20))
def test_cents_are_exact(amounts):
    texts = [f"{amount:.2f}" for amount in amounts]
    read = pl.DataFrame({"amount": texts}).select(cents(pl.col("amount")).alias("amount"))["amount"]
    assert read.to_list() == [str(int(amount * Decimal(100))) for amount in amounts]


@pytest.mark.parametrize("text", ["12.505", "1e3", "12,50", "$5", "5.", ".5", "1234567890123", "1 2", "--1"])
def test_what_is_no_amount_never_becomes_cents(text):
    frame = pl.DataFrame({"record_offset": [1], "value": [text]}).with_columns(cents(pl.col("value")).alias("value"))
    kept, aside = conform(frame, contract(Column("value", "integer", "Money.")), TOKEN)
    assert kept.is_empty()
    assert aside["reason_code"].to_list() == ["wrong_type"]


@pytest.mark.parametrize(
    ("text", "expected"), [("12.5", "1250"), ("12", "1200"), (" -0.07 ", "-7"), ("1.2600", "126"), (None, None)]
)
def test_an_amount_may_have_fewer_decimals_or_zeros_behind(text, expected):
    frame = pl.DataFrame({"value": pl.Series([text], dtype=pl.String())})
    assert frame.select(cents(pl.col("value")).alias("value"))["value"].to_list() == [expected]


def test_a_required_value_may_be_neither_null_nor_blank():
    assert cast([None, "", " \t", "x"], "text", required=True) == (["x"], ["missing_value"] * 3)


def test_an_optional_blank_is_null():
    assert cast(["", " ", None], "integer") == ([None, None, None], [])


def test_codes_minimum_length_and_nul_are_held():
    assert cast(["a", "b", None], "text", values=("a",)) == (["a", None], ["unknown_code"])
    assert cast(["0", "1"], "integer", minimum=1) == ([1], ["below_minimum"])
    assert cast(["x" * 1_000, "x" * 1_001, "é" * 1_000], "text")[1] == ["too_long"]
    assert cast(["a\0b"], "text") == ([], ["nul_character"])


def test_a_row_has_its_first_reason_and_its_offset_and_no_value():
    columns = (
        Column("kind", "text", "Kind.", required=True, values=("a",)),
        Column("units", "integer", "Units.", required=True, minimum=1),
    )
    frame = pl.DataFrame(
        {"record_offset": [10, 20, 30, 40], "kind": ["secret", "a", "a", "a"], "units": ["secret", "secret", "0", "3"]}
    )
    kept, aside = conform(frame, contract(*columns), TOKEN)
    assert kept.rows() == [("a", 3, 40)]
    assert aside.rows() == [
        (10, "unknown_code", "kind: expected one of a"),
        (20, "wrong_type", "units: expected integer"),
        (30, "below_minimum", "units: expected at least 1"),
    ]


def test_a_column_that_is_not_there_is_null_and_one_not_agreed_is_dropped():
    frame = pl.DataFrame({"record_offset": [1], "colour": ["red"]})
    kept, aside = conform(
        frame, contract(Column("units", "integer", "Units."), Column("at", "timestamp", "When.")), TOKEN
    )
    assert kept.rows() == [(None, None, 1)]
    assert aside.is_empty()


def test_an_empty_frame_keeps_the_schema():
    kept, aside = conform(pl.DataFrame({"record_offset": []}), contract(Column("units", "integer", "Units.")), TOKEN)
    assert kept.schema == {"units": pl.Int64(), "record_offset": pl.Int64()}
    assert aside.schema == {"record_offset": pl.Int64(), "reason_code": pl.String(), "detail": pl.String()}


def test_typed_columns_are_taken_where_nothing_is_lost():
    noon = datetime(2024, 1, 1, 12)
    assert cast([1.0, 1.5, float("nan")], "integer", pl.Float64()) == ([1], ["wrong_type"] * 2)
    assert cast([1.5, float("inf")], "decimal", pl.Float64()) == ([1.5], ["wrong_type"])
    assert cast([1, 0, 2], "boolean", pl.Int64()) == ([True, False], ["wrong_type"])
    assert cast([2**63], "integer", pl.UInt64()) == ([], ["wrong_type"])
    assert cast([noon], "timestamp", pl.Datetime("ms")) == ([], ["wrong_type"])
    assert cast([noon], "local_timestamp", pl.Datetime("ns")) == ([noon], [])
    assert cast([noon], "timestamp", pl.Datetime("ms", "America/Chicago"))[1] == []
    assert cast([noon, datetime(2024, 1, 1)], "date", pl.Datetime("us")) == ([date(2024, 1, 1)], ["wrong_type"])
    assert cast(["a"], "text", pl.Categorical()) == (["a"], [])
    assert cast([[1]], "text", pl.List(pl.Int64())) == ([], ["wrong_type"])
    assert cast([7], "text", pl.Int64()) == (["7"], [])


def test_a_token_is_made_for_each_identifier_and_none_for_nothing():
    columns = (
        Column("email", "text", "E-mail.", personal="contact"),
        Column("email_ref", "text", "Token.", personal="identifier", token_of=("email", "email")),
    )
    frame = pl.DataFrame(
        {"record_offset": [1, 2, 3, 4], "email": ["ada@example.org", " ADA@example.org", None, "bo@example.org"]}
    )
    kept, _ = conform(frame, contract(*columns), TOKEN)
    ada = TOKEN("email", "ada@example.org")
    assert kept["email_ref"].to_list() == [ada, ada, None, TOKEN("email", "bo@example.org")]


def test_a_token_takes_its_type_from_the_row_where_the_contract_says_so():
    columns = (
        Column("kind", "text", "Type."),
        Column("identifier", "text", "Identifier.", personal="identifier"),
        Column("subject_id", "text", "Token.", personal="identifier", token_of=("@kind", "identifier")),
    )
    frame = pl.DataFrame({"record_offset": [1, 2], "kind": ["email", "account"], "identifier": ["X@y.z", "X@y.z"]})
    kept, _ = conform(frame, contract(*columns), TOKEN)
    assert kept["subject_id"].to_list() == [TOKEN("email", "x@y.z"), TOKEN("account", "X@y.z")]


@given(
    st.lists(st.tuples(st.sampled_from(["1", "2", "x", None]), st.sampled_from(["a", "b", ""])), max_size=30),
    st.integers(1, 5),
)
def test_rows_are_judged_one_by_one_however_they_are_batched(rows, size):
    agreed = contract(
        Column("units", "integer", "Units.", required=True), Column("code", "text", "Code.", values=("a",))
    )
    frame = pl.DataFrame(rows, schema={"units": pl.String(), "code": pl.String()}, orient="row").with_row_index(
        "record_offset"
    )
    whole = conform(frame, agreed, TOKEN)
    parts = [conform(frame[at : at + size], agreed, TOKEN) for at in range(0, max(len(rows), 1), size)]
    assert whole[0].rows() == [row for kept, _ in parts for row in kept.rows()]
    assert whole[1].rows() == [row for _, aside in parts for row in aside.rows()]
