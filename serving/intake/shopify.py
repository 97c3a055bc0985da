"""Webhooks as Shopify sends them: which topics are events of which type, what orders and identifies them, and what they say of consent.

https://shopify.dev/docs/api/webhooks. Bodies are kept as they came; here only what places them is read.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import msgspec

from serving.event_log.events import NewEvent
from serving.intake.shops import Shop
from serving.intake.terms import UnreadableError, check_time

SOURCE_NAME = "ecommerce"
ROUTE = "shopify"
Scalar = str | int | float | bool | None
_TYPES = {"orders": "order", "refunds": "refund", "fulfillments": "fulfilment", "inventory_levels": "stock_level", "customers": "customer"}  # fmt: skip
TOPICS = (
    *("orders/create", "orders/updated", "orders/cancelled", "orders/paid", "orders/fulfilled", "orders/partially_fulfilled"),
    *("refunds/create", "fulfillments/create", "fulfillments/update", "inventory_levels/update", "inventory_levels/connect"),
    *("customers/create", "customers/update", "customers/enable", "customers/disable"),
)  # fmt: skip
# These say nothing but consent: the ledger alone keeps them.
CONSENT_TOPICS = ("customers_email_marketing_consent/update", "customers_marketing_consent/update")


class _Consent(msgspec.Struct):
    state: Scalar = None
    opt_in_level: Scalar = None
    consent_updated_at: Scalar = None


class _Body(msgspec.Struct):
    """What places a body: whatever else it holds is not read here."""

    id: Scalar = None
    admin_graphql_api_id: Scalar = None
    order_id: Scalar = None
    customer_id: Scalar = None
    inventory_item_id: Scalar = None
    location_id: Scalar = None
    created_at: Scalar = None
    updated_at: Scalar = None
    email: Scalar = None
    email_address: Scalar = None
    phone: Scalar = None
    email_marketing_consent: _Consent | None = None
    sms_marketing_consent: _Consent | None = None


@dataclass(frozen=True)
class Delivery:
    """A webhook whose signature holds: its headers as far as they are used, and the body as it came."""

    topic: str
    shop_domain: str
    event_id: str
    triggered_at: datetime | None
    body: bytes


def delivery(headers: Mapping[str, str], body: bytes) -> Delivery:
    """What a request says it is. Headers are not signed: they name and order, and decide nothing."""
    triggered = None
    with suppress(UnreadableError):  # the body says when it happened
        triggered = _instant("triggered_at", headers.get("x-shopify-triggered-at"))
    return Delivery(
        topic=headers.get("x-shopify-topic", "")[:100],
        shop_domain=headers.get("x-shopify-shop-domain", "")[:200].lower(),
        event_id=(headers.get("x-shopify-event-id") or headers.get("x-shopify-webhook-id") or "")[:100],
        triggered_at=triggered,
        body=body,
    )


def read(sent: Delivery, received_at: datetime) -> NewEvent:
    """The event of a delivery under one of `TOPICS`. Raises: UnreadableError.

    Duplicates carry the same event id. One event of the shop may give webhooks under several topics and about several
    things, and two versions within a second, so the topic, the thing and a hash of the body are part of the id here: nothing that differs is
    taken for a duplicate, and what is a duplicate after all says the same absolute state again.
    """
    body = _body(sent.body)
    kind = _TYPES[sent.topic.partition("/")[0]]
    thing, key, changed = _placed(kind, body)
    occurred_at = _instant(*changed)
    check_time(changed[0], occurred_at, received_at)
    digest = blake2b(sent.body, digest_size=8).hexdigest()
    return NewEvent(
        source_name=SOURCE_NAME,
        event_id=f"{_plain(sent.event_id)}/{sent.topic}/{thing}/{digest}",
        event_type=kind,
        key=key,
        occurred_at=occurred_at,
        recorded_at=sent.triggered_at or occurred_at,
        received_at=received_at,
        payload=sent.body,
        topic=sent.topic,
    )


def consents(sent: Delivery, shop: Shop, received_at: datetime) -> Iterator[dict[str, Any]]:
    """What a body about a customer says of consent, as `/v1/consents` takes it; nothing where it says nothing.

    A yes counts only under the notice the shop's customers see, and only with its own time: a replay must not make an old
    yes young. A no without a time is taken as said now. Raises: UnreadableError.
    """
    body = _body(sent.body)
    account = _text(body.customer_id) if sent.topic in CONSENT_TOPICS else _tail(body)
    for channel, kind, said, given in (
        ("email", "email", body.email_marketing_consent, _text(body.email) or _text(body.email_address)),
        ("sms", "phone", body.sms_marketing_consent, _text(body.phone)),
    ):
        state = (_text(said.state) or "").lower() if said else ""
        if said is None or state not in ("subscribed", "unsubscribed"):
            continue
        if not (given or account):
            raise UnreadableError("email", "expected whom the consent is of, found nobody. Send the customer's id.")
        at = said.consent_updated_at
        if state == "subscribed" and (at is None or shop.notice_id is None):
            continue
        occurred_at = _instant("consent_updated_at", at) if at is not None else sent.triggered_at or received_at
        told: dict[str, Any] = {
            "signal_id": f"shopify/{account or 'guest'}/{channel}/{occurred_at:%Y%m%dT%H%M%S%f}",
            "purpose_code": "marketing",
            "channel_code": channel,
            "occurred_at": occurred_at.isoformat(),
            "capture_method": "shopify",
            "capture_place": sent.shop_domain,
            "actor_type": "system",
            "jurisdiction_code": shop.jurisdiction_code,
            "identifier": {"type": kind if given else "account", "value": given or account},
        }
        if state == "unsubscribed":
            yield {**told, "event_type": "withdraw"}
            continue
        yield {
            **told,
            "event_type": "grant",
            "notice_id": shop.notice_id,
            "notice_version": shop.notice_version,
            "language_code": shop.language_code,
        }
        if (_text(said.opt_in_level) or "").lower() == "confirmed_opt_in":
            yield {**told, "event_type": "confirm"}


def _body(data: bytes) -> _Body:
    try:
        return msgspec.json.decode(data, type=_Body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise UnreadableError("body", "expected a JSON object of Shopify's form, found otherwise.") from None


def _placed(kind: str, body: _Body) -> tuple[str, str, tuple[str, Scalar]]:
    """What a body is about, its order key, and the field that says when."""
    updated, created = ("updated_at", body.updated_at), ("created_at", body.created_at)
    if kind == "stock_level":
        thing = f"{_needed('location_id', body.location_id)}/{_needed('inventory_item_id', body.inventory_item_id)}"
        return thing, f"level/{thing}", updated
    thing = _needed("id", _tail(body))
    if kind == "customer":
        return thing, f"customer/{thing}", updated
    if kind == "order":
        return thing, f"order/{thing}", updated
    order = _needed("order_id", body.order_id)
    return thing, f"order/{order}", created if kind == "refund" or body.updated_at is None else updated


def _needed(name: str, value: Scalar) -> str:
    text = _plain(_text(value) or "")
    if not text:
        raise UnreadableError(name, "expected an id, found none.")
    return text


def _tail(body: _Body) -> str | None:
    """The tail of the gid where there is one: plain ids above 2^53 are rounded by many senders."""
    gid = body.admin_graphql_api_id
    return gid.rpartition("/")[2].partition("?")[0] if isinstance(gid, str) and gid else _text(body.id)


def _text(value: Scalar) -> str | None:
    return None if value is None or isinstance(value, bool) else str(value).strip() or None


def _plain(text: str) -> str:
    """An id as ids may be spelled; one of any other spelling becomes its hash."""
    is_plain = text.isascii() and len(text) <= 100 and all(each.isalnum() or each in "-_.:" for each in text)
    return text if is_plain else blake2b(text.encode("utf-8", "replace"), digest_size=12).hexdigest()


def _instant(name: str, value: Scalar) -> datetime:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise UnreadableError(name, "expected a time with its offset (ISO 8601), found otherwise.")
    return at.astimezone(UTC)
