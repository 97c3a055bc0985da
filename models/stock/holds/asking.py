"""What is asked, in the form the stores take: microseconds, lines summed by position and in order; and what is refused unseen."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from models.stock.holds.words import (
    HoldsError,
    Level,
    Limits,
    Line,
    Position,
    Reason,
    Refusal,
    Request,
    Shortage,
    State,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST = 200  # characters of a code, a key or an id


class KeptLine(NamedTuple):
    """`open_units`: what it keeps from others until the hold expires: all that is not settled, or none once the hold has ended."""

    location_code: str
    sku: str
    units: int
    settled_units: int
    open_units: int


@dataclass(frozen=True)
class Kept:
    """A hold as a store keeps it. `outcome` is None until something ended it for good; time alone does not write."""

    hold_id: str
    key: str
    request: str
    made_at: int
    expires_at: int
    outcome: Literal["expired", "released", "settled"] | None
    ended_at: int | None
    lines: tuple[KeptLine, ...]


@dataclass(frozen=True)
class Asked:
    """A request: `request` is a hash of what it asks, `lines` are summed and in order of position."""

    key: str
    request: str
    lines: tuple[Line, ...]
    lasting: int


def asked(request: Request, limits: Limits) -> Asked | Refusal:
    """The request in the form of the stores, or why no store needs to be asked. Raises: HoldsError for what is no request."""
    lines, lasting = summed(request.lines), micros_of(request.lasting)
    positive = all(line.units > 0 for line in request.lines)
    refused: Sequence[tuple[bool, Reason, int | None]] = (
        (not request.lines, "no_lines", None),
        (not positive, "not_positive", None),
        (len(lines) > limits.lines, "too_many_lines", limits.lines),
        (sum(line.units for line in lines) > limits.units, "too_many_units", limits.units),
        (lasting > micros_of(limits.lasting), "too_long", round(limits.lasting.total_seconds())),
    )
    for is_so, reason, most in refused:
        if is_so:
            return Refusal(reason, most=most)
    if lasting <= 0:
        raise HoldsError("hold: expected it to last for some time, found none. Say for how long.")
    told = json.dumps([lines, lasting], separators=(",", ":"))
    return Asked(text("key", request.key), hashlib.sha256(told.encode()).hexdigest()[:32], lines, lasting)


def summed(lines: Iterable[Line]) -> tuple[Line, ...]:
    """One line for each position, in order: two lines of one position ask for their sum."""
    units: dict[Position, int] = {}
    for line in lines:
        at = Position(text("location_code", line.location_code), text("sku", line.sku))
        units[at] = units.get(at, 0) + whole("units", line.units)
    return tuple(Line(*at, units[at]) for at in sorted(units))


def lacking(lines: Sequence[Line], levels: Mapping[Position, Level]) -> Refusal | None:
    """Why a basket cannot be had at such levels of its positions; None where it can."""
    unknown = tuple(Shortage(*line) for line in lines if line[:2] not in levels)
    if unknown:
        return Refusal("unknown_position", unknown)
    short = tuple(
        Shortage(*line, level.free_units, level.held_units)
        for line in lines
        if line.units > (level := levels[Position(*line[:2])]).available_units
    )
    return Refusal("not_enough", short) if short else None


def taken(kept: Kept, lines: Sequence[Line] | None) -> dict[Position, int] | Refusal:
    """Units by which an order lowers what is free, by position; `lines` say how many are taken of each in all."""
    of = {Position(*line[:2]): line for line in kept.lines}
    said = lines if lines is not None else [Line(*line[:3]) for line in kept.lines]
    beyond = tuple(Shortage(*line) for line in said if line[:2] not in of or line.units > of[Position(*line[:2])].units)
    if beyond:
        return Refusal("not_held", beyond)
    more = {at: line.units - of[at].settled_units for line in said if (at := Position(*line[:2]))}
    return {at: units for at, units in more.items() if units > 0}


def overdrawn(levels: Mapping[Position, Level]) -> tuple[Shortage, ...]:
    """Positions that have promised more than they have."""
    return tuple(
        Shortage(*at, 0, level.free_units, level.held_units)
        for at, level in sorted(levels.items())
        if level.held_units > max(0, level.free_units)
    )


def state_of(kept: Kept, now: int) -> State:
    """What ended a hold for good, or what time says of it."""
    if kept.outcome is not None:
        return kept.outcome
    return "held" if kept.expires_at > now else "expired"


def micros(at: datetime) -> int:
    """Microseconds since 1970. Raises: HoldsError for a time without zone."""
    if at.tzinfo is None:
        raise HoldsError("holds: expected a time with its zone, found none. Hand in an aware datetime.")
    return micros_of(at - _EPOCH)


def micros_of(span: timedelta) -> int:
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds


def moment(at: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at)


def text(what: str, given: str) -> str:
    """Raises: HoldsError for what cannot name anything: it would part keys, or be cut, in one store or another."""
    if not isinstance(given, str) or not 0 < len(given) <= _LONGEST or not given.isprintable():
        raise HoldsError(f"holds: expected {what} of 1 to {_LONGEST} printable characters, found another. Correct it.")
    return given


def whole(what: str, given: int) -> int:
    """Raises: HoldsError for what is no whole number, or one that no stock reaches."""
    if type(given) is not int:
        try:
            given = given.__index__()  # those of NumPy are whole numbers too
        except AttributeError:
            raise HoldsError(f"holds: expected {what} as a whole number, found another type. Correct it.") from None
    if abs(given) > 2**52:  # Redis reckons in doubles
        raise HoldsError(f"holds: expected {what} within 2^52, found more. Correct it.")
    return given
