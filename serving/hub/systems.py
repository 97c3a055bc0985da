"""The hub for systems, proved by a key: events in, links out, webhooks managed; and notices for everyone."""

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from serving import requests
from serving.errors import ServingError
from serving.hub.capture import Captured, read_batch, subject_of
from serving.hub.desk import Desk, json_answer
from serving.hub.shapes import MadeLink, MadeLinks, Redelivered, WantedLinks
from serving.hub.webhooks import (
    MOST_DELIVERIES,
    STATES,
    Delivery,
    DestinationState,
    MadeDestination,
    NewDestination,
    is_destination_id,
)
from serving.problems import ProblemError

GPC_SINCE = "2026-11-22"


class Systems:
    """Handlers. What blocks (the ledger, the outbox) runs beside the event loop."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def capture(self, request: Request) -> Response:
        requests.caller_with(request, self._desk.callers, "capture")
        data = await requests.json_bytes(request)
        return await run_in_threadpool(self._capture, data)

    def _capture(self, data: bytes) -> Response:
        received_at = self._desk.clock.now()
        events = read_batch(data, self._desk.rules, received_at)
        indexes = self._desk.ledger.append(events)
        note = self._desk.ledger.checkpoint()
        return json_answer(
            Captured(
                leaf_indexes=indexes,
                ledger_size=int(note.split("\n", 2)[1]),
                checkpoint=note,
                received_at=received_at,
            )
        )

    async def make_links(self, request: Request) -> Response:
        requests.caller_with(request, self._desk.callers, "links")
        wanted = await requests.json_body(request, WantedLinks)
        return await run_in_threadpool(self._make_links, wanted)

    def _make_links(self, wanted: WantedLinks) -> Response:
        at, made = self._desk.clock.now(), []
        for position, each in enumerate(wanted.links):
            subject_id, problems = subject_of(each.identifier, each.subject_id, self._desk.rules.token)
            for field, detail in problems:
                raise requests.unprocessable(position, field, detail)
            narrow = each.kind != "preferences"
            if narrow != ((each.purpose_code, each.channel_code) in self._desk.asked()) or subject_id is None:
                detail = (
                    "expected what the policy asks for unsubscribe and confirm, and * for preferences, found another."
                )
                raise requests.unprocessable(position, "purpose_code", detail)
            try:
                link = self._desk.links.make(
                    each.kind, subject_id, at, each.valid_days, each.purpose_code, each.channel_code
                )
            except ServingError as error:
                raise requests.unprocessable(position, "valid_days", str(error)) from None
            made.append(MadeLink(path=f"/{link.kind}/{link.text}", expires_at=link.expires_at))
        return json_answer(MadeLinks(links=made))

    def notices(self, request: Request) -> Response:
        return json_answer([self._desk.entry(text) for text in self._desk.notices.texts.values()])

    def notice(self, request: Request) -> Response:
        text = self._desk.text(request)
        return json_answer(msgspec.structs.replace(self._desk.entry(text), text=text.text))

    def gpc(self, request: Request) -> Response:
        return json_answer({"gpc": True, "lastUpdate": GPC_SINCE})

    def destinations(self, request: Request) -> Response:
        requests.caller_with(request, self._desk.callers, "admin")
        found: list[DestinationState] = self._desk.outbox.states(self._desk.ledger.size)
        return json_answer(found)

    async def add_destination(self, request: Request) -> Response:
        requests.caller_with(request, self._desk.callers, "admin")
        wanted = await requests.json_body(request, NewDestination)
        return await run_in_threadpool(self._add_destination, wanted)

    def _add_destination(self, wanted: NewDestination) -> Response:
        size = self._desk.ledger.size
        try:
            made: MadeDestination = self._desk.outbox.add(
                wanted, self._desk.policy, size, self._desk.clock.now(), allow_loopback=self._desk.allow_loopback
            )
        except ServingError as error:
            raise ProblemError(422, "destination_refused", str(error)) from None
        return json_answer(made)

    def remove_destination(self, request: Request) -> Response:
        requests.caller_with(request, self._desk.callers, "admin")
        if not self._desk.outbox.remove(_destination_id(request)):
            raise _no_destination()
        return Response(status_code=204)

    def deliveries(self, request: Request) -> Response:
        requests.caller_with(request, self._desk.callers, "admin")
        state = request.query_params.get("state")
        if state is not None and state not in STATES:
            raise requests.bad(f"state: expected one of {', '.join(STATES)}, found another. Correct it.")
        after = requests.whole_number(request, "after", 0, 999_999_999, least=0)
        most = requests.whole_number(request, "count", 50, MOST_DELIVERIES)
        found: list[Delivery] | None = self._desk.outbox.deliveries(_destination_id(request), state, after, most)
        if found is None:
            raise _no_destination()
        return json_answer(found)

    def redeliver(self, request: Request) -> Response:
        requests.caller_with(request, self._desk.callers, "admin")
        count = self._desk.outbox.redeliver(_destination_id(request), self._desk.clock.now())
        if count is None:
            raise _no_destination()
        return json_answer(Redelivered(count=count))


def _destination_id(request: Request) -> str:
    found: str = request.path_params["destination_id"]
    if not is_destination_id(found):
        raise _no_destination()
    return found


def _no_destination() -> ProblemError:
    return ProblemError(404, "no_such_destination", "destination: expected one of /v1/webhooks, found another.")
