"""Columns of features as the values of `packed.py`, and entities as keys: whole columns at a time, no row passes through Python.

Rows come as an Arrow table or a Polars frame. What comes out is Arrow again: a binary column, of which a store takes the buffer as it
stands or the values one by one.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.catalogue import Entity, Field, View
from feature_repo.errors import FeatureError
from feature_repo.packed import LIST, TEXTS, Layout, layout_of, to_microseconds

ROWS_AT_A_TIME = 100_000
FEW = 24  # so few rows are quicker one by one: a column takes some microseconds however short it is
_ARROW: dict[str, pa.DataType] = {
    "text": pa.string(), "bytes": pa.binary(), "integer": pa.int64(), "decimal": pa.float64(), "integer_32": pa.int32(),
    "decimal_32": pa.float32(), "boolean": pa.bool_(), "timestamp": pa.timestamp("us"),
}  # fmt: skip
# Columns whose values are told as they are, one by one.
_EXACT = {
    "text": {pa.string(), pa.large_string(), pa.string_view()}, "bytes": {pa.binary(), pa.large_binary()}, "integer": {pa.int64()},
    "decimal": {pa.float64()}, "integer_32": {pa.int32()}, "decimal_32": {pa.float32()}, "boolean": {pa.bool_()},
    "timestamp": {pa.timestamp("us"), pa.timestamp("us", "UTC")},
}  # fmt: skip
_NUMPY = {
    "integer": "<i8",
    "decimal": "<f8",
    "timestamp": "<i8",
    "integer_32": "<i4",
    "decimal_32": "<f4",
    "boolean": "u1",
}


@dataclass(frozen=True)
class Encoded:
    """Rows ready to be stored, one an entity: keys (binary), event times in microseconds, values (binary; made when they are asked for)."""

    keys: pa.Array
    event_us: NDArray[np.int64]
    made_of: "pa.Array | _Columns"

    @cached_property
    def values(self) -> pa.Array:
        return self.made_of.values() if isinstance(self.made_of, _Columns) else self.made_of

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self) -> Iterator[tuple[bytes, int, bytes]]:
        """(key, event microseconds, value) of each."""
        return zip(self.keys.to_pylist(), self.event_us.tolist(), self.values.to_pylist(), strict=True)

    def take(self, which: NDArray[np.bool_]) -> "Encoded":
        """Some of the rows."""
        mask = pa.array(which)
        return Encoded(self.keys.filter(mask), self.event_us[which], self.values.filter(mask))

    def slice(self, first: int, count: int) -> "Encoded":
        made_of = self.__dict__.get("values", self.made_of)
        return Encoded(self.keys.slice(first, count), self.event_us[first : first + count], made_of.slice(first, count))


def encoded(view: View, rows: "pa.Table | pl.DataFrame") -> Encoded:
    """The newest row of each entity, in the order of keys; of several of one time the last.

    Raises: FeatureError when a key or an event time is missing, or a column cannot be cast without loss.
    """
    table = rows.to_arrow() if isinstance(rows, pl.DataFrame) else rows
    for name in (*view.entity.join_keys, view.event_column):
        if name not in table.column_names or table[name].null_count:
            raise FeatureError(
                f"view {view.name}: expected a value of {name} in every row, found none in some. Drop or fix them."
            )
    keys = keys_of(view.entity, table)
    event_us = _whole(_cast(table[view.event_column], Field(view.event_column, "timestamp", "")))
    # Sorting is what costs; rows that come in order, one an entity, as they are published, need none.
    if len(keys) > 1 and not pc.all(pc.less(keys.slice(0, len(keys) - 1), keys.slice(1))).as_py():
        ordered = pl.DataFrame({"key": pl.Series(pl.from_arrow(keys)), "event_us": event_us}).with_row_index("row")
        ordered = ordered.sort("key", "event_us", maintain_order=True).unique("key", keep="last", maintain_order=True)
        chosen = ordered["row"].to_arrow()
        table, keys, event_us = table.take(chosen), keys.take(chosen), event_us[ordered["row"].to_numpy()]
    columns = _Columns.of(layout_of(view.online_fields), table)
    # A list may still turn out to have a null in it, which has to be known before anything is written.
    is_sure = not any(each.type.endswith(LIST) for each in view.online_fields)
    return Encoded(keys, event_us, columns if is_sure else columns.values())


def ahead(batches: Iterator[Encoded]) -> Iterator[Encoded]:
    """The same batches, each made on a thread of its own while the one before is used."""

    def made() -> Encoded | None:
        batch = next(batches, None)
        return batch if batch is None else Encoded(batch.keys, batch.event_us, batch.values)

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(made)
        while (batch := coming.result()) is not None:
            coming = pool.submit(made)
            yield batch


def few(view: View, rows: "pa.Table | pl.DataFrame") -> list[tuple[list[Any], int, dict[str, Any]]] | None:
    """So few rows as keys, event microseconds and features, as `OnlineStore.write_rows` takes them; None for more, and for columns of other types."""
    count = rows.num_rows if isinstance(rows, pa.Table) else rows.height
    if count > FEW or not isinstance(rows, pa.Table):
        return None
    keys, at = view.entity.join_keys, view.event_column
    wanted = {each.name: each.type for each in view.online_fields} | dict.fromkeys(keys, "text") | {at: "timestamp"}
    types = dict(zip(rows.column_names, rows.schema.types, strict=True))
    if any(name not in types or types[name] not in _EXACT.get(kind, ()) for name, kind in wanted.items()):
        return None
    try:
        told = dict(zip(rows.column_names, [column.to_pylist() for column in rows.itercolumns()], strict=True))
    except (ValueError, OverflowError):  # a time that Python has no date for
        return None
    if any(None in told[name] for name in (*keys, at)):
        return None
    return [
        ([told[name][number] for name in keys], to_microseconds(when), {each.name: told[each.name][number] for each in view.online_fields})
        for number, when in enumerate(told[at])
    ]  # fmt: skip


def keys_of(entity: Entity, table: pa.Table) -> pa.Array:
    """The keys of `store.entity_key`, as UTF-8 bytes: all parts but the last carry their length, so that no two entities share one."""
    *head, last = [_one(table[name]).cast(pa.string()) for name in entity.join_keys]
    parts: list[Any] = []
    for each in head:
        parts += [pc.binary_length(each.cast(pa.binary())).cast(pa.string()), ":", each]
    found = pc.binary_join_element_wise(*parts, last, "") if parts else last
    return found.cast(pa.binary())


def values_of(layout: Layout, table: pa.Table) -> pa.Array:
    """Every row as the value `layout.encode` makes of it. Raises: FeatureError for a column that is missing or of another type."""
    return _Columns.of(layout, table).values()


@dataclass(frozen=True)
class _Columns:
    """The columns of a layout, each in its type, from which values are made."""

    layout: Layout
    columns: Mapping[str, pa.Array]
    count: int

    @classmethod
    def of(cls, layout: Layout, table: pa.Table) -> "_Columns":
        return cls(layout, {each.name: _column(table, each) for each in layout.fields}, table.num_rows)

    def slice(self, first: int, count: int) -> "_Columns":
        left = max(0, min(count, self.count - first))
        return _Columns(self.layout, {name: each.slice(first, count) for name, each in self.columns.items()}, left)

    def values(self) -> pa.Array:
        return _packed(self.layout, self.columns, self.count)


def _packed(layout: Layout, columns: Mapping[str, pa.Array], count: int) -> pa.Array:
    heads = np.zeros(
        count,
        dtype=[
            ("id", "<u4"), ("null", "u1", (layout.null_bytes,)), ("bool", "u1", (layout.boolean_bytes,)),
            *((f"n{place}", _NUMPY[each.type]) for place, each in enumerate(layout.numbers)),
            *((f"t{place}", "<u4") for place in range(len(layout.tails))),
        ],
    )  # fmt: skip
    heads["id"] = layout.schema_id
    heads["null"] = _bits([_mask(columns[each.name]) for each in layout.fields], count)
    heads["bool"] = _bits([_truth(columns[each.name]) for each in layout.booleans], count)
    for place, each in enumerate(layout.numbers):
        heads[f"n{place}"] = _whole(columns[each.name])
    tails = [_tail(columns[each.name], each) for each in layout.tails]
    for place, tail in enumerate(tails):
        heads[f"t{place}"] = pc.binary_length(tail).to_numpy()
    head = fixed(heads, layout.size)
    return pc.binary_join_element_wise(head, *tails, b"") if tails else head


def fixed(rows: NDArray[Any], size: int) -> pa.Array:
    """Rows of equal size as a binary column over the same memory."""
    offsets = np.arange(0, (len(rows) + 1) * size, size, dtype=np.int64)
    if len(offsets) and offsets[-1] >= 2**31:
        raise FeatureError("feature rows: expected fewer at once, found more than two gigabytes of them. Send less.")
    return pa.Array.from_buffers(
        pa.binary(), len(rows), [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(rows.tobytes())]
    )


def _bits(columns: Sequence[NDArray[np.bool_]], count: int) -> NDArray[np.uint8]:
    """Boolean columns as rows of bytes, first column in the lowest bit."""
    if not columns:
        return np.zeros((count, 0), dtype="u1")
    return np.packbits(np.column_stack(columns), axis=1, bitorder="little")


def _column(table: pa.Table, field: Field) -> pa.Array:
    if field.name not in table.column_names:
        raise FeatureError(
            f"feature {field.name}: expected a column, found {table.column_names}. Add it or correct the catalogue."
        )
    return _cast(table[field.name], field)


def _cast(column: pa.ChunkedArray, field: Field) -> pa.Array:
    """The column in the type of its field, in one piece."""
    found = _one(column)
    member = field.type.removesuffix(LIST)
    wanted = _ARROW[member] if member == field.type else pa.list_(_ARROW[member])
    try:
        if pa.types.is_dictionary(found.type):
            found = found.dictionary_decode()
        if pa.types.is_null(found.type):
            return pa.nulls(len(found), wanted)
        if member == "integer" and pa.types.is_floating(found.type):
            found = _checked(found, field)
        if member == "timestamp" and pa.types.is_timestamp(found.type):
            return pc.cast(found, pa.timestamp("us", found.type.tz), safe=False)  # what is finer is cut off
        return pc.cast(found, wanted, safe=member not in ("decimal", "decimal_32"))
    except pa.ArrowException as error:
        raise FeatureError(
            f"feature {field.name}: expected {field.type}, found {column.type}. Cast it. ({str(error).splitlines()[0]})"
        ) from None


def _checked(found: pa.Array, field: Field) -> pa.Array:
    if pc.any(pc.not_equal(pc.floor(found), found)).as_py():
        raise FeatureError(
            f"feature {field.name}: expected whole numbers, found fractions. Round it where it is computed."
        )
    return found


def _one(column: "pa.ChunkedArray | pa.Array") -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column


def _mask(column: pa.Array) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (
        column.is_null().to_numpy(zero_copy_only=False) if column.null_count else np.zeros(len(column), dtype=np.bool_)
    )
    return found  # fmt: skip


def _truth(column: pa.Array) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.fill_null(column, fill_value=False).to_numpy(zero_copy_only=False)
    return found


def _whole(column: pa.Array) -> NDArray[Any]:
    """Numbers, and times as numbers; nulls are nought."""
    if pa.types.is_timestamp(column.type):
        column = column.view(pa.int64())
    if column.null_count:
        column = pc.fill_null(column, pa.scalar(0, column.type))
    found: NDArray[Any] = column.to_numpy()
    return found


def _tail(column: pa.Array, field: Field) -> pa.Array:
    """What stands at the end of a value for a text, bytes or list; nothing for null."""
    if not field.type.endswith(LIST):
        return pc.fill_null(column.cast(pa.binary()), b"")
    member, nulls = field.type.removesuffix(LIST), column.is_null() if column.null_count else None
    if nulls is not None:
        column = pc.if_else(nulls, pa.scalar([], column.type), column)
    members, offsets = column.values, column.offsets.to_numpy()
    first, last = int(offsets[0]), int(offsets[-1])
    members, offsets = members.slice(first, last - first), offsets - first
    if members.null_count:
        raise FeatureError(f"feature {field.name}: expected lists without nulls, found one with. Leave them out.")
    if member in TEXTS:
        told = _text_lists(members.cast(pa.binary()), offsets)
        return told if nulls is None else pc.if_else(nulls, pa.scalar(b""), told)
    numbers = _truth(members) if member == "boolean" else _whole(members)
    code = np.dtype(_NUMPY[member])
    return _cut(numbers.astype(code).tobytes(), offsets * code.itemsize)


def _text_lists(members: pa.Array, offsets: NDArray[Any]) -> pa.Array:
    lengths = pc.binary_length(members).to_numpy()
    ends = np.concatenate([[0], np.cumsum(lengths)])
    content = b"".join(members.to_pylist()) if members.offset else _content(members, int(ends[-1]))
    counts = fixed(np.diff(offsets).astype("<u4"), 4)
    each = _cut(lengths.astype("<u4").tobytes(), offsets * 4)
    return pc.binary_join_element_wise(counts, each, _cut(content, ends[offsets]), b"")


def _content(members: pa.Array, size: int) -> bytes:
    """The bytes of all members one after the other."""
    offsets = np.frombuffer(members.buffers()[1], dtype=np.int32, count=len(members) + 1)
    data = members.buffers()[2]
    begin = int(offsets[0])
    return bytes(data[begin : begin + size]) if data is not None else b""


def _cut(content: bytes, offsets: NDArray[Any]) -> pa.Array:
    """Bytes cut at offsets, as a binary column over the same memory."""
    return pa.Array.from_buffers(
        pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(content)]
    )
