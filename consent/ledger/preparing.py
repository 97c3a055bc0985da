"""Events on their way into the ledger: encoded, keyed, salted and hashed, all that can be done before their leaves are known.

For large frames a second process does it (`python -m consent.ledger.preparing`), so that the ledger's own has only to seal and commit.
"""

import secrets
import struct
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate, pairwise
from queue import Queue
from typing import IO, Self, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from consent.errors import ConsentError, LedgerError
from consent.events import KEY_FIELDS, encode_frame
from consent.log.entry import ENTRY_BYTES, SALT_BYTES, entry_keys
from consent.log.merkle import HASH_BYTES, commitment, leaf_hash

BATCH = 1_000  # events under one checkpoint at most
_FRAME = 16 * BATCH  # rows encoded at once
_LARGE = 64 * BATCH  # rows from which a second process pays
_AHEAD = 64  # thousands of events made and not yet taken, so that nobody waits while the next frame is encoded
_PIPE = 1 << 20  # bytes, where the system lets a pipe be that large
_HEAD = struct.Struct(">II")


@dataclass(frozen=True)
class Prepared:
    """Events as the ledger will keep them, in columns; `lengths` are those of their lines in `events`, in bytes."""

    entries: bytes  # 64 bytes each
    hashes: bytes  # of their leaves, 32 bytes each
    salts: bytes  # 16 bytes each
    events: bytes  # canonical JSON, each with a newline at its end
    lengths: NDArray[np.uint32]

    @classmethod
    def of(cls, keys: Sequence[bytes], events: Sequence[bytes]) -> Self:
        salts = secrets.token_bytes(len(keys) * SALT_BYTES)
        starts = range(0, len(salts), SALT_BYTES)
        entries = [
            key + commitment(salts[at : at + SALT_BYTES], event)
            for key, at, event in zip(keys, starts, events, strict=True)
        ]
        hashes = b"".join([leaf_hash(entry) for entry in entries])
        lengths = np.fromiter(map(len, events), np.uint32, len(events)) + np.uint32(1)
        return cls(b"".join(entries), hashes, salts, b"".join([event + b"\n" for event in events]), lengths)

    @classmethod
    def joined(cls, parts: Sequence["Prepared"]) -> "Prepared":
        """All of them as one."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            b"".join([part.entries for part in parts]),
            b"".join([part.hashes for part in parts]),
            b"".join([part.salts for part in parts]),
            b"".join([part.events for part in parts]),
            np.concatenate([part.lengths for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def taken(self, numbers: Sequence[int]) -> "Prepared":
        """Only those with these numbers, in this order."""
        starts = [0, *self.lengths.cumsum(dtype=np.int64).tolist()]
        return Prepared(
            b"".join([self.entries[at * ENTRY_BYTES : (at + 1) * ENTRY_BYTES] for at in numbers]),
            b"".join([self.hashes[at * HASH_BYTES : (at + 1) * HASH_BYTES] for at in numbers]),
            b"".join([self.salts[at * SALT_BYTES : (at + 1) * SALT_BYTES] for at in numbers]),
            b"".join([self.events[starts[at] : starts[at + 1]] for at in numbers]),
            self.lengths[list(numbers)],
        )


def prepared_of(frame: pl.DataFrame) -> Generator[Prepared, None, None]:
    """The rows of a frame, in order, up to 1,000 at a time.

    Raises: ConsentError when a row is outside the grammar; rows before it may have been given.
    """
    parts = (frame.slice(start, _FRAME) for start in range(0, frame.height, _FRAME))
    if frame.height < _LARGE:
        for part in parts:
            yield from _prepared(part)
    else:
        yield from _prepared_beside(parts)


def _prepared(frame: pl.DataFrame) -> Iterator[Prepared]:
    keys, events = entry_keys(frame.select(KEY_FIELDS).iter_rows()), encode_frame(frame)
    for at in range(0, len(events), BATCH):
        yield Prepared.of(keys[at : at + BATCH], events[at : at + BATCH])


def _prepared_beside(parts: Iterator[pl.DataFrame]) -> Iterator[Prepared]:
    """`_prepared` by a second process, which works ahead while what it has made is being committed."""
    command = [sys.executable, "-m", "consent.ledger.preparing"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pipesize=_PIPE) as child:
        into, out = cast(IO[bytes], child.stdin), cast(IO[bytes], child.stdout)
        feeder = threading.Thread(target=_feed, args=(parts, into), daemon=True)
        feeder.start()
        try:
            while (prepared := _read(out)) is not None:
                yield prepared
        finally:
            child.kill()
            feeder.join()  # nobody reads any more, so it ends


def _feed(parts: Iterator[pl.DataFrame], to: IO[bytes]) -> None:
    with suppress(OSError), to:  # a child that was killed reads no more
        for part in parts:
            written = BytesIO()
            part.write_ipc(written)
            to.write(_HEAD.pack(written.tell(), 0) + written.getbuffer())
        to.write(_HEAD.pack(0, 0))


def _write(to: IO[bytes], prepared: Prepared) -> None:
    columns = (prepared.lengths.tobytes(), prepared.entries, prepared.hashes, prepared.salts, prepared.events)
    to.write(_HEAD.pack(len(prepared), sum(map(len, columns))) + b"".join(columns))


def _read(source: IO[bytes]) -> Prepared | None:
    """The next events; None at the end. Raises: ConsentError the other process met; LedgerError when it died."""
    head = source.read(_HEAD.size)
    count, length = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, -1)
    body = source.read(max(length, 0))
    if len(body) != length:
        raise LedgerError("preparing events: expected the second process to finish, found it gone. Append them again.")
    if not count:
        if body:
            raise ConsentError(body.decode())
        return None
    widths = (np.dtype(np.uint32).itemsize, ENTRY_BYTES, HASH_BYTES, SALT_BYTES)
    ends = [0, *accumulate(count * width for width in widths), length]
    lengths, entries, hashes, salts, events = (body[start:stop] for start, stop in pairwise(ends))
    return Prepared(entries, hashes, salts, events, np.frombuffer(lengths, np.uint32))


def _serve(source: IO[bytes], to: IO[bytes]) -> None:
    """What the second process does: frames in, requests out, until an empty frame. It works ahead of whoever reads them."""
    ahead: Queue[Prepared | bytes] = Queue(_AHEAD)
    writer = threading.Thread(target=_write_all, args=(ahead, to), daemon=True)
    writer.start()
    told = b""
    try:
        while (length := _HEAD.unpack(source.read(_HEAD.size))[0]) > 0:
            if len(frame := source.read(length)) < length:
                return  # whoever asked is gone
            for prepared in _prepared(pl.read_ipc(BytesIO(frame))):
                ahead.put(prepared)
    except ConsentError as fault:
        told = str(fault).encode()
    ahead.put(told)
    writer.join()


def _write_all(ahead: "Queue[Prepared | bytes]", to: IO[bytes]) -> None:
    """What was made, until the last word: a fault, or nothing. When nobody reads them any more they are still taken."""
    is_read = True
    while isinstance(given := ahead.get(), Prepared):
        try:
            if is_read:
                _write(to, given)
        except OSError:
            is_read = False
    with suppress(OSError):
        to.write(_HEAD.pack(0, len(given)) + given)
        to.flush()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, struct.error, BrokenPipeError):
        _serve(sys.stdin.buffer, sys.stdout.buffer)
