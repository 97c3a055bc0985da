"""A small retailer of whose customers little is known but that they said yes: tables, a ledger, and the publishing of standing over it.

As a program (`python -m benchmarks.consented_shop HOME`) it publishes over and over, as a schedule would, until it is ended.
"""

import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from consent.events import Event
from consent.ledger.opening import open_ledger
from consent.rule.policy import read_policy
from consent.rule.standing import standing_frame
from feature_repo.catalogue import (
    CUSTOMER,
    CUSTOMER_ENGAGEMENT,
    CUSTOMER_PURCHASES,
    IDENTITY,
    INDEXES,
    STANDING_SLOTS,
    SUBJECT_STANDING,
    VIEWS,
    View,
)
from feature_repo.publish import publish
from models.tables import naive, write
from troth.clock import SystemClock
from troth.errors import TrothError
from troth.home import Home
from troth.published import current

PUBLISHED = tuple(view for view in (*VIEWS, *INDEXES) if view.entity in (CUSTOMER, IDENTITY))
PAUSE_SECONDS = 0.2
_TYPES = {"text": pl.String, "integer": pl.Int64, "decimal": pl.Float64, "boolean": pl.Boolean, "timestamp": pl.Datetime("us")}  # fmt: skip


@dataclass(frozen=True)
class Person:
    """A customer, and the token that what they say is kept under."""

    customer_id: str
    subject_id: str


def people(count: int) -> list[Person]:
    tokens = (f"{number:022d}".translate(str.maketrans("0189", "aeio")) for number in range(count))
    return [Person(f"cus_{number:05}", f"email_{token}") for number, token in enumerate(tokens)]


def open_shop(home: Home, who: list[Person]) -> None:
    """Everybody says yes to personalization, everybody's features are published."""
    at = datetime.now(UTC)
    with open_ledger(home, SystemClock()) as ledger:
        ledger.append([_yes(each, at) for each in who])
    for view in (CUSTOMER_PURCHASES, CUSTOMER_ENGAGEMENT):
        write(home, view.table, _features(view, who, at))
    names = [each.customer_id for each in who]
    write(home, "customers", pl.DataFrame({"customer_id": names, "home_location_code": ["S001"] * len(who)}))
    write(home, "order_lines", pl.DataFrame({"customer_id": names, "sku": ["SKU-00001"] * len(who), "ordered_at": [naive(at)] * len(who), "is_cancelled": [False] * len(who)}))  # fmt: skip
    links = {"customer_id": names, "identity_ref": [each.subject_id for each in who], "link_type": ["hub"] * len(who)}
    write(home, "customer_identities", pl.DataFrame(links))
    project(home)


def project(home: Home) -> None:
    """Standing under all that the ledger holds now, and all that rests on it, into the online store. Raises: TrothError."""
    at = datetime.now(UTC)
    with open_ledger(home, SystemClock()) as ledger:
        events = ledger.frame()
    links = pl.read_parquet(current(home, "customer_identities"))
    rows = standing_frame(events, links, read_policy(), at)
    write(home, "consent_standing", rows)
    write(home, SUBJECT_STANDING.table, _by_customer(rows, at))
    publish(home, views=PUBLISHED)


def _by_customer(rows: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """As the model `ftr_subject_standing` has it: a column for each slot."""
    channel = pl.col("channel_code")
    slot = pl.when(channel == "*").then("purpose_code").otherwise(pl.concat_str("purpose_code", pl.lit("_"), channel))
    columns = [
        column
        for name in STANDING_SLOTS
        for column in (
            pl.col("is_allowed").filter(pl.col("slot") == name).first().alias(f"is_{name}_allowed"),
            pl.col("reason_code").filter(pl.col("slot") == name).first().alias(f"reason_{name}"),
        )
    ]
    wide = rows.with_columns(slot=slot).group_by("customer_id").agg(pl.col("ledger_size").max(), *columns)
    return wide.with_columns(feature_at=pl.lit(naive(at), pl.Datetime("us"))).sort("customer_id")


def _features(view: View, who: list[Person], at: datetime) -> pl.DataFrame:
    values: dict[str, Any] = {"text": "lanterns", "integer": 7, "decimal": 0.5, "boolean": True}
    columns = {each.name: pl.lit(values[each.type], _TYPES[each.type]) for each in view.fields}
    frame = pl.DataFrame({"customer_id": [each.customer_id for each in who]})
    return frame.with_columns(pl.lit(naive(at), pl.Datetime("us")).alias(view.event_column), **columns)


def _yes(who: Person, at: datetime) -> Event:
    return Event(
        subject_id=who.subject_id, event_type="grant", purpose_code="personalization", channel_code="*", occurred_at=at, recorded_at=at,
        received_at=at, notice_id="web_banner", notice_version=2, language_code="en", capture_method="banner_accept",
        capture_place="web_banner", actor_type="subject", jurisdiction_code="US-OR", signal_id=f"first-{who.customer_id}",
    )  # fmt: skip


def main(root: str) -> None:
    """Publish for ever. What cannot be read or written now is tried again."""
    home = Home(Path(root))
    while True:
        with suppress(TrothError, OSError):
            project(home)
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1])
