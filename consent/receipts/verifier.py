#!/usr/bin/env python3
"""Checks what Troth handed out, without Troth and without a network: one file, for Python 3.9 or newer with `cryptography`.

    python verifier.py receipt.json --key KEY [--witness KEY ...] [--quorum N] [--since FILE] [--sealed] [--at TIME] [--json]

Takes receipts of consent (a file, or a folder with its `.tlog-proof` files), decision receipts (a note, one shown decision, or
a folder of them), exports of the ledger and bundles of evidence (folders); several at once are compared with each other. KEY is the
ledger's verifier key, known from elsewhere; a bundle alone may be checked under the key in it, which proves only that all of it fits.
Ends with 0 when everything verifies, 1 when something does not, 2 on misuse.

It imports nothing of ours on purpose, so it says again what the ledger, the index and the rule of standing say. Formats:
c2sp.org/signed-note, tlog-checkpoint, tlog-cosignature, tlog-proof@v1; RFC 9162; RFC 8785; consent/README.md.
"""
# ruff: noqa: B905, RUF007, UP017, UP045 - written for Python 3.9

from __future__ import annotations

import argparse
import base64
import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any, Optional

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

RECEIPT = "troth consent receipt 1"
STANDING_RECEIPT = "troth standing receipt 1"
STATE_PROOF = "troth state proof 1"
SEAL = "troth receipt seal 1"
DECISION = "troth decision receipt 1"
NEWEST = "troth newest decision 1"
NEWEST_FILE = "newest"
SHOWN = "troth shown decision 1"
EXPORT = "troth consent export 2"
BUNDLE = "troth evidence bundle 1"
BUNDLE_SEAL = "troth bundle seal 1"
MANIFEST_SEAL = "troth manifest seal 1"
CERTIFICATE = "troth erasure certificate 1"
TLOG_PROOF = "c2sp.org/tlog-proof@v1"
EVERY = "*"
USES = ("read_bulk", "export", "training", "segment")
ALLOWING = ("granted", "contract", "not_opted_out", "notice_given")
PAGE_ROWS, SUBJECT_BYTES, KEY_BYTES, ROW_BYTES, ENTRY_BYTES = 32, 16, 32, 40, 64
MAXIMUM_FILE = 64 << 20
MAXIMUM_NOTE = 200_000
MAXIMUM_SIGNATURES = 100
MAXIMUM_EVENTS = 100_000
MAXIMUM_PATH = 63

# 27560 event_state of each event; None: it says nothing about consent. A GPC signal is the only signal that does.
STATES: dict[str, Optional[str]] = {
    "grant": "dpv:ConsentGiven",
    "renew": "dpv:RenewedConsentGiven",
    "confirm": "dpv:ConsentGiven",
    "refuse": "dpv:ConsentRefused",
    "withdraw": "dpv:ConsentWithdrawn",
    "object": "dpv:ConsentRefused",
    "restrict": "dpv:ConsentStatusInvalidForProcessing",
    "unrestrict": None,
    "expire": "dpv:ConsentExpired",
    "notice_shown": "dpv:ConsentRequested",
    "signal_seen": "dpv:ConsentRefused",
    "identity_linked": None,
    "identity_unlinked": None,
    "erased": "dpv:ConsentInvalidated",
}


class Refusal(Exception):  # noqa: N818
    """Something that claims to be proved is not. Carries its evidence."""

    def __init__(self, what: str, expected: object, found: object, advice: str = "Ask its maker for it again") -> None:
        self.what, self.expected, self.found = what, str(expected)[:500], str(found)[:500]
        super().__init__(f"{what}: expected {self.expected}, found {self.found}. {advice}.")


@dataclass
class Check:
    """One line of the report. `outcome`: verified, failed or not covered."""

    outcome: str
    check: str
    evidence: str
    expected: Optional[str] = None
    found: Optional[str] = None


@dataclass
class Report:
    """What was checked of one thing, in order, up to the first failure; and what was learned."""

    name: str
    checks: list[Check] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def is_verified(self) -> bool:
        """Nothing failed, and something was proved: an empty report proves nothing."""
        outcomes = [check.outcome for check in self.checks]
        return "verified" in outcomes and "failed" not in outcomes

    def proved(self, check: str, evidence: object) -> None:
        self.checks.append(Check("verified", check, str(evidence)))

    def not_covered(self, check: str, evidence: str) -> None:
        self.checks.append(Check("not covered", check, evidence))

    def failed(self, refusal: Refusal) -> None:
        self.checks.append(Check("failed", refusal.what, str(refusal), refusal.expected, refusal.found))


LOG_KEY, COSIGNER, COSIGNER_MLDSA = 1, 4, 6  # signature types of c2sp.org/signed-note and tlog-cosignature
KEY_LENGTHS = {LOG_KEY: 32, COSIGNER: 32, COSIGNER_MLDSA: 1312}


@dataclass(frozen=True)
class Key:
    """A verifier key: `name+key id+base64(type || public key)`."""

    name: str
    kind: int
    public: bytes

    @property
    def key_id(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    @property
    def text(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(bytes([self.kind]) + self.public).decode()}"

    @classmethod
    def parse(cls, text: str, *kinds: int) -> Key:
        name, _, rest = text.strip().partition("+")
        raw = unbase64(rest.partition("+")[2], "verifier key")
        if raw[0] not in kinds or len(raw) - 1 != KEY_LENGTHS[raw[0]] or not is_name(name):
            raise Refusal(
                "verifier key", f"name+key id+base64 of a key of type {', '.join(map(str, kinds))}", "another"
            )
        key = cls(name, raw[0], raw[1:])
        if key.text != text.strip():
            raise Refusal("verifier key", f"key id {key.key_id.hex()}", "another spelling", "Take it from its owner")
        return key

    def check(self, signature: bytes, message: bytes) -> None:
        try:
            if self.kind == COSIGNER_MLDSA:
                from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey  # from 48 on

                MLDSA44PublicKey.from_public_bytes(self.public).verify(signature, message)
            else:
                Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except ImportError:
            raise Refusal(
                "signature", "cryptography 48 or newer", "an older one", "It cannot check ML-DSA-44"
            ) from None
        except (InvalidSignature, ValueError):
            raise Refusal(
                "signature", f"a valid one by {self.name}", "one that fails", "The text is not what the key signed"
            ) from None

    def cosigned(self, at: int, body: str) -> bytes:
        """What a witness signs of a checkpoint at a time (c2sp.org/tlog-cosignature)."""
        if self.kind == COSIGNER:
            return f"cosignature/v1\ntime {at}\n{body}".encode()
        origin, size, root = body.split("\n")[:3]
        names = [bytes([len(name.encode())]) + name.encode() for name in (self.name, origin)]
        numbers = [number.to_bytes(8, "big") for number in (at, 0, int(size))]
        tree = names[1] + numbers[1] + numbers[2] + unbase64(root, "checkpoint")
        return b"subtree/v1\n\0" + names[0] + numbers[0] + tree


@dataclass(frozen=True)
class Trust:
    """What the reader knows from elsewhere: the ledger's key, witnesses and how many must agree, a checkpoint kept.

    `needs_seal`: refuse a receipt whose policy and words the ledger's key did not sign too.
    """

    key: Key
    witnesses: tuple[Key, ...] = ()
    quorum: int = 0
    since: Optional[str] = None
    needs_seal: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """Size and roots of a ledger, as its key signed them."""

    origin: str
    size: int
    root: bytes
    state_root: Optional[bytes]


# Reading: every value has one spelling, so that no byte is free.


def canonical(value: object) -> bytes:
    """RFC 8785 for text, whole numbers, booleans, null, lists and objects with ASCII keys."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def read_json(raw: bytes, what: str) -> Any:
    """A JSON value that is spelled canonically; anything else is refused."""

    def refuse(_: str) -> object:
        raise ValueError

    def bounded(digits: str) -> object:
        return int(digits) if len(digits) < 17 else refuse(digits)

    try:
        value = json.loads(raw.decode(), parse_float=refuse, parse_constant=refuse, parse_int=bounded)
        is_canonical = canonical(value) == raw
    except (ValueError, RecursionError):
        raise Refusal(what, "JSON of whole numbers and text", "another shape") from None
    if not is_canonical:
        raise Refusal(what, "canonical JSON (RFC 8785)", "another spelling")
    return value


def fields(value: object, what: str, *names: str) -> dict[str, Any]:
    """An object with exactly these fields: one more could say what nobody checks."""
    if not isinstance(value, dict) or set(value) != set(names):
        found = ", ".join(sorted(value)) if isinstance(value, dict) else type(value).__name__
        raise Refusal(what, f"the fields {', '.join(sorted(names))}", found or "none")
    return value


def items(value: object, what: str, most: int = MAXIMUM_EVENTS) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise Refusal(what, f"a list of at most {most}", "something else")
    return value


def text(value: object, what: str, most: int = MAXIMUM_NOTE) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise Refusal(what, f"text of at most {most} characters", "something else")
    return value


def whole(value: object, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise Refusal(what, "a whole number", "something else")
    return value


def unhex(value: object, what: str, length: int) -> bytes:
    """Bytes of lower-case hex of a known length."""
    if not isinstance(value, str) or len(value) != 2 * length or not re.fullmatch(r"[0-9a-f]*", value):
        raise Refusal(what, f"{length} bytes in hex", "something else")
    return bytes.fromhex(value)


def unbase64(value: str, what: str) -> bytes:
    """Bytes of base64 in its one canonical spelling."""
    try:
        raw = base64.b64decode(value, validate=True)
    except ValueError:
        raw = b""
    if not raw or base64.b64encode(raw).decode() != value:
        raise Refusal(what, "base64", "something else")
    return raw


def moment(value: object, what: str) -> datetime:
    """A time as every format of ours spells it: UTC, to the microsecond."""
    spelled = value if isinstance(value, str) else ""
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", spelled, re.ASCII):
            return datetime.fromisoformat(spelled[:-1]).replace(tzinfo=timezone.utc)
    except ValueError:
        pass
    raise Refusal(what, "a time as YYYY-MM-DDThh:mm:ss.ffffffZ", "something else")


def maybe_moment(value: object, what: str) -> Optional[datetime]:
    return None if value is None else moment(value, what)


def spelled_moment(at: Optional[datetime]) -> Optional[str]:
    return None if at is None else at.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def read_file(path: Path) -> bytes:
    if path.stat().st_size > MAXIMUM_FILE:
        raise Refusal(path.name, f"at most {MAXIMUM_FILE} bytes", path.stat().st_size, "It is no receipt of ours")
    return path.read_bytes()


def read_text(path: Path) -> str:
    try:
        return read_file(path).decode()
    except UnicodeDecodeError:
        raise Refusal(path.name, "UTF-8 text", "other bytes") from None


# Trees (RFC 9162, 2.1), written from their definitions.


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\0" + entry).digest()


class Tree:
    """A Merkle tree that only grows: one hash for every set bit of its size."""

    def __init__(self, hashes: Iterable[bytes] = ()) -> None:
        self.size, self.peaks = 0, list[bytes]()
        for found in hashes:
            self.add(found)

    def add(self, found: bytes) -> None:
        size = self.size
        while size & 1:
            found = sha256(b"\1" + self.peaks.pop() + found).digest()
            size >>= 1
        self.peaks.append(found)
        self.size += 1

    def root(self) -> bytes:
        if not self.peaks:
            return sha256(b"").digest()
        root = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            root = sha256(b"\1" + peak + root).digest()
        return root


def check_inclusion(what: str, leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """That `leaf` is at `index` of the tree of `size` leaves with this root."""
    siblings = list(path)

    def climb(at: int, count: int) -> bytes:
        if count == 1:
            return leaf
        left = 1 << (count - 1).bit_length() - 1
        if not siblings:
            raise Refusal(what, "a longer path", f"{len(path)} hashes")
        sibling = siblings.pop()
        if at < left:
            return sha256(b"\1" + climb(at, left) + sibling).digest()
        return sha256(b"\1" + sibling + climb(at - left, count - left)).digest()

    if not 0 <= index < size:
        raise Refusal(what, f"an index below {size}", index)
    found = climb(index, size)
    if siblings:
        raise Refusal(what, "a shorter path", f"{len(path)} hashes")
    if found != root:
        raise Refusal(what, f"root {root.hex()}", found.hex(), "It is not what the ledger holds there")


def check_consistency(what: str, old: Checkpoint, new: Checkpoint, path: Sequence[bytes]) -> None:
    """That the tree of `new` begins with that of `old` (RFC 9162, 2.1.4.2)."""
    if old.size > new.size:
        raise Refusal(what, f"a ledger of at least {old.size} events", new.size, "It was rolled back")
    if old.size in (0, new.size):
        if path or (old.size and old.root != new.root):
            raise Refusal(what, f"root {old.root.hex()}", new.root.hex(), "Two histories exist: keep both")
        return
    steps = list(path) if old.size & (old.size - 1) else [old.root, *path]
    first, last = old.size - 1, new.size - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    if not steps:
        raise Refusal(what, "a proof of consistency", "none", "Two histories may exist")
    before = after = steps[0]
    for sibling in steps[1:]:
        if last == 0:
            raise Refusal(what, "a shorter proof", f"{len(path)} hashes")
        if first & 1 or first == last:
            before, after = sha256(b"\1" + sibling + before).digest(), sha256(b"\1" + sibling + after).digest()
            while first and not first & 1:
                first, last = first >> 1, last >> 1
        else:
            after = sha256(b"\1" + after + sibling).digest()
        first, last = first >> 1, last >> 1
    if last or before != old.root or after != new.root:
        raise Refusal(what, f"roots {old.root.hex()} and {new.root.hex()}", "others", "Two histories exist: keep both")


# Notes.


def is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(character.isspace() for character in name)


def open_note(note: str, what: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """A note's text, and (name, key id, signature) of each of its lines; none of them is believed yet."""
    body, blank, tail = note.rpartition("\n\n")
    lines = tail.split("\n")
    if (
        not blank
        or len(note) > MAXIMUM_NOTE
        or re.search(r"[\x00-\x09\x0b-\x1f]", note)
        or lines[-1]
        or not 1 < len(lines) <= MAXIMUM_SIGNATURES + 1
    ):
        raise Refusal(what, "text, a blank line and signature lines", "another shape")
    found = []
    for line in lines[:-1]:
        parts = line.split(" ")
        if len(parts) != 3 or parts[0] != "\u2014" or not is_name(parts[1]):
            raise Refusal(what, "signature lines: dash, name, base64", "another shape")
        raw = unbase64(parts[2], what)
        found.append((parts[1], raw[:4], raw[4:]))
    return body + "\n", found


def signed_text(note: str, key: Key, what: str) -> str:
    """The text of a note that the ledger's key signed; one signature of it that fails refuses the note."""
    body, signatures = open_note(note, what)
    mine = [signature for name, key_id, signature in signatures if (name, key_id) == (key.name, key.key_id)]
    if not mine:
        raise Refusal(what, f"a signature by {key.name}", f"{len(signatures)} by others", "Another key signed it")
    for signature in mine:
        key.check(signature, body.encode())
    return body


def open_checkpoint(note: str, key: Key) -> Checkpoint:
    """Size, root and state root that the ledger's key signed."""
    lines = signed_text(note, key, "checkpoint").split("\n")[:-1]
    if len(lines) < 3 or not all(lines) or not re.fullmatch(r"0|[1-9][0-9]{0,14}", lines[1]):
        raise Refusal("checkpoint", "origin, size, root and extensions, a line each", "another shape")
    if lines[0] != key.name:
        raise Refusal("checkpoint", f"origin {key.name}", lines[0], "It belongs to another ledger")
    states = [line[6:] for line in lines[3:] if line.startswith("state ")]
    hashes = [unbase64(spelled, "checkpoint") for spelled in (lines[2], *states)]
    if len(states) > 1 or any(len(found) != 32 for found in hashes):
        raise Refusal("checkpoint", "one root and at most one state root", "others")
    return Checkpoint(lines[0], int(lines[1]), hashes[0], hashes[1] if states else None)


def witnessed_at(note: str, witnesses: Sequence[Key], quorum: int) -> dict[str, int]:
    """When each named witness cosigned a checkpoint, in seconds since 1970. Fewer than the quorum are refused."""
    body, signatures = open_note(note, "cosignatures")
    seen: dict[str, int] = {}
    for name, key_id, signature in signatures:
        for witness in witnesses:
            if (name, key_id) == (witness.name, witness.key_id):
                at = int.from_bytes(signature[:8], "big")
                witness.check(signature[8:], witness.cosigned(at, body))
                seen[name] = at
    if len(seen) < quorum:
        raise Refusal(
            "cosignatures", f"{quorum} of the named witnesses", f"{len(seen)}", "They may have seen another history"
        )
    return seen


def check_proof(proof: str, entry: bytes, index: int, note: str, checkpoint: Checkpoint) -> None:
    """A `.tlog-proof` (c2sp.org/tlog-proof@v1): that `entry` is leaf `index` under exactly this checkpoint."""
    what = f"proof of leaf {index}"
    head, blank, carried = proof.partition("\n\n")
    lines = head.split("\n")
    extra = lines.pop(1)[6:] if len(lines) > 1 and lines[1].startswith("extra ") else None
    if extra is not None and unbase64(extra, what) != entry:
        raise Refusal(what, "the entry as extra data", "other data")
    if not blank or lines[0] != TLOG_PROOF or lines[1:2] != [f"index {index}"] or len(lines) > MAXIMUM_PATH + 2:
        raise Refusal(what, f"{TLOG_PROOF} for index {index}", "another proof")
    if carried != note:
        raise Refusal(what, "the receipt's own checkpoint", "another", "Proofs of two checkpoints were mixed")
    path = [unbase64(line, what) for line in lines[2:]]
    if any(len(sibling) != 32 for sibling in path):
        raise Refusal(what, "hashes of 32 bytes", "others")
    check_inclusion(what, leaf_hash(entry), index, checkpoint.size, path, checkpoint.root)


# Keys of the index, and the proof that nothing was left out.


def digest(tag: str, *parts: str) -> bytes:
    return sha256("\0".join((tag, *parts)).encode()).digest()


def subject_key(subject_id: str) -> bytes:
    return digest("troth-consent-subject-v1", subject_id)[:SUBJECT_BYTES]


def entry_key(event: Mapping[str, Any]) -> bytes:
    """The public half of an event's entry: subject, scope and signal."""
    subject, kind, purpose, channel = (
        str(event[name]) for name in ("subject_id", "event_type", "purpose_code", "channel_code")
    )
    return (
        subject_key(subject)
        + digest("troth-consent-scope-v1", subject, purpose, channel)[:8]
        + digest("troth-consent-signal-v1", str(event["signal_id"]), subject, kind, purpose, channel)[:8]
    )


def commitment(salt: bytes, event: bytes) -> bytes:
    return sha256(b"troth-consent-event-v1\0" + salt + event).digest()


def state_root(runs: Iterable[tuple[int, int, bytes]]) -> bytes:
    found = sha256(b"troth-consent-index-v1\0")
    for start, stop, root in runs:
        found.update(start.to_bytes(8, "big") + stop.to_bytes(8, "big") + root)
    return found.digest()


def check_state_proof(proof: object, prefix: bytes, checkpoint: Checkpoint) -> dict[int, bytes]:
    """Index key by leaf of every row that begins with `prefix`: all there are under the checkpoint. Empty: never asked."""
    what = "state proof"
    if checkpoint.state_root is None:
        raise Refusal("checkpoint", "a state root", "none", "It cannot prove that nothing was left out")
    shown = fields(proof, what, "format", "prefix", "runs")
    if shown["format"] != STATE_PROOF or shown["prefix"] != prefix.hex():
        raise Refusal(what, f"{STATE_PROOF} for {prefix.hex()}", "another", "It is about somebody else")
    runs: list[tuple[int, int, bytes]] = []
    rows: dict[int, bytes] = {}
    for run in items(shown["runs"], what, 10_000):
        fields(run, what, "start", "stop", "root", "first_page", "pages", "paths")
        start, stop = whole(run["start"], what), whole(run["stop"], what)
        if start != (runs[-1][1] if runs else 0) or stop <= start:
            raise Refusal(what, f"a run from leaf {runs[-1][1] if runs else 0}", f"{start} to {stop}", "One is missing")
        runs.append((start, stop, unhex(run["root"], what, 32)))
        rows.update(run_rows(run, runs[-1], prefix))
    if (runs[-1][1] if runs else 0) != checkpoint.size:
        raise Refusal(what, f"runs up to leaf {checkpoint.size}", runs[-1][1] if runs else 0, "A run is missing")
    if (found := state_root(runs)) != checkpoint.state_root:
        raise Refusal(what, f"state root {checkpoint.state_root.hex()}", found.hex(), "It is of another state")
    return rows


def run_rows(shown: Mapping[str, Any], run: tuple[int, int, bytes], prefix: bytes) -> Iterator[tuple[int, bytes]]:
    """The rows one run holds of a prefix, once its pages are proved and reach beyond the prefix on both sides."""
    start, stop, root = run
    what = f"state proof, run {start} to {stop}"
    count = -(-(stop - start) // PAGE_ROWS)
    first, pages = whole(shown["first_page"], what), items(shown["pages"], what)
    paths = items(shown["paths"], what)
    if not pages or len(paths) != len(pages) or first + len(pages) > count:
        raise Refusal(what, f"pages of the run's {count}, each with its path", f"{len(pages)} from page {first}")
    rows: list[bytes] = []
    for number, (page, path) in enumerate(zip(pages, paths), first):
        raw = unhex(page, what, ROW_BYTES * min(PAGE_ROWS, stop - start - number * PAGE_ROWS))
        siblings = [unhex(sibling, what, 32) for sibling in items(path, what, MAXIMUM_PATH)]
        check_inclusion(f"{what}, page {number}", leaf_hash(raw), number, count, siblings, root)
        rows += [raw[at : at + ROW_BYTES] for at in range(0, len(raw), ROW_BYTES)]
    if any(row >= after for row, after in zip(rows, rows[1:])):
        raise Refusal(what, "rows in ascending order", "others", "The index was not built as it must be")
    length = len(prefix)
    if first > 0 and rows[0][:length] >= prefix:
        raise Refusal(what, "a row before the ones asked for", "none", "Rows may have been left out before")
    if first + len(pages) < count and rows[-1][:length] <= prefix:
        raise Refusal(what, "a row after the ones asked for", "none", "Rows may have been left out after")
    for row in rows:
        leaf = int.from_bytes(row[KEY_BYTES:], "big")
        if not start <= leaf < stop:
            raise Refusal(what, "leaves of the run", leaf, "The index was not built as it must be")
        if row[:length] == prefix:
            yield leaf, row[:KEY_BYTES]


# The rule of standing (README, steps 1 to 5 and 7), for one subject.

FREEING = ("grant", "renew", "confirm", "unrestrict", "notice_shown")
PERSONS_NO = ("refused", "withdrawn", "objected", "gpc", "restricted", "erased")
NOES = {"refuse": "refused", "withdraw": "withdrawn", "object": "objected", "expire": "expired"}


@dataclass(frozen=True)
class Event:
    """An event as the rule sees it. `happened_at`: the earliest of its clocks; `ranked_at`: its place among the others."""

    leaf_index: int
    said: Mapping[str, Any]
    happened_at: datetime
    received_at: datetime
    ranked_at: datetime

    @property
    def kind(self) -> str:
        return str(self.said["event_type"])

    @property
    def is_gpc(self) -> bool:
        return self.kind == "signal_seen" and self.said["capture_method"] == "gpc"


@dataclass(frozen=True)
class Standing:
    """May we, now? With the reason, since when, until when, and the leaf that decided."""

    is_allowed: bool
    reason_code: str
    since_at: Optional[datetime] = None
    expires_at: Optional[datetime] = None
    leaf_index: Optional[int] = None

    @property
    def row(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "since_at": spelled_moment(self.since_at),
            "expires_at": spelled_moment(self.expires_at),
        }


def read_event(leaf_index: int, said: Mapping[str, Any]) -> Event:
    """Step 3: a device's clock never helps what frees."""
    what = f"event {leaf_index}"
    occurred, recorded, received = (moment(said[name], what) for name in ("occurred_at", "recorded_at", "received_at"))
    happened = min(occurred, recorded, received)
    ranked = happened if said["event_type"] in FREEING else min(recorded, received)
    return Event(leaf_index, said, happened, received, ranked)


def latest(events: Iterable[Event]) -> Optional[Event]:
    return max(events, key=lambda event: (event.ranked_at, event.leaf_index), default=None)


def decide(
    events: Sequence[Event],
    policy: Mapping[str, Any],
    purpose_code: str,
    channel_code: str,
    at: datetime,
    known_at: Optional[datetime] = None,
) -> Standing:
    """Standing of the one subject whose events these are, at a time, from what had been received by `known_at`."""
    purpose = policy["purposes"].get(purpose_code)
    if purpose is None:
        return Standing(False, "unknown_purpose")
    is_whole = EVERY in purpose["channels"]
    if channel_code != EVERY and channel_code not in (policy["channels"] if is_whole else purpose["channels"]):
        return Standing(False, "unknown_channel")
    if purpose["legal_basis"] == "contract":
        return Standing(True, "contract")
    heard = [e for e in events if e.happened_at <= at and (known_at is None or e.received_at <= known_at)]
    erased = latest(event for event in heard if event.kind == "erased")
    if erased:
        heard = [erased, *(event for event in heard if event.ranked_at > erased.ranked_at)]
    return Question(policy, purpose_code, EVERY if is_whole else channel_code, at, heard).standing()


@dataclass(frozen=True)
class Question:
    """One purpose and channel, at one time, and the events that count and were not erased."""

    policy: Mapping[str, Any]
    purpose_code: str
    asked: str
    at: datetime
    heard: Sequence[Event]

    def standing(self) -> Standing:
        """Step 5."""
        restricted = latest(event for event in self.heard if event.kind == "restrict")
        if restricted and not any(event.ranked_at > restricted.ranked_at for event in self.reaching("unrestrict")):
            return Standing(False, "restricted", restricted.ranked_at, None, restricted.leaf_index)
        grants = [self.granted(event) for event in self.reaching("grant")]
        noes = [Standing(False, "gpc", e.ranked_at, None, e.leaf_index) for e in self.heard if self.is_refused_by(e)]
        noes += [
            Standing(False, NOES[event.kind], event.ranked_at, None, event.leaf_index) for event in self.reaching(*NOES)
        ]
        noes += [Standing(False, "erased", e.ranked_at, None, e.leaf_index) for e in self.heard if e.kind == "erased"]
        complete = [rank(grant) for grant in grants if grant.reason_code in ("granted", "expired")]
        said_no = [rank(no) for no in noes if no.reason_code in PERSONS_NO]
        if said_no and (not complete or max(said_no)[0] >= max(complete)[0]):
            grants = [grant for grant in grants if grant.reason_code in ("granted", "expired")]
            noes = [no for no in noes if no.reason_code in PERSONS_NO]
        return max([*grants, *noes], key=rank, default=None) or self.noticed()

    def granted(self, grant: Event) -> Standing:
        """Step 4: whether a grant still holds, by its clock and notice as last renewed, and its confirmation."""
        terms = self.terms(grant)
        renewed = grant
        for event in sorted(self.reaching("renew"), key=lambda one: (one.happened_at, not self.is_current(one))):
            ends_at = self.ends_at(renewed, terms)
            if event.happened_at >= grant.happened_at and (ends_at is None or event.happened_at < ends_at):
                renewed = event
        ends_at, within = self.ends_at(renewed, terms), terms["confirm_within_days"]
        waits = [event.happened_at - grant.happened_at for event in self.reaching("confirm")]
        if not self.is_current(renewed):
            reason = "stale_notice"
        elif within is not None and not any(timedelta(0) <= wait <= timedelta(days=within) for wait in waits):
            reason = "unconfirmed"
        elif ends_at is not None and self.at >= ends_at:
            reason = "expired"
        else:
            return Standing(True, "granted", grant.ranked_at, ends_at, grant.leaf_index)
        return Standing(False, reason, grant.ranked_at, None, grant.leaf_index)

    def noticed(self) -> Standing:
        """The end of step 5: what holds while nobody says anything, where a notice was shown."""
        reasons = {"opt_out": "not_opted_out", "notice_only": "notice_given"}
        shown = []
        for event in self.reaching("notice_shown"):
            terms = self.terms(event)
            ends_at = self.ends_at(event, terms)
            reason = reasons.get(terms["mechanism"]) if self.is_current(event) else None
            if reason is None:
                found = Standing(False, "never_asked")
            elif ends_at is not None and self.at >= ends_at:
                found = Standing(False, "expired", event.happened_at, None, event.leaf_index)
            else:
                found = Standing(True, reason, event.happened_at, ends_at, event.leaf_index)
            order = ("expired", "never_asked").index(found.reason_code) if not found.is_allowed else 2
            shown.append((event.happened_at, -order, event.leaf_index, found))
        return max(shown, key=lambda one: one[:3])[3] if shown else Standing(False, "never_asked")

    def reaching(self, *kinds: str) -> list[Event]:
        """Step 2: the events of these kinds that reach what is asked. A yes must cover it, a no need only touch it."""
        return [event for event in self.heard if event.kind in kinds and self.is_reached_by(event)]

    def is_reached_by(self, event: Event) -> bool:
        purpose, channel = event.said["purpose_code"], event.said["channel_code"]
        rests_on_consent = self.policy["purposes"][self.purpose_code]["legal_basis"] == "consent"
        every = purpose == EVERY and (rests_on_consent or event.kind not in ("grant", "renew", "confirm"))
        touches = channel in (self.asked, EVERY) or (self.asked == EVERY and event.kind in NOES)
        return (every or purpose == self.purpose_code) and touches

    def is_refused_by(self, event: Event) -> bool:
        return event.is_gpc and self.purpose_code in self.policy["gpc_purposes"]

    def terms(self, event: Event) -> Mapping[str, Any]:
        """The policy's row under the event's own place; asked for every channel at once, with the shortest confirmation."""
        place = event.said["jurisdiction_code"]
        place = place if place in self.policy["jurisdictions"] else EVERY
        rows = [
            row
            for row in self.policy["rules"]
            if (row["purpose_code"], row["jurisdiction_code"]) == (self.purpose_code, place)
            and (row["channel_code"] == self.asked or self.asked == EVERY)
        ]
        days = [row["confirm_within_days"] for row in rows if row["confirm_within_days"] is not None]
        return {**rows[0], "confirm_within_days": min(days, default=None)}

    def ends_at(self, event: Event, terms: Mapping[str, Any]) -> Optional[datetime]:
        days = terms["expires_after_days"]
        return None if days is None else event.happened_at + timedelta(days=days)

    def is_current(self, event: Event) -> bool:
        """Whether the event's notice still counts, and says what silence means where that is asked; none never does."""
        notice, version = self.policy["notices"].get(event.said["notice_id"]), event.said["notice_version"]
        if notice is None or version is None:
            return False
        least = notice["silence_version" if event.kind == "notice_shown" else "minimum_version"]
        return least is not None and bool(version >= least)


def rank(found: Standing) -> tuple[Any, int, int]:
    """Latest first; at the same instant a person's no, then any other no, then a yes; then the higher leaf."""
    weight = 2 if found.reason_code in PERSONS_NO else 0 if found.is_allowed else 1
    return (found.since_at, weight, -1 if found.leaf_index is None else found.leaf_index)


# Receipts of consent.


def check_policy(value: object) -> dict[str, Any]:
    """That a policy has the shape the rule of standing reads: purposes, notices, and one row for all that can be asked."""
    what = "policy"
    policy = fields(value, what, "purposes", "channels", "notices", "jurisdictions", "gpc_purposes", "rules")
    for name in ("channels", "jurisdictions", "gpc_purposes"):
        for code in items(policy[name], what, 1_000):
            text(code, what, 100)
    if not isinstance(policy["purposes"], dict) or not isinstance(policy["notices"], dict):
        raise Refusal(what, "purposes and notices by name", "something else")
    asked = set()
    for code, purpose in policy["purposes"].items():
        fields(purpose, what, "legal_basis", "channels")
        text(purpose["legal_basis"], what, 100)
        asked |= {(code, text(channel, what, 100)) for channel in items(purpose["channels"], what, 1_000)}
    for notice in policy["notices"].values():
        for name, least in fields(notice, what, "minimum_version", "silence_version").items():
            if least is not None or name == "minimum_version":
                whole(least, what)
    found = []
    for row in items(policy["rules"], what, 100_000):
        names = ("purpose_code", "channel_code", "jurisdiction_code")
        fields(row, what, *names, "mechanism", "expires_after_days", "confirm_within_days")
        found.append(tuple(text(row[name], what, 100) for name in names))
        if row["mechanism"] not in ("opt_in", "opt_out", "notice_only"):
            raise Refusal(what, "opt_in, opt_out or notice_only", "another mechanism")
        for name in ("expires_after_days", "confirm_within_days"):
            if row[name] is not None and whole(row[name], what) > 100_000:
                raise Refusal(what, "days up to 100000", row[name])
    expected = sorted((*pair, place) for pair in asked for place in policy["jurisdictions"])
    if sorted(found) != expected or EVERY not in policy["jurisdictions"]:
        raise Refusal(what, "one row for every purpose, channel and jurisdiction", f"{len(found)} rows")
    return policy


def check_events(receipt: Mapping[str, Any], checkpoint: Checkpoint) -> tuple[list[Event], list[int]]:
    """Every event the state proof names, opened and proved, in order; and the leaves whose content was destroyed."""
    subject_id = text(receipt["subject_id"], "subject", 200)
    rows = check_state_proof(receipt["state_proof"], subject_key(subject_id), checkpoint)
    shown = items(receipt["events"], "events")
    leaves = [whole(fields(one, "events", *EVIDENCE)["leaf_index"], "events") for one in shown]
    if leaves != sorted(rows):
        missing = sorted(set(rows) - set(leaves)) or sorted(set(leaves) - set(rows)) or leaves
        raise Refusal("events", f"leaves {spelled(sorted(rows))}", spelled(leaves), f"Look at leaf {missing[0]}")
    events: list[Event] = []
    destroyed: list[int] = []
    for one in shown:
        leaf, what = one["leaf_index"], f"event {one['leaf_index']}"
        entry = unhex(one["entry"], what, ENTRY_BYTES)
        if entry[:KEY_BYTES] != rows[leaf]:
            raise Refusal(what, f"index key {rows[leaf].hex()}", entry[:KEY_BYTES].hex(), "It is another entry")
        check_proof(text(one["tlog_proof"], what), entry, leaf, receipt["checkpoint"], checkpoint)
        if one["event"] is None and one["salt"] is None:
            destroyed.append(leaf)
            continue
        events.append(open_entry(what, leaf, entry, one["event"], unhex(one["salt"], what, 16)))
        if events[-1].said["subject_id"] != subject_id:
            raise Refusal(what, f"subject {subject_id}", "another", "It is about somebody else")
    erased = max((event.leaf_index for event in events if event.kind == "erased"), default=-1)
    unexplained = [leaf for leaf in destroyed if leaf > erased]
    if unexplained:
        raise Refusal(
            "events", "an erasure after every event that is closed", f"leaf {unexplained[0]}", "It may be withheld"
        )
    return events, destroyed


EVIDENCE = ("leaf_index", "entry", "event", "salt", "tlog_proof")
EVENT_FIELDS = ("subject_id", "event_type", "purpose_code", "channel_code", "signal_id", "capture_method")


def open_entry(what: str, leaf: int, entry: bytes, said: object, salt: bytes) -> Event:
    """The event an entry commits to: its content by the salt, its subject, purpose, channel and signal by the keys."""
    if not isinstance(said, dict) or not all(isinstance(said.get(name), str) for name in EVENT_FIELDS):
        raise Refusal(what, "an event", "another shape")
    if said["event_type"] not in STATES:
        raise Refusal(what, f"one of {', '.join(STATES)}", said["event_type"], "A newer verifier may know it")
    if entry[KEY_BYTES:] != (found := commitment(salt, canonical(said))):
        raise Refusal(what, f"commitment {entry[KEY_BYTES:].hex()}", found.hex(), "The event or its salt was changed")
    if entry[:KEY_BYTES] != (found := entry_key(said)):
        raise Refusal(what, f"keys {entry[:KEY_BYTES].hex()}", found.hex(), "The entry names another event")
    for name, kind in (("notice_id", str), ("jurisdiction_code", str), ("notice_version", int)):
        if not isinstance(said.get(name), kind) and not (said.get(name) is None and name != "jurisdiction_code"):
            raise Refusal(what, f"a {name}", "another shape")
    return read_event(leaf, said)


def spelled(leaves: Sequence[int]) -> str:
    return ", ".join(map(str, leaves[:20])) + (" ..." if len(leaves) > 20 else "") if leaves else "none"


def check_receipt(receipt: dict[str, Any], trust: Trust, at: Optional[datetime], report: Report) -> None:
    """A consent or standing receipt, from its signature to what it says may be done."""
    is_whole = receipt["format"] == RECEIPT
    special = ("record",) if is_whole else ("purpose_code", "channel_code")
    common = (
        "format",
        "subject_id",
        "at",
        "known_at",
        "policy",
        "standing",
        "checkpoint",
        "state_proof",
        "events",
        "seal",
    )
    fields(receipt, "receipt", *common, *special)
    asked_at, known_at = moment(receipt["at"], "at"), maybe_moment(receipt["known_at"], "known_at")
    checkpoint = check_checkpoint(text(receipt["checkpoint"], "checkpoint"), trust, report)
    events, destroyed = check_events(receipt, checkpoint)
    report.facts.update(subject_id=receipt["subject_id"], event_count=len(events), destroyed_count=len(destroyed))
    report.proved("nothing was left out", f"leaves {spelled([*sorted([e.leaf_index for e in events] + destroyed)])}")
    if events:
        report.proved("every event is in the log, as it was recorded", f"{len(events)} events, each with its proof")
    if destroyed:
        report.not_covered(
            "content destroyed by an erasure", f"leaves {spelled(destroyed)}; the rule no longer hears them"
        )
    policy = check_policy(receipt["policy"])
    report.facts["policy_sha256"] = sha256(canonical(policy)).hexdigest()
    if is_whole:
        pairs = sorted(
            (code, channel) for code, purpose in policy["purposes"].items() for channel in purpose["channels"]
        )
    else:
        pairs = [(text(receipt["purpose_code"], "purpose", 100), text(receipt["channel_code"], "channel", 100))]
    check_standing(receipt, pairs, events, asked_at, known_at, report)
    if at is not None:
        rows = [{"purpose_code": p, "channel_code": c, **decide(events, policy, p, c, at).row} for p, c in pairs]
        report.facts["standing_at"] = {"at": spelled_moment(at), "standing": rows}
    if is_whole:
        check_record(receipt, events, report)
    check_seal(receipt, trust, report)


def check_checkpoint(note: str, trust: Trust, report: Report) -> Checkpoint:
    """A checkpoint of the ledger the reader knows: signed, cosigned where asked, and not older than the one kept."""
    checkpoint = open_checkpoint(note, trust.key)
    report.facts.update(origin=checkpoint.origin, size=checkpoint.size, root=checkpoint.root.hex())
    report.facts["state_root"] = checkpoint.state_root.hex() if checkpoint.state_root else None
    report.proved(
        f"the checkpoint is signed by {trust.key.name}", f"size {checkpoint.size}, root {checkpoint.root.hex()}"
    )
    known = {(key.name, key.key_id) for key in (trust.key, *trust.witnesses)}
    others = sorted({name for name, key_id, _ in open_note(note, "checkpoint")[1] if (name, key_id) not in known})
    if others:
        report.not_covered("signatures by keys not named", ", ".join(others)[:200])
    if trust.witnesses:
        seen = witnessed_at(note, trust.witnesses, trust.quorum)
        report.facts["witnessed_at"] = seen
        report.proved(f"at least {trust.quorum} of {len(trust.witnesses)} witnesses saw it", ", ".join(sorted(seen)))
    if trust.since is not None:
        kept = open_checkpoint(trust.since, trust.key)
        if kept.size > checkpoint.size:
            raise Refusal(
                "age", f"a ledger of at least {kept.size} events", checkpoint.size, "It is older than the one kept"
            )
        if kept.size == checkpoint.size and (kept.root, kept.state_root) != (checkpoint.root, checkpoint.state_root):
            raise Refusal("history", f"root {kept.root.hex()}", checkpoint.root.hex(), "Two histories exist: keep both")
        report.proved("it is not older than the checkpoint kept", f"size {kept.size}")
    return checkpoint


def check_standing(
    receipt: Mapping[str, Any],
    pairs: Sequence[tuple[str, str]],
    events: Sequence[Event],
    at: datetime,
    known_at: Optional[datetime],
    report: Report,
) -> None:
    """That what the receipt says may be done is what the rule makes of the proved events."""
    rows = items(receipt["standing"], "standing")
    for row in rows:
        fields(row, "standing", "purpose_code", "channel_code", *Standing(False, "").row)
    if [(row["purpose_code"], row["channel_code"]) for row in rows] != list(pairs):
        raise Refusal("standing", "one row for all that is asked, in order", f"{len(rows)} rows")
    for (purpose, channel), row in zip(pairs, rows):
        found = decide(events, receipt["policy"], purpose, channel, at, known_at).row
        claimed = {name: row[name] for name in found}
        if canonical(claimed) != canonical(found):
            what = f"standing for {purpose} over {channel}"
            raise Refusal(what, said(found), said(claimed), "The receipt claims what its events do not say")
    report.facts["standing"] = rows
    told = said(rows[0]) if len(rows) == 1 else f"{sum(row['is_allowed'] for row in rows)} of {len(rows)} allowed"
    known = f", as known at {receipt['known_at']}" if known_at else ""
    report.proved(f"the standing follows from the events, at {receipt['at']}{known}", told)


def said(row: Mapping[str, Any]) -> str:
    since = f" since {row['since_at']}" if row["since_at"] else ""
    until = f" until {row['expires_at']}" if row["expires_at"] else ""
    leaf = "" if row["leaf_index"] is None else f" (leaf {row['leaf_index']})"
    return f"{'yes' if row['is_allowed'] else 'no'}, {row['reason_code']}{since}{until}{leaf}"


def check_record(receipt: Mapping[str, Any], events: Sequence[Event], report: Report) -> None:
    """That the 27560 record tells of this subject and of these events, with the states they mean."""
    record = fields(receipt["record"], "record", "header", "pii_processing", "party_identification", "events")
    header = fields(record["header"], "record", "schema_version", "record_id", "pii_principal_id")
    if header["pii_principal_id"] != receipt["subject_id"]:
        raise Refusal("record", f"subject {receipt['subject_id']}", "another")
    names = ("leaf_index", "event_time", "event_state", "purpose_code", "channel_code")
    told = []
    for one in items(record["events"], "record"):
        if not isinstance(one, dict):
            raise Refusal("record", "events", "something else")
        told.append([one.get(name) for name in names])
    expected = [
        [
            event.leaf_index,
            event.said["occurred_at"],
            STATES[event.kind],
            event.said["purpose_code"],
            event.said["channel_code"],
        ]
        for event in events
        if STATES[event.kind] and (event.is_gpc or event.kind != "signal_seen")
    ]
    if told != expected:
        raise Refusal("record", "the proved events with their states", "others", "Believe the events")
    report.proved("the record (ISO/IEC TS 27560) tells of the same events", f"{len(expected)} states")


def check_seal(receipt: Mapping[str, Any], trust: Trust, report: Report) -> None:
    """Whether the ledger's key also signed the rest: the controller, the policy, the words of the record."""
    rest = "policy, record" if receipt["format"] == RECEIPT else "policy"
    if receipt["seal"] is None and trust.needs_seal:
        raise Refusal("seal", f"one by {trust.key.name}", "none", "Ask for a sealed receipt")
    if receipt["seal"] is None:
        report.not_covered("not sealed", f"{rest}, at and known_at: anyone could have written them around the events")
        return
    hashed = base64.b64encode(sha256(canonical({**receipt, "seal": None})).digest()).decode()
    found = signed_text(text(receipt["seal"], "seal"), trust.key, "seal")
    if found != f"{SEAL}\nsha256 {hashed}\n":
        raise Refusal("seal", f"{SEAL} over this receipt", "another", "Something in it was changed after it was sealed")
    report.proved(f"the whole receipt is sealed by {trust.key.name}", f"sha256 {hashed}")
    report.not_covered("issuer's word", f"{rest}: signed, but no log can prove them")


# Receipts of decisions.


def check_decision(note: str, trust: Trust, report: Report) -> dict[str, Any]:
    """A decision receipt: signed, made under a checkpoint of this ledger, its counts complete."""
    body = signed_text(note, trust.key, "decision receipt")
    first, _, rest = body.partition("\n")
    if first != DECISION:
        raise Refusal("decision receipt", DECISION, "another", "It is another kind of note")
    if len(open_note(note, "decision receipt")[1]) != 1:
        raise Refusal("decision receipt", "one signature", "more")
    decision = fields(
        read_json(rest[:-1].encode(), "decision receipt"),
        "decision receipt",
        *("number", "previous", "use", "asked_by", "purpose_code", "channel_code", "at", "known_at", "decided_at"),
        *("checkpoint", "policy_sha256", "policy_version", "model_version", "model_sha256", "definition_sha256"),
        *("inputs", "outputs", "subject_count", "counts", "decisions_root"),
    )
    what = f"decision {whole(decision['number'], 'decision receipt')}"
    report.proved(f"{what} is signed by {trust.key.name}", f"for {decision['use']}, asked by {decision['asked_by']}")
    check_checkpoint(text(decision["checkpoint"], what), Trust(trust.key, trust.witnesses, trust.quorum, None), report)
    if (
        decision["use"] not in USES
        or decision["number"] < 1
        or (decision["number"] == 1) != (decision["previous"] is None)
    ):
        raise Refusal(what, f"one of {', '.join(USES)}, after the decision before it", "something else")
    for name in ("at", "decided_at"):
        moment(decision[name], what)
    maybe_moment(decision["known_at"], what)
    for name in ("asked_by", "purpose_code", "channel_code"):
        text(decision[name], what, 200)
    hashes = [decision[name] for name in ("previous", "model_sha256", "definition_sha256")]
    for name in ("inputs", "outputs"):
        if not isinstance(decision[name], dict):
            raise Refusal(what, f"{name} by name", "something else")
        hashes += decision[name].values()
    for found in (decision["policy_sha256"], decision["decisions_root"], *(one for one in hashes if one is not None)):
        unhex(found, what, 32)
    total = 0
    reasons = []
    for row in items(decision["counts"], what, 1_000):
        fields(row, what, "reason_code", "is_allowed", "subject_count")
        total += whole(row["subject_count"], what)
        reasons.append(text(row["reason_code"], what, 100))
        if row["is_allowed"] is not (row["reason_code"] in ALLOWING):
            raise Refusal(what, "use only for reasons that allow it", row["reason_code"])
    if total != whole(decision["subject_count"], what) or reasons != sorted(set(reasons)):
        raise Refusal(what, f"counts of {decision['subject_count']} subjects, reason by reason", total)
    report.proved(f"{what} counts every subject", f"{total} subjects, {len(reasons)} reasons")
    report.facts["decision"] = decision
    return decision


def check_shown(shown: dict[str, Any], trust: Trust, report: Report) -> None:
    """One subject's decision, without the others: it is one of those the receipt commits to."""
    fields(shown, "shown decision", "format", "receipt", "subject_id", "row", "salt", "index", "path")
    decision = check_decision(text(shown["receipt"], "shown decision"), trust, report)
    row = fields(shown["row"], "shown decision", "subject_key", *Standing(False, "").row)
    if row["subject_key"] != (key := subject_key(text(shown["subject_id"], "shown decision", 200)).hex()):
        raise Refusal("shown decision", f"subject {key}", row["subject_key"], "It is about somebody else")
    salt = unhex(shown["salt"], "shown decision", 16)
    path = [unhex(one, "shown decision", 32) for one in items(shown["path"], "shown decision", MAXIMUM_PATH)]
    index, root = whole(shown["index"], "shown decision"), bytes.fromhex(decision["decisions_root"])
    leaf = leaf_hash(salt + canonical(row))
    check_inclusion("shown decision", leaf, index, decision["subject_count"], path, root)
    report.facts["row"] = row
    report.proved(f"decision {decision['number']} was so for this subject", said(row))


def check_decisions(folder: Path, trust: Trust, report: Report) -> None:
    """A folder of decision receipts: each signed, each naming the one before, none missing."""
    notes = sorted(folder.glob("*.note"))
    previous: Optional[str] = None
    for number, path in enumerate(notes, 1):
        inner = Report(path.name)
        note = read_text(path)
        decision = check_decision(note, trust, inner)
        if decision["number"] != number or decision["previous"] != previous:
            raise Refusal(
                "decisions",
                f"decision {number} after {previous or 'none'}",
                decision["number"],
                "One is missing or was changed",
            )
        previous = sha256(signed_text(note, trust.key, path.name).encode()).hexdigest()
    if not notes or previous is None:
        raise Refusal("decisions", "at least one decision receipt", "none")
    check_newest(folder, trust.key, len(notes), previous)
    report.facts.update(decision_count=len(notes), newest=previous)
    report.proved(
        "no decision is missing from the first to the newest that was kept", f"{len(notes)}, newest {previous}"
    )


def check_newest(folder: Path, key: Key, number: int, hashed: str) -> None:
    """A signed note beside the receipts names the newest by number and hash. A receipt whose writer was killed before it wrote that may follow."""
    path = folder / NEWEST_FILE
    told = signed_text(read_text(path), key, NEWEST_FILE).split("\n") if path.is_file() else []
    if len(told) != 4 or told[0] != NEWEST or not told[1].isdigit():
        raise Refusal("decisions", "a signed note of the newest", "none", "It was removed")
    if int(told[1]) > number or (int(told[1]) == number and told[2] != hashed):
        raise Refusal("decisions", f"decision {told[1]}, {told[2]}", f"{number}, {hashed}", "The newest were removed")


# Exports of the ledger.


def tiling(size: int) -> Iterator[tuple[int, int]]:
    """The runs of an index of `size` leaves: blocks of 4,096, four of one width merged into the next, and the rest."""
    start, width = 0, 4096
    while width * 4 <= size:
        width *= 4
    while width >= 4096:
        while size - start >= width:
            yield start, start + width
            start += width
        width //= 4
    if start < size:
        yield start, size


def check_export(folder: Path, trust: Trust, report: Report) -> None:
    """An export: both roots of every checkpoint from every entry, every event against its entry, every byte."""
    names = sorted(path.name for path in folder.iterdir())
    expected = ["checkpoint", "checkpoints.jsonl", "entries.jsonl", "key", "manifest.json"]
    if names != expected:
        raise Refusal("export", f"files {', '.join(expected)}", ", ".join(names) or "none")
    notes = [
        text(read_json(line, "checkpoints.jsonl"), "checkpoints.jsonl") for line in lines(folder / "checkpoints.jsonl")
    ]
    if not notes or read_text(folder / "checkpoint") != notes[-1]:
        raise Refusal("checkpoint", "the newest of checkpoints.jsonl", "another or none", "It was rolled back")
    claims = [open_checkpoint(note, trust.key) for note in notes]
    if claims[0].size != 0 or any(before.size > after.size for before, after in zip(claims, claims[1:])):
        raise Refusal("checkpoints.jsonl", "sizes that grow from 0", "others", "A checkpoint was left out or moved")
    newest = check_checkpoint(notes[-1], trust, report)
    kept = [] if trust.since is None else [open_checkpoint(trust.since, trust.key)]
    size, closed = check_entries(folder / "entries.jsonl", sorted([*claims, *kept], key=lambda claim: claim.size))
    report.proved("root and state root of every checkpoint follow from the entries", f"{len(notes)} checkpoints")
    report.proved("every readable event is what its entry commits to", f"{size - closed} of {size} readable")
    if read_text(folder / "key") != trust.key.text + "\n":
        raise Refusal("key", trust.key.text, "another", "Somebody else signed this export")
    manifest = {
        "format": EXPORT,
        "origin": newest.origin,
        "size": size,
        "root": newest.root.hex(),
        "checkpoint_count": len(notes),
        "sha256": {name: file_sha256(folder / name) for name in names if name != "manifest.json"},
    }
    if read_file(folder / "manifest.json") != canonical(manifest) + b"\n":
        raise Refusal("manifest.json", "what follows from the other files", "something else")
    report.proved("no byte is unaccounted for", f"{len(names)} files")


def check_entries(path: Path, claims: Sequence[Checkpoint]) -> tuple[int, int]:
    """Walk entries and checkpoints together. How many entries there are, and of how many the content was destroyed."""
    tree, keys, closed, entries = Tree(), bytearray(), 0, lines(path)
    roots: dict[tuple[int, int], bytes] = {}
    silent: dict[bytes, int] = {}  # the last entry without content, by subject, until an erasure explains it
    for claimed in claims:
        while tree.size < claimed.size:
            entry, event_type = export_line(tree.size, next(entries, None), claimed.size)
            keys += entry[:KEY_BYTES] + tree.size.to_bytes(8, "big")
            closed += event_type is None
            if event_type is None:
                silent[entry[:SUBJECT_BYTES]] = tree.size
            elif event_type == "erased":
                silent.pop(entry[:SUBJECT_BYTES], None)
            tree.add(leaf_hash(entry))
        what, changed = f"checkpoint of size {claimed.size}", "An entry up to there was changed"
        if (root := tree.root()) != claimed.root:
            raise Refusal(what, f"root {claimed.root.hex()}", root.hex(), changed)
        for run in tiling(claimed.size):
            roots[run] = roots.get(run) or run_root(keys, *run)
        state = state_root((*run, roots[run]) for run in tiling(claimed.size))
        if state != claimed.state_root:
            signed = claimed.state_root.hex() if claimed.state_root else "none"
            raise Refusal(what, f"state root {state.hex()}", signed, "Its index does not follow from its entries")
    if next(entries, None) is not None:
        raise Refusal(path.name, f"{tree.size} entries", "more", "No checkpoint covers them")
    if silent:
        what = f"{path.name} line {min(silent.values()) + 1}"
        raise Refusal(
            what, "an event, or the erasure of its subject after it", "neither", "Its key was destroyed by hand"
        )
    return tree.size, closed


def export_line(leaf: int, line: Optional[bytes], size: int) -> tuple[bytes, Optional[str]]:
    """The entry of a line, once its event is proved to be the one; and the event's type, None where it was destroyed."""
    what = f"entries.jsonl line {leaf + 1}"
    if line is None:
        raise Refusal("entries.jsonl", f"{size} entries", leaf, "The tail is missing")
    one = fields(read_json(line, what), what, "entry", "event", "leaf_index", "salt")
    entry = unhex(one["entry"], what, ENTRY_BYTES)
    if whole(one["leaf_index"], what) != leaf:
        raise Refusal(what, f"leaf {leaf}", one["leaf_index"], "Entries were moved")
    if one["event"] is None and one["salt"] is None:
        return entry, None
    return entry, open_entry(what, leaf, entry, one["event"], unhex(one["salt"], what, 16)).kind


def run_root(keys: bytearray, start: int, stop: int) -> bytes:
    rows = sorted(bytes(keys[at * ROW_BYTES : (at + 1) * ROW_BYTES]) for at in range(start, stop))
    return Tree(leaf_hash(b"".join(rows[at : at + PAGE_ROWS])) for at in range(0, len(rows), PAGE_ROWS)).root()


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, each bounded and ended by a newline."""
    with path.open("rb") as file:
        while line := file.readline(MAXIMUM_NOTE * 2):
            if not line.endswith(b"\n"):
                raise Refusal(path.name, "lines that end", "one cut short or too long")
            yield line[:-1]


def file_sha256(path: Path) -> str:
    found = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


# Bundles of evidence.

CONTENTS = "bundle.json"


class Bundle:
    """A folder of evidence: one sealed list of files, and what each of them says about the others."""

    def __init__(self, folder: Path, trust: Trust, at: Optional[datetime], report: Report) -> None:
        self.folder, self.trust, self.at, self.report = folder, trust, at, report
        self.decisions: dict[int, dict[str, Any]] = {}
        self.notes: dict[int, str] = {}
        self.rows: dict[int, dict[str, dict[str, Any]]] = {}
        self.policies: set[str] = set()

    def check(self) -> None:
        """The list, then every file against it; only then what is in them. Each file that fails is named."""
        raw = read_file(self.folder / CONTENTS)
        contents = fields(
            read_json(raw[:-1], CONTENTS), CONTENTS, "format", "about", "made_at", "checkpoint", "files", "seal"
        )
        if raw[-1:] != b"\n" or contents["format"] != BUNDLE or not isinstance(contents["files"], dict):
            raise Refusal(CONTENTS, BUNDLE, "another")
        for value in fields(contents["about"], CONTENTS, "kind", "name").values():
            text(value, CONTENTS, 300)
        moment(contents["made_at"], CONTENTS)
        self.sealed(contents, BUNDLE_SEAL, CONTENTS)
        self.report.proved(
            f"the list of files is sealed by {self.trust.key.name}",
            f"{contents['about']['kind']} {contents['about']['name']}, made at {contents['made_at']}",
        )
        self.newest = check_checkpoint(text(contents["checkpoint"], CONTENTS), self.trust, self.report)
        self.checkpoint = contents["checkpoint"]
        if self.are_files(contents["files"]):
            for part in (
                self.check_key, self.check_policy, self.check_decisions, self.check_decided, self.check_people,
                self.check_shown, self.check_consents, self.check_manifest, self.check_model, self.check_words, self.check_witnessed,
            ):  # fmt: skip
                try:
                    part()
                except Refusal as refusal:
                    self.report.failed(refusal)

    def sealed(self, value: Mapping[str, Any], seal: str, what: str) -> None:
        hashed = base64.b64encode(sha256(canonical({**value, "seal": None})).digest()).decode()
        if signed_text(text(value["seal"], what), self.trust.key, what) != f"{seal}\nsha256 {hashed}\n":
            raise Refusal(what, f"{seal} over this", "another", "Something in it was changed after it was sealed")

    def are_files(self, listed: Mapping[str, Any]) -> bool:
        """Whether the folder holds exactly the files of the list; whatever is missing, added or changed is named."""
        found = {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if not path.is_dir()}
        found -= {CONTENTS}
        before = len(self.report.checks)
        for name in sorted(found - set(listed)):
            self.report.failed(Refusal(name, "no such file in the list", "one", "It was added: take it away"))
        for name, expected in sorted(listed.items()):
            path = self.folder / name
            if name not in found or path.is_symlink():
                self.report.failed(Refusal(name, f"a file of sha256 {expected}", "none", "It was removed"))
            elif (hashed := file_sha256(path)) != expected:
                self.report.failed(Refusal(name, f"sha256 {expected}", hashed, "It was changed"))
        if len(self.report.checks) == before:
            self.report.proved("every file is as it was packed, and none is missing", f"{len(listed)} files")
            return True
        return False

    def paths(self, pattern: str) -> list[Path]:
        return sorted(self.folder.glob(pattern))

    def inner(self, path: Path, check: Callable[[Report], None]) -> bool:
        """Check one file by itself; what it found stands under its name."""
        name, report = path.relative_to(self.folder).as_posix(), Report(path.name)
        try:
            check(report)
        except Refusal as refusal:
            self.report.failed(Refusal(f"{name}, {refusal.what}", refusal.expected, refusal.found))
            return False
        for each in report.checks:
            if each.outcome == "not covered":
                self.report.not_covered(f"{name}, {each.check}", each.evidence)
        proved = sum(each.outcome == "verified" for each in report.checks)
        self.report.proved(name, f"{proved} checks")
        return True

    def check_key(self) -> None:
        if (self.folder / "key").is_file() and read_text(self.folder / "key") != self.trust.key.text + "\n":
            raise Refusal("key", self.trust.key.text, "another", "Somebody else made this bundle")

    def check_policy(self) -> None:
        for path in self.paths("policies/*.json"):
            raw = read_file(path)
            policy = check_policy(read_json(raw[:-1], path.name))
            self.policies.add(sha256(canonical(policy)).hexdigest())
        for path in self.paths("policies/*.json"):
            if path.stem not in self.policies:
                raise Refusal(f"policies/{path.name}", f"a policy of hash {path.stem}", "another")

    def check_decisions(self) -> None:
        """The chain of recorded uses, each under a checkpoint that the newest goes on from."""
        folder = self.folder / "decisions"
        if not folder.is_dir():
            return
        check_decisions(folder, self.trust, Report("decisions"))
        for path in self.paths("decisions/*.note"):
            note = read_text(path)
            decision = check_decision(note, self.trust, Report(path.name))
            self.decisions[decision["number"]], self.notes[decision["number"]] = decision, note
            known, what = open_checkpoint(decision["checkpoint"], self.trust.key), f"decision {decision['number']}"
            self.goes_on(known, what)
        self.report.proved("no recorded use is missing between the first and the newest", f"{len(self.notes)} receipts")
        self.report.proved("each was decided under a ledger that this one goes on from", f"size {self.newest.size}")

    def goes_on(self, known: Checkpoint, what: str) -> None:
        """That the ledger of the bundle begins with the one of a checkpoint."""
        proofs = read_json(read_file(self.folder / "consistency.json")[:-1], "consistency.json")
        steps = proofs.get(str(known.size)) if isinstance(proofs, dict) else None
        hashes = [unhex(one, what, 32) for one in items(steps, "consistency.json", 2 * MAXIMUM_PATH)]
        check_consistency(what, known, self.newest, hashes)

    def check_witnessed(self) -> None:
        """Checkpoints that others cosigned: the ledger goes on from each."""
        for path in self.paths("witnessed/*.note"):
            note = read_text(path)
            self.goes_on(open_checkpoint(note, self.trust.key), f"witnessed/{path.name}")
            seen = witnessed_at(note, self.trust.witnesses, self.trust.quorum) if self.trust.witnesses else {}
            others = ", ".join(sorted(seen)) if seen else "by keys not named here"
            self.report.proved(f"the ledger goes on from the cosigned checkpoint of size {path.stem}", others)

    def check_decided(self) -> None:
        """All rows of a decision: they make its root, and its counts."""
        for path in self.paths("decided/*.jsonl"):
            decision = self.decision(path.stem, path.name)
            rows: dict[str, dict[str, Any]] = {}
            tree, counts = Tree(), dict[str, int]()
            for line in lines(path):
                one = fields(read_json(line, path.name), path.name, "row", "salt")
                row = fields(one["row"], path.name, "subject_key", *Standing(False, "").row)
                tree.add(leaf_hash(unhex(one["salt"], path.name, 16) + canonical(row)))
                key = text(row["subject_key"], path.name, 32)
                if rows and key <= next(reversed(rows)):
                    raise Refusal(path.name, "one row for each subject, in order", "others")
                rows[key] = row
                counts[row["reason_code"]] = counts.get(row["reason_code"], 0) + 1
            if tree.root().hex() != decision["decisions_root"]:
                raise Refusal(path.name, f"root {decision['decisions_root']}", tree.root().hex(), "A row was changed")
            if counts != {row["reason_code"]: row["subject_count"] for row in decision["counts"]}:
                raise Refusal(path.name, "the counts of its receipt", "others", "A row was changed")
            self.rows[decision["number"]] = rows
            if decision["policy_sha256"] not in self.policies:
                raise Refusal(path.name, f"policy {decision['policy_sha256']}", "none of it", "It is not in the bundle")
            self.report.proved(f"decision {decision['number']} is of these rows", f"root {decision['decisions_root']}")

    def decision(self, number: str, what: str) -> dict[str, Any]:
        if not number.isdigit() or int(number) not in self.decisions:
            raise Refusal(what, "a decision of the chain", number, "Its receipt is not in the bundle")
        return self.decisions[int(number)]

    def check_people(self) -> None:
        for path in self.paths("people/*.json"):
            value = read_json(read_file(path)[:-1], path.name)
            if value.get("checkpoint") != self.checkpoint:
                raise Refusal(path.name, "the checkpoint of the bundle", "another", "Proofs of two were mixed")
            self.inner(path, lambda report, value=value: check_receipt(value, self.trust, self.at, report))  # type: ignore[misc]

    def check_shown(self) -> None:
        for path in self.paths("shown/*.json"):
            value = read_json(read_file(path)[:-1], path.name)
            decision = self.decision(path.stem.partition("-")[0], path.name)
            if value.get("receipt") != self.notes[decision["number"]]:
                raise Refusal(path.name, f"the receipt of decision {decision['number']}", "another")
            self.inner(path, lambda report, value=value: check_shown(value, self.trust, report))  # type: ignore[misc]

    def check_consents(self) -> None:
        """Events that decisions rest on: each is in the log, and says what the rows rest on it for."""
        path = self.folder / "consents.jsonl"
        if not path.is_file():
            return
        said: dict[int, Optional[Event]] = {}
        for number, line in enumerate(lines(path), 1):
            what = f"{path.name} line {number}"
            one = fields(read_json(line, what), what, "leaf_index", "entry", "event", "salt", "path")
            entry, leaf = unhex(one["entry"], what, ENTRY_BYTES), whole(one["leaf_index"], what)
            steps = [unhex(step, what, 32) for step in items(one["path"], what, MAXIMUM_PATH)]
            check_inclusion(what, leaf_hash(entry), leaf, self.newest.size, steps, self.newest.root)
            closed = one["event"] is None and one["salt"] is None
            said[leaf] = None if closed else open_entry(what, leaf, entry, one["event"], unhex(one["salt"], what, 16))
        rested, missing = 0, 0
        for decision in (self.decisions[number] for number in sorted(self.rows)):
            for key, row in self.rows[decision["number"]].items():
                if row["is_allowed"] and row["leaf_index"] is not None and row["leaf_index"] not in said:
                    missing += 1
                if row["is_allowed"] and (event := said.get(row["leaf_index"])) is not None:
                    self.allows(decision, key, row, event)
                    rested += 1
        closed_count = sum(event is None for event in said.values())
        self.report.proved("every yes rests on an event of the log that says so", f"{rested} of {len(said)} events")
        if closed_count:
            self.report.not_covered("content destroyed by an erasure", f"{closed_count} events that a yes rested on")
        if missing:
            self.report.not_covered("events left out for their number", f"{missing} decisions rest on them")

    def allows(self, decision: Mapping[str, Any], key: str, row: Mapping[str, Any], event: Event) -> None:
        what = f"decision {decision['number']}, subject {key}"
        kind = "notice_shown" if row["reason_code"] in ("not_opted_out", "notice_given") else "grant"
        if event.kind != kind or event.said["purpose_code"] not in (decision["purpose_code"], EVERY):
            found = f"{event.kind} for {event.said['purpose_code']} (leaf {event.leaf_index})"
            raise Refusal(what, f"a {kind} for {decision['purpose_code']}", found, "The row claims another event")
        if spelled_moment(event.ranked_at) != row["since_at"]:
            raise Refusal(
                what, f"since {row['since_at']}", spelled_moment(event.ranked_at), "The row claims another time"
            )
        if event.received_at > (maybe_moment(decision["known_at"], what) or event.received_at):
            raise Refusal(what, f"known at {decision['known_at']}", spelled_moment(event.received_at), "It came later")

    def check_manifest(self) -> None:
        """The manifest of an export: sealed, of the decisions in the chain, and of the files that are here."""
        path = self.folder / "export" / "manifest.json"
        if not path.is_file():
            return
        what, manifest = "export/manifest.json", json.loads(read_text(path))
        if manifest.get("seal") is None:
            self.report.not_covered(what, "not sealed: rules and tables in it are nobody's signed word")
        else:
            self.sealed(manifest, MANIFEST_SEAL, what)
            self.report.proved(what, f"sealed by {self.trust.key.name}")
        named = [manifest[name] for name in ("decision", "decided_again") if name in manifest]
        for also in manifest.get("also_asked", {}).values():
            named += [also[name] for name in ("decision", "decided_again") if name in also]
        for one in named:
            decision = self.decision(str(one["number"]), what)
            body = signed_text(self.notes[decision["number"]], self.trust.key, what)
            if (hashed := sha256(body.encode()).hexdigest()) != one["sha256"]:
                raise Refusal(f"{what}, decision {one['number']}", hashed, one["sha256"], "It names another receipt")
            if decision["definition_sha256"] != manifest["segment"]["hash"]:
                raise Refusal(what, f"definition {decision['definition_sha256']}", manifest["segment"]["hash"])
        if named:
            self.report.proved("the export is of receipts in the chain", f"{len(named)} receipts")
            self.check_files(manifest, self.decisions[max(int(one["number"]) for one in named)])

    def check_files(self, manifest: Mapping[str, Any], decision: Mapping[str, Any]) -> None:
        """The hashes that the last receipt signed, and the files themselves where they are in the bundle."""
        first: dict[str, str] = {}
        for each in manifest.get("amendments", []):
            first.setdefault(each.get("file", "members.csv"), each["sha256_before"])
        for name, told in sorted(manifest["files"].items()):
            if decision["outputs"].get(name) != first.get(name, told["sha256"]):
                expected = decision["outputs"].get(name, "none")
                raise Refusal(f"export/{name}", f"sha256 {expected} as signed", first.get(name, told["sha256"]))
            path = self.folder / "export" / name
            if not path.is_file():
                self.report.not_covered(f"export/{name}", f"not in the bundle; sha256 {told['sha256']} as signed")
            elif (hashed := file_sha256(path)) != told["sha256"]:
                raise Refusal(f"export/{name}", f"sha256 {told['sha256']}", hashed, "It was changed")
            else:
                self.report.proved(f"export/{name} is the file that went out", f"sha256 {hashed}")
                self.check_members(manifest, name, path)

    def check_members(self, manifest: Mapping[str, Any], name: str, path: Path) -> None:
        """That everybody in a file was allowed, by the rows in the bundle: the newest of each question counts."""
        if path.suffix != ".csv":
            return
        questions = [manifest, *manifest.get("also_asked", {}).values()]
        with path.open(encoding="utf-8", newline="") as file:
            for line, row in enumerate(csv.DictReader(file), 2):
                key = subject_key(row["customer_id"]).hex()
                for question in questions:
                    named = [question[each]["number"] for each in ("decided_again", "decision") if each in question]
                    found = next((self.rows[n][key] for n in named if key in self.rows.get(n, {})), None)
                    if found is None or not found["is_allowed"]:
                        raise Refusal(
                            f"export/{name} line {line}",
                            "somebody who was allowed",
                            said(found) if found else "nobody decided about",
                        )
        self.report.proved(f"everybody in export/{name} was allowed", f"{len(questions)} questions")

    def check_model(self) -> None:
        """The manifest of a model: its artifacts are those of a training in the chain, under the ledger it names."""
        path = self.folder / "model" / "manifest.json"
        if not path.is_file():
            return
        what, manifest = "model/manifest.json", json.loads(read_text(path))
        training, size = manifest["training"], manifest["training"]["ledger_size"]
        mine = [
            decision
            for decision in self.decisions.values()
            if decision["use"] == "training" and decision["outputs"] == manifest["files"]
        ]
        known = [open_checkpoint(decision["checkpoint"], self.trust.key) for decision in mine]
        if not any((one.size, one.root.hex()) == (size, training["ledger_root"]) for one in known):
            raise Refusal(what, f"a training in the chain under size {size}", f"{len(mine)} of these artifacts")
        self.report.proved("the model is of a training in the chain", f"{len(manifest['files'])} artifacts by hash")

    def check_words(self) -> None:
        """Texts people were shown, certificates of erasure, cosigned checkpoints."""
        sums = self.folder / "notices" / "SHA256SUMS"
        if sums.is_file():
            for line in read_text(sums).splitlines():
                expected, _, name = line.partition("  ")
                if (hashed := file_sha256(sums.parent / name)) != expected:
                    raise Refusal(f"notices/{name}", expected, hashed, "The text is not the one that was shown")
            self.report.proved("the texts people were shown are those listed", "notices/SHA256SUMS")
        for path in self.paths("certificates/*.note"):
            self.inner(path, lambda report, path=path: check_certificate(path, self.trust, report))  # type: ignore[misc]
        if (self.folder / "audit.json").is_file():
            self.report.not_covered("audit.json", "issuer's word: sealed, but no log can prove all of it")


def check_certificate(path: Path, trust: Trust, report: Report) -> None:
    """A certificate of erasure: signed, of its format."""
    first, _, rest = signed_text(read_text(path), trust.key, path.name).partition("\n")
    told = read_json(rest[:-1].encode(), path.name)
    if first != CERTIFICATE or not isinstance(told, dict):
        raise Refusal(path.name, CERTIFICATE, "another")
    report.proved("signed", str(told.get("erased_at")))


# What to check, and how it is told.


def verify(path: Path, trust: Trust, at: Optional[datetime] = None) -> Report:
    """Everything that can be checked of a file or folder. Never raises for what is in it."""
    report = Report(path.name)
    try:
        check_path(path, trust, at, report)
        if not report.checks:
            raise Refusal(path.name, "something to check", "nothing")
    except Refusal as refusal:
        report.failed(refusal)
    except Exception as fault:  # what nobody thought of is not proved either
        report.failed(Refusal(path.name, "a receipt, a decision or an export", f"unreadable: {type(fault).__name__}"))
    return report


def check_path(path: Path, trust: Trust, at: Optional[datetime], report: Report) -> None:
    if path.is_dir():
        if (path / CONTENTS).exists():
            Bundle(path, trust, at, report).check()
        elif (path / "receipt.json").is_file():
            check_receipt(inlined(path), trust, at, report)
        elif (path / "entries.jsonl").exists():
            check_export(path, trust, report)
        else:
            check_decisions(path, trust, report)
        return
    raw = read_file(path)
    if raw.startswith(DECISION.encode() + b"\n"):
        check_decision(read_text(path), trust, report)
        return
    if not raw.endswith(b"\n"):
        raise Refusal(path.name, "one line of JSON, ended", "another shape")
    value = read_json(raw[:-1], path.name)
    kind = value.get("format") if isinstance(value, dict) else None
    if kind in (RECEIPT, STANDING_RECEIPT):
        check_receipt(value, trust, at, report)
    elif kind == SHOWN:
        check_shown(value, trust, report)
    else:
        raise Refusal(path.name, f"{RECEIPT}, {STANDING_RECEIPT}, {SHOWN} or {DECISION}", kind or "no format")


def inlined(folder: Path) -> dict[str, Any]:
    """The receipt of a folder, each `.tlog-proof` file in the place that names it; other files are refused."""
    raw = read_file(folder / "receipt.json")
    receipt = read_json(raw[:-1], "receipt.json")
    if raw[-1:] != b"\n" or not isinstance(receipt, dict) or receipt.get("format") not in (RECEIPT, STANDING_RECEIPT):
        raise Refusal("receipt.json", f"{RECEIPT} or {STANDING_RECEIPT}", "another")
    names = {"receipt.json"}
    for one in items(receipt.get("events"), "events"):
        name = one.get("tlog_proof") if isinstance(one, dict) else None
        if name != f"{one.get('leaf_index') if isinstance(one, dict) else None}.tlog-proof":
            raise Refusal("events", "a `.tlog-proof` file for each", "another name")
        one["tlog_proof"] = read_text(folder / name)
        names.add(name)
    found = {path.name for path in folder.iterdir()}
    if found != names:
        raise Refusal(folder.name, f"files {', '.join(sorted(names))}", ", ".join(sorted(found)))
    return receipt


def compare(reports: Sequence[Report]) -> Report:
    """That things made under checkpoints of one size were made under the same ledger: a split view shows here."""
    report = Report("together")
    seen: dict[tuple[str, int], tuple[str, str, str]] = {}
    for one in reports:
        if "size" not in one.facts or not one.is_verified:
            continue
        place = (one.facts["origin"], one.facts["size"])
        roots = (one.facts["root"], one.facts["state_root"], one.name)
        if seen.setdefault(place, roots)[:2] != roots[:2]:
            report.failed(
                Refusal(f"size {place[1]} in {one.name}", f"root {seen[place][0]} as in {seen[place][2]}", roots[0],
                        "The ledger showed two histories: keep both as evidence")
            )  # fmt: skip
    if not report.checks and seen:
        report.proved("no two of them contradict each other", f"{len(seen)} checkpoints")
    return report


def tell(report: Report) -> Iterator[str]:
    yield f"{report.name}: {'verified' if report.is_verified else 'DOES NOT VERIFY'}"
    width = max((len(check.check) for check in report.checks if check.outcome != "failed"), default=0)
    for check in report.checks:
        if check.outcome == "failed":
            yield f"  failed       {check.evidence}"
        else:
            yield f"  {check.outcome:<11}  {check.check:<{width}}  {check.evidence}"
    for row in report.facts.get("standing_at", {}).get("standing", ()):
        yield f"  at {report.facts['standing_at']['at']}  {row['purpose_code']} over {row['channel_code']}: {said(row)}"


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="verifier.py", description="Check what Troth handed out, without Troth.")
    found.add_argument("paths", type=Path, nargs="+", metavar="path", help="receipt, decision, or folder of them")
    found.add_argument("--key", help="the ledger's verifier key, known from elsewhere; a bundle has one, too")
    found.add_argument("--witness", action="append", default=[], help="verifier key of a witness; may be repeated")
    found.add_argument("--quorum", type=int, help="how many of the witnesses must have cosigned (default: all)")
    found.add_argument("--since", type=Path, help="a checkpoint kept from before: nothing older is taken")
    found.add_argument(
        "--sealed", action="store_true", help="refuse a receipt that the ledger's key did not seal as a whole"
    )
    found.add_argument("--at", help="also say the standing at this time, YYYY-MM-DDThh:mm:ss.ffffffZ")
    found.add_argument("--json", action="store_true", help="one JSON object instead of words")
    return found


def own_key(paths: Sequence[Path]) -> str:
    """The key in a bundle, where it is all there is to check."""
    path = paths[0] / "key"
    if len(paths) > 1 or not (paths[0] / CONTENTS).is_file() or not path.is_file():
        raise Refusal("--key", "the ledger's verifier key", "none", "Give the one its owner publishes")
    return read_text(path)


def main(arguments: Optional[Sequence[str]] = None, write: Callable[[str], object] = print) -> int:
    """Run the verifier. Returns the exit code: 0 verified, 1 not, 2 misuse."""
    asked = parser().parse_args(arguments)
    try:
        witnesses = tuple(Key.parse(witness, COSIGNER, COSIGNER_MLDSA) for witness in asked.witness)
        quorum = len(witnesses) if asked.quorum is None else asked.quorum
        if not (1 if witnesses else 0) <= quorum <= len(witnesses):
            raise Refusal("--quorum", f"1 to {len(witnesses)} witnesses", quorum, "Name as many with --witness")
        since = read_text(asked.since) if asked.since else None
        trust = Trust(Key.parse(asked.key or own_key(asked.paths), LOG_KEY), witnesses, quorum, since, asked.sealed)
        if trust.since is not None:
            open_checkpoint(trust.since, trust.key)
        at = moment(asked.at, "--at") if asked.at else None
        for path in asked.paths:
            if not path.exists():
                raise Refusal(str(path), "a file or folder", "none", "Give what was handed out")
    except (Refusal, OSError) as fault:
        print(fault, file=sys.stderr)
        return 2
    reports = [verify(path, trust, at) for path in asked.paths]
    if asked.key is None:
        reports[0].not_covered(
            "the key", f"it is the bundle's own: compare {trust.key.text} with what its owner publishes"
        )
    if len(reports) > 1:
        together = compare(reports)
        reports += [together] if together.checks else []
    is_verified = all(report.is_verified for report in reports)
    if asked.json:
        told = [{"is_verified": report.is_verified, **asdict(report)} for report in reports]
        write(json.dumps({"is_verified": is_verified, "reports": told}, ensure_ascii=True, default=str))
    else:
        for report in reports:
            for line in tell(report):
                write(line)
    return 0 if is_verified else 1


if __name__ == "__main__":
    sys.exit(main())
