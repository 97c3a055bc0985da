"""How often a caller may ask: a token bucket each, kept in one small file that all workers of a machine share.

The generic cell rate algorithm (ITU-T I.371) needs one number per caller, the time at which the bucket is full again, so that a decision is
one read and one write of shared memory. Workers take no lock: two that decide in the same microsecond may count two requests as one.
"""

import mmap
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil
from pathlib import Path

from serving.keys import Caller
from serving.problems import ProblemError

# More than one machine answers: nobody is held up who was not meant to be. A key's record says what is meant.
DEFAULT_PER_SECOND = 10_000.0
BURST_SECONDS = 2.0  # of requests that may come at once after a silence
SLOTS, _PROBES = 4_096, 16
_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Rate:
    """A caller's allowance: how many may come at once, how many are left, and in how many seconds it is whole again."""

    most: int
    left: int
    whole_seconds: int

    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers-10 spells it."""
        window = ceil(BURST_SECONDS)
        return {
            "RateLimit-Policy": f'"caller";q={self.most};w={window}',
            "RateLimit": f'"caller";r={self.left};t={self.whole_seconds}',
        }


class Limits:
    """The buckets of a home's callers on this machine. Threads and processes may share them."""

    def __init__(self, path: Path, now: Callable[[], int] = time.monotonic_ns) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        size = SLOTS * 16
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(descriptor).st_size != size:
                os.ftruncate(descriptor, size)
            self._cells = memoryview(mmap.mmap(descriptor, size)).cast("q")
        finally:
            os.close(descriptor)
        self._now = now
        self._marks: dict[str, int] = {}
        self._lock = threading.Lock()

    def take(self, caller: Caller) -> Rate | None:
        """Count a request. What is left, where the caller has a limit of its own. Raises: ProblemError 429, with when to come again."""
        per_second = caller.requests_per_second or DEFAULT_PER_SECOND
        step = int(_NANOSECONDS / per_second)
        burst = max(int(BURST_SECONDS * _NANOSECONDS), step)
        with self._lock:
            now = self._now()
            place = self._place(caller.name, now)
            full_at = self._cells[place]
            if full_at < now or full_at > now + burst + step:  # idle, or of before the machine was started
                full_at = now
            then = full_at + step
            is_allowed = then - now <= burst
            if is_allowed:
                self._cells[place] = then
        if is_allowed and caller.requests_per_second is None:
            return None
        owed = (then if is_allowed else full_at) - now
        rate = Rate(burst // step, (burst - owed) // step, ceil(owed / _NANOSECONDS))
        if not is_allowed:
            wait = max(1, ceil((then - now - burst) / _NANOSECONDS))
            raise ProblemError(
                429,
                "too_many_requests",
                f"requests: expected at most {per_second:g} a second, found more. Come again in {wait} seconds.",
                headers={"Retry-After": str(wait), **rate.headers()},
            )
        return rate

    def _place(self, name: str, now: int) -> int:
        """Where a caller's number stands. A bucket that is full says nothing, so its place may be given away."""
        mark = self._marks.get(name)
        if mark is None:
            mark = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") >> 1 or 1
            if len(self._marks) >= SLOTS:  # holders of tokens come and go
                self._marks.clear()
            self._marks[name] = mark
        cells, first = self._cells, mark % SLOTS
        free = None
        for step in range(_PROBES):
            at = 2 * ((first + step) % SLOTS)
            if cells[at] == mark:
                return at + 1
            if free is None and (cells[at] == 0 or cells[at + 1] < now):
                free = at
        if free is None:
            free = 2 * first
        cells[free], cells[free + 1] = mark, 0
        return free + 1
