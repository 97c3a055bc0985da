"""Which personal data was read, by whom and for what: a line for each request, naming no person. Files that only grow, a new one when one is full
or a month old; those that were put aside long ago are removed.

A line is written before the answer is sent: a read that cannot be written down is not answered. It survives the end of the process;
what a power cut may take is what the system had not put on the disk yet.
"""

import fcntl
import os
import re
import threading
import weakref
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from serving.errors import ServingError

FILE_NAME = "personal_reads.jsonl"
MOST_BYTES = 64 * 1024 * 1024
KEPT = timedelta(days=400)  # after a file was put aside
_MOST_AGE = timedelta(days=30)  # of the first line of the file that is written to
_LOOK = timedelta(days=1)  # between looks for what is too old
_STAMP = "%Y%m%dT%H%M%S%f"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What every line says."""

    at: datetime


class PersonalRead(Line, frozen=True, kw_only=True):
    """One request that read a personal view: how many were asked for, allowed, and refused by which reason."""

    request_id: str
    caller: str
    route: str
    service: str
    purpose_code: str
    channel_code: str
    asked: int
    allowed: int
    refused: Mapping[str, int]
    ledger_size: int | None


class ReadLog:
    """The log of a home. Threads and processes share it: a line is one write at the end of the file."""

    def __init__(
        self, folder: Path, most_bytes: int = MOST_BYTES, kept: timedelta = KEPT, file_name: str = FILE_NAME
    ) -> None:
        self._path = folder / file_name
        self._aside = re.compile(rf"{re.escape(self._path.stem)}-(\d{{8}}T\d{{12}})Z-\d+\.jsonl")
        self._most_bytes, self._kept = most_bytes, kept
        self._look_at: datetime | None = None
        self._lock = threading.Lock()
        self._descriptor = -1
        self._close: Callable[[], object] = int  # nothing yet
        self._encoder = msgspec.json.Encoder()

    def write(self, read: Line) -> int:
        """How many files were removed on the way, for they were old enough. Raises: ServingError when it cannot be written."""
        line, removed = self._encoder.encode(read) + b"\n", 0
        try:
            with self._lock:
                if self._descriptor < 0:
                    self._open()
                elif os.fstat(self._descriptor).st_size >= self._most_bytes:
                    self._turn(read.at)
                if self._look_at is None or read.at >= self._look_at:
                    removed = self._look(read.at)
                written = os.write(self._descriptor, line)
        except OSError as fault:
            raise self._unwritten(type(fault).__name__) from None
        if written != len(line):
            raise self._unwritten("no room")
        return removed

    def close(self) -> None:
        with self._lock:
            self._close()
            self._descriptor = -1

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._close()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._close = weakref.finalize(self, os.close, descriptor)
        self._descriptor = descriptor

    def _look(self, at: datetime) -> int:
        """Put a file aside that was begun long ago, and remove those that were put aside too long ago; how many."""
        self._look_at = at + _LOOK
        if (begun := self._begun()) is not None and at - begun >= _MOST_AGE:
            self._turn(at)
        removed = 0
        for path in self._path.parent.glob(f"{self._path.stem}-*.jsonl"):
            told = self._aside.fullmatch(path.name)
            if told is None or at - datetime.strptime(told[1], _STAMP).replace(tzinfo=UTC) < self._kept:
                continue
            try:
                path.unlink()
            except FileNotFoundError:  # another process did
                continue
            removed += 1
        return removed

    def _begun(self) -> datetime | None:
        """When the first line of the file was written; None without one that can be read."""
        try:
            with self._path.open("rb") as file:
                return msgspec.json.decode(file.readline(), type=Line).at
        except (FileNotFoundError, msgspec.MsgspecError):  # another process has just put it aside
            return None

    def _turn(self, at: datetime) -> None:
        """Put the full file aside, unless another process has, and go on in a new one."""
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            here, there = os.fstat(self._descriptor), self._path.stat() if self._path.exists() else None
            if there is not None and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
                stamp = f"{at.astimezone(UTC):{_STAMP}}Z"
                self._path.rename(self._path.with_name(f"{self._path.stem}-{stamp}-{here.st_ino}.jsonl"))
            self._open()
        finally:
            os.close(folder)

    def _unwritten(self, found: str) -> ServingError:
        return ServingError(
            f"{self._path.name}: expected to write down who reads personal data, found {found}. Make room for it."
        )
