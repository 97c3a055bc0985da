"""A small retailer's published tables, written where the platform publishes them. One plain default, named changes."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from feature_repo.catalogue import STANDING_SLOTS, SUBJECT_STANDING, VIEWS, FieldType
from troth import published
from troth.home import Home

AS_OF = datetime(2026, 3, 2, 2, 0)  # tables hold UTC without a zone
ADA, BRAM, CLEO = "cus_ada", "cus_bram", "cus_cleo"
LEDGER_SIZE = 7
TYPES: dict[FieldType, Any] = {
    "text": pl.String,
    "integer": pl.Int64,
    "decimal": pl.Float64,
    "boolean": pl.Boolean,
    "timestamp": pl.Datetime("us"),
}
Rows = Sequence[Mapping[str, Any]]


def publish_table(home: Home, table: str, frame: pl.DataFrame) -> None:
    draft = home.root / f"{table}.draft.parquet"
    home.root.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(draft)
    published.publish(home, table, draft)


def view_frame(name: str, rows: Rows) -> pl.DataFrame:
    """Rows of a feature view in the types of its table; columns that are not named are null."""
    view = next(each for each in VIEWS if each.name == name)
    schema = {
        **dict.fromkeys(view.entity.join_keys, pl.String),
        view.event_column: pl.Datetime("us"),
        **{each.name: TYPES[each.type] for each in view.fields},
        **({"ledger_size": pl.Int64} if view is SUBJECT_STANDING else {}),
    }
    return pl.DataFrame([{view.event_column: AS_OF, **row} for row in rows], schema=schema)


def standing_row(customer_id: str, *, allowed: Sequence[str] = (), **changes: Any) -> dict[str, Any]:
    """One customer's standing: `service` by contract, the named slots granted, the rest never asked."""
    row: dict[str, Any] = {"customer_id": customer_id, "ledger_size": LEDGER_SIZE}
    for slot in STANDING_SLOTS:
        row[f"is_{slot}_allowed"] = slot == "service" or slot in allowed
        row[f"reason_{slot}"] = "contract" if slot == "service" else "granted" if slot in allowed else "never_asked"
    return row | changes


STANDING = (
    standing_row(ADA, allowed=("personalization", "analytics", "marketing_email")),
    standing_row(BRAM),
    standing_row(CLEO, is_personalization_allowed=False, reason_personalization="withdrawn"),
)


def standing_mart(expiries: Mapping[tuple[str, str, str], datetime]) -> pl.DataFrame:
    """`consent_standing` with the grants that end, by (customer, purpose, channel)."""
    rows = [
        {"customer_id": who, "purpose_code": purpose, "channel_code": channel, "is_allowed": True, "expires_at": at}
        for (who, purpose, channel), at in expiries.items()
    ]
    schema = {
        "customer_id": pl.String,
        "purpose_code": pl.String,
        "channel_code": pl.String,
        "is_allowed": pl.Boolean,
        "expires_at": pl.Datetime("us"),
    }
    return pl.DataFrame(rows, schema=schema)


def home_with_tables(root: Path, **tables: pl.DataFrame) -> Home:
    """A home with every table that features rest on; a named one replaces the default."""
    home = Home(root)
    purchases = [
        {
            "customer_id": ADA,
            "order_count_30d": 2,
            "order_count_90d": 5,
            "net_cents_90d": 12_345,
            "favourite_category_name": "Thé",
        },
        {"customer_id": ADA, "order_count_30d": 1, "order_count_90d": 4, "feature_at": AS_OF - timedelta(days=7)},
        {"customer_id": BRAM, "order_count_30d": 0, "order_count_90d": 1},
        {"customer_id": CLEO, "order_count_30d": 3, "order_count_90d": 3},
    ]
    availability = [
        ("SKU-00001", "S001", 10, 2, 1, 7),
        ("SKU-00001", "DC1", 50, 0, 5, 45),
        ("SKU-00002", "S001", 0, 0, 1, 0),
        ("SKU-00003", "S001", 4, 0, 1, 3),
    ]
    defaults = {
        "ftr_customer_purchases": view_frame("customer_purchases", purchases),
        "ftr_customer_engagement": view_frame(
            "customer_engagement", [{"customer_id": ADA, "view_count_30d": 9, "main_device_type": "mobile"}]
        ),
        "ftr_sku_location_availability": view_frame(
            "sku_location_availability",
            [
                {
                    "sku": sku,
                    "location_code": where,
                    "on_hand_units": hand,
                    "available_units": free,
                    "has_stock": free > 0,
                }
                for sku, where, hand, _, _, free in availability
            ],
        ),
        "ftr_product_popularity": view_frame(
            "product_popularity",
            [
                {"sku": f"SKU-{number:05d}", "sold_units_28d": 10 * number, "sold_units_7d": number}
                for number in (1, 2, 3)
            ],
        ),
        "ftr_subject_standing": view_frame(SUBJECT_STANDING.name, STANDING),
        "consent_standing": standing_mart({}),
        "availability": pl.DataFrame(
            availability,
            schema=["sku", "location_code", "on_hand_units", "committed_units", "safety_units", "available_units"],
            orient="row",
        ).with_columns(last_movement_at=pl.lit(AS_OF - timedelta(hours=9)), as_of_at=pl.lit(AS_OF)),
        "customers": pl.DataFrame(
            {"customer_id": [ADA, BRAM, CLEO], "home_location_code": ["S001", None, "S001"]},
        ),
        "customer_identities": pl.DataFrame(
            {
                "identity_ref": ["email_ada", "card_ada", "email_shared", "phone_bram", "email_bram"],
                "customer_id": [ADA, ADA, ADA, BRAM, BRAM],
                "link_type": ["hub", "deterministic", "contact", "deterministic", "contact"],
            }
        ),
        "order_lines": pl.DataFrame(
            {
                "customer_id": [ADA, ADA, BRAM, None],
                "sku": ["SKU-00001", "SKU-00003", "SKU-00002", "SKU-00001"],
                "ordered_at": [AS_OF - timedelta(days=days) for days in (3, 40, 5, 1)],
                "is_cancelled": [False, False, True, False],
            }
        ),
    }
    for name, frame in (defaults | tables).items():
        publish_table(home, name, frame)
    return home
