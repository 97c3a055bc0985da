"""How one row of features becomes one value of bytes, and back. No storage here.

A value is: schema id (4 bytes, little-endian), null bits, boolean bits, numbers and times (8 bytes, or 4), 4 bytes of length per
text, bytes or list, then those. Nulls are zero bits and zero bytes, so that equal rows have equal bytes. The schema id is a hash of
names and types: a value written under another definition is never misread, it is looked up. Times are microseconds since 1970 in
UTC. A list is its members one after the other: numbers as they are, a boolean as a byte; of texts and bytes first how many (4 bytes)
and 4 bytes of length each.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any

from feature_repo.catalogue import Field
from feature_repo.errors import FeatureError

Row = dict[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
NUMBERS = {"integer": "q", "decimal": "d", "timestamp": "q", "integer_32": "i", "decimal_32": "f"}
TEXTS = ("text", "bytes")  # what has a length of its own
LIST = "_list"


def to_microseconds(at: datetime) -> int:
    """Microseconds since 1970; a time without a zone is UTC."""
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - EPOCH) // MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    return EPOCH + microseconds * MICROSECOND


class Layout:
    """The byte layout of a tuple of fields."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = tuple(fields)
        self.names = tuple(each.name for each in self.fields)
        self.definition = json.dumps([[each.name, each.type] for each in self.fields])
        self.schema_id = int.from_bytes(hashlib.sha256(self.definition.encode()).digest()[:4], "little")
        self.booleans = [each for each in self.fields if each.type == "boolean"]
        self.numbers = [each for each in self.fields if each.type in NUMBERS]
        self.tails = [each for each in self.fields if each.type != "boolean" and each.type not in NUMBERS]
        self.null_bytes = (len(self.fields) + 7) // 8
        self.boolean_bytes = (len(self.booleans) + 7) // 8
        self._struct = struct.Struct(
            f"<I{self.null_bytes}s{self.boolean_bytes}s"
            + "".join(NUMBERS[each.type] for each in self.numbers)
            + "I" * len(self.tails)
        )
        self.size = self._struct.size  # of all but the tails
        stored = [*self.numbers, *self.booleans, *self.tails]
        self._in_order = picker([stored.index(each) for each in self.fields], len(stored))
        self._times = [place for place, each in enumerate(self.fields) if each.type == "timestamp"]
        self._readers = [_reader(each.type) for each in self.tails]
        self._no_nulls = bytes(self.null_bytes)

    @classmethod
    def of_definition(cls, definition: str) -> "Layout":
        """The layout whose `definition` was stored beside its values."""
        return cls([Field(name, kind, "") for name, kind in json.loads(definition)])

    def encode(self, row: Mapping[str, Any]) -> bytes:
        """One row as bytes; a field that is missing is null. Raises: FeatureError for a value of another type."""
        given = row.get
        nulls = sum(1 << bit for bit, name in enumerate(self.names) if given(name) is None)
        booleans = sum(1 << bit for bit, each in enumerate(self.booleans) if given(each.name))
        try:
            numbers = [
                0 if value is None else to_microseconds(value) if each.type == "timestamp" else value
                for each in self.numbers
                for value in (given(each.name),)
            ]
            tails = [_written(each.type, given(each.name)) for each in self.tails]
            head = self._struct.pack(
                self.schema_id,
                nulls.to_bytes(self.null_bytes, "little"),
                booleans.to_bytes(self.boolean_bytes, "little"),
                *numbers,
                *map(len, tails),
            )
        except (struct.error, AttributeError, TypeError, OverflowError) as error:
            raise FeatureError(f"feature row: expected {self.definition}, found otherwise: {error}. Cast it.") from None
        return head + b"".join(tails)

    def decode(self, value: bytes) -> Row:
        """The row of a value of this layout, in the order of the fields."""
        return dict(zip(self.names, self.values(value), strict=True))

    def values(self, value: bytes, at: int = 0) -> tuple[Any, ...]:
        """The same as a tuple; the value begins at a byte. Times are aware datetimes."""
        parts = self._struct.unpack_from(value, at)
        last_number = 3 + len(self.numbers)
        found = parts[3:last_number]
        if self.booleans:
            bits = int.from_bytes(parts[2], "little")
            found += tuple([bits >> bit & 1 == 1 for bit in range(len(self.booleans))])
        if self.tails:
            end = at + self.size
            texts = []
            for read, length in zip(self._readers, parts[last_number:], strict=True):
                begin, end = end, end + length
                texts.append(read(value[begin:end]))
            found += tuple(texts)
        row = self._in_order(found)
        if parts[1] != self._no_nulls or self._times:
            nulls, listed = int.from_bytes(parts[1], "little"), list(row)
            for place in self._times:
                listed[place] = from_microseconds(listed[place])
            row = tuple([None if nulls >> bit & 1 else each for bit, each in enumerate(listed)]) if nulls else tuple(listed)  # fmt: skip
        return row

    def columns(self, values: Sequence[bytes], at: int = 0) -> list[Sequence[Any]]:
        """Many values of this layout at once, field by field in their order: a third of the work of one by one. Each begins at a byte."""
        if not values:
            return [()] * len(self.fields)
        unpack = self._struct.unpack_from
        parts = list(zip(*[unpack(value, at) for value in values], strict=True))
        last_number = 3 + len(self.numbers)
        found: list[Sequence[Any]] = list(parts[3:last_number])
        for bit in range(len(self.booleans)):
            place, mask = bit // 8, 1 << bit % 8
            found.append([each[place] & mask != 0 for each in parts[2]])
        if len(self.tails) == 1:
            read, begin = self._readers[0], at + self.size
            found.append([read(value[begin:]) for value in values])
        else:
            ends: Sequence[int] = [at + self.size] * len(values)
            for read, lengths in zip(self._readers, parts[last_number:], strict=True):
                begins, ends = ends, [end + length for end, length in zip(ends, lengths, strict=True)]
                found.append([read(value[begin:end]) for value, begin, end in zip(values, begins, ends, strict=True)])
        columns = list(self._in_order(tuple(found)))
        for place in self._times:
            columns[place] = [from_microseconds(each) for each in columns[place]]
        if parts[1].count(self._no_nulls) != len(values):
            for place in range(len(columns)):
                byte, mask = place // 8, 1 << place % 8
                if any(each[byte] & mask for each in parts[1]):
                    columns[place] = [
                        None if each[byte] & mask else value
                        for each, value in zip(parts[1], columns[place], strict=True)
                    ]
        return columns

    def number_at(self, name: str) -> Callable[[bytes], tuple[Any, ...]]:
        """Reads one number of a value and leaves the rest; nought where there is none."""
        place = [each.name for each in self.numbers].index(name)
        codes = [NUMBERS[each.type] for each in self.numbers]
        begin = 4 + self.null_bytes + self.boolean_bytes + struct.calcsize("<" + "".join(codes[:place]))
        return struct.Struct(f"<{begin}x{codes[place]}").unpack_from


@lru_cache(maxsize=1024)
def layout_of(fields: tuple[Field, ...]) -> Layout:
    """The layout of some fields, made once."""
    return Layout(fields)


def picker(places: Sequence[int], count: int) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Picks some places of a tuple of so many, as a tuple however few they are."""
    if list(places) == list(range(count)):
        return lambda found: found
    if len(places) == 1:
        (only,) = places
        return lambda found: (found[only],)
    return itemgetter(*places)


def _written(kind: str, value: Any) -> bytes:
    """A text, bytes or list as it stands at the end of a value; nothing for null."""
    if value is None:
        return b""
    if kind == "text":
        return bytes(value.encode())
    if kind == "bytes":
        return bytes(memoryview(value))
    member = kind.removesuffix(LIST)
    if member in TEXTS:
        members = [_written(member, each) for each in value]
        return struct.pack(f"<{1 + len(members)}I", len(members), *map(len, members)) + b"".join(members)
    if member == "timestamp":
        value = [to_microseconds(each) for each in value]
    return struct.pack(f"<{len(value)}{_code(member)}", *value)


def _reader(kind: str) -> Callable[[bytes], Any]:
    """The inverse of `_written`."""
    if kind == "text":
        return bytes.decode
    if kind == "bytes":
        return bytes
    member = kind.removesuffix(LIST)
    return partial(_read_texts, _reader(member)) if member in TEXTS else partial(_read_numbers, member)


def _read_numbers(member: str, value: bytes) -> list[Any]:
    code = _code(member)
    found = list(struct.unpack(f"<{len(value) // struct.calcsize('<' + code)}{code}", value))
    return [from_microseconds(each) for each in found] if member == "timestamp" else found


def _read_texts(read: Callable[[bytes], Any], value: bytes) -> list[Any]:
    if not value:
        return []  # of a null
    (count,) = struct.unpack_from("<I", value)
    at, found = 4 + 4 * count, []
    for length in struct.unpack_from(f"<{count}I", value, 4):
        found.append(read(value[at : at + length]))
        at += length
    return found


def _code(member: str) -> str:
    return NUMBERS.get(member, "?")
