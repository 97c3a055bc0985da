"""A store of holds: what every one of them does, and the one class that does it over tables or scripts.

Time is handed in. What has expired counts for nothing from that instant, swept or not. Nothing here knows which database it is.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from models.stock.holds.asking import (
    Asked,
    Kept,
    asked,
    micros,
    micros_of,
    moment,
    overdrawn,
    state_of,
    summed,
    text,
    whole,
)
from models.stock.holds.words import (
    HeldLine,
    Hold,
    HoldsError,
    Level,
    Limits,
    Line,
    Page,
    Position,
    Refusal,
    Request,
    Settlement,
    State,
    Swept,
)

T = TypeVar("T")
_ID = re.compile("hold_[0-9a-f]{24}")  # of those we made; anything else need not reach a database
_LAST = "z"  # after every id


class HoldStore(Protocol):
    """Units set aside. Every call is one transaction, durable when it returns; every one may be repeated without harm."""

    def set_free(self, rows: Iterable[tuple[str, str, int]], version: int) -> None:
        """Units free before holds, absolute, of (location_code, sku). A row that heard of a newer version stays as it is.

        `version`: log offset up to which the numbers know everything. Name every position that an event names, changed or not.
        """
        ...

    def hold(self, request: Request, at: datetime) -> Hold | Refusal:
        """Set all lines aside, or none. The same request under its key gets the same hold as it stands now, ended ones too."""
        ...

    def extend(self, hold_id: str, until: datetime, at: datetime) -> Hold | Refusal:
        """Keep it for longer, never shorter. An expired one lives again only if all it held is free at this moment."""
        ...

    def release(self, hold_id: str, at: datetime) -> Hold | Refusal:
        """Give back what no order took, for good. One that has ended stays as it is."""
        ...

    def settle(
        self, hold_id: str, at: datetime, lines: Sequence[Line] | None = None, version: int | None = None
    ) -> Settlement | Refusal:
        """The order came: free falls by its units and the hold of them ends. An order counts, whatever became of the hold.

        `lines`: units that orders took of each position in all, so that saying it twice changes nothing; None: everything.
        `version`: log offset of the order. Until `set_free` knows it, the units stay off what it sets; knows it already: they do not fall twice.
        """
        ...

    def get(self, hold_id: str, at: datetime) -> Hold | Refusal: ...

    def levels(self, positions: Sequence[tuple[str, str]], at: datetime) -> list[Level | None]:
        """Free and held, position by position; None where nobody ever set what is free."""
        ...

    def held(self, positions: Sequence[tuple[str, str]], at: datetime) -> list[int]:
        """Units held, position by position."""
        ...

    def active(self, at: datetime, after: str | None = None, limit: int = 100) -> Page:
        """Holds that are alive, soonest to expire first. `after`: `next` of the page before."""
        ...

    def sweep(self, at: datetime, limit: int = 1000) -> Swept:
        """Tidy at most so many of each kind: write down what time has ended, forget what ended long ago. Changes no answer but theirs."""
        ...

    def close(self) -> None: ...


class Keeper(Protocol):
    """What `Holds` asks of a database, within a transaction. Times in microseconds."""

    def set_free(self, rows: Sequence[tuple[str, str, int]], version: int) -> None: ...
    def seen(self, asked: Asked, now: int) -> Kept | Refusal | None:
        """The answer, where none has to be made: who asks again, or cannot be given what others hold, waits for nobody's write."""
        ...

    def hold(self, asked: Asked, hold_id: str, now: int) -> Kept | Refusal: ...
    def extend(self, hold_id: str, until: int, now: int, lasting: int) -> Kept | Refusal: ...
    def release(self, hold_id: str, now: int) -> Kept | Refusal: ...
    def settle(
        self, hold_id: str, now: int, lines: Sequence[Line] | None, version: int | None
    ) -> tuple[Kept, State, Mapping[Position, Level]] | Refusal: ...
    def kept(self, hold_ids: Sequence[str]) -> list[Kept]: ...
    def levels(self, positions: Sequence[Position], now: int) -> Mapping[Position, Level]: ...
    def active(self, after: tuple[int, str], limit: int) -> list[Kept]: ...
    def sweep(self, now: int, forget: int, limit: int) -> Swept: ...


class Place(Protocol):
    """A database: opens a transaction for a piece of work, does it again where the database asks for that, makes it durable."""

    def writing(self, work: Callable[[Keeper], T]) -> T: ...
    def reading(self, work: Callable[[Keeper], T]) -> T: ...
    def close(self) -> None: ...


class Joined:
    """The transaction of somebody else: work is done in it, and it is theirs to end."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def writing(self, work: Callable[[Keeper], T]) -> T:
        return work(self._keeper)

    def reading(self, work: Callable[[Keeper], T]) -> T:
        return work(self._keeper)

    def close(self) -> None:
        """It is not ours."""


class Holds:
    """A `HoldStore` over a place. Threads share it; every process opens its own."""

    def __init__(self, place: Place, limits: Limits | None = None) -> None:
        self._place = place
        self._limits = limits or Limits()

    def close(self) -> None:
        self._place.close()

    def set_free(self, rows: Iterable[tuple[str, str, int]], version: int) -> None:
        newest = {line[:2]: line for line in _levels_told(rows)}
        told = [newest[at] for at in sorted(newest)]
        if whole("version", version) < 0:
            raise HoldsError(f"holds: expected a version from 0, found {version}. Hand in an offset of the log.")
        self._place.writing(lambda keeper: keeper.set_free(told, version))

    def hold(self, request: Request, at: datetime) -> Hold | Refusal:
        wanted, now = asked(request, self._limits), micros(at)
        if isinstance(wanted, Refusal):
            return wanted
        answer = self._place.reading(lambda keeper: keeper.seen(wanted, now))
        if answer is None:
            hold_id = f"hold_{secrets.token_hex(12)}"
            answer = self._place.writing(lambda keeper: keeper.hold(wanted, hold_id, now))
        return _answer(answer, now)

    def extend(self, hold_id: str, until: datetime, at: datetime) -> Hold | Refusal:
        wanted, now, lasting = micros(until), micros(at), micros_of(self._limits.lasting)
        if not _ID.fullmatch(hold_id):
            return Refusal("unknown_hold")
        return _answer(self._place.writing(lambda keeper: keeper.extend(hold_id, wanted, now, lasting)), now)

    def release(self, hold_id: str, at: datetime) -> Hold | Refusal:
        now = micros(at)
        if not _ID.fullmatch(hold_id):
            return Refusal("unknown_hold")
        return _answer(self._place.writing(lambda keeper: keeper.release(hold_id, now)), now)

    def settle(
        self, hold_id: str, at: datetime, lines: Sequence[Line] | None = None, version: int | None = None
    ) -> Settlement | Refusal:
        now, taken = micros(at), None if lines is None else summed(lines)
        if taken is not None and any(line.units < 0 for line in taken):
            return Refusal("not_positive")
        if not _ID.fullmatch(hold_id):
            return Refusal("unknown_hold")
        answer = self._place.writing(lambda keeper: keeper.settle(hold_id, now, taken, version))
        if isinstance(answer, Refusal):
            return answer
        kept, was, levels = answer
        return Settlement(_hold(kept, now), was, overdrawn(levels))

    def get(self, hold_id: str, at: datetime) -> Hold | Refusal:
        found = self._place.reading(lambda keeper: keeper.kept([hold_id])) if _ID.fullmatch(hold_id) else []
        return _hold(found[0], micros(at)) if found else Refusal("unknown_hold")

    def levels(self, positions: Sequence[tuple[str, str]], at: datetime) -> list[Level | None]:
        now, wanted = micros(at), [Position(*each) for each in positions]
        found = self._place.reading(lambda keeper: keeper.levels(wanted, now))
        return [found.get(position) for position in wanted]

    def held(self, positions: Sequence[tuple[str, str]], at: datetime) -> list[int]:
        return [level.held_units if level else 0 for level in self.levels(positions, at)]

    def active(self, at: datetime, after: str | None = None, limit: int = 100) -> Page:
        now = micros(at)
        begin = max((now, _LAST), _place_of(after))
        found = self._place.reading(lambda keeper: keeper.active(begin, limit + 1))
        last = found[limit - 1] if len(found) > limit else None
        return Page([_hold(kept, now) for kept in found[:limit]], f"{last.expires_at}:{last.hold_id}" if last else None)

    def sweep(self, at: datetime, limit: int = 1000) -> Swept:
        now = micros(at)
        forget = now - micros_of(self._limits.remembered)
        return self._place.writing(lambda keeper: keeper.sweep(now, forget, limit))


def _levels_told(rows: Iterable[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    return [(text("location_code", row[0]), text("sku", row[1]), whole("free units", row[2])) for row in rows]


def _place_of(page: str | None) -> tuple[int, str]:
    if page is None:
        return 0, ""
    expires_at, _, hold_id = page.partition(":")
    if not (expires_at.isdecimal() and hold_id):
        raise HoldsError("holds: expected `next` of the page before, found another text. Start from the first page.")
    return int(expires_at), hold_id


def _answer(answer: Kept | Refusal, now: int) -> Hold | Refusal:
    return answer if isinstance(answer, Refusal) else _hold(answer, now)


def _hold(kept: Kept, now: int) -> Hold:
    state = state_of(kept, now)
    lines = tuple(HeldLine(*line[:4], held_units=line.open_units if state == "held" else 0) for line in kept.lines)
    ended_at = kept.expires_at if state == "expired" else kept.ended_at
    return Hold(
        kept.hold_id, kept.key, state, lines, moment(kept.made_at), moment(kept.expires_at),
        None if ended_at is None else moment(ended_at),
    )  # fmt: skip
