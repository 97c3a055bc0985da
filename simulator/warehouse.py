"""How goods come, go and go missing: opening stock, receipts, counts, damage, theft, replenishment. Tells its story in EPCIS."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from simulator.demand import expected_units
from simulator.formats import wms
from simulator.stock import distinct, rationed
from simulator.world import World

PLACES_PER_DOCUMENT, ITEMS_PER_EVENT = 20, 500
CENTER_COVER = 2 / 3  # of the days of demand that a store's target stock covers


@dataclass
class Delivery:
    """Lines under way: a transfer from a distribution centre, or a supplier's order (source -1)."""

    number: np.ndarray
    source: np.ndarray
    place: np.ndarray
    sku: np.ndarray
    units: np.ndarray


@dataclass
class Story:
    """EPCIS events of one day, to be written together."""

    events: list[pl.DataFrame] = field(default_factory=list)
    items: list[pl.DataFrame] = field(default_factory=list)
    small: list[np.ndarray] = field(default_factory=list)  # numbers of events that may go without id or be corrected


class Warehouse:
    """Stock policy and what is under way."""

    def __init__(self, world: World) -> None:
        self.world = world
        expected = expected_units(world.scale, world.people, world.products, world.places)
        center = (np.arange(len(world.places)) < world.places.centers)[:, None]
        days = world.scale.store_cover_days
        stored = expected * days * CENTER_COVER
        self.target = np.where(center, np.ceil(stored) + 20, 4 + np.ceil(expected * days)).astype(np.int32).ravel()
        self.reorder = np.where(center, stored // 2 + 8, (2 + expected * days) // 5).astype(np.int32).ravel()
        self.due: dict[int, list[Delivery]] = defaultdict(list)
        self.story = Story()

    def open_books(self) -> None:
        """The opening count of every position, and what was really there."""
        world, skus, scale = self.world, len(self.world.products), self.world.scale
        sku, document = np.arange(skus), 1
        for first in range(0, len(world.places), PLACES_PER_DOCUMENT):
            rng = world.random(60, first)
            places = np.arange(first, min(first + PLACES_PER_DOCUMENT, len(world.places)))
            place, item = np.repeat(places, skus), np.tile(sku, len(places))
            position = world.position(place, item)
            low, high = self.reorder[position] + 1, self.target[position]
            recorded = low + (rng.random(len(position)) * (high - low + 1)).astype(np.int64)
            rate = np.where(place < world.places.centers, scale.opening_error_rate / 8, scale.opening_error_rate)
            wrong = rng.random(len(position)) < rate
            error = np.where(wrong, rng.geometric(0.6, len(position)) * rng.choice([-1, -1, 1], len(position)), 0)
            physical = np.maximum(recorded + error, 0)
            lost = (rng.random(len(position)) < rate / 12) & (place >= world.places.centers)
            world.stock.misplaced[position] = np.where(lost, np.minimum(physical, 2), 0)
            at = world.epoch(place, 0, 4 * 3600)
            world.stock.book("opening", position, recorded, at, physical)
            world.stock.announced[position] = recorded  # what the shop shows on the first morning
            number = np.arange(len(position)) // skus * -(-skus // ITEMS_PER_EVENT) + item // ITEMS_PER_EVENT
            number += world.take("event", int(number.max()) + 1)
            self._tell(
                number, place, item, recorded, at, "OBSERVE", "stock_taking", "sellable_accessible", "inv", "OPENING"
            )
            document = wms.write_epcis(world.landing, wms.OPENING, 0, self._told(0), document)
            world.write_truth(0)
        self._document = document

    def receive(self, day: int) -> None:
        """Deliveries due this morning: transfers between five and six, suppliers between six and eight."""
        world = self.world
        for delivery in self.due.pop(day, []):
            position = world.position(delivery.place, delivery.sku)
            supplier = delivery.source < 0
            second = np.where(
                supplier, 6 * 3600 + delivery.number * 613 % 7_000, 5 * 3600 + delivery.number * 311 % 3_000
            )
            at = world.epoch(delivery.place, day, second)
            lost = np.where(world.random(61, day).random(len(position)) < world.scale.transit_loss_rate, 1, 0)
            np.subtract.at(world.stock.on_order, position, delivery.units.astype(np.int32))
            for kind, mask in (("receipt", supplier), ("transfer_in", ~supplier)):
                arrived = np.where(supplier, delivery.units, delivery.units - lost)[mask]
                world.stock.book(kind, position[mask], delivery.units[mask], at[mask], arrived)
            first = world.take("event", int(delivery.number.max() - delivery.number.min()) + 1)
            number = delivery.number - delivery.number.min() + first
            if supplier.all():
                self._tell(
                    number,
                    delivery.place,
                    delivery.sku,
                    delivery.units,
                    at,
                    "ADD",
                    "receiving",
                    "in_progress",
                    "po",
                    "PO",
                    delivery.number,
                )
            else:
                self._tell(
                    number, delivery.place, delivery.sku, delivery.units, at, "OBSERVE", "receiving", "in_progress", "desadv", "TR",
                    delivery.number, delivery.source, delivery.place,
                )  # fmt: skip

    def count(self, day: int) -> None:
        """A few SKUs at each place, some at random and some because the books are below zero. The count becomes the book."""
        world, scale = self.world, self.world.scale
        rng, skus = world.random(62, day), len(world.products)
        each = min(scale.counts_per_store_day, skus)
        position = (
            np.arange(len(world.places))[:, None] * skus + rng.integers(0, skus, (len(world.places), each))
        ).ravel()
        negative = np.flatnonzero(world.stock.recorded < 0)
        position = np.unique(np.r_[position, negative[rng.random(len(negative)) < 0.3]])
        if not len(position):
            return
        place, sku = world.split(position)
        hidden = rng.random(len(position)) < 0.3
        counted = world.stock.physical[position] - np.where(hidden, world.stock.misplaced[position], 0)
        world.stock.misplace(position, np.where(hidden, world.stock.misplaced[position], 0))
        world.stock.unheard[position] = 0
        used, which = np.unique(place, return_inverse=True)
        at = world.epoch(place, day, 6 * 3600 + 2_400 + (place * 37 % 600))
        number = which + world.take("event", len(used))
        self._tell(
            number, place, sku, counted, at, "OBSERVE", "cycle_counting", "sellable_accessible", "inv", "COUNT", number
        )
        change = counted.astype(np.int64) - world.stock.recorded[position]
        world.stock.book("adjustment", position, change, at + 300, np.zeros_like(change))
        for action, mask in (("ADD", change > 0), ("DELETE", change < 0)):
            self._tell_singly(
                position[mask],
                np.abs(change[mask]),
                at[mask] + 300,
                action,
                "inspecting",
                "sellable_accessible",
                "urn:troth:btt:adjustment",
                "ADJ",
            )

    def lose(self, day: int) -> None:
        """Known damage, which is booked; theft and misplacement, which are not; now and then something turns up again."""
        world, scale, stock = self.world, self.world.scale, self.world.stock
        rng, skus = world.random(63, day), len(world.products)
        first = world.places.centers * skus
        shelves = len(stock.physical) - first
        damaged = distinct(rng, shelves, shelves * scale.damage_per_position_day) + first
        damaged = damaged[stock.findable(damaged) > 0]
        place, _ = world.split(damaged)
        at = world.epoch(place, day, 19 * 3600 + 1_800)
        one = np.ones(len(damaged), np.int64)
        stock.book("destruction", damaged, -one, at)
        self._tell_singly(damaged, one, at, "DELETE", "destroying", "destroyed", "urn:troth:btt:damage", "DMG")
        stolen = distinct(rng, shelves, shelves * scale.shrink_per_position_day) + first
        stock.lose(stolen, np.minimum(stock.findable(stolen), rng.choice([1, 2], len(stolen), p=[0.8, 0.2])))
        astray = distinct(rng, shelves, shelves * scale.misplacement_per_position_day) + first
        stock.misplace(astray, stock.misplaced[astray] + np.minimum(stock.findable(astray), 1).astype(np.int32))
        away = np.flatnonzero(stock.misplaced)
        found = away[rng.random(len(away)) < 0.03]
        stock.misplace(found, np.zeros(len(found), np.int32))

    def replenish(self, day: int) -> None:
        """Every second evening a store is filled up from its distribution centre; the centre orders from suppliers."""
        world, stock = self.world, self.world.stock
        skus, places = len(world.products), world.places
        level = stock.recorded + stock.on_order - stock.committed
        low = np.flatnonzero(level <= self.reorder)
        place, sku = world.split(low)
        store = (place >= places.centers) & ((place + day) % 2 == 0)
        position, place, sku = low[store], place[store], sku[store]
        if len(position):
            center = places.center_of[place]
            source = world.position(center, sku)
            free = np.minimum(stock.recorded[source] - stock.committed[source], stock.physical[source])
            want = (self.target[position] - level[position]).astype(np.int64)
            order = world.random(64, day).random(len(position))
            units = rationed(np.maximum(free, 0), source, want, order)
            self._ship(day, center[units > 0], place[units > 0], sku[units > 0], units[units > 0])
        low = np.flatnonzero(
            stock.recorded[: places.centers * skus] + stock.on_order[: places.centers * skus]
            <= self.reorder[: places.centers * skus]
        )
        if len(low):
            place, sku = world.split(low)
            units = (self.target[low] - stock.recorded[low] - stock.on_order[low]).astype(np.int64)
            np.add.at(stock.on_order, low, units.astype(np.int32))
            first = world.take("po", places.centers)
            self.due[day + 2 + day % 3].append(Delivery(first + place, np.full(len(low), -1), place, sku, units))

    def _ship(self, day: int, center: np.ndarray, place: np.ndarray, sku: np.ndarray, units: np.ndarray) -> None:
        world = self.world
        if not len(units):
            return
        used, which = np.unique(place, return_inverse=True)
        number = which + world.take("transfer", len(used))
        at = world.epoch(center, day, 22 * 3600 + number * 7 % 3_000)
        position = world.position(center, sku)
        world.stock.book("transfer_out", position, -units, at)
        np.add.at(world.stock.on_order, world.position(place, sku), units.astype(np.int32))
        event = which + world.take("event", len(used))
        self._tell(
            event, center, sku, units, at, "OBSERVE", "shipping", "in_transit", "desadv", "TR", number, center, place
        )
        lead = 1 + (world.places.offset_minutes[place, day] != world.places.offset_minutes[center, day])
        for days in (1, 2):
            due = lead == days
            if due.any():
                self.due[day + days].append(Delivery(number[due], center[due], place[due], sku[due], units[due]))

    def advise(self, day: int) -> None:
        """Weekly X12 846 of each distribution centre, from the books before the day began. A blind one claims to know
        the whole day, and ignores what was shipped in it."""
        world, skus = self.world, len(self.world.products)
        if day % 7 != 1:
            return
        for place in range(world.places.centers):
            own = slice(place * skus, (place + 1) * skus)
            blind = world.random(65, day * 100 + place).random() < world.scale.blind_snapshot_rate
            world.landing.count("blind_snapshots", world.places.code[place], int(blind))
            known = int(world.epoch(np.array([place]), day, 23 * 3600 if blind else 3 * 3600)[0])
            wms.write_stock_advice(
                world.landing,
                day,
                place,
                world.places,
                world.products,
                world.stock.recorded[own],
                world.stock.committed[own],
                known,
            )

    def _tell_singly(
        self,
        position: np.ndarray,
        units: np.ndarray,
        at: np.ndarray,
        action: str,
        step: str,
        disposition: str,
        kind: str,
        prefix: str,
    ) -> None:
        """One event per position."""
        place, sku = self.world.split(position)
        number = np.arange(len(position)) + self.world.take("event", len(position))
        self.story.small.append(number)
        self._tell(number, place, sku, units, at, action, step, disposition, kind, prefix, number)

    def _tell(
        self, event: np.ndarray, place: np.ndarray, sku: np.ndarray, units: np.ndarray, at: np.ndarray, action: str, step: str,
        disposition: str, kind: str, prefix: str, reference: np.ndarray | None = None, source: np.ndarray | None = None,
        destination: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Add items to the day's story; items of one event number make one event, with the place and time of the first."""
        if not len(event):
            return
        order = np.argsort(event, kind="stable")
        event = event[order]
        first = order[np.r_[True, event[1:] != event[:-1]]]
        owner = self.world.places.gln[place[first]]
        number = pl.Series(np.unique(event) if reference is None else reference[first])
        name = pl.select(pl.concat_str([
            pl.lit("urn:epcglobal:cbv:bt:"), owner if source is None else self.world.places.gln[source[first]],
            pl.lit(f":{prefix}-"), number.cast(pl.String).str.zfill(8),
        ])).to_series()  # fmt: skip
        nowhere = np.full(len(first), None)
        self.story.events.append(pl.DataFrame({
            "event": np.unique(event), "action": [action] * len(first), "step": [step] * len(first), "disposition": [disposition] * len(first),
            "place": place[first], "at": at[first], "reference_type": [kind] * len(first), "reference": name,
            "source": nowhere if source is None else source[first], "destination": nowhere if destination is None else destination[first],
        }, schema=wms.EVENT_SCHEMA))  # fmt: skip
        self.story.items.append(
            pl.DataFrame({"event": event, "sku": sku[order], "units": units[order]}, schema=wms.ITEM_SCHEMA)
        )

    def write(self, day: int) -> None:
        """The day's documents, after those of the opening count on the first day."""
        wms.write_epcis(self.world.landing, wms.EPCIS, day, self._told(day), self._document if day == 0 else 1)

    def _told(self, day: int) -> pl.Series:
        """The story so far as text, and a new page. Some small events have no id; some were first told wrong."""
        world, story = self.world, self.story
        self.story = Story()
        if not story.events:
            return pl.Series([], dtype=pl.String)
        events, items = pl.concat(story.events), pl.concat(story.items)
        numbers = events["event"].to_numpy()
        small = np.isin(numbers, np.concatenate(story.small)) if story.small else np.zeros(len(numbers), bool)
        dice = world.random(66, int(numbers[0])).random(len(numbers))
        ids = pl.Series(wms.event_ids(world.seed, numbers)).set(
            pl.Series(small & (dice < world.scale.nameless_event_rate)), None
        )
        texts = wms.events_text(events, items, world.places, world.products, day, ids)
        doubtful = texts.filter(pl.Series(small & (dice > 1 - world.scale.corrected_event_rate)))
        wrong, declared = wms.declared_wrong(
            [text for text in doubtful if '"quantity":' in text], world.day_start(day) + 86_400 + 3_600
        )
        world.landing.count("corrected_events", "raw_wms__epcis_events", len(wrong))
        return pl.concat([texts, pl.Series([*wrong, *declared], dtype=pl.String)])
