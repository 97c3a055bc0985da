"""Landed files without a person: their records blanked or, where the books need them, stripped; everything else byte for byte.

Lines keep their numbers and files their times, so that reading them again gives what was read, minus the person.
"""

import contextlib
import csv
import io
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from orchestration.rights.traces import Traces
from orchestration.sources.encoding import as_utf8
from orchestration.sources.mapping import OFFSET
from orchestration.sources.web_messages import Order, Refund
from troth.home import write_atomically

# Of an order or a refund that stays: what is the person's, whatever else the sender puts there is not read and goes, too.
_OF_THE_PERSON = frozenset({"email", "phone", "contact_email", "customer", "payment_details", "billing_address"})
_ADDRESS, _KEPT_OF_ADDRESS = "shipping_address", ("country", "country_code")
_TRANSACTION = re.compile(rb"<(?:[A-Za-z0-9_.-]+:)?Transaction[\s>/]")
_CUSTOMER = re.compile(rb"<((?:[A-Za-z0-9_.-]+:)?Customer)(?:\s[^>]*)?>.*?</\1\s*>", re.DOTALL)


@dataclass
class Edit:
    """What is to change in one file: records (by their place) that go whole, records that stay without these values, records
    that were set aside, which go whole where they name the person, and records in which values are corrected."""

    gone: set[int] = field(default_factory=set)
    stripped: dict[int, set[str]] = field(default_factory=dict)
    aside: set[int] = field(default_factory=set)
    corrected: dict[int, dict[str, str]] = field(default_factory=dict)


def rewrite(path: Path, edit: Edit, traces: Traces) -> bool:
    """Rewrite a landed file without the person, in place and whole; its times stay. False where nothing had to go."""
    before = path.read_bytes()
    data = as_utf8(before)
    kind = _kind(path, data)
    after = kind(data, edit, traces)
    if after == data:
        return False
    state = path.stat()
    write_atomically(path, after)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    return True


def _kind(path: Path, data: bytes) -> Callable[[bytes, Edit, Traces], bytes]:
    if data.startswith(b"PAR1"):
        return _parquet
    start = data[:200].lstrip()
    if start.startswith(b"<"):
        return _xml
    if path.suffix == ".csv":
        return _csv
    if path.suffix in (".jsonl", ".ndjson"):
        return _json_lines
    return _other


def _json_lines(data: bytes, edit: Edit, traces: Traces) -> bytes:
    lines = data.split(b"\n")
    for number in edit.gone:
        _blank(lines, number)
    for number, values in edit.stripped.items():
        if 0 < number <= len(lines) and lines[number - 1].strip():
            lines[number - 1] = stripped_json(lines[number - 1], values)
    for number, new in edit.corrected.items():
        record = msgspec.json.decode(lines[number - 1])
        lines[number - 1] = msgspec.json.encode(_replaced(record, new)) + _line_end(lines[number - 1])
    return b"\n".join(_swept(lines, edit.aside, traces))


def stripped_json(line: bytes, values: Collection[str]) -> bytes:
    """An order or a refund without the person: known fields alone, and of these none that says who."""
    record = msgspec.json.decode(line)
    is_wrapped = isinstance(record.get("body"), dict)
    inner = record["body"] if is_wrapped else record
    kind = Refund if "refund_line_items" in inner else Order
    known = {each.encode_name for each in msgspec.structs.fields(kind)} - _OF_THE_PERSON - {"body"}
    with contextlib.suppress(
        msgspec.ValidationError
    ):  # a child that cannot be read stays as it came, to be set aside again
        read = msgspec.to_builtins(msgspec.convert(inner, kind))
        inner = {**{name: _told(value) for name, value in read.items()}, _ADDRESS: inner.get(_ADDRESS)}
    kept = {name: _without(value, values) for name, value in inner.items() if name in known and name != _ADDRESS}
    address = inner.get(_ADDRESS)
    if isinstance(address, dict):
        kept[_ADDRESS] = {name: address[name] for name in _KEPT_OF_ADDRESS if name in address}
    if is_wrapped:
        kept = {"topic": record["topic"], "body": kept} if "topic" in record else {"body": kept}
    return msgspec.json.encode(kept)


def _told(value: Any) -> Any:
    """A value without what it leaves unsaid."""
    if isinstance(value, dict):
        return {name: _told(each) for name, each in value.items() if each is not None}
    return [_told(each) for each in value] if isinstance(value, list) else value


def _replaced(value: Any, values: Mapping[str, str]) -> Any:
    """A JSON value with some texts in it replaced."""
    if isinstance(value, dict):
        return {name: _replaced(each, values) for name, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, values) for each in value]
    return values.get(value.strip(), value) if isinstance(value, str) else value


def _without(value: Any, values: Collection[str]) -> Any:
    """A JSON value with null in the place of each of some texts, plain or at the end of an address."""
    if isinstance(value, dict):
        return {name: _without(each, values) for name, each in value.items()}
    if isinstance(value, list):
        return [_without(each, values) for each in value]
    if isinstance(value, str | int) and not isinstance(value, bool):
        text = str(value)
        return None if text in values or (text.startswith("gid://") and text.rpartition("/")[2] in values) else value
    return value


def _csv(data: bytes, edit: Edit, traces: Traces) -> bytes:
    lines = data.splitlines(keepends=True)
    for number in sorted(edit.gone | set(edit.stripped) | set(edit.corrected)):
        if not 0 < number <= len(lines):
            continue
        reader = csv.reader(line.decode("utf-8", "surrogateescape") for line in lines[number - 1 :])
        row = next(reader)
        last = number - 1 + max(reader.line_num, 1)
        ends = [_line_end(line) for line in lines[number - 1 : last]]
        written = b""
        if number not in edit.gone or number in edit.stripped:
            text, new = io.StringIO(), dict.fromkeys(edit.stripped.get(number, ()), "") | edit.corrected.get(number, {})
            cells = [new.get(cell.strip(), cell) for cell in row]
            csv.writer(text, lineterminator="").writerow(cells)
            written = text.getvalue().encode("utf-8", "surrogateescape")
        lines[number - 1 : last] = [written + ends[0], *ends[1:]]
    return b"".join(_swept(lines, edit.aside, traces))


def _xml(data: bytes, edit: Edit, traces: Traces) -> bytes:
    """A POSLog: in a transaction of the person's, the elements that hold their identifiers are emptied."""
    starts = [found.start() for found in _TRANSACTION.finditer(data)]
    parts = (
        [data[: starts[0]], *(data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True))]
        if starts
        else [data]
    )
    for number in {*edit.gone, *edit.stripped}:
        if not 0 < number < len(parts):
            continue
        part = _CUSTOMER.sub(b"", parts[number])
        for value in edit.stripped.get(number, ()):
            part = re.sub(rb">\s*" + re.escape(value.encode()) + rb"\s*<", b"><", part)
        parts[number] = part
    return blotted(b"".join(parts), traces)


def _parquet(data: bytes, edit: Edit, traces: Traces) -> bytes:
    """An export that was brought over by a mapping: an order is several of its rows, so a value goes from the whole column."""
    frame = pl.read_parquet(data)
    here = pl.col(OFFSET).is_in(list(edit.stripped))
    values = sorted({value for found in edit.stripped.values() for value in found})
    changed = frame.filter(~pl.col(OFFSET).is_in(list(edit.gone - set(edit.stripped))))
    for name in frame.columns:
        is_theirs = pl.col(name).cast(pl.String, strict=False).str.strip_chars().str.strip_suffix(".0").is_in(values)
        if name != OFFSET and not frame.schema[name].is_nested() and frame.select((here & is_theirs).any()).item():
            changed = changed.with_columns(pl.when(~is_theirs.fill_null(False)).then(pl.col(name)).alias(name))
    found = traces.in_frame(changed)
    if found:
        rows = pl.int_range(pl.len())
        changed = changed.with_columns(
            pl.when(~rows.is_in([row for name_, row in found if name_ == name])).then(pl.col(name)).alias(name)
            for name in {name for name, _ in found}
        )
    if changed.equals(frame):
        return data
    written = io.BytesIO()
    changed.write_parquet(written)
    return written.getvalue()


def _other(data: bytes, _edit: Edit, traces: Traces) -> bytes:
    return blotted(data, traces)


def blotted(data: bytes, traces: Traces) -> bytes:
    """The same bytes with an `x` over every one that identifies the person: for text whose form nobody here knows."""
    spans = traces.spans(data)
    if not spans:
        return data
    changed = bytearray(data)
    for start, end in spans:
        changed[start:end] = b"x" * (end - start)
    return bytes(changed)


def _swept(lines: Sequence[bytes], aside: Collection[int], traces: Traces) -> Iterable[bytes]:
    """Lines with what is left of the person: set-aside ones go, in others an identifier is blotted out."""
    if not traces.spans(b"\n".join(lines)):
        return lines
    return [
        line if not traces.spans(line) else _line_end(line) if number in aside else blotted(line, traces)
        for number, line in enumerate(lines, 1)
    ]


def _blank(lines: list[bytes], number: int) -> None:
    if 0 < number <= len(lines):
        lines[number - 1] = _line_end(lines[number - 1])


def _line_end(line: bytes) -> bytes:
    return line[len(line.rstrip(b"\r\n")) :]
