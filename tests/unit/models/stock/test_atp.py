from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from models.stock.atp import (
    PARTS,
    Dated,
    Stock,
    available,
    available_arrays,
    available_at,
    available_expression,
    available_sql,
)

DAY = datetime(2026, 3, 2, tzinfo=UTC)
UNITS = st.integers(-1_000, 1_000)
STOCKS = st.lists(st.builds(Stock, *[UNITS] * len(PARTS)), min_size=1, max_size=20)
CHANGES = st.lists(
    st.builds(Dated, st.integers(0, 9).map(lambda day: DAY + timedelta(days=day)), st.integers(-20, 20)), max_size=12
)


def test_what_is_not_to_be_had_is_taken_off_and_nothing_is_promised_below_nothing() -> None:
    assert available(Stock(10, 1, 1, 2, 1, 1, 1)) == 3
    assert available(Stock(10, committed_units=11)) == 0
    assert available(Stock(-2)) == 0


@given(STOCKS)
def test_sql_columns_arrays_and_python_give_the_same(stocks: list[Stock]) -> None:
    expected = [available(stock) for stock in stocks]
    frame = pl.DataFrame({part: [getattr(stock, part) for stock in stocks] for part in PARTS})
    assert available_arrays({part: frame[part].to_numpy() for part in PARTS}).tolist() == expected
    assert frame.select(available_expression())["available_units"].to_list() == expected
    with duckdb.connect() as database:
        database.register("stock", frame.with_row_index().to_arrow())
        found = database.sql("from stock order by index").project(available_sql()).fetchall()
    assert [units for (units,) in found] == expected


def test_a_part_that_is_not_given_counts_as_nothing() -> None:
    assert available_arrays({"on_hand_units": np.array([3, -1])}).tolist() == [3, 0]


def test_supply_that_comes_is_not_promised_before_it_comes_nor_twice() -> None:
    incoming = [Dated(DAY + timedelta(days=5), 10), Dated(DAY + timedelta(days=6), -10)]
    assert available_at(2, incoming, DAY) == 2
    assert available_at(2, incoming, DAY + timedelta(days=5)) == 2, "all that comes is promised already"
    assert available_at(2, incoming[:1], DAY + timedelta(days=5)) == 12


def test_what_is_promised_for_later_is_not_given_away_now() -> None:
    assert available_at(5, [Dated(DAY + timedelta(days=3), -4)], DAY) == 1
    assert available_at(5, [Dated(DAY + timedelta(days=3), -4), Dated(DAY + timedelta(days=2), 4)], DAY) == 5


@given(UNITS, CHANGES, st.integers(0, 9), st.integers(1, 30))
def test_promising_what_is_available_leaves_every_later_promise_kept(
    free: int, changes: list[Dated], day: int, wish: int
) -> None:
    at = DAY + timedelta(days=day)
    units = min(wish, available_at(free, changes, at))
    after = [*changes, Dated(at, -units)]
    for later in range(day, 10):
        time = DAY + timedelta(days=later)
        before, now = (free + sum(each.units for each in told if each.at <= time) for told in (changes, after))
        assert now >= 0 or units == 0
        assert before - now == units


@given(UNITS, CHANGES)
def test_more_may_be_promised_the_later_it_is_wanted(free: int, changes: list[Dated]) -> None:
    promised = [available_at(free, changes, DAY + timedelta(days=day)) for day in range(10)]
    assert promised == sorted(promised)
