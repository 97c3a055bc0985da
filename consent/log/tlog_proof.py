"""Proofs that an entry is in a log, in one file (c2sp.org/tlog-proof), and whose cosignatures are enough (tlog-policy).

A proof needs no connection: text, entry, the log's key and a policy. Imports `merkle` and `note` alone.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from consent.log.merkle import HASH_BYTES, Node, VerificationError, inclusion_proof, leaf_hash, verify_inclusion
from consent.log.note import (
    COSIGNATURE,
    ED25519,
    MLDSA44,
    Checkpoint,
    Note,
    Verifier,
    checkpoint_unverified,
    from_base64,
    open_note,
    signed_checkpoint,
    split_unverified,
    to_base64,
)

HEADER = "c2sp.org/tlog-proof@v1"
MAXIMUM_HASHES = 64
MAXIMUM_PROOF_CHARACTERS = 1_000_000
_WHOLE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True)
class Proof:
    """That a log holds an entry at `index`: the audit path, and the checkpoint's note as the log gave it.

    `extra` is the application's and proved by nothing; without it the file has no such line.
    """

    index: int
    path: tuple[bytes, ...]
    note: str
    extra: bytes = b""

    @property
    def text(self) -> str:
        """The proof as a file, by custom named `.tlog-proof`."""
        extra = [f"extra {to_base64(self.extra)}"] if self.extra else []
        lines = [HEADER, *extra, f"index {self.index}", *map(to_base64, self.path)]
        return "\n".join(lines) + "\n\n" + self.note

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the file; nothing in it is checked but its shape. Raises: VerificationError."""
        head, blank, note = text.partition("\n\n")
        lines = head.split("\n")
        if lines.pop(0) != HEADER or not blank or len(text) > MAXIMUM_PROOF_CHARACTERS:
            raise _malformed(f"a first line {HEADER}, a blank line and a note")
        extra: bytes | None = b""
        if lines and lines[0].startswith("extra "):
            extra = from_base64(lines.pop(0).removeprefix("extra ")) or None
        index = lines.pop(0).removeprefix("index ") if lines and lines[0].startswith("index ") else ""
        if extra is None or not _WHOLE.fullmatch(index):
            raise _malformed("at most one extra line in base64, then an index line")
        path = [from_base64(line) for line in lines]
        hashes = tuple(step for step in path if step is not None and len(step) == HASH_BYTES)
        if len(hashes) != len(path) or len(path) > MAXIMUM_HASHES:
            raise _malformed(f"up to {MAXIMUM_HASHES} lines of a hash in base64")
        return cls(int(index), hashes, note, extra)


@dataclass(frozen=True)
class Proved:
    """What a proof was found to prove, and by whom: the entry is at `index` of the log with this checkpoint."""

    index: int
    checkpoint: Checkpoint
    note: Note
    extra_unverified: bytes


def prove(index: int, node: Node, note: str, extra: bytes = b"") -> Proof:
    """The proof of one entry under a checkpoint's note. `node`: the log's tree. Raises: VerificationError."""
    checkpoint = checkpoint_unverified(split_unverified(note)[0])
    return Proof(index, tuple(inclusion_proof(index, checkpoint.size, node)), note, extra)


def verify_proof(text: str, entry: bytes, log: Verifier, policy: "TrustPolicy | None" = None) -> Proved:
    """That the log, and as many witnesses as the policy asks for, signed a tree that holds the entry.

    Without a policy the log's word is enough. Raises: VerificationError with the evidence.
    """
    proof = Proof.parse(text)
    checkpoint, opened = (policy or TrustPolicy.at_least(0, [])).open(proof.note, log)
    verify_inclusion(leaf_hash(entry), proof.index, checkpoint.size, proof.path, checkpoint.root)
    return Proved(proof.index, checkpoint, opened, proof.extra)


@dataclass(frozen=True)
class TrustPolicy:
    """Which logs are believed, and whose cosignatures are enough (c2sp.org/tlog-policy).

    `groups`: name to (how many are needed, member names), members defined before their group. `quorum`: a witness, a
    group, or `none`. `urls`: where a witness takes submissions, by its name.
    """

    logs: tuple[Verifier, ...]
    witnesses: Mapping[str, Verifier]
    groups: Mapping[str, tuple[int, tuple[str, ...]]]
    quorum: str
    urls: Mapping[str, str]

    @classmethod
    def at_least(cls, count: int, witnesses: Sequence[Verifier], logs: Sequence[Verifier] = ()) -> Self:
        """The plain policy: `count` of these witnesses; none needed if it is 0."""
        lines = [f"log {log.text}\n" for log in logs]
        lines += [f"witness w{number} {witness.text}\n" for number, witness in enumerate(witnesses)]
        names = " ".join(f"w{number}" for number in range(len(witnesses)))
        return cls.parse("".join(lines) + (f"group g {count} {names}\nquorum g\n" if count else "quorum none\n"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a policy file. Raises: VerificationError naming the line."""
        reader = _PolicyReader()
        for number, line in enumerate(text.split("\n"), 1):
            reader.read(f"policy line {number}", line)
        if reader.quorum is None:
            raise VerificationError("policy", "one quorum line", "none", "Say whose cosignatures are enough")
        return cls(tuple(reader.logs), reader.witnesses, reader.groups, reader.quorum, reader.urls)

    def is_met(self, verifiers: Collection[Verifier]) -> bool:
        """Whether these keys, whose cosignatures were verified, are enough."""
        seen = {name for name, witness in self.witnesses.items() if witness in verifiers} | {"none"}
        for name, (needed, members) in self.groups.items():
            if sum(member in seen for member in members) >= needed:
                seen.add(name)
        return self.quorum in seen

    def open(self, note: str, log: Verifier | None = None) -> tuple[Checkpoint, Note]:
        """The checkpoint that a believed log signed and enough witnesses cosigned, and the note as it was verified.

        `log`: the one log to believe; if the policy lists logs, it must be one of them. Raises: VerificationError.
        """
        logs = self.logs if log is None else (log,)
        if log is not None and self.logs and log not in self.logs:
            raise VerificationError("policy", f"a log line for {log.name}", "others", "Use the policy for this log")
        opened = open_note(note, [*logs, *self.witnesses.values()])
        checkpoint = signed_checkpoint(opened, logs)
        if not self.is_met(opened.verifiers):
            found = sorted(name for name, witness in self.witnesses.items() if witness in opened.verifiers)
            raise VerificationError(
                "checkpoint",
                f"cosignatures that meet quorum {self.quorum}",
                ", ".join(found) or "none",
                "Ask its log for one that enough witnesses saw",
            )
        return checkpoint, opened


class _PolicyReader:
    """Reads a policy line by line: names first, then their use."""

    def __init__(self) -> None:
        self.logs: list[Verifier] = []
        self.witnesses: dict[str, Verifier] = {}
        self.groups: dict[str, tuple[int, tuple[str, ...]]] = {}
        self.urls: dict[str, str] = {}
        self.quorum: str | None = None
        self._members: set[str] = set()

    def read(self, what: str, line: str) -> None:
        if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", line):
            raise VerificationError(what, "no control characters", "one", "Correct the policy")
        words = re.split(r"[ \t]+", line.strip(" \t"))
        if words == [""] or words[0].startswith("#"):
            return
        match words:
            case ["log", key, *url] if len(url) <= 1:
                self.logs.append(self._verifier(what, key, self.logs, (ED25519, MLDSA44)))
            case ["witness", name, key, *url] if len(url) <= 1 and self._is_new(name):
                self.witnesses[name] = self._verifier(what, key, self.witnesses.values(), (COSIGNATURE, MLDSA44))
                if url:
                    self.urls[name] = url[0]
            case ["group", name, needed, *members] if self._is_new(name) and self._are_free(members):
                counts = {"any": "1", "all": str(len(members))}
                count = counts.get(needed, needed)
                if not _WHOLE.fullmatch(count) or not 1 <= int(count) <= len(members):
                    raise VerificationError(what, f"all, any or 1 to {len(members)}", needed, "Correct the policy")
                self.groups[name] = int(count), tuple(members)
                self._members |= set(members)
            case ["quorum", name] if self.quorum is None and (name == "none" or not self._is_new(name)):
                self.quorum = name
            case _:
                raise VerificationError(
                    what,
                    "log, witness, group or one quorum, with names defined once, above, and used in one group",
                    words[0],
                    "Correct the policy",
                )

    def _is_new(self, name: str) -> bool:
        return name != "none" and name not in self.witnesses and name not in self.groups

    def _are_free(self, members: list[str]) -> bool:
        known = self.witnesses.keys() | self.groups.keys()
        return len(set(members)) == len(members) and set(members) <= known - self._members

    @staticmethod
    def _verifier(what: str, key: str, others: Iterable[Verifier], types: tuple[bytes, ...]) -> Verifier:
        verifier = Verifier.parse(key)
        if verifier.signature_type not in types:
            expected = " or ".join(f"0x{signature_type.hex()}" for signature_type in types)
            found = f"0x{verifier.signature_type.hex()}"
            raise VerificationError(what, f"a key of type {expected}", found, "Correct the policy")
        if any(other.public_key == verifier.public_key for other in others):
            raise VerificationError(what, "a public key of its own", "one listed above", "Correct the policy")
        return verifier


def _malformed(expected: str) -> VerificationError:
    return VerificationError("proof", expected, "another shape", "Take the proof again from its source")
