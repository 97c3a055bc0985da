"""The closing tables of a run: who is who, and what duplicates cost."""

import io
from pathlib import Path

import polars as pl
from rich.console import Console

from orchestration.summary import duplicates_row, render
from serving.operations.runs import DuplicatesRow, IdentityRow, RunReport
from tests.unit.feature_repo.published_home import publish_table
from troth.home import Home

SUMMED = ("joined_profile_count", "joined_cost_cents", "expected_cost_cents", "expected_split_cents")
ADDED = ("expected_duplicates", "expected_double_mailings")


def printed(report: RunReport) -> str:
    console = Console(file=io.StringIO(), width=140)
    for table in render(report):
        console.print(table)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_duplicates_are_the_sums_of_their_kinds(tmp_path: Path) -> None:
    rows = [dict.fromkeys(SUMMED, 100 * n) | dict.fromkeys(ADDED, n / 4) for n in (1, 2)]
    publish_table(Home(tmp_path), "customer_duplicates", pl.DataFrame(rows))
    assert duplicates_row(Home(tmp_path)) == DuplicatesRow(300, 300, 0.75, 300, 300, 0.75)


def test_of_a_home_without_duplicates_nothing_is_expected(tmp_path: Path) -> None:
    schema = dict.fromkeys(SUMMED, pl.Int64) | dict.fromkeys(ADDED, pl.Float64)
    publish_table(Home(tmp_path), "customer_duplicates", pl.DataFrame(schema=schema))
    assert duplicates_row(Home(tmp_path)) == DuplicatesRow(0, 0, 0.0, 0, 0, 0.0)


def test_who_is_who_is_one_table_with_duplicates_priced_in_one_line() -> None:
    found = IdentityRow("m1", 500, 40, 900, 420, {"joined": 7, "forced": 1, "below_the_bar": 5, "not_allowed": 3}, 2)
    text = printed(
        RunReport("home", True, None, resolution=found, duplicates=DuplicatesRow(8, 12_345, 3.26, 4_500, 9, 0.5))
    )
    rows = {
        line.split("│")[1].strip(): line.split("│")[2].strip() for line in text.splitlines() if line.count("│") == 3
    }
    assert rows["records of people"] == "500"
    assert rows["likely pairs joined"] == "8"
    assert (rows["below the bar"], rows["not allowed by consent"], rows["identifiers that moved"]) == ("5", "3", "2")
    assert rows["duplicates expected still, 45.00 a year (joining 8 saves 123.45)"] == "3.3"


def test_a_run_of_before_is_shown_without_what_it_did_not_count() -> None:
    assert "Who is who" not in printed(RunReport("home", False, None))
