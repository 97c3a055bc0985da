"""A second implementation of signed notes, checkpoints and cosignatures, for tests only.

Written from c2sp.org/signed-note, tlog-checkpoint and tlog-cosignature, over bytes. Imports nothing of ours: what ours
writes must verify here, and what is written here must verify with ours.
"""

import base64
import hashlib
import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

DASH = "—".encode()
PLAIN, TIMED, LATTICE = 1, 4, 6


def verifier_key(name: bytes, kind: int, public: bytes) -> bytes:
    """The vkey line of a public key."""
    material = bytes([kind]) + public
    hint = hashlib.sha256(name + b"\n" + material).digest()[:4]
    return b"%b+%b+%b" % (name, hint.hex().encode(), base64.b64encode(material))


def read_key(vkey: bytes) -> tuple[bytes, bytes, int, bytes]:
    """Name, hint, kind and public key of a vkey whose hint fits."""
    name, hint, encoded = vkey.split(b"+", 2)
    material = base64.b64decode(encoded, validate=True)
    assert name
    assert hashlib.sha256(name + b"\n" + material).digest()[:4] == bytes.fromhex(hint.decode())
    return name, bytes.fromhex(hint.decode()), material[0], material[1:]


def verify(note: bytes, vkeys: list[bytes]) -> tuple[bytes, dict[bytes, int | None]]:
    """The text, and which of the keys signed it, with the time of a cosignature. Raises what the key's check raises."""
    note.decode()  # valid UTF-8
    assert not any(byte < 0x20 and byte != 0x0A for byte in note)
    split = note.rindex(b"\n\n")
    text, tail = note[: split + 1], note[split + 2 :]
    assert tail.endswith(b"\n")
    known = {(name, hint): (vkey, kind, public) for vkey in vkeys for name, hint, kind, public in [read_key(vkey)]}
    signed: dict[bytes, int | None] = {}
    for line in tail[:-1].split(b"\n"):
        dash, name, encoded = line.split(b" ")
        assert dash == DASH
        raw = base64.b64decode(encoded, validate=True)
        assert base64.b64encode(raw) == encoded
        if (name, raw[:4]) in known:
            vkey, kind, public = known[name, raw[:4]]
            signed[vkey] = _verify_one(kind, name, public, raw[4:], text)
    assert signed, "no known key signed"
    return text, signed


def sign(text: bytes, name: bytes, seed: bytes, kind: int = PLAIN, time: int = 0) -> bytes:
    """One signature line over the text."""
    stamp = b"" if kind == PLAIN else struct.pack(">Q", time)
    message = signed_message(kind, name, time, text)
    if kind == LATTICE:
        lattice = MLDSA44PrivateKey.from_seed_bytes(seed)
        public, signature = lattice.public_key().public_bytes_raw(), lattice.sign(message)
    else:
        curve = Ed25519PrivateKey.from_private_bytes(seed)
        public, signature = curve.public_key().public_bytes_raw(), curve.sign(message)
    hint = read_key(verifier_key(name, kind, public))[1]
    return DASH + b" " + name + b" " + base64.b64encode(hint + stamp + signature) + b"\n"


def signed_message(kind: int, name: bytes, time: int, text: bytes) -> bytes:
    """The bytes under the signature."""
    if kind == PLAIN:
        return text
    if kind == TIMED:
        return b"cosignature/v1\ntime %d\n" % time + text
    origin, size, root = text.split(b"\n")[:3]
    return (
        b"subtree/v1\n\x00"
        + struct.pack(">B", len(name))
        + name
        + struct.pack(">QB", time, len(origin))
        + origin
        + struct.pack(">QQ", 0, int(size))
        + base64.b64decode(root)
    )


def flipped(text: str, start: int = 0, step: int = 1) -> list[str]:
    """The text with one bit changed, for every step-th bit from `start`; those that are no text at all left out."""
    raw = bytearray(text.encode())
    results = []
    for place in range(start * 8, len(raw) * 8, step):
        raw[place // 8] ^= 1 << place % 8
        results.append(raw.decode(errors="replace"))
        raw[place // 8] ^= 1 << place % 8
    return [result for result in results if "\ufffd" not in result]


def _verify_one(kind: int, name: bytes, public: bytes, signature: bytes, text: bytes) -> int | None:
    if kind == PLAIN:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
        return None
    (time,) = struct.unpack(">Q", signature[:8])
    message = signed_message(kind, name, time, text)
    if kind == TIMED:
        Ed25519PublicKey.from_public_bytes(public).verify(signature[8:], message)
    else:
        assert kind == LATTICE
        MLDSA44PublicKey.from_public_bytes(public).verify(signature[8:], message)
    return int(time)
