"""A day on the sales floor: what is sold, struck out, mis-keyed, brought back and handed over, and the receipts of it."""

from collections import defaultdict

import numpy as np
import polars as pl

from simulator.demand import Baskets, Trips
from simulator.duplicates import NEVER
from simulator.formats import pos
from simulator.formats.loyalty import ACCUMULATE, ADJUST
from simulator.points import Points
from simulator.spelling import DAY, fractions, moment_of, typed
from simulator.world import World

RETURN_DAYS = 20
CARD_SHOWN, CARD_PAID = 0.85, 0.80
RECEIPT_SCHEMA = {
    "receipt": pl.Int64, "place": pl.Int64, "second": pl.Int64, "kind": pl.Int64, "person": pl.Int64, "shows_card": pl.Boolean,
    "pays_card": pl.Boolean, "order_name": pl.String,
}  # fmt: skip
LINE_SCHEMA = {
    "receipt": pl.Int64, "line_number": pl.Int64, "sku": pl.Int64, "true_sku": pl.Int64, "quantity": pl.Int64, "discount": pl.Int64,
    "net": pl.Int64, "tax": pl.Int64, "is_keyed": pl.Boolean, "is_void": pl.Boolean, "is_return": pl.Boolean, "is_restocked": pl.Boolean,
    "link": pl.String,
}  # fmt: skip
BACK_SCHEMA = {
    "place": pl.Int64, "second": pl.Int64, "person": pl.Int64, "sku": pl.Int64, "quantity": pl.Int64, "discount": pl.Int64,
    "net": pl.Int64, "tax": pl.Int64, "reference": pl.String, "origin": pl.String,
}  # fmt: skip
HANDOVER_SCHEMA = {"place": pl.Int64, "second": pl.Int64, "person": pl.Int64, "order_name": pl.String}


class Stores:
    """The tills' counters, and what will come back or be collected on later days."""

    def __init__(self, world: World, points: Points) -> None:
        self.world, self.points = world, points
        widest = int(world.places.tills.max())
        self.next_number = world.random(70, 0).integers(1, pos.LAST_NUMBER, (len(world.places), widest))
        self.returns: dict[int, list[pl.DataFrame]] = defaultdict(list)
        self.handovers: dict[int, list[pl.DataFrame]] = defaultdict(list)

    def trade(self, day: int, trips: Trips, baskets: Baskets, granted: np.ndarray) -> None:
        """Everything the tills did on a day; `granted` is what was on the shelf of each wanted line."""
        world, date_text = self.world, str(self.world.date(day))
        rng = world.random(71, day)
        receipts, lines = self._sales(day, rng, trips, baskets, granted)
        back, back_lines = self._brought_back(day, rng)
        over = self._handed_over(day)
        false, false_lines = self._never_happened(rng, receipts, lines)
        struck = self._struck_out(rng, lines)
        receipts = pl.concat([receipts, back, over, false])
        receipts = self._with_cards(day, receipts)
        receipts = pos.numbered(receipts, rng, world.places, self.next_number)
        lines = pl.concat([lines, struck, back_lines, false_lines]).sort("receipt", "line_number", maintain_order=True)
        texts = pos.receipt_text(
            self._by_its_clock(receipts),
            lines,
            world.places,
            world.products,
            world.people,
            world.day_start(day),
            date_text,
            day,
        )
        pos.write(world.landing, day, receipts, texts, world.places)
        self._book(day, rng, receipts, lines, date_text)
        world.totals["store_lines"] += int((~(lines["is_void"] | lines["is_return"])).sum()) - len(false_lines)

    def _by_its_clock(self, receipts: pl.DataFrame) -> pl.DataFrame:
        """Receipts as their tills tell the time: some clocks are wrong, by up to three quarters of an hour, and stay so."""
        if not self.world.scale.skewed_clock_rate:
            return receipts
        place, till = receipts["place"].to_numpy(), receipts["till"].to_numpy()
        wrong = fractions(73, place, till, self.world.seed) < self.world.scale.skewed_clock_rate
        off = np.where(wrong, (fractions(74, place, till, self.world.seed) - 0.5) * 5_400, 0).astype(np.int64)
        self.world.landing.count("skewed_receipts", "raw_pos__transactions", int(wrong.sum()))
        return receipts.with_columns(second=pl.col("second") + pl.Series(off))

    def _with_cards(self, day: int, receipts: pl.DataFrame) -> pl.DataFrame:
        """Whose card each receipt carries (`cardholder`, -1 for none): the shopper's, or one of somebody at the till who likes points."""
        people, rate = self.world.people, self.world.scale.clerk_card_rate
        person = people.duplicates.acting(receipts["person"].to_numpy(), day)
        own = (person >= 0) & (people.member_day[person] < min(day, NEVER)) & receipts["shows_card"].to_numpy()
        clerk = people.duplicates.acting(people.clerks[receipts["place"].to_numpy()], day)
        scans = ~own & (receipts["kind"].to_numpy() == pos.SALE) & (self.world.random(72, day).random(len(own)) < rate)
        holder = np.where(own, person, np.where(scans & (people.member_day[clerk] < day), clerk, -1))
        return receipts.with_columns(cardholder=pl.Series(holder), shows_card=pl.Series(holder >= 0))

    def _sales(
        self, day: int, rng: np.random.Generator, trips: Trips, baskets: Baskets, granted: np.ndarray
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Receipts of what was found, and their lines; some rung up as another SKU of the category."""
        world, products = self.world, self.world.products
        found = granted > 0
        owner, sku, quantity = baskets.owner[found], baskets.sku[found], granted[found]
        keyed = rng.random(len(sku)) < 0.04
        confused = keyed & (rng.random(len(sku)) < world.scale.mis_scan_rate / 0.04)
        low, high = products.category_start[products.category[sku]], products.category_start[products.category[sku] + 1]
        rung_up = np.where(confused, low + (rng.random(len(sku)) * (high - low)).astype(np.int64), sku)
        gross = products.price[rung_up] * quantity
        discount = world.discount_cents(rung_up, gross, day, rng.random(len(sku)))
        net = gross - discount
        tax = np.rint(net * world.places.tax_rate[trips.place[owner]]).astype(np.int64)
        first = np.r_[True, owner[1:] != owner[:-1]] if len(owner) else np.zeros(0, bool)
        number = (
            np.arange(len(owner))
            - np.repeat(np.flatnonzero(first), np.diff(np.r_[np.flatnonzero(first), len(owner)]))
            + 1
        )
        lines = pl.DataFrame({
            "receipt": owner, "line_number": number, "sku": rung_up, "true_sku": sku, "quantity": quantity, "discount": discount, "net": net,
            "tax": tax, "is_keyed": keyed, "is_void": np.zeros(len(sku), bool), "is_return": np.zeros(len(sku), bool),
            "is_restocked": np.zeros(len(sku), bool), "link": pl.Series([None], dtype=pl.String).new_from_index(0, len(sku)),
        }, schema=LINE_SCHEMA)  # fmt: skip
        used = owner[first]
        person = trips.person[used]
        receipts = pl.DataFrame({
            "receipt": used, "place": trips.place[used], "second": trips.second[used], "kind": np.full(len(used), pos.SALE), "person": person,
            "shows_card": rng.random(len(used)) < CARD_SHOWN, "pays_card": rng.random(len(used)) < CARD_PAID,
            "order_name": pl.Series([None], dtype=pl.String).new_from_index(0, len(used)),
        }, schema=RECEIPT_SCHEMA)  # fmt: skip
        self._next_receipt = len(trips.person)
        return receipts, lines

    def _brought_back(self, day: int, rng: np.random.Generator) -> tuple[pl.DataFrame, pl.DataFrame]:
        """One receipt for each line that comes back today; four in five go back on the shelf."""
        due = pl.concat([pl.DataFrame(schema=BACK_SCHEMA), *self.returns.pop(day, [])])
        count = len(due)
        receipt = np.arange(self._next_receipt, self._next_receipt + count)
        self._next_receipt += count
        restocked = rng.random(count) < 0.8
        disposition = pl.Series(["<Disposition>Damaged</Disposition>", "<Disposition>Restock</Disposition>"])[
            restocked.astype(np.int64)
        ]
        lines = due.select("sku", pl.col("sku").alias("true_sku"), "quantity", "discount", "net", "tax").with_columns(
            receipt=pl.Series(receipt), line_number=pl.lit(1, pl.Int64), is_keyed=pl.lit(False), is_void=pl.lit(False), is_return=pl.lit(True),
            is_restocked=pl.Series(restocked), link=pl.concat_str([due["reference"], disposition], ignore_nulls=True),
        ).select(typed(LINE_SCHEMA))  # fmt: skip
        receipts = due.select("place", "second", "person").with_columns(
            receipt=pl.Series(receipt), kind=pl.lit(pos.RETURN, pl.Int64), shows_card=pl.Series(rng.random(count) < CARD_SHOWN),
            pays_card=pl.Series(rng.random(count) < CARD_PAID), order_name=pl.lit(None, pl.String),
        ).select(typed(RECEIPT_SCHEMA))  # fmt: skip
        at = self.world.epoch(due["place"].to_numpy(), day, due["second"].to_numpy())
        self.world.truth.append("refunds", due.select(
            order_id="origin", source_name=pl.lit("pos"), refunded_at=moment_of(pl.Series(at)), net_cents="net",
            tax_cents="tax", shipping_cents=pl.lit(0, pl.Int64),
        ))  # fmt: skip
        return receipts, lines

    def _handed_over(self, day: int) -> pl.DataFrame:
        """Web orders collected today: a receipt without lines."""
        due = pl.concat([pl.DataFrame(schema=HANDOVER_SCHEMA), *self.handovers.pop(day, [])])
        receipt = np.arange(self._next_receipt, self._next_receipt + len(due))
        self._next_receipt += len(due)
        return due.with_columns(
            receipt=pl.Series(receipt),
            kind=pl.lit(pos.HANDOVER, pl.Int64),
            shows_card=pl.lit(False),
            pays_card=pl.lit(False),
        ).select(typed(RECEIPT_SCHEMA))

    def _never_happened(
        self, rng: np.random.Generator, receipts: pl.DataFrame, lines: pl.DataFrame
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Copies of receipts that were cancelled at the till, or rung up to learn."""
        chosen = receipts.filter(pl.Series(rng.random(len(receipts)) < self.world.scale.false_receipt_rate))
        fresh = np.arange(self._next_receipt, self._next_receipt + len(chosen))
        self._next_receipt += len(chosen)
        kind = rng.choice([pos.CANCELLED, pos.TRAINING], len(chosen))
        map_to = chosen.select("receipt", fresh=pl.Series(fresh))
        copied = (
            lines.join(map_to, on="receipt", how="inner", maintain_order="left")
            .with_columns(receipt=pl.col("fresh"))
            .select(typed(LINE_SCHEMA))
        )
        copies = chosen.with_columns(
            receipt=pl.Series(fresh), kind=pl.Series(kind), second=pl.col("second") - 40,
            person=pl.when(pl.Series(kind == pos.TRAINING)).then(-1).otherwise("person"), pays_card=pl.lit(False),
        )  # fmt: skip
        return copies, copied

    def _struck_out(self, rng: np.random.Generator, lines: pl.DataFrame) -> pl.DataFrame:
        """Lines rung up once too often and struck out, at the end of their receipt."""
        count = lines.select("receipt", last=pl.len().over("receipt"))["last"]
        chosen = (
            pl.Series(rng.random(len(lines)) < self.world.scale.void_line_rate) & lines["receipt"].is_first_distinct()
        )
        return lines.with_columns(line_number=count.cast(pl.Int64) + 1, is_void=pl.lit(True)).filter(chosen)

    def _book(
        self, day: int, rng: np.random.Generator, receipts: pl.DataFrame, lines: pl.DataFrame, date_text: str
    ) -> None:
        """Stock, points, truth, and what will come back."""
        world = self.world
        real = receipts.filter(pl.col("kind").is_in([pos.SALE, pos.RETURN]))
        at = world.epoch(real["place"].to_numpy(), day, real["second"].to_numpy())
        real = real.with_columns(
            at=pl.Series(at),
            name=pos.receipt_names(real, world.places, date_text),
            reference=pos.links(real, world.places, date_text),
        )
        whole = lines.filter(~pl.col("is_void")).join(real, on="receipt", how="inner", maintain_order="left")
        position = world.position(whole["place"].to_numpy(), whole["sku"].to_numpy())
        true_position = world.position(whole["place"].to_numpy(), whole["true_sku"].to_numpy())
        back, when, units = whole["is_return"].to_numpy(), whole["at"].to_numpy(), whole["quantity"].to_numpy()
        sold, nothing = ~back, np.zeros(len(whole), np.int64)
        world.stock.book("sale", position[sold], -units[sold], when[sold], nothing[sold])
        world.stock.book("sale", true_position[sold], nothing[sold], when[sold], -units[sold])
        shelved = back & whole["is_restocked"].to_numpy()
        world.stock.book("return", position[shelved], units[shelved], when[shelved])
        sums = whole.group_by("receipt", maintain_order=True).agg(
            pl.col("net", "tax").sum(),
            pl.col("is_return", "name", "at", "person", "shows_card", "cardholder", "place").first(),
            count=pl.len(),
        )
        self._truth(sums.filter(~pl.col("is_return")))
        self._points(sums)
        self._schedule(day, rng, whole.filter(~pl.col("is_return")))

    def _truth(self, sales: pl.DataFrame) -> None:
        world = self.world
        world.truth.append("orders", sales.select(
            order_id=pl.concat_str([pl.lit("pos/"), "name"]), order_name=pl.lit(None, pl.String), source_name=pl.lit("pos"),
            person_id=world.people.text("person_id", sales["person"].to_numpy()),
            ordered_at=moment_of("at"), line_count=pl.col("count").cast(pl.Int64), promised_at=pl.lit(None, pl.Datetime("us", "UTC")),
            fulfilled_at=moment_of("at"),
            net_cents="net", tax_cents="tax", shipping_cents=pl.lit(0, pl.Int64), order_status=pl.lit("completed"), is_test=pl.lit(False),
        ))  # fmt: skip
        shopper, holder = (sales[name].to_numpy() for name in ("person", "cardholder"))
        own = world.people.duplicates.person[shopper] == world.people.duplicates.person[holder]
        lent = pl.Series(~own & (holder >= 0))
        world.truth.append("lent_cards", sales.filter(lent).select(
            order_id=pl.concat_str([pl.lit("pos/"), "name"]), person_id=world.people.text("person_id", shopper[lent]),
            card_number=world.people.text("card", holder[lent]),
        ))  # fmt: skip

    def _points(self, sums: pl.DataFrame) -> None:
        """A point per dollar when the card is shown; a return takes them back."""
        earned = sums.filter(pl.col("shows_card") & (pl.col("net") >= 100))
        back = earned["is_return"].to_numpy()
        points = earned["net"].to_numpy() // 100
        self.points.add(
            earned["cardholder"].to_numpy(),
            earned["at"].to_numpy(),
            np.where(back, ADJUST, ACCUMULATE),
            np.where(back, -points, points),
            earned["name"],
        )

    def _schedule(self, day: int, rng: np.random.Generator, sold: pl.DataFrame) -> None:
        """Some lines will be brought back, most of them to the same store."""
        world = self.world
        chosen = sold.filter(pl.Series(rng.random(len(sold)) < world.scale.line_return_rate))
        person, place = chosen["person"].to_numpy(), chosen["place"].to_numpy()
        place = np.where(rng.random(len(chosen)) < 0.9, place, world.people.second[person])
        due = day + rng.integers(1, max(2, min(RETURN_DAYS, world.scale.days)), len(chosen))
        shown = pl.Series(fractions(72, due, person, chosen["sku"].to_numpy()) >= world.scale.lost_receipt_rate)
        frame = chosen.select("person", "sku", "quantity", "discount", "net", "tax").with_columns(
            place=pl.Series(place), second=pl.Series(self.open_second(rng, place)), due=pl.Series(due),
            reference=pl.when(shown).then(chosen["reference"]),
            origin=pl.when(shown).then(pl.concat_str([pl.lit("pos/"), chosen["name"]])),
        ).filter(pl.col("due") < world.scale.days)  # fmt: skip
        world.landing.count("lost_receipts", "raw_pos__sale_lines", frame["reference"].null_count())
        for key, part in frame.partition_by("due", as_dict=True, maintain_order=True).items():
            self.returns[key[0]].append(part.select(typed(BACK_SCHEMA)))

    def open_second(self, rng: np.random.Generator, place: np.ndarray) -> np.ndarray:
        """A moment within opening hours."""
        opens, closes = self.world.places.opens[place], np.minimum(self.world.places.closes[place], DAY)
        return np.asarray(opens + 600 + rng.random(len(place)) * (closes - opens - 1_800)).astype(np.int64)
