"""What is believed of a customer, on whose word, and what was believed before: over a few records that change and disagree."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.builders import build_marts, raw_home, rows_of

DAYS = ("2025-03-04T12:00:00Z", "2025-03-06T12:00:00Z", "2025-03-09T12:00:00Z")
FIELDS = ("email", "phone", "region", "country", "birth_year", "tier", "name", "street_address", "birth_date")
BELIEF = "field_name, field_value, source_name, record_type, identity_ref"


def at(day: int, hour: int = 2) -> datetime:
    return datetime(2025, 3, day, hour, tzinfo=UTC)


def account(day: int, **changes: Any) -> dict[str, Any]:
    return {
        "account_id": "1", "account_ref": "account_ann", "email_ref": "email_ann", "phone_ref": "phone_1", "updated_at": at(day), "received_at": at(day, 8),
        "first_name": "Ann", "street_address": "1 Pier Road", **changes,
    }  # fmt: skip


def member(day: int, **changes: Any) -> dict[str, Any]:
    return {
        "member_id": "M1", "card_ref": "card_ann", "account_ref": "account_ann", "email_ref": "email_form", "phone_ref": "phone_form",
        "updated_at": at(day), "received_at": at(day, 9), "birth_date": date(1980, 5, 17), "first_name": "Ann", "tier_code": "silver", **changes,
    }  # fmt: skip


STORY: dict[str, list[dict[str, Any]]] = {
    "raw_wms__locations": [{}],
    "raw_ecommerce__products": [{}],
    "raw_ecommerce__customers": [
        account(3),
        account(5, phone_ref="phone_2", region_code="NY"),
        account(7, phone_ref=None, first_name=None),
        # a file that was late: older than what is known, and heard after it
        account(4, phone_ref="phone_late", received_at=at(8)),
    ],
    "raw_loyalty__members": [member(3), member(6, tier_code="gold", region_code="WA", birth_date=date(1981, 5, 17))],
    "raw_ecommerce__orders": [
        {"order_id": "1", "order_name": "#1", "created_at": at(4), "updated_at": at(4), "received_at": at(4, 9), "email_ref": "email_guest",
         "phone_ref": "phone_guest", "region_code": "OR", "country_code": "US"},
    ],
    "consent_ledger": [
        {"subject_id": "account_ann", "signal_id": "s1", "language_code": "en", "occurred_at": at(3), "recorded_at": at(3), "received_at": at(3)},
        {"subject_id": "card_ann", "signal_id": "s2", "language_code": "es", "occurred_at": at(4), "recorded_at": at(4), "received_at": at(4)},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def warehouses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    built = {}
    for day in DAYS:
        folder = tmp_path_factory.mktemp("belief")
        raw = raw_home(folder / "raw", STORY)
        only = ("customer_fields", "customer_field_versions")
        built[day] = build_marts(raw, folder, day, only, rebuilds_the_past=True)
    return built


@pytest.mark.parametrize("day", DAYS)
def test_what_was_believed_on_a_day_is_what_is_believed_when_only_that_was_known(
    warehouses: dict[str, Path], day: str
) -> None:
    then = f"select customer_id, {BELIEF} from customer_fields where field_name in {FIELDS} order by all"  # noqa: S608  names of this test
    known = f"""
        select customer_id, {BELIEF} from customer_field_versions
        where believed_from_at <= cast(? as timestamp) and (believed_to_at is null or believed_to_at > cast(? as timestamp)) order by all"""  # noqa: S608
    believed = rows_of(warehouses[day], then)
    assert len(believed) > 10
    assert rows_of(warehouses[DAYS[-1]], known, day, day) == believed


def test_each_field_says_which_record_it_rests_on_and_who_disagrees(warehouses: dict[str, Path]) -> None:
    query = """
        select field_name, field_value, source_name, identity_ref, agreeing_count, differing_count, runner_up_value
        from customer_fields where identity_ref in ('account_ann', 'card_ann') order by 1"""
    assert rows_of(warehouses[DAYS[-1]], query) == [
        ("account", "account_ann", "ecommerce", "account_ann", 1, 0, None),
        ("birth_date", None, "loyalty", "card_ann", None, None, None),
        ("birth_year", "1981", "loyalty", "card_ann", 1, 0, None),
        ("card", "card_ann", "loyalty", "card_ann", 1, 0, None),
        ("country", "US", "ecommerce", "account_ann", 1, 0, None),
        ("email", "email_ann", "ecommerce", "account_ann", 1, 1, "email_form"),
        ("jurisdiction", "US-CA", "ecommerce", "account_ann", 1, 1, "US-WA"),
        ("language", "es", "consent", "card_ann", 1, 1, "en"),
        ("name", None, "loyalty", "card_ann", None, None, None),
        ("phone", "phone_form", "loyalty", "card_ann", 1, 0, None),
        ("region", "CA", "ecommerce", "account_ann", 1, 1, "WA"),
        ("street_address", None, "ecommerce", "account_ann", None, None, None),
        ("tier", "gold", "loyalty", "card_ann", 1, 0, None),
    ]


def test_a_late_file_changes_no_belief_that_rests_on_something_newer(warehouses: dict[str, Path]) -> None:
    query = """
        select field_value, believed_from_at, believed_to_at from customer_field_versions
        where field_name = 'phone' and identity_type <> 'email' order by 2"""
    assert rows_of(warehouses[DAYS[-1]], query) == [
        ("phone_1", datetime(2025, 3, 3, 8), datetime(2025, 3, 5, 8)),
        ("phone_2", datetime(2025, 3, 5, 8), datetime(2025, 3, 7, 8)),
        ("phone_form", datetime(2025, 3, 7, 8), None),
    ]


def test_no_name_street_or_birth_date_is_anywhere_in_the_warehouse(warehouses: dict[str, Path]) -> None:
    for table in ("customer_fields", "customer_field_versions", "int_customer_fields__said"):
        said = str(rows_of(warehouses[DAYS[-1]], f"table {table}"))
        assert not [clear for clear in ("Ann", "Pier Road", "1980-05", "1981-05") if clear in said]
