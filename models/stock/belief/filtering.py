"""One step of the filter: a period's evidence into beliefs, arrays only.

DeHoratius, Mersereau & Schrage 2008 (doi 10.1287/msom.1070.0203): what was sold was there, what did not sell may not be; the probabilities over physical
stock are all that has to be remembered. Added here: counts and picks that err, receipts that fall short, sales rung up as something else, and a
window that moves with the books, so that a warehouse's hundreds cost no more than a shelf's three.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.stock.belief.beliefs import CELLS, CHUNK, Beliefs, Floats, Ints, at_least, mean_units
from models.stock.belief.parameters import STORE, Parameters, opening_errors

# Kinds of evidence, in the order in which those of one instant count.
OPEN, IN, TRANSFER_IN, COUNT, CORRECT, ASK, TAKE, SALE, MISS = range(9)
MOVES = np.isin(np.arange(9), (IN, TRANSFER_IN, TAKE, SALE))
GIVE_UP_DAYS = 4.0  # a till that said nothing for so long will not say it any more
QUIET_MOST = 8  # pieces that an unheard day may have taken, at most


@dataclass(frozen=True)
class Evidence:
    """What became known in a period. Events are in order of position and time; `units` is what moved, was counted, or was asked of a pick.

    `found`: pieces a pick brought, for ASK; 1 for a CORRECT that no count explains. `lines`: till lines by position. `heard`, `heard_days`: till lines and trading days that a
    location told of. `place`, `item`, `locations`, `items`: positions there are now, as in the beliefs, new ones last. `days`: length of the period.
    """

    position: Ints
    kind: NDArray[np.int8]
    units: Ints
    day: Ints
    found: Ints
    lines: Floats  # by position
    heard: Floats  # till lines by location
    heard_days: Floats  # by location
    place: Ints
    item: Ints
    locations: pl.DataFrame
    items: pl.DataFrame
    days: float = 1.0


@dataclass
class Scores:
    """How well the beliefs foresaw: for every pick and count, what was expected of it before it was known."""

    position: list[Ints] = field(default_factory=list)
    units: list[Ints] = field(default_factory=list)
    probability: list[Floats] = field(
        default_factory=list
    )  # of the pick being complete; of the count being what it was
    outcome: list[NDArray[np.int8]] = field(default_factory=list)
    is_count: list[NDArray[np.bool_]] = field(default_factory=list)
    wrong: list[Floats] = field(default_factory=list)  # of counts: P(the books were wrong); of picks 0

    def add(
        self, position: Ints, units: Ints, probability: Floats, outcome: NDArray[np.bool_], wrong: Floats | None
    ) -> None:
        self.position.append(position)
        self.units.append(units)
        self.probability.append(probability)
        self.outcome.append(outcome.astype(np.int8))
        self.is_count.append(np.full(len(position), wrong is not None))
        self.wrong.append(np.zeros(len(position), np.float32) if wrong is None else wrong)


def step(beliefs: Beliefs, evidence: Evidence, scores: Scores | None = None) -> None:
    """Change beliefs by a period's evidence: its events in order, then what did not sell, then what went missing unseen."""
    parameters = beliefs.parameters
    _admit(beliefs, evidence, parameters)
    there = _there(beliefs)
    _hear_events(beliefs, evidence, parameters, scores)
    there = np.maximum(there, _there(beliefs))
    heard = evidence.heard
    usual, given_up = _listen(beliefs, evidence)
    prior = _item_rates(beliefs)
    for start in range(0, len(beliefs), CHUNK):
        part = slice(start, start + CHUNK)
        place = beliefs.place[part]
        traffic, lines = heard[place], evidence.lines[part]
        shape = parameters.likeness + beliefs.sold[part]
        pace = parameters.likeness / prior[beliefs.item[part]] + beliefs.exposure[part]
        rate = shape / pace
        mass = beliefs.mass[part]
        _not_sold(beliefs.base[part], mass, lines, traffic, shape, pace)
        lost = rate * usual[place] * given_up[place]
        if lost.any():
            _unheard(beliefs.base[part], mass, lost * parameters.units_per_line)
        _drift(mass, evidence.days, beliefs.scale[part], rate * traffic, parameters)
        beliefs.sold[part] += lines
        beliefs.exposure[part] += traffic * np.maximum(there[part], np.minimum(lines, 1))
        beliefs.quiet[part] = np.where(lines > 0, 0, beliefs.quiet[part] + rate * traffic)
    beliefs.days += evidence.days


def _admit(beliefs: Beliefs, evidence: Evidence, parameters: Parameters) -> None:
    """Make room for positions first heard of. Of what was there before the first record, little is known."""
    beliefs.locations, beliefs.items = evidence.locations, evidence.items
    more = len(beliefs.locations) - len(beliefs.traffic)
    beliefs.traffic, beliefs.silent = (
        np.r_[each, np.zeros(more, np.float32)] for each in (beliefs.traffic, beliefs.silent)
    )
    known, count = len(beliefs), len(evidence.place) - len(beliefs)
    if not count:
        return
    unknown = np.r_[0.6, 0.12 * 0.7 ** np.arange(CELLS - 1)].astype(np.float32)
    beliefs.place, beliefs.item = evidence.place, evidence.item
    beliefs.mass = np.concatenate([beliefs.mass, np.broadcast_to(unknown / unknown.sum(), (count, CELLS))])
    beliefs.scale = np.r_[beliefs.scale, _odds(beliefs, evidence.place[known:], evidence.item[known:], parameters.odds)]
    for name in ("base", "books", "seen_day", "counted_day", "missed_day"):
        setattr(beliefs, name, np.r_[getattr(beliefs, name), np.zeros(count, np.int32)])
    for name in ("sold", "exposure", "asked", "quiet"):
        setattr(beliefs, name, np.r_[getattr(beliefs, name), np.zeros(count, np.float32)])


def _odds(beliefs: Beliefs, place: Ints, item: Ints, odds: Mapping[str, float]) -> Floats:
    """How much worse than the mean the records of a position's kind are."""
    types, categories = beliefs.locations["location_type"].fill_null(STORE), beliefs.items["category"].fill_null("")
    table = np.array(
        [[odds.get(f"{a}/{b}", 1.0) for b in categories.unique().sort()] for a in types.unique().sort()], np.float32
    )
    row = types.rank("dense").to_numpy().astype(np.int64) - 1
    column = categories.rank("dense").to_numpy().astype(np.int64) - 1
    return np.asarray(table[row[place], column[item]])


def demand_rates(beliefs: Beliefs) -> Floats:
    """Till lines a day that would be asked for at each position if it were there: the SKU's own share everywhere, then this location's (empirical Bayes)."""
    likeness, prior = beliefs.parameters.likeness, _item_rates(beliefs)
    lines = np.empty(len(beliefs), np.float32)
    for start in range(0, len(beliefs), CHUNK):
        part = slice(start, start + CHUNK)
        rate = (likeness + beliefs.sold[part]) / (likeness / prior[beliefs.item[part]] + beliefs.exposure[part])
        lines[part] = rate * beliefs.traffic[beliefs.place[part]]
    return lines


def _there(beliefs: Beliefs) -> Floats:
    present: Floats = 1 - np.where(beliefs.base == 0, beliefs.mass[:, 0], 0)
    return present


def _item_rates(beliefs: Beliefs) -> Floats:
    """Lines of each SKU per line of a location, shrunk to its category's."""
    size = len(beliefs.items)
    sold = np.bincount(beliefs.item, weights=beliefs.sold, minlength=size)
    exposure = np.bincount(beliefs.item, weights=beliefs.exposure, minlength=size)
    category = (
        beliefs.items["category"].rank("dense").fill_null(0).to_numpy().astype(np.int64)
        if size
        else np.zeros(0, np.int64)
    )
    of_kind = (np.bincount(category, sold) + 1) / (np.bincount(category, exposure) + 1_000) if size else np.zeros(0)
    rates: Floats = ((sold + 1) / (exposure + 1 / of_kind[category])).astype(np.float32)
    return rates


def _listen(beliefs: Beliefs, evidence: Evidence) -> tuple[Floats, Floats]:
    """A location's usual lines a day, and how many days are now given up. Keeps count of days without word."""
    told = evidence.heard_days > 0
    each = np.where(told, evidence.heard / np.maximum(evidence.heard_days, 1), 0).astype(np.float32)
    beliefs.traffic = np.where(
        told, np.where(beliefs.traffic > 0, 0.85 * beliefs.traffic + 0.15 * each, each), beliefs.traffic
    ).astype(np.float32)
    speaks = beliefs.traffic > 0
    beliefs.silent = np.where(speaks, np.maximum(0, beliefs.silent + evidence.days - evidence.heard_days), 0).astype(
        np.float32
    )
    given_up = np.maximum(0, beliefs.silent - GIVE_UP_DAYS).astype(np.float32)
    beliefs.silent -= given_up
    return beliefs.traffic, given_up


def _hear_events(beliefs: Beliefs, evidence: Evidence, parameters: Parameters, scores: Scores | None) -> None:
    """Every position's events in their order: the first of each, then the second, and so on."""
    position = evidence.position
    if not len(position):
        return
    first = np.r_[True, position[1:] != position[:-1]]
    starts = np.flatnonzero(first)
    turn = np.arange(len(position)) - np.repeat(starts, np.diff(np.r_[starts, len(position)]))
    order = np.argsort(turn, kind="stable")
    for events in np.split(order, np.flatnonzero(np.diff(turn[order])) + 1):
        for chunk in range(0, len(events), CHUNK):
            some = events[chunk : chunk + CHUNK]
            moves = MOVES[evidence.kind[some]]
            if moves.any():
                _move(some[moves], beliefs, evidence, parameters)
            for kind in np.unique(evidence.kind[some[~moves]]):
                _hear(int(kind), some[evidence.kind[some] == kind], beliefs, evidence, parameters, scores)


def _move(events: NDArray[np.intp], beliefs: Beliefs, evidence: Evidence, parameters: Parameters) -> None:
    """Goods in and out, at most one event of a position: what left was there, unless the record slipped, the till took one SKU for another or the lorry
    came a piece short."""
    position, units, kind = evidence.position[events], evidence.units[events], evidence.kind[events]
    base, mass = beliefs.base[position], beliefs.mass[position]
    out = (kind == TAKE) | (kind == SALE)
    by = np.where(out, -units, units).astype(np.int32)
    to = _base_after(base, mass, by)
    after = moved(base, mass, by, to, drop=True)
    after[:, 0] += parameters.slip * np.maximum(1 - after.sum(axis=1), 0)
    mix = np.select([kind == SALE, kind == TRANSFER_IN], [parameters.mis_scan, parameters.transit_loss], 0.0).astype(
        np.float32
    )
    mixed = np.flatnonzero(mix)
    if len(mixed):
        instead = np.where(kind[mixed] == SALE, 0, units[mixed] - 1).astype(np.int32)
        other = moved(base[mixed], mass[mixed], instead, to[mixed])
        after[mixed] += mix[mixed, None] * (other - after[mixed])
    beliefs.books[position] += by
    seen = position[out]
    beliefs.seen_day[seen] = np.maximum(beliefs.seen_day[seen], evidence.day[events][out])
    beliefs.base[position], beliefs.mass[position] = to, after / after.sum(axis=1, keepdims=True)


def _hear(
    kind: int,
    events: NDArray[np.intp],
    beliefs: Beliefs,
    evidence: Evidence,
    parameters: Parameters,
    scores: Scores | None,
) -> None:
    """Events of one kind, at most one of a position."""
    position, units, day = evidence.position[events], evidence.units[events], evidence.day[events]
    base, mass = beliefs.base[position], beliefs.mass[position]
    match kind:
        case _ if kind == OPEN:
            beliefs.books[position] += units
            booked = np.maximum(beliefs.books[position], 0)
            base = np.maximum(booked - CELLS // 2, 0).astype(np.int32)
            mass = _opened(booked, base, beliefs, position, parameters)
        case _ if kind == COUNT:
            base, mass = _counted(units, base, mass, beliefs.books[position], position, parameters, scores)
            beliefs.counted_day[position] = day
        case _ if kind == CORRECT:
            beliefs.books[position] += units
            alone = evidence.found[events] == 1
            if not alone.any():
                return
            position, day = position[alone], day[alone]
            booked = np.maximum(beliefs.books[position], 0)
            base, mass = _counted(booked, base[alone], mass[alone], booked, position, parameters, None)
            beliefs.counted_day[position] = day
        case _ if kind == ASK:
            beliefs.asked[position] += 1
            if scores is not None:
                wanted = _at_least_each(base, mass, units)
                scores.add(position, units, wanted, evidence.found[events] >= units, None)
            return
        case _ if kind == MISS:
            again = beliefs.missed_day[position] > np.maximum(beliefs.seen_day[position], beliefs.counted_day[position])
            base, mass = _missed(base, mass, again, parameters)
            beliefs.missed_day[position] = day
    beliefs.base[position], beliefs.mass[position] = base, mass / mass.sum(axis=1, keepdims=True)


def moved(base: Ints, mass: Floats, by: Ints, to: Ints, drop: bool = False) -> Floats:
    """The distribution of pieces + `by`, in windows that start at `to`; what would be below nothing is dropped, or counts as nothing."""
    cells = mass.shape[1]
    running = np.zeros((len(mass), cells + 1), np.float32)
    np.cumsum(mass, axis=1, out=running[:, 1:])
    shift = (base + by - to)[:, None]  # cells by which each row moves up
    upto = np.clip(np.arange(1, cells + 1)[None, :] - shift, 0, cells)
    after = np.take_along_axis(running, upto, axis=1)
    after[:, -1] = running[:, -1]
    before = np.take_along_axis(running, np.clip(-shift, 0, cells), axis=1) if drop else 0.0
    before = np.where((to == 0)[:, None], before, 0.0)
    result = np.diff(after, axis=1, prepend=np.float32(0))
    result[:, 0] = np.maximum(after[:, 0] - before[:, 0], 0)
    return np.asarray(np.maximum(result, 0), np.float32)


def _base_after(base: Ints, mass: Floats, by: Ints) -> Ints:
    """Where the window starts after a move: the mean in its middle, never below nothing."""
    middle = np.rint(mean_units(base, mass)).astype(np.int32) + by
    return np.asarray(np.maximum(middle - CELLS // 2, 0), np.int32)


def _at_least_each(base: Ints, mass: Floats, units: Ints) -> Floats:
    above = mass * (base[:, None] + np.arange(mass.shape[1]) >= units[:, None])
    return np.asarray(np.clip(above.sum(axis=1), 0, 1), np.float32)


def _opened(units: Ints, base: Ints, beliefs: Beliefs, position: Ints, parameters: Parameters) -> Floats:
    """The books' first figure, as wrong as first figures are."""
    center = (beliefs.locations["location_type"] != "store").to_numpy()[beliefs.place[position]]
    share = np.where(center, parameters.wrong_share_center, parameters.wrong_share) * beliefs.scale[position]
    errors = opening_errors(np.clip(share, 0.001, 0.95).astype(np.float32), parameters, CELLS)
    return moved((units - CELLS // 2).astype(np.int32), errors, np.zeros_like(units), base)


def _counted(
    units: Ints, base: Ints, mass: Floats, books: Ints, position: Ints, parameters: Parameters, scores: Scores | None
) -> tuple[Ints, Floats]:
    """Somebody counted: that many are there, or, where counts err, about that many of what was believed."""
    to = np.maximum(units - CELLS // 2, 0).astype(np.int32)
    believed = moved(base, mass, np.zeros_like(units), to)
    pieces = to[:, None] + np.arange(CELLS)
    exact = (pieces == units[:, None]).astype(np.float32)
    near = believed * 0.5 ** np.abs(pieces - units[:, None]) + 1e-12
    if scores is not None:
        as_booked = (mass * (base[:, None] + np.arange(CELLS) == books[:, None])).sum(axis=1)
        chance = (believed * exact).sum(axis=1)
        likely = (1 - parameters.count_error) * chance + parameters.count_error / 12
        scores.add(position, units, likely.astype(np.float32), units == books, (1 - as_booked).astype(np.float32))
    near /= near.sum(axis=1, keepdims=True)
    return to, np.asarray((1 - parameters.count_error) * exact + parameters.count_error * near, np.float32)


def _missed(base: Ints, mass: Floats, again: NDArray[np.bool_], parameters: Parameters) -> tuple[Ints, Floats]:
    """A picker looked and found no more: nothing is there, unless the picker erred. Where plenty was believed, one such picker is thought to have erred;
    a second, with nothing seen between, is believed."""
    low = base == 0
    empty = np.where(low, mass[:, 0], 0.5).astype(np.float32)
    gone = empty / (empty + parameters.pick_error * (1 - empty) + np.float32(1e-12))
    some = mass.copy()
    some[:, 0] = 0
    some[~low] = np.eye(1, CELLS, CELLS - 1, dtype=np.float32)
    after = (1 - gone)[:, None] * some / np.maximum(some.sum(axis=1, keepdims=True), 1e-12)
    after[:, 0] += gone
    believed = low | again
    return np.where(believed, 0, base).astype(np.int32), np.asarray(
        np.where(believed[:, None], after, mass), np.float32
    )


def _not_sold(base: Ints, mass: Floats, lines: Floats, traffic: Floats, shape: Floats, pace: Floats) -> None:
    """What a day's sales say of an empty shelf: P(so many or more were asked for) beside P(just so many), demand gamma-Poisson."""
    bare = np.flatnonzero((base == 0) & (traffic > 0) & (mass[:, 0] > 0))
    if not len(bare):
        return
    # In double precision: one less nearly one is what is asked for.
    a, share = shape[bare].astype(np.float64), traffic[bare].astype(np.float64) / (traffic[bare] + pace[bare])
    just = np.exp(a * np.log1p(-share))
    fewer, sold = np.zeros_like(just), lines[bare]
    for count in range(int(sold.max()) if len(sold) else 0):
        more = sold > count
        fewer = np.where(more, fewer + just, fewer)
        just = np.where(more, just * (a + count) / (count + 1) * share, just)
    odds = np.clip((1 - fewer) / np.maximum(just, 1e-12), 1, 1e6).astype(np.float32)
    empty = mass[bare, 0]
    mass[bare] /= (1 + (odds - 1) * empty)[:, None]
    mass[bare, 0] = odds * empty / (1 + (odds - 1) * empty)


def _unheard(base: Ints, mass: Floats, expected: Floats) -> None:
    """Sales nobody will tell of: Poisson, of so many pieces."""
    rows = np.flatnonzero(expected > 0)
    mass[rows] = thinned(base[rows], mass[rows], expected[rows])


def thinned(base: Ints, mass: Floats, expected: Floats) -> Floats:
    """The distribution after a Poisson number of pieces left unseen."""
    chance, left = np.asarray(np.exp(-expected), np.float32), np.ones(len(mass), np.float32)
    result = np.zeros_like(mass)
    for gone in range(QUIET_MOST + 1):
        share = left if gone == QUIET_MOST else chance
        result += share[:, None] * moved(base, mass, np.full(len(base), -gone, np.int32), base)
        left = np.asarray(np.maximum(left - chance, 0), np.float32)
        chance = np.asarray(chance * expected / (gone + 1), np.float32)
    return np.asarray(result / result.sum(axis=1, keepdims=True), np.float32)


def _drift(mass: Floats, days: float, scale: Floats, lines: Floats, parameters: Parameters) -> None:
    """Pieces that go and come without a record: one at most in a period."""
    loss = np.minimum(parameters.loss_per_day * days * scale + parameters.mis_scan * lines, 0.5).astype(np.float32)[
        :, None
    ]
    gain = np.float32(min(parameters.gain_per_day * days, 0.5))
    flow = mass[:, 1:] * loss - mass[:, :-1] * gain
    mass[:, :-1] += flow
    mass[:, 1:] -= flow
    np.maximum(mass, 0, out=mass)
    mass /= mass.sum(axis=1, keepdims=True)


def now(beliefs: Beliefs, part: slice, rates: Floats) -> Floats:
    """The mass of some positions as of this moment: where tills are silent, what they may have sold is taken off. `rates`: `demand_rates`, of all."""
    mass = beliefs.mass[part]
    silent = beliefs.silent[beliefs.place[part]]
    quiet = np.flatnonzero(silent > 0)
    if len(quiet):
        sold = rates[part][quiet] * silent[quiet] * np.float32(beliefs.parameters.units_per_line)
        mass = mass.copy()
        mass[quiet] = thinned(beliefs.base[part][quiet], mass[quiet], sold)
    return mass


def found_probability(beliefs: Beliefs, units: Sequence[int]) -> Floats:
    """P(at least so many pieces are found), position x units; never rises with units."""
    answers, rates = np.empty((len(beliefs), len(units)), np.float32), demand_rates(beliefs)
    for start in range(0, len(beliefs), CHUNK):
        part = slice(start, start + CHUNK)
        answers[part] = at_least(beliefs.base[part], now(beliefs, part, rates), units)
    return answers
