"""What was on hand at a time as it was known at another: the law against a reference of a few lines."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.stock.history import MOVEMENTS, QUESTION, SUPERSEDED, as_of, stock_as_of
from troth.errors import TrothError
from troth.home import Home
from troth.published import publish

START = datetime(2025, 3, 1)
SCHEMA = {
    "location_code": pl.String(),
    "sku": pl.String(),
    "units": pl.Int64(),
    "occurred_at": pl.Datetime("us"),
    "known_at": pl.Datetime("us"),
    "superseded_at": pl.Datetime("us"),
}
hours = st.integers(0, 12).map(lambda hour: START + timedelta(hours=hour))
places = st.sampled_from([("S001", "tent"), ("S001", "rope"), ("DC1", "tent")])
movements = st.lists(
    st.tuples(places, st.integers(-5, 9), hours, hours, st.none() | st.integers(1, 6)).map(
        lambda drawn: (*drawn[0], *drawn[1:4], drawn[4] and drawn[3] + timedelta(hours=drawn[4]))
    ),
    max_size=20,
)
questions = st.lists(
    st.tuples(places, hours, hours).map(lambda drawn: (*drawn[0], *drawn[1:])), min_size=1, max_size=10
)


def written(folder: Path, rows: list[tuple[Any, ...]]) -> list[Path]:
    """Movements in two files, as the warehouse publishes them: those that stand, and those that once stood."""
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    paths = [folder / f"{name}.parquet" for name in (MOVEMENTS, SUPERSEDED)]
    frame.filter(pl.col("superseded_at").is_null()).drop("superseded_at").write_parquet(paths[0])
    frame.filter(pl.col("superseded_at").is_not_null()).write_parquet(paths[1])
    return paths


@settings(max_examples=60, deadline=None)
@given(movements, questions)
def test_what_was_on_hand_is_the_sum_of_what_had_moved_and_was_known_and_not_yet_taken_back(
    rows: list[tuple[Any, ...]], asked: list[tuple[Any, ...]]
) -> None:
    with TemporaryDirectory() as folder:
        answers = as_of(written(Path(folder), rows), pl.DataFrame(asked, schema=QUESTION, orient="row"))
    assert answers.select(*QUESTION).rows() == asked
    for (location, sku, valid, known), on_hand, count in zip(
        asked, answers["on_hand_units"], answers["movement_count"], strict=True
    ):
        meant = [
            units
            for where, what, units, moved, heard, ended in rows
            if (where, what) == (location, sku)
            and moved <= valid
            and heard <= known
            and (ended is None or ended > known)
        ]
        assert (on_hand, count) == (sum(meant) if meant else None, len(meant))


def test_a_movement_declared_wrong_was_there_until_that_was_heard(tmp_path: Path) -> None:
    home = Home(tmp_path)
    rows = [
        ("S001", "tent", 10, START, START, None),
        ("S001", "tent", 50, START, START + timedelta(hours=1), START + timedelta(hours=3)),
        ("S001", "tent", 5, START, START + timedelta(hours=3), None),
    ]
    for table, path in zip((MOVEMENTS, SUPERSEDED), written(tmp_path, rows), strict=True):
        publish(home, table, path)
    now = START.replace(tzinfo=UTC) + timedelta(days=1)
    told = [
        stock_as_of(home, "S001", "tent", now, now.replace(day=1, hour=hour)).on_hand_units for hour in (0, 1, 2, 3)
    ]
    assert told == [10, 60, 60, 15]
    assert stock_as_of(home, "S001", "rope", now, now).on_hand_units is None


def test_without_movements_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrothError, match="published table stock_movements"):
        stock_as_of(Home(tmp_path), "S001", "tent", START.replace(tzinfo=UTC), START.replace(tzinfo=UTC))
