"""A small retailer with destinations: a folder, a bucket of a real S3 server, and a receiver that verifies what is signed."""

import base64
import hmac
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from models.segments import kept
from models.segments.definition import Segment, written
from models.segments.rules import Rules
from serving.activation.destinations import destination_of, webhook_secret
from serving.activation.dispatch import Dispatch
from tests.integration.segment_shop import AS_OF, EVERYBODY, Shop, plain_segment, said
from troth.clock import FixedClock
from troth.home import Home

DESTINATIONS = """\
destinations:
  own_folder:
    kind: folder
    where: exports/own
    format: csv
    purposes: [marketing]
    channels: [email, sms, in_app]
    recipient: {legal_name: Troth Outfitters, role: own, country: US}
  desk:
    kind: folder
    where: exports/desk
    format: parquet
    purposes: [marketing]
    channels: [email]
    recipient: {legal_name: Letterbird GmbH, role: processor, country: DE}
    needs_approval: true
  partner:
    kind: folder
    where: exports/partner
    format: csv
    purposes: [marketing]
    channels: [email]
    recipient: {legal_name: Tent & Trail Co-op, role: third_party, country: US}
  advice:
    kind: folder
    where: exports/advice
    purposes: [personalization]
    channels: [email]
    recipient: {legal_name: Troth Outfitters, role: own, country: US}
"""
S3 = """\
  lake:
    kind: s3
    where: troth-exports/crm
    format: parquet
    purposes: [marketing]
    channels: [email]
    recipient: {legal_name: Troth Outfitters, role: own, country: US}
    region: us-east-1
    credentials: lake
    endpoint: %s
    is_local: true
"""
WEBHOOK = """\
  letters:
    kind: webhook
    where: http://127.0.0.1:%d/troth
    purposes: [marketing]
    channels: [email]
    recipient: {legal_name: Letterbird GmbH, role: processor, country: DE}
    is_local: true
"""


class MovingClock:
    def __init__(self, at: datetime = AS_OF) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at


def declare(home: Home, *more: str) -> None:
    (home.root / "destinations.yml").write_text(DESTINATIONS + "".join(more))


def describe(home: Home, name: str = "everybody", **named: Any) -> Segment:
    """A definition in the home."""
    segment = plain_segment(EVERYBODY, name=name, **named)
    path = kept.folder_of(home) / "definitions" / f"{name}.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(written(segment))
    return segment


def dispatch_of(home: Home, wall: MovingClock | None = None, **named: Any) -> Dispatch:
    """Sends over and over, so without caps unless they are what is tested."""
    return Dispatch(home, FixedClock(AS_OF), wall or MovingClock(), jitter=lambda: 0.0, **{"rules": Rules(), **named})


def withdraws(shop: Shop, customer_id: str, number: int = 1_000, event_type: str = "withdraw", **named: Any) -> None:
    """A no by e-mail, which only the ledger hears of."""
    subject = next(who["email_ref"] for who in shop.customers if who["customer_id"] == customer_id)
    shop.tell([said(subject, event_type, number, AS_OF + timedelta(minutes=number % 50), **named)], publish=False)


class Receiver:
    """Takes signed messages, each id once; `refuses` says how many of the next are answered with an error, before or after taking."""

    def __init__(self, secret: str) -> None:
        self.key = base64.b64decode(secret.removeprefix("whsec_"))
        self.messages: dict[str, dict[str, Any]] = {}
        self.bodies: dict[str, bytes] = {}
        self.arrivals: list[str] = []
        self.refuses = 0
        self.is_deaf_after_taking = False

    def take(self, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        message_id, at = headers["webhook-id"], headers["webhook-timestamp"]
        signed = hmac.digest(self.key, f"{message_id}.{at}.".encode() + body, "sha256")
        if not hmac.compare_digest(f"v1,{base64.b64encode(signed).decode()}", headers["webhook-signature"]):
            return 401, b"{}"
        self.arrivals.append(message_id)
        if self.refuses and not self.is_deaf_after_taking:
            self.refuses -= 1
            return 503, b"{}"
        if message_id not in self.messages:
            self.messages[message_id], self.bodies[message_id] = json.loads(body), body
        if self.refuses:
            self.refuses -= 1
            return 503, b"{}"
        return 200, json.dumps({"receipt_id": f"took-{message_id}"}).encode()

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [each["data"] for each in self.messages.values() if each["type"] == kind]


@contextmanager
def receiving(home: Home, *more: str) -> Iterator[Receiver]:
    """A receiver on the loopback address, declared as `letters`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, answer = receiver.take(self.headers, self.rfile.read(int(self.headers["Content-Length"])))  # type: ignore[arg-type]
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        declare(home, WEBHOOK % server.server_address[1], *more)
        receiver = Receiver(webhook_secret(home, destination_of(home, "letters")))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
