"""Web and app behaviour in Segment's spec: sessions that browse, and sessions that end in an order. JSON lines."""

import numpy as np
import polars as pl

from simulator.landing import Kind, Landing, spoiled
from simulator.people import People, leans
from simulator.products import Products
from simulator.spelling import fractions, json_lines, moments

TABLE = "raw_ecommerce__events"
KIND = Kind(
    "ecommerce", TABLE,
    ((TABLE, spoiled(r'"originalTimestamp":"[^"]*",', "")), (TABLE, lambda text: text[: len(text) * 3 // 5])), may_wait=True,
)  # fmt: skip
HOME, SEARCHED, VIEWED, ADDED, CHECKOUT, COMPLETED, IDENTIFY = range(7)
_NAMES = (None, "Products Searched", "Product Viewed", "Product Added", "Checkout Started", "Order Completed", None)
_DEVICES = (
    ("mobile", "iOS"),
    ("mobile", "Android"),
    ("desktop", "Windows"),
    ("desktop", "macOS"),
    ("tablet", "iPadOS"),
)
SCHEMA = {
    "person": pl.Int64,
    "device": pl.Int64,
    "signed": pl.Boolean,
    "at": pl.Int64,
    "event": pl.Int64,
    "sku": pl.Int64,
    "order": pl.Int64,
}


def browsing(
    rng: np.random.Generator,
    person: np.ndarray,
    device: np.ndarray,
    signed: np.ndarray,
    at: np.ndarray,
    sku: np.ndarray,
) -> pl.DataFrame:
    """Sessions without an order: the home page or a search, a product, now and then a basket."""
    count = len(person)
    session = pl.DataFrame(
        {"person": person, "device": device, "signed": signed, "at": at, "sku": sku},
        schema_overrides={"person": pl.Int64},
    )
    dice = rng.random((3, count))
    parts = [
        session.with_columns(
            event=pl.Series(np.where(dice[0] < 0.45, HOME, SEARCHED)),
            sku=pl.when(pl.Series(dice[0] >= 0.45)).then("sku"),
        ),
        session.filter(pl.Series(dice[1] < 0.75)).with_columns(pl.col("at") + 25, event=pl.lit(VIEWED)),
        session.filter(pl.Series((dice[1] < 0.75) & (dice[2] < 0.2))).with_columns(
            pl.col("at") + 70, event=pl.lit(ADDED)
        ),
        session.filter(pl.Series(signed & (dice[2] > 0.6))).with_columns(
            pl.col("at") + 12, event=pl.lit(IDENTIFY), sku=pl.lit(None, pl.Int64)
        ),
    ]
    return pl.concat([_conformed(part) for part in parts])


def buying(orders: pl.DataFrame, lines: pl.DataFrame) -> pl.DataFrame:
    """The minutes before an order: a product viewed, each line added, checkout, completion. `orders`: order, person, device, is_signed_in, created."""
    whole = orders.select(
        "order", "person", "device", pl.col("is_signed_in").alias("signed"), pl.col("created").alias("at")
    )
    items = lines.select("order", "sku").with_columns(place=pl.int_range(pl.len()).over("order")).join(
        whole, on="order", how="inner", maintain_order="left"
    )  # fmt: skip
    nothing = pl.lit(None, pl.Int64)
    return pl.concat(
        [
            _conformed(
                items.filter(pl.col("place") == 0).with_columns(pl.col("at") - 400, event=pl.lit(VIEWED), order=nothing)
            ),
            _conformed(
                items.with_columns(pl.col("at") - 385 + pl.col("place") * 40, event=pl.lit(ADDED), order=nothing)
            ),
            _conformed(whole.with_columns(pl.col("at") - 60, event=pl.lit(CHECKOUT), sku=nothing, order=nothing)),
            _conformed(whole.with_columns(event=pl.lit(COMPLETED), sku=nothing)),
        ]
    )


def _conformed(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None, kind).alias(name)).cast(kind)
        for name, kind in SCHEMA.items()
    )


def text(events: pl.DataFrame, people: People, products: Products, first_number: int, first_order_id: int) -> pl.Series:
    """Messages in order of `events` (SCHEMA). Some devices' clocks are wrong, and wrong alike when they sent."""
    person, device, kind = (events[name].to_numpy() for name in ("person", "device", "event"))
    owner = people.duplicates.device[person] * 4 + device
    skewed = fractions(41, owner)
    skew = np.where(skewed < 0.04, (fractions(42, owner) * 7_200 - 3_600).astype(np.int64), 0)
    at = events["at"].to_numpy()
    number = np.arange(first_number, first_number + len(events))
    delay = 1 + (number % 3) + np.where(fractions(43, number) < 0.02, 1_800, 0)  # a phone in a tunnel
    hardware = (fractions(44, owner) * len(_DEVICES)).astype(np.int64)
    names = pl.Series(_NAMES, dtype=pl.String)[kind]
    call = pl.Series(["page", "track", "track", "track", "track", "track", "identify"])[kind]
    query = pl.when(pl.Series(kind == SEARCHED)).then(
        products.frame["title"][events["sku"].fill_null(0)].str.to_lowercase()
    )
    allowed = pl.Series(leans(people, person, 45) * 0.5 + people.wariness[person] * 0.5 < 0.7)
    order = events["order"] + first_order_id
    return json_lines(pl.select(
        messageId=pl.concat_str([pl.lit("ajs-"), pl.Series(number).cast(pl.String).str.zfill(12)]),
        type=call, event=names, name=pl.when(pl.Series(kind == HOME)).then(pl.lit("Home")),
        anonymousId=people.devices(person, device), userId=pl.when(events["signed"]).then(people.text("account_id", person)),
        originalTimestamp=moments(at + skew), sentAt=moments(at + skew + delay - 1), receivedAt=moments(at + delay),
        context=pl.struct(
            device=pl.struct(type=pl.Series([d[0] for d in _DEVICES])[hardware]),
            os=pl.struct(name=pl.Series([d[1] for d in _DEVICES])[hardware]),
            consent=pl.struct(categoryPreferences=pl.struct(analytics=allowed)), gpc=pl.Series(people.has_gpc[person]),
        ),
        properties=pl.struct(
            sku=pl.when(pl.Series(kind != SEARCHED) & events["sku"].is_not_null()).then(products.sku[events["sku"].fill_null(0)]),
            order_id=order.cast(pl.String), query=query,
        ),
    ))  # fmt: skip


def write(landing: Landing, day: int, records: pl.Series) -> None:
    landing.write_records(KIND, day, f"events_{landing.date(day)}.jsonl", records)
