"""Feast's own online store against ours, on the same rows of random schemas: the same answers, but for Feast's named mistakes, each stated."""

import decimal
import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.feast_import import feast
from feature_repo.store import Written
from tests.integration.redis_server import running_redis

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Feast 0.67 as it comes: deprecations in its own dependencies
]
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW = AT + timedelta(hours=1)
Makes = Callable[[random.Random], Any]


def text(chance: random.Random) -> str:
    return "".join(chance.choice("ab zé🍵\n\"'") for _ in range(chance.randrange(6)))


def content(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(5))


def kinds() -> dict[str, tuple[Any, Makes]]:
    """Every type of Feast that its own store takes, and how a value of it is made."""
    from feast import types as t

    single: dict[str, tuple[Any, Makes]] = {
        "text": (t.String, text),
        "bytes": (t.Bytes, content),
        "int64": (t.Int64, lambda c: c.choice([2**53 + 1, -(2**63), 2**63 - 1, c.randrange(-9, 9)])),
        "int32": (t.Int32, lambda c: c.choice([2**31 - 1, -(2**31), c.randrange(-9, 9)])),
        "float64": (t.Float64, lambda c: c.choice([0.1, -0.0, float("inf"), c.random()])),
        "float32": (t.Float32, lambda c: c.choice([0.1, 2.5, c.random()])),
        "bool": (t.Bool, lambda c: c.random() < 0.5),
        "time": (t.UnixTimestamp, lambda c: AT + timedelta(seconds=c.randrange(-(10**9), 10**9))),
    }
    lists = {f"{name}_list": (t.Array(kind), lambda c, make=make: [make(c) for _ in range(c.randrange(4))]) for name, (kind, make) in single.items()}  # fmt: skip
    other: dict[str, tuple[Any, Makes]] = {
        "json": (t.Json, lambda c: c.choice(['{"a": 1}', "[]", '"ü"'])),
        "uuid": (t.Uuid, lambda c: str(uuid.UUID(int=c.getrandbits(128)))),
        "decimal": (t.Decimal, lambda c: decimal.Decimal(c.randrange(-999, 999)) / 100),
        "text_set": (t.Set(t.String), lambda c: {"x", text(c)}),
        "map": (t.Map, lambda c: {"a": text(c)}),
    }
    return single | lists | other


class Kitchen:
    """One Feast project over one online store."""

    def __init__(self, folder: Path, online: dict[str, Any], engine: str = "local", project: str = "shop") -> None:
        from feast.repo_config import RepoConfig

        folder.mkdir(parents=True, exist_ok=True)
        self.f = feast()
        self.store = self.f.FeatureStore(
            config=RepoConfig(
                project=project, provider="local", registry={"path": str(folder / "registry.db"), "cache_ttl_seconds": 3600},
                online_store=online, offline_store={"type": "file"}, batch_engine=engine if engine == "local" else {"type": engine},
                entity_key_serialization_version=3,
            )
        )  # fmt: skip

    def serve(
        self, fields: dict[str, Any], path: Path, keys: Sequence[tuple[str, Any]], ttl: timedelta = timedelta(0)
    ) -> Any:
        """A view of some fields over a file, by some keys (name, Feast type)."""
        types = {"String": self.f.ValueType.STRING, "Int64": self.f.ValueType.INT64}
        entities = [self.f.Entity(name=name, join_keys=[name], value_type=types[str(kind)]) for name, kind in keys]
        schema = [*(self.f.Field(name=name, dtype=kind) for name, kind in keys), *(self.f.Field(name=name, dtype=kind) for name, kind in fields.items())]  # fmt: skip
        batch = self.f.FileSource(name="rows", path=str(path), timestamp_field="event_timestamp")
        view = self.f.FeatureView(
            name="view",
            entities=entities,
            ttl=ttl,
            schema=schema,
            source=self.f.PushSource(name="push", batch_source=batch),
        )
        self.store.apply([*entities, view, self.f.FeatureService(name="service", features=[view])])
        return view

    def read(self, features: Any, rows: list[dict[str, Any]], **options: Any) -> Any:
        asked = self.store.get_feature_service(features) if isinstance(features, str) else features
        return self.store.get_online_features(features=asked, entity_rows=rows, **options)


@pytest.fixture(scope="module")
def redis_address() -> Iterator[str]:
    with running_redis() as server:
        yield server.address


@pytest.fixture(params=["sqlite", "redis"])
def two(request: pytest.FixtureRequest, redis_address: str, tmp_path: Path) -> tuple[Kitchen, Kitchen]:
    """Feast as it comes, on SQLite; and ours."""
    return Kitchen(tmp_path / "stock", {"type": "sqlite", "path": str(tmp_path / "stock.db")}), ours(request.param, redis_address, tmp_path)  # fmt: skip


def ours(kind: str, address: str, folder: Path) -> Kitchen:
    name = "feature_repo.online_store.Packed"
    online = {
        "sqlite": {"type": f"{name}SqliteOnlineStore", "path": str(folder / "ours.db"), "answer_at": NOW.isoformat()},
        "redis": {"type": f"{name}RedisOnlineStore", "address": address, "answer_at": NOW.isoformat()},
    }[kind]
    return Kitchen(folder / "ours", online, "feature_repo.engine.PackedComputeEngine", f"shop_{uuid.uuid4().hex[:8]}")


def told(response: Any) -> tuple[dict[str, Any], dict[str, list[int]]]:
    statuses = {
        name: list(vector.statuses)
        for name, vector in zip(response.proto.metadata.feature_names.val, response.proto.results, strict=True)
    }
    return {
        name: repr(values) for name, values in sorted(response.to_dict(include_event_timestamps=True).items())
    }, dict(sorted(statuses.items()))


def values(chance: random.Random, make: Makes, count: int) -> list[Any]:
    """Values of a column, of which some are null."""
    found = [None if chance.random() < 0.2 else make(chance) for _ in range(count)]
    return found if any(each is not None for each in found) else [make(chance), *found[1:]]


@pytest.mark.parametrize("seed", range(3))
def test_pushed_rows_of_random_schemas_are_read_alike(seed: int, two: tuple[Kitchen, Kitchen], tmp_path: Path) -> None:
    from feast import types as t

    chance, every = random.Random(seed), kinds()
    fields = dict(chance.sample(sorted(every.items()), 12))
    keys = chance.choice([[("item", t.String)], [("number", t.Int64)], [("item", t.String), ("number", t.Int64)]])
    count = 8
    # A whole number beside a null passes through a decimal on Feast's way of pushing: stated below.
    columns = {name: values(chance, make, count) if name != "int64" else [make(chance) for _ in range(count)] for name, (_, make) in fields.items()}  # fmt: skip
    ids = {"item": [f"é{n}" for n in range(count)], "number": [2**53 + n for n in range(count)]}
    frame = pd.DataFrame({name: ids[name] for name, _ in keys} | {"event_timestamp": [AT] * count} | {name: pd.Series(column, dtype=object) for name, column in columns.items()})  # fmt: skip
    asked = [{name: ids[name][n] for name, _ in keys} for n in (3, 0, 3, 7)] + [
        {name: "nobody" if name == "item" else -1 for name, _ in keys}
    ]
    answers = []
    for kitchen in two:
        kitchen.serve({name: kind for name, (kind, _) in fields.items()}, tmp_path / "none.parquet", keys)
        kitchen.store.write_to_online_store("view", frame)
        some = [f"view:{name}" for name in sorted(fields)[:3]]
        answers.append(
            [told(kitchen.read(*each)) for each in (("service", asked), (some, asked))]
            + [told(kitchen.read(some, asked, full_feature_names=True))]
        )
    assert answers[0] == answers[1]


@pytest.mark.parametrize("seed", range(2))
def test_materialised_rows_of_random_schemas_are_read_alike(
    seed: int, two: tuple[Kitchen, Kitchen], tmp_path: Path
) -> None:
    from feast import types as t

    chance = random.Random(seed)
    arrow = {
        "text": pa.string(), "bytes": pa.binary(), "int32": pa.int32(), "float64": pa.float64(), "bool": pa.bool_(),
        "time": pa.timestamp("us", "UTC"), "int64": pa.int64(),
    }  # fmt: skip
    every, count = kinds(), 200
    named = {name: every[name] for name in arrow} | {
        f"{name}_list": every[f"{name}_list"] for name in ("text", "int64", "float64", "bool")
    }
    columns = {
        name: pa.array(values(chance, make, count) if name not in ("int64", "int32") else [make(chance) for _ in range(count)], arrow.get(name) or pa.list_(arrow[name.removesuffix("_list")]))
        for name, (_, make) in named.items()
    }  # fmt: skip
    # Entities have several rows, in no order; some are outside of what is asked for.
    ids = [f"i{chance.randrange(40)}" for _ in range(count)]
    times = [AT - timedelta(minutes=n) for n in chance.sample(range(-60, 600), count)]
    table = pa.table({"item": ids, "event_timestamp": pa.array(times, pa.timestamp("us", "UTC")), **columns})
    pq.write_table(table, tmp_path / "rows.parquet")
    answers = []
    for kitchen in two:
        kitchen.serve(
            {name: kind for name, (kind, _) in named.items()}, tmp_path / "rows.parquet", [("item", t.String)]
        )
        kitchen.store.materialize(AT - timedelta(hours=8), AT)
        answers.append(told(kitchen.read("service", [{"item": f"i{n}"} for n in range(41)])))
    assert answers[0] == answers[1]


@pytest.fixture
def kitchen(two: tuple[Kitchen, Kitchen], tmp_path: Path) -> tuple[Kitchen, Kitchen]:
    from feast import types as t

    for each in two:
        each.serve({"zeta": t.Int64, "alpha": t.String}, tmp_path / "rows.parquet", [("item", t.String)], ttl=timedelta(minutes=30))  # fmt: skip
    return two


def rows(*given: tuple[str, datetime, int | None, str | None]) -> pd.DataFrame:
    return pd.DataFrame(given, columns=["item", "event_timestamp", "zeta", "alpha"]).astype({"zeta": object, "alpha": object})  # fmt: skip


def seen(kitchen: Kitchen, *items: str) -> list[Any]:
    return list(kitchen.read("service", [{"item": item} for item in items]).to_dict()["zeta"])


def test_feast_goes_on_answering_what_is_too_old(kitchen: tuple[Kitchen, Kitchen]) -> None:
    for each in kitchen:
        each.store.push("push", rows(("a", AT, 1, "x"), ("b", NOW, 2, "y")))
    stock, mine = kitchen
    assert seen(stock, "a", "b") == [1, 2]
    assert seen(mine, "a", "b") == [None, 2]
    _, statuses = told(mine.read("service", [{"item": "a"}, {"item": "b"}, {"item": "c"}]))
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

    names = [FieldStatus.Name(each) for each in statuses["zeta"]]
    assert names == ["OUTSIDE_MAX_AGE", "PRESENT", "NOT_FOUND"]


def test_feast_rounds_a_whole_number_beside_a_null(kitchen: tuple[Kitchen, Kitchen], tmp_path: Path) -> None:
    large = 2**53 + 1
    table = pa.table({"item": ["a", "b"], "event_timestamp": pa.array([NOW] * 2, pa.timestamp("us", "UTC")), "zeta": [large, None], "alpha": ["x", "y"]})  # fmt: skip
    pq.write_table(table, tmp_path / "rows.parquet")
    for each in kitchen:
        each.store.materialize(AT, NOW)
    assert [seen(each, "a", "b") for each in kitchen] == [[large - 1, None], [large, None]]


def test_feast_says_nothing_of_what_it_skipped(kitchen: tuple[Kitchen, Kitchen]) -> None:
    stock, mine = kitchen
    for each in kitchen:
        each.store.push("push", rows(("a", NOW, 2, "y")))
    assert stock.store.push("push", rows(("a", AT, 1, "x"))) is None
    online = mine.store._get_provider().online_store
    late = pa.Table.from_pandas(rows(("a", AT, 1, "x")), preserve_index=False)
    assert online.write_arrow(mine.store.config, mine.store.get_feature_view("view"), late) == Written(skipped=1)
    assert seen(mine, "a") == [2]


def test_feast_cannot_take_a_value_back_by_pushing_nulls(kitchen: tuple[Kitchen, Kitchen]) -> None:
    stock, mine = kitchen
    for each in kitchen:
        each.store.push("push", rows(("a", AT, 1, "x")))
    stock.store.push("push", rows(("a", NOW, None, None)))
    online = mine.store._get_provider().online_store
    nulls = pa.table({"item": ["a"], "event_timestamp": pa.array([NOW], pa.timestamp("us", "UTC")), "zeta": pa.nulls(1), "alpha": pa.nulls(1)})  # fmt: skip
    assert online.write_arrow(mine.store.config, mine.store.get_feature_view("view"), nulls) == Written(written=1)
    assert [seen(each, "a") for each in kitchen] == [[1], [None]]


def test_features_come_in_the_order_they_were_defined_in(kitchen: tuple[Kitchen, Kitchen]) -> None:
    names = list(kitchen[1].read("service", [{"item": "a"}]).to_dict())
    assert names == ["item", "zeta", "alpha"]
    asked = kitchen[1].read(["view:alpha", "view:zeta"], [{"item": "a"}])
    assert list(asked.to_dict()) == list(asked.proto.metadata.feature_names.val) == ["item", "alpha", "zeta"]


def test_one_entity_is_deleted_and_a_late_row_does_not_bring_it_back(kitchen: tuple[Kitchen, Kitchen]) -> None:
    mine = kitchen[1]
    mine.store.push("push", rows(("a", NOW, 1, "x"), ("b", NOW, 2, "y")))
    online = mine.store._get_provider().online_store
    view = mine.store.get_feature_view("view")
    assert online.delete_entities(mine.store.config, view, [{"item": "a"}], NOW) == 1
    mine.store.push("push", rows(("a", NOW, 1, "x")))
    assert seen(mine, "a", "b") == [None, 2]
    mine.store.push("push", rows(("a", NOW + timedelta(seconds=1), 3, "z")))
    assert seen(mine, "a") == [3]


def test_to_remove_one_shop_leaves_another_whose_name_ends_alike(redis_address: str, tmp_path: Path) -> None:
    from feast import types as t

    name = "feature_repo.online_store.PackedRedisOnlineStore"
    shops = []
    for project in ("bakery", "mybakery"):
        made = Kitchen(
            tmp_path / project, {"type": name, "address": redis_address, "answer_at": NOW.isoformat()}, project=project
        )
        made.serve({"zeta": t.Int64, "alpha": t.String}, tmp_path / "rows.parquet", [("item", t.String)])
        made.store.push("push", rows(("a", NOW, 1, "x")))
        shops.append(made)
    shops[0].store.teardown()
    assert seen(shops[1], "a") == [1]


def test_a_view_marked_personal_is_not_read_without_a_home_to_ask(redis_address: str, tmp_path: Path) -> None:
    from feast import types as t

    made = ours("sqlite", redis_address, tmp_path)
    view = made.serve({"zeta": t.Int64}, tmp_path / "rows.parquet", [("item", t.String)])
    view.tags = {"personal": "true"}
    made.store.apply([view])
    with pytest.raises(Exception, match="expected a feature service of the catalogue"):
        made.read("service", [{"item": "a"}])
