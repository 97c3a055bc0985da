"""Whose rows are whose, what is left of a landed file without a person, and that no spelling of them is overlooked."""

import base64
import csv
import fcntl
import gzip
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.rights import open_rights
from consent.rule.standing import IDENTITIES
from models.stock.base import TABLES as BASE_TABLES
from models.stock.base import announce, announced
from orchestration.catalog import contracts
from orchestration.rights.erasing import FOLDER, AloneError, erase, erase_and_tell, progress
from orchestration.rights.held import (
    KEPT,
    LINKING,
    OF_STAFF,
    STRENGTH,
    held,
    personal_columns,
    plain_columns,
    token_columns,
)
from orchestration.rights.landed import Edit, rewrite, stripped_json
from orchestration.rights.tables import KEPT_MODELS, erase_published, erase_warehouse
from orchestration.rights.traces import Find, Traces, search
from orchestration.sources.ecommerce import read_orders
from orchestration.sources.pos import read_poslog
from serving.rights.persons import Person, RightsError, resolve
from tests.builders import raw_home
from troth.clock import FixedClock
from troth.home import Home
from troth.ids import tokeniser
from troth.published import current, publish

ANNA, JOANN = "ann@pier.example", "joann@pier.example"
NOTHING = Traces.of(())
AT = datetime(2026, 3, 2, 9, tzinfo=UTC)


def _home(
    tmp_path: Path, rows: Mapping[str, Sequence[Mapping[str, Any]]], identities: Sequence[tuple[str, ...]] = ()
) -> Home:
    home = Home(tmp_path)
    raw_home(home.raw, rows)
    columns = IDENTITIES[: max((len(row) for row in identities), default=3)]
    frame = pl.DataFrame(list(identities), columns, orient="row")
    frame.write_parquet(tmp_path / "draft.parquet")
    publish(home, "customer_identities", tmp_path / "draft.parquet")
    return home


def _ref(home: Home, kind: str, value: str) -> str:
    token = tokeniser(home.key("token"))(kind, value)
    assert token is not None
    return token


# Whose rows


def test_every_table_with_a_personal_column_is_reached_by_an_identifier() -> None:
    for contract in contracts():
        if personal_columns(contract):
            assert token_columns(contract) or plain_columns(contract), contract.table


def test_every_identifier_has_a_strength_or_belongs_to_somebody_stronger() -> None:
    kinds = {c.token_of[0] for contract in contracts() for c in contract.columns if c.token_of}
    assert kinds <= {*STRENGTH, "payment", "@identifier_type"}
    names = {c.name for contract in contracts() for c in contract.columns if c.personal in LINKING}
    assert names >= OF_STAFF


def test_what_is_personal_in_a_kept_table_may_be_empty() -> None:
    for contract in contracts():
        if contract.table in KEPT:
            assert not [name for name in personal_columns(contract) if contract.column(name).required], contract.table


def test_an_identifier_that_two_customers_proved_proves_neither_and_a_contact_is_nobodys(tmp_path: Path) -> None:
    home = _home(tmp_path, {}, [
        ("cus_a", "account_a", "hub"), ("cus_a", "device_x", "deterministic"), ("cus_b", "device_x", "deterministic"),
        ("cus_b", "account_b", "hub"), ("cus_a", "email_shared", "contact"),
    ])  # fmt: skip
    assert resolve(home, ["cus_a"]) == Person(("cus_a",), ("account_a",), ("device_x", "email_shared"))


def test_who_only_looks_like_the_same_person_is_meant_when_named_and_not_before(tmp_path: Path) -> None:
    account, card, guest, device = (f"{kind}_{'a' * 22}" for kind in ("account", "card", "email", "device"))
    home = _home(tmp_path, {}, [
        ("cus_a", account, "hub", account), ("cus_a", card, "deterministic", account),
        ("cus_a", guest, "probabilistic", guest), ("cus_a", device, "deterministic", guest), ("cus_a", "phone_s", "contact", guest),
    ])  # fmt: skip
    assert resolve(home, ["cus_a"]) == Person(("cus_a",), (account, card), (device, guest, "phone_s"), ("cus_a",))
    assert resolve(home, [card]) == Person(("cus_a",), (card, account), (device, guest, "phone_s"), ("cus_a",))
    assert resolve(home, [device]) == Person(("cus_a",), (device, guest), (account, card, "phone_s"), ("cus_a",))
    assert resolve(home, [card, guest]) == Person(("cus_a",), (card, guest, account, device), ("phone_s",), ())


def test_an_identifier_leads_to_the_person_it_is_proved_for(tmp_path: Path) -> None:
    home = Home(tmp_path)
    email = _ref(home, "email", ANNA)
    home = _home(tmp_path, {}, [("cus_a", "account_a", "hub"), ("cus_a", email, "deterministic")])
    for subject in (ANNA.upper(), f"email:{ANNA}", email, "cus_a"):
        assert set(resolve(home, [subject]).tokens) == {"account_a", email}


@pytest.mark.parametrize("subject", ["cus_nobody", "17850"])
def test_who_is_not_known_is_refused_without_being_named(tmp_path: Path, subject: str) -> None:
    home = _home(tmp_path, {}, [("cus_a", "account_a", "hub")])
    with pytest.raises(RightsError, match="nobody is known by") as refusal:
        resolve(home, [subject])
    assert subject not in str(refusal.value)


def test_an_order_belongs_to_its_account_and_a_shared_address_in_it_stays_with_both(tmp_path: Path) -> None:
    home = _home(tmp_path, {"raw_ecommerce__orders": [
        {"account_id": "1", "account_ref": "account_a", "email": ANNA, "email_ref": "email_s", "payment_token": "tok_1", "payment_ref": "payment_1"},
        {"account_id": "2", "account_ref": "account_b", "email": ANNA, "email_ref": "email_s"},
        {"email": ANNA, "email_ref": "email_s"},
        {"payment_token": "tok_1", "payment_ref": "payment_1"},
    ]})  # fmt: skip
    found = held(home, Person(("cus_a",), ("account_a",), ("email_s",)))
    assert found.rows["raw_ecommerce__orders"]["record_offset"].to_list() == [1]
    assert found.others == {"email_s"}
    assert found.spellings == {"account_a": {"1"}, "payment_1": {"tok_1"}}
    assert found.loose["raw_ecommerce__orders"]["record_offset"].to_list() == [4]


def test_points_follow_the_member_they_name(tmp_path: Path) -> None:
    home = _home(tmp_path, {
        "raw_loyalty__members": [{"member_id": "M1", "card_number": "9", "card_ref": "card_a"}, {"member_id": "M2", "card_ref": "card_b"}],
        "raw_loyalty__points": [{"member_id": "M1"}, {"member_id": "M2"}],
    })  # fmt: skip
    found = held(home, Person((), ("card_a",), ()))
    assert found.rows["raw_loyalty__points"]["member_id"].to_list() == ["M1"]
    told = {
        name: values for name, values in found.plain.items() if values
    }  # of what stewards say, the files themselves hold tokens
    assert told == {"member_id": {"M1"}, "first_ref": {"card_a"}, "second_ref": {"card_a"}}


# Landed files


def test_lines_of_a_person_go_and_all_others_keep_number_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(
        b'{"a": 1 }\r\n{"who":"ann@pier.example"}\r\n{"b":2}\n{"who":"ann@pier.exam\n{"note":"wrote to ann@pier.example"}'
    )
    assert rewrite(path, Edit(gone={2}, aside={4}), Traces.of([ANNA, "ann@pier.exam"]))
    assert path.read_bytes() == b'{"a": 1 }\r\n\r\n{"b":2}\n\n{"note":"wrote to xxxxxxxxxxxxxxxx"}'
    assert not rewrite(path, Edit(gone={2}, aside={4}), Traces.of([ANNA]))


def test_a_rewritten_file_keeps_the_time_it_was_received(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"{}\n")
    before = path.stat().st_mtime_ns
    rewrite(path, Edit(gone={1}), NOTHING)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (b"\n", before)


def test_an_order_that_stays_is_read_as_before_without_the_person(tmp_path: Path) -> None:
    order = {
        "id": 5000000005150, "admin_graphql_api_id": "gid://shopify/Order/5000000005150", "name": "#1", "created_at": "2026-10-01T06:15:37Z",
        "updated_at": "2026-10-01T06:15:37Z", "email": ANNA, "phone": "+15550001", "note": "for Ann", "browser_ip": "10.0.0.1",
        "customer": {"id": 69, "admin_graphql_api_id": "gid://shopify/Customer/69"}, "source_name": "web", "currency": "USD",
        "subtotal_price": "42.50", "total_price": "46.19", "total_tax": "3.69", "total_discounts": "0.00", "test": False,
        "payment_details": {"card_token": "tok_1"}, "shipping_lines": [{"code": "SHIP_TO_HOME", "price": "0.00"}],
        "shipping_address": {"first_name": "Ann", "address1": "1 Pier", "zip": "97201", "country_code": "US"},
        "line_items": [{"id": 13, "sku": "SKU-1", "quantity": 1, "price": "42.50", "total_discount": "0.00", "tax_lines": [{"price": "3.69"}]}],
    }  # fmt: skip
    path = tmp_path / "orders.jsonl"
    personal = ["account_id", "email", "phone", "payment_token", "postal_code", "first_name", "street_address"]
    for record in (order, {"topic": "orders/create", "body": order}):
        path.write_text(json.dumps(record))
        before = read_orders(path).frames
        path.write_bytes(stripped_json(path.read_bytes(), {"69", ANNA, "+15550001", "tok_1", "97201"}))
        after = read_orders(path).frames
        same = before["raw_ecommerce__orders"].with_columns(pl.lit(None, pl.String).alias(name) for name in personal)
        assert after["raw_ecommerce__orders"].cast(pl.String).equals(same.cast(pl.String))
        assert after["raw_ecommerce__order_lines"].equals(before["raw_ecommerce__order_lines"])
        assert not any(text in path.read_text() for text in ("Ann", ANNA, "Pier", "10.0.0.1", "tok_1", "Customer/69"))


POSLOG = (
    '<POSLog xmlns="http://www.nrf-arts.org/IXRetail/namespace/">'
    + "".join(
        f"<Transaction><RetailStoreID>1</RetailStoreID><WorkstationID>1</WorkstationID><SequenceNumber>{n}</SequenceNumber>"
        "<BusinessDayDate>2026-09-18</BusinessDayDate><BeginDateTime>2026-09-18T12:33:28</BeginDateTime>"
        "<EndDateTime>2026-09-18T12:33:28</EndDateTime><OperatorID>43</OperatorID><CurrencyCode>USD</CurrencyCode><RetailTransaction>"
        f"<Customer><Name>Ann</Name></Customer><LoyaltyAccount><LoyaltyCardNumber>{card}</LoyaltyCardNumber></LoyaltyAccount>"
        "<LineItem><SequenceNumber>1</SequenceNumber><Sale><ItemID>SKU-1</ItemID><ExtendedAmount>8.99</ExtendedAmount><Quantity>1</Quantity>"
        "</Sale></LineItem><LineItem><SequenceNumber>2</SequenceNumber><Tender><Amount>8.99</Amount><TokenizedCard>tok_123456</TokenizedCard></Tender>"
        "</LineItem></RetailTransaction></Transaction>"
        for n, card in ((1, "6009000019231758"), (2, "6009000019231759"))
    )
    + "</POSLog>"
)


def test_a_receipt_stays_in_its_poslog_without_card_and_payment_token(tmp_path: Path) -> None:
    path = tmp_path / "poslog_1.xml"
    path.write_text(POSLOG)
    before = read_poslog(path).frames
    rewrite(path, Edit(stripped={1: {"6009000019231758", "tok_123456", "SKU-0"}}), Traces.of(["6009000019231758"]))
    after = read_poslog(path).frames
    assert after["raw_pos__sale_lines"].equals(before["raw_pos__sale_lines"])
    assert after["raw_pos__transactions"]["loyalty_card_number"].to_list() == [None, "6009000019231759"]
    assert after["raw_pos__transactions"]["payment_token"].to_list() == [None, "tok_123456"]
    assert path.read_text().count("Ann") == 1


def test_a_row_of_a_csv_goes_with_all_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "members.csv"
    path.write_bytes(b'id,street\r\nM1,"1 Pier\r\nBack door"\r\nM2,"2, Pier"\r\n')
    rewrite(path, Edit(gone={2}), NOTHING)
    assert path.read_bytes() == b'id,street\r\n\r\n\r\nM2,"2, Pier"\r\n'


@given(st.lists(st.lists(st.text('ab,"\n é'), min_size=2, max_size=2), min_size=1, max_size=6), st.data())
def test_whatever_a_csv_holds_the_other_rows_are_read_as_before(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], data: st.DataObject
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    starts = []
    for row in rows:
        starts.append(text.getvalue().count("\n") + 1)
        writer.writerow(row)
    gone = data.draw(st.integers(0, len(rows) - 1))
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    path.write_bytes(text.getvalue().encode())
    rewrite(path, Edit(gone={starts[gone]}), NOTHING)
    left = [row for row in csv.reader(io.StringIO(path.read_bytes().decode(), newline="")) if row]
    assert left == [row for number, row in enumerate(rows) if number != gone]
    assert path.read_bytes().count(b"\n") == text.getvalue().count("\n")


# Traces


@pytest.mark.parametrize("spelled", [
    lambda t: t, str.upper, lambda t: json.dumps(t)[1:-1], lambda t: quote(t, safe=""), lambda t: f"<a>{t}</a>", lambda t: f"mailto:{t}.",
])  # fmt: skip
def test_a_value_is_found_however_it_is_written(spelled: Any) -> None:
    value = "zoë+o'neil/1@pier.example"
    for text in (f"x {spelled(value)} y", f'"{spelled(value)}"'):
        assert Traces.of([value]).spans(text.encode())


@pytest.mark.parametrize("encoded", [
    lambda t: t.encode("utf-16"), lambda t: t.encode("utf-16-be"), lambda t: base64.b64encode(t.encode()), lambda t: base64.urlsafe_b64encode(t.encode()),
    lambda t: b"\0\7" + t.encode() + b"next",
])  # fmt: skip
def test_a_value_is_found_in_other_encodings_and_in_binary(encoded: Any) -> None:
    assert Traces.of([ANNA]).spans(b"before \0" + encoded(ANNA) + b"\0 after")


def test_a_value_within_another_word_is_somebody_else() -> None:
    traces = Traces.of([ANNA, "6900000001"])
    for text in (JOANN, "x." + ANNA, ANNA + "s", ANNA + ".org", "16900000001", "69000000012"):
        assert traces.spans(text.encode()) == []
    assert [len(traces.spans(text.encode())) for text in (ANNA, f"\\n{ANNA}", f"{ANNA}.", f"{ANNA}. And")] == [
        1,
        1,
        1,
        1,
    ]


def test_a_short_value_is_looked_for_in_its_own_column_alone() -> None:
    traces = Traces.of([], {"member_id": ["M1"]})
    frame = pl.DataFrame({"member_id": ["M1", "M2"], "sku": ["M1", "x"]})
    assert traces.in_frame(frame) == [("member_id", 0)]
    assert traces.spans(b"M1") == []


def test_numbers_lists_structs_and_bytes_of_a_table_are_looked_into() -> None:
    frame = pl.DataFrame({
        "number": [1, 6900000001], "list": [["x"], [ANNA]], "struct": [{"a": "x"}, {"a": ANNA}], "bytes": [b"x", ANNA.encode()],
        "category": pl.Series(["x", ANNA], dtype=pl.Categorical()), "clean": ["x", JOANN],
    })  # fmt: skip
    assert {name for name, _ in Traces.of([ANNA, "6900000001"]).in_frame(frame)} == set(frame.columns) - {"clean"}


def test_every_kind_of_file_is_opened_and_no_value_is_told(tmp_path: Path) -> None:
    home = Home(tmp_path)
    (tmp_path / "table").mkdir()
    pl.DataFrame({"a": [ANNA] * 3}).write_parquet(tmp_path / "table" / "x.parquet")
    (tmp_path / "a.gz").write_bytes(gzip.compress(ANNA.encode()))
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.gz", gzip.compress(ANNA.encode()))
    (tmp_path / "c.txt").write_text(f"x {ANNA}")
    (tmp_path / "d.txt").write_text(JOANN)
    finds = search(home, Traces.of([ANNA]))
    assert {find.path for find in finds} == {"table/x.parquet", "a.gz", "b.zip", "c.txt"}
    assert Find("c.txt", "byte 2") in finds
    assert ANNA not in str(finds)


# Tables


def test_a_published_version_is_rewritten_under_its_new_name_and_an_old_one_too(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for number, ids in enumerate((["cus_a", "cus_b"], ["cus_a", "cus_b", "cus_c"])):
        pl.DataFrame({"customer_id": ids, "net_cents": list(range(len(ids)))}).write_parquet(
            tmp_path / f"{number}.parquet"
        )
        publish(home, "customers", tmp_path / f"{number}.parquet")
    pl.DataFrame({"order_id": ["1", "2"], "customer_id": ["cus_a", "cus_b"]}).write_parquet(tmp_path / "o.parquet")
    publish(home, "orders", tmp_path / "o.parquet")
    assert erase_published(home, ["cus_a"], []) == {"customers": 2, "orders": 1}
    assert pl.read_parquet(current(home, "customers"))["customer_id"].to_list() == ["cus_b", "cus_c"]
    assert pl.read_parquet(current(home, "orders")).rows() == [("1", None), ("2", "cus_b")]
    versions = list((home.published / "customers").glob("*.parquet"))
    assert len(versions) == 2
    assert all("cus_a" not in pl.read_parquet(path)["customer_id"] for path in versions)
    assert erase_published(home, ["cus_a"], []) == {}


def test_the_stock_projector_finds_the_tables_that_an_erasure_renamed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for table in BASE_TABLES:
        pl.DataFrame({"order_id": ["1", "2"], "customer_id": ["cus_a", "cus_b"]}).write_parquet(tmp_path / "draft")
        publish(home, table, tmp_path / "draft")
    before = announce(home, 7, AT)
    erase_published(home, ["cus_a"], [])
    after = announced(home)
    assert after is not None
    assert after.tables != before.tables
    assert (after.offset, after.recomputed_at) == (before.offset, before.recomputed_at)
    assert all((home.published / table / f"{name}.parquet").exists() for table, name in after.tables.items())


def test_the_warehouse_forgets_a_person_in_every_byte(tmp_path: Path) -> None:
    import duckdb

    home = Home(tmp_path)
    customer = "cus_" + "a" * 24
    with duckdb.connect(str(home.warehouse)) as connection:
        connection.execute("create table customers as select ? as customer_id union all select 'cus_b'", [customer])
        connection.execute("create table orders as select 7 as net_cents, ? as customer_id", [customer])
        connection.execute("create view names as select customer_id from customers")
    assert customer.encode() in home.warehouse.read_bytes()
    assert erase_warehouse(home, [customer], []) == {"customers": 1, "orders": 1}
    assert customer.encode() not in home.warehouse.read_bytes()
    with duckdb.connect(str(home.warehouse), read_only=True) as connection:
        assert connection.execute("select customer_id from names").fetchall() == [("cus_b",)]
        assert connection.execute("select * from orders").fetchall() == [(7, None)]
    assert {"orders", "order_lines", "returns"} <= KEPT_MODELS


# One at a time


def _asked(home: Home) -> str:
    with open_rights(home) as log:
        return log.receive("erasure", [_ref(home, "email", ANNA)], AT, "preference_centre", "subject").request_id


def test_one_request_is_erased_for_by_one_at_a_time_and_says_that_it_is_under_way(tmp_path: Path) -> None:
    home = _home(tmp_path, {}, [("cus_a", "account_a", "hub")])
    request_id = _asked(home)
    assert progress(home, request_id) is None
    folder = home.root / FOLDER / request_id
    folder.mkdir(parents=True)
    descriptor = os.open(folder, os.O_RDONLY)  # as somebody else who is at it
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    told = progress(home, request_id)
    assert told is not None
    assert told.is_running
    with pytest.raises(AloneError, match="expected nobody at it"):
        erase(home, FixedClock(AT), [], request_id=request_id)
    os.close(descriptor)
    assert progress(home, request_id) is None


def test_what_stops_an_erasure_that_nobody_waits_for_is_told_and_names_nobody(tmp_path: Path) -> None:
    home = Home(tmp_path)  # nothing was published: nobody can be found in it
    request_id = _asked(home)
    erase_and_tell(home, FixedClock(AT), request_id)
    told = progress(home, request_id)
    assert told is not None
    assert (told.is_running, told.done) == (False, 0)
    assert told.fault is not None
    assert "expected" in told.fault
    assert ANNA not in told.fault
