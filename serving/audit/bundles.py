"""Evidence to take along: one folder with everything behind an audit, which the single-file verifier in it checks without us.

What a person said and what was decided about them is in it under tokens and keys; files with contact data only where they are asked for.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from consent import notices
from consent.errors import ConsentError
from consent.ledger.ledger import Ledger
from consent.ledger.opening import signer_of
from consent.log.entry import subject_key
from consent.log.merkle import VerificationError, canonical
from consent.log.note import sign_note, to_base64
from consent.receipts import decisions, shopper, verifier
from consent.receipts.uses import folder_of, policy_of
from consent.receipts.verifier import BUNDLE, BUNDLE_SEAL, CONTENTS, NEWEST_FILE, Key, Report, Trust
from consent.rule.policy import read_policy
from models import registry
from serving.audit.evidence import reading
from serving.audit.exports import MANIFEST, export_of
from serving.audit.exports import found as found_export
from serving.audit.ledgers import WITNESSED
from serving.audit.people import subject
from serving.audit.receipts import Chain, chain_of
from serving.audit.shapes import Answer, Bundle
from serving.audit.training import model
from serving.errors import ServingError
from serving.hub.seams import controller_of
from troth.home import Home, write_atomically

KINDS = ("subject", "export", "model")
MOST_CONSENTS = 20_000  # events that a yes rested on, with their proofs: about 2 kB each
README = """Evidence about {kind} {name}, made at {made_at}.

    python verifier.py .                       all of it fits together, under the key in `key`
    python verifier.py . --key KEY             and it is this retailer's: KEY as they publish it
    python verifier.py . --since checkpoint    and nothing was rolled back since a checkpoint that you kept

It needs Python 3.9 or newer and the package cryptography, and no network. Whoever does not trust the copy of verifier.py in this
folder takes it from the retailer's open source. bundle.json lists every file with its SHA-256 and is sealed by the ledger's key.
"""


def bundle(
    home: Home,
    kind: str,
    name: str,
    folder: Path,
    at: datetime,
    *,
    version: str | None = None,
    has_files: bool = False,
) -> Bundle:
    """Pack the evidence about a `subject`, an `export` (number or folder) or a `model` into a new folder, and verify it there.

    `has_files`: also the files that went out, which hold contact data. Raises: ServingError for what there is none of, or a folder that is
    there; LedgerError where the ledger cannot be read.
    """
    if kind not in KINDS:
        raise ServingError(f"bundle: expected one of {', '.join(KINDS)}, found {kind[:40]!r}. Name one.")
    if folder.exists():
        raise ServingError(f"bundle: expected a new folder, found {folder.name} already there. Name another.")
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True, mode=0o700)
        with reading(home) as ledger:
            packing = _Packing(home, ledger, draft, at, has_files=has_files)
            about = getattr(packing, kind)(name) if kind != "model" else packing.model(name, version)
            packing.close(kind, about)
            key = ledger.verifier.text
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    report = verifier.verify(folder, Trust(Key.parse(key, verifier.LOG_KEY)))
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return Bundle(
        folder=str(folder),
        about=f"{kind} {about}",
        files=len(sizes),
        bytes=sum(sizes),
        verifier_key=key,
        check_it_yourself=f"python {folder / 'verifier.py'} {folder} --key {key}",
        is_verified=report.is_verified,
        checks=report.checks,
    )


@dataclass
class _Packing:
    """A bundle while it is packed. One checkpoint for all of it: proofs are made under the ledger as it was when packing began."""

    home: Home
    ledger: Ledger
    folder: Path
    at: datetime
    has_files: bool
    chain: Chain = field(init=False)
    checkpoint: str = field(init=False)

    def __post_init__(self) -> None:
        self.chain = chain_of(self.home, self.ledger.verifier, Report("decisions"))

    def subject(self, said: str) -> str:
        """Receipts of every identity, everything decided about them, certificates of erasure."""
        told = subject(self.home, said, self.at)
        self.put("audit.json", _spelled(told))
        with self.ledger.still():
            self.checkpoint = self.ledger.checkpoint()
            policy, controller, signer = read_policy(), controller_of(self.home), signer_of(self.home)
            for one in told.identities:
                made = shopper.shopper_receipt(self.ledger, policy, one.token, self.at, controller, signer=signer)
                self.put(f"people/{one.number}.json", shopper.encoded(made))
        shown = {(use.number, use.of) for use in told.uses}
        for number, of in sorted(shown):
            try:
                row = decisions.show_one(folder_of(self.home), number, self.ledger.verifier, of)
            except (VerificationError, ConsentError):
                continue  # the audit says so; what cannot be shown is no evidence
            self.put(f"shown/{number:08d}-{subject_key(of).hex()[:8]}.json", shopper.encoded(row))
        keys = {subject_key(one.token).hex() for one in told.identities}
        for path in sorted((self.home.root / "rights").glob("*/certificate.note")):
            if any(key in path.read_text(encoding="utf-8") for key in keys):
                self.put(f"certificates/{path.parent.name}.note", path.read_bytes())
        self.policies(number for number, _ in shown)
        return told.subject

    def export(self, which: str) -> str:
        """The manifest, everybody's rows, and the events that every yes rests on; the files where they are asked for."""
        told = export_of(self.home, which)
        self.put("audit.json", _spelled(told))
        made = found_export(self.home, which)
        if made is not None:
            self.put(f"export/{MANIFEST}", made.text)
            for name in made.manifest["files"] if self.has_files else ():
                if (made.folder / name).is_file():
                    self.put(f"export/{name}", (made.folder / name).read_bytes())
        self.decided([one.number for one in told.receipts])
        return f"{told.segment} of {told.exported_at}"

    def model(self, name: str, version: str | None) -> str:
        """The manifest, everybody's rows, and the events that every yes rests on. Artifacts are there by their hashes."""
        told = model(self.home, name, version)
        self.put("audit.json", _spelled(told))
        self.put("model/manifest.json", (self.home.artifacts / name / told.version / registry.MANIFEST).read_bytes())
        self.decided([one.number for one in told.receipts])
        return f"{name} {told.version}"

    def decided(self, numbers: Sequence[int]) -> None:
        """All rows of these decisions with their salts, and the events that each yes rests on."""
        leaves: set[int] = set()
        for number in numbers:
            receipt = self.chain.receipts[number]
            rows = decisions.salted_rows(folder_of(self.home), receipt)
            lines = [canonical({"row": row, "salt": salt}) + b"\n" for row, salt in rows]
            self.put(f"decided/{number:08d}.jsonl", b"".join(lines))
            leaves |= {row["leaf_index"] for row, _ in rows if row["is_allowed"] and row["leaf_index"] is not None}
        with self.ledger.still():
            self.checkpoint = self.ledger.checkpoint()
            self.put("consents.jsonl", b"".join(self._consents(sorted(leaves)[:MOST_CONSENTS])))
        self.policies(numbers)

    def _consents(self, leaves: Sequence[int]) -> Iterator[bytes]:
        for leaf, path in zip(leaves, self.ledger.inclusion_proofs(leaves, self.ledger.size), strict=True):
            opened = self.ledger.opened(leaf)
            yield (
                canonical(
                    {
                        "leaf_index": leaf,
                        "entry": self.ledger.entry(leaf).hex(),
                        "event": msgspec.json.decode(opened.event) if opened else None,
                        "salt": opened.salt.hex() if opened else None,
                        "path": [step.hex() for step in path],
                    }
                )
                + b"\n"
            )

    def policies(self, numbers: Iterable[int]) -> None:
        """The policies that decisions were made under, as the rule reads them."""
        for hashed in {self.chain.receipts[number].use.policy_sha256 for number in numbers}:
            document = shopper.policy_document(policy_of(self.home, hashed))
            self.put(f"policies/{hashed}.json", canonical(document) + b"\n")

    def close(self, kind: str, name: str) -> None:
        """What every bundle has: the chain of receipts, proofs that the ledger goes on from each, notices, verifier, and the sealed list."""
        sizes = set()
        for number, receipt in self.chain.receipts.items():
            self.put(f"decisions/{number:08d}.note", (folder_of(self.home) / f"{number:08d}.note").read_bytes())
            sizes.add(receipt.size)
        if (newest_note := folder_of(self.home) / NEWEST_FILE).exists():  # where it is gone the verifier says so
            self.put(f"decisions/{NEWEST_FILE}", newest_note.read_bytes())
        for path in sorted((self.home.root / WITNESSED).glob("*.note")):
            self.put(f"witnessed/{path.name}", path.read_bytes())
            sizes.add(int(path.stem))
        newest = int(self.checkpoint.split("\n")[1])
        proofs = {str(size): [step.hex() for step in self.ledger.consistency_proof(size, newest)] for size in sizes}
        self.put("consistency.json", canonical(proofs) + b"\n")
        for path in sorted(notices.FOLDER.rglob("*")):
            if path.is_file():
                self.put(f"notices/{path.relative_to(notices.FOLDER).as_posix()}", path.read_bytes())
        made_at = shopper.moment(self.at)
        self.put("README.txt", README.format(kind=kind, name=name, made_at=made_at).encode())
        self.put("key", f"{self.ledger.verifier.text}\n".encode())
        self.put("checkpoint", self.checkpoint.encode())
        self.put("verifier.py", Path(str(verifier.__file__)).read_bytes())
        contents: dict[str, Any] = {
            "format": BUNDLE,
            "about": {"kind": kind, "name": name},
            "made_at": made_at,
            "checkpoint": self.checkpoint,
            "files": {
                path.relative_to(self.folder).as_posix(): sha256(path.read_bytes()).hexdigest()
                for path in sorted(self.folder.rglob("*"))
                if path.is_file()
            },
            "seal": None,
        }
        seal = f"{BUNDLE_SEAL}\nsha256 {to_base64(sha256(canonical(contents)).digest())}\n"
        contents["seal"] = sign_note(seal, signer_of(self.home))
        self.put(CONTENTS, canonical(contents) + b"\n")

    def put(self, name: str, data: bytes) -> None:
        write_atomically(self.folder / name, data)


def _spelled(told: Answer) -> bytes:
    """An audit as it was answered, for people to read."""
    return msgspec.json.format(msgspec.json.encode(told, enc_hook=str), indent=1) + b"\n"
