"""What every request passes through: its id, the time it took, its span. Knows no answer; costs some microseconds."""

import random
import re
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.operations.post import Post

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class Front:
    """Pure ASGI, between the server and the routes."""

    def __init__(self, app: ASGIApp, post: Post) -> None:
        self._app, self._post = app, post

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, post, status = perf_counter(), self._post, 500
        scope["troth.post"] = post
        request_id = scope["troth.request_id"] = _request_id(scope)
        traces = post.traces
        span = None if traces is None else traces.begin(scope)

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"]
                headers.append((b"x-request-id", request_id.encode()))
                if (rate := scope.get("troth.rate")) is not None:
                    headers += [(name.lower().encode(), value.encode()) for name, value in rate.headers().items()]
            await send(message)

        try:
            await self._app(scope, receive, tell)
        finally:
            found = scope.get("route")
            route = "unknown" if found is None else found.path
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            post.counts.observe(("http", method, route, str(status)), perf_counter() - began)
            if scope.get("troth.is_limited"):
                post.counts.add(("limited", route))
            if traces is not None and span is not None:
                traces.end(span, method, route, status, scope.get("troth.caller"))


def _request_id(scope: Scope) -> str:
    """The id of the caller's trace, else one of ours: what a caller writes here is hexadecimal or it does not count."""
    for name, value in scope["headers"]:
        if name == b"traceparent" and (found := _TRACEPARENT.fullmatch(value)):
            return found[1].decode()
    return f"{random.getrandbits(128):032x}"  # a name, no secret
