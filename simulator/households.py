"""Who lives with whom: couples, families, twins and namesakes, people who only share the rent, student halls; and where.

What identity must tell apart is decided here. What is written down of anyone is decided in `records`.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from simulator.names import FIRST_NAMES, LAST_NAMES, drawn
from simulator.places import NEAR_KM, Places, distance_km, postal_codes
from simulator.scale import Scale
from simulator.spelling import epoch_day

SINGLE, FAMILY, HOUSEMATES, HALL = range(4)
KINDS = ("single", "family", "housemates", "hall")
HALL_SIZE = 40  # rooms of a student hall: households of one at the same address
OWN_NAME_SHARE, COMPOUND_SHARE = 0.12, 0.02  # spouses who kept their name; two names joined by a hyphen
YEAR = 365.2425
STREETS = (
    "Main", "Oak", "Maple", "Cedar", "Elm", "Washington", "Lake", "Hill", "Walnut", "Park", "Sunset", "River", "Church", "Spring",
)  # fmt: skip
SUFFIXES = (("Street", "St"), ("Avenue", "Ave"), ("Road", "Rd"), ("Lane", "Ln"))


@dataclass(frozen=True)
class Households:
    """Arrays by person, `kind` by household; people of one household stand together."""

    household: np.ndarray
    head: np.ndarray  # first person of the own household
    kind: np.ndarray
    first: np.ndarray  # place in FIRST_NAMES
    last: np.ndarray  # place in `last_names`
    last_names: pl.Series
    born: np.ndarray  # days from the epoch
    is_namesake: np.ndarray  # a parent and a grown child of the same name
    is_twin: np.ndarray
    shares_email: np.ndarray
    shares_phone: np.ndarray
    shares_payment: np.ndarray

    def kinds(self) -> np.ndarray:
        """Kind of each person's household."""
        return np.asarray(self.kind[self.household])

    @property
    def is_junior(self) -> np.ndarray:
        """The younger of two namesakes."""
        return np.asarray(self.is_namesake & (np.arange(len(self.head)) != self.head))


def formed(rng: np.random.Generator, names: np.random.Generator, scale: Scale) -> Households:
    """Households in the order of their people. `rng` draws sizes, `names` everything else."""
    people = scale.people
    sizes = rng.choice([1, 2, 3, 4], people, p=[0.40, 0.34, 0.14, 0.12])
    used = int(np.searchsorted(np.cumsum(sizes), people)) + 1
    household = np.repeat(np.arange(used), sizes[:used])[:people]
    size = np.bincount(household, minlength=used)
    dice = names.random((6, used))
    alone = np.where(dice[0] < scale.hall_share, HALL, SINGLE)
    kind = np.where(size == 1, alone, np.where(dice[0] < scale.housemate_share, HOUSEMATES, FAMILY)).astype(np.uint8)
    start = np.r_[0, np.cumsum(size)[:-1]]
    head = start[household]
    rank = np.arange(people) - head
    family = kind == FAMILY
    twins = family & (size >= 3) & (dice[1] < scale.twin_rate)
    namesakes = family & (size >= 3) & ~twins & (dice[2] < scale.namesake_rate)
    is_twin = twins[household] & (rank >= size[household] - 2)
    is_junior = namesakes[household] & (rank == size[household] - 1)
    first, last = _named(names, household, head, rank, family, is_junior)
    born = epoch_day(scale.first_day) - _ages(names, kind[household], head, rank)
    second_twin = np.flatnonzero(is_twin & (rank == size[household] - 1))
    born[second_twin] = born[second_twin - 1]
    same = second_twin[first[second_twin] == first[second_twin - 1]]
    first[same] = (first[same] + 1) % len(FIRST_NAMES)
    # A second name where two are joined: rare names of which a linker may make much.
    joined = np.flatnonzero(names.random(used) < COMPOUND_SHARE)
    plain = pl.Series(LAST_NAMES)
    double = pl.select(plain[last[start[joined]]] + "-" + plain[drawn(names, LAST_NAMES, len(joined))]).to_series()
    bears = np.flatnonzero((np.isin(household, joined)) & (last == last[head]))
    last = last.astype(np.int32)
    last[bears] = len(LAST_NAMES) + np.searchsorted(joined, household[bears])
    shares = [family[household] & (dice[n] < rate)[household] for n, rate in (
        (3, scale.shared_email_rate), (4, scale.shared_phone_rate), (5, scale.shared_payment_rate)
    )]  # fmt: skip
    return Households(
        household=household, head=head, kind=kind, first=first, last=last, last_names=pl.concat([plain, double]), born=born,
        is_namesake=namesakes[household] & (is_junior | (rank == 0)), is_twin=is_twin,
        shares_email=shares[0], shares_phone=shares[1], shares_payment=shares[2],
    )  # fmt: skip


def _named(
    rng: np.random.Generator, household: np.ndarray, head: np.ndarray, rank: np.ndarray, family: np.ndarray,
    is_junior: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """First and last names: families bear the head's last name, a namesake the head's first as well."""
    count = len(household)
    first, last = drawn(rng, FIRST_NAMES, count), drawn(rng, LAST_NAMES, count)
    keeps = (rank == 1) & (rng.random(count) < OWN_NAME_SHARE)
    last = np.where(family[household] & ~keeps, last[head], last)
    clash = (rank > 0) & (first == first[head])
    first = np.where(clash, (first + 1) % len(FIRST_NAMES), first).astype(np.int16)
    return np.where(is_junior, first[head], first), last


def _ages(rng: np.random.Generator, kind: np.ndarray, head: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Age in days: spouses about as old as each other, children a generation younger, students young."""
    count = len(kind)
    adult, young, gap = rng.uniform(20, 84, count), rng.uniform(19, 38, count), rng.uniform(20, 36, count)
    parent = 38 + (adult[head] - 20) * 42 / 64  # stretched, not cut off: no two thousand people are born on one day
    child = np.where(parent - gap < 16, 16 + gap % 9, parent - gap)
    family = np.select([rank == 0, rank == 1], [parent, parent + rng.normal(0, 4, count)], child)
    years = np.choose(kind, [adult, family, young, rng.uniform(18, 25, count)])
    return np.asarray(np.maximum(years, 16) * YEAR).astype(np.int64)


@dataclass(frozen=True)
class Homes:
    """Addresses, and where each person lives: place in `addresses`, nearest and second nearest store."""

    addresses: pl.DataFrame  # street, short_street, city, region, postal
    lives_at: np.ndarray
    nearest: np.ndarray
    second: np.ndarray


def housed(rng: np.random.Generator, names: np.random.Generator, places: Places, people: Households) -> Homes:
    """One address per household, thinning out with distance from a store; forty rooms of a hall share one."""
    towns = postal_codes()
    latitude, longitude = towns["latitude"].to_numpy(), towns["longitude"].to_numpy()
    first = places.centers
    stores = len(places) - first
    pull = rng.lognormal(0.0, 0.35, stores)
    of_store = rng.choice(stores, len(people.kind), p=pull / pull.sum())
    town = np.empty(len(of_store), np.int64)
    far = distance_km(places.latitude[first:], places.longitude[first:], latitude, longitude)
    for store in range(stores):
        near = np.flatnonzero(far[store] < NEAR_KM)
        likely = np.exp(-far[store, near] / 12.0)
        here = np.flatnonzero(of_store == store)
        town[here] = rng.choice(near, len(here), p=likely / likely.sum())
    used, place = np.unique(town, return_inverse=True)
    nearest = np.argsort(far[:, used], axis=0, kind="stable")[:2]
    second = nearest[1] if stores > 1 else nearest[0]
    address = np.arange(len(town), dtype=np.int32)
    rooms = np.flatnonzero(people.kind == HALL)
    address[rooms] = rooms[np.arange(len(rooms)) // HALL_SIZE * HALL_SIZE]
    lives_at = address[people.household]
    home_town = place[lives_at]
    return Homes(
        _streets(names, towns[town]), lives_at,
        (nearest[0][home_town] + first).astype(np.int32), (second[home_town] + first).astype(np.int32),
    )  # fmt: skip


def _streets(rng: np.random.Generator, towns: pl.DataFrame) -> pl.DataFrame:
    count = len(towns)
    number = pl.Series(rng.integers(1, 9_800, count)).cast(pl.String)
    street = pl.Series(STREETS)[rng.integers(0, len(STREETS), count)]
    suffix = rng.integers(0, len(SUFFIXES), count)
    long_way, short_way = (
        pl.concat_str([number, street, pl.Series([pair[n] for pair in SUFFIXES])[suffix]], separator=" ")
        for n in (0, 1)
    )
    return pl.select(
        street=long_way, short_street=short_way, city=towns["city"], region=towns["state"], postal=towns["zip"]
    )


def person_ids(person: np.ndarray) -> pl.Series:
    return "P" + pl.Series(person).cast(pl.String).str.zfill(7)


def household_ids(household: np.ndarray) -> pl.Series:
    return "H" + pl.Series(household).cast(pl.String).str.zfill(7)


def household_rows(people: Households, start: int, stop: int) -> pl.DataFrame:
    """The truth: who lives together, and as what. One row per person."""
    return pl.DataFrame({
        "person_id": person_ids(np.arange(start, stop)), "household_id": household_ids(people.household[start:stop]),
        "household_type": pl.Series(KINDS)[people.kinds()[start:stop]],
    })  # fmt: skip
