"""A tracer provider that remembers what its spans were told, as an SDK set up before the service would."""

from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, Tracer, TracerProvider


class ToldSpan(trace.NonRecordingSpan):
    """A span that remembers what it was told."""

    def __init__(self, name: str, parent: SpanContext, attributes: Mapping[str, Any]) -> None:
        super().__init__(SpanContext(parent.trace_id or 1, 2, is_remote=False))
        self.name, self.parent, self.attributes, self.ended = name, parent, dict(attributes), False

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def update_name(self, name: str) -> None:
        self.name = name

    def end(self, end_time: int | None = None) -> None:
        self.ended = True


class ToldTracer(Tracer):
    def __init__(self, spans: list[ToldSpan]) -> None:
        self.spans = spans

    def start_span(
        self, name: str, context: Any = None, kind: Any = None, attributes: Any = None, *_: Any, **__: Any
    ) -> Span:
        self.spans.append(ToldSpan(name, trace.get_current_span(context).get_span_context(), attributes or {}))
        return self.spans[-1]

    def start_as_current_span(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("spans are started by hand")


class ToldProvider(TracerProvider):
    def __init__(self) -> None:
        self.spans: list[ToldSpan] = []

    def get_tracer(self, *_: Any, **__: Any) -> Tracer:
        return ToldTracer(self.spans)
