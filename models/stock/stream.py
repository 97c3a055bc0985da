"""What the stream says of stock: the warehouse's last word (`Base`) and every change since, as parts of each position.

Pure: no clock, no file, no log. The same base and the same changes give the same parts, in whatever batches the changes come and however often.
Orders are versions that replace one another by their own time; everything else is an effect with an id, and has it once.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.stock.atp import PARTS
from models.stock.positions import Positions

Place = tuple[str, str]  # location_code, sku
_SEED = 7


class Moved(NamedTuple):
    """Recorded stock changed by `units`. `effect_id`: the movement's id, as the warehouse will call it. `occurred_at`: microseconds."""

    effect_id: str
    location_code: str
    sku: str
    units: int
    occurred_at: int


class Gone(NamedTuple):
    """Units of an order left the shelf for it. `order_name` is what pickers and carriers call it."""

    effect_id: str
    order_name: str
    sku: str
    units: int


class GivenUp(NamedTuple):
    """Units of an order will not be sent."""

    effect_id: str
    order_id: str
    sku: str
    units: int


class Ordered(NamedTuple):
    """An order as it stands; the newest `updated_at` (microseconds) counts, at the same instant the one that came last."""

    order_id: str
    order_name: str
    updated_at: int
    is_open: bool
    location_code: str | None
    lines: Mapping[str, int]


Change = Moved | Gone | GivenUp | Ordered


class Told(NamedTuple):
    """A change and the offset of the event that told it."""

    offset: int
    change: Change


@dataclass
class _Order:
    """What is known of an order; commits what is ordered and neither gone nor given up, while it is open."""

    order_name: str = ""
    updated_at: int = -1
    is_open: bool = False
    location_code: str | None = None
    lines: Mapping[str, int] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)
    given_up: dict[str, int] = field(default_factory=dict)

    def committed(self) -> dict[Place, int]:
        if not self.is_open or self.location_code is None:
            return {}
        return {
            (self.location_code, sku): units
            for sku, ordered in self.lines.items()
            if (units := ordered - self.gone.get(sku, 0) - self.given_up.get(sku, 0)) > 0
        }


@dataclass(frozen=True)
class Base:
    """What the warehouse computed last. `offset`: log offset up to which it knows the stream.

    `frame`: location_code, sku, last_event_at (microseconds), and parts of `PARTS` but for what is held; those that are missing are nothing. `orders`: open ones, and others recently
    heard of. `booked`: sorted hashes (`hashed`) of effects it knows, as far back as a stream may still tell one. Raises: ValueError for a position twice.
    """

    frame: pl.DataFrame
    orders: Mapping[str, Ordered] = field(default_factory=dict)
    gone: Mapping[str, Mapping[str, int]] = field(
        default_factory=dict
    )  # by order_name and SKU, of orders not heard of too
    given_up: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # by order_id and SKU, likewise
    booked: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    offset: int = 0

    def __post_init__(self) -> None:
        _ = self.positions

    @cached_property
    def positions(self) -> Positions:
        return Positions(self.frame)

    @cached_property
    def columns(self) -> Mapping[str, NDArray[np.int64]]:
        """Parts but for what is held, and `last_event_at`, by name: one value a row, and a zero after the last for positions it does not know."""
        empty = np.zeros(self.frame.height + 1, dtype=np.int64)
        return {
            name: np.append(self.frame[name].cast(pl.Int64).to_numpy(), 0) if name in self.frame.columns else empty
            for name in (*(part for part in PARTS if part != "held_units"), "last_event_at")
        }

    def knows(self, effect_ids: Sequence[str]) -> NDArray[np.bool_]:
        """Which effects the warehouse had, one for each id."""
        if not len(self.booked) or not effect_ids:
            return np.zeros(len(effect_ids), dtype=bool)
        wanted = hashed(pl.Series(effect_ids, dtype=pl.String))
        at = np.minimum(np.searchsorted(self.booked, wanted), len(self.booked) - 1)
        return np.asarray(self.booked[at] == wanted)


def hashed(effect_ids: pl.Series) -> NDArray[np.uint64]:
    """64-bit hashes of effect ids, in their order; alike within one process."""
    return effect_ids.hash(_SEED).to_numpy()


class Drift(NamedTuple):
    """Where the stream and the warehouse disagreed about a part of a position; the warehouse's word is taken."""

    location_code: str
    sku: str
    part: str
    streamed_units: int
    recomputed_units: int


class Rebased(NamedTuple):
    """Positions whose parts may be others now, what was told otherwise until now, and the effects that the warehouse confirmed."""

    touched: set[Place]
    drifts: list[Drift]
    confirmed: set[str]


class Stream:
    """Parts by position, kept up with the log. Not for several threads."""

    def __init__(self, base: Base) -> None:
        self._begin(base)

    @property
    def base(self) -> Base:
        return self._base

    @property
    def pending(self) -> int:
        """Changes on top of the base."""
        return len(self._told) + len(self._versions)

    def apply(self, changes: Sequence[Told]) -> set[Place]:
        """Take changes in the order of their offsets; the positions they name, whose parts may be others now."""
        effects = [told.change.effect_id for told in changes if not isinstance(told.change, Ordered)]
        known = dict(zip(effects, self._base.knows(effects).tolist(), strict=True))
        touched: set[Place] = set()
        for told in changes:
            change = told.change
            if isinstance(change, Ordered):
                self._versions.append(told)
                touched |= self._reorder(change)
                continue
            key = (type(change), change.effect_id)
            if key in self._told or known[change.effect_id]:
                continue
            self._told[key] = told
            touched |= self._move(change) if isinstance(change, Moved) else self._send(change)
        return touched

    def parts(self, places: Sequence[Place]) -> dict[str, NDArray[np.int64]]:
        """The parts of positions but for what is held, an array each; and `last_event_at`, microseconds."""
        rows = self._base.positions.rows_of(places)
        found = {name: column[rows] for name, column in self._base.columns.items()}
        for name, values in (("on_hand_units", self._moved), ("committed_units", self._committed)):
            found[name] = found[name] + np.array([values.get(place, 0) for place in places], dtype=np.int64)
        newest = np.array([self._newest.get(place, 0) for place in places], dtype=np.int64)
        found["last_event_at"] = np.maximum(found["last_event_at"], newest)
        return found

    def places(self) -> list[Place]:
        """Every position there is."""
        based = self._base.frame.select("location_code", "sku").rows()
        return list(dict.fromkeys([*based, *self._moved, *self._committed]))

    def rebase(self, base: Base) -> Rebased:
        """Take the warehouse's newer word: of what the stream told, only what that does not know stays on top of it.

        Raises: ValueError for a base that knows less of the stream than the present one.
        """
        if base.offset < self._base.offset:
            raise ValueError(f"base: expected an offset from {self._base.offset}, found {base.offset}.")
        touched = {*self._moved, *self._committed, *_differing(self._base.frame, base.frame)}
        before = self.parts(list(touched))
        was = dict(zip(touched, range(len(touched)), strict=True))
        effects = {effect_id for _, effect_id in self._told}
        later = [told for told in (*self._told.values(), *self._versions) if told.offset > base.offset]
        self._begin(base)
        self.apply(sorted(later, key=lambda told: told.offset))
        places = [*was, *(place for place in {*self._moved, *self._committed} if place not in was)]
        effects -= {effect_id for _, effect_id in self._told}
        return Rebased(set(places), _drifts(places, before, self.parts(places)), effects)

    def _begin(self, base: Base) -> None:
        self._base = base
        self._told: dict[tuple[type, str], Told] = {}
        self._versions: list[Told] = []
        self._moved: dict[Place, int] = defaultdict(int)
        self._committed: dict[Place, int] = defaultdict(int)
        self._newest: dict[Place, int] = defaultdict(int)
        self._orders: dict[str, _Order] = {}
        self._order_ids = {order.order_name: order_id for order_id, order in base.orders.items()}
        self._gone_early: dict[str, dict[str, int]] = {}

    def _move(self, change: Moved) -> set[Place]:
        place = (change.location_code, change.sku)
        self._moved[place] += change.units
        self._newest[place] = max(self._newest[place], change.occurred_at)
        return {place}

    def _send(self, change: Gone | GivenUp) -> set[Place]:
        more = {change.sku: change.units}
        if isinstance(change, GivenUp):
            order = self._order(change.order_id)
            return self._recommit(order, given_up=_sum(order.given_up, more))
        order_id = self._order_ids.get(change.order_name)
        if order_id is None:  # the order itself is still on its way
            self._gone_early[change.order_name] = _sum(self._gone_early.get(change.order_name, {}), more)
            return set()
        order = self._order(order_id)
        return self._recommit(order, gone=_sum(order.gone, more))

    def _reorder(self, change: Ordered) -> set[Place]:
        order = self._order(change.order_id)
        if change.updated_at < order.updated_at:
            return set()
        if change.order_name not in self._order_ids:
            self._order_ids[change.order_name] = change.order_id
            early = self._gone_early.pop(change.order_name, {})
            order.gone = _sum(self._base.gone.get(change.order_name, {}), early)
        told = change._asdict()
        del told["order_id"]
        named = {(order.location_code, sku) for sku in order.lines if order.location_code is not None}
        self._recommit(order, **told)
        named |= {(change.location_code, sku) for sku in change.lines if change.location_code is not None}
        for place in named:
            self._newest[place] = max(self._newest[place], change.updated_at)
        return named

    def _order(self, order_id: str) -> _Order:
        if order_id not in self._orders:
            known = self._base.orders.get(order_id)
            told = known._asdict() if known else {}
            told.pop("order_id", None)
            gone = self._base.gone.get(known.order_name, {}) if known else {}
            given_up = self._base.given_up.get(order_id, {})
            self._orders[order_id] = _Order(**told, gone=dict(gone), given_up=dict(given_up))
        return self._orders[order_id]

    def _recommit(self, order: _Order, **changed: object) -> set[Place]:
        before = order.committed()
        for name, value in changed.items():
            setattr(order, name, value)
        after = order.committed()
        touched = {place for place in {*before, *after} if before.get(place, 0) != after.get(place, 0)}
        for place in touched:
            self._committed[place] += after.get(place, 0) - before.get(place, 0)
        return touched


def _sum(units: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    return {sku: units.get(sku, 0) + more.get(sku, 0) for sku in {**units, **more}}


def _differing(one: pl.DataFrame, other: pl.DataFrame) -> list[Place]:
    """Positions whose row in one is not their row in the other."""
    columns = [name for name in one.columns if name in other.columns]
    lone = [a.select(columns).join(b.select(columns), on=columns, how="anti") for a, b in ((one, other), (other, one))]
    return pl.concat(lone).select("location_code", "sku").unique().rows()


def _drifts(
    places: Sequence[Place], before: Mapping[str, NDArray[np.int64]], after: Mapping[str, NDArray[np.int64]]
) -> list[Drift]:
    found: list[Drift] = []
    for part in (name for name in after if name != "last_event_at"):
        was = np.zeros(len(places), dtype=np.int64)
        if part in before:
            was[: len(before[part])] = before[part]
        odd = np.flatnonzero(was != after[part]).tolist()
        found += [Drift(*places[row], part, int(was[row]), int(after[part][row])) for row in odd]
    return found
