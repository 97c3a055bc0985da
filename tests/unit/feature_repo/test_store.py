from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.catalogue import PRODUCT_POPULARITY, SKU_LOCATION, SKU_LOCATION_AVAILABILITY
from feature_repo.changes import refresh
from feature_repo.errors import FeatureError
from feature_repo.packed import to_microseconds
from feature_repo.store import OnlineStore, Standing, Written, entity_key, entity_values, online_store
from tests.unit.feature_repo.published_home import AS_OF, view_frame

DAY = timedelta(days=1)
NOW_US = to_microseconds(AS_OF)
KEY = ("product_popularity", "SKU-00001")


def popularity(sold: int, *, age: timedelta = timedelta(0), sku: str = "SKU-00001") -> pl.DataFrame:
    return view_frame("product_popularity", [{"sku": sku, "sold_units_28d": sold, "feature_at": AS_OF - age}])


def sold(store: OnlineStore, sku: str = "SKU-00001") -> int | None:
    row = store.read([PRODUCT_POPULARITY], [sku]).get(("product_popularity", sku))
    return None if row is None else row.values["sold_units_28d"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=2))
def test_an_entity_key_gives_its_parts_back(parts: list[str]) -> None:
    assert entity_values(SKU_LOCATION, entity_key(SKU_LOCATION, parts)) == parts


def test_no_two_entities_share_a_key() -> None:
    assert entity_key(SKU_LOCATION, ("a", "bc")) != entity_key(SKU_LOCATION, ("ab", "c"))


def test_a_frame_and_single_rows_are_stored_under_the_same_keys(tmp_path: Path) -> None:
    rows = [{"sku": "Thé 1", "location_code": "S001", "on_hand_units": 4}]
    first, second = online_store(tmp_path / "a"), online_store(tmp_path / "b")
    first.write_frame(SKU_LOCATION_AVAILABILITY, view_frame("sku_location_availability", rows))
    second.write_rows(SKU_LOCATION_AVAILABILITY, [(("Thé 1", "S001"), NOW_US, {"on_hand_units": 4})])
    assert dict(first.scan(SKU_LOCATION_AVAILABILITY)) == dict(second.scan(SKU_LOCATION_AVAILABILITY))


def test_an_older_row_never_overwrites_a_newer_one_and_the_writer_is_told(tmp_path: Path) -> None:
    store = online_store(tmp_path)
    assert store.write_frame(PRODUCT_POPULARITY, popularity(7)) == Written(written=1)
    assert store.write_frame(PRODUCT_POPULARITY, popularity(3, age=DAY)) == Written(skipped=1)
    assert sold(store) == 7


def test_a_correction_of_the_same_time_is_written_and_an_equal_row_is_not(tmp_path: Path) -> None:
    store = online_store(tmp_path)
    store.write_frame(PRODUCT_POPULARITY, popularity(7))
    assert store.write_frame(PRODUCT_POPULARITY, popularity(8)) == Written(written=1)
    assert store.write_frame(PRODUCT_POPULARITY, popularity(8)) == Written(unchanged=1)
    assert sold(store) == 8


def test_nulls_overwrite_values(tmp_path: Path) -> None:
    store = online_store(tmp_path)
    store.write_rows(PRODUCT_POPULARITY, [(("SKU-00001",), NOW_US, {"sold_units_28d": 7})])
    store.write_rows(PRODUCT_POPULARITY, [(("SKU-00001",), NOW_US + 1, {})])
    assert sold(store) is None
    assert store.read([PRODUCT_POPULARITY], ["SKU-00001"])[KEY].event_us == NOW_US + 1


@given(order=st.permutations([0, 1, 2, 3]))
def test_the_order_in_which_rows_arrive_does_not_matter(
    order: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = online_store(tmp_path_factory.mktemp("store"))
    for age in order:
        store.write_frame(PRODUCT_POPULARITY, popularity(age, age=age * DAY))
    assert sold(store) == 0


def test_of_several_rows_of_one_entity_in_a_batch_the_newest_stays(tmp_path: Path) -> None:
    store = online_store(tmp_path)
    batch = pl.concat([popularity(7), popularity(3, age=DAY)])
    assert store.write_frame(PRODUCT_POPULARITY, batch) == Written(written=1, skipped=1)
    rows = [(("SKU-00001",), NOW_US + at, {"sold_units_28d": at}) for at in (5, 9, 1)]
    assert store.write_rows(PRODUCT_POPULARITY, rows) == Written(written=1, skipped=2)
    assert sold(store) == 9


def test_a_full_version_removes_what_it_no_longer_has_but_not_what_came_later(tmp_path: Path) -> None:
    store = online_store(tmp_path)
    refresh(store, PRODUCT_POPULARITY, pl.concat([popularity(1), popularity(2, sku="SKU-00002")]), "v1", tmp_path)
    store.write_rows(PRODUCT_POPULARITY, [(("SKU-00003",), NOW_US + 10_000_000, {"sold_units_28d": 3})])
    assert refresh(store, PRODUCT_POPULARITY, popularity(1), "v2", tmp_path) == Written(unchanged=1, removed=1)
    assert sorted(dict(store.scan(PRODUCT_POPULARITY))) == ["SKU-00001", "SKU-00003"]
    assert store.standings([PRODUCT_POPULARITY]) == [Standing("v2", NOW_US, 1)]


def half_a_batch(store: OnlineStore) -> None:
    with store._writing() as connection:
        connection.execute("update entity_rows set event_us = 0")
        assert store.read([PRODUCT_POPULARITY], ["SKU-00001"])[KEY].event_us == NOW_US
        raise RuntimeError("lights out")


def test_a_reader_sees_the_old_batch_or_the_new_never_half(tmp_path: Path) -> None:
    store = online_store(tmp_path)
    store.write_frame(PRODUCT_POPULARITY, popularity(1))
    broken = [
        (("SKU-00001",), NOW_US + 1, {"sold_units_28d": 2}),
        (("SKU-00002",), NOW_US + 1, {"sold_units_28d": "?"}),
    ]
    with pytest.raises(FeatureError):
        store.write_rows(PRODUCT_POPULARITY, broken)
    with pytest.raises(RuntimeError, match="lights out"):
        half_a_batch(store)
    assert store.read([PRODUCT_POPULARITY], ["SKU-00001"])[KEY].event_us == NOW_US


def test_rows_of_an_older_definition_are_read_by_the_definition_they_were_written_under(tmp_path: Path) -> None:
    store = online_store(tmp_path)
    fields = PRODUCT_POPULARITY.fields[1:2]
    older = replace(PRODUCT_POPULARITY, fields=fields)
    store.write_rows(older, [(("SKU-00001",), NOW_US, {"sold_units_28d": 7})])
    store.write_rows(PRODUCT_POPULARITY, [(("SKU-00002",), NOW_US, {"sold_units_28d": 9})])
    assert [row.values for row in dict(online_store(tmp_path).scan(PRODUCT_POPULARITY)).values()] == [
        {"sold_units_28d": 7},
        {
            "sold_units_7d": None,
            "sold_units_28d": 9,
            "order_count_28d": None,
            "return_rate_28d": None,
            "view_count_28d": None,
        },
    ]


def test_a_frame_without_a_key_or_a_time_is_refused(tmp_path: Path) -> None:
    store = online_store(tmp_path)
    for broken in (popularity(1).with_columns(sku=pl.lit(None, pl.String)), popularity(1).drop("feature_at")):
        with pytest.raises(FeatureError, match="expected a value of"):
            store.write_frame(PRODUCT_POPULARITY, broken)


def test_a_store_that_was_never_written_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match=r"found no file\. Run `troth run` first"):
        online_store(tmp_path).read([PRODUCT_POPULARITY], ["SKU-00001"])
