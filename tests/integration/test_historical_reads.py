"""Training rows through Feast itself: every row comes back, personal ones under consent then and now, each read with its receipt."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from consent.events import Event
from consent.ledger.opening import open_ledger
from consent.receipts import decisions
from feature_repo import definitions
from feature_repo.catalogue import (
    CUSTOMER,
    CUSTOMER_ENGAGEMENT,
    CUSTOMER_PURCHASES,
    PRODUCT_POPULARITY,
    SERVICES,
    Service,
)
from feature_repo.errors import FeatureError
from feature_repo.feast_import import feast
from feature_repo.historical.reading import training_rows
from feature_repo.historical.spans import TABLE
from models.decisions import folder_of, replay
from tests.unit.consent.builders import event, subject
from tests.unit.feature_repo.published_home import ADA, AS_OF, BRAM, CLEO, home_with_tables, publish_table, view_frame
from troth import published
from troth.clock import FixedClock
from troth.home import Home

pytestmark = [
    pytest.mark.slow,
    # Feast 0.67 as it comes: deprecations in its own dependencies, and notes about sources without a created column.
    pytest.mark.filterwarnings("ignore"),
]
AT = AS_OF.replace(tzinfo=UTC)
DAY, WEEK = timedelta(days=1), timedelta(days=7)
NOW = AT + 2 * DAY
PEOPLE = {ADA: 1, BRAM: 2, CLEO: 3}


def says(who: str, at: datetime, event_type: str = "grant", **changes: Any) -> Event:
    told = {"event_type": event_type, "subject_id": subject(PEOPLE[who]), "signal_id": f"{event_type}-{who}-{at:%d}"}
    return event(at, **(told | {"purpose_code": "model_training"} | changes))


def tell(home: Home, *said: Event) -> None:
    with open_ledger(home, FixedClock(NOW)) as ledger:
        ledger.append(said)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Ada said yes a month ago; Bram too, and took it back yesterday; Cleo said yes between two feature rows."""
    made = home_with_tables(tmp_path)
    people = [(who, subject(number), "hub", subject(number)) for who, number in PEOPLE.items()]
    names = ["customer_id", "identity_ref", "link_type", "group_ref"]
    publish_table(made, "customer_identities", pl.DataFrame(people, schema=names, orient="row"))
    publish_table(made, "customers", pl.DataFrame({"customer_id": [*PEOPLE], "is_test": [False] * 3}))
    rows = [
        {"customer_id": who, "order_count_30d": n, "feature_at": AS_OF - n * WEEK} for who in PEOPLE for n in (0, 1)
    ]
    publish_table(made, CUSTOMER_PURCHASES.table, view_frame("customer_purchases", rows))
    tell(
        made,
        *(says(who, AT - 30 * DAY) for who in (ADA, BRAM)),
        says(BRAM, AT + DAY, "withdraw"),
        says(CLEO, AT - 3 * DAY),
    )
    return made


def asked(*rows: tuple[str, datetime]) -> pa.Table:
    return pa.table({"customer_id": [who for who, _ in rows], "event_timestamp": [at for _, at in rows]})


EVERYONE = asked(*((who, at) for who in PEOPLE for at in (AT - WEEK, AT)))


def store_of(home: Home, at: datetime = NOW) -> Any:
    definitions.apply(home)
    store = definitions.feature_store(home)
    store.config.offline_store.answer_at = at.isoformat()
    return store


def stock_store(home: Home) -> Any:
    """Feast as it comes, over the same registry."""
    definitions.apply(home)
    from feast.repo_config import RepoConfig

    return feast().FeatureStore(
        config=RepoConfig(
            project=definitions.PROJECT,
            provider="local",
            registry={"path": str(home.features / "registry.db")},
            online_store={"type": "sqlite", "path": str(home.root / "stock.db")},
            offline_store={"type": "file"},
            entity_key_serialization_version=3,
        )
    )


def test_a_row_comes_out_where_consent_held_then_and_still_holds(home: Home) -> None:
    job = store_of(home).get_historical_features(EVERYONE, store_of(home).get_feature_service("churn_v1"))
    rows = job.to_arrow()
    found = rows.select(["customer_id", "event_timestamp", "order_count_30d"]).to_pylist()
    assert [(row["customer_id"], row["order_count_30d"]) for row in found] == [(ADA, 1), (ADA, 0), (CLEO, 0)]
    assert job.told.left_out == {"never_asked": 1, "withdrawn_since": 2}
    assert job.told.considered == 6
    assert "3 of 6 rows" in job.told.summary


def test_a_withdrawal_takes_a_person_out_of_the_next_read(home: Home) -> None:
    read = lambda: training_rows(home, "churn_v1", EVERYONE, FixedClock(NOW)).rows.column("customer_id").to_pylist()  # noqa: E731
    assert set(read()) == {ADA, CLEO}
    tell(home, says(ADA, NOW - timedelta(minutes=1), "withdraw"))
    assert set(read()) == {CLEO}


def test_a_grant_that_ended_is_no_consent_for_rows_of_its_time(home: Home) -> None:
    later = training_rows(home, "churn_v1", EVERYONE, FixedClock(NOW + 800 * DAY))
    assert (later.kept, later.left_out["expired_since"]) == (0, 3)


def test_every_read_leaves_a_receipt_that_is_decided_again_to_the_byte(home: Home) -> None:
    told = training_rows(home, "churn_v1", asked((ADA, AT), (BRAM, AT), ("cus_nobody", AT)), FixedClock(NOW))
    assert told.receipt == 1
    with open_ledger(home, FixedClock(NOW)) as ledger:
        receipt = decisions.load(folder_of(home), 1, ledger.verifier)
        assert replay(home, 1, ledger).subject_count == 2
    assert (receipt.use.use, receipt.use.asked_by) == ("training", "service:churn_v1")
    assert [(row["reason_code"], row["subject_count"]) for row in receipt.counts] == [("granted", 1), ("withdrawn", 1)]


def test_a_home_without_a_ledger_gives_nothing_out(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="expected a consent ledger, found none"):
        training_rows(home_with_tables(tmp_path), "churn_v1", EVERYONE, FixedClock(NOW))


def test_a_ledger_that_cannot_be_read_gives_nothing_out(home: Home) -> None:
    from troth.errors import TrothError

    training_rows(home, "churn_v1", EVERYONE, FixedClock(NOW))
    home.ledger.write_bytes(b"no ledger" * 1000)
    with pytest.raises(TrothError):
        training_rows(home, "churn_v1", EVERYONE, FixedClock(NOW))


def test_spans_are_made_anew_when_identities_change_and_not_before(home: Home) -> None:
    training_rows(home, "churn_v1", EVERYONE, FixedClock(NOW))
    made = published.current(home, TABLE)
    training_rows(home, "churn_v1", EVERYONE, FixedClock(NOW))
    assert published.current(home, TABLE) == made
    lost = pl.read_parquet(published.current(home, "customer_identities")).filter(pl.col("customer_id") != ADA)
    publish_table(home, "customer_identities", lost)
    told = training_rows(home, "churn_v1", EVERYONE, FixedClock(NOW))
    assert set(told.rows.column("customer_id").to_pylist()) == {CLEO}


def test_testers_are_never_learned_from(home: Home) -> None:
    publish_table(home, "customers", pl.DataFrame({"customer_id": [*PEOPLE], "is_test": [True, False, None]}))
    told = training_rows(home, "churn_v1", EVERYONE, FixedClock(NOW))
    assert (told.kept, told.left_out["test_customer"]) == (0, 4)


@pytest.mark.parametrize(
    "features",
    [
        ["customer_purchases:order_count_30d"],
        ["customer_purchases:order_count_30d", "product_popularity:sold_units_7d"],
        [f"customer_engagement:{each.name}" for each in CUSTOMER_ENGAGEMENT.fields],
    ],
)
def test_personal_features_outside_a_service_of_the_catalogue_are_an_error(home: Home, features: list[str]) -> None:
    with pytest.raises(FeatureError, match="expected all features of a feature service of the catalogue"):
        store_of(home).get_historical_features(EVERYONE, features)


def test_a_service_that_a_caller_makes_up_is_none(home: Home) -> None:
    store = store_of(home)
    made_up = feast().FeatureService(name="mine", features=[store.get_feature_view("customer_engagement")])
    store.registry.apply_feature_service(made_up, definitions.PROJECT)
    with pytest.raises(FeatureError, match="expected all features of a feature service of the catalogue"):
        store.get_historical_features(EVERYONE, made_up)


def test_what_rests_on_a_contract_is_not_learned_from(home: Home) -> None:
    with pytest.raises(FeatureError, match="expected a purpose that people are asked for, found service"):
        training_rows(home, "standing_v1", EVERYONE, FixedClock(NOW))


def test_no_personal_service_gives_rows_of_who_never_said_yes(home: Home) -> None:
    for use in SERVICES:
        if use.is_personal and use.purpose_code != "service" and use.entity is CUSTOMER:
            told = training_rows(home, use, asked((BRAM, AT), (CLEO, AT - WEEK)), FixedClock(NOW))
            assert not told.kept, use.name


SKUS = pd.DataFrame(
    {
        "sku": ["SKU-00001", "SKU-09999", "SKU-00002", "SKU-00001", "SKU-00001", "SKU-00001"],
        "event_timestamp": [AS_OF, AS_OF, AS_OF - DAY, AS_OF - DAY, AS_OF + 30 * DAY, AS_OF],
        "label": [1, 2, 3, 4, 5, 6],
    }
)


def test_no_row_is_lost_where_feast_as_it_comes_loses_those_without_a_feature_row_in_time(home: Home) -> None:
    ours = store_of(home).get_historical_features(SKUS, store_of(home).get_feature_service("popularity_v1")).to_df()
    theirs = (
        stock_store(home).get_historical_features(SKUS, stock_store(home).get_feature_service("popularity_v1")).to_df()
    )
    assert ours["label"].tolist() == [1, 2, 3, 4, 5, 6]
    assert ours["sold_units_7d"].tolist()[::5] == [1.0, 1.0]
    assert ours["sold_units_7d"].isna().tolist() == [False, True, True, True, True, False]
    assert sorted(theirs["label"]) == [2, 6]  # not even both of two equal keys and times
    both = ours.merge(theirs, on="label")
    assert both["sold_units_7d_x"].equals(both["sold_units_7d_y"])


def test_names_in_full_a_query_and_another_name_of_the_time_column(home: Home) -> None:
    store, wanted = store_of(home), ["product_popularity:sold_units_7d"]
    table = store.get_historical_features(
        "select sku, feature_at as seen_at from product_popularity", wanted, True
    ).to_arrow()
    assert table.column_names == ["sku", "seen_at", "product_popularity__sold_units_7d"]
    assert table.num_rows == 3
    job = store.get_historical_features(SKUS, wanted)
    assert job.metadata.features == wanted
    assert job.metadata.keys == ["sku", "label"]
    assert not job.full_feature_names


def test_an_answer_is_kept_where_it_is_told_to(home: Home, tmp_path: Path) -> None:
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    job = store_of(home).get_historical_features(SKUS, ["product_popularity:sold_units_7d"])
    job.persist(SavedDatasetFileStorage(path=str(tmp_path / "kept.parquet")))
    assert pl.read_parquet(tmp_path / "kept.parquet").height == 6


def test_a_source_renamed_column_and_a_view_without_an_entity_are_joined(home: Home, tmp_path: Path) -> None:
    from feast.repo_config import RepoConfig

    f = feast()
    path = tmp_path / "rates.parquet"
    pl.DataFrame({"ts": [AT - DAY, AT], "made": [AT, AT], "r": [1.5, 2.5]}).write_parquet(path)
    source = f.FileSource(
        path=str(path), timestamp_field="ts", created_timestamp_column="made", field_mapping={"r": "rate"}
    )
    rates = f.FeatureView(name="rates", entities=[], ttl=timedelta(0), source=source,
                          schema=[f.Field(name="rate", dtype=feast_types().Float64)])  # fmt: skip
    double = on_demand(rates)
    store = f.FeatureStore(config=RepoConfig(
        project="rates", provider="local", registry={"path": str(tmp_path / "registry.db")},
        online_store={"type": "sqlite", "path": str(tmp_path / "online.db")},
        offline_store={"type": "tests.integration.test_historical_reads.RatesOfflineStore"}, entity_key_serialization_version=3,
    ))  # fmt: skip
    store.apply([rates, double])
    rows = pd.DataFrame({"event_timestamp": [AT, AT - 2 * DAY, AT - DAY]})
    found = store.get_historical_features(rows, ["rates:rate", "doubled:twice"]).to_df()
    assert found["rate"].tolist()[::2] == [2.5, 1.5]
    assert found["rate"].isna().tolist() == [False, True, False]
    assert found["twice"].tolist()[::2] == [5.0, 3.0]


def feast_types() -> Any:
    feast()
    from feast import types

    return types


def on_demand(view: Any) -> Any:
    feast()
    from feast.on_demand_feature_view import on_demand_feature_view

    @on_demand_feature_view(sources=[view], schema=[feast().Field(name="twice", dtype=feast_types().Float64)])
    def doubled(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"twice": inputs["rate"] * 2})

    return doubled


def test_a_service_of_our_own_needs_its_columns(home: Home) -> None:
    use = Service("sells_v1", "What sells.", (PRODUCT_POPULARITY,), None)
    told = training_rows(home, use, pa.table({"sku": ["SKU-00001"], "event_timestamp": [AT]}), FixedClock(NOW))
    assert (told.kept, told.left_out, told.receipt) == (1, {}, None)
    with pytest.raises(FeatureError, match="expected a column customer_id, found none"):
        training_rows(home, "churn_v1", pa.table({"event_timestamp": [AT]}), FixedClock(NOW))


feast()

from feature_repo.historical.offline_store import AsofOfflineStore, AsofOfflineStoreConfig  # noqa: E402


class RatesOfflineStoreConfig(AsofOfflineStoreConfig):
    type: str = "tests.integration.test_historical_reads.RatesOfflineStore"


class RatesOfflineStore(AsofOfflineStore):
    """Ours, over a view of the tests' own."""

    views = (replace(PRODUCT_POPULARITY, name="rates"),)
