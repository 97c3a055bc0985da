"""Giving a promise: its stock is held, its hands are taken with the record of it, and where somebody was quicker the next way is taken.

And giving another one when a pick has failed, with what the shopper is told.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Annotated

import msgspec

from models.promise import words
from models.promise.asking import Ask, Code, Line, Option, Promise, PromiseError, Refusal, Spot, summed
from models.promise.book import Full, Recorder, hands_of
from models.promise.loads import Hands, KnownLoads
from models.promise.network import Network
from models.promise.promising import Grounds, promise
from models.promise.rules import Method
from models.stock.holds.store import HoldStore
from models.stock.holds.words import Hold, Request
from models.stock.holds.words import Line as HeldLine
from models.stock.holds.words import Refusal as Refused

MOST_TRIES = 5  # ways tried while others are quicker


@dataclass
class _Learned:
    """What was found out while ways were tried: units there are at most, lines promised of hands, and what was refused."""

    at_most: dict[tuple[str, str], int] = field(default_factory=dict)
    loads: dict[Hands, int] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)

    def refuse(self, refusal: Refusal) -> None:
        if refusal not in self.refusals:
            self.refusals.append(refusal)


class Wish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That the stock be held. The same wish under the same `key` gets the same promise, however often it is sent."""

    key: Code
    seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 900


class Failed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a promise that was not found, or not all of it."""

    location_code: Code
    sku: Code
    found_units: Annotated[int, msgspec.Meta(ge=0)] = 0


def give(ask: Ask, at: datetime, grounds: Grounds, wish: Wish, holds: HoldStore, recorder: Recorder) -> Promise:
    """A promise with its stock held, kept by the recorder; nothing is held where nothing can be promised.

    Raises: PromiseError for a key that was another basket's, or whose hold has ended.
    """
    before = recorder.of_key(wish.key)
    if before is not None:
        asked = {(line.sku, line.units) for line in summed(ask.lines)}
        if asked != {(line.sku, line.units) for line in (*before.lines, *before.left_out)}:
            raise PromiseError("key: expected the basket first promised under it, found another. Use a new key.")
        return before

    def once(learned: _Learned) -> Promise:
        return _asked(ask, at, grounds, learned, _id(wish.key))

    return _held(once, _Learned(), wish, at, holds, recorder, grounds.network)


def repromise(
    before: Promise,
    failed: Sequence[Failed],
    spot: Spot,
    at: datetime,
    grounds: Grounds,
    *,
    wish: Wish | None = None,
    holds: HoldStore | None = None,
    recorder: Recorder | None = None,
    methods: tuple[Method, ...] | None = None,
) -> Promise:
    """A promise for what was not found, from anywhere but where it was not found; what was found stays promised as it was.

    `text` is what the shopper is told, `refusals` begin with the failed picks, for the contact centre. What cannot be had any more is
    `left_out`. `spot` is asked again, for it was never kept.
    Raises: PromiseError for lines that were not promised.
    """
    lost, place = _lost(before, failed)
    known = _Learned({(each.location_code, each.sku): 0 for each in failed}, refusals=_picks(before, failed))
    ask = Ask(lines=lost, spot=spot, channel=before.channel, methods=methods, allow_partial=True)

    def once(learned: _Learned) -> Promise:
        given = _asked(ask, at, grounds, learned, _id(wish.key) if wish else None)
        text = words.again(lost, place, given.chosen, given.left_out)
        return msgspec.structs.replace(given, text=text, replaces=before.promise_id)

    if wish is None or holds is None or recorder is None:
        return once(known)
    return recorder.of_key(wish.key) or _held(once, known, wish, at, holds, recorder, grounds.network)


def _asked(ask: Ask, at: datetime, grounds: Grounds, learned: _Learned, promise_id: str | None) -> Promise:
    """A promise in the light of what was learned."""
    if learned.loads:
        grounds = replace(grounds, loads=KnownLoads(learned.loads, grounds.loads))
    return promise(ask, at, grounds, at_most=learned.at_most, refused=learned.refusals, promise_id=promise_id)


def _held(
    once: Callable[[_Learned], Promise],
    learned: _Learned,
    wish: Wish,
    at: datetime,
    holds: HoldStore,
    recorder: Recorder,
    network: Network,
) -> Promise:
    """The first way whose stock can be held and whose hands have room, taken whole."""
    released = 0  # holds of ways that were given up again
    held: tuple[tuple[HeldLine, ...], Hold] | None = None
    for _ in range(MOST_TRIES):
        given = once(learned)
        lines = _lines(given.chosen) if given.chosen else ()
        if held is not None and held[0] != lines:
            if (meanwhile := recorder.of_key(wish.key)) is not None:  # sent twice at once: the hold may be the other's
                return meanwhile
            holds.release(held[1].hold_id, at)
            held, released = None, released + 1
        if given.chosen is None:
            return given
        if held is None:
            wanted = Request(_key(wish.key, lines, released), lines, timedelta(seconds=wish.seconds))
            answer = holds.hold(wanted, at)
            if not isinstance(answer, Hold):
                _learn(learned, answer, given.chosen)
                continue
            if (
                answer.state == "released"
            ):  # given up by an earlier try of this wish, which ended before it was answered
                released += 1
                continue
            if answer.state != "held":
                raise PromiseError(f"key: expected a new one, found one whose hold is {answer.state}. Use a new key.")
            held = lines, answer
        kept = _told(given, held[1])
        recorded = recorder.record(kept, wish.key, _capacity(given.chosen, network))
        if not isinstance(recorded, Full):
            return recorded
        learned.loads |= recorded.loads
        for parcel in given.chosen.parcels:
            if hands_of(parcel) in recorded.loads:
                learned.refuse(
                    Refusal(method=parcel.method, reason_code="no_capacity", location_code=parcel.location_code)
                )
    if held is not None:
        holds.release(held[1].hold_id, at)
    refusals = tuple(learned.refusals)
    return msgspec.structs.replace(
        given, is_promised=False, text=words.refused(refusals), chosen=None, runners_up=(), refusals=refusals
    )


def _told(given: Promise, hold: Hold) -> Promise:
    """With its hold; hands that were full are not told of where the same place has others in time."""
    ways = {(parcel.method, parcel.location_code) for parcel in (given.chosen.parcels if given.chosen else ())}
    refusals = tuple(
        each
        for each in given.refusals
        if each.reason_code != "no_capacity" or (each.method, each.location_code) not in ways
    )
    return msgspec.structs.replace(given, refusals=refusals, hold_id=hold.hold_id, held_until=hold.expires_at)


def _learn(learned: _Learned, refused: Refused, chosen: Option) -> None:
    """Take in what the holds know better. Raises: PromiseError for a refusal of another kind."""
    if not refused.shortages:
        raise PromiseError(str(refused))
    ways = {parcel.location_code: parcel.method for parcel in chosen.parcels}
    for short in refused.shortages:
        place = short.location_code
        learned.at_most[place, short.sku] = max(0, short.free_units - short.held_units)
        learned.refuse(Refusal(method=ways[place], reason_code="hold_refused", sku=short.sku, location_code=place))


def _capacity(option: Option, network: Network) -> dict[Hands, int]:
    """Lines that the hands of each parcel can get ready."""
    rules = network.rules
    return {
        hands_of(parcel): rules.pickup.lines_per_slot
        if parcel.carrier is None
        else rules.dispatch[network.kind(network.at[parcel.location_code])].lines_per_day
        for parcel in option.parcels
    }


def _lines(option: Option) -> tuple[HeldLine, ...]:
    return tuple(
        HeldLine(parcel.location_code, line.sku, line.units) for parcel in option.parcels for line in parcel.lines
    )


def _lost(before: Promise, failed: Sequence[Failed]) -> tuple[tuple[Line, ...], str]:
    """What was not found, and where, in words."""
    parcels = before.chosen.parcels if before.chosen else ()
    promised = {(parcel.location_code, line.sku): (line, parcel) for parcel in parcels for line in parcel.lines}
    lost: list[Line] = []
    places: dict[str, None] = {}
    for each in failed:
        line, parcel = promised.get((each.location_code, each.sku), (None, None))
        if line is None or parcel is None or each.found_units >= line.units:
            raise PromiseError(
                "failed: expected lines of the promise with fewer pieces found than promised, found others. Correct them."
            )
        lost.append(Line(line.sku, line.units - each.found_units))
        places[parcel.location_name] = None
    if not lost or len({line.sku for line in lost}) < len(lost):
        raise PromiseError("failed: expected each line once and at least one, found otherwise. Correct them.")
    return tuple(lost), " and ".join(places)


def _picks(before: Promise, failed: Sequence[Failed]) -> list[Refusal]:
    ways = {parcel.location_code: parcel.method for parcel in (before.chosen.parcels if before.chosen else ())}
    return [
        Refusal(
            method=ways[each.location_code], reason_code="pick_failed", sku=each.sku, location_code=each.location_code
        )
        for each in failed
    ]


def _id(key: str) -> str:
    """The promise of a key: asked again, even after a kill, it has the same name."""
    return f"prm_{hashlib.sha256(key.encode()).hexdigest()[:24]}"


def _key(key: str, lines: Sequence[HeldLine], released: int) -> str:
    """A hold of its own for every way that is tried under a wish, and another one after any was given up."""
    told = msgspec.json.encode(sorted((line.location_code, line.sku, line.units) for line in lines))
    return hashlib.sha256(key.encode() + b"\0" + told + b"\0" * released).hexdigest()
