"""The intake over HTTP: who may send what, how much at once, and what is answered once it is kept."""

from collections.abc import Callable

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving import problems, requests
from serving.event_log.events import LogFullError
from serving.intake import segment, shopify
from serving.intake.desk import IntakeDesk
from serving.intake.shops import is_signed
from serving.keys import Callers
from serving.problems import ProblemError

SCOPE = "events"
_MOST_WEBHOOK_BYTES = 900_000


class Intake:
    """The handlers. What blocks (the log, the ledger) runs beside the event loop."""

    def __init__(self, desk: IntakeDesk, callers: Callers) -> None:
        self.desk = desk
        self._callers = callers

    def routes(self) -> list[Route]:
        calls = [Route(f"/v1/{call}", self._tracked(call), methods=["POST"]) for call in (*segment.CALLS, "batch")]
        return [
            Route("/v1/events", self.events, methods=["POST"]),
            Route("/v1/webhooks/shopify", self.shopify, methods=["POST"]),
            *calls,
        ]

    async def events(self, request: Request) -> Response:
        requests.caller_with(request, self._callers, SCOPE)
        data = await requests.json_bytes(request)

        def take() -> Response:
            taken = self.desk.take_plain(data)
            return _json(taken, 200 if taken.is_whole else 207)

        return await _kept(take)

    async def shopify(self, request: Request) -> Response:
        """Signed by the shop, not by a key. Whoever is not it learns nothing of which shops there are."""
        body = await requests.body(request, _MOST_WEBHOOK_BYTES)
        sent = shopify.delivery(request.headers, body)
        shop = self.desk.shops.find(sent.shop_domain)
        if shop is None or not is_signed(shop, body, request.headers.get("x-shopify-hmac-sha256", "")):
            raise ProblemError(
                401, "not_signed", "X-Shopify-Hmac-Sha256: expected a known shop's signature, found none."
            )

        def take() -> Response:
            self.desk.take_webhook(sent, shop)
            return Response(status_code=200)

        return await _kept(take)

    def _tracked(self, call: str) -> Callable[[Request], object]:
        async def track(request: Request) -> Response:
            requests.writer(request, self._callers, SCOPE)
            most = segment.MOST_BATCH_BYTES if call == "batch" else segment.MOST_MESSAGE_BYTES
            data = await requests.json_bytes(request, most)
            return await _kept(lambda: _json(self.desk.take_messages(data, call), 200))

        return track


async def _kept(take: Callable[[], Response]) -> Response:
    """The answer, or to come back later where there is no room."""
    try:
        return await run_in_threadpool(take)
    except LogFullError as full:
        answer = problems.response(ProblemError(429, "log_full", str(full)))
        answer.headers["Retry-After"] = str(full.retry_seconds)
        return answer


def _json(content: object, status: int) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")
