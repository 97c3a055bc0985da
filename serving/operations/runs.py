"""What the last run left for people to read: its report, days that are not finished, and rows that were set aside. Written elsewhere.

The command line prints them and the console shows them. No personal data: figures, reasons, names of files.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import msgspec
import polars as pl

from troth.home import Home

LAST_RUN = "last_run.json"
UNFINISHED = "unfinished_days.json"
_COUNTED = {
    "table": pl.String(),
    "reason_code": pl.String(),
    "rows": pl.Int64(),
    "days": pl.Int64(),
    "newest_at": pl.Datetime("us", "UTC"),
}


class StageTime(msgspec.Struct):
    stage: str
    seconds: float


class SourceRow(msgspec.Struct):
    """One source: files and rows taken, rows set aside with the commonest reasons, identities it knows people by."""

    source: str
    files: int
    duplicate_files: int
    rows: int
    aside: int
    reasons: dict[str, int]


class StockRow(msgspec.Struct):
    source: str
    positions: int
    units: int


class SegmentRow(msgspec.Struct):
    segment: str
    purpose: str
    channel: str
    matched: int
    may_be_contacted: int
    refused: dict[str, int]


class FeatureRow(msgspec.Struct):
    view: str
    rows: int
    written: int
    skipped: int


class ModelRow(msgspec.Struct):
    model: str
    version: str
    outcome: str
    rows: int
    left_out: dict[str, int]


class LedgerRow(msgspec.Struct):
    """The ledger after a run. `links`: events of those appended that link identities, or part them."""

    size: int
    appended: int
    root: str
    verified: bool
    aside: dict[str, int] = {}
    links: int = 0


class IdentityRow(msgspec.Struct):
    """Who is who after a run. `decisions`: pairs of records weighed, by what became of them; `moved`: identifiers of another customer now."""

    model: str
    records: int
    compared: int
    identities: int
    customers: int
    decisions: dict[str, int] = {}
    moved: int = 0


class DuplicatesRow(msgspec.Struct):
    """What one person known twice costs a year, in cents: `saved` by what likeness joined, `left` expected of `expected` pairs still apart."""

    joined: int
    saved_cents: int
    expected: float
    left_cents: int
    split_cents: int
    double_mailings: float


class BeliefRow(msgspec.Struct):
    """What a believing did. `model_version` is "" while expectations decide; `doubtful`: recorded positions that are empty with more than even odds."""

    positions: int
    picks: int
    model_version: str
    is_learned_now: bool
    doubtful: int
    safety_changes: int
    worth_counting: int


class CheckCounts(msgspec.Struct):
    passed: int = 0
    failed: int = 0
    failures: list[str] = []


class RunReport(msgspec.Struct):
    """A finished run: everything the closing tables show."""

    home: str
    is_changed: bool
    known_until: str | None
    sources: list[SourceRow] = []
    identities: dict[str, int] = {}
    customers: int = 0
    stock: list[StockRow] = []
    ledger: LedgerRow | None = None
    resolution: IdentityRow | None = None
    belief: BeliefRow | None = None
    duplicates: DuplicatesRow | None = None
    segments: list[SegmentRow] = []
    features: list[FeatureRow] = []
    models: list[ModelRow] = []
    checks: CheckCounts = msgspec.field(default_factory=CheckCounts)
    stages: list[StageTime] = []
    fingerprint: str = ""


def last_report(home: Home) -> RunReport | None:
    """The report of the last finished run; None when there is none, or an older Troth wrote it."""
    path = home.reports / LAST_RUN
    try:
        return msgspec.json.decode(path.read_bytes(), type=RunReport)
    except (FileNotFoundError, msgspec.ValidationError):
        return None


def unfinished(home: Home) -> list[str] | None:
    """Days of a run that did not end; None when the last one did."""
    path = home.reports / UNFINISHED
    return msgspec.json.decode(path.read_bytes(), type=list[str]) if path.exists() else None


def set_aside(home: Home) -> pl.DataFrame:
    """Rows set aside, counted: table, reason_code, rows, days, newest_at; most first. Each file is read once as long as it is as it was."""
    counted = [_counted(path, state.st_mtime_ns, state.st_size) for path, state in _quarantines(home)]
    if not counted:
        return pl.DataFrame(schema=_COUNTED)
    sums = pl.concat(counted).group_by("table", "reason_code")
    return sums.agg(pl.col("rows").sum(), days=pl.len().cast(pl.Int64), newest_at=pl.col("newest_at").max()).sort(
        "rows", "table", "reason_code", descending=[True, False, False]
    )


def _quarantines(home: Home) -> Iterator[tuple[Path, os.stat_result]]:
    for path in sorted(home.quarantine.glob("*/day=*/data.parquet")):
        with suppress(FileNotFoundError):  # read again meanwhile, and nothing set aside
            yield path, path.stat()


@lru_cache(maxsize=10_000)
def _counted(path: Path, modified_ns: int, size: int) -> pl.DataFrame:
    """A file's rows by reason. What it is called with beside the path makes a file that was replaced another one."""
    found = pl.read_parquet(path, columns=["reason_code", "received_at"]).group_by("reason_code")
    counted = found.agg(rows=pl.len().cast(pl.Int64), newest_at=pl.col("received_at").max())
    return counted.select(pl.lit(path.parent.parent.name).alias("table"), "reason_code", "rows", "newest_at")
