from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from orchestration.beliefs import SAFETY, decide_safety
from orchestration.raw import read_table
from troth.home import Home

MONDAY = datetime(2026, 3, 2, 10)


def believed(**units: int) -> pl.DataFrame:
    rows = [("S001", sku, each) for sku, each in units.items()]
    return pl.DataFrame(rows, schema=["location_code", "sku", "safety_units"], orient="row")


def decisions(home: Home) -> list[tuple[str, int, int]]:
    """SKU, units and the day after Monday of each decision."""
    frame = read_table(home, SAFETY)
    assert frame is not None
    return [(row["sku"], row["safety_units"], (row["decided_at"] - MONDAY).days) for row in frame.iter_rows(named=True)]


def test_only_what_changes_is_a_decision(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert decide_safety(home, believed(tent=1, rope=2), MONDAY) == 2
    assert decide_safety(home, believed(tent=3, rope=2), MONDAY + timedelta(days=1)) == 1
    assert decide_safety(home, believed(tent=1, rope=2), MONDAY + timedelta(days=2)) == 1
    assert decisions(home) == [("rope", 2, 0), ("tent", 1, 0), ("tent", 3, 1), ("tent", 1, 2)]


def test_decided_again_for_a_time_the_later_word_counts_and_later_decisions_are_forgotten(tmp_path: Path) -> None:
    home = Home(tmp_path)
    decide_safety(home, believed(tent=1), MONDAY)
    decide_safety(home, believed(tent=4), MONDAY + timedelta(days=1))
    decide_safety(home, believed(tent=2), MONDAY + timedelta(days=1))
    assert decisions(home) == [("tent", 1, 0), ("tent", 2, 1)]
    assert decide_safety(home, believed(tent=2), MONDAY + timedelta(days=1)) == 0
    assert decisions(home) == [("tent", 1, 0), ("tent", 2, 1)]
