from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from consent.ledger.opening import open_ledger
from models.stock.board.writer import BoardWriter
from models.stock.holds.opening import open_holds
from models.tables import write
from serving import keys
from serving.app import create_app
from tests.unit.models.promise.high_street import ITEMS, PLACES, TUESDAY
from tests.unit.serving.open_shop import Caller
from troth.clock import FixedClock
from troth.home import Home

STOCK = {("BROADWAY", "TEAPOT"): 2, ("HARLEM", "TEAPOT"): 1, ("NEWARK", "TEAPOT"): 9, ("NEWARK", "KETTLE"): 4}
BASKET = {"lines": [{"sku": "TEAPOT", "units": 2}], "spot": {"postal_code": "10025"}}


class Counter:
    """A service over a home whose board, holds and tables know the same stock."""

    def __init__(self, root: Path, at: datetime = TUESDAY) -> None:
        home = Home(root)
        names = (
            "location_code",
            "location_type",
            "latitude",
            "longitude",
            "region_code",
            "opens_at",
            "closes_at",
            "timezone_name",
        )
        places = [dict(zip(names, place, strict=True)) for place in PLACES]
        locations = pl.DataFrame(places, infer_schema_length=None).with_columns(country_code=pl.lit("US"), location_name=pl.col("location_code"))  # fmt: skip
        write(home, "locations", locations)
        write(home, "products", pl.DataFrame(ITEMS, schema=["sku", "category_name", "price_cents", "weight_grams"], orient="row"))  # fmt: skip
        with BoardWriter(home.stock / "board") as board:
            parts = {
                "on_hand_units": np.array([*STOCK.values()]) + 1,
                "damaged_units": np.ones(len(STOCK), dtype=np.int64),
            }
            board.write(list(STOCK), parts, np.full(len(STOCK), 1_750_000_000_000_000), 7)
            board.believe(list(STOCK), np.full((len(STOCK), 8), 0.9), at)
            board.tell(7, at, at)
        holds = open_holds(home)
        holds.set_free([(*place, units) for place, units in STOCK.items()], 7)
        holds.close()
        clock = FixedClock(at)
        open_ledger(home, clock).close()
        app = create_app(home, clock)
        self.web = Caller(app, keys.make_key(home, "web", [], TUESDAY, ["promise"]))
        self.checkout = Caller(app, keys.make_key(home, "checkout", [], TUESDAY, ["promise", "hold"]))
        self.stranger = Caller(app, keys.make_key(home, "stranger", keys.ALL_PURPOSES, TUESDAY))


@pytest.fixture
def counter(tmp_path: Path) -> Counter:
    return Counter(tmp_path)


def kind(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["type"].removeprefix("urn:troth:problem:")


def test_a_promise_is_answered_with_its_evidence_and_holds_nothing(counter: Counter) -> None:
    response = counter.web.post("/v1/promises", json=BASKET)
    found = response.json()
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")
    assert (found["is_promised"], found["chosen"]["parcels"][0]["location_code"], found["hold_id"]) == (
        True,
        "BROADWAY",
        None,
    )
    assert [(cell["available_units"], cell["basis"]) for cell in found["evidence"]["cells"]] == [(2, "belief")]


def test_no_is_an_answer_with_its_reasons(counter: Counter) -> None:
    found = counter.web.post("/v1/promises", json=BASKET | {"lines": [{"sku": "NOPE", "units": 1}]})
    assert found.status_code == 200
    assert found.json()["is_promised"] is False
    assert {each["reason_code"] for each in found.json()["refusals"]} == {"unknown_sku"}


def test_a_promise_is_held_by_whoever_may_and_the_next_basket_gets_the_next_way(counter: Counter) -> None:
    assert kind(counter.web.post("/v1/promises", json=BASKET | {"hold": {"key": "a"}})) == (403, "scope_not_allowed")
    first = counter.checkout.post("/v1/promises", json=BASKET | {"hold": {"key": "a"}}).json()
    again = counter.checkout.post("/v1/promises", json=BASKET | {"hold": {"key": "a"}}).json()
    second = counter.checkout.post("/v1/promises", json=BASKET | {"hold": {"key": "b"}}).json()
    assert first["hold_id"] == again["hold_id"] != second["hold_id"]
    assert [each["chosen"]["parcels"][0]["location_code"] for each in (first, second)] == ["BROADWAY", "NEWARK"]
    assert "hold_refused" in {each["reason_code"] for each in second["refusals"]}


def test_a_failed_pick_is_promised_again_by_the_name_of_the_promise(counter: Counter) -> None:
    first = counter.checkout.post("/v1/promises", json=BASKET | {"hold": {"key": "a"}}).json()
    failed = {"failed": [{"location_code": "BROADWAY", "sku": "TEAPOT", "found_units": 1}], "spot": BASKET["spot"]}
    again = counter.checkout.post(
        "/v1/repromises", json=failed | {"promise_id": first["promise_id"], "hold": {"key": "b"}}
    )
    assert again.json()["replaces"] == first["promise_id"]
    assert again.json()["text"].startswith("We are sorry: we could not find 1 × TEAPOT at BROADWAY.")
    unknown = counter.checkout.post("/v1/repromises", json=failed | {"promise_id": "prm_none"})
    assert kind(unknown) == (404, "no_such_promise")


def test_stock_is_held_extended_and_given_back(counter: Counter) -> None:
    lines = [{"location_code": "HARLEM", "sku": "TEAPOT", "units": 1}]
    made = counter.checkout.post("/v1/holds", json={"key": "h", "lines": lines, "seconds": 60}).json()
    hold_id = made["hold"]["hold_id"]
    refused = counter.checkout.post("/v1/holds", json={"key": "other", "lines": lines}).json()
    assert (made["is_held"], refused["is_held"], refused["reason_code"]) == (True, False, "not_enough")
    assert refused["short"] == [{"location_code": "HARLEM", "sku": "TEAPOT", "asked_units": 1, "short_units": 1}]
    longer = counter.checkout.post(f"/v1/holds/{hold_id}/extend", json={"until": "2026-06-16T15:00:00Z"}).json()
    assert longer["hold"]["expires_at"] == "2026-06-16T15:00:00Z"
    given_back = counter.checkout.request("DELETE", f"/v1/holds/{hold_id}").json()
    assert (given_back["is_held"], given_back["hold"]["state"]) == (False, "released")
    assert kind(counter.checkout.request("DELETE", "/v1/holds/hold_none")) == (404, "no_such_hold")


@pytest.mark.parametrize(
    "changed",
    [{"lines": []}, {"lines": [{"sku": "TEAPOT", "units": 0}]}, {"spot": {}}, {"purpose": "marketing"}, {"customer_id": "cus_1"},
     {"lines": [{"sku": "TEAPOT", "units": 1}] * 101}, {"wanted_by": "2026-06-16T15:00:00"}],
)  # fmt: skip
def test_what_is_no_question_is_refused_without_repeating_it(counter: Counter, changed: dict[str, Any]) -> None:
    response = counter.web.post("/v1/promises", json=BASKET | changed)
    assert kind(response) == (422, "not_as_described")
    assert "cus_1" not in response.text


def test_promising_needs_a_key_of_its_scope(counter: Counter) -> None:
    assert kind(counter.stranger.post("/v1/promises", json=BASKET)) == (403, "scope_not_allowed")
    assert kind(counter.web.post("/v1/holds", json={"key": "h", "lines": []})) == (403, "scope_not_allowed")


def test_availability_is_the_boards_with_all_its_parts(counter: Counter) -> None:
    pairs = [{"sku": "TEAPOT", "location_code": code} for code in ("BROADWAY", "BOSTON", "NEWARK")]
    bulk = counter.web.post("/v1/availability", json={"pairs": pairs}).json()
    everywhere = counter.web.get("/v1/availability", params={"sku": "TEAPOT"}).json()
    assert [each["status"] for each in bulk] == ["PRESENT", "NOT_FOUND", "PRESENT"]
    assert {each["location_code"]: each["available_units"] for each in everywhere} == {
        "BROADWAY": 2,
        "HARLEM": 1,
        "NEWARK": 9,
    }
    first = bulk[0]
    told = {
        part: first[part]
        for part in ("on_hand_units", "damaged_units", "held_units", "available_units", "found_probability")
    }
    assert told == {"on_hand_units": 3, "damaged_units": 1, "held_units": 0, "available_units": 2, "found_probability": pytest.approx(0.9, abs=1e-4)}  # fmt: skip
    assert (first["version"], first["age_seconds"]) == ("board/7", 0)
