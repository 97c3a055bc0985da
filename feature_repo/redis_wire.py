"""Rows as Redis takes them off the wire: commands put together by columns, so that no row passes through Python."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.columns import FEW, Encoded, fixed
from feature_repo.redis_nodes import bulk

ROWS_AT_A_TIME = 500  # of one script: others wait for it a few milliseconds
HEAD = struct.Struct(">qI")
FOLLOWS = 1 << 31  # as in `redis_store`
_PART = 4 * ROWS_AT_A_TIME


@dataclass(frozen=True)
class Batch:
    """Rows of one script: names of their keys, and how many words follow the script's own name as they are sent."""

    names: pa.Array | list[bytes]
    words: int
    sent: Sequence[Any]

    def name(self, place: int) -> bytes:
        found: bytes = self.names[place] if isinstance(self.names, list) else self.names[place].as_py()
        return found


def batches(
    rows: Encoded, prefix: bytes, epoch: int, follows: Any, constants: Sequence[bytes], slots: int | None
) -> Iterator[Batch]:
    """The rows in batches. The words are how many keys there are, the keys, the constants, and the values, each with its head."""
    if not len(rows):
        return
    if slots is None and len(rows) > _PART:  # while a server is at work on some, the next are made
        for begin in range(0, len(rows), _PART):
            some = None if follows is None else follows[begin : begin + _PART]
            yield from batches(rows.slice(begin, _PART), prefix, epoch, some, constants, slots)
        return
    if slots is None and len(rows) <= FEW:
        yield _short(rows, prefix, epoch, follows, constants)
        return
    names = pc.binary_join_element_wise(pa.scalar(prefix, pa.binary()), rows.keys, b"")
    order, ends = _order(names, slots)
    if order is not None:
        rows, names = _taken(rows, order), names.take(order)
        follows = None if follows is None else np.asarray(follows)[order]
    heads = np.empty(len(rows), dtype=[("at", ">i8"), ("by", ">u4")])
    heads["at"], heads["by"] = rows.event_us, epoch
    if follows is not None:
        heads["by"] += np.where(np.asarray(follows), np.uint32(FOLLOWS), np.uint32(0))
    values = pc.binary_join_element_wise(fixed(heads, heads.dtype.itemsize), rows.values, b"")
    keys, values = bulks(names), bulks(values)
    said = b"".join(bulk(each) for each in constants)
    begin = 0
    for end in ends:
        count = end - begin
        number = b"%d" % count
        sent = [b"$%d\r\n%b\r\n" % (len(number), number), between(keys, begin, end), said, between(values, begin, end)]
        yield Batch(names[begin:end], 1 + 2 * count + len(constants), sent)
        begin = end


def _short(rows: Encoded, prefix: bytes, epoch: int, follows: Any, constants: Sequence[bytes]) -> Batch:
    """A batch of few rows, one by one."""
    names = [prefix + key for key in rows.keys.to_pylist()]
    marks = [epoch] * len(names) if follows is None else [epoch + FOLLOWS * bool(each) for each in follows]
    values = [
        HEAD.pack(at, by) + value
        for at, by, value in zip(rows.event_us.tolist(), marks, rows.values.to_pylist(), strict=True)
    ]
    words = [b"%d" % len(names), *names, *constants, *values]
    return Batch(names, len(words), [bulk(each) for each in words])


def noted(name: bytes, keys: pa.Array) -> bytes:
    """The command that puts keys into a set."""
    head = b"*%d\r\n$4\r\nSADD\r\n" % (len(keys) + 2) + bulk(name)
    if len(keys) <= FEW:
        return head + b"".join([bulk(key) for key in keys.to_pylist()])
    return head + bytes(between(bulks(keys), 0, len(keys)))


def _taken(rows: Encoded, order: NDArray[np.int64]) -> Encoded:
    return Encoded(rows.keys.take(order), rows.event_us[order], rows.values.take(order))


def _order(names: pa.Array, slots: int | None) -> tuple[NDArray[np.int64] | None, list[int]]:
    """How rows are put in order, and where each batch ends: within one slot of a cluster, and not too long."""
    if slots is None:
        return None, [*range(ROWS_AT_A_TIME, len(names), ROWS_AT_A_TIME), len(names)]
    from redis.crc import key_slot

    slot_of = np.array([key_slot(name) for name in names.to_pylist()])
    order = np.argsort(slot_of, kind="stable")
    edges = np.flatnonzero(np.diff(slot_of[order])) + 1
    ends: list[int] = []
    begin = 0
    for end in [*edges.tolist(), len(names)]:
        ends += [*range(begin + ROWS_AT_A_TIME, end, ROWS_AT_A_TIME), end]
        begin = end
    return order, ends


def bulks(column: pa.Array) -> pa.Array:
    """Each value as a bulk string of the protocol."""
    lengths = pc.binary_length(column).cast(pa.string()).cast(pa.binary())
    return pc.binary_join_element_wise(b"$", lengths, b"\r\n", column, b"\r\n", b"")


def between(column: pa.Array, begin: int, end: int) -> memoryview:
    """The bytes of some values one after the other, where they lie."""
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int32, count=len(column) + 1 + column.offset)
    return memoryview(column.buffers()[2])[offsets[begin + column.offset] : offsets[end + column.offset]]
