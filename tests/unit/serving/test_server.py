from datetime import timedelta
from pathlib import Path

from consent.ledger.opening import open_ledger
from serving.server import ElapsingClock, hub_clock
from tests.unit.serving.open_hub import MONDAY, OpenHub, grant
from troth.clock import FixedClock, SystemClock
from troth.home import Home


def test_people_choose_at_the_machines_time_where_that_is_what_is_answered_for(tmp_path: Path) -> None:
    clock = SystemClock()
    assert hub_clock(Home(tmp_path), clock) is clock


def test_where_time_stands_still_choices_go_on_from_it_and_never_before_what_was_said_already(tmp_path: Path) -> None:
    assert hub_clock(Home(tmp_path), FixedClock(MONDAY)).now() >= MONDAY
    assert not (tmp_path / "ledger.db").exists()
    shop = OpenHub(tmp_path)
    shop.clock.at = MONDAY + timedelta(hours=3)
    shop.say(grant(1))
    shop.hub.close()
    resumed = hub_clock(shop.home, FixedClock(MONDAY))
    assert isinstance(resumed, ElapsingClock)
    assert MONDAY + timedelta(hours=3) < resumed.now() <= resumed.now() < MONDAY + timedelta(hours=4)
    with open_ledger(shop.home, resumed) as ledger:
        assert ledger.size == 1
