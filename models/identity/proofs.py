"""Which identifiers belong together for certain: what a login, a verified mailbox or the scheme's own books prove. No likeness here.

`Sources` is what was said of people, each record once. Every identifier gets a hub: the account it was proved for, else the first card of its
member, else itself. One group of identifiers with one hub is the same person whatever anyone believes, until a source or a steward says otherwise.
"""

from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

HUB_TYPES = ("account", "card", "email")
_TEXT, _TIME, _FLAG = pl.String(), pl.Datetime("us"), pl.Boolean()
SCHEMA = {
    "identity_type": _TEXT, "identity_ref": _TEXT, "hub_identity_type": _TEXT, "hub_identity_ref": _TEXT, "link_type": _TEXT,
    "source_name": _TEXT, "linked_at": _TIME, "is_test": _FLAG,
}  # fmt: skip
TOGETHER_SCHEMA = {
    **dict.fromkeys(("identity_type", "identity_ref", "by_type", "by_ref", "source_name"), _TEXT), "seen_at": _TIME,
}  # fmt: skip


@dataclass(frozen=True)
class Sources:
    """Raw rows about people, naive UTC times. `accounts`, `members`, `orders`: every version; `refunds`: account_ref, created_at;
    `cards`: loyalty_card_ref, seen_at of receipts that count; `devices`: device_ref, account_ref, recorded_at of web events; `handed_over`:
    card_ref, order_name, seen_at of receipts at which a card was shown and a web order handed over."""

    accounts: pl.DataFrame
    members: pl.DataFrame
    orders: pl.DataFrame
    refunds: pl.DataFrame
    cards: pl.DataFrame
    devices: pl.DataFrame
    handed_over: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema={"card_ref": _TEXT, "order_name": _TEXT, "seen_at": _TIME})
    )

    @cached_property
    def latest_accounts(self) -> pl.DataFrame:
        return _latest(self.accounts, "account_id")

    @cached_property
    def latest_members(self) -> pl.DataFrame:
        return _latest(self.members, "member_id")

    @cached_property
    def latest_orders(self) -> pl.DataFrame:
        """Orders as they stand, testers' left out."""
        return _latest(self.orders, "order_id").filter(~pl.col("is_test"))

    @cached_property
    def seen_devices(self) -> pl.DataFrame:
        known = self.devices.filter(pl.col("account_ref").is_not_null())
        return known.group_by("device_ref", "account_ref").agg(pl.col("recorded_at").min().alias("seen_at"))


def proved(sources: Sources) -> pl.DataFrame:
    """Every identifier that can be a person's, with its hub. One row per identifier; columns `SCHEMA`, ordered by it."""
    cards = _member_cards(sources)
    emails = _verified_emails(sources)
    devices = (
        sources.seen_devices.drop_nulls("device_ref").group_by("device_ref")
        .agg(pl.col("account_ref").first(), pl.col("account_ref").n_unique().alias("owners"), pl.col("seen_at").min())
        .filter(pl.col("owners") == 1)
    )  # fmt: skip
    parts = [
        _rows("account", _accounts(sources), ref="account_ref", hub="account_ref"),
        _rows("email", emails, ref="email_ref", hub="account_ref", hub_type="account", source="ecommerce"),
        _rows("email", _guest_emails(sources, emails), ref="email_ref", hub="email_ref", source="ecommerce"),
        _rows("card", cards.filter(pl.col("account_ref").is_not_null()), ref="card_ref", hub="account_ref", hub_type="account", source="loyalty"),
        _rows("card", cards.filter(pl.col("account_ref").is_null()), ref="card_ref", hub="first_card_ref", source="loyalty"),
        _rows("card", _unknown_cards(sources, cards), ref="card_ref", hub="card_ref", source="pos"),
        _rows("device", devices.rename({"seen_at": "linked_at"}), ref="device_ref", hub="account_ref", hub_type="account", source="ecommerce"),
    ]  # fmt: skip
    testers = sources.accounts.group_by("account_ref").agg(pl.col("is_test").fill_null(False).any()).filter("is_test")
    is_hub = (pl.col("identity_type") == pl.col("hub_identity_type")) & (
        pl.col("identity_ref") == pl.col("hub_identity_ref")
    )
    return (
        pl.concat(parts)
        .with_columns(
            link_type=pl.when(is_hub).then(pl.lit("hub")).otherwise(pl.lit("deterministic")),
            is_test=(pl.col("hub_identity_type") == "account")
            & pl.col("hub_identity_ref").is_in(testers["account_ref"].implode()),
        )
        .select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
        .sort(*list(SCHEMA)[:4])
    )


def first_seen(sources: Sources) -> pl.DataFrame:
    """When any source first showed an account, card or e-mail, whatever it was to it. identity_type, identity_ref, first_seen_at."""
    accounts, members, orders = sources.accounts, sources.members, sources.latest_orders
    parts = [
        _seen("account", accounts, "account_ref", "created_at"),
        _seen("email", accounts, "email_ref", "created_at"),
        _seen("account", orders, "account_ref", "created_at"),
        _seen("email", orders, "email_ref", "created_at"),
        _seen("account", sources.refunds, "account_ref", "created_at"),
        _seen("account", sources.seen_devices, "account_ref", "seen_at"),
        _seen("account", members, "account_ref", "updated_at"),
        _seen("card", members, "card_ref", "enrolled_at"),
        _seen("email", members, "email_ref", "updated_at"),
        _seen("card", sources.cards, "loyalty_card_ref", "seen_at"),
    ]
    return pl.concat(parts).group_by("identity_type", "identity_ref").agg(pl.col("first_seen_at").min())


def seen_together(sources: Sources) -> pl.DataFrame:
    """Two identifiers in one record, however old: no proof of one person, but enough to carry a refusal.

    identity_type, identity_ref, by_type, by_ref (whose record it was), source_name, seen_at; one row each, the first time it was seen.
    """
    signed = pl.col("account_ref").is_not_null()
    orders = sources.latest_orders.with_columns(
        by_type=pl.when(signed).then(pl.lit("account")).otherwise(pl.lit("email")),
        by_ref=pl.when(signed).then("account_ref").otherwise("email_ref"),
    )
    accounts = sources.accounts.with_columns(by_type=pl.lit("account"), by_ref="account_ref")
    members = sources.members.with_columns(by_type=pl.lit("card"), by_ref="card_ref")
    owned = sources.members.with_columns(by_type=pl.lit("account"), by_ref="account_ref")
    devices = sources.seen_devices.with_columns(by_type=pl.lit("account"), by_ref="account_ref")
    parts = [
        *(_beside(kind, accounts, "updated_at", "ecommerce") for kind in ("email", "phone")),
        *(_beside(kind, members, "updated_at", "loyalty") for kind in ("email", "phone", "account")),
        _beside("card", owned, "updated_at", "loyalty"),
        *(_beside(kind, orders, "created_at", "ecommerce") for kind in ("email", "phone")),
        _beside("device", devices, "seen_at", "ecommerce"),
    ]
    if sources.handed_over.height:
        named = orders.select("order_name", "by_type", "by_ref").unique("order_name", keep="last")
        parts.append(_beside("card", sources.handed_over.join(named, on="order_name"), "seen_at", "pos"))
    every = pl.concat(parts).drop_nulls(["identity_ref", "by_ref"])
    return every.group_by("identity_type", "identity_ref", "by_type", "by_ref").agg(
        pl.col("source_name").min(), pl.col("seen_at").min()
    )


def _beside(kind: str, frame: pl.DataFrame, at: str, source: str) -> pl.DataFrame:
    return frame.select(
        pl.lit(kind).alias("identity_type"),
        pl.col(f"{kind}_ref").alias("identity_ref"),
        "by_type",
        "by_ref",
        pl.lit(source).alias("source_name"),
        pl.col(at).cast(_TIME).alias("seen_at"),
    )


def contacts(together: pl.DataFrame, members: pl.DataFrame) -> pl.DataFrame:
    """The identifiers that a customer's records show and nothing proves: over them a refusal travels, a grant never.

    `members`: rows with the columns `SCHEMA` and customer_id. One row per identifier and customer, with group_ref.
    """
    of = members.select(
        by_type="identity_type",
        by_ref="identity_ref",
        customer_id="customer_id",
        group_ref="hub_identity_ref",
        is_test="is_test",
    )
    found = together.join(of, on=("by_type", "by_ref"), how="inner")
    return (
        found.join(members, on=("identity_type", "identity_ref", "customer_id"), how="anti")
        .group_by("identity_type", "identity_ref", "customer_id")
        .agg(
            pl.col("group_ref").min(), pl.col("source_name").min(), linked_at=pl.col("seen_at").min(), is_test=pl.col("is_test").any()
        )
        .sort("identity_type", "identity_ref", "customer_id")
    )  # fmt: skip


def _seen(identity_type: str, frame: pl.DataFrame, ref: str, at: str) -> pl.DataFrame:
    return frame.select(
        pl.lit(identity_type).alias("identity_type"),
        pl.col(ref).alias("identity_ref"),
        pl.col(at).cast(_TIME).alias("first_seen_at"),
    ).drop_nulls()


def _latest(frame: pl.DataFrame, key: str) -> pl.DataFrame:
    return frame.sort("updated_at", maintain_order=True).unique(key, keep="last", maintain_order=True)


def _rows(
    identity_type: str, frame: pl.DataFrame, ref: str, hub: str, hub_type: str = "", source: str = ""
) -> pl.DataFrame:
    return frame.select(
        pl.lit(identity_type).alias("identity_type"),
        pl.col(ref).alias("identity_ref"),
        pl.lit(hub_type or identity_type).alias("hub_identity_type"),
        pl.col(hub).alias("hub_identity_ref"),
        (pl.lit(source) if source else pl.col("source_name")).alias("source_name"),
        pl.col("linked_at").cast(_TIME),
    )


def _accounts(sources: Sources) -> pl.DataFrame:
    """An account is a hub wherever it was first seen: its master record may come later than its first order."""
    shop, scheme = pl.lit("ecommerce").alias("source_name"), pl.lit("loyalty").alias("source_name")
    seen = [
        sources.accounts.select("account_ref", shop, linked_at="created_at"),
        sources.latest_orders.select("account_ref", shop, linked_at="created_at"),
        sources.refunds.select("account_ref", shop, linked_at="created_at"),
        sources.seen_devices.select("account_ref", shop, linked_at="seen_at"),
        sources.latest_members.select("account_ref", scheme, linked_at="updated_at"),
    ]
    every = pl.concat(part.with_columns(pl.col("linked_at").cast(_TIME)) for part in seen).drop_nulls("account_ref")
    return every.group_by("account_ref").agg(pl.col("source_name").min(), pl.col("linked_at").min())


def _verified_emails(sources: Sources) -> pl.DataFrame:
    """An e-mail proves an account only when the shop verified it, and for that account alone."""
    verified = sources.latest_accounts.filter(pl.col("is_email_verified") & pl.col("email_ref").is_not_null())
    owned = verified.group_by("email_ref").agg(
        pl.col("account_ref").min(),
        pl.col("account_ref").n_unique().alias("owners"),
        linked_at=pl.col("created_at").min(),
    )
    return owned.filter(pl.col("owners") == 1)


def _guest_emails(sources: Sources, verified: pl.DataFrame) -> pl.DataFrame:
    guests = sources.latest_orders.filter(pl.col("account_ref").is_null() & pl.col("email_ref").is_not_null())
    return (
        guests.join(verified, on="email_ref", how="anti")
        .group_by("email_ref")
        .agg(linked_at=pl.col("created_at").min())
    )


def _member_cards(sources: Sources) -> pl.DataFrame:
    """A card belongs to the member who carried it last; a member is known by the first card still held."""
    carried = (
        sources.members.filter(pl.col("card_ref").is_not_null())
        .with_columns(linked_at=pl.col("updated_at").min().over("card_ref", "member_id"))
        .sort(pl.col("updated_at"), "member_id", descending=[True, False], maintain_order=True)
    )
    held = carried.unique("card_ref", keep="first", maintain_order=True).select("card_ref", "member_id", "linked_at")
    first = held.sort("linked_at", "card_ref").unique("member_id", keep="first")
    return held.join(sources.latest_members.select("member_id", "account_ref"), on="member_id").join(
        first.select("member_id", first_card_ref="card_ref"), on="member_id"
    )


def _unknown_cards(sources: Sources, known: pl.DataFrame) -> pl.DataFrame:
    shown = (
        sources.cards.drop_nulls("loyalty_card_ref")
        .group_by(card_ref="loyalty_card_ref")
        .agg(linked_at=pl.col("seen_at").min())
    )
    return shown.join(known, on="card_ref", how="anti")
