"""What the plain contract is spelled with: ids, names, pieces, money, what every event says of itself, and what is wrong with one."""

from datetime import datetime, timedelta
from typing import Annotated

import msgspec

from serving.hub.capture import Instant

MOST_AHEAD = timedelta(days=1)  # a clock further ahead than this is wrong, not fast
_FIRST_YEAR = 1970

# No e-mail address fits: ids are kept where contact data is not.
Ident = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:/*=#-]{1,200}$")]
SourceName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Pieces = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
SomePieces = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
SignedPieces = Annotated[int, msgspec.Meta(ge=-1_000_000, le=1_000_000)]
Cents = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]


class Sent(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="event_type"
):
    """What every event says: its sender's id, and when it happened there."""

    event_id: Ident
    occurred_at: Instant
    recorded_at: Instant | None = None


class UnreadableError(Exception):
    """What was sent is not what was described: the field and what was expected of it, without the value."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field, self.detail = field, detail


def check_time(name: str, at: datetime, received_at: datetime) -> None:
    """Raises: UnreadableError for a time that no clock which goes right could tell."""
    if at.year < _FIRST_YEAR or at > received_at + MOST_AHEAD:
        raise UnreadableError(
            name, f"expected a time from {_FIRST_YEAR} to a day from now, found another. Correct the clock."
        )
