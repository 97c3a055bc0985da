"""The projector over a real log, real holds and a real board; and killed in the middle of its work."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.stock_floor import NOON, publish_stock
from models.stock.board.layout import BoardError
from models.stock.board.reader import Board
from models.stock.holds.opening import open_holds
from models.stock.holds.store import HoldStore
from models.stock.holds.words import Hold, Line, Refusal, Request
from models.tables import write
from serving.event_log.log import PROJECTOR, Log, open_log
from serving.intake.drift import reports
from serving.intake.projector import BASE, Projector
from tests.integration.shop_floor import movement, order, pick, refund
from troth.clock import FixedClock
from troth.home import Home

TENT, ROPE = ("S001", "tent"), ("S001", "rope")
STOCK = {TENT: 10, ROPE: 4, ("DC1", "tent"): 50}


class Floor:
    """A home with its log, holds and clock."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)
        self.log: Log = open_log(self.home)
        self.holds: HoldStore = open_holds(self.home)
        self.clock = FixedClock(NOON)

    def projector(self) -> Projector:
        projector = Projector(self.home, self.log, self.holds, self.clock)
        projector.catch_up()
        return projector

    def available(self, *places: tuple[str, str]) -> list[int]:
        return Board(self.home.stock / "board").cells(list(places)).available_units.tolist()


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    made = Floor(tmp_path)
    yield made
    made.log.close()
    made.holds.close()


def test_what_the_warehouse_published_is_on_the_board(floor: Floor) -> None:
    publish_stock(floor.home, STOCK, orders={"#1": ("S001", {"tent": 2})})
    with floor.projector():
        assert floor.available(TENT, ROPE, ("S002", "tent")) == [7, 3, 0]
        level = floor.holds.levels([TENT], NOON)[0]
        assert level is not None
        assert level.available_units == 7


def test_sales_orders_picks_and_refunds_change_what_is_available(floor: Floor) -> None:
    publish_stock(floor.home, STOCK)
    with floor.projector() as projector:
        floor.log.append([movement(1, *TENT, -2), order(5, "701", {"tent": 3, "rope": 1})])
        projector.step()
        assert floor.available(TENT, ROPE) == [4, 2]
        floor.log.append([pick(1, *TENT, 3, "#5")])
        projector.step()
        assert floor.available(TENT) == [4], "what was committed has gone"
        floor.log.append(
            [
                refund(1, 5, "rope", 1, "cancel"),
                refund(2, 5, "tent", 1, "return", "701"),
                refund(3, 5, "tent", 1, "no_restock"),
            ]
        )
        projector.step()
        assert floor.available(TENT, ROPE) == [5, 3]
        floor.log.append(
            [order(6, "701", {"tent": 4}), order(6, "701", {"tent": 4}, NOON + timedelta(minutes=1), cancelled_at="x")]
        )
        floor.log.append([order(6, "701", {"tent": 4}, NOON - timedelta(minutes=1))])
        projector.step()
        assert floor.available(TENT) == [5], "a version told late does not reopen an order"


def test_an_event_that_cannot_be_understood_is_set_aside_and_stops_nobody(floor: Floor) -> None:
    publish_stock(floor.home, STOCK)
    with floor.projector() as projector:
        floor.log.append([order(1, "701", {"tent": -3}), movement(1, *TENT, -1)])
        projector.step()
        assert floor.available(TENT) == [8]
        assert projector.tally.dead == 1
        assert [letter.reason_code for letter in floor.log.letters.list()] == ["meaningless"]


def test_holds_show_on_the_board_while_they_last_and_an_order_ends_its_own(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.intake.projector._HELD_SECONDS", 0)
    publish_stock(floor.home, STOCK)
    with floor.projector() as projector:
        hold = floor.holds.hold(Request("basket", (Line(*TENT, 4),), timedelta(minutes=10)), NOON)
        other = floor.holds.hold(Request("other", (Line(*ROPE, 2),), timedelta(minutes=5)), NOON)
        assert isinstance(hold, Hold)
        assert isinstance(other, Hold)
        projector.step()
        assert floor.available(TENT, ROPE) == [5, 1]
        floor.clock.at = NOON + timedelta(minutes=6)
        projector.step()
        assert floor.available(TENT, ROPE) == [5, 3], "time ends a hold"
        floor.log.append(
            [order(7, "701", {"tent": 4}, note_attributes=[{"name": "troth_hold", "value": hold.hold_id}])]
        )
        projector.step()
        assert floor.available(TENT) == [5], "held units became committed ones"
        refused = floor.holds.hold(Request("greedy", (Line(*TENT, 6),)), floor.clock.at)
        assert isinstance(refused, Refusal)
        assert isinstance(floor.holds.hold(Request("fair", (Line(*TENT, 5),)), floor.clock.at), Hold)


def test_the_warehouses_newer_word_heals_the_board_and_every_difference_is_named(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.intake.projector._LOOK_SECONDS", 0)
    publish_stock(floor.home, STOCK)
    with floor.projector() as projector:
        offsets = floor.log.append([movement(1, *TENT, -2), movement(2, *TENT, -1)])
        projector.step()
        # The warehouse knows the first sale from the stream and one by file besides; the second sale of the stream came later.
        publish_stock(floor.home, STOCK | {TENT: 5}, offsets[0], NOON + timedelta(minutes=15),
                      movements={"till/1": (*TENT, -2, "stock"), "receipt/9": (*TENT, -3, "pos")})  # fmt: skip
        while not projector.tally.rebases:
            projector.step()
        assert floor.available(TENT) == [3]
        assert Board(floor.home.stock / "board").known().recomputed_at == NOON + timedelta(minutes=15)
        (drift,) = reports(floor.home)
        assert [
            (row.part, row.streamed_units, row.recomputed_units, row.reason_code, row.sources) for row in drift.rows
        ] == [("on_hand_units", 7, 4, "moved_by_files", ["pos"])]
        floor.log.append([movement(3, *TENT, -3, movement_id="receipt/9")])
        projector.step()
        assert floor.available(TENT) == [3], "what a file told first is not told again by the stream"


def test_a_belief_is_on_the_board_as_soon_as_it_is_published(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.intake.projector._LOOK_SECONDS", 0)
    publish_stock(floor.home, STOCK)

    def believe(chance: float) -> None:
        rows = [(*place, chance, chance / 2, NOON.replace(tzinfo=None)) for place in STOCK]
        columns = ["location_code", "sku", "p_found_1", "p_found_2", "as_of_at"]
        write(floor.home, "pred_stock_belief", pl.DataFrame(rows, schema=columns, orient="row"))

    def told() -> list[float]:
        cells = Board(floor.home.stock / "board").cells([TENT, TENT])
        return cells.found_probability(np.array([1, 5])).round(3).tolist()

    believe(0.5)
    with floor.projector() as projector:
        assert told() == [0.5, 0.25]
        assert Board(floor.home.stock / "board").known().believed_at == NOON
        believe(0.75)
        while told() == [0.5, 0.25]:
            projector.step()
        assert told() == [0.75, 0.375]


def test_a_start_reads_again_what_the_last_one_had_not_shown(floor: Floor) -> None:
    publish_stock(floor.home, STOCK)
    with floor.projector() as projector:
        floor.log.append([movement(1, *TENT, -2)])
        projector.step()
    floor.log.append([movement(2, *TENT, -3)])
    with floor.projector() as projector:
        assert floor.available(TENT) == [4]
        with pytest.raises(BoardError, match="only writer"):
            Projector(floor.home, floor.log, floor.holds, floor.clock)
    assert floor.log.position(PROJECTOR) == 2
    assert floor.log.position(BASE) == 0, "a start needs the log from the base on"


_CHILD = """
import sys
from pathlib import Path
from models.stock.holds.opening import open_holds
from serving.event_log.log import open_log
from serving.intake.projector import Projector
from troth.clock import SystemClock
from troth.home import Home
home = Home(Path(sys.argv[1]))
with Projector(home, open_log(home), open_holds(home), SystemClock()) as projector:
    projector.run(lambda: False)
"""


def _started(home: Home) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _CHILD, str(home.root)])


def test_killed_at_any_moment_nothing_is_lost_and_nothing_counts_twice(floor: Floor) -> None:
    chance = random.Random(5)
    publish_stock(floor.home, {TENT: 10_000, ROPE: 10_000})
    sold = {TENT: 0, ROPE: 0}
    child = _started(floor.home)
    try:
        for number in range(240):
            place = chance.choice([TENT, ROPE])
            units = chance.randint(1, 5)
            sold[place] += units
            floor.log.append([movement(number, *place, -units)] * chance.randint(1, 2))
            if number % 60 == 59:
                time.sleep(chance.uniform(0, 1.5))
                child.send_signal(signal.SIGKILL)
                child.wait()
                child = _started(floor.home)
        until = time.monotonic() + 60
        while floor.log.position(PROJECTOR) < floor.log.head():
            assert time.monotonic() < until, "the projector never came to the end of the log"
            time.sleep(0.05)
        assert floor.available(TENT, ROPE) == [9_999 - sold[TENT], 9_999 - sold[ROPE]]
        levels = floor.holds.levels([TENT, ROPE], NOON)
        assert [level and level.free_units for level in levels] == [9_999 - sold[TENT], 9_999 - sold[ROPE]]
    finally:
        child.kill()
        child.wait()
