"""Events on their way into the ledger: encoded, keyed, salted and hashed, all that can be done before their leaves are known.

For large frames a second process does it (`python -m consent.ledger.requests`), so that the ledger's own has only to seal and commit.
"""

import secrets
import struct
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from queue import Queue
from typing import IO, Self, cast

import polars as pl

from consent.errors import ConsentError, LedgerError
from consent.events import KEY_FIELDS, encode_frame
from consent.log.entry import ENTRY_BYTES, SALT_BYTES, entry_keys
from consent.log.index import KEY_BYTES
from consent.log.merkle import HASH_BYTES, commitment, leaf_hash

BATCH = 1_000  # events under one checkpoint at most
_FRAME = 16 * BATCH  # rows encoded at once
_LARGE = 64 * BATCH  # rows from which a second process pays
_AHEAD = 64  # requests made and not yet taken: what one frame takes to be made must not be waited for
_PIPE = 1 << 20  # bytes, where the system lets a pipe be that large
_HEAD = struct.Struct(">II")


def _taken() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass
class Request:
    """Events waiting to be committed together; then the leaves they have, or the fault that kept them out."""

    told: Sequence[bytes]  # salt and event, what is sealed
    entries: Sequence[bytes]
    hashes: Sequence[bytes]
    leaves: list[int] | None = None
    fault: BaseException | None = None
    turn: threading.Lock = field(default_factory=_taken)  # released when it is done, or the first in line

    @classmethod
    def of(cls, keys: Sequence[bytes], events: Sequence[bytes]) -> Self:
        drawn = secrets.token_bytes(len(keys) * SALT_BYTES)
        told = [drawn[at * SALT_BYTES : (at + 1) * SALT_BYTES] + event for at, event in enumerate(events)]
        entries = [key + commitment(b"", each) for key, each in zip(keys, told, strict=True)]
        return cls(told, entries, [leaf_hash(entry) for entry in entries])

    @property
    def keys(self) -> list[bytes]:
        return [entry[:KEY_BYTES] for entry in self.entries]

    @property
    def is_done(self) -> bool:
        return self.leaves is not None or self.fault is not None

    def result(self) -> list[int]:
        """The leaves. Raises: the fault."""
        if self.fault is not None:
            raise self.fault
        return self.leaves or []


def requests_of(frame: pl.DataFrame) -> Generator[Request, None, None]:
    """Requests of up to 1,000 events for the rows of a frame, in order.

    Raises: ConsentError when a row is outside the grammar; requests of rows before it may have been given.
    """
    parts = (frame.slice(start, _FRAME) for start in range(0, frame.height, _FRAME))
    if frame.height < _LARGE:
        for part in parts:
            yield from _prepared(part)
    else:
        yield from _prepared_beside(parts)


def _prepared(frame: pl.DataFrame) -> Iterator[Request]:
    keys, events = entry_keys(frame.select(KEY_FIELDS).iter_rows()), encode_frame(frame)
    for at in range(0, len(events), BATCH):
        yield Request.of(keys[at : at + BATCH], events[at : at + BATCH])


def _prepared_beside(parts: Iterator[pl.DataFrame]) -> Iterator[Request]:
    """`_prepared` by a second process, which works while the requests it has made are being committed."""
    command = [sys.executable, "-m", "consent.ledger.requests"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pipesize=_PIPE) as child:
        into, out = cast(IO[bytes], child.stdin), cast(IO[bytes], child.stdout)
        feeder = threading.Thread(target=_feed, args=(parts, into), daemon=True)
        feeder.start()
        try:
            while (request := _read(out)) is not None:
                yield request
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


def _write(to: IO[bytes], request: Request) -> None:
    lengths = struct.pack(f">{len(request.told)}I", *map(len, request.told))
    body = b"".join((lengths, *request.entries, *request.hashes, *request.told))
    to.write(_HEAD.pack(len(request.told), len(body)) + body)


def _read(source: IO[bytes]) -> Request | None:
    """The next request; None at the end. Raises: ConsentError the other process met; LedgerError when it died."""
    head = source.read(_HEAD.size)
    count, length = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, -1)
    body = source.read(max(length, 0))
    if len(body) != length:
        raise LedgerError("preparing events: expected the second process to finish, found it gone. Append them again.")
    if not count:
        if body:
            raise ConsentError(body.decode())
        return None
    at = 4 * count
    ends = struct.unpack(f">{count}I", body[:at])
    entries = [body[i : i + ENTRY_BYTES] for i in range(at, at + count * ENTRY_BYTES, ENTRY_BYTES)]
    at += count * ENTRY_BYTES
    hashes = [body[i : i + HASH_BYTES] for i in range(at, at + count * HASH_BYTES, HASH_BYTES)]
    at += count * HASH_BYTES
    told = []
    for length in ends:
        told.append(body[at : at + length])
        at += length
    return Request(told, entries, hashes)


def _serve(source: IO[bytes], to: IO[bytes]) -> None:
    """What the second process does: frames in, requests out, until an empty frame. It works ahead of whoever reads them."""
    ahead: Queue[Request | bytes] = Queue(_AHEAD)
    writer = threading.Thread(target=_write_all, args=(ahead, to), daemon=True)
    writer.start()
    told = b""
    try:
        while (length := _HEAD.unpack(source.read(_HEAD.size))[0]) > 0:
            for request in _prepared(pl.read_ipc(BytesIO(source.read(length)))):
                ahead.put(request)
    except ConsentError as fault:
        told = str(fault).encode()
    ahead.put(told)
    writer.join()


def _write_all(ahead: "Queue[Request | bytes]", to: IO[bytes]) -> None:
    """Requests until the last word: a fault, or nothing. When nobody reads them any more they are still taken."""
    is_read = True
    while isinstance(given := ahead.get(), Request):
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
