"""Giving a promise: its stock is held, the next way is taken where somebody was quicker, and what was given is written down.

And giving another one when a pick has failed, with what the shopper is told.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated

import msgspec

from models.promise import words
from models.promise.asking import Ask, Code, Line, Option, Promise, PromiseError, Refusal, Spot, summed
from models.promise.book import Recorder
from models.promise.promising import Grounds, promise
from models.promise.rules import Method
from models.stock.holds.store import HoldStore
from models.stock.holds.words import Hold, Request
from models.stock.holds.words import Line as HeldLine

MOST_TRIES = 5  # ways tried while others are quicker
AtMost = Mapping[tuple[str, str], int]


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

    def once(at_most: AtMost, refused: Sequence[Refusal]) -> Promise:
        return promise(ask, at, grounds, at_most=at_most, refused=refused, promise_id=_id(wish.key))

    return _held(once, {}, wish, at, holds, recorder)


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
    at_most = {(each.location_code, each.sku): 0 for each in failed}
    picks = _picks(before, failed)
    ask = Ask(lines=lost, spot=spot, channel=before.channel, methods=methods, allow_partial=True)

    def once(at_most: AtMost, refused: Sequence[Refusal]) -> Promise:
        given = promise(ask, at, grounds, at_most=at_most, refused=refused, promise_id=_id(wish.key) if wish else None)
        text = words.again(lost, place, given.chosen, given.left_out)
        return msgspec.structs.replace(given, text=text, replaces=before.promise_id)

    if wish is None or holds is None or recorder is None:
        return once(at_most, picks)
    return recorder.of_key(wish.key) or _held(once, at_most, wish, at, holds, recorder, picks)


def _held(
    once: Callable[[AtMost, Sequence[Refusal]], Promise],
    at_most: AtMost,
    wish: Wish,
    at: datetime,
    holds: HoldStore,
    recorder: Recorder,
    refused: Sequence[Refusal] = (),
) -> Promise:
    """The first way whose stock can be held."""
    most, reasons = dict(at_most), list(refused)
    for _ in range(MOST_TRIES):
        given = once(most, reasons)
        if given.chosen is None:
            return given
        lines = _lines(given.chosen)
        answer = holds.hold(Request(_key(wish.key, lines), lines, timedelta(seconds=wish.seconds)), at)
        if isinstance(answer, Hold):
            if answer.state != "held":
                raise PromiseError(f"key: expected a new one, found one whose hold is {answer.state}. Use a new key.")
            held = msgspec.structs.replace(given, hold_id=answer.hold_id, held_until=answer.expires_at)
            return recorder.record(held, wish.key)
        if not answer.shortages:
            raise PromiseError(str(answer))
        ways = {parcel.location_code: parcel.method for parcel in given.chosen.parcels}
        for short in answer.shortages:
            place = short.location_code
            most[place, short.sku] = max(0, short.free_units - short.held_units)
            reasons.append(Refusal(method=ways[place], reason_code="hold_refused", sku=short.sku, location_code=place))
    return msgspec.structs.replace(
        given, is_promised=False, text=words.refused(reasons), chosen=None, runners_up=(), refusals=tuple(reasons)
    )


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


def _key(key: str, lines: Sequence[HeldLine]) -> str:
    """A hold of its own for every way that is tried under a wish."""
    told = msgspec.json.encode(sorted((line.location_code, line.sku, line.units) for line in lines))
    return hashlib.sha256(key.encode() + b"\0" + told).hexdigest()
