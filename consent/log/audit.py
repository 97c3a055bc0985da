"""Checks an export of the ledger without trusting whoever made it. Reads files; writes nothing.

Of ours it imports what defines the formats: `entry`, `index`, `merkle` and `note`. The export's files and their spelling are defined here, so that every
byte is checked.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from consent.log.entry import ENTRY_BYTES, entry, entry_keys
from consent.log.index import SUBJECT_BYTES, Rows, Run, all_runs, grown, rows_of, state_root
from consent.log.merkle import CompactRange, VerificationError, canonical, leaf_hash
from consent.log.note import Checkpoint, Verifier, open_checkpoint

ENTRIES = "entries.jsonl"
CHECKPOINTS = "checkpoints.jsonl"
CHECKPOINT = "checkpoint"
KEY = "key"
MANIFEST = "manifest.json"
FORMAT = "troth consent export 2"
KEY_FIELDS = ("signal_id", "subject_id", "event_type", "purpose_code", "channel_code")
_AGAIN = "Take the export again from its source"


@dataclass(frozen=True)
class Verified:
    """What an export was proved to hold."""

    origin: str
    size: int
    root: str
    checkpoint_count: int
    verifier_key: str


class Opened(NamedTuple):
    """What only the holder of a subject's key can read: the event's canonical bytes and the salt of its commitment."""

    event: bytes
    salt: bytes


def entry_line(leaf: int, log_entry: bytes, opened: Opened | None) -> bytes:
    """One line of the entries file, canonical JSON; event and salt are null where the subject's key was destroyed."""
    event, salt = (opened.event, b'"%b"' % opened.salt.hex().encode()) if opened else (b"null", b"null")
    return b'{"entry":"%b","event":%b,"leaf_index":%d,"salt":%b}\n' % (log_entry.hex().encode(), event, leaf, salt)


def check_event(where: str, log_entry: bytes, opened: Opened) -> None:
    """That an entry is of this event: its subject, purpose, channel, signal and content. Raises: VerificationError."""
    try:
        event: Any = json.loads(opened.event)
        key = entry_keys([[event[name] for name in KEY_FIELDS]])[0]
        if canonical(event) == opened.event and entry(key, opened.salt, opened.event) == log_entry:
            return
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise VerificationError(where, "the event its entry commits to", "another", "The event was changed or moved")


def is_erasure(opened: Opened) -> bool:
    """Whether an event, checked before, says that its subject was erased."""
    return bool(json.loads(opened.event)["event_type"] == "erased")


class Silence:
    """Leaves that cannot be opened, until the erasure of their subject is met, which explains them.

    A key or a payload that somebody else destroyed would silence a withdrawal.
    """

    def __init__(self) -> None:
        self.unexplained: dict[bytes, int] = {}  # last leaf that cannot be opened, by subject

    def hear(self, leaf: int, log_entry: bytes, found: Opened | None) -> None:
        """Of leaves in order."""
        subject = log_entry[:SUBJECT_BYTES]
        if found is None:
            self.unexplained[subject] = leaf
        elif subject in self.unexplained and is_erasure(found):
            del self.unexplained[subject]


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


class IndexGrowth:
    """The state index as it grows from the log's entries, in memory."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.rows: dict[Run, Rows] = {}
        self._young = rows_of(b"", 0)

    def extend(self, entries: bytes) -> None:
        first = (self.runs[-1].stop if self.runs else 0) + len(self._young)
        self.runs, self._young, steps = grown(self.runs, self._young, rows_of(entries, first), self.rows.__getitem__)
        for step in steps:
            self.rows[step.made.run] = step.made_rows
        self.rows = {run: self.rows[run] for run in self.runs}

    def state_root(self) -> bytes:
        return state_root(all_runs(self.runs, self._young))


def compare_root(claimed: Checkpoint, size: int, root: bytes, state: bytes) -> None:
    """That a log has the size, root and state root a checkpoint claims. Raises: VerificationError."""
    what = f"checkpoint of size {claimed.size}"
    if size != claimed.size:
        raise VerificationError("checkpoint", f"{claimed.size} events", f"{size}", "Events are missing or were added")
    if root != claimed.root:
        changed = "An event up to there was changed, moved or replaced"
        raise VerificationError(what, f"root {claimed.root.hex()}", root.hex(), changed)
    if state != claimed.state_root:
        found = (claimed.state_root or b"").hex() or "none"
        raise VerificationError(what, f"state root {state.hex()}", found, "Its index does not follow from its entries")


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
    tree, growth, silence = CompactRange(), IndexGrowth(), Silence()
    previous = -1
    lines = enumerate(_lines(path))
    for claimed in checkpoints:
        if claimed.size < previous:
            rolled_back = "A checkpoint was rolled back"
            raise VerificationError(CHECKPOINTS, f"a size from {previous}", f"{claimed.size}", rolled_back)
        previous = claimed.size
        entries = []
        for leaf, line in islice(lines, claimed.size - tree.size):
            found, opened = read_line(leaf, line)
            silence.hear(leaf, found, opened)
            entries.append(found)
        tree.extend(map(leaf_hash, entries))
        growth.extend(b"".join(entries))
        if tree.size < claimed.size:
            raise VerificationError(ENTRIES, f"{claimed.size} events", f"{tree.size}", "The tail is missing")
        compare_root(claimed, tree.size, tree.root(), growth.state_root())
    if next(lines, None) is not None:
        raise VerificationError(ENTRIES, f"{tree.size} events", "more", "Events were added that no checkpoint covers")
    if silence.unexplained:
        leaf, count = min(silence.unexplained.values()), len(silence.unexplained)
        expected = "an event, or the erasure of its subject after it"
        found_none = "neither" if count == 1 else f"neither, for {count} subjects"
        raise VerificationError(
            f"{ENTRIES} line {leaf + 1}", expected, found_none, "It was withheld, or its key destroyed"
        )


def read_line(leaf: int, line: bytes) -> tuple[bytes, Opened | None]:
    """The log's entry of a line, and what of its event can be read, checked against it. Raises: VerificationError."""
    where = f"{ENTRIES} line {leaf + 1}"
    opened = None
    try:
        values: Any = json.loads(line)
        found = bytes.fromhex(values["entry"])
        if values["event"] is not None or values["salt"] is not None:
            opened = Opened(canonical(values["event"]), bytes.fromhex(values["salt"]))
        is_spelled = entry_line(leaf, found, opened) == line and len(found) == ENTRY_BYTES
    except (ValueError, TypeError, KeyError, RecursionError):
        raise VerificationError(where, "an entry with its event and salt", "another shape", _AGAIN) from None
    if not is_spelled:
        raise VerificationError(where, f"leaf {leaf} in canonical JSON", "another spelling", _AGAIN)
    if opened is not None:
        check_event(where, found, opened)
    return found, opened


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
