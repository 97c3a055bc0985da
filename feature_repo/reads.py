"""Consent in the read: the one way personal features leave the online store.

A service names its purpose, standing travels in the same query as the features, and each subject is answered or
refused with a reason. Whatever is missing, behind or unreadable is a refusal (law 1). Imports nothing slow.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from feature_repo import catalogue
from feature_repo.catalogue import SUBJECT_STANDING, Service, View
from feature_repo.heard import Heard
from feature_repo.packed import Row, from_microseconds, to_microseconds
from feature_repo.store import PackedStore, StoredRow, entity_key, entity_values, online_store
from troth.errors import TrothError
from troth.home import Home

NOT_PERSONAL = "not_personal"
PRESENT, NOT_FOUND, OUTSIDE_MAX_AGE = "PRESENT", "NOT_FOUND", "OUTSIDE_MAX_AGE"


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer rests on: ledger size now and when standing was projected, and the published version per view."""

    ledger_size: int | None
    standing_ledger_size: int | None
    versions: dict[str, str | None]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Features of one entity for one use, or a refusal with its reason; `features` is null when refused.

    `statuses` says per view whether its row was there and young enough; its features are null when not.
    """

    service: str
    purpose_code: str | None
    channel_code: str
    entity: dict[str, str]
    is_allowed: bool
    reason_code: str
    features: Row | None
    statuses: dict[str, str]
    newest_event_at: datetime | None
    age_seconds: float | None
    answered_at: datetime
    evidence: Evidence


# Whether a purpose and channel are allowed by all the ledger heard, and why; None when that cannot be told.
Tail = Callable[[str, str], tuple[bool, str] | None]


@dataclass(frozen=True)
class Source:
    """Where answers come from: the online store, how large the consent ledger is now (raises when unreadable), and what it
    heard since standing was projected.
    """

    store: PackedStore
    ledger_size: Callable[[], int]
    heard: Heard | None = None


def source(home: Home) -> Source:
    """The source of a home. Keep it: it holds the connections."""

    def ledger_size() -> int:
        from consent.ledger import opening

        return opening.ledger_size(home)

    return Source(online_store(home.features), ledger_size, Heard(home))


def read_features(
    home: Home | Source, service: str | Service, entities: Sequence[Mapping[str, str]], at: datetime
) -> list[Answer]:
    """One answer per entity, in their order; personal ones only where standing for the service's purpose holds at `at`.

    Raises: FeatureError for an unknown service, a key that does not fit, or a home without an online store.
    """
    from_where = home if isinstance(home, Source) else source(home)
    use = catalogue.service(service) if isinstance(service, str) else service
    keys = [entity_key(use.entity, [entity.get(name) for name in use.entity.join_keys]) for entity in entities]
    asked = dict.fromkeys([*use.views, SUBJECT_STANDING] if use.is_personal else use.views)
    size = readable_size(from_where) if use.is_personal else None
    rows = from_where.store.read([view.name for view in asked], keys)
    return [_answer(use, key, rows, size, at, from_where.heard) for key in keys]


def readable_size(from_where: Source) -> int | None:
    """The ledger's size now; None when it cannot be read, which refuses everything."""
    try:
        return from_where.ledger_size()
    except (TrothError, OSError, sqlite3.Error):
        return None


def standing(
    purpose_code: str,
    channel_code: str,
    row: StoredRow | None,
    ledger_size: int | None,
    at: datetime,
    tail: Tail | None = None,
) -> tuple[bool, str]:
    """Whether a use is allowed at `at`, and why, from a subject's projected standing and the ledger's size now.

    Of events the projection has not seen, `tail` tells; without it they refuse everybody, for a withdrawal could be among
    them. A yes must also be recent, since links between identities and the policy change without an event; a no need not.
    """
    slot = catalogue.standing_slot(purpose_code, channel_code)
    fault = _fault(row, ledger_size) if slot else "unknown_purpose"
    if (
        row is not None
        and fault == "projection_behind"
        and tail is not None
        and (found := tail(purpose_code, channel_code))
    ):
        is_current = not found[0] or is_fresh(SUBJECT_STANDING, row.event_us, at)
        return found if is_current else (False, "projection_stale")
    if row is None or fault:
        return False, fault or "projection_missing"
    reason = row.values.get(f"reason_{slot}")
    if row.values.get(f"is_{slot}_allowed") is not True:
        return False, reason or "never_asked"
    expires_at = row.values.get(f"expires_{slot}_at")
    if expires_at is not None and expires_at <= at:
        return False, "expired"
    is_current = is_fresh(SUBJECT_STANDING, row.event_us, at)
    return is_current, (reason or "granted") if is_current else "projection_stale"


def _fault(row: StoredRow | None, ledger_size: int | None) -> str | None:
    """Why a projection of standing cannot be trusted now, if so."""
    if ledger_size is None:
        return "ledger_unreadable"
    if row is None:
        return "projection_missing"
    seen = row.values.get("ledger_size")
    if seen is None or seen < ledger_size:
        return "projection_behind"
    return "projection_ahead" if seen > ledger_size else None


def is_fresh(view: View, event_us: int, at: datetime) -> bool:
    """The row is no older than the view's time to live."""
    return to_microseconds(at) - event_us <= view.time_to_live.total_seconds() * 1e6


def _answer(
    use: Service,
    key: str,
    rows: Mapping[tuple[str, str], StoredRow],
    ledger_size: int | None,
    at: datetime,
    heard: Heard | None,
) -> Answer:
    projected = rows.get((SUBJECT_STANDING.name, key)) if use.is_personal else None
    is_allowed, reason = True, NOT_PERSONAL
    if use.purpose_code is not None:
        tail = (
            partial(heard.answer, entity_values(use.entity, key)[0], ledger_size, at)
            if heard and ledger_size is not None
            else None
        )
        is_allowed, reason = standing(use.purpose_code, use.channel_code, projected, ledger_size, at, tail)
    features: dict[str, Any] = {}
    statuses: dict[str, str] = {}
    versions: dict[str, str | None] = {}
    newest_us = None
    if is_allowed:
        for view in use.views:
            row = rows.get((view.name, key))
            statuses[view.name] = _status(view, row, at)
            is_present = row is not None and statuses[view.name] == PRESENT
            features |= {
                each.name: row.values.get(each.name) if row and is_present else None for each in view.online_fields
            }
            if row is not None:
                versions[view.name] = row.version
                newest_us = max(newest_us or row.event_us, row.event_us)
    return Answer(
        service=use.name,
        purpose_code=use.purpose_code,
        channel_code=use.channel_code,
        entity=dict(zip(use.entity.join_keys, entity_values(use.entity, key), strict=True)),
        is_allowed=is_allowed,
        reason_code=reason,
        features=features if is_allowed else None,
        statuses=statuses,
        newest_event_at=None if newest_us is None else from_microseconds(newest_us),
        age_seconds=None if newest_us is None else (to_microseconds(at) - newest_us) / 1e6,
        answered_at=at,
        evidence=Evidence(
            ledger_size=ledger_size,
            standing_ledger_size=None if projected is None else projected.values.get("ledger_size"),
            versions=versions,
        ),
    )


def _status(view: View, row: StoredRow | None, at: datetime) -> str:
    if row is None:
        return NOT_FOUND
    return PRESENT if is_fresh(view, row.event_us, at) else OUTSIDE_MAX_AGE
