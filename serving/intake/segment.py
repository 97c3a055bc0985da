"""Messages of the Segment spec, as tracking libraries send them: one call, or many in a batch.

https://segment.com/docs/connections/sources/catalog/libraries/server/http-api. A message is kept as it came; its people are in its order key as tokens.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Annotated

import msgspec

from serving.event_log.events import NewEvent
from serving.intake.terms import MOST_AHEAD, UnreadableError
from serving.requests import decoded

SOURCE_NAME = "ecommerce"
ROUTE = "segment"
CALLS = ("track", "identify", "page", "screen")
MOST_MESSAGE_BYTES = 32 * 1024
MOST_BATCH_BYTES = 500 * 1024
Scalar = str | int | float | bool | None
Token = Callable[[str, str | None], str | None]


class Sent(msgspec.Struct):
    """A batch as it came."""

    batch: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=2_500)]
    sent_at: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="sentAt")
    context: msgspec.Raw = msgspec.Raw()


class Tracked(msgspec.Struct, frozen=True, kw_only=True):
    """How many messages were kept now, were known, and were set aside. Never an error: a library could do nothing about it."""

    success: bool
    kept: int
    known: int
    set_aside: int


class _Message(msgspec.Struct, rename="camel"):
    type: Scalar = None
    event: Scalar = None
    message_id: Scalar = None
    anonymous_id: Scalar = None
    user_id: Scalar = None
    timestamp: Scalar = None
    original_timestamp: Scalar = None
    sent_at: Scalar = None


def unpacked(data: bytes, call: str) -> list[bytes]:
    """The messages of a request body, each with what it takes from its batch or from the path. Raises: ProblemError 400 or 422."""
    if call != "batch":
        fields = decoded(data, dict[str, msgspec.Raw])
        return [msgspec.json.encode({"type": call} | fields)]
    batch = decoded(data, Sent)
    shared: dict[str, msgspec.Raw] = {
        name: value for name, value in (("sentAt", batch.sent_at), ("context", batch.context)) if bytes(value)
    }
    messages = []
    for raw in batch.batch:
        own = _fields(raw)
        messages.append(bytes(raw) if own is None else msgspec.json.encode({**shared, **own}))
    return messages


def read(data: bytes, token: Token, received_at: datetime) -> NewEvent:
    """The event of one message. Raises: UnreadableError."""
    if len(data) > MOST_MESSAGE_BYTES:
        raise UnreadableError("message", f"expected at most {MOST_MESSAGE_BYTES} bytes, found more.")
    fields = _fields(data)
    try:
        message = msgspec.json.decode(data, type=_Message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        message, fields = _Message(), None
    if fields is None:
        raise UnreadableError("message", "expected a JSON object of the Segment spec, found otherwise.")
    if message.type not in CALLS:
        raise UnreadableError("type", f"expected one of {', '.join(CALLS)}, found another.")
    if message.type == "track" and not message.event:
        raise UnreadableError("event", "expected the name of what happened, found none.")
    who = _who(message, token)
    fields.pop("receivedAt", None)  # what we say ourselves
    stated = msgspec.json.encode({name: value for name, value in fields.items() if name != "sentAt"})
    message_id = message.message_id if isinstance(message.message_id, str) and message.message_id else None
    digest = blake2b((message_id or "").encode() or stated, digest_size=12).hexdigest()
    occurred_at = _instant(message.original_timestamp) or _instant(message.timestamp) or received_at
    return NewEvent(
        source_name=SOURCE_NAME,
        event_id=f"segment/{digest}",
        event_type="web_event",
        key=f"subject/{who}",
        occurred_at=min(occurred_at, received_at + MOST_AHEAD),
        recorded_at=received_at,
        received_at=received_at,
        payload=msgspec.json.encode(
            {"messageId": message_id or digest} | {k: v for k, v in fields.items() if k != "messageId"}
        ),
        topic=str(message.type),
        same_by=stated,  # a library that sends again says when it sends
    )


def _fields(data: bytes | msgspec.Raw) -> dict[str, msgspec.Raw] | None:
    try:
        return msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _who(message: _Message, token: Token) -> str:
    for kind, given in (("account", message.user_id), ("device", message.anonymous_id)):
        made = token(kind, str(given)) if given is not None and not isinstance(given, bool) else None
        if made:
            return made
    raise UnreadableError("userId", "expected userId or anonymousId, found neither.")


def _instant(value: Scalar) -> datetime | None:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return at.astimezone(UTC) if at is not None and at.tzinfo is not None else None
