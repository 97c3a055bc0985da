"""Measures as they are asked for: by one dimension, since a day, with the age of what answers rested on."""

import json
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from models.tables import write
from orchestration.cli import app
from orchestration.stock_measures import for_people, spoken
from serving.measures import Measured, MeasureError, measured
from serving.promising.ages import Ages
from tests.unit.serving.test_ages import Answer
from troth.errors import TrothError
from troth.home import Home

SCHEMA = {
    "measure_name": pl.String, "statistic_type": pl.String, "period_type": pl.String, "period_start": pl.Date, "location_code": pl.String,
    "fulfillment_method": pl.String, "category_name": pl.String, "numerator": pl.Int64, "denominator": pl.Int64, "value": pl.Float64,
    "unit_type": pl.String,
}  # fmt: skip
FIRST, SECOND = date(2026, 3, 2), date(2026, 3, 9)


def row(part: int | None, whole: int, **changes: Any) -> dict[str, Any]:
    return {
        "measure_name": "nil_pick", "statistic_type": "share", "period_type": "all", "period_start": FIRST, "location_code": "*",
        "fulfillment_method": "*", "category_name": "*", "numerator": part, "denominator": whole, "value": (part or 0) / whole,
        "unit_type": "share", **changes,
    }  # fmt: skip


def week(part: int, whole: int, start: date = FIRST, **changes: Any) -> dict[str, Any]:
    return row(part, whole, period_type="week", period_start=start, **changes)


P90 = {"measure_name": "pick_time", "statistic_type": "p90", "unit_type": "seconds", "numerator": None, "value": 90.0}
NOW = {"measure_name": "shut_by_protection", "period_type": "now", "period_start": SECOND}
ROWS = [
    row(3, 10), week(1, 4), week(2, 6, SECOND), row(2, 5, location_code="S001"), row(1, 5, location_code="S002"),
    week(2, 5, SECOND, location_code="S001"), row(2, 5, location_code="S001", fulfillment_method="curbside"), row(1, 3, category_name="Tents"),
    row(None, 10, **P90), week(1, 6, SECOND) | P90, row(1, 8, **NOW), row(1, 4, **NOW, location_code="S001"),
]  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    write(home, "fulfilment_measures", pl.DataFrame(ROWS, schema=SCHEMA))
    return home


def told(found: list[Measured], measure: str = "nil_pick") -> list[tuple[Any, ...]]:
    return [
        (each.period_start, each.location_code, each.fulfillment_method, each.numerator, each.denominator)
        for each in found
        if each.measure_name == measure
    ]


def test_overall_is_what_is_of_every_place_and_week_and_what_stands_now(home: Home) -> None:
    found = measured(home)
    assert told(found.measures) == [(None, None, None, 3, 10)]
    assert told(found.measures, "shut_by_protection") == [(None, None, None, 1, 8)]
    assert (found.left_out, len(found.table_version)) == ([], 32)


def test_a_dimension_gives_a_row_for_each_of_its_members_alone(home: Home) -> None:
    assert told(measured(home, "location").measures) == [(None, "S001", None, 2, 5), (None, "S002", None, 1, 5)]
    assert told(measured(home, "route").measures) == [(None, "S001", "curbside", 2, 5)]
    assert told(measured(home, "week").measures) == [(FIRST, None, None, 1, 4), (SECOND, None, None, 2, 6)]
    assert [each.category_name for each in measured(home, "category").measures] == ["Tents"]


def test_since_a_day_sums_the_weeks_from_its_own_on_and_says_what_cannot_be_summed(home: Home) -> None:
    for day in (SECOND, SECOND + timedelta(days=6)):
        found = measured(home, since=day)
        assert told(found.measures) == [(None, None, None, 2, 6)]
        assert told(found.measures, "pick_time") == []
        assert found.left_out == ["percentiles since a day: they cannot be summed; ask by week"]
    assert told(measured(home, since=FIRST).measures) == [(None, None, None, 3, 10)]
    assert told(measured(home, "location", SECOND).measures) == [(None, "S001", None, 2, 5)]
    assert told(measured(home, "week", SECOND).measures, "pick_time") == [(SECOND, None, None, None, 6)]


def test_a_dimension_there_is_none_of_and_a_home_without_measures_are_refused(home: Home, tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match="expected one of location, method, route, category, week, found another"):
        measured(home, "shopper")  # type: ignore[arg-type]
    with pytest.raises(TrothError, match="fulfilment_measures"):
        measured(Home(tmp_path / "empty"))


def test_the_age_of_answers_is_told_of_all_and_by_kind_from_what_services_counted(home: Home) -> None:
    ages = Ages(home)
    at = datetime(2026, 3, 10, 12, tzinfo=UTC)
    for age in (30.0, 10.0, 20.0, 40.0):
        ages.note("promise", at, [Answer(age)])
    ages.note("availability", at, [Answer(1.0)])
    ages.note("held_promise", at - timedelta(days=7), [Answer(500.0)])
    ages.close()
    weeks = {
        (each.period_start, each.answer_type, each.statistic_type): (each.numerator, each.denominator, each.value)
        for each in measured(home, "week").measures
        if each.measure_name == "answer_staleness"
    }
    assert weeks[SECOND, None, "mean"] == (101, 5, 20.2)
    assert weeks[SECOND, "promise", "mean"] == (100, 4, 25.0)
    assert weeks[SECOND, "availability", "p50"] == (None, 1, 1.0)
    for name, exact in (("p50", 20.0), ("p90", 40.0), ("p95", 40.0)):
        assert exact <= weeks[SECOND, "promise", name][2] < exact * 1.26
    assert weeks[FIRST, None, "p50"] == weeks[FIRST, "held_promise", "p50"]
    assert told(measured(home, since=SECOND).measures, "answer_staleness")[0] == (None, None, None, 101, 5)
    rows = for_people([each for each in measured(home).measures if each.measure_name == "answer_staleness"])
    assert [row["answer"] for row in rows] == [None, "availability", "held_promise", "promise"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50), st.integers(0, 8)), min_size=1), st.integers(0, 60))
def test_weeks_since_the_first_sum_to_what_is_counted_in_one(weeks: list[tuple[int, int, int]], day: int) -> None:
    since = FIRST + timedelta(days=day)
    rows: dict[int, tuple[int, int]] = {}
    for part, more, number in weeks:
        before = rows.get(number, (0, 0))
        rows[number] = before[0] + part, before[1] + part + more
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        frame = [week(part, whole, FIRST + timedelta(days=7 * number)) for number, (part, whole) in rows.items()]
        write(home, "fulfilment_measures", pl.DataFrame(frame, schema=SCHEMA))
        found = told(measured(home, since=since).measures)
    counted = [sums for number, sums in rows.items() if number >= day // 7]
    sums = (sum(part for part, _ in counted), sum(whole for _, whole in counted))
    assert found == ([(None, None, None, *sums)] if counted else [])


def test_a_terminal_is_told_percents_and_times_and_a_machine_the_numbers(home: Home) -> None:
    shown = CliRunner().invoke(app, ["stock", "measures", "--home", str(home.root)]).stdout
    assert "30.0 %" in shown
    assert "1.5 min" in shown
    answer = json.loads(
        CliRunner().invoke(app, ["stock", "measures", "--by", "week", "--json", "--home", str(home.root)]).stdout
    )
    assert [each["numerator"] for each in answer["measures"]] == [1, 2, None]
    assert [spoken(value, "seconds") for value in (0, 59, 3600, 90000)] == ["0.0 s", "59.0 s", "1.0 h", "1.0 d"]
    assert spoken(123456, "cents") == "1,234.56"


@pytest.mark.parametrize("by", [None, "location", "week"])
def test_shares_are_drawn_into_a_file(home: Home, tmp_path: Path, by: str | None) -> None:
    path = tmp_path / "measures.png"
    asked = ["stock", "measures", "--plot", str(path), "--home", str(home.root), *(["--by", by] if by else [])]
    assert CliRunner().invoke(app, asked).exit_code == 0
    assert path.read_bytes().startswith(b"\x89PNG")
