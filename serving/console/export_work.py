"""An export that runs beside the pages, in a process of its own, written down step by step in `segments/jobs/` of the home.

First everything is decided and nothing written; then, when somebody says so, the file. Who closes the page, or stops the service, stops
neither. That a process is at it shows in a lock it holds as long as it lives: one that was killed cannot leave a job that seems to run.
Run as `python -m serving.console.export_work HOME JOB LOCK`.
"""

import fcntl
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from models.segments import described, kept
from models.segments.definition import Segment, parse, written
from models.segments.export import MANIFEST, export
from serving.answers import clock_of
from serving.errors import ServingError
from troth.clock import Clock, SystemClock
from troth.errors import TrothError
from troth.home import Home, alone, write_atomically

NAME = re.compile(r"[0-9]{8}T[0-9]{6}-[a-z][a-z0-9_]{0,62}-[a-z_]{1,20}-[0-9a-f]{8}")
_TRIES = 10


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One export of one segment over one channel. `definition` is YAML, as it was when it was first tried.

    `state`: `deciding`, `decided`, `writing`, `written`, `failed`.
    `stopped` is never written down: it is what a job is that nobody is at.
    """

    job_id: str
    state: str
    segment_name: str
    segment_version: int
    definition: str
    definition_hash: str
    purpose_code: str
    channel_code: str
    asked_by: str
    asked_at: datetime
    matched: int = 0
    expected: int = 0
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    test_customers: int = 0
    decided_at: datetime | None = None
    confirmed_by: str | None = None
    ended_at: datetime | None = None
    fault: str | None = None

    @property
    def is_over(self) -> bool:
        return self.state in ("decided", "written", "failed")


def folder_of(home: Home, job_id: str) -> Path:
    """Where its files are once it is written."""
    return home.exports / "console" / job_id


def manifest_of(home: Home, job_id: str) -> dict[str, Any] | None:
    """What stands beside its file; None before there is one."""
    path = folder_of(home, job_id) / MANIFEST
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Any]) if path.exists() else None


def jobs(home: Home) -> list[Job]:
    """Every job there was, newest first."""
    return [_read(path) for path in sorted(_folder(home).glob("*.json"), reverse=True) if NAME.fullmatch(path.stem)]


def job(home: Home, job_id: str) -> Job | None:
    """A job as it is: `stopped` where it should be going on and nobody is at it; None where there is no such job."""
    path = _folder(home) / f"{job_id}.json"
    if not NAME.fullmatch(job_id) or not path.exists():
        return None
    is_running = _is_running(home, job_id)  # asked first: what ends in between has written down how
    found = _read(path)
    if found.is_over or is_running:
        return found
    if found.state == "writing" and (manifest := manifest_of(home, job_id)):  # its last word alone was lost
        return msgspec.structs.replace(found, state="written", ended_at=datetime.fromisoformat(manifest["exported_at"]))
    return msgspec.structs.replace(found, state="stopped")


def begin(home: Home, segment: Segment, channel: str, by: str, at: datetime) -> Job:
    """Write down that an export is to be decided. It is not begun yet: `start` does that."""
    made = Job(
        job_id=f"{at:%Y%m%dT%H%M%S}-{segment.name}-{channel}-{secrets.token_hex(4)}",
        state="deciding",
        segment_name=segment.name,
        segment_version=segment.version,
        definition=written(segment),
        definition_hash=segment.hash,
        purpose_code=segment.purpose,
        channel_code=channel,
        asked_by=by,
        asked_at=at,
    )
    _write(home, made)
    return made


def confirm(home: Home, job_id: str, by: str) -> Job:
    """Write down that what was decided is to be written. Raises: ServingError where it is not at that point, or its definition changed since."""
    with held(home, job_id):
        found = _read(_folder(home) / f"{job_id}.json")
        if found.state != "decided":
            raise ServingError(
                f"export: expected one that was decided and not written, found {found.state}. Look at it again."
            )
        if described.load(home, found.segment_name).hash != found.definition_hash:
            raise ServingError(
                f"export: expected {found.segment_name} as it was decided, found it changed since. Try it again."
            )
        made = msgspec.structs.replace(found, state="writing", confirmed_by=by)
        _write(home, made)
        return made


def start(home: Home, job_id: str) -> None:
    """Let a process of its own do what is written down next; it goes on when this one ends. Raises: ServingError where one is at it."""
    with held(home, job_id) as descriptor:  # which the process inherits, and holds until it is done
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(home.root.resolve()), job_id, str(descriptor)],
            pass_fds=(descriptor,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    threading.Thread(target=process.wait, name=f"export {job_id}", daemon=True).start()  # so that none is left undead


def work(home: Home, job_id: str, clock: Clock, wall: Clock) -> Job:
    """Do what is written down next: decide, or write. How it ended is written down too, whatever happened.

    `clock` tells the time people are asked for, `wall` when something was done: they differ where a retailer is generated.
    """
    found = _read(_folder(home) / f"{job_id}.json")
    try:
        with alone(_folder(home)):  # one export of a home at a time: each reads the whole ledger
            done = _done(home, found, clock)
        done = msgspec.structs.replace(done, **{"decided_at" if done.state == "decided" else "ended_at": wall.now()})
    except TrothError as error:
        done = msgspec.structs.replace(found, state="failed", fault=str(error), ended_at=wall.now())
    except Exception as error:  # what a page tells must not be what an unknown fault says: it may hold anybody's data
        fault = f"export: expected it to end, found {type(error).__name__}. Tell whoever keeps the service."
        done = msgspec.structs.replace(found, state="failed", fault=fault, ended_at=wall.now())
    _write(home, done)
    return done


def _done(home: Home, found: Job, clock: Clock) -> Job:
    report = export(
        home,
        parse(found.definition),
        folder_of(home, found.job_id),
        clock.now(),
        dry_run=found.state == "deciding",
        channel=found.channel_code,
        loaded=described.loader(home),
    )
    if found.state == "writing":
        return msgspec.structs.replace(found, state="written")
    return msgspec.structs.replace(
        found,
        state="decided",
        matched=report.matched,
        expected=report.exported,
        refused=dict(report.refused),
        test_customers=report.test_customers,
    )


def _folder(home: Home) -> Path:
    return kept.folder_of(home) / "jobs"


def _read(path: Path) -> Job:
    return msgspec.json.decode(path.read_bytes(), type=Job)


def _write(home: Home, made: Job) -> None:
    write_atomically(_folder(home) / f"{made.job_id}.json", msgspec.json.encode(made))


@contextmanager
def held(home: Home, job_id: str) -> Iterator[int]:
    """Whoever is at a job holds this. Raises: ServingError where somebody else is."""
    descriptor = os.open(_folder(home) / f"{job_id}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for _ in range(_TRIES):  # whoever looks whether it is held holds it for an instant
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.02)
        else:
            raise ServingError("export: expected nobody at it, found it under way. Look at it again.")
        yield descriptor
    finally:
        os.close(descriptor)


def _is_running(home: Home, job_id: str) -> bool:
    try:
        descriptor = os.open(_folder(home) / f"{job_id}.lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    _home = Home(Path(sys.argv[1]))
    work(_home, sys.argv[2], clock_of(_home), SystemClock())
    os.close(int(sys.argv[3]))  # before this process has ended: what comes next may begin
