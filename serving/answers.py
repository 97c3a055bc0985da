"""The answers themselves: customer features, availability, recommendations, orders. The command line and HTTP call the same.

Every function takes the time it answers for, and every answer carries its age, its reason and what it rests on.
Importing this is cheap; what is slow to import is imported by the answer that needs it.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from feature_repo import catalogue, reads
from feature_repo.catalogue import AVAILABILITY, CUSTOMER_IDENTITY, PRODUCT_POPULARITY, RECOMMEND_CONTEXT
from feature_repo.packed import from_microseconds, to_microseconds
from feature_repo.reads import NOT_FOUND, OUTSIDE_MAX_AGE, PRESENT, Answer, Evidence, Source, is_fresh, read_features
from feature_repo.store import StoredRow, entity_key, entity_values
from serving import orders, profiles
from serving.errors import ServingError
from serving.operations.freshness import ViewLag, view_lags
from serving.orders import AUDIENCES, Audience, OrderView
from serving.profiles import Profile
from troth.clock import Clock, FixedClock, SystemClock
from troth.errors import TrothError
from troth.home import Home

if TYPE_CHECKING:  # the arrays behind it take half a second to import
    from models.stock.board.layout import Cells, Known
    from models.stock.board.reader import Board

CUSTOMER_PREFIX = "cus_"
MOST_RECOMMENDED = 100
UNREADABLE = "unreadable"  # the online store cannot be asked
Neighbours = Mapping[str, Sequence[tuple[str, float]]]


@dataclass
class Desk:
    """What answers need at hand. A server keeps one; the command line makes one on the spot."""

    home: Home
    source: Source
    _neighbours: tuple[str | None, Neighbours] = (None, {})
    _popular: tuple[str | None, Sequence[tuple[str, float]]] = field(default=(None, ()))
    _board: "Board | None" = None

    def board(self) -> "Board | None":
        """The board of stock, once a projector shows there what the warehouse knows."""
        if self._board is None and (self.home.stock / "board").exists():
            from serving.board import open_board

            self._board = open_board(self.home)
        return self._board

    def neighbours(self) -> tuple[str | None, Neighbours]:
        """Version of the recommendation model in use, and its neighbours by SKU; (None, nothing) without a model."""
        from models import registry

        version = registry.pointed(self.home, "recommendations")
        if version != self._neighbours[0]:
            self._neighbours = (version, _read_neighbours(self.home, version) if version else {})
        return self._neighbours

    def popular(self) -> Sequence[tuple[str, float]]:
        """(SKU, units sold in 28 days), best seller first."""
        version = self.source.store.standings([PRODUCT_POPULARITY])[0].version
        if version is None or version != self._popular[0]:
            rows = self.source.store.scan(PRODUCT_POPULARITY)
            sold = ((sku, float(row.values["sold_units_28d"] or 0)) for sku, row in rows)
            ranked = sorted((each for each in sold if each[1] > 0), key=lambda each: (-each[1], each[0]))
            self._popular = (version, ranked)
        return self._popular[1]


class Availability(msgspec.Struct, frozen=True, kw_only=True):
    """Stock of an item at a location and its parts; units are null unless `status` is PRESENT.

    `found_probability`: of the first piece; null where no belief was formed. What only the board tells is null without one.
    """

    sku: str
    location_code: str
    status: str
    on_hand_units: int | None = None
    committed_units: int | None = None
    safety_units: int | None = None
    available_units: int | None = None
    damaged_units: int | None = None
    quality_control_units: int | None = None
    held_units: int | None = None
    protected_units: int | None = None
    found_probability: float | None = None
    as_of_at: datetime | None = None
    age_seconds: float | None = None
    last_movement_at: datetime | None = None
    last_movement_age_seconds: float | None = None
    version: str | None = None


class Recommended(msgspec.Struct, frozen=True, kw_only=True):
    """One item to show; `basis` is `bought_together` (personal) or `popular` (the same for everyone)."""

    sku: str
    score: float
    basis: str
    location_code: str
    available_units: int


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """Items to show one customer. When refused there are none, or popular ones if those were asked for."""

    customer_id: str
    purpose_code: str
    is_allowed: bool
    reason_code: str
    is_personal: bool
    location_code: str | None
    items: list[Recommended]
    model_version: str | None
    newest_event_at: datetime | None
    age_seconds: float | None
    answered_at: datetime
    evidence: Evidence


class OrderAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An order for an audience, under purpose `service`; `view` is null when refused.

    `newest_by_source` is the newest word of each source about this order; `known_until` what all tables rest on.
    """

    order: str
    audience: str
    purpose_code: str
    is_allowed: bool
    reason_code: str
    view: OrderView | None
    newest_by_source: dict[str, datetime]
    known_until: datetime | None
    age_seconds: float | None
    answered_at: datetime
    evidence: Evidence


class ProfileAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is believed of a customer, under purpose `service`; `profile` is null when refused.

    What they looked at and with what is told under `personalization` alone: `browsing_reason_code` says why it is there or not.
    """

    entity: dict[str, str]
    purpose_code: str
    is_allowed: bool
    reason_code: str
    browsing_reason_code: str | None
    profile: Profile | None
    known_until: datetime | None
    age_seconds: float | None
    answered_at: datetime
    evidence: Evidence


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether personal answers can be given: `ok`, or `degraded` with the reason everyone would be refused with.

    `late_views`: whose lag is above its limit. They answer all the same, each answer with its age.
    """

    status: str
    reason_code: str | None
    ledger_size: int | None
    standing_ledger_size: int | None
    known_until: datetime | None
    versions: dict[str, str | None]
    late_views: list[str]


def desk(home: Home) -> Desk:
    """A desk for a home."""
    return Desk(home, reads.source(home))


def ask_customer(at_home: Home | Desk, who: str, service: str, at: datetime) -> Answer:
    """Features of one customer, given the customer id or the token of an identifier, for one feature service.

    Raises: FeatureError for an unknown service; ServingError for one that is not about customers.
    """
    at_desk = _at_desk(at_home)
    use = catalogue.service(service)
    if use.entity != catalogue.CUSTOMER:
        raise ServingError(
            f"feature service {service}: expected one about customers, found one about {use.entity.name}. "
            f"Ask for one of {[each.name for each in catalogue.SERVICES if each.entity == catalogue.CUSTOMER]}."
        )
    if who.startswith(CUSTOMER_PREFIX):
        return read_features(at_desk.source, use, [{"customer_id": who}], at)[0]
    customer_id = _customer_of(at_desk.source, who, at)
    answer = read_features(at_desk.source, use, [{"customer_id": customer_id or ""}], at)[0]
    if answer.is_allowed:
        return answer
    # A refusal does not even say which customer the identifier belongs to.
    reason = answer.reason_code if customer_id else "unknown_subject"
    return msgspec.structs.replace(answer, entity={"identity_ref": who}, reason_code=reason)


def ask_profile(at_home: Home | Desk, who: str, at: datetime) -> ProfileAnswer:
    """Who a customer is and on whose word, what they do, their store and channels, given the customer id or the token of an identifier.

    Standing for `service` is asked first, and for `personalization` before telling what they looked at.
    """
    at_desk = _at_desk(at_home)
    customer_id = who if who.startswith(CUSTOMER_PREFIX) else _customer_of(at_desk.source, who, at)
    person = [{"customer_id": customer_id or ""}]
    gate = read_features(at_desk.source, "standing_v1", person, at)[0]
    may_browse = read_features(at_desk.source, RECOMMEND_CONTEXT, person, at)[0]
    found = profiles.find(at_desk.home, customer_id) if gate.is_allowed and customer_id else None
    until = known_until(at_desk)
    return ProfileAnswer(
        # A refusal does not even say which customer the identifier belongs to.
        entity={"customer_id": customer_id} if found and customer_id else {"asked_for": who},
        purpose_code="service",
        is_allowed=found is not None,
        reason_code="unknown_subject"
        if found is None and (gate.is_allowed or customer_id is None)
        else gate.reason_code,
        browsing_reason_code=may_browse.reason_code if found else None,
        profile=profiles.view(found, may_browse.is_allowed) if found else None,
        known_until=until,
        age_seconds=(at - until).total_seconds() if until else None,
        answered_at=at,
        evidence=msgspec.structs.replace(gate.evidence, versions=found.versions if found else {}),
    )


def ask_availability(at_home: Home | Desk, sku: str, location_code: str | None, at: datetime) -> list[Availability]:
    """Availability of an item at a location, or at every location that has a record of it."""
    if location_code is not None:
        return ask_availabilities(at_home, [(sku, location_code)], at)
    return _everywhere(_at_desk(at_home), sku, at)


def ask_availabilities(at_home: Home | Desk, pairs: Sequence[tuple[str, str]], at: datetime) -> list[Availability]:
    """Availability of (SKU, location) pairs, in their order, read at once: from the board, or, before there is one, as last published."""
    at_desk = _at_desk(at_home)
    board = at_desk.board()
    if board is not None:
        return _on_board(board.cells([(location, sku) for sku, location in pairs]), pairs, board.known(), at)
    keys = [entity_key(AVAILABILITY.entity, pair) for pair in pairs]
    rows = at_desk.source.store.read([AVAILABILITY], keys)
    return [_availability(*pair, rows.get((AVAILABILITY.name, key)), at) for pair, key in zip(pairs, keys, strict=True)]


def ask_recommend(
    at_home: Home | Desk,
    customer_id: str,
    at: datetime,
    count: int = 10,
    *,
    allow_popular: bool = False,
    at_location: str | None = None,
) -> Recommendation:
    """Items for a customer, in stock where they shop, or `at_location`: what people who bought the same bought too.

    Standing for personalization is asked first. Without it, or without enough neighbours in stock, popular items
    fill up where `allow_popular`; the basis of each item says which it is.
    Raises: ServingError unless `count` is from 1 to 100.
    """
    if not 1 <= count <= MOST_RECOMMENDED:
        raise ServingError(f"count: expected 1 to {MOST_RECOMMENDED}, found {count}. Ask for fewer.")
    at_desk = _at_desk(at_home)
    context = read_features(at_desk.source, RECOMMEND_CONTEXT, [{"customer_id": customer_id}], at)[0]
    known = context.features or {}
    recent = (known.get("recent_skus") or "").split("\n")
    location_code = at_location or known.get("home_location_code")
    version: str | None = None
    items: list[Recommended] = []
    if context.is_allowed:
        version, neighbours = at_desk.neighbours()
        ranked = _ranked(neighbours, recent)
        items = list(islice(_in_stock(at_desk, ranked, "bought_together", location_code, at), count))
    if allow_popular and len(items) < count:
        taken = {item.sku for item in items}.union(recent)
        rest = [each for each in at_desk.popular() if each[0] not in taken]
        items += islice(_in_stock(at_desk, rest, "popular", location_code, at), count - len(items))
    return Recommendation(
        customer_id=customer_id,
        purpose_code="personalization",
        is_allowed=context.is_allowed,
        reason_code=context.reason_code,
        is_personal=any(item.basis == "bought_together" for item in items),
        location_code=location_code,
        items=items,
        model_version=version,
        newest_event_at=context.newest_event_at,
        age_seconds=context.age_seconds,
        answered_at=at,
        evidence=context.evidence,
    )


def ask_order(at_home: Home | Desk, name: str, at: datetime, audience: str = "contact_centre") -> OrderAnswer:
    """What became of an order, by its name or id, in words for the shopper or for the contact centre.

    Whose order it is decides: their standing for `service` is asked before anything is told. An order of nobody known is
    about no person. Raises: NoSuchOrderError; ServingError for an audience there is none of.
    """
    return tell_order(at_home, orders.find(_at_desk(at_home).home, name), at, audience)


def tell_order(at_home: Home | Desk, order: dict[str, Any], at: datetime, audience: str) -> OrderAnswer:
    """The same of an order that was found (`orders.find`). Raises: ServingError for an audience there is none of."""
    if audience not in AUDIENCES:
        raise ServingError(f"audience: expected one of {list(AUDIENCES)}, found another. Choose one.")
    at_desk = _at_desk(at_home)
    gate = None
    if order["customer_id"] is not None:
        gate = read_features(at_desk.source, "standing_v1", [{"customer_id": order["customer_id"]}], at)[0]
    is_allowed = gate is None or gate.is_allowed
    found = orders.read(at_desk.home, order) if is_allowed else None
    until = known_until(at_desk)
    newest: dict[str, datetime] = {}
    for event in found.rows["order_events"] if found else ():
        source = event["source_name"]
        newest[source] = max(newest.get(source, event["recorded_at"]), event["recorded_at"])
    told: Audience = "shopper" if audience == "shopper" else "contact_centre"
    return OrderAnswer(
        order=order["order_name"],
        audience=audience,
        purpose_code="service",
        is_allowed=is_allowed,
        reason_code=gate.reason_code if gate else reads.NOT_PERSONAL,
        view=orders.view(found, told) if found else None,
        newest_by_source=dict(sorted(newest.items())),
        known_until=until,
        age_seconds=(at - until).total_seconds() if until else None,
        answered_at=at,
        evidence=Evidence(
            ledger_size=gate.evidence.ledger_size if gate else None,
            standing_ledger_size=gate.evidence.standing_ledger_size if gate else None,
            versions=found.versions if found else {},
        ),
    )


def in_short(answer: OrderAnswer) -> OrderAnswer:
    """The answer as it fits on a terminal."""
    return msgspec.structs.replace(answer, view=orders.in_short(answer.view)) if answer.view else answer


def profile_in_short(answer: ProfileAnswer) -> dict[str, Any]:
    """The answer as it fits on a terminal."""
    short = profiles.in_short(answer.profile) if answer.profile else None
    return {**msgspec.structs.asdict(answer), "profile": short}


def known_until(at_home: Home | Desk) -> datetime | None:
    """The newest time for which anything was published; None before the first run."""
    standings = _at_desk(at_home).source.store.standings((*catalogue.VIEWS, *catalogue.INDEXES))
    newest = [each.as_of_us for each in standings if each.as_of_us]
    return from_microseconds(max(newest)) if newest else None


def clock_of(home: Home) -> Clock:
    """The time to answer for: the machine's, or, for a generated retailer, whose time stands still, what it knows until."""
    until = known_until(home) if home.truth.exists() else None
    return FixedClock(until) if until else SystemClock()


def ask_lags(at_home: Home | Desk, at: datetime) -> list[ViewLag]:
    """How old what each view knows is, beside how old it may be. Raises: FeatureError where the store cannot be asked."""
    at_desk = _at_desk(at_home)
    return view_lags(at_desk.home, at_desk.source.store, at)


def health(at_home: Home | Desk, at: datetime) -> Health:
    """What personal answers rest on, and whether they can be given at all. Told also of a store that cannot be asked."""
    at_desk = _at_desk(at_home)
    views = (*catalogue.VIEWS, *catalogue.INDEXES)
    try:
        reason, size, seen = reads.projection(at_desk.source, at)
        versions = {view.name: each.version for view, each in zip(views, at_desk.source.store.standings(views), strict=True)}  # fmt: skip
        until = known_until(at_desk)
        late = [each.view for each in ask_lags(at_desk, at) if each.is_late]
    except (TrothError, OSError, sqlite3.Error):
        reason, size, seen, versions, until, late = UNREADABLE, reads.readable_size(at_desk.source), None, {}, None, []
    return Health(
        status="ok" if reason is None else "degraded",
        reason_code=reason,
        ledger_size=size,
        standing_ledger_size=seen,
        known_until=until,
        versions=versions,
        late_views=late,
    )


def _at_desk(at_home: Home | Desk) -> Desk:
    return at_home if isinstance(at_home, Desk) else desk(at_home)


def _customer_of(source: Source, identity_ref: str, at: datetime) -> str | None:
    """The customer an identifier is proved to be; None when unknown, of several customers, or known too long ago."""
    row = source.store.read([CUSTOMER_IDENTITY], [identity_ref]).get((CUSTOMER_IDENTITY.name, identity_ref))
    if row is None or not is_fresh(CUSTOMER_IDENTITY, row.event_us, at):
        return None
    customer_id: str | None = row.values["customer_id"]
    return customer_id


def _everywhere(at_desk: Desk, sku: str, at: datetime) -> list[Availability]:
    board = at_desk.board()
    if board is None:
        rows = sorted(
            at_desk.source.store.scan(AVAILABILITY, entity_key(AVAILABILITY.entity, (sku, ""))), key=itemgetter(0)
        )
        return [_availability(sku, entity_values(AVAILABILITY.entity, key)[1], row, at) for key, row in rows]
    cells, locations = board.rows([sku])
    found = _on_board(cells, [(sku, location) for location in locations], board.known(), at)
    return [each for each in found if each.status != NOT_FOUND]


def _on_board(cells: "Cells", pairs: Sequence[tuple[str, str]], known: "Known", at: datetime) -> list[Availability]:
    """Answers from cells of any shape, in the order of the pairs."""
    from models.stock.atp import PARTS
    from models.stock.board.layout import FULL

    as_of_at = known.known_at
    age = None if as_of_at is None else max(0.0, (at - as_of_at).total_seconds())
    is_current = as_of_at is not None and is_fresh(AVAILABILITY, to_microseconds(as_of_at), at)
    version, now = f"board/{known.offset}", to_microseconds(at)
    units = {part: cells.data[part].ravel().tolist() for part in PARTS}
    available, found = cells.available_units.ravel().tolist(), (cells.data["found"][..., 0] / FULL).ravel().tolist()
    moved = cells.data["last_event_at"].ravel().tolist()
    is_known = cells.is_known.ravel().tolist()
    answers: list[Availability] = []
    for number, (sku, location_code) in enumerate(pairs):
        if not is_known[number]:
            answers.append(Availability(sku=sku, location_code=location_code, status=NOT_FOUND))
            continue
        if not is_current:
            outside = Availability(
                sku=sku, location_code=location_code, status=OUTSIDE_MAX_AGE, as_of_at=as_of_at, age_seconds=age, version=version
            )  # fmt: skip
            answers.append(outside)
            continue
        moved_us = moved[number]
        answers.append(
            Availability(
                sku=sku,
                location_code=location_code,
                status=PRESENT,
                **{part: values[number] for part, values in units.items()},
                available_units=available[number],
                found_probability=round(found[number], 6) or None,
                as_of_at=as_of_at,
                age_seconds=age,
                last_movement_at=from_microseconds(moved_us) if moved_us else None,
                last_movement_age_seconds=(now - moved_us) / 1e6 if moved_us else None,
                version=version,
            )
        )
    return answers


def _availability(sku: str, location_code: str, row: StoredRow | None, at: datetime) -> Availability:
    if row is None:
        return Availability(sku=sku, location_code=location_code, status=NOT_FOUND)
    as_of_at = from_microseconds(row.event_us)
    age = (to_microseconds(at) - row.event_us) / 1e6
    if not is_fresh(AVAILABILITY, row.event_us, at):
        return Availability(
            sku=sku,
            location_code=location_code,
            status=OUTSIDE_MAX_AGE,
            as_of_at=as_of_at,
            age_seconds=age,
            version=row.version,
        )
    moved_at = row.values["last_movement_at"]
    return Availability(
        sku=sku,
        location_code=location_code,
        status=PRESENT,
        as_of_at=as_of_at,
        age_seconds=age,
        last_movement_age_seconds=None if moved_at is None else (at - moved_at).total_seconds(),
        version=row.version,
        **row.values,
    )


def _read_neighbours(home: Home, version: str) -> Neighbours:
    """The model's neighbours, best first, after its hashes and seal were verified."""
    import io

    import polars as pl

    from models import registry

    data = registry.read(home, "recommendations", version)["neighbours.parquet"]
    best: dict[str, list[tuple[str, float]]] = {}
    frame = pl.read_parquet(io.BytesIO(data), columns=["sku", "neighbour_sku", "score"])
    for sku, neighbour, score in frame.iter_rows():
        best.setdefault(sku, []).append((neighbour, score))
    return best


def _ranked(neighbours: Neighbours, recent: Sequence[str]) -> list[tuple[str, float]]:
    """(SKU, score) of what goes with recent purchases, best first; what was just bought is left out."""
    scores: dict[str, float] = {}
    for sku in recent:
        for neighbour, score in neighbours.get(sku, ()):
            scores[neighbour] = scores.get(neighbour, 0.0) + score
    fresh = ((sku, score) for sku, score in scores.items() if sku not in recent)
    return sorted(fresh, key=lambda each: (-each[1], each[0]))


def _in_stock(
    at_desk: Desk, ranked: Iterable[tuple[str, float]], basis: str, location_code: str | None, at: datetime
) -> Iterator[Recommended]:
    """Those that are available at the location or, where none is known, at the place with most of it."""
    for sku, score in ranked:
        found = ask_availability(at_desk, sku, location_code, at)
        best = max(found, key=lambda each: (each.available_units or 0, each.location_code), default=None)
        if best and best.available_units:
            yield Recommended(
                sku=sku,
                score=round(score, 6),
                basis=basis,
                location_code=best.location_code,
                available_units=best.available_units,
            )
