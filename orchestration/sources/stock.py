"""Events of stock that systems sent one by one, in the plain contract of the intake. Contracts and the readers."""

from pathlib import Path

import polars as pl
from msgspec import Struct

from orchestration.sources.contract import Column, Contract, FileKind, Reading, Source
from orchestration.sources.json_lines import Scalar, column, read_json_lines, texts
from serving.intake.plain import LEVEL_TYPES, MOVEMENT_TYPES, SUPPLY_TYPES

_NOBODY_HAS_TO = 24 * 3650  # hours: a retailer may send files alone
_SENT = (
    Column("event_id", "text", "Sender's id of the event.", required=True),
    Column("source_name", "text", "System that sent it.", required=True),
    Column("location_code", "text", "Location whose stock it is about.", required=True),
    Column("sku", "text", "Item.", required=True),
    Column("occurred_at", "timestamp", "When, by the sender's clock.", required=True),
    Column("recorded_at", "timestamp", "When the sender wrote it down."),
)
MOVEMENTS = Contract(
    table="raw_stock__movements",
    description="Stock that came or went, told as it happened. One row per movement.",
    key=("movement_id",),
    columns=(
        Column("movement_id", "text", "Movement; a file that tells the same one names it the same.", required=True),
        Column("movement_type", "text", "Kind.", required=True, values=MOVEMENT_TYPES),
        Column("units", "integer", "Pieces, signed: what came is positive.", required=True),
        Column("source_ref", "text", "Document it rests on."),
        *_SENT,
    ),
    freshness_hours=_NOBODY_HAS_TO,
)
SUPPLIES = Contract(
    table="raw_stock__supplies",
    description="Pieces on their way, each time that was told. One row per document, location, item and time.",
    key=("supply_id", "location_code", "sku", "occurred_at"),
    columns=(
        Column("supply_id", "text", "Purchase order or transfer, with its line.", required=True),
        Column("supply_type", "text", "Kind.", required=True, values=SUPPLY_TYPES),
        Column(
            "open_units", "integer", "Pieces still to come; 0 when all came or none will.", required=True, minimum=0
        ),
        Column("expected_at", "timestamp", "When they are to arrive.", required=True),
        *_SENT,
    ),
    freshness_hours=_NOBODY_HAS_TO,
)
COUNTS = Contract(
    table="raw_stock__counts",
    description="Pieces that somebody counted. One row per count.",
    key=("count_id",),
    columns=(
        Column("count_id", "text", "Count.", required=True),
        Column("counted_units", "integer", "Pieces found.", required=True, minimum=0),
        *_SENT,
    ),
    freshness_hours=_NOBODY_HAS_TO,
)
LEVELS = Contract(
    table="raw_stock__levels",
    description="What systems' own books say there is, absolute. One row per location, item, kind of figure and high-water mark.",
    key=("location_code", "sku", "level_type", "occurred_at"),
    columns=(
        Column(
            "level_type",
            "text",
            "available, as a web shop counts, less what is ordered; or on_hand, as a warehouse system does.",
            required=True,
            values=LEVEL_TYPES,
        ),
        Column("reported_units", "integer", "Pieces; may be negative.", required=True),
        *_SENT,
    ),
    freshness_hours=_NOBODY_HAS_TO,
)
CONTRACTS = (MOVEMENTS, SUPPLIES, COUNTS, LEVELS)


class Sent(Struct, gc=False):
    """A line of any of the files."""

    event_id: Scalar = None
    source_name: Scalar = None
    location_code: Scalar = None
    sku: Scalar = None
    occurred_at: Scalar = None
    recorded_at: Scalar = None
    movement_id: Scalar = None
    movement_type: Scalar = None
    units: Scalar = None
    source_ref: Scalar = None
    supply_id: Scalar = None
    supply_type: Scalar = None
    open_units: Scalar = None
    expected_at: Scalar = None
    count_id: Scalar = None
    counted_units: Scalar = None
    level_type: Scalar = None
    reported_units: Scalar = None


def read_movements(path: Path) -> Reading:
    """Movements, one row per line."""
    return _read(path, MOVEMENTS)


def read_supplies(path: Path) -> Reading:
    """Supplies, one row per line."""
    return _read(path, SUPPLIES)


def read_counts(path: Path) -> Reading:
    """Counts, one row per line."""
    return _read(path, COUNTS)


def read_levels(path: Path) -> Reading:
    """Levels, one row per line."""
    return _read(path, LEVELS)


def _read(path: Path, contract: Contract) -> Reading:
    lines = read_json_lines(path, Sent, contract.table)
    columns = {
        each.name: (column if each.type == "integer" else texts)(
            [getattr(record, each.name) for record in lines.records]
        )
        for each in contract.columns
    }
    offsets = pl.Series(lines.offsets, dtype=pl.Int64())
    return Reading({contract.table: pl.DataFrame({**columns, "record_offset": offsets})}, lines.rejections)


SOURCE = Source(
    name="stock",
    description="Movements, supplies, counts and levels of stock, told one by one as they happened.",
    contracts=CONTRACTS,
    files=(
        FileKind("movements_*.jsonl", (MOVEMENTS.table,), read_movements),
        FileKind("supplies_*.jsonl", (SUPPLIES.table,), read_supplies),
        FileKind("counts_*.jsonl", (COUNTS.table,), read_counts),
        FileKind("levels_*.jsonl", (LEVELS.table,), read_levels),
    ),
)
