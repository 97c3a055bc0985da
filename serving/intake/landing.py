"""What the log holds becomes ordinary landed files, in the shapes the readers of files know: so stream and batch read one thing.

A range of offsets is written down first, then its files under names that say the range, then the offset that is landed. A kill in between
is repaired by doing the same range again: same names, same bytes, same times. Nothing is landed twice, nothing left out.
"""

import csv
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from serving.event_log.events import Event
from serving.event_log.log import LANDING, Log
from serving.intake.plain import Pick
from troth.clock import microseconds
from troth.home import Home, alone, sync, write_atomically

MOST_AT_ONCE = 50_000  # events of one range: their lines are in memory together
PLAIN_SOURCE = "stock"
_PAGE = 5_000
_PICK_COLUMNS = (
    *("pick_id", "order_ref", "location_code", "sku", "requested_units", "picked_units", "pick_status", "reason_code"),
    *("started_at", "finished_at", "packed_at"),
)


class _Range(msgspec.Struct, frozen=True):
    """Offsets that are being landed: behind one, up to another."""

    after: int
    until: int


@dataclass(frozen=True)
class Landed:
    """What a landing did: events and files, and the offset up to which everything is landed now."""

    events: int
    files: int
    offset: int


def land(log: Log, home: Home, most: int = MOST_AT_ONCE) -> Landed:
    """Land what the log holds now behind the last landed offset. One at a time, others wait. Raises: LogError, OSError."""
    events = files = 0
    with alone(home.log):
        offset, head = log.position(LANDING), log.head()
        while offset < head:
            asked = _begun(home, offset) or _Range(offset, min(offset + most, head))
            write_atomically(_note(home), msgspec.json.encode(asked))
            landed = _land(log, home, asked)
            log.commit(LANDING, asked.until)
            offset, events, files = asked.until, events + landed[0], files + landed[1]
    return Landed(events, files, offset)


def _begun(home: Home, offset: int) -> _Range | None:
    """A range that somebody began behind this offset and did not end."""
    try:
        found = msgspec.json.decode(_note(home).read_bytes(), type=_Range)
    except FileNotFoundError:
        return None
    return found if found.after == offset else None


def _land(log: Log, home: Home, asked: _Range) -> tuple[int, int]:
    lines: dict[Path, list[bytes]] = {}
    newest: dict[Path, datetime] = {}
    count = 0
    for event in _events(log, asked):
        kind = _LEVELS if event.event_type == "stock_level" and not event.topic else _KINDS.get(event.event_type)
        if kind is None or event.is_erased:
            continue
        source, prefix, suffix, line = kind
        name = f"{prefix}_log_{asked.after + 1:012d}-{asked.until:012d}.{suffix}"
        path = home.landing / source / f"{event.received_at:%Y-%m-%d}" / name
        lines.setdefault(path, []).append(line(event))
        newest[path] = max(newest.get(path, event.received_at), event.received_at)
        count += 1
    for path, written in lines.items():
        head = _csv(_PICK_COLUMNS) if path.suffix == ".csv" else b""
        write_atomically(path, head + b"".join(written))
        at = microseconds(newest[path]) * 1_000
        os.utime(path, ns=(at, at))  # rows were received then, however late they are landed
    for folder in {parent for path in lines for parent in (path.parent, path.parent.parent, path.parent.parent.parent)}:
        sync(folder)  # before the offset says that the files are there
    return count, len(lines)


def _events(log: Log, asked: _Range) -> Iterator[Event]:
    after = asked.after
    while after < asked.until and (page := log.read(after, min(_PAGE, asked.until - after))):
        yield from page
        after = page[-1].offset


def _wrapped(event: Event) -> bytes:
    """A webhook as archives keep it: its topic beside its body."""
    body = event.payload
    if b"\n" in body or b"\r" in body:
        body = msgspec.json.format(body, indent=-1)
    return b'{"topic":%b,"body":%b}\n' % (msgspec.json.encode(event.topic), body)


def _message(event: Event) -> bytes:
    """A message with the time it was received, as collectors write it."""
    return b'{"receivedAt":"%b",%b\n' % (event.received_at.isoformat().encode(), event.payload[1:])


def _plain(event: Event) -> bytes:
    """An event of the plain contract, with whose it is."""
    return b'{"source_name":%b,%b\n' % (msgspec.json.encode(event.source_name), event.payload[1:])


def _pick(event: Event) -> bytes:
    pick = msgspec.json.decode(event.payload, type=Pick)
    status = "picked" if pick.picked_units >= pick.requested_units else "short" if pick.picked_units else "not_found"
    ended = pick.occurred_at
    times = (pick.started_at or ended, ended, pick.packed_at)
    return _csv(
        (
            *(
                pick.pick_id,
                pick.order_ref,
                pick.location_code,
                pick.sku,
                pick.requested_units,
                pick.picked_units,
                status,
            ),
            pick.reason_code or "",
            *("" if at is None else at.isoformat() for at in times),
        )
    )


def _csv(cells: tuple[object, ...]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


# Of each type: the source whose reader knows it, how its files begin and end, and a line of them.
_KINDS: dict[str, tuple[str, str, str, Callable[[Event], bytes]]] = {
    "order": ("ecommerce", "orders", "jsonl", _wrapped),
    "refund": ("ecommerce", "refunds", "jsonl", _wrapped),
    "fulfilment": ("ecommerce", "fulfillments", "jsonl", _wrapped),
    "stock_level": ("ecommerce", "inventory_levels", "jsonl", _wrapped),
    "customer": ("ecommerce", "customers", "jsonl", _wrapped),
    "web_event": ("ecommerce", "events", "jsonl", _message),
    "movement": (PLAIN_SOURCE, "movements", "jsonl", _plain),
    "supply": (PLAIN_SOURCE, "supplies", "jsonl", _plain),
    "count": (PLAIN_SOURCE, "counts", "jsonl", _plain),
    "pick": ("wms", "picks", "csv", _pick),
}
# A level that came in the plain contract, and so under no topic: it names location and item by code, as no shop does.
_LEVELS = (PLAIN_SOURCE, "levels", "jsonl", _plain)


def _note(home: Home) -> Path:
    return home.log / "landing.json"
