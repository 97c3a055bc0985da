"""Promising's part of the OpenAPI document: every route of `routes.py`, with every status it answers."""

from collections.abc import Sequence
from typing import Any

from models.promise.asking import Promise
from serving.promising.shapes import Extension, Held, NewHold, PromiseRequest, RepromiseRequest
from serving.requests import PACKED

TYPES: tuple[Any, ...] = (PromiseRequest, RepromiseRequest, Promise, NewHold, Extension, Held)
Json = dict[str, Any]
_ASKED = (400, 401, 403, 413, 415, 422, 503)


def paths(schemas: Sequence[Json]) -> dict[str, Json]:
    """Paths of promising, given the schemas of `TYPES` in their order."""
    asked, again, promise, hold, extension, held = schemas
    return {
        "/v1/promises": {
            "post": _operation(
                "promise",
                "Can I have this basket, where, when and how surely: the way chosen, others, and why not otherwise. Scope `promise`; "
                "with `hold`, which sets its stock aside, also scope `hold`.",
                asked,
                promise,
                _ASKED,
                PACKED[:1],
            )
        },
        "/v1/repromises": {
            "post": _operation(
                "repromise",
                "A pick failed: another promise for what was not found, with what the shopper is told. Scope `hold`.",
                again,
                promise,
                (*_ASKED, 404),
            )
        },
        "/v1/holds": {
            "post": _operation(
                "hold", "Set stock aside for a while, all of it or none. Scope `hold`.", hold, held, _ASKED
            )
        },
        "/v1/holds/{hold_id}/extend": {
            "post": _operation("extend_hold", "Keep a hold for longer. Scope `hold`.", extension, held, (*_ASKED, 404))
            | {"parameters": [_HOLD_ID]}
        },
        "/v1/holds/{hold_id}": {
            "delete": _operation(
                "release_hold", "Give a hold back. Scope `hold`.", None, held, (400, 401, 403, 404, 422, 503)
            )
            | {"parameters": [_HOLD_ID]}
        },
    }


_HOLD_ID = {
    "name": "hold_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": 200},
    "description": "Id of the hold.",
}


def _operation(
    name: str, summary: str, body: Json | None, answer: Json, statuses: Sequence[int], kinds: Sequence[str] = ()
) -> Json:
    problems = {str(status): {"$ref": "#/components/responses/Problem"} for status in sorted(statuses)}
    forms = ("application/json", *kinds)
    told = {"200": {"description": "The answer.", "content": {kind: {"schema": answer} for kind in forms}}}
    asked = {"requestBody": {"required": True, "content": {kind: {"schema": body} for kind in forms}}} if body else {}
    return {"operationId": name, "summary": summary, **asked, "responses": told | problems}
