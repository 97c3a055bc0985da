"""The lanes open to a basket: stores that can have it ready, and places that can send it with a carrier; and why the others cannot.

Each place and way passes the same sieve, in one order: is the item sold there, do the rules allow it, is it near enough, is there
enough, is there time and are there hands. The sieve that lets nothing through is the reason: lift it, and the next decides.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.promise.asking import Ask, PromiseError, Spot
from models.promise.loads import Hands, Loads
from models.promise.network import Network
from models.promise.places import distances_km, postal_codes
from models.promise.routing import Lanes
from models.promise.rules import METHODS, Method, Rule, When
from models.promise.sight import Sight

Mask = NDArray[np.bool_]
_DEPARTURES = 10  # ahead that are looked at for one with hands left


@dataclass(frozen=True)
class Target:
    """Where to, as the network sees it: distances to all places, and the time zone of the nearest."""

    distances: NDArray[np.float64]
    nearest: int
    region: str | None
    country: str


class Lane(NamedTuple):
    """A place and how goods leave it. `starts`: second of the slot or departure; `carrier`: number in the network's services."""

    method: Method
    place: int
    starts: int
    promised: int
    carrier: int | None = None


@dataclass(frozen=True)
class Closed:
    """Where rules close a way: by rule, the mask (lines, places); and the carriers they close."""

    methods: Mapping[Method, Sequence[tuple[str, Mask]]]
    carriers: Mapping[int, Mask]

    def but(self, fits: Mask, method: Method) -> Mask:
        """What fits, less what the rules close for a way."""
        for _, mask in self.methods[method]:
            fits = fits & ~mask
        return fits

    def take(self, lines: Sequence[int]) -> "Closed":
        """The same for some of the lines."""
        return Closed(
            {method: [(name, mask[lines]) for name, mask in masks] for method, masks in self.methods.items()},
            {number: mask[lines] for number, mask in self.carriers.items()},
        )


@dataclass(frozen=True)
class Open:
    """All lanes of a basket, as they are and as arrays; and for each way why a place that was weighed has none, or none in time."""

    lanes: Sequence[Lane]
    arrays: Lanes
    late: Mapping[Method, str]
    weighed: Set[int]

    def take(self, lines: Sequence[int]) -> "Open":
        """The same for some of the lines."""
        return Open(self.lanes, self.arrays.of_lines(lines), self.late, self.weighed)


def target(network: Network, spot: Spot) -> Target:
    """Raises: PromiseError for a postal code nobody knows, or half a position."""
    needs_region = any(rule.when.to_regions is not None for rule in network.rules.rules)
    region: str | None = None
    if spot.latitude is not None and spot.longitude is not None:
        latitude, longitude = spot.latitude, spot.longitude
        if needs_region and spot.country_code == "US":
            region = _region(round(latitude, 2), round(longitude, 2))
    else:
        found = postal_codes().find(spot.postal_code) if spot.postal_code and spot.country_code == "US" else None
        if found is None:
            raise PromiseError(
                "destination: expected latitude and longitude, or a postal code of the United States, found another. Send coordinates."
            )
        latitude, longitude, region = found
    distances = distances_km(latitude, longitude, network.latitude, network.longitude)
    nearest = int(np.where(np.isnan(distances), np.inf, distances).argmin())
    if np.isnan(distances[nearest]):
        raise PromiseError("locations: expected some with coordinates, found none. Add them to the list of locations.")
    return Target(distances, nearest, region, spot.country_code)


def closed(network: Network, ask: Ask, where: Target, sight: Sight) -> Closed:
    """What the rules close for this basket."""
    methods: dict[Method, list[tuple[str, Mask]]] = {method: [] for method in METHODS}
    carriers: dict[int, Mask] = {}
    shape = sight.available.shape
    for rule, places in zip(network.rules.rules, network.rule_places, strict=True):
        if not _speaks_of(rule.when, ask, where):
            continue
        lines = np.array([_is_meant(rule.when, line.sku, network) for line in sight.lines], dtype=np.bool_)
        if not lines.any() or (places is not None and not places.any()):
            continue
        mask = np.broadcast_to(lines[:, None] if places is None else lines[:, None] & places, shape)
        for method in rule.refuse:
            methods[method].append((rule.name, mask))
        for number in _meant_carriers(rule, network):
            carriers[number] = carriers[number] | mask if number in carriers else mask
    return Closed(methods, carriers)


def open_lanes(
    network: Network, ask: Ask, where: Target, sight: Sight, shut: Closed, loads: Loads, at: datetime
) -> Open:
    """Every lane that can take at least one line, before any is weighed."""
    now = int(at.timestamp())
    allowed = methods_of(network, ask)
    wanted = int(ask.wanted_by.timestamp()) if ask.wanted_by else None
    enough = sight.available >= sight.units[:, None]
    found = _Found()
    late: dict[Method, str] = {}
    if "click_and_collect" in allowed:
        _open_pickup(network, ask, where, sight, shut.but(enough, "click_and_collect"), loads, now, wanted, found, late)  # fmt: skip
    if "ship_from_store" in allowed or "ship_to_home" in allowed:
        _open_shipping(network, allowed, where, sight, enough, shut, loads, now, wanted, found, late)
    return found.opened(sight, network, late)


def methods_of(network: Network, ask: Ask) -> tuple[Method, ...]:
    """Ways that the shopper would take and the channel may use."""
    of_channel = network.rules.channels.get(ask.channel, METHODS)
    return tuple(
        method for method in METHODS if method in of_channel and (ask.methods is None or method in ask.methods)
    )


def pickup_places(network: Network, ask: Ask, where: Target) -> Mask:
    """Stores the shopper may collect at: the one they chose, wherever it is, or those near enough."""
    if ask.store is not None:
        chosen = np.zeros(len(network.codes), dtype=np.bool_)
        if ask.store in network.at:
            chosen[network.at[ask.store]] = True
        return chosen & network.is_store
    near: Mask = network.is_store & (where.distances <= network.rules.pickup.within_km)
    return near


def shipping_places(network: Network, method: Method, where: Target) -> Mask:
    """Places that send by this way and are near enough."""
    is_store = method == "ship_from_store"
    rules = network.rules.dispatch["store" if is_store else "distribution_center"]
    near: Mask = (network.is_store == is_store) & (where.distances <= rules.within_km)
    return near


class _Found:
    """Lanes as they are found."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self.weighed: set[int] = set()
        self.serves: list[Mask] = []
        self.terms: list[tuple[float, float, float, float, float]] = []

    def add(
        self, lane: Lane, serves: Mask, on_time: float, cents: float, grams: float, kg_cents: float = 0.0, kg_grams: float = 0.0
    ) -> None:  # fmt: skip
        self.lanes.append(lane)
        self.serves.append(serves)
        self.terms.append((on_time, cents, grams, kg_cents, kg_grams))

    def opened(self, sight: Sight, network: Network, late: Mapping[Method, str]) -> Open:
        count, lines = len(self.lanes), len(sight.lines)
        kilograms = np.array([_grams(network, line.sku) * line.units / 1000 for line in sight.lines])
        places = {place: number for number, place in enumerate(dict.fromkeys(lane.place for lane in self.lanes))}
        which = [places[lane.place] for lane in self.lanes]
        on_time, cents, grams, kg_cents, kg_grams = np.array(self.terms, dtype=np.float64).reshape(count, 5).T
        arrays = Lanes(
            is_pickup=np.array([lane.carrier is None for lane in self.lanes], dtype=np.bool_),
            promised=np.array([lane.promised for lane in self.lanes], dtype=np.int64),
            on_time=on_time,
            cents=_whole(cents),
            grams=_whole(grams),
            serves=np.array(self.serves, dtype=np.bool_).reshape(count, lines),
            found=sight.found(np.array(list(places), dtype=np.int64))[:, which].T,
            line_cents=_whole(kg_cents[:, None] * kilograms),
            line_grams=_whole(kg_grams[:, None] * kilograms),
        )
        return Open(self.lanes, arrays, late, self.weighed)


def _open_pickup(
    network: Network, ask: Ask, where: Target, sight: Sight, fits: Mask, loads: Loads, now: int, wanted: int | None, found: _Found,
    late: dict[Method, str],
) -> None:  # fmt: skip
    rules = network.rules.pickup
    near = pickup_places(network, ask, where)
    work = min(len(sight.lines), rules.lines_per_slot)
    on_time = _share_within(rules.ready_minutes, rules.slot_minutes)
    reasons: list[str] = []
    for place in _nodes(fits & near, where.distances, rules.stores):
        found.weighed.add(place)
        starts, reason = slot(network, loads, place, work, now)
        if reason is not None:
            reasons.append(reason)
        if starts is None:
            continue
        promised = starts + rules.slot_minutes * 60
        if wanted is not None and promised > wanted:
            reasons.append("too_late")
            continue
        lane = Lane("click_and_collect", place, starts, promised)
        grams = 2 * float(where.distances[place]) * rules.carbon_grams_per_km
        found.add(lane, fits[:, place], on_time, rules.cents, grams)
    if reasons:
        late["click_and_collect"] = reasons[0]


def _open_shipping(
    network: Network, allowed: Sequence[Method], where: Target, sight: Sight, enough: Mask, shut: Closed, loads: Loads, now: int,
    wanted: int | None, found: _Found, late: dict[Method, str],
) -> None:  # fmt: skip
    fits = np.zeros_like(enough)
    for way in allowed:
        if way != "click_and_collect":
            fits |= shut.but(enough & shipping_places(network, way, where), way)
    most = network.rules.split.nodes
    centres = _nodes(fits & ~network.is_store, where.distances, max(1, most // 2))
    for place in centres + _nodes(fits & network.is_store, where.distances, max(1, most - len(centres))):
        found.weighed.add(place)
        method: Method = "ship_from_store" if network.is_store[place] else "ship_to_home"
        rules = network.rules.dispatch[network.kind(place)]
        work = min(len(sight.lines), rules.lines_per_day)
        departures = network.departures[network.kind(place)].after(place, now, _DEPARTURES)
        code = network.codes[place]
        leaving = next(
            (each for each in departures if loads.load(Hands(code, each[0], False)) + work <= rules.lines_per_day), None
        )
        if leaving is None:
            late.setdefault(method, "no_capacity" if departures else "closed")
            continue
        distance, having = float(where.distances[place]), fits[:, place]
        for number, service in enumerate(network.services):
            transit = service.transit(distance)
            if transit is None:
                continue
            serves = having
            if number in shut.carriers:
                serves = having & ~shut.carriers[number][:, place]
                if not serves.any():
                    continue
            day = service.arrival_day(leaving[1], transit.days)
            promised = service.arrival(day, network.zones[where.nearest])
            if promised <= now or (wanted is not None and promised > wanted):
                late.setdefault(method, "too_late")
                continue
            carrier = service.carrier
            found.add(
                Lane(method, place, leaving[0], promised, number), serves, rules.on_time * transit.on_time,
                rules.cents + carrier.parcel_cents, carrier.carbon_grams_per_parcel,
                transit.kg_cents, carrier.carbon_grams_per_tonne_km / 1000 * distance,
            )  # fmt: skip


def slot(network: Network, loads: Loads, place: int, work: int, now: int) -> tuple[int | None, str | None]:
    """The first slot of a store with hands for the work, and what kept it from being the very next one.

    Slots are elapsed time from opening, the last one ends before closing. A slot begins after the store had time to react.
    """
    rules = network.rules.pickup
    length, begin = rules.slot_minutes * 60, now + rules.reaction_minutes * 60
    today = network.calendar.local_day(place, now)
    reason: str | None = None
    for day in range(today - 1, today + rules.days + 1):  # yesterday's window may pass midnight
        window = network.calendar.window(place, int(day))
        if window is None or window[1] <= now:
            if day == today:
                reason = reason or "closed"
            continue
        opens, closes = window
        first, last = max(0, ceil((begin - opens) / length)), int((closes - opens) // length)
        if now < opens:
            reason = reason or "closed"
        elif first >= last:
            reason = reason or "after_cut_off"
        for number in range(first, last):
            starts = int(opens + number * length)
            if loads.load(Hands(network.codes[place], starts, True)) + work <= rules.lines_per_slot:
                return starts, reason
            reason = reason or "no_capacity"
    return None, reason or "closed"


def _nodes(fits: Mask, distances: NDArray[np.float64], most: int) -> list[int]:
    """Places to weigh: those with most of the basket, the nearer first; and for a line that none of them has, the nearest that has it."""
    covered = np.add.reduce(fits, axis=0, dtype=np.int16)
    having = np.flatnonzero((covered > 0) & ~np.isnan(distances))
    burden = distances[having] - covered[having] * 1e6  # a line more counts for more than any distance
    if len(having) > most:
        first = burden <= np.partition(burden, most - 1)[most - 1]
        having, burden = having[first], burden[first]
    chosen: list[int] = having[np.argsort(burden, kind="stable")[:most]].tolist()
    if not chosen:
        return chosen
    left = np.flatnonzero(~fits[:, chosen].any(axis=1))
    for line in left[fits[left].any(axis=1)]:
        having = np.flatnonzero(fits[line])
        chosen.append(int(having[np.argmin(distances[having])]))
    return list(dict.fromkeys(chosen))


def _speaks_of(when: When, ask: Ask, where: Target) -> bool:
    return (
        (when.channels is None or ask.channel in when.channels)
        and (when.to_regions is None or where.region in when.to_regions)
        and (when.to_countries is None or where.country in when.to_countries)
    )


def _is_meant(when: When, sku: str, network: Network) -> bool:
    product = network.products.get(sku)
    grams, cents, category = (product.grams, product.cents, product.category) if product else (0, 0, None)
    return (
        (when.skus is None or sku in when.skus)
        and (when.categories is None or category in when.categories)
        and (when.heavier_than_grams is None or grams > when.heavier_than_grams)
        and (when.worth_more_than_cents is None or cents > when.worth_more_than_cents)
    )


def _meant_carriers(rule: Rule, network: Network) -> list[int]:
    return [number for number, service in enumerate(network.services) if service.name in rule.carriers]


def _share_within(minutes: Mapping[float, float], limit: float) -> float:
    """The share of orders ready within so many minutes, between the shares that are told on a straight line."""
    shares, ends = list(minutes), list(minutes.values())
    place = bisect_left(ends, limit)
    if place == len(ends):
        return shares[-1]
    before, share = (ends[place - 1], shares[place - 1]) if place else (0.0, 0.0)
    return share + (shares[place] - share) * (limit - before) / (ends[place] - before)


def _region(latitude: float, longitude: float) -> str:
    return postal_codes().region_of(latitude, longitude)


def _grams(network: Network, sku: str) -> int:
    product = network.products.get(sku)
    return product.grams if product else 0


def _whole(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(values).astype(np.int64)
