"""The hub's part of the OpenAPI document: every route of `routes.py`, with every status it answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from serving.hub.capture import Batch, Captured
from serving.hub.links import KINDS
from serving.hub.shapes import (
    Changes,
    MadeLinks,
    NoticeEntry,
    Preferences,
    Redelivered,
    WantedLinks,
)
from serving.hub.webhooks import MOST_DELIVERIES, STATES, Delivery, DestinationState, MadeDestination, NewDestination

TYPES: tuple[Any, ...] = (
    *(Batch, Captured, WantedLinks, MadeLinks, list[NoticeEntry], NoticeEntry, Preferences, Changes),
    *(list[DestinationState], NewDestination, MadeDestination, list[Delivery], Redelivered),
)
Json = dict[str, Any]
_FORM = "application/x-www-form-urlencoded"
_PAGE = {"content": {"text/html": {"schema": {"type": "string"}}}}
_DOCUMENT = {"type": "object"}
_GPC = {
    "name": "Sec-GPC",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "enum": ["1"]},
    "description": "Global Privacy Control; recorded as a no before anything else is answered.",
}


def paths(schemas: Sequence[Json]) -> dict[str, Json]:
    """Paths of the hub, given the schemas of `TYPES` in their order."""
    batch, captured, wanted, made, notices, notice, preferences, changes, *rest = schemas
    destinations, new_destination, made_destination, deliveries, redelivered = rest
    link = [_path("link", "A link this service made, of the kind of this path."), _GPC]
    text = [_path("notice_id", "Notice."), _path("version", "Its version."), _path("language_code", "Its language.")]
    one = [_path("destination_id", "Destination.")]
    choice = _form("choice", "`yes:<purpose>:<channel>`, `no:<purpose>:<channel>` or `no:*:*`.")
    return {
        "/v1/consents": {
            "post": _json(
                "capture_consents",
                "Record consent events, all or none; answered when a signed checkpoint covers them. Scope `capture`.",
                captured,
                (400, 401, 403, 413, 415, 422),
                sent=batch,
            )
        },
        "/v1/links": {
            "post": _json(
                "make_links",
                f"Make links ({', '.join(KINDS)}) for people. Scope `links`.",
                made,
                (400, 401, 403, 413, 415, 422),
                sent=wanted,
            )
        },
        "/v1/notices": {"get": _open(_json("notices", "Every text people were or are shown.", notices))},
        "/v1/notices/{notice_id}/{version}/{language_code}": {
            "get": _open(_json("notice", "One text, with its hash.", notice, (404,), text))
        },
        "/v1/preferences/{link}": {
            "get": _open(_json("preferences", "What the link's subject has said.", preferences, (404,), link)),
            "patch": _open(
                _json(
                    "change_preferences",
                    "Say yes or no. A yes names the notice that was shown.",
                    preferences,
                    (400, 404, 413, 415, 422),
                    link,
                    changes,
                )
            ),
        },
        "/v1/preferences/{link}/receipt": {
            "get": _open(_json("receipt", "A receipt that verifies without us.", _DOCUMENT, (404,), link))
        },
        "/v1/preferences/{link}/export": {
            "get": _open(_json("export", "Everything held about the link's subject.", _DOCUMENT, (404,), link))
        },
        "/v1/webhooks": {
            "get": _json("destinations", "Destinations and how far each is. Scope `admin`.", destinations, (401, 403)),
            "post": _json(
                "add_destination",
                "Tell a processor of events of some purposes; its secret is shown this once. Scope `admin`.",
                made_destination,
                (400, 401, 403, 413, 415, 422),
                sent=new_destination,
            ),
        },
        "/v1/webhooks/{destination_id}": {
            "delete": _answers("remove_destination", "Stop telling a destination. Scope `admin`.", (401, 403, 404), one)
            | {"responses": {"204": {"description": "Removed."}} | _problems((401, 403, 404))}
        },
        "/v1/webhooks/{destination_id}/deliveries": {
            "get": _json(
                "deliveries",
                "What was sent, how often, and what was acknowledged. Scope `admin`.",
                deliveries,
                (400, 401, 403, 404),
                [
                    *one,
                    _query("state", {"type": "string", "enum": list(STATES)}, "Only these."),
                    _query("after", {"type": "integer", "minimum": 0, "maximum": 999_999_999}, "Last one seen."),
                    _query("count", {"type": "integer", "minimum": 1, "maximum": MOST_DELIVERIES}, "How many."),
                ],
            )
        },
        "/v1/webhooks/{destination_id}/redeliver": {
            "post": _json("redeliver", "Send dead deliveries again. Scope `admin`.", redelivered, (401, 403, 404), one)
        },
        "/preferences/{link}": {
            "get": _page("preferences_page", "The preference centre.", link),
            "post": _page("choose", "One choice of the preference centre.", link, choice),
        },
        "/preferences/{link}/delete": {
            "get": _page("delete_page", "Asks before taking a request for erasure.", link),
            "post": _page("delete", "Takes a request for erasure.", link, _form("choice", "`delete` or `keep`.")),
        },
        "/unsubscribe/{link}": {
            "get": _page("unsubscribe_page", "Asks; changes nothing.", link),
            "post": _page(
                "unsubscribe",
                "RFC 8058: `List-Unsubscribe=One-Click` acts at once; the page's own form names its choice.",
                link,
                _form("choice", "`this`, `purpose` or `everything`.", "List-Unsubscribe"),
            ),
        },
        "/confirm/{link}": {
            "get": _page("confirm_page", "Asks; changes nothing.", link),
            "post": _page("confirm", "The second event of a double opt-in; once.", link, _form(None, "")),
        },
        "/thanks": {"get": _page("thanks", "An answer was kept.", [])},
        "/notices/{notice_id}/{version}/{language_code}": {"get": _page("notice_page", "A notice as a page.", text)},
        "/.well-known/gpc.json": {"get": _open(_json("gpc", "That Global Privacy Control is honoured.", _DOCUMENT))},
    }


def _json(
    name: str,
    summary: str,
    schema: Json,
    statuses: Sequence[int] = (),
    parameters: Sequence[Json] = (),
    sent: Json | None = None,
) -> Json:
    found = {"200": {"description": "The answer.", "content": {"application/json": {"schema": schema}}}}
    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": sent}}}} if sent else {}
    answers = _answers(name, summary, statuses, parameters)
    return answers | body | {"responses": found | answers["responses"]}


def _page(name: str, summary: str, parameters: Sequence[Json], sent: Json | None = None) -> Json:
    found: Json = {"200": {"description": "A page."} | _PAGE}
    statuses: tuple[int, ...] = ()
    if parameters:
        found["404"] = {
            "description": "A page for every link that does not work; a notice that is not there."
        } | _either()
    if sent:
        found |= {"303": {"description": "Done; see the page."}, "403": {"description": "Not our form."} | _PAGE}
        statuses = (400, 413, 415)
    body = {"requestBody": {"required": True, "content": {_FORM: {"schema": sent}}}} if sent else {}
    answers = _answers(name, summary, statuses, parameters)
    down = {"503": {"description": "The record cannot be reached now."} | _either()}
    return _open(answers | body | {"responses": found | answers["responses"] | down})


def _either() -> Json:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    return {"content": _PAGE["content"] | problem}


def _answers(name: str, summary: str, statuses: Sequence[int], parameters: Sequence[Json]) -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "parameters": list(parameters),
        "responses": _problems(statuses),
    }


def _problems(statuses: Sequence[int]) -> Json:
    return {str(status): {"$ref": "#/components/responses/Problem"} for status in (*statuses, 503)}


def _open(operation: Json) -> Json:
    """No key: the link is the proof, or there is nothing personal in it."""
    return operation | {"security": []}


def _path(name: str, description: str) -> Json:
    schema = {"type": "string", "minLength": 1, "maxLength": 200}
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": description}


def _query(name: str, schema: Mapping[str, Any], description: str) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": dict(schema), "description": description}


def _form(choice: str | None, description: str, *others: str) -> Json:
    fields: Json = {"form": {"type": "string", "description": "The token of the form."}}
    fields |= {choice: {"type": "string", "description": description}} if choice else {}
    return {"type": "object", "properties": fields | {each: {"type": "string"} for each in others}}
