"""The records that describe a person, one per shop account, loyalty member and guest, as comparison wants them.

A record speaks for one identifier and is named by its token; the identifier's proved hub makes it one of a group. Clear text: it lives as long as
a run compares, and is written nowhere.
"""

import polars as pl

from models.identity.normalise import normalised
from models.identity.payments import PAID_SCHEMA
from models.identity.proofs import Sources

SAID = (
    "first_name",
    "last_name",
    "email",
    "phone",
    "birth_date",
    "street_address",
    "city",
    "region_code",
    "postal_code",
    "country_code",
)
OWNER = ("source_name", "record_type", "identity_type", "identity_ref")


def said_records(sources: Sources) -> pl.DataFrame:
    """What each record says now, as it was said: record_id, `OWNER`, `SAID`, payment. One row per record."""
    members = sources.latest_members.filter(pl.col("card_ref").is_not_null())
    guests = (
        sources.latest_orders.filter(pl.col("account_ref").is_null() & pl.col("email_ref").is_not_null())
        .sort("created_at", "order_id")
        .group_by("email_ref", maintain_order=True)
        .agg(*(pl.col(name).drop_nulls().last() for name in SAID if name in sources.orders.columns))
    )
    parts = [
        _spoken("ecommerce", "account", "account", "account_ref", sources.latest_accounts),
        _spoken("loyalty", "member", "card", "card_ref", members),
        _spoken("ecommerce", "guest", "email", "email_ref", guests),
    ]
    payment = _payments(sources)
    return (
        pl.concat(parts)
        .unique("record_id", keep="last", maintain_order=True)
        .join(payment, on=("identity_type", "identity_ref"), how="left", maintain_order="left")
        .sort("record_id")
    )


def normal_records(said: pl.DataFrame, country: str) -> pl.DataFrame:
    """The records as compared: record_id, the columns of `normalise.OUTPUTS`, payment."""
    return normalised(said, country).join(said.select("record_id", "payment"), on="record_id", maintain_order="left")


def _spoken(source: str, record_type: str, identity_type: str, ref: str, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        pl.col(ref).alias("record_id"),
        pl.lit(source).alias("source_name"),
        pl.lit(record_type).alias("record_type"),
        pl.lit(identity_type).alias("identity_type"),
        pl.col(ref).alias("identity_ref"),
        *((pl.col(name) if name in frame.columns else pl.lit(None)).cast(pl.String).alias(name) for name in SAID),
    )


def _payments(sources: Sources) -> pl.DataFrame:
    """The payment token each identifier paid with most. identity_type, identity_ref, payment."""
    used = _paid(sources).filter(~pl.col("is_test")).drop_nulls("identity_ref")
    counted = used.group_by("identity_type", "identity_ref", payment="payment_ref").len()
    return (
        counted.sort("len", "payment", descending=[True, False])
        .unique(("identity_type", "identity_ref"), keep="first")
        .drop("len")
    )


def paid_with(sources: Sources, country: str) -> pl.DataFrame:
    """Payment cards and what they were seen with, as `payments.PAID_SCHEMA`: one row per card, identifier and first name; without
    identifier, the receipts that showed no loyalty card."""
    paid = _paid(sources)
    names = paid.select(record_id="first_name").drop_nulls().unique()
    roots = normalised(names.with_columns(first_name="record_id"), country).select("given_root", first_name="record_id")
    return (
        paid.join(roots, on="first_name", how="left")
        .group_by("payment_ref", "identity_type", "identity_ref", "given_root", "source_name", "is_test")
        .agg(pl.len().alias("times"), pl.col("seen_at").min())
        .select(pl.col(name).cast(kind) for name, kind in PAID_SCHEMA.items())
    )


def _paid(sources: Sources) -> pl.DataFrame:
    """Every order and receipt that a payment card paid: payment_ref, who was named by what, source_name, is_test, seen_at."""
    signed = pl.col("account_ref").is_not_null()
    shown = pl.col("loyalty_card_ref").is_not_null()
    standing = pl.concat([sources.latest_orders, sources.orders.filter("is_test")], how="diagonal")
    orders = standing.select(
        "payment_ref", "first_name", "is_test", seen_at=pl.col("created_at").cast(pl.Datetime("us")), source_name=pl.lit("ecommerce"),
        identity_type=pl.when(signed).then(pl.lit("account")).otherwise(pl.lit("email")),
        identity_ref=pl.when(signed).then("account_ref").otherwise("email_ref"),
    ).drop_nulls("identity_ref")  # fmt: skip
    receipts = sources.cards.select(
        "payment_ref", first_name=pl.lit(None, pl.String), is_test=pl.lit(False), seen_at=pl.col("seen_at").cast(pl.Datetime("us")), source_name=pl.lit("pos"),
        identity_type=pl.when(shown).then(pl.lit("card")), identity_ref="loyalty_card_ref",
    )  # fmt: skip
    return pl.concat([orders, receipts.select(orders.columns)]).drop_nulls("payment_ref")
