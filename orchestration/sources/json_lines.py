"""JSON lines: one object per line, decoded straight into the few fields a source declares; others are skipped.

What stands in a line is the business of the source modules. Here: what a line is, and which lines are none.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import msgspec
import polars as pl

from orchestration.sources.contract import Rejections
from orchestration.sources.encoding import as_utf8

MAXIMUM_LINE = 1_000_000  # bytes; the longest documented webhook is under 20,000
Scalar = str | int | float | bool | None
Struct = TypeVar("Struct", bound=msgspec.Struct)


class Children(NamedTuple):
    """A list of objects inside the object of a line: its field, their kind, and the table they are rows of."""

    field: str
    kind: type[msgspec.Struct]
    table: str


@dataclass
class Lines(Generic[Struct]):
    """The objects of a file with the line each stands on, from 1, and the lines that were none."""

    records: list[Struct] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    rejections: Rejections = field(default_factory=Rejections)


def read_json_lines(path: Path, kind: type[Struct], table: str, children: Children | None = None) -> Lines[Struct]:
    """Decode each line of a file as `kind`.

    Set aside under `table`: `too_long`, `wrong_encoding`, `not_json` (a truncated last line too), `not_an_object` and
    `wrong_type` (with the path, never the value). Of `children`, one that cannot be read is set
    aside alone, and the line lands without it. Empty lines say nothing.
    """
    data = as_utf8(path.read_bytes())
    is_clean = _is_utf8(data)
    found: Lines[Struct] = Lines()
    aside = found.rejections
    decode = msgspec.json.Decoder(kind).decode
    with _collector_paused():
        for offset, line in enumerate(data.split(b"\n"), 1):
            if len(line) > MAXIMUM_LINE:
                aside.add(table, offset, "too_long", f"line: expected at most {MAXIMUM_LINE} bytes")
                continue
            if not is_clean and not _is_utf8(line):
                aside.add(table, offset, "wrong_encoding", "line: expected UTF-8")
                continue
            try:
                record = decode(line)
            except _FAULTS as error:
                if not line.strip():
                    continue
                reason, detail = _reason(error)
                if not children or reason != "wrong_type":
                    aside.add(table, offset, reason, detail)
                    continue
                try:
                    record = decode(_without_bad_children(line, children, offset, aside))
                except _FAULTS as worse:
                    aside.add(table, offset, *_reason(worse))
                    continue
            found.records.append(record)
            found.offsets.append(offset)
    return found


# Of these, ValueError covers malformed JSON, broken text and whole numbers too long for Python.
_FAULTS = (ValueError, RecursionError)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Decoding makes many lists and no cycles; looking for cycles among them costs a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _reason(error: Exception) -> tuple[str, str]:
    """Reason code and detail of what msgspec said; its messages name types, paths and positions only."""
    if not isinstance(error, msgspec.ValidationError):
        return "not_json", "line: expected one whole JSON object"
    if " - at `$" in str(error):
        return "wrong_type", str(error)
    return "not_an_object", "line: expected a JSON object"


def _without_bad_children(line: bytes, children: Children, offset: int, aside: Rejections) -> bytes:
    """The line again, less those of its children that are not of their kind; each of these is set aside."""
    fields = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    name = children.field
    if "body" in fields:
        fields["body"] = msgspec.Raw(_without_bad_children(bytes(fields["body"]), children, offset, aside))
    if name in fields:
        good = []
        for child in msgspec.json.decode(fields[name], type=list[msgspec.Raw]):
            try:
                msgspec.json.decode(child, type=children.kind)
            except msgspec.ValidationError as error:
                place = str(error) if " - at `$" in str(error) else f"{error} - at `$`"
                aside.add(children.table, offset, "wrong_type", place.replace("`$", f"`$.{name}[]"))
            else:
                good.append(child)
        fields[name] = msgspec.Raw(msgspec.json.encode(good))
    return msgspec.json.encode(fields)


def column(values: list[Scalar]) -> pl.Series:
    """Values of one field as they came where they are of one type, else all as text."""
    try:
        return pl.Series(values, dtype=pl.String())
    except (TypeError, UnicodeEncodeError):
        kinds = {type(value) for value in values} - {type(None)}
    if kinds == {bool}:
        return pl.Series(values, dtype=pl.Boolean())
    if kinds in ({int}, {float}):
        try:
            return pl.Series(values, dtype=pl.Int64() if kinds == {int} else pl.Float64())
        except TypeError:  # more than 64 bits
            pass
    return pl.Series([_text(value) for value in values], dtype=pl.String())


def texts(values: list[Scalar]) -> pl.Series:
    """Values of one field as text: for ids, which some senders write as numbers."""
    try:
        return pl.Series(values, dtype=pl.String())
    except (TypeError, UnicodeEncodeError):
        return pl.Series([_text(value) for value in values], dtype=pl.String())


def _text(value: Scalar) -> str | None:
    if value is None or isinstance(value, str):
        return value and value.encode(errors="replace").decode()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and abs(value - round(value, 2)) < 1e-9 * max(1.0, abs(value)):
        return f"{value:.2f}"  # senders that count money in floats write 30.000000000000004 and mean 30.00
    return str(value)


def total(amounts: list[Scalar]) -> Scalar:
    """Sum of amounts of money as text: nothing is 0, and one that is no amount comes back as it is, to be set aside."""
    if not amounts:
        return "0"
    if len(amounts) == 1:
        return amounts[0]
    summed = Decimal(0)
    for amount in amounts:
        try:
            summed += Decimal(_text(amount) or "")
        except InvalidOperation:
            return amount
    return format(summed, "f")
