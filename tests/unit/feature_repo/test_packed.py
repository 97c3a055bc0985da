from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.catalogue import Entity, Field, FieldType, View
from feature_repo.columns import encoded, few, values_of
from feature_repo.errors import FeatureError
from feature_repo.packed import EPOCH, Layout
from feature_repo.store import entity_key

TYPES: dict[Any, Any] = {
    "text": pl.String,
    "bytes": pl.Binary,
    "integer": pl.Int64,
    "integer_32": pl.Int32,
    "decimal": pl.Float64,
    "decimal_32": pl.Float32,
    "boolean": pl.Boolean,
    "timestamp": pl.Datetime("us", "UTC"),
}
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    "bytes": st.binary(max_size=30),
    "integer_32": st.integers(-(2**31), 2**31 - 1),
    "decimal_32": st.floats(allow_nan=False, width=32),
    "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    "integer": st.integers(-(2**63), 2**63 - 1),
    "decimal": st.floats(allow_nan=False),
    "boolean": st.booleans(),
    "timestamp": st.integers(-(2**55), 2**55).map(lambda us: EPOCH + timedelta(microseconds=us)),
}
TYPES |= {f"{kind}_list": pl.List(each) for kind, each in TYPES.items()}
VALUES |= {f"{kind}_list": st.lists(each, max_size=4) for kind, each in VALUES.items()}


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Field], list[dict[str, Any]]]:
    """Some fields of any types, and rows of them with nulls anywhere."""
    kinds = draw(st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=20))
    fields = [Field(f"field_{place}", kind, "") for place, kind in enumerate(kinds)]
    row = st.fixed_dictionaries({each.name: st.none() | VALUES[each.type] for each in fields})
    return fields, draw(st.lists(row, max_size=8))


@given(tables())
@settings(deadline=None)
def test_what_is_packed_comes_back_and_column_by_column_gives_the_bytes_of_row_by_row(table: Any) -> None:
    fields, rows = table
    layout = Layout(fields)
    one_by_one = [layout.encode(row) for row in rows]
    assert [layout.decode(value) for value in one_by_one] == rows
    columns = layout.columns([b"head" + value for value in one_by_one], 4)
    assert [list(column) for column in columns] == [[row[name] for row in rows] for name in layout.names]
    numbers = [each.name for each in fields if each.type in ("integer", "decimal")]
    for name in numbers:
        assert [layout.number_at(name)(value) for value in one_by_one] == [(row[name] or 0,) for row in rows]
    frame = pl.DataFrame(rows, schema={each.name: TYPES[each.type] for each in fields})
    assert values_of(layout, frame.to_arrow()).to_pylist() == one_by_one
    assert values_of(layout, frame.to_arrow().slice(1)).to_pylist() == one_by_one[1:]
    assert [Layout.of_definition(layout.definition).decode(value) for value in one_by_one] == rows


@given(tables())
@settings(deadline=None)
def test_few_rows_taken_one_by_one_are_the_rows_taken_by_columns(table: Any) -> None:
    fields, rows = table
    view = View("view", "view", Entity("thing", ("thing_id", "part"), ""), "", tuple(fields), timedelta(days=1), False)
    schema = {each.name: TYPES[each.type] for each in fields}
    frame = pl.DataFrame(rows, schema=schema).with_columns(
        thing_id=pl.format("é{}", pl.int_range(pl.len()) % 3), part=pl.lit("x"),
        feature_at=pl.lit(EPOCH).cast(pl.Datetime("us", "UTC")) + pl.duration(microseconds=pl.int_range(pl.len()) // 2),
    )  # fmt: skip
    by_columns = encoded(view, frame.to_arrow())
    one_by_one = few(view, frame.to_arrow())
    if any(each.type.endswith("_list") for each in fields):
        assert one_by_one is None
        return
    newest: dict[str, tuple[int, bytes]] = {}
    for keys, at, features in one_by_one or []:
        key = entity_key(view.entity, keys)
        if key not in newest or newest[key][0] <= at:
            newest[key] = at, Layout(fields).encode(features)
    assert {key.decode(): (at, value) for key, at, value in by_columns.rows()} == newest
    shifted = frame.with_columns(feature_at=pl.lit(None, pl.Datetime("us", "UTC"))).to_arrow()
    assert few(view, shifted) is None or not rows


def test_equal_rows_have_equal_bytes_whether_a_field_is_null_or_left_out() -> None:
    layout = Layout([Field("order_count_30d", "integer", ""), Field("main_device_type", "text", "")])
    assert layout.encode({"order_count_30d": None, "main_device_type": None}) == layout.encode({})


def test_null_false_zero_and_empty_text_stay_four_different_things() -> None:
    layout = Layout([Field("flag", "boolean", ""), Field("count", "integer", ""), Field("name", "text", "")])
    for row in ({"flag": None, "count": None, "name": None}, {"flag": False, "count": 0, "name": ""}):
        assert layout.decode(layout.encode(row)) == row


def test_another_definition_has_another_schema_id() -> None:
    first = Layout([Field("count", "integer", "")])
    assert first.schema_id != Layout([Field("count", "decimal", "")]).schema_id
    assert first.schema_id != Layout([Field("counts", "integer", "")]).schema_id


def test_a_time_without_a_zone_is_utc() -> None:
    layout = Layout([Field("seen_at", "timestamp", "")])
    at = datetime(2026, 3, 2, 2, 0, 0, 1)
    expected = layout.encode({"seen_at": at.replace(tzinfo=UTC)})
    assert layout.encode({"seen_at": at}) == expected
    assert values_of(
        layout, pl.DataFrame({"seen_at": [at]}, schema={"seen_at": pl.Datetime("us")}).to_arrow()
    ).to_pylist() == [expected]


@pytest.mark.parametrize(
    ("kind", "value"), [("integer", 2**63), ("integer", "7"), ("text", 7), ("timestamp", "2026"), ("decimal", "x")]
)
def test_a_value_of_another_type_is_refused(kind: FieldType, value: Any) -> None:
    with pytest.raises(FeatureError, match=r"feature row: expected .*, found otherwise"):
        Layout([Field("odd", kind, "")]).encode({"odd": value})


@pytest.mark.parametrize(
    ("kind", "column", "found"),
    [
        ("integer", pl.Series("odd", [1.5]), "fractions"),
        ("integer", pl.Series("odd", ["a"]), "expected integer"),
        ("integer_list", pl.Series("odd", [[1, None]]), "lists without nulls"),
        ("boolean", pl.Series("other", [True]), "other"),
    ],
)
def test_a_column_that_cannot_be_cast_without_loss_is_refused(kind: FieldType, column: pl.Series, found: str) -> None:
    with pytest.raises(FeatureError, match=found):
        values_of(Layout([Field("odd", kind, "")]), pl.DataFrame(column).to_arrow())
