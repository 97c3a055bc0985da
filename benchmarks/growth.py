"""How what a store costs grows with its rows: each figure beside the same one at the next smaller size, Redis and SQLite.

Written, published and read as in `materialize` and `feature_reads`, through the same calls; each step is a process of its own over
what the steps before left. Rows for reads and near-time writes are drawn from all there are.
"""

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.feature_reads import CALLS, ENTITIES, awake, timed
from benchmarks.harness import Measure, conditions
from benchmarks.materialize import CHANGED, changed, feast_repo, made_rows, place_of, run

SUMMARY = "How materialising, publishing, reading, near-time writes, memory and size of the store grow from 100,000 rows to ten million"
DRAWS = True
SIZES = {"full": (100_000, 1_000_000, 10_000_000), "medium": (100_000, 1_000_000), "small": (1_000, 10_000)}
NEAR_TIME = (1, 1_000)
LINEAR, LEVEL = 1.1, 1.3  # of each row with ten times as many; of what should not depend on how many there are
_DRAWN = 20_000  # entities that are read


@dataclass(frozen=True)
class Told:
    """One figure of one store at one size."""

    value: float
    unit: str
    goal: float | None
    conditions: Mapping[str, Any]


def measure(scale: str | None, plot: Path | None = None, run: Callable[..., dict[str, Any]] = run) -> Iterator[Measure]:
    """Each figure as a ratio to that at the next smaller size. `scale`: `full` (default; ten million rows), `medium` (one million) or `small`.

    `run`: who does a step, in a process of its own as it comes.
    """
    if (scale or "full") not in SIZES:
        raise SystemExit(f"scale: expected one of {', '.join(SIZES)}, found {scale}.")
    found: dict[tuple[str, str], dict[int, Told]] = {}
    with tempfile.TemporaryDirectory(prefix="troth-growth-") as name:
        smaller: int | None = None
        for rows in SIZES[scale or "full"]:
            folder = Path(name) / str(rows)
            folder.mkdir()
            source = made_rows(folder / "rows.parquet", rows)
            for kind in ("redis", "sqlite"):
                for what, told in _told(folder, kind, source, rows, run):
                    at = found.setdefault((kind, what), {})
                    at[rows] = told
                    yield _measure(f"{kind}_{what}_{rows}", told, smaller, at)
            source.unlink()
            smaller = rows
    if plot is not None:
        _draw(found, plot)


def _measure(name: str, told: Told, smaller: int | None, at: Mapping[int, Told]) -> Measure:
    here = conditions(**told.conditions, load_1min=round(os.getloadavg()[0], 1))
    if smaller is None:
        return Measure(name, told.value, told.unit, conditions=here)
    return Measure(name, told.value, told.unit, "lower", told.goal, f"{smaller:,} rows", at[smaller].value, here)


def _told(
    folder: Path, kind: str, source: Path, rows: int, run: Callable[..., dict[str, Any]]
) -> Iterator[tuple[str, Told]]:
    """Every figure of one kind of store at one size. Times that grow with the rows have the growth of the rows in their goal."""
    growth = 10 * LINEAR
    with place_of(folder, kind) as place:
        empty = _stored_bytes(kind, place)
        first = run("ours", kind, source, place)
        here = {"rows": rows, "rows_a_second": round(rows / first["seconds"])}
        yield "materialize", Told(first["seconds"], "s", growth, here)
        yield "materialize_peak", Told(first["peak_mb"], "MB", growth, here)
        yield "stored", Told((_stored_bytes(kind, place) - empty) / rows, "bytes a row", LINEAR, here)
        with awake():
            read = run("read", kind, source, place, module="growth")
            for count in ENTITIES:
                here = {"rows": rows, "entities": count, "features": 10, "calls": CALLS[count]}
                yield f"read_{count}_p50", Told(read[f"{count}_p50"], "ms", LEVEL, here)
                yield f"read_{count}_p99", Told(read[f"{count}_p99"], "ms", None, here)
            for count in NEAR_TIME:
                near = _drawn(source, folder / f"near_{count}.parquet", count)
                wrote = run("push", kind, near, place)
                yield (
                    f"near_time_{count}_p50",
                    Told(wrote["seconds"] * 1e3, "ms", LEVEL, {"rows": rows, "written": count}),
                )
    later = changed(source, folder / "later.parquet")
    with place_of(folder, kind) as place:
        whole, part = (run("publish", kind, path, place, folder / f"last_{kind}") for path in (source, later))
    here = {"rows": rows, "changed": CHANGED}
    yield "publish", Told(whole["seconds"], "s", growth, here | {"peak_mb": whole["peak_mb"]})
    yield "publish_changed", Told(part["seconds"], "s", growth, here | {"peak_mb": part["peak_mb"], "written": part["written"], "of_the_whole": round(part["seconds"] / whole["seconds"], 3)})  # fmt: skip
    later.unlink()


def _drawn(source: Path, to: Path, count: int) -> Path:
    """Some of the rows, from wherever they lie."""
    import polars as pl

    rows = pl.scan_parquet(source)
    total = rows.select(pl.len()).collect().item()
    chosen = pl.int_range(total, eager=True).sample(min(count, total), seed=5)
    rows.with_row_index().filter(pl.col("index").is_in(chosen.implode())).drop("index").collect().write_parquet(to)
    return to


def _stored_bytes(kind: str, place: str) -> int:
    """What the store takes: of memory in Redis, of disk in a file, once its journal is in it."""
    if kind == "redis":
        import redis

        with redis.Redis.from_url(place) as client:
            return int(client.info("memory")["used_memory"])
    import sqlite3
    from contextlib import closing

    if not Path(place).exists():
        return 0
    with closing(sqlite3.connect(place)) as file:
        file.execute("pragma wal_checkpoint(truncate)")
    return Path(place).stat().st_size


def step(_: str, kind: str, source: Path, place: str) -> dict[str, float]:
    """Milliseconds of `get_online_features(...).to_dict()`, of entities drawn from all there are."""
    import polars as pl

    store, _ = feast_repo("ours", kind, source, place)
    service = store.get_feature_service("availability_v1")
    drawn = _drawn(source, source.with_name("drawn.parquet"), _DRAWN)
    keys = pl.read_parquet(drawn, columns=["sku_id", "location_id"]).to_dicts()
    told: dict[str, float] = {}
    for count in ENTITIES:
        times = timed(
            lambda asked: store.get_online_features(features=service, entity_rows=asked).to_dict(), keys, count
        )
        told |= {f"{count}_p50": statistics.median(times), f"{count}_p99": times[int(len(times) * 0.99)]}
    return told


def _draw(found: Mapping[tuple[str, str], Mapping[int, Told]], path: Path) -> None:
    """Four panels, a line for each figure of each store; what grows with the rows beside a line that does."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = {
        "Seconds": ("materialize", "publish", "publish_changed"), "Reads and near-time writes, ms at p50": ("read_1_p50", "read_100_p50", "near_time_1_p50", "near_time_1000_p50"),
        "Peak memory, MB": ("materialize_peak",), "Bytes a row": ("stored",),
    }  # fmt: skip
    figure, every = plt.subplots(2, 2, figsize=(12, 9), layout="constrained")
    for axes, (title, names) in zip(every.flat, panels.items(), strict=True):
        for number, what in enumerate(names):
            for kind, style in (("redis", "-"), ("sqlite", "--")):
                at = found[kind, what]
                axes.plot(list(at), [each.value for each in at.values()], style, marker="o", markersize=3, color=f"C{number}", label=f"{what.removesuffix('_p50')}, {kind}")  # fmt: skip
        if title == "Seconds":
            at = found["redis", "materialize"]
            begin = min(at)
            axes.plot(list(at), [at[begin].value * each / begin for each in at], color="lightgray", zorder=0, label="ten times for ten times")  # fmt: skip
        axes.set(xscale="log", xlabel="rows", title=title)
        if len(names) > 1:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize="small")
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    _who, _kind, _source, _place = sys.argv[1:]
    print(json.dumps(step(_who, _kind, Path(_source), _place)))
