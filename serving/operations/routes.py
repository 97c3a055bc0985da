"""What is asked of a service about itself: is it ready, what has it counted."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving import encoding, requests
from serving.answers import Desk
from serving.keys import Callers
from serving.operations import counts
from serving.operations.metrics import exposition
from serving.operations.post import Post
from serving.operations.readiness import readiness
from troth.clock import Clock

SCOPE = "metrics"


class Operations:
    """The handlers. They read files, so they run beside the event loop."""

    def __init__(self, desk: Desk, callers: Callers, clock: Clock, post: Post) -> None:
        self._desk, self._callers, self._clock, self._post = desk, callers, clock, post

    def routes(self) -> list[Route]:
        return [
            Route("/v1/ready", self.ready, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    def ready(self, request: Request) -> Response:
        found = readiness(self._desk, self._clock.now(), is_stopping=self._post.is_stopping)
        return encoding.private(request, found, 200 if found.is_ready else 503)

    def metrics(self, request: Request) -> Response:
        requests.caller_with(request, self._callers, SCOPE)
        told, kind = exposition(
            counts.read(self._post.folder / "counts"), self._desk, self._clock.now(), request.headers.get("accept", "")
        )
        return Response(told, headers={"Cache-Control": encoding.NOBODY_KEEPS, "Content-Type": kind})
