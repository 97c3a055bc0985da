"""What is believed of stock, after every build of the marts: learned once there is something to learn from, believed anew, published for readers.

Safety stock that belief asks for is a decision with its time: SQL reads those that were made before the time it computes for, so that the same
raw tables give the same availability whenever they are computed.
"""

from collections.abc import Callable
from datetime import datetime

import polars as pl

from models.tables import naive, read, versions, write
from orchestration.raw import read_table, write_table
from serving.operations.runs import BeliefRow
from troth.home import Home

TABLE, COUNTS, SAFETY = "pred_stock_belief", "pred_stock_counts", "stock_belief"
MOST_COUNTS = 5_000  # positions that are listed for counting
_COLUMNS = {
    "stock_movements": ("movement_id", "location_code", "sku", "movement_type", "units", "occurred_at", "known_at"),
    "stock_picks": ("location_code", "sku", "asked_units", "picked_units", "picked_at", "known_at"),
    "stock_counts": ("location_code", "sku", "count_type", "counted_units", "counted_at", "known_at"),
    "products": ("sku", "category_name", "price_cents"),
    "locations": ("location_code", "location_type", "timezone_name"),
}
LEAST_PICKS = 500  # fewer teach nothing that would not be chance


def believe_stock(home: Home, as_of_at: datetime, advance: Callable[[str, int, int], None]) -> BeliefRow:
    """Believe all positions by what the published tables know, publish that and what to count next, and decide safety stock from it."""
    from models.stock.belief import model as models
    from models.stock.belief.believing import beliefs_at, published
    from models.stock.belief.counting import count_list
    from models.stock.belief.evidence import Tables

    frames = {table: read(home, table, columns) for table, columns in _COLUMNS.items()}
    tables = Tables(
        frames["stock_movements"], frames["stock_picks"], frames["stock_counts"].filter(pl.col("count_type") == "cycle"),
        frames["products"], frames["locations"],
    )  # fmt: skip
    model, learned, until = models.in_use(home), False, naive(as_of_at)
    if not model.version and tables.picks.height >= LEAST_PICKS:
        advance("believe stock", 0, 2)
        model, learned = models.trained(tables, until), True
        models.keep(home, model, versions(home, _COLUMNS))
        model = models.in_use(home)
    advance("believe stock", 1, 2)
    beliefs = beliefs_at(tables, until, model.parameters)
    believed = published(beliefs, model.calibration, model.version)
    write(home, TABLE, believed)
    worth = count_list(beliefs, tables.products, MOST_COUNTS, calibration=model.calibration)
    write(home, COUNTS, worth)
    changes = decide_safety(home, believed, until)
    advance("believe stock", 2, 2)
    doubtful = believed.filter((pl.col("books_units") > 0) & (pl.col("p_zero") > 0.5)).height
    return BeliefRow(
        positions=believed.height, picks=tables.picks.height, model_version=model.version, is_learned_now=learned, doubtful=doubtful,
        safety_changes=changes, worth_counting=worth.height,
    )  # fmt: skip


def decide_safety(home: Home, believed: pl.DataFrame, until: datetime) -> int:
    """Add what changed since the last decision; how many. Decided again for the same time, the later word counts."""
    key = ["location_code", "sku"]
    wanted = believed.select(*key, pl.col("safety_units").cast(pl.Int64), decided_at=pl.lit(until, pl.Datetime("us")))
    decided = read_table(home, SAFETY)
    if decided is None or not decided.height:
        write_table(home, SAFETY, wanted)
        return wanted.height
    before = decided.filter(pl.col("decided_at") < until)
    write_table(home, SAFETY, pl.concat([before, _otherwise(wanted, before)]).sort("decided_at", *key))
    return _otherwise(wanted, decided).height


def _otherwise(wanted: pl.DataFrame, decided: pl.DataFrame) -> pl.DataFrame:
    """What is wanted and does not stand already by the newest decision on its position."""
    key = ["location_code", "sku"]
    standing = decided.sort("decided_at").unique(key, keep="last")
    return wanted.join(standing, on=[*key, "safety_units"], how="anti")
