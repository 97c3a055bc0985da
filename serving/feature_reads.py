"""Features of many entities for one use, in columns: what is asked, and what the gate answered, told together."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec

from feature_repo.catalogue import Service
from feature_repo.reads import Answer, Evidence
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
    is_allowed: list[bool]
    reason_codes: list[str]
    features: dict[str, list[Any]]
    statuses: dict[str, list[str | None]]
    newest_event_at: list[datetime | None]
    age_seconds: list[float | None]
    answered_at: datetime
    evidence: Evidence


def rows_of(use: Service, columns: Mapping[str, Sequence[str]]) -> list[dict[str, str]] | None:
    """The entities of a request, one by one; None unless each join key of the service, and no other, has a column of one length."""
    names = use.entity.join_keys
    if set(columns) != set(names) or len({len(column) for column in columns.values()}) != 1:
        return None
    if len(names) == 1:
        name = names[0]
        return [{name: value} for value in columns[name]]
    return [dict(zip(names, values, strict=True)) for values in zip(*(columns[name] for name in names), strict=True)]


def in_columns(use: Service, answers: Sequence[Answer], at: datetime) -> FeatureColumns:
    """Answers to one question, as columns."""
    told = [answer.features or {} for answer in answers]
    names = [each.name for view in use.views for each in view.online_fields]
    versions: dict[str, str | None] = {}
    for answer in answers:
        versions |= answer.evidence.versions
    decided = [size for each in answers if (size := each.evidence.standing_ledger_size) is not None]
    return FeatureColumns(
        service=use.name,
        purpose_code=use.purpose_code,
        channel_code=use.channel_code,
        is_allowed=[answer.is_allowed for answer in answers],
        reason_codes=[answer.reason_code for answer in answers],
        features={name: [row.get(name) for row in told] for name in names},
        statuses={view.name: [answer.statuses.get(view.name) for answer in answers] for view in use.views},
        newest_event_at=[answer.newest_event_at for answer in answers],
        age_seconds=[answer.age_seconds for answer in answers],
        answered_at=at,
        evidence=Evidence(
            ledger_size=answers[0].evidence.ledger_size if answers else None,
            standing_ledger_size=min(decided, default=None),
            versions=versions,
        ),
    )
