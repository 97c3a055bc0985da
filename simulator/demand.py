"""What people want on a day: who goes out, who orders, and which goods, by taste, habit and season."""

from dataclasses import dataclass

import numpy as np

from simulator.people import People
from simulator.places import Places
from simulator.products import BRANDS, Products, season
from simulator.scale import Scale
from simulator.spelling import fractions

# Monday to Sunday: stores live on Saturday, the web on Sunday and Monday.
STORE_WEEK = np.array([0.85, 0.82, 0.86, 0.95, 1.10, 1.40, 1.02])
WEB_WEEK = np.array([1.12, 1.02, 0.98, 0.95, 0.90, 0.93, 1.10])
HABIT_SHARE, HABITS = 0.35, 4
BRAND_SHARE = 0.45
METHODS = ("SHIP_TO_HOME", "SHIP_FROM_STORE", "CLICK_AND_COLLECT", "CURBSIDE", "DROP_SHIP")
SHIP_TO_HOME, SHIP_FROM_STORE, CLICK_AND_COLLECT, CURBSIDE, DROP_SHIP = range(5)
WEB, APP, MARKETPLACE = range(3)
SOURCES = ("web", "app", "marketplace-bazaar")


@dataclass(frozen=True)
class Trips:
    """Visits to a store, by visit."""

    person: np.ndarray
    place: np.ndarray
    second: np.ndarray  # wall clock


@dataclass(frozen=True)
class Baskets:
    """Wanted lines, by line, in the order of their visit or order."""

    owner: np.ndarray  # index of the visit or order
    sku: np.ndarray
    quantity: np.ndarray


def year_swing(day_of_year: int) -> float:
    """Busier towards the holidays, quiet after them."""
    return float(
        1.0 + 0.35 * np.exp(-(((day_of_year - 345) / 18.0) ** 2)) - 0.10 * np.exp(-(((day_of_year - 25) / 20.0) ** 2))
    )


def drawn_people(rng: np.random.Generator, people: People, expected: float, day: int) -> np.ndarray:
    """A Poisson number of people, the active ones more often, under the account and card they use on the day."""
    count = rng.poisson(expected)
    person = np.searchsorted(people.activity, rng.random(count) * people.activity[-1], side="right")
    return people.duplicates.acting(np.asarray(person), day)


def trips(
    rng: np.random.Generator, scale: Scale, people: People, places: Places, day: int, weekday: int, day_of_year: int
) -> Trips:
    """Visits of a day: mostly to the nearest store, at hours when it is open, most in the late afternoon."""
    person = drawn_people(
        rng, people, len(people) * scale.store_trips_per_person_day * STORE_WEEK[weekday] * year_swing(day_of_year), day
    )
    place = np.where(rng.random(len(person)) < 0.86, people.home[person], people.second[person])
    opens, closes = places.opens[place], places.closes[place]
    second = opens + 120 + (rng.beta(2.2, 1.8, len(person)) * (closes - opens - 600)).astype(np.int64)
    return Trips(person=person, place=place, second=second)


def baskets(
    rng: np.random.Generator,
    people: People,
    products: Products,
    person: np.ndarray,
    mean_lines: float,
    day_of_year: int,
) -> Baskets:
    """Lines for each person: at least one, `mean_lines` on average."""
    owner = np.repeat(np.arange(len(person)), 1 + rng.poisson(mean_lines - 1.0, len(person)))
    sku = picked(rng, people, products, person[owner], day_of_year)
    quantity = rng.choice([1, 2, 3, 4], len(owner), p=[0.84, 0.11, 0.03, 0.02])
    return Baskets(owner=owner, sku=sku, quantity=quantity)


def picked(
    rng: np.random.Generator, people: People, products: Products, person: np.ndarray, day_of_year: int
) -> np.ndarray:
    """One SKU for each person: category by taste and season, then the favourite brand or any, then popularity.

    About a third of purchases are habits: the same few goods for the same person at any time.
    """
    draws = rng.random((4, len(person)))
    habit = draws[3] < HABIT_SHARE
    which = rng.integers(0, HABITS, len(person))
    for row in range(3):
        draws[row] = np.where(habit, fractions(21 + row, people.duplicates.person[person] * HABITS + which), draws[row])
    wanted = people.taste[person] * np.where(habit[:, None], 1.0, season(products, day_of_year)).astype(np.float32)
    running = np.cumsum(wanted, axis=1)
    category = (draws[0][:, None] * running[:, -1:] >= running).sum(axis=1).clip(0, len(products.categories) - 1)
    category = _stocked(products, category)
    low, high = products.category_start[category], products.category_start[category + 1]
    cell = category * BRANDS + people.favourite[person, category]
    brand_low, brand_high = products.brand_start[cell], products.brand_start[cell + 1]
    loyal = (draws[1] < BRAND_SHARE) & (brand_high > brand_low)
    low, high = np.where(loyal, brand_low, low), np.where(loyal, brand_high, high)
    bottom, top = products.cumulative[low], products.cumulative[high]
    sku = np.searchsorted(products.cumulative, bottom + draws[2] * (top - bottom), side="right") - 1
    return np.asarray(sku.clip(low, high - 1))


def _stocked(products: Products, category: np.ndarray) -> np.ndarray:
    """A category without a single SKU (tiny assortments) gives way to the first that has one."""
    empty = products.category_start[1:] == products.category_start[:-1]
    return np.where(empty[category], int(np.argmin(empty)), category)


def expected_units(scale: Scale, people: People, products: Products, places: Places) -> np.ndarray:
    """Expected daily demand of each place and SKU in units, place by place: what replenishment is planned on."""
    share = people.taste[: len(people)].mean(axis=0)
    category_weight = np.array(
        [
            products.cumulative[stop] - products.cumulative[start]
            for start, stop in zip(products.category_start[:-1], products.category_start[1:], strict=True)
        ]
    )
    by_sku = share[products.category] * products.weight / category_weight[products.category]
    by_sku /= by_sku.sum()
    crowd = (
        np.bincount(people.home[: len(people)], minlength=len(places)) * 0.86
        + np.bincount(people.second[: len(people)], minlength=len(places)) * 0.14
    )
    store_lines = scale.store_trips_per_person_day * scale.lines_per_trip
    web_lines = scale.web_orders_per_person_day * scale.lines_per_order
    at_store = crowd * (store_lines + 0.47 * web_lines) * 1.23
    at_center = np.zeros(len(places))
    np.add.at(at_center, places.center_of, at_store + crowd * 0.45 * web_lines * 1.23)
    at_center[places.centers :] = 0.0
    return np.asarray((at_store + at_center)[:, None] * by_sku[None, :], np.float32)
