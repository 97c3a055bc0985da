"""A small retailer with a counter: Ada, Bram, Cleo and Dora, what they said in a real ledger, their orders, stock, and staff who serve them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from consent.events import Event
from consent.ledger.opening import open_ledger
from consent.rule.policy import read_policy
from consent.rule.standing import standing_frame
from consent.vault import open_vault
from feature_repo.catalogue import STANDING_SLOTS, standing_slot
from feature_repo.publish import publish
from tests.unit.feature_repo.published_home import ADA, AS_OF, BRAM, CLEO, home_with_tables, publish_table, view_frame
from tests.unit.serving import test_orders, test_profiles
from tests.unit.serving.open_console import Browser, open_console
from tests.unit.serving.open_shop import AT, availability, train
from troth.clock import Clock, FixedClock
from troth.home import Home
from troth.ids import tokeniser

DORA = "cus_dora"
TEST = "cus_test"
EMAILS = {
    ADA: "Ada@Pier.example",
    BRAM: "bram@quay.example",
    CLEO: "cleo@harbour.example",
    DORA: "dora@lagoon.example",
    TEST: "qa@retailer.example",
}
ADAS_CARD, SHARED_PHONE, ADAS_PHONE = "7001 0000 42", "+1 503 555 0199", "+1 503 555 0142"
POLICY = read_policy()
TIME = pl.Datetime("us")


@dataclass(frozen=True)
class Shop:
    """The retailer and the tokens of its people."""

    home: Home
    tokens: Mapping[str, str]

    def open(self, *roles: str, wall: Clock | None = None) -> Browser:
        return open_console(self.home, FixedClock(AT), *roles, wall=wall)

    def say(self, *events: Event) -> None:
        """More events, that nothing published has seen."""
        with open_ledger(self.home, FixedClock(AT)) as ledger:
            ledger.append(events)


def said(subject_id: str, event_type: str, number: int, days: float = 10, **named: Any) -> Event:
    at = AT - timedelta(days=days)
    plain = Event(
        subject_id=subject_id, event_type=event_type, purpose_code="personalization", channel_code="*", occurred_at=at, recorded_at=at,
        received_at=at, notice_id="web_banner", notice_version=1, language_code="en", capture_method="form_tick",
        capture_place="web_banner", actor_type="subject", jurisdiction_code="US-OR", signal_id=f"signal-{number}",
    )  # fmt: skip
    return replace(plain, **named)


def standing_rows(ledger_frame: pl.DataFrame, links: pl.DataFrame, **by_hand: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The mart, and the rows of the feature view that follow from it; `by_hand` changes Dora's."""
    mart = standing_frame(ledger_frame, links, POLICY, AT)
    size = ledger_frame.height
    rows: dict[str, dict[str, Any]] = {}
    for row in mart.iter_rows(named=True):
        slot = standing_slot(row["purpose_code"], row["channel_code"])
        mine = rows.setdefault(row["customer_id"], {"customer_id": row["customer_id"], "ledger_size": size})
        mine[f"is_{slot}_allowed"], mine[f"reason_{slot}"] = row["is_allowed"], row["reason_code"]
    assert all(len(row) == 2 + 2 * len(STANDING_SLOTS) for row in rows.values())
    rows[DORA] |= by_hand
    times = [pl.col(name).dt.replace_time_zone(None) for name in ("since_at", "expires_at")]
    return mart.with_columns(times), view_frame("subject_standing", list(rows.values()))


def identity(kind: str, ref: str, customer_id: str, link_type: str, group: str, **changes: Any) -> dict[str, Any]:
    return {
        "identity_type": kind, "identity_ref": ref, "customer_id": customer_id, "link_type": link_type, "group_ref": group,
        "source_name": "ecommerce", "linked_at": AS_OF - timedelta(days=90), "is_test": customer_id == TEST, **changes,
    }  # fmt: skip


def open_counter(root: Path) -> Shop:
    home = Home(root)
    root.mkdir(parents=True, exist_ok=True)
    token = tokeniser(home.key("token"))
    known = {who: str(token("email", email)) for who, email in EMAILS.items()}
    card, shared, own = (
        str(token(kind, value)) for kind, value in (("card", ADAS_CARD), ("phone", SHARED_PHONE), ("phone", ADAS_PHONE))
    )
    rows = [identity("email", known[who], who, "hub", known[who]) for who in known]
    rows += [
        identity("card", card, ADA, "deterministic", known[ADA], source_name="loyalty"),
        identity("phone", own, ADA, "contact", known[ADA]),
        identity("phone", shared, ADA, "contact", known[ADA]),
        identity("phone", shared, BRAM, "contact", known[BRAM]),
    ]
    links = pl.DataFrame(rows, schema_overrides={"linked_at": TIME})
    with open_ledger(home, FixedClock(AT)) as ledger:
        ledger.append(
            [
                said(known[ADA], "grant", 1),
                said(known[ADA], "grant", 2, purpose_code="marketing", channel_code="email"),
                said(known[CLEO], "grant", 3),
                said(known[CLEO], "withdraw", 4, 5, notice_id=None, notice_version=None),
                said(known[BRAM], "refuse", 5, actor_type="associate", purpose_code="marketing", channel_code="sms"),
            ]
        )
        mart, standing = standing_rows(ledger.frame(), links, is_service_allowed=False, reason_service="restricted")
    with open_vault(home) as vault:
        vault.put([(known[who], email) for who, email in EMAILS.items()])
        vault.put([(own, ADAS_PHONE), (shared, SHARED_PHONE)])
    orders = [
        test_orders.order(is_cancelled=False),
        test_orders.order(order_id="ecommerce/6000", order_name="#10006", marketplace_order_id=None, customer_id=DORA),
        test_orders.order(order_id="ecommerce/7000", order_name="#10007", marketplace_order_id=None, customer_id=None),
        test_orders.order(
            order_id="pos/1/2/33", order_name="1/2/33", marketplace_order_id=None, order_stage="sold", promised_at=None,
            promise_type=None, is_late=None, late_minutes=None, ordered_at=AS_OF - timedelta(days=3), channel_type="store",
            fulfillment_method="in_store",
        ),
    ]  # fmt: skip
    tables = test_orders.tables(*orders)
    tables["returns"] = test_orders.frame([test_orders.RETURN | {"customer_id": ADA}])
    people = [
        test_profiles.profile(ADA, group_count=1, days_since_last_order=1, card_count=1),
        test_profiles.profile(BRAM, match_probability=0.97, home_location_code=None),
        test_profiles.profile(CLEO, group_count=1),
        test_profiles.profile(DORA, group_count=1),
    ]
    fields = [
        test_profiles.said(who, "email", field_value=known[who], identity_ref=known[who])
        for who in (ADA, BRAM, CLEO, DORA)
    ]
    fields.append(test_profiles.said(ADA, "phone", field_value=own, identity_ref=known[ADA]))
    made = home_with_tables(
        root,
        availability=availability(),
        ftr_subject_standing=standing,
        consent_standing=mart,
        customer_identities=links,
        customers=pl.DataFrame(
            {"customer_id": [ADA, BRAM, CLEO, DORA], "home_location_code": ["S001", None, "S001", "S001"]}
        ),
        customer_profiles=pl.DataFrame(people, infer_schema_length=None),
        customer_fields=pl.DataFrame(fields, infer_schema_length=None),
        **(tables | stock_tables()),
    )
    publish(made)
    train(made)
    return Shop(made, {**known, "card": card, "phone": own})


def stock_tables() -> dict[str, pl.DataFrame]:
    """What goods and operations read besides."""
    places = [
        ("S001", "Pier 9", "store", 37.8, -122.4, "San Francisco"),
        ("S002", "Mission", "store", 37.76, -122.42, "San Francisco"),
        ("DC1", "Valley", "distribution_center", 36.7, -119.8, "Fresno"),
    ]
    locations = [
        {
            "location_code": code, "location_name": name, "location_type": kind, "timezone_name": "America/Los_Angeles", "latitude": north,
            "longitude": east, "city": city, "region_code": "CA", "country_code": "US", "opens_at": "09:00", "closes_at": "18:00",
        }
        for code, name, kind, north, east, city in places
    ]  # fmt: skip
    names = ("Storm lantern", "Trail lantern", "Two-man tent", '=HYPERLINK("x") rope', "Kettle")
    products = [
        {"sku": f"SKU-{n:05d}", "product_name": name, "category_name": "Camp", "price_cents": 3900, "weight_grams": 700}
        for n, name in enumerate(names, 1)
    ]
    belief = [("S001", "SKU-00001", 0.83, "pick failed"), ("DC1", "SKU-00001", 0.99, "counted")]
    return {
        "locations": pl.DataFrame(locations),
        "products": pl.DataFrame(products),
        "pred_stock_belief": pl.DataFrame(belief, schema=["location_code", "sku", "p_found_1", "evidence"], orient="row"),
        "pred_stock_counts": pl.DataFrame([worth("S001", "SKU-00004"), worth("DC1", "SKU-00001", value_cents=50.0)]),
        "stock_breaks": pl.DataFrame([apart("count_difference", 3), apart("source_not_told", -40, location_code="DC1", owner_role="integration_engineer"),
                                      apart("late_movement", 9, is_open=False, closed_at=AS_OF)], infer_schema_length=None),
        "fulfilment_measures": measures(),
    }  # fmt: skip


def worth(location_code: str, sku: str, **changes: Any) -> dict[str, Any]:
    return {
        "location_code": location_code, "sku": sku, "value_cents": 1_250.0, "minutes": 1.5, "value_cents_per_minute": 833.0, "books_units": 4,
        "mean_units": 0.2, "p_zero": 0.9, "reason": "books say 4, yet the last pick found too little", **changes,
    }  # fmt: skip


def apart(break_type: str, units: int, **changes: Any) -> dict[str, Any]:
    return {
        "stock_break_id": f"{break_type}/1", "break_type": break_type, "location_code": "S001", "sku": "SKU-00001", "source_name": "wms",
        "units": units, "value_cents": 100 * units, "is_open": True, "opened_at": AS_OF - timedelta(days=4), "last_seen_at": AS_OF,
        "closed_at": None, "known_at": AS_OF, "age_days": 4, "owner_role": "store_manager", "as_of_at": AS_OF, **changes,
    }  # fmt: skip


def measures(weeks: Sequence[tuple[int, int]] = ((40, 50), (45, 50))) -> pl.DataFrame:
    """Promises kept by week, of all and by way, and how long picks took."""
    rows = []
    for number, (kept, due) in enumerate(weeks):
        monday = datetime(2026, 2, 16 + 7 * number).date()
        for way in ("*", "click_and_collect"):
            rows.append(("promise_kept", "share", "week", monday, "*", way, "*", kept, due, kept / due, "share"))
    kept, due = (sum(each) for each in zip(*weeks, strict=True))
    first = datetime(2026, 2, 16).date()
    for way in ("*", "click_and_collect"):
        rows.append(("promise_kept", "share", "all", first, "*", way, "*", kept, due, kept / due, "share"))
    rows.append(("pick_time", "mean", "all", first, "*", "*", "*", 4_500, 100, 45.0, "seconds"))
    rows.append(("pick_time", "p50", "all", first, "*", "*", "*", None, 100, 40.0, "seconds"))
    rows.append(("wms_staleness", "p50", "all", first, "*", "*", "*", None, 100, 7_200.0, "seconds"))
    columns = [
        "measure_name", "statistic_type", "period_type", "period_start", "location_code", "fulfillment_method", "category_name", "numerator",
        "denominator", "value", "unit_type",
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)


def lines_of(shop: Shop) -> list[str]:
    """The log of looks, as it stands in the file."""
    path = shop.home.root / "logs" / "console_looks.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def republish(shop: Shop, **tables: pl.DataFrame) -> None:
    for name, frame in tables.items():
        publish_table(shop.home, name, frame)
    publish(shop.home)


class Ticking:
    """A clock that is set forward by hand."""

    def __init__(self, at: datetime = datetime(2026, 3, 2, 9, tzinfo=UTC)) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at
