"""Features of many entities for one use, in columns: what is asked, and what the gate answered, told together."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec

from feature_repo.catalogue import Service
from feature_repo.column_reads import Columns
from feature_repo.packed import from_microseconds, to_microseconds
from feature_repo.reads import Evidence
from serving.requests import MOST_TEXT

MOST_ENTITIES = 1_000
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MOST_TEXT)]


class FeaturesRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Entities by join key, each a column of one length: `{"service": "recommend_v1", "entities": {"customer_id": [...]}}`."""

    service: _Id
    entities: Annotated[
        dict[_Id, Annotated[list[_Id], msgspec.Meta(min_length=1, max_length=MOST_ENTITIES)]],
        msgspec.Meta(min_length=1, max_length=10),
    ]


class FeatureColumns(msgspec.Struct, frozen=True, kw_only=True):
    """Features of many entities for one use. Every list has one place per entity, in the order asked.

    Who is refused has null in every feature and `reason_codes` says why; `statuses` and `versions` are by view.
    `evidence.standing_ledger_size` is the smallest that any of them was decided under.
    """

    service: str
    purpose_code: str | None
    channel_code: str
    is_allowed: Sequence[bool]
    reason_codes: Sequence[str]
    features: Mapping[str, Sequence[Any]]
    statuses: Mapping[str, Sequence[str | None]]
    newest_event_at: Sequence[datetime | None]
    age_seconds: Sequence[float | None]
    answered_at: datetime
    evidence: Evidence


def fits(use: Service, columns: Mapping[str, Sequence[str]]) -> bool:
    """Whether each join key of the service, and no other, has a column, and all are of one length."""
    return set(columns) == set(use.entity.join_keys) and len({len(column) for column in columns.values()}) == 1


def in_columns(use: Service, found: Columns, at: datetime) -> FeatureColumns:
    """What the gate answered, as it is told."""
    now = to_microseconds(at)
    moments = {each: (None, None) if each is None else (from_microseconds(each), max(0, now - each) / 1e6) for each in set(found.newest_us)}  # fmt: skip
    newest = [moments[each] for each in found.newest_us]
    return FeatureColumns(
        service=use.name,
        purpose_code=use.purpose_code,
        channel_code=use.channel_code,
        is_allowed=found.is_allowed,
        reason_codes=found.reason_codes,
        features=found.features,
        statuses=found.statuses,
        newest_event_at=[moment for moment, _ in newest],
        age_seconds=[age for _, age in newest],
        answered_at=at,
        evidence=found.evidence,
    )
