"""What Dagster does about activation: rounds, and what a home schedules."""

import json
from pathlib import Path
from typing import Any

import pytest

from models.segments.rules import Rules
from orchestration.activations import activation_round, ask_by_schedule, schedules, standing_activation
from orchestration.resources import HomeResource, Reporter
from serving.activation.approving import approve, ask
from serving.activation.deliveries import deliveries, recalls
from serving.activation.dispatch import Dispatch
from serving.activation.errors import ActivationError
from tests.integration.activation_shop import declare, describe, withdraws
from tests.integration.segment_shop import Shop
from troth.clock import SystemClock
from troth.home import Home

SCHEDULES = """\
schedules:
  daily: {segment: everybody, destination: own_folder, channel: email, cron: "0 6 * * *", asked_by: kim}
  weekly: {segment: everybody, destination: desk, channel: email, cron: "0 6 * * 1", asked_by: kim}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(Home(tmp_path / "home"))
    declare(made.home, SCHEDULES)
    describe(made.home)
    return made


def resources(home: Home) -> dict[str, Any]:
    return {"troth": HomeResource(root=str(home.root)), "reporter": Reporter()}


def test_a_home_has_its_round_and_the_schedules_it_declares(shop: Shop, tmp_path: Path) -> None:
    found = {each.name: (each.job_name, each.cron_schedule) for each in schedules(shop.home)}
    assert found == {
        "activation_round_schedule": ("activation_round", "11/15 * * * *"),
        "activate_daily": ("standing_activation", "0 6 * * *"),
        "activate_weekly": ("standing_activation", "0 6 * * 1"),
    }
    (shop.home.root / "destinations.yml").write_text("nonsense: [")
    assert [each.job_name for each in schedules(shop.home)] == ["activation_round"]


def test_a_schedule_sends_and_a_round_calls_back(shop: Shop) -> None:
    config = {"ops": {"ask_by_schedule": {"config": {"schedule": "daily"}}}}
    assert standing_activation.execute_in_process(run_config=config, resources=resources(shop.home)).success
    (done,) = deliveries(shop.home)
    assert (done.state, done.asked_by, done.why) == ("sent", "kim", "schedule daily")
    manifest = json.loads(done.manifest or "")
    assert manifest["segment"]["name"] == "everybody"


def test_a_round_sends_what_was_approved_and_tells_what_it_did(shop: Shop) -> None:
    dispatch = Dispatch(shop.home, SystemClock(), rules=Rules())
    found = ask(dispatch, "everybody", "desk", "email", by="kim", why="spring letter")
    assert activation_round.execute_in_process(resources=resources(shop.home)).success
    assert deliveries(shop.home)[0].state == "asked"
    approve(dispatch, found.delivery_id, by="ada", why="looked at it")
    assert activation_round.execute_in_process(resources=resources(shop.home)).success
    (done,) = deliveries(shop.home)
    assert done.state == "sent"
    withdraws(shop, min(who["customer_id"] for who in shop.customers if not who["is_test"]))
    ran = activation_round.execute_in_process(resources=resources(shop.home))
    (told,) = [each.step_output_data.metadata for each in ran.all_events if each.is_successful_output]
    assert told["recalled_people"].value == sum(each.count for each in recalls(shop.home))


def test_a_file_of_destinations_that_cannot_be_read_stops_the_round(shop: Shop) -> None:
    (shop.home.root / "destinations.yml").write_text("destinations: {x: {kind: pigeon}}")
    ran = activation_round.execute_in_process(resources=resources(shop.home), raise_on_error=False)
    assert not ran.success


def test_an_unknown_schedule_is_refused(shop: Shop) -> None:
    config = {"ops": {ask_by_schedule.name: {"config": {"schedule": "hourly"}}}}
    with pytest.raises(ActivationError, match="schedule: expected one of daily, weekly"):
        standing_activation.execute_in_process(run_config=config, resources=resources(shop.home))
