"""A retailer who wrote to some and held some out: assignments, consent and what people did, with a lift that is known."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from models.segments import kept
from models.segments.conditions import Comparison
from models.segments.decision import HELD_OUT, TREATED
from models.segments.definition import Segment
from models.tables import write
from troth.home import Home

AT = datetime(2026, 6, 30, 2, tzinfo=UTC)
UNTIL = AT.replace(tzinfo=None)
SENT = UNTIL - timedelta(days=40)
WRITTEN = Segment(
    "tent_lookers", 1, "Looked at tents.", "crm", "marketing", ("email", "sms"), 20, Comparison("customers", "tier_code", "known", ())
)  # fmt: skip
_EMPTY: Mapping[str, Mapping[str, Any]] = {
    "customers": {"customer_id": pl.String, "is_test": pl.Boolean},
    "consent_standing": {
        "customer_id": pl.String, "purpose_code": pl.String, "channel_code": pl.String, "is_allowed": pl.Boolean,
        "reason_code": pl.String, "expires_at": pl.Datetime("us"),
    },
    "orders": {
        "order_id": pl.String, "customer_id": pl.String, "ordered_at": pl.Datetime("us"), "is_cancelled": pl.Boolean,
        "currency_code": pl.String, "net_cents": pl.Int64,
    },
    "web_events": {"customer_id": pl.String, "event_name": pl.String, "occurred_at": pl.Datetime("us")},
    "ftr_customer_purchases": {"customer_id": pl.String, "feature_at": pl.Datetime("us")},
}  # fmt: skip


def customer(number: int) -> str:
    return f"cus_{number:022x}"


class ResultsShop:
    """Rows by table, published by `publish`; nobody is assigned yet."""

    def __init__(self, home: Home, until: datetime = UNTIL) -> None:
        self.home = home
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in _EMPTY}
        self.rows["ftr_customer_purchases"] = [{"customer_id": customer(0), "feature_at": until}]

    def know(
        self, number: int, *, is_test: bool = False, says: str | None = "granted", expires_at: datetime | None = None
    ) -> str:
        """A customer, and what they say to analytics; None where nobody asked."""
        who = customer(number)
        self.rows["customers"].append({"customer_id": who, "is_test": is_test})
        if says is not None:
            self.rows["consent_standing"] += [
                {
                    "customer_id": who, "purpose_code": purpose, "channel_code": "*", "reason_code": reason,
                    "is_allowed": reason == "granted", "expires_at": expires_at,
                }
                for purpose, reason in (("analytics", says), ("personalization", "granted"))
            ]  # fmt: skip
        return who

    def order(
        self, who: str, at: datetime, net_cents: int, *, is_cancelled: bool = False, currency: str = "USD"
    ) -> None:
        self.rows["orders"].append(
            {
                "order_id": f"order-{len(self.rows['orders'])}", "customer_id": who, "ordered_at": at,
                "is_cancelled": is_cancelled, "currency_code": currency, "net_cents": net_cents,
            }
        )  # fmt: skip

    def see(self, who: str, at: datetime, event_name: str = "Product Viewed") -> None:
        self.rows["web_events"].append({"customer_id": who, "event_name": event_name, "occurred_at": at})

    def assign(
        self, arms: Mapping[str, str], at: datetime = SENT, channel: str = "email", segment: Segment = WRITTEN
    ) -> None:
        people = pl.DataFrame({"customer_id": list(arms), "arm": list(arms.values())})
        kept.record_assigned(self.home, people, segment, channel, at)

    def publish(self) -> None:
        for table, schema in _EMPTY.items():
            write(self.home, table, pl.DataFrame(self.rows[table], schema=dict(schema)))


def simulated(
    home: Home, seed: int, people: int = 2_000, share: float = 0.2, lift: float = 0.0, arm_lost: float = 0.0
) -> ResultsShop:
    """A fifth held out, by chance; the others order with a likelihood of `share` + `lift`, and spend what a few spend much of.

    `arm_lost`: how many of the held out are missing from what was kept, as a fault would lose them.
    """
    chance, shop = random.Random(seed), ResultsShop(home)
    arms = {}
    for number in range(people):
        who = shop.know(number)
        arm = HELD_OUT if chance.random() < WRITTEN.holdout_percent / 100 else TREATED
        if arm == TREATED or chance.random() >= arm_lost:
            arms[who] = arm
        for _ in range(chance.choice([0, 0, 1, 3])):
            shop.see(who, SENT + timedelta(hours=chance.uniform(-400, 700)))
        if chance.random() < share + (lift if arm == TREATED else 0.0):
            for _ in range(chance.choice([1, 1, 1, 2])):
                shop.order(who, SENT + timedelta(hours=chance.uniform(1, 600)), int(chance.lognormvariate(8.3, 0.8)))
    shop.assign(arms)
    shop.publish()
    return shop
