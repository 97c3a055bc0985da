"""Files as they arrive, and everything that goes wrong with them on the way.

A file is a head, records and a tail. Records are repeated, garbled copies slip in between them, some wait for the next
day's file; files come late, twice under another name, or out of order. What is garbled is always an extra copy of a
good record (a write cut short and done again), so the truth stays what the good records say.
"""

import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl

from simulator.scale import Scale
from simulator.spelling import DAY, epoch_day
from troth.home import Home

Garbler = tuple[str, Callable[[str], str | None]]
RECEIVED = 10 * 3600  # 10:00 UTC of the next day: evening is over everywhere


def cut_short(text: str) -> str:
    """A write that stopped in the middle."""
    return text[: max(1, len(text) * 3 // 5)]


def spoiled(pattern: str, replacement: str) -> Callable[[str], str | None]:
    """The first match replaced; None where there is none, and the record is left alone."""
    search = re.compile(pattern)

    def garble(text: str) -> str | None:
        found, count = search.subn(replacement, text, count=1)
        return found if count else None

    return garble


@dataclass(frozen=True)
class Kind:
    """One kind of landed file: where it goes, how it is put together, and how its records break.

    `garblers` pairs the raw table that loses a row with the way it is broken. `in_place` garblers add the broken part
    to the record instead of standing beside it.
    """

    source: str
    table: str
    garblers: tuple[Garbler, ...] = ()
    separator: str = "\n"
    in_place: bool = False
    may_repeat: bool = True
    may_wait: bool = False
    may_drop: bool = False  # a day without it is a gap; masters and the opening count always come
    fragility: float = 1.0  # times as likely to be garbled: for kinds of few records


@dataclass
class Disturbed:
    """Records after faults: the text, which original each one is, and which ones are garbled."""

    records: pl.Series
    origin: np.ndarray
    is_garbled: np.ndarray


@dataclass
class Landing:
    """Writes landed files of one home with the faults of a scale, and counts both."""

    home: Home
    scale: Scale
    seed: int
    files: int = 0
    size: int = 0
    records: Counter[str] = field(default_factory=Counter)
    faults: dict[str, Counter[str]] = field(default_factory=dict)
    _waiting: dict[tuple[str, str], pl.Series] = field(default_factory=dict)
    _folders: set[Path] = field(default_factory=set)

    def count(self, fault: str, of: str, number: int = 1) -> None:
        if number:
            self.faults.setdefault(fault, Counter())[of] += number

    def random(self, kind: Kind, day: int, name: str = "") -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(f"{kind.table}/{name}".encode()), day + 1])

    def disturbed(self, kind: Kind, day: int, records: pl.Series, name: str = "") -> Disturbed:
        """Some records twice, some broken, some kept for tomorrow."""
        rng, scale = self.random(kind, day, name), self.scale
        if kind.may_wait:
            records = self._held_back(kind, name, day, records, rng)
        count = len(records)
        repeats = (
            np.flatnonzero(rng.random(count) < scale.duplicated_record_rate)
            if kind.may_repeat
            else np.zeros(0, np.int64)
        )
        broken = (
            np.flatnonzero(rng.random(count) < scale.malformed_record_rate * kind.fragility)
            if kind.garblers
            else np.zeros(0, np.int64)
        )
        self.count("duplicated_records", kind.table, len(repeats))
        garbled = self._garbled(kind, records, broken, rng)
        if kind.in_place and garbled:
            records = records.scatter(list(garbled), list(garbled.values()))
            origin = np.sort(np.r_[np.arange(count), repeats[~np.isin(repeats, list(garbled))]])
            marks = np.isin(origin, list(garbled))
            return Disturbed(records[origin], origin, marks)
        origin = np.r_[np.arange(count), repeats, np.fromiter(garbled, np.int64, len(garbled))]
        texts = pl.concat([records[origin[: count + len(repeats)]], pl.Series(list(garbled.values()), dtype=pl.String)])
        marks = np.arange(len(origin)) >= count + len(repeats)
        order = np.argsort(origin, kind="stable")
        return Disturbed(texts[order], origin[order], marks[order])

    def _held_back(self, kind: Kind, name: str, day: int, records: pl.Series, rng: np.random.Generator) -> pl.Series:
        key = (kind.table, name)
        waits = rng.random(len(records)) < self.scale.held_back_record_rate
        if day >= self.scale.days - 1:
            waits[:] = False
        self.count("held_back_records", kind.table, int(waits.sum()))
        earlier = self._waiting.pop(key, None)
        if waits.any():
            self._waiting[key] = records.filter(pl.Series(waits))
            records = records.filter(pl.Series(~waits))
        return records if earlier is None else pl.concat([earlier, records])

    def _garbled(self, kind: Kind, records: pl.Series, broken: np.ndarray, rng: np.random.Generator) -> dict[int, str]:
        """Broken text by place of the record it was made from."""
        garbled = {}
        for place in broken:
            table, garble = kind.garblers[int(rng.integers(0, len(kind.garblers)))]
            text = garble(records[int(place)])
            if text is not None:
                garbled[int(place)] = text
                self.count("malformed", table)
        return garbled

    def write_records(
        self, kind: Kind, day: int, name: str, records: pl.Series, head: str = "", tail: str | Callable[[int], str] = ""
    ) -> None:
        """Disturb the records and write them as one file."""
        disturbed = self.disturbed(kind, day, records, name.split(f"_{self.date(day)}", maxsplit=1)[0])
        self.write(kind, day, name, disturbed.records, int(disturbed.is_garbled.sum()), head, tail)

    def write(
        self, kind: Kind, day: int, name: str, records: pl.Series | Sequence[str], garbled: int,
        head: str = "", tail: str | Callable[[int], str] = "",
    ) -> None:  # fmt: skip
        """Write one file; sometimes late, shuffled, never, or a second time under another name (never one with broken rows)."""
        if not len(records):
            return
        rng, scale = self.random(kind, day, name), self.scale
        if kind.may_drop and self.random(kind, day, f"dropped/{name}").random() < scale.dropped_file_rate:
            self.count("dropped_files", kind.source)
            return
        late, again, shuffled = rng.random(3) < (
            scale.late_file_rate,
            scale.resent_file_rate,
            scale.out_of_order_file_rate,
        )
        if shuffled and len(records) > 1:
            records = pl.Series(records, dtype=pl.String)[rng.permutation(len(records))]
            self.count("out_of_order_files", kind.source)
        text = kind.separator.join(records)
        ending = tail(len(records)) if callable(tail) else tail
        data = f"{head}{text}{ending}\n".encode()
        received = (epoch_day(scale.first_day) + day + 1) * DAY + RECEIVED + zlib.crc32(name.encode()) % 600
        if late:
            received += int(rng.integers(1, 4)) * DAY
            self.count("late_files", kind.source)
        folder = self.home.landing / kind.source / str(self.date(day))
        self._put(folder / name, data, received)
        self.records[kind.table] += len(records)
        if again and not garbled:
            stem, dot, extension = name.rpartition(".")
            self._put(folder / f"{stem}-resent{dot}{extension}", data, received + 3600)
            self.count("resent_files", kind.source)

    def date(self, day: int) -> object:
        return self.scale.first_day + timedelta(day)

    def _put(self, path: Path, data: bytes, received: int) -> None:
        if path.parent not in self._folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(path.parent)
        path.write_bytes(data)
        os.utime(path, (received, received))
        self.files += 1
        self.size += len(data)
