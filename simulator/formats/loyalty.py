"""Loyalty scheme: members and a points ledger as CSV. A member's stated balance is the sum of their entries."""

import numpy as np
import polars as pl

from simulator.duplicates import NEVER
from simulator.landing import Kind, Landing, cut_short, spoiled
from simulator.people import People
from simulator.places import Places
from simulator.spelling import csv_lines, moments

MEMBERS = Kind(
    "loyalty", "raw_loyalty__members",
    (("raw_loyalty__members", cut_short), ("raw_loyalty__members", spoiled(r",(basic|silver|gold),-?\d+,", r",\1,n/a,"))),
)  # fmt: skip
POINTS = Kind(
    "loyalty",
    "raw_loyalty__points",
    (("raw_loyalty__points", spoiled(r",-?\d+,([^,]*)$", r",ten,\1")),),
    may_wait=False,
)
MEMBER_COLUMNS = (
    "member_id,card_number,enrolled_at,enrolled_store_code,updated_at,first_name,last_name,email,phone,birth_date,street_address,city,"
    "region_code,postal_code,tier_code,points_balance,account_id"
)
POINT_COLUMNS = "entry_id,member_id,occurred_at,entry_type,points,order_ref"
ENTRY_TYPES = ("accumulate", "redeem", "adjust", "expire")
ACCUMULATE, REDEEM, ADJUST, EXPIRE = range(4)


def members_text(
    people: People,
    places: Places,
    person: np.ndarray,
    enrolled: np.ndarray,
    updated: np.ndarray,
    balance: np.ndarray,
    day: int,
) -> pl.Series:
    """Members as they stand on a day; the account shows once both halves exist and were linked under one login."""

    def text(column: str) -> pl.Series:
        return people.text(column, person)

    linked = people.is_linked[person] & (people.account_day[person] <= day) & (people.account_day[person] < NEVER)
    linked &= people.duplicates.unlinked_day[person] > day
    store = places.master["pos_store_code"][people.home[person]]
    tier = np.digitize(balance, [600, 1500])
    return csv_lines(pl.select(
        text("member_id").alias("member_id"), text("card").alias("card_number"), moments(enrolled).alias("enrolled_at"),
        pl.when(pl.Series(person % 5 != 0)).then(store).alias("enrolled_store_code"), moments(updated).alias("updated_at"),
        text("form_first_name").alias("first_name"), text("form_last_name").alias("last_name"),
        text("form_email").alias("email"), text("form_phone").alias("phone"), text("birth_date").alias("birth_date"),
        text("form_street").alias("street_address"), text("form_city").alias("city"), text("form_region").alias("region_code"),
        text("form_postal").alias("postal_code"), pl.Series(["basic", "silver", "gold"])[tier].alias("tier_code"),
        pl.Series(balance).alias("points_balance"), pl.when(pl.Series(linked)).then(text("account_id")).alias("account_id"),
    ))  # fmt: skip


def points_text(
    people: People,
    person: np.ndarray,
    at: np.ndarray,
    kind: np.ndarray,
    points: np.ndarray,
    reference: pl.Series,
    first: int,
) -> pl.Series:
    """Ledger entries."""
    return csv_lines(pl.select(
        pl.concat_str([pl.lit("E"), pl.Series(np.arange(first, first + len(person))).cast(pl.String).str.zfill(10)]).alias("entry_id"),
        people.text("member_id", person).alias("member_id"), moments(at).alias("occurred_at"),
        pl.Series(ENTRY_TYPES)[kind].alias("entry_type"), pl.Series(points).alias("points"), reference.alias("order_ref"),
    ))  # fmt: skip


def write(landing: Landing, day: int, members: pl.Series, points: pl.Series) -> None:
    landing.write_records(MEMBERS, day, f"members_{landing.date(day)}.csv", members, MEMBER_COLUMNS + "\n")
    landing.write_records(POINTS, day, f"points_{landing.date(day)}.csv", points, POINT_COLUMNS + "\n")
