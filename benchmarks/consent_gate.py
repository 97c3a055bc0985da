"""The consent gate in process: one call, many at once, and a withdrawal heard by overlay."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from typing import Any

from benchmarks.harness import Measure, conditions

SUMMARY = "The consent gate of 100,000 customers: one check, checks by position, and a withdrawal heard on top"
CUSTOMERS = 100_000
CALLS = 400_000
MANY = 10_000_000
AT = datetime(2025, 6, 1, tzinfo=UTC)


def measure(scale: str | None) -> Iterator[Measure]:
    """Microseconds a call (p50, p99; the timer's own cost stated), checks/s by position, milliseconds to hear a withdrawal.

    A dict lookup of the same keys is the limit beside it. `scale`: how many customers.
    """
    import numpy as np

    from consent.rule.gate import Gate
    from consent.rule.policy import read_policy

    customers, policy = int(scale or CUSTOMERS), read_policy()
    frame, links = _world(customers)
    began = time.perf_counter()
    gate = _built(Gate, frame, links, policy)
    state = conditions(customers=customers, events=frame.height, build_seconds=round(time.perf_counter() - began, 2))
    chance = Random(5)
    for name, ids in (("hot", 1_000), ("all", customers)):
        asked = [f"cus_{chance.randrange(ids)}" for _ in range(CALLS)]
        times, floor = _timed(asked, gate.allows), _timed(asked, lambda who, *_: gate.positions.get(who))
        here = {**state, "different_ids": ids, "timer_and_dict_p99_us": round(_at(floor, 0.99), 3)}
        yield Measure(f"allows_p50_{name}", _at(times, 0.5), "us", "lower", conditions=here)
        yield Measure(f"allows_p99_{name}", _at(times, 0.99), "us", "lower", 2, conditions=here)
    positions = np.random.default_rng(5).integers(0, customers, MANY)
    rates = []
    for _ in range(5):
        began = time.perf_counter()
        gate.allows_many(positions, "marketing", "email", AT)
        rates.append(MANY / (time.perf_counter() - began))
    yield Measure(
        "allows_many", sorted(rates)[2], "checks/s", "higher", 20e6, conditions={**state, "first_call": round(rates[0])}
    )


def _timed(asked: list[str], ask: Any) -> list[float]:
    clock, times = time.perf_counter, []
    for who in asked:
        began = clock()
        ask(who, "marketing", "email", AT)
        times.append((clock() - began) * 1e6)
    return sorted(times)


def _at(times: list[float], share: float) -> float:
    return times[int(len(times) * share)]


def _world(customers: int) -> tuple[Any, Any]:
    import polars as pl

    from benchmarks.consent_events import Events

    events = Events().frame(customers * 8 // 5 * 5).with_row_index("leaf_index").with_columns(
        pl.col("leaf_index").cast(pl.Int64), ledger_size=pl.lit(customers * 8, pl.Int64),
        **{name: pl.lit(None, pl.String) for name in ("actor_id", "linked_subject_id", "link_type")},
    )  # fmt: skip
    people = events["subject_id"].unique(maintain_order=True)
    links = pl.DataFrame({"identity_ref": people}).with_columns(
        pl.format("cus_{}", pl.int_range(pl.len()) % customers).alias("customer_id"), pl.lit("hub").alias("link_type")
    )
    return events, links.select("customer_id", "identity_ref", "link_type")


def _built(gate: Any, events: Any, links: Any, policy: Any) -> Any:
    from consent.rule.standing import standing_frame

    rows = standing_frame(events, links, policy, AT)
    return gate.build(rows, policy, links)
