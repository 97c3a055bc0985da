"""CSV with a header (RFC 4180) against a contract: the shape of a file, not the types in it.

A file without quotes, damage or blank lines goes through Polars; every other file is read record by record, which keeps
the physical line each record starts on and loses no row behind a broken one.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from orchestration.sources.contract import Contract, Reading, Rejections, UnreadableFile
from orchestration.sources.encoding import as_utf8

_TITLE = re.compile(r"[A-Za-z][A-Za-z0-9 _.-]{0,40}")  # looks like a column's title, not like somebody's data


def read_csv_rows(path: Path, contract: Contract) -> Reading:
    """Text columns named as in the contract, and `record_offset`: the line a record starts on, the header being line 1.

    Empty fields are null. Columns the contract does not know are left out and named once (`unknown_column`, offset 0).
    Set aside: `missing_column` and `duplicate_column` (the whole file, offset 0); by line `ragged_row`, `bad_quoting`,
    `wrong_encoding`, `nul_character`, `too_long`.

    Raises: UnreadableFile when the file holds no header.
    """
    data = as_utf8(path.read_bytes())
    reading = Reading()
    names = [column.name for column in contract.columns if not column.token_of]
    frame = _regular(data)
    if frame is None:
        frame = _careful(path.name, data, contract, reading.rejections)
    header = frame.columns[:-1]
    if not _check_header(header, contract, reading.rejections):
        frame = frame.clear()
    found = [name for name in names if name in header]
    reading.frames[contract.table] = frame.select(*found, "record_offset")
    return reading


def _check_header(header: list[str], contract: Contract, rejections: Rejections) -> bool:
    known = {column.name for column in contract.columns if not column.token_of}
    missing = [c.name for c in contract.columns if c.required and not c.token_of and c.name not in header]
    if missing:
        rejections.add(contract.table, 0, "missing_column", f"header: expected also {', '.join(missing)}")
        return False
    repeated = sorted({_original(name) for name in header if _original(name) != name} & known)
    if repeated:
        rejections.add(contract.table, 0, "duplicate_column", f"header: expected once {', '.join(repeated)}")
        return False
    unknown = [
        f"{name} ({i})" if _TITLE.fullmatch(name) else f"({i})" for i, name in enumerate(header, 1) if name not in known
    ]
    if unknown:
        rejections.add(contract.table, 0, "unknown_column", f"ignored, by title and position: {', '.join(unknown)}")
    return True


def _titles(row: list[str]) -> list[str]:
    """Header titles, made unique; a repeated one gets its position behind a NUL, which no title may hold."""
    seen: set[str] = {"record_offset"}
    titles = []
    for i, cell in enumerate(row, 1):
        title = cell.strip()
        if title in seen:
            title = f"{title}\0{i}"
        seen.add(title)
        titles.append(title)
    return titles


def _original(title: str) -> str:
    return title.partition("\0")[0]


def _regular(data: bytes) -> pl.DataFrame | None:
    """The frame of a file in which every line is one record with as many fields as the header; None for any other."""
    if not data or b'"' in data or b"\0" in data or data.count(b"\r") != data.count(b"\r\n"):
        return None
    if not data.endswith(b"\n"):
        data += b"\n"
    buffer = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(buffer == ord("\n"))
    commas = np.flatnonzero(buffer == ord(","))
    in_first = int(np.searchsorted(commas, ends[0]))
    if in_first == 0 or len(commas) != len(ends) * in_first:
        return None
    by_line = commas.reshape(len(ends), in_first)
    if not (by_line[:, -1] < ends).all() or not (by_line[1:, 0] > ends[:-1]).all():
        return None
    try:
        frame = pl.read_csv(data, has_header=False, infer_schema=False, quote_char=None)
    except pl.exceptions.PolarsError:
        return None
    if frame.shape != (len(ends), in_first + 1):
        return None
    frame.columns = _titles([cell or "" for cell in frame.row(0)])
    return frame[1:].with_columns(pl.int_range(2, len(ends) + 1, dtype=pl.Int64).alias("record_offset"))


def _careful(name: str, data: bytes, contract: Contract, rejections: Rejections) -> pl.DataFrame:
    # Bytes that are not UTF-8 travel as lone surrogates, so that only the records that hold them are set aside.
    text = data.decode("utf-8", "surrogateescape")
    is_clean = "\0" not in text and _is_unicode(text)
    lines = list(io.StringIO(text, newline=""))
    first = next((i for i, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise UnreadableFile(f"{name}: expected a header line, found none. Ask the sender for the file again.")
    try:
        header = next(csv.reader([lines[first].encode("utf-8", "replace").decode()], strict=True))
    except csv.Error:
        found = f"broken quotes in line {first + 1}"
        raise UnreadableFile(
            f"{name}: expected a header line, found {found}. Ask the sender for the file again."
        ) from None
    titles = _titles(header)
    offsets: list[int] = []
    rows: list[tuple[str, ...]] = []
    for offset, row in _records(lines, first + 1, len(titles), contract.table, rejections):
        if len(row) == len(titles) and is_clean:
            offsets.append(offset)
            rows.append(tuple(row))
        elif fault := _fault(row, len(titles)):
            rejections.add(contract.table, offset, *fault)
        else:
            offsets.append(offset)
            rows.append(tuple(row))
    columns = list(zip(*rows, strict=True)) or [()] * len(titles)
    texts = [pl.Series(title, values, pl.String()) for title, values in zip(titles, columns, strict=True)]
    frame = pl.DataFrame(texts).select(pl.when(pl.all() != "").then(pl.all()))
    return frame.with_columns(pl.Series("record_offset", offsets, pl.Int64()))


def _fault(row: list[str], width: int) -> tuple[str, str] | None:
    text = "".join(row)
    if not _is_unicode(text):
        return "wrong_encoding", "expected UTF-8"
    if "\0" in text:
        return "nul_character", "expected text without NUL"
    if len(row) != width:
        return "ragged_row", f"expected {width} fields, found {len(row)}"
    return None


def _is_unicode(text: str) -> bool:
    """Whether a text holds no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _records(
    lines: list[str], at: int, width: int, table: str, rejections: Rejections
) -> Iterator[tuple[int, list[str]]]:
    """Records with the line each starts on. Where quoting is broken one line is set aside, reading goes on after it.

    A record of several lines without the right number of fields counts as broken: a stray quote swallowed the rest.
    """
    while at < len(lines):
        reader = csv.reader(map(lines.__getitem__, range(at, len(lines))), strict=True)
        begin = end = at
        try:
            for row in reader:
                begin, end = end, at + reader.line_num
                if end - begin > 1 and len(row) != width:
                    raise csv.Error
                if row:
                    yield begin + 1, row
                begin = end
            return
        except csv.Error as error:
            if "field larger" in str(error):
                detail = f"expected at most {csv.field_size_limit()} characters in a field"
                rejections.add(table, begin + 1, "too_long", detail)
            else:
                rejections.add(table, begin + 1, "bad_quoting", "expected quotes as in RFC 4180")
            at = begin + 1
