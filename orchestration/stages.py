"""What the steps between the rooms do, without Dagster: consents into the ledger, contacts into the vault, features online, models.

Each function is handed the home and says what it did; the assets give it a name, an upstream and checks.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from orchestration import taking
from orchestration.catalog import contract_of, contracts
from orchestration.summary import FeatureRow, LedgerRow, ModelRow, SegmentRow
from troth.clock import Clock
from troth.home import Home

Advance = Callable[[str, int, int], None]


def raw_rows(home: Home, table: str, columns: Sequence[str]) -> pl.DataFrame:
    """Rows of a raw table in the order of arrival, each record once."""
    contract = contract_of(table)
    order = ["received_at", "source_file", "record_offset"]
    rows = pl.scan_parquet(home.raw / table / "**/*.parquet").select({*columns, *contract.key, *order}).collect()
    return rows.sort(*order, maintain_order=True).unique(contract.key, keep="first", maintain_order=True).select(columns)


def append_consents(home: Home, clock: Clock, advance: Advance) -> LedgerRow:
    """Append what was captured to the ledger, then write its events and the policy where SQL reads them.

    Appending twice changes nothing: every event has a key of its own.
    """
    from consent.events import FIELDS
    from consent.ledger import Ledger
    from consent.policy import load_policy, notices_frame, policy_frame

    captured = raw_rows(home, "raw_consent__signals", FIELDS)
    with Ledger.open(home, clock) as ledger:
        before = ledger.size
        for start in range(0, captured.height, 10_000):
            ledger.append_frame(captured.slice(start, 10_000))
            advance("append consents", min(start + 10_000, captured.height), captured.height)
        ledger.verify()
        checkpoint = ledger.checkpoint()
        _write_raw(home, "consent_ledger", ledger.events_frame())
    policy = load_policy()
    _write_raw(home, "consent_policy", policy_frame(policy))
    _write_raw(home, "consent_notices", notices_frame(policy))
    return LedgerRow(checkpoint.size, checkpoint.size - before, checkpoint.root.hex(), True)


def fill_vault(home: Home) -> int:
    """Put every contact point seen in raw under its token. Gives the number of contact points the vault now holds."""
    from consent.vault import Vault

    with Vault.open(home) as vault:
        for contract in contracts():
            for column in contract.columns:
                if column.token_of and column.token_of[0] in ("email", "phone"):
                    value = column.token_of[1]
                    pairs = raw_rows(home, contract.table, [column.name, value]).drop_nulls().unique(column.name, keep="last", maintain_order=True)
                    vault.put(column.token_of[0], zip(pairs[column.name], pairs[value], strict=True))
        return vault.size


def publish_features(home: Home, advance: Advance) -> list[FeatureRow]:
    """Apply the Feast definitions and write changed rows to the online store."""
    from feature_repo.publishing import publish

    return [
        FeatureRow(name, count.rows, count.written, count.rows - count.written)
        for name, count in publish(home, lambda view, done, total: advance("publish features", done, total)).items()
    ]


def train_models(home: Home, ledger: LedgerRow | None, advance: Advance) -> list[ModelRow]:
    """Train what has new data, on rows whose consent for model_training held."""
    from models.build import train_all

    until = taking.known_until(home)
    assert until is not None  # noqa: S101  # marts are upstream
    reports = train_all(home, until, lambda model, done, total: advance("train models", done, total))
    return [ModelRow(r.model, r.version, r.outcome, r.rows, dict(r.left_out)) for r in reports]


def preview_segments(home: Home, at: datetime, advance: Advance) -> list[SegmentRow]:
    """Who every described segment matches, who of them may be contacted, and why the others may not."""
    from models.segments.definition import load_all
    from models.segments.preview import preview

    rows = []
    found = load_all()
    for done, segment in enumerate(found, start=1):
        seen = preview(home, segment, at)
        rows.append(SegmentRow(segment.name, segment.purpose, segment.channel, seen.matched, seen.may_be_contacted, dict(seen.refused)))
        advance("preview segments", done, len(found))
    return rows


def _write_raw(home: Home, table: str, frame: pl.DataFrame) -> None:
    path = home.raw / table / "data.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(".draft.parquet")
    frame.write_parquet(draft, compression="zstd", compression_level=1)
    draft.replace(path)


def as_metadata(row: Any) -> dict[str, Any]:
    """A summary row as Dagster metadata."""
    import msgspec

    return msgspec.to_builtins(row)
