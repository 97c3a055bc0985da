"""The measures of a simulated retailer against what really was: the simulator's truth and its landed files, counted by another road."""

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from orchestration import stages, taking
from orchestration.catalog import SOURCES
from simulator import TINY, simulate
from tests.builders import build_marts, rows_of
from troth.clock import FixedClock
from troth.home import Home

pytestmark = pytest.mark.slow  # one dbt run
SCALE = replace(TINY, people=150, days=9)
VALUES = ("numerator", "denominator", "value")
IN_TIME = pl.col("fulfilled_at") - pl.col("promised_at") < pl.duration(minutes=1)  # late is by a whole minute


@dataclass(frozen=True)
class Built:
    """A home, its warehouse, and its web orders as they really went, with method and cancellation as the shop told them last."""

    home: Home
    warehouse: Path
    orders: pl.DataFrame
    heard_until: datetime

    def share(self, measure: str, **grain: str) -> tuple[int, int]:
        """Numerator and denominator."""
        found = self._rows(
            "numerator, denominator", measure, statistic_type=grain.pop("statistic_type", "share"), **grain
        )
        assert len(found) == 1, (measure, grain, found)
        return (int(found[0][0]), int(found[0][1]))

    def time(self, measure: str, statistic: str) -> float:
        return float(self._rows("value", measure, statistic_type=statistic)[0][0])

    def _rows(self, columns: str, measure: str, **grain: str) -> list[tuple[float, ...]]:
        wanted = {"period_type": "all", "location_code": "*", "fulfillment_method": "*", "category_name": "*", **grain}
        table = pl.DataFrame(
            rows_of(self.warehouse, "select columns(* exclude period_start) from fulfilment_measures"), orient="row",
            schema=["measure_name", "statistic_type", "period_type", "location_code", "fulfillment_method", "category_name", *VALUES, "unit_type"],
            infer_schema_length=None,
        )  # fmt: skip
        mine = table.filter(
            pl.col("measure_name") == measure, *(pl.col(name) == value for name, value in wanted.items())
        )
        return mine.select(columns.split(", ")).rows()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    home = Home(tmp_path_factory.mktemp("measures"))
    simulate(home, SCALE, 5)
    for source in SOURCES:
        taking.take(home, taking.plan(home, source.name), workers=1)
    known_until = stages.known_until(home)
    stages.append_consents(home, FixedClock(known_until), lambda *_: None)
    warehouse = build_marts(home.raw, home.root, known_until.isoformat(), only=("fulfilment_measures",))
    told = raw(home, "raw_ecommerce__orders").sort("updated_at", "received_at").unique("order_id", keep="last")
    told = told.select(
        "fulfillment_method", "cancel_reason", order_id=pl.lit("ecommerce/") + pl.col("order_id"), is_cancelled=pl.col("cancelled_at").is_not_null(),
    )  # fmt: skip
    true = pl.read_parquet(home.truth / "orders.parquet").filter(
        ~pl.col("is_test"), pl.col("source_name") == "ecommerce"
    )
    newest = [
        raw(home, f"raw_ecommerce__{name}")["updated_at"].max()
        for name in ("orders", "fulfillments", "fulfillment_orders")
    ]
    return Built(home, warehouse, true.join(told, on="order_id"), max(at for at in newest if isinstance(at, datetime)))


def raw(home: Home, table: str) -> pl.DataFrame:
    return pl.read_parquet(home.raw / table / "**" / "*.parquet")


def landed_picks(home: Home) -> pl.DataFrame:
    """Picks as the files have them: a line with a word for a number or cut short is none, one that came twice is one."""
    lines = [line.split(",") for path in home.landing.glob("wms/*/picks_*") for line in path.read_text().splitlines()]
    whole = [
        line
        for line in lines
        if len(line) == len(lines[0]) and line[4].isdigit() and line[5].isdigit() and "Z" in line[9]
    ]
    picks = pl.DataFrame([(line[0], line[2], int(line[4]), int(line[5])) for line in whole], orient="row",
                         schema=["pick_id", "location_code", "asked", "found"])  # fmt: skip
    return picks.unique("pick_id")


def due(built: Built) -> pl.DataFrame:
    return built.orders.filter(
        pl.col("promised_at") <= built.heard_until, pl.col("cancel_reason").fill_null("") != "customer"
    )


def test_promises_kept_are_those_that_truly_were_in_time_and_in_full(built: Built) -> None:
    orders = due(built)
    kept = IN_TIME & (pl.col("order_status") == "fulfilled")
    assert built.share("promise_kept") == (orders.filter(kept).height, orders.height)
    for (method,), mine in orders.group_by("fulfillment_method"):
        assert built.share("promise_kept", fulfillment_method=str(method)) == (mine.filter(kept).height, mine.height)
    assert 0 < orders.filter(kept).height < orders.height


def test_orders_on_time_are_those_whose_goods_truly_came_by_the_promised_time(built: Built) -> None:
    orders = due(built).filter(~pl.col("is_cancelled"))
    assert built.share("on_time") == (
        orders.filter(IN_TIME).height,
        orders.height,
    )


def test_what_was_oversold_is_what_the_truth_gave_up_for_want_of_stock(built: Built) -> None:
    done = built.orders.filter(pl.col("order_status") != "open", pl.col("cancel_reason").fill_null("") != "customer")
    given_up = done.filter((pl.col("order_status") == "partial") | (pl.col("cancel_reason") == "inventory"))
    assert built.share("oversold_orders") == (given_up.height, done.height)
    assert built.share("order_fill") == (done.filter(pl.col("order_status") == "fulfilled").height, done.height)
    assert given_up.height


def test_nil_and_short_picks_are_those_of_the_landed_files_in_all_and_by_store(built: Built) -> None:
    picks = landed_picks(built.home)
    nil, short = pl.col("found") == 0, (pl.col("found") > 0) & (pl.col("found") < pl.col("asked"))
    assert built.share("nil_pick") == (picks.filter(nil).height, picks.height)
    assert built.share("short_pick") == (picks.filter(short).height, picks.height)
    for (store,), mine in picks.group_by("location_code"):
        assert built.share("nil_pick", location_code=str(store)) == (mine.filter(nil).height, mine.height)
    assert picks.filter(nil).height


def test_records_are_as_accurate_as_counts_beside_the_true_books_say(built: Built) -> None:
    steps = raw(built.home, "raw_wms__epcis_events")
    wrong = steps.filter("is_error_declaration")["event_id"].to_list()
    told = steps.filter(
        pl.col("biz_step") == "cycle_counting", pl.col("action") == "OBSERVE", ~pl.col("event_id").is_in(wrong)
    )
    products, places = raw(built.home, "raw_ecommerce__products"), raw(built.home, "raw_wms__locations")
    counts = (
        told.unique(["event_id", "item_number"])
        .join(products.select("gtin", "sku").unique(), on="gtin")
        .join(places.select("location_code", biz_location="gln").unique(), on="biz_location")
        .group_by("event_id", "location_code", "sku", "occurred_at")
        .agg(counted=pl.col("quantity_units").sum())
    )
    movements = pl.read_parquet(built.home.truth / "recorded_movements.parquet")
    books = counts.join(movements, on=["location_code", "sku"], suffix="_moved").filter(
        pl.col("occurred_at_moved") <= pl.col("occurred_at")
    )
    compared = books.group_by("event_id", "location_code", "sku").agg(
        recorded=pl.col("units").sum(), counted=pl.col("counted").first()
    )
    off = (pl.col("recorded") - pl.col("counted")).abs()
    for measure, right in (
        ("record_exact", off == 0),
        ("record_within_tolerance", (off <= 1) | (off <= 0.05 * pl.col("counted"))),
        ("record_sign", (pl.col("recorded") > 0) == (pl.col("counted") > 0)),
    ):
        assert built.share(measure) == (compared.filter(right).height, compared.height)
    assert 0 < compared.filter(off == 0).height < compared.height


def test_time_to_ready_and_delivery_time_are_the_true_times(built: Built) -> None:
    met = built.orders.filter(pl.col("fulfilled_at").is_not_null(), ~pl.col("is_cancelled"))
    seconds = met.with_columns(seconds=(pl.col("fulfilled_at") - pl.col("ordered_at")).dt.total_seconds())
    collected = pl.col("fulfillment_method").is_in(["click_and_collect", "curbside"])
    for measure, mine in (("time_to_ready", seconds.filter(collected)), ("delivery_time", seconds.filter(~collected))):
        times = mine["seconds"].sort()
        assert built.share(measure, statistic_type="mean") == (times.sum(), len(times))
        for statistic, part in (("p50", 0.50), ("p90", 0.90), ("p95", 0.95)):
            assert built.time(measure, statistic) == min(time for time in times if (times <= time).mean() >= part)


def test_every_case_of_a_measure_is_in_one_week(built: Built) -> None:
    query = """
        select measure_name, sum(numerator) filter (period_type = 'all') - sum(numerator) filter (period_type = 'week'),
            sum(denominator) filter (period_type = 'all') - sum(denominator) filter (period_type = 'week')
        from fulfilment_measures
        where period_type <> 'now' and location_code = '*' and fulfillment_method = '*' and category_name = '*' and statistic_type in ('share', 'mean')
        group by measure_name"""
    apart = rows_of(built.warehouse, query)
    assert len(apart) >= 15
    assert {(row[1], row[2]) for row in apart} == {(0, 0)}
