"""The search for what identifies a person, in every byte of the home: files as they lie, and tables and archives opened.

A find names file and place, never the value.
"""

import base64
import contextlib
import gzip
import io
import json
import re
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any
from unicodedata import normalize
from urllib.parse import quote
from xml.sax.saxutils import escape

import polars as pl

from troth.home import Home

SHORTEST = 6  # characters; what is shorter occurs everywhere, and is looked for in cells of its own column alone
_TEXT_LOOK = 65_536
_AT_ONCE = 32_000_000  # bytes searched in one go
_OVERLAP = 4_096  # bytes searched again with what follows them, so that nothing is cut in two
_TOKEN = re.compile(r"[a-z]+_[a-z2-7]{22}")
_WORD = re.compile(rb"[A-Za-z0-9_]")
# Where the token of an erased person may stand: its `erased` event, and links that others' own events tell of.
CONSENT_TABLES = frozenset({"consent_ledger", "consent_events", "consent_links"})
LEDGER_ENTRIES = "entries.jsonl"
_ERASED = b'"event_type":"erased"'
_LINKS = "consent_links"  # made of what can still be read: the link events of others
_TOLD_BY_OTHERS = "linked_subject_id"
_LINKED_TO = re.compile(rb'"linked_subject_id":"[a-z]+_[a-z2-7]{22}"')


@dataclass(frozen=True)
class Find:
    """Where something was found: a file below the home, and the place in it."""

    path: str
    place: str


@dataclass(frozen=True)
class Traces:
    """What to look for. `short`: values too short to be looked for everywhere, by the column they came from."""

    texts: tuple[str, ...]
    short: Mapping[str, frozenset[str]] = field(default_factory=dict)
    _forms: tuple[bytes, ...] = ()
    _cased: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, texts: Iterable[str], columns: Mapping[str, Iterable[str]] | None = None) -> "Traces":
        """`texts` wherever they stand; values of `columns` too, those too short only in columns of that name."""
        named = {name: frozenset(values) for name, values in (columns or {}).items()}
        every = {text.strip() for text in (*texts, *(value for values in named.values() for value in values))}
        long = tuple(sorted(text for text in every if len(text) >= SHORTEST))
        forms = sorted({form.lower() for text in long for form in _forms(text)})
        cased = sorted({form for text in long for form in _base64(text)})
        short = {name: frozenset(v for v in values if len(v.strip()) < SHORTEST) for name, values in named.items()}
        return cls(long, {name: values for name, values in short.items() if values}, tuple(forms), tuple(cased))

    def without_tokens(self) -> "Traces":
        """The same search, less the tokens."""
        return Traces.of([text for text in self.texts if not _TOKEN.fullmatch(text)], self.short)

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Start and end of each find in bytes, in order; in text, only what stands by itself."""
        if not self.texts or not self._may_hold(data):
            return []
        lowered, is_text = data.lower(), b"\0" not in data[:_TEXT_LOOK]
        found = {
            span for form in self._forms for span in _all(lowered, form) if not is_text or _is_alone(lowered, *span)
        }
        found |= {span for form in self._cased for span in _all(data, form)}
        return sorted(found)

    def in_frame(self, frame: pl.DataFrame) -> list[tuple[str, int]]:
        """(column, row) of each cell that holds a find."""
        found = []
        for name, kind in frame.schema.items():
            column = frame[name]
            if kind == pl.List(pl.String()):
                column = column.list.join("\n")
            elif kind == pl.Binary():
                found += [(name, row) for row, cell in enumerate(column) if cell and self.spans(cell)]
                continue
            elif kind.is_integer():
                numbers = [int(text) for text in self.texts if text.isdigit() and len(text) < 19]
                found += [(name, row) for row in column.is_in(numbers).fill_null(False).arg_true()] if numbers else []
                continue
            elif kind not in (pl.String(), pl.Categorical()) and not isinstance(kind, pl.Enum | pl.Struct | pl.List):
                continue
            texts = column.struct.json_encode() if isinstance(kind, pl.Struct) else column.cast(pl.String, strict=False)
            if isinstance(kind, pl.List) and kind != pl.List(pl.String()):
                texts = pl.Series(name, [json.dumps(cell, default=str) for cell in column.to_list()])
            found += [(name, row) for row in self._rows(name, texts)]
        return found

    def _rows(self, name: str, texts: pl.Series) -> Iterator[int]:
        short = self.short.get(name)
        if short:
            yield from texts.is_in(list(short)).fill_null(False).arg_true()
        if self.texts:
            forms = [form.decode("latin-1") for form in (*self._forms, *self._cased)]
            hits = texts.str.contains_any(forms, ascii_case_insensitive=True).fill_null(False).arg_true()
            yield from (row for row in hits if self.spans(str(texts[row]).encode()))

    def _may_hold(self, data: bytes) -> bool:
        forms = [form.decode("latin-1") for form in (*self._forms, *self._cased)]
        return bool(pl.Series([data.decode("latin-1")]).str.contains_any(forms, ascii_case_insensitive=True)[0])


def search(
    home: Home, traces: Traces, folders: Iterable[Path] = (), progress: Callable[[int, int], None] | None = None
) -> list[Find]:
    """Every find in the files of the home, or below some of its folders. Raises: OSError for a file that cannot be read."""
    paths = sorted(path for top in (folders or [home.root]) for path in top.rglob("*") if path.is_file())
    tables: dict[Path, list[Path]] = {}
    for path in paths:
        if path.suffix == ".parquet":
            # A day's file is small, and each search costs the same however small: the days of a table go together.
            tables.setdefault(path.parent.parent if path.parent.name.startswith("day=") else path, []).append(path)
    finds: dict[Find, None] = {}
    telling: set[Path] = (
        set()
    )  # whose own cells say that they tell of the erasure: their bytes cannot but hold the token
    bare = traces.without_tokens()
    done, count = 0, len(tables) + len(paths)
    with ThreadPoolExecutor(2) as pool:
        for found, told in pool.map(partial(_in_files, home, traces), tables.values()):
            finds |= dict.fromkeys(found)
            telling |= told
            done += 1
            if progress:
                progress(done, count)
        for found in pool.map(lambda path: _in_file(home, bare if path in telling else traces, path), paths):
            finds |= dict.fromkeys(found)
            done += 1
            if progress:
                progress(done, count)
    return list(finds)


def _in_files(home: Home, traces: Traces, paths: Sequence[Path]) -> tuple[list[Find], set[Path]]:
    """Finds in the cells of Parquet files of one table; and those of the files that tell of the erasure."""
    frames = [pl.read_parquet(path, hive_partitioning=False) for path in paths]
    ends = list(accumulate(frame.height for frame in frames))
    found, is_told = in_table(_table_of(paths[0]), traces, pl.concat(frames, how="vertical_relaxed"))
    places = []
    for name, row in found:
        number = bisect_right(ends, row)
        start = ends[number - 1] if number else 0
        places.append(Find(paths[number].relative_to(home.root).as_posix(), f"column {name}, row {row - start}"))
    return places, set(paths) if is_told else set()


def _in_file(home: Home, traces: Traces, path: Path) -> list[Find]:
    """Finds in the bytes of a file as they lie, in the tables of the warehouse, and in what is packed."""
    name = path.relative_to(home.root).as_posix()
    finds: list[Find] = []
    if path == home.warehouse:
        finds, is_told = _in_warehouse(name, traces, path)
        traces = traces.without_tokens() if is_told else traces
    if path.name == LEDGER_ENTRIES:
        return _in_entries(name, traces, path)
    start, overlap, head = 0, b"", b""
    with path.open("rb") as file:
        while part := file.read(_AT_ONCE):
            head = head or part[:4]
            finds += [Find(name, f"byte {start - len(overlap) + at}") for at, _ in traces.spans(overlap + part)]
            start += len(part)
            overlap = part[-_OVERLAP:]
    if head.startswith((b"\x1f\x8b", b"PK\x03\x04")):
        finds += _unpacked(name, traces, path.read_bytes(), 0)
    return finds


def _in_entries(name: str, traces: Traces, path: Path) -> list[Find]:
    """Finds in an export of the ledger, by line; the erasure's own event is in it for good, and whom others' links name."""
    if not traces.spans(path.read_bytes()):
        return []
    with path.open("rb") as file:
        lines = ((number, _LINKED_TO.sub(b"", line)) for number, line in enumerate(file, 1) if _ERASED not in line)
        found = [number for number, line in lines if traces.spans(line)]
    return [Find(name, f"line {number}") for number in found]


def in_table(table: str, traces: Traces, frame: pl.DataFrame) -> tuple[list[tuple[str, int]], bool]:
    """(column, row) of the finds in a table. Of a consent table, those that are no record of the erasure itself; and whether
    there are such records."""
    found = traces.in_frame(frame)
    if table not in CONSENT_TABLES:
        return found, False
    kinds = frame["event_type"] if "event_type" in frame.columns else None
    told = [
        table == _LINKS or name == _TOLD_BY_OTHERS or (kinds is not None and kinds[row] == "erased")
        for name, row in found
    ]
    left = [find for find, is_told in zip(found, told, strict=True) if not is_told]
    return left, len(left) < len(found)


def _table_of(path: Path) -> str:
    return path.parent.parent.name if path.parent.name.startswith("day=") else path.parent.name


def _in_warehouse(name: str, traces: Traces, path: Path) -> tuple[list[Find], bool]:
    import duckdb

    finds: list[Find] = []
    is_telling = False
    with duckdb.connect(str(path), read_only=True) as connection:
        tables = [row[0] for row in connection.execute("select table_name from duckdb_tables() order by 1").fetchall()]
        for table in tables:
            columns = connection.execute(
                "select column_name, data_type from duckdb_columns() where table_name = ?", [table]
            ).fetchall()
            # Times, amounts and flags cannot hold an identifier; integers can.
            looked = [f'"{each}"' for each, kind in columns if not _is_plain(str(kind))]
            if looked:
                rows = connection.sql(f'select {", ".join(looked)} from "{table}"')  # noqa: S608
                frame = pl.DataFrame(pl.from_arrow(rows.to_arrow_table()))
                found, is_told = in_table(table, traces, frame)
                is_telling |= is_told
                finds += [Find(name, f"table {table}, column {column}, row {row}") for column, row in found]
    return finds, is_telling


def _is_plain(kind: str) -> bool:
    return kind.startswith(
        ("TIMESTAMP", "DATE", "TIME", "DECIMAL", "DOUBLE", "FLOAT", "BOOLEAN", "SMALLINT", "TINYINT")
    )


def _unpacked(name: str, traces: Traces, data: bytes, depth: int) -> Iterator[Find]:
    """What is in gzip and zip files, and in such files within them."""
    inner: list[tuple[str, bytes]] = []
    with contextlib.suppress(OSError, EOFError, zipfile.BadZipFile):
        if data[:2] == b"\x1f\x8b":
            inner = [("gzip", gzip.decompress(data))]
        elif data[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                inner = [(f"member {n}", archive.read(each)) for n, each in enumerate(archive.namelist())]
    for place, each in inner:
        yield from (Find(name, f"{place}, byte {at}") for at, _ in traces.spans(each))
        if depth < 3:
            yield from (Find(name, f"{place}, {found.place}") for found in _unpacked(name, traces, each, depth + 1))


def _forms(text: str) -> Iterator[bytes]:
    """A text as it may be written: in either case and Unicode form, plain, in JSON, XML and addresses, and in UTF-16."""
    cases = (text, text.upper(), text.lower())
    spellings = {*(normalize("NFC", each) for each in cases), *(normalize("NFD", each) for each in cases)}
    if text.startswith("+"):
        spellings.add(text[1:])
    for each in spellings:
        yield each.encode()
        yield json.dumps(each)[1:-1].encode()
        yield json.dumps(each)[1:-1].replace("/", "\\/").encode()
        yield escape(each).encode()
        yield quote(each, safe="").encode()
        yield each.encode("utf-16-le")[:-1]  # without its last NUL, so that it is found in big-endian text, too


def _base64(text: str) -> Iterator[bytes]:
    yield base64.b64encode(text.encode()).rstrip(b"=")
    yield base64.urlsafe_b64encode(text.encode()).rstrip(b"=")


def _all(data: bytes, form: bytes) -> Iterator[tuple[int, int]]:
    at = data.find(form)
    while at >= 0:
        yield at, at + len(form)
        at = data.find(form, at + 1)


def _is_alone(data: bytes, start: int, end: int) -> bool:
    """Whether a find is a whole word: `ann@pier.example` in `joann@pier.example`, or 4711 in 34711, is somebody else."""
    before, after = data[max(start - 1, 0) : start], data[end : end + 2]
    is_led = bool(_WORD.match(before)) or (before in (b".", b"+", b"-") and b"@" in data[start:end] and start > 1)
    if is_led and data[max(start - 2, 0) : start] in (b"\\n", b"\\t", b"\\r"):
        is_led = False  # the letter belongs to an escape
    goes_on = bool(_WORD.match(after)) or (
        after[:1] == b"." and bool(_WORD.match(after[1:])) and b"@" in data[start:end]
    )
    return not is_led and not goes_on


def as_json(finds: Iterable[Find]) -> list[dict[str, Any]]:
    return [{"path": find.path, "place": find.place} for find in finds]
