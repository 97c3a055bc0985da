"""Feast itself over what we publish. One module: importing Feast costs seconds."""

from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from consent.ledger.opening import open_ledger
from feature_repo import definitions
from feature_repo.catalogue import PRODUCT_POPULARITY, SERVICES, VIEWS
from feature_repo.errors import FeatureError
from feature_repo.feast_import import feast
from feature_repo.publish import publish
from feature_repo.reads import read_features
from feature_repo.store import Written, online_store
from tests.unit.feature_repo.published_home import ADA, AS_OF, BRAM, STANDING, home_with_tables, view_frame
from troth import published
from troth.clock import FixedClock
from troth.home import Home

pytestmark = [
    pytest.mark.slow,
    # Feast 0.67 as it comes: deprecations in its own dependencies, and notes about sources without a created column.
    pytest.mark.filterwarnings("ignore"),
]
AT = AS_OF.replace(tzinfo=UTC) + timedelta(hours=1)
REPO = Path(definitions.__file__).parent
STOCK = {"sku": "SKU-00001", "location_code": "S001"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    standing = view_frame("subject_standing", [row | {"ledger_size": 0} for row in STANDING])
    made = home_with_tables(tmp_path, ftr_subject_standing=standing)
    open_ledger(made, FixedClock(AT)).close()
    publish(made)
    definitions.apply(made)
    return made


def store_of(home: Home, at: Any = AT) -> Any:
    store = definitions.feature_store(home)
    store.config.online_store.answer_at = at.isoformat()
    return store


def statuses(response: Any) -> dict[str, list[str]]:
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

    names = response.proto.metadata.feature_names.val
    vectors = zip(names, response.proto.results, strict=True)
    return {name: [FieldStatus.Name(each) for each in vector.statuses] for name, vector in vectors}


def asked(store: Any, service: str, rows: list[dict[str, str]]) -> Any:
    return store.get_online_features(features=store.get_feature_service(service), entity_rows=rows)


def test_feast_reads_what_publish_wrote_and_agrees_with_our_own_read(home: Home) -> None:
    store = store_of(home)
    for use in SERVICES:
        row = (
            STOCK
            if use.entity.name == "sku_location"
            else {"customer_id": ADA}
            if use.is_personal
            else {"sku": "SKU-00001"}
        )
        (own,) = read_features(home, use, [row], AT)
        found = {name: values[0] for name, values in asked(store, use.name, [row]).to_dict().items() if name not in row}
        assert own.features is not None
        features = {each.name for view in use.views for each in view.fields}
        assert found == {name: value for name, value in own.features.items() if name in features}


def test_feast_refuses_whom_we_refuse_and_says_so(home: Home) -> None:
    found = statuses(asked(store_of(home), "recommend_v1", [{"customer_id": who} for who in (ADA, BRAM, "cus_nobody")]))
    assert found["order_count_30d"] == ["PRESENT", "INVALID", "INVALID"]


def test_a_personal_view_is_not_read_past_the_gate_by_name_or_by_a_service_made_up(home: Home) -> None:
    store = store_of(home)
    views = [store.get_feature_view("customer_purchases")]
    made_up = feast().FeatureService(name="nosy_v1", features=views, tags={"purpose": "service"})
    borrowed = feast().FeatureService(name="standing_v1", features=views, tags={"purpose": "service"})
    store.apply([made_up, borrowed])
    for features in (["customer_purchases:order_count_30d"], made_up, borrowed):
        with pytest.raises(FeatureError, match="expected a feature service of the catalogue that has it"):
            store.get_online_features(features=features, entity_rows=[{"customer_id": ADA}])


def test_feast_refuses_everyone_when_the_ledger_cannot_be_read(home: Home) -> None:
    home.ledger.unlink()
    assert statuses(asked(store_of(home), "recommend_v1", [{"customer_id": ADA}]))["order_count_30d"] == ["INVALID"]


def test_unknown_and_outdated_rows_are_told_apart(home: Home) -> None:
    rows = [STOCK, {"sku": "SKU-404", "location_code": "S001"}]
    late = statuses(asked(store_of(home, AT + timedelta(days=3)), "availability_v1", rows))
    assert late["available_units"] == ["OUTSIDE_MAX_AGE", "NOT_FOUND"]


def test_push_writes_and_never_lets_an_older_row_win(home: Home) -> None:
    import pandas as pd

    store = store_of(home)
    for minutes, units in ((30, 5), (10, 9)):
        row = STOCK | {
            "feature_at": AS_OF + timedelta(minutes=minutes),
            "on_hand_units": 2**53 + 1,
            "available_units": units,
            "sold_units_28d": 1,
            "days_since_last_movement": 0,
            "has_stock": True,
        }
        store.push("sku_location_availability_push", pd.DataFrame([row]))
    found = asked(store, "availability_v1", [STOCK]).to_dict()
    assert (found["available_units"], found["on_hand_units"]) == ([5], [2**53 + 1])


def test_an_arrow_table_is_written_in_one_piece_and_counted(home: Home) -> None:
    store = store_of(home)
    rows = [STOCK | {"available_units": 6, "feature_at": AS_OF + timedelta(minutes=5)}, STOCK | {"available_units": 1}]
    table = view_frame("sku_location_availability", rows).to_arrow()
    online = store._get_provider().online_store
    assert online.write_arrow(store.config, "sku_location_availability", table) == Written(written=1, skipped=1)
    assert asked(store, "availability_v1", [STOCK]).to_dict()["available_units"] == [6]


def test_nobody_pushes_standing(home: Home) -> None:
    frame = view_frame("subject_standing", [STANDING[0]]).to_pandas()
    with pytest.raises(FeatureError, match="expected rows from the ledger alone"):
        store_of(home).push("subject_standing_push", frame)


def test_materialize_takes_the_same_rows_to_the_store(home: Home) -> None:
    online_store(home.features).drop([PRODUCT_POPULARITY])
    store = store_of(home)
    after = AT + timedelta(hours=1)
    store.materialize(AT - timedelta(days=2), after, feature_views=["product_popularity"])
    assert asked(store, "popularity_v1", [{"sku": "SKU-00003"}]).to_dict()["sold_units_28d"] == [30]


def test_every_definition_carries_its_purpose_and_whether_it_is_personal(home: Home) -> None:
    store = store_of(home)
    services = {each.name: each.tags for each in store.list_feature_services()}
    assert {name: tags["purpose"] for name, tags in services.items()} == {
        use.name: use.purpose_code or "none" for use in SERVICES
    }
    views = {each.name: each.tags["personal"] for each in store.list_feature_views()}
    assert views == {view.name: str(view.is_personal).lower() for view in VIEWS}


def test_applying_again_changes_nothing_until_a_new_version_is_published(home: Home) -> None:
    assert definitions.apply(home) is False
    draft = home.root / "draft.parquet"
    view_frame("product_popularity", [{"sku": "SKU-00009", "sold_units_28d": 1}]).write_parquet(draft)
    published.publish(home, "ftr_product_popularity", draft)
    assert definitions.apply(home) is True
    source = store_of(home).get_feature_view("product_popularity").batch_source
    assert source.path == str(published.current(home, "ftr_product_popularity"))


def test_importing_feast_leaves_typeguard_as_it_was() -> None:
    import typeguard

    assert feast().__name__ == "feast"

    @typeguard.typechecked
    def double(number: int) -> int:
        return 2 * number

    with pytest.raises(typeguard.TypeCheckError):
        double("two")  # type: ignore[arg-type]


def test_the_feast_command_finds_one_file_with_all_definitions(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from feast.repo_operations import get_repo_files, parse_repo

    monkeypatch.setenv("TROTH_HOME", str(home.root))
    monkeypatch.syspath_prepend(REPO)
    monkeypatch.chdir(REPO)
    assert [path.name for path in get_repo_files(REPO)] == ["repo.py"]
    found = parse_repo(REPO)
    assert sorted(each.name for each in found.feature_services) == sorted(use.name for use in SERVICES)
    assert sorted(each.name for each in found.feature_views) == sorted(view.name for view in VIEWS)
    paths = {each.path for each in found.data_sources if hasattr(each, "path")}
    assert paths == {str(published.current(home, view.table)) for view in VIEWS}


def test_the_yaml_that_the_feast_command_reads_says_what_the_python_says(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feast.repo_config import load_repo_config

    monkeypatch.setenv("TROTH_HOME", str(home.root))
    by_yaml, by_python = load_repo_config(REPO, REPO / "feature_store.yaml"), definitions.feature_store(home).config
    for part in ("project", "provider", "entity_key_serialization_version"):
        assert getattr(by_yaml, part) == getattr(by_python, part)
    assert by_yaml.registry.path == by_python.registry.path
    assert by_yaml.online_store == by_python.online_store
    assert by_yaml.offline_store == by_python.offline_store


def test_a_chunked_arrow_table_is_written_whole(home: Home) -> None:
    chunks = [view_frame("product_popularity", [{"sku": f"SKU-{n}", "sold_units_28d": n}]) for n in range(3)]
    table = pl.concat(chunks, rechunk=False).to_arrow()
    store = store_of(home)
    assert store._get_provider().online_store.write_arrow(store.config, "product_popularity", table) == Written(
        written=3
    )
