"""The words of holds: what is asked, what is answered, why not. Times are aware; units are pieces."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from models.errors import ModelsError

State = Literal["held", "expired", "released", "settled"]
Reason = Literal[
    "no_lines",  # an empty basket
    "not_positive",  # a line of no units, or fewer
    "too_many_lines",
    "too_many_units",
    "too_long",  # held for longer than a hold may last
    "unknown_position",  # nobody ever said how many are free there
    "not_enough",
    "key_reused",  # the key is that of another request
    "unknown_hold",  # there never was one, or it ended so long ago that it was forgotten
    "expired",  # and what was held is no longer free
    "released",
    "settled",
    "not_held",  # more than the hold was made for, or another position
]


class HoldsError(ModelsError):
    """A store of holds that cannot be asked, or was asked in a way that makes no sense."""


class Position(NamedTuple):
    location_code: str
    sku: str


class Line(NamedTuple):
    """What a basket wants of one position. Lines of one position count together."""

    location_code: str
    sku: str
    units: int


@dataclass(frozen=True)
class Request:
    """A basket to hold. `key` is the asker's: asked again under the same key, the same request gets the same hold."""

    key: str
    lines: tuple[Line, ...]
    lasting: timedelta = timedelta(minutes=15)


@dataclass(frozen=True)
class Limits:
    """What one hold may be. `lasting` is counted from when it was made, extensions included; what ended is remembered so long."""

    lines: int = 100
    units: int = 1_000_000
    lasting: timedelta = timedelta(hours=24)
    remembered: timedelta = timedelta(days=7)


@dataclass(frozen=True)
class HeldLine:
    """A position of a hold: units it was made for, those of them that an order took, and those it keeps from others now."""

    location_code: str
    sku: str
    units: int
    settled_units: int
    held_units: int


@dataclass(frozen=True)
class Hold:
    """A hold as it stood at the time it was asked for. Lines are summed by position, in order."""

    hold_id: str
    key: str
    state: State
    lines: tuple[HeldLine, ...]
    made_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True)
class Shortage:
    """A position that cannot give what was asked of it. `free_units` is before holds; both are 0 where it is unknown."""

    location_code: str
    sku: str
    asked_units: int
    free_units: int = 0
    held_units: int = 0

    @property
    def short_units(self) -> int:
        return self.asked_units - max(0, self.free_units - self.held_units)


_SENTENCES: dict[Reason, str] = {
    "no_lines": "expected at least one line, found none. Name what to hold.",
    "not_positive": "expected units from 1 in every line, found fewer. Correct the line.",
    "too_many_lines": "expected at most {most} positions, found more. Hold them in parts.",
    "too_many_units": "expected at most {most} units, found more. Hold them in parts.",
    "too_long": "expected it to last at most {most} seconds from when it was made, found longer. Ask for less.",
    "unknown_position": "expected positions with stock, found {places} unknown. Check location and SKU.",
    "not_enough": "expected the units to be free, found too few at {places}. Ask for less, or elsewhere.",
    "key_reused": "expected the request first made under this key, found another. Use a new key for another request.",
    "unknown_hold": "expected a hold, found none of this id. It was never made, or ended long ago: hold anew.",
    "expired": "expected a hold that is alive, found it expired, and its units held or sold since. Hold anew.",
    "released": "expected a hold that is alive, found it released. Hold anew.",
    "settled": "expected a hold that is alive, found an order had taken all of it. Hold anew.",
    "not_held": "expected units of the hold, found more, or of another position: {places}. Correct the lines.",
}


@dataclass(frozen=True)
class Refusal:
    """Nothing was done, and why: a code for programs, the positions it is about, a sentence (`str`) for people."""

    reason: Reason
    shortages: tuple[Shortage, ...] = ()
    most: int | None = None

    def __str__(self) -> str:
        places = ", ".join(f"{short.sku} at {short.location_code}" for short in self.shortages)
        return f"hold: {_SENTENCES[self.reason].format(places=places, most=self.most)}"


@dataclass(frozen=True)
class Settlement:
    """An order took units of a hold. `was`: its state before; an order counts even where that is no longer `held`.

    `overdrawn`: positions of which more is held now than is free, for units of an expired hold had gone to somebody else.
    """

    hold: Hold
    was: State
    overdrawn: tuple[Shortage, ...] = ()


@dataclass(frozen=True)
class Level:
    """A position: units free before holds, by the newest version heard and what was settled since, and units held."""

    free_units: int
    held_units: int

    @property
    def available_units(self) -> int:
        return max(0, self.free_units - self.held_units)


@dataclass(frozen=True)
class Page:
    """Some holds, soonest to expire first; `next` is handed in for those after them, None after the last."""

    holds: Sequence[Hold]
    next: str | None


@dataclass(frozen=True)
class Swept:
    """What a sweep tidied: holds whose time was over, and ended ones that were forgotten with their keys."""

    expired: int
    forgotten: int
