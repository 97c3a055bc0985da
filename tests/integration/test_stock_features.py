"""Features of stock, kept up with the stream: an event is in them within a second, through Feast's own SDK and over HTTP, whatever is killed."""

import random
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.stock_floor import NOON, publish_stock
from feature_repo.catalogue import SKU_LOCATION_AVAILABILITY
from feature_repo.errors import FeatureError
from feature_repo.publish import publish
from feature_repo.store import OnlineStore, entity_key, online_store
from models.stock.holds.opening import open_holds
from serving import keys
from serving.app import create_app
from serving.event_log.events import NewEvent
from serving.event_log.log import open_log
from serving.intake import features
from serving.intake.projector import Projector
from serving.operations.freshness import STREAMED, shown
from tests.integration.redis_server import running_redis
from tests.integration.shop_floor import movement, order, pick
from tests.integration.test_projector import _started
from tests.unit.feature_repo.published_home import home_with_tables
from tests.unit.serving.open_shop import Caller
from troth.clock import FixedClock, SystemClock
from troth.home import Home

TENT, ROPE, STOVE = ("S001", "tent"), ("S001", "rope"), ("S002", "stove")
STOCK = {TENT: 10, ROPE: 4, ("DC1", "tent"): 50}
SECONDS = 60.0


class Floor:
    """A home with its log, holds and clock, whose stock was published online."""

    def __init__(self, folder: Path, stock: Mapping[tuple[str, str], int] = STOCK) -> None:
        self.home = Home(folder)
        publish_stock(self.home, stock)
        publish(self.home, views=STREAMED)
        self.log, self.holds, self.clock = open_log(self.home), open_holds(self.home), FixedClock(NOON)

    def close(self) -> None:
        self.log.close()
        self.holds.close()

    def projector(self) -> Projector:
        projector = Projector(self.home, self.log, self.holds, self.clock)
        projector.catch_up()
        return projector

    def told(self, events: list[NewEvent], received_at: datetime = NOON) -> list[int]:
        return self.log.append([msgspec.structs.replace(event, received_at=received_at) for event in events])

    def row(self, place: tuple[str, str]) -> dict[str, Any]:
        """Both views' rows of a position, as one."""
        key = entity_key(SKU_LOCATION_AVAILABILITY.entity, place[::-1])
        rows = online_store(self.home.features).read(STREAMED, [key])
        found: dict[str, Any] = {}
        for view in STREAMED:
            found |= rows[view.name, key].values if (view.name, key) in rows else {}
        return found

    def units(self, place: tuple[str, str]) -> tuple[int, int]:
        row = self.row(place)
        return row["on_hand_units"], row["available_units"]


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with running_redis() as server:
        yield server.address


@pytest.fixture(params=["sqlite", "redis"])
def floor(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Floor]:
    if request.param == "redis":
        monkeypatch.setenv("TROTH_ONLINE", request.getfixturevalue("redis"))
        online_store(tmp_path).destroy()
    monkeypatch.setattr(features, "_EVERY_SECONDS", 0)
    monkeypatch.setattr(features, "_IDLE_SECONDS", 0)
    monkeypatch.setattr(features, "_AGAIN_SECONDS", 0)
    made = Floor(tmp_path)
    yield made
    made.close()


def settle(floor: Floor, projector: Projector) -> None:
    """Until the features have all there is."""
    (floor.home.stock / "features.json").unlink(missing_ok=True)
    until, head = time.monotonic() + SECONDS, floor.log.head()
    while (told := shown(floor.home)) is None or told.offset < head:
        assert time.monotonic() < until, "the features never came to the end of the log"
        projector.step()


def test_what_happens_to_stock_is_in_its_features_with_all_a_published_row_says(floor: Floor) -> None:
    with floor.projector() as projector:
        floor.told([movement(1, *TENT, -2), order(5, "701", {"tent": 3, "rope": 1}), movement(2, *STOVE, 6)], NOON + timedelta(days=2))  # fmt: skip
        settle(floor, projector)
        assert floor.row(TENT) == {
            "on_hand_units": 8, "committed_units": 3, "safety_units": 1, "available_units": 4, "has_stock": True, "sold_units_28d": 3,
            "days_since_last_movement": 2, "last_movement_at": NOON,
        }  # fmt: skip
        assert floor.row(STOVE) == floor.row(TENT) | {
            "on_hand_units": 6, "committed_units": 0, "safety_units": 0, "available_units": 6, "sold_units_28d": 0,
        }  # fmt: skip
        assert floor.units(("DC1", "tent")) == (50, 49), "what nobody spoke of is as it was published"
        floor.told([pick(1, *TENT, 3, "#5"), movement(3, *TENT, -4)], NOON + timedelta(days=2))
        settle(floor, projector)
        assert (floor.units(TENT), floor.row(TENT)["has_stock"]) == ((1, 0), False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_feasts_own_clients_see_an_event_within_a_second(tmp_path: Path) -> None:
    """The service and its projector as `troth serve` runs them; Feast's SDK and a client of its feature server beside."""
    home = home_with_tables(tmp_path)
    publish(home)
    from feature_repo import definitions

    definitions.apply(home)
    publish_stock(home, STOCK, at=SystemClock().now())
    publish(home, views=STREAMED)
    store = definitions.feature_store(home)
    service = Caller(create_app(home, SystemClock()), keys.make_key(home, "all", keys.ALL_PURPOSES, NOON, keys.SCOPES))
    row = {"sku": "tent", "location_code": "S001"}
    body = {"feature_service": "availability_v1", "entities": {name: [value] for name, value in row.items()}}

    def by_sdk() -> int | None:
        asked = store.get_online_features(features=store.get_feature_service("availability_v1"), entity_rows=[row])
        found: int | None = asked.to_dict()["on_hand_units"][0]
        return found

    def by_http() -> int | None:
        told = service.post("/get-online-features", json=body).json()
        found: int | None = told["results"][told["metadata"]["feature_names"].index("on_hand_units")]["values"][0]
        return found

    assert (by_sdk(), by_http()) == (10, 10)
    child = _started(home)
    try:
        until = time.monotonic() + SECONDS
        while shown(home) is None:
            assert time.monotonic() < until, "the projector never said how far its features are"
            time.sleep(0.02)
        sale = {
            "event_type": "movement", "event_id": "e1", "movement_id": "till/1", "movement_type": "sale", "location_code": "S001", "sku": "tent",
            "units": -3, "occurred_at": SystemClock().now().isoformat(),
        }  # fmt: skip
        told = service.post("/v1/events", json={"source_name": "till", "events": [sale]})
        assert told.status_code == 200, told.text
        while (by_sdk(), by_http()) != (7, 7):
            assert time.monotonic() < until, "the sale never reached the features"
            time.sleep(0.02)
    finally:
        child.kill()
        child.wait()


def test_killed_at_any_moment_features_have_every_event_once(tmp_path: Path) -> None:
    chance = random.Random(7)
    with closing(Floor(tmp_path, {TENT: 10_000, ROPE: 10_000})) as floor:
        sold = {TENT: 0, ROPE: 0}
        child = _started(floor.home)
        try:
            for number in range(120):
                place, units = chance.choice([TENT, ROPE]), chance.randint(1, 5)
                sold[place] += units
                floor.told([movement(number, *place, -units)] * chance.randint(1, 2), SystemClock().now())
                if number % 40 == 39:
                    time.sleep(chance.uniform(0.5, 2))
                    child.send_signal(signal.SIGKILL)
                    child.wait()
                    child = _started(floor.home)
            _wait(floor, child)
            assert [floor.units(place)[0] for place in (TENT, ROPE)] == [10_000 - sold[TENT], 10_000 - sold[ROPE]]
        finally:
            child.kill()
            child.wait()


def _wait(floor: Floor, child: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + SECONDS
    while (told := shown(floor.home)) is None or told.offset < floor.log.head():
        assert time.monotonic() < until
        assert child.poll() is None
        time.sleep(0.05)


def test_the_order_in_which_events_come_makes_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_EVERY_SECONDS", 0)
    monkeypatch.setattr(features, "_IDLE_SECONDS", 0)
    later = NOON + timedelta(minutes=3)
    events = [
        movement(1, *TENT, -2), movement(2, *TENT, 5), order(5, "701", {"tent": 3}), order(5, "701", {"tent": 1}, NOON + timedelta(minutes=1)),
        pick(1, *TENT, 1, "#5"),
    ]  # fmt: skip
    rows = []
    for turn, told in enumerate((events, events[::-1])):
        with closing(Floor(tmp_path / str(turn))) as floor, floor.projector() as projector:
            for event in told:
                floor.told([event], later)
                settle(floor, projector)
            rows.append(floor.row(TENT))
    assert rows[0] == rows[1]


@pytest.mark.parametrize("is_online_first", [True, False])
def test_a_version_that_does_not_know_the_stream_yet_hides_none_of_it_and_one_that_does_heals_it(
    is_online_first: bool, floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.intake.projector._LOOK_SECONDS", 0)
    with floor.projector() as projector:
        first, second = floor.told([movement(1, *TENT, -2), movement(2, *TENT, -1)], NOON + timedelta(minutes=5))
        settle(floor, projector)
        assert floor.units(TENT)[0] == 7
        # The warehouse knows files received later than both sales, and of the sales the first alone.
        at = NOON + timedelta(minutes=9)
        publish_stock(floor.home, STOCK | {TENT: 8}, first, at, movements={"till/1": (*TENT, -2, "stock")})
        if is_online_first:
            publish(floor.home, views=STREAMED)
            assert floor.units(TENT)[0] == 8, "until the projector has read it"
        while not projector.tally.rebases:
            projector.step()
        settle(floor, projector)
        publish(floor.home, views=STREAMED)
        assert floor.units(TENT)[0] == 7
        both = {"till/1": (*TENT, -2, "stock"), "till/2": (*TENT, -1, "stock"), "receipt/1": (*TENT, 4, "wms")}
        publish_stock(floor.home, STOCK | {TENT: 11}, second, at + timedelta(minutes=15), movements=both)
        publish(floor.home, views=STREAMED)
        assert floor.units(TENT)[0] == 11, "the version heals the row, whether the projector runs or not"


def test_what_a_projector_that_is_gone_had_written_too_much_is_written_right_by_the_next(floor: Floor) -> None:
    floor.told([movement(1, *TENT, -2)], NOON + timedelta(minutes=5))
    with floor.projector() as projector:
        settle(floor, projector)
    # A version of an earlier time than the row's, which knows the sale and a receipt by file: it cannot replace the row itself.
    publish_stock(
        floor.home, STOCK | {TENT: 20}, 1, NOON + timedelta(minutes=4), movements={"till/1": (*TENT, -2, "stock")}
    )
    publish(floor.home, views=STREAMED)
    assert floor.units(TENT)[0] == 8
    floor.told([movement(2, *ROPE, -1)], NOON + timedelta(minutes=6))
    with floor.projector() as projector:
        settle(floor, projector)
    assert floor.units(TENT)[0] == 20


def test_a_store_that_is_away_holds_up_no_stream_and_has_all_once_it_is_back(
    floor: Floor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = iter(range(3))

    def away(folder: Path) -> OnlineStore:
        if next(tries, None) is not None:
            raise FeatureError("online store: expected it, found it away. Try again.")
        return online_store(folder)

    monkeypatch.setattr(features, "online_store", away)
    with floor.projector() as projector:
        for number in range(5):
            floor.told([movement(number, *TENT, -1)])
            assert projector.step() == 1
        settle(floor, projector)
    assert floor.units(TENT)[0] == 5
    assert "FeatureError" in caplog.text


SALE = st.tuples(st.just("sale"), st.sampled_from([TENT, ROPE]), st.integers(0, 5))
ACT = st.tuples(st.sampled_from(["step", "start", "recompute", "publish"]), st.none(), st.integers(0, 20))


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(SALE, SALE, ACT), max_size=14))
def test_however_sales_starts_and_versions_fall_together_features_come_to_say_what_is_so(
    acts: list[tuple[str, tuple[str, str] | None, int]],
) -> None:
    import tempfile

    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        closing(Floor(Path(folder))) as floor,
    ):
        patch.setattr(features, "_EVERY_SECONDS", 0)
        patch.setattr(features, "_IDLE_SECONDS", 0)
        patch.setattr("serving.intake.projector._LOOK_SECONDS", 0)
        now, known, sales = NOON, 0, list[tuple[tuple[str, str], datetime]]()
        projector = floor.projector()

        def left(count: int) -> dict[tuple[str, str], int]:
            return {place: units - sum(sold == place for sold, _ in sales[:count]) for place, units in STOCK.items()}

        for act, place, number in acts:
            if act == "sale" and place is not None:
                now += timedelta(minutes=number)  # some fall together
                sales.append((place, now))
                floor.told([movement(len(sales), *place, -1)], now)
            elif act == "step":
                projector.step()
            elif act == "start":
                projector.close()
                projector = floor.projector()
            elif act == "publish":
                publish(floor.home, views=STREAMED)
            elif act == "recompute":
                known = max(known, min(number, len(sales)))
                as_of = max(
                    [NOON, *(at for _, at in sales[:known])]
                )  # what was received until then; of other files, later
                moved = {f"till/{each + 1}": (*sales[each][0], -1, "stock") for each in range(known)}
                publish_stock(floor.home, left(known), known, as_of + timedelta(minutes=number % 3), movements=moved)
        settle(floor, projector)
        for _ in range(3):  # a version that was announced last is read beside
            publish(floor.home, views=STREAMED)
            time.sleep(0.05)
            projector.step()
        settle(floor, projector)
        projector.close()
        assert {place: floor.row(place)["on_hand_units"] for place in STOCK} == left(len(sales))
