"""The OpenAPI 3.1 document of the service. Schemas come from the answers' own types; a test walks every route."""

from typing import Any

import msgspec

from feature_repo.catalogue import CUSTOMER, SERVICES
from feature_repo.reads import Answer
from serving.answers import MOST_RECOMMENDED, Availability, Health, OrderAnswer, Recommendation
from serving.encoding import JSON, MESSAGE_PACK
from serving.feast_wire import OnlineAnswer, OnlineRequest
from serving.feature_reads import MOST_ENTITIES, FeatureColumns, FeaturesRequest
from serving.hub import describe
from serving.intake import describe as intake
from serving.operations.readiness import Readiness
from serving.orders import AUDIENCES
from serving.problems import ProblemDetails
from serving.promising import describe as promising
from serving.requests import MOST_PAIRS, MOST_TEXT, AvailabilityRequest
from serving.supply import Promisable

_PROBLEM = "application/problem+json"
VERSION = "1.0.0"
_BEARER = "An API key, or a token (JWT) of the identity provider that the operator named."
_REF = "#/components/schemas/{name}"


def document() -> dict[str, Any]:
    """The whole document."""
    types = [
        Answer,
        list[Availability],
        Recommendation,
        OrderAnswer,
        Health,
        ProblemDetails,
        AvailabilityRequest,
        Promisable,
        FeaturesRequest,
        FeatureColumns,
        OnlineRequest,
        OnlineAnswer,
        Readiness,
        *intake.TYPES,
        *promising.TYPES,
        *describe.TYPES,
    ]
    found, schemas = msgspec.json.schema_components(types, ref_template=_REF)
    answer, stock, recommendation, order, health, problem, request, promisable, *others = found
    features_asked, features, online_asked, online, ready, *others = others
    of_intake, others = others[: len(intake.TYPES)], others[len(intake.TYPES) :]
    of_promising, of_hub = others[: len(promising.TYPES)], others[len(promising.TYPES) :]
    services = [each.name for each in SERVICES if each.entity == CUSTOMER]
    text = {"type": "string", "minLength": 1, "maxLength": MOST_TEXT}
    customer = _parameter("customer_id", "path", text, "Customer id; for features, the token of an identifier too.")
    paths = {
        "/v1/customers/{customer_id}/features": {
            "get": _operation(
                "customer_features",
                "Features of one customer for one use; a refusal has `is_allowed` false and a reason.",
                answer,
                [customer, _parameter("service", "query", {"type": "string", "enum": services}, "Feature service.")],
                (404,),
                (MESSAGE_PACK,),
            )
        },
        "/v1/features": {
            "post": _operation(
                "features",
                f"Features of up to {MOST_ENTITIES} entities for one use, in columns; who is refused has no features and a reason.",
                features,
                [],
                (404, 413, 415, 422),
                (MESSAGE_PACK,),
            )
            | _body(features_asked, MESSAGE_PACK)
        },
        "/get-online-features": {"post": _as_feast(online) | _body(online_asked)},
        "/v1/availability": {
            "get": _operation(
                "availability",
                "Stock of an item at one location, or everywhere.",
                stock,
                [
                    _parameter("sku", "query", text, "Item."),
                    _parameter("location", "query", text, "Location; without it, every location.", required=False),
                    _HELD,
                ],
                (),
                (MESSAGE_PACK,),
                is_kept=True,
            ),
            "post": _operation(
                "availability_batch",
                f"Stock of up to {MOST_PAIRS} items at locations.",
                stock,
                [],
                (413,),
                (MESSAGE_PACK,),
            )
            | _body(request, MESSAGE_PACK),
        },
        "/v1/availability/promisable": {
            "get": _operation(
                "promisable",
                "What may be promised of an item by a location or a group of them, to a channel, for a later time.",
                promisable,
                [
                    _parameter("sku", "query", text, "Item."),
                    _parameter("location", "query", text, "Location; or a group instead.", required=False),
                    _parameter("group", "query", text, "Group: all, type/store, region/US-CA ...", required=False),
                    _parameter(
                        "channel", "query", text, "Channel that asks: what is protected for it counts.", required=False
                    ),
                    _parameter(
                        "at",
                        "query",
                        {"type": "string", "format": "date-time"},
                        "For when; now, if left out.",
                        required=False,
                    ),
                ],
                (404,),
                (MESSAGE_PACK,),
            )
        },
        "/v1/recommendations/{customer_id}": {
            "get": _operation(
                "recommendations",
                "What to show a customer, in stock where they shop.",
                recommendation,
                [
                    customer,
                    _parameter(
                        "count",
                        "query",
                        {"type": "integer", "minimum": 1, "maximum": MOST_RECOMMENDED, "default": 10},
                        "How many.",
                        required=False,
                    ),
                    _parameter(
                        "allow_popular",
                        "query",
                        {"type": "boolean", "default": False},
                        "Fill up with items that are popular with everyone.",
                        required=False,
                    ),
                ],
                (),
                (MESSAGE_PACK,),
            )
        },
        "/v1/orders": {
            "get": _operation(
                "order",
                "What became of an order: where it is, what was promised, what came back; under purpose service.",
                order,
                [
                    _parameter("order", "query", text, "Name or id of the order, a receipt's included."),
                    _parameter(
                        "audience",
                        "query",
                        {"type": "string", "enum": list(AUDIENCES), "default": AUDIENCES[0]},
                        "Who is told: a shopper sees no codes.",
                        required=False,
                    ),
                ],
                (404,),
                (MESSAGE_PACK,),
            )
        },
        "/v1/health": {
            "get": _operation("health", "What answers rest on.", health, [], (), (MESSAGE_PACK,)) | {"security": []}
        },
        "/v1/ready": {"get": _ready(ready) | {"security": []}},
        "/metrics": {"get": _metrics()},
        **intake.paths(of_intake),
        **promising.paths(of_promising),
        **describe.paths(of_hub),
    }
    for operation in (each for path in paths.values() for each in path.values()):
        _limit(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Troth",
            "version": VERSION,
            "description": "Availability, promises, features and recommendations, each with its age, reason and evidence; "
            "events in; consent: capture, preferences, notices, webhooks.",
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": _BEARER}, **intake.SCHEMES},
            "responses": {"Problem": {"description": "RFC 9457.", "content": {_PROBLEM: {"schema": problem}}}},
        },
    }


def _parameter(
    name: str, place: str, schema: dict[str, Any], description: str, *, required: bool = True
) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": schema, "description": description}


def _body(schema: dict[str, Any], *others: str) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in (JSON, *others)}}}


_HELD = _parameter(
    "If-None-Match", "header", {"type": "string", "maxLength": 1000}, "Tags of answers that are held.", required=False
)


def _operation(
    name: str,
    summary: str,
    schema: dict[str, Any],
    parameters: list[dict[str, Any]],
    statuses: tuple[int, ...] = (),
    kinds: tuple[str, ...] = (),
    *,
    is_kept: bool = False,
) -> dict[str, Any]:
    problems = {str(status): {"$ref": "#/components/responses/Problem"} for status in (400, 401, 403, *statuses, 503)}
    found = {"200": {"description": "The answer.", "content": {kind: {"schema": schema} for kind in (JSON, *kinds)}}}
    held = {"304": {"description": "What is held still stands, but for its age."}} if is_kept else {}
    return {"operationId": name, "summary": summary, "parameters": parameters, "responses": found | held | problems}


def _limit(operation: dict[str, Any]) -> None:
    """Who needs a key may ask too often, and who sends a body may be too slow with it: told in the way of the other problems."""
    answers = operation["responses"]
    if (told := answers.get("401")) is not None:
        answers["429"] = told
    if "requestBody" in operation and (told := answers.get("400") or answers.get("404")) is not None:
        answers["408"] = told


def _ready(schema: dict[str, Any]) -> dict[str, Any]:
    told = {"content": {JSON: {"schema": schema}, MESSAGE_PACK: {"schema": schema}}}
    responses = {"200": {"description": "Ready.", **told}, "503": {"description": "Not ready, and why.", **told}}
    return {"operationId": "ready", "summary": "Whether requests should be sent here now.", "responses": responses}


def _metrics() -> dict[str, Any]:
    problems = {str(status): {"$ref": "#/components/responses/Problem"} for status in (401, 403, 503)}
    forms = {key: {"schema": {"type": "string"}} for key in ("text/plain", "application/openmetrics-text")}
    return {
        "operationId": "metrics",
        "summary": "What the service counts, for Prometheus. Scope `metrics`.",
        "responses": {"200": {"description": "Metrics.", "content": forms}, **problems},
    }


def _as_feast(schema: dict[str, Any]) -> dict[str, Any]:
    """Feast's protocol: a problem is a JSON text in a JSON string, which its clients turn into an exception."""
    told = {"description": "As Feast's clients read it.", "content": {JSON: {"schema": {"type": "string"}}}}
    found = {"description": "The answer.", "content": {JSON: {"schema": schema}}}
    return {
        "operationId": "online_features",
        "summary": "Features as Feast's own feature server answers; INVALID is a subject who is refused.",
        "responses": {"200": found, **{str(status): told for status in (400, 401, 403, 404, 413, 415, 422, 503)}},
    }
