"""Traces of requests and of webhooks through the OpenTelemetry API: a span each, with route, status and caller; nobody one is about.

Where spans go is the operator's choice: an SDK set up before the service is made. Without one nothing of this is run.
"""

from typing import TYPE_CHECKING

from starlette.types import Scope

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

NAME = "troth.serving"


class Traces:
    """Spans of one service."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import context, propagate, trace

        self._tracer = provider.get_tracer(NAME)
        self._trace, self._context, self._propagate = trace, context, propagate

    def begin(self, scope: Scope) -> tuple["Span", object]:
        """A span under whatever the caller's `traceparent` names (W3C Trace Context), made current."""
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        span = self._tracer.start_span(
            scope["method"], self._propagate.extract(carrier), self._trace.SpanKind.SERVER,
            {"http.request.method": scope["method"], "url.scheme": scope.get("scheme", "http")},
        )  # fmt: skip
        return span, self._context.attach(self._trace.set_span_in_context(span))

    def end(self, begun: tuple["Span", object], method: str, route: str, status: int, caller: str | None) -> None:
        span, token = begun
        self._context.detach(token)  # type: ignore[arg-type]
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status)
        if caller is not None:
            span.set_attribute("troth.caller", caller)
        if status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end()

    def begin_sending(self, host: str, destination_id: str, attempt: int) -> tuple["Span", dict[str, str]]:
        """A span of a message to a destination, and the headers (W3C Trace Context) that put what its receiver does under it."""
        span = self._tracer.start_span(
            "POST webhook", None, self._trace.SpanKind.CLIENT,
            {"http.request.method": "POST", "server.address": host, "troth.destination": destination_id, "troth.attempt": attempt},
        )  # fmt: skip
        headers: dict[str, str] = {}
        self._propagate.inject(headers, self._trace.set_span_in_context(span))
        return span, headers

    def end_sending(self, span: "Span", status: int | None, *, is_acknowledged: bool) -> None:
        if status is not None:
            span.set_attribute("http.response.status_code", status)
        if not is_acknowledged:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end()


def traces() -> Traces | None:
    """Traces where somebody listens: None without an SDK."""
    from opentelemetry import trace

    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider) else Traces(provider)
