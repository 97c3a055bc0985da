"""What is believed of a customer, on whose word, in parts: who, what they do, their store, how they come. Tokens and codes alone."""

from datetime import datetime
from typing import Any

import msgspec

from troth.home import Home
from troth.published import current

TABLES = ("customer_profiles", "customer_fields")
# Columns of customer_profiles by part; what is seen on site and app is for whoever asks to personalise, and so is what a visit there may
# have decided: when, and by which source, somebody was seen first and last.
IDENTITY = (
    "hub_identity_type", "identity_count", "group_count", "account_count", "card_count", "match_probability", "allowed_channels",
)  # fmt: skip
BEHAVIOUR = (
    "days_since_last_order", "order_count_30d", "order_count_90d", "order_count", "net_cents_90d", "net_cents", "average_order_cents_90d",
    "units_per_order_90d", "return_count_90d", "favourite_brand_name", "favourite_category_name",
)  # fmt: skip
BROWSING = (
    "days_since_last_visit", "view_count_30d", "search_count_30d", "cart_count_30d", "wish_count_30d", "last_device_type", "last_os_name",
    "main_device_type", "main_os_name",
    "first_source_name", "last_source_name", "first_seen_at", "last_seen_at",
)  # fmt: skip
STORE = ("home_location_code", "favourite_category_name", "favourite_sku_count", "favourite_sku_count_at_home")
CHANNEL = (
    "store_order_share", "web_order_share", "app_order_share", "marketplace_order_share",
)  # fmt: skip
Part = dict[str, str | int | float | datetime | None]


class FieldSaid(msgspec.Struct, frozen=True, kw_only=True):
    """A field and why its value stands. Of name, street and birth date there is no value: `identity_ref` says which record holds it."""

    field_name: str
    field_value: str | None
    survivorship_rule: str
    source_name: str
    record_type: str
    identity_ref: str
    said_at: datetime
    agreeing_count: int | None
    differing_count: int | None
    runner_up_value: str | None
    runner_up_source_name: str | None


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A customer. `is_proved`: nothing but proof joins its identities; else `identity.match_probability` says how sure the least sure is."""

    is_proved: bool
    identity: Part
    fields: list[FieldSaid]
    behaviour: Part
    store: Part
    channel: Part
    browsing: Part | None


class Found(msgspec.Struct, frozen=True):
    """The published rows of a customer, and the versions they are of."""

    profile: dict[str, Any]
    fields: list[dict[str, Any]]
    versions: dict[str, str]


def find(home: Home, customer_id: str) -> Found | None:
    """What is published about a customer; None for a test account, and for nobody."""
    import polars as pl
    import polars.selectors as cs

    files = {table: current(home, table) for table in TABLES}
    profiles, fields = (
        pl.scan_parquet(file)
        .filter(pl.col("customer_id") == customer_id)
        .with_columns(cs.datetime().dt.replace_time_zone("UTC"))
        .collect()
        .to_dicts()
        for file in files.values()
    )
    if not profiles:
        return None
    return Found(profiles[0], fields, {table: file.stem for table, file in files.items()})


def view(found: Found, with_browsing: bool) -> Profile:
    """The rows in parts."""

    def part(names: tuple[str, ...]) -> Part:
        return {name: found.profile[name] for name in names}

    said = sorted(found.fields, key=lambda row: str(row["field_name"]))
    return Profile(
        is_proved=found.profile["group_count"] == 1,
        identity=part(IDENTITY),
        fields=[FieldSaid(**{name: row[name] for name in FieldSaid.__struct_fields__}) for row in said],
        behaviour=part(BEHAVIOUR),
        store=part(STORE),
        channel=part(CHANNEL),
        browsing=part(BROWSING) if with_browsing else None,
    )


def in_short(profile: Profile) -> dict[str, Any]:
    """The profile as it fits on a terminal: of each field a line."""
    return {**msgspec.structs.asdict(profile), "fields": {said.field_name: _line(said) for said in profile.fields}}


def _line(said: FieldSaid) -> str:
    record = (
        f"{said.record_type.replace('_', ' ')} {said.identity_ref[:14]} of {said.source_name}, {said.said_at:%Y-%m-%d}"
    )
    if said.field_value is None:
        return f"held by {record}"
    others = f"; {said.agreeing_count} agree, {said.differing_count} differ" if said.agreeing_count else ""
    instead = f", next {said.runner_up_value[:14]} of {said.runner_up_source_name}" if said.runner_up_value else ""
    return f"{said.field_value[:14]}  {said.survivorship_rule.replace('_', ' ')}: {record}{others}{instead}"
