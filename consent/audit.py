"""Checks an export of the ledger without trusting whoever made it. Reads files; writes nothing.

Of ours it imports `merkle` and `note` alone. The export's files and their spelling are defined here, so that every
byte is checked.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from consent.merkle import CompactRange, VerificationError, canonical, commitment, leaf_hash
from consent.note import Checkpoint, Verifier, open_checkpoint

ENTRIES = "entries.jsonl"
CHECKPOINTS = "checkpoints.jsonl"
CHECKPOINT = "checkpoint"
KEY = "key"
MANIFEST = "manifest.json"
FORMAT = "troth consent export 1"
_AGAIN = "Take the export again from its source"


@dataclass(frozen=True)
class Verified:
    """What an export was proved to hold."""

    origin: str
    size: int
    root: str
    checkpoint_count: int
    verifier_key: str


def entry_line(event: bytes, leaf_index: int, salt: bytes) -> bytes:
    """One line of the entries file: canonical JSON of the event's canonical JSON, its leaf and its salt in hex."""
    return b'{"event":%b,"leaf_index":%d,"salt":"%b"}\n' % (event, leaf_index, salt.hex().encode())


def manifest(newest: Checkpoint, checkpoint_count: int, hashes: Mapping[str, str]) -> bytes:
    """The manifest's bytes: everything in it follows from the other files."""
    return (
        canonical(
            {
                "format": FORMAT,
                "origin": newest.origin,
                "size": newest.size,
                "root": newest.root.hex(),
                "checkpoint_count": checkpoint_count,
                "sha256": dict(hashes),
            }
        )
        + b"\n"
    )


def compare_root(claimed: Checkpoint, tree: CompactRange) -> None:
    """That a tree has the size and root a checkpoint claims. Raises: VerificationError."""
    if tree.size != claimed.size:
        raise VerificationError(
            "checkpoint", f"{claimed.size} events", f"{tree.size}", "Events are missing or were added"
        )
    if (root := tree.root()) != claimed.root:
        raise VerificationError(
            f"checkpoint of size {claimed.size}",
            f"root {claimed.root.hex()}",
            root.hex(),
            "An event up to there was changed, moved or replaced",
        )


def verify_export(folder: Path, key: str | None = None, since: str | None = None) -> Verified:
    """Re-derive the tree from every event, compare it with every checkpoint, check every signature and every byte.

    `key`: verifier key known from elsewhere; without it the export's own is used, which proves only that they fit.
    `since`: a checkpoint kept from before; the export must contain it. Raises: VerificationError with the evidence.
    """
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    expected = sorted((ENTRIES, CHECKPOINTS, CHECKPOINT, KEY, MANIFEST))
    if names != expected:
        raise VerificationError("export", f"files {', '.join(expected)}", ", ".join(names) or "none", _AGAIN)
    verifier = _verifier(folder, key)
    notes = [_note(line) for line in _lines(folder / CHECKPOINTS)]
    checkpoints = [open_checkpoint(note, verifier) for note in notes]
    if not checkpoints or checkpoints[0].size != 0:
        raise VerificationError(CHECKPOINTS, "the checkpoint of size 0 first", "another or none", _AGAIN)
    if (newest := _text(folder / CHECKPOINT)) != notes[-1]:
        raise VerificationError(
            CHECKPOINT, f"the newest of {CHECKPOINTS}", "another", "A checkpoint was rolled back or replaced"
        )
    for kept in [open_checkpoint(since, verifier)] if since is not None else []:
        if kept.size > checkpoints[-1].size:
            raise VerificationError(
                "export", f"at least {kept.size} events", f"{checkpoints[-1].size}", "It was rolled back"
            )
        checkpoints = sorted([*checkpoints, kept], key=lambda checkpoint: checkpoint.size)
    _compare_entries(folder / ENTRIES, checkpoints)
    last = open_checkpoint(newest, verifier)
    hashes = {name: _digest(folder / name) for name in expected if name != MANIFEST}
    if (folder / MANIFEST).read_bytes() != manifest(last, len(notes), hashes):
        raise VerificationError(MANIFEST, "what follows from the other files", "something else", _AGAIN)
    return Verified(last.origin, last.size, last.root.hex(), len(notes), verifier.text)


def _verifier(folder: Path, key: str | None) -> Verifier:
    text = _text(folder / KEY)
    verifier = Verifier.parse(text.removesuffix("\n"))
    if text != verifier.text + "\n":
        raise VerificationError(KEY, "one line", "another shape", _AGAIN)
    if key is not None and Verifier.parse(key.strip()) != verifier:
        raise VerificationError(KEY, f"the key {key.strip()}", verifier.text, "Somebody else signed this export")
    return verifier


def _compare_entries(path: Path, checkpoints: list[Checkpoint]) -> None:
    """Walk entries and checkpoints together: roots of one growing tree are consistent each with the next."""
    tree = CompactRange()
    waiting = iter(checkpoints)
    claimed = next(waiting, None)
    previous = -1
    lines = enumerate(_lines(path))
    while claimed is not None:
        if claimed.size < previous:
            raise VerificationError(
                CHECKPOINTS, f"a size from {previous}", f"{claimed.size}", "A checkpoint was rolled back"
            )
        previous = claimed.size
        while tree.size < claimed.size:
            index, line = next(lines, (tree.size, None))
            if line is None:
                raise VerificationError(ENTRIES, f"{claimed.size} events", f"{index}", "The tail is missing")
            tree.extend([_leaf(index, line)])
        compare_root(claimed, tree)
        claimed = next(waiting, None)
    if next(lines, None) is not None:
        raise VerificationError(ENTRIES, f"{tree.size} events", "more", "Events were added that no checkpoint covers")


def _leaf(index: int, line: bytes) -> bytes:
    where = f"{ENTRIES} line {index + 1}"
    try:
        entry: Any = json.loads(line)
        event, salt = canonical(entry["event"]), bytes.fromhex(entry["salt"])
        spelled = entry_line(event, index, salt)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise VerificationError(where, "an event with its salt", "another shape", _AGAIN) from None
    if spelled != line:
        raise VerificationError(where, f"leaf {index} in canonical JSON", "another spelling", _AGAIN)
    return leaf_hash(commitment(salt, event))


def _note(line: bytes) -> str:
    try:
        note = json.loads(line)
        if isinstance(note, str) and canonical(note) + b"\n" == line:
            return note
    except (ValueError, RecursionError):
        pass
    raise VerificationError(CHECKPOINTS, "one signed note a line, as JSON text", "another shape", _AGAIN)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise VerificationError(path.name, "UTF-8 text", "other bytes", _AGAIN) from None


def _digest(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
