"""Drift: where the stream and the warehouse said otherwise of stock, with why, kept as a report of every rebase.

The warehouse's word is taken; a report says what it changed, for whoever asks how far the stream can be trusted.
"""

from datetime import UTC, datetime

import msgspec
import polars as pl

from models.stock.base import Announced
from models.stock.stream import Rebased
from troth.home import Home, write_atomically

FOLDER = "drift"
KEPT = 200  # reports; at one in 15 minutes two days
_REASONS = {"committed_units": "orders_told_by_files", "on_hand_units": "unexplained"}


class DriftRow(msgspec.Struct, frozen=True, kw_only=True):
    """One part of one position. `reason_code`: `moved_by_files` where movements that came by files alone are the whole difference,
    `orders_told_by_files`, `policy` for safety stock and protection, `unexplained`. `sources`: whose files."""

    location_code: str
    sku: str
    part: str
    streamed_units: int
    recomputed_units: int
    reason_code: str
    sources: list[str]


class DriftReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a rebase changed. `counts`: rows by reason; `rows`: the largest differences first, at most `MOST_ROWS`."""

    healed_at: datetime
    offset: int
    recomputed_at: datetime
    drifted: int
    counts: dict[str, int]
    rows: list[DriftRow]


MOST_ROWS = 1_000


def report(home: Home, before: Announced | None, told: Announced, rebased: Rebased, healed_at: datetime) -> DriftReport:
    """Keep a report of what a rebase changed, and forget the oldest ones."""
    rows = _explained(home, before, told, rebased)
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.reason_code] = counts.get(row.reason_code, 0) + 1
    largest = sorted(rows, key=lambda row: -abs(row.recomputed_units - row.streamed_units))[:MOST_ROWS]
    made = DriftReport(
        healed_at=healed_at,
        offset=told.offset,
        recomputed_at=told.recomputed_at,
        drifted=len(rows),
        counts=dict(sorted(counts.items())),
        rows=largest,
    )
    folder = home.stock / FOLDER
    write_atomically(folder / f"{healed_at.astimezone(UTC):%Y%m%dT%H%M%S%f}.json", msgspec.json.encode(made))
    for old in sorted(folder.glob("*.json"))[:-KEPT]:
        old.unlink()
    return made


def reports(home: Home) -> list[DriftReport]:
    """Reports of rebases, newest first."""
    found = sorted((home.stock / FOLDER).glob("*.json"), reverse=True)
    return [msgspec.json.decode(path.read_bytes(), type=DriftReport) for path in found]


def _explained(home: Home, before: Announced | None, told: Announced, rebased: Rebased) -> list[DriftRow]:
    drifts = rebased.drifts
    places = {(drift.location_code, drift.sku) for drift in drifts if drift.part == "on_hand_units"}
    new = _moved_since(home, before, told, places, rebased.confirmed)
    rows = []
    for drift in drifts:
        reason, sources = _REASONS.get(drift.part, "policy"), list[str]()
        if drift.part == "on_hand_units":
            units, sources = new.get((drift.location_code, drift.sku), (0, []))
            if units == drift.recomputed_units - drift.streamed_units:
                reason = "moved_by_files"
        rows.append(DriftRow(**drift._asdict(), reason_code=reason, sources=sources))
    return rows


def _moved_since(
    home: Home, before: Announced | None, told: Announced, places: set[tuple[str, str]], streamed: set[str]
) -> dict[tuple[str, str], tuple[int, list[str]]]:
    """Units that movements new to the warehouse brought, but for those the stream told too, by position; and their sources."""
    if before is None or not places:
        return {}
    wanted = pl.LazyFrame(list(places), schema=["location_code", "sku"], orient="row")
    old, new = (
        pl.scan_parquet(home.published / "stock_movements" / f"{each.tables['stock_movements']}.parquet")
        for each in (before, told)
    )
    found = (
        new.join(old.select("movement_id"), on="movement_id", how="anti")
        .filter(~pl.col("movement_id").is_in(list(streamed)))
        .with_columns(pl.col("location_code", "sku").cast(pl.String))
        .join(wanted, on=["location_code", "sku"], how="semi")
        .group_by("location_code", "sku").agg(pl.col("units").sum(), pl.col("source_name").unique().sort())
        .collect()
    )  # fmt: skip
    return {(place, sku): (int(units), sources) for place, sku, units, sources in found.iter_rows()}
