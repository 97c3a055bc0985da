"""Tomorrow's counts: the positions whose count is worth most per minute, and why."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from models.stock.belief.beliefs import Beliefs, Floats, Ints, mean_units
from models.stock.belief.calibration import Calibration
from models.stock.belief.filtering import demand_rates, found_probability
from troth.home import Home
from troth.published import current

TABLE = "pred_stock_counts"


@dataclass(frozen=True)
class Prices:
    """What errors cost, in cents, and what a count takes."""

    failed_promise_cents: float = 800.0  # refund, apology, another way found; beside the margin
    margin_share: float = 0.35
    minutes_per_count: float = 1.0
    minutes_per_unit: float = 0.05
    horizon_days: float = 14.0  # as long as nobody would have noticed otherwise
    reorder_units: int = 1  # books above this order nothing


def counts_worth(home: Home, location: str | None, top: int) -> pl.DataFrame:
    """The published list, best first: of one location, or of all. Raises: TrothError when nothing was believed yet."""
    found = pl.scan_parquet(current(home, TABLE))
    if location is not None:
        found = found.filter(pl.col("location_code") == location)
    return found.head(top).collect()


def count_list(
    beliefs: Beliefs,
    products: pl.DataFrame,
    count: int,
    prices: Prices | None = None,
    calibration: Calibration | None = None,
) -> pl.DataFrame:
    """The positions most worth counting: location_code, sku, value_cents, minutes, value_cents_per_minute, books_units, mean_units, p_zero, reason; best first.

    `products`: sku, price_cents. Value: what wrong books would cost over the horizon - promises that fail and sales lost to a shelf that nobody refills
    because the books say it is full, or to goods that are there and offered to nobody - times the probability that they are wrong so.
    """
    prices = prices or Prices()
    present = found_probability(beliefs, [1])[:, 0]
    present = calibration.applied(present) if calibration else present
    rates, days = demand_rates(beliefs) * beliefs.parameters.units_per_line, prices.horizon_days
    price = beliefs.items.join(products.select("sku", "price_cents"), on="sku", how="left", maintain_order="left")[
        "price_cents"
    ].fill_null(0)
    margin = price.to_numpy().astype(np.float32)[beliefs.item] * np.float32(prices.margin_share)
    asked = beliefs.asked / max(beliefs.days, 1.0)
    offered = beliefs.books > 0
    phantom = np.where(offered, 1 - present, 0)
    broken = phantom * asked * days * (prices.failed_promise_cents + margin)
    unfilled = np.where(beliefs.books > prices.reorder_units, phantom, 0) * rates * days * margin
    hidden = np.where(offered, 0, present) * (asked + 0.25 * rates) * days * margin
    expected = mean_units(beliefs.base, beliefs.mass)
    minutes = prices.minutes_per_count + prices.minutes_per_unit * expected
    value = broken + unfilled + hidden
    worth = value / minutes
    best = np.argsort(-worth, kind="stable")[:count]
    return (
        beliefs.positions[best]
        .with_columns(
            value_cents=_rounded(value[best], 2), minutes=_rounded(minutes[best], 2),
            value_cents_per_minute=_rounded(worth[best], 2), books_units=pl.Series(beliefs.books[best]),
            mean_units=_rounded(expected[best], 2), p_zero=_rounded(1 - present[best], 4),
            reason=pl.Series(_reasons(beliefs, best.astype(np.int32), present)),
        )
    )  # fmt: skip


def _rounded(values: Floats, digits: int) -> pl.Series:
    return pl.Series(values.astype(np.float64).round(digits))


def _reasons(beliefs: Beliefs, rows: Ints, present: Floats) -> list[str]:
    """One sentence each: what makes the books doubtful."""
    sentences = []
    for row in rows:
        books, missed, seen = int(beliefs.books[row]), int(beliefs.missed_day[row]), int(beliefs.seen_day[row])
        if books <= 0:
            sentences.append(f"books say {books}, yet something is there with {present[row]:.0%}")
        elif missed > max(seen, int(beliefs.counted_day[row])):
            sentences.append(f"books say {books}, yet the last pick found too little")
        elif beliefs.quiet[row] >= 1:
            sentences.append(f"books say {books}, yet nothing sold while {beliefs.quiet[row]:.1f} sales were due")
        else:
            sentences.append(f"books say {books}, yet all evidence leaves {present[row]:.0%} for a single piece")
    return sentences
