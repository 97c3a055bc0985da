"""How one row of features becomes one value of bytes, and back. No storage here.

A value is: schema id (4 bytes, little-endian), null bits, boolean bits, 8 bytes per number or time, 4 bytes of length
per text, then the texts in UTF-8. Nulls are zero bits and zero bytes, so that equal rows have equal bytes. The schema
id is a hash of names and types: a value written under another definition is never misread, it is looked up.
Times are microseconds since 1970 in UTC.
"""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from feature_repo.catalogue import Field
from feature_repo.errors import FeatureError

if TYPE_CHECKING:
    import polars as pl

Row = dict[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
_NUMBER_CODES = {"integer": "q", "decimal": "d", "timestamp": "q"}


def to_microseconds(at: datetime) -> int:
    """Microseconds since 1970; a time without a zone is UTC."""
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - EPOCH) // MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    return EPOCH + microseconds * MICROSECOND


class Layout:
    """The byte layout of a tuple of fields."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = tuple(fields)
        self.definition = json.dumps([[each.name, each.type] for each in self.fields])
        self.schema_id = int.from_bytes(hashlib.sha256(self.definition.encode()).digest()[:4], "little")
        self._booleans = [each.name for each in self.fields if each.type == "boolean"]
        self._numbers = [each for each in self.fields if each.type in _NUMBER_CODES]
        self._texts = [each.name for each in self.fields if each.type == "text"]
        self._null_bytes = (len(self.fields) + 7) // 8
        self._boolean_bytes = (len(self._booleans) + 7) // 8
        self._struct = struct.Struct(
            f"<I{self._null_bytes}s{self._boolean_bytes}s"
            + "".join(_NUMBER_CODES[each.type] for each in self._numbers)
            + "I" * len(self._texts)
        )
        self._places = self._plan()

    @classmethod
    def of_definition(cls, definition: str) -> "Layout":
        """The layout whose `definition` was stored beside its values."""
        return cls([Field(name, kind, "") for name, kind in json.loads(definition)])

    def _plan(self) -> list[tuple[str, str, int, int]]:
        """(name, type, bit of null, place among its kind) per field."""
        kinds = {"boolean": self._booleans, "text": self._texts}
        numbers = [each.name for each in self._numbers]
        return [
            (each.name, each.type, 1 << bit, kinds.get(each.type, numbers).index(each.name))
            for bit, each in enumerate(self.fields)
        ]

    def encode(self, row: Mapping[str, Any]) -> bytes:
        """One row as bytes; a field that is missing is null. Raises: FeatureError for a value of another type."""
        nulls = 0
        booleans = 0
        numbers: list[int | float] = []
        texts: list[bytes] = []
        try:
            for name, kind, bit, place in self._places:
                value = row.get(name)
                if value is None:
                    nulls |= bit
                if kind == "boolean":
                    booleans |= (1 << place) if value else 0
                elif kind == "text":
                    texts.append(b"" if value is None else value.encode())
                elif kind == "timestamp":
                    numbers.append(0 if value is None else to_microseconds(value))
                else:
                    numbers.append(0 if value is None else value)
            head = self._struct.pack(
                self.schema_id,
                nulls.to_bytes(self._null_bytes, "little"),
                booleans.to_bytes(self._boolean_bytes, "little"),
                *numbers,
                *map(len, texts),
            )
        except (struct.error, AttributeError, TypeError) as error:
            raise FeatureError(f"feature row: expected {self.definition}, found otherwise: {error}. Cast it.") from None
        return head + b"".join(texts)

    def decode(self, value: bytes) -> Row:
        """The row of a value of this layout, in the order of the fields."""
        parts = self._struct.unpack_from(value)
        nulls = int.from_bytes(parts[1], "little")
        booleans = int.from_bytes(parts[2], "little")
        first_length = 3 + len(self._numbers)
        at = self._struct.size
        row: Row = {}
        for name, kind, bit, place in self._places:
            if kind == "text":
                length = parts[first_length + place]
                row[name] = None if nulls & bit else value[at : at + length].decode()
                at += length
            elif nulls & bit:
                row[name] = None
            elif kind == "boolean":
                row[name] = bool(booleans >> place & 1)
            elif kind == "timestamp":
                row[name] = from_microseconds(parts[3 + place])
            else:
                row[name] = parts[3 + place]
        return row

    def encode_frame(self, frame: "pl.DataFrame") -> list[bytes]:
        """Every row of a frame as bytes, column by column: the same bytes as `encode` row by row.

        Raises: FeatureError when a column is missing or cannot be cast without loss.
        """
        import numpy as np
        import polars as pl

        columns = {each.name: _column(frame, each) for each in self.fields}
        number_type = [
            (f"n{place}", "<f8" if each.type == "decimal" else "<i8") for place, each in enumerate(self._numbers)
        ]
        length_type = [(f"t{place}", "<u4") for place in range(len(self._texts))]
        heads = np.zeros(
            frame.height,
            dtype=[
                ("id", "<u4"),
                ("null", "u1", (self._null_bytes,)),
                ("bool", "u1", (self._boolean_bytes,)),
                *number_type,
                *length_type,
            ],
        )
        heads["id"] = self.schema_id
        heads["null"] = _bits([columns[each.name].is_null() for each in self.fields], frame.height)
        heads["bool"] = _bits([columns[name].fill_null(value=False) for name in self._booleans], frame.height)
        for place, each in enumerate(self._numbers):
            heads[f"n{place}"] = columns[each.name].fill_null(0).to_numpy()
        texts = [columns[name].fill_null("") for name in self._texts]
        for place, text in enumerate(texts):
            heads[f"t{place}"] = text.str.len_bytes().to_numpy()
        raw = heads.tobytes()
        size = self._struct.size
        if not texts:
            return [raw[at : at + size] for at in range(0, len(raw), size)]
        tails = pl.DataFrame(texts).select(pl.concat_str(pl.all()).cast(pl.Binary)).to_series().to_list()
        return [raw[row * size : row * size + size] + tail for row, tail in enumerate(tails)]


def _bits(columns: "list[pl.Series]", height: int) -> Any:
    """Boolean columns as rows of bytes, first column in the lowest bit."""
    import numpy as np

    if not columns:
        return np.zeros((height, 0), dtype="u1")
    return np.packbits(np.column_stack([each.to_numpy() for each in columns]), axis=1, bitorder="little")


def _column(frame: "pl.DataFrame", field: Field) -> "pl.Series":
    """The column of a field in its physical type."""
    import polars as pl

    if field.name not in frame.columns:
        raise FeatureError(
            f"feature {field.name}: expected a column, found {frame.columns}. Add it or correct the catalogue."
        )
    column = frame[field.name]
    try:
        if field.type == "timestamp":
            return column.cast(pl.Datetime("us")).cast(pl.Int64)
        if field.type == "integer" and column.dtype.is_float() and (column.drop_nulls() % 1 != 0).any():
            raise FeatureError(
                f"feature {field.name}: expected whole numbers, found fractions. Round it where it is computed."
            )
        physical: dict[str, type[pl.DataType]] = {
            "text": pl.String,
            "integer": pl.Int64,
            "decimal": pl.Float64,
            "boolean": pl.Boolean,
        }
        return column.cast(physical[field.type])
    except pl.exceptions.PolarsError as error:
        raise FeatureError(
            f"feature {field.name}: expected {field.type}, found {column.dtype}. Cast it. ({error})"
        ) from None
