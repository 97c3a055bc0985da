"""Features of many for one use: over our own protocol and over Feast's, as JSON and as MessagePack."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import catalogue
from serving import feast_wire, openapi
from serving.feature_reads import MOST_ENTITIES
from serving.problems import ProblemError
from tests.unit.feature_repo.published_home import ADA, BRAM, CLEO
from tests.unit.serving.test_app import client, problem

PACKED = {"Accept": "application/msgpack", "Content-Type": "application/msgpack"}


def ask(service: str = "recommend_v1", **columns: list[str]) -> dict[str, Any]:
    return {"service": service, "entities": columns or {"customer_id": [ADA, BRAM, CLEO]}}


def online(service: str | None = "recommend_v1", **changes: Any) -> dict[str, Any]:
    asked = {"feature_service": service, "entities": {"customer_id": [ADA, BRAM]}} | changes
    return {name: value for name, value in asked.items() if value is not None}


def fault(response: Any) -> tuple[int, str, str]:
    """Status, and the exception that Feast's client makes of a problem."""
    told = json.loads(response.json())
    assert told["module"] == "feast.errors"
    return response.status_code, told["class"], told["message"]


def test_each_of_a_batch_is_answered_or_refused_with_a_reason_in_the_order_asked(tmp_path: Path) -> None:
    response = client(tmp_path).post("/v1/features", json=ask())
    found = response.json()
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")
    assert found["is_allowed"] == [True, False, False]
    assert found["reason_codes"] == ["granted", "never_asked", "withdrawn"]
    assert found["features"]["net_cents_90d"] == [12_345, None, None]
    assert found["statuses"] == {
        name: ["PRESENT", None, None] for name in ("customer_purchases", "customer_engagement")
    }
    assert (found["age_seconds"], found["evidence"]["ledger_size"]) == ([3_600, None, None], 0)
    assert set(found["evidence"]["versions"]) == {"customer_purchases", "customer_engagement"}


def test_a_batch_says_of_each_what_asking_one_by_one_says(tmp_path: Path) -> None:
    shop = client(tmp_path)
    found = shop.post("/v1/features", json=ask()).json()
    for place, who in enumerate((ADA, BRAM, CLEO)):
        one = shop.get(f"/v1/customers/{who}/features?service=recommend_v1").json()
        assert (one["is_allowed"], one["reason_code"]) == (found["is_allowed"][place], found["reason_codes"][place])
        assert (one["features"] or dict.fromkeys(found["features"])) == {
            name: values[place] for name, values in found["features"].items()
        }


def test_what_is_about_no_person_needs_no_purpose_and_each_of_its_keys(tmp_path: Path) -> None:
    shop = client(tmp_path, "analytics")
    found = shop.post(
        "/v1/features", json=ask("availability_v1", sku=["SKU-00001"] * 2, location_code=["S001", "S404"])
    )
    assert found.json()["statuses"] == {"sku_location_availability": ["PRESENT", "NOT_FOUND"]}
    assert "cache-control" not in found.headers
    assert problem(shop.post("/v1/features", json=ask("availability_v1", sku=["SKU-00001"])))[0] == 422
    uneven = ask("availability_v1", sku=["SKU-00001"] * 2, location_code=["S001"])
    assert problem(shop.post("/v1/features", json=uneven)) == (422, "not_as_described")


def test_a_key_opens_a_batch_for_its_purposes_alone(tmp_path: Path) -> None:
    shop = client(tmp_path, "analytics")
    assert shop.post("/v1/features", json=ask("churn_v1")).status_code == 200
    assert problem(shop.post("/v1/features", json=ask())) == (403, "purpose_not_allowed")
    assert fault(shop.post("/get-online-features", json=online()))[:2] == (403, "FeastPermissionError")
    shop.headers = {}
    assert problem(shop.post("/v1/features", json=ask())) == (401, "no_key")
    assert fault(shop.post("/get-online-features", json=online()))[:2] == (401, "FeastPermissionError")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (ask("nope"), (404, "no_such_service")),
        (ask("recommend_context_v1"), (404, "no_such_service")),
        (ask(customer_id=[]), (422, "not_as_described")),
        (ask(customer_id=["c"] * (MOST_ENTITIES + 1)), (422, "not_as_described")),
        (ask(customer_id=[ADA], sku=["SKU-00001"]), (422, "not_as_described")),
        (ask(customer_id=["c" * 201]), (422, "not_as_described")),
        ({"entities": {"customer_id": [ADA]}}, (422, "not_as_described")),
    ],
)
def test_a_wrong_batch_is_told_what_was_expected_and_never_whom_it_named(
    asked: dict[str, Any], expected: tuple[int, str], tmp_path: Path
) -> None:
    response = client(tmp_path).post("/v1/features", json=asked)
    assert problem(response) == expected
    assert ADA not in response.text


def test_a_thousand_are_answered_at_once(tmp_path: Path) -> None:
    found = client(tmp_path).post("/v1/features", json=ask(customer_id=[ADA] * MOST_ENTITIES)).json()
    assert found["features"]["net_cents_90d"] == [12_345] * MOST_ENTITIES


def test_message_pack_says_what_json_says(tmp_path: Path) -> None:
    shop = client(tmp_path)
    plain = shop.post("/v1/features", json=ask())
    packed = shop.post("/v1/features", content=msgspec.msgpack.encode(ask()), headers=PACKED)
    assert packed.headers["content-type"] == "application/msgpack"
    assert msgspec.to_builtins(msgspec.msgpack.decode(packed.content)) == plain.json()
    pairs = {"pairs": [{"sku": "SKU-00001", "location_code": "S001"}] * 2}
    stock = shop.post("/v1/availability", content=msgspec.msgpack.encode(pairs), headers=PACKED)
    expected = shop.post("/v1/availability", json=pairs).json()
    assert msgspec.to_builtins(msgspec.msgpack.decode(stock.content)) == expected


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/customers/{ADA}/features?service=recommend_v1",
        f"/v1/recommendations/{ADA}?allow_popular=true",
        "/v1/health",
    ],
)
def test_answers_are_had_as_message_pack_that_says_what_json_says(path: str, tmp_path: Path) -> None:
    shop = client(tmp_path)
    plain, packed = shop.get(path), shop.get(path, headers={"Accept": "application/msgpack"})
    assert (plain.status_code, packed.status_code, packed.headers["content-type"]) == (200, 200, "application/msgpack")
    assert msgspec.to_builtins(msgspec.msgpack.decode(packed.content)) == plain.json()


def test_the_document_offers_message_pack_wherever_it_is_answered() -> None:
    paths = openapi.document()["paths"]
    for path, method in (
        ("/v1/customers/{customer_id}/features", "get"), ("/v1/recommendations/{customer_id}", "get"), ("/v1/orders", "get"),
        ("/v1/availability/promisable", "get"), ("/v1/health", "get"),
    ):  # fmt: skip
        assert "application/msgpack" in paths[path][method]["responses"]["200"]["content"], path


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/vnd.msgpack", "application/vnd.msgpack"),
        ("application/msgpack, application/json;q=0.5", "application/msgpack"),
        ("application/msgpack, */*", "application/msgpack"),
        ("application/json, application/msgpack", "application/json"),
        ("application/msgpack;q=0.1, */*;q=0.8", "application/json"),
        ("application/msgpack;q=0", "application/json"),
        ("application/msgpack;q=many", "application/json"),
        ("text/html", "application/json"),
    ],
)
def test_the_form_is_the_one_the_caller_would_rather_have(accept: str, kind: str, tmp_path: Path) -> None:
    response = client(tmp_path).post("/v1/features", json=ask(), headers={"Accept": accept})
    assert response.headers["content-type"] == kind


def test_a_body_that_is_no_message_pack_is_told_so(tmp_path: Path) -> None:
    shop = client(tmp_path)
    assert problem(shop.post("/v1/features", content=b"\xc1", headers=PACKED)) == (400, "bad_request")
    assert problem(shop.post("/v1/availability", content=b"\xc1", headers=PACKED)) == (400, "bad_request")
    assert problem(shop.post("/v1/features", content=b"", headers={"Content-Type": "text/csv"}))[0] == 415


def test_stock_and_document_are_not_sent_again_to_who_has_them_and_personal_answers_carry_no_tag(
    tmp_path: Path,
) -> None:
    shop = client(tmp_path)
    for path in ("/openapi.json", "/v1/availability?sku=SKU-00001"):
        first = shop.get(path)
        held = {"If-None-Match": f'"other", {first.headers["etag"]}'}
        again = shop.get(path, headers=held)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        assert shop.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    stock = shop.get("/v1/availability?sku=SKU-00001").headers["etag"]
    assert (
        stock != shop.get("/v1/availability?sku=SKU-00001", headers={"Accept": "application/msgpack"}).headers["etag"]
    )
    assert stock != shop.get("/v1/availability?sku=SKU-00002").headers["etag"]
    for response in (
        shop.get(f"/v1/customers/{ADA}/features?service=recommend_v1"),
        shop.post("/v1/features", json=ask()),
        shop.post("/get-online-features", json=online()),
        shop.get(f"/v1/recommendations/{ADA}"),
    ):
        assert ("etag" in response.headers, response.headers["cache-control"]) == (False, "no-store")


def test_feast_clients_are_answered_in_their_protocol_and_the_refused_are_invalid(tmp_path: Path) -> None:
    found = client(tmp_path).post("/get-online-features", json=online()).json()
    names, results = found["metadata"]["feature_names"], found["results"]
    fields = [each.name for view in catalogue.service("recommend_v1").views for each in view.fields]
    assert names == ["customer_id", *fields]
    assert results[0] == {
        "values": [ADA, BRAM], "statuses": ["PRESENT"] * 2, "event_timestamps": [feast_wire.NEVER] * 2
    }  # fmt: skip
    assert results[names.index("net_cents_90d")] == {
        "values": [12_345, None],
        "statuses": ["PRESENT", "INVALID"],
        "event_timestamps": ["2026-03-02T02:00:00Z", feast_wire.NEVER],
    }


def test_views_of_nobody_may_be_read_by_name_together_and_personal_ones_never(tmp_path: Path) -> None:
    shop = client(tmp_path)
    by_name = ["product_popularity:sold_units_28d", "sku_location_availability:has_stock"]
    columns = {"sku": ["SKU-00001", "SKU-00404"], "location_code": ["S001", "S001"]}
    found = shop.post("/get-online-features", json=online(None, features=by_name, entities=columns)).json()
    assert found["metadata"]["feature_names"] == ["sku", "location_code", "sold_units_28d", "has_stock"]
    assert [each["values"] for each in found["results"][2:]] == [[10, None], [True, None]]
    assert found["results"][2]["statuses"] == ["PRESENT", "NOT_FOUND"]
    for view in (view for view in catalogue.VIEWS if view.is_personal):
        for asked in ([f"{view.name}:{view.fields[0].name}"], [*by_name, f"{view.name}:{view.fields[0].name}"]):
            told = fault(shop.post("/get-online-features", json=online(None, features=asked)))
            assert told[:2] == (403, "FeastPermissionError")
            assert "feature_service" in told[2]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (online("nope"), (404, "FeastObjectNotFoundException")),
        (online("recommend_context_v1"), (404, "FeastObjectNotFoundException")),
        (online(None), (400, "FeastError")),
        (online(None, features=["order_count_30d"]), (400, "FeastError")),
        (online(None, features=["availability:on_hand_units"]), (404, "FeastObjectNotFoundException")),
        (online(None, features=["product_popularity:nope"]), (404, "FeastObjectNotFoundException")),
        (online(entities={"sku": ["SKU-00001"]}), (400, "FeastError")),
        (online(entities={"customer_id": []}), (400, "FeastError")),
        (online(entities={"customer_id": [ADA], "sku": []}), (400, "FeastError")),
        (online(entities={"customer_id": [[ADA]]}), (422, "FeastError")),
        (online(entities={}), (422, "FeastError")),
    ],
)
def test_feast_clients_are_told_of_problems_as_exceptions_of_theirs(
    asked: dict[str, Any], expected: tuple[int, str], tmp_path: Path
) -> None:
    response = client(tmp_path).post("/get-online-features", json=asked)
    assert fault(response)[:2] == expected
    assert ADA not in response.text


def test_full_names_and_views_are_told_where_asked_for(tmp_path: Path) -> None:
    asked = online(full_feature_names=True, include_feature_view_version_metadata=True)
    told = client(tmp_path).post("/get-online-features", json=asked).json()["metadata"]
    assert "customer_purchases__net_cents_90d" in told["feature_names"]
    assert told["feature_view_metadata"] == [{"name": "customer_purchases"}, {"name": "customer_engagement"}]


@given(
    st.lists(st.sampled_from([f"{view.name}:{each.name}" for view in catalogue.VIEWS for each in view.fields])),
    st.sampled_from([None, *(each.name for each in catalogue.SERVICES)]),
)
def test_no_plan_reads_a_personal_view_without_a_service_of_the_catalogue(
    features: list[str], service: str | None
) -> None:
    try:
        plan = feast_wire.readings(feast_wire.OnlineRequest({"sku": ["a"]}, service, features))
    except ProblemError:
        return
    for reading in plan:
        assert reading.use in catalogue.SERVICES or not reading.use.is_personal
        assert all(view in reading.use.views for view, _ in reading.features)
