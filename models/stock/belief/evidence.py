"""From published tables to the evidence of a period: what became known in it, as events in the order in which they happened.

A movement that is told late needs no repair: it moves the window when it is heard. A count that is told late is carried forward by what moved since.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from models.stock.belief.beliefs import Beliefs, Floats, Ints
from models.stock.belief.filtering import ASK, CORRECT, COUNT, IN, MISS, OPEN, SALE, TAKE, TRANSFER_IN, Evidence

KINDS = {"opening": OPEN, "sale": SALE, "transfer_in": TRANSFER_IN, "adjustment": CORRECT}
DAY = timedelta(days=1)
TRADING_DAY_BEGINS = timedelta(hours=4)  # on the wall clock: a store that closes after midnight ends its day then
COUNTED_WITH = timedelta(hours=1)  # an adjustment so close to a count is that count's
PLACE = {"location_type": "location_type", "timezone_name": "timezone_name"}
EVENT: dict[str, pl.DataType | type[pl.DataType]] = {
    "location_code": pl.String, "sku": pl.String, "kind": pl.Int8, "units": pl.Int32, "found": pl.Int32, "at": pl.Datetime("us"),
}  # fmt: skip


@dataclass(frozen=True)
class Tables:
    """What a belief rests on, as published. Times are naive UTC; `known_at` says when a row could be known here.

    `movements` (stock_movements): location_code, sku, movement_type, units, occurred_at, known_at. `picks` (stock_picks): location_code, sku, asked_units,
    picked_units, picked_at, known_at. `counts` (stock_counts, cycle counts alone: an opening is a movement): location_code, sku, counted_units, counted_at,
    known_at. `products`: sku, category_name. `locations`: location_code, location_type, timezone_name. More columns do no harm.
    """

    movements: pl.DataFrame
    picks: pl.DataFrame
    counts: pl.DataFrame
    products: pl.DataFrame
    locations: pl.DataFrame

    def known(self, after: datetime | None, until: datetime) -> "Tables":
        """Only what was received in a period: after one time, up to and with another."""
        within = (pl.col("known_at") <= until) & (pl.lit(True) if after is None else pl.col("known_at") > after)
        return Tables(
            self.movements.filter(within),
            self.picks.filter(within),
            self.counts.filter(within),
            self.products,
            self.locations,
        )

    def began_at(self) -> datetime | None:
        """When the first of it was received."""
        firsts = [frame["known_at"].min() for frame in (self.movements, self.picks, self.counts) if frame.height]
        return min((each for each in firsts if isinstance(each, datetime)), default=None)


def gathered(beliefs: Beliefs, tables: Tables, until: datetime) -> Evidence:
    """Evidence of the period from the beliefs' time to another, with room for positions, SKUs and locations first heard of. Changes nothing."""
    news = tables.known(beliefs.as_of_at, until)
    events = _events(news, _carried(news.counts, tables.movements, beliefs.as_of_at))
    seen = events.select("location_code", "sku").unique().sort("location_code", "sku")
    locations = _extended(beliefs.locations, seen, "location_code", tables.locations, PLACE)
    items = _extended(beliefs.items, seen, "sku", tables.products, {"category": "category_name"})
    place, item = _admitted(beliefs, seen, locations, items)
    position = _slots(place, item, locations, items)[
        _rows(locations, "location_code", events), _rows(items, "sku", events)
    ]
    events = events.with_columns(position=pl.Series(position)).sort("position", "at", "kind", "units", "found")
    sales = events.filter(pl.col("kind") == SALE)
    return Evidence(
        position=events["position"].to_numpy(),
        kind=events["kind"].to_numpy(),
        units=events["units"].to_numpy(),
        day=events["at"].dt.epoch("d").cast(pl.Int32).to_numpy(),
        found=events["found"].to_numpy(),
        lines=np.bincount(sales["position"].to_numpy(), minlength=len(place)).astype(np.float32),
        heard=np.bincount(place[sales["position"].to_numpy()], minlength=len(locations)).astype(np.float32),
        heard_days=_heard_days(sales, locations),
        place=place,
        item=item,
        locations=locations,
        items=items,
        days=1.0 if beliefs.as_of_at is None else (until - beliefs.as_of_at) / DAY,
    )


def _events(news: Tables, counts: pl.DataFrame) -> pl.DataFrame:
    """Everything that happened, one row per event; a pick that brought too little is asked for, and missed."""
    key = ("location_code", "sku")
    kind = pl.col("movement_type").replace_strict(KINDS, default=None, return_dtype=pl.Int8)
    by_sign = pl.when(pl.col("units") > 0).then(pl.lit(IN, pl.Int8)).otherwise(pl.lit(TAKE, pl.Int8))
    against = ((kind == SALE) & (pl.col("units") > 0)) | ((kind == TRANSFER_IN) & (pl.col("units") < 0))
    movements = news.movements.filter(pl.col("units") != 0).select(
        *key, at="occurred_at", kind=pl.when(against).then(by_sign).otherwise(pl.coalesce(kind, by_sign)), units=pl.col("units").cast(pl.Int32),
    )  # fmt: skip
    explained = (
        movements.filter(pl.col("kind") == CORRECT)
        .join(news.counts.select(*key, "counted_at"), on=list(key))
        .filter((pl.col("at") - pl.col("counted_at")).abs() <= COUNTED_WITH)
        .select(*key, "at", "kind", is_explained=pl.lit(True))
        .unique()
    )
    movements = movements.join(explained, on=[*key, "at", "kind"], how="left").with_columns(
        found=pl.when((pl.col("kind") == CORRECT) & pl.col("is_explained").is_null()).then(1).otherwise(0),
        units=pl.when(pl.col("kind").is_in([SALE, TAKE])).then(-pl.col("units")).otherwise("units"),
    )
    asked = news.picks.filter(pl.col("asked_units") > 0).select(
        *key, at="picked_at", kind=pl.lit(ASK), units="asked_units", found="picked_units"
    )
    missed = asked.filter(pl.col("found") < pl.col("units")).with_columns(kind=pl.lit(MISS))
    told = counts.select(*key, at="counted_at", kind=pl.lit(COUNT), units="counted_units", found=pl.lit(0))
    return pl.concat(
        [
            frame.select(pl.col(name).cast(kind) for name, kind in EVENT.items())
            for frame in (movements, asked, missed, told)
        ]
    )


def _carried(counts: pl.DataFrame, movements: pl.DataFrame, known_at: datetime | None) -> pl.DataFrame:
    """Counts told late, as they would be after what was known to have moved since: corrections of books moved nothing."""
    late = counts if known_at is None or not counts.height else counts.filter(pl.col("counted_at") < known_at)
    if known_at is None or not late.height:
        return counts
    key = ["location_code", "sku"]
    since = (
        movements.filter(
            (pl.col("known_at") <= known_at)
            & (pl.col("occurred_at") > late["counted_at"].min())
            & ~pl.col("movement_type").is_in(["adjustment", "opening"])
        )
        .select(*key, "occurred_at", "units")
        .join(counts.select(*key, "counted_at").unique(), on=key)
        .filter(pl.col("occurred_at") > pl.col("counted_at"))
        .group_by(*key, "counted_at")
        .agg(since=pl.col("units").sum())
    )
    return counts.join(since, on=[*key, "counted_at"], how="left").with_columns(
        counted_units=(pl.col("counted_units") + pl.col("since").fill_null(0)).clip(0)
    )


def _admitted(beliefs: Beliefs, seen: pl.DataFrame, locations: pl.DataFrame, items: pl.DataFrame) -> tuple[Ints, Ints]:
    """Place and item of all positions, those first heard of at the end."""
    place, item = _rows(locations, "location_code", seen), _rows(items, "sku", seen)
    fresh = _slots(beliefs.place, beliefs.item, locations, items)[place, item] < 0
    if not fresh.any():
        return beliefs.place, beliefs.item
    return np.r_[beliefs.place, place[fresh]], np.r_[beliefs.item, item[fresh]]


def _extended(
    known: pl.DataFrame, seen: pl.DataFrame, key: str, table: pl.DataFrame, columns: Mapping[str, str]
) -> pl.DataFrame:
    fresh = seen.select(pl.col(key).unique().sort()).join(known, on=key, how="anti")
    if not fresh.height:
        return known
    rows = fresh.join(table.select(key, **columns).unique(key), on=key, how="left", maintain_order="left")
    return pl.concat([known, rows.select(known.columns)])


def _rows(names: pl.DataFrame, key: str, frame: pl.DataFrame) -> Ints:
    """Row of each row's location or SKU."""
    rows = frame.select(key).join(names.select(key).with_row_index("row"), on=key, how="left", maintain_order="left")
    return rows["row"].cast(pl.Int32).to_numpy()


def _slots(place: Ints, item: Ints, locations: pl.DataFrame, items: pl.DataFrame) -> Ints:
    """Position of each location and SKU, -1 where there is none."""
    slots = np.full((len(locations), len(items)), -1, np.int32)
    slots[place, item] = np.arange(len(place), dtype=np.int32)
    return slots


def _heard_days(sales: pl.DataFrame, locations: pl.DataFrame) -> Floats:
    """How many trading days each location's tills told of."""
    zoned = sales.select("location_code", "at").join(
        locations.select("location_code", "timezone_name"), on="location_code", how="left"
    )
    parts = [
        part.select(
            "location_code",
            day=(
                pl.col("at")
                .dt.replace_time_zone("UTC")
                .dt.convert_time_zone(str(zone or "UTC"))
                .dt.replace_time_zone(None)
                - TRADING_DAY_BEGINS
            ).dt.date(),
        )
        for (zone,), part in zoned.partition_by("timezone_name", as_dict=True).items()
    ]
    told = (
        pl.concat(parts).group_by("location_code").agg(days=pl.col("day").n_unique())
        if parts
        else pl.DataFrame(schema={"location_code": pl.String, "days": pl.UInt32})
    )
    joined = locations.join(told, on="location_code", how="left", maintain_order="left")
    return joined["days"].fill_null(0).cast(pl.Float32).to_numpy()
