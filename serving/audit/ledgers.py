"""The ledger itself, and everything signed over it: verified from its entries on, with evidence where it does not."""

from itertools import pairwise

from consent.errors import LedgerError
from consent.ledger.ledger import Ledger
from consent.ledger.opening import signer_of
from consent.log.merkle import VerificationError
from consent.log.note import Verifier, checkpoint_unverified, open_checkpoint, open_note, split_unverified
from consent.receipts import decisions
from consent.receipts.uses import folder_of
from consent.receipts.verifier import Report
from consent.rights import CERTIFICATE
from serving.audit.evidence import proving, reading, refusal_of
from serving.audit.receipts import Chain, chain_of
from serving.audit.shapes import LedgerAudit
from troth.home import Home

WITNESSED = "checkpoints"  # in the home: cosigned notes, `<size>.note`


def ledger(home: Home) -> LedgerAudit:
    """Everything that can be held against the ledger, up to what cannot be read. Raises: LedgerError only where there is none."""
    report, key = Report("ledger"), signer_of(home).verifier
    size: int | None = None
    root = note = None
    checkpoints, witnesses, chain = 0, list[str](), Chain({}, is_whole=True)
    try:
        with reading(home) as open_one:
            report.proved("it holds the checkpoint the home remembers", home.ledger.with_suffix(".checkpoint").name)
            note = open_one.checkpoint()
            known = open_checkpoint(note, key)
            size, root = known.size, known.root.hex()
            checkpoints = _verify(open_one, key, report)
            witnesses = _witnesses(home, open_one, report)
            chain = chain_of(home, key, report)
            _decisions(home, open_one, chain, report)
            _certificates(home, key, report)
    except (VerificationError, LedgerError) as fault:
        if not home.ledger.exists() and size is None and not isinstance(fault.__cause__, VerificationError):
            raise
        report.failed(refusal_of("ledger", fault))
    return LedgerAudit(
        ledger_size=size,
        root=root,
        checkpoint=note,
        checkpoints=checkpoints,
        witnesses=witnesses,
        decisions=len(chain.receipts),
        verifier_key=key.text,
        is_verified=report.is_verified,
        checks=report.checks,
    )


def _verify(found: Ledger, key: Verifier, report: Report) -> int:
    """Tree, tiles, index and payloads from every entry, against every checkpoint. How many of those there are."""
    notes: list[str] = []
    with proving(report, "every checkpoint is signed, and none is smaller than the one before"):
        notes = found.checkpoints()
        sizes = [open_checkpoint(each, key).size for each in notes]
        for number, (before, after) in enumerate(pairwise(sizes), start=2):
            if after < before:
                raise VerificationError(
                    f"checkpoint {number}", f"a size from {before}", f"{after}", "It was rolled back"
                )
        report.proved(
            "every checkpoint is signed, and none is smaller than the one before", f"{len(notes)} checkpoints"
        )
    what = "tree, tiles, index and commitments follow from every entry, as each checkpoint says"
    with proving(report, what):
        newest = found.verify()
        report.proved(what, f"{newest.size} leaves, root {newest.root.hex()}")
    return len(notes)


def _witnesses(home: Home, found: Ledger, report: Report) -> list[str]:
    """Cosigned checkpoints that were kept: the ledger goes on from each."""
    names: set[str] = set()
    kept = sorted((home.root / WITNESSED).glob("*.note"))
    for path in kept:
        with proving(report, f"the ledger goes on from the cosigned checkpoint {path.name}"):
            note = path.read_bytes().decode(errors="replace")
            found.check_extends(note)
            body, signatures = split_unverified(note)
            size = checkpoint_unverified(body).size
            if path.stem != str(size):
                raise VerificationError(path.name, f"a checkpoint of size {path.stem}", f"{size}", "It was renamed")
            names |= {name for name, _ in signatures} - {found.verifier.name}
    if not kept:
        report.not_covered("witnesses", "none was asked: `troth consent witness`")
    return sorted(names)


def _decisions(home: Home, found: Ledger, chain: Chain, report: Report) -> None:
    """Receipts of use: each made under a state the ledger had, each with the rows it was signed over."""
    folder = folder_of(home)
    for receipt in chain.receipts.values():
        with proving(report, f"decision {receipt.number} was made under this ledger, and its rows are those signed"):
            found.check_extends(receipt.checkpoint)
            rows = decisions.proved_rows(folder, receipt)
            report.proved(
                f"decision {receipt.number} was made under this ledger, and its rows are those signed",
                f"size {receipt.size}, {rows.height} rows",
            )


def _certificates(home: Home, key: Verifier, report: Report) -> None:
    for path in sorted((home.root / "rights").glob("*/certificate.note")):
        with proving(report, f"the certificate of erasure {path.parent.name} is signed"):
            text = open_note(path.read_bytes().decode(errors="replace"), [key]).text
            if not text.startswith(f"{CERTIFICATE}\n"):
                raise VerificationError(path.parent.name, CERTIFICATE, "another note", "Restore it from a backup")
