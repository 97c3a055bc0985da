"""How an answer is written: JSON, or MessagePack where the caller would rather have it; who may keep it, and what it is known by."""

from hashlib import blake2b
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serving.requests import PACKED

JSON, MESSAGE_PACK = "application/json", PACKED[0]
NOBODY_KEEPS = "no-store"  # about a person, or an act: nobody between may keep it
ASK_AGAIN = "private, no-cache"  # kept by the caller alone, who asks whether it still stands
_to_json, _to_message_pack = msgspec.json.Encoder(), msgspec.msgpack.Encoder()


def private(request: Request, content: Any, status: int = 200) -> Response:
    """An answer about a person, or to an act."""
    data, kind = encoded(request, content)
    return Response(data, status, {"Cache-Control": NOBODY_KEEPS}, media_type=kind)


def shared(request: Request, content: Any) -> Response:
    """An answer about no person that nobody is helped by keeping."""
    data, kind = encoded(request, content)
    return Response(data, headers={"Vary": "Accept"}, media_type=kind)


def kept(request: Request, content: Any, essence: Any, cache: str = ASK_AGAIN) -> Response:
    """An answer about no person with a tag of its `essence`: what it says but for its age. Who has it already is told so (304)."""
    data, kind = encoded(request, content)
    return kept_bytes(request, data, kind, tag(_to_message_pack.encode(essence), kind), cache)


def kept_bytes(request: Request, data: bytes, kind: str, its_tag: str, cache: str) -> Response:
    """The same of bytes that are written already."""
    headers = {"ETag": its_tag, "Cache-Control": cache, "Vary": "Accept"}
    held = request.headers.get("if-none-match")
    if held is not None and (held.strip() == "*" or its_tag in [each.strip() for each in held.split(",")]):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=kind)


def tag(data: bytes, kind: str) -> str:
    """A weak entity tag (RFC 9110, 8.8.3): equal but for the age, in one form."""
    return f'W/"{blake2b(data, digest_size=12, person=kind[-16:].encode()).hexdigest()}"'


def encoded(request: Request, content: Any) -> tuple[bytes, str]:
    """The answer's bytes and media type, by what the caller accepts; JSON where both are as good."""
    accepted = request.headers.get("accept")
    if accepted is not None and "msgpack" in accepted and (found := _preferred(accepted)):
        return _to_message_pack.encode(content), found
    return _to_json.encode(content), JSON


def _preferred(accepted: str) -> str | None:
    """The form of MessagePack that is wanted more than JSON, by the quality values of RFC 9110, 12.5.1."""
    weights: dict[str, float] = {}
    for each in accepted.split(","):
        kind, *parameters = [part.strip().lower() for part in each.split(";")]
        given = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        weights[kind] = float(given) if given.replace(".", "", 1).isdecimal() else 0.0
    json = max(weights.get(JSON, 0.0), weights.get("application/*", 0.0), weights.get("*/*", 0.0))
    best = max(((weights.get(kind, 0.0), kind) for kind in PACKED), key=lambda each: each[0])
    is_named = JSON in weights
    return best[1] if best[0] > 0 and (best[0] > json or (best[0] == json and not is_named)) else None
