"""A small retailer for segments: people with gaps in what is known of them, what they did, their consent in a real ledger."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from consent.events import Event
from consent.ledger.ledger import Ledger
from consent.ledger.opening import open_ledger
from consent.rule.policy import read_policy
from consent.rule.standing import standing_frame
from consent.vault import open_vault
from models.segments.conditions import Condition
from models.segments.definition import Comparison, Segment
from models.tables import write
from troth.clock import FixedClock
from troth.home import Home
from troth.ids import tokeniser

AS_OF = datetime(2026, 5, 1, 2, tzinfo=UTC)
NAIVE = AS_OF.replace(tzinfo=None)
TIMESTAMP = pl.Datetime("us")
POLICY = read_policy()
token = tokeniser(b"k" * 32)


def customer(number: int) -> str:
    return f"cus_{number:022x}"


def ref(kind: str, value: object) -> str:
    found = token(kind, str(value))
    assert found is not None
    return found


def said(
    subject_id: str, event_type: str, number: int, at: datetime = AS_OF - timedelta(days=10), **named: Any
) -> Event:
    plain = Event(
        subject_id=subject_id,
        event_type=event_type,
        purpose_code="marketing",
        channel_code="email",
        occurred_at=at,
        recorded_at=at,
        received_at=at,
        notice_id="web_banner",
        notice_version=1,
        language_code="en",
        capture_method="form_tick",
        capture_place="web_banner",
        actor_type="subject",
        jurisdiction_code="US-OR",
        signal_id=f"signal-{number}",
    )
    return replace(plain, **named)


def plain_segment(where: Condition, **named: Any) -> Segment:
    plain = Segment("plain", 1, "Plain.", "crm", "marketing", ("email",), 0, where)
    return replace(plain, **named)


EVERYBODY = Comparison("customers", "customer_number", ">=", ("0",))


# Spelled with what may go wrong on the way into a file, a parameter or a comparison.
CATEGORIES = ("Tents", "Käse & Brot", 'Salt, and "Pepper"', "O'Neill", "登山靴", None)
ZONES = {"S001": "America/Los_Angeles", "S002": "America/New_York", "S003": "Asia/Kathmandu", "S004": "Europe/Berlin"}
PLACES = ("S001", "S002", "S003", "S004", "S999", None)  # S999 is no location that is known
MICROSECOND = timedelta(microseconds=1)


def moments(chance: random.Random, count: int) -> list[datetime]:
    """Naive times, some of them at the very edges of windows that end at AS_OF, and of local weekends."""
    edges = [
        NAIVE - timedelta(days=days) + off
        for days in (0, 1, 14, 28, 30, 90)
        for off in (-MICROSECOND, timedelta(0), MICROSECOND)
    ]
    weekend = datetime(2026, 4, 25)  # a Saturday; each zone's begins at another time
    edges += [
        weekend + timedelta(hours=hours) + off
        for hours in (-6, -5.75, -2, 4, 7)
        for off in (-MICROSECOND, timedelta(0))
    ]
    return [
        chance.choice(edges) if chance.random() < 0.3 else NAIVE - timedelta(minutes=chance.randrange(-60, 100 * 1440))
        for _ in range(count)
    ]


class Shop:
    """A small retailer: customers with gaps in what is known of them, what they did, and their consent in a real ledger."""

    def __init__(self, home: Home, people: int = 40, seed: int = 1, grants: int = 3) -> None:
        """`grants`: how many yeses there are for each of the three ways to say no."""
        self.home = home
        chance = random.Random(seed)
        self.customers = [self._customer(number, chance) for number in range(people)]
        self.purchases = [
            self._purchases(number, chance, at)
            for number in range(people * 3 // 4)
            for at in (NAIVE, NAIVE - timedelta(7))
        ]
        self.stock = [
            {
                "sku": f"SKU-{sku:05d}",
                "location_code": location,
                "feature_at": NAIVE,
                "has_stock": chance.random() < 0.6,
            }
            for sku in range(12)
            for location in ("S001", "S002", "S004")
        ]
        self.products = [
            {
                "sku": f"SKU-{sku:05d}",
                "category_name": CATEGORIES[sku % 6],
                "brand_name": ("North", "Süd", None)[sku % 3],
            }
            for sku in range(12)
        ]
        self.orders = [self._order(number, at, people, chance) for number, at in enumerate(moments(chance, people * 3))]
        self.lines = [line for order in self.orders for line in self._lines(order, chance)]
        self.returns = [
            {
                **self._thing(chance),
                "return_line_id": str(number),
                "customer_id": who,
                "returned_at": at,
                "source_name": "pos",
            }
            for number, at in enumerate(moments(chance, people))
            for who in [self._somebody(people, chance)]
        ]
        self.views = [self._view(number, at, people, chance) for number, at in enumerate(moments(chance, people * 8))]
        self.locations = [{"location_code": code, "timezone_name": zone} for code, zone in ZONES.items()]
        self.churn = [
            {"customer_id": customer(n), "churn_probability": chance.choice([0.1, 0.25, 0.5, chance.random(), None])}
            for n in range(people)
            if n % 3
        ]
        self.links = [
            link
            for row in self.customers
            for link in (
                (row["email_ref"], "hub"),
                (row["phone_ref"], chance.choice(["deterministic", "contact"])),
                (row["card_ref"], "deterministic"),
            )
            if link[0]
        ]
        self.publish()
        subjects = sorted({subject for subject, _ in self.links})
        self.tell(
            [
                said(
                    subject,
                    chance.choice([*["grant"] * grants, "refuse", "withdraw", "object"]),
                    number,
                    AS_OF - timedelta(days=chance.choice([5, 20, 729, 800])),
                    channel_code=chance.choice(["email", "sms", "*"]),
                    notice_version=chance.choice([1, *[2] * (grants - 2), None]),
                )
                for number, subject in enumerate(chance.choices(subjects, k=people * grants // 2))
            ]
        )
        with open_vault(home) as vault:
            vault.put((ref("email", f"p{n}@example.com"), f"p{n}@example.com") for n in range(people - 2))
            vault.put((ref("phone", 5550000 + n), f"+1 503 {5550000 + n}") for n in range(people))

    def _customer(self, number: int, chance: random.Random) -> dict[str, Any]:
        mailbox = number - number % 10 if number % 7 == 0 else number  # some share one
        return {
            "customer_id": customer(number),
            "customer_number": number,
            "is_test": number % 13 == 12,
            "email_ref": ref("email", f"p{mailbox}@example.com") if chance.random() < 0.85 else None,
            "phone_ref": ref("phone", 5550000 + number) if chance.random() < 0.5 else None,
            "card_ref": ref("card", number),
            "tier_code": chance.choice(["gold", "silver", "basic", None]),
            "region_code": chance.choice(["CA", "OR", None]),
            "home_location_code": chance.choice(PLACES),
            "has_card": chance.choice([True, False, None]),
            "first_seen_at": NAIVE - timedelta(days=chance.randrange(60)),
        }

    def _purchases(self, number: int, chance: random.Random, at: datetime) -> dict[str, Any]:
        return {
            "customer_id": customer(number),
            "feature_at": at,
            "order_count_90d": chance.randrange(6),  # many ties
            "days_since_last_order": chance.choice([None, 1, 7, 29, 40]),
            "store_order_share_90d": chance.choice([None, 0.0, 0.25, 0.5, 1.0]),
            "favourite_category_name": chance.choice(CATEGORIES),
        }

    def _somebody(self, people: int, chance: random.Random) -> str | None:
        return customer(chance.randrange(people * 5 // 8)) if chance.random() < 0.9 else None

    def _thing(self, chance: random.Random) -> dict[str, Any]:
        return {
            "sku": f"SKU-{chance.randrange(14):05d}",  # two of them are in no catalogue
            "quantity_units": chance.randrange(1, 4),
            "location_code": chance.choice(PLACES),
        }

    def _order(self, number: int, at: datetime, people: int, chance: random.Random) -> dict[str, Any]:
        return {
            "order_id": f"order-{number}",
            "customer_id": self._somebody(people, chance),
            "ordered_at": at,
            "is_cancelled": chance.random() < 0.1,
            "channel_type": chance.choice(["store", "web"]),
            "order_stage": chance.choice(["placed", "shipped", "delivered", "sold"]),
            "is_late": chance.choice([True, False, False, None]),
            "net_cents": chance.choice([-500, 0, 4_900, 12_000]),
            "currency_code": "EUR" if number % 5 == 0 else "USD",
        }

    def _lines(self, order: dict[str, Any], chance: random.Random) -> list[dict[str, Any]]:
        copied = {
            name: order[name]
            for name in ("order_id", "customer_id", "ordered_at", "is_cancelled", "channel_type", "currency_code")
        }
        return [
            {
                **self._thing(chance),
                **copied,
                "order_line_id": f"{order['order_id']}-{number}",
                "net_cents": chance.choice([0, 990, 4_900]),
            }
            for number in range(chance.choice([0, 1, 1, 2, 3]))
        ]

    def _view(self, number: int, at: datetime, people: int, chance: random.Random) -> dict[str, Any]:
        return {
            "message_id": str(number),
            "customer_id": self._somebody(people, chance),
            "event_name": chance.choice(["Product Viewed", "Product Viewed", "Product Added", "Products Searched"]),
            "sku": chance.choice([f"SKU-{chance.randrange(14):05d}", None]),
            "device_type": chance.choice(["phone", "desktop", None]),
            "occurred_at": at,
        }

    def publish(self) -> None:
        self.engagement = [
            {"customer_id": row["customer_id"], "feature_at": NAIVE, "cart_count_30d": row["customer_number"] % 4}
            for row in self.customers
        ]
        refs = {row["customer_id"]: {row["email_ref"], row["phone_ref"], row["card_ref"]} for row in self.customers}
        identities = [
            {"customer_id": who, "identity_ref": subject, "link_type": kind}
            for who, mine in refs.items()
            for subject, kind in self.links
            if subject in mine
        ]
        for table, rows in {
            "customers": self.customers,
            "ftr_customer_purchases": self.purchases,
            "ftr_customer_engagement": self.engagement,
            "ftr_sku_location_availability": self.stock,
            "products": self.products,
            "orders": self.orders,
            "order_lines": self.lines,
            "returns": self.returns,
            "locations": self.locations,
            "web_events": self.views,
            "pred_churn": self.churn,
            "customer_identities": identities,
        }.items():
            write(self.home, table, pl.DataFrame(rows, infer_schema_length=None).unique(maintain_order=True))
        self.identities = pl.DataFrame(identities).unique(maintain_order=True)

    def ledger(self) -> Ledger:
        return open_ledger(self.home, FixedClock(AS_OF))

    def tell(self, events: Sequence[Event], *, publish: bool = True) -> None:
        with self.ledger() as ledger:
            ledger.append(events)
            frame = ledger.frame()
            self.told = list(ledger.events())
        if publish:
            marts = standing_frame(frame, self.identities, POLICY, AS_OF)
            times = [pl.col(name).dt.replace_time_zone(None) for name in ("since_at", "expires_at")]
            write(self.home, "consent_standing", marts.with_columns(times))
