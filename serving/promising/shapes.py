"""What is taken and given as JSON, and how much of it at once."""

from datetime import datetime
from typing import Annotated

import msgspec

from models.promise.asking import MOST_LINES, Ask, Code, PromiseError, Spot
from models.promise.keeping import Failed, Wish
from models.promise.rules import Method
from models.stock.holds.words import Hold

MOST_BYTES = 64 * 1024


class PromiseRequest(Ask, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A basket and a place; with `hold`, what is promised is set aside."""

    hold: Wish | None = None


class RepromiseRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lines of a promise that were not found, and where the shopper wants them: it was not kept."""

    promise_id: Code
    failed: Annotated[tuple[Failed, ...], msgspec.Meta(min_length=1, max_length=MOST_LINES)]
    spot: Spot
    methods: tuple[Method, ...] | None = None
    hold: Wish | None = None


class HeldPosition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pieces of an item at a location."""

    location_code: Code
    sku: Code
    units: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class NewHold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Stock to set aside, all of it or none. The same request under its key gets the same hold."""

    key: Code
    lines: Annotated[tuple[HeldPosition, ...], msgspec.Meta(min_length=1, max_length=MOST_LINES)]
    seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 900


class Extension(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Until when a hold is to be kept."""

    until: datetime


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A hold, or why there is none: `is_held` says which; a refusal names what is short."""

    is_held: bool
    hold: Hold | None = None
    reason_code: str | None = None
    text: str | None = None
    short: list[dict[str, str | int]] = []


def spot_of(text: str, country: str = "US") -> Spot:
    """`52.37,4.90` or `94110`. Raises: PromiseError for half a position."""
    if "," not in text:
        return Spot(postal_code=text.strip(), country_code=country)
    try:
        latitude, longitude = (float(each) for each in text.split(","))
        return msgspec.convert({"latitude": latitude, "longitude": longitude, "country_code": country}, Spot)
    except (ValueError, msgspec.ValidationError):
        raise PromiseError("near: expected a postal code, or latitude,longitude, found another. Correct it.") from None
