"""Rows of features into the online store: ours behind Feast's own `materialize`, Feast as it comes, and the limit of sending packed bytes.

Every run is a process of its own, so that its peak of memory is its own; importing Feast is not counted on either side.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.databases import redis_address
from benchmarks.harness import Measure, conditions

SUMMARY = "Materialising features into Redis and SQLite, all and what changed, and near-time writes: against Feast as it comes and the limit of packed bytes"
SIZES = {"full": (1_000_000, 10_000_000), "medium": (1_000_000, 0), "small": (20_000, 40_000)}
NEAR_TIME = (1, 1_000, 10_000)
CHANGED = 0.05
END = datetime(2026, 3, 2, tzinfo=UTC)
_LOCATIONS = 500
_WRITES = {1: 200, 1_000: 20, 10_000: 5}  # how often each is measured
_SENT_AT_A_TIME = 1_000_000  # rows of one piece of memory, of the limit
_LISTPACK = {"hash-max-listpack-value": "512"}


def measure(scale: str | None) -> Iterator[Measure]:
    """Ratios of time against Feast in the same run, at a million rows of ten features. `scale`: `full` (default; ten million, too), `medium` or `small`."""
    if (scale or "full") not in SIZES:
        raise SystemExit(f"scale: expected one of {', '.join(SIZES)}, found {scale}.")
    rows, many = SIZES[scale or "full"]
    with tempfile.TemporaryDirectory(prefix="troth-features-") as name:
        folder = Path(name)
        source = made_rows(folder / "rows.parquet", rows)
        state: dict[str, Any] = {"rows": rows, "features": 10, "load_1min": round(os.getloadavg()[0], 1)}
        ours: dict[str, dict[str, Any]] = {}
        for kind, goal in (("redis", 1 / 20), ("sqlite", 1 / 25)):
            for who in ("ours", "feast", "limit"):
                with place_of(folder, kind) as place:
                    ours[f"{who}_{kind}"] = run(who, kind, source, place)
                    if who == "ours":
                        ours[f"again_{kind}"] = run(who, kind, changed(source, folder / "again.parquet"), place)
            mine, peer, limit = (ours[f"{who}_{kind}"] for who in ("ours", "feast", "limit"))
            here = conditions(
                **state, rows_a_second=round(rows / mine["seconds"]), feast_rows_a_second=round(rows / peer["seconds"]),
                peak_mb=mine["peak_mb"], feast_peak_mb=peer["peak_mb"], written=mine["written"], load_after=round(os.getloadavg()[0], 1),
            )  # fmt: skip
            yield Measure(
                f"materialize_{kind}", mine["seconds"], "s", "lower", goal, "Feast 0.67", peer["seconds"], here
            )
            yield Measure(
                f"materialize_{kind}_of_limit", rows / mine["seconds"], "rows/s", "higher", 0.5,
                "packed bytes sent as they are, no guard, one writer", rows / limit["seconds"], here,
            )  # fmt: skip
            yield Measure(
                f"materialize_{kind}_again", ours[f"again_{kind}"]["seconds"], "s, every row newer than what is there", "lower", goal,
                "Feast 0.67, first time", peer["seconds"], here,
            )  # fmt: skip
            yield Measure(f"materialize_{kind}_peak", mine["peak_mb"], "MB", "lower", 1_000, conditions=here)
        with place_of(folder, "redis") as place:
            yield from _near_time(folder, place, state)
        if many:
            yield from _many(folder, many, rows, ours["ours_redis"]["seconds"], state)


def _many(folder: Path, many: int, rows: int, seconds: float, state: dict[str, Any]) -> Iterator[Measure]:
    """Growth, and what a publication costs of which a twentieth changed."""
    source = made_rows(folder / "many.parquet", many)
    with place_of(folder, "redis") as place:
        large = run("ours", "redis", source, place)
    here = conditions(
        **(state | {"rows": many}), rows_a_second=round(many / large["seconds"]), redis_mb=large["redis_mb"]
    )
    yield Measure(
        f"materialize_redis_{many}",
        large["seconds"] / (many / rows),
        "s for as many",
        "lower",
        1.1,
        f"{rows} rows",
        seconds,
        here,
    )
    with place_of(folder, "redis") as place:
        limit = run("limit", "redis", source, place)
    # What Redis takes of more keys grows by itself: its table of keys no longer fits where the processor has things at hand.
    yield Measure(
        f"materialize_redis_{many}_of_limit", many / large["seconds"], "rows/s", "higher", 0.5,
        "packed bytes sent as they are, no guard, one writer", many / limit["seconds"], here,
    )  # fmt: skip
    yield Measure(f"materialize_redis_{many}_peak", large["peak_mb"], "MB", "lower", 2_000, conditions=here)
    later = changed(source, folder / "later.parquet")
    with place_of(folder, "redis") as place:
        first, second = (run("publish", "redis", path, place, folder / "last") for path in (source, later))
    here = conditions(
        **(state | {"rows": many}), changed=CHANGED, written=second["written"], peak_mb=second["peak_mb"], first_peak_mb=first["peak_mb"],
    )  # fmt: skip
    yield Measure(
        "publish_changed", second["seconds"], "s", "lower", 0.15, "the same view, all of it", first["seconds"], here
    )


def _near_time(folder: Path, place: str, state: dict[str, Any]) -> Iterator[Measure]:
    goals = dict(zip(NEAR_TIME, (1 / 10, 1 / 20, 1 / 30), strict=True))
    for count in NEAR_TIME:
        source = made_rows(folder / f"near_{count}.parquet", count)
        mine, peer = (run(who, "redis", source, place) for who in ("push", "feast_push"))
        here = conditions(**(state | {"rows": count}), times=_WRITES[count], median_ms=round(mine["seconds"] * 1e3, 3), feast_median_ms=round(peer["seconds"] * 1e3, 3))  # fmt: skip
        yield Measure(f"near_time_{count}", mine["seconds"] * 1e3, "ms", "lower", goals[count], "Feast's push", peer["seconds"] * 1e3, here)  # fmt: skip


def made_rows(path: Path, count: int) -> Path:
    """Two keys and ten features: four whole numbers, four decimals, a boolean, a text."""
    import numpy as np
    import polars as pl

    chance, number = np.random.default_rng(7), np.arange(count)
    columns = {
        "sku_id": pl.Series([f"SKU-{each:07d}" for each in range(-(-count // _LOCATIONS))]).gather(
            number // _LOCATIONS
        ),
        "location_id": pl.Series([f"L{each:04d}" for each in range(_LOCATIONS)]).gather(number % _LOCATIONS),
        "event_timestamp": pl.Series(np.full(count, int(END.timestamp() * 1e6) - 3_600_000_000)).cast(
            pl.Datetime("us", "UTC")
        ),
        **{f"units_{each}": chance.integers(0, 1_000, count) for each in range(4)},
        **{f"share_{each}": chance.random(count) for each in range(4)},
        "has_stock": chance.random(count) < 0.8,
        "category": pl.Series([f"category {each}" for each in range(50)]).gather(chance.integers(0, 50, count)),
    }
    pl.DataFrame(columns).write_parquet(path)
    return path


def changed(path: Path, to: Path) -> Path:
    """The same an hour later, a twentieth of it otherwise."""
    import numpy as np
    import polars as pl

    rows = pl.read_parquet(path)
    other = pl.Series(np.random.default_rng(8).random(rows.height) < CHANGED)
    rows.with_columns(
        pl.col("event_timestamp") + timedelta(hours=1), units_0=pl.when(other).then(pl.col("units_0") + 1).otherwise(pl.col("units_0"))
    ).write_parquet(to)  # fmt: skip
    return to


def place_of(folder: Path, kind: str) -> Any:
    from contextlib import nullcontext

    if kind == "redis":
        return redis_address(folder, **_LISTPACK)
    path = folder / "online.db"
    for each in folder.glob("online.db*"):
        each.unlink()
    return nullcontext(str(path))


def run(who: str, kind: str, source: Path, place: str, *more: Path, module: str = "materialize") -> dict[str, Any]:
    """One run in a process of its own; what it says on its last line."""
    command = [sys.executable, "-m", f"benchmarks.{module}", who, kind, str(source), place, *map(str, more)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{module}, {who} with {kind}: expected it to work, found {done.stderr[-800:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def step(who: str, kind: str, source: Path, place: str, *more: Path) -> dict[str, Any]:
    """The same in this process."""
    if who == "limit":
        told = _limit(kind, source, place)
    elif who == "publish":
        told = _publish(kind, source, place, more[0])
    elif who in ("push", "feast_push"):
        told = _push(who, kind, source, place)
    else:
        told = _materialize(who, kind, source, place)
    return {"peak_mb": round(_peak_mb()), **told}


def feast_repo(who: str, kind: str, source: Path, place: str) -> tuple[Any, Any]:
    """A Feast store over our plug-ins or as it comes, and its one view; applied."""
    if who in ("ours", "push"):
        from feature_repo.feast_import import feast

        f: Any = feast()
    else:  # as it comes: our own import is the quicker one
        import feast as f
    from feast import types
    from feast.repo_config import RepoConfig

    if who in ("ours", "push"):
        engine: Any = {"type": "feature_repo.engine.PackedComputeEngine"}
        online = {
            "redis": {"type": "feature_repo.online_store.PackedRedisOnlineStore", "address": place},
            "sqlite": {"type": "feature_repo.online_store.PackedSqliteOnlineStore", "path": place},
        }[kind]
    else:
        host = place.removeprefix("redis://").partition("/")[0]
        online = {"redis": {"type": "redis", "connection_string": host}, "sqlite": {"type": "sqlite", "path": place}}[
            kind
        ]
        engine = "local"
    folder = tempfile.mkdtemp(prefix="troth-registry-")
    store = f.FeatureStore(
        config=RepoConfig(
            project="bench", provider="local", registry={"path": f"{folder}/registry.db", "cache_ttl_seconds": 3600}, online_store=online,
            offline_store={"type": "file"}, batch_engine=engine, entity_key_serialization_version=3,
        )
    )  # fmt: skip
    sku, place_of = (
        f.Entity(name=name, join_keys=[f"{name}_id"], value_type=f.ValueType.STRING) for name in ("sku", "location")
    )
    fields = {f"units_{n}": types.Int64 for n in range(4)} | {f"share_{n}": types.Float64 for n in range(4)} | {"has_stock": types.Bool, "category": types.String}  # fmt: skip
    batch = f.FileSource(name="rows", path=str(source), timestamp_field="event_timestamp")
    view = f.FeatureView(
        name="availability", entities=[sku, place_of], ttl=timedelta(days=36_500),
        schema=[f.Field(name="sku_id", dtype=types.String), f.Field(name="location_id", dtype=types.String)]
        + [f.Field(name=name, dtype=dtype) for name, dtype in fields.items()],
        source=f.PushSource(name="rows_push", batch_source=batch),
    )  # fmt: skip
    store.apply([sku, place_of, view, f.FeatureService(name="availability_v1", features=[view])])
    return store, store.get_feature_view("availability")


def _materialize(who: str, kind: str, source: Path, place: str) -> dict[str, Any]:
    store, view = feast_repo(who, kind, source, place)
    began = time.perf_counter()
    store.materialize(END - timedelta(days=1), END, disable_event_timestamp=False)
    seconds = time.perf_counter() - began
    told: dict[str, Any] = {"seconds": seconds, "written": None, "peak_mb": round(_peak_mb())}
    if who == "ours":
        packed = store._get_provider().online_store.store(store.config)
        bound = store._get_provider().online_store.bound(store.config, view)
        told["written"] = packed.standings([bound.view])[0].rows
    if kind == "redis":
        told["redis_mb"] = _redis_mb(place)
    _checked(store, source)
    return told


def _checked(store: Any, source: Path) -> None:
    """Whether some rows are read as they were written."""
    import polars as pl

    rows = pl.read_parquet(source).sample(5, seed=3).drop("event_timestamp").to_dicts()
    keys = [{name: row[name] for name in ("sku_id", "location_id")} for row in rows]
    found = store.get_online_features(features=store.get_feature_service("availability_v1"), entity_rows=keys).to_dict()
    for number, row in enumerate(rows):
        if {name: values[number] for name, values in found.items()} != row:
            raise SystemExit("materialize: expected to read what was written, found otherwise.")


def _limit(kind: str, source: Path, place: str) -> dict[str, Any]:
    """The same packed values, ready in memory before the clock starts, sent with no guard: what server or file can take."""
    import polars as pl

    from feature_repo import columns

    rows = columns.encoded(bench_view(), pl.read_parquet(source))
    if kind == "sqlite":
        return _limit_of_sqlite(rows, place)
    host, port = place.removeprefix("redis://").partition("/")[0].split(":")
    contents = [_plain(rows.slice(begin, _SENT_AT_A_TIME)) for begin in range(0, len(rows), _SENT_AT_A_TIME)]
    pieces = [content[at : at + (1 << 20)] for content in contents for at in range(0, len(content), 1 << 20)]
    began = time.perf_counter()
    with socket.create_connection((host, int(port))) as sent:
        left = len(rows)
        for piece in pieces:
            sent.sendall(piece)
            sent.setblocking(False)
            with suppress(BlockingIOError):
                left -= sent.recv(1 << 20).count(b"\n")
            sent.setblocking(True)
        while left:
            left -= sent.recv(1 << 20).count(b"\n")
    return {"seconds": time.perf_counter() - began}


def _plain(rows: Any) -> memoryview:
    """The rows as plain commands that set one field each."""
    import pyarrow.compute as pc

    from feature_repo.redis_wire import between, bulks

    names = bulks(pc.binary_join_element_wise(b"bench:", rows.keys, b""))
    sent = pc.binary_join_element_wise(b"*4\r\n$4\r\nHSET\r\n", names, b"$8\r\n00000000\r\n", bulks(rows.values), b"")
    return between(sent, 0, len(sent))


def _limit_of_sqlite(rows: Any, place: str) -> dict[str, Any]:
    import sqlite3

    given = [(key.decode(), value) for key, _, value in rows.rows()]
    began = time.perf_counter()
    with sqlite3.connect(place, isolation_level=None) as file:
        file.execute("pragma journal_mode = wal")
        file.execute("pragma synchronous = normal")
        file.execute("create table rows (entity text primary key, value blob not null) without rowid")
        file.execute("begin")
        file.executemany("insert into rows values (?, ?)", given)
        file.execute("commit")
    return {"seconds": time.perf_counter() - began}


def bench_view() -> Any:
    """The view of the benchmark, as ours."""
    from feature_repo.catalogue import Entity, Field, View

    fields = [Field(f"units_{n}", "integer", "") for n in range(4)] + [
        Field(f"share_{n}", "decimal", "") for n in range(4)
    ]
    return View(
        "availability", "availability", Entity("sku_location", ("sku_id", "location_id"), ""), "",
        (*fields, Field("has_stock", "boolean", ""), Field("category", "text", "")), timedelta(days=36_500), False, "event_timestamp",
    )  # fmt: skip


def _publish(kind: str, source: Path, place: str, last: Path) -> dict[str, Any]:
    """A published version of the view, as `publish` brings it to the store."""
    import polars as pl

    from feature_repo.changes import refresh
    from feature_repo.redis_store import redis_store
    from feature_repo.sqlite_store import SqliteStore

    store = redis_store(place, "bench") if kind == "redis" else SqliteStore(Path(place))
    began = time.perf_counter()
    done = refresh(store, bench_view(), pl.read_parquet(source), source.name, last)
    return {"seconds": time.perf_counter() - began, "written": done.written}


def _push(who: str, kind: str, source: Path, place: str) -> dict[str, Any]:
    """The median of writing the rows again and again, each time a little later."""
    import statistics

    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    store, view = feast_repo(who, kind, source, place)
    table = pq.read_table(source)
    online, times, count = store._get_provider().online_store, [], table.num_rows
    for number in range(_WRITES[count] + 2):
        at = END + timedelta(seconds=number)
        column = pa.array([at] * count, pa.timestamp("us", "UTC"))
        rows = table.set_column(table.column_names.index("event_timestamp"), "event_timestamp", column)
        frame: pd.DataFrame = rows.to_pandas()
        began = time.perf_counter()
        if who == "push":
            online.write_arrow(store.config, view, rows)
        else:
            store.push("rows_push", frame)
        times.append(time.perf_counter() - began)
    return {"seconds": statistics.median(times[2:])}


def _redis_mb(place: str) -> int:
    import redis

    with redis.Redis.from_url(place) as client:
        return round(int(client.info("memory")["used_memory"]) / 1e6)


def _peak_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    _who, _kind, _source, _place, *_more = sys.argv[1:]
    print(json.dumps(step(_who, _kind, Path(_source), _place, *map(Path, _more))))
