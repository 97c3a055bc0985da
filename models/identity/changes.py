"""What became of customers from one resolution to the next: who is new, who was joined, who was parted, and what they are called now.

An event names the customers before and after, and the identifiers that moved are listed with it, so that whoever holds an old id can follow.
"""

from datetime import datetime
from hashlib import sha256

import polars as pl

from models.identity.payments import PAYMENT

EVENT_TYPES = ("appeared", "merged", "split", "regrouped", "renamed", "gone")
CHANGE_SCHEMA = {
    "change_id": pl.String(), "changed_at": pl.Datetime("us"), "change_type": pl.String(), "customer_id": pl.String(),
    "from_customer_id": pl.String(), "identity_ref": pl.String(), "reason": pl.String(),
}  # fmt: skip


def changes(before: pl.DataFrame, after: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """The events between two resolutions (frames with identity_ref, customer_id), `at` naive UTC. One row per identifier that moved.

    `merged`: customers became one; `split`: one became several; `regrouped`: both at once; `renamed`: the same identifiers under another
    id, because an older identifier was learned of or the one that named them is gone; `appeared` and `gone` name customers of whom nothing
    was, or is, known. Payment cards tied to customers are no part of who they are: where one goes, orders follow and nothing else.
    """
    before, after = _who_they_are(before), _who_they_are(after)
    old = before.select("identity_ref", from_customer_id="customer_id").unique("identity_ref")
    new = after.select("identity_ref", "customer_id").unique("identity_ref")
    both = old.join(new, on="identity_ref", how="full", coalesce=True)
    lasting = both.drop_nulls()
    sources = lasting.group_by("customer_id").agg(pl.col("from_customer_id").n_unique().alias("sources"))
    targets = lasting.group_by("from_customer_id").agg(pl.col("customer_id").n_unique().alias("targets"))
    moved = (
        lasting.filter(pl.col("customer_id") != pl.col("from_customer_id"))
        .join(sources, on="customer_id")
        .join(targets, on="from_customer_id")
    )
    fused, torn = pl.col("sources") > 1, pl.col("targets") > 1
    moved = moved.with_columns(
        change_type=pl.when(fused & torn).then(pl.lit("regrouped")).when(fused).then(pl.lit("merged"))
        .when(torn).then(pl.lit("split")).otherwise(pl.lit("renamed"))
    )  # fmt: skip
    known, present = old["from_customer_id"].unique(), new["customer_id"].unique()
    gained, lost = both.filter(pl.col("from_customer_id").is_null()), both.filter(pl.col("customer_id").is_null())
    appeared = (
        gained.filter(~pl.col("customer_id").is_in(known.implode()))
        .join(lasting.select("customer_id"), on="customer_id", how="anti")
        .sort("identity_ref").unique("customer_id", keep="first").with_columns(change_type=pl.lit("appeared"))
    )  # fmt: skip
    gone = (
        lost.filter(~pl.col("from_customer_id").is_in(present.implode()))
        .join(lasting.select("from_customer_id"), on="from_customer_id", how="anti")
        .sort("identity_ref").unique("from_customer_id", keep="first").with_columns(change_type=pl.lit("gone"))
    )  # fmt: skip
    columns = ["change_type", "customer_id", "from_customer_id", "identity_ref"]
    told = pl.concat([moved.select(columns), appeared.select(columns), gone.select(columns)]).sort(
        "change_type", "identity_ref"
    )
    ids = [
        sha256("\0".join((at.isoformat(), *(value or "" for value in row))).encode()).hexdigest()[:24]
        for row in told.select(columns).iter_rows()
    ]
    reasons = {
        "merged": "the evidence joins them", "split": "the evidence no longer holds them together", "regrouped": "one part left and joined another",
        "renamed": "an older identifier of the same person was learned of", "appeared": "seen for the first time", "gone": "no source speaks of it any more",
    }  # fmt: skip
    is_nameless = (pl.col("change_type") == "renamed") & pl.col("from_customer_id").is_in(
        lost["from_customer_id"].implode()
    )
    is_nameless &= ~pl.col("customer_id").is_in(gained["customer_id"].implode())
    return told.with_columns(
        change_id=pl.Series(ids, dtype=pl.String),
        changed_at=pl.lit(at).cast(pl.Datetime("us")),
        reason=pl.when(is_nameless)
        .then(pl.lit("the identifier it was named after is spoken of no more"))
        .otherwise(pl.col("change_type").replace_strict(reasons, return_dtype=pl.String)),
    ).select(pl.col(name).cast(kind) for name, kind in CHANGE_SCHEMA.items())


def _who_they_are(members: pl.DataFrame) -> pl.DataFrame:
    return members.filter(pl.col("identity_type") != PAYMENT) if "identity_type" in members.columns else members
