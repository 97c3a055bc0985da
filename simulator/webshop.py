"""Web orders as the shop sees them: placed, promised, cancelled, due, and told again with every change."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import polars as pl

from simulator.demand import (
    DROP_SHIP,
    SHIP_TO_HOME,
    WEB_WEEK,
    baskets,
    drawn_people,
    year_swing,
)
from simulator.formats import ecommerce
from simulator.formats.ecommerce import CANCELLED, OPEN, ORDER_STATUS
from simulator.parcels import promised_by
from simulator.spelling import DAY, moment_of, typed
from simulator.stock import rationed
from simulator.world import World

ORDER_SCHEMA = {
    "order": pl.Int64, "person": pl.Int64, "place": pl.Int64, "method": pl.Int64, "source": pl.Int64, "created": pl.Int64, "updated": pl.Int64,
    "offset": pl.Int64, "is_signed_in": pl.Boolean, "status": pl.Int64, "cancel_reason": pl.String, "refunded_cents": pl.Int64,
    "shipping": pl.Int64, "due": pl.Int64, "promised": pl.Int64, "fulfilled": pl.Int64, "shipment": pl.Int64,
}  # fmt: skip
LINE_SCHEMA = {
    "order": pl.Int64, "line": pl.Int64, "sku": pl.Int64, "quantity": pl.Int64, "price": pl.Int64, "discount": pl.Int64, "net": pl.Int64,
    "tax": pl.Int64,
}  # fmt: skip
REFUND_SCHEMA = {
    "order": pl.Int64, "line": pl.Int64, "sku": pl.Int64, "quantity": pl.Int64, "restock": pl.Int64, "place": pl.Int64, "net": pl.Int64,
    "tax": pl.Int64, "shipping": pl.Int64, "at": pl.Int64, "at_till": pl.Boolean,
}  # fmt: skip
CANCEL, RETURN, NO_RESTOCK = range(3)


@dataclass
class Due:
    """Orders to fulfil today and their lines, with the position of each line (-1 for drop-ship)."""

    orders: pl.DataFrame
    lines: pl.DataFrame
    position: np.ndarray
    at: np.ndarray


class Webshop:
    """Open orders by the day they are due, and what the shop has to tell today."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pending: dict[int, list[tuple[pl.DataFrame, pl.DataFrame]]] = defaultdict(list)
        self._clear()

    def _clear(self) -> None:
        self.versions: list[tuple[pl.DataFrame, pl.DataFrame]] = []
        self.refunds: list[pl.DataFrame] = []
        self.levels: list[pl.Series] = []

    def open(self, day: int, day_of_year: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Orders placed today, with lines the shop could promise. Returns those of shoppers, for the event stream."""
        world, scale, people = self.world, self.world.scale, self.world.people
        rng = world.random(90, day)
        person = drawn_people(
            rng,
            people,
            len(people)
            * scale.web_orders_per_person_day
            * WEB_WEEK[(scale.first_day.weekday() + day) % 7]
            * year_swing(day_of_year),
            day,
        )
        evening = rng.random(len(person)) < 0.6
        second = (
            np.clip(
                np.where(evening, rng.normal(20.0, 1.8, len(person)), rng.normal(12.5, 2.4, len(person))), 6.0, 23.8
            )
            * 3600
        )
        created = world.epoch(people.home[person], day, second.astype(np.int64))
        order = np.lexsort((person, created))
        person, second, created = person[order], second[order].astype(np.int64), created[order]
        source, signed = ecommerce.drawn_sources(rng, people, person, day)
        method = ecommerce.drawn_methods(rng, source)
        home = people.home[person].astype(np.int64)
        place = np.where(method == SHIP_TO_HOME, world.places.center_of[home], np.where(method == DROP_SHIP, -1, home))
        wanted = baskets(rng, people, world.products, person, scale.lines_per_order, day_of_year)
        position = world.position(np.maximum(place, 0)[wanted.owner], wanted.sku)
        offered = np.where(place[wanted.owner] < 0, 1_000_000, np.maximum(world.offered(position), 0))
        asked = np.where(place[wanted.owner] < 0, -1 - np.arange(len(position)), position)
        kept = rationed(offered, asked, wanted.quantity, created[wanted.owner]) == wanted.quantity
        used, owner = np.unique(wanted.owner[kept], return_inverse=True)
        number = world.take("order", len(used) + 1)  # and one that a tester may place
        gross = world.products.price[wanted.sku[kept]] * wanted.quantity[kept]
        discount = world.discount_cents(wanted.sku[kept], gross, day, rng.random(int(kept.sum())))
        net = gross - discount
        tax = np.rint(net * world.places.tax_rate[home[used]][owner]).astype(np.int64)
        lines = pl.DataFrame({
            "order": owner + number, "line": np.arange(len(owner)) + world.take("line", len(owner) + 1), "sku": wanted.sku[kept],
            "quantity": wanted.quantity[kept], "price": world.products.price[wanted.sku[kept]], "discount": discount, "net": net, "tax": tax,
        }, schema=LINE_SCHEMA)  # fmt: skip
        sums = np.bincount(owner, net, minlength=len(used)).astype(np.int64)
        due_day, due, promised = self._due(rng, day, home[used], place[used], method[used], second[used], created[used])
        orders = pl.DataFrame({
            "order": np.arange(len(used)) + number, "person": person[used], "place": place[used], "method": method[used], "source": source[used],
            "created": created[used], "updated": created[used], "offset": world.places.offset_minutes[home[used], day],
            "is_signed_in": signed[used], "status": np.full(len(used), OPEN),
            "cancel_reason": pl.Series([None], dtype=pl.String).new_from_index(0, len(used)),
            "refunded_cents": np.zeros(len(used), np.int64), "shipping": ecommerce.shipping_cents(method[used], sums), "due": due,
            "promised": promised, "fulfilled": pl.Series([None], dtype=pl.Int64).new_from_index(0, len(used)),
            "shipment": np.full(len(used), -1),
        }, schema=ORDER_SCHEMA)  # fmt: skip
        self.versions.append((orders, lines))
        world.totals["web_lines"] += len(lines)
        mind = rng.random(len(used)) < scale.changed_mind_rate
        self._announce(day, orders.filter(pl.Series(~mind)), lines)
        self._change_mind(day, orders.filter(pl.Series(mind)), lines)
        for later in np.unique(due_day[~mind]):
            part = orders.filter(pl.Series((due_day == later) & ~mind))
            self.pending[int(later)].append(
                (part, lines.join(part.select("order"), on="order", how="semi", maintain_order="left"))
            )
        self._test(day, rng, orders, lines, number + len(used))
        return orders, lines

    def _due(
        self,
        rng: np.random.Generator,
        day: int,
        home: np.ndarray,
        place: np.ndarray,
        method: np.ndarray,
        second: np.ndarray,
        created: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Day and UTC second at which each order is picked or shipped, and the UTC second by which it is promised."""
        places, at = self.world.places, np.maximum(place, 0)
        wait = rng.random(len(place))
        store = np.maximum(second, places.opens[at] + 600) + 1_800 + (wait * 5_400).astype(np.int64)
        store_today = store < np.minimum(places.closes[at], 23 * 3600) - 600
        center_today = second < 14 * 3600
        center = np.where(center_today, 16 * 3600 + wait * 14_000, 9 * 3600 + wait * 14_000).astype(np.int64)
        days = np.where(method == DROP_SHIP, 2, np.where(method == SHIP_TO_HOME, ~center_today, ~store_today)).astype(
            np.int64
        )
        morning = places.opens[at] + 300 + (wait * 7_200).astype(np.int64)
        moment = np.where(
            method == DROP_SHIP,
            17 * 3600,
            np.where(method == SHIP_TO_HOME, center, np.where(store_today, store, morning)),
        )
        due = (
            np.array([self.world.epoch(at, day + ahead, moment) for ahead in range(3)])[days, np.arange(len(at))]
            if len(at)
            else moment
        )
        begun = np.where(store_today, np.maximum(second, places.opens[at] + 600), places.opens[at] + DAY)
        ready = np.maximum(self.world.epoch(at, day, begun), created)
        return day + days, np.maximum(due, created + 900), promised_by(self.world, day, home, method, days, ready)

    def _announce(self, day: int, orders: pl.DataFrame, lines: pl.DataFrame) -> None:
        """Promise the units, and let the shop announce each new level at once, unless it is deaf to that store."""
        world = self.world
        held = lines.join(
            orders.select("order", "place", "created"), on="order", how="inner", maintain_order="left"
        ).filter(pl.col("place") >= 0)
        place, sku, units = held["place"].to_numpy(), held["sku"].to_numpy(), held["quantity"].to_numpy()
        position = world.position(place, sku)
        before = world.offered(position)
        np.add.at(world.stock.committed, position, units.astype(np.int32))
        so_far = held.select(pl.col("quantity").cum_sum().over("place", "sku"))["quantity"].to_numpy()
        heard = ~world.places.is_unheard[place]
        world.stock.announced[position[heard]] = (before - so_far)[heard]
        self.levels.append(
            ecommerce.levels_text(
                sku[heard], place[heard], (before - so_far)[heard], held["created"].to_numpy()[heard] + 2, world.places
            )
        )
        self.committed_today = position

    def _change_mind(self, day: int, orders: pl.DataFrame, lines: pl.DataFrame) -> None:
        if not len(orders):
            return
        gone = lines.join(
            orders.select("order", "place", "created", "shipping"), on="order", how="inner", maintain_order="left"
        )
        money = gone.group_by("order", maintain_order=True).agg(
            total=(pl.col("net") + pl.col("tax")).sum() + pl.col("shipping").first()
        )
        cancelled = orders.with_columns(
            updated=pl.col("created") + 1_200, status=pl.lit(CANCELLED, pl.Int64), cancel_reason=pl.lit("customer"),
            refunded_cents=money["total"],
        )  # fmt: skip
        first = pl.when(pl.col("order").is_first_distinct()).then("shipping").otherwise(0)
        self.refunds.append(gone.with_columns(
            shipping=first, restock=pl.lit(CANCEL), at=pl.col("created") + 1_200, at_till=pl.lit(False)
        ).select(typed(REFUND_SCHEMA)))  # fmt: skip
        self.close(cancelled, lines)

    def _test(self, day: int, rng: np.random.Generator, orders: pl.DataFrame, lines: pl.DataFrame, number: int) -> None:
        """Now and then the shop's own testers place an order that nobody will fill."""
        if rng.random() > 0.4 or not len(orders):
            return
        sample = orders[:1].with_columns(
            order=pl.lit(number, pl.Int64), person=pl.lit(-1, pl.Int64), source=pl.lit(0, pl.Int64), is_signed_in=pl.lit(True),
            created=pl.col("created") + 5, updated=pl.col("created") + 5,
        )  # fmt: skip
        line = lines[:1].with_columns(
            order=pl.lit(number, pl.Int64), line=pl.lit(lines["line"].to_numpy().max() + 1, pl.Int64)
        )
        self.versions.append((sample, line))
        self._truth(sample, line)

    def due(self, day: int) -> Due:
        """What is to be picked or shipped today."""
        parts = self.pending.pop(day, [])
        orders = pl.concat([pl.DataFrame(schema=ORDER_SCHEMA), *[part[0] for part in parts]])
        lines = pl.concat([pl.DataFrame(schema=LINE_SCHEMA), *[part[1] for part in parts]])
        lines = lines.join(orders.select("order", "place", "due"), on="order", how="inner", maintain_order="left")
        place = lines["place"].to_numpy()
        position = np.where(place < 0, -1, self.world.position(np.maximum(place, 0), lines["sku"].to_numpy()))
        return Due(orders, lines.select(typed(LINE_SCHEMA)), position, lines["due"].to_numpy())

    def close(self, orders: pl.DataFrame, lines: pl.DataFrame) -> None:
        """A later version of orders, and their place in the truth."""
        own = lines.join(orders.select("order"), on="order", how="semi", maintain_order="left")
        self.versions.append((orders, own))
        self._truth(orders, own)

    def _truth(self, orders: pl.DataFrame, lines: pl.DataFrame) -> None:
        world = self.world
        sums = lines.group_by("order").agg(pl.col("net", "tax").sum(), count=pl.len())
        whole = orders.join(sums, on="order", how="inner", maintain_order="left")
        world.truth.append("orders", whole.select(
            order_id=ecommerce.order_ids(whole["order"]),
            order_name=ecommerce.order_names(whole["order"]), source_name=pl.lit("ecommerce"),
            person_id=world.people.text("person_id", whole["person"].to_numpy()),
            ordered_at=moment_of("created"), line_count=pl.col("count").cast(pl.Int64),
            promised_at=moment_of("promised"), fulfilled_at=moment_of("fulfilled"), net_cents="net", tax_cents="tax", shipping_cents="shipping",
            order_status=pl.Series(ORDER_STATUS)[whole["status"]], is_test=pl.Series(whole["person"].to_numpy() < 0),
        ))  # fmt: skip

    def _truth_of_refunds(self, refunds: pl.DataFrame) -> None:
        """Money given back; what a till paid is in its own books."""
        self.world.truth.append("refunds", refunds.select(
            order_id=ecommerce.order_ids(refunds["order"]), source_name=pl.lit("ecommerce"), refunded_at=moment_of("at"), net_cents="net",
            tax_cents="tax", shipping_cents="shipping",
        ))  # fmt: skip

    def write(self, day: int, moved: np.ndarray) -> None:
        """The day's order versions, refunds and levels; `moved` are positions whose books changed."""
        world = self.world
        date_text = world.date(day)
        # One order may stand here in several versions: its lines belong to (version list, order).
        orders, lines = (
            pl.concat(
                [version[half].with_columns(version=pl.lit(place)) for place, version in enumerate(self.versions)]
            )
            for half in (0, 1)
        )
        texts = ecommerce.orders_text(orders, lines, world.people, world.places, world.products)
        world.landing.write_records(ecommerce.ORDERS, day, f"orders_{date_text}.jsonl", texts)
        refunds = pl.concat([pl.DataFrame(schema=REFUND_SCHEMA), *self.refunds])
        if len(refunds):
            number = world.take("refund", len(refunds))
            key = refunds.select("order", "at").with_columns(place=pl.int_range(pl.len()))
            group = key.with_columns(first=pl.col("place").min().over("order", "at"))["first"].to_numpy()
            refunds = refunds.with_columns(
                refund=pl.Series(group + number), refund_line=pl.Series(np.arange(len(refunds)) + number)
            )
            refunds = refunds.sort("refund", "refund_line")
            texts = ecommerce.refunds_text(refunds, world.places, world.products)
            self._truth_of_refunds(refunds.filter(~pl.col("at_till")))
            world.landing.write_records(ecommerce.REFUNDS, day, f"refunds_{date_text}.jsonl", texts)
        position = np.union1d(moved, self.committed_today)
        offered = world.offered(position)
        news = offered != world.stock.announced[position]
        position, offered = position[news], offered[news]
        world.stock.announced[position] = offered
        place, sku = world.split(position)
        at = world.epoch(place, day, np.where(world.places.closes[place] > 86_000, 88_500, 86_370))
        levels = pl.concat([*self.levels, ecommerce.levels_text(sku, place, offered, at, world.places)])
        world.landing.write_records(ecommerce.LEVELS, day, f"inventory_levels_{date_text}.jsonl", levels)
        self._clear()

    def finish(self) -> None:
        """Orders still open when the simulation ends."""
        for parts in self.pending.values():
            for orders, lines in parts:
                self._truth(orders, lines)
