"""A small simulated retailer, read by the readers and built by dbt once: the marts against the truth kept aside."""

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest

from consent.rule.identity import joined_frame
from consent.rule.policy import read_policy
from consent.rule.standing import standing_frame
from models.stock.atp import PARTS, Dated, Stock, available, available_at, available_sql
from orchestration import stages, taking
from orchestration.catalog import SOURCES
from simulator import TINY, simulate
from tests.builders import build_marts, rows_of
from troth.clock import FixedClock
from troth.home import Home

SEED = 11
SAID = (
    *("grant",) * 60, *("notice_shown",) * 20, *("refuse", "withdraw", "object", "signal_seen", "renew", "confirm") * 5,
    *("expire", "expire", "restrict", "unrestrict", "erased", "identity_linked", "identity_unlinked"),
)  # fmt: skip


@dataclass(frozen=True)
class Built:
    """A home whose marts are built, and the time they know until."""

    home: Home
    warehouse: Path
    known_until: datetime


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    home = Home(tmp_path_factory.mktemp("truth"))
    simulate(home, TINY, SEED)
    for source in SOURCES:
        taking.take(home, taking.plan(home, source.name), workers=1)
    known_until = stages.known_until(home)
    stages.append_consents(home, FixedClock(known_until), lambda *_: None)
    _say_more(home, known_until)
    warehouse = build_marts(home.raw, home.root, known_until.isoformat())
    return Built(home, warehouse, known_until)


def _say_more(home: Home, known_until: datetime) -> None:
    """Add to the exported ledger what a simulation is too tame to say: clocks that disagree, ties, replays, wide refusals,
    renewals, confirmations, restrictions, erasures, notices shown, links made and broken."""
    path = home.raw / "consent_ledger" / "data.parquet"
    ledger = pl.read_parquet(path)
    leaves = pl.DataFrame(list(_sayings(ledger, known_until)), schema=ledger.schema, orient="row")
    whole = pl.concat([ledger, leaves]).with_columns(
        pl.lit(ledger.height + leaves.height, pl.Int64()).alias("ledger_size")
    )
    whole.write_parquet(path)
    joined_frame(whole).write_parquet(home.raw / "consent_links" / "data.parquet")


def _sayings(ledger: pl.DataFrame, known_until: datetime) -> Iterator[dict[str, object]]:
    chance = random.Random(SEED)
    subjects = ledger["subject_id"].unique(maintain_order=True).to_list()
    purposes = [*read_policy().purposes, "*"]
    days = [timedelta(days=days) for days in (0, 1, 1, 2, 3, 200, 400, 800)]
    for number in range(4_000):
        received_at = known_until - chance.choice(days)
        kind = chance.choice(SAID)
        known_as = 3 * chance.randrange(len(subjects) // 3)  # links stay among three
        sides = chance.sample(subjects[known_as : known_as + 3], 2)
        is_link = kind.startswith("identity_")
        yield {
            "leaf_index": ledger.height + number,
            "subject_id": sides[0],
            "linked_subject_id": sides[1] if is_link else None,
            "link_type": chance.choice(["hub", "deterministic", "contact"]) if is_link else None,
            "event_type": kind,
            "purpose_code": chance.choice(purposes),
            "channel_code": chance.choice(["*", "*", *read_policy().channels]),
            "occurred_at": received_at + chance.choice([timedelta(0), timedelta(days=5), -timedelta(days=5)]),
            "recorded_at": received_at + chance.choice([timedelta(0), timedelta(hours=1), -timedelta(days=1)]),
            "received_at": received_at,
            "notice_id": chance.choice([*read_policy().notices, None, "unheard_of"]),
            "notice_version": chance.choice([1, 1, 2, None]),
            "language_code": "en",
            "capture_method": chance.choice(["gpc", "form_tick"]),
            "capture_place": "web_banner",
            "actor_type": "subject",
            "jurisdiction_code": chance.choice(["US-CA", "US-NY", "GB", "GB", "DE"]),
            "signal_id": f"more-{number}",
        }


def test_every_position_equals_the_recorded_truth(built: Built) -> None:
    movements = pl.read_parquet(built.home.truth / "recorded_movements.parquet")
    truth = movements.group_by("location_code", "sku").agg(pl.col("units").sum()).sort("location_code", "sku")
    query = "select location_code, sku, on_hand_units from stock_positions order by all"
    assert rows_of(built.warehouse, query) == truth.rows()
    assert truth.height == (TINY.stores + TINY.distribution_centers) * TINY.skus


def test_every_order_equals_the_truth_to_the_cent(built: Built) -> None:
    orders = pl.read_parquet(built.home.truth / "orders.parquet").filter(~pl.col("is_test")).sort("order_id")
    truth = orders.select("order_id", "net_cents", "tax_cents", "shipping_cents", "order_status").rows()
    query = "select order_id, net_cents, tax_cents, shipping_cents, order_status from orders order by order_id"
    assert len(truth) > 100
    assert rows_of(built.warehouse, query) == truth


def test_every_promise_and_whether_it_was_kept_equals_the_truth(built: Built) -> None:
    orders = pl.read_parquet(built.home.truth / "orders.parquet").filter(~pl.col("is_test"))
    truth = (
        orders.filter(pl.col("source_name") == "ecommerce")
        .sort("order_id")
        .select("order_id", "promised_at", "fulfilled_at")
    )
    query = """
        select order_id, promised_at at time zone 'UTC', fulfilled_at at time zone 'UTC', is_late, order_status
        from orders where source_name = 'ecommerce' order by 1"""
    believed = rows_of(built.warehouse, query)
    assert [row[:3] for row in believed] == truth.rows()
    done = [row for row in believed if row[2] and row[4] != "cancelled"]
    assert [row[3] for row in done] == [fulfilled > promised for _, promised, fulfilled, *_ in done]
    assert {True, False} <= {row[3] for row in done}


def test_everything_given_back_equals_the_truth_order_by_order(built: Built) -> None:
    money = [pl.col(name).sum() for name in ("net_cents", "tax_cents", "shipping_cents")]
    truth = pl.read_parquet(built.home.truth / "refunds.parquet").group_by("order_id", "source_name").agg(money)
    query = """
        select order_id, source_name, cast(sum(case when refund_type = 'shipping' then 0 else net_cents end) as bigint),
            cast(sum(tax_cents) as bigint), cast(sum(case when refund_type = 'shipping' then net_cents else 0 end) as bigint)
        from refunds group by all order by all"""
    assert rows_of(built.warehouse, query) == truth.sort("order_id", "source_name", nulls_last=True).rows()
    types = {kind for (kind,) in rows_of(built.warehouse, "select distinct refund_type from refunds")}
    assert types >= {"cancelled", "returned", "shipping"}


def test_lost_receipts_and_misnamed_hand_overs_are_the_exceptions_that_fit_no_order(built: Built) -> None:
    faults = json.loads((built.home.truth / "faults.json").read_text())
    query = "select exception_type, count(*) from order_exceptions where order_id is null group by all"
    true = {
        "return_without_receipt": faults["lost_receipts"]["raw_pos__sale_lines"],
        "handover_of_unknown_order": faults.get("misnamed_handovers", {}).get("raw_pos__transactions", 0),
    }
    assert dict(rows_of(built.warehouse, query)) == {kind: count for kind, count in true.items() if count}


def test_an_order_that_comes_back_to_a_till_counts_once_though_the_shop_tells_it_again(built: Built) -> None:
    query = """
        select count(*), count(also_told_ref) filter (where also_told_cents = gross_cents) from refunds
        where source_name = 'pos' and order_id like 'ecommerce/%'"""
    ((brought_back, told_again),) = rows_of(built.warehouse, query)
    assert brought_back == told_again > 0


PLANTED = {
    "shipping of a web order": "update orders set shipping_cents = shipping_cents + 1 where order_id = (select min(order_id) from orders where source_name = 'ecommerce')",
    "tax of a receipt": "update orders set tax_cents = tax_cents + 1 where order_id = (select max(order_id) from orders where source_name = 'pos')",
    "a line": "update order_lines set net_cents = net_cents - 1 where order_line_id = (select min(order_line_id) from order_lines)",
    "a refund of the shop": "update refunds set net_cents = net_cents + 1 where refund_line_id = (select min(refund_line_id) from refunds where source_name = 'ecommerce')",
    "a refund of a till": "update refunds set tax_cents = tax_cents + 1 where refund_line_id = (select max(refund_line_id) from refunds)",
    "a refund told twice": "delete from refunds where refund_line_id = (select min(refund_line_id) from refunds where also_told_ref is not null)",
    "a channel": "update orders set channel_type = 'app' where order_id = (select min(order_id) from orders where channel_type = 'web')",
}  # fmt: skip


@pytest.mark.parametrize("planted", [None, *PLANTED])
def test_one_planted_cent_breaks_the_money_check_and_nothing_else_does(
    built: Built, tmp_path: Path, planted: str | None
) -> None:
    (compiled,) = built.home.root.glob("target/compiled/**/assert_money_equals_what_tills_and_shop_said.sql")
    copy = shutil.copyfile(built.warehouse, tmp_path / "warehouse.duckdb")
    with duckdb.connect(str(copy)) as connection:
        for change in [PLANTED[planted]] if planted else []:
            connection.execute(change)
        broken = connection.execute(compiled.read_text()).fetchall()
    assert bool(broken) == (planted is not None)
    assert all(found >= 1 and "cents off" in expected for expected, found in broken)


def test_what_a_warehouse_reports_is_explained_to_the_unit(built: Built) -> None:
    query = "select count(*), sum(abs(unexplained_units)) from stock_positions where reported_source_name = 'wms'"
    reported, unexplained = rows_of(built.warehouse, query)[0]
    assert (reported > 0, unexplained) == (True, 0)


def compiled(built: Built, model: str) -> str:
    """The SQL of a model as dbt ran it."""
    found = built.home.root.glob(f"target/compiled/troth/models/**/{model}.sql")
    (path,) = (path for path in found if path.parent.suffix != ".yml")  # those of unit tests
    return path.read_text()


def test_what_is_available_in_sql_is_the_one_definition_to_the_letter(built: Built) -> None:
    assert available_sql() + " as available_units" in compiled(built, "availability")
    assert available_sql() in compiled(built, "channel_availability")
    parts = rows_of(built.warehouse, f"select {', '.join(PARTS)}, available_units from availability")  # noqa: S608  names of this code
    assert [row[-1] for row in parts] == [available(Stock(*row[:-1])) for row in parts]


def test_what_is_available_by_date_in_sql_is_what_python_says_at_any_time(built: Built, tmp_path: Path) -> None:
    chance, now = random.Random(SEED), built.known_until.replace(tzinfo=None)
    places = [(f"L{number}", "tent") for number in range(60)]

    def times() -> list[datetime]:
        return [now + timedelta(hours=chance.choice([-5, 0, 1, 1, 2, 30, 31, 80])) for _ in range(chance.randrange(5))]

    on_hand = {place: chance.randrange(-3, 20) for place in places}
    committed = {place: chance.randrange(6) for place in places}
    supplies = [(place, at, chance.randrange(1, 9)) for place in places for at in times()]
    scheduled = [(place, at, chance.randrange(1, 9)) for place in places for at in times()]
    copy = shutil.copyfile(built.warehouse, tmp_path / "warehouse.duckdb")
    with duckdb.connect(str(copy)) as connection:
        for table, rows in {
            "stock_positions": [{"location_code": a, "sku": b, "on_hand_units": on_hand[a, b], "last_movement_at": now} for a, b in places],
            "stock_supplies": [{"location_code": a, "sku": b, "expected_at": at, "units": units, "is_overdue": at <= now} for (a, b), at, units in supplies],
            "stock_demands": [
                *({"location_code": a, "sku": b, "due_at": at, "units": units, "demand_type": "scheduled"} for (a, b), at, units in scheduled),
                *({"location_code": a, "sku": b, "due_at": now, "units": units, "demand_type": "committed"} for (a, b), units in committed.items()),
            ],
        }.items():  # fmt: skip
            connection.register("given", pl.DataFrame(rows).to_arrow())
            connection.execute(f"drop table {table}; create table {table} as from given")
        for model in ("int_stock__dated", "stock_states", "availability", "availability_dates"):
            connection.execute(f"drop table {model}; create table {model} as {compiled(built, model)}")
        told = connection.execute(
            "select location_code, sku, available_from_at, available_units from availability_dates order by 3"
        ).fetchall()
        at_once = dict(connection.execute("select location_code, available_units from availability").fetchall())
    for place in places:
        mine = [Dated(at, units) for each, at, units in supplies if each == place and at > now]
        mine += [Dated(max(at, now), -units) for each, at, units in scheduled if each == place]
        steps = [(at, units) for *each, at, units in told if tuple(each) == place]
        free = on_hand[place] - committed[place]
        for asked in sorted({now, *(now + timedelta(hours=hours) for hours in (1, 2, 29, 30, 31, 99))}):
            believed = [units for at, units in steps if at <= asked][-1] if steps else at_once[place[0]]
            assert believed == available_at(free, mine, asked), (place, asked)
        assert at_once[place[0]] == available_at(free, mine, now)


def test_every_member_has_the_points_of_the_ledger(built: Built) -> None:
    assert rows_of(built.warehouse, "select distinct is_reconciled from loyalty_members") == [(True,)]


def test_standing_in_sql_is_standing_in_python_row_by_row(built: Built) -> None:
    ledger = pl.read_parquet(built.home.raw / "consent_ledger" / "data.parquet")
    links = pl.DataFrame(
        rows_of(
            built.warehouse, "select customer_id, identity_ref, link_type from customer_identities where not is_test"
        ),
        schema=["customer_id", "identity_ref", "link_type"],
        orient="row",
    )
    meant = standing_frame(ledger, links, read_policy(), built.known_until, built.known_until)
    query = """
        select customer_id, purpose_code, channel_code, is_allowed, reason_code, since_at at time zone 'UTC' as since_at,
            expires_at at time zone 'UTC' as expires_at, leaf_index, ledger_size
        from consent_standing order by all"""
    believed = rows_of(built.warehouse, query)
    assert {reason for *_, reason in meant.select("reason_code").rows()} >= {
        "granted", "contract", "never_asked", "refused", "withdrawn", "objected", "gpc", "expired", "stale_notice",
        "restricted", "erased", "unconfirmed",
    }  # fmt: skip
    assert meant.columns == [
        "customer_id", "purpose_code", "channel_code", "is_allowed", "reason_code", "since_at", "expires_at", "leaf_index",
        "ledger_size",
    ]  # fmt: skip
    assert believed == sorted(meant.rows(), key=lambda row: row[:3])
