"""A ledger in plain lists, written from README.md's formats alone: trees by RFC 9162's recursive definitions, no code of ours.

It is slow and small on purpose: what it signs must be what the real one signs, and the verifier must accept both.
"""

import base64
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consent.events import Event, encode

ORIGIN = "troth/consent-ledger"
PAGE = 32


def root(leaves: Sequence[bytes]) -> bytes:
    """RFC 9162, 2.1.1, over leaf hashes."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\1" + root(leaves[:split]) + root(leaves[split:])).digest()


def path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """RFC 9162, 2.1.3.1."""
    if len(leaves) == 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*path(index, leaves[:split]), root(leaves[split:])]
    return [*path(index - split, leaves[split:]), root(leaves[:split])]


def key_of(tag: str, *parts: str) -> bytes:
    return sha256("\0".join((f"troth-consent-{tag}-v1", *parts)).encode()).digest()


def leaf(content: bytes) -> bytes:
    return sha256(b"\0" + content).digest()


class PlainSigner:
    """A C2SP key: type 1 signs notes, type 4 cosigns checkpoints."""

    def __init__(self, name: str, seed: int, kind: int = 1) -> None:
        self.name, self.kind = name, kind
        self._key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.public = bytes([kind]) + self._key.public_key().public_bytes_raw()
        self.key_id = sha256(name.encode() + b"\n" + self.public).digest()[:4]

    @property
    def text(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(self.public).decode()}"

    def note(self, body: str) -> str:
        return f"{body}\n{self.line(self._key.sign(body.encode()))}"

    def cosignature(self, note: str, at: int) -> str:
        """One more signature line (c2sp.org/tlog-cosignature, Ed25519)."""
        body = note.rpartition("\n\n")[0] + "\n"
        return self.line(at.to_bytes(8) + self._key.sign(f"cosignature/v1\ntime {at}\n{body}".encode()))

    def line(self, signature: bytes) -> str:
        return f"— {self.name} {base64.b64encode(self.key_id + signature).decode()}\n"


SIGNER = PlainSigner(ORIGIN, 7)


class PlainLedger:
    """`run_leaves`: how many leaves the index gathers into a run, so that small ledgers have several."""

    def __init__(self, events: Sequence[Event] = (), run_leaves: int = 70, signer: PlainSigner = SIGNER) -> None:
        self.entries: list[bytes] = []
        self._opened: list[tuple[bytes, bytes] | None] = []
        self._subjects: list[str] = []
        self._run_leaves, self._signer = run_leaves, signer
        self.cosigners: list[tuple[PlainSigner, int]] = []
        self.append(events)

    def append(self, events: Sequence[Event]) -> list[int]:
        first = len(self.entries)
        for event in events:
            content, salt = encode(event), sha256(b"salt %d" % len(self.entries)).digest()[:16]
            scope = (event.subject_id, event.purpose_code, event.channel_code)
            signal = (event.signal_id, event.subject_id, event.event_type, event.purpose_code, event.channel_code)
            self.entries.append(
                key_of("subject", event.subject_id)[:16]
                + key_of("scope", *scope)[:8]
                + key_of("signal", *signal)[:8]
                + sha256(b"troth-consent-event-v1\0" + salt + content).digest()
            )
            self._opened.append((content, salt))
            self._subjects.append(event.subject_id)
        return list(range(first, len(self.entries)))

    def destroy(self, subject_id: str) -> None:
        """The subject's key is gone: nothing of it can be opened any more."""
        self._opened = [
            None if mine == subject_id else found for mine, found in zip(self._subjects, self._opened, strict=True)
        ]

    @property
    def size(self) -> int:
        return len(self.entries)

    def runs(self) -> list[tuple[int, int, list[bytes]]]:
        """(start, stop, pages) of every run."""
        found = []
        for start in range(0, self.size, self._run_leaves):
            stop = min(start + self._run_leaves, self.size)
            rows = sorted(self.entries[at][:32] + at.to_bytes(8) for at in range(start, stop))
            found.append((start, stop, [b"".join(rows[at : at + PAGE]) for at in range(0, len(rows), PAGE)]))
        return found

    def state_root(self) -> bytes:
        parts = [
            start.to_bytes(8) + stop.to_bytes(8) + root([leaf(page) for page in pages])
            for start, stop, pages in self.runs()
        ]
        return sha256(b"troth-consent-index-v1\0" + b"".join(parts)).digest()

    def root(self) -> bytes:
        return root([leaf(entry) for entry in self.entries])

    def checkpoint(self) -> str:
        roots = [base64.b64encode(found).decode() for found in (self.root(), self.state_root())]
        note = self._signer.note(f"{ORIGIN}\n{self.size}\n{roots[0]}\nstate {roots[1]}\n")
        return note + "".join(cosigner.cosignature(note, at) for cosigner, at in self.cosigners)

    def entry(self, index: int) -> bytes:
        return self.entries[index]

    def opened(self, index: int) -> tuple[bytes, bytes] | None:
        return self._opened[index]

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        return path(index, [leaf(entry) for entry in self.entries[:size]])

    def state_proof(self, subject_id: str) -> dict[str, Any]:
        prefix = key_of("subject", subject_id)[:16]
        return {
            "format": "troth state proof 1",
            "prefix": prefix.hex(),
            "runs": [self._shown(*run, prefix) for run in self.runs()],
        }

    def _shown(self, start: int, stop: int, pages: list[bytes], prefix: bytes) -> dict[str, Any]:
        """Every page with a row of the prefix, and the rows next to them on both sides."""
        rows = [page[at : at + 40] for page in pages for at in range(0, len(page), 40)]
        before = sum(row[:16] < prefix for row in rows)
        after = sum(row[:16] <= prefix for row in rows)
        first, last = max(before - 1, 0) // PAGE, min(after, len(rows) - 1) // PAGE
        hashes = [leaf(page) for page in pages]
        return {
            "start": start,
            "stop": stop,
            "root": root(hashes).hex(),
            "first_page": first,
            "pages": [page.hex() for page in pages[first : last + 1]],
            "paths": [[found.hex() for found in path(at, hashes)] for at in range(first, last + 1)],
        }
