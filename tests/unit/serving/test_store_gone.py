"""An online store that cannot be read: every route says so and when to ask again, none breaks, and health is told all the same."""

import sqlite3
from pathlib import Path

import pytest

from serving import keys, problems
from serving.app import create_app
from tests.unit.feature_repo.published_home import ADA
from tests.unit.serving.open_shop import AT, Caller, open_shop
from troth.clock import FixedClock
from troth.home import Home

ENTITIES = {"customer_id": [ADA]}
READS = [
    ("GET", f"/v1/customers/{ADA}/features?service=recommend_v1", None),
    ("GET", "/v1/customers/email_ada/features?service=recommend_v1", None),
    ("POST", "/v1/features", {"service": "recommend_v1", "entities": ENTITIES}),
    ("POST", "/v1/features", {"service": "popularity_v1", "entities": {"sku": ["SKU-00001"]}}),
    ("POST", "/get-online-features", {"feature_service": "recommend_v1", "entities": ENTITIES}),
    ("GET", f"/v1/recommendations/{ADA}", None),
    ("GET", "/v1/availability?sku=SKU-00001&location=S001", None),
    ("POST", "/v1/availability", {"pairs": [{"sku": "SKU-00001", "location_code": "S001"}]}),
]


def shop(root: Path, damage: bytes | None) -> Caller:
    """A service whose store went away, or holds something else, after it was started."""
    home = open_shop(root).home
    caller = Caller(create_app(home, FixedClock(AT)), keys.first_key(home, AT))
    for file in home.features.glob("online.db*"):
        file.unlink()
    if damage is not None:
        (home.features / "online.db").write_bytes(damage)
    return caller


@pytest.mark.parametrize("damage", [None, b"no database, and a page of it" * 400], ids=["gone", "damaged"])
def test_every_route_that_reads_says_that_it_cannot_now_and_when_to_ask_again(
    damage: bytes | None, tmp_path: Path
) -> None:
    caller = shop(tmp_path, damage)
    for method, path, body in READS:
        answer = caller.request(method, path, json=body) if body else caller.request(method, path)
        assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "1"), path
        assert "expected" in answer.text, path
        assert ADA not in answer.text


@pytest.mark.parametrize("damage", [None, b"no database, and a page of it" * 400], ids=["gone", "damaged"])
def test_health_is_told_of_a_store_that_cannot_be_read(damage: bytes | None, tmp_path: Path) -> None:
    caller = shop(tmp_path, damage)
    told = caller.get("/v1/health")
    assert (told.status_code, told.json()["status"], told.json()["reason_code"]) == (200, "degraded", "unreadable")
    assert caller.get("/v1/ready").status_code == 503


def test_wrong_sql_is_a_fault_of_ours_and_not_told_as_a_store_that_is_down() -> None:
    with pytest.raises(sqlite3.ProgrammingError):
        problems.unavailable(sqlite3.ProgrammingError("wrong"))


def test_a_home_before_its_first_run_says_what_to_run(tmp_path: Path) -> None:
    key = keys.first_key(Home(tmp_path), AT)
    answer = Caller(create_app(Home(tmp_path), FixedClock(AT)), key).get(READS[0][1])
    assert (answer.status_code, "troth run" in answer.json()["detail"]) == (503, True)
