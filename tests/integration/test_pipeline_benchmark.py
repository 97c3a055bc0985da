"""The models and the hand-written script of the pipeline benchmark compute the same tables; and a difference does not pass."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest

from benchmarks.pipeline import (
    BenchmarkError,
    Prepared,
    UnknownScaleError,
    compare,
    measure,
    peer_database,
    prepare,
    published_tables,
    run_dbt,
    run_peer,
)
from orchestration.identities import MEMBERS
from orchestration.progress import Silent
from orchestration.raw import made_table, write_table
from simulator import TINY
from troth.home import Home

pytestmark = pytest.mark.slow  # one dbt run
TABLES_PUBLISHED = 39


def told_besides(raw: Path) -> Iterator[tuple[str, pl.DataFrame]]:
    """Rows that sources may send and the simulator does not, made from rows it sent."""

    def sent(table: str, count: int) -> pl.DataFrame:
        rows = pl.read_parquet(raw / table / "**/*.parquet").sort("file_hash", "record_offset")
        return rows.head(count).with_columns(record_offset=pl.col("record_offset") + 1_000_000)

    tills = {
        "nobody's": (None, "99"),
        "zulu": ("Z", "1"),
        "half an hour off": ("+05:30", "2"),
        "behind": ("-0330", "1"),
    }
    for table in ("raw_pos__transactions", "raw_pos__sale_lines"):
        rows = sent(table, 400)
        for till, (offset, store) in tills.items():
            twisted = rows.with_columns(store_code=pl.lit(store), workstation_code=pl.lit(till)).unique(
                [c for c in ("sequence_number", "business_date", "line_number") if c in rows.columns], keep="first"
            )
            if "utc_offset" in rows.columns:
                twisted = twisted.with_columns(utc_offset=pl.lit(offset, pl.String))
            yield table, twisted
    accounts = sent("raw_ecommerce__customers", 8)["account_ref"]
    refunds = sent("raw_ecommerce__refund_lines", 8)
    levels = sent("raw_ecommerce__inventory_levels", 9)["location_id"]
    yield (
        "raw_ecommerce__refund_lines",
        refunds.with_columns(
            refund_id="of-account-" + pl.col("refund_id"),
            order_id=pl.lit(None, pl.String),
            account_ref=pl.Series(accounts.head(refunds.height)),
            location_id=pl.Series(levels.head(refunds.height)),
            restock_type=pl.when(pl.int_range(pl.len()) % 2 == 0)
            .then(pl.lit("return"))
            .otherwise(pl.lit("no_restock")),
        ),
    )
    odd = sent("raw_ecommerce__refunds", 6)
    yield (
        "raw_ecommerce__refunds",
        odd.with_columns(
            refund_id="odd-" + pl.col("refund_id"),
            order_id=pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit("nobody's")).otherwise("order_id"),
            shipping_cents=pl.lit(495, pl.Int64),
            adjustment_cents=pl.int_range(pl.len()).cast(pl.Int64) * 100 - 200,
        ),
    )
    versions = sent("raw_ecommerce__orders", 40)
    yield (
        "raw_ecommerce__orders",
        versions.with_columns(
            updated_at=pl.col("updated_at") + timedelta(days=3),
            cancelled_at=pl.lit(None, versions.schema["cancelled_at"]),
            fulfillment_status=pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("partial")),
            financial_status=pl.when(pl.int_range(pl.len()) % 3 == 0)
            .then(pl.lit("pending"))
            .otherwise("financial_status"),
        ).unique("order_id", keep="first"),
    )
    promises = sent("raw_ecommerce__fulfillment_orders", 12)
    yield (
        "raw_ecommerce__fulfillment_orders",
        promises.with_columns(
            updated_at=pl.col("updated_at") + timedelta(hours=1),
            promised_at=pl.when(pl.int_range(pl.len()) % 2 == 0).then("promised_at"),
            fulfill_by_at=pl.col("promised_at") - timedelta(days=2),
        ),
    )
    parcels = sent("raw_ecommerce__fulfillments", 30)
    states = ["in_transit", "out_for_delivery", "label_printed", None, "attempted_delivery"]
    yield (
        "raw_ecommerce__fulfillments",
        parcels.with_columns(
            updated_at=pl.col("updated_at") + timedelta(hours=3),
            shipment_status=pl.Series([states[number % 5] for number in range(parcels.height)]),
            status_code=pl.Series([["success", "cancelled", None][number % 3] for number in range(parcels.height)]),
        ).unique(["fulfillment_id", "line_id", "updated_at"], keep="first"),
    )
    products = sent("raw_ecommerce__products", 9)
    schema = pl.read_parquet_schema(raw / "raw_ecommerce__adjustments" / "schema.parquet")
    yield (
        "raw_ecommerce__adjustments",
        products.select(
            adjustment_id=pl.col("sku") + "-" + pl.int_range(pl.len()).cast(pl.String),
            adjusted_at=pl.col("updated_at"),
            adjustment_type=pl.when(pl.col("sku") == pl.col("sku").max())
            .then(pl.lit("money"))
            .otherwise(pl.lit("stock")),
            sku=pl.col("sku"),
            location_id=pl.Series(levels.head(products.height)),
            quantity_units=pl.lit(-3, pl.Int64),
            net_cents=pl.lit(0, pl.Int64),
            currency_code=pl.lit("USD"),
            reason_name=pl.lit("thrown away"),
            source_file=pl.col("source_file"),
            file_hash=pl.col("file_hash"),
            record_offset=pl.col("record_offset"),
            received_at=pl.col("received_at"),
        ).cast(dict(schema)),
    )


def tie_payment_cards(home: Home) -> None:
    """Twenty receipts' payment cards are customers': of so few people, and consent asked, none would be."""
    members = pl.read_parquet(made_table(home, MEMBERS))
    receipts = pl.read_parquet(home.raw / "raw_pos__transactions/**/*.parquet").filter(
        pl.col("loyalty_card_ref").is_null()
    )
    cards = receipts["payment_ref"].drop_nulls().unique().sort().head(20)
    hubs = members.filter(pl.col("link_type") == "hub", ~pl.col("is_test")).sort("identity_ref").head(cards.len())
    ties = hubs.with_columns(identity_ref=cards, identity_type=pl.lit("payment"), link_type=pl.lit("payment"))
    write_table(home, MEMBERS, pl.concat([members.filter(pl.col("identity_type") != "payment"), ties]))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    home = Home(tmp_path_factory.mktemp("tiny"))
    taken = prepare(home, TINY, 11, Silent())
    for number, (table, rows) in enumerate(told_besides(home.raw)):
        path = home.raw / table / f"day=besides-{number}" / "data.parquet"
        path.parent.mkdir()
        rows.write_parquet(path)
    tie_payment_cards(home)
    received = pl.scan_parquet(home.raw / "raw_pos__transactions/**/*.parquet").select("received_at").unique().collect()
    newest_day = received["received_at"].dt.truncate("1d").max()
    # As it was known a moment before the newest day's files came: what is received later must not be seen.
    return replace(taken, as_of_at=newest_day - timedelta(seconds=1))


@pytest.fixture(scope="module")
def built(prepared: Prepared) -> Prepared:
    unparsed = prepared.home.root / "unparsed"
    unparsed.mkdir()
    run_dbt(prepared, "run", unparsed)
    run_peer(prepared)
    return prepared


def tables(built: Prepared) -> list[str]:
    return published_tables(built.home.root / "dbt_target")


def test_models_and_hand_written_script_give_the_same_tables(built: Prepared) -> None:
    assert compare(built.home, tables(built)) == TABLES_PUBLISHED


def test_what_is_compared_is_not_empty(built: Prepared) -> None:
    counts = "select table_name, estimated_size from duckdb_tables() where schema_name = 'main'"
    with duckdb.connect(str(built.home.warehouse), read_only=True) as connection:
        rows = dict(connection.execute(counts).fetchall())
    assert [table for table in tables(built) if not rows[table]] == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("delete from returns where return_line_id = (select min(return_line_id) from returns)", "returns: expected the same rows"),
        ("update products set cost_cents = cost_cents + 1 where sku = (select min(sku) from products)", "of which 1 and 1 have no equal"),
        ("alter table availability drop column safety_units", r"availability: expected the same columns .*\['safety_units'\]"),
        ("drop table orders", "orders: expected the same columns"),
        ("update refunds set net_cents = net_cents + 1 where refund_line_id = (select max(refund_line_id) from refunds)", "refunds: .* of which 1 and 1"),
    ],
)  # fmt: skip
def test_a_difference_fails_with_the_table_and_what_differs(
    built: Prepared, tmp_path: Path, change: str, found: str
) -> None:
    home = Home(tmp_path)
    shutil.copyfile(built.home.warehouse, home.warehouse)
    shutil.copyfile(peer_database(built.home), peer_database(home))
    with duckdb.connect(str(peer_database(home))) as connection:
        connection.execute(change)
    with pytest.raises(BenchmarkError, match=found):
        compare(home, tables(built))


def test_comparing_nothing_does_not_pass(built: Prepared) -> None:
    with pytest.raises(BenchmarkError, match="expected some to compare, found none"):
        compare(built.home, [])


def test_a_program_that_fails_says_why(built: Prepared) -> None:
    nowhere = replace(built, home=Home(built.home.root / "nowhere"))
    nowhere.home.root.mkdir()
    with pytest.raises(BenchmarkError, match="No files found"):
        run_peer(nowhere)


def test_a_scale_nobody_named_is_misuse() -> None:
    with pytest.raises(UnknownScaleError, match="expected one of tiny, small, medium, large, found enormous"):
        next(measure("enormous"))
