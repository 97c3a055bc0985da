"""Numbers that only grow, counted by every worker in a file of its own and read together by whoever is asked.

A file is a row of records: a name and a number. A worker takes over the file of one that ended and counts on, so that no sum ever falls and
there are as many files as there were ever workers at once.
"""

import fcntl
import mmap
import os
import threading
import weakref
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

RECORDS, _WIDTH = 4_096, 192  # of a name with its labels, and eight bytes of number
_NAME = _WIDTH - 8
_DOUBLES = _WIDTH // 8
_BETWEEN = "\x1f"
# Seconds. Answers from memory take tenths of a millisecond, a batch through the ledger some hundreds.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
AGES = (1.0, 60.0, 900.0, 3_600.0, 21_600.0, 86_400.0, 172_800.0, 604_800.0)
LAST = "+Inf"
Labels = tuple[str, ...]


class Counts:
    """The numbers of one worker. Its threads share them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _own(folder)
        self._leave = weakref.finalize(self, os.close, descriptor)
        os.ftruncate(descriptor, RECORDS * _WIDTH)
        self._names = mmap.mmap(descriptor, RECORDS * _WIDTH)
        self._cells = memoryview(self._names).cast("d")
        self._places = {name: number for number, (name, _) in enumerate(_records(self._names))}
        self._lock = threading.Lock()
        self._counters: dict[Labels, int] = {}
        self._histograms: dict[Labels, list[int]] = {}

    def close(self) -> None:
        """Leave the file to the next worker."""
        if self._leave.alive:
            self._cells.release()
            self._names.close()
            self._leave()

    def add(self, labels: Labels, amount: float = 1) -> None:
        """Add to a counter: its name, then the values of its labels, which come from a closed list."""
        with self._lock:
            place = self._counters.get(labels)
            if place is None:
                place = self._counters[labels] = self._place(labels)
            self._cells[place] += amount

    def observe(self, labels: Labels, seconds: float, bounds: Sequence[float] = BOUNDS) -> None:
        """Count a time in the histogram of a name and the values of its labels."""
        bucket = bisect_left(bounds, seconds) + 1
        with self._lock:
            places = self._histograms.get(labels)
            if places is None:
                places = self._histograms[labels] = [self._place((*labels, "sum")), *[-1] * (len(bounds) + 1)]
            place = places[bucket]
            if place < 0:
                bound = LAST if bucket > len(bounds) else str(bounds[bucket - 1])
                place = places[bucket] = self._place((*labels, bound))
            self._cells[place] += 1
            self._cells[places[0]] += seconds

    def _place(self, labels: Labels) -> int:
        name = _BETWEEN.join(labels)
        number = self._places.get(name)
        if number is None:
            number = min(len(self._places), RECORDS - 1)  # the last is shared by all there is no room for
            self._places[name] = number
            written = name.encode()[:_NAME].ljust(_NAME, b"\0")
            start = number * _WIDTH
            self._names[start + 1 : start + _NAME] = written[1:]
            self._names[start : start + 1] = written[:1]  # last, so that nobody reads half a name
        return number * _DOUBLES + _DOUBLES - 1


def read(folder: Path) -> Mapping[Labels, float]:
    """The sums over all workers that are or were, by name and labels."""
    sums: dict[Labels, float] = {}
    for path in sorted(folder.glob("*.counts")):
        for name, value in _records(path.read_bytes()):
            labels = tuple(name.split(_BETWEEN))
            sums[labels] = sums.get(labels, 0.0) + value
    return sums


def _own(folder: Path) -> int:
    """The first file that no living worker has; it is ours until we end."""
    number = 0
    while True:
        number += 1
        descriptor = os.open(folder / f"{number}.counts", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            os.close(descriptor)


def _records(data: bytes | mmap.mmap) -> Iterator[tuple[str, float]]:
    values = memoryview(data)[: len(data) // 8 * 8].cast("d")
    for number in range(len(data) // _WIDTH):
        start = number * _WIDTH
        name = data[start : start + _NAME].rstrip(b"\0")
        if not name:
            return
        yield name.decode(errors="replace"), values[number * _DOUBLES + _DOUBLES - 1]
