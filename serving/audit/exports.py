"""An export, from its files back to the consents: manifest against files, receipts in the chain, everybody decided again."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl

from consent.log.entry import subject_key
from consent.log.merkle import VerificationError
from consent.log.note import open_checkpoint
from consent.receipts.decisions import DecisionReceipt, Redecided
from consent.receipts.shopper import moment
from consent.receipts.uses import check_manifest
from consent.receipts.verifier import Refusal, Report
from consent.rule.policy import read_policy
from models.permission import LINKS, FrameStanding, identities
from models.registry import canonical
from models.segments.export import MEMBERS
from models.tables import naive
from serving.audit.evidence import proving, reading
from serving.audit.manifests import MANIFEST, Made, found, made, made_in, receipts_in
from serving.audit.receipts import Once, chain_of, decided_again, told
from serving.audit.shapes import CountChecked, Differs, ExportAudit, FileChecked, Receipt
from serving.errors import ServingError
from troth.home import Home, files_below
from troth.ids import file_hash
from troth.published import current

__all__ = ["MANIFEST", "Made", "export_of", "found", "made", "receipts_in", "refused_now"]


def export_of(home: Home, which: int | str | Path) -> ExportAudit:
    """An export by the number of one of its receipts, or by its folder. Everything that differs is named.

    Raises: ServingError for a number or folder that is none; LedgerError where the ledger cannot be read.
    """
    here = found(home, which)
    report = Report(here.name if here else f"decision {which}")
    with reading(home) as opened:
        ledger = Once(opened)
        chain = chain_of(home, ledger.verifier, report)
        if here is not None and here.fault is not None:
            return _damaged(here, report)
        if here is None:
            receipt = chain.receipts.get(int(str(which)))
            if receipt is None or receipt.use.use != "export":
                raise ServingError(
                    f"export: expected the number of a receipt of an export, or its folder, found {str(which)[:60]!r}. "
                    "See `troth consent decisions`."
                )
            return _without_files(home, receipt, ledger, report)
        return _Export(home, here, ledger, report, chain.receipts).audit()


def _damaged(here: Made, report: Report) -> ExportAudit:
    """An export whose manifest says too little to be held against anything."""
    report.failed(Refusal(f"{here.name}/{MANIFEST}", "what a manifest says of an export", here.fault, _KEEP))
    return ExportAudit(
        folder=here.name, segment="", version=None, channel="", purpose="", exported_at="", ledger_size=0, receipts=[],
        files=[], counts=[], amendments=[], withdrawn_since=None, differences=[],
        is_verified=report.is_verified, checks=report.checks,
    )  # fmt: skip


def _without_files(home: Home, receipt: DecisionReceipt, ledger: Once, report: Report) -> ExportAudit:
    """What a receipt alone can say: the files are not in this home, or its manifest cannot be read."""
    again, differs = decided_again(home, receipt, ledger, report)
    report.not_covered("files", f"no {MANIFEST} of this home names decision {receipt.number}")
    for path in sorted(files_below(home.exports, MANIFEST)):
        if (one := made_in(home, path.parent)) is not None and one.fault is not None:
            what = f"{one.name}/{MANIFEST}"
            report.failed(
                Refusal(what, "what a manifest says of an export", one.fault, "It may be the one of this receipt")
            )
    question = receipt.use.question
    return ExportAudit(
        folder=None,
        segment=receipt.use.asked_by.removeprefix("segment:"),
        version=None,
        channel=question.channel_code,
        purpose=question.purpose_code,
        exported_at=receipt.decided_at,
        ledger_size=receipt.size,
        receipts=[told(receipt, again)],
        files=[],
        counts=[_count(row, None, again) for row in receipt.counts],
        amendments=[],
        withdrawn_since=None,
        differences=differs,
        is_verified=report.is_verified,
        checks=report.checks,
    )


def _count(row: Mapping[str, Any], in_manifest: int | None, again: Redecided | None) -> CountChecked:
    found = {each["reason_code"]: each["subject_count"] for each in again.counts} if again else {}
    reason = row["reason_code"]
    return CountChecked(
        reason=reason,
        is_allowed=row["is_allowed"],
        in_manifest=in_manifest,
        in_receipts=row["subject_count"],
        again=found.get(reason, 0) if again else None,
    )


@dataclass
class _Export:
    """One export under audit."""

    home: Home
    made: Made
    ledger: Once
    report: Report
    chain: Mapping[int, DecisionReceipt]

    def audit(self) -> ExportAudit:
        manifest, differs = self.made.manifest, list[Differs]()
        self._check_manifest()
        files = [self._file(name, each) for name, each in sorted(manifest["files"].items())]
        receipts, decided = list[Receipt](), dict[str, Redecided]()
        for name, number in self._numbers():
            receipt = self.chain.get(number)
            if receipt is None:
                self.report.failed(Refusal(f"{MANIFEST}, {name}", f"decision {number} of the chain", "none", _KEEP))
                continue
            self._check_receipt(name, receipt)
            again, found = decided_again(self.home, receipt, self.ledger, self.report)
            differs += found
            receipts.append(told(receipt, again))
            if again is not None:
                decided[name] = again
        counts = self._counts(decided)
        differs += self._people(decided)
        return ExportAudit(
            folder=self.made.name,
            segment=self.made.segment,
            version=self.made.version,
            channel=self.made.channel,
            purpose=str(manifest["segment"]["purpose"]),
            exported_at=self.made.exported_at,
            ledger_size=int(manifest["consent"]["ledger_size"]),
            receipts=receipts,
            files=files,
            counts=counts,
            amendments=manifest.get("amendments", []),
            withdrawn_since=self._withdrawn_since(),
            differences=differs,
            is_verified=self.report.is_verified,
            checks=self.report.checks,
        )

    def _numbers(self) -> Iterator[tuple[str, int]]:
        named = receipts_in(self.made.manifest)
        if not named:
            self.report.not_covered("receipts", "this export is from before uses were recorded")
        return ((name, int(each["number"])) for name, each in named.items())

    def _check_manifest(self) -> None:
        """Its spelling, its seal, and the checkpoint it was decided under."""
        manifest, report = self.made.manifest, self.report
        with proving(report, f"{MANIFEST} is spelled as it was written"):
            if self.made.text != canonical(manifest):
                raise VerificationError(MANIFEST, "its canonical spelling", "another", _KEEP)
            if self.made.delivery is not None:
                sent, hashed = self.made.delivery.manifest_sha256, sha256(self.made.text).hexdigest()
                if sent != hashed:
                    raise VerificationError(MANIFEST, f"sha256 {sent} as sent", hashed, _KEEP)
        if "seal" in manifest:
            with proving(report, f"{MANIFEST} is sealed by {self.ledger.verifier.name}"):
                check_manifest(manifest, self.ledger.verifier)
        else:
            report.not_covered(MANIFEST, "not sealed: rules and tables in it are nobody's signed word")
        consent = manifest["consent"]
        with proving(report, f"the ledger goes on from the checkpoint of {MANIFEST}", f"size {consent['ledger_size']}"):
            known = open_checkpoint(consent["checkpoint"], self.ledger.verifier)
            for what, expected, found in (
                ("ledger_size", known.size, consent["ledger_size"]),
                ("ledger_root", known.root.hex(), consent["ledger_root"]),
            ):
                if expected != found:
                    raise VerificationError(f"{MANIFEST}, {what}", f"{expected} as signed", f"{found}", _KEEP)
            self.ledger.check_extends(consent["checkpoint"])

    @cached_property
    def _amended(self) -> dict[str, str]:
        """The hash each file had when it went out, where an erasure took rows from it since."""
        first: dict[str, str] = {}
        for each in self.made.manifest.get("amendments", []):
            first.setdefault(each.get("file", MEMBERS), each["sha256_before"])
        return first

    def _file(self, name: str, expected: Mapping[str, Any]) -> FileChecked:
        path, report = self.made.folder / name, self.report
        if self.made.delivery is not None:
            report.not_covered(name, f"with {self.made.delivery.destination}; sha256 {expected['sha256']} as signed")
            return FileChecked(
                name=name, sha256=expected["sha256"], rows=expected.get("rows"), found_sha256=None, found_rows=None
            )
        found = file_hash(path) if path.is_file() else None
        rows = self.made.rows[name].height if found else None
        if found is None:
            report.failed(
                Refusal(name, f"sha256 {expected['sha256']}", "no file", "It was removed: find the copy that went out")
            )
        elif found != expected["sha256"]:
            report.failed(Refusal(name, f"sha256 {expected['sha256']}", found, _KEEP))
        else:
            report.proved(f"{name} is the file of {MANIFEST}", f"sha256 {found}")
        if rows is not None and rows != expected.get("rows", rows):
            report.failed(Refusal(f"{name}, rows", expected["rows"], rows, _KEEP))
        return FileChecked(
            name=name, sha256=expected["sha256"], rows=expected.get("rows"), found_sha256=found, found_rows=rows
        )

    def _check_receipt(self, name: str, receipt: DecisionReceipt) -> None:
        """That manifest and receipt speak of the same use."""
        manifest, use = self.made.manifest, receipt.use
        what = f"{MANIFEST}, decision {receipt.number}"
        is_last = not any(number > receipt.number for _, number in self._numbers())
        pairs: list[tuple[str, object, object]] = [
            ("hash of the receipt", receipt.hash, receipts_in(manifest)[name]["sha256"]),
            ("use", "export", use.use),
            ("segment", use.asked_by, f"segment:{self.made.segment}"),
            ("definition", use.definition_sha256, manifest["segment"]["hash"]),
            ("time", receipt.decided_at, _spelled(self.made.exported_at)),
            ("purpose", use.question.purpose_code, name.split()[1] if " " in name else manifest["segment"]["purpose"]),
        ]
        if use.question.channel_code != "*":
            pairs.append(("channel", use.question.channel_code, self.made.channel))
        if is_last:
            outputs = {each: self._amended.get(each, told["sha256"]) for each, told in manifest["files"].items()}
            pairs += [(f"hash of {each}", hashed, outputs.get(each)) for each, hashed in sorted(use.outputs.items())]
        if LINKS in use.inputs and LINKS in manifest.get("tables", {}):
            version = manifest["tables"][LINKS]
            pairs.append(("version of the identities", use.inputs[LINKS][: len(version)], version))
        wrong = [each for each in pairs if each[1] != each[2]]
        for field, signed, told_there in wrong:
            self.report.failed(Refusal(f"{what}, {field}", f"{signed} as signed", told_there, _KEEP))
        if not wrong:
            self.report.proved(f"{what} is its receipt", f"{len(pairs)} facts as signed")

    def _settled(self, decided: Mapping[str, Redecided], side: str = "rows") -> pl.DataFrame | None:
        """subject_key, is_allowed, reason_code as the file was decided: who was asked again counts as then, every purpose has its say.

        `side`: the `rows` that were kept, or those decided `again`.
        """
        if "decision" not in decided:
            return None
        both = _latest(decided, "", side)
        for purpose in sorted(self.made.manifest.get("also_asked", {})):
            if f"also_asked {purpose} decision" not in decided:
                return None
            other = _latest(decided, f"also_asked {purpose} ", side)
            both = both.join(other, on="subject_key", how="left", suffix="_other").select(
                "subject_key",
                is_allowed=pl.col("is_allowed") & pl.col("is_allowed_other"),
                reason_code=pl.when(pl.col("is_allowed") & ~pl.col("is_allowed_other"))
                .then(pl.concat_str(pl.lit(f"{purpose}_"), "reason_code_other"))
                .otherwise("reason_code"),
            )
        return both

    def _counts(self, decided: Mapping[str, Redecided]) -> list[CountChecked]:
        """Counts of the manifest against those of the receipts. Test customers are decided about too, and counted apart."""
        manifest, settled = self.made.manifest, self._settled(decided)
        told = manifest["counts"]
        if settled is None:
            refused = told["refused"].items()
            return [
                CountChecked(reason=reason, is_allowed=False, in_manifest=count, in_receipts=None, again=None)
                for reason, count in refused
            ]
        rows = settled.group_by("reason_code", "is_allowed").len().sort("is_allowed", "reason_code").rows()
        standing = {reason: count for reason, yes, count in rows if not yes}
        others = {reason: count for reason, count in told["refused"].items() if reason not in standing}
        allowed = sum(count for _, yes, count in rows if yes)
        missing = {reason: count - told["refused"].get(reason, 0) for reason, count in standing.items()}
        missing["allowed"] = allowed - told["exported"] - sum(others.values())
        before = len(self.report.checks)
        for reason, count in missing.items():
            if count < 0:
                found = told["exported"] + sum(others.values()) if reason == "allowed" else told["refused"][reason]
                expected = allowed if reason == "allowed" else standing[reason]
                self.report.failed(
                    Refusal(f"{MANIFEST}, count {reason}", f"at most {expected} as signed", found, _KEEP)
                )
        for what, wanted, counted in (
            ("test customers", sum(missing.values()), told["test_customers"]),
            ("matched", told["exported"] + sum(told["refused"].values()), told["matched"]),
            ("exported", told["exported"], self._rows_out()),
        ):
            if wanted != counted:
                self.report.failed(Refusal(f"{MANIFEST}, count {what}", wanted, counted, _KEEP))
        if len(self.report.checks) == before:
            self.report.proved("counts by reason are those of the receipts", f"{settled.height} people")
        now = self._settled(decided, "again")
        again = dict(now.group_by("reason_code").len().iter_rows()) if now is not None else {}
        return [
            CountChecked(
                reason=reason,
                is_allowed=yes,
                in_manifest=None if yes else told["refused"].get(reason, 0),
                in_receipts=count,
                again=again.get(reason, 0),
            )
            for reason, yes, count in rows
        ] + [
            CountChecked(reason=reason, is_allowed=False, in_manifest=count, in_receipts=None, again=None)
            for reason, count in sorted(others.items())
        ]

    def _rows_out(self) -> int:
        """How many people were in the files when they went out: those of today, and those an erasure took from them."""
        rows = [int(each.get("rows", 0)) for each in self.made.manifest["files"].values()]
        if self.made.delivery is not None:
            return sum(rows)  # in parts
        removed = [int(each["rows_removed"]) for each in self.made.manifest.get("amendments", [])]
        return max(rows, default=0) + sum(removed)

    def _people(self, decided: Mapping[str, Redecided]) -> list[Differs]:
        """Whoever is in a file without a decision that allows it."""
        settled = self._settled(decided)
        if settled is None:
            return []
        rows = {key: (yes, reason) for key, yes, reason in settled.iter_rows()}
        differs = []
        for name, people in sorted(self.made.people.items()):
            if not people and self.made.delivery is None and self.made.rows[name].height:
                self.report.not_covered(name, "nobody here knows any more whom its references name")
            for customer in sorted(people):
                key = subject_key(customer).hex()
                yes, reason = rows.get(key, (False, "no decision"))
                if not yes:
                    what = f"{name}, subject {key}"
                    differs.append(Differs(what=what, expected="allowed", found=reason, subject_key=key))
                    if len(differs) <= _MOST_NAMED:
                        self.report.failed(Refusal(what, "a decision that allows it", reason, _KEEP))
        if not differs:
            self.report.proved("everybody in the files was allowed", f"{len(rows)} decided")
        return differs

    def _withdrawn_since(self) -> int | None:
        """How many of those in the files would not be in them today; None where identities are not published."""
        question = self.made.manifest["segment"]["purpose"], self.made.channel
        people = set[str]().union(*self.made.people.values())
        refused = refused_now(self.home, self.ledger, people, *question)
        return None if refused is None else refused.height


_MOST_NAMED = 100
_KEEP = "Keep it as evidence, and restore it from a copy"


def refused_now(
    home: Home, ledger: Once, people: Collection[str], purpose_code: str, channel_code: str
) -> pl.DataFrame | None:
    """customer_id, reason_code, since_at of those of the people who are refused by all that the ledger holds now.

    None where no identities are published, or nobody is asked for the purpose over the channel.
    """
    policy = read_policy()
    purpose = policy.purposes.get(purpose_code)
    if purpose is None or not (home.published / LINKS / "CURRENT").is_file():
        return None
    channel = channel_code if channel_code in purpose.channels else "*"
    events = ledger.frame()
    newest = events["received_at"].max()
    if channel not in purpose.channels or not isinstance(newest, datetime):
        return None
    standing = FrameStanding(events, identities(current(home, LINKS)), policy).known_at(
        purpose_code, channel, naive(newest)
    )
    asked = pl.DataFrame({"customer_id": sorted(people)}, schema={"customer_id": pl.String})
    both = asked.join(standing, on="customer_id", how="left")
    is_allowed = pl.col("is_allowed").fill_null(False)
    return both.filter(~is_allowed).select("customer_id", pl.col("reason_code").fill_null("never_asked"), "since_at")


def _latest(decided: Mapping[str, Redecided], prefix: str, side: str) -> pl.DataFrame:
    """Everybody's rows for one question, those asked again as they were answered then."""
    first, again = decided.get(f"{prefix}decision"), decided.get(f"{prefix}decided_again")
    rows: pl.DataFrame = getattr(first, side)
    if again is not None:
        newer: pl.DataFrame = getattr(again, side)
        rows = pl.concat([rows.join(newer, on="subject_key", how="anti"), newer])
    return rows.select("subject_key", "is_allowed", "reason_code")


def _spelled(exported_at: str) -> str | None:
    return moment(datetime.fromisoformat(exported_at))
