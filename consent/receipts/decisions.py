"""Receipts of use: who asked to read, export, train on or segment people, under which ledger and policy, and what was decided.

Each is a signed note in a folder that only grows and names the hash of the one before; the newest is named by a signed note of
its own, so that it cannot go missing unseen. A receipt commits to every single decision, so that one can be shown without the others and all can be decided again. How a decision is made is handed in.
"""

import json
import os
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
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
from troth.home import alone, sync, write_atomically

FORMAT = "troth decision receipt 1"
SHOWN = "troth shown decision 1"
USES = ("read_bulk", "export", "training", "segment")
SECRET_BYTES = 32
SALT_BYTES = 16
_CODE = re.compile(r"[A-Za-z0-9_.:/*=-]{1,100}")
_ANSWER = ("is_allowed", "reason_code", "since_at", "expires_at", "leaf_index")
_TIMES = ("since_at", "expires_at")
_ROW = ("expires_at", "is_allowed", "leaf_index", "reason_code", "since_at", "subject_key")  # in canonical order
_ROW_SCHEMA = {
    **dict.fromkeys(_ROW, pl.String()),
    "is_allowed": pl.Boolean(),
    "leaf_index": pl.Int64(),
}


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


@dataclass(frozen=True)
class Difference:
    """A subject who is decided otherwise now: the row that was kept and the one of now, None where there is none."""

    subject_key: str
    kept: Mapping[str, Any] | None
    again: Mapping[str, Any] | None


@dataclass(frozen=True)
class Redecided:
    """A use decided again: its receipt, the rows kept beside it and those of now, who is decided otherwise, and the root that comes out.

    `destroyed`: keys of subjects erased since, or joined to one who was; their decisions stand on their hash.
    """

    receipt: DecisionReceipt
    rows: pl.DataFrame
    again: pl.DataFrame
    differences: tuple[Difference, ...]
    destroyed: frozenset[str]
    decisions_root: str
    counts: tuple[Mapping[str, Any], ...]

    @property
    def is_same(self) -> bool:
        """Whether it comes out to the byte as it was signed."""
        is_signed = (self.decisions_root, self.counts) == (self.receipt.decisions_root, self.receipt.counts)
        return is_signed and not self.differences


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
    with alone(folder):
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
        newest = f"{verifier.NEWEST}\n{receipt.number}\n{receipt.hash}\n"
        for path, text in ((_path(folder, receipt.number), receipt.text), (folder / verifier.NEWEST_FILE, newest)):
            write_atomically(path, sign_note(text, signer).encode())
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


def check_newest(folder: Path, key: Verifier, number: int, hashed: str) -> None:
    """That the newest receipt there is, by number and hash, is the newest that was kept. Raises: VerificationError."""
    try:
        verifier.check_newest(folder, verifier.Key.parse(key.text, 1), number, hashed)
    except verifier.Refusal as fault:
        raise VerificationError(fault.what, fault.expected, fault.found, "Keep the folder as evidence") from None


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
    return replayed(redecide(folder, number, key, ledger, policy, subjects, decider))


def replayed(found: Redecided) -> Replayed:
    """Raises: VerificationError with the first difference where it does not come out the same."""
    receipt, what = found.receipt, f"replay of decision {found.receipt.number}"
    new, missing = (sum(getattr(one, side) is None for one in found.differences) for side in ("kept", "again"))
    if new or missing:
        raise VerificationError(
            what,
            f"the same {found.rows.height} subjects",
            f"{found.rows.height + new - missing}, or others",
            "Give the subjects it was decided for",
        )
    for one in found.differences[:1]:
        before, after = (canonical(row).decode() for row in (one.kept, one.again))
        raise VerificationError(
            f"{what}, subject {one.subject_key}", before, after, "The ledger or the rule decides otherwise now"
        )
    if not found.is_same:
        raise VerificationError(
            what, f"root {receipt.decisions_root}", found.decisions_root, "The kept decisions are not those signed"
        )
    return Replayed(found.rows.height, len(found.destroyed), found.decisions_root)


def redecide(
    folder: Path,
    number: int,
    key: Verifier,
    ledger: Replayable,
    policy: Policy,
    subjects: Sequence[str],
    decider: Decider,
    gone: Collection[str] = (),
    silent: Collection[str] = (),
) -> Redecided:
    """Decide everything again as of the receipt's times and ledger size, and name each difference.

    `gone`: keys of subjects that cannot be asked about again as they were, for somebody was erased since. `silent`: keys of those who
    had no identity under which they could have been asked.
    Raises: VerificationError where receipt, policy or rows are not those of the decision; LedgerError where the ledger is not.
    """
    receipt = load(folder, number, key)
    what = f"replay of decision {number}"
    if (found := policy_hash(policy)) != receipt.use.policy_sha256:
        raise VerificationError(
            what, f"policy {receipt.use.policy_sha256}", found, "Replay it under the policy of its time"
        )
    ledger.check_extends(receipt.checkpoint)
    again = _rows(decider(ledger.frame(receipt.size), subjects, receipt.use.question))
    again = pl.concat([again, _never_asked(silent)]).sort("subject_key")
    kept = rows_of(folder, receipt)
    both = kept.join(again, on="subject_key", how="full", coalesce=True, nulls_equal=True, suffix="_again")
    is_other = ~pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"{name}_again")) for name in _ANSWER)
    differing = set(both.filter(is_other)["subject_key"]) | (set(kept["subject_key"]) ^ set(again["subject_key"]))
    destroyed = (differing & set(gone)) | _destroyed(ledger, receipt.size, subjects, sorted(differing - set(gone)))
    is_destroyed = pl.col("subject_key").is_in(sorted(destroyed))
    settled = pl.concat([again.filter(~is_destroyed), kept.filter(is_destroyed)]).sort("subject_key")
    differences = tuple(
        Difference(one, *(_row_of(rows, one) for rows in (kept, again))) for one in sorted(differing - destroyed)
    )
    root = _root(settled, _secret(folder, receipt.decisions_root))
    return Redecided(receipt, kept, settled, differences, frozenset(destroyed), root, _counts(settled))


def _never_asked(keys: Collection[str]) -> pl.DataFrame:
    said = {"is_allowed": False, "reason_code": "never_asked"}
    return pl.DataFrame([{"subject_key": key, **said} for key in keys], schema=_ROW_SCHEMA)


def rows_of(folder: Path, receipt: DecisionReceipt) -> pl.DataFrame:
    """The decisions kept beside a receipt, as they are: nothing proves them yet. Raises: VerificationError where they cannot be read."""
    path = folder / f"{receipt.decisions_root}.parquet"
    try:
        rows = pl.read_parquet(path)
        if dict(rows.schema) == _ROW_SCHEMA:
            return rows.select(_ROW)
        found = "other columns"
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as fault:
        found = "none" if isinstance(fault, FileNotFoundError) else f"unreadable: {type(fault).__name__}"
    raise VerificationError(
        f"decision {receipt.number}, {path.name[:16]}...parquet", "its kept rows", found, "Restore them from a backup"
    )


def proved_rows(folder: Path, receipt: DecisionReceipt) -> pl.DataFrame:
    """The decisions kept beside a receipt, once they are those that were signed. Raises: VerificationError."""
    rows = rows_of(folder, receipt)
    root = _root(rows, _secret(folder, receipt.decisions_root))
    if root != receipt.decisions_root or _counts(rows) != receipt.counts:
        raise VerificationError(
            f"decision {receipt.number}, kept rows",
            f"root {receipt.decisions_root}",
            root,
            "They or their salt were changed: the receipt stands",
        )
    return rows


def salted_rows(folder: Path, receipt: DecisionReceipt) -> list[tuple[dict[str, Any], str]]:
    """Every row of a decision with its salt in hex, in order: what makes the root again. Raises: VerificationError."""
    secret = _secret(folder, receipt.decisions_root)
    rows = proved_rows(folder, receipt).iter_rows(named=True)
    return [(row, _salt(secret, bytes.fromhex(row["subject_key"])).hex()) for row in rows]


def show_one(folder: Path, number: int, key: Verifier, subject_id: str) -> dict[str, Any]:
    """One subject's decision with its proof, for `verifier.py`; the others stay hidden behind salted hashes.

    Raises: ConsentError when the subject was not among those decided.
    """
    receipt = load(folder, number, key)
    rows = rows_of(folder, receipt)
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
    path = folder / f"{root}.salt"
    secret = path.read_bytes() if path.is_file() else b""
    if len(secret) != SECRET_BYTES:
        raise VerificationError(
            f"{root[:16]}...salt", f"{SECRET_BYTES} bytes", f"{len(secret)}", "Restore it from a backup"
        )
    return secret


def _row_of(rows: pl.DataFrame, key: str) -> dict[str, Any] | None:
    found = rows.filter(pl.col("subject_key") == key)
    return found.row(0, named=True) if found.height else None


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
