"""What the hub takes and gives as JSON: links, notices, preferences. Events and webhooks have theirs beside them."""

from datetime import datetime
from typing import Annotated

import msgspec

from consent.rule.policy import EVERY
from serving.hub.capture import Asked, Identifier
from serving.hub.links import SUBJECT, VALID_DAYS

MOST_LINKS = 1_000
MOST_CHANGES = 100


class WantedLink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A link to make: for whom, for what, for how many days. `unsubscribe` and `confirm` name purpose and channel."""

    kind: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(VALID_DAYS)})$")]
    identifier: Identifier | None = None
    subject_id: Annotated[str, msgspec.Meta(pattern=f"^{SUBJECT}$")] | None = None
    purpose_code: Asked = EVERY
    channel_code: Asked = EVERY
    valid_days: Annotated[int, msgspec.Meta(ge=1, le=1100)] | None = None


class WantedLinks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Links to make, answered in their order."""

    links: Annotated[list[WantedLink], msgspec.Meta(min_length=1, max_length=MOST_LINKS)]


class MadeLink(msgspec.Struct, frozen=True, kw_only=True):
    """A link as a path of this service. Whoever has it may do what it is for."""

    path: str
    expires_at: datetime


class MadeLinks(msgspec.Struct, frozen=True, kw_only=True):
    links: list[MadeLink]


class NoticeEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A notice text; `is_current` where it is the version shown now, `counts` where a yes under it still counts."""

    notice_id: str
    version: int
    language_code: str
    title: str
    hash: str
    is_current: bool
    counts: bool
    text: str | None = None


class Preference(msgspec.Struct, frozen=True, kw_only=True):
    """How one purpose and channel stand, why, since when, until when, and under which notice it was decided."""

    purpose_code: str
    channel_code: str
    title: str
    may_choose: bool
    is_allowed: bool
    reason_code: str
    reason: str
    since_at: datetime | None
    expires_at: datetime | None
    notice_id: str | None
    notice_version: int | None
    leaf_index: int | None


class Preferences(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a subject can choose, and the text to show when asking."""

    preferences: list[Preference]
    notice: NoticeEntry
    is_gpc_honoured: bool
    ledger_size: int
    answered_at: datetime
    link_expires_at: datetime


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A yes or a no. Only a no may be to every purpose (`*`)."""

    purpose_code: Asked
    channel_code: Asked
    is_allowed: bool


class Changes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person chose, and the notice they saw when choosing; a no needs none."""

    changes: Annotated[list[Change], msgspec.Meta(min_length=1, max_length=MOST_CHANGES)]
    notice_version: Annotated[int, msgspec.Meta(ge=1, le=999_999_999)] | None = None
    language_code: Annotated[str, msgspec.Meta(pattern=r"^[a-z]{2,3}(-[A-Z]{2})?$")] | None = None


class Redelivered(msgspec.Struct, frozen=True, kw_only=True):
    """How many dead deliveries are due again."""

    count: int
