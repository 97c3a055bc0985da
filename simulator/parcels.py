"""What the shop promises of an order, and what it tells of it on the way: ready for pickup, handed to a carrier, delivered, or not."""

from collections import defaultdict

import numpy as np
import polars as pl

from simulator.demand import CLICK_AND_COLLECT, CURBSIDE, DROP_SHIP, SHIP_FROM_STORE, SHIP_TO_HOME
from simulator.formats import ecommerce
from simulator.spelling import scatter, typed
from simulator.world import World

EVENING = 20 * 3600
READY_WITHIN = 7_200  # seconds after the order, or after opening
PROMISED_DAYS = {SHIP_TO_HOME: 4, SHIP_FROM_STORE: 3, DROP_SHIP: 5}  # after the goods leave
# Days a parcel is under way, and how often: slower than promised about one time in twelve.
TRANSIT = {
    SHIP_TO_HOME: ((2, 3, 4, 5, 6), (0.25, 0.40, 0.27, 0.06, 0.02)),
    SHIP_FROM_STORE: ((1, 2, 3, 4), (0.35, 0.40, 0.20, 0.05)),
    DROP_SHIP: ((3, 4, 5, 7, 9), (0.30, 0.35, 0.24, 0.08, 0.03)),
}
MISSED_SHARE, LOST_SHARE = 0.03, 0.004  # nobody was at home; the carrier lost it
PARCEL_SCHEMA = {
    "fulfillment": pl.Int64, "order": pl.Int64, "person": pl.Int64, "source": pl.Int64, "is_signed_in": pl.Boolean, "place": pl.Int64,
    "method": pl.Int64, "created": pl.Int64, "updated": pl.Int64, "state": pl.String, "carrier": pl.String, "tracking": pl.String,
}  # fmt: skip
ITEM_SCHEMA = {"fulfillment": pl.Int64, "line": pl.Int64, "sku": pl.Int64, "quantity": pl.Int64}
FIRST_OWN_LABEL = 10**12  # labels that no distribution centre printed


def promised_by(
    world: World, day: int, home: np.ndarray, method: np.ndarray, leaving: np.ndarray, ready: np.ndarray
) -> np.ndarray:
    """UTC second by which each order is promised: ready at the store two hours on, or delivered by the evening of a day.

    `leaving`: days from now on which the goods leave; `ready`: second from which a store begins on the order.
    """
    days = np.select([method == each for each in PROMISED_DAYS], list(PROMISED_DAYS.values()), 0)
    last = world.places.offset_minutes.shape[1] - 1
    on = np.minimum(day + leaving + days, last)
    wall = world.day_start(0) + on * 86_400 + EVENING
    delivered = wall - world.places.offset_minutes[home, on].astype(np.int64) * 60
    return np.where(np.isin(method, (CLICK_AND_COLLECT, CURBSIDE)), ready + READY_WITHIN, delivered)


class Parcels:
    """Fulfilments under way, and what will be told of them on later days."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.told: dict[int, list[tuple[pl.DataFrame, pl.DataFrame]]] = defaultdict(list)

    def send(self, day: int, orders: pl.DataFrame, lines: pl.DataFrame, labels: pl.DataFrame) -> pl.Series:
        """Tell of what was found for each order, today and until it arrives. Gives when each promise was met, null where it never was.

        `orders`: ORDER_SCHEMA, sent today at `updated`; `lines`: order, line, sku, granted; `labels`: order, shipment of a centre.
        """
        world, rng = self.world, self.world.random(92, day)
        count = len(orders)
        orders = orders.join(labels, on="order", how="left", maintain_order="left", suffix="_label")
        number = np.arange(count) + world.take("fulfillment", count)
        method, created = orders["method"].to_numpy(), orders["updated"].to_numpy()
        collected = np.isin(method, (CLICK_AND_COLLECT, CURBSIDE))
        label = orders["shipment_label"].fill_null(-1).to_numpy()
        label = np.where(label < 0, FIRST_OWN_LABEL + number, label)
        parcels = orders.with_columns(
            fulfillment=pl.Series(number), created=pl.Series(created), state=pl.Series(np.where(collected, 1, 0)),
            carrier=pl.when(pl.Series(~collected)).then(pl.Series(["UPS", "FedEx", "USPS"])[label % 3]),
            tracking=pl.when(pl.Series(~collected)).then(tracking_numbers(label)),
        ).with_columns(state=pl.when(pl.Series(collected)).then(pl.lit("ready_for_pickup")))  # fmt: skip
        parcels = parcels.select(typed(PARCEL_SCHEMA))
        items = lines.rename({"granted": "units"}).join(
            parcels.select("order", "fulfillment"), on="order", how="inner", maintain_order="left"
        ).select(**{name: pl.col(name if name != "quantity" else "units").cast(kind) for name, kind in ITEM_SCHEMA.items()})  # fmt: skip
        self._tell(np.full(count, day), parcels, items)
        home = world.people.home[np.maximum(orders["person"].to_numpy(), 0)].astype(np.int64)
        arrival = day + self._transit(rng, method)
        at = world.epoch(home, np.minimum(arrival, world.scale.days + 40), 9 * 3600 + rng.integers(0, 11 * 3600, count))
        fate = rng.random(count)
        lost, missed = ~collected & (fate < LOST_SHARE), ~collected & (fate > 1 - MISSED_SHARE)
        self._later(arrival, at, parcels, items, lost, "failure")
        self._later(arrival, at, parcels, items, missed, "attempted_delivery")
        arrival, at = arrival + missed, at + missed * 86_400
        curbside = method == CURBSIDE
        at, arrival = (
            np.where(curbside, created + 1_800 + (fate * 9_000).astype(np.int64), at),
            np.where(curbside, day, arrival),
        )
        self._later(arrival, at, parcels, items, (~collected | curbside) & ~lost, "delivered")
        met = collected | (~lost & (arrival < world.scale.days))
        return pl.select(pl.when(pl.Series(met)).then(pl.Series(np.where(collected, created, at)))).to_series()

    def _transit(self, rng: np.random.Generator, method: np.ndarray) -> np.ndarray:
        days = np.zeros(len(method), np.int64)
        for each, (choices, shares) in TRANSIT.items():
            days = np.where(method == each, rng.choice(choices, len(method), p=shares), days)
        return days

    def _later(
        self, day: np.ndarray, at: np.ndarray, parcels: pl.DataFrame, items: pl.DataFrame, which: np.ndarray, state: str
    ) -> None:
        chosen = pl.Series(which & (day < self.world.scale.days))
        versions = parcels.with_columns(updated=pl.Series(at), state=pl.lit(state)).filter(chosen)
        self._tell(day[chosen.to_numpy()], versions, items)

    def _tell(self, day: np.ndarray, parcels: pl.DataFrame, items: pl.DataFrame) -> None:
        for when in np.unique(day):
            part = parcels.filter(pl.Series(day == when))
            own = items.join(part.select("fulfillment"), on="fulfillment", how="semi", maintain_order="left")
            self.told[int(when)].append((part, own))

    def write(self, day: int, placed: pl.DataFrame, lines: pl.DataFrame) -> None:
        """The day's promises and news; `placed` are the orders of shoppers that were placed today."""
        world = self.world
        date_text = world.date(day)
        texts = ecommerce.fulfillment_orders_text(placed, lines, world.people, world.places)
        world.landing.write_records(ecommerce.PROMISES, day, f"fulfillment_orders_{date_text}.jsonl", texts)
        parts = self.told.pop(day, [])
        if not parts:
            return
        parcels, items = (
            pl.concat([part[half].with_columns(version=pl.lit(place)) for place, part in enumerate(parts)]) for half in (0, 1)
        )  # fmt: skip
        texts = ecommerce.fulfillments_text(parcels, items, world.people, world.places, world.products)
        world.landing.write_records(ecommerce.FULFILLMENTS, day, f"fulfillments_{date_text}.jsonl", texts)


def tracking_numbers(label: np.ndarray) -> pl.Series:
    """What a carrier prints on a parcel."""
    digits = pl.Series(scatter(35, label) % np.uint64(10**16)).cast(pl.String).str.zfill(16)
    return pl.select(pl.lit("1Z") + digits).to_series()
