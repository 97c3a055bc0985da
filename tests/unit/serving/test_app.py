from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.routing import Route

from consent.ledger.opening import open_ledger
from serving import keys
from serving.app import create_app
from serving.requests import MOST_BYTES, MOST_PAIRS
from tests.unit.feature_repo.published_home import ADA, BRAM, STANDING, view_frame
from tests.unit.serving.open_shop import AT, Caller, open_shop, train
from troth.clock import FixedClock
from troth.home import Home

# An empty ledger: nothing can be behind it, and everyone's standing was decided under size 0.
DECIDED_AT_ZERO = view_frame("subject_standing", [row | {"ledger_size": 0} for row in STANDING])


def client(root: Path, *purposes: str) -> Caller:
    home = open_shop(root, ftr_subject_standing=DECIDED_AT_ZERO).home
    open_ledger(home, FixedClock(AT)).close()
    train(home)
    key = keys.make_key(home, "test", purposes or keys.ALL_PURPOSES, AT)
    return Caller(create_app(home, FixedClock(AT)), key)


def problem(response: Any) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    found = response.json()
    assert found["status"] == response.status_code
    return response.status_code, found["type"].removeprefix("urn:troth:problem:")


def test_features_are_answered_as_the_command_line_answers_them(tmp_path: Path) -> None:
    shop = client(tmp_path)
    response = shop.get(f"/v1/customers/{ADA}/features", params={"service": "recommend_v1"})
    found = response.json()
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")
    assert (found["is_allowed"], found["features"]["net_cents_90d"], found["age_seconds"]) == (True, 12_345, 3_600)


def test_a_refusal_by_consent_is_an_answer_with_its_reason(tmp_path: Path) -> None:
    shop = client(tmp_path)
    found = shop.get(f"/v1/customers/{BRAM}/features", params={"service": "recommend_v1"})
    shown = shop.get(f"/v1/recommendations/{BRAM}", params={"allow_popular": "true"}).json()
    assert (found.status_code, found.json()["features"], found.json()["reason_code"]) == (200, None, "never_asked")
    assert {item["basis"] for item in shown["items"]} == {"popular"}


def test_availability_one_everywhere_and_in_bulk(tmp_path: Path) -> None:
    shop = client(tmp_path)
    one = shop.get("/v1/availability", params={"sku": "SKU-00001", "location": "S001"}).json()
    everywhere = shop.get("/v1/availability", params={"sku": "SKU-00001"}).json()
    pairs = [{"sku": "SKU-00001", "location_code": "S001"}, {"sku": "SKU-00404", "location_code": "S001"}]
    bulk = shop.post("/v1/availability", json={"pairs": pairs}).json()
    assert [each["available_units"] for each in one] == [7]
    assert {each["location_code"] for each in everywhere} == {"S001", "DC1"}
    assert [each["status"] for each in bulk] == ["PRESENT", "NOT_FOUND"]


def test_ten_thousand_pairs_are_answered_and_one_more_is_not(tmp_path: Path) -> None:
    pairs = [{"sku": f"SKU-{number:05d}", "location_code": "S001"} for number in range(MOST_PAIRS)]
    shop = client(tmp_path)
    assert len(shop.post("/v1/availability", json={"pairs": pairs}).json()) == MOST_PAIRS
    assert problem(shop.post("/v1/availability", json={"pairs": [*pairs, pairs[0]]})) == (400, "bad_request")
    assert problem(shop.post("/v1/availability", content=b" " * (MOST_BYTES + 1))) == (413, "too_large")


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic dGVzdA==", "Bearer "])
def test_without_a_known_key_nothing_but_health_and_the_document_is_answered(
    header: str | None, tmp_path: Path
) -> None:
    shop = client(tmp_path)
    shop.headers["Authorization"] = header or ""
    for path in (
        f"/v1/customers/{ADA}/features?service=recommend_v1",
        "/v1/availability?sku=a",
        f"/v1/recommendations/{ADA}",
    ):
        response = shop.get(path)
        assert problem(response) == (401, "no_key")
        assert response.headers["www-authenticate"] == "Bearer"
    assert problem(shop.post("/v1/availability", json={})) == (401, "no_key")
    assert shop.get("/v1/health").status_code == shop.get("/openapi.json").status_code == 200


def test_a_key_opens_only_the_purposes_it_was_made_for(tmp_path: Path) -> None:
    shop = client(tmp_path, "analytics")
    assert shop.get(f"/v1/customers/{ADA}/features?service=churn_v1").status_code == 200
    assert problem(shop.get(f"/v1/customers/{ADA}/features?service=recommend_v1")) == (403, "purpose_not_allowed")
    assert problem(shop.get(f"/v1/recommendations/{ADA}")) == (403, "purpose_not_allowed")
    assert shop.get("/v1/availability?sku=SKU-00001").status_code == 200


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/v1/customers/{ADA}/features", (400, "bad_request")),
        (f"/v1/customers/{ADA}/features?service=nope", (404, "no_such_service")),
        (f"/v1/customers/{ADA}/features?service=popularity_v1", (404, "no_such_service")),
        (f"/v1/customers/{'a' * 201}/features?service=recommend_v1", (400, "bad_request")),
        ("/v1/availability", (400, "bad_request")),
        (f"/v1/recommendations/{ADA}?count=0", (400, "bad_request")),
        (f"/v1/recommendations/{ADA}?count=ten", (400, "bad_request")),
        (f"/v1/recommendations/{ADA}?allow_popular=perhaps", (400, "bad_request")),
        ("/v2/customers", (404, "no_such_path")),
    ],
)
def test_a_wrong_request_is_told_what_was_expected(path: str, expected: tuple[int, str], tmp_path: Path) -> None:
    shop = client(tmp_path)
    assert problem(shop.get(path)) == expected
    assert problem(shop.request("DELETE", "/v1/availability")) == (405, "no_such_method")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"pairs": []}',
        b'{"pairs": [{"sku": 1, "location_code": "S001"}]}',
        b"\xff\xfe",
        b'{"pears": []}',
    ],
)
def test_a_wrong_body_is_told_what_was_expected(body: bytes, tmp_path: Path) -> None:
    shop = client(tmp_path)
    assert problem(shop.post("/v1/availability", content=body)) == (400, "bad_request")


def test_no_problem_repeats_whom_it_was_about(tmp_path: Path) -> None:
    shop = client(tmp_path)
    for path in (
        "/v1/customers/email_secret/features",
        "/v1/customers/email_secret/nope",
        "/v1/recommendations/email_secret?count=0",
    ):
        assert "email_secret" not in shop.get(path).text


def test_personal_answers_stop_when_the_ledger_cannot_be_read_and_health_says_so(tmp_path: Path) -> None:
    shop = client(tmp_path)
    for file in tmp_path.glob("ledger.db*"):
        file.unlink()
    found = shop.get(f"/v1/customers/{ADA}/features?service=recommend_v1").json()
    state = shop.get("/v1/health").json()
    assert (found["features"], found["reason_code"]) == (None, "ledger_unreadable")
    assert (state["status"], state["reason_code"]) == ("degraded", "ledger_unreadable")


def test_before_the_first_run_the_service_says_what_to_run(tmp_path: Path) -> None:
    key = keys.first_key(Home(tmp_path), AT)
    response = Caller(create_app(Home(tmp_path), FixedClock(AT)), key).get("/v1/availability?sku=SKU-00001")
    assert problem(response) == (503, "unavailable")
    assert "troth run" in response.json()["detail"]


def test_every_route_is_in_the_document_and_the_document_has_no_other(tmp_path: Path) -> None:
    app = create_app(Home(tmp_path), FixedClock(AT))
    document = Caller(app).get("/openapi.json").json()
    routes = {
        (route.path, method.lower())
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD" and route.path != "/openapi.json" and not route.path.startswith("/console")
    }
    assert document["openapi"] == "3.1.0"
    assert routes == {(path, method) for path, methods in document["paths"].items() for method in methods}
    references = set(msgspec.json.encode(document).decode().split('"#/components/schemas/')[1:])
    assert {reference.split('"')[0] for reference in references} <= set(document["components"]["schemas"])
