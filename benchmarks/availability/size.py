"""Ten million positions updated by a day's evidence: seconds and memory, beside one pass over the same arrays. In a process of its own."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import polars as pl

from benchmarks.harness import Measure, conditions
from models.stock.belief.beliefs import CELLS, CHUNK, Beliefs
from models.stock.belief.filtering import ASK, COUNT, IN, MISS, SALE, Evidence, found_probability, step
from models.stock.belief.parameters import Parameters, opening_errors

PLACES, ITEMS = 500, 20_000
SHARES = {SALE: 0.06, IN: 0.01, COUNT: 0.001, ASK: 0.004, MISS: 0.0002}  # of positions, a day
SECONDS, GIGABYTES = 60.0, 4.0
ROUNDS = 3


def measure(places: int = PLACES, items: int = ITEMS) -> Iterator[Measure]:
    """Measured in a child, so that nothing but the beliefs counts as memory."""
    load = os.getloadavg()[0]
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.availability.size", str(places), str(items)], capture_output=True, text=True, check=True
    )  # fmt: skip
    told = json.loads(child.stdout)
    stated = conditions(
        positions=places * items, cells=CELLS, events=told["events"], rounds=ROUNDS, load_average_at_start=round(load, 1), held_bytes=told["held_bytes"]
    )  # fmt: skip
    limit = "one pass in place"
    yield Measure("update_seconds", told["update"], "s", "lower", None, limit, told["one_pass"], stated)
    yield Measure("update_seconds_goal", told["update"], "s", "lower", SECONDS, conditions=stated)
    yield Measure("peak_memory", told["peak_bytes"] / 1e9, "GB", "lower", GIGABYTES, conditions=stated)
    yield Measure("found_probability_seconds", told["found"], "s for four quantities", "lower", conditions=stated)
    yield Measure("positions", places * items / told["update"], "positions/s", "higher", conditions=stated)


def prepared(places: int, items: int) -> tuple[Beliefs, Evidence]:
    """Beliefs of so many positions after some weeks, and a day's evidence."""
    rng = np.random.default_rng(7)
    count = places * items
    beliefs = Beliefs(
        parameters=Parameters(),
        locations=pl.DataFrame({"location_code": [f"S{n:04d}" for n in range(places)], "location_type": ["store"] * places, "timezone_name": ["UTC"] * places}),
        items=pl.DataFrame({"sku": [f"SKU-{n:05d}" for n in range(items)], "category": [f"c{n % 40}" for n in range(items)]}),
        place=np.repeat(np.arange(places, dtype=np.int32), items), item=np.tile(np.arange(items, dtype=np.int32), places),
        base=np.maximum(rng.integers(-30, 40, count, dtype=np.int32), 0), mass=np.empty((count, CELLS), np.float32), books=rng.integers(0, 40, count, dtype=np.int32),
        sold=rng.integers(0, 20, count).astype(np.float32), exposure=np.full(count, 30_000, np.float32), asked=np.zeros(count, np.float32),
        scale=np.ones(count, np.float32), quiet=np.zeros(count, np.float32), seen_day=np.zeros(count, np.int32), counted_day=np.zeros(count, np.int32),
        missed_day=np.zeros(count, np.int32), traffic=np.full(places, 1_000, np.float32), silent=np.zeros(places, np.float32), days=30.0,
    )  # fmt: skip
    usual = opening_errors(np.full(1, 0.5, np.float32), beliefs.parameters, CELLS)
    for start in range(0, count, CHUNK):
        beliefs.mass[start : start + CHUNK] = np.roll(usual, -int(rng.integers(0, CELLS)), axis=1)
    kinds, rows = [], []
    for kind, share in SHARES.items():
        chosen = np.flatnonzero(rng.random(count, dtype=np.float32) < share).astype(np.int32)
        rows.append(chosen)
        kinds.append(np.full(len(chosen), kind, np.int8))
    position, kind = np.concatenate(rows), np.concatenate(kinds)
    order = np.lexsort((kind, position))
    position, kind = position[order], kind[order]
    lines = np.bincount(position[kind == SALE], minlength=count).astype(np.float32)
    evidence = Evidence(
        position=position, kind=kind, units=np.ones(len(position), np.int32), day=np.full(len(position), 20_000, np.int32),
        found=np.ones(len(position), np.int32), lines=lines, heard=lines.reshape(places, items).sum(axis=1), heard_days=np.ones(places, np.float32),
        place=beliefs.place, item=beliefs.item, locations=beliefs.locations, items=beliefs.items,
    )  # fmt: skip
    return beliefs, evidence


def _timed(places: int, items: int) -> dict[str, float]:
    beliefs, evidence = prepared(places, items)
    updates, passes = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for start in range(0, len(beliefs), CHUNK):
            part = beliefs.mass[start : start + CHUNK]
            np.multiply(part, np.float32(1), out=part)
        passes.append(time.perf_counter() - began)
        began = time.perf_counter()
        step(beliefs, evidence)
        updates.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    began = time.perf_counter()
    found_probability(beliefs, (1, 2, 3, 4))
    return {
        "update": min(updates), "one_pass": min(passes), "found": time.perf_counter() - began, "peak_bytes": peak, "held_bytes": beliefs.nbytes(),
        "events": len(evidence.position),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(_timed(int(sys.argv[1]), int(sys.argv[2]))))
