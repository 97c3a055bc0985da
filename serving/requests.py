"""What may be asked over HTTP, and how much of it at once."""

from typing import Annotated

import msgspec
from starlette.requests import Request

from serving.problems import ProblemError

MOST_TEXT = 200  # characters of any id
MOST_PAIRS = 10_000
MOST_BYTES = 2 * 1024 * 1024  # of a request body: 10,000 pairs of ordinary codes are half of it

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


def whole_number(request: Request, name: str, default: int, most: int) -> int:
    value = request.query_params.get(name, str(default))
    if not (value.isascii() and value.isdigit() and len(value) <= 9 and 1 <= int(value) <= most):
        raise bad(f"{name}: expected a whole number from 1 to {most}, found another. Correct it.")
    return int(value)


def truth(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "false")
    if value not in ("true", "false"):
        raise bad(f"{name}: expected true or false, found another. Correct it.")
    return value == "true"


async def body(request: Request) -> bytes:
    """The whole body, given up as soon as it is too long. Raises: ProblemError 413."""
    received = bytearray()
    async for piece in request.stream():
        received += piece
        if len(received) > MOST_BYTES:
            raise ProblemError(
                413, "too_large", f"body: expected at most {MOST_BYTES} bytes, found more. Ask in parts."
            )
    return bytes(received)


def availability_request(data: bytes) -> AvailabilityRequest:
    try:
        return msgspec.json.decode(data, type=AvailabilityRequest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise bad(
            f"body: expected {{pairs: [{{sku, location_code}}]}}, found otherwise: {error}. Correct it."
        ) from None


def bad(detail: str) -> ProblemError:
    return ProblemError(400, "bad_request", detail)
