"""What stewards decided of people: these two are one, these two are not, forget what was said of them. Contract and the reader.

A decision is an event like any other: who said it, when and why, in a landed file. Taking it back is another event.
"""

from pathlib import Path

import polars as pl
from msgspec import Struct

from orchestration.sources.contract import Column, Contract, FileKind, Reading, Source
from orchestration.sources.json_lines import Scalar, read_json_lines, texts

LINK, FORBID, UNDO = "link", "forbid", "undo"
DECISIONS = Contract(
    table="raw_steward__decisions",
    description="What stewards said of two identifiers: one person, two, or nothing any more. One row per decision.",
    key=("decision_id",),
    columns=(
        Column("decision_id", "text", "Id of the decision, made when it was taken.", required=True),
        Column("decided_at", "timestamp", "When it was taken.", required=True),
        Column(
            "decision_type",
            "text",
            "link: one person; forbid: two; undo: what was said of the two no longer holds.",
            required=True,
            values=(LINK, FORBID, UNDO),
        ),
        Column("first_ref", "text", "Token of one identifier.", required=True, personal="identifier"),
        Column("second_ref", "text", "Token of the other.", required=True, personal="identifier"),
        Column("actor_id", "text", "Who decided: a member of staff.", required=True, personal="identifier"),
        Column("reason", "text", "Why, without names and contact data.", required=True),
    ),
    freshness_hours=24 * 3650,  # nobody has to decide anything
)
REVEALS = Contract(
    table="raw_steward__reveals",
    description="When somebody looked at what two records say in clear text. One row per look.",
    key=("reveal_id",),
    columns=(
        Column("reveal_id", "text", "Id of the look.", required=True),
        Column("revealed_at", "timestamp", "When.", required=True),
        Column("first_ref", "text", "Token that names one record.", required=True, personal="identifier"),
        Column("second_ref", "text", "Token that names the other.", required=True, personal="identifier"),
        Column("actor_id", "text", "Who looked: a member of staff.", required=True, personal="identifier"),
        Column("reason", "text", "Why, without names and contact data.", required=True),
    ),
    freshness_hours=24 * 3650,
)


class Decision(Struct, gc=False):
    """A line of a decisions file."""

    decision_id: Scalar = None
    decided_at: Scalar = None
    decision_type: Scalar = None
    first_ref: Scalar = None
    second_ref: Scalar = None
    actor_id: Scalar = None
    reason: Scalar = None


class Reveal(Struct, gc=False):
    """A line of a file of looks."""

    reveal_id: Scalar = None
    revealed_at: Scalar = None
    first_ref: Scalar = None
    second_ref: Scalar = None
    actor_id: Scalar = None
    reason: Scalar = None


def read_decisions(path: Path) -> Reading:
    """Decisions, one row per line; of one identifier and itself nothing can be decided: `same_identifier`."""
    return _read(path, DECISIONS, Decision)


def read_reveals(path: Path) -> Reading:
    """Looks at clear text, one row per line."""
    return _read(path, REVEALS, Reveal)


def _read(path: Path, contract: Contract, kind: type[Decision] | type[Reveal]) -> Reading:
    lines = read_json_lines(path, kind, contract.table)
    kept = []
    for offset, record in zip(lines.offsets, lines.records, strict=True):
        if record.first_ref is not None and record.first_ref == record.second_ref:
            lines.rejections.add(
                contract.table, offset, "same_identifier", "second_ref: expected another than first_ref"
            )
        else:
            kept.append((offset, record))
    columns = {name: texts([getattr(record, name) for _, record in kept]) for name in kind.__struct_fields__}
    offsets = pl.Series([offset for offset, _ in kept], dtype=pl.Int64())
    return Reading({contract.table: pl.DataFrame({**columns, "record_offset": offsets})}, lines.rejections)


SOURCE = Source(
    name="steward",
    description="What stewards decided of people, and when they looked at what records say.",
    contracts=(DECISIONS, REVEALS),
    files=(
        FileKind("decisions_*.jsonl", (DECISIONS.table,), read_decisions),
        FileKind("reveals_*.jsonl", (REVEALS.table,), read_reveals),
    ),
)
