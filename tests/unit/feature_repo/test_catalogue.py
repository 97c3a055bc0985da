import pytest

from feature_repo import catalogue
from feature_repo.catalogue import (
    CUSTOMER_PURCHASES,
    INDEXES,
    PRODUCT_POPULARITY,
    REASONS,
    SERVICES,
    STANDING_SLOTS,
    VIEWS,
    Service,
    standing_slot,
)
from feature_repo.errors import FeatureError


def test_a_feature_view_is_named_as_its_table_less_the_prefix() -> None:
    assert [f"ftr_{view.name}" for view in VIEWS] == [view.table for view in VIEWS]


def test_every_personal_service_asks_for_a_purpose_that_standing_knows() -> None:
    for use in SERVICES:
        slot = standing_slot(use.purpose_code, use.channel_code) if use.purpose_code else None
        assert (slot in STANDING_SLOTS) == use.is_personal


def test_every_name_is_used_once() -> None:
    names = [each.name for each in (*VIEWS, *INDEXES, *SERVICES)]
    assert len(names) == len(set(names))


def test_a_personal_service_without_a_purpose_cannot_be_made() -> None:
    with pytest.raises(FeatureError, match="expected a purpose exactly where a view is personal"):
        Service("nosy_v1", "", (CUSTOMER_PURCHASES,), None)


def test_a_service_is_about_one_entity() -> None:
    with pytest.raises(FeatureError, match=r"expected views of one entity, found \['customer', 'product'\]"):
        Service("mixed_v1", "", (CUSTOMER_PURCHASES, PRODUCT_POPULARITY), "analytics")


def test_marketing_without_a_channel_is_no_slot() -> None:
    assert standing_slot("marketing", "*") is None
    assert standing_slot("marketing", "email") == "marketing_email"
    assert standing_slot("personalization", "email") is None


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(FeatureError, match=r"expected one of \['customer_purchases'.*found 'nope'"):
        catalogue.view("nope")


def test_the_gate_has_a_number_for_every_reason_of_standing() -> None:
    from consent.rule import standing

    assert set(standing.REASONS) == set(REASONS)
