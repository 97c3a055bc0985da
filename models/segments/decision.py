"""Who of those that match may be contacted, and the first reason why another may not. For preview and export alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from consent.rule.policy import read_policy
from models.permission import asked_channel
from models.segments.definition import Segment, SegmentError
from models.segments.sql import compiled, connected
from models.tables import versions
from models.training import NEVER_ASKED
from troth.home import Home

TEST_CUSTOMER = "test_customer"
NO_CONTACT_POINT = "no_contact_point"
HELD_OUT = "held_out"
SAME_CONTACT_POINT = "same_contact_point"
MAY_BE_CONTACTED = "may_be_contacted"
# The token of `customers` that a channel reaches a person by; None where the customer id itself is the address.
CONTACT_POINTS: dict[str, str | None] = {"email": "email_ref", "sms": "phone_ref", "in_app": None, "onsite": None}


@dataclass(frozen=True)
class Members:
    """Everybody who matches: customer_id, is_test, contact_ref, is_held_out; and the tables this was read from."""

    rows: pl.DataFrame
    tables: Mapping[str, str]


@dataclass(frozen=True)
class Counts:
    """Matched = may be contacted + refused, summed over reasons. Test customers match nothing and are counted apart."""

    matched: int
    may_be_contacted: int
    refused: Mapping[str, int]
    test_customers: int


def asked(segment: Segment) -> tuple[str, str]:
    """The purpose and channel people are asked about. Raises: ModelsError when policy or contact points have none."""
    what = f"segment {segment.name}"
    channel = asked_channel(read_policy(), what, segment.purpose, segment.channel)
    if segment.channel not in CONTACT_POINTS:
        raise SegmentError(
            f"{what}, channel: expected one of {', '.join(CONTACT_POINTS)}, found {segment.channel}. "
            "No contact points of that kind are kept; choose one of them."
        )
    return segment.purpose, channel


def members(home: Home, segment: Segment, at: datetime) -> Members:
    """Everybody who matches as of a naive UTC time. Raises: SegmentError for what the published tables do not have."""
    query = compiled(home, segment, at)
    point = CONTACT_POINTS[segment.channel]
    # A stable share by segment name: the first 32 bits of an MD5 below a bound, both in hex. A new version of the
    # segment keeps the same people out.
    sql = f"""
with members as (
{query.sql}
)
select m.customer_id, m.is_test, {f"c.{point}" if point else "m.customer_id"} as contact_ref,
       substr(md5(concat($salt, m.customer_id)), 1, 8) < $bound as is_held_out
from members m join customers c on c.customer_id = m.customer_id
order by m.customer_id
"""  # noqa: S608 - the names are ours, every value is a parameter
    bound = f"{segment.holdout_percent * 2**32 // 100:08x}"
    with connected(home, query.tables) as connection:
        values = {**query.parameters, "salt": f"{segment.name}:", "bound": bound}
        rows = connection.sql(sql, params=values).pl()
    return Members(rows, versions(home, query.tables))


def decided(rows: pl.DataFrame, standing: pl.DataFrame) -> pl.DataFrame:
    """The members with `decision`. `standing`: customer_id, is_allowed, reason_code; who is missing was never asked."""
    reason = pl.coalesce(
        pl.when(pl.col("is_test")).then(pl.lit(TEST_CUSTOMER)),
        pl.when(~pl.col("is_allowed").fill_null(False)).then(pl.col("reason_code").fill_null(NEVER_ASKED)),
        pl.when(pl.col("contact_ref").is_null()).then(pl.lit(NO_CONTACT_POINT)),
        pl.when(pl.col("is_held_out")).then(pl.lit(HELD_OUT)),
    )
    judged = rows.join(
        standing.select("customer_id", "is_allowed", "reason_code"),
        on="customer_id",
        how="left",
        validate="1:1",
        maintain_order="left",
    ).with_columns(reason.alias("decision"))
    repeated = pl.col("decision").is_null() & (pl.int_range(pl.len()).over("contact_ref", "decision") > 0)
    return judged.select(
        "customer_id",
        "contact_ref",
        pl.when(repeated)
        .then(pl.lit(SAME_CONTACT_POINT))
        .otherwise(pl.col("decision").fill_null(MAY_BE_CONTACTED))
        .alias("decision"),
    )


def counted(decisions: pl.Series) -> Counts:
    """How many by decision."""
    counts = dict(decisions.value_counts(sort=False).iter_rows())
    test_customers = counts.pop(TEST_CUSTOMER, 0)
    allowed = counts.pop(MAY_BE_CONTACTED, 0)
    return Counts(allowed + sum(counts.values()), allowed, dict(sorted(counts.items())), test_customers)
