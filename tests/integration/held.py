"""Stores of holds for tests, and what holds should be, in a few plain lines over lists: the reference they are compared with."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from models.stock.holds.postgres import postgres_holds
from models.stock.holds.redis import redis_holds
from models.stock.holds.sqlite import sqlite_holds
from models.stock.holds.store import Holds
from models.stock.holds.words import Hold, Limits, Line, Refusal, Request

AT = datetime(2026, 3, 2, 9, tzinfo=UTC)
LASTING = timedelta(minutes=15)


def minutes(count: float) -> datetime:
    return AT + timedelta(minutes=count)


def opened(place: str, limits: Limits | None = None) -> Holds:
    """The store at an address, or in a file."""
    if place.startswith("postgresql://"):
        return postgres_holds(place, limits)
    if place.startswith("redis://"):
        address, _, name = place.partition("#")
        return redis_holds(address, limits, name or "troth")
    return sqlite_holds(Path(place), limits)


@contextmanager
def closing(store: Holds) -> Iterator[Holds]:
    try:
        yield store
    finally:
        store.close()


def basket(key: str, *lines: tuple[str, str, int], lasting: timedelta = LASTING) -> Request:
    return Request(key, tuple(Line(*line) for line in lines), lasting)


def made(answer: object) -> Hold:
    assert isinstance(answer, Hold), answer
    return answer


def refused(answer: object) -> Refusal:
    assert isinstance(answer, Refusal), answer
    return answer


@dataclass
class Known:
    """A hold of the reference: units and settled units by position."""

    request: dict[tuple[str, str], int]
    lasting: float
    made: float
    expires: float
    outcome: str | None = None
    settled: dict[tuple[str, str], int] = field(default_factory=dict)

    def state(self, at: float) -> str:
        return self.outcome or ("held" if self.expires > at else "expired")

    def left(self, place: tuple[str, str]) -> int:
        return self.request.get(place, 0) - self.settled.get(place, 0)


@dataclass
class Reference:
    """Times in minutes. What is free and held is reckoned from all that was ever said."""

    told: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)  # units, version
    orders: list[tuple[tuple[str, str], int | None, int]] = field(default_factory=list)  # place, version, units
    holds: dict[str, Known] = field(default_factory=dict)

    def set_free(self, place: tuple[str, str], units: int, version: int) -> None:
        if place not in self.told or self.told[place][1] <= version:
            self.told[place] = (units, version)
            self.orders = [
                each for each in self.orders if each[0] != place or (each[1] is not None and each[1] > version)
            ]

    def free(self, place: tuple[str, str]) -> int:
        return self.told[place][0] - sum(units for each, _, units in self.orders if each == place)

    def held(self, place: tuple[str, str], at: float, but: Known | None = None) -> int:
        return sum(hold.left(place) for hold in self.holds.values() if hold.state(at) == "held" and hold is not but)

    def fits(self, wanted: dict[tuple[str, str], int], at: float, but: Known | None = None) -> str | None:
        if not wanted.keys() <= self.told.keys():
            return "unknown_position"
        if any(units > max(0, self.free(place) - self.held(place, at, but)) for place, units in wanted.items()):
            return "not_enough"
        for hold in self.holds.values():
            if hold.outcome is None and hold.expires <= at and hold.request.keys() & wanted.keys():
                hold.outcome = "expired"
        return None

    def hold(self, key: str, wanted: dict[tuple[str, str], int], lasting: float, at: float) -> str | None:
        known = self.holds.get(key)
        if known:
            return None if (known.request, known.lasting) == (wanted, lasting) else "key_reused"
        refusal = self.fits(wanted, at)
        if not refusal:
            self.holds[key] = Known(wanted, lasting, at, at + lasting)
        return refusal

    def extend(self, key: str, until: float, at: float, longest: float) -> str | None:
        hold = self.holds[key]
        if hold.outcome in ("released", "settled"):
            return hold.outcome
        if until > hold.made + longest:
            return "too_long"
        if hold.state(at) == "held":
            hold.expires = max(hold.expires, until)
        elif until <= at or self.fits({place: hold.left(place) for place in hold.request}, at, hold):
            return "expired"
        else:
            hold.expires, hold.outcome = until, None
        return None

    def release(self, key: str) -> None:
        if self.holds[key].outcome != "settled":
            self.holds[key].outcome = "released"

    def settle(self, key: str, total: dict[tuple[str, str], int], version: int | None) -> str | None:
        hold = self.holds[key]
        if any(units > hold.request.get(place, 0) for place, units in total.items()):
            return "not_held"
        for place, units in total.items():
            more = units - hold.settled.get(place, 0)
            if more > 0:
                hold.settled[place] = units
                if version is None or version > self.told[place][1]:
                    self.orders.append((place, version, more))
                if hold.settled == hold.request:
                    hold.outcome = "settled"
        return None

    def sweep(self, at: float) -> None:
        for hold in self.holds.values():
            if hold.outcome is None and hold.expires <= at:
                hold.outcome = "expired"
