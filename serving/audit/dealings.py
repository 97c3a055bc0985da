"""Whom a person's data went to, who looked at them, and what they asked of us."""

import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from consent.rights import FILE as RIGHTS
from consent.rights import open_rights
from serving.activation.deliveries import FILE as DELIVERIES
from serving.activation.deliveries import Book
from serving.activation.members import deliveries_with
from serving.audit.persons import Known
from serving.audit.shapes import (
    Looked,
    Received,
    Requested,
)
from serving.console.looks import FILE_NAME as LOOKS
from serving.console.looks import Look
from serving.hub.webhooks import OUTBOX_FILE
from troth.home import Home


def webhooks(home: Home, known: Known) -> Iterator[Received]:
    """Which downstream systems were told what the person said, and what they acknowledged."""
    path = home.root / OUTBOX_FILE
    if not path.is_file():
        return
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        query = (
            "select n.name, d.leaf_index, d.state, d.last_attempt_at, d.receipt_id from deliveries d "
            "join destinations n using (destination_id) where d.subject_key = ? order by d.leaf_index"
        )
        rows = [row for key in known.keys for row in connection.execute(query, (bytes.fromhex(key),))]
    finally:
        connection.close()
    for name, leaf, state, attempted_at, receipt_id in rows:
        at = datetime.fromisoformat(attempted_at) if attempted_at else None
        yield Received(
            recipient=f"webhook:{name}",
            what=f"event of leaf {leaf}",
            state=state,
            at=at,
            reference=receipt_id,
            acknowledged_at=at if state == "delivered" else None,
        )


def sent_to(home: Home, known: Known) -> Iterator[Received]:
    """What went to destinations with the person in it, and what was called back from them."""
    if not (home.root / DELIVERIES).is_file():
        return
    refs = {key: set(mine) for key, mine in deliveries_with(home, [*known.names, *known.tokens]).items()}
    if not refs:
        return
    with Book(home) as book:
        for of in book.deliveries():
            if of.delivery_id in refs and of.is_out:
                yield Received(
                    recipient=of.destination,
                    what=f"{of.segment_name} v{of.segment_version} over {of.channel_code}",
                    state=of.state,
                    at=of.sent_at or of.asked_at,
                    reference=of.delivery_id,
                    acknowledged_at=of.sent_at if of.receipt_id else None,
                )
        for recall in book.recalls():
            if {ref for ref, _ in book.lines(recall)} & refs.get(recall.delivery_id, set()):
                yield Received(
                    recipient=recall.destination,
                    what=f"recall {recall.number} of {recall.delivery_id}",
                    state=recall.state,
                    at=recall.told_at or recall.made_at,
                    reference=recall.receipt_id,
                    acknowledged_at=recall.acknowledged_at,
                )


def looks_at(home: Home, known: Known) -> Iterator[Looked]:
    """Who of the staff looked at the person, newest first. A line that cannot be read says nothing of anybody."""
    decoder, wanted = msgspec.json.Decoder(Look), known.keys
    marks = [key.encode() for key in wanted]
    looks = []
    for path in sorted((home.root / "logs").glob(f"{Path(LOOKS).stem}*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                if not any(mark in line for mark in marks):
                    continue
                try:
                    looks.append(decoder.decode(line))
                except msgspec.MsgspecError:
                    continue
    for look in sorted(looks, key=lambda look: look.at, reverse=True):
        if look.subject_key in wanted:
            yield Looked(
                at=look.at,
                staff=look.staff,
                page=look.page,
                act=look.act,
                purpose=look.purpose_code,
                is_allowed=look.allowed,
                reason=look.reason_code,
                why=look.why,
            )


def requests_of(home: Home, known: Known, at: datetime) -> Iterator[Requested]:
    """What the person asked of us, by the key the log of requests knows them by."""
    if not (home.root / RIGHTS).is_file():
        return
    with open_rights(home) as log:
        for request in log.requests():
            if request.subject_key in known.keys:
                yield Requested(
                    request_id=request.request_id,
                    kind=request.kind,
                    state=request.state,
                    received_at=request.received_at,
                    deadline=request.deadline,
                    is_overdue=request.is_overdue(at),
                )
