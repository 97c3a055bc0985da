"""What stands in the log: one event, in the words of whoever sent it, with what is needed to order it and to find it again."""

from datetime import datetime

import msgspec

from serving.errors import ServingError

# What happened. Fulfilments, customers and web events come in their source's own shape alone, movements, picks and counts in the plain contract.
EVENT_TYPES = (
    *("movement", "supply", "pick", "count"),
    *("order", "refund", "fulfilment", "stock_level"),
    *("customer", "web_event", "consent"),
)


class NewEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event to be kept. Times are aware.

    `event_id` is the source's own: the same one again is the same event. `key`: events of one key have their effect in the order
    of their offsets (`position/<location>/<sku>`, `order/<id>`, `subject/<token>`). `topic` is what the source calls the event,
    `payload` is JSON: of a webhook the body as it came. `same_by`: what tells whether an id that comes again brings the same
    content, where that is not the whole payload.
    """

    source_name: str
    event_id: str
    event_type: str
    key: str
    occurred_at: datetime
    recorded_at: datetime
    received_at: datetime
    payload: bytes
    topic: str = ""
    same_by: bytes = b""


class Event(NewEvent, frozen=True, kw_only=True):
    """An event that is kept. Offsets begin at 1 and leave none out. The payload of who was erased is empty."""

    offset: int

    @property
    def is_erased(self) -> bool:
        """Whether its payload is gone with the person it was about: it says nothing any more, and has no effect."""
        return not self.payload


class LogError(ServingError):
    """The log cannot be read or written."""


class LogFullError(LogError):
    """No room for more now: whoever reads is too far behind, or the disk is nearly full. Nothing was kept."""

    def __init__(self, message: str, retry_seconds: int) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class EventConflictError(LogError):
    """Events whose ids are known with another content. The others of the batch are kept, these are set aside."""

    def __init__(self, message: str, positions: list[int]) -> None:
        super().__init__(message)
        self.positions = positions
