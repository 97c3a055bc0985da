"""Who a customer is and on whose word, told in parts, each under its purpose, and of nobody without standing."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from feature_repo.publish import publish
from serving.answers import Desk, ask_profile, profile_in_short
from serving.profiles import BEHAVIOUR, BROWSING, CHANNEL, IDENTITY, STORE, FieldSaid
from tests.unit.feature_repo.published_home import ADA, AS_OF, BRAM, CLEO, STANDING, publish_table, view_frame
from tests.unit.serving.open_shop import AT, open_shop

TIMES = ("first_seen_at", "last_seen_at")
NUMBERS = {"group_count": 2, "match_probability": 0.97, "order_count_90d": 5, "view_count_30d": 12}
WORDS = {
    "allowed_channels": "email",
    "home_location_code": "S001",
    "favourite_category_name": "Ropes",
    "last_device_type": "tablet",
}


def profile(customer_id: str, **changes: Any) -> dict[str, Any]:
    names = dict.fromkeys((*IDENTITY, *BEHAVIOUR, *BROWSING, *STORE, *CHANNEL))
    return {"customer_id": customer_id, **names, **dict.fromkeys(TIMES, AS_OF), **NUMBERS, **WORDS, **changes}


def said(customer_id: str, field_name: str, **changes: Any) -> dict[str, Any]:
    plain = {
        "field_value": "email_1", "survivorship_rule": "most_trusted", "source_name": "ecommerce", "record_type": "verified_account",
        "identity_type": "account", "identity_ref": "account_1", "said_at": AS_OF - timedelta(days=3), "agreeing_count": 1,
        "differing_count": 1, "runner_up_value": "email_2", "runner_up_source_name": "loyalty", "runner_up_identity_ref": "card_1",
    }  # fmt: skip
    return {"customer_id": customer_id, "field_name": field_name, **plain, **changes}


NAME = said(ADA, "name", field_value=None, agreeing_count=None, differing_count=None, runner_up_value=None)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    opened = open_shop(tmp_path)
    people = [profile(ADA), profile(BRAM, group_count=1, match_probability=None)]
    publish_table(opened.home, "customer_profiles", pl.DataFrame(people, infer_schema_length=None))
    publish_table(opened.home, "customer_fields", pl.DataFrame([said(ADA, "email"), NAME], infer_schema_length=None))
    return opened


def test_a_profile_says_which_record_each_field_rests_on_and_how_sure_the_joining_is(desk: Desk) -> None:
    answer = ask_profile(desk, ADA, AT)
    assert answer.profile is not None
    email, name = answer.profile.fields
    assert (email.field_value, email.source_name, email.survivorship_rule) == ("email_1", "ecommerce", "most_trusted")
    assert (name.field_value, name.identity_ref) == (None, "account_1")
    assert (answer.profile.is_proved, answer.profile.identity["match_probability"]) == (False, 0.97)
    assert (answer.reason_code, answer.age_seconds) == ("contract", 3600)
    assert set(answer.evidence.versions) == {"customer_profiles", "customer_fields"}


def test_on_a_terminal_each_field_is_a_line(desk: Desk) -> None:
    assert profile_in_short(ask_profile(desk, ADA, AT))["profile"]["fields"] == {
        "email": "email_1  most trusted: verified account account_1 of ecommerce, 2026-02-27; 1 agree, 1 differ, next email_2 of loyalty",
        "name": "held by verified account account_1 of ecommerce, 2026-02-27",
    }
    assert profile_in_short(ask_profile(desk, "cus_nobody", AT))["profile"] is None


def test_what_was_looked_at_is_told_under_personalization_alone(desk: Desk) -> None:
    ada, bram = ask_profile(desk, ADA, AT), ask_profile(desk, BRAM, AT)
    assert ada.profile is not None
    assert bram.profile is not None
    assert (ada.browsing_reason_code, bram.browsing_reason_code) == ("granted", "never_asked")
    assert ada.profile.browsing is not None
    assert ada.profile.browsing["view_count_30d"] == 12
    assert bram.profile.browsing is None
    assert bram.profile.is_proved
    assert b"tablet" not in msgspec.json.encode(bram)


def test_of_who_may_not_be_served_nothing_is_told(desk: Desk) -> None:
    rows = [row | {"is_service_allowed": False, "reason_service": "erased"} for row in STANDING]
    publish_table(desk.home, "ftr_subject_standing", view_frame("subject_standing", rows))
    publish(desk.home)
    answer = ask_profile(desk, ADA, AT)
    assert (answer.is_allowed, answer.reason_code, answer.profile, answer.browsing_reason_code) == (
        False,
        "erased",
        None,
        None,
    )
    assert answer.entity == {"asked_for": ADA}


@pytest.mark.parametrize(
    ("who", "reason"),
    [("cus_nobody", "projection_missing"), ("email_nobody", "unknown_subject"), (CLEO, "unknown_subject")],
)
def test_of_nobody_and_of_who_has_no_profile_nothing_is_told(desk: Desk, who: str, reason: str) -> None:
    answer = ask_profile(desk, who, AT)
    assert (answer.is_allowed, answer.profile) == (False, None)
    assert answer.reason_code == reason


def test_no_part_of_a_profile_has_a_place_for_contact_data() -> None:
    parts = {*IDENTITY, *BEHAVIOUR, *BROWSING, *STORE, *CHANNEL, *FieldSaid.__struct_fields__}
    assert not parts & {"email", "phone", "first_name", "last_name", "street_address", "birth_date", "birth_year"}
