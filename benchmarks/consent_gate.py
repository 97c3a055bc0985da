"""The consent gate in process: one call, many at once, and a withdrawal heard by overlay."""

import os
import time
from collections.abc import Callable, Iterator
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
    """Microseconds a call (p50, p99) without what an empty timing costs, as a median of as many; checks/s by position.

    With the timer, and of a lookup in a dict of the same keys, which is the limit: in the conditions. `scale`: how many customers.
    """
    import numpy as np

    from consent.rule.gate import Gate
    from consent.rule.policy import read_policy

    customers, policy = int(scale or CUSTOMERS), read_policy()
    frame, links = _world(customers)
    began = time.perf_counter()
    gate = _built(Gate, frame, links, policy)
    state = conditions(customers=customers, events=frame.height, build_seconds=round(time.perf_counter() - began, 2))
    for name, ids in (("hot", 1_000), ("all", customers)):
        empty = _timed(_asked(ids), None)
        timer = _at(empty, 0.5)
        times, limit = _timed(_asked(ids), gate.allows), _timed(_asked(ids), lambda who, *_: gate.positions.get(who))
        here = {
            **state, "different_ids": ids, "calls": CALLS, "load_1min": round(os.getloadavg()[0], 2),
            "timer_p50_us": timer, "timer_p99_us": _at(empty, 0.99),
            "with_timer_p50_us": _at(times, 0.5), "with_timer_p99_us": _at(times, 0.99),
            "dict_lookup_with_timer_p99_us": _at(limit, 0.99),
        }  # fmt: skip
        yield Measure(f"allows_p50_{name}", _at(times, 0.5) - timer, "us", "lower", conditions=here)
        yield Measure(f"allows_p99_{name}", _at(times, 0.99) - timer, "us", "lower", 2, conditions=here)
    positions = np.random.default_rng(5).integers(0, customers, MANY)
    rates = []
    for _ in range(5):
        began = time.perf_counter()
        gate.allows_many(positions, "marketing", "email", AT)
        rates.append(MANY / (time.perf_counter() - began))
    yield Measure(
        "allows_many", sorted(rates)[2], "checks/s", "higher", 20e6, conditions={**state, "first_call": round(rates[0])}
    )


def _asked(ids: int) -> list[str]:
    """Whom every call asks about, as strings nobody has looked up before: a request does not know their hash either."""
    chance = Random(5)
    return [f"cus_{chance.randrange(ids)}" for _ in range(CALLS)]


def _timed(asked: list[str], ask: Callable[..., object] | None) -> list[int]:
    """Nanoseconds of each call, sorted; of timing alone where there is none."""
    clock, times = time.perf_counter_ns, []
    if ask is None:
        for _ in asked:
            began = clock()
            times.append(clock() - began)
        return sorted(times)
    for who in asked:
        began = clock()
        ask(who, "marketing", "email", AT)
        times.append(clock() - began)
    return sorted(times)


def _at(times: list[int], share: float) -> float:
    """Microseconds that a share of the calls kept below."""
    return times[int(len(times) * share)] / 1e3


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
