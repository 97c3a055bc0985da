from datetime import UTC, timedelta
from pathlib import Path

import pytest

from feature_repo.errors import FeatureError
from serving.answers import (
    ask_availabilities,
    ask_availability,
    ask_customer,
    ask_recommend,
    clock_of,
    health,
    known_until,
)
from serving.errors import ServingError
from tests.unit.feature_repo.published_home import ADA, AS_OF, BRAM, CLEO, LEDGER_SIZE, view_frame
from tests.unit.serving.open_shop import AT, open_shop, train
from troth.clock import SystemClock
from troth.errors import TrothError
from troth.home import Home


def unreadable() -> int:
    raise TrothError("ledger: expected one, found none. Run `troth run`.")


def test_a_customer_is_found_by_id_and_by_a_proved_identifier(tmp_path: Path) -> None:
    desk = open_shop(tmp_path)
    by_id, by_card = (ask_customer(desk, who, "recommend_v1", AT) for who in (ADA, "card_ada"))
    assert by_id == by_card
    assert by_id.features is not None
    assert by_id.entity == {"customer_id": ADA}


@pytest.mark.parametrize("token", ["email_shared", "email_nobody", "email_bram"])
def test_an_identifier_that_proves_nobody_is_refused_as_unknown(token: str, tmp_path: Path) -> None:
    answer = ask_customer(open_shop(tmp_path), token, "recommend_v1", AT)
    assert (answer.features, answer.reason_code, answer.entity) == (None, "unknown_subject", {"identity_ref": token})


def test_a_refusal_does_not_say_whose_the_identifier_is(tmp_path: Path) -> None:
    answer = ask_customer(open_shop(tmp_path), "phone_bram", "recommend_v1", AT)
    assert (answer.reason_code, answer.entity) == ("never_asked", {"identity_ref": "phone_bram"})


def test_services_about_something_else_are_not_answered_for_a_customer(tmp_path: Path) -> None:
    desk = open_shop(tmp_path)
    with pytest.raises(ServingError, match="expected one about customers, found one about product"):
        ask_customer(desk, ADA, "popularity_v1", AT)
    with pytest.raises(FeatureError, match="feature service: expected one of"):
        ask_customer(desk, ADA, "nope", AT)


def test_availability_comes_with_its_parts_and_its_ages(tmp_path: Path) -> None:
    (found,) = ask_availability(open_shop(tmp_path), "SKU-00001", "S001", AT)
    assert (found.on_hand_units, found.committed_units, found.safety_units, found.available_units) == (10, 2, 1, 7)
    assert (found.as_of_at, found.age_seconds) == (AS_OF.replace(tzinfo=UTC), 3_600)
    assert found.last_movement_age_seconds == 10 * 3_600
    assert found.version is not None


def test_availability_everywhere_lists_every_location_of_this_item_only(tmp_path: Path) -> None:
    found = ask_availability(open_shop(tmp_path), "SKU-00001", None, AT)
    assert {each.location_code: each.available_units for each in found} == {"S001": 7, "DC1": 45}
    assert ask_availability(open_shop(tmp_path / "again"), "SKU-0000", None, AT) == []


def test_availability_in_bulk_answers_each_pair_in_order(tmp_path: Path) -> None:
    pairs = [("SKU-00002", "S001"), ("SKU-99999", "S001"), ("SKU-00001", "S001"), ("SKU-00002", "S001")]
    found = ask_availabilities(open_shop(tmp_path), pairs, AT)
    assert [(each.sku, each.location_code) for each in found] == pairs
    assert [each.available_units for each in found] == [0, None, 7, 0]
    assert found[1].status == "NOT_FOUND"


def test_stock_known_too_long_ago_is_said_to_be_old_and_not_told(tmp_path: Path) -> None:
    (found,) = ask_availability(open_shop(tmp_path), "SKU-00001", "S001", AT + timedelta(days=2))
    assert (found.status, found.available_units, found.age_seconds) == ("OUTSIDE_MAX_AGE", None, 49 * 3_600)


def test_recommended_is_what_goes_with_recent_purchases_in_stock_where_the_customer_shops(tmp_path: Path) -> None:
    desk = open_shop(tmp_path)
    version = train(desk.home)
    told = ask_recommend(desk, ADA, AT)
    assert [(item.sku, item.score, item.location_code) for item in told.items] == [
        ("SKU-00005", 0.7, "S001"),
        ("SKU-00004", 0.5, "S001"),
    ]
    assert (told.is_allowed, told.is_personal, told.location_code, told.model_version) == (True, True, "S001", version)
    assert told.age_seconds == 3_600


def test_recommendations_are_as_many_as_asked_for(tmp_path: Path) -> None:
    desk = open_shop(tmp_path)
    train(desk.home)
    assert [item.sku for item in ask_recommend(desk, ADA, AT, 1).items] == ["SKU-00005"]
    for count in (0, 101):
        with pytest.raises(ServingError, match=f"count: expected 1 to 100, found {count}"):
            ask_recommend(desk, ADA, AT, count)


@pytest.mark.parametrize(
    ("who", "reason"), [(BRAM, "never_asked"), (CLEO, "withdrawn"), ("cus_x", "projection_missing")]
)
def test_who_refused_gets_nothing_personal_and_popular_items_only_if_asked_for(
    who: str, reason: str, tmp_path: Path
) -> None:
    desk = open_shop(tmp_path)
    train(desk.home)
    refused = ask_recommend(desk, who, AT)
    popular = ask_recommend(desk, who, AT, allow_popular=True)
    assert (refused.items, refused.reason_code, refused.is_personal, refused.location_code) == ([], reason, False, None)
    assert [(item.sku, item.basis) for item in popular.items] == [(f"SKU-0000{n}", "popular") for n in (3, 2, 1)]
    assert (popular.is_allowed, popular.is_personal, popular.model_version) == (False, False, None)


def test_everyone_who_refused_is_shown_the_same_popular_items(tmp_path: Path) -> None:
    desk = open_shop(tmp_path)
    shown = [ask_recommend(desk, who, AT, allow_popular=True).items for who in (BRAM, CLEO, "cus_x")]
    assert shown[0] == shown[1] == shown[2]


def test_nobody_gets_a_personal_recommendation_while_the_ledger_cannot_be_read(tmp_path: Path) -> None:
    desk = open_shop(tmp_path, unreadable)
    train(desk.home)
    told = ask_recommend(desk, ADA, AT)
    assert (told.items, told.reason_code) == ([], "ledger_unreadable")


def test_without_a_model_popular_items_fill_up_what_was_not_just_bought(tmp_path: Path) -> None:
    told = ask_recommend(open_shop(tmp_path), ADA, AT, allow_popular=True)
    assert [(item.sku, item.basis) for item in told.items] == []
    assert (told.is_allowed, told.model_version) == (True, None)


def test_a_new_model_and_new_popularity_are_seen_by_an_open_desk(tmp_path: Path) -> None:
    from feature_repo.publish import publish
    from tests.unit.feature_repo.published_home import publish_table

    desk = open_shop(tmp_path)
    first = train(desk.home)
    assert ask_recommend(desk, ADA, AT).model_version == first
    second = train(desk.home, (("SKU-00001", "SKU-00004", 0.1),))
    assert ask_recommend(desk, ADA, AT).model_version == second
    assert [item.sku for item in ask_recommend(desk, ADA, AT).items] == ["SKU-00004"]
    publish_table(
        desk.home,
        "ftr_product_popularity",
        view_frame("product_popularity", [{"sku": "SKU-00004", "sold_units_28d": 5}]),
    )
    publish(desk.home)
    assert [item.sku for item in ask_recommend(desk, BRAM, AT, allow_popular=True).items] == ["SKU-00004"]


def test_health_says_what_answers_rest_on(tmp_path: Path) -> None:
    desk = open_shop(tmp_path)
    found = health(desk, AT)
    assert (found.status, found.reason_code, found.ledger_size) == ("ok", None, LEDGER_SIZE)
    assert found.known_until == known_until(desk) == AS_OF.replace(tzinfo=UTC)
    late = health(desk, AT + timedelta(days=30))
    assert (late.status, late.reason_code) == ("degraded", "projection_stale")


def test_a_real_retailer_is_answered_for_now_and_a_generated_one_for_the_end_of_its_time(tmp_path: Path) -> None:
    desk = open_shop(tmp_path)
    assert isinstance(clock_of(desk.home), SystemClock)
    desk.home.truth.mkdir()
    assert clock_of(desk.home).now() == AS_OF.replace(tzinfo=UTC)


def test_a_home_without_a_run_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="Run `troth run` first"):
        ask_availability(Home(tmp_path), "SKU-00001", "S001", AT)
