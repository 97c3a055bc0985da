"""The network a retailer promises from: places, hours, carriers and products, made of published tables and the rules."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models import tables
from models.promise.calendar import ALWAYS, Calendar, Departures, seconds, working_days
from models.promise.rules import Carrier, Kind, Rule, Rules, load, path_of
from troth.home import Home

LOCATIONS = (
    "location_code", "location_type", "location_name", "timezone_name", "latitude", "longitude", "region_code", "country_code",
    "opens_at", "closes_at",
)  # fmt: skip
PRODUCTS = ("sku", "category_name", "price_cents", "weight_grams")
USUAL_GRAMS = 500  # of what has no weight in the catalogue
_HORIZON_DAYS = 120
_MOST_REMEMBERED = 10_000


class Product(NamedTuple):
    """What promising asks of an item."""

    category: str | None
    cents: int
    grams: int


class Transit(NamedTuple):
    """A carrier over a distance: working days promised, the share that arrives by then, cents a kilogram."""

    days: int
    on_time: float
    kg_cents: float


class Service:
    """A carrier, ready to be asked."""

    def __init__(self, carrier: Carrier, calendar: Calendar) -> None:
        self.carrier, self.name = carrier, carrier.name
        self._calendar = calendar
        self._bounds = [zone.up_to_km for zone in carrier.transit]
        self._transits = [
            Transit(*promised_days(zone.days, carrier.promise_share), zone.kg_cents) for zone in carrier.transit
        ]
        self._delivers_by = time.fromisoformat(carrier.delivers_by)
        self._arrivals: dict[tuple[int, str], int] = {}
        self._days: tuple[int, list[int]] = (0, [])

    def transit(self, distance_km: float) -> Transit | None:
        """None: it does not go so far."""
        zone = bisect_left(self._bounds, distance_km)
        return self._transits[zone] if zone < len(self._transits) else None

    def arrival_day(self, departure_day: int, days: int) -> int:
        """Ordinal of the day so many working days after a departure; of none, the day itself if the carrier works on it."""
        first, known = self._days
        if not first <= departure_day < first + _HORIZON_DAYS // 2:
            first = departure_day - 7
            known = working_days(self.carrier.days, self._calendar, date.fromordinal(first), _HORIZON_DAYS)
            self._days = first, known
        return known[bisect_left(known, departure_day + (days > 0)) + max(0, days - 1)]

    def arrival(self, day: int, zone: str) -> int:
        """The second by which it delivers on a day, read where it arrives."""
        key = (day, zone)
        if key not in self._arrivals:
            if len(self._arrivals) > _MOST_REMEMBERED:
                self._arrivals = {}
            self._arrivals[key] = seconds(date.fromordinal(day), self._delivers_by, ZoneInfo(zone))
        return self._arrivals[key]


class Columns:
    """Where on a board each place of a network stands; worked out once for each list of names a board has."""

    def __init__(self, codes: Sequence[str]) -> None:
        self._codes = codes
        self._last: tuple[Sequence[str], NDArray[np.int64]] = ((), np.full(len(codes), -1, dtype=np.int64))

    def on(self, locations: Sequence[str]) -> NDArray[np.int64]:
        """For each place its column, -1 where the board has none. `locations`: a board's own list, which it never changes."""
        names, found = self._last
        if names is not locations:
            at = {name: column for column, name in enumerate(locations)}
            found = np.array([at.get(code, -1) for code in self._codes], dtype=np.int64)
            self._last = locations, found
        return found


@dataclass(frozen=True)
class Network:
    """Places in one order, as arrays. `version` names what it was made of."""

    codes: Sequence[str]
    names: Sequence[str]
    zones: Sequence[str]
    regions: Sequence[str | None]
    is_store: NDArray[np.bool_]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    products: Mapping[str, Product]
    rules: Rules
    rules_hash: str
    version: str
    calendar: Calendar
    departures: Mapping[Kind, Departures]
    services: Sequence[Service]
    at: Mapping[str, int]
    columns: Columns
    # Per rule, the places it speaks of; None: all.
    rule_places: Sequence[NDArray[np.bool_] | None]

    def kind(self, place: int) -> Kind:
        return "store" if self.is_store[place] else "distribution_center"


def network(home: Home, rules: Rules | None = None) -> Network:
    """The network of a home. Raises: TrothError where nothing is published; RulesError for rules that cannot be read."""
    versions = tables.versions(home, ("locations", "products"))
    return build(
        tables.read(home, "locations", LOCATIONS),
        tables.read(home, "products", PRODUCTS),
        rules or load(path_of(home)),
        "/".join(f"{table}@{version[:12]}" for table, version in versions.items()),
    )


def build(locations: pl.DataFrame, products: pl.DataFrame, rules: Rules, version: str) -> Network:
    """A network of rows of `LOCATIONS` and `PRODUCTS`."""
    places = locations.select(LOCATIONS).sort("location_code")
    codes = places["location_code"].to_list()
    kinds = places["location_type"].to_list()
    opening = [
        (time.fromisoformat(opens), time.fromisoformat(closes)) if opens and closes else ALWAYS
        for opens, closes in places.select("opens_at", "closes_at").iter_rows()
    ]
    is_store = np.array([kind == "store" for kind in kinds], dtype=np.bool_)
    calendar = Calendar(codes, places["timezone_name"].to_list(), opening, is_store.tolist(), rules.hours)
    regions = places["region_code"].to_list()
    items = products.select(PRODUCTS).with_columns(
        pl.col("weight_grams").fill_null(USUAL_GRAMS), pl.col("price_cents").fill_null(0)
    )
    return Network(
        codes=codes,
        names=places["location_name"].to_list(),
        zones=places["timezone_name"].to_list(),
        regions=regions,
        is_store=is_store,
        latitude=_degrees(places["latitude"]),
        longitude=_degrees(places["longitude"]),
        products={sku: Product(category, cents, grams) for sku, category, cents, grams in items.iter_rows()},
        rules=rules,
        rules_hash=rules.hash,
        version=version,
        calendar=calendar,
        departures={kind: Departures(calendar, each.days, each.cut_off) for kind, each in rules.dispatch.items()},
        services=[Service(carrier, calendar) for carrier in rules.carriers],
        at={code: place for place, code in enumerate(codes)},
        columns=Columns(codes),
        rule_places=[_spoken_of(rule, codes, kinds, regions) for rule in rules.rules],
    )


def promised_days(days: Mapping[int, float], share: float) -> tuple[int, float]:
    """The first number of days within which at least such a share arrives, and the share that does."""
    arrived = 0.0
    for count in sorted(days):
        arrived += days[count]
        if arrived >= share - 1e-9:
            break
    return count, min(1.0, arrived)


def _degrees(column: pl.Series) -> NDArray[np.float64]:
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy().astype(np.float64)


def _spoken_of(
    rule: Rule, codes: Sequence[str], kinds: Sequence[str], regions: Sequence[str | None]
) -> NDArray[np.bool_] | None:
    when = rule.when
    told = ((when.locations, codes), (when.location_types, kinds), (when.from_regions, regions))
    masks = [np.array([each in given for each in of], dtype=np.bool_) for given, of in told if given is not None]
    return np.logical_and.reduce(masks) if masks else None
