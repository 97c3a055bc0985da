"""Receipts of use: who asked to read, export, train on or segment people, under which ledger and policy, and what was decided.

Each is a signed note in a folder that only grows and names the hash of the one before. It commits to every single
decision, so that one can be shown without the others and all can be decided again. How a decision is made is handed in.
"""

import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import polars as pl

from consent.errors import ConsentError
from consent.log import merkle
from consent.log.entry import subject_key
from consent.log.merkle import VerificationError, canonical
from consent.log.note import Signer, Verifier, checkpoint_unverified, open_note, sign_note, split_unverified
from consent.receipts import verifier
from consent.receipts.shopper import moment, policy_hash
from consent.rule.policy import Policy
from troth.clock import Clock
from troth.home import sync, write_atomically

FORMAT = "troth decision receipt 1"
SHOWN = "troth shown decision 1"
USES = ("read_bulk", "export", "training", "segment")
SECRET_BYTES = 32
SALT_BYTES = 16
_CODE = re.compile(r"[A-Za-z0-9_.:/*=-]{1,100}")
_ANSWER = ("is_allowed", "reason_code", "since_at", "expires_at", "leaf_index")
_TIMES = ("since_at", "expires_at")
_ROW = ("expires_at", "is_allowed", "leaf_index", "reason_code", "since_at", "subject_key")  # in canonical order


@dataclass(frozen=True)
class Question:
    """May these people's data be used for this purpose, over this channel, at this time, from what was known by then?"""

    purpose_code: str
    channel_code: str
    at: datetime
    known_at: datetime | None = None


class Decider(Protocol):
    """The rule of standing for many: one row per subject with subject_id, is_allowed, reason_code, since_at, expires_at, leaf_index."""

    def __call__(self, events: pl.DataFrame, subjects: Sequence[str], question: Question) -> pl.DataFrame: ...


class Replayable(Protocol):
    """What deciding again needs of a ledger."""

    def frame(self, size: int, /) -> pl.DataFrame: ...
    def check_extends(self, note: str, /) -> None: ...
    def leaves_of(self, subject_id: str, /) -> list[int]: ...
    def opened(self, leaf: int, /) -> tuple[bytes, bytes] | None: ...


@dataclass(frozen=True)
class Use:
    """What people's data was asked for. Codes and hashes (SHA-256 in hex) only: a receipt holds no personal data.

    `inputs`: what decided besides the ledger, such as the table of links; `outputs`: the files that came of it.
    """

    use: str
    asked_by: str
    question: Question
    policy_sha256: str
    policy_version: str | None = None
    model_version: str | None = None
    model_sha256: str | None = None
    definition_sha256: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DecisionReceipt:
    """One use, as it was signed."""

    number: int
    previous: str | None
    decided_at: str
    checkpoint: str
    use: Use
    subject_count: int
    counts: tuple[Mapping[str, Any], ...]
    decisions_root: str

    @property
    def text(self) -> str:
        """What is signed: the format's name, and the receipt in canonical JSON, a line each."""
        values = {name: value for name, value in asdict(self).items() if name != "use"}
        asked = asdict(self.use)
        question = asked.pop("question")
        spelled = {**question, "at": moment(question["at"]), "known_at": moment(question["known_at"])}
        return f"{FORMAT}\n{canonical({**values, **asked, **spelled}).decode()}\n"

    @property
    def hash(self) -> str:
        """What the next receipt names this one by: SHA-256 of its text."""
        return sha256(self.text.encode()).hexdigest()

    @property
    def size(self) -> int:
        """Of the ledger it was decided under."""
        return checkpoint_unverified(split_unverified(self.checkpoint)[0]).size

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises: VerificationError where the text is not exactly what a receipt says."""
        first, _, rest = text.partition("\n")
        try:
            values = json.loads(rest) if first == FORMAT else {}
            at, known_at = (
                None if (found := values.pop(name)) is None else datetime.fromisoformat(found)
                for name in ("at", "known_at")
            )
            question = Question(values.pop("purpose_code"), values.pop("channel_code"), at or datetime.max, known_at)
            asked = {name: values.pop(name) for name in Use.__dataclass_fields__ if name != "question"}
            counts = tuple(values.pop("counts"))
            receipt = cls(**values, counts=counts, use=Use(question=question, **asked))
            if receipt.text == text:
                return receipt
        except (ValueError, TypeError, KeyError, AttributeError, ConsentError):
            pass
        raise VerificationError("decision receipt", FORMAT, "another shape", "Take it again from its folder")


@dataclass(frozen=True)
class Replayed:
    """What deciding again found: the same root. `destroyed_count`: subjects erased since, whose decisions stand on their hash."""

    subject_count: int
    destroyed_count: int
    decisions_root: str


def record(
    folder: Path, use: Use, decisions: pl.DataFrame, checkpoint: str, signer: Signer, clock: Clock
) -> DecisionReceipt:
    """Sign and keep the receipt of a use that was decided under a checkpoint of the ledger. Several processes may.

    `decisions`: what a `Decider` gives. Raises: ConsentError for a use that cannot be told without personal data.
    """
    _refuse_unsuited(use)
    rows, secret = _rows(decisions), secrets.token_bytes(SECRET_BYTES)
    root = _root(rows, secret)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{root}.salt", secret)
    draft = folder / f".{root}.draft"
    rows.write_parquet(draft)
    _synced(draft).replace(folder / f"{root}.parquet")
    while True:
        previous = _newest(folder, signer.verifier)
        receipt = DecisionReceipt(
            number=previous.number + 1 if previous else 1,
            previous=previous.hash if previous else None,
            decided_at=moment(clock.now()) or "",
            checkpoint=checkpoint,
            use=use,
            subject_count=rows.height,
            counts=_counts(rows),
            decisions_root=root,
        )
        draft.write_text(sign_note(receipt.text, signer), encoding="utf-8", newline="")
        try:
            os.link(_synced(draft), _path(folder, receipt.number))
        except FileExistsError:
            continue  # somebody else's receipt came first: name it
        finally:
            draft.unlink()
        sync(folder)
        return receipt


def load(folder: Path, number: int, key: Verifier) -> DecisionReceipt:
    """One receipt, its signature checked. Raises: VerificationError."""
    path = _path(folder, number)
    if not path.is_file():
        raise VerificationError(
            "decisions", f"a receipt {path.name}", "none", "It was removed: keep the folder as evidence"
        )
    note = path.read_bytes().decode(errors="replace")
    return DecisionReceipt.parse(open_note(note, [key]).text)


def verify(folder: Path, key: Verifier) -> int:
    """That every receipt is signed and none is missing before the newest. How many. Raises: VerificationError."""
    report = verifier.verify(folder, verifier.Trust(verifier.Key.parse(key.text, 1)))
    for failed in (check for check in report.checks if check.outcome == "failed"):
        raise VerificationError(failed.check, failed.expected or "", failed.found or "", "Keep the folder as evidence")
    return int(report.facts["decision_count"])


def replay(
    folder: Path,
    number: int,
    key: Verifier,
    ledger: Replayable,
    policy: Policy,
    subjects: Sequence[str],
    decider: Decider,
) -> Replayed:
    """Decide everything again as of the receipt's times and ledger size, and compare to the byte.

    Where a subject was erased since, its decision stands on the hash alone. Raises: VerificationError with the evidence.
    """
    receipt = load(folder, number, key)
    what = f"replay of decision {number}"
    if (found := policy_hash(policy)) != receipt.use.policy_sha256:
        raise VerificationError(
            what, f"policy {receipt.use.policy_sha256}", found, "Replay it under the policy of its time"
        )
    ledger.check_extends(receipt.checkpoint)
    again = _rows(decider(ledger.frame(receipt.size), subjects, receipt.use.question))
    kept = pl.read_parquet(folder / f"{receipt.decisions_root}.parquet")
    if again["subject_key"].to_list() != kept["subject_key"].to_list():
        raise VerificationError(
            what,
            f"the same {kept.height} subjects",
            f"{again.height}, or others",
            "Give the subjects it was decided for",
        )
    differing = again.filter(again.hash_rows() != kept.hash_rows())["subject_key"].to_list()
    destroyed = _destroyed(ledger, receipt.size, subjects, differing)
    for found in sorted(set(differing) - destroyed)[:1]:
        before, after = (
            canonical(rows.row(by_predicate=pl.col("subject_key") == found, named=True)).decode()
            for rows in (kept, again)
        )
        raise VerificationError(
            f"{what}, subject {found}", before, after, "The ledger or the rule decides otherwise now"
        )
    settled = pl.concat(
        [again.filter(~pl.col("subject_key").is_in(destroyed)), kept.filter(pl.col("subject_key").is_in(destroyed))]
    ).sort("subject_key")
    root = _root(settled, _secret(folder, receipt.decisions_root))
    if root != receipt.decisions_root or _counts(settled) != receipt.counts:
        raise VerificationError(what, f"root {receipt.decisions_root}", root, "The kept decisions are not those signed")
    return Replayed(settled.height, len(destroyed), root)


def show_one(folder: Path, number: int, key: Verifier, subject_id: str) -> dict[str, Any]:
    """One subject's decision with its proof, for `verifier.py`; the others stay hidden behind salted hashes.

    Raises: ConsentError when the subject was not among those decided.
    """
    receipt = load(folder, number, key)
    rows = pl.read_parquet(folder / f"{receipt.decisions_root}.parquet")
    secret, mine = _secret(folder, receipt.decisions_root), subject_key(subject_id).hex()
    at = rows["subject_key"].search_sorted(mine)
    if at >= rows.height or rows["subject_key"][at] != mine:
        raise ConsentError(
            f"decision {number}: expected one about this subject, found none. It was not among those asked for."
        )
    hashes = _leaf_hashes(rows, secret)
    return {
        "format": SHOWN,
        "receipt": _path(folder, number).read_bytes().decode(),
        "subject_id": subject_id,
        "row": rows.row(at, named=True),
        "salt": _salt(secret, bytes.fromhex(mine)).hex(),
        "index": at,
        "path": [step.hex() for step in merkle.inclusion_proof(at, len(hashes), _node(hashes))],
    }


def _rows(decisions: pl.DataFrame) -> pl.DataFrame:
    """Decisions as they are committed to: subjects by the key the log knows them by, sorted; times spelled."""
    keys = [subject_key(subject) for subject in decisions["subject_id"].to_list()]
    high, low = np.frombuffer(b"".join(keys), ">u8").reshape(-1, 2).T  # as whole numbers they sort four times as fast
    order = np.lexsort((low, high))
    if np.any((np.diff(high[order].astype("u8")) == 0) & (np.diff(low[order].astype("u8")) == 0)):
        raise ConsentError(
            "decisions: expected one row per subject, found several. Merge them before they are recorded."
        )
    return decisions.select(
        pl.Series("subject_key", keys, pl.Binary()).bin.encode("hex"),
        *(
            pl.col(name).dt.convert_time_zone("UTC").dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ")
            if name in _TIMES
            else pl.col(name)
            for name in _ANSWER
        ),
    ).select(pl.col(_ROW).gather(pl.Series(order)))


def _leaf_hashes(rows: pl.DataFrame, secret: bytes) -> list[bytes]:
    """SHA-256(0x00 || salt || row) of every row, the row in canonical JSON."""
    texts = rows.select(pl.struct(_ROW).struct.json_encode().cast(pl.Binary)).to_series().to_list()
    keys, hashed = rows["subject_key"].str.decode("hex").to_list(), sha256  # a name of our own is looked up faster
    return [
        hashed(b"\0" + hashed(secret + key).digest()[:SALT_BYTES] + text).digest()  # `_salt`, without a call for each
        for key, text in zip(keys, texts, strict=True)
    ]


def _salt(secret: bytes, key: bytes) -> bytes:
    """Of one row. Both parts have one length, so one secret gives each subject a salt that tells nothing of the others."""
    return sha256(secret + key).digest()[:SALT_BYTES]


def _root(rows: pl.DataFrame, secret: bytes) -> str:
    hashes = _leaf_hashes(rows, secret)
    return merkle.tree_root(len(hashes), _node(hashes)).hex()


def _node(hashes: Sequence[bytes]) -> merkle.Node:
    def node(level: int, index: int) -> bytes:
        part = b"".join(hashes[index << level : (index + 1) << level])
        while len(part) > merkle.HASH_BYTES:
            part = merkle.level_above(part)
        return part

    return node


def _counts(rows: pl.DataFrame) -> tuple[Mapping[str, Any], ...]:
    """How many subjects by reason, allowed and refused alike."""
    found = (
        rows.group_by("reason_code", "is_allowed")
        .agg(pl.len().cast(pl.Int64).alias("subject_count"))
        .sort("reason_code")
    )
    return tuple(found.select("is_allowed", "reason_code", "subject_count").iter_rows(named=True))


def _destroyed(ledger: Replayable, size: int, subjects: Sequence[str], differing: Sequence[str]) -> set[str]:
    """Of the subjects that are decided otherwise now, those who cannot be read any more."""
    asked, destroyed = set(differing), set()
    for subject in subjects if asked else ():
        key = subject_key(subject).hex()
        if key in asked and any(leaf < size and ledger.opened(leaf) is None for leaf in ledger.leaves_of(subject)):
            destroyed.add(key)
    return destroyed


def _newest(folder: Path, key: Verifier) -> DecisionReceipt | None:
    numbers = [int(path.stem) for path in folder.glob("*.note")]
    return load(folder, max(numbers), key) if numbers else None


def _secret(folder: Path, root: str) -> bytes:
    return (folder / f"{root}.salt").read_bytes()


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.note"


def _refuse_unsuited(use: Use) -> None:
    if use.use not in USES:
        raise ConsentError(f"use: expected one of {', '.join(USES)}, found {use.use}. Say what the data is for.")
    codes = (use.asked_by, use.question.purpose_code, use.question.channel_code)
    if not all(_CODE.fullmatch(code) for code in codes):
        raise ConsentError(
            "use: expected codes for who asked, purpose and channel, found other text. Name an id, not a person."
        )


def _synced(path: Path) -> Path:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return path
