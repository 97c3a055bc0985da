"""A model, back to the consents its training set rests on: artifacts, receipt, everybody decided again, who has withdrawn since."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import polars as pl

from consent.log.entry import subject_key
from consent.log.merkle import VerificationError
from consent.receipts.decisions import DecisionReceipt
from consent.receipts.verifier import Refusal, Report
from models import registry
from models.build import SCORED
from models.permission import LINKS, identities
from models.training import ANY_CHANNEL, PURPOSE
from serving.audit.evidence import proving, reading
from serving.audit.exports import refused_now
from serving.audit.receipts import Once, chain_of, decided_again, told
from serving.audit.shapes import Artifact, Differs, ModelAudit, Withdrawn
from serving.errors import ServingError
from troth.home import Home
from troth.ids import file_hash
from troth.published import current

__all__ = ["PURPOSE", "model", "models", "versions_of"]

_NOBODY = pl.DataFrame(
    schema={"customer_id": pl.String, "reason_code": pl.String, "since_at": pl.Datetime("us", "UTC")}
)


def models(home: Home) -> list[str]:
    """Every model that was trained under consent, by name."""
    return sorted(path.name for path in home.artifacts.glob("*") if _versions(home, path.name))


def versions_of(home: Home, receipt: DecisionReceipt) -> tuple[str, list[str], str | None]:
    """The model of a training, the versions that came of it, oldest first, and the version in use."""
    name = receipt.use.asked_by.removeprefix("model:")
    found = [each for each in _versions(home, name) if _is_of(receipt, name, _manifest(home, name, each))]
    return name, found, registry.pointed(home, name) if found else None


def model(home: Home, name: str, version: str | None = None) -> ModelAudit:
    """A version of a model, the one in use where none is named, and everything its training set rests on.

    Raises: ServingError for a model or version that is none; LedgerError where the ledger cannot be read.
    """
    known = _versions(home, name)
    chosen = version or registry.pointed(home, name) or registry.pointed(home, name, registry.LATEST)
    if chosen not in known:
        raise ServingError(
            f"model: expected one of {', '.join(models(home)) or 'none yet'} and a version of it, found {name[:60]!r} "
            f"{(version or '')[:40]!r}. Name one."
        )
    report = Report(f"{name} {chosen}")
    manifest = _manifest(home, name, chosen)
    with proving(report, "its manifest is sealed by this home and named by its hash", chosen):
        registry.manifest(home, name, chosen)
    artifacts = [
        _artifact(home, name, chosen, file, hashed, report) for file, hashed in sorted(manifest["files"].items())
    ]
    with reading(home) as opened:
        ledger = Once(opened)
        chain = chain_of(home, ledger.verifier, report)
        mine = [each for each in chain.receipts.values() if _is_of(each, name, manifest)]
        if not mine:
            report.not_covered(
                "receipt", "no recorded training names these artifacts; it was trained before uses were recorded"
            )
        receipts, differs, learned = [], list[Differs](), set[str]()
        for receipt in mine:
            again, found = decided_again(home, receipt, ledger, report)
            differs += found
            receipts.append(told(receipt, again))
            if again is not None:
                learned |= set(again.rows.filter("is_allowed")["subject_key"])
        _check_training(manifest["training"], mine, ledger, report)
        withdrawn = _withdrawn(home, ledger, learned)
    in_use = registry.pointed(home, name)
    return ModelAudit(
        model=name,
        version=chosen,
        is_in_use=chosen == in_use,
        is_latest=chosen == registry.pointed(home, name, registry.LATEST),
        other_versions=[each for each in known if each != chosen],
        use_purpose=manifest["use_purpose_code"],
        training=manifest["training"],
        receipts=receipts,
        artifacts=artifacts,
        promoted_to=_promoted_to(home, name, chosen),
        withdrawn_since=dict(sorted(withdrawn["reason_code"].value_counts().iter_rows())),
        withdrawn=[Withdrawn(customer_id=one, reason=why, since_at=since) for one, why, since in withdrawn.iter_rows()],
        differences=differs,
        is_verified=report.is_verified,
        checks=report.checks,
    )


def _versions(home: Home, name: str) -> list[str]:
    """Versions with a training set, oldest first."""
    folders = [path.parent for path in (home.artifacts / name).glob(f"*/{registry.MANIFEST}")]
    dated = sorted((path.stat().st_mtime_ns, path.name) for path in folders)
    return [version for _, version in dated if "training" in _manifest(home, name, version)]


def _manifest(home: Home, name: str, version: str) -> dict[str, Any]:
    """As it is: `registry.manifest` refuses one that was changed, and an audit has more to say of it."""
    try:
        told = json.loads((home.artifacts / name / version / registry.MANIFEST).read_bytes())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _is_of(receipt: DecisionReceipt, name: str, manifest: Mapping[str, Any]) -> bool:
    use, training = receipt.use, manifest.get("training", {})
    is_same = use.outputs == manifest.get("files") and receipt.size == training.get("ledger_size")
    return is_same and (use.use, use.asked_by) == ("training", f"model:{name}")


def _artifact(home: Home, name: str, version: str, file: str, expected: str, report: Report) -> Artifact:
    path = home.artifacts / name / version / file
    found = file_hash(path) if path.is_file() else None
    if found == expected:
        report.proved(f"{file} is the artifact of the manifest", f"sha256 {found}")
    else:
        advice = "Remove the version and run `troth run` to train it again"
        report.failed(Refusal(f"{name} {version}, {file}", f"sha256 {expected}", found or "no file", advice))
    return Artifact(name=file, sha256=expected, found_sha256=found)


def _check_training(
    training: Mapping[str, Any], receipts: Sequence[DecisionReceipt], ledger: Once, report: Report
) -> None:
    """That the training set was taken under a state the ledger had, the one of its receipts."""
    size, root = training["ledger_size"], training["ledger_root"]
    with proving(report, "the ledger had the root the training names, at its size", f"size {size}"):
        if size > ledger.size or (found := ledger.root(size).hex()) != root:
            found = f"size {ledger.size}" if size > ledger.size else found
            raise VerificationError(
                f"training, ledger at size {size}", f"root {root}", found, "One of them was changed"
            )
    for receipt in receipts:
        if training["customers_kept"] > receipt.subject_count:
            found = f"{training['customers_kept']} learned from"
            report.failed(Refusal(f"decision {receipt.number}", f"at most {receipt.subject_count} customers", found))


def _withdrawn(home: Home, ledger: Once, learned: Collection[str]) -> pl.DataFrame:
    """Of those who were allowed at the training, whoever is refused today: customer_id, reason_code, since_at.

    Receipts name people by keys: those who are no customer any more cannot be told apart from the merged, and are not listed.
    """
    if not learned or not (home.published / LINKS / "CURRENT").is_file():
        return _NOBODY
    customers = identities(current(home, LINKS))["customer_id"].unique()
    people = [one for one in customers if subject_key(one).hex() in learned]
    found = refused_now(home, ledger, people, PURPOSE, ANY_CHANNEL)
    return found.sort("customer_id") if found is not None else _NOBODY


def _promoted_to(home: Home, name: str, version: str) -> list[str]:
    """Where a version is used: the pointers that name it, and the predictions that were made by it last."""
    found = [
        pointer for pointer in (registry.CURRENT, registry.LATEST) if registry.pointed(home, name, pointer) == version
    ]
    try:
        scored = json.loads((home.artifacts / name / SCORED).read_bytes())
        if scored["made_from"]["model_version"] == version:
            found.append(f"published table pred_{name} {scored['table_version']}")
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return found
