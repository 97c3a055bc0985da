"""The promise: can I have it, where, when, and how surely.

First the rule of real time (ready nearby within hours, else sent, else the next window), then, among equals, cost, waiting, carbon and
the chance to fail in one measure; the way chosen is never one that another beats in everything.
"""

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.promise import words
from models.promise.asking import Ask, Line, Option, Parcel, Promise, PromiseError, Refusal, summed
from models.promise.lanes import Open, Target, closed, open_lanes, target
from models.promise.loads import NO_LOADS, Loads
from models.promise.network import Network
from models.promise.reasons import hopeless, refusals
from models.promise.routing import Routes, Worth, routes, undominated
from models.promise.rules import METHODS, WAYS, Way
from models.promise.sight import Shelf, Sight, see

MOST_SHOWN = 3  # ways beside the chosen one


@dataclass(frozen=True)
class Grounds:
    """What promises rest on: stock, the network, and how busy it is."""

    board: Shelf
    network: Network
    loads: Loads = NO_LOADS


def promise(
    ask: Ask,
    at: datetime,
    grounds: Grounds,
    *,
    at_most: Mapping[tuple[str, str], int] | None = None,
    refused: Sequence[Refusal] = (),
    promise_id: str | None = None,
) -> Promise:
    """What may be promised for a basket, now. Nothing is set aside and nothing kept: `keeping.py` does.

    `at_most`: units known to be at a (location, SKU) at most, whatever the board says. `refused`: what was refused on the way here.
    P(kept) is P(all lines are found) times P(all parcels are in time). Lines and parcels count as independent: stock records fail by
    item and not by store (DeHoratius and Raman 2008), and what is left of a bad day in one store makes the product too low, not too high.
    Raises: PromiseError for a question that makes no sense; BoardError where stock cannot be read.
    """
    if at.tzinfo is None or (ask.wanted_by is not None and ask.wanted_by.tzinfo is None):
        raise PromiseError("time: expected one with its zone, found none. Hand in an aware datetime.")
    network = grounds.network
    where = target(network, ask.spot)
    lines = summed(ask.lines)
    left_out: tuple[Line, ...] = ()
    sight = see(grounds.board, network, lines, at, at_most)
    shut = closed(network, ask, where, sight)
    opened = open_lanes(network, ask, where, sight, shut, grounds.loads, at)
    reasons = list(refused)
    if ask.allow_partial and (lost := hopeless(opened)) and len(lost) < len(lines):
        reasons += refusals(network, ask, where, sight, shut, opened, METHODS, "split", lost)
        left_out = tuple(lines[line] for line in lost)
        kept = [line for line in range(len(lines)) if line not in lost]
        sight, opened = sight.take(kept), opened.take(kept)
        shut = shut.take(kept)
    worth = Worth(**msgspec.structs.asdict(network.rules.worth), now=int(at.timestamp()))
    found, numbers, otherwise = _ways_to_have(network, sight, opened, worth)
    told = _Teller(network, where, sight, opened, numbers, found, worth.score(found.burdens), at)
    chosen, others = told.order()
    option = told.option(chosen) if chosen is not None else None
    shown = tuple(told.option(each) for each in others[:MOST_SHOWN])
    offered = {parcel.method for each in (option, *shown) if each for parcel in each.parcels if len(each.parcels) == 1}
    closed_ways = [method for method in METHODS if method not in offered]
    reasons += refusals(network, ask, where, sight, shut, opened, closed_ways, otherwise)
    if option is not None and option.way != "click_and_collect" and "click_and_collect" in opened.late:
        code = opened.late["click_and_collect"]
        if not any(each.method == "click_and_collect" for each in reasons):
            reasons.append(Refusal(method="click_and_collect", reason_code=code))
    taken = told.taken(chosen) if chosen is not None else []
    text = words.told(option) if option else words.refused(reasons)
    if option and left_out:
        text += " " + words.LEFT_OUT.format(goods=words.goods(left_out))
    return Promise(
        promise_id=promise_id or f"prm_{secrets.token_hex(12)}",
        is_promised=option is not None,
        text=text,
        lines=tuple(sight.lines) if option else lines,
        left_out=left_out if option else (),
        chosen=option,
        runners_up=shown,
        refusals=tuple(reasons),
        hold_id=None,
        held_until=None,
        purpose=ask.purpose,
        channel=ask.channel,
        asked_at=at,
        age_seconds=sight.age_seconds,
        evidence=sight.evidence(taken, network, found.is_exact),
    )


def _ways_to_have(
    network: Network, sight: Sight, opened: Open, worth: Worth
) -> tuple[Routes, NDArray[np.int64], str | None]:
    """Routes nobody can call worse, the lanes they are numbered by, and what to say of a basket that has none."""
    rules = network.rules
    value = sum(network.products[line.sku].cents * line.units for line in sight.lines if line.sku in network.products)
    parcels = 1 if value < rules.split.low_value_cents else rules.split.parcels
    if not sight.is_usable:
        return routes(opened.arrays.take(_NOTHING), 1, may_mix=False), _NOTHING, "stale_evidence"
    worthwhile = undominated(opened.arrays)
    lanes = opened.arrays.take(worthwhile)
    may_mix = any("mixed" in group for group in rules.prefer)
    found = routes(
        lanes, parcels, may_mix=may_mix, least_kept=rules.least_kept, worth=worth, within_cents=rules.split.within_cents
    )
    otherwise = None
    if not len(found) and len(routes(lanes, parcels, may_mix=may_mix)):
        otherwise = "too_unsure"
    return found, worthwhile, otherwise


_NOTHING: NDArray[np.int64] = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class _Teller:
    """Makes answers of routes."""

    network: Network
    where: Target
    sight: Sight
    opened: Open
    numbers: NDArray[np.int64]
    found: Routes
    scores: NDArray[np.float64]
    at: datetime

    def order(self) -> tuple[int | None, list[int]]:
        """The route of the first way in the rules' order that has one, the best of it; and the others, best first."""
        if not len(self.found):
            return None, []
        prefer = self.network.rules.prefer
        pickups = self.opened.arrays.is_pickup[self.numbers][self.found.lane_of]
        is_soon = self.found.promised <= self.at.timestamp() + self.network.rules.pickup.within_hours * 3600
        way = np.where(pickups.all(axis=1), np.where(is_soon, 0, 3), np.where(pickups.any(axis=1), 2, 1))
        rank = np.full(len(WAYS), len(prefer))
        for place, group in enumerate(prefer):
            rank[[WAYS.index(each) for each in group]] = place
        order = np.lexsort((self.found.promised, self.scores, rank[way]))
        order = order[rank[way[order]] < len(prefer)]
        return (int(order[0]), order[1:].tolist()) if len(order) else (None, [])

    def taken(self, route: int) -> list[tuple[int, int, float]]:
        """(line, place, P(found)) of a route."""
        lanes = self.numbers[self.found.lane_of[route]].tolist()
        return [
            (line, self.opened.lanes[lane].place, round(float(self.opened.arrays.found[lane, line]), 9))
            for line, lane in enumerate(lanes)
        ]

    def option(self, route: int) -> Option:
        lane_of = self.numbers[self.found.lane_of[route]].tolist()
        parcels = tuple(self._parcel(number, lane_of) for number in dict.fromkeys(lane_of))
        rules = self.network.rules
        kept, cents = float(self.found.kept[route]), int(self.found.cents[route])
        promised = _time(int(self.found.promised[route]))
        collected = [parcel.carrier is None for parcel in parcels]
        is_soon = (promised - self.at).total_seconds() <= rules.pickup.within_hours * 3600
        way: Way = "click_and_collect" if is_soon else "later_pickup"
        if not all(collected):
            way = "mixed" if any(collected) else "shipping"
        return Option(
            way=way,
            parcels=parcels,
            promised_at=promised,
            kept_probability=kept,
            cost_cents=cents,
            expected_cost_cents=round(cents + (1 - kept) * rules.worth.failure_cents),
            carbon_grams=int(self.found.grams[route]),
            score_cents=round(float(self.scores[route])),
        )

    def _parcel(self, number: int, lane_of: Sequence[int]) -> Parcel:
        lane, arrays = self.opened.lanes[number], self.opened.arrays
        mine = [line for line, by in enumerate(lane_of) if by == number]
        read_at = lane.place if lane.carrier is None else self.where.nearest
        return Parcel(
            method=lane.method,
            location_code=self.network.codes[lane.place],
            location_name=self.network.names[lane.place],
            timezone_name=self.network.zones[read_at],
            lines=tuple(self.sight.lines[line] for line in mine),
            carrier=None if lane.carrier is None else self.network.services[lane.carrier].name,
            starts_at=_time(lane.starts),
            promised_at=_time(lane.promised),
            cost_cents=int(arrays.cents[number]) + sum(map(arrays.line_cents[number].tolist().__getitem__, mine)),
            carbon_grams=int(arrays.grams[number]) + sum(map(arrays.line_grams[number].tolist().__getitem__, mine)),
            distance_km=round(float(self.where.distances[lane.place])),
            found_probability=round(math.prod(map(arrays.found[number].tolist().__getitem__, mine)), 9),
            on_time_probability=round(float(arrays.on_time[number]), 9),
        )


def _time(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)
