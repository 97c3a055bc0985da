"""Many at once through the gate, held to what one by one is answered."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import catalogue
from feature_repo.column_reads import read_columns
from feature_repo.packed import from_microseconds
from feature_repo.publish import publish
from feature_repo.reads import Source, read_features
from feature_repo.sqlite_store import SqliteStore
from tests.unit.feature_repo.published_home import ADA, AS_OF, BRAM, CLEO, LEDGER_SIZE, home_with_tables

AT = AS_OF.replace(tzinfo=UTC) + timedelta(hours=1)
PEOPLE = (ADA, BRAM, CLEO, "cus_nobody")
LATER = (0, 1, 3, 6, 8)  # days: some rows grow too old before standing does
KEYS = {"customer_id": PEOPLE, "sku": ("SKU-00001", "SKU-00404"), "location_code": ("S001", "DC1", "S404")}


@pytest.fixture(scope="module")
def store() -> Iterator[SqliteStore]:
    with TemporaryDirectory() as name:
        home = home_with_tables(Path(name))
        publish(home)
        kept = SqliteStore(home.features / "online.db")
        yield kept
        kept.close()


class Ledger:
    """A ledger's size; None: it cannot be read."""

    def __init__(self, size: int | None) -> None:
        self._size = size

    def __call__(self) -> int:
        if self._size is None:
            raise OSError
        return self._size


@given(data=st.data())
def test_many_are_answered_as_each_alone(store: SqliteStore, data: st.DataObject) -> None:
    use = data.draw(st.sampled_from(catalogue.SERVICES))
    entity = st.fixed_dictionaries({name: st.sampled_from(KEYS[name]) for name in use.entity.join_keys})
    asked = data.draw(st.lists(entity, min_size=1, max_size=6))
    source = Source(store, Ledger(data.draw(st.sampled_from((LEDGER_SIZE, LEDGER_SIZE - 1, LEDGER_SIZE + 1, None)))))
    at: datetime = AT + timedelta(days=data.draw(st.sampled_from(LATER)))
    found = read_columns(source, use, {name: [each[name] for each in asked] for name in use.entity.join_keys}, at)
    alone = read_features(source, use, asked, at)
    names = [each.name for view in use.views for each in view.online_fields]
    assert list(found.features) == names
    for number, answer in enumerate(alone):
        assert (found.is_allowed[number], found.reason_codes[number]) == (answer.is_allowed, answer.reason_code)
        told = {name: found.features[name][number] for name in names}
        assert told == (answer.features or dict.fromkeys(names))
        said = {view: statuses[number] for view, statuses in found.statuses.items()}
        assert said == (answer.statuses or dict.fromkeys(said))
        newest = found.newest_us[number]
        assert (None if newest is None else from_microseconds(newest)) == answer.newest_event_at
    sizes = [size for each in alone if (size := each.evidence.standing_ledger_size) is not None]
    assert found.evidence.standing_ledger_size == min(sizes, default=None)
    assert found.evidence.ledger_size == alone[0].evidence.ledger_size
    versions = {name: version for each in alone for name, version in each.evidence.versions.items()}
    assert found.evidence.versions == versions


def test_rows_of_an_older_definition_stand_beside_newer_ones(tmp_path: Path) -> None:
    old = replace(catalogue.PRODUCT_POPULARITY, fields=catalogue.PRODUCT_POPULARITY.fields[:2])
    kept, at_us = SqliteStore(tmp_path / "online.db"), int(AT.timestamp() * 1e6)
    kept.write_rows(old, [(("old",), at_us, {"sold_units_7d": 1, "sold_units_28d": 2})])
    kept.write_rows(catalogue.PRODUCT_POPULARITY, [(("new",), at_us, {"sold_units_7d": 3, "view_count_28d": 4})])
    use = catalogue.service("popularity_v1")
    found = read_columns(Source(kept, Ledger(0)), use, {"sku": ["new", "none", "old"]}, AT)
    assert found.features["sold_units_7d"] == [3, None, 1]
    assert found.features["sold_units_28d"] == [None, None, 2]
    assert found.features["view_count_28d"] == [4, None, None]
    assert found.statuses == {"product_popularity": ["PRESENT", "NOT_FOUND", "PRESENT"]}
    kept.close()
