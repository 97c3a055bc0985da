"""Features read in process: ours and Feast's own store through the same call, in Redis and SQLite; and what asking for consent costs.

Machines that idle answer late, and both sides then wait for the machine: two processes of the lowest priority keep it awake all the
while. Every side is a process of its own; importing Feast is not counted.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.harness import Measure, conditions
from benchmarks.materialize import END, bench_view, feast_repo, made_rows, place_of

SUMMARY = "One read of 1, 10 and 100 entities x 10 features in process, Redis and SQLite: against Feast as it comes, and with consent asked"
# Rows, and how often each side has its turn: whether client and server meet on one processor is luck, and makes half of a short read.
SIZES = {"full": (100_000, 5), "small": (5_000, 1)}
ENTITIES = (1, 10, 100)
GOALS = {1: 1 / 4, 10: 1 / 10, 100: 1 / 18}
CALLS = {1: 2_000, 10: 1_000, 100: 300}
ROUNDS = 5
LEDGER_SIZE = 7


def measure(scale: str | None) -> Iterator[Measure]:
    """Milliseconds at p50 and p99 as ratios to Feast's. `scale`: `full` (default) or `small`."""
    if (scale or "full") not in SIZES:
        raise SystemExit(f"scale: expected one of {', '.join(SIZES)}, found {scale}.")
    rows, turns = SIZES[scale or "full"]
    with tempfile.TemporaryDirectory(prefix="troth-reads-") as name, awake():
        folder = Path(name)
        source = made_rows(folder / "rows.parquet", rows)
        for kind in ("redis", "sqlite"):
            told: dict[str, list[dict[str, float]]] = {"ours": [], "feast": []}
            for _ in range(turns):
                for who, of_turns in told.items():
                    with place_of(folder, kind) as place:
                        of_turns.append(_run(who, kind, source, place))
            ours, feast = (_middle(each) for each in told.values())
            for count in ENTITIES:
                for at in ("p50", "p99"):
                    here = conditions(rows=rows, entities=count, features=10, calls=CALLS[count], turns=turns, load_1min=round(os.getloadavg()[0], 1))  # fmt: skip
                    mine, peer = ours[f"{count}_{at}"], feast[f"{count}_{at}"]
                    goal = GOALS[count]
                    yield Measure(f"read_{kind}_{count}_{at}", mine, "ms", "lower", goal, "Feast 0.67", peer, here)
        for kind in ("redis", "sqlite"):
            with place_of(folder, kind) as place:
                asked = _run("consent", kind, source, place)
            for count in ENTITIES:
                here = conditions(rows=rows, entities=count, features=10, calls=CALLS[count], rounds=ROUNDS, load_1min=round(os.getloadavg()[0], 1))  # fmt: skip
                goal = 1.15 if count > 1 else None
                yield Measure(
                    f"consent_{kind}_{count}_p50", asked[f"asked_{count}"], "ms", "lower", goal, "the same read, of nobody", asked[f"open_{count}"], here
                )  # fmt: skip


@contextmanager
def awake() -> Iterator[None]:
    """The machine's processors kept awake, at the lowest priority."""
    busy = [subprocess.Popen([sys.executable, "-c", "import os\nos.nice(19)\nwhile True: pass"]) for _ in range(2)]
    try:
        yield
    finally:
        for each in busy:
            each.kill()
            each.wait()


def _middle(turns: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}


def _run(who: str, kind: str, source: Path, place: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.feature_reads", who, kind, str(source), place]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"feature reads, {who} from {kind}: expected them to work, found {done.stderr[-800:]}")
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def _main(who: str, kind: str, source: str, place: str) -> None:
    print(
        json.dumps(_consent(kind, Path(source), place) if who == "consent" else _reads(who, kind, Path(source), place))
    )


def _reads(who: str, kind: str, source: Path, place: str) -> dict[str, float]:
    """Through Feast's own `get_online_features(...).to_dict()`."""
    store, _ = feast_repo(who, kind, source, place)
    store.materialize(END - timedelta(days=1), END)
    service, keys = store.get_feature_service("availability_v1"), _keys(source)
    told = {}
    for count in ENTITIES:
        times = timed(
            lambda asked: store.get_online_features(features=service, entity_rows=asked).to_dict(), keys, count
        )
        told |= {f"{count}_p50": statistics.median(times), f"{count}_p99": times[int(len(times) * 0.99)]}
    return told


def _consent(kind: str, source: Path, place: str) -> dict[str, float]:
    """`read_features` of a personal view and of the same view that is nobody's, by turns; everybody has said yes."""
    import msgspec
    import polars as pl

    from feature_repo import catalogue
    from feature_repo.catalogue import STANDING_SLOTS, SUBJECT_GATE, Service
    from feature_repo.changes import refresh
    from feature_repo.columns import encoded
    from feature_repo.publish import in_short
    from feature_repo.reads import Source, read_features

    if kind == "redis":
        from feature_repo.redis_store import redis_store

        store: Any = redis_store(place)
    else:
        from feature_repo.sqlite_store import SqliteStore

        store = SqliteStore(Path(place))
    rows = pl.read_parquet(source).with_columns(customer_id=pl.format("cus_{}", pl.int_range(pl.len())))
    services = {}
    for name, is_personal in (("open", False), ("asked", True)):
        view = replace(bench_view(), entity=catalogue.CUSTOMER, name=f"{name}_features", is_personal=is_personal)
        services[name] = Service(f"{name}_v1", "", (view,), "personalization" if is_personal else None)
        store.write(view, encoded(view, rows))
    standing = rows.select(
        "customer_id", feature_at="event_timestamp",
        **{name: value for slot in STANDING_SLOTS for name, value in ((f"is_{slot}_allowed", pl.lit(value=True)), (f"reason_{slot}", pl.lit("granted")))},
        **{f"expires_{slot}_at": pl.lit(None, pl.Datetime("us")) for slot in STANDING_SLOTS},
    )  # fmt: skip
    refresh(store, SUBJECT_GATE, in_short(standing), "v1", source.parent / "last", LEDGER_SIZE)
    from_where, keys = Source(store, lambda: LEDGER_SIZE), rows.select("customer_id").to_dicts()
    told = {}
    for count in ENTITIES:
        found: dict[str, list[float]] = {"open": [], "asked": []}
        for _ in range(ROUNDS):
            for name, service in services.items():
                found[name].append(statistics.median(timed(lambda asked, service=service: read_features(from_where, service, asked, END), keys, count)))  # type: ignore[misc]  # fmt: skip
        told |= {f"{name}_{count}": min(times) for name, times in found.items()}
        answers = read_features(from_where, services["asked"], keys[:count], END)
        if not all(each.is_allowed and each.features for each in answers):
            raise SystemExit(
                f"feature reads: expected everybody to be allowed, found {msgspec.to_builtins(answers[0])}."
            )
    return told


def _keys(source: Path) -> list[dict[str, str]]:
    import polars as pl

    return pl.read_parquet(source, columns=["sku_id", "location_id"]).to_dicts()


def timed(read: Callable[[Sequence[Any]], object], keys: Sequence[Any], count: int) -> list[float]:
    """Milliseconds of each of some reads, sorted."""
    chance, times = random.Random(count), []
    calls = [chance.sample(keys, count) for _ in range(CALLS[count] // ROUNDS)] * ROUNDS
    for number, asked in enumerate(calls):
        began = time.perf_counter()
        read(asked)
        if number >= CALLS[count] // 10:
            times.append((time.perf_counter() - began) * 1e3)
    return sorted(times)


if __name__ == "__main__":
    _main(*sys.argv[1:])
