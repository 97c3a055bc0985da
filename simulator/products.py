"""What the retailer sells: categories, brands, prices, a long tail of popularity, and the season of each category."""

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from simulator.scale import Scale
from simulator.spelling import COMPANY_PREFIX, with_check_digit

# name, list price in cents (median), grams, week of the year in which it sells best, how strongly, brands, nouns
CATEGORIES = (
    (
        "Kitchen",
        2400,
        700,
        50,
        0.5,
        ("Copper Kettle", "Alder", "Hearthstone", "Nonna", "Plainware"),
        ("Skillet", "Mill", "Colander", "Carafe", "Board", "Whisk"),
    ),
    (
        "Garden",
        1900,
        1500,
        19,
        0.9,
        ("Fernhill", "Loam", "Greenspan", "Thistle", "Old Spade"),
        ("Trowel", "Planter", "Hose", "Shears", "Lantern", "Seed Set"),
    ),
    (
        "Bedding",
        4500,
        1200,
        4,
        0.3,
        ("Lull", "Snowfield", "Linden", "Quiet Hours", "Plainware"),
        ("Duvet", "Pillow", "Sheet Set", "Throw", "Quilt"),
    ),
    (
        "Toys",
        1600,
        400,
        49,
        1.2,
        ("Pip", "Tumble", "Kite & Co", "Marble", "Bramble"),
        ("Puzzle", "Blocks", "Kite", "Train", "Bear", "Game"),
    ),
    (
        "Apparel",
        2900,
        300,
        40,
        0.4,
        ("Harbour", "Tamarack", "Juno", "Field Day", "Northline"),
        ("Shirt", "Jacket", "Socks", "Scarf", "Trousers", "Cap"),
    ),
    (
        "Footwear",
        6200,
        900,
        35,
        0.4,
        ("Cobble", "Northline", "Strider", "Juno", "Marsh"),
        ("Boots", "Sneakers", "Sandals", "Slippers"),
    ),
    (
        "Beauty",
        1300,
        150,
        7,
        0.3,
        ("Salt Rose", "Verbena", "Dew", "Clay", "Marigold"),
        ("Balm", "Soap", "Serum", "Shampoo", "Lotion"),
    ),
    (
        "Pantry",
        700,
        500,
        47,
        0.3,
        ("Nonna", "Millrace", "Sunday", "Orchard", "Saltworks"),
        ("Olive Oil", "Granola", "Tea", "Honey", "Salt & Pepper Set", "Pasta"),
    ),
    (
        "Electronics",
        5900,
        450,
        48,
        0.8,
        ("Volta", "Lumen", "Hertz", "Northline", "Relay"),
        ("Headphones", "Charger", "Speaker", "Lamp", "Clock"),
    ),
    (
        "Sports",
        3300,
        800,
        24,
        0.6,
        ("Strider", "Cairn", "Field Day", "Rapid", "Marsh"),
        ("Mat", "Bottle", "Tent", "Ball", "Racket", "Towel"),
    ),
    (
        "Books",
        1500,
        350,
        49,
        0.4,
        ("Lantern Press", "Quarto", "Foolscap", "Marginalia", "Blue Door"),
        ("Novel", "Atlas", "Cookbook", "Diary", "Picture Book"),
    ),
    (
        "Pets",
        1400,
        900,
        1,
        0.1,
        ("Bramble", "Whisker", "Good Dog", "Pondlife", "Plainware"),
        ("Leash", "Bowl", "Bed", "Kibble", "Scratch Post"),
    ),
)
MANNERS = (
    "Classic",
    "Little",
    "Grand",
    "Everyday",
    "Sunday",
    "Traveller's",
    "Folding",
    "Heirloom",
    "Striped",
    "Blue",
    "Ochre",
    "Moss",
)
BRANDS = 5


@dataclass(frozen=True)
class Products:
    """SKUs in order of category and brand, so that either is one stretch of the cumulative weight."""

    frame: pl.DataFrame
    sku: pl.Series
    gtin: pl.Series
    epc_class: pl.Series
    category: np.ndarray
    price: np.ndarray
    weight: np.ndarray
    cumulative: np.ndarray
    category_start: np.ndarray
    brand_start: np.ndarray  # flat: category x BRANDS, and the end
    categories: tuple[str, ...]
    brands: tuple[tuple[str, ...], ...]
    is_serialised: np.ndarray  # small quantities are listed one by one

    def __len__(self) -> int:
        return len(self.sku)


def stock_shelves(scale: Scale, seed: int) -> Products:
    """The assortment: categories of similar size, five brands each, a long tail of popularity."""
    rng = np.random.default_rng([seed, 2])
    count = scale.skus
    kinds = CATEGORIES[: max(1, min(len(CATEGORIES), count // 4))]
    category = np.sort(rng.integers(0, len(kinds), count))
    brand = rng.integers(0, BRANDS, count)
    order = np.lexsort((brand, category))
    category, brand = category[order], brand[order]
    weight = rng.lognormal(0.0, 1.2, count)
    typical = np.array([kind[1] for kind in kinds])[category]
    price = np.maximum(199, (typical * rng.lognormal(0.0, 0.5, count) / 100).round() * 100 - 1).astype(np.int64)
    grams = (np.array([kind[2] for kind in kinds])[category] * rng.lognormal(0, 0.4, count)).astype(np.int64) + 20
    cost = (price * rng.uniform(0.40, 0.65, count)).astype(np.int64)
    manner, noun = rng.integers(0, len(MANNERS), count), rng.integers(0, 60, count)
    brand_names = [kinds[c][5][b] for c, b in zip(category, brand, strict=True)]
    titles = [
        f"{name} {MANNERS[m]} {kinds[c][6][n % len(kinds[c][6])]}"
        for name, m, c, n in zip(brand_names, manner, category, noun, strict=True)
    ]
    gtin = pl.Series(with_check_digit([f"0{COMPANY_PREFIX}{n + 1:05d}" for n in range(count)]))
    sku = pl.Series([f"SKU-{n + 1:05d}" for n in range(count)])
    frame = pl.DataFrame({
        "sku": sku, "gtin": gtin, "title": titles, "brand": brand_names, "category": [kinds[c][0] for c in category],
        "price": price, "cost": cost, "grams": grams,
    })  # fmt: skip
    starts = np.searchsorted(category * BRANDS + brand, np.arange(len(kinds) * BRANDS + 1))
    return Products(
        frame=frame, sku=sku, gtin=gtin,
        epc_class=pl.Series([f"{COMPANY_PREFIX}.0{n + 1:05d}" for n in range(count)]),
        category=category, price=price, weight=weight, cumulative=np.r_[0.0, np.cumsum(weight)],
        category_start=np.searchsorted(category, np.arange(len(kinds) + 1)), brand_start=starts,
        categories=tuple(kind[0] for kind in kinds), brands=tuple(kind[5] for kind in kinds),
        is_serialised=(rng.random(count) < 0.03) | (np.arange(count) == count // 2),
    )  # fmt: skip


def season(products: Products, day_of_year: int) -> np.ndarray:
    """How much more (or less) each category is wanted on a day: a cosine around its best week."""
    week = day_of_year / 7.0
    kinds = CATEGORIES[: len(products.categories)]
    peak, swing = np.array([kind[3] for kind in kinds]), np.array([kind[4] for kind in kinds])
    wanted: np.ndarray = np.exp(swing * np.cos((week - peak) / 52.0 * 2 * math.pi))
    return wanted
