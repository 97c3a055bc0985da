"""What is asked of a promise and what is answered: values alone, as JSON has them. Times are aware, money is in cents."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from models.errors import ModelsError
from models.promise.rules import Method, Way

MODEL_VERSION = "promise/1"
MOST_LINES = 100
Code = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
ReasonCode = str  # one of `REASONS`, or `rule:<name>`
REASONS = (
    "unknown_sku",  # neither in the catalogue nor on the board
    "not_sold_here",  # no place of this way has ever had it
    "beyond_distance",
    "no_stock",  # not so many at any one place within reach
    "closed",  # nobody is there to get it ready in time
    "after_cut_off",  # today is over for orders
    "no_capacity",  # all hands are promised
    "too_late",  # after the time it is wanted by
    "split",  # only from more places than one basket may come from
    "too_unsure",  # less likely to be kept than a promise must be
    "stale_evidence",  # what is known of stock is too old
    "not_asked",  # the way was left out of the question, or is closed to the channel
    "hold_refused",  # somebody was quicker
    "pick_failed",  # promised, and not found
)


class PromiseError(ModelsError):
    """A question that makes no sense, or a promise nobody knows."""


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pieces of an item. Lines of one item count together."""

    sku: Code
    units: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class Spot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the shopper is, or wants it: coordinates, or a postal code. Used for the answer, and never kept."""

    latitude: Annotated[float, msgspec.Meta(ge=-90, le=90)] | None = None
    longitude: Annotated[float, msgspec.Meta(ge=-180, le=180)] | None = None
    postal_code: Code | None = None
    country_code: Annotated[str, msgspec.Meta(min_length=2, max_length=2)] = "US"


class Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A basket, where, and how. It names no person: a promise is the same for everybody at that place and time.

    `store`: collect there and nowhere else. `methods`: those the shopper would take. `allow_partial`: what cannot be had is left out.
    """

    lines: Annotated[tuple[Line, ...], msgspec.Meta(min_length=1, max_length=MOST_LINES)]
    spot: Spot
    purpose: Literal["service"] = "service"
    channel: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,62}$")] = "web"
    wanted_by: datetime | None = None
    store: Code | None = None
    methods: tuple[Method, ...] | None = None
    allow_partial: bool = False


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """What comes from one place: handed over there, or sent by a carrier. `starts_at`: its slot of picking, or the cut-off it leaves under."""

    method: Method
    location_code: str
    location_name: str
    timezone_name: str  # of where the time promised is read
    lines: tuple[Line, ...]
    carrier: str | None
    starts_at: datetime
    promised_at: datetime
    cost_cents: int
    carbon_grams: int
    distance_km: int | None  # not kept
    found_probability: float
    on_time_probability: float


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One way to have the whole basket. `score_cents` is what ways are compared by: cost, waiting, carbon, and the chance to fail times its price."""

    way: Way
    parcels: tuple[Parcel, ...]
    promised_at: datetime
    kept_probability: float
    cost_cents: int
    expected_cost_cents: int
    carbon_grams: int
    score_cents: int


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why not by this way: for one item, or (without `sku`) for the basket."""

    method: Method
    reason_code: ReasonCode
    sku: str | None = None
    location_code: str | None = None


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """Stock that a promise rests on, as the board had it. `basis`: belief, default (none formed) or bound (more pieces than beliefs count)."""

    location_code: str
    sku: str
    units: int
    available_units: int
    on_hand_units: int
    damaged_units: int
    quality_control_units: int
    committed_units: int
    held_units: int
    safety_units: int
    protected_units: int
    found_probability: float
    basis: str
    last_event_at: datetime | None
    log_offset: int


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer rests on. Where the shopper is, is not among it."""

    cells: tuple[Cell, ...]
    log_offset: int
    known_at: datetime | None
    recomputed_at: datetime | None
    believed_at: datetime | None
    rules_hash: str
    network_version: str
    model_version: str
    is_exact: bool  # every way to share the lines out over the places weighed was tried


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: the way chosen, others nobody can call worse in everything, and why not otherwise. `text` is for the shopper."""

    promise_id: str
    is_promised: bool
    text: str
    lines: tuple[Line, ...]
    left_out: tuple[Line, ...]
    chosen: Option | None
    runners_up: tuple[Option, ...]
    refusals: tuple[Refusal, ...]
    hold_id: str | None
    held_until: datetime | None
    purpose: str
    channel: str
    asked_at: datetime
    age_seconds: float | None
    evidence: Evidence
    replaces: str | None = None  # the promise that could not be kept


def summed(lines: Sequence[Line]) -> tuple[Line, ...]:
    """One line for each item, in the order first named. Raises: PromiseError for a basket of nothing."""
    units: dict[str, int] = {}
    for line in lines:
        units[line.sku] = units.get(line.sku, 0) + line.units
    if not units or min(line.units for line in lines) < 1:
        raise PromiseError("basket: expected lines of one piece or more, found none or fewer. Correct it.")
    return tuple(Line(sku, count) for sku, count in units.items())
