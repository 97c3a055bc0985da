"""The handlers of promises and holds, and which path is answered by whom.

A promise is about a basket and a place. It names no person, reads no personal feature, and keeps no place.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.promise.asking import Promise, PromiseError
from models.promise.keeping import give, repromise
from models.promise.promising import promise
from models.stock.holds.words import Hold, HoldsError, Line, Refusal
from models.stock.holds.words import Request as HoldRequest
from serving import encoding, requests
from serving.keys import Callers
from serving.problems import ProblemError
from serving.promising.ages import Ages
from serving.promising.shapes import MOST_BYTES, Extension, Held, NewHold, PromiseRequest, RepromiseRequest
from serving.promising.shop import Shop
from troth.clock import Clock

PROMISE_SCOPE, HOLD_SCOPE = "promise", "hold"


class Promising:
    """The handlers. A promise is reckoned in place, for it takes little more than handing it to a thread; what reads files or writes goes beside the event loop."""

    def __init__(self, shop: Shop, callers: Callers, clock: Clock, ages: Ages) -> None:
        self._shop, self._callers, self._clock, self._ages = shop, callers, clock, ages

    def routes(self) -> list[Route]:
        return [
            Route("/v1/promises", self.promise, methods=["POST"]),
            Route("/v1/repromises", self.repromise, methods=["POST"]),
            Route("/v1/holds", self.hold, methods=["POST"]),
            Route("/v1/holds/{hold_id}/extend", self.extend, methods=["POST"]),
            Route("/v1/holds/{hold_id}", self.release, methods=["DELETE"]),
        ]

    async def promise(self, request: Request) -> Response:
        caller = requests.caller_with(request, self._callers, PROMISE_SCOPE)
        asked = await requests.typed_body(request, PromiseRequest, MOST_BYTES)
        at, wish = self._clock.now(), asked.hold
        if wish is None:
            once = partial(_answered, lambda: promise(asked, at, self._shop.grounds()))
            return self._told(request, at, once() if self._shop.is_ready() else await run_in_threadpool(once))
        if HOLD_SCOPE not in caller.scopes:
            raise ProblemError(
                403, "scope_not_allowed", f"API key: expected one of scope {HOLD_SCOPE}, found another. Use one."
            )
        shop = self._shop
        given = await run_in_threadpool(
            _answered, lambda: give(asked, at, shop.grounds(), wish, shop.holds(), shop.book())
        )
        return self._told(request, at, given)

    async def repromise(self, request: Request) -> Response:
        requests.caller_with(request, self._callers, HOLD_SCOPE)
        asked = requests.decoded(await requests.json_bytes(request, MOST_BYTES), RepromiseRequest)
        at, shop = self._clock.now(), self._shop

        def again() -> Promise:
            before = shop.book().of_id(asked.promise_id)
            if before is None:
                raise ProblemError(
                    404, "no_such_promise", "promise: expected one that was given, found none of this id."
                )
            return repromise(
                before, asked.failed, asked.spot, at, shop.grounds(), wish=asked.hold, holds=shop.holds(), recorder=shop.book(),
                methods=asked.methods,
            )  # fmt: skip

        return self._told(request, at, await run_in_threadpool(_answered, again))

    async def hold(self, request: Request) -> Response:
        requests.caller_with(request, self._callers, HOLD_SCOPE)
        asked = requests.decoded(await requests.json_bytes(request, MOST_BYTES), NewHold)
        lines = tuple(Line(line.location_code, line.sku, line.units) for line in asked.lines)
        wanted = HoldRequest(asked.key, lines, timedelta(seconds=asked.seconds))
        return await run_in_threadpool(_held, lambda: self._shop.holds().hold(wanted, self._clock.now()))

    async def extend(self, request: Request) -> Response:
        requests.caller_with(request, self._callers, HOLD_SCOPE)
        hold_id = requests.text(request, "hold_id")
        until = requests.decoded(await requests.json_bytes(request, MOST_BYTES), Extension).until
        return await run_in_threadpool(_held, lambda: self._shop.holds().extend(hold_id, until, self._clock.now()))

    def release(self, request: Request) -> Response:
        requests.caller_with(request, self._callers, HOLD_SCOPE)
        hold_id = requests.text(request, "hold_id")
        return _held(lambda: self._shop.holds().release(hold_id, self._clock.now()))

    def _told(self, request: Request, at: datetime, found: Promise) -> Response:
        if found.asked_at == at:  # else it was given before, and counted then
            self._ages.note("held_promise" if found.hold_id else "promise", at, (found,))
        return encoding.private(request, found)


def _answered(answer: Callable[[], Promise]) -> Promise:
    """No is an answer too: 200, `is_promised` false, the reasons."""
    try:
        return answer()
    except (PromiseError, HoldsError) as error:
        raise ProblemError(422, "not_as_described", str(error)) from None


def _held(answer: Callable[[], Hold | Refusal]) -> Response:
    try:
        found = answer()
    except HoldsError as error:
        raise ProblemError(422, "not_as_described", str(error)) from None
    if isinstance(found, Hold):
        return _json(Held(is_held=found.state == "held", hold=found))
    if found.reason == "unknown_hold":
        raise ProblemError(404, "no_such_hold", str(found))
    short: list[dict[str, str | int]] = [
        {
            "location_code": each.location_code,
            "sku": each.sku,
            "asked_units": each.asked_units,
            "short_units": each.short_units,
        }
        for each in found.shortages
    ]
    return _json(Held(is_held=False, reason_code=found.reason, text=str(found), short=short))


def _json(content: Held) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(msgspec.json.encode(content), headers=headers, media_type="application/json")
