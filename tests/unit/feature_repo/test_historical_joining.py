"""The point-in-time join: equal to looking every row up by itself, whatever units, zones, ties and gaps there are."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.errors import FeatureError
from feature_repo.historical.joining import Asked, Engine, EntityRows, Joinable, joined

NOON = datetime(2025, 3, 3, 12, tzinfo=UTC)
SMALL = Engine(threads=1)
LAWS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
# Few shops, few instants, so that keys and times meet; a tick finer than a microsecond in some files.
shops = st.sampled_from(("Utrecht", "Gent", 'O"Brien', None))
ticks = st.none() | st.integers(-3, 3)
units = st.sampled_from(
    (("us", None), ("us", "UTC"), ("us", "Europe/Brussels"), ("ns", None), ("ns", "UTC"), ("ms", None))
)


def nanoseconds(tick: int | None, unit: str) -> int | None:
    """A time near noon: ticks of a nanosecond where the unit has them, else of a microsecond, else of a millisecond."""
    step = {"ns": 1, "us": 1_000, "ms": 1_000_000}[unit]
    return None if tick is None else int(NOON.timestamp()) * 1_000_000_000 + tick * step


def times(of: list[int | None], unit: tuple[str, str | None]) -> pa.Array:
    step = {"ns": 1, "us": 1_000, "ms": 1_000_000}[unit[0]]
    return pa.array([None if each is None else each // step for each in of], pa.int64()).cast(pa.timestamp(*unit))


def answer(table: pa.Table, views: list[Joinable]) -> pa.Table:
    with SMALL.opened() as connection:
        return joined(Asked(connection, EntityRows(table)), views)


def looked_up(source: list[dict[str, Any]], shop: str | None, at: int | None, age: int | None) -> Any:
    """One row by itself: the newest at or before its time and young enough; of equals the one created last, then the last."""
    found = [
        (row["at"], -1 if row["created"] is None else row["created"], number, row["value"])
        for number, row in enumerate(source)
        if shop is not None and at is not None and row["shop"] == shop and row["at"] is not None and row["at"] <= at
    ]
    newest = max(found, default=None, key=lambda row: row[:3])
    return None if newest is None or (age is not None and newest[0] < at - age) else newest[3]


@LAWS
@given(
    st.lists(st.tuples(shops, ticks, ticks, st.none() | st.integers(0, 99)), max_size=14),
    st.lists(st.tuples(shops, ticks), max_size=10),
    units,
    units,
    st.sampled_from((None, 0, 1, 2)),
    st.booleans(),
    st.sampled_from((1, 2, 3)),
)
def test_every_row_has_what_looking_it_up_by_itself_gives(
    tmp_path: Path,
    known: list[tuple[Any, ...]],
    asked: list[tuple[Any, ...]],
    known_unit: tuple[str, str | None],
    asked_unit: tuple[str, str | None],
    days: int | None,
    has_created: bool,
    file_count: int,
) -> None:
    source = [
        {
            "shop": shop,
            "at": nanoseconds(at, known_unit[0]),
            "created": nanoseconds(made, known_unit[0]),
            "value": value,
        }
        for shop, at, made, value in known
    ]
    whole = pa.table(
        {
            "Shop name": pa.array([row["shop"] for row in source], pa.string()),
            "at": times([row["at"] for row in source], known_unit),
            "made": times([row["created"] for row in source], known_unit),
            "value": pa.array([row["value"] for row in source], pa.int64()),
        }
    )
    step = -(-len(source) // file_count) or 1
    files = [tmp_path / f"part_{number}.parquet" for number in range(file_count)]
    for number, path in enumerate(files):
        pq.write_table(whole.slice(number * step, step), path)
    age = {None: None, 0: None, 1: timedelta(microseconds=1), 2: timedelta(milliseconds=2)}[days]
    view = Joinable(
        "shops", tuple(files), {"shop": "Shop name"}, "at", {"sold units": "value"},
        timedelta() if days == 0 else age, "made" if has_created else None,
    )  # fmt: skip
    table = pa.table(
        {
            "shop": pa.array([shop for shop, _ in asked], pa.string()),
            "event_timestamp": times([nanoseconds(at, asked_unit[0]) for _, at in asked], asked_unit),
            "label": pa.array(range(len(asked)), pa.int32()),
        }
    )
    found = answer(table, [view])
    if not has_created:
        source = [row | {"created": None} for row in source]
    expected = [
        looked_up(
            source,
            shop,
            nanoseconds(at, asked_unit[0]),
            None if age is None else age // timedelta(microseconds=1) * 1_000,
        )
        for shop, at in asked
    ]
    assert found.column("sold units").to_pylist() == expected
    assert found.select(table.column_names).equals(table)


def feature_file(folder: Path, name: str, rows: list[dict[str, Any]]) -> tuple[Path, ...]:
    path = folder / f"{name}.parquet"
    pl.DataFrame(rows).write_parquet(path)
    return (path,)


def test_views_of_several_entities_and_of_none_stand_beside_one_another_in_the_order_asked(tmp_path: Path) -> None:
    stock = feature_file(tmp_path, "stock", [
        {"sku": "TEA", "place": "Gent", "at": NOON, "units": 3}, {"sku": "TEA", "place": "Utrecht", "at": NOON, "units": 5},
    ])  # fmt: skip
    weather = feature_file(
        tmp_path, "weather", [{"at": NOON - timedelta(days=1), "rain": 1.5}, {"at": NOON, "rain": 0.0}]
    )
    sold = feature_file(tmp_path, "sold", [{"sku": "TEA", "at": NOON, "units": 9}])
    table = pa.table({"sku": ["TEA", "TEA", "JAM"], "shop": ["Utrecht", "Gent", "Gent"],
                      "event_timestamp": [NOON, NOON - timedelta(hours=1), NOON]})  # fmt: skip
    found = answer(table, [
        Joinable("stock", stock, {"shop": "place", "sku": "sku"}, "at", {"stock__units": "units"}),
        Joinable("weather", weather, {}, "at", {"rain": "rain"}),
        Joinable("sold", sold, {"sku": "sku"}, "at", {"sold__units": "units"}),
    ])  # fmt: skip
    assert found.column_names == ["sku", "shop", "event_timestamp", "stock__units", "rain", "sold__units"]
    assert found.to_pydict() | table.to_pydict() == {
        **table.to_pydict(), "stock__units": [5, None, None], "rain": [0.0, 1.5, 0.0], "sold__units": [9, None, None],
    }  # fmt: skip


def test_a_name_that_is_no_plain_word_is_a_name(tmp_path: Path) -> None:
    rows = [{'k"; drop table x; --': "a", "select": NOON, 'what "it" is': "thé"}]
    view = Joinable("odd", feature_file(tmp_path, "odd'; --", rows), {"from": 'k"; drop table x; --'}, "select",
                    {'the "answer"': 'what "it" is'})  # fmt: skip
    found = answer(pa.table({"from": ["a"], "event_timestamp": [NOON]}), [view])
    assert found.column('the "answer"').to_pylist() == ["thé"]


def test_types_come_out_as_the_files_have_them(tmp_path: Path) -> None:
    kinds = {
        "big": pa.array([2**53 + 1, None], pa.int64()), "tags": pa.array([["a", "b"], []], pa.list_(pa.string())),
        "paid": pa.array([None, None], pa.decimal128(9, 2)), "raw": pa.array([b"\0", b""], pa.binary()),
        "seen": pa.array([NOON, None], pa.timestamp("us", "UTC")), "parts": pa.array([{"x": 1}, None], pa.struct([("x", pa.int8())])),
    }  # fmt: skip
    path = tmp_path / "kinds.parquet"
    pq.write_table(pa.table({"id": [1, 2], "at": [NOON, NOON], **kinds}), path)
    view = Joinable("kinds", (path,), {"id": "id"}, "at", {name: name for name in kinds})
    found = answer(pa.table({"id": [2, 1, 3], "event_timestamp": [NOON] * 3}), [view])
    for name, column in kinds.items():
        assert found.column(name).type == column.type
        assert found.column(name).to_pylist() == [column[1].as_py(), column[0].as_py(), None]


def test_no_rows_asked_about_are_no_rows(tmp_path: Path) -> None:
    view = Joinable(
        "sold",
        feature_file(tmp_path, "sold", [{"sku": "TEA", "at": NOON, "units": 9}]),
        {"sku": "sku"},
        "at",
        {"units": "units"},
    )
    table = pa.table({"sku": pa.array([], pa.string()), "event_timestamp": pa.array([], pa.timestamp("us"))})
    assert answer(table, [view]).to_pydict() == {"sku": [], "event_timestamp": [], "units": []}


@pytest.mark.parametrize(
    ("table", "changes", "says"),
    [
        ({"sku": ["TEA"]}, {}, "expected a column event_timestamp"),
        ({"sku": ["TEA"], "event_timestamp": ["monday"]}, {}, "expected timestamps, found string"),
        ({"event_timestamp": [NOON]}, {}, r"expected the keys \['sku'\], found none named \['sku'\]"),
        ({"sku": ["TEA"], "event_timestamp": [NOON], "units": [1]}, {}, r"found \['units'\] twice"),
        ({"sku": ["TEA"], "event_timestamp": [NOON]}, {"event_column": "when"}, r"found none named \['when'\]"),
        (
            {"sku": ["TEA"], "event_timestamp": [NOON]},
            {"features": {"colour": "colour"}},
            r"found none named \['colour'\]",
        ),
        ({"sku": [[1]], "event_timestamp": [NOON]}, {}, "expected rows and tables that can be joined"),
    ],
)
def test_what_cannot_be_joined_is_said(
    tmp_path: Path, table: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    files = feature_file(tmp_path, "sold", [{"sku": "TEA", "at": NOON, "units": 9}])
    shape = {
        "name": "sold",
        "files": files,
        "keys": {"sku": "sku"},
        "event_column": "at",
        "features": {"units": "units"},
    }
    with pytest.raises(FeatureError, match=says):
        answer(pa.table(table), [Joinable(**(shape | changes))])
