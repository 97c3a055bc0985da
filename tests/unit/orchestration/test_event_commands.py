"""`troth events` on a small log: how it stands, what passes, what is dead and what becomes of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from orchestration.cli import app
from orchestration.errors import MISUSE, RunError
from serving.event_log.log import PROJECTOR, open_log
from serving.intake.shops import Shops
from tests.unit.serving.test_intake_events import SALE, OpenIntake
from troth.home import Home

RUNNER = CliRunner()


def command(home: Home, *said: str, typed: str | None = None) -> Result:
    found: Result = RUNNER.invoke(app, ["events", *said, "--home", str(home.root)], input=typed)
    return found


def told(home: Home, *said: str, typed: str | None = None) -> Any:
    found = command(home, *said, "--json", typed=typed)
    assert found.exit_code == 0, (found.output, found.exception)
    return json.loads(found.stdout)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Three events, one of them sent twice, and two that were not as described."""
    intake = OpenIntake(tmp_path)
    intake.send(SALE, {**SALE, "event_id": "second"}, {**SALE, "event_id": "third"}, SALE)
    intake.send({**SALE, "units": "rosalind@pier.example"}, {"nonsense": True})
    intake.desk.log.commit(PROJECTOR, 2)
    intake.desk.close()
    return intake.home


def test_status_tells_offsets_lag_and_age(home: Home) -> None:
    found = told(home, "status")
    assert (found["first_offset"], found["newest_offset"], found["came_again"]) == (1, 3, 1)
    (projector,) = found["consumers"]
    assert (projector["consumer"], projector["offset"], projector["behind"]) == ("projector", 2, 1)
    assert projector["oldest_age_seconds"] >= 0
    assert found["dead_letters_waiting"] == 2


def test_tail_and_dead_show_no_value_of_anybody(home: Home) -> None:
    shown = [*told(home, "tail"), *told(home, "dead")]
    assert [each["offset"] for each in shown[:3]] == [1, 2, 3]
    assert [each["reason_code"] for each in shown[3:]] == ["not_as_described"] * 2
    assert "rosalind" not in json.dumps(shown)
    assert [each["offset"] for each in told(home, "tail", "--after", "2")] == [3]
    assert "rosalind" not in command(home, "dead").output


def test_a_dry_run_of_a_replay_changes_nothing_and_a_dropped_letter_is_emptied(home: Home) -> None:
    assert [each["outcome"] for each in told(home, "replay", "--dry-run")] == ["dead", "dead"]
    assert [each["outcome"] for each in told(home, "replay", "1")] == ["dead"]
    assert told(home, "drop", "1", "77") == {"dropped": [1]}
    assert [each["letter_id"] for each in told(home, "dead")] == [2]
    assert [each["letter_id"] for each in told(home, "dead", "--state", "dropped")] == [1]
    log = open_log(home)
    assert (log.letters.payload(1), log.letters.payload(2)) == (b"", b'{"nonsense":true}')
    log.close()


def test_what_is_landed_and_projected_is_trimmed_and_nothing_else(home: Home) -> None:
    assert told(home, "trim", "--hours", "0") == {"removed": 0}
    assert told(home, "land") == {"events": 3, "files": 1, "landed_offset": 3}
    assert told(home, "trim", "--hours", "0") == {"removed": 2}
    assert told(home, "status")["first_offset"] == 3


def test_a_consumer_that_is_no_more_is_forgotten(home: Home) -> None:
    assert told(home, "forget", "projector") == {"forgotten": "projector"}
    error = command(home, "forget", "projector").exception
    assert isinstance(error, RunError)
    assert error.code == MISUSE


def test_a_shop_is_written_down_with_the_secret_that_was_typed(home: Home) -> None:
    found = told(home, "shop", "pier.myshopify.com", "--jurisdiction", "US-OR", typed="shpss_of_the_pier\n")
    assert found == {"shop": "pier.myshopify.com", "secrets": 1, "jurisdiction_code": "US-OR"}
    shop = Shops(home).find("pier.myshopify.com")
    assert shop is not None
    assert shop.secrets == ["shpss_of_the_pier"]


def test_a_home_without_a_log_is_told_so_and_gets_none(tmp_path: Path) -> None:
    error = command(Home(tmp_path), "status").exception
    assert isinstance(error, RunError)
    assert "event log: expected one in the home, found none" in str(error)
    assert not (tmp_path / "log").exists()
