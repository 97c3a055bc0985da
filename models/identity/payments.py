"""Whose a payment card is: the one customer whose records show it. A receipt without a loyalty card is known by it.

Decided by rules, not by likeness, and yet no proof: somebody of the house may pay with it. So a tie is a link of a type of its own that
carries no consent, names nobody and moves no id; it ends as soon as a rule no longer holds.
"""

from typing import TYPE_CHECKING

import polars as pl

from models.identity.proofs import SCHEMA

if TYPE_CHECKING:
    from models.identity.resolving import Evidence

PAYMENT = "payment"  # as a type of identifier, and as the type of its link
MOST_PAYMENT_CARDS = 3  # a loyalty card shown with more is a till's own, or a family's: it says nothing of who paid
SHOWN = 2  # who has a loyalty card shows it so many times for each receipt without one; else somebody else pays as well
OUTCOMES = (
    "tied", "test_account", "several_customers", "forbidden", "several_names", "may_be_a_housemates", "loyalty_card_not_shown", "not_allowed",
)  # fmt: skip
PAID_SCHEMA = {
    "payment_ref": pl.String(), "identity_type": pl.String(), "identity_ref": pl.String(), "given_root": pl.String(),
    "source_name": pl.String(), "is_test": pl.Boolean(), "times": pl.Int64(), "seen_at": pl.Datetime("us"),
}  # fmt: skip
_IDENTITY, _PAIR = ["identity_type", "identity_ref"], ["first_ref", "second_ref"]
_ADDRESS = ("house_number", "street_name", "postal_code")


def tied(evidence: "Evidence", members: pl.DataFrame, apart: pl.DataFrame | None = None) -> pl.DataFrame:
    """Members of customers by payment: a row, with the columns of `members`, for each card that is a customer's; as `judged` takes them."""
    return (
        judged(evidence, members, apart).filter(outcome="tied")
        .select(
            *("hub_identity_type", "hub_identity_ref", "source_name", "customer_id"), identity_type=pl.lit(PAYMENT), identity_ref="payment_ref",
            link_type=pl.lit(PAYMENT), linked_at="seen_at", is_test=pl.lit(False), match_probability=pl.lit(None, pl.Float64()),
        )
        .select(pl.col(name).cast(kind) for name, kind in members.schema.items())
        .sort(*list(SCHEMA)[:4])
    )  # fmt: skip


def judged(evidence: "Evidence", members: pl.DataFrame, apart: pl.DataFrame | None = None) -> pl.DataFrame:
    """Of each payment card that paid for a receipt without a loyalty card, whether it is a customer's: the first of `OUTCOMES` that speaks
    against it, or `tied`. Cards that no record shows are nobody's and left out.

    `members`: identifiers with hub and customer. `apart`: first_ref, second_ref of a card and an identifier that a steward said are not one's.
    Gives payment_ref, outcome, customer_id, the hub it was seen with most, source_name and seen_at of the first time.
    """
    paid, of, is_card = evidence.paid, pl.col("customer_id"), pl.col("identity_type") == "card"
    known = _of_customers(_without_lenders(paid.drop_nulls("identity_ref")), members)
    may = pl.lit(True)
    if evidence.allowed is not None:
        may = pl.col("hub_identity_ref").is_in(evidence.allowed["group_ref"].implode())
    # Asked of all at once: within the groups, everybody allowed would be gone through for each of them.
    cards = known.with_columns(may=may).group_by("payment_ref").agg(
        of.first(), of.n_unique().alias("customers"), pl.col("is_test").any(), pl.col("may").all(),
        pl.col("times").filter(is_card).sum().alias("shown"),
    )  # fmt: skip
    bare = paid.filter(pl.col("identity_ref").is_null()).group_by("payment_ref").agg(bare=pl.col("times").sum())
    with_own = cards.filter(pl.col("customers") == 1)["customer_id"].unique()
    near = _near_someone_without(with_own, members, evidence)
    enrolled = members.filter(is_card)["customer_id"].unique()
    return (
        cards.join(bare, on="payment_ref")
        .join(_names(known, evidence), on="payment_ref", how="left")
        .join(_hubs(known), on="payment_ref")
        .join(_parted(members, apart), on=("payment_ref", "customer_id"), how="left")
        .with_columns(
            outcome=pl.when("is_test").then(pl.lit("test_account"))
            .when(pl.col("customers") > 1).then(pl.lit("several_customers"))
            .when("is_parted").then(pl.lit("forbidden"))
            .when(pl.col("names") > 1).then(pl.lit("several_names"))
            .when(of.is_in(near.implode())).then(pl.lit("may_be_a_housemates"))
            .when(of.is_in(enrolled.implode()) & (pl.col("shown") < SHOWN * pl.col("bare"))).then(pl.lit("loyalty_card_not_shown"))
            .when(~pl.col("may")).then(pl.lit("not_allowed")).otherwise(pl.lit("tied"))
        )
        .select("payment_ref", "outcome", "customer_id", "hub_identity_type", "hub_identity_ref", "source_name", "seen_at")
        .sort("payment_ref")
    )  # fmt: skip


def _names(known: pl.DataFrame, evidence: "Evidence") -> pl.DataFrame:
    """How many first names are said of who was seen with each card, by their records and by the orders themselves."""
    named = evidence.records.select("record_id", root="given_root").join(evidence.owners, on="record_id")
    said = known.join(named.select(*_IDENTITY, "root"), on=_IDENTITY, how="left")
    roots = pl.concat([said.select("payment_ref", "root"), said.select("payment_ref", root="given_root")]).drop_nulls()
    return roots.group_by("payment_ref").agg(pl.col("root").n_unique().alias("names"))


def _parted(members: pl.DataFrame, apart: pl.DataFrame | None) -> pl.DataFrame:
    """Payment cards and customers that a steward parted. payment_ref, customer_id, is_parted."""
    said = pl.DataFrame(schema=dict.fromkeys(_PAIR, pl.String())) if apart is None else apart.select(_PAIR)
    both = pl.concat([said, said.select(first_ref="second_ref", second_ref="first_ref")])
    whose = members.select(second_ref="identity_ref", customer_id="customer_id").unique()
    parted = both.join(whose, on="second_ref").select("customer_id", payment_ref="first_ref").unique()
    return parted.with_columns(is_parted=pl.lit(True))


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


def _near_someone_without(with_own: pl.Series, members: pl.DataFrame, evidence: "Evidence") -> pl.Series:
    """Customers at whose address, phone or e-mail somebody of another first name was seen with no payment card of their own. Of the same
    first name, it is likely the customer once more, who was not joined."""
    whose = evidence.owners.join(members.select(*_IDENTITY, "customer_id"), on=_IDENTITY)
    of = evidence.records.join(whose.select("record_id", "customer_id"), on="record_id")
    address = pl.when(pl.col("street_name").is_not_null() & pl.col("postal_code").is_not_null()).then(
        pl.concat_str(*_ADDRESS, separator=" ", ignore_nulls=True)
    )
    places = pl.concat(
        of.select("customer_id", pl.col("given_root").fill_null(""), place=pl.lit(kind) + place)
        for kind, place in (("at ", address), ("phone ", pl.col("phone")), ("email ", pl.col("email")))
    ).drop_nulls()
    has_own = pl.col("customer_id").is_in(with_own.implode())
    # Names are counted and not paired: there are addresses with a thousand customers.
    without = places.filter(~has_own).select("place", "given_root").unique()
    mine = places.filter(has_own).unique()
    same = mine.join(without.filter(pl.col("given_root") != ""), on=["place", "given_root"], how="semi")
    return (
        mine.select("customer_id", "place").unique()
        .join(without.group_by("place").agg(pl.len().alias("names")), on="place")
        .join(same.group_by("customer_id", "place").agg(pl.len().alias("own")), on=["customer_id", "place"], how="left")
        .filter(pl.col("names") > pl.col("own").fill_null(0))["customer_id"].unique()
    )  # fmt: skip
