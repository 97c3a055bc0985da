"""Telling destinations: signed messages, one at a time per subject, tried again until acknowledged or dead.

Messages follow Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature: v1,<base64>`, where the
signature is HMAC-SHA-256 over `<id>.<timestamp>.<body>` under the bytes of the secret after `whsec_`.
"""

import fcntl
import hmac
import http.client
import json
import random
import re
import socket
import ssl
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import msgspec

from consent.events import Event, Recorded
from consent.rule.identity import LINK_EVENTS
from consent.rule.policy import Policy
from serving.errors import ServingError
from serving.hub.addresses import check_url, resolve
from serving.hub.preferences import Ledger, choices, history
from serving.hub.webhooks import Delivery, Destination, Outbox, Outcome
from serving.operations.traces import Traces
from troth.clock import Clock
from troth.errors import TrothError
from troth.home import Home

MOST_ATTEMPTS = 12  # over about a day and a half
FIRST_WAIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(hours=12)
TIMEOUT_SECONDS = 5  # without a byte
DEADLINE_SECONDS = 15  # of a whole exchange
REPLAY_WINDOW = timedelta(minutes=5)  # a receiver refuses a message whose timestamp is further away than this
MOST_ANSWER_BYTES = 64 * 1024
MOST_AT_ONCE = 200
WORKERS = 8
_RECEIPT = re.compile(r"[A-Za-z0-9_.:/=-]{1,200}")


class StandingNow(msgspec.Struct, frozen=True, kw_only=True):
    """What may be done now with one identity: the newest answer, whichever event the message is about."""

    subject_id: str
    purpose_code: str
    channel_code: str
    is_allowed: bool
    reason_code: str


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What happened, where it is in the ledger, and how the destination's purposes stand now. Never contact data.

    `standings` are the subject's, and those of every identity it was ever joined to: a no reaches them too.
    """

    subject_id: str
    event_type: str
    purpose_code: str
    channel_code: str
    occurred_at: datetime
    recorded_at: datetime
    received_at: datetime
    jurisdiction_code: str
    leaf_index: int
    linked_subject_id: str | None
    standings: list[StandingNow]
    checkpoint: str


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a webhook."""

    type: str
    timestamp: datetime
    data: Told


Send = Callable[[str, Mapping[str, str], bytes], Outcome]


@dataclass(frozen=True)
class Pump:
    """Everything one round of deliveries needs. `send` and `jitter` are handed in so that a test can step it.

    `clock` tells the time standing is asked for; `wall` the receiver's, which differs where a retailer is generated.
    """

    home: Home
    clock: Clock
    wall: Clock
    ledger: Ledger
    policy: Policy
    outbox: Outbox
    send: Send
    jitter: Callable[[], float] = random.random
    traces: Traces | None = None


def deliver(pump: Pump) -> int:
    """One round: move every destination's cursor to the ledger's end, then try what is due. How many attempts.

    Rounds of several processes take turns; who finds another one at it leaves it to that one.
    """
    with _turn(pump.home) as is_ours:
        if not is_ours:
            return 0
        destinations = pump.outbox.destinations()
        if len(destinations) < 2:
            return sum(_serve(pump, each) for each in destinations)
        with ThreadPoolExecutor(min(WORKERS, len(destinations))) as pool:  # a slow one holds up nobody else
            return sum(pool.map(lambda each: _serve(pump, each), destinations))


def run(pump: Pump, stop: threading.Event, pause_seconds: float = 1.0) -> None:
    """Rounds until told to stop. What cannot be read now is tried again in the next round."""
    while not stop.is_set():
        try:
            busy = deliver(pump) > 0
        except (TrothError, OSError):
            busy = False
        stop.wait(0 if busy else pause_seconds)


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Standard Webhooks, symmetric: `v1,` and base64 of HMAC-SHA-256 over `<id>.<timestamp>.<body>`."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    key = b64decode(secret.removeprefix("whsec_"))
    return "v1," + b64encode(hmac.digest(key, signed, "sha256")).decode()


def wait(attempt_count: int, jitter: float) -> timedelta:
    """How long after the n-th failed attempt: doubling from 5 s to 12 h, and between half and all of that."""
    longest = min(LONGEST_WAIT, FIRST_WAIT * (1 << min(attempt_count - 1, 20)))
    return longest * (0.5 + jitter / 2)


def post(url: str, headers: Mapping[str, str], body: bytes, *, allow_loopback: bool = False) -> Outcome:
    """Send once, to an address that was checked after resolving it. Redirects are not followed, answers read in part."""
    parts = urlsplit(url)
    try:
        check_url(url, allow_loopback=allow_loopback)
        connection = _connect(parts.scheme, parts.hostname or "", parts.port, allow_loopback=allow_loopback)
    except (ServingError, OSError):
        return Outcome(False, fault="unreachable")
    deadline = threading.Timer(DEADLINE_SECONDS, _hang_up, (connection.sock,))
    deadline.daemon = True
    deadline.start()
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, dict(headers))
        answer = connection.getresponse()
        text = answer.read(MOST_ANSWER_BYTES)
    except (OSError, http.client.HTTPException):
        return Outcome(False, fault="no_answer")
    finally:
        deadline.cancel()
        connection.close()
    if not 200 <= answer.status < 300:
        return Outcome(False, answer.status, "refused")
    return Outcome(True, answer.status, receipt_id=_receipt_id(text))


def _serve(pump: Pump, destination: Destination) -> int:
    pump.outbox.fill(destination, pump.ledger, pump.clock.now())
    attempts = 0
    while due := pump.outbox.due(destination.destination_id, pump.clock.now(), MOST_AT_ONCE - attempts):
        for delivery in due:
            attempts += 1
            if not _attempt(pump, destination, delivery):
                return attempts  # nobody there: the rest can wait for the next round
        if attempts >= MOST_AT_ONCE:
            break
    return attempts


def _attempt(pump: Pump, destination: Destination, delivery: Delivery) -> bool:
    """Try once and write down how it ended. False when nothing answered at all."""
    at, sent_at = pump.clock.now(), pump.wall.now()
    found = next(iter(pump.ledger.events(delivery.leaf_index, delivery.leaf_index + 1)), None)
    if found is None:  # the subject was erased: there is nothing left to tell
        pump.outbox.settle(delivery, Outcome(False, fault="erased"), "withheld", at, at)
        return True
    recorded = history(pump.ledger, found.event.subject_id)
    if found.event.event_type in LINK_EVENTS and not _matters(pump, destination, found.event, recorded, at):
        pump.outbox.settle(delivery, Outcome(False, fault="nothing_changed"), "withheld", at, at)
        return True
    told = _told(pump, found, _standings(pump, destination, recorded, recorded, at))
    body = msgspec.json.encode(Message(type=f"consent.{found.event.event_type}", timestamp=sent_at, data=told))
    message_id, timestamp = f"{destination.destination_id}.{delivery.leaf_index}", int(sent_at.timestamp())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "troth-webhooks/1",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(pump.outbox.secret(destination.destination_id), message_id, timestamp, body),
    }
    count = delivery.attempt_count + 1
    outcome = _sent(pump, destination, headers, body, count)
    if outcome.is_acknowledged:
        pump.outbox.settle(delivery, outcome, "delivered", at, at)
    elif count >= MOST_ATTEMPTS:
        pump.outbox.settle(delivery, outcome, "dead", at, at)
    else:
        pump.outbox.settle(delivery, outcome, "pending", at, at + wait(count, pump.jitter()))
    return outcome.is_acknowledged or outcome.status is not None


def _sent(pump: Pump, destination: Destination, headers: Mapping[str, str], body: bytes, attempt: int) -> Outcome:
    """Send once, as a span where somebody listens, whose trace the receiver is told."""
    if pump.traces is None:
        return pump.send(destination.url, headers, body)
    span, trace = pump.traces.begin_sending(
        urlsplit(destination.url).hostname or "", destination.destination_id, attempt
    )
    outcome = Outcome(False)
    try:
        outcome = pump.send(destination.url, {**headers, **trace}, body)
    finally:
        pump.traces.end_sending(span, outcome.status, is_acknowledged=outcome.is_acknowledged)
    return outcome


def _matters(pump: Pump, destination: Destination, link: Event, recorded: Sequence[Recorded], at: datetime) -> bool:
    """Whether anything stands otherwise than without a link, or its end: who was linked without a no has nothing to tell."""
    both = {link.subject_id, link.linked_subject_id}
    others = [
        each
        for each in recorded
        if (each.event.event_type, each.event.link_type, each.event.received_at)
        != (link.event_type, link.link_type, link.received_at)
        or {each.event.subject_id, each.event.linked_subject_id} != both
    ]
    return _standings(pump, destination, recorded, recorded, at) != _standings(pump, destination, recorded, others, at)


def _standings(
    pump: Pump, destination: Destination, told_by: Sequence[Recorded], recorded: Sequence[Recorded], at: datetime
) -> list[StandingNow]:
    """How the destination's purposes stand by `recorded` for everyone whom `told_by` speaks of."""
    return [
        StandingNow(
            subject_id=subject_id,
            purpose_code=each.purpose_code,
            channel_code=each.channel_code,
            is_allowed=each.standing.is_allowed,
            reason_code=each.standing.reason_code,
        )
        for subject_id in sorted({each.event.subject_id for each in told_by})
        for each in choices(recorded, pump.policy, subject_id, at)
        if each.purpose_code in destination.purposes
    ]


def _told(pump: Pump, found: Recorded, standings: list[StandingNow]) -> Told:
    event = found.event
    return Told(
        subject_id=event.subject_id,
        event_type=event.event_type,
        purpose_code=event.purpose_code,
        channel_code=event.channel_code,
        occurred_at=event.occurred_at,
        recorded_at=event.recorded_at,
        received_at=event.received_at,
        jurisdiction_code=event.jurisdiction_code,
        leaf_index=found.leaf_index,
        linked_subject_id=event.linked_subject_id,
        standings=standings,
        checkpoint=pump.ledger.checkpoint(),
    )


def _connect(scheme: str, host: str, port: int | None, *, allow_loopback: bool) -> http.client.HTTPConnection:
    """A connection to the very address that was checked: a name cannot change its mind in between."""
    port = port or (443 if scheme == "https" else 80)
    address = resolve(host, port, allow_loopback=allow_loopback)
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    connected: socket.socket = socket.create_connection((address, port), timeout=TIMEOUT_SECONDS)
    if scheme == "https":
        try:
            connected = ssl.create_default_context().wrap_socket(connected, server_hostname=host)
        except OSError:
            connected.close()
            raise
    connection.sock = connected
    return connection


def _hang_up(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _receipt_id(text: bytes) -> str | None:
    """The receiver's own number for what it took, if it gave one: `{"receipt_id": "..."}`."""
    try:
        told = json.loads(text).get("receipt_id")
    except (ValueError, AttributeError, RecursionError):
        return None
    return told if isinstance(told, str) and _RECEIPT.fullmatch(told) else None


@contextmanager
def _turn(home: Home) -> Iterator[bool]:
    """Whether it is this process's turn; the operating system takes the turn back when a process dies."""
    with (home.root / "webhooks.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
