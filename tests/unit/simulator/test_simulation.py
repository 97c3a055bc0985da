"""The simulated retailer: the same seed gives the same bytes, and the truth kept aside agrees with what was landed."""

import hashlib
import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from simulator import TINY, SimulatorError, simulate
from simulator.__main__ import main
from tests.unit.simulator import perfect_reader as reader
from troth.home import Home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A tiny retailer with seed 7."""
    home = Home(tmp_path_factory.mktemp("tiny"))
    simulate(home, TINY, 7)
    return home


def contents(home: Home) -> dict[str, tuple[str, float]]:
    """Hash of every file, and the file time of the landed ones."""
    return {
        str(path.relative_to(home.root)): (
            hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime if home.landing in path.parents else 0.0,
        )
        for path in sorted(home.root.rglob("*")) if path.is_file()
    }  # fmt: skip


def truth(home: Home, table: str) -> pl.DataFrame:
    return pl.read_parquet(home.truth / f"{table}.parquet")


def recorded(home: Home) -> dict[tuple[str, str, str, datetime], int]:
    """The truth of what the books say moved, by place, SKU, type and moment."""
    keys = ["location_code", "sku", "movement_type", "occurred_at"]
    summed = truth(home, "recorded_movements").group_by(keys).agg(pl.col("units").sum()).filter(pl.col("units") != 0)
    return {(place, sku, kind, at.astimezone(UTC)): units for place, sku, kind, at, units in summed.rows()}


def test_the_same_seed_gives_the_same_bytes_and_the_same_file_times(home: Home, tmp_path: Path) -> None:
    again = Home(tmp_path)
    simulate(again, TINY, 7)
    assert contents(again) == contents(home)


def test_another_seed_gives_other_bytes(home: Home, tmp_path: Path) -> None:
    other = Home(tmp_path)
    simulate(other, TINY, 8)
    assert not set(contents(other).values()) & set(contents(home).values())


def test_a_perfect_reader_books_exactly_the_recorded_movements(home: Home) -> None:
    assert recorded(home) == reader.movements(home.landing)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_perfect_reader_agrees_across_the_change_of_clocks(seed: int, tmp_path: Path) -> None:
    home = Home(tmp_path)
    simulate(home, replace(TINY, days=9, first_day=date(2026, 3, 4)), seed)
    assert recorded(home) == reader.movements(home.landing)


def test_physical_stock_is_opening_plus_in_less_out(home: Home) -> None:
    moved = truth(home, "physical_movements").group_by("location_code", "sku").agg(pl.col("units").sum())
    closing = (
        truth(home, "physical_stock")
        .sort("day")
        .group_by("location_code", "sku", maintain_order=True)
        .agg(pl.col("on_hand").last())
    )
    both = moved.join(closing, on=["location_code", "sku"], how="full", coalesce=True).fill_null(0)
    assert both.filter(pl.col("units") != pl.col("on_hand")).is_empty()


def test_the_shelf_never_holds_less_than_nothing(home: Home) -> None:
    stock = truth(home, "physical_stock")
    assert stock["on_hand"].min() >= 0
    assert stock.filter(pl.col("misplaced") > pl.col("on_hand")).is_empty()


def test_books_and_shelves_differ(home: Home) -> None:
    told, true = (
        truth(home, table).group_by("location_code", "sku").agg(pl.col("units").sum())
        for table in ("recorded_movements", "physical_movements")
    )
    both = told.join(true, on=["location_code", "sku"], suffix="_true")
    assert both.filter(pl.col("units") != pl.col("units_true")).height > len(both) // 5


def test_points_sum_to_the_stated_balance(home: Home) -> None:
    entries = {
        row["entry_id"]: row
        for row in reader.csv_rows(home.landing, "loyalty", "points_*.csv")
        if re.fullmatch(r"-?\d+", row["points"])
    }
    members = (
        row
        for row in reader.csv_rows(home.landing, "loyalty", "members_*.csv")
        if re.fullmatch(r"-?\d+", row["points_balance"])
    )
    stated = {
        code: int(row["points_balance"]) for code, row in reader.latest(members, "member_id", "updated_at").items()
    }
    summed = dict.fromkeys(stated, 0)
    for row in entries.values():
        summed[row["member_id"]] += int(row["points"])
    assert summed == stated


def test_receipts_add_up(home: Home) -> None:
    for key, element in reader.transactions(home.landing).items():
        totals = {total.get("TotalType"): Decimal(total.text) for total in element.iter("{*}Total")}
        signed = [
            (
                1 if kind == "Sale" else -1,
                Decimal(str(reader.local(line, "ExtendedAmount"))),
                Decimal(line.findtext("{*}Tax/{*}Amount") or 0),
            )
            for kind, line in reader.lines(element)
        ]
        if totals:
            net, tax = (
                sum(sign * amount for sign, amount, _ in signed),
                sum(sign * amount for sign, _, amount in signed),
            )
            tendered = [Decimal(str(reader.local(tender, "Amount"))) for tender in element.iter("{*}Tender")]
            assert (totals["TransactionNetAmount"], totals["TransactionTaxAmount"]) == (net, tax), key
            assert totals["TransactionGrossAmount"] == net + tax, key
            assert not tendered or sum(tendered) == net + tax, key


def test_lines_are_price_times_quantity_less_discount(home: Home) -> None:
    for element in reader.transactions(home.landing).values():
        for kind, line in reader.lines(element):
            price, discount, net = (
                Decimal(str(reader.local(line, name)))
                for name in ("RegularSalesUnitPrice", "DiscountAmount", "ExtendedAmount")
            )
            assert net <= price * int(str(reader.local(line, "Quantity")))
            assert kind == "Return" or net == price * int(str(reader.local(line, "Quantity"))) - discount


def test_web_orders_add_up(home: Home) -> None:
    for order in reader.json_objects(home.landing, "ecommerce", "orders_*.jsonl"):
        net = sum(
            Decimal(line["price"]) * line["quantity"] - Decimal(line["total_discount"]) for line in order["line_items"]
        )
        tax = sum(Decimal(line["tax_lines"][0]["price"]) for line in order["line_items"])
        shipping = Decimal(order["total_shipping_price_set"]["shop_money"]["amount"])
        assert (Decimal(order["subtotal_price"]), Decimal(order["total_tax"])) == (net, tax)
        assert Decimal(order["total_price"]) == net + tax + shipping


def test_the_truth_of_orders_is_what_receipts_and_the_shop_say(home: Home) -> None:
    told = {}
    for (store, till, number, day), element in reader.transactions(home.landing).items():
        sold = [line for kind, line in reader.lines(element) if kind == "Sale"]
        if sold and not element.get("CancelFlag") and not element.get("TrainingModeFlag"):
            told[f"pos/{store}/{till}/{number}/{day}"] = (
                len(sold),
                sum(round(Decimal(str(reader.local(line, "ExtendedAmount"))) * 100) for line in sold),
            )
    orders = reader.latest(reader.json_objects(home.landing, "ecommerce", "orders_*.jsonl"), "id", "updated_at")
    for order in orders.values():
        told[f"ecommerce/{order['id']}"] = (len(order["line_items"]), round(Decimal(order["subtotal_price"]) * 100))
    kept = {
        row["order_id"]: (row["line_count"], row["net_cents"]) for row in truth(home, "orders").iter_rows(named=True)
    }
    assert kept == told


def test_the_truth_of_promises_is_what_the_shop_promised_and_told_of_what_left(home: Home) -> None:
    promised = {
        f"ecommerce/{asked['order_id']}": reader.moment(asked["delivery_method"]["max_delivery_date_time"])
        for asked in reader.json_objects(home.landing, "ecommerce", "fulfillment_orders_*.jsonl")
    }
    met: dict[str, datetime] = {}
    orders = reader.latest(reader.json_objects(home.landing, "ecommerce", "orders_*.jsonl"), "id", "updated_at")
    for sent in reader.json_objects(home.landing, "ecommerce", "fulfillments_*.jsonl"):
        collected = orders[sent["order_id"]]["shipping_lines"][0]["code"] in ("CLICK_AND_COLLECT", "CURBSIDE")
        if sent["shipment_status"] == ("ready_for_pickup" if collected else "delivered"):
            met[f"ecommerce/{sent['order_id']}"] = reader.moment(sent["updated_at"])
    kept = truth(home, "orders").filter((pl.col("source_name") == "ecommerce") & ~pl.col("is_test"))
    assert dict(kept.select("order_id", "promised_at").rows()) == promised
    assert {order_id: at for order_id, at in kept.select("order_id", "fulfilled_at").rows() if at} == met
    assert {at > promised[order_id] for order_id, at in met.items()} == {True, False}


def test_a_parcel_is_told_of_in_its_order_and_carries_the_label_of_its_shipping_advice(home: Home) -> None:
    labels = {
        element[2]
        for segments in reader.transaction_sets(home.landing, "945")
        for element in segments
        if element[0] == "MAN"
    }
    told = list(reader.json_objects(home.landing, "ecommerce", "fulfillments_*.jsonl"))
    assert all(reader.moment(sent["created_at"]) <= reader.moment(sent["updated_at"]) for sent in told)
    assert all(sum(line["quantity"] for line in sent["line_items"]) > 0 for sent in told)
    centers = {int(row["ecommerce_location_id"]) for row in reader.locations(home.landing) if not row["pos_store_code"]}
    shipped = {sent["tracking_number"] for sent in told if sent["location_id"] in centers}
    assert shipped
    assert shipped <= labels


def test_refunds_pay_their_lines_and_shipping_and_add_up_to_the_truth(home: Home) -> None:
    told: dict[str, int] = {}
    refunds = {refund["id"]: refund for refund in reader.json_objects(home.landing, "ecommerce", "refunds_*.jsonl")}
    at_tills = set(truth(home, "refunds").filter(pl.col("source_name") == "pos")["order_id"].drop_nulls())
    for refund in refunds.values():
        lines = sum(Decimal(line["subtotal"]) + Decimal(line["total_tax"]) for line in refund["refund_line_items"])
        shipping = sum(
            Decimal(line["subtotal_amount_set"]["shop_money"]["amount"])
            for line in refund["refund_shipping_lines"] or ()
        )
        paid = sum(Decimal(paid["amount"]) for paid in refund["transactions"])
        assert paid == lines + shipping
        order_id = f"ecommerce/{refund['order_id']}"
        told[order_id] = told.get(order_id, 0) + round(paid * 100)
    by_shop = truth(home, "refunds").filter(pl.col("source_name") == "ecommerce").group_by("order_id").agg(
        cents=(pl.col("net_cents") + pl.col("tax_cents") + pl.col("shipping_cents")).sum()
    )  # fmt: skip
    assert {order_id: cents for order_id, cents in told.items() if order_id not in at_tills} == {
        order_id: cents for order_id, cents in by_shop.rows() if order_id not in at_tills
    }


def test_every_identifier_has_its_person_in_the_truth(home: Home) -> None:
    known = set(truth(home, "persons").select("identifier_type", "identifier").rows())
    orders = [order for order in reader.json_objects(home.landing, "ecommerce", "orders_*.jsonl") if not order["test"]]
    used = {("email", order["email"]) for order in orders}
    used |= {("phone", order["phone"]) for order in orders if order["phone"]}
    used |= {
        ("payment", order["payment_details"]["card_token"])
        for order in orders
        if order["payment_details"]["card_token"]
    }
    used |= {("account", str(order["customer"]["id"])) for order in orders if order["customer"]}
    used |= {
        ("device", event["anonymousId"]) for event in reader.json_objects(home.landing, "ecommerce", "events_*.jsonl")
    }
    for element in reader.transactions(home.landing).values():
        used |= {("card", card.text) for card in element.iter("{*}LoyaltyCardNumber")}
        used |= {("payment", card.text) for card in element.iter("{*}TokenizedCard")}
    used |= {
        (signal["identifier"]["type"], signal["identifier"]["value"])
        for signal in reader.json_objects(home.landing, "consent", "*.jsonl") if "yesterday" not in signal["occurredAt"]
    }  # fmt: skip
    assert used - known == set()


def test_taste_is_a_share_of_demand(home: Home) -> None:
    shares = truth(home, "tastes").group_by("person_id").agg(pl.col("demand_share").sum())
    assert len(shares) == TINY.people
    assert shares.filter((pl.col("demand_share") - 1).abs() > 1e-4).is_empty()


def test_what_is_received_has_happened(home: Home) -> None:
    for event in reader.epcis_events(home.landing):
        assert reader.moment(event["eventTime"]) < reader.moment(event["recordTime"])
    for path in home.landing.rglob("*.xml"):
        for ended in re.findall(r"<EndDateTime>(\d{4}-\d\d-\d\dT\d\d:\d\d)", path.read_text()):
            assert reader.moment(f"{ended}:00-08:00").timestamp() < path.stat().st_mtime


def test_four_tiny_days_hold_one_of_everything(home: Home) -> None:
    text = "".join(path.read_text() for path in sorted(home.landing.rglob("*")) if path.is_file())
    wanted = (
        'CancelFlag="true"', 'TrainingModeFlag="true"', 'VoidFlag="true"', "<ControlTransaction>", "<TransactionLink", "<OrderReference>",
        "<Disposition>Restock", "<Disposition>Damaged", '"restock_type":"cancel"', '"restock_type":"return"', '"restock_type":"no_restock"',
        "stock_taking", "cycle_counting", "inspecting", "shipping", "receiving", "errorDeclaration", "epcList", "https://id.gs1.org/01/",
        "urn:epc:idpat:sgtin:", "ST*846", "ST*945", "QTY*20", "not_found", "marketplace-bazaar", '"source_name":"app"', '"test":true', '"gpc":true',
        "one_click_unsubscribe", "associate_entry", "SHIP_FROM_STORE", "CURBSIDE", "DROP_SHIP", '"cancel_reason":"inventory"', "Order Completed",
        "accumulate", "adjust", "@relay.bazaar.example", '"shipment_status":"ready_for_pickup"', '"shipment_status":"delivered"',
        "supplier-direct", '"method_type":"pick_up"', '"source_identifier":"BZ-',
    )  # fmt: skip
    assert [word for word in wanted if word not in text] == []
    assert set(json.loads((home.truth / "faults.json").read_text())) >= {
        "malformed",
        "duplicated_records",
        "late_files",
        "resent_files",
        "out_of_order_files",
    }


def test_faults_can_be_switched_off(tmp_path: Path) -> None:
    spotless = replace(
        TINY, duplicated_record_rate=0, malformed_record_rate=0, held_back_record_rate=0, resent_file_rate=0, late_file_rate=0,
        out_of_order_file_rate=0, corrected_event_rate=0, blind_snapshot_rate=0, typo_rate=0,
    )  # fmt: skip
    home = Home(tmp_path)
    report = simulate(home, spotless, 3)
    assert report.malformed == {}
    faults = json.loads((home.truth / "faults.json").read_text())
    assert not {"duplicated_records", "held_back_records", "resent_files", "late_files", "out_of_order_files"} & set(
        faults
    )


def test_every_code_carries_its_check_digit(home: Home) -> None:
    glns = [row["gln"] for row in reader.locations(home.landing)]
    gtins = [
        variant["barcode"]
        for product in reader.json_objects(home.landing, "ecommerce", "products_*.jsonl")
        for variant in product["variants"]
    ]
    assert {len(code) for code in glns} == {13}
    assert {len(code) for code in gtins} == {14}
    for code in (*glns, *gtins):
        assert sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(reversed(code))) % 10 == 0


def test_progress_is_told_from_the_first_day_to_the_last(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    simulate(Home(tmp_path), replace(TINY, days=2), 1, lambda *step: steps.append(step))
    assert steps[-1] == ("trading", 2, 2)
    assert [done for stage, done, _ in steps if stage == "trading"] == [0, 1, 2]


def test_a_landing_folder_with_files_is_refused_unless_forced(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "landing" / "pos" / "mine.xml"
    mine.parent.mkdir(parents=True)
    mine.write_text("<POSLog/>")
    command = ["--home", str(tmp_path), "--scale", "tiny", "--days", "1"]
    assert main(command) == 2
    assert "expected no files, found pos/mine.xml" in capsys.readouterr().err
    assert mine.read_text() == "<POSLog/>"
    assert main([*command, "--force"]) == 0
    assert not mine.exists()


@pytest.mark.parametrize(
    "wrong",
    [{"people": 0}, {"skus": 100_000}, {"typo_rate": 1.5}, {"lines_per_trip": 0.5}, {"damage_per_position_day": -1.0}],
)
def test_an_impossible_scale_is_refused_with_its_name(wrong: dict[str, float]) -> None:
    with pytest.raises(SimulatorError, match=f"{next(iter(wrong))}: expected .*, found"):
        replace(TINY, **wrong)  # type: ignore[arg-type]
