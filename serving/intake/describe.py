"""The intake's part of the OpenAPI document: every route of `routes.py`, with every status it answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from serving.intake import segment
from serving.intake.desk import Taken
from serving.intake.plain import MOST_EVENTS, Events
from serving.intake.shopify import CONSENT_TOPICS, TOPICS

TYPES: tuple[Any, ...] = (Events, Taken, segment.Tracked)
SCHEMES = {"write_key": {"type": "http", "scheme": "basic", "description": "An API key as user name, no password."}}
Json = dict[str, Any]
_REFUSED = (400, 401, 403, 413, 415, 422)
_LATER = {
    "description": "No room now; nothing was kept. Send it again later.",
    "headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}},
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
}
_MESSAGE = {
    "type": "object",
    "description": "A message of the Segment spec; `userId` or `anonymousId`, and of a track call `event`.",
    "properties": {
        "messageId": {"type": "string"},
        "userId": {"type": "string"},
        "anonymousId": {"type": "string"},
        "event": {"type": "string"},
        "timestamp": {"type": "string", "format": "date-time"},
        "properties": {"type": "object"},
        "context": {"type": "object"},
    },
}
_BATCH = {
    "type": "object",
    "required": ["batch"],
    "properties": {"batch": {"type": "array", "items": {"type": "object"}, "minItems": 1, "maxItems": 2_500}},
}
_HEADERS = (
    ("X-Shopify-Hmac-Sha256", "HMAC-SHA-256 of the body under the shop's secret, base64.", {"type": "string"}),
    ("X-Shopify-Shop-Domain", "Shop.", {"type": "string"}),
    ("X-Shopify-Topic", "Topic; one that is not known is acknowledged and set aside.", {"type": "string", "examples": [*TOPICS, *CONSENT_TOPICS]}),
    ("X-Shopify-Event-Id", "The same for duplicates.", {"type": "string"}),
    ("X-Shopify-Triggered-At", "When the shop sent it.", {"type": "string"}),
)  # fmt: skip


def paths(schemas: Sequence[Json]) -> dict[str, Json]:
    """Paths of the intake, given the schemas of `TYPES` in their order."""
    events, taken, tracked = schemas
    other = {"207": {"description": "Some were not taken.", "content": {"application/json": {"schema": taken}}}}
    calls = {
        f"/v1/{call}": {
            "post": _operation(
                f"segment_{call}",
                f"Segment's {call} call: kept durably, once per `messageId`. Scope `events`.",
                _BATCH if call == "batch" else _MESSAGE,
                {"200": _content("Kept, known or set aside.", tracked)},
            )
            | {"security": [{"key": []}, {"write_key": []}]}
        }
        for call in (*segment.CALLS, "batch")
    }
    return {
        "/v1/events": {
            "post": _operation(
                "events",
                f"Up to {MOST_EVENTS} events of stock, orders, refunds and consent, each taken or refused by itself; answered when what is "
                "taken is durable. Scope `events`.",
                events,
                {"200": _content("All were taken, or had been.", taken), **other},
            )
        },
        "/v1/webhooks/shopify": {
            "post": _operation(
                "shopify_webhook",
                "A webhook as Shopify sends it, signed with the shop's secret; answered when it is durable.",
                {"type": "object"},
                {"200": {"description": "Kept, known or set aside."}},
                (401, 413),
            )
            | {"security": [], "parameters": [_header(*each) for each in _HEADERS]}
        },
        **calls,
    }


def _header(name: str, description: str, schema: Mapping[str, Any]) -> Json:
    return {"name": name, "in": "header", "required": False, "schema": dict(schema), "description": description}


def _content(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _operation(
    name: str, summary: str, sent: Json, found: Mapping[str, Json], statuses: Sequence[int] = _REFUSED
) -> Json:
    problems = {str(status): {"$ref": "#/components/responses/Problem"} for status in (*statuses, 503)}
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [],
        "requestBody": {"required": True, "content": {"application/json": {"schema": sent}}},
        "responses": {**found, **problems, "429": _LATER},
    }
