"""Consent in the read: the one way personal features leave the online store.

A service names its purpose, standing travels in the same query as the features, and each subject is answered or
refused with a reason. Whatever is missing, behind or unreadable is a refusal (law 1). Imports nothing slow.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from feature_repo import catalogue
from feature_repo.catalogue import REASON_BITS, REASONS, SUBJECT_GATE, Service, View
from feature_repo.heard import Heard
from feature_repo.packed import Layout, Row, from_microseconds, to_microseconds
from feature_repo.store import OnlineStore, Standing, entity_key, entity_values, online_store
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


_GATE_LIVES_US = int(SUBJECT_GATE.time_to_live.total_seconds() * 1e6)
# Whether a use is allowed and why, and how much of the ledger was seen by the projection.
Decision = tuple[bool, str, int | None]


@dataclass(frozen=True)
class Source:
    """Where answers come from: the online store, how large the consent ledger is now (raises when unreadable), and what it
    heard since standing was projected.
    """

    store: OnlineStore
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
    size = readable_size(from_where) if use.is_personal else None
    found = from_where.store.fetch([*use.views, SUBJECT_GATE] if use.is_personal else use.views, keys)
    decisions: Sequence[Decision] = [(True, NOT_PERSONAL, None)] * len(keys)
    if use.is_personal:
        decisions = decided(use, from_where, size, at, found.standings[-1], keys, found.rows[-1])
    versions = [standing.version for standing in found.standings]
    return [
        _answer(use, key, rows, versions, size, at, from_where.store, decision)
        for key, decision, rows in zip(keys, decisions, zip(*found.rows, strict=True), strict=True)
    ]


def readable_size(from_where: Source) -> int | None:
    """The ledger's size now; None when it cannot be read, which refuses everything."""
    try:
        return from_where.ledger_size()
    except (TrothError, OSError, sqlite3.Error):
        return None


def projection(from_where: Source, at: datetime) -> tuple[str | None, int | None, int | None]:
    """Why everyone would be refused now, or None; the ledger's size, and that under which standing was projected."""
    size, row = readable_size(from_where), from_where.store.sample(SUBJECT_GATE)
    without_tail = Source(from_where.store, from_where.ledger_size)
    (standing,) = from_where.store.standings([SUBJECT_GATE])
    use = catalogue.service("standing_v1")
    ((is_allowed, reason, seen),) = decided(use, without_tail, size, at, standing, [""], [row])
    return None if is_allowed else reason, size, seen


def decided(
    use: Service, from_where: Source, ledger_size: int | None, at: datetime, standing: Standing, keys: Sequence[str], rows: Sequence[tuple[int, bytes] | None]
) -> list[Decision]:  # fmt: skip
    """Who may be used for a service at `at`, given entities and their rows of projected standing. `standing`: of the gate's view.

    Of events the projection has not seen, `heard` tells; without it they refuse everybody, for a withdrawal could be among them. A yes
    must also be recent, since links between identities and the policy change without an event; a no need not.
    """
    slot, now = catalogue.standing_slot(use.purpose_code or "", use.channel_code), to_microseconds(at)
    oldest, seen = now - _GATE_LIVES_US, standing.mark
    if slot is None:
        return [(False, "unknown_purpose", None)] * len(keys)
    missing: Decision = (False, "projection_missing" if ledger_size is not None else "ledger_unreadable", None)
    if seen is None or seen != ledger_size:
        return [
            missing if row is None else (*_changed(use, from_where, ledger_size, seen, at, key, row[0] < oldest), seen)
            for key, row in zip(keys, rows, strict=True)
        ]
    least = now << 8 | REASON_BITS  # a yes that ends later is larger
    found, written_as, read = list[Decision](), b"", None
    for row in rows:
        if row is None:
            found.append(missing)
            continue
        event_us, value = row
        if read is None or value[:4] != written_as:
            written_as, read = value[:4], _gate_reader(from_where.store.layout(value), slot)
        (answer,) = read(value)
        if answer < least:
            found.append((False, "expired" if answer >= 0 else REASONS[answer & REASON_BITS], seen))
        elif event_us < oldest:
            found.append((False, "projection_stale", seen))
        else:
            found.append((True, REASONS[answer & REASON_BITS], seen))
    return found


def _changed(
    use: Service, from_where: Source, ledger_size: int | None, seen: int | None, at: datetime, key: str, is_old: bool
) -> tuple[bool, str]:
    """Whether somebody may be used, and why, by what the ledger heard since standing was projected."""
    if ledger_size is None:
        return False, "ledger_unreadable"
    if seen is None:  # nobody published it
        return False, "projection_missing"
    if seen > ledger_size:
        return False, "projection_ahead"
    heard, customer_id = from_where.heard, entity_values(use.entity, key)[0]
    found = heard.answer(customer_id, ledger_size, at, use.purpose_code or "", use.channel_code) if heard else None
    if found is None:
        return False, "projection_behind"
    return (False, "projection_stale") if found[0] and is_old else found


@lru_cache(maxsize=256)
def _gate_reader(layout: Layout, slot: str) -> Callable[[bytes], tuple[Any, ...]]:
    """Reads the answer of a slot."""
    return layout.number_at(slot)


def is_fresh(view: View, event_us: int, at: datetime) -> bool:
    """The row is no older than the view's time to live."""
    return to_microseconds(at) - event_us <= view.time_to_live.total_seconds() * 1e6


def _answer(
    use: Service,
    key: str,
    rows: Sequence[tuple[int, bytes] | None],
    found: Sequence[str | None],
    ledger_size: int | None,
    at: datetime,
    store: OnlineStore,
    decision: Decision,
) -> Answer:
    is_allowed, reason, seen = decision
    features: dict[str, Any] = {}
    statuses: dict[str, str] = {}
    versions: dict[str, str | None] = {}
    newest_us = None
    if is_allowed:
        for view, row, version in zip(use.views, rows, found, strict=False):
            status = statuses[view.name] = _status(view, row, at)
            values = store.decoded(row[1]) if row is not None and status == PRESENT else {}
            features |= {each.name: values.get(each.name) for each in view.online_fields}
            if row is not None:
                versions[view.name] = version
                newest_us = max(newest_us or row[0], row[0])
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
        age_seconds=None if newest_us is None else max(0, to_microseconds(at) - newest_us) / 1e6,
        answered_at=at,
        evidence=Evidence(
            ledger_size=ledger_size,
            standing_ledger_size=seen,
            versions=versions,
        ),
    )


def _status(view: View, row: tuple[int, bytes] | None, at: datetime) -> str:
    if row is None:
        return NOT_FOUND
    return PRESENT if is_fresh(view, row[0], at) else OUTSIDE_MAX_AGE
