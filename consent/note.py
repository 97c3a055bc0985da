"""Signed notes and checkpoints as C2SP writes them (c2sp.org/signed-note, c2sp.org/tlog-checkpoint), with Ed25519 keys.

Nothing of ours is imported but `merkle`, so that an auditor can read it alone.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from consent.merkle import HASH_BYTES, VerificationError

ED25519 = b"\x01"  # signature type byte of the signed-note specification
MAXIMUM_SIGNATURES = 100
MAXIMUM_NOTE_CHARACTERS = 100_000
MAXIMUM_EXTENSIONS = 16
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


def key_id(name: str, public_key: bytes) -> bytes:
    """First four bytes of SHA-256(name || 0x0A || 0x01 || public key)."""
    return sha256(name.encode() + b"\n" + ED25519 + public_key).digest()[:4]


@dataclass(frozen=True)
class Verifier:
    """A public key with its name: enough to check notes."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        return key_id(self.name, self.public_key)

    @property
    def text(self) -> str:
        """`name+key id in hex+base64(type || public key)`, one line, for files and configuration."""
        return f"{self.name}+{self.key_id.hex()}+{_base64(ED25519 + self.public_key)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises: VerificationError unless the text is exactly how this key is written."""
        name, _, rest = text.partition("+")
        raw = _unbase64(rest.partition("+")[2])
        if raw is None or len(raw) != 33 or raw[:1] != ED25519 or not _is_name(name):
            raise VerificationError(
                "verifier key", "name+key id+base64 of an Ed25519 key", "something else", "Take the key from its owner"
            )
        verifier = cls(name, raw[1:])
        if verifier.text != text:
            raise VerificationError(
                "verifier key", f"key id {verifier.key_id.hex()}", "another spelling", "Take the key from its owner"
            )
        return verifier


class Signer(Protocol):
    """Whoever holds the private key."""

    @property
    def verifier(self) -> Verifier: ...

    def sign(self, message: bytes) -> bytes:
        """A 64-byte Ed25519 signature (RFC 8032)."""
        ...


class Ed25519Signer:
    """A private key in memory, from its 32-byte seed."""

    def __init__(self, name: str, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._verifier = Verifier(name, self._key.public_key().public_bytes_raw())
        if not _is_name(name):
            raise ValueError(
                "key name: expected text without spaces or plus signs, found something else. Name it like host/path."
            )

    @property
    def verifier(self) -> Verifier:
        return self._verifier

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def sign_note(text: str, signer: Signer) -> str:
    """The text, a blank line, and one signature line. The text ends with a newline."""
    if not text.endswith("\n") or _CONTROL.search(text):
        raise ValueError(
            "note: expected text that ends with a newline and holds no control characters. Correct the text."
        )
    verifier = signer.verifier
    return f"{text}\n— {verifier.name} {_base64(verifier.key_id + signer.sign(text.encode()))}\n"


def open_note(note: str, verifiers: Sequence[Verifier]) -> str:
    """The note's text, if a known key signed it.

    Signatures of unknown keys are ignored; one of a known key that fails refuses the whole note; none never verifies.
    Raises: VerificationError.
    """
    text, blank, tail = note.rpartition("\n\n")
    if not blank or not tail.endswith("\n") or _CONTROL.search(note) or len(note) > MAXIMUM_NOTE_CHARACTERS:
        raise VerificationError(
            "note", "text, a blank line and signature lines", "another shape", "Take the note again from its source"
        )
    text += "\n"
    lines = tail[:-1].split("\n")
    if len(lines) > MAXIMUM_SIGNATURES:
        raise VerificationError(
            "note", f"at most {MAXIMUM_SIGNATURES} signatures", f"{len(lines)}", "Take the note again from its source"
        )
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    verified = 0
    for line in lines:
        name, signature = _signature_line(line)
        verifier = known.get((name, signature[:4]))
        if verifier is not None:
            _check_signature(verifier, signature[4:], text)
            verified += 1
    if not verified:
        raise VerificationError(
            "note", "a signature by a known key", f"{len(lines)} by others", "Check which key the log signs with"
        )
    return text


@dataclass(frozen=True)
class Checkpoint:
    """A log's size and root, under the log's origin, and its extension lines (c2sp.org/tlog-checkpoint)."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in (self.origin, str(self.size), _base64(self.root), *self.extensions))

    @property
    def state_root(self) -> bytes | None:
        """Root of the state index, from the one extension line `state <base64>`; None without such a line.

        Raises: VerificationError if there are two, or what it carries is no hash.
        """
        found = [line.removeprefix("state ") for line in self.extensions if line.startswith("state ")]
        if not found:
            return None
        root = _unbase64(found[0]) if len(found) == 1 else None
        if root is None or len(root) != HASH_BYTES:
            raise VerificationError(
                "checkpoint", "one state line with a hash", "another", "Take the checkpoint again from its log"
            )
        return root


def open_checkpoint(note: str, verifier: Verifier) -> Checkpoint:
    """The checkpoint a log signed under its own name. Raises: VerificationError."""
    checkpoint = _parsed_checkpoint(open_note(note, [verifier]))
    if checkpoint.origin != verifier.name:
        raise VerificationError("checkpoint", f"origin {verifier.name}", checkpoint.origin, "It belongs to another log")
    return checkpoint


def _parsed_checkpoint(text: str) -> Checkpoint:
    lines = text[:-1].split("\n")
    root = _unbase64(lines[2]) if 3 <= len(lines) <= 3 + MAXIMUM_EXTENSIONS and all(lines) else None
    if root is None or len(root) != HASH_BYTES or not _SIZE.fullmatch(lines[1]):
        raise VerificationError(
            "checkpoint",
            f"origin, size and root, then up to {MAXIMUM_EXTENSIONS} extensions, a line each",
            "another shape",
            "Take the checkpoint again",
        )
    return Checkpoint(lines[0], int(lines[1]), root, tuple(lines[3:]))


def _signature_line(line: str) -> tuple[str, bytes]:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    signature = _unbase64(encoded)
    if dash != "—" or not _is_name(name) or signature is None or len(signature) < 5:
        raise VerificationError(
            "note", "a signature line: dash, name, base64", "another shape", "Take the note again from its source"
        )
    return name, signature


def _check_signature(verifier: Verifier, signature: bytes, text: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(verifier.public_key).verify(signature, text.encode())
    except InvalidSignature:
        raise VerificationError(
            "note", f"a valid signature by {verifier.name}", "one that fails", "The text is not what the key signed"
        ) from None


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(character.isspace() for character in name)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _unbase64(text: str) -> bytes | None:
    """Bytes of base64 in its one canonical spelling, or None."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return raw if _base64(raw) == text else None
