"""What becomes of web orders: picked in a store or shipped from a distribution centre, found or not, collected, sent back."""

from collections import defaultdict

import numpy as np
import polars as pl

from simulator.demand import CLICK_AND_COLLECT, DROP_SHIP, MARKETPLACE
from simulator.formats import ecommerce, wms
from simulator.formats.ecommerce import CANCELLED, FULFILLED, PARTIAL
from simulator.formats.loyalty import ACCUMULATE
from simulator.parcels import Parcels, tracking_numbers
from simulator.points import Points
from simulator.spelling import fractions, moments, typed
from simulator.stores import BACK_SCHEMA, HANDOVER_SCHEMA, Stores
from simulator.webshop import CANCEL, LINE_SCHEMA, NO_RESTOCK, ORDER_SCHEMA, REFUND_SCHEMA, RETURN, Due, Webshop
from simulator.world import World

GOODWILL_SHARE = 0.008  # orders whose money goes back while the goods stay


class Fulfilment:
    """Orders on their way to the shopper, and what will be sent back on later days."""

    def __init__(self, world: World, shop: Webshop, stores: Stores, points: Points) -> None:
        self.world, self.shop, self.stores, self.points = world, shop, stores, points
        self.parcels = Parcels(world)
        self.sent_back: dict[int, list[tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]]] = defaultdict(list)

    def fulfil(self, day: int, due: Due, granted: np.ndarray) -> None:
        """Book what was found, refund what was not, and say so in picks, shipping advice and a new version of each order."""
        world, rng = self.world, self.world.random(91, day)
        whole = due.lines.with_columns(granted=pl.Series(granted, dtype=pl.Int64), position=pl.Series(due.position)).join(
            due.orders.select("order", "place", "method", "source", "person", "is_signed_in", "shipping", at="due"), on="order", how="inner", maintain_order="left"
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
        labels = self._write_shipments(day, stocked.filter(pl.Series(center)))
        nothing = (pl.col("granted").sum().over("order") == 0) & pl.col("order").is_first_distinct()
        missing = whole.with_columns(shipping=pl.when(nothing).then("shipping").otherwise(0)).filter(
            pl.col("granted") < pl.col("quantity")
        ).with_columns(
            net=pl.col("net") * (pl.col("quantity") - pl.col("granted")) // pl.col("quantity"),
            tax=pl.col("tax") * (pl.col("quantity") - pl.col("granted")) // pl.col("quantity"),
            quantity=pl.col("quantity") - pl.col("granted"), restock=pl.lit(CANCEL), at=pl.col("at") + 600, at_till=pl.lit(False),
        )  # fmt: skip
        self.shop.refunds.append(missing.select(typed(REFUND_SCHEMA)))
        self._settle(day, rng, due, whole, missing, labels)

    def _settle(
        self,
        day: int,
        rng: np.random.Generator,
        due: Due,
        whole: pl.DataFrame,
        missing: pl.DataFrame,
        labels: pl.DataFrame,
    ) -> None:
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
        sent = orders.filter(pl.col("status") != CANCELLED)
        met = self.parcels.send(day, sent, whole.filter(pl.col("granted") > 0), labels)
        orders = orders.drop("fulfilled").join(
            sent.select("order", fulfilled=met), on="order", how="left", maintain_order="left"
        )
        self.shop.close(orders.select(typed(ORDER_SCHEMA)), due.lines)
        kept = whole.filter(pl.col("granted") > 0).with_columns(
            net=pl.col("net") - pl.col("net") * (pl.col("quantity") - pl.col("granted")) // pl.col("quantity"),
            tax=pl.col("tax") - pl.col("tax") * (pl.col("quantity") - pl.col("granted")) // pl.col("quantity"),
        )  # fmt: skip
        self._earn(day, kept)
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
        misnamed = pl.Series(fractions(93, orders["order"].to_numpy()) < self.world.scale.misnamed_handover_rate)
        self.world.landing.count(
            "misnamed_handovers",
            "raw_pos__transactions",
            int((misnamed.to_numpy() & (later < self.world.scale.days)).sum()),
        )
        name = ecommerce.order_names(orders["order"])
        frame = pl.DataFrame({
            "place": place, "second": self.stores.open_second(rng, place), "person": orders["person"],
            "order_name": pl.select(pl.when(misnamed).then(name.str.replace("#", "#0", literal=True)).otherwise(name)).to_series(),
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
            origin=ecommerce.order_ids(goods["order"]),
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
            place=pl.Series(np.where(restocked, center, -1)), at=pl.Series(at), shipping=pl.lit(0, pl.Int64), at_till=pl.col("way") == NO_RESTOCK,
        )  # fmt: skip
        self.shop.refunds.append(refunds.select(typed(REFUND_SCHEMA)))
        position = world.position(center, goods["sku"].to_numpy())
        world.stock.book("web_return", position[restocked], goods["granted"].to_numpy()[restocked], at[restocked])
        given = refunds.group_by("order", maintain_order=True).agg(
            given=(pl.col("net") + pl.col("tax")).sum(), at=pl.col("at").first()
        )
        changed = orders.join(given, on="order", how="inner", maintain_order="left").with_columns(
            refunded_cents=pl.col("refunded_cents") + pl.col("given"), updated=pl.col("at")
        )
        self.shop.versions.append((changed.select(typed(ORDER_SCHEMA)), lines))

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

    def _write_shipments(self, day: int, lines: pl.DataFrame) -> pl.DataFrame:
        """Shipping advice of each centre. Gives the shipment of each order."""
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
        lines = lines.with_columns(
            order_name=ecommerce.order_names(lines["order"]), tracking=tracking_numbers(lines["shipment"].to_numpy())
        )
        for place in range(world.places.centers):
            own = lines.filter(pl.col("place") == place)
            if len(own):
                wms.write_shipments(world.landing, day, place, world.places, world.products, own)
        return lines.select("order", "shipment").unique(maintain_order=True)


def _by_day(frame: pl.DataFrame) -> dict[int, pl.DataFrame]:
    """Rows by the day in `later`, in order of first appearance."""
    return {int(key[0]): part for key, part in frame.partition_by("later", as_dict=True, maintain_order=True).items()}
