"""Landed files become typed rows, once. One Parquet file per raw table and trading day.

A day's file is a function of the set of files landed for that day: same files in another order, or over several runs,
give the same bytes. What has been read is written down last (`taken/`), so a crash in between is repaired by reading again.
Which formats there are is the business of the sources; what a row must look like, of its contract.
"""

import fnmatch
import os
import signal
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

import msgspec
import polars as pl

from orchestration.catalog import SOURCES, contract_of, source_of
from orchestration.rights.held import outlives
from orchestration.rights.suppression import is_needed, keep_out
from orchestration.sources.contract import FILE_STRIDE, FileKind, Reading, Rejections, Source, UnreadableFile, conform
from troth.home import Home, files_below, write_atomically
from troth.ids import file_hash, tokeniser

# Raising this number makes every landed file be read again: do so when a reader changes what it gives.
READER_VERSION = 1
WORTH_A_WORKER = 4_000_000  # bytes; starting worker processes costs about a second, reading 10 MB about as much
ASIDE_SCHEMA = {"record_offset": pl.Int64(), "reason_code": pl.String(), "detail": pl.String()}
QUARANTINE_SCHEMA = {
    "source_file": pl.String(),
    "file_hash": pl.String(),
    **ASIDE_SCHEMA,
    "received_at": pl.Datetime("us", "UTC"),
}
FILE = "file number"


class TakenFile(msgspec.Struct):
    """One landed file as it was read: its content, its state on disk, and what came of it."""

    path: str
    sha256: str
    size: int
    modified_ns: int
    rows: dict[str, int] = {}
    aside: dict[str, dict[str, int]] = {}
    duplicate_of: str | None = None


class TakenDay(msgspec.Struct):
    """Everything read for one source and trading day."""

    reader_version: int
    files: list[TakenFile]


@dataclass(frozen=True)
class DayPlan:
    """Work for one source and trading day: files to read, and hashes of contents that are to be dropped."""

    source: str
    day: str
    read: tuple[TakenFile, ...]
    keep: tuple[TakenFile, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.read if file.duplicate_of is None)


@dataclass
class Taking:
    """What a run took: per table rows kept, per table rows set aside by reason, and the days that changed."""

    files_of: Counter[str] = field(default_factory=Counter)
    duplicates_of: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    aside: dict[str, Counter[str]] = field(default_factory=dict)
    days: dict[str, set[str]] = field(default_factory=dict)

    def add(self, plan: DayPlan, files: Sequence[TakenFile]) -> None:
        self.days.setdefault(plan.source, set()).add(plan.day)
        for file in files:
            self.files_of[plan.source] += 1
            self.duplicates_of[plan.source] += file.duplicate_of is not None
            self.rows.update(file.rows)
            for table, reasons in file.aside.items():
                self.aside.setdefault(table, Counter()).update(reasons)


def plan(home: Home, source: str) -> list[DayPlan]:
    """What has landed for a source and is not taken yet, by trading day; empty when nothing is new.

    A file is known by its content. One whose size and modification time are as they were is not hashed again.
    """
    root = home.landing / source
    if not root.exists():
        return []
    taken = {path.stem: _taken_day(path) for path in sorted((home.taken / source).glob("*.json"))}
    first_seen = {
        file.sha256: f"{day}/{file.path}"
        for day, record in taken.items()
        if record.reader_version == READER_VERSION
        for file in record.files
        if file.duplicate_of is None
    }
    found: list[tuple[str, TakenFile]] = []
    kept: dict[str, dict[str, TakenFile]] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and _is_day(path.name)):
        record = taken.get(folder.name)
        known = {file.path: file for file in record.files} if record and record.reader_version == READER_VERSION else {}
        kept[folder.name] = known
        for entry in sorted(_files(folder)):
            name = entry.relative_to(folder).as_posix()
            state = entry.stat()
            before = known.get(name)
            if before and (before.size, before.modified_ns) == (state.st_size, state.st_mtime_ns):
                continue
            digest = file_hash(entry)
            if not (before and before.sha256 == digest):
                found.append((folder.name, TakenFile(name, digest, state.st_size, state.st_mtime_ns)))
    # Of copies the one received first is read: what it says was known since then.
    new: dict[str, list[TakenFile]] = {}
    for day, file in sorted(found, key=lambda each: (each[1].modified_ns, each[0], each[1].path)):
        here = f"{day}/{file.path}"
        earlier = first_seen.setdefault(file.sha256, here)
        file.duplicate_of = None if earlier == here else earlier
        new.setdefault(day, []).append(file)
    plans = []
    for day, files in sorted(new.items()):
        replaced = {file.path for file in files}
        rest = tuple(file for file in kept[day].values() if file.path not in replaced)
        plans.append(DayPlan(source, day, tuple(sorted(files, key=lambda file: file.path)), rest))
    return plans


class Readers:
    """Worker processes that read days. Work handed over early is read while the caller does something else."""

    def __init__(self, home: Home, workers: int) -> None:
        self._home = home
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._early: dict[tuple[str, str], tuple[DayPlan, Future[list[TakenFile]]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def begin(self, plans: Sequence[DayPlan]) -> None:
        """Start reading these days; `take` collects what came of them."""
        _prepare(self._home)
        self._early |= {(plan.source, plan.day): (plan, self._submit(plan)) for plan in plans}

    def plan(self, source: str, days: Collection[str]) -> list[DayPlan]:
        """What is to be taken for a source on some days: what was begun, and what has landed besides."""
        begun = [plan for (name, day), (plan, _) in self._early.items() if name == source and day in days]
        known = {plan.day for plan in begun}
        landed = plan(self._home, source) if known != set(days) else []
        return [*begun, *(each for each in landed if each.day in days and each.day not in known)]

    def take(self, plans: Sequence[DayPlan], progress: Callable[[int, int], None] | None = None) -> Taking:
        """Read every planned day, or collect it where it was begun. `progress` gets bytes done and bytes in all.

        Raises: whatever a reader raises that is not about the file; days already written stay and are not read again.
        """
        _prepare(self._home)
        result = Taking()
        total, done = sum(p.bytes for p in plans), 0
        for finished, files in self._run(plans):
            result.add(finished, files)
            done += finished.bytes
            if progress:
                progress(done, total)
        return result

    def _run(self, plans: Sequence[DayPlan]) -> Iterator[tuple[DayPlan, Sequence[TakenFile]]]:
        running = {}
        here = []
        for plan in sorted(plans, key=lambda p: -p.bytes):
            begun = self._early.pop((plan.source, plan.day), None)
            if begun:
                running[begun[1]] = plan
            else:
                here.append(plan)
        if self._workers == 1 or sum(plan.bytes for plan in here) < WORTH_A_WORKER:
            for plan in here:
                yield plan, take_day(self._home.root, plan)
        else:
            running |= {self._submit(plan): plan for plan in here}
        for future in as_completed(running):
            yield running[future], future.result()

    def _submit(self, plan: DayPlan) -> Future[list[TakenFile]]:
        if self._pool is None:
            os.environ.setdefault("POLARS_MAX_THREADS", "1")  # for the workers: one each, there are several of them
            # Ctrl-C reaches the whole group: workers finish their day, and the parent alone says that it was interrupted.
            self._pool = ProcessPoolExecutor(
                self._workers, get_context("spawn"), initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
            )
        return self._pool.submit(take_day, self._home.root, plan)


def take(home: Home, plans: Sequence[DayPlan], workers: int) -> Taking:
    """Read every planned file and write the days' tables and quarantines."""
    with Readers(home, workers) as readers:
        return readers.take(plans)


def _prepare(home: Home) -> None:
    ensure_tables(home)
    home.key("token")  # made before workers race for it


def take_day(root: Path, plan: DayPlan) -> list[TakenFile]:
    """Read one source and day; write each table's day file, then the record of what was taken."""
    home = Home(root)
    source = source_of(home, plan.source)
    token = tokeniser(home.key("token"))
    kept: dict[str, list[pl.DataFrame]] = {contract.table: [] for contract in source.contracts}
    aside: dict[str, list[pl.DataFrame]] = {}
    files = [file for file in plan.read if file.duplicate_of is None]
    found: dict[tuple[str, tuple[Any, ...]], list[pl.DataFrame]] = {}
    for file in files:
        file.rows, file.aside = {}, {}
    for reading in _readings(source, {n: home.landing / plan.source / plan.day / f.path for n, f in enumerate(files)}):
        for table, frame in reading.frames.items():
            found.setdefault((table, tuple(frame.schema.items())), []).append(frame)
        for table, rows in _rejected(reading.rejections):
            aside.setdefault(table, []).append(rows)
    origins = _origins(plan, files)
    taken: dict[str, list[pl.DataFrame]] = {}
    # One pass over a day's rows of a table: `conform` costs 3 to 12 ms however few they are, and stores send many files.
    for (table, _), frames in found.items():
        good, bad = conform(pl.concat(frames), contract_of(table), token)
        for file, _, count in _counts(files, good):
            file.rows[table] = file.rows.get(table, 0) + count
        taken.setdefault(table, []).append(good)
        kept[table].append(_placed(good, origins).select(*contract_of(table).schema))
        if bad.height:
            aside.setdefault(table, []).append(bad)
    if is_needed(home) and (again := _without_erased(home, source, plan, files, taken)):
        return take_day(root, again)
    for table, parts in aside.items():
        rows = pl.concat(parts)
        for file, reason, count in _counts(files, rows):
            file.aside.setdefault(table, {})[reason] = count
        aside[table] = [_placed(rows, origins).select(*QUARANTINE_SCHEMA)]
    fresh = {file.sha256 for file in plan.keep if file.duplicate_of is None}
    for table, frames in kept.items():
        _write_day(home.raw / table, plan.day, frames, fresh)
    for table in kept:
        _write_day(home.quarantine / table, plan.day, aside.get(table, []), fresh)
    record = TakenDay(READER_VERSION, sorted((*plan.keep, *plan.read), key=lambda f: f.path))
    write_atomically(home.taken / plan.source / f"{plan.day}.json", msgspec.json.format(msgspec.json.encode(record)))
    return list(plan.read)


def _without_erased(
    home: Home, source: Source, plan: DayPlan, files: Sequence[TakenFile], rows: Mapping[str, Sequence[pl.DataFrame]]
) -> DayPlan | None:
    """The plan for files as they are once erased people are out of them; None where there were none in them.

    A copy that is not read is looked into, too: it would keep what its first was stripped of.
    """
    token = tokeniser(home.key("token"))
    folder = home.landing / plan.source / plan.day
    paths = {number: folder / file.path for number, file in enumerate(files)}
    found: dict[str, list[pl.DataFrame]] = {table: list(frames) for table, frames in rows.items()}
    for file in (file for file in plan.read if file.duplicate_of is not None):
        number = len(paths)
        paths[number] = folder / file.path
        for reading in _readings(source, {number: paths[number]}):
            for table, frame in reading.frames.items():
                found.setdefault(table, []).append(conform(frame, contract_of(table), token)[0])
    together = {table: pl.concat(frames) for table, frames in found.items()}
    changed = keep_out(home, source.contracts, together, paths, lambda path: outlives(source, path.name))
    if not changed:
        return None
    read = [
        TakenFile(f.path, file_hash(folder / f.path), state.st_size, state.st_mtime_ns, duplicate_of=f.duplicate_of)
        for f, state in ((file, (folder / file.path).stat()) for file in plan.read)
    ]
    return DayPlan(plan.source, plan.day, tuple(read), plan.keep)


def replan(home: Home, source: str, days: Sequence[str] | None = None) -> list[DayPlan]:
    """Plans that read again every file with rows in quarantine, for use after a reader, contract or mapping was mended."""
    plans = []
    for path in sorted((home.taken / source).glob("*.json")):
        if days is not None and path.stem not in days:
            continue
        record = _taken_day(path)
        again = tuple(
            msgspec.structs.replace(file) for file in record.files if file.aside and file.duplicate_of is None
        )
        again = tuple(f for f in again if (home.landing / source / path.stem / f.path).exists())
        if again:
            names = {file.path for file in again}
            plans.append(DayPlan(source, path.stem, again, tuple(f for f in record.files if f.path not in names)))
    return plans


def taken(home: Home, source: str, days: Collection[str] | None = None) -> Taking:
    """What has been taken for a source, on some days or in all, summed from the records."""
    result = Taking()
    for path in sorted((home.taken / source).glob("*.json")):
        if days is None or path.stem in days:
            result.add(DayPlan(source, path.stem, ()), _taken_day(path).files)
    return result


def known_until(home: Home) -> datetime | None:
    """Newest time at which a taken file was received: what the home knows until. None when nothing was taken."""
    newest = [
        file.modified_ns
        for source in SOURCES
        for path in (home.taken / source.name).glob("*.json")
        for file in _taken_day(path).files
    ]
    return _instant(max(newest)) if newest else None


def quarantined(home: Home, table: str | None = None) -> pl.DataFrame:
    """Rows set aside: table, source_file, record_offset, reason_code, detail, file_hash, received_at; sorted."""
    frames = [
        pl.read_parquet(path).with_columns(table=pl.lit(path.parent.parent.name))
        for path in sorted(home.quarantine.glob(f"{table or '*'}/day=*/data.parquet"))
    ]
    columns = ["table", "source_file", "record_offset", "reason_code", "detail", "file_hash", "received_at"]
    if not frames:
        return pl.DataFrame(schema={"table": pl.String(), **QUARANTINE_SCHEMA}).select(columns)
    return pl.concat(frames).select(columns).sort("table", "source_file", "record_offset")


def ensure_tables(home: Home) -> None:
    """An empty file with the schema for every raw table, so that a source that never landed reads as no rows."""
    for source in SOURCES:
        for contract in source.contracts:
            path = home.raw / contract.table / "schema.parquet"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                _write_parquet(path, pl.DataFrame(schema=contract.schema))


def _readings(source: Source, paths: Mapping[int, Path]) -> Iterator[Reading]:
    """What the files of a day hold, places counted through by file number."""
    by_kind: dict[FileKind | None, dict[int, Path]] = {}
    for number, path in paths.items():
        kind = next((kind for kind in source.files if fnmatch.fnmatch(path.name, kind.pattern)), None)
        by_kind.setdefault(kind, {})[number] = path
    for kind, members in by_kind.items():
        if kind and kind.read_together:
            yield kind.read_together(members)
            continue
        for number, path in members.items():
            reading = _read(source, kind, path)
            start = number * FILE_STRIDE
            reading.rejections.record_offset = [start + place for place in reading.rejections.record_offset]
            place = pl.col("record_offset").cast(pl.Int64) + start
            reading.frames = {table: frame.with_columns(place) for table, frame in reading.frames.items()}
            yield reading


def _read(source: Source, kind: FileKind | None, path: Path) -> Reading:
    if kind is None:
        reading = Reading()
        table = source.contracts[0].table
        reading.rejections.add(table, 0, "unknown_file", f"expected {', '.join(k.pattern for k in source.files)}")
        return reading
    try:
        return kind.read(path)
    except UnreadableFile as error:
        reading = Reading()
        for table in kind.tables:
            reading.rejections.add(table, 0, "unreadable_file", str(error))
        return reading


def _rejected(rejections: Rejections) -> Iterator[tuple[str, pl.DataFrame]]:
    """What a reader could not shape, by table, in the form of what `conform` sets aside."""
    everything = pl.DataFrame(
        {
            "table": rejections.table,
            "record_offset": rejections.record_offset,
            "reason_code": rejections.reason_code,
            "detail": rejections.detail,
        },
        schema={"table": pl.String(), **ASIDE_SCHEMA},
    )
    for (table,), rows in everything.partition_by("table", as_dict=True, include_key=False).items():
        yield str(table), rows


def _origins(plan: DayPlan, files: Sequence[TakenFile]) -> pl.DataFrame:
    """Per file of a day, by number: its name below the source's landing folder, its hash, when it was received."""
    return pl.DataFrame(
        {
            FILE: range(len(files)),
            "source_file": [f"{plan.day}/{file.path}" for file in files],
            "file_hash": [file.sha256 for file in files],
            "received_at": [_instant(file.modified_ns) for file in files],
        },
        schema={
            FILE: pl.Int64(),
            **{name: QUARANTINE_SCHEMA[name] for name in ("source_file", "file_hash", "received_at")},
        },
    )


def _placed(rows: pl.DataFrame, origins: pl.DataFrame) -> pl.DataFrame:
    """Rows with their file's origin, and the record's own place in that file again."""
    numbered = rows.with_columns(
        (pl.col("record_offset") // FILE_STRIDE).alias(FILE), pl.col("record_offset") % FILE_STRIDE
    )
    return numbered.join(origins, on=FILE, how="left", maintain_order="left")


def _counts(files: Sequence[TakenFile], rows: pl.DataFrame) -> Iterator[tuple[TakenFile, str, int]]:
    """How many rows each file has, by reason where rows have one."""
    reason = pl.col("reason_code") if "reason_code" in rows.columns else pl.lit("")
    counts = rows.group_by((pl.col("record_offset") // FILE_STRIDE).alias(FILE), reason.alias("reason")).len()
    for number, code, count in counts.sort(FILE, "reason").iter_rows():
        yield files[number], code, count


def _write_day(folder: Path, day: str, frames: list[pl.DataFrame], keep_hashes: set[str]) -> None:
    """The day's file: rows already there whose file is kept, and the new ones, in an order that depends on content only."""
    path = folder / f"day={day}" / "data.parquet"
    if path.exists():
        frames = [pl.read_parquet(path).filter(pl.col("file_hash").is_in(list(keep_hashes))), *frames]
    frames = [frame for frame in frames if frame.height]
    if frames:
        rows = pl.concat(frames).sort("file_hash", "record_offset", maintain_order=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_parquet(path, rows)
    elif path.exists():
        path.unlink()


def _write_parquet(path: Path, frame: pl.DataFrame) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    frame.write_parquet(draft, compression="zstd", compression_level=1, statistics=True)
    draft.replace(path)


def _taken_day(path: Path) -> TakenDay:
    return msgspec.json.decode(path.read_bytes(), type=TakenDay)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in files_below(folder) if path.is_file() and not path.name.startswith("."))


def _is_day(name: str) -> bool:
    try:
        return date.fromisoformat(name).isoformat() == name
    except ValueError:
        return False


def _instant(nanoseconds: int) -> datetime:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
