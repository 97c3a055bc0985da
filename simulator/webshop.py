"""The life of web orders: placed, cancelled, picked in a store or shipped from a distribution centre, found or not, sent back."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import polars as pl

from simulator.demand import (
    CLICK_AND_COLLECT,
    DROP_SHIP,
    MARKETPLACE,
    SHIP_TO_HOME,
    WEB_WEEK,
    baskets,
    drawn_people,
    year_swing,
)
from simulator.formats import ecommerce, wms
from simulator.formats.ecommerce import CANCELLED, FULFILLED, OPEN, ORDER_STATUS, PARTIAL
from simulator.formats.loyalty import ACCUMULATE
from simulator.points import Points
from simulator.spelling import moments, typed
from simulator.stock import rationed
from simulator.stores import BACK_SCHEMA, HANDOVER_SCHEMA, Stores
from simulator.world import World

GOODWILL_SHARE = 0.008  # orders whose money goes back while the goods stay
ORDER_SCHEMA = {
    "order": pl.Int64, "person": pl.Int64, "place": pl.Int64, "method": pl.Int64, "source": pl.Int64, "created": pl.Int64, "updated": pl.Int64,
    "offset": pl.Int64, "is_signed_in": pl.Boolean, "status": pl.Int64, "cancel_reason": pl.String, "refunded_cents": pl.Int64,
    "shipping": pl.Int64, "due": pl.Int64, "shipment": pl.Int64,
}  # fmt: skip
LINE_SCHEMA = {
    "order": pl.Int64, "line": pl.Int64, "sku": pl.Int64, "quantity": pl.Int64, "price": pl.Int64, "discount": pl.Int64, "net": pl.Int64,
    "tax": pl.Int64,
}  # fmt: skip
REFUND_SCHEMA = {
    "order": pl.Int64, "line": pl.Int64, "sku": pl.Int64, "quantity": pl.Int64, "restock": pl.Int64, "place": pl.Int64, "net": pl.Int64,
    "tax": pl.Int64, "at": pl.Int64,
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
    """Open orders by the day they are due, and what will be sent back."""

    def __init__(self, world: World, stores: Stores, points: Points) -> None:
        self.world, self.stores, self.points = world, stores, points
        self.pending: dict[int, list[tuple[pl.DataFrame, pl.DataFrame]]] = defaultdict(list)
        self.sent_back: dict[int, list[tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]]] = defaultdict(list)
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
        due_day, due = self._due(rng, day, place[used], method[used], second[used], created[used])
        orders = pl.DataFrame({
            "order": np.arange(len(used)) + number, "person": person[used], "place": place[used], "method": method[used], "source": source[used],
            "created": created[used], "updated": created[used], "offset": world.places.offset_minutes[home[used], day],
            "is_signed_in": signed[used], "status": np.full(len(used), OPEN),
            "cancel_reason": pl.Series([None], dtype=pl.String).new_from_index(0, len(used)),
            "refunded_cents": np.zeros(len(used), np.int64), "shipping": ecommerce.shipping_cents(method[used], sums), "due": due,
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
        place: np.ndarray,
        method: np.ndarray,
        second: np.ndarray,
        created: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Day and UTC second at which each order is picked or shipped."""
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
        return day + days, np.maximum(due, created + 900)

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
        self.refunds.append(
            gone.with_columns(restock=pl.lit(CANCEL), at=pl.col("created") + 1_200).select(typed(REFUND_SCHEMA))
        )
        self._close(cancelled, lines)

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

    def fulfil(self, day: int, due: Due, granted: np.ndarray) -> None:
        """Book what was found, refund what was not, and say so in picks, shipping advice and a new version of each order."""
        world, rng = self.world, self.world.random(91, day)
        whole = due.lines.with_columns(granted=pl.Series(granted, dtype=pl.Int64), position=pl.Series(due.position)).join(
            due.orders.select("order", "place", "method", "source", "person", "is_signed_in", at="due"), on="order", how="inner", maintain_order="left"
        )  # fmt: skip
        stocked = whole.filter(pl.col("position") >= 0)
        position, units, found = (stocked[name].to_numpy() for name in ("position", "quantity", "granted"))
        np.subtract.at(world.stock.committed, position, units.astype(np.int32))
        finished = stocked["at"].to_numpy() + 60 + stocked["line"].to_numpy() % 240
        center = stocked["place"].to_numpy() < world.places.centers
        world.stock.book("shipment", position[center], -found[center], stocked["at"].to_numpy()[center])
        world.stock.book("pick", position[~center], -found[~center], finished[~center])
        deaf = world.places.is_unheard[stocked["place"].to_numpy()]
        np.add.at(world.stock.unheard, position[deaf], found[deaf].astype(np.int32))
        self._write_picks(day, rng, stocked.with_columns(finished=pl.Series(finished)).filter(pl.Series(~center)))
        self._write_shipments(day, stocked.filter(pl.Series(center)))
        missing = whole.filter(pl.col("granted") < pl.col("quantity")).with_columns(
            net=pl.col("net") * (pl.col("quantity") - pl.col("granted")) // pl.col("quantity"),
            tax=pl.col("tax") * (pl.col("quantity") - pl.col("granted")) // pl.col("quantity"),
            quantity=pl.col("quantity") - pl.col("granted"), restock=pl.lit(CANCEL), at=pl.col("at") + 600,
        )  # fmt: skip
        self.refunds.append(missing.select(typed(REFUND_SCHEMA)))
        self._settle(day, rng, due, whole, missing)

    def _settle(self, day: int, rng: np.random.Generator, due: Due, whole: pl.DataFrame, missing: pl.DataFrame) -> None:
        """The order as it stands afterwards, points for what was sent, collection, and returns to come."""
        result = whole.group_by("order", maintain_order=True).agg(
            asked=pl.col("quantity").sum(), got=pl.col("granted").sum()
        )
        lost = missing.group_by("order").agg(lost=(pl.col("net") + pl.col("tax")).sum())
        orders = due.orders.join(result, on="order", how="left", maintain_order="left").join(
            lost, on="order", how="left", maintain_order="left"
        )
        orders = orders.with_columns(
            status=pl.when(pl.col("got") == 0).then(CANCELLED).when(pl.col("got") < pl.col("asked")).then(PARTIAL).otherwise(FULFILLED),
            updated=pl.col("due") + 660,
        ).with_columns(
            cancel_reason=pl.when(pl.col("status") == CANCELLED).then(pl.lit("inventory")),
            refunded_cents=pl.col("lost").fill_null(0) + pl.when(pl.col("status") == CANCELLED).then("shipping").otherwise(0),
        )  # fmt: skip
        orders = orders.select(typed(ORDER_SCHEMA))
        self._close(orders, due.lines)
        kept = whole.filter(pl.col("granted") > 0).with_columns(
            net=pl.col("net") - pl.col("net") * (pl.col("quantity") - pl.col("granted")) // pl.col("quantity"),
            tax=pl.col("tax") - pl.col("tax") * (pl.col("quantity") - pl.col("granted")) // pl.col("quantity"),
        )  # fmt: skip
        self._earn(day, kept)
        sent = orders.filter(pl.col("status") != CANCELLED)
        self._collect(day, rng, sent.filter(pl.col("method") == CLICK_AND_COLLECT))
        self._schedule(day, rng, sent, kept, due.lines)

    def _earn(self, day: int, kept: pl.DataFrame) -> None:
        people = self.world.people
        sums = (
            kept.filter("is_signed_in")
            .group_by("order", maintain_order=True)
            .agg(pl.col("net").sum(), pl.col("person", "at").first())
        )
        person = sums["person"].to_numpy()
        member = people.is_linked[person] & (people.member_day[person] < day) & (sums["net"].to_numpy() >= 100)
        sums = sums.filter(pl.Series(member))
        self.points.add(
            person[member], sums["at"].to_numpy() + 700, np.full(len(sums), ACCUMULATE), sums["net"].to_numpy() // 100, ecommerce.order_names(sums["order"])
        )  # fmt: skip

    def _collect(self, day: int, rng: np.random.Generator, orders: pl.DataFrame) -> None:
        """Fetched within three days, by a receipt without lines at the till."""
        later = day + rng.integers(1, 4, len(orders))
        place = orders["place"].to_numpy()
        frame = pl.DataFrame({
            "place": place, "second": self.stores.open_second(rng, place), "person": orders["person"], "order_name": ecommerce.order_names(orders["order"]),
        }, schema=HANDOVER_SCHEMA)  # fmt: skip
        frame = frame.with_columns(later=pl.Series(later)).filter(pl.Series(later < self.world.scale.days))
        for when, part in _by_day(frame).items():
            self.stores.handovers[when].append(part.select(typed(HANDOVER_SCHEMA)))

    def _schedule(
        self, day: int, rng: np.random.Generator, orders: pl.DataFrame, kept: pl.DataFrame, lines: pl.DataFrame
    ) -> None:
        """Returns to come: by mail to the distribution centre, in a store, or money back without goods."""
        last, rate = self.world.scale.days, self.world.scale.order_return_rate
        dice = rng.random(len(orders))
        later = day + rng.integers(2, max(3, min(16, last)), len(orders))
        way = np.where(dice < rate * 0.6, RETURN, np.where(dice < rate, NO_RESTOCK, NO_RESTOCK + 1))
        marketplace = orders["source"].to_numpy() == MARKETPLACE
        way = np.where((way == NO_RESTOCK) & marketplace, RETURN, way)
        chosen = pl.Series((dice < rate + GOODWILL_SHARE) & (later < last))
        orders = orders.with_columns(way=pl.Series(way), later=pl.Series(later)).filter(chosen)
        if not len(orders):
            return
        back = kept.join(orders.select("order", "way", "later"), on="order", how="inner", maintain_order="left")
        back = back.filter(pl.Series(rng.random(len(back)) < 0.6) | pl.col("order").is_first_distinct())
        old = lines.join(orders.select("order", "later"), on="order", how="inner", maintain_order="left")
        parts = [_by_day(frame) for frame in (orders, back, old)]
        for when in sorted(parts[0]):
            self.sent_back[when].append((parts[0][when], parts[1][when], parts[2][when].select(typed(LINE_SCHEMA))))
        self._to_store(rng, back.filter(pl.col("way") == NO_RESTOCK))

    def _to_store(self, rng: np.random.Generator, goods: pl.DataFrame) -> None:
        """Lines of web orders that a till will take back, with reference to the order."""
        place = self.world.people.home[goods["person"].to_numpy()].astype(np.int64)
        name = ecommerce.order_names(goods["order"])
        frame = goods.select("person", "sku", "discount", "net", "tax", "later", quantity="granted").with_columns(
            place=pl.Series(place), second=pl.Series(self.stores.open_second(rng, place)), discount=pl.lit(0, pl.Int64),
            reference=pl.select(pl.concat_str([pl.lit("<OrderReference>"), name, pl.lit("</OrderReference>")])).to_series(),
        )  # fmt: skip
        for when, part in _by_day(frame).items():
            self.stores.returns[when].append(part.select(typed(BACK_SCHEMA)))

    def take_back(self, day: int) -> None:
        """Refunds of what was sent back: mailed goods go on the shelf of the distribution centre, others are no restock here."""
        world, parts = self.world, self.sent_back.pop(day, [])
        if not parts:
            return
        orders, goods, lines = (pl.concat([part[piece] for part in parts]) for piece in range(3))
        center = world.places.center_of[world.people.home[goods["person"].to_numpy()]]
        restocked = (goods["way"].to_numpy() == RETURN) & (goods["method"].to_numpy() != DROP_SHIP)
        at = world.epoch(center, day, np.full(len(goods), 15 * 3600))
        refunds = goods.with_columns(
            quantity=pl.col("granted"), restock=pl.Series(np.where(restocked, RETURN, NO_RESTOCK)),
            place=pl.Series(np.where(restocked, center, -1)), at=pl.Series(at),
        )  # fmt: skip
        self.refunds.append(refunds.select(typed(REFUND_SCHEMA)))
        position = world.position(center, goods["sku"].to_numpy())
        world.stock.book("web_return", position[restocked], goods["granted"].to_numpy()[restocked], at[restocked])
        given = refunds.group_by("order", maintain_order=True).agg(
            given=(pl.col("net") + pl.col("tax")).sum(), at=pl.col("at").first()
        )
        changed = orders.join(given, on="order", how="inner", maintain_order="left").with_columns(
            refunded_cents=pl.col("refunded_cents") + pl.col("given"), updated=pl.col("at")
        )
        self.versions.append((changed.select(typed(ORDER_SCHEMA)), lines))

    def _write_picks(self, day: int, rng: np.random.Generator, picks: pl.DataFrame) -> None:
        world = self.world
        count, found, asked = len(picks), picks["granted"].to_numpy(), picks["quantity"].to_numpy()
        first = world.take("pick", count)
        outcome = np.where(found == asked, 0, np.where(found > 0, 1, 2))
        reason = pl.Series(["missing", "misplaced", "damaged"])[rng.choice(3, count, p=[0.6, 0.3, 0.1])]
        finished = picks["finished"].to_numpy()
        wms.write_picks(world.landing, day, pl.select(
            pl.concat_str([pl.lit("PK"), pl.Series(np.arange(first, first + count)).cast(pl.String).str.zfill(9)]).alias("pick_id"),
            ecommerce.order_names(picks["order"]).alias("order_ref"), world.places.code[picks["place"]].alias("location_code"),
            world.products.sku[picks["sku"]].alias("sku"), picks["quantity"].alias("requested_units"),
            picks["granted"].alias("picked_units"), pl.Series(["picked", "short", "not_found"])[outcome].alias("pick_status"),
            pl.when(pl.Series(outcome > 0)).then(reason).alias("reason_code"), moments(finished - 45).alias("started_at"),
            moments(finished).alias("finished_at"), pl.when(pl.Series(found > 0)).then(moments(finished + 240)).alias("packed_at"),
        ))  # fmt: skip

    def _write_shipments(self, day: int, lines: pl.DataFrame) -> None:
        world = self.world
        first = world.take("shipment", lines["order"].n_unique())
        lines = lines.select(
            "place",
            "at",
            "sku",
            "order",
            ordered="quantity",
            shipped="granted",
            shipment=pl.col("order").rank("dense").cast(pl.Int64) - 1 + first,
        ).sort("shipment", maintain_order=True)
        lines = lines.with_columns(order_name=ecommerce.order_names(lines["order"]))
        for place in range(world.places.centers):
            own = lines.filter(pl.col("place") == place)
            if len(own):
                wms.write_shipments(world.landing, day, place, world.places, world.products, own)

    def _close(self, orders: pl.DataFrame, lines: pl.DataFrame) -> None:
        """A later version of orders, and their place in the truth."""
        own = lines.join(orders.select("order"), on="order", how="semi", maintain_order="left")
        self.versions.append((orders, own))
        self._truth(orders, own)

    def _truth(self, orders: pl.DataFrame, lines: pl.DataFrame) -> None:
        world = self.world
        sums = lines.group_by("order").agg(pl.col("net", "tax").sum(), count=pl.len())
        whole = orders.join(sums, on="order", how="inner", maintain_order="left")
        world.truth.append("orders", whole.select(
            order_id=pl.concat_str([pl.lit("ecommerce/"), (pl.col("order") + ecommerce.FIRST_ORDER_ID).cast(pl.String)]),
            order_name=ecommerce.order_names(whole["order"]), source_name=pl.lit("ecommerce"),
            person_id=world.people.text("person_id", whole["person"].to_numpy()),
            ordered_at=(pl.col("created") * 1_000_000).cast(pl.Datetime("us", "UTC")), line_count=pl.col("count").cast(pl.Int64),
            net_cents="net", tax_cents="tax", shipping_cents="shipping",
            order_status=pl.Series(ORDER_STATUS)[whole["status"]], is_test=pl.Series(whole["person"].to_numpy() < 0),
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


def _by_day(frame: pl.DataFrame) -> dict[int, pl.DataFrame]:
    """Rows by the day in `later`, in order of first appearance."""
    return {int(key[0]): part for key, part in frame.partition_by("later", as_dict=True, maintain_order=True).items()}
