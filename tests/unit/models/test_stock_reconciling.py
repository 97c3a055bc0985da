"""Breaks in the order of what they cost; counters beside the movements they count, and mended by them."""

from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from models.stock.reconciling import breaks, differences, rebuild, rebuilt
from troth.home import Home
from troth.published import current, publish

AT = datetime(2025, 3, 1)
MOVED = [("DC1", "tent", 9), ("S001", "rope", 3), ("S001", "rope", -1), ("S001", "tent", 10), ("S001", "tent", -3)]
COUNTED = [("DC1", "tent", 9, 1), ("S001", "rope", 5, 2), ("S001", "stove", 4, 1), ("S001", "tent", 7, 2)]


def break_of(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "stock_break_id": str(number), "break_type": "unknown_movement", "location_code": "S001", "sku": "tent", "units": 1,
        "value_cents": 100, "is_open": True, "opened_at": AT, "closed_at": None, "age_days": 1, "owner_role": "store_manager", **changes,
    }  # fmt: skip


def published(home: Home, table: str, frame: pl.DataFrame) -> None:
    home.published.mkdir(exist_ok=True)
    draft = home.published / "draft.parquet"
    frame.write_parquet(draft)
    publish(home, table, draft)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    movements = pl.DataFrame(MOVED, schema=["location_code", "sku", "units"], orient="row").with_columns(occurred_at=AT)
    counters = pl.DataFrame(COUNTED, schema=["location_code", "sku", "on_hand_units", "movement_count"], orient="row")
    published(home, "stock_movements", movements)
    published(home, "stock_positions", counters.with_columns(
        last_movement_at=AT, told_units=pl.lit(2, pl.Int64()), in_flight_units=pl.col("on_hand_units") - 2,
        value_cents=pl.col("on_hand_units") * 600,
    ))  # fmt: skip
    return home


def test_breaks_come_by_what_they_cost_whichever_way_they_go(tmp_path: Path) -> None:
    home = Home(tmp_path)
    published(home, "stock_breaks", pl.DataFrame([
        break_of(1), break_of(2, units=-9, value_cents=-900), break_of(3, value_cents=None, units=2, break_type="late_movement"),
        break_of(4, is_open=False, closed_at=AT, units=50, value_cents=5000), break_of(5, owner_role="inventory_control", value_cents=300),
    ]))  # fmt: skip
    found = breaks(home)
    assert found.breaks["stock_break_id"].to_list() == ["2", "5", "1", "3"]
    assert found.sums.row(0, named=True) == {
        "break_type": "unknown_movement", "owner_role": "store_manager", "breaks": 2, "units_more": 1, "units_less": -9,
        "value_cents": -800, "value_either_way_cents": 1000, "oldest_days": 1,
    }  # fmt: skip
    assert breaks(home, is_open=False).breaks["stock_break_id"].to_list() == ["4"]
    assert breaks(home, owner="inventory_control", break_type="unknown_movement").breaks[
        "stock_break_id"
    ].to_list() == ["5"]


def test_counters_that_are_not_the_sum_of_their_movements_are_named(home: Home) -> None:
    assert differences(home).rows() == [("S001", "rope", 5, 2, 3), ("S001", "stove", 4, None, 4)]


def test_a_rebuild_leaves_what_movements_say_and_nothing_to_rebuild(home: Home) -> None:
    assert rebuild(home) == 2
    mended = pl.read_parquet(current(home, "stock_positions"))
    assert mended.select(rebuilt(home).columns).equals(rebuilt(home))
    rope = mended.row(by_predicate=pl.col("sku") == "rope", named=True)
    assert (rope["in_flight_units"], rope["value_cents"]) == (0, 1200)
    assert (rebuild(home), differences(home).height) == (0, 0)
