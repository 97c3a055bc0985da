"""`troth consent`: what it takes for misuse, and how answers are laid out for people."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from orchestration.cli import app
from orchestration.errors import MISUSE, NOTHING_READABLE, RunError
from orchestration.measuring import for_people
from orchestration.options import moment

RUNNER = CliRunner()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-22T10:00:00Z", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("2026-11-22T11:00:00+01:00", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
    ],
)
def test_a_time_without_a_zone_is_utc(text: str, meant: datetime) -> None:
    assert moment("--at", text) == meant


def test_a_text_that_is_no_time_is_misuse() -> None:
    with pytest.raises(typer.BadParameter, match="expected a time like"):
        moment("--at", "yesterday")


@pytest.mark.parametrize(
    "said",
    [
        ["show", "email_x", "--at", "yesterday"],
        ["receipt", "email_x", "--out", "r.json", "--purpose", "marketing"],
        ["receipt", "email_x"],
        ["decisions", "--subject", "cus_1"],
        ["decisions", "1", "--replay", "1"],
        ["decisions", "1", "--out", "shown.json"],
        ["measures", "--least", "0"],
        ["witness"],
    ],
)
def test_what_cannot_be_meant_ends_with_2(said: list[str], tmp_path: Path) -> None:
    assert RUNNER.invoke(app, ["consent", *said, "--home", str(tmp_path)]).exit_code == MISUSE


@pytest.mark.parametrize(
    "said",
    [
        ["show", "email_" + "a" * 22],
        ["history", "email_" + "a" * 22],
        ["receipt", "email_" + "a" * 22, "--out", "r.json"],
        ["export", "folder"],
        ["checkpoint"],
        ["decisions"],
        ["measures"],
    ],
)
def test_without_a_ledger_nothing_can_be_read(said: list[str], tmp_path: Path) -> None:
    found = RUNNER.invoke(app, ["consent", *said, "--home", str(tmp_path / "nowhere")]).exception
    assert isinstance(found, RunError)
    assert found.code == NOTHING_READABLE
    assert "found none" in str(found)
    assert not (tmp_path / "nowhere").exists()  # asking made nothing


def test_a_table_for_people_leaves_out_columns_of_noughts_and_says_what_a_blank_is() -> None:
    rates = [{"purpose_code": "analytics", "asked": 12, "gpc": 0, "yes": None, "is_total": False}]
    told = for_people({"least_people": 10, "rates": rates})
    assert told["rates"] == [{"purpose": "analytics", "asked": 12}]
    assert "fewer than 10 people" in told["a_blank_is"]
