"""One person: who they are known as, what they said, provably, what that allows, then and now; and everything done with their data."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from consent.log.note import open_checkpoint
from consent.receipts import decisions
from consent.receipts.uses import folder_of
from consent.receipts.verifier import Report
from consent.rule.policy import read_policy
from serving.audit import exports, training
from serving.audit.dealings import looks_at, requests_of, sent_to, webhooks
from serving.audit.evidence import proving, reading
from serving.audit.persons import ERASED, Known, events_of, known_of, standing_over
from serving.audit.receipts import Chain, chain_of
from serving.audit.shapes import (
    Exported,
    Stands,
    SubjectAudit,
    Trained,
    Used,
)
from serving.errors import ServingError
from troth.home import Home

__all__ = ["known_of", "subject"]


def subject(
    home: Home, said: str, at: datetime, known_at: datetime | None = None, *, prove: bool = True
) -> SubjectAudit:
    """Everything about one person: a customer id, a token, or `<type>:<identifier>`, at a time, as known then where it is said.

    `prove`: hold the rows of each receipt against its root; without it a page is sooner there, and `Used.is_proved` is None.
    Raises: ServingError for somebody nothing is known of; LedgerError where the ledger cannot be read.
    """
    report = Report(said)
    known, policy = known_of(home, said), read_policy()
    with reading(home) as ledger:
        note = ledger.checkpoint()
        size = open_checkpoint(note, ledger.verifier).size
        events, identities = events_of(ledger, known, report)
        chain = chain_of(home, ledger.verifier, report)
        stands, spans = standing_over(ledger, known, policy, at, known_at)
        uses = _uses(home, known, chain, report, prove=prove)
        root = ledger.root(size).hex()
    looks, requests = list(looks_at(home, known)), list(requests_of(home, known, at))
    if not (any(one.leaf_count for one in identities) or uses or looks or requests or not known.is_alone):
        raise ServingError(
            "subject: expected a customer id (cus_...), a token or <type>:<identifier>, found one that nothing is known of. "
            "See `troth ask customer`."
        )
    proved = {one.number for one in identities if one.is_proved}
    is_erased = any(one.event in (ERASED, "erased") and one.identity in proved for one in events)
    if is_erased:
        report.not_covered("content destroyed by an erasure", "events before it say only that they were there")
    return SubjectAudit(
        subject=known.said,
        at=at,
        known_at=known_at,
        ledger_size=size,
        root=root,
        checkpoint=note,
        is_erased=is_erased,
        identities=identities,
        events=events,
        standing=stands,
        spans=spans,
        uses=uses,
        exports=_exports(home, known, uses),
        trainings=_trainings(home, uses, stands, chain),
        recipients=[*webhooks(home, known), *sent_to(home, known)],
        looks=looks,
        requests=requests,
        is_verified=report.is_verified,
        checks=report.checks,
    )


def _uses(home: Home, known: Known, chain: Chain, report: Report, *, prove: bool) -> list[Used]:
    """Every recorded use that decided about the person, newest first: their row is found by its key, in all files at once."""
    folder, wanted = folder_of(home), known.keys
    paths = [folder / f"{receipt.decisions_root}.parquet" for receipt in chain.receipts.values()]
    try:
        rows = _rows_about(paths, sorted(wanted))
        report.proved("the decisions kept beside receipts can be read", f"{len(paths)} files")
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        rows = _rows_about(_readable(folder, chain, report), sorted(wanted))
    found = []
    for receipt in sorted(chain.receipts.values(), key=lambda each: -each.number):
        mine = rows.get(receipt.decisions_root, [])
        is_proved: bool | None = None
        if mine and prove:
            before = len(report.checks)
            with proving(
                report, f"decision {receipt.number}: the row is one of those signed", f"root {receipt.decisions_root}"
            ):
                decisions.proved_rows(folder, receipt)
            is_proved = report.checks[before].outcome == "verified"
        use = receipt.use
        found += [
            Used(
                number=receipt.number,
                use=use.use,
                asked_by=use.asked_by,
                purpose=use.question.purpose_code,
                channel=use.question.channel_code,
                decided_at=datetime.fromisoformat(receipt.decided_at),
                ledger_size=receipt.size,
                of=wanted[str(row["subject_key"])],
                is_allowed=bool(row["is_allowed"]),
                reason=str(row["reason_code"]),
                since_at=row["since_at"],
                leaf=row["leaf_index"],
                is_proved=is_proved,
                outputs=sorted(use.outputs),
            )
            for row in mine
        ]
    return found


def _rows_about(paths: Sequence[Path], keys: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Rows of these keys by the root their file is named by. Raises: polars' errors where a file cannot be read."""
    if not paths:
        return {}
    found = pl.scan_parquet(list(paths), include_file_paths="file").filter(pl.col("subject_key").is_in(keys)).collect()
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in found.iter_rows(named=True):
        rows.setdefault(Path(row.pop("file")).stem, []).append(row)
    return rows


def _readable(folder: Path, chain: Chain, report: Report) -> list[Path]:
    """The files of rows that can be read; the others are named."""
    found = []
    for receipt in chain.receipts.values():
        with proving(report, f"the rows of decision {receipt.number} can be read"):
            decisions.rows_of(folder, receipt)
            found.append(folder / f"{receipt.decisions_root}.parquet")
    return found


def _exports(home: Home, known: Known, uses: Sequence[Used]) -> list[Exported]:
    """Files below `exports/` that were decided about the person, newest first."""
    by_number = {use.number: use for use in uses}
    found = []
    for made in exports.made(home):
        mine = [by_number[number] for number in made.numbers if number in by_number]
        is_in = made.holds([*known.names, *known.former])
        if not mine and not is_in:
            continue
        last = max(mine, key=lambda use: use.number, default=None)
        found.append(
            Exported(
                folder=made.name,
                segment=made.segment,
                version=made.version,
                channel=made.channel,
                exported_at=made.exported_at,
                number=last.number if last else None,
                is_in_file=is_in,
                is_allowed=last.is_allowed if last else None,
                reason=last.reason if last else None,
            )
        )
    return sorted(found, key=lambda one: one.exported_at, reverse=True)


def _trainings(home: Home, uses: Sequence[Used], stands: Sequence[Stands], chain: Chain) -> list[Trained]:
    """Trainings that decided about the person; a withdrawal touches those that learned from them."""
    allowed = {one.of: one.is_allowed for one in stands if one.purpose == training.PURPOSE}
    found = []
    for use in uses:
        if use.use != "training":
            continue
        model, versions, in_use = training.versions_of(home, chain.receipts[use.number])
        found.append(
            Trained(
                model=model,
                number=use.number,
                versions=versions,
                is_in_use=in_use in versions,
                decided_at=use.decided_at,
                is_allowed=use.is_allowed,
                reason=use.reason,
                is_touched=use.is_allowed and not allowed.get(use.of, any(allowed.values())),
            )
        )
    return found
