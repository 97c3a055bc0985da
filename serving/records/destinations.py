"""Who is given data: places that exports are sent to, webhooks, and whoever `controller.yml` names. One shape for all of them."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from consent.receipts.shopper import Controller
from serving.activation.destinations import read_destinations
from serving.hub.webhooks import OUTBOX_FILE, Outbox
from serving.records.shapes import Recipient
from serving.records.uses import purposes_of
from troth.home import Home


def recipients(home: Home, controller: Controller) -> list[Recipient]:
    """Everybody who is given data, or may be: those that the system sends to first, then those that are only declared."""
    found = [
        Recipient(
            name=f"{place.recipient.legal_name} ({place.name})",
            kind="destination",
            role=place.recipient.role,
            country=place.recipient.country,
            is_transfer=place.recipient.country not in {controller.country, *controller.processing_locations},
            purposes=list(purposes_of(place)),
            keep_days=place.keep_days,
            sha256=place.hash,
        )
        for place in read_destinations(home)
    ]
    return [*found, *_webhooks(home), *_declared(controller)]


def _webhooks(home: Home) -> list[Recipient]:
    """Systems that are told of consent events, by token and never with contact data."""
    if not (home.root / OUTBOX_FILE).exists():
        return []
    outbox = Outbox(home)
    try:
        listed = outbox.destinations()
    finally:
        outbox.close()
    return [
        Recipient(
            name=f"{each.name} ({urlsplit(each.url).hostname})",
            kind="webhook",
            role=None,
            country=None,
            is_transfer=None,
            keep_days=None,
            purposes=list(each.purposes),
            sha256=hashed({"name": each.name, "url": each.url, "purposes": each.purposes}),
        )
        for each in listed
    ]


def _declared(controller: Controller) -> list[Recipient]:
    purposes: dict[str, list[str]] = {}
    for code, processing in controller.purposes.items():
        for name in processing.recipients:
            purposes.setdefault(name, []).append(code)
    return [
        Recipient(
            name=name,
            kind="declared",
            role=None,
            country=None,
            is_transfer=None,
            keep_days=None,
            purposes=listed,
            sha256=hashed({"name": name, "purposes": listed}),
        )
        for name, listed in purposes.items()
    ]


def hashed(content: Mapping[str, Any]) -> str:
    """SHA-256 of plain values in canonical JSON."""
    return sha256(json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()
