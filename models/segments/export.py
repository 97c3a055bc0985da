"""The file that goes out: standing asked again from the ledger itself, contact data from the vault at the last step.

Written whole or not at all, with a manifest that says what was decided under which consent, and why the others are
not in it. If the ledger grows while the file is written, everybody is asked again.
"""

import csv
import hashlib
import io
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from consent.ledger import Ledger, open_ledger
from consent.vault import open_vault
from models.permission import FrameStanding, policy_hash
from models.registry import canonical
from models.segments.decision import (
    CONTACT_POINTS,
    MAY_BE_CONTACTED,
    NO_CONTACT_POINT,
    Counts,
    asked,
    counted,
    decided,
    members,
)
from models.segments.definition import Segment, SegmentError
from models.tables import naive, versions
from troth.clock import FixedClock
from troth.home import Home, write_atomically

FORMAT = "troth segment export 1"
MEMBERS = "members.csv"
MANIFEST = "manifest.json"
ATTEMPTS = 5
_NUMBER = re.compile(r"[+-]?[0-9][0-9 ().-]*")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True)
class ExportReport:
    """What was written, or would be: `folder` is None after a dry run."""

    name: str
    version: int
    folder: Path | None
    matched: int
    exported: int
    refused: Mapping[str, int]
    test_customers: int
    ledger_size: int
    ledger_root: str
    manifest: Mapping[str, Any]


def export(home: Home, segment: Segment, folder: Path, at: datetime, dry_run: bool = False) -> ExportReport:
    """Write `members.csv` and `manifest.json` into a new folder; a dry run decides everything and writes nothing.

    Raises: ModelsError for a definition that does not fit or a folder that exists; LedgerError when the ledger cannot
    be read or does not verify. Then nobody is exported.
    """
    moment = naive(at)
    purpose, channel = asked(segment)
    if folder.exists():
        raise SegmentError(
            f"export folder: expected a new one, found {folder.name} already there. Name another; exports are kept."
        )
    for path, what in ((home.ledger, "ledger"), (home.vault, "vault")):
        if not path.exists():
            raise SegmentError(f"{what}: expected {path.name} in the home, found none. Run `troth run` first.")
    found = members(home, segment, moment)
    with open_ledger(home, FixedClock(at)) as ledger:
        for _ in range(ATTEMPTS):
            basis = _basis(ledger)
            standing = _standing(home, ledger.frame(basis.size), purpose, channel, moment)
            rows = _with_contacts(home, segment, decided(found.rows, standing))
            data = _csv(segment, rows)
            manifest = _manifest(segment, at, counted(rows["decision"]), basis, data)
            manifest["tables"] = {**found.tables, **versions(home, ["customer_identities"])}
            if _written(folder, data, manifest, ledger, basis, dry_run=dry_run):
                return _report(segment, manifest, None if dry_run else folder)
    raise SegmentError(
        f"ledger: expected to stand still while {segment.name} is written, found it growing {ATTEMPTS} times. "
        "Try again."
    )


def protected(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: `=`, `+`, `-`, `@`, tab and line ends in front get an apostrophe.

    Plain numbers and phone numbers stay as they are: a spreadsheet can do nothing with them but read them.
    """
    return f"'{cell}" if cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell) else cell


@dataclass(frozen=True)
class _Basis:
    """The state of the ledger that everybody is asked under."""

    size: int
    root: str
    checkpoint: str


def _basis(ledger: Ledger) -> _Basis:
    """The ledger as it verifies now, from every event. Raises: LedgerError with the evidence."""
    known = ledger.verify()
    return _Basis(known.size, known.root.hex(), ledger.checkpoint())


def _standing(home: Home, events: pl.DataFrame, purpose: str, channel: str, moment: datetime) -> pl.DataFrame:
    """Standing from every event there is: one received after `moment` counts too, so that no late no is overlooked."""
    newest = events["received_at"].max()
    latest = max(moment, naive(newest)) if isinstance(newest, datetime) else moment
    return FrameStanding.published(home, events).known_at(purpose, channel, latest)


def _written(
    folder: Path, data: bytes, manifest: Mapping[str, Any], ledger: Ledger, basis: _Basis, *, dry_run: bool
) -> bool:
    """Write both files whole, for their owner only, unless the ledger has grown meanwhile: then False, and nothing."""
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
    try:
        if not dry_run:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            draft.chmod(0o700)
            write_atomically(draft / MEMBERS, data)
            write_atomically(draft / MANIFEST, canonical(manifest))
        if ledger.checkpoint() != basis.checkpoint or ledger.size != basis.size:
            return False
        if not dry_run:
            draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return True


def _with_contacts(home: Home, segment: Segment, decisions: pl.DataFrame) -> pl.DataFrame:
    """customer_id, decision and contact: in the clear for those who may be contacted, and for nobody else."""
    allowed = decisions.filter(pl.col("decision") == MAY_BE_CONTACTED)["contact_ref"]
    if CONTACT_POINTS[segment.channel] is None:
        return decisions.with_columns(pl.col("contact_ref").alias("contact"))
    with open_vault(home) as vault:
        clear = vault.get(allowed.to_list())
    is_allowed = pl.col("decision") == MAY_BE_CONTACTED
    contact = pl.col("contact_ref").replace_strict(clear, default=None, return_dtype=pl.String)
    return decisions.with_columns(pl.when(is_allowed).then(contact).alias("contact")).with_columns(
        pl.when(is_allowed & pl.col("contact").is_null())
        .then(pl.lit(NO_CONTACT_POINT))
        .otherwise("decision")
        .alias("decision")
    )


def _csv(segment: Segment, rows: pl.DataFrame) -> bytes:
    """RFC 4180 with line feeds, UTF-8, sorted by customer."""
    by_id = CONTACT_POINTS[segment.channel] is None
    header = ("customer_id",) if by_id else ("customer_id", segment.channel)
    columns = ("customer_id",) if by_id else ("customer_id", "contact")
    allowed = rows.filter(pl.col("decision") == MAY_BE_CONTACTED).sort("customer_id").select(columns)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([protected(cell) for cell in row] for row in allowed.iter_rows())
    return text.getvalue().encode()


def _manifest(segment: Segment, at: datetime, counts: Counts, basis: _Basis, data: bytes) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "segment": {**asdict(segment), "hash": segment.hash},
        "exported_at": at.astimezone(UTC).isoformat(),
        "counts": {
            "matched": counts.matched,
            "exported": counts.may_be_contacted,
            "refused": dict(counts.refused),
            "test_customers": counts.test_customers,
        },
        "consent": {
            "ledger_size": basis.size,
            "ledger_root": basis.root,
            "checkpoint": basis.checkpoint,
            "policy_hash": policy_hash(),
        },
        "files": {MEMBERS: {"sha256": hashlib.sha256(data).hexdigest(), "rows": counts.may_be_contacted}},
    }


def _report(segment: Segment, manifest: Mapping[str, Any], folder: Path | None) -> ExportReport:
    counts, consent = manifest["counts"], manifest["consent"]
    return ExportReport(
        name=segment.name,
        version=segment.version,
        folder=folder,
        matched=counts["matched"],
        exported=counts["exported"],
        refused=counts["refused"],
        test_customers=counts["test_customers"],
        ledger_size=consent["ledger_size"],
        ledger_root=consent["ledger_root"],
        manifest=manifest,
    )
