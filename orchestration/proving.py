"""What `troth consent` hands out: receipts and their verifier, the log for others, cosignatures, recorded uses, signed links.

Each answer is a mapping for `printing.show`; `is_verified` false ends the command with 1.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.auditing import identities_of, reading, seconds
from orchestration.errors import MISUSE, RunError
from troth.clock import SystemClock
from troth.home import Home, write_atomically

if TYPE_CHECKING:
    from datetime import datetime

    from consent.ledger.ledger import Ledger
    from consent.log.note import Note

CHECKPOINTS = "checkpoints"  # in the home: cosigned notes, `<size>.note`


def receipt(
    home: Home,
    subject: str,
    question: tuple[str, str] | None,
    out: Path,
    at: "datetime",
    known_at: "datetime | None",
) -> dict[str, Any]:
    """Write a sealed receipt: of everything, or of one purpose and channel. It carries cosignatures of its checkpoint."""
    from consent.ledger.opening import signer_of
    from consent.receipts import shopper as receipts
    from consent.rule.policy import read_policy
    from serving.hub.seams import controller_of

    if subject.startswith("cus_"):
        raise RunError(
            "subject: expected an identifier token, found a customer id. A receipt is about one identity: "
            "`troth consent history` names a customer's.",
            MISUSE,
        )
    identities_of(home, subject)
    policy = read_policy()
    _refuse_unknown(policy, question)
    with reading(home) as ledger:
        cosigned, signer = _Cosigned(home, ledger), signer_of(home)
        if question is None:
            made = receipts.shopper_receipt(
                cosigned, policy, subject, at, controller_of(home), known_at=known_at, signer=signer
            )
        else:
            made = receipts.standing_receipt(cosigned, policy, subject, *question, at, known_at=known_at, signer=signer)
    receipts.write(made, out)
    return {
        "receipt": str(out),
        "format": made["format"],
        "subject": subject,
        "events": len(made["events"]),
        "checkpoint": made["checkpoint"].split("\n\n")[0].replace("\n", " "),
        "cosigned_by": _cosigners(made["checkpoint"], ledger),
        "verifier_key": ledger.verifier.text,
        "check_it_yourself": f"troth consent verify {out}",
    }


def verifier_key(home: Home) -> str:
    """The key this home's ledger verifies under."""
    with reading(home) as ledger:
        return ledger.verifier.text


def write_verifier(home: Home, out: Path) -> dict[str, Any]:
    """Copy the single-file verifier out for somebody else."""
    from hashlib import sha256

    from consent.ledger.opening import has_ledger
    from consent.receipts import verifier

    source = Path(str(verifier.__file__)).read_bytes()
    write_atomically(out, source)
    answer = {"verifier": str(out), "sha256": sha256(source).hexdigest(), "needs": "Python 3.9 or newer, cryptography"}
    return {**answer, "verifier_key": verifier_key(home)} if has_ledger(home) else answer


def export(home: Home, folder: Path, tiles: bool) -> dict[str, Any]:
    """Write the whole ledger for an auditor, or the public log alone as tiles."""
    from consent.log.merkle import VerificationError

    with reading(home) as ledger:
        key = ledger.verifier.text
        if not tiles:
            ledger.export(folder)
            return {
                "export": str(folder),
                "ledger_size": ledger.size,
                "verifier_key": key,
                "check_it_yourself": f"python -m consent verify {folder}",
            }
        try:
            checkpoint = ledger.export_tiles(folder, _Cosigned(home, ledger).checkpoint())
        except VerificationError as evidence:
            return {"is_verified": False, "evidence": str(evidence), "tiles": str(folder)}
    return {
        "tiles": str(folder),
        "layout": "c2sp.org/tlog-tiles",
        "ledger_size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "verifier_key": key,
    }


def checkpoint(home: Home) -> dict[str, Any]:
    """The newest checkpoint, with the cosignatures there are for it."""
    from consent.log.note import checkpoint_unverified, split_unverified

    with reading(home) as ledger:
        note = _Cosigned(home, ledger).checkpoint()
        signed_at = ledger.signed_sizes()[-1].signed_at
    found = checkpoint_unverified(split_unverified(note)[0])
    return {
        "note": note,
        "ledger_size": found.size,
        "root": found.root.hex(),
        "state_root": found.state_root.hex() if found.state_root else None,
        "signed_at": signed_at,
        "cosigned_by": _cosigners(note, ledger),
        "verifier_key": ledger.verifier.text,
    }


def witness(home: Home, policy: Path) -> dict[str, Any]:
    """Ask a policy's witnesses to cosign the newest checkpoint; kept when there are enough.

    Raises: RunError for a policy that cannot be read.
    """
    from consent.log.merkle import VerificationError
    from consent.log.tlog_proof import TrustPolicy
    from consent.log.witness import cosign

    try:
        trusted = TrustPolicy.parse(policy.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, VerificationError) as fault:
        raise RunError(
            f"witness policy: expected a c2sp.org/tlog-policy file, found otherwise: {fault}", MISUSE
        ) from None
    with reading(home) as ledger:
        answered = cosign(_Cosigned(home, ledger).checkpoint(), trusted, ledger.consistency_proof)
        refusals = dict(answered.refusals)
        try:
            checkpoint, opened = trusted.open(answered.note, ledger.verifier)
        except VerificationError as evidence:
            return {"is_verified": False, "evidence": str(evidence), "refusals": refusals}
    kept = _kept(home, checkpoint.size)
    write_atomically(kept, answered.note.encode())
    return {
        "is_verified": True,
        "ledger_size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "cosigned_by": _witnesses(opened, ledger),
        "refusals": refusals,
        "note": str(kept),
    }


def decisions(home: Home) -> dict[str, Any]:
    """Every recorded use, and whether the chain of them verifies."""
    from consent.log.merkle import VerificationError
    from consent.receipts import decisions as recorded
    from models.decisions import folder_of

    with reading(home) as ledger:
        key = ledger.verifier
    folder = folder_of(home)
    if not folder.exists():
        return {"is_verified": True, "count": 0, "decisions": []}
    try:
        count = recorded.verify(folder, key)
        found = [recorded.load(folder, number, key) for number in range(1, count + 1)]
    except VerificationError as evidence:
        return {"is_verified": False, "evidence": str(evidence)}
    return {"is_verified": True, "count": count, "decisions": [_row(each) for each in found]}


def decision(home: Home, number: int, subject: str | None, out: Path | None) -> dict[str, Any]:
    """One recorded use; or what was decided about one subject in it, with its proof, also as a file for the verifier."""
    from dataclasses import asdict

    from consent.receipts import decisions as recorded
    from consent.receipts import shopper as receipts
    from models.decisions import folder_of

    folder = folder_of(home)
    with reading(home) as ledger, _found(folder, number):
        if subject is not None:
            shown = recorded.show_one(folder, number, ledger.verifier, subject)
            if out is not None:
                receipts.write(shown, out)
            return shown
        found = recorded.load(folder, number, ledger.verifier)
    use = asdict(found.use)
    return {**_row(found), **{name: use[name] for name in ("policy_sha256", "definition_sha256", "inputs", "outputs")},
            "decisions_root": found.decisions_root, "previous": found.previous, "counts": list(found.counts)}  # fmt: skip


def replay(home: Home, number: int) -> dict[str, Any]:
    """Decide a recorded use again from the ledger as of then; it must come out the same to the byte."""
    from consent.log.merkle import VerificationError
    from models.decisions import folder_of
    from models.decisions import replay as decide_again

    with reading(home) as ledger, _found(folder_of(home), number):
        try:
            found = decide_again(home, number, ledger)
        except VerificationError as evidence:
            return {"is_verified": False, "number": number, "evidence": str(evidence)}
    return {
        "is_verified": True,
        "number": number,
        "subjects": found.subject_count,
        "erased_since": found.destroyed_count,
        "decisions_root": found.decisions_root,
    }


def link(home: Home, subject: str, kind: str, about: tuple[str, str], days: int | None) -> dict[str, Any]:
    """A signed link of the preference centre. Raises: ServingError for what no link is made for."""
    from consent.rule.policy import EVERY, read_policy
    from serving.hub.links import Links

    if kind != "preferences" or about != (EVERY, EVERY):
        _refuse_unknown(read_policy(), about)
    made = Links(home.key("links")).make(kind, subject, SystemClock().now(), days, *about)
    return {
        "path": f"/{made.kind}/{made.text}",
        "kind": made.kind,
        "subject": subject,
        "expires_at": seconds(made.expires_at),
    }


class _Cosigned:
    """A ledger whose newest checkpoint carries the cosignatures that were kept for it."""

    def __init__(self, home: Home, ledger: "Ledger") -> None:
        self._home = home
        self._ledger = ledger
        self.entry, self.opened = ledger.entry, ledger.opened
        self.inclusion_proof, self.state_proof = ledger.inclusion_proof, ledger.state_proof

    def checkpoint(self) -> str:
        """A kept note counts only where it is this very checkpoint."""
        from consent.log.note import split_unverified

        note = self._ledger.checkpoint()
        text = split_unverified(note)[0]
        kept = _kept(self._home, int(text.split("\n")[1]))
        found = kept.read_text(encoding="utf-8") if kept.exists() else note
        return found if split_unverified(found)[0] == text else note


@contextmanager
def _found(folder: Path, number: int) -> Iterator[None]:
    """Raises: RunError for a decision that was never recorded, or that does not verify."""
    from consent.log.merkle import VerificationError

    newest = max((int(path.stem) for path in folder.glob("*.note")), default=0)
    if not 1 <= number <= newest:
        raise RunError(f"decision: expected one of the {newest} recorded, found number {number}. Choose one.", MISUSE)
    try:
        yield
    except VerificationError as evidence:
        raise RunError(f"decision {number}: {evidence}", 1) from evidence


def _row(found: Any) -> dict[str, Any]:
    use = found.use
    return {
        "number": found.number,
        "decided_at": found.decided_at,
        "use": use.use,
        "asked_by": use.asked_by,
        "purpose": use.question.purpose_code,
        "channel": use.question.channel_code,
        "ledger_size": found.size,
        "subjects": found.subject_count,
        "allowed": sum(row["subject_count"] for row in found.counts if row["is_allowed"]),
    }


def _kept(home: Home, size: int) -> Path:
    return home.root / CHECKPOINTS / f"{size}.note"


def _cosigners(note: str, ledger: "Ledger") -> list[str]:
    """Names on the note besides the ledger's own. Their signatures were verified when they were kept."""
    from consent.log.note import split_unverified

    return sorted({name for name, _ in split_unverified(note)[1]} - {ledger.verifier.name})


def _witnesses(opened: "Note", ledger: "Ledger") -> list[str]:
    return sorted(each.name for each in opened.verifiers if each != ledger.verifier)


def _refuse_unknown(policy: Any, question: tuple[str, str] | None) -> None:
    """Raises: RunError for a purpose and channel that nobody is asked about."""
    asked = [(code, channel) for code, purpose in policy.purposes.items() for channel in purpose.channels]
    if question is not None and question not in asked:
        known = ", ".join(f"{code} over {channel}" for code, channel in asked)
        raise RunError(f"purpose and channel: expected one of {known}, found another. Choose one of them.", MISUSE)
