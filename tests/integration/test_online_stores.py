"""The online stores against one reference, in SQLite, one Redis and a cluster of them: what is written when, and what is read of it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from feature_repo import redis_store as module
from feature_repo.catalogue import Entity, Field, View
from feature_repo.changes import refresh
from feature_repo.columns import Encoded
from feature_repo.errors import FeatureError
from feature_repo.packed import EPOCH, layout_of
from feature_repo.redis_store import RedisStore, redis_store
from feature_repo.sqlite_store import SqliteStore
from feature_repo.store import OnlineStore, Standing, Written
from tests.integration.redis_server import RedisServer, running_cluster, running_redis

ITEM = Entity("item", ("sku",), "")
VIEW = View(
    "stock",
    "stock",
    ITEM,
    "",
    (Field("units", "integer", ""), Field("note", "text", "")),
    timedelta(days=1),
    False,
    "at",
)
OTHER = View("price", "price", ITEM, "", (Field("cents", "integer", ""),), timedelta(days=1), False, "at")
LAYOUT = layout_of(VIEW.online_fields)
KEYS = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        single = stack.enter_context(running_redis())
        cluster = stack.enter_context(running_cluster(tmp_path_factory.mktemp("cluster")))
        yield {"redis": single.address, "cluster": cluster}


@pytest.fixture(params=["sqlite", "redis", "cluster"])
def store(request: pytest.FixtureRequest, addresses: dict[str, str], tmp_path: Path) -> Iterator[OnlineStore]:
    made = opened(request.param, addresses, tmp_path)
    yield made
    made.destroy()
    made.close()


def opened(kind: str, addresses: dict[str, str], folder: Path) -> OnlineStore:
    if kind == "sqlite":
        made: OnlineStore = SqliteStore(folder / "online.db")
    else:
        made = redis_store(addresses[kind], "shop")
        made.destroy()
    made.keep([VIEW, OTHER])
    return made


def batch(rows: Sequence[tuple[str, int, int]]) -> Encoded:
    """(key, event time, units), one an entity."""
    return Encoded(
        pa.array([key.encode() for key, _, _ in rows], pa.binary()), np.array([at for _, at, _ in rows], dtype=np.int64),
        pa.array([LAYOUT.encode({"units": units, "note": f"n{units}"}) for _, _, units in rows], pa.binary()),
    )  # fmt: skip


def frame(rows: dict[str, tuple[int, int]]) -> pl.DataFrame:
    table = {"sku": list(rows), "at": [EPOCH + timedelta(microseconds=at) for at, _ in rows.values()], "units": [units for _, units in rows.values()]}  # fmt: skip
    return pl.DataFrame(table, schema={"sku": pl.String, "at": pl.Datetime("us", "UTC"), "units": pl.Int64}).with_columns(note=pl.lit("n") + pl.col("units").cast(pl.String))  # fmt: skip


def read(store: OnlineStore) -> dict[str, tuple[int, int]]:
    return {key: (row.event_us, row.values["units"]) for (_, key), row in store.read([VIEW], KEYS).items()}


class Reference:
    """What the stores are to do, in so many words."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[int, bool, int]] = {}
        self.erased: dict[str, int] = {}
        self.as_of = 0

    def write(self, rows: Sequence[tuple[str, int, int]]) -> Written:
        return sum((self._put(key, at, units, None) for key, at, units in rows), Written())

    def _put(self, key: str, at: int, units: int, version: int | None) -> Written:
        was = self.rows.get(key)
        since = -1 if was is None else was[0] if version is not None or not was[1] else max(was[0], self.as_of)
        follows = version == at
        if self.erased.get(key, -1) >= at or since > at:
            return Written(skipped=1)
        if was is not None and was[2] == units and (since == at or (follows and was[1])):
            return Written(unchanged=1)
        self.rows[key] = at, follows, units
        return Written(written=1)

    def refresh(self, rows: dict[str, tuple[int, int]]) -> None:
        as_of = max(at for at, _ in rows.values())
        for key, (at, units) in rows.items():
            self._put(key, at, units, as_of)
        self.rows = {key: row for key, row in self.rows.items() if key in rows or row[0] > as_of}
        self.as_of = as_of

    def read(self) -> dict[str, tuple[int, int]]:
        return {key: (max(at, self.as_of) if follows else at, units) for key, (at, follows, units) in self.rows.items()}


def half_a_version(store: OnlineStore, rows: Encoded) -> None:
    with store.refresh(VIEW, "half", 99, 4) as coming:
        coming.write(rows)
        coming.remove(KEYS)
        raise RuntimeError("lights out")


SOME = st.lists(
    st.tuples(st.sampled_from(KEYS), st.integers(0, 40), st.integers(0, 2)),
    min_size=1,
    max_size=4,
    unique_by=lambda row: row[0],
)
VERSION = st.dictionaries(st.sampled_from(KEYS), st.tuples(st.integers(0, 40), st.integers(0, 2)), min_size=1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), SOME), st.tuples(st.just("version"), VERSION), st.tuples(st.just("broken"), VERSION),
        st.tuples(st.just("erase"), st.tuples(st.sampled_from(KEYS), st.integers(0, 40))),
    ),
    max_size=10,
)  # fmt: skip


@pytest.mark.parametrize("kind", ["sqlite", "redis", "cluster"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
@example(steps=[("version", {"a": (5, 0)}), ("version", {"a": (7, 0), "b": (3, 0)}), ("write", [("a", 6, 1)])])
@example(steps=[("version", {"a": (5, 0)}), ("version", {"a": (6, 1), "b": (9, 0)}), ("write", [("a", 6, 2)])])
@example(steps=[("version", {"a": (5, 0)}), ("version", {"b": (9, 0)}), ("write", [("a", 4, 2)])])
def test_every_store_does_what_the_reference_does(
    kind: str, steps: Any, addresses: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("store")
    store, expected = opened(kind, addresses, folder), Reference()
    for number, (name, given_rows) in enumerate(steps):
        if name == "write":
            assert store.write(VIEW, batch(given_rows)) == expected.write(given_rows)
        elif name == "version":
            # Published in time: a version never ends before the one it replaces.
            rows = {key: (max(at, 0) + expected.as_of, units) for key, (at, units) in given_rows.items()}
            refresh(store, VIEW, frame(rows), f"v{number}", folder)
            expected.refresh(rows)
            assert store.standings([VIEW])[0].version == f"v{number}"
        elif name == "broken":
            with pytest.raises(RuntimeError, match="lights out"):
                half_a_version(store, batch([(key, at, units) for key, (at, units) in given_rows.items()]))
        else:
            key, at = given_rows
            store.erase(ITEM, [key], at)
            expected.erased[key] = max(at, expected.erased.get(key, -1))
            expected.rows.pop(key, None)
        assert read(store) == expected.read()
    store.close()


def test_views_of_one_entity_come_together_and_what_is_not_there_is_not(store: OnlineStore) -> None:
    store.write_rows(OTHER, [(("a",), 7, {"cents": 100})])
    store.write_rows(VIEW, [(("a",), 5, {"units": 1}), (("b",), 6, {"units": 2})])
    fetched = store.fetch([VIEW, OTHER], ["a", "b", "c", "a"])
    assert [[None if row is None else row[0] for row in rows] for rows in fetched.rows] == [
        [5, 6, None, 5],
        [7, None, None, 7],
    ]
    assert all(rows[0] == rows[3] for rows in fetched.rows)
    assert {key for key, _ in store.scan(VIEW)} == {"a", "b"}
    store.drop([VIEW])
    assert store.read([VIEW, OTHER], ["a"]).keys() == {("price", "a")}


def test_a_reader_sees_one_version_or_another_and_never_half(store: OnlineStore, tmp_path: Path) -> None:
    keys = [f"k{number}" for number in range(60)]
    faults: list[Any] = []
    seen: set[int] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            rows = store.fetch([VIEW], keys).rows
            units = {None if row is None else LAYOUT.decode(row[1])["units"] for (row,) in zip(*rows, strict=True)}
            seen.update(each for each in units if each is not None)
            if len(units) != 1:
                faults.append(units)
        store.close()

    refresh(store, VIEW, frame(dict.fromkeys(keys, (1, 0))), "v0", tmp_path)
    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 25):
        with patch("feature_repo.redis_wire.ROWS_AT_A_TIME", 7), patch("feature_repo.changes.ROWS_AT_A_TIME", 20):
            refresh(store, VIEW, frame(dict.fromkeys(keys, (1 + number, number))), f"v{number}", tmp_path)
    done.set()
    for reader in readers:
        reader.join()
    assert not faults
    assert len(seen) > 1


def test_only_what_changed_is_sent_and_what_is_confirmed_grows_no_older(store: OnlineStore, tmp_path: Path) -> None:
    rows = {f"k{number}": (10, number) for number in range(50)}
    assert refresh(store, VIEW, frame(rows), "v1", tmp_path) == Written(written=50)
    later = {key: (20, units) for key, (_, units) in rows.items()} | {"k3": (20, 99), "new": (20, 1)}
    del later["k7"]
    assert refresh(store, VIEW, frame(later), "v2", tmp_path) == Written(written=2, unchanged=48, removed=1)
    found = store.read([VIEW], ["k1", "k3", "k7", "new"])
    assert {key: (row.event_us, row.values["units"]) for (_, key), row in found.items()} == {"k1": (20, 1), "k3": (20, 99), "new": (20, 1)}  # fmt: skip


def test_a_near_time_row_gives_way_to_the_version_that_knows_better(store: OnlineStore, tmp_path: Path) -> None:
    refresh(store, VIEW, frame({"a": (10, 1), "b": (10, 1)}), "v1", tmp_path)
    store.write(VIEW, batch([("a", 15, 7), ("b", 25, 7)]))
    assert refresh(store, VIEW, frame({"a": (20, 1), "b": (20, 1)}), "v2", tmp_path).skipped == 1
    assert read(store) == {"a": (20, 1), "b": (25, 7)}


def test_a_store_that_lost_everything_is_filled_again(store: OnlineStore, tmp_path: Path) -> None:
    rows = frame({"a": (10, 1), "b": (10, 2)})
    refresh(store, VIEW, rows, "v1", tmp_path)
    store.destroy()
    assert refresh(store, VIEW, rows, "v2", tmp_path) == Written(written=2)
    assert store.standings([VIEW]) == [Standing("v2", 10, 2)]


def test_who_is_erased_is_gone_from_every_view_and_from_rows_that_name_them(store: OnlineStore) -> None:
    store.write_rows(OTHER, [(("a",), 7, {"cents": 100})])
    store.write_rows(
        VIEW, [(("a",), 5, {"units": 1}), (("b",), 6, {"units": 2, "note": "as a-17 said"}), (("a-17",), 6, {})]
    )
    assert store.erase(None, ["a-17"], 50) == 2
    assert store.read([VIEW], ["a", "b", "a-17"]).keys() == {("stock", "a")}
    assert store.write_rows(VIEW, [(("a-17",), 50, {"units": 9})]) == Written(skipped=1)
    assert store.write_rows(VIEW, [(("a-17",), 51, {"units": 9})]) == Written(written=1)
    assert store.erase(ITEM, ["a"], 50) == 2


def publish_and_die(address: str, folder: Path) -> None:
    rows = frame({f"k{number}": (20, 2) for number in range(400)})

    def write(*given: Any) -> Any:
        if write.count == 10:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)
        write.count += 1  # type: ignore[attr-defined]
        return before(*given)

    before, write.count = RedisStore._written, 0  # type: ignore[attr-defined]
    RedisStore._written = write  # type: ignore[method-assign,assignment]
    with patch("feature_repo.changes.ROWS_AT_A_TIME", 20):
        refresh(redis_store(address, "shop"), VIEW, rows, "v2", folder)


@pytest.mark.parametrize("again", ["v2", "v3"])
@pytest.mark.parametrize("kind", ["redis", "cluster"])
def test_a_publisher_that_is_killed_leaves_what_was_and_the_next_takes_over(
    kind: str, again: str, addresses: dict[str, str], tmp_path: Path
) -> None:
    store = opened(kind, addresses, tmp_path)
    old = {f"k{number}": (10, 1) for number in range(400)}
    refresh(store, VIEW, frame(old), "v1", tmp_path)
    child = multiprocessing.get_context("spawn").Process(target=publish_and_die, args=(addresses[kind], tmp_path))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    units = {row.values["units"] for row in store.read([VIEW], old).values()}
    assert (units, store.standings([VIEW])[0].version) == ({1}, "v1")
    newest = frame({f"k{number}": (30, 3) for number in range(0, 400, 2)})
    with pytest.raises(FeatureError, match="expected nobody else to publish it"):
        refresh(store, VIEW, newest, again, tmp_path)
    with patch.object(module, "LEASE_SECONDS", 0.0):
        refresh(store, VIEW, newest, again, tmp_path)
    assert {key: row.values["units"] for (_, key), row in store.read([VIEW], old).items()} == {
        f"k{n}": 3 for n in range(0, 400, 2)
    }
    store.destroy()


@pytest.mark.parametrize(
    "asked",
    [
        lambda store: store.standings([VIEW]), lambda store: store.fetch([VIEW], ["a"]), lambda store: list(store.scan(VIEW)),
        lambda store: store.write(VIEW, batch([("a", 1, 1)])), lambda store: store.erase(None, ["a"], 1), lambda store: store.destroy(),
    ],
    ids=["standings", "fetch", "scan", "write", "erase", "destroy"],
)  # fmt: skip
def test_a_redis_that_is_not_there_is_told_in_words_without_its_address(asked: Any) -> None:
    with pytest.raises(FeatureError, match="expected a Redis that works") as fault:
        asked(redis_store("redis://:secret@127.0.0.1:1/0"))
    assert "secret" not in str(fault.value)


def test_a_file_that_was_replaced_or_broken_is_not_read_on(tmp_path: Path) -> None:
    store, other = SqliteStore(tmp_path / "online.db"), SqliteStore(tmp_path / "other.db")
    for each, units in ((store, 1), (other, 2)):
        with each.refresh(VIEW, "v", 5, 1) as coming:
            coming.write(batch([("a", 5, units)]))
    assert read(store) == {"a": (5, 1)}
    for left in tmp_path.glob("online.db-*"):
        left.unlink()
    (tmp_path / "other.db").rename(tmp_path / "online.db")
    assert read(store)["a"][1] == 2
    (tmp_path / "broken.db").write_bytes(b"no database" * 1000)
    (tmp_path / "broken.db").rename(tmp_path / "online.db")
    with pytest.raises(FeatureError, match="expected a file that can be read"):
        read(store)
    (tmp_path / "online.db").unlink()
    with pytest.raises(FeatureError, match="found no file"):
        read(store)


def test_a_redis_that_was_started_anew_is_read_on_the_same_store(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        store = redis_store(server.address, "shop")
        store.write(VIEW, batch([("a", 5, 1)]))
        server.kill()
        with pytest.raises(FeatureError, match="expected a Redis that works"):
            store.fetch([VIEW], ["a"])
        server.start()
        assert read(store) == {"a": (5, 1)}
    finally:
        server.kill()
