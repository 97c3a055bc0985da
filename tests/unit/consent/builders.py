"""Consent events for tests: one plain default and named changes. Alma, who shops at the pier."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from consent.events import Event
from consent.ledger.keyring import KeyRing
from consent.ledger.ledger import Ledger
from consent.ledger.opening import ORIGIN
from consent.ledger.postgres import PostgresDatabase
from consent.ledger.store import Store
from consent.log.note import Ed25519Signer
from troth.clock import FixedClock

MONDAY = datetime(2025, 3, 3, 10, tzinfo=UTC)
ALMA = "email_" + "alma" * 5 + "zz"
SIGNER = Ed25519Signer(ORIGIN, bytes(range(32)))
KEK = bytes(range(32, 64))

_PLAIN = Event(
    subject_id=ALMA,
    event_type="grant",
    purpose_code="personalization",
    channel_code="*",
    occurred_at=MONDAY,
    recorded_at=MONDAY,
    received_at=MONDAY,
    notice_id="web_banner",
    notice_version=1,
    language_code="en",
    capture_method="banner_accept",
    capture_place="web_banner",
    actor_type="subject",
    jurisdiction_code="US-OR",
    signal_id="sig-1",
)


def event(at: datetime | None = None, **changes: Any) -> Event:
    """An event; `at` sets all three clocks."""
    times = dict.fromkeys(("occurred_at", "recorded_at", "received_at"), at) if at else {}
    return replace(_PLAIN, **{**times, **changes})


def events(count: int, first: int = 0) -> list[Event]:
    """Different events, a minute apart."""
    return [event(MONDAY + timedelta(minutes=n), signal_id=f"sig-{n}") for n in range(first, first + count)]


def open_ledger(folder: Path) -> Ledger:
    return Ledger.open(folder / "ledger.db", SIGNER, KeyRing([KEK]), FixedClock(MONDAY))


def open_ledger_at(place: str, keks: Sequence[bytes] = (KEK,)) -> Ledger:
    """A ledger in a folder, or in the PostgreSQL schema of an address."""
    if not place.startswith("postgresql://"):
        return Ledger.open(Path(place) / "ledger.db", SIGNER, KeyRing(keks), FixedClock(MONDAY))
    database = PostgresDatabase(place)
    try:
        return Ledger(Store(database), SIGNER, KeyRing(keks), FixedClock(MONDAY))
    except BaseException:
        database.close()
        raise


def subject(number: int) -> str:
    """Another shopper than Alma, by number."""
    return "email_" + f"{number:022d}".translate(str.maketrans("0189", "aeio"))


def erasure(at: datetime, subject_id: str = ALMA, signal_id: str = "erased") -> Event:
    return event(at, event_type="erased", purpose_code="*", subject_id=subject_id, signal_id=signal_id)
