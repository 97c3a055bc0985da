"""A world replayed as it was told: what each morning brings, what is asked of it, and what was really there.

The questions are fixed by the world's seed alone and are the same for every engine; README.md says which they are and why.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.availability.worlds import World

FIRST_DAY = 10  # engines may look on for so many days before they are asked
ASKED_A_DAY = 1_000  # questions of each kind
MOST_UNITS = 3
SOLD = ("sale", "pick", "shipment")
KINDS = ("uniform", "demand")  # of the positions whose books say there is something: any; or as shoppers ask for them
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Setting:
    """What an engine may know before the first day. `positions`: location_code, sku; their row is the position."""

    positions: pl.DataFrame
    products: pl.DataFrame
    locations: pl.DataFrame
    is_store: NDArray[np.bool_]  # by position
    category: Ints  # by position
    place: Ints
    item: Ints


@dataclass(frozen=True)
class Told:
    """What became known since the morning before, in published columns and `position`. Engines hear nothing else."""

    day: int
    at: datetime
    movements: pl.DataFrame
    picks: pl.DataFrame
    counts: pl.DataFrame


@dataclass(frozen=True)
class Questions:
    """Asked on one morning: can `units` be found at `position`? `kind` is a row of `KINDS`."""

    position: Ints
    units: Ints
    kind: Ints


@dataclass(frozen=True)
class Morning:
    """One morning: what is told, what is asked after it, and the truth of it: pieces to be found, by position; books as told by now."""

    told: Told
    questions: Questions | None
    found_units: Ints
    books: Ints
    heard_days_ago: NDArray[np.float64]  # age of the newest event of each position
    wanted_cents: NDArray[np.float64]  # what is asked for of each position in a day


def setting_of(world: World) -> Setting:
    """Positions that were ever told of or stocked, in order."""
    key = ["location_code", "sku"]
    positions = pl.concat([world.shelves.select(key), world.movements.select(key)]).unique().sort(key)
    detailed = positions.join(world.locations.select("location_code", "location_type"), on="location_code", how="left", maintain_order="left").join(
        world.products.select("sku", "category_name"), on="sku", how="left", maintain_order="left"
    )  # fmt: skip

    def ranks(name: str) -> Ints:
        return detailed[name].fill_null("").rank("dense").to_numpy().astype(np.int64) - 1

    return Setting(
        positions, world.products, world.locations, (detailed["location_type"] == "store").to_numpy(), ranks("category_name"),
        ranks("location_code"), ranks("sku"),
    )  # fmt: skip


def mornings(world: World, setting: Setting) -> Iterator[Morning]:
    """Day by day: rows by when they were received, truth at the close of the day before."""
    key = ["location_code", "sku"]
    numbered = setting.positions.with_row_index("position").with_columns(pl.col("position").cast(pl.Int64))
    movements, picks, counts = (
        frame.join(numbered, on=key, how="inner", maintain_order="left").sort("known_at", maintain_order=True)
        for frame in (world.movements, world.picks, world.counts)
    )
    shelves = world.shelves.join(numbered, on=key, how="inner", maintain_order="left").partition_by("day", as_dict=True)
    size = len(setting.positions)
    weight = _wanted(movements, setting)
    found_units, books, newest = np.zeros(size, np.int64), np.zeros(size, np.int64), np.full(size, np.nan)
    rng = np.random.default_rng([world.seed, 8])
    price = setting.positions.join(
        setting.products.select("sku", "price_cents"), on="sku", how="left", maintain_order="left"
    )["price_cents"]
    sold_a_day = -movements.filter(pl.col("movement_type").is_in(SOLD))["units"].sum() / world.scale.days
    wanted_cents = weight / weight.sum() * sold_a_day * price.fill_null(0).to_numpy()
    before = datetime(1970, 1, 1)
    for day in range(world.scale.days):
        at = world.asked_at(day)
        told = Told(day, at, *(_between(frame, before, at) for frame in (movements, picks, counts)))
        today = shelves.get((world.scale.first_day + timedelta(days=day),))
        if today is not None:
            found_units[today["position"].to_numpy()] = today["found_units"].to_numpy()
        np.add.at(books, told.movements["position"].to_numpy(), told.movements["units"].to_numpy())
        for frame, moment in ((told.movements, "occurred_at"), (told.picks, "picked_at"), (told.counts, "counted_at")):
            np.fmax.at(newest, frame["position"].to_numpy(), frame[moment].dt.epoch("s").to_numpy() / 86_400)
        age = (at - datetime(1970, 1, 1)) / timedelta(days=1) - newest
        questions = _asked(rng, books, weight) if day >= FIRST_DAY or day == world.scale.days - 1 else None
        yield Morning(told, questions, found_units.copy(), books.copy(), age, wanted_cents)
        before = at


def _between(frame: pl.DataFrame, after: datetime, until: datetime) -> pl.DataFrame:
    """Rows known in a period, of a frame in order of when they were known."""
    start, stop = (int(frame["known_at"].search_sorted(at, side="right")) for at in (after, until))
    return frame.slice(start, stop - start)


def _wanted(movements: pl.DataFrame, setting: Setting) -> NDArray[np.float64]:
    """How often shoppers ask for each position: its SKU's share of all that was sold times its location's, so that an empty shelf is still asked for."""
    sold = movements.filter(pl.col("movement_type").is_in(SOLD))
    position, units = sold["position"].to_numpy(), -sold["units"].to_numpy()
    by_place = np.bincount(setting.place[position], units, setting.place.max() + 1)
    by_item = np.bincount(setting.item[position], units, setting.item.max() + 1)
    return np.asarray(by_place[setting.place] * by_item[setting.item], np.float64)


def _asked(rng: np.random.Generator, books: Ints, weight: NDArray[np.float64]) -> Questions:
    shown = np.flatnonzero(books > 0)
    share = weight[shown] / weight[shown].sum()
    position = np.r_[rng.choice(shown, ASKED_A_DAY), rng.choice(shown, ASKED_A_DAY, p=share)]
    return Questions(position, rng.integers(1, MOST_UNITS + 1, 2 * ASKED_A_DAY), np.repeat([0, 1], ASKED_A_DAY))
