"""Feast's own client against the service, over a socket: what it gets is what Feast's store gives it in process."""

import threading
import time
from collections.abc import Iterator
from socket import create_server
from typing import Any

import pytest
import uvicorn

from consent.ledger.opening import open_ledger
from feature_repo.definitions import apply, feature_store
from feature_repo.feast_import import feast
from serving import keys
from serving.app import create_app
from serving.server import LOOPBACK
from tests.unit.feature_repo.published_home import ADA, BRAM
from tests.unit.serving.open_shop import AT, open_shop
from tests.unit.serving.test_app import DECIDED_AT_ZERO
from troth.clock import FixedClock
from troth.home import Home

OPEN = (
    ["product_popularity:sold_units_28d", "sku_location_availability:has_stock"],
    {"sku": ["SKU-00001", "SKU-00404"], "location_code": ["S001", "S001"]},
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, str]]:
    home = open_shop(tmp_path_factory.mktemp("home"), ftr_subject_standing=DECIDED_AT_ZERO).home
    open_ledger(home, FixedClock(AT)).close()
    apply(home)
    with create_server((LOOPBACK, 0)) as listener:
        app = create_app(home, FixedClock(AT))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield home, f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=30)


def remote(home: Home, address: str, key: str) -> Any:
    """Feast's store over the home's registry, told to ask the service."""
    local = feature_store(home)
    config = local.config.model_dump(exclude={"online_store"}, exclude_none=True, by_alias=True)
    config |= {
        "online_store": {"type": "remote", "path": address, "connection_retries": 0},
        "auth": {"type": "oidc", "token": key},
    }
    return feast().FeatureStore(config=feast().RepoConfig(**config))


def columns(response: Any) -> dict[str, tuple[list[Any], list[int]]]:
    """Values and statuses by name: Feast's order of features is of no meaning."""
    return {
        name: ([_plain(value) for value in vector.values], list(vector.statuses))
        for name, vector in zip(response.proto.metadata.feature_names.val, response.proto.results, strict=True)
    }


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("val")
    return None if kind in (None, "null_val") else getattr(value, kind)


def test_feasts_client_gets_over_http_what_it_gets_in_process(served: tuple[Home, str]) -> None:
    home, address = served
    local = feature_store(home)
    local.config.online_store.answer_at = AT.isoformat()
    client = remote(home, address, keys.make_key(home, "feast", keys.ALL_PURPOSES, AT))
    for name in ("recommend_v1", "standing_v1", "churn_v1"):
        asked: Any = (local.get_feature_service(name), {"customer_id": [ADA, BRAM, "cus_nobody"]})
        here, there = (columns(store.get_online_features(*asked)) for store in (local, client))
        assert there == here
    for full in (False, True):
        here, there = (columns(store.get_online_features(*OPEN, full_feature_names=full)) for store in (local, client))
        assert there == here


def test_feasts_client_raises_what_it_was_told(served: tuple[Home, str]) -> None:
    home, address = served
    from feast.errors import FeastObjectNotFoundException, FeastPermissionError

    client = remote(home, address, keys.make_key(home, "analyst", ["analytics"], AT))
    with pytest.raises(FeastPermissionError, match="expected one for purpose personalization"):
        client.get_online_features(client.get_feature_service("recommend_v1"), {"customer_id": [ADA]})
    with pytest.raises(FeastPermissionError, match="expected a feature_service"):
        client.get_online_features(["customer_purchases:order_count_30d"], {"customer_id": [ADA]})
    with pytest.raises(FeastObjectNotFoundException):
        client._get_provider().get_online_features(
            config=client.config,
            features=["product_popularity:nope"],
            entity_rows={"sku": ["SKU-00001"]},
            registry=client.registry,
            project=client.project,
            full_feature_names=False,
        )
    stranger = remote(home, address, "troth_nobody")
    with pytest.raises(FeastPermissionError, match="authorization: expected"):
        stranger.get_online_features(*OPEN)


def test_the_service_answers_as_feasts_own_server_does(served: tuple[Home, str]) -> None:
    import requests

    home, address = served
    from feast.feature_server_utils import convert_response_to_dict

    local = feature_store(home)
    local.config.online_store.answer_at = AT.isoformat()
    key = keys.make_key(home, "curl", keys.ALL_PURPOSES, AT)
    entities = {"customer_id": [ADA, BRAM, "cus_nobody"]}
    for asked, service in (({"feature_service": "recommend_v1"}, "recommend_v1"), ({"features": OPEN[0]}, None)):
        rows = entities if service else OPEN[1]
        response = requests.post(
            f"{address}/get-online-features",
            json=asked | {"entities": rows, "include_feature_view_version_metadata": True},
            headers={"Authorization": f"Bearer {key}"},
            timeout=30,
        )
        what = local.get_feature_service(service) if service else OPEN[0]
        expected = local.get_online_features(what, rows, include_feature_view_version_metadata=True)
        theirs, ours = convert_response_to_dict(expected.proto), response.json()
        assert _by_name(ours) == _by_name(theirs)
        assert [each["name"] for each in ours["metadata"]["feature_view_metadata"]] == [
            each["name"] for each in theirs["metadata"]["feature_view_metadata"]
        ]


def _by_name(told: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(told["metadata"]["feature_names"], told["results"], strict=True))
