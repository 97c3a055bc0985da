"""Signed notes, checkpoints and cosignatures as C2SP writes them (c2sp.org/signed-note, tlog-checkpoint, tlog-cosignature).

Three kinds of key: Ed25519 (0x01) for a log; timestamped Ed25519 (0x04) for a cosigner; ML-DSA-44 (0x06) for either,
which needs `cryptography` 48. Lines by keys of any other kind are those of unknown keys.
Nothing of ours is imported but `merkle`, so that an auditor can read it alone.
"""

import base64
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from consent.log.merkle import HASH_BYTES, VerificationError

# Signature type bytes of the specifications.
ED25519 = b"\x01"
COSIGNATURE = b"\x04"
MLDSA44 = b"\x06"
_KEY_BYTES = {ED25519: 32, COSIGNATURE: 32, MLDSA44: 1312}
_SIGNATURE_BYTES = {ED25519: 64, COSIGNATURE: 8 + 64, MLDSA44: 8 + 2420}
MAXIMUM_SIGNATURES = 100
MAXIMUM_NOTE_CHARACTERS = 200_000  # sixteen post-quantum signatures of 5 kB, in base64, fit twice
MAXIMUM_EXTENSIONS = 16
MAXIMUM_TIME = 2**63 - 1
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_AGAIN = "Take the note again from its source"


def key_id(name: str, public_key: bytes, signature_type: bytes = ED25519) -> bytes:
    """First four bytes of SHA-256(name || 0x0A || signature type || public key)."""
    return sha256(name.encode() + b"\n" + signature_type + public_key).digest()[:4]


@dataclass(frozen=True)
class Verifier:
    """A public key with its name and what it signs with: enough to check notes."""

    name: str
    public_key: bytes = field(repr=False)
    signature_type: bytes = ED25519

    @property
    def key_id(self) -> bytes:
        return key_id(self.name, self.public_key, self.signature_type)

    @property
    def text(self) -> str:
        """`name+key id in hex+base64(type || public key)`, one line, for files and configuration."""
        return f"{self.name}+{self.key_id.hex()}+{to_base64(self.signature_type + self.public_key)}"

    @property
    def covers_extensions(self) -> bool:
        """Whether a signature binds every line of a checkpoint: one of ML-DSA-44 binds origin, size and root alone."""
        return self.signature_type != MLDSA44

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises: VerificationError unless the text is exactly how this key is written."""
        name, _, rest = text.partition("+")
        raw = from_base64(rest.partition("+")[2]) or b""
        if len(raw) - 1 != _KEY_BYTES.get(raw[:1]) or not _is_name(name):
            raise VerificationError(
                "verifier key",
                "name+key id+base64 of an Ed25519 or ML-DSA-44 key",
                "something else",
                "Take the key from its owner",
            )
        verifier = cls(name, raw[1:], raw[:1])
        if verifier.text != text:
            raise VerificationError(
                "verifier key", f"key id {verifier.key_id.hex()}", "another spelling", "Take the key from its owner"
            )
        return verifier

    def verify(self, signature: bytes, text: str) -> int | None:
        """The time a cosignature states, in POSIX seconds; None for a plain signature. Raises: VerificationError."""
        at = int.from_bytes(signature[:8], "big") if self.signature_type != ED25519 else None
        message = _signed_message(self, text, at) if at is None or at <= MAXIMUM_TIME else None
        raw = signature if at is None else signature[8:]
        check = _mldsa44_verify if self.signature_type == MLDSA44 else _ed25519_verify
        fits = len(signature) == _SIGNATURE_BYTES[self.signature_type]
        if not fits or message is None or not check(self.public_key, raw, message):
            raise VerificationError(
                "note", f"a valid signature by {self.name}", "one that fails", "The text is not what the key signed"
            )
        return at


class Signer(Protocol):
    """Whoever holds the private key."""

    @property
    def verifier(self) -> Verifier: ...

    def sign(self, message: bytes) -> bytes:
        """A bare signature in the verifier's algorithm: 64 bytes of Ed25519 (RFC 8032), 2,420 of ML-DSA-44."""
        ...


class Ed25519Signer:
    """A private key in memory, from its 32-byte seed. As `signature_type` COSIGNATURE it is a cosigner's."""

    def __init__(self, name: str, seed: bytes, signature_type: bytes = ED25519) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._verifier = Verifier(_checked_name(name), self._key.public_key().public_bytes_raw(), signature_type)

    @property
    def verifier(self) -> Verifier:
        return self._verifier

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


class MLDSA44Signer:
    """A post-quantum cosigner's private key (FIPS 204) in memory, from its 32-byte seed."""

    def __init__(self, name: str, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

        self._key = MLDSA44PrivateKey.from_seed_bytes(seed)
        self._verifier = Verifier(_checked_name(name), self._key.public_key().public_bytes_raw(), MLDSA44)

    @property
    def verifier(self) -> Verifier:
        return self._verifier

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def sign_note(text: str, signer: Signer, at: int | None = None) -> str:
    """The text, a blank line, and one signature line. The text ends with a newline. `at`: as in `signature_line`."""
    return f"{text}\n{signature_line(text, signer, at)}"


def signature_line(text: str, signer: Signer, at: int | None = None) -> str:
    """One line that signs a note's text. `at`: POSIX seconds, which a cosignature states and a plain one does not."""
    if not text.endswith("\n") or _CONTROL.search(text):
        raise ValueError(
            "note: expected text that ends with a newline and holds no control characters. Correct the text."
        )
    verifier = signer.verifier
    if (verifier.signature_type == ED25519) != (at is None) or not 0 <= (at or 0) <= MAXIMUM_TIME:
        raise ValueError("signature: expected a time for a cosignature and none for a plain one. Give `at` to cosign.")
    signature = signer.sign(_signed_message(verifier, text, at))
    time = b"" if at is None else at.to_bytes(8, "big")
    return f"— {verifier.name} {to_base64(verifier.key_id + time + signature)}\n"


def with_signatures(note: str, lines: Iterable[str]) -> str:
    """The note with more signature lines behind those it has; a line it has already stays alone.

    Raises: VerificationError if the result is no note.
    """
    text, blank, tail = note.rpartition("\n\n")
    kept = dict.fromkeys([*tail.splitlines(keepends=True), *lines])
    together = text + blank + "".join(kept)
    split_unverified(together)
    return together


@dataclass(frozen=True)
class Signature:
    """A signature that was checked: whose it is, and for a cosignature the time it states (POSIX seconds)."""

    verifier: Verifier
    at: int | None


@dataclass(frozen=True)
class Note:
    """A note's text and the signatures by known keys, all of them valid, in the order of the lines."""

    text: str
    signatures: tuple[Signature, ...]

    @property
    def verifiers(self) -> frozenset[Verifier]:
        """The known keys that signed: each counts once, however many lines it wrote."""
        return frozenset(signature.verifier for signature in self.signatures)


def open_note(note: str, verifiers: Collection[Verifier]) -> Note:
    """The note's text and which known keys signed it: one at least, over every line of the text.

    Signatures of unknown keys are ignored; one of a known key that fails refuses the whole note; none never verifies.
    Raises: VerificationError.
    """
    text, lines = split_unverified(note)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    signatures = []
    for name, raw in lines:
        verifier = known.get((name, raw[:4]))
        if verifier is not None:
            signatures.append(Signature(verifier, verifier.verify(raw[4:], text)))
    if not signatures:
        raise VerificationError(
            "note", "a signature by a known key", f"{len(lines)} by others", "Check which key the log signs with"
        )
    opened = Note(text, tuple(signatures))
    _refuse_unsigned_lines(text, opened.verifiers)
    return opened


def split_unverified(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """A note's text and its signature lines as (name, key id || signature); no signature is checked.

    Raises: VerificationError for anything that is not shaped like a note.
    """
    text, blank, tail = note.rpartition("\n\n")
    if not blank or not tail.endswith("\n") or _CONTROL.search(note) or len(note) > MAXIMUM_NOTE_CHARACTERS:
        raise VerificationError("note", "text, a blank line and signature lines", "another shape", _AGAIN)
    lines = tail[:-1].split("\n")
    if len(lines) > MAXIMUM_SIGNATURES:
        raise VerificationError("note", f"at most {MAXIMUM_SIGNATURES} signatures", f"{len(lines)}", _AGAIN)
    return text + "\n", [_parsed_line(line) for line in lines]


@dataclass(frozen=True)
class Checkpoint:
    """A log's size and root, under the log's origin, and its extension lines (c2sp.org/tlog-checkpoint)."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in (self.origin, str(self.size), to_base64(self.root), *self.extensions))

    @property
    def state_root(self) -> bytes | None:
        """Root of the state index, from the one extension line `state <base64>`; None without such a line.

        Raises: VerificationError if there are two, or what it carries is no hash.
        """
        found = [line.removeprefix("state ") for line in self.extensions if line.startswith("state ")]
        if not found:
            return None
        root = from_base64(found[0]) if len(found) == 1 else None
        if root is None or len(root) != HASH_BYTES:
            raise VerificationError(
                "checkpoint", "one state line with a hash", "another", "Take the checkpoint again from its log"
            )
        return root


def open_checkpoint(note: str, verifier: Verifier) -> Checkpoint:
    """The checkpoint a log signed under its own name. Raises: VerificationError."""
    return signed_checkpoint(open_note(note, [verifier]), [verifier])


def signed_checkpoint(opened: Note, logs: Collection[Verifier]) -> Checkpoint:
    """The checkpoint in a note, if the log of its origin signed every line."""
    checkpoint = checkpoint_unverified(opened.text)
    signed = {log for log in logs if log.name == checkpoint.origin} & opened.verifiers
    if not signed:
        names = ", ".join(sorted({log.name for log in logs})) or "of a known log"
        raise VerificationError(
            "checkpoint", f"origin {names}, signed by its key", checkpoint.origin, "It belongs to another log"
        )
    _refuse_unsigned_lines(opened.text, signed)
    return checkpoint


def checkpoint_unverified(text: str) -> Checkpoint:
    """The checkpoint a note's text spells; no signature is checked. Raises: VerificationError for another shape."""
    lines = text.removesuffix("\n").split("\n")
    root = from_base64(lines[2]) if 3 <= len(lines) <= 3 + MAXIMUM_EXTENSIONS and all(lines) else None
    if root is None or len(root) != HASH_BYTES or not _SIZE.fullmatch(lines[1]) or not text.endswith("\n"):
        raise VerificationError(
            "checkpoint",
            f"origin, size and root, then up to {MAXIMUM_EXTENSIONS} extensions, a line each",
            "another shape",
            "Take the checkpoint again",
        )
    return Checkpoint(lines[0], int(lines[1]), root, tuple(lines[3:]))


def _refuse_unsigned_lines(text: str, signed: Collection[Verifier]) -> None:
    if text.count("\n") > 3 and not any(verifier.covers_extensions for verifier in signed):
        raise VerificationError(
            "note", "an Ed25519 signature over extension lines", "ML-DSA-44 alone", "No signature covers those lines"
        )


def _signed_message(verifier: Verifier, text: str, at: int | None) -> bytes:
    """What a key signs. Raises: VerificationError where ML-DSA-44 has no message for the text."""
    if at is None:
        return text.encode()
    if verifier.signature_type == COSIGNATURE:
        return f"cosignature/v1\ntime {at}\n{text}".encode()
    checkpoint = checkpoint_unverified(text)
    names = [name.encode() for name in (verifier.name, checkpoint.origin)]
    if any(len(name) > 255 for name in names):
        raise VerificationError("cosignature", "names up to 255 bytes", "longer ones", "Use an Ed25519 cosigner")
    cosigner, origin = (bytes([len(name)]) + name for name in names)
    numbers = [number.to_bytes(8, "big") for number in (at, 0, checkpoint.size)]
    return b"subtree/v1\n\0" + cosigner + numbers[0] + origin + numbers[1] + numbers[2] + checkpoint.root


def _parsed_line(line: str) -> tuple[str, bytes]:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    signature = from_base64(encoded)
    if dash != "—" or not _is_name(name) or signature is None or len(signature) < 5:
        raise VerificationError("note", "a signature line: dash, name, base64", "another shape", _AGAIN)
    return name, signature


def _ed25519_verify(public_key: bytes, signature: bytes, message: bytes) -> bool:
    return _verifies(lambda: Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message))


def _mldsa44_verify(public_key: bytes, signature: bytes, message: bytes) -> bool:
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

    return _verifies(lambda: MLDSA44PublicKey.from_public_bytes(public_key).verify(signature, message))


def _verifies(check: Callable[[], None]) -> bool:
    try:
        check()
    except (InvalidSignature, ValueError):
        return False
    return True


def _is_name(name: str) -> bool:
    return bool(name) and not _CONTROL.search(name) and not any(c == "+" or c.isspace() for c in name)


def _checked_name(name: str) -> str:
    if not _is_name(name):
        raise ValueError(
            "key name: expected text without spaces or plus signs, found something else. Name it like host/path."
        )
    return name


def to_base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def from_base64(text: str) -> bytes | None:
    """Bytes of base64 in its one canonical spelling, or None."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return raw if to_base64(raw) == text else None
