"""The HTTP service: routes, keys and limits around the answers. Nothing slow happens per request.

A refusal by consent is an answer (200, `is_allowed` false, a reason), not an error.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from feature_repo import catalogue
from serving import answers, openapi, problems, requests, supply
from serving.answers import Desk
from serving.hub.routes import Hub
from serving.intake.desk import IntakeDesk
from serving.intake.routes import Intake
from serving.keys import Caller, Callers
from serving.orders import AUDIENCES, NoSuchOrderError
from serving.problems import ProblemError
from serving.promising.routes import Promising
from serving.promising.shop import Shop
from serving.supply import NoSuchGroupError
from troth.clock import Clock
from troth.errors import TrothError
from troth.home import Home


def create_app(home: Home, clock: Clock, hub: Hub | None = None, intake: IntakeDesk | None = None) -> Starlette:
    """The service of a home, told the time by a clock.

    `hub`: the consent hub, where it is to have a clock, seams or a setting of its own; the intake goes by its clock. Raises:
    ServingError when the file of keys is damaged.
    """
    callers = Callers(home)
    callers.known()
    service = Service(answers.desk(home), callers, clock)
    consent_hub = hub or Hub(home, clock)
    desk = intake or IntakeDesk(home, consent_hub.clock, consent_hub)
    shop = Shop(home)
    routes = [
        Route("/v1/customers/{customer_id}/features", service.customer_features, methods=["GET"]),
        Route("/v1/availability", service.availability, methods=["GET"]),
        Route("/v1/availability", service.availability_batch, methods=["POST"]),
        Route("/v1/availability/promisable", service.promisable, methods=["GET"]),
        Route("/v1/recommendations/{customer_id}", service.recommendations, methods=["GET"]),
        Route("/v1/orders", service.order, methods=["GET"]),
        Route("/v1/health", service.health, methods=["GET"]),
        Route("/openapi.json", service.openapi, methods=["GET"]),
        *Promising(shop, callers, consent_hub.clock).routes(),
        *Intake(desk, callers).routes(),
        *consent_hub.routes(),
    ]
    handlers: dict[Any, Callable[[Request, Exception], Response | Awaitable[Response]]] = {
        ProblemError: problems.on_problem,
        HTTPException: problems.on_http,
        TrothError: problems.on_refusal,
        Exception: problems.on_fault,
    }

    @asynccontextmanager
    async def open_for_business(app: Starlette) -> AsyncIterator[None]:
        await run_in_threadpool(shop.prepare)
        yield
        desk.close()
        consent_hub.close()

    return Starlette(routes=routes, exception_handlers=handlers, lifespan=open_for_business)


class Service:
    """The handlers. Reading is quick but touches disk, so it runs beside the event loop."""

    def __init__(self, desk: Desk, callers: Callers, clock: Clock) -> None:
        self._desk = desk
        self._callers = callers
        self._clock = clock
        self._document = msgspec.json.encode(openapi.document())

    def customer_features(self, request: Request) -> Response:
        caller = self._caller(request)
        who, name = requests.text(request, "customer_id"), requests.text(request, "service")
        use = next((each for each in catalogue.SERVICES if each.name == name), None)
        if use is None or use.entity != catalogue.CUSTOMER:
            raise ProblemError(404, "no_such_service", "service: expected one of /openapi.json, found another.")
        _allow(caller, use.purpose_code)
        return _private(answers.ask_customer(self._desk, who, name, self._clock.now()))

    def availability(self, request: Request) -> Response:
        self._caller(request)
        sku, location = requests.text(request, "sku"), requests.optional_text(request, "location")
        return _json(answers.ask_availability(self._desk, sku, location, self._clock.now()))

    async def availability_batch(self, request: Request) -> Response:
        self._caller(request)
        asked = requests.availability_request(await requests.body(request))
        pairs = [(pair.sku, pair.location_code) for pair in asked.pairs]
        found = await run_in_threadpool(answers.ask_availabilities, self._desk, pairs, self._clock.now())
        return _json(found)

    def promisable(self, request: Request) -> Response:
        self._caller(request)
        sku, location = requests.text(request, "sku"), requests.optional_text(request, "location")
        group, channel = requests.optional_text(request, "group"), requests.optional_text(request, "channel")
        wanted, now = requests.optional_time(request, "at"), self._clock.now()
        if (location is None) == (group is None):
            raise requests.bad("location: expected it or a group, found both or none. Name one.")
        try:
            codes = [location] if location is not None else supply.locations_of(self._desk, group or "")
        except NoSuchGroupError as error:
            raise ProblemError(404, "no_such_group", str(error)) from None
        return _json(supply.ask_promisable(self._desk, sku, codes, now, channel, wanted, group))

    def recommendations(self, request: Request) -> Response:
        _allow(self._caller(request), "personalization")
        customer_id = requests.text(request, "customer_id")
        count = requests.whole_number(request, "count", 10, answers.MOST_RECOMMENDED)
        popular = requests.truth(request, "allow_popular")
        at = self._clock.now()
        return _private(answers.ask_recommend(self._desk, customer_id, at, count, allow_popular=popular))

    def order(self, request: Request) -> Response:
        _allow(self._caller(request), "service")
        name, audience = requests.text(request, "order"), requests.choice(request, "audience", AUDIENCES)
        try:
            return _private(answers.ask_order(self._desk, name, self._clock.now(), audience))
        except NoSuchOrderError as error:
            raise ProblemError(404, "no_such_order", str(error)) from None

    def health(self, request: Request) -> Response:
        return _json(answers.health(self._desk, self._clock.now()))

    def openapi(self, request: Request) -> Response:
        return Response(self._document, media_type="application/json")

    def _caller(self, request: Request) -> Caller:
        return requests.caller(request, self._callers)


def _allow(caller: Caller, purpose_code: str | None) -> None:
    if not caller.may(purpose_code):
        raise ProblemError(
            403,
            "purpose_not_allowed",
            f"API key: expected one for purpose {purpose_code}, found {list(caller.purposes)}. Use another.",
        )


def _json(content: Any) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


def _private(content: Any) -> Response:
    """About a person: nobody between may keep it."""
    return Response(msgspec.json.encode(content), headers={"Cache-Control": "no-store"}, media_type="application/json")
