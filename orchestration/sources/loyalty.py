"""Loyalty scheme: member CSV and points ledger CSV. Contracts and the readers."""

from pathlib import Path

from orchestration.sources.contract import Column, Contract, FileKind, Reading, Source
from orchestration.sources.csv_rows import read_csv_rows

MEMBERS = Contract(
    table="raw_loyalty__members",
    description="Loyalty members, each time they were exported. One row per member and change.",
    key=("member_id", "updated_at"),
    columns=(
        Column("member_id", "text", "Scheme's own id.", required=True, personal="identifier"),
        Column("card_number", "text", "Card.", required=True, personal="identifier"),
        Column("card_ref", "text", "Token of the card.", personal="identifier", token_of=("card", "card_number")),
        Column("enrolled_at", "timestamp", "Joined.", required=True),
        Column("enrolled_store_code", "text", "Where, as the tills call the store; null for online."),
        Column("updated_at", "timestamp", "Last change.", required=True),
        Column("first_name", "text", "First name.", personal="name"),
        Column("last_name", "text", "Last name.", personal="name"),
        Column("email", "text", "E-mail as written on the form.", personal="contact"),
        Column("email_ref", "text", "Token of the e-mail.", personal="identifier", token_of=("email", "email")),
        Column("phone", "text", "Phone as written.", personal="contact"),
        Column("phone_ref", "text", "Token of the phone.", personal="identifier", token_of=("phone", "phone")),
        Column("birth_date", "date", "Date of birth.", personal="birth_date"),
        Column("street_address", "text", "Street and number.", personal="address"),
        Column("city", "text", "City.", personal="address"),
        Column("region_code", "text", "State.", personal="address"),
        Column("postal_code", "text", "Postal code.", personal="address"),
        Column("tier_code", "text", "Tier.", required=True, values=("basic", "silver", "gold")),
        Column("points_balance", "integer", "Balance the scheme states.", required=True),
        Column("account_id", "text", "Web account linked under a login; null while none is.", personal="identifier"),
        Column(
            "account_ref", "text", "Token of the account.", personal="identifier", token_of=("account", "account_id")
        ),
    ),
)
POINTS = Contract(
    table="raw_loyalty__points",
    description="Points ledger; a member's balance is its sum. One row per entry.",
    key=("entry_id",),
    columns=(
        Column("entry_id", "text", "Entry.", required=True),
        Column("member_id", "text", "Whose.", required=True, personal="identifier"),
        Column("occurred_at", "timestamp", "When.", required=True),
        Column("entry_type", "text", "Kind.", required=True, values=("accumulate", "redeem", "adjust", "expire")),
        Column("points", "integer", "Signed points.", required=True),
        Column("order_ref", "text", "Receipt (store/till/number/day) or web order's name that earned or used them."),
    ),
)
CONTRACTS = (MEMBERS, POINTS)


def read_members(path: Path) -> Reading:
    """Member CSV: the header holds the contract's column names."""
    return read_csv_rows(path, MEMBERS)


def read_points(path: Path) -> Reading:
    """Points ledger CSV: the header holds the contract's column names."""
    return read_csv_rows(path, POINTS)


SOURCE = Source(
    name="loyalty",
    description="Loyalty scheme: members and their points.",
    contracts=CONTRACTS,
    files=(
        FileKind("members_*.csv", (MEMBERS.table,), read_members),
        FileKind("points_*.csv", (POINTS.table,), read_points),
    ),
)
