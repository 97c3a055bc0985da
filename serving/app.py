"""The HTTP service: routes, keys and limits around the answers. Nothing slow happens per request.

A refusal by consent is an answer (200, `is_allowed` false, a reason), not an error.
"""

import gc
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from feature_repo import catalogue, reads
from feature_repo.column_reads import read_columns
from feature_repo.reads import Answer, Source
from serving import answers, encoding, feast_wire, feature_reads, openapi, problems, requests, supply
from serving.answers import Availability, Desk, OrderAnswer, Recommendation
from serving.console.routes import Console
from serving.feast_wire import OnlineRequest
from serving.feature_reads import FeaturesRequest, in_columns
from serving.hub.routes import Hub
from serving.intake.desk import IntakeDesk
from serving.intake.routes import Intake
from serving.keys import Caller, Callers
from serving.operations.front import Front
from serving.operations.post import Post
from serving.operations.routes import Operations
from serving.orders import AUDIENCES, NoSuchOrderError
from serving.problems import ProblemError
from serving.promising.ages import Ages
from serving.promising.routes import Promising
from serving.promising.shop import Shop
from serving.supply import NoSuchGroupError
from troth.clock import Clock
from troth.errors import TrothError
from troth.home import Home

_T = TypeVar("_T")
_AT_ONCE = 100  # entities read in place
_STANDING = catalogue.service("standing_v1")
_USES = {each.name: each for each in catalogue.SERVICES}


def create_app(
    home: Home, clock: Clock, hub: Hub | None = None, intake: IntakeDesk | None = None, post: Post | None = None
) -> Starlette:
    """The service of a home, told the time by a clock.

    `hub`: the consent hub, where it is to have a clock, seams or a setting of its own; the intake goes by its clock.
    `post`: what it watches itself with. Raises: ServingError when the file of keys is damaged.
    """
    callers = Callers(home)
    callers.known()
    counter, ages = answers.desk(home), Ages(home)
    watch = post or Post(home)
    service = Service(counter, callers, clock, watch, ages)
    consent_hub = hub or Hub(home, clock)
    desk = intake or IntakeDesk(home, consent_hub.clock, consent_hub)
    shop = Shop(home)
    console = Console(home, clock, seams=consent_hub.seams)
    routes = [
        Route("/v1/customers/{customer_id}/features", service.customer_features, methods=["GET"]),
        Route("/v1/features", service.features, methods=["POST"]),
        Route("/get-online-features", service.online_features, methods=["POST"]),
        Route("/v1/availability", service.availability, methods=["GET"]),
        Route("/v1/availability", service.availability_batch, methods=["POST"]),
        Route("/v1/availability/promisable", service.promisable, methods=["GET"]),
        Route("/v1/recommendations/{customer_id}", service.recommendations, methods=["GET"]),
        Route("/v1/orders", service.order, methods=["GET"]),
        Route("/v1/health", service.health, methods=["GET"]),
        Route("/openapi.json", service.openapi, methods=["GET"]),
        *Operations(counter, callers, clock, watch).routes(),
        *Promising(shop, callers, consent_hub.clock, ages).routes(),
        *Intake(desk, callers).routes(),
        *consent_hub.routes(),
        *console.routes(),
    ]
    handlers: dict[Any, Callable[[Request, Exception], Response | Awaitable[Response]]] = {
        ProblemError: problems.on_problem,
        HTTPException: problems.on_http,
        TrothError: problems.on_refusal,
        sqlite3.DatabaseError: problems.on_refusal,
        Exception: problems.on_fault,
    }

    @asynccontextmanager
    async def open_for_business(app: Starlette) -> AsyncIterator[None]:
        await run_in_threadpool(shop.prepare)
        await run_in_threadpool(_prepare, counter.source, clock.now())
        await run_in_threadpool(watch.tokens.prepare)
        watch.drain()
        gc.freeze()  # what is there for good is not looked through again and again
        yield
        ages.close()
        desk.close()
        consent_hub.close()
        console.close()
        watch.close()

    return Starlette(
        routes=routes,
        exception_handlers=handlers,
        middleware=[Middleware(Front, post=watch)],
        lifespan=open_for_business,
    )


class Service:
    """The handlers. Features of few are read in place; what reads much, or files, runs beside the event loop."""

    def __init__(self, desk: Desk, callers: Callers, clock: Clock, post: Post, ages: Ages) -> None:
        self._desk = desk
        self._ages = ages
        self._post = post
        self._callers = callers
        self._clock = clock
        self._document = msgspec.json.encode(openapi.document())
        self._tag = encoding.tag(self._document, encoding.JSON)

    async def customer_features(self, request: Request) -> Response:
        caller = self._caller(request)
        who, name = requests.text(request, "customer_id"), requests.text(request, "service")
        use = _USES.get(name)
        if use is None or use.entity != catalogue.CUSTOMER:
            raise _no_such_service()
        _allow(caller, use.purpose_code)
        at = self._clock.now()
        found = await _read(self._desk.source, 1, lambda: answers.ask_customer(self._desk, who, name, at))
        self._noted(request, use, found)
        return encoding.private(request, found)

    async def features(self, request: Request) -> Response:
        caller = self._caller(request)
        asked = await requests.typed_body(request, FeaturesRequest)
        use = _USES.get(asked.service)
        if use is None:
            raise _no_such_service()
        _allow(caller, use.purpose_code)
        if not feature_reads.fits(use, asked.entities):
            raise ProblemError(
                422,
                "not_as_described",
                f"entities: expected columns {list(use.entity.join_keys)} of one length, found others. Correct them.",
            )
        at, source = self._clock.now(), self._desk.source
        count = len(next(iter(asked.entities.values())))
        found = await _read(source, count, lambda: read_columns(source, use, asked.entities, at))
        self._post.read(request, use, found, at)
        return (encoding.shared if use.purpose_code is None else encoding.private)(request, in_columns(use, found, at))

    async def online_features(self, request: Request) -> Response:
        """As Feast's own feature server; problems too are told as its clients read them."""
        try:
            caller = self._caller(request)
            asked = await requests.typed_body(request, OnlineRequest)
            plan = feast_wire.readings(asked)
            for reading in plan:
                _allow(caller, reading.use.purpose_code)
            at, source = self._clock.now(), self._desk.source
            count = max(map(len, asked.entities.values()))
            found, read = await _read(source, count, lambda: feast_wire.ask_online(source, asked, plan, at))
            for reading, told in zip(plan, read, strict=True):
                self._post.read(request, reading.use, told, at)
            return encoding.private(request, found)
        except (ProblemError, TrothError, sqlite3.DatabaseError) as error:
            problem = error if isinstance(error, ProblemError) else problems.unavailable(error)
            return problems.response(problem, feast_wire.fault(problem), encoding.JSON)

    def availability(self, request: Request) -> Response:
        self._caller(request)
        sku, location = requests.text(request, "sku"), requests.optional_text(request, "location")
        at = self._clock.now()
        found = answers.ask_availability(self._desk, sku, location, at)
        self._ages.note("availability", at, found)
        return encoding.kept(request, found, [_ageless(each) for each in found])

    async def availability_batch(self, request: Request) -> Response:
        self._caller(request)
        asked = await requests.availability_request(request)
        pairs = [(pair.sku, pair.location_code) for pair in asked.pairs]
        at = self._clock.now()
        found = await run_in_threadpool(answers.ask_availabilities, self._desk, pairs, at)
        self._ages.note("availability", at, found)
        return encoding.shared(request, found)

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
        found = supply.ask_promisable(self._desk, sku, codes, now, channel, wanted, group)
        self._ages.note("promisable", now, found.places)
        return encoding.shared(request, found)

    def recommendations(self, request: Request) -> Response:
        _allow(self._caller(request), "personalization")
        customer_id = requests.text(request, "customer_id")
        count = requests.whole_number(request, "count", 10, answers.MOST_RECOMMENDED)
        popular = requests.truth(request, "allow_popular")
        at = self._clock.now()
        found = answers.ask_recommend(self._desk, customer_id, at, count, allow_popular=popular)
        self._noted(request, catalogue.RECOMMEND_CONTEXT, found)
        return encoding.private(request, found)

    def order(self, request: Request) -> Response:
        _allow(self._caller(request), "service")
        name, audience = requests.text(request, "order"), requests.choice(request, "audience", AUDIENCES)
        try:
            found = answers.ask_order(self._desk, name, self._clock.now(), audience)
        except NoSuchOrderError as error:
            raise ProblemError(404, "no_such_order", str(error)) from None
        if found.reason_code != reads.NOT_PERSONAL:
            self._noted(request, _STANDING, found)
        return encoding.private(request, found)

    def health(self, request: Request) -> Response:
        return encoding.shared(request, answers.health(self._desk, self._clock.now()))

    def openapi(self, request: Request) -> Response:
        return encoding.kept_bytes(request, self._document, encoding.JSON, self._tag, "public, max-age=300")

    def _noted(self, request: Request, use: catalogue.Service, found: Answer | Recommendation | OrderAnswer) -> None:
        refused = {} if found.is_allowed else {found.reason_code: 1}
        self._post.told(request, use, refused, int(found.is_allowed), found.evidence.ledger_size, found.age_seconds)

    def _caller(self, request: Request) -> Caller:
        return requests.caller(request, self._callers)


def _allow(caller: Caller, purpose_code: str | None) -> None:
    if not caller.may(purpose_code):
        raise ProblemError(
            403,
            "purpose_not_allowed",
            f"API key: expected one for purpose {purpose_code}, found {list(caller.purposes)}. Use another.",
        )


async def _read(source: Source, count: int, read: Callable[[], _T]) -> _T:
    """A read of features. Of few it is done in place, for handing it to a thread and back costs more; not while the gate has to be built."""
    is_quick = count <= _AT_ONCE and source.heard is not None and source.heard.is_built()
    return read() if is_quick else await run_in_threadpool(read)


def _prepare(source: Source, at: datetime) -> None:
    """Build the gate before anybody waits for it. What is not there yet is read when it is asked for."""
    size = reads.readable_size(source)
    if source.heard is not None and size is not None:
        source.heard.answer("", size, at, "service", "*")


def _no_such_service() -> ProblemError:
    return ProblemError(404, "no_such_service", "service: expected one of /openapi.json, found another.")


def _ageless(found: Availability) -> Availability:
    return msgspec.structs.replace(found, age_seconds=None, last_movement_age_seconds=None)
