"""The chain of recorded uses, read once and decided again: what every other audit builds on."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import polars as pl

from consent.ledger.ledger import Ledger
from consent.log.merkle import VerificationError
from consent.log.note import Verifier
from consent.receipts import decisions
from consent.receipts.decisions import DecisionReceipt, Redecided
from consent.receipts.uses import folder_of
from consent.receipts.verifier import NEWEST_FILE, Refusal, Report
from models.decisions import Replaying, redecide
from serving.audit.evidence import proving
from serving.audit.shapes import Differs, Receipt
from troth.home import Home


@dataclass(frozen=True)
class Chain:
    """Every receipt of a home that verifies, by number. `is_whole`: none failed, and none is missing up to the newest that was kept."""

    receipts: Mapping[int, DecisionReceipt]
    is_whole: bool


class Once:
    """A ledger whose events are read, and held against the signed root, once, however often and for whatever size they are asked for."""

    def __init__(self, ledger: Ledger) -> None:
        self.check_extends, self.opened, self.leaves_of = ledger.check_extends, ledger.opened, ledger.leaves_of
        self.events_of, self.root = ledger.events_of, ledger.root
        self.verifier, self.size = ledger.verifier, ledger.size
        self._ledger = ledger

    @cached_property
    def _events(self) -> pl.DataFrame:
        return self._ledger.frame(self.size)

    def frame(self, size: int | None = None) -> pl.DataFrame:
        """As `Ledger.frame`: the events of the first `size` leaves."""
        size = self.size if size is None else size
        if size > self.size:
            return self._ledger.frame(size)
        return self._events.filter(pl.col("leaf_index") < size).with_columns(
            pl.lit(size, pl.Int64()).alias("ledger_size")
        )


def chain_of(home: Home, key: Verifier, report: Report) -> Chain:
    """Read every receipt: signed, numbered, each naming the one before. What is wrong with which of them goes into the report."""
    folder = folder_of(home)
    found: dict[int, DecisionReceipt] = {}
    previous: str | None = None
    before = sum(check.outcome == "failed" for check in report.checks)
    newest = max((int(path.stem) for path in folder.glob("*.note") if path.stem.isdigit()), default=0)
    advice = "Keep the folder as evidence, and restore it from a backup"
    for number in range(1, newest + 1):
        try:
            receipt = decisions.load(folder, number, key)
            if receipt.number != number or (previous is not None and receipt.previous != previous):
                named = f"receipt {number} after {previous or 'none'}"
                raise VerificationError(
                    f"decision {number}",
                    named,
                    f"{receipt.number} after {receipt.previous}",
                    "One was changed or moved",
                )
        except VerificationError as fault:
            report.failed(Refusal(f"decision {number}, {number:08d}.note", fault.expected, fault.found, advice))
            previous = None  # what comes after is held against itself alone
            continue
        found[number], previous = receipt, receipt.hash
    if found or (folder / NEWEST_FILE).exists():
        try:
            decisions.check_newest(folder, key, newest, found[newest].hash if newest in found else "one that fails")
        except VerificationError as fault:
            report.failed(Refusal(f"decisions, {NEWEST_FILE}", fault.expected, fault.found, advice))
    is_whole = sum(check.outcome == "failed" for check in report.checks) == before
    if is_whole and found:
        report.proved(
            "every recorded use is signed, and none is missing up to the newest that was kept", f"{newest} receipts"
        )
    elif is_whole:
        report.not_covered("recorded uses", "none was recorded yet")
    return Chain(found, is_whole)


def told(receipt: DecisionReceipt, again: Redecided | None = None) -> Receipt:
    """A receipt in an answer, with what deciding again found."""
    use = receipt.use
    return Receipt(
        number=receipt.number,
        sha256=receipt.hash,
        use=use.use,
        asked_by=use.asked_by,
        purpose=use.question.purpose_code,
        channel=use.question.channel_code,
        decided_at=datetime.fromisoformat(receipt.decided_at),
        ledger_size=receipt.size,
        root=receipt.checkpoint.split("\n")[2],
        policy_sha256=use.policy_sha256,
        subjects=receipt.subject_count,
        allowed=sum(row["subject_count"] for row in receipt.counts if row["is_allowed"]),
        decisions_root=receipt.decisions_root,
        root_again=again.decisions_root if again else None,
        differences=len(again.differences) if again else 0,
        erased_since=len(again.destroyed) if again else 0,
    )


def decided_again(
    home: Home, receipt: DecisionReceipt, ledger: Replaying, report: Report
) -> tuple[Redecided | None, list[Differs]]:
    """Decide a use again from the ledger at its size. Who is decided otherwise is named, and fails the report."""
    number, again, differs = receipt.number, None, list[Differs]()
    with proving(report, f"decision {number} was made again from the ledger", f"root {receipt.decisions_root}"):
        again = redecide(home, number, ledger)
        for one in again.differences:
            expected, found = (_said(row) for row in (one.kept, one.again))
            what = f"decision {number}, subject {one.subject_key}"
            differs.append(Differs(what=what, expected=expected, found=found, subject_key=one.subject_key))
            if len(differs) <= _MOST_TOLD:
                report.failed(Refusal(what, expected, found, "The kept row, the ledger or the rule is not what it was"))
        if not again.is_same and not differs:
            raise VerificationError(
                f"decision {number}, kept rows",
                f"root {receipt.decisions_root}",
                again.decisions_root,
                "Rows that cannot be decided again, or their salt, were changed",
            )
    if again is not None and again.destroyed:
        evidence = (
            f"{len(again.destroyed)} decisions about people erased since, or joined to one: they stand on their hash"
        )
        report.not_covered(f"decision {number}", evidence)
    return again, differs


_MOST_TOLD = 100  # differences that are checks of their own; all of them are in the answer


def _said(row: Mapping[str, object] | None) -> str:
    if row is None:
        return "no decision"
    since = f" since {row['since_at']}" if row["since_at"] else ""
    leaf = "" if row["leaf_index"] is None else f" (leaf {row['leaf_index']})"
    return f"{'yes' if row['is_allowed'] else 'no'}, {row['reason_code']}{since}{leaf}"
