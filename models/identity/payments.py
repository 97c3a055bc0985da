"""Whose a payment card is: the one customer whose records show it. A receipt without a loyalty card is known by it.

Decided by rules, not by likeness, and yet no proof: somebody of the house may pay with it. So a tie is a link of a type of its own that
carries no consent, names nobody and moves no id; it ends as soon as a rule no longer holds.
"""

import polars as pl

from models.identity.proofs import SCHEMA

PAYMENT = "payment"  # as a type of identifier, and as the type of its link
MOST_PAYMENT_CARDS = 3  # a loyalty card shown with more is a till's own, or a family's: it says nothing of who paid
SHOWN = 2  # who has a loyalty card shows it so many times for each receipt without one; else somebody else pays as well
OUTCOMES = (
    "tied", "test_account", "several_customers", "several_names", "may_be_a_housemates", "loyalty_card_not_shown", "not_allowed",
)  # fmt: skip
PAID_SCHEMA = {
    "payment_ref": pl.String(), "identity_type": pl.String(), "identity_ref": pl.String(), "given_root": pl.String(),
    "source_name": pl.String(), "is_test": pl.Boolean(), "times": pl.Int64(), "seen_at": pl.Datetime("us"),
}  # fmt: skip
_IDENTITY = ["identity_type", "identity_ref"]
_ADDRESS = ("house_number", "street_name", "postal_code")


def tied(
    paid: pl.DataFrame, members: pl.DataFrame, records: pl.DataFrame, owners: pl.DataFrame, allowed: pl.DataFrame | None
) -> pl.DataFrame:
    """Members of customers by payment: a row, with the columns of `members`, for each card that is a customer's; as `judged` takes them."""
    found = judged(paid, members, records, owners, allowed).filter(outcome="tied")
    return found.select(
        pl.lit(PAYMENT).alias("identity_type"), pl.col("payment_ref").alias("identity_ref"),
        pl.lit(PAYMENT).alias("link_type"), pl.lit(False).alias("is_test"), pl.col("seen_at").alias("linked_at"),
        pl.lit(None, pl.Float64()).alias("match_probability"),
        *("hub_identity_type", "hub_identity_ref", "source_name", "customer_id"),
    ).select(pl.col(name).cast(kind) for name, kind in members.schema.items()).sort(*list(SCHEMA)[:4])  # fmt: skip


def judged(
    paid: pl.DataFrame, members: pl.DataFrame, records: pl.DataFrame, owners: pl.DataFrame, allowed: pl.DataFrame | None
) -> pl.DataFrame:
    """Of each payment card that paid for a receipt without a loyalty card, whether it is a customer's: the first of `OUTCOMES` that speaks
    against it, or `tied`. Cards that no record shows are nobody's and left out.

    `paid`: `PAID_SCHEMA`, one row per card, identifier and first name; without identifier, the receipts without a loyalty card. `members`:
    identifiers with hub and customer. `records`, `owners`: as in `Evidence`. `allowed`: group_ref of those who said yes to being
    recognised; None: all. Gives payment_ref, outcome, customer_id, the hub it was seen with most, source_name and seen_at of the first time.
    """
    known = _of_customers(_without_lenders(paid.drop_nulls("identity_ref")), members)
    named = records.select("record_id", root="given_root").join(owners, on="record_id").select(*_IDENTITY, "root")
    said = known.join(named, on=_IDENTITY, how="left")
    roots = pl.concat([said.select("payment_ref", "root"), said.select("payment_ref", root="given_root")]).drop_nulls()
    names = roots.group_by("payment_ref").agg(pl.col("root").n_unique().alias("names"))
    may = pl.lit(True) if allowed is None else pl.col("hub_identity_ref").is_in(allowed["group_ref"].implode())
    is_card = pl.col("identity_type") == "card"
    cards = known.group_by("payment_ref").agg(
        pl.col("customer_id").first(), pl.col("customer_id").n_unique().alias("customers"), pl.col("is_test").any(),
        may.all().alias("may"), pl.col("times").filter(is_card).sum().alias("shown"),
    )  # fmt: skip
    alone = cards.filter(pl.col("customers") == 1)["customer_id"].unique()
    bare = (
        paid.filter(pl.col("identity_ref").is_null()).group_by("payment_ref").agg(pl.col("times").sum().alias("bare"))
    )
    members_of_scheme = members.filter(is_card)["customer_id"].unique()
    near = _near_someone_without(alone, members, records, owners)
    of = pl.col("customer_id")
    return (
        cards.join(bare, on="payment_ref")
        .join(names, on="payment_ref", how="left")
        .join(_hubs(known), on="payment_ref")
        .with_columns(
            outcome=pl.when("is_test").then(pl.lit("test_account"))
            .when(pl.col("customers") > 1).then(pl.lit("several_customers"))
            .when(pl.col("names") > 1).then(pl.lit("several_names"))
            .when(of.is_in(near.implode())).then(pl.lit("may_be_a_housemates"))
            .when(of.is_in(members_of_scheme.implode()) & (pl.col("shown") < SHOWN * pl.col("bare"))).then(pl.lit("loyalty_card_not_shown"))
            .when(~pl.col("may")).then(pl.lit("not_allowed")).otherwise(pl.lit("tied"))
        )
        .select("payment_ref", "outcome", "customer_id", "hub_identity_type", "hub_identity_ref", "source_name", "seen_at")
        .sort("payment_ref")
    )  # fmt: skip


def _without_lenders(seen: pl.DataFrame) -> pl.DataFrame:
    """What was seen, less the loyalty cards that are shown for everybody."""
    cards = (
        seen.filter(identity_type="card").group_by("identity_ref").agg(pl.col("payment_ref").n_unique().alias("tokens"))
    )
    lent = cards.filter(pl.col("tokens") > MOST_PAYMENT_CARDS)["identity_ref"]
    return seen.filter((pl.col("identity_type") != "card") | ~pl.col("identity_ref").is_in(lent.implode()))


def _of_customers(seen: pl.DataFrame, members: pl.DataFrame) -> pl.DataFrame:
    """What was seen, with hub and customer. An identifier that is no customer's stands on testers' orders alone."""
    whose = members.select(
        *_IDENTITY,
        "hub_identity_type",
        "hub_identity_ref",
        "customer_id",
        is_testers=pl.col("is_test").fill_null(False),
    )
    return seen.join(whose, on=_IDENTITY, how="left").with_columns(
        pl.coalesce("customer_id", "identity_ref").alias("customer_id"), is_test=pl.col("is_test") | pl.col("is_testers").fill_null(True)
    )  # fmt: skip


def _hubs(known: pl.DataFrame) -> pl.DataFrame:
    """Of each card, the proved group it was seen with most, of equals the first in the alphabet; and who told of it first."""
    groups = known.group_by("payment_ref", "hub_identity_type", "hub_identity_ref").agg(pl.col("times").sum())
    most = groups.sort("times", "hub_identity_ref", descending=[True, False]).unique(
        "payment_ref", keep="first", maintain_order=True
    )
    first = known.sort("seen_at", "source_name").unique("payment_ref", keep="first", maintain_order=True)
    return most.drop("times").join(first.select("payment_ref", "source_name", "seen_at"), on="payment_ref")


def _near_someone_without(
    alone: pl.Series, members: pl.DataFrame, records: pl.DataFrame, owners: pl.DataFrame
) -> pl.Series:
    """Customers at whose address, phone or e-mail there is another customer who was seen with no payment card of their own (`alone`: who was)."""
    whose = owners.join(members.select(*_IDENTITY, "customer_id"), on=_IDENTITY).select("record_id", "customer_id")
    of = records.join(whose, on="record_id")
    address = pl.when(pl.col("street_name").is_not_null() & pl.col("postal_code").is_not_null()).then(
        pl.concat_str(*_ADDRESS, separator=" ", ignore_nulls=True)
    )
    places = pl.concat(
        of.select("customer_id", place=pl.lit(kind) + place)
        for kind, place in (("at ", address), ("phone ", pl.col("phone")), ("email ", pl.col("email")))
    ).drop_nulls()
    has_own = pl.col("customer_id").is_in(alone.implode())
    watched = places.filter(~has_own).select("place").unique()
    return places.filter(has_own).join(watched, on="place", how="semi")["customer_id"].unique()
