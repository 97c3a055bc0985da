"""What each record says now, and for which identifier it speaks."""

from datetime import datetime, timedelta
from typing import Any

import polars as pl

from models.identity.preparing import FREQUENT, fields_in, frequencies_of, prepared
from models.identity.proofs import Sources
from models.identity.records import normal_records, paid_with, said_records
from tests.unit.models.identity.made_people import frame

TEXT = ("first_name", "last_name", "email", "phone", "street_address", "city", "region_code", "postal_code")
SHAPES: dict[str, dict[str, Any]] = {
    "accounts": dict.fromkeys(("account_id", "account_ref", "email_ref", *TEXT, "country_code"), pl.String),
    "members": dict.fromkeys(("member_id", "card_ref", "account_ref", "email_ref", *TEXT, "birth_date"), pl.String),
    "orders": dict.fromkeys(("order_id", "account_ref", "email_ref", "payment_ref", *TEXT, "country_code"), pl.String),
    "refunds": {"account_ref": pl.String},
    "cards": {"loyalty_card_ref": pl.String, "payment_ref": pl.String, "seen_at": pl.Datetime("us")},
    "devices": {"device_ref": pl.String, "account_ref": pl.String, "recorded_at": pl.Datetime("us")},
}


def sources(**tables: list[dict[str, Any]]) -> Sources:
    """Each row a day after the one above it."""
    frames = {}
    for name, shape in SHAPES.items():
        dated = {**shape, "created_at": pl.Datetime("us"), "updated_at": pl.Datetime("us"), "is_test": pl.Boolean}
        rows = []
        for number, row in enumerate(tables.get(name, [])):
            day = datetime(2025, 1, 1) + timedelta(days=number)
            rows.append({**dict.fromkeys(dated), "created_at": day, "updated_at": day, "is_test": False, **row})
        frames[name] = pl.DataFrame(rows, schema=dated)
    return Sources(**frames)


def said(of: Sources) -> dict[str, dict[str, Any]]:
    return {row["record_id"]: row for row in said_records(of).to_dicts()}


def test_a_record_says_what_its_source_said_last_and_a_guest_the_last_of_each() -> None:
    found = said(
        sources(
            accounts=[
                {"account_id": "1", "account_ref": "account_ann", "first_name": "Ana"},
                {"account_id": "1", "account_ref": "account_ann", "first_name": "Ann"},
            ],
            members=[{"member_id": "m1", "card_ref": "card_ann", "first_name": "Ann", "birth_date": "1980-05-17"}, {"member_id": "m2"}],
            orders=[
                {"order_id": "o1", "email_ref": "email_bob", "first_name": "Bob", "phone": "555 0100"},
                {"order_id": "o2", "email_ref": "email_bob", "first_name": "Robert"},
                {"order_id": "o3", "email_ref": "email_eve", "first_name": "Eve", "is_test": True},
                {"order_id": "o4", "email_ref": "email_ann", "account_ref": "account_ann", "first_name": "Ann"},
            ],
        )
    )  # fmt: skip
    assert {ref: (row["record_type"], row["identity_type"], row["first_name"]) for ref, row in found.items()} == {
        "account_ann": ("account", "account", "Ann"),
        "card_ann": ("member", "card", "Ann"),
        "email_bob": ("guest", "email", "Robert"),
    }
    assert found["email_bob"]["phone"] == "555 0100"
    assert found["card_ann"]["birth_date"] == "1980-05-17"


def test_a_card_in_two_hands_is_spoken_for_by_who_has_it_now() -> None:
    found = said(
        sources(
            members=[
                {"member_id": "m9", "card_ref": "card_family", "first_name": "Ann"},
                {"member_id": "m1", "card_ref": "card_family", "first_name": "Bob"},
            ]
        )
    )
    assert [row["first_name"] for row in found.values()] == ["Bob"]


def test_the_payment_of_a_record_is_what_it_paid_with_most() -> None:
    found = said(
        sources(
            accounts=[{"account_id": "1", "account_ref": "account_ann"}],
            members=[{"member_id": "m1", "card_ref": "card_bob"}],
            orders=[
                {"order_id": "o1", "account_ref": "account_ann", "email_ref": "email_ann", "payment_ref": "pay_once"},
                {"order_id": "o2", "account_ref": "account_ann", "payment_ref": "pay_mostly"},
                {"order_id": "o3", "account_ref": "account_ann", "payment_ref": "pay_mostly"},
                {"order_id": "o4", "email_ref": "email_eve", "payment_ref": "pay_eve"},
            ],
            cards=[{"loyalty_card_ref": "card_bob", "payment_ref": "pay_bob"}, {"loyalty_card_ref": "card_bob"}],
        )
    )
    assert {ref: row["payment"] for ref, row in found.items()} == {
        "account_ann": "pay_mostly", "card_bob": "pay_bob", "email_eve": "pay_eve",
    }  # fmt: skip


def test_normal_records_keep_id_order_and_payment() -> None:
    spoken = said_records(
        sources(
            accounts=[
                {"account_id": "1", "account_ref": "account_ann", "first_name": "ANN ", "phone": "(518) 555-0101"}
            ],
            orders=[{"order_id": "o4", "email_ref": "email_bob", "first_name": "Bob", "payment_ref": "pay_bob"}],
        )
    )
    found = normal_records(spoken, "US")
    assert found.select("record_id", "first_name", "given_root", "payment").rows() == [
        ("account_ann", "ann", "ann", None), ("email_bob", "bob", "robert", "pay_bob"),
    ]  # fmt: skip


def test_a_name_is_frequent_from_twenty_records_on_and_a_contact_shared_by_two_frequent_names_is_marked() -> None:
    names = ["anna"] * FREQUENT + ["mark"] * (FREQUENT - 1) + ["zoe"] * FREQUENT + [None]
    rows = [{"record_id": str(number), "first_name": name} for number, name in enumerate(names)]
    for number, phone in {0: "one", 1: "one", 2: "two", FREQUENT: "two", 3: "three", len(rows) - 2: "three"}.items():
        rows[number]["phone"] = phone
    records = frame(rows)
    frequencies = frequencies_of(records)
    assert frequencies["first_name"].rows() == [
        ("anna", FREQUENT / (3 * FREQUENT - 1)), ("zoe", FREQUENT / (3 * FREQUENT - 1)),
    ]  # fmt: skip
    marked = prepared(records, frequencies)
    assert marked["record_id"].equals(records["record_id"])
    assert set(marked.filter("phone_is_shared")["phone"]) == {"three"}
    assert [field.name for field in fields_in(records)] == ["first_name", "phone"]


def test_a_payment_card_is_told_of_by_whom_it_was_seen_with_and_under_which_name() -> None:
    found = paid_with(
        sources(
            orders=[
                {"order_id": "o1", "account_ref": "account_ann", "email_ref": "email_x", "payment_ref": "visa", "first_name": "Bob"},
                {"order_id": "o2", "account_ref": "account_ann", "payment_ref": "visa", "first_name": "ROBERT"},
                {"order_id": "o3", "email_ref": "email_eve", "payment_ref": "visa", "is_test": True},
                {"order_id": "o4", "email_ref": "email_eve"},
            ],
            cards=[
                {"loyalty_card_ref": "card_bob", "payment_ref": "visa", "seen_at": datetime(2025, 2, 2)},
                {"payment_ref": "visa", "seen_at": datetime(2025, 2, 3)}, {"payment_ref": "visa", "seen_at": datetime(2025, 2, 4)},
                {"loyalty_card_ref": "card_bob"},
            ],
        ),
        "US",
    )  # fmt: skip
    assert sorted(found.drop("payment_ref", "source_name").rows(), key=str) == [
        ("account", "account_ann", "robert", False, 2, datetime(2025, 1, 1)),
        ("card", "card_bob", None, False, 1, datetime(2025, 2, 2)),
        ("email", "email_eve", None, True, 1, datetime(2025, 1, 3)),
        (None, None, None, False, 2, datetime(2025, 2, 3)),
    ]
    assert set(found["payment_ref"]) == {"visa"}
