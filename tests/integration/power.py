"""What a power cut leaves of a folder: everything that was synced, and of all else whatever chance lets through.

A model of a disk over the calls of `disk.py`: of the writes to a file since its last sync any may be lost, or torn at a sector;
of what happened to names since the last sync of their folder, what came last is lost first.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.disk import Call

SECTOR = 512


@dataclass
class Blocks:
    """A file: what is safe, and what was done to it since."""

    safe: bytearray = field(default_factory=bytearray)
    done: list[Call] = field(default_factory=list)

    def sync(self) -> None:
        for call in self.done:
            _apply(self.safe, call)
        self.done = []

    def after_cut(self, chance: random.Random) -> bytes:
        left = bytearray(self.safe)
        survival = chance.choice((0.0, 0.3, 0.9, 1.0))
        for call in self.done:
            if chance.random() < survival:
                torn = len(call.data) > SECTOR and chance.random() < 0.1
                end = chance.randrange(0, len(call.data), SECTOR) if torn else len(call.data)
                _apply(left, Call(call.kind, call.path, call.offset, call.data[:end]))
        return bytes(left)


def left_after(calls: Iterable[Call], chance: random.Random) -> dict[str, bytes]:
    """The files, by name, that a power cut after these calls leaves."""
    now: dict[str, Blocks] = {}
    history: list[dict[str, Blocks]] = [{}]  # the names there were since the folder was last synced, oldest first
    for call in calls:
        if call.kind == "sync" and call.path == ".":
            history = [dict(now)]
        elif call.kind == "sync" and call.path in now:
            now[call.path].sync()
        elif call.kind in ("write", "truncate"):
            now.setdefault(call.path, Blocks()).done.append(call)
        elif call.kind in ("create", "remove", "rename"):
            if call.kind == "create":
                now[call.path] = Blocks()
            elif call.kind == "rename":
                now[call.target] = now.pop(call.path)
            else:
                now.pop(call.path, None)
            history.append(dict(now))
    names = chance.choice(history)
    return {name: blocks.after_cut(chance) for name, blocks in names.items() if not name.endswith("-shm")}


def write_out(files: dict[str, bytes], folder: Path) -> None:
    """Make the folder that such files stand in. SQLite's shared memory is no file to keep."""
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _apply(content: bytearray, call: Call) -> None:
    if call.kind == "truncate":
        del content[call.offset :]
        content.extend(bytes(call.offset - len(content)))
    else:
        content.extend(bytes(max(0, call.offset - len(content))))
        content[call.offset : call.offset + len(call.data)] = call.data
