"""Every one-bit change of an export of a thousand events, one after the other: how many are not caught."""

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.harness import Measure, conditions

SUMMARY = "Every single bit of an export of 1,000 events flipped: how many flips verify (goal 0)"
EVENTS = 1_000


def measure(scale: str | None) -> Iterator[Measure]:
    """Flips tried, and flips that passed. `scale`: how many events.

    A flip in the entries is judged as the auditor judges the line: refused, or another leaf than the signed tree has. Flips in
    the other files go through the whole verification.
    """
    from benchmarks.consent_events import Events
    from benchmarks.databases import opened_ledger
    from consent.log.audit import CHECKPOINT, CHECKPOINTS, ENTRIES, KEY, MANIFEST, verify_export

    count = int(scale or EVENTS)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with opened_ledger(folder) as ledger:
            for row in (0, 1):
                ledger.append_frame(Events(row).frame(count // 2))
            export = ledger.export(folder / "export")
        key = verify_export(export).verifier_key
        lines = (export / ENTRIES).read_bytes().splitlines(keepends=True)
        tried = passed = 0
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            for part in pool.map(_lines_that_pass, enumerate(lines), chunksize=20):
                tried, passed = tried + part[0], passed + part[1]
            for file in (CHECKPOINTS, CHECKPOINT, KEY, MANIFEST):
                size = (export / file).stat().st_size
                jobs = [(export, file, at, key) for at in range(size)]
                for part in pool.map(_bytes_that_pass, jobs, chunksize=16):
                    tried, passed = tried + part[0], passed + part[1]
    state = conditions(events=count, files=5, seconds=round(time.perf_counter() - began))
    yield Measure("flips_tried", tried, "bits", "higher", conditions=state)
    yield Measure("flips_that_verify", passed, "bits", "lower", 0, conditions=state)


def _lines_that_pass(numbered: tuple[int, bytes]) -> tuple[int, int]:
    """Flips of one line of the entries that lead to the same leaf."""
    from consent.log.audit import read_line
    from consent.log.merkle import VerificationError

    leaf, line = numbered
    true, passed = read_line(leaf, line)[0], 0
    for place in range(len(line) * 8):
        broken = bytearray(line)
        broken[place // 8] ^= 1 << place % 8
        try:
            passed += b"\n" not in broken[:-1] and read_line(leaf, bytes(broken))[0] == true
        except VerificationError:
            continue
    return len(line) * 8, passed


def _bytes_that_pass(job: tuple[Path, str, int, str]) -> tuple[int, int]:
    """Flips of one byte of a small file after which the whole export still verifies."""
    import shutil
    import tempfile

    from consent.log.audit import verify_export
    from consent.log.merkle import VerificationError

    export, file, at, key = job
    passed = 0
    with tempfile.TemporaryDirectory() as name:
        copy = Path(shutil.copytree(export, Path(name) / "export"))
        raw = (copy / file).read_bytes()
        for bit in range(8):
            broken = bytearray(raw)
            broken[at] ^= 1 << bit
            (copy / file).write_bytes(broken)
            try:
                verify_export(copy, key=key)
                passed += 1
            except VerificationError:
                continue
    return 8, passed
