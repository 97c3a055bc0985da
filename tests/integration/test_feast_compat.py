"""What our plug-ins write with `compat`, read by Feast as it comes, at the same place and over the same registry."""

import random
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo import definitions
from feature_repo.errors import FeatureError
from feature_repo.feast_import import feast
from feature_repo.publish import publish
from feature_repo.store import Fetched
from tests.integration.redis_server import running_cluster, running_redis
from tests.integration.test_feast_differential import kinds, values
from tests.unit.feature_repo.published_home import AS_OF, home_with_tables, view_frame

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Feast 0.67 as it comes: deprecations in its own dependencies
]
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ITEMS = ("tea", "zähre 🍵", "cake")
PACKED = "feature_repo.online_store.Packed"


class Shop:
    """One Feast project over ours, told in Feast's own layout too."""

    def __init__(self, folder: Path, address: str | None, compat: bool | list[str] = True, project: str = "") -> None:
        self.folder, self.address, self.project = folder, address, project or f"shop_{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True, exist_ok=True)
        self.ours = self.over(compat)

    @property
    def stock(self) -> Any:
        """Feast as it comes, there, over the same registry: another process, that opens both anew."""
        if self.address:
            kind = "redis_cluster" if "cluster" in self.address else "redis"
            return self._store({"type": "redis", "redis_type": kind, "connection_string": self.address.split("/")[2]})
        return self._store({"type": "sqlite", "path": str(self.folder / "feast.db")})

    def over(self, compat: bool | list[str]) -> Any:
        """Ours at the same place, with another setting."""
        place = {"type": f"{PACKED}RedisOnlineStore", "address": self.address} if self.address else {"type": f"{PACKED}SqliteOnlineStore", "path": str(self.folder / "ours.db")}  # fmt: skip
        return self._store(place | {"compat": compat, "answer_at": AT.isoformat()})

    def _store(self, online: dict[str, Any]) -> Any:
        from feast.repo_config import RepoConfig

        engine = {} if online["type"] in ("redis", "sqlite") else {"batch_engine": {"type": "feature_repo.engine.PackedComputeEngine"}}  # fmt: skip
        return feast().FeatureStore(
            config=RepoConfig(
                project=self.project, provider="local", registry={"path": str(self.folder / "registry.db"), "cache_ttl_seconds": 3600},
                online_store=online, offline_store={"type": "file"}, entity_key_serialization_version=3, **engine,
            )
        )  # fmt: skip

    def view(self, name: str = "stock", ttl: timedelta = timedelta(0), **tags: str) -> Any:
        """A view of two features by item, over a Parquet file."""
        from feast import types as t

        f = feast()
        item = f.Entity(name="item", join_keys=["item"], value_type=f.ValueType.STRING)
        schema = [f.Field(name="item", dtype=t.String), f.Field(name="units", dtype=t.Int64), f.Field(name="shelf", dtype=t.String)]  # fmt: skip
        source = f.FileSource(name=f"{name}_rows", path=str(self.folder / f"{name}.parquet"), timestamp_field="event_timestamp")  # fmt: skip
        return f.FeatureView(name=name, entities=[item], ttl=ttl, schema=schema, source=source, tags=tags)

    def apply(self, *views: Any) -> None:
        item = feast().Entity(name="item", join_keys=["item"], value_type=feast().ValueType.STRING)
        self.ours.apply([item, *views])

    @property
    def online(self) -> Any:
        return self.ours._get_provider().online_store

    def write(self, *rows: tuple[str, datetime, int], name: str = "stock", by: Any = None) -> None:
        store = by or self.ours
        store._get_provider().online_store.write_arrow(store.config, store.get_feature_view(name), table(*rows))

    def delete(self, *items: str, at: datetime = AT, name: str = "stock", by: Any = None) -> None:
        store, entities = by or self.ours, [{"item": item} for item in items]
        store._get_provider().online_store.delete_entities(store.config, store.get_feature_view(name), entities, at)

    def put_right(self, name: str = "stock") -> None:
        self.online.copy_all(self.ours.config, self.ours.get_feature_view(name))

    def file(self, *rows: tuple[str, datetime, int], name: str = "stock") -> None:
        pq.write_table(table(*rows), self.folder / f"{name}.parquet")

    def seen(self, *items: str, name: str = "stock", by: Any = None) -> list[Any]:
        """Units, as Feast as it comes tells them."""
        return list(told(by or self.stock, [f"{name}:units", f"{name}:shelf"], items)["units"])

    def lying(self, keys: int) -> dict[Any, Any]:
        """The rows of the one view as they lie in Feast's layout, given of how many parts its keys are; in Redis by entity."""
        if self.address:
            client, end = redis.Redis.from_url(self.address), self.project.encode()
            found = [name for name in client.scan_iter() if name.endswith(end) and name[0] == keys]
            return {name.removesuffix(end): client.hgetall(name) for name in found}
        with closing(sqlite3.connect(self.folder / "feast.db")) as file:
            asked = f'select entity_key, feature_name, value, value_text, event_ts from "{self.project}_stock"'  # noqa: S608
            return {row[:2]: row[2:] for row in file.execute(asked)}


def told(store: Any, features: Sequence[str], items: Sequence[str]) -> dict[str, Any]:
    found = store.get_online_features(features=list(features), entity_rows=[{"item": item} for item in items])
    return dict(found.to_dict(include_event_timestamps=True))


def table(*rows: tuple[str, datetime, int]) -> pa.Table:
    items, times, units = zip(*rows, strict=True)
    return pa.table(
        {"item": items, "event_timestamp": pa.array(times, pa.timestamp("us", "UTC")), "units": units, "shelf": [f"é{each}" for each in units]}
    )  # fmt: skip


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running_redis() as server:
        yield server.address


@pytest.fixture(params=["sqlite", "redis"])
def shop(request: pytest.FixtureRequest, address: str, tmp_path: Path) -> Shop:
    made = Shop(tmp_path, address if request.param == "redis" else None)
    made.apply(made.view())
    return made


def test_what_is_pushed_materialised_or_written_as_arrow_is_read_by_stock_feast(shop: Shop) -> None:
    shop.write(("tea", AT, 1))
    frame = table(("cake", AT, 2)).to_pandas()
    shop.ours.write_to_online_store("stock", frame)
    shop.file(("tea", AT - HOUR, 9), ("scone", AT, 3), ("bun", AT, 4), ("bun", AT - HOUR, 9))
    shop.ours.materialize(AT - 2 * HOUR, AT)
    assert shop.seen("tea", "cake", "scone", "bun", "nothing") == [1, 2, 3, 4, None]


def test_an_older_row_does_not_reach_it_and_a_correction_does(shop: Shop) -> None:
    shop.write(("tea", AT, 1))
    shop.write(("tea", AT - HOUR, 2))
    assert shop.seen("tea") == [1]
    shop.write(("tea", AT, 3))
    assert shop.seen("tea") == [3]


def test_who_is_deleted_is_gone_in_every_view_and_a_late_write_does_not_bring_it_back(shop: Shop) -> None:
    shop.apply(shop.view(), shop.view("price"))
    for name in ("stock", "price"):
        shop.write(("tea", AT, 1), ("cake", AT, 2), name=name)
    shop.delete("tea")
    shop.write(("tea", AT - HOUR, 1))
    shop.file(("tea", AT, 1))
    shop.ours.materialize(AT - HOUR, AT, feature_views=["stock"])
    assert [shop.seen("tea", "cake", name=name) for name in ("stock", "price")] == [[None, 2], [None, 2]]
    shop.write(("tea", AT + HOUR, 5))
    assert shop.seen("tea") == [5]


def test_what_a_crash_left_undone_the_next_write_of_the_row_or_materialize_puts_right(shop: Shop) -> None:
    crashed = shop.over(compat=False)  # what had been written when it died: ours, and not yet the copy
    shop.write(("tea", AT - HOUR, 1), ("cake", AT - HOUR, 1))
    shop.write(("tea", AT, 2), ("cake", AT, 2), ("bun", AT, 2), by=crashed)
    assert shop.seen("tea", "cake", "bun") == [1, 1, None]
    shop.write(("tea", AT, 2))
    assert shop.seen("tea", "cake", "bun") == [2, 1, None]
    shop.file(("cake", AT - HOUR, 1))
    shop.ours.materialize(AT - 2 * HOUR, AT)
    assert shop.seen("tea", "cake", "bun") == [2, 2, None]
    shop.delete("tea", by=crashed)
    shop.write(("tea", AT, 2))
    assert shop.seen("tea", "cake", "bun") == [None, 2, None]
    shop.delete("cake", by=crashed)
    shop.put_right()
    assert shop.seen("tea", "cake", "bun") == [None, None, 2]


def test_a_personal_view_is_never_told_there(shop: Shop) -> None:
    shop.apply(shop.view(), shop.view("shopper", personal="true"))
    shop.write(("tea", AT, 1), name="shopper")
    shop.file(("cake", AT, 2), name="shopper")
    shop.ours.materialize(AT - HOUR, AT, feature_views=["shopper"])
    shop.put_right("shopper")
    shop.apply(shop.view(), shop.view("shopper"))  # so that stock Feast may be asked at all
    assert shop.seen("tea", "cake", name="shopper") == [None, None]
    if shop.address:
        assert not [
            name for name in redis.Redis.from_url(shop.address).scan_iter() if name.endswith(shop.project.encode())
        ]


def test_to_name_a_personal_view_is_an_error_that_says_so(shop: Shop) -> None:
    shop.apply(shop.view("shopper", personal="true"))
    naming = shop.over(["shopper"])
    view = shop.ours.get_feature_view("shopper")
    words = r"compat: expected views that are not personal, found shopper\. Take it off the list"
    with pytest.raises(FeatureError, match=words):
        naming.apply([view])
    with pytest.raises(FeatureError, match=words):
        naming._get_provider().online_store.write_arrow(naming.config, view, table(("tea", AT, 1)))
    with pytest.raises(FeatureError, match=words):
        naming.write_to_online_store("shopper", table(("tea", AT, 1)).to_pandas())
    shop.file(("tea", AT, 1), name="shopper")
    with pytest.raises(FeatureError, match=words):
        naming.materialize(AT - HOUR, AT, feature_views=["shopper"])
    packed = shop.online.store(shop.ours.config)
    assert list(packed.scan(shop.online.bound(shop.ours.config, view).view)) == []


def test_a_view_that_becomes_personal_is_taken_away_when_it_is_applied(shop: Shop) -> None:
    shop.apply(shop.view(), shop.view("shopper"))
    for name in ("stock", "shopper"):
        shop.write(("tea", AT, 1), name=name)
    shop.apply(shop.view("shopper", personal="true"))
    assert shop.seen("tea") == [1]
    shop.apply(shop.view("shopper"))
    assert shop.seen("tea", name="shopper") == [None]


def test_what_feast_itself_had_kept_of_a_personal_view_goes_when_it_is_applied_and_of_others_stays(shop: Shop) -> None:
    shop.apply(shop.view(), shop.view("shopper"))
    for name in ("stock", "shopper"):
        shop.stock.write_to_online_store(name, table(("tea", AT, 1), ("cake", AT, 1)).to_pandas())
    shop.over(["price"]).apply([shop.view("price"), shop.view(), shop.view("shopper", personal="true")])
    assert shop.seen("tea") == [1]
    shop.ours.config.online_store.compat = ["price"]
    shop.delete("tea", name="price")  # whoever is deleted goes from those, too, that are not copied
    assert shop.seen("tea", "cake") == [None, 1]
    shop.ours.config.online_store.compat = True
    shop.apply(shop.view("shopper"))
    assert shop.seen("tea", "cake", name="shopper") == [None, None]


def test_neither_layout_reaches_into_the_other(shop: Shop) -> None:
    shop.write(("tea", AT, 1))
    stock, view = shop.stock, shop.ours.get_feature_view("stock")
    stock._get_provider().online_store.teardown(stock.config, [view], [])
    assert shop.seen("tea", by=shop.ours) == [1]


def test_only_views_of_the_list_are_told_and_one_taken_off_it_is_taken_away(shop: Shop) -> None:
    price = shop.view("price")
    shop.apply(shop.view(), price)
    for name in ("stock", "price"):
        shop.write(("tea", AT, 1), ("cake", AT, 1), name=name)
    less = shop.over(["stock"])
    less.apply([shop.view(), price])
    shop.write(("tea", AT, 2), name="price", by=less)
    shop.write(("tea", AT, 2), name="stock", by=less)
    shop.ours.apply([price])
    assert (shop.seen("tea"), shop.seen("tea", "cake", name="price")) == ([2], [None, None])


def test_a_name_on_the_list_that_no_view_has_is_an_error(shop: Shop) -> None:
    with pytest.raises(
        FeatureError, match=r"compat: expected names of feature views, found \['stok'\]\. Correct the list\."
    ):
        shop.over(["stock", "stok"]).apply([shop.view()], partial=False)


def test_stock_feast_goes_on_telling_what_is_too_old(shop: Shop) -> None:
    shop.apply(shop.view(ttl=timedelta(minutes=30)))
    shop.write(("tea", AT - HOUR, 1), ("cake", AT, 2))
    assert shop.seen("tea", "cake", by=shop.ours) == [None, 2]
    assert shop.seen("tea", "cake") == [1, 2]
    times = told(shop.stock, ["stock:units"], ["tea", "cake"])["units__ts"]
    assert times == [(AT - HOUR).timestamp(), AT.timestamp()]  # its age it does tell


def test_a_view_that_is_removed_is_removed_there_and_a_project_that_is_torn_down_too(
    shop: Shop, tmp_path: Path
) -> None:
    # In Redis Feast itself would take away the rows of every project whose name ends alike.
    other = Shop(tmp_path / "other", shop.address, project=f"my{shop.project}")
    other.apply(other.view(), other.view("price"))
    shop.apply(shop.view(), shop.view("price"))
    for each in (shop, other):
        for name in ("stock", "price"):
            each.write(("tea", AT, 1), name=name)
    shop.ours.apply([shop.view("price")], objects_to_delete=[shop.view()], partial=False)
    shop.apply(shop.view())
    assert (shop.seen("tea"), shop.seen("tea", name="price")) == ([None], [1])
    shop.ours.teardown()
    shop.apply(shop.view(), shop.view("price"))
    assert shop.seen("tea", name="price") == [None]
    assert (other.seen("tea"), other.seen("tea", name="price")) == ([1], [1])


def alike(one: Any, other: Any, items: Sequence[str]) -> bool:
    features = ["stock:units", "stock:shelf"]
    return not items or told(one, features, items) == told(other, features, items)


MOMENTS = st.integers(-3, 3).map(lambda minutes: AT + timedelta(minutes=minutes))
ROWS = st.lists(st.tuples(st.sampled_from(ITEMS), MOMENTS, st.integers(0, 3)), min_size=1, max_size=4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(("write", "materialise", "crash")), ROWS),
        st.tuples(st.sampled_from(("delete", "crashing delete")), st.lists(st.tuples(st.sampled_from(ITEMS), MOMENTS), min_size=1, max_size=2)),
    ),
    min_size=2, max_size=7,
)  # fmt: skip


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_whatever_happens_stock_feast_is_told_what_ours_says(shop: Shop, steps: list[tuple[str, Any]]) -> None:
    mark, behind, crashed, stock = uuid.uuid4().hex, set[str](), shop.over(compat=False), shop.stock
    named = {item: f"{mark} {item}" for item in ITEMS}  # nobody of an example before
    for kind, said in steps:
        items, rows = {item for item, *_ in said}, [(named[item], *rest) for item, *rest in said]
        if kind == "write":
            shop.write(*rows)
        elif kind == "crash":
            shop.write(*rows, by=crashed)
        elif kind in ("delete", "crashing delete"):
            for item, at in rows:
                shop.delete(item, at=at, by=shop.ours if kind == "delete" else crashed)
        else:
            shop.file(*rows)
            shop.ours.materialize(AT - HOUR, AT + HOUR)
        behind = behind | items if kind.startswith("crash") else behind - items
        assert alike(stock, shop.ours, [named[item] for item in ITEMS if item not in behind])
    shop.put_right()
    assert alike(stock, shop.ours, list(named.values()))


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(sorted(kinds())), min_size=1, max_size=12, unique=True), st.integers(0, 2**32))
def test_rows_of_random_schemas_lie_there_to_the_byte_as_stock_feast_writes_them(
    shop: Shop, names: list[str], seed: int
) -> None:
    from feast import types as t

    f, chance, every, count = feast(), random.Random(seed), kinds(), 5
    # A whole number beside a null passes through a decimal on Feast's way of pushing.
    columns = {name: [every[name][1](chance) for _ in range(count)] if name == "int64" else values(chance, every[name][1], count) for name in names}  # fmt: skip
    keys = chance.choice([["item"], ["number"], ["item", "number"]])
    ids = {"item": [f"é{n}" for n in range(count)], "number": [2**53 + n for n in range(count)]}
    types = {"item": (t.String, f.ValueType.STRING), "number": (t.Int64, f.ValueType.INT64)}
    frame = pd.DataFrame({key: ids[key] for key in keys} | {"event_timestamp": [AT] * count} | {name: pd.Series(column, dtype=object) for name, column in columns.items()})  # fmt: skip
    entities = [f.Entity(name=key, join_keys=[key], value_type=types[key][1]) for key in keys]
    schema = [f.Field(name=key, dtype=types[key][0]) for key in keys] + [f.Field(name=name, dtype=every[name][0]) for name in names]  # fmt: skip
    source = f.FileSource(name="rows", path=str(shop.folder / "none.parquet"), timestamp_field="event_timestamp")
    view = f.FeatureView(name="stock", entities=entities, ttl=timedelta(0), schema=schema, source=source)
    lying = []
    for who in ("ours", "stock"):
        each = Shop(shop.folder / uuid.uuid4().hex, shop.address)
        store = getattr(each, who)
        store.apply([*entities, view])
        store.write_to_online_store("stock", frame)
        lying.append(each.lying(len(keys)))
    assert lying[0] == lying[1]
    assert len(lying[0]) == count * (len(names) if shop.address is None else 1)


def test_on_a_cluster_it_is_the_same(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as several:
        shop = Shop(tmp_path / "shop", several)
        shop.apply(shop.view(), shop.view("price"))
        items = [f"tea {number}" for number in range(30)]
        for name in ("stock", "price"):
            shop.write(*((item, AT, number) for number, item in enumerate(items)), name=name)
        shop.delete(items[0])
        assert [shop.seen(*items, name=name) for name in ("stock", "price")] == [[None, *range(1, 30)]] * 2
        shop.ours.apply([shop.view("price")], objects_to_delete=[shop.view()], partial=False)
        shop.apply(shop.view())
        assert [shop.seen(*items, name=name) for name in ("stock", "price")] == [[None] * 30, [None, *range(1, 30)]]
        shop.ours.teardown()
        shop.apply(shop.view("price"))
        assert shop.seen(*items, name="price") == [None] * 30


class Interrupted:
    """Our store, in which somebody writes a newer row just after it was looked into."""

    def __init__(self, store: Any, write: Any) -> None:
        self._store, self._writes, self.looks = store, [write], 0

    def fetch(self, *asked: Any) -> Fetched:
        found: Fetched = self._store.fetch(*asked)
        self.looks += 1
        while self._writes:
            self._writes.pop()()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_views_of_a_home_are_told_too_and_personal_ones_are_not(tmp_path: Path) -> None:
    home, popular = home_with_tables(tmp_path), view_frame("product_popularity", [{"sku": "SKU-00001", "sold_units_28d": 77}])  # fmt: skip
    publish(home)
    definitions.apply(home)
    ours = definitions.feature_store(home)
    ours.config.online_store.compat, ours.config.online_store.answer_at = True, AS_OF.isoformat() + "Z"
    online, views = ours._get_provider().online_store, ours.list_feature_views()
    online.update(ours.config, [], views, [], [], partial=False)
    online.write_arrow(ours.config, "product_popularity", popular.to_arrow())
    for view in views:
        online.copy_all(ours.config, view.name)
    config = ours.config.model_dump(by_alias=True, exclude_none=True) | {"online_store": {"type": "sqlite", "path": str(home.features / "feast.db")}}  # fmt: skip
    stock = feast().FeatureStore(config=feast().RepoConfig(**config))
    asked: dict[str, Any] = {"features": ["sku_location_availability:has_stock", "product_popularity:sold_units_28d"], "entity_rows": [{"sku": "SKU-00001", "location_code": "S001"}]}  # fmt: skip
    found = stock.get_online_features(**asked).to_dict()
    assert found == ours.get_online_features(**asked).to_dict()
    assert found["sold_units_28d"] == [77]
    with closing(sqlite3.connect(home.features / "feast.db")) as file:
        tables = {name for (name,) in file.execute("select name from sqlite_master where type = 'table'")}
    assert tables == {"!compat", "troth_product_popularity", "troth_sku_location_availability"}


def test_of_two_writers_the_slower_does_not_leave_its_older_row(shop: Shop) -> None:
    other = shop.over(compat=True)
    copy = shop.online.copy(shop.ours.config)
    copy._kept = Interrupted(copy._kept, lambda: shop.write(("tea", AT, 2), by=other))
    shop.write(("tea", AT - HOUR, 1), ("cake", AT, 1))
    assert shop.seen("tea", "cake") == [2, 1]
    assert copy._kept.looks == 3


def test_a_copy_that_cannot_be_written_is_an_error_and_the_row_is_kept(tmp_path: Path) -> None:
    shop = Shop(tmp_path, None)
    shop.apply(shop.view())
    (tmp_path / "feast.db").write_bytes(b"no database at all " * 100)
    fresh = shop.over(compat=True)
    with pytest.raises(
        FeatureError, match="copy in Feast's layout: expected a store that takes it, found DatabaseError"
    ):
        shop.write(("tea", AT, 1), by=fresh)
    assert shop.seen("tea", by=shop.ours) == [1]
    (tmp_path / "feast.db").unlink()
    shop.write(("tea", AT, 1), by=fresh)
    assert shop.seen("tea") == [1]


def test_the_two_layouts_do_not_share_a_file(tmp_path: Path) -> None:
    shop = Shop(tmp_path, None)
    shop.ours.config.online_store.compat_path = str(tmp_path / "ours.db")
    with pytest.raises(FeatureError, match="compat_path: expected another file than `path`"):
        shop.apply(shop.view())
