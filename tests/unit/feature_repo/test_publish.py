from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from feature_repo.catalogue import (
    AVAILABILITY,
    CUSTOMER_CONTEXT,
    CUSTOMER_IDENTITY,
    CUSTOMER_PURCHASES,
    INDEXES,
    SUBJECT_STANDING,
    VIEWS,
)
from feature_repo.errors import FeatureError
from feature_repo.publish import PublishedCount, publish
from feature_repo.store import online_store
from tests.unit.feature_repo.published_home import (
    ADA,
    AS_OF,
    BRAM,
    home_with_tables,
    publish_table,
    standing_mart,
    view_frame,
)
from troth.errors import TrothError
from troth.home import Home

SOON = AS_OF + timedelta(days=9)


def purchases(*rows: tuple[str | None, int]) -> pl.DataFrame:
    return view_frame("customer_purchases", [{"customer_id": who, "order_count_30d": count} for who, count in rows])


def test_every_view_and_index_is_published_and_progress_is_told(tmp_path: Path) -> None:
    told: dict[str, int] = {}
    counts = publish(home_with_tables(tmp_path), told.__setitem__)
    assert list(counts) == [view.name for view in (*VIEWS, *INDEXES)]
    assert told == {name: count.rows for name, count in counts.items()}
    assert counts["availability"] == PublishedCount(
        4, written=4, skipped=0, unchanged=0, removed=0, refused=0, is_new=True
    )


def test_publishing_the_same_versions_again_writes_nothing(tmp_path: Path) -> None:
    home = home_with_tables(tmp_path)
    publish(home)
    again = publish(home)
    assert {count.written + count.removed + count.is_new for count in again.values()} == {0}
    assert {name: count.unchanged for name, count in again.items()} == {
        name: count.rows for name, count in again.items()
    }


def test_only_changed_rows_are_written_and_vanished_customers_leave(tmp_path: Path) -> None:
    home = home_with_tables(tmp_path, ftr_customer_purchases=purchases((ADA, 2), (BRAM, 0), ("cus_merged", 5)))
    publish(home)
    publish_table(home, "ftr_customer_purchases", purchases((ADA, 2), (BRAM, 1)))
    count = publish(home)["customer_purchases"]
    assert count == PublishedCount(2, written=1, skipped=0, unchanged=1, removed=1, refused=0, is_new=True)


def test_only_the_newest_row_of_an_entity_goes_online(tmp_path: Path) -> None:
    home = home_with_tables(tmp_path)
    assert publish(home)["customer_purchases"].rows == 3
    row = online_store(home.features).read([CUSTOMER_PURCHASES], [ADA])["customer_purchases", ADA]
    assert row.values["order_count_30d"] == 2


def test_a_row_without_a_key_is_refused_and_the_others_are_kept(tmp_path: Path) -> None:
    home = home_with_tables(tmp_path, ftr_customer_purchases=purchases((ADA, 2), (None, 9)))
    count = publish(home)["customer_purchases"]
    assert (count.rows, count.refused) == (1, 1)


def test_a_table_that_lacks_a_feature_is_named(tmp_path: Path) -> None:
    home = home_with_tables(tmp_path, ftr_customer_purchases=purchases((ADA, 2)).drop("net_cents_90d"))
    with pytest.raises(FeatureError, match=r"ftr_customer_purchases: expected .* found none named \['net_cents_90d'\]"):
        publish(home)


def test_nothing_published_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(TrothError, match="Run `troth run` first"):
        publish(Home(tmp_path), views=[CUSTOMER_PURCHASES])


def test_each_grants_end_stands_beside_its_standing(tmp_path: Path) -> None:
    expiries = {(ADA, "personalization", "*"): SOON, (ADA, "marketing", "email"): AS_OF}
    home = home_with_tables(tmp_path, consent_standing=standing_mart(expiries))
    publish(home)
    row = online_store(home.features).read([SUBJECT_STANDING], [ADA])["subject_standing", ADA].values
    ends = {name: at.replace(tzinfo=None) for name, at in row.items() if name.startswith("expires_") and at}
    assert ends == {"expires_personalization_at": SOON, "expires_marketing_email_at": AS_OF}


def test_an_identifier_leads_to_a_customer_by_its_own_links_and_by_no_contact(tmp_path: Path) -> None:
    links = pl.DataFrame(
        {
            "identity_ref": ["email_ada", "email_guest", "email_shared", "device_both", "device_both"],
            "customer_id": [ADA, ADA, ADA, ADA, BRAM],
            "link_type": ["hub", "probabilistic", "contact", "deterministic", "deterministic"],
        }
    )
    home = home_with_tables(tmp_path, customer_identities=links)
    publish(home)
    found = online_store(home.features).scan(CUSTOMER_IDENTITY)
    customers = {token: row.values["customer_id"] for token, row in found}
    assert customers == {"email_ada": ADA, "email_guest": ADA, "device_both": None}


def test_recent_items_are_the_newest_kept_ones_of_the_last_months(tmp_path: Path) -> None:
    ages = {"SKU-00001": 3, "SKU-00002": 1, "SKU-00003": 91, "SKU-00004": 2}
    lines = pl.DataFrame(
        {
            "customer_id": [ADA] * 4,
            "sku": list(ages),
            "ordered_at": [AS_OF - timedelta(days=age) for age in ages.values()],
            "is_cancelled": [False, True, False, False],
        }
    )
    home = home_with_tables(tmp_path, order_lines=lines)
    publish(home)
    row = online_store(home.features).read([CUSTOMER_CONTEXT], [ADA])["customer_context", ADA]
    assert row.values == {"home_location_code": "S001", "recent_skus": "SKU-00004\nSKU-00001"}


def test_times_with_and_without_a_zone_are_the_same_time(tmp_path: Path) -> None:
    first, second = home_with_tables(tmp_path / "a"), home_with_tables(tmp_path / "b")
    frame = pl.read_parquet(next((second.published / "availability").glob("*.parquet")))
    zoned = frame.with_columns(pl.col("as_of_at", "last_movement_at").dt.replace_time_zone("UTC"))
    publish_table(second, "availability", zoned)
    for home in (first, second):
        publish(home)
    rows = [
        {key: (row.event_us, row.values) for key, row in online_store(h.features).scan(AVAILABILITY)}
        for h in (first, second)
    ]
    assert rows[0] == rows[1]
