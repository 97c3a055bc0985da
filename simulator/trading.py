"""The days, one after another: the only module that knows the order in which things happen."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simulator import demand, households, people, places, products, records
from simulator.audience import Audience
from simulator.formats import ecommerce, wms
from simulator.fulfilment import Fulfilment
from simulator.landing import Landing
from simulator.points import Points
from simulator.scale import Scale
from simulator.stock import Stock, rationed
from simulator.stores import Stores
from simulator.truth import Truth
from simulator.warehouse import Warehouse
from simulator.webshop import Webshop
from simulator.world import World
from troth.home import Home

Progress = Callable[[str, int, int], None]
BLOCK = 50_000  # people at a time, where all of them are written down


@dataclass(frozen=True)
class SimulationReport:
    """What was written, and how wrong the books have become."""

    files: int
    bytes: int
    records: dict[str, int]
    store_lines: int
    web_lines: int
    seconds: float
    wrong_record_share: float  # store positions whose books differ from the shelf at the end
    malformed: dict[str, int]

    @property
    def order_lines(self) -> int:
        return self.store_lines + self.web_lines

    @property
    def lines_per_second(self) -> float:
        return self.order_lines / self.seconds if self.seconds else 0.0


class Trading:
    """The departments of one retailer, and what they do in which order."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.warehouse, self.points, self.audience = Warehouse(world), Points(world), Audience(world)
        self.stores, self.webshop = Stores(world, self.points), Webshop(world)
        self.fulfilment = Fulfilment(world, self.webshop, self.stores, self.points)

    def open(self) -> None:
        """Everything that was so before the first day."""
        world = self.world
        landing, truth = world.landing, world.truth
        wms.write_locations(landing, world.places)
        ecommerce.write_products(landing, 0, world.products, np.arange(len(world.products)))
        self.warehouse.open_books()
        self.audience.open()
        self.points.carry_over()
        count = len(world.people)
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            truth.append("persons", people.identifiers(world.people, start, stop))
            truth.append("households", households.household_rows(world.people.households, start, stop))
            truth.append("tastes", people.tastes(world.people, world.products, start, stop))
        for start in range(count, world.people.numbers, BLOCK):
            truth.append("persons", people.identifiers(world.people, start, min(start + BLOCK, world.people.numbers)))
        landing.count("shared_emails", "people", int(world.people.households.shares_email.sum()))
        typed = int((world.people.marks & records.BIT["typo_email"]).any(axis=0).sum())
        landing.count("mistyped_emails", "people", typed)
        for place in np.flatnonzero(world.places.is_unheard):
            landing.count("unheard_picks", world.places.code[int(place)])

    def trade(self, day: int) -> None:
        """Morning deliveries and counts, a day of sales and orders on the same shelves, an evening of losses and replenishment."""
        world = self.world
        scale = world.scale
        date = world.date(day)
        day_of_year = date.timetuple().tm_yday
        self.warehouse.advise(day)
        self.warehouse.receive(day)
        self.warehouse.count(day)
        orders, lines = self.webshop.open(day, day_of_year)
        due = self.webshop.due(day)
        rng = world.random(110, day)
        trips = demand.trips(rng, scale, world.people, world.places, day, date.weekday(), day_of_year)
        wanted = demand.baskets(rng, world.people, world.products, trips.person, scale.lines_per_trip, day_of_year)
        place = trips.place[wanted.owner]
        position = np.r_[world.position(place, wanted.sku), due.position]
        asked = np.r_[wanted.quantity, due.lines["quantity"].to_numpy()]
        when = np.r_[world.epoch(place, day, trips.second[wanted.owner]), due.at]
        # What a supplier ships directly is on nobody's shelf and never short.
        outside = position < 0
        shelf = np.where(outside, 1_000_000, world.stock.findable(np.maximum(position, 0)))
        granted = rationed(shelf, np.where(outside, -1 - np.arange(len(position)), position), asked, when)
        self.stores.trade(day, trips, wanted, granted[: len(place)])
        self.fulfilment.fulfil(day, due, granted[len(place) :])
        self.fulfilment.take_back(day)
        self.warehouse.lose(day)
        self.warehouse.replenish(day)
        self.warehouse.write(day)
        moved = world.write_truth(day)
        self.webshop.write(day, moved)
        self.fulfilment.parcels.write(day, orders, lines)
        self.audience.trade(day, day_of_year, trips, orders, lines)
        self.points.spend(day)
        self.points.write(day)


def simulate(home: Home, scale: Scale, seed: int, progress: Progress | None = None) -> SimulationReport:
    """Write a retailer's landed files and its truth. Existing files of the same names are replaced."""
    started = time.perf_counter()
    say = progress or (lambda stage, done, total: None)
    say("founding", 0, scale.days)
    world = founded(home, scale, seed)
    trading = Trading(world)
    trading.open()
    for day in range(scale.days):
        say("trading", day, scale.days)
        trading.trade(day)
    trading.webshop.finish()
    trading.audience.finish()
    world.truth.close({fault: dict(sorted(counts.items())) for fault, counts in sorted(world.landing.faults.items())})
    say("trading", scale.days, scale.days)
    return _report(world, time.perf_counter() - started)


def founded(home: Home, scale: Scale, seed: int) -> World:
    """Places, products and people, before anything happens."""
    sites = places.found_places(scale, seed)
    goods = products.stock_shelves(scale, seed)
    shoppers = people.settle(scale, sites, goods, seed)
    stock = Stock(len(sites), len(goods))
    return World(scale, seed, sites, goods, shoppers, stock, Landing(home, scale, seed), Truth(home.truth))


def _report(world: World, seconds: float) -> SimulationReport:
    first = world.places.centers * len(world.products)
    wrong = world.stock.physical[first:] != world.stock.recorded[first:]
    landing = world.landing
    return SimulationReport(
        files=landing.files, bytes=landing.size, records=dict(sorted(landing.records.items())),
        store_lines=world.totals["store_lines"], web_lines=world.totals["web_lines"], seconds=seconds,
        wrong_record_share=float(wrong.mean()), malformed=dict(sorted(landing.faults.get("malformed", {}).items())),
    )  # fmt: skip
