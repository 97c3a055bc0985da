import sqlite3
from collections.abc import Callable
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from feature_repo import reads
from feature_repo.catalogue import RECOMMEND_CONTEXT, SERVICES, SUBJECT_STANDING, Service
from feature_repo.errors import FeatureError
from feature_repo.publish import publish
from feature_repo.reads import Answer, Source, read_features
from feature_repo.store import online_store
from tests.unit.feature_repo.published_home import (
    ADA,
    AS_OF,
    BRAM,
    CLEO,
    LEDGER_SIZE,
    STANDING,
    home_with_tables,
    standing_mart,
    standing_row,
    view_frame,
)
from troth.home import Home

AT = AS_OF.replace(tzinfo=UTC) + timedelta(hours=1)
PERSONAL = [each for each in (*SERVICES, RECOMMEND_CONTEXT) if each.is_personal]
GATED = [each for each in PERSONAL if each.purpose_code != "service"]


def unreadable() -> int:
    raise sqlite3.OperationalError("disk I/O error")


def source(home: Home, ledger_size: Callable[[], int] = lambda: LEDGER_SIZE) -> Source:
    publish(home)
    return Source(online_store(home.features), ledger_size)


def ask(from_where: Source, *who: str, service: str | Service = "recommend_v1", at: Any = AT) -> list[Answer]:
    return read_features(from_where, service, [{"customer_id": each} for each in who], at)


def with_standing(root: Path, *rows: dict[str, Any]) -> Source:
    return source(home_with_tables(root, ftr_subject_standing=view_frame(SUBJECT_STANDING.name, rows)))


def test_a_customer_who_allowed_it_is_answered_with_age_and_evidence(tmp_path: Path) -> None:
    (answer,) = ask(source(home_with_tables(tmp_path)), ADA)
    assert (answer.is_allowed, answer.reason_code, answer.purpose_code) == (True, "granted", "personalization")
    assert answer.features is not None
    assert answer.features["net_cents_90d"] == 12_345
    assert answer.features["favourite_category_name"] == "Thé"
    assert answer.features["main_device_type"] == "mobile"
    assert answer.newest_event_at == AS_OF.replace(tzinfo=UTC)
    assert answer.age_seconds == 3_600
    assert (answer.evidence.ledger_size, answer.evidence.standing_ledger_size) == (LEDGER_SIZE, LEDGER_SIZE)
    assert set(answer.evidence.versions) == {"customer_purchases", "customer_engagement"}


def test_answers_come_in_the_order_asked_one_each(tmp_path: Path) -> None:
    answers = ask(source(home_with_tables(tmp_path)), CLEO, ADA, "cus_nobody", ADA, BRAM)
    assert [answer.entity["customer_id"] for answer in answers] == [CLEO, ADA, "cus_nobody", ADA, BRAM]
    assert [answer.reason_code for answer in answers] == [
        "withdrawn",
        "granted",
        "projection_missing",
        "granted",
        "never_asked",
    ]


@pytest.mark.parametrize("service", PERSONAL, ids=lambda each: each.name)
def test_no_personal_service_answers_while_the_ledger_cannot_be_read(service: Service, tmp_path: Path) -> None:
    (answer,) = ask(source(home_with_tables(tmp_path), unreadable), ADA, service=service)
    assert (answer.features, answer.reason_code) == (None, "ledger_unreadable")


@pytest.mark.parametrize("service", PERSONAL, ids=lambda each: each.name)
@pytest.mark.parametrize(
    ("size", "reason"), [(LEDGER_SIZE + 1, "projection_behind"), (LEDGER_SIZE - 1, "projection_ahead")]
)
def test_no_personal_service_answers_from_a_projection_of_another_ledger_size(
    service: Service, size: int, reason: str, tmp_path: Path
) -> None:
    (answer,) = ask(source(home_with_tables(tmp_path), lambda: size), ADA, service=service)
    assert (answer.features, answer.reason_code) == (None, reason)


@pytest.mark.parametrize("service", PERSONAL, ids=lambda each: each.name)
def test_no_personal_service_answers_without_a_projection(service: Service, tmp_path: Path) -> None:
    empty = view_frame(SUBJECT_STANDING.name, [standing_row(BRAM)])
    (answer,) = ask(source(home_with_tables(tmp_path, ftr_subject_standing=empty)), ADA, service=service)
    assert (answer.features, answer.reason_code) == (None, "projection_missing")


def test_a_no_stays_a_no_with_its_own_reason_however_old_the_projection(tmp_path: Path) -> None:
    (answer,) = ask(source(home_with_tables(tmp_path)), CLEO, at=AT + timedelta(days=400))
    assert (answer.features, answer.reason_code) == (None, "withdrawn")


@pytest.mark.parametrize("service", PERSONAL, ids=lambda each: each.name)
def test_no_personal_service_answers_from_an_old_projection(service: Service, tmp_path: Path) -> None:
    late = AT + SUBJECT_STANDING.time_to_live
    (answer,) = ask(source(home_with_tables(tmp_path)), ADA, service=service, at=late)
    assert (answer.features, answer.reason_code) == (None, "projection_stale")


@pytest.mark.parametrize("service", GATED, ids=lambda each: each.name)
def test_every_service_that_rests_on_consent_needs_its_own_purpose_allowed(service: Service, tmp_path: Path) -> None:
    slot = service.purpose_code if service.channel_code == "*" else f"{service.purpose_code}_{service.channel_code}"
    everything_else = {name: True for name in STANDING[0] if name.startswith("is_") and name != f"is_{slot}_allowed"}
    from_where = with_standing(tmp_path, standing_row(ADA, **everything_else), standing_row(BRAM, allowed=(str(slot),)))
    refused, allowed = ask(from_where, ADA, BRAM, service=service)
    assert (refused.features, refused.reason_code) == (None, "never_asked")
    assert allowed.features is not None


def test_a_refusal_tells_nothing_about_the_person_but_the_reason(tmp_path: Path) -> None:
    (answer,) = ask(source(home_with_tables(tmp_path)), CLEO)
    assert (answer.features, answer.statuses, answer.newest_event_at, answer.age_seconds) == (None, {}, None, None)
    assert answer.evidence.versions == {}


def test_a_grant_that_has_ended_refuses_from_that_instant(tmp_path: Path) -> None:
    mart = standing_mart({(ADA, "personalization", "*"): AT.replace(tzinfo=None)})
    from_where = source(home_with_tables(tmp_path, consent_standing=mart))
    before, after = ask(from_where, ADA, at=AT - timedelta(microseconds=1)), ask(from_where, ADA, at=AT)
    assert [answer.reason_code for answer in (*before, *after)] == ["granted", "expired"]
    assert after[0].features is None


def test_standing_that_is_null_is_a_refusal(tmp_path: Path) -> None:
    row = standing_row(ADA, is_personalization_allowed=None, reason_personalization=None)
    (answer,) = ask(with_standing(tmp_path, row), ADA)
    assert (answer.is_allowed, answer.reason_code) == (False, "never_asked")


def test_a_purpose_that_nobody_is_asked_for_is_refused(tmp_path: Path) -> None:
    odd = Service("astrology_v1", "", RECOMMEND_CONTEXT.views, "astrology")
    (answer,) = ask(source(home_with_tables(tmp_path)), ADA, service=odd)
    assert (answer.features, answer.reason_code) == (None, "unknown_purpose")


def test_what_is_not_personal_is_answered_whatever_the_ledger_says(tmp_path: Path) -> None:
    from_where = source(home_with_tables(tmp_path), unreadable)
    pairs = [{"sku": "SKU-00001", "location_code": where} for where in ("S001", "S999")]
    here, nowhere = read_features(from_where, "availability_v1", pairs, AT)
    assert here.features is not None
    assert (here.features["available_units"], here.features["has_stock"], here.reason_code) == (7, True, "not_personal")
    assert nowhere.statuses == {"sku_location_availability": "NOT_FOUND"}
    assert nowhere.features is not None
    assert set(nowhere.features.values()) == {None}


def test_rows_older_than_their_time_to_live_are_not_answered(tmp_path: Path) -> None:
    pair = {"sku": "SKU-00001", "location_code": "S001"}
    (answer,) = read_features(source(home_with_tables(tmp_path)), "availability_v1", [pair], AT + timedelta(days=3))
    assert answer.statuses == {"sku_location_availability": "OUTSIDE_MAX_AGE"}
    assert answer.features is not None
    assert set(answer.features.values()) == {None}
    assert answer.age_seconds == (3 * 24 + 1) * 3_600


def test_a_customer_without_a_row_in_one_view_still_gets_the_other(tmp_path: Path) -> None:
    engagement = view_frame("customer_engagement", [{"customer_id": BRAM, "view_count_30d": 1}])
    (answer,) = ask(source(home_with_tables(tmp_path, ftr_customer_engagement=engagement)), ADA)
    assert answer.statuses == {"customer_purchases": "PRESENT", "customer_engagement": "NOT_FOUND"}


def test_features_and_standing_come_in_one_query(tmp_path: Path) -> None:
    from_where = source(home_with_tables(tmp_path))
    ask(from_where, ADA)  # layouts are known from here on
    statements: list[str] = []
    from_where.store._reader().set_trace_callback(statements.append)
    ask(from_where, ADA, BRAM, CLEO)
    assert len(statements) == 1


def test_a_key_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    from_where = source(home_with_tables(tmp_path))
    with pytest.raises(FeatureError, match=r"entity customer: expected values of \['customer_id'\]"):
        read_features(from_where, "recommend_v1", [{"sku": "SKU-00001"}], AT)
    with pytest.raises(FeatureError, match="feature service: expected one of"):
        ask(from_where, ADA, service="recommend_v99")


def test_the_home_s_own_ledger_is_asked(tmp_path: Path) -> None:
    home = home_with_tables(tmp_path)
    publish(home)
    (answer,) = read_features(home, "recommend_v1", [{"customer_id": ADA}], AT)
    assert (answer.features, answer.reason_code) == (None, "ledger_unreadable")
    assert reads.readable_size(reads.source(home)) is None


def test_an_empty_feature_table_answers_not_found(tmp_path: Path) -> None:
    empty = view_frame("customer_purchases", []).select(pl.all())
    (answer,) = ask(source(home_with_tables(tmp_path, ftr_customer_purchases=empty)), ADA)
    assert answer.statuses["customer_purchases"] == "NOT_FOUND"
