"""What may be asked over HTTP, and how much of it at once."""

import asyncio
import re
from base64 import b64decode
from collections.abc import Sequence
from datetime import datetime
from email import message_from_bytes
from email.policy import HTTP
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request

from serving import keys
from serving.keys import Caller, Callers
from serving.problems import FieldProblem, ProblemError

if TYPE_CHECKING:
    from serving.operations.post import Post

MOST_TEXT = 200  # characters of any id
MOST_PAIRS = 10_000
MOST_BYTES = 2 * 1024 * 1024  # of a request body: 10,000 pairs of ordinary codes are half of it
BODY_SECONDS = 30  # for a body to arrive
MOST_FORM_BYTES = 16 * 1024
MOST_FORM_FIELDS = 20
PACKED = ("application/msgpack", "application/vnd.msgpack", "application/x-msgpack")
_T = TypeVar("_T")
_DECODERS: dict[Any, Any] = {}
# What msgspec says without repeating what was sent: our own field names and types. Anything else is put in our words.
_SAFE = re.compile(
    r"(?:Object missing required field `\w+`|Expected `[^`]*`(?:, got `[^`]*`| [^@]*)?)(?: - at `[\w$.\[\]]+`)?"
)

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MOST_TEXT)]


class Pair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An item at a location."""

    sku: Text
    location_code: Text


class AvailabilityRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pairs to look up, answered in their order."""

    pairs: Annotated[list[Pair], msgspec.Meta(min_length=1, max_length=MOST_PAIRS)]


def text(request: Request, name: str) -> str:
    """A required path or query text within its length. Raises: ProblemError 400."""
    value = optional_text(request, name)
    if value is None:
        raise bad(f"{name}: expected 1 to {MOST_TEXT} characters, found none. Add it.")
    return value


def optional_text(request: Request, name: str) -> str | None:
    value: str | None = request.path_params.get(name) or request.query_params.get(name) or None
    if value is not None and len(value) > MOST_TEXT:
        raise bad(f"{name}: expected 1 to {MOST_TEXT} characters, found {len(value)}. Shorten it.")
    return value


def optional_time(request: Request, name: str) -> datetime | None:
    """A time of the query, with its offset. Raises: ProblemError 400."""
    value = optional_text(request, name)
    try:
        at = None if value is None else datetime.fromisoformat(value)
    except ValueError:
        at = datetime.min
    if at is not None and at.tzinfo is None:
        raise bad(f"{name}: expected a time with its offset, such as 2026-03-02T09:00:00Z, found another. Correct it.")
    return at


def whole_number(request: Request, name: str, default: int, most: int, *, least: int = 1) -> int:
    value = request.query_params.get(name, str(default))
    if not (value.isascii() and value.isdigit() and len(value) <= 9 and least <= int(value) <= most):
        raise bad(f"{name}: expected a whole number from {least} to {most}, found another. Correct it.")
    return int(value)


def truth(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "false")
    if value not in ("true", "false"):
        raise bad(f"{name}: expected true or false, found another. Correct it.")
    return value == "true"


def choice(request: Request, name: str, choices: Sequence[str]) -> str:
    """One of a closed list; the first where none is given."""
    value = request.query_params.get(name, choices[0])
    if value not in choices:
        raise bad(f"{name}: expected one of {list(choices)}, found another. Choose one.")
    return value


async def body(request: Request, most: int = MOST_BYTES, seconds: float = BODY_SECONDS) -> bytes:
    """The whole body, given up as soon as it is too long or too slow. Raises: ProblemError 413 or 408."""
    received = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                received += piece
                if len(received) > most:
                    raise ProblemError(
                        413, "too_large", f"body: expected at most {most} bytes, found more. Ask in parts."
                    )
    except TimeoutError:
        raise ProblemError(
            408,
            "too_slow",
            f"body: expected it whole within {seconds} seconds, found it unfinished. Send it again.",
        ) from None
    return bytes(received)


async def typed_body(request: Request, kind: type[_T], most: int = MOST_BYTES) -> _T:
    """The body, JSON or MessagePack as it says itself, as a value of a type. Raises: ProblemError 415, 413, 400 or 422."""
    is_packed = _media_type(request) in PACKED
    data = await body(request, most) if is_packed else await json_bytes(request, most)
    return decoded(data, kind, is_packed=is_packed)


async def json_body(request: Request, kind: type[_T]) -> _T:
    """The body as a value of a type. Raises: ProblemError 415, 413, 400 (no JSON) or 422 (other JSON)."""
    return decoded(await json_bytes(request), kind)


async def json_bytes(request: Request, most: int = MOST_BYTES) -> bytes:
    """The body, said to be JSON. Raises: ProblemError 415 or 413."""
    if _media_type(request) != "application/json":
        raise ProblemError(415, "unsupported_type", "content-type: expected application/json, found another.")
    return await body(request, most)


def decoded(data: bytes | msgspec.Raw, kind: type[_T], *, is_packed: bool = False) -> _T:
    """JSON, or MessagePack, as a value of a type. Raises: ProblemError 400 or 422 that never repeats what was sent."""
    try:
        found: _T = _decoder(kind, is_packed).decode(data)
    except msgspec.ValidationError as error:
        text = str(error)
        said = text if _SAFE.fullmatch(text) else "a field or value that is not described"
        raise ProblemError(
            422,
            "not_as_described",
            f"body: expected what /openapi.json describes, found otherwise: {said}. Correct it.",
        ) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise bad(f"body: expected {'MessagePack' if is_packed else 'JSON'}, found otherwise. Correct it.") from None
    return found


def _decoder(kind: Any, is_packed: bool) -> Any:
    """Made once for a type: for a union that costs more than to decode a small body."""
    found = _DECODERS.get((kind, is_packed))
    if found is None:
        found = (msgspec.msgpack.Decoder if is_packed else msgspec.json.Decoder)(kind)
        _DECODERS[kind, is_packed] = found
    return found


async def form(request: Request, most: int = MOST_FORM_BYTES, most_fields: int = MOST_FORM_FIELDS) -> dict[str, str]:
    """The fields of a form, urlencoded or multipart; the first of each name counts. Raises: ProblemError 415 or 413."""
    kind = _media_type(request)
    if kind not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        raise ProblemError(415, "unsupported_type", "content-type: expected a form, found another.")
    data = await body(request, most)
    pairs: list[tuple[str, str]] = []
    try:
        if kind == "multipart/form-data":
            head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode("latin-1")
            for part in message_from_bytes(head + data, policy=HTTP).iter_parts():
                value = part.get_payload(decode=True)
                name = part.get_param("name", header="content-disposition")
                if isinstance(name, str) and isinstance(value, bytes):
                    pairs.append((name, value.decode().strip()))
        else:
            pairs = parse_qsl(data.decode("ascii"), keep_blank_values=True, max_num_fields=most_fields)
    except Exception:  # the parser of e-mails meets anything; a form it cannot read is not a form
        raise bad("body: expected a form, found otherwise. Correct it.") from None
    return dict(reversed(pairs))


def caller(request: Request, callers: Callers) -> Caller:
    """Who calls, by the key, as keys are now, or by a token. Raises: ProblemError 401, or 429 for who asks too often."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    found, key = None, given.strip()
    if scheme.lower() == "bearer":
        found = keys.caller_of(callers.known(), key)
        post: Post | None = request.scope.get("troth.post")
        if found is None and post is not None:
            found = post.tokens.caller(key)
    if found is None:
        raise ProblemError(401, "no_key", "authorization: expected `Bearer <API key>`, found none that is known.")
    return _admitted(request, found)


def _admitted(request: Request, found: Caller) -> Caller:
    """Whoever was recognised, counted against their limit where the service keeps one."""
    scope = request.scope
    scope["troth.caller"] = found.name
    post: Post | None = scope.get("troth.post")
    if post is not None:
        try:
            scope["troth.rate"] = post.limits.take(found)
        except ProblemError:
            scope["troth.is_limited"] = True
            raise
    return found


def caller_with(request: Request, callers: Callers, scope: str) -> Caller:
    """Who calls, with a key of a scope. Raises: ProblemError 401 or 403."""
    return _scoped(caller(request, callers), scope)


def writer(request: Request, callers: Callers, scope: str) -> Caller:
    """The same where the key may also come as the user name of Basic authentication, as tracking libraries send it."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return caller_with(request, callers, scope)
    try:
        key = b64decode(given.strip(), validate=True).decode().partition(":")[0]
    except ValueError:  # no base64, or no text
        key = ""
    found = keys.caller_of(callers.known(), key)
    if found is None:
        raise ProblemError(401, "no_key", "authorization: expected an API key as user name, found none that is known.")
    return _scoped(_admitted(request, found), scope)


def _scoped(found: Caller, scope: str) -> Caller:
    if scope not in found.scopes:
        raise ProblemError(403, "scope_not_allowed", f"API key: expected one of scope {scope}, found another. Use one.")
    return found


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def availability_request(request: Request) -> AvailabilityRequest:
    """The pairs asked for, in JSON whatever the body says it is, or in MessagePack where it says so. Raises: ProblemError 413 or 400."""
    data = await body(request)
    try:
        found: AvailabilityRequest = _decoder(AvailabilityRequest, _media_type(request) in PACKED).decode(data)
        return found
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise bad(
            f"body: expected {{pairs: [{{sku, location_code}}]}}, found otherwise: {error}. Correct it."
        ) from None


def unprocessable(position: int, field: str, detail: str) -> ProblemError:
    """One item of a list that cannot be done as asked; nothing of the list was."""
    errors = [FieldProblem(position=position, field=field, detail=detail)]
    return ProblemError(422, "not_as_described", f"item {position}, {field}: {detail} Nothing was done.", errors)


def bad(detail: str) -> ProblemError:
    return ProblemError(400, "bad_request", detail)
