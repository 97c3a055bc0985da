"""What people's data was used for: every recorded use, export and training; each decided again on demand and compared, differences named."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from starlette.responses import Response

from consent.ledger.opening import signer_of
from consent.log.merkle import VerificationError
from consent.receipts import decisions
from consent.receipts.decisions import USES, DecisionReceipt
from consent.receipts.uses import folder_of
from consent.receipts.verifier import Report
from models import registry
from models.errors import ModelsError
from serving.audit import exports, training
from serving.audit.evidence import reading
from serving.audit.receipts import Once, decided_again
from serving.audit.shapes import Differs
from serving.console import said
from serving.console.audit_people import PATH as SUBJECTS
from serving.console.audit_people import checks
from serving.console.counter import Counter
from serving.console.frame import ROOT, Page, Visit
from serving.console.worked import timed
from serving.errors import ServingError

PATH = "/audit"
PAGE = 50
MOST_NAMED = 200
USE_WORDS = {"read_bulk": "bulk read", "export": "export", "training": "training", "segment": "segment"}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_VERSION = re.compile(r"[0-9a-f]{32}")


def pages_of(counter: Counter) -> list[Page]:
    return [
        Page(f"{PATH}/uses", "audit", partial(_uses, counter)),
        Page(f"{PATH}/uses/{{number}}", "audit", partial(_use, counter)),
        Page(f"{PATH}/uses/{{number}}", "audit", partial(_again, counter), "POST"),
        Page(f"{PATH}/exports", "audit", partial(_exports, counter)),
        Page(f"{PATH}/exports/{{number}}", "audit", partial(_export, counter)),
        Page(f"{PATH}/exports/{{number}}", "audit", partial(_export_again, counter), "POST"),
        Page(f"{PATH}/models", "audit", _models),
        Page(f"{PATH}/models/{{name}}", "audit", partial(_model, counter)),
        Page(f"{PATH}/models/{{name}}", "audit", partial(_model_again, counter), "POST"),
    ]


def recorded(home_folder: Path) -> list[int]:
    """Numbers of the recorded uses, the newest first."""
    return sorted((int(path.stem) for path in home_folder.glob("*.note") if path.stem.isdigit()), reverse=True)


def row_of(counter: Counter, receipt: DecisionReceipt) -> dict[str, Any]:
    question = receipt.use.question
    allowed = sum(row["subject_count"] for row in receipt.counts if row["is_allowed"])
    kind = "exports" if receipt.use.use == "export" else "uses"
    return {
        "number": (f"{ROOT}{PATH}/{kind}/{receipt.number}", receipt.number),
        "use": USE_WORDS.get(receipt.use.use, receipt.use.use),
        "asked_by": receipt.use.asked_by,
        "what": said.what(counter.policy, question.purpose_code, question.channel_code),
        "decided_at": datetime.fromisoformat(receipt.decided_at),
        "subjects": receipt.subject_count,
        "allowed": allowed,
        "ledger_size": receipt.size,
    }


def _uses(counter: Counter, visit: Visit) -> Response:
    """Recorded uses, a page at a time; each signature is checked as it is read."""
    folder, kind = folder_of(visit.home), visit.choice("use", ("", *USES))
    before = visit.whole("before", 0, 10**8)
    rows: list[dict[str, Any]] = []
    doubts: list[str] = []
    numbers = [number for number in recorded(folder) if not before or number < before]
    oldest = None
    for number in numbers:
        if len(rows) + len(doubts) == PAGE:
            break
        oldest = number
        try:
            receipt = decisions.load(folder, number, signer_of(visit.home).verifier)
        except VerificationError as evidence:
            doubts.append(str(evidence))
            continue
        if not kind or receipt.use.use == kind:
            rows.append(row_of(counter, receipt))
    return visit.show(
        "audit_uses.html",
        "Recorded uses",
        rows=rows,
        doubts=doubts,
        kind=kind,
        kinds={"": "every use", **USE_WORDS},
        count=len(numbers),
        next=oldest if numbers and oldest != numbers[-1] else None,
    )


def _use(counter: Counter, visit: Visit) -> Response:
    return _used(counter, visit)


def _again(counter: Counter, visit: Visit) -> Response:
    """Decide a use again from the ledger as of then, and compare."""
    receipt = _receipt(visit)

    def decide() -> tuple[Report, Any, list[Differs]]:
        report = Report(f"decision {receipt.number}")
        with reading(visit.home) as ledger:
            again, differs = decided_again(visit.home, receipt, Once(ledger), report)
        return report, again, differs

    worked = timed(visit, decide)
    report, again, differs = worked.answer
    return _used(counter, visit, {
        "seconds": worked.seconds,
        "is_verified": report.is_verified,
        "checks": checks(report.checks),
        "differences": _differences(differs),
        "count": len(differs),
        "erased": len(again.destroyed) if again else None,
        "root": again.decisions_root if again else None,
    })  # fmt: skip


def _used(counter: Counter, visit: Visit, again: Mapping[str, Any] | None = None) -> Response:
    receipt = _receipt(visit)
    return visit.show(
        "audit_use.html",
        f"Recorded use {receipt.number}",
        receipt=receipt,
        row=row_of(counter, receipt),
        counts=[
            {
                "answer": "yes" if each["is_allowed"] else "no",
                "reason": each["reason_code"],
                "people": each["subject_count"],
            }
            for each in receipt.counts
        ],
        inputs=[
            {"name": name, "sha256": value} for name, value in {**receipt.use.inputs, **receipt.use.outputs}.items()
        ],
        again=again,
    )


def _receipt(visit: Visit) -> DecisionReceipt:
    number, folder = visit.whole("number", 0, 10**8), folder_of(visit.home)
    if number not in recorded(folder):
        visit.refuse(404, "no_such_use", "recorded use: expected one there is, found another number. See the list.")
    try:
        return decisions.load(folder, number, signer_of(visit.home).verifier)
    except VerificationError as evidence:
        visit.refuse(409, "not_verified", str(evidence))


def _differences(found: Sequence[Differs]) -> list[dict[str, Any]]:
    return [
        {"what": each.what, "expected": each.expected, "found": each.found, "subject": each.subject_key}
        for each in found[:MOST_NAMED]
    ]


def _exports(counter: Counter, visit: Visit) -> Response:
    rows = []
    for each in exports.made(visit.home):
        segment = each.manifest.get("segment", {})
        numbers = sorted(each.numbers)
        rows.append({
            "number": (f"{ROOT}{PATH}/exports/{numbers[0]}", numbers[0]) if numbers else None,
            "segment": segment.get("name"),
            "version": segment.get("version"),
            "channel": segment.get("channel", each.manifest.get("channel")),
            "exported_at": each.manifest.get("exported_at"),
            "exported": each.manifest.get("counts", {}).get("exported"),
            "folder": each.name,
        })  # fmt: skip
    rows.sort(key=lambda each: str(each["exported_at"]), reverse=True)
    return visit.show("audit_exports.html", "Exports", rows=rows)


def _export(counter: Counter, visit: Visit) -> Response:
    return _exported(counter, visit)


def _export_again(counter: Counter, visit: Visit) -> Response:
    """The whole of an export, from its files back to the consents."""
    number = visit.whole("number", 0, 10**8)
    try:
        worked = timed(visit, lambda: exports.export_of(visit.home, number))
    except ServingError as fault:
        visit.refuse(404, "no_such_export", str(fault))
    found = worked.answer
    return _exported(counter, visit, {
        "seconds": worked.seconds,
        "found": found,
        "checks": checks(found.checks),
        "differences": _differences(found.differences),
        "count": len(found.differences),
    })  # fmt: skip


def _exported(counter: Counter, visit: Visit, again: Mapping[str, Any] | None = None) -> Response:
    receipt = _receipt(visit)
    if receipt.use.use != "export":
        visit.refuse(
            404, "no_such_export", "export: expected the number of one, found another use. See the list of exports."
        )
    made = exports.found(visit.home, receipt.number)
    return visit.show(
        "audit_export.html",
        f"Export {receipt.number}",
        receipt=receipt,
        row=row_of(counter, receipt),
        manifest=made.manifest if made else None,
        folder=made.name if made else None,
        again=again,
    )


def _models(visit: Visit) -> Response:
    rows = []
    for name in training.models(visit.home):
        in_use, versions = registry.pointed(visit.home, name), _versions(visit, name)
        told = _manifest(visit, name, in_use or versions[-1])
        rows.append({
            "name": (f"{ROOT}{PATH}/models/{name}", name),
            "in_use": in_use,
            "versions": len(versions),
            "learned_from": told.get("training", {}).get("customers_kept"),
            "ledger_size": told.get("training", {}).get("ledger_size"),
            "purpose": told.get("use_purpose_code"),
        })  # fmt: skip
    return visit.show("audit_models.html", "Models", rows=rows)


def _model(counter: Counter, visit: Visit) -> Response:
    return _modelled(counter, visit)


def _model_again(counter: Counter, visit: Visit) -> Response:
    """The training set of a version decided again, and who of it has withdrawn since."""
    name, version = _named(visit)
    try:
        worked = timed(visit, lambda: training.model(visit.home, name, version))
    except ServingError as fault:
        visit.refuse(404, "no_such_model", str(fault))
    found = worked.answer
    return _modelled(counter, visit, {
        "seconds": worked.seconds,
        "found": found,
        "checks": checks(found.checks),
        "differences": _differences(found.differences),
        "count": len(found.differences),
        "withdrawn": [
            {"customer": (f"{ROOT}{SUBJECTS}/{each.customer_id}", each.customer_id), "reason": each.reason, "since_at": each.since_at}
            for each in found.withdrawn[:MOST_NAMED]
        ],
        "by_reason": [{"reason": reason, "people": count} for reason, count in found.withdrawn_since.items()],
    })  # fmt: skip


def _modelled(counter: Counter, visit: Visit, again: Mapping[str, Any] | None = None) -> Response:
    name, version = _named(visit)
    versions, in_use = _versions(visit, name), registry.pointed(visit.home, name)
    chosen = version or in_use or (versions[-1] if versions else "")
    if chosen not in versions:
        visit.refuse(
            404,
            "no_such_model",
            "model: expected one there is and a version of it, found another. See the list of models.",
        )
    told = _manifest(visit, name, chosen)
    return visit.show(
        "audit_model.html",
        f"Model {name}",
        name=name,
        version=chosen,
        in_use=in_use,
        others=[each for each in versions if each != chosen],
        manifest=told,
        training=told.get("training", {}),
        left_out=[
            {"reason": reason, "people": count}
            for reason, count in told.get("training", {}).get("left_out", {}).items()
        ],
        again=again,
    )


def _versions(visit: Visit, name: str) -> list[str]:
    """Versions of a model, oldest first."""
    folders = [path.parent for path in (visit.home.artifacts / name).glob(f"*/{registry.MANIFEST}")]
    return [
        path.name for path in sorted(folders, key=lambda each: each.stat().st_mtime_ns) if _VERSION.fullmatch(path.name)
    ]


def _manifest(visit: Visit, name: str, version: str) -> Mapping[str, Any]:
    """What a version says of itself; nothing where it is not as it was sealed, which deciding again tells."""
    try:
        return registry.manifest(visit.home, name, version)
    except ModelsError:
        return {}


def _named(visit: Visit) -> tuple[str, str | None]:
    name, version = visit.text("name"), visit.text("version", 32) or None
    if not _NAME.fullmatch(name) or (version and not _VERSION.fullmatch(version)):
        visit.refuse(404, "no_such_model", "model: expected one there is, found another. See the list of models.")
    return name, version
