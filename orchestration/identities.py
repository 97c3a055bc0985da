"""Identity between the rooms: raw rows in, customers out, and what became of them since the last run. What is decided is in `models.identity`.

Tables are written where SQL reads them (`raw/identity_*`): members, links, changes; and what was compared, so that the next run compares
only what changed. None of them holds what a person said: tokens, levels of agreement and probabilities alone.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any

import polars as pl
import polars.selectors as cs

from models.identity.payments import PAYMENT
from models.identity.proofs import Sources
from models.identity.resolving import Evidence, Remembered, Resolution
from orchestration.raw import made_table, raw_rows, read_table, write_table
from orchestration.sources.steward import DECISIONS, UNDO
from serving.operations.runs import IdentityRow
from troth.home import Home
from troth.settings import given_matching

Advance = Callable[[str, int, int], None]
MEMBERS, CONTACTS, LINKS, CHANGES = "identity_members", "identity_contacts", "identity_links", "identity_changes"
PAIRS, RECORDS = "identity_pairs", "identity_records"
TABLES = (MEMBERS, CONTACTS, LINKS, CHANGES, PAIRS, RECORDS)
COUNTRY = "US"  # read an address, phone or date as in this country where a record names none
_DESCRIBED = (
    "email",
    "email_ref",
    "phone",
    "phone_ref",
    "first_name",
    "last_name",
    "street_address",
    "city",
    "region_code",
    "postal_code",
)


def sources_of(home: Home, until: datetime | None = None) -> Sources:
    """What the sources said of people, as far as it was received by `until`."""

    def rows(table: str, *columns: str) -> pl.DataFrame:
        frame = raw_rows(home, table, columns, until)
        utc = cs.datetime(time_zone="*").dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return frame.with_columns(utc).with_columns(cs.datetime().dt.cast_time_unit("us"))

    receipts = rows(
        "raw_pos__transactions",
        "loyalty_card_ref",
        "payment_ref",
        "order_name",
        "business_date",
        "is_voided",
        "is_training",
        "transaction_type",
    ).filter((pl.col("transaction_type") == "retail") & ~pl.col("is_voided") & ~pl.col("is_training"))
    return Sources(
        accounts=rows("raw_ecommerce__customers", "account_id", "account_ref", "created_at", "updated_at", "is_email_verified", "is_test",
                      "country_code", *_DESCRIBED),
        members=rows("raw_loyalty__members", "member_id", "card_ref", "account_ref", "enrolled_at", "updated_at", "birth_date", *_DESCRIBED),
        orders=rows("raw_ecommerce__orders", "order_id", "order_name", "created_at", "updated_at", "account_ref", "payment_ref", "is_test", "country_code", *_DESCRIBED),
        refunds=rows("raw_ecommerce__refund_lines", "account_ref", "created_at"),
        cards=receipts.select("loyalty_card_ref", "payment_ref", seen_at=pl.col("business_date").cast(pl.Datetime("us"))),
        devices=rows("raw_ecommerce__events", "device_ref", "account_ref", "recorded_at"),
        handed_over=receipts.select("order_name", card_ref="loyalty_card_ref", seen_at=pl.col("business_date").cast(pl.Datetime("us"))).drop_nulls(),
    )  # fmt: skip


def evidence_of(home: Home, until: datetime, asks: bool = True) -> Evidence:
    """What customers are decided on: records, proofs, who may be joined by likeness. `asks` False leaves consent out, for judging alone."""
    from models.identity.proofs import first_seen, proved, seen_together
    from models.identity.records import normal_records, paid_with, said_records

    sources = sources_of(home, until)
    said = said_records(sources)
    proofs, together = proved(sources), seen_together(sources)
    return Evidence(
        records=normal_records(said, COUNTRY),
        owners=said.select("record_id", "identity_type", "identity_ref"),
        proved=proofs,
        seen=first_seen(sources),
        together=together,
        allowed=joining_standing(home, proofs, until, together).filter("is_allowed").select("group_ref")
        if asks
        else None,
        paid=paid_with(sources, COUNTRY),
        decisions=decisions_of(home, until),
    )


def joining_standing(home: Home, proofs: pl.DataFrame, until: datetime, together: pl.DataFrame) -> pl.DataFrame:
    """Of each proved group, whether its people said yes to being recognised: group_ref, is_allowed, reason_code. Who asks whether two
    records are one person uses both."""
    from consent.rule.joining import may_be_joined
    from consent.rule.policy import read_policy
    from models.identity.proofs import contacts

    events = pl.read_parquet(made_table(home, "consent_ledger"))
    alone = proofs.with_columns(customer_id="hub_identity_ref")  # each group by itself: nothing is joined yet
    shown = contacts(together, alone).select("identity_ref", "group_ref", link_type=pl.lit("contact"))
    groups = pl.concat(
        [
            alone.select("identity_ref", "hub_identity_ref", "link_type").rename({"hub_identity_ref": "group_ref"}),
            shown,
        ],
        how="diagonal",
    )
    at = until.astimezone(UTC)
    return may_be_joined(events, groups, read_policy(), at, at)


def decisions_of(home: Home, until: datetime | None = None) -> pl.DataFrame:
    """What stewards said last of each pair, as far as it was received by `until`; as `last_words` gives it."""
    names = [column.name for column in DECISIONS.columns]
    return last_words(raw_rows(home, DECISIONS.table, names, until))


def last_words(decisions: pl.DataFrame) -> pl.DataFrame:
    """The last decision on each pair, whichever way round it was named; of a pair whose last was `undo`, none. In the order of time."""
    pair = (pl.min_horizontal("first_ref", "second_ref"), pl.max_horizontal("first_ref", "second_ref"))
    last = (
        decisions.sort("decided_at", "decision_id")
        .group_by(*(each.alias(f"side_{n}") for n, each in enumerate(pair)))
        .last()
    )
    return last.filter(pl.col("decision_type") != UNDO).select(decisions.columns).sort("decided_at", "decision_id")


def resolve_identities(home: Home, until: datetime, advance: Advance) -> IdentityRow:
    """Resolve everyone anew from what changed, and write members, links, changes and what was compared."""
    from models.identity.adopting import adopted_or_learned
    from models.identity.changes import CHANGE_SCHEMA, changes
    from models.identity.proofs import contacts
    from models.identity.resolving import resolve

    steps = iter(range(1, 5))
    advance("resolve identities", 0, 4)
    evidence = evidence_of(home, until)
    advance("resolve identities", next(steps), 4)
    with comparing_on(given_matching()) as database:
        version, model = adopted_or_learned(home, evidence.records, database)
        advance("resolve identities", next(steps), 4)
        found = resolve(evidence, model, home.key("token"), version, remembered(home), database=database)
    advance("resolve identities", next(steps), 4)
    old = read_table(home, MEMBERS)
    told = read_table(home, CHANGES)
    told = pl.DataFrame(schema=CHANGE_SCHEMA) if told is None else told
    fresh = told.clear() if old is None else changes(old, found.members, until.astimezone(UTC).replace(tzinfo=None))
    _write(
        home,
        found,
        contacts(evidence.together, found.members),
        version,
        pl.concat([told, fresh]).unique("change_id", keep="first", maintain_order=True),
    )
    advance("resolve identities", next(steps), 4)
    kinds = dict(found.links["decision"].value_counts().iter_rows())
    moved = fresh.filter(pl.col("change_type").is_in(["merged", "split", "regrouped", "renamed"]))
    return IdentityRow(
        model=version, identities=found.members.filter(pl.col("identity_type") != PAYMENT).height, customers=found.members["customer_id"].n_unique(),
        records=evidence.records.height, compared=found.compared, decisions=kinds, moved=moved["identity_ref"].n_unique(),
    )  # fmt: skip


def comparing_on(matching: str) -> AbstractContextManager[Any]:
    """The database that records are compared on while it is open; None: DuckDB in memory. Raises: ModelsError where Spark is not there."""
    if matching == "duckdb":
        return nullcontext()
    from models.identity.spark import database

    return database()


def remembered(home: Home) -> Remembered | None:
    """What the last run compared, or None where none did."""
    pairs, records = read_table(home, PAIRS), read_table(home, RECORDS)
    if pairs is None or records is None or not records.height:
        return None
    return Remembered(str(records["model"][0]), records.select("record_id", "fingerprint"), pairs)


def _write(home: Home, found: Resolution, shown: pl.DataFrame, version: str, told: pl.DataFrame) -> None:
    """What was compared last: killed before, the next run compares again what this one had."""
    memory, utc = found.remembered, pl.col("linked_at").dt.replace_time_zone("UTC")
    frames: dict[str, Any] = {
        MEMBERS: found.members.with_columns(utc), CONTACTS: shown.with_columns(utc), LINKS: found.links, CHANGES: told, PAIRS: memory.pairs,
        RECORDS: memory.records.with_columns(model=pl.lit(version)),
    }  # fmt: skip
    for table, frame in frames.items():
        write_table(home, table, frame)
