"""Previews of segments over a million customers, and an export of half of them with its manifest."""

import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.harness import Measure, conditions

SUMMARY = (
    "Segments over a million customers: seconds of a preview (goal p50 1) and of an export of half of them (goal 60)"
)
SCALES = {"full": 1_000_000, "small": 20_000, "tiny": 2_000}
ROUNDS, COLD_ROUNDS = 9, 3
AT = datetime(2026, 5, 1, 2, tzinfo=UTC)
_WORLD = Path(__file__).with_name("segments_world.sql")
_HEAD = """
name: {name}
version: 1
description: As large as a segment is in the benchmark.
owner: benchmarks
purpose: marketing
channels: [email, sms]
holdout_percent: 10
where:
"""
SEGMENTS = {
    "lapsed": "  all:\n    - customer_purchases.order_count_90d >= 3\n    - customer_purchases.days_since_last_order > 28\n",
    "members": "  customers.tier_code in silver, gold\n",
    "lookers": "  all:\n    - viewed category_name = Category 3 in 14 days\n    - not: bought category_name = Category 3 in 14 days\n",
    "ranked": "  customer_engagement.view_count_30d >= 1\nrank: {by: customer_purchases.net_cents_90d, top: 100000}\n",
    "lookalikes": "  lookalike: {score: churn, top_percent: 10}\n",
    "everybody": "  customers.first_seen_at >= 2000-01-01\n",
}
# The columns of the tables that a preview of `lapsed` cannot do without, read once and nothing more made of them.
_READ_ONCE = """
select (select max(md5(concat(customer_id, email_ref, phone_ref))) from customers),
       (select max(concat(customer_id, order_count_90d, days_since_last_order)) from ftr_customer_purchases where feature_at = $at),
       (select max(concat(customer_id, is_allowed, reason_code, expires_at)) from consent_standing
        where purpose_code = 'marketing' and channel_code in ('email', 'sms'))
"""
_COLD = """
import sys, time
from pathlib import Path
from benchmarks.segments import AT, described
from models.segments.preview import preview
from troth.home import Home
home, segment = Home(Path(sys.argv[1])), described("lapsed")
began = time.perf_counter()
preview(home, segment, AT)
print(time.perf_counter() - began)
"""


def measure(scale: str | None, data: Path | None = None) -> Iterator[Measure]:
    """Previews of six definitions, others overlapping; the first also cold, in a process of its own; one export.

    `scale`: full (default), small or tiny. `data`: a folder that keeps the world for the next time.
    """
    from models.segments.preview import preview, record
    from troth.home import Home

    people = SCALES[scale or "full"]
    with tempfile.TemporaryDirectory() as folder:
        home = Home((data or Path(folder)) / f"segments-{people}")
        if not home.vault.exists():
            build(home, people)
        everything = [described(name) for name in SEGMENTS]
        began = time.perf_counter()
        record(home, everything, AT)
        state = conditions(people=people, record_all_seconds=round(time.perf_counter() - began, 2))
        limit = _median(lambda: _read_once(home))
        for name in SEGMENTS:
            segment = described(name)
            seconds, processor = _timed(lambda segment=segment: preview(home, segment, AT))
            found = preview(home, segment, AT)
            yield Measure(
                f"preview_{name}_p50", seconds, "s", "lower", 1 if name == "lapsed" else None,
                conditions={
                    **state, "matched": found.matched, "processor_s": round(processor, 3), "load_1min": round(os.getloadavg()[0], 2),
                    "reading_its_columns_once_s": round(limit, 3), "channels": 2, "overlaps": len(found.overlap),
                },
            )  # fmt: skip
        cold = statistics.median(_cold(home) for _ in range(COLD_ROUNDS))
        yield Measure("preview_lapsed_first_of_a_process", cold, "s", "lower", None, conditions=state)
        yield _export(home, Path(folder), state)


def described(name: str) -> Any:
    """A segment of the benchmark."""
    from models.segments.definition import parse

    return parse(_HEAD.format(name=name) + SEGMENTS[name])


def build(home: Any, people: int) -> None:
    """The published tables, the ledger in which people said it, and the vault with their addresses."""
    import duckdb

    from consent.ledger.opening import open_ledger
    from consent.vault import open_vault
    from models.tables import write
    from troth.clock import FixedClock

    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute("create macro share(n, what) as (hash(n, what) % 1000000) / 1000000.0")
        connection.execute("create macro one_of(list, number) as list[cast(1 + number % len(list) as bigint)]")
        connection.execute(
            "create macro token(kind, n) as kind || '_' || translate(substr(md5(kind || n), 1, 22), '0189', 'wxyz')"
        )
        connection.execute("create macro id_of(n) as 'cus_' || substr(md5('customer' || n), 1, 22)")
        connection.execute(
            f"""create table people as select n, id_of(n) as customer_id, token('account', n) as account_ref,
            share(n, 'mailbox') as mailbox_share,
            token('email', case when share(n, 'shared') < 0.03 then n - n % 10 else n end) as email_ref,
            case when share(n, 'said') < 0.75 then 'grant' when share(n, 'said') < 0.81 then 'refuse'
                 when share(n, 'said') < 0.85 then 'withdraw' when share(n, 'said') < 0.88 then 'old grant' end as said
            from range({people}) as numbers (n)"""  # noqa: S608 - a whole number
        )
        said = connection.sql("select account_ref, said from people where said is not null order by n").pl()
        addresses = connection.sql("select distinct email_ref from people where mailbox_share < 0.85 order by 1").pl()
        with open_ledger(home, FixedClock(AT)) as ledger:
            for part in _events(said).iter_slices(100_000):
                ledger.append_frame(part)
        for statement in _WORLD.read_text().split("\n\n-- ")[1:]:
            table, _, query = statement.partition("\n")
            values = {
                name: value for name, value in (("people", people), ("ledger_size", said.height)) if f"${name}" in query
            }
            ordered = f"select * from ({query.strip().rstrip(';')}) order by all"  # noqa: S608 - a file of ours
            write(home, table, connection.sql(ordered, params=values).pl())
    with open_vault(home) as vault:
        for part in addresses.iter_slices(100_000):
            vault.put((token, f"{token[6:]}@example.com") for token in part["email_ref"])


def _events(said: Any) -> Any:
    """What people said, each once, over every channel of marketing."""
    import polars as pl

    long_ago, lately = AT - timedelta(days=800), AT - timedelta(days=1)
    return said.select(
        pl.col("account_ref").alias("subject_id"),
        pl.col("said").replace("old grant", "grant").alias("event_type"),
        pl.lit("*").alias("channel_code"),
        pl.format("signal-{}", pl.int_range(pl.len())).alias("signal_id"),
        *(
            pl.when(pl.col("said") == "old grant").then(pl.lit(long_ago)).otherwise(pl.lit(lately)).alias(f"{clock}_at")
            for clock in ("occurred", "recorded", "received")
        ),
        purpose_code=pl.lit("marketing"),
        notice_id=pl.lit("web_banner"),
        notice_version=pl.lit(1, pl.Int64),
        language_code=pl.lit("en"),
        capture_method=pl.lit("form_tick"),
        capture_place=pl.lit("web_banner"),
        actor_type=pl.lit("subject"),
        jurisdiction_code=pl.lit("US-OR"),
    )


def _read_once(home: Any) -> None:
    from models.segments.sql import connected
    from models.tables import naive

    with connected(home, ("customers", "ftr_customer_purchases", "consent_standing")) as connection:
        connection.execute(_READ_ONCE, {"at": naive(AT)}).fetchall()


def _median(do: Any) -> float:
    return _timed(do)[0]


def _timed(do: Any) -> tuple[float, float]:
    """Median seconds by the wall and of the processors."""
    walls, processors = [], []
    for _ in range(ROUNDS):
        began, used = time.perf_counter(), time.process_time()
        do()
        walls.append(time.perf_counter() - began)
        processors.append(time.process_time() - used)
    return statistics.median(walls), statistics.median(processors)


def _cold(home: Any) -> float:
    done = subprocess.run([sys.executable, "-c", _COLD, str(home.root)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def _export(home: Any, folder: Path, state: dict[str, Any]) -> Measure:
    """Everybody over e-mail; what went out is compared with what the preview promised."""
    from models.segments.export import export
    from models.segments.preview import preview
    from models.segments.rules import Rules, read_rules

    segment, rules = described("everybody"), read_rules()
    rules = Rules(rules.exclusions, (), rules.test_groups, rules.hash)  # no caps: a kept world is exported again
    promised = preview(home, segment, AT, rules=rules).channels["email"]
    began, used = time.perf_counter(), time.process_time()
    report = export(home, segment, folder / "out", AT, channel="email", rules=rules)
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    with (folder / "out" / "members.csv").open(newline="") as file:
        rows = sum(1 for _ in csv.reader(file)) - 1
    if (report.exported, dict(report.refused), rows) != (promised.may_be_contacted, dict(promised.refused), rows):
        raise RuntimeError(f"expected {promised}, found {report.exported} exported, {rows} rows, {report.refused}")
    return Measure(
        "export", seconds, "s", "lower", 60,
        conditions={
            **state, "exported": rows, "matched": report.matched, "refused": dict(report.refused), "ledger_size": report.ledger_size,
            "processor_s": round(processor, 1), "load_1min": round(os.getloadavg()[0], 2),
            "bytes": (folder / "out" / "members.csv").stat().st_size,
        },
    )  # fmt: skip
