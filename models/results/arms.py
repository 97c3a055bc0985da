"""Who was assigned to which arm, who of them is measured and why the others are not, and what the measured did.

A person counts once, in the arm of their first file of the segment (over the channel, where one is asked for), whatever arrived
and whatever went out later. What people did is looked at for `analytics`: whose standing for it is a no is left out of both arms.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import duckdb
import polars as pl

from consent.rule.policy import EVERY
from models.segments import kept
from models.segments.conditions import SegmentError
from models.segments.decision import HELD_OUT, TEST_CUSTOMER, TREATED
from models.segments.sql import connected
from models.tables import versions
from models.training import NEVER_ASKED
from troth.home import Home

ARMS = (TREATED, HELD_OUT)
PURPOSE = "analytics"
ANOTHER_SHARE = "another_share"
TOO_RECENT = "too_recent"
NOT_KNOWN = "no_longer_known"
_CLOCK = "ftr_customer_purchases"  # says until when the tables know what happened
TABLES = ("customers", "consent_standing", "orders", "web_events", _CLOCK)
_ASSIGNED = """
create temp table assigned as
select customer_id, of_first.arm as arm, of_first.assigned_at as assigned_at, of_first.holdout_percent as holdout_percent
from (
    select customer_id, arg_min(
        {'arm': arm, 'assigned_at': assigned_at, 'holdout_percent': holdout_percent},
        {'assigned_at': assigned_at, 'channel_code': channel_code}
    ) as of_first
    from read_parquet($files)
    where assigned_at <= $at and channel_code = coalesce($channel_code, channel_code)
    group by customer_id
) firsts
"""
_FILES = """
select channel_code, assigned_at, any_value(version), any_value(holdout_percent)
from read_parquet($files, filename = true) where assigned_at <= $at
group by filename, channel_code, assigned_at order by assigned_at, channel_code
"""
# First reasons first. Standing is the published one; a yes that has ended since is told as such.
_JUDGED = f"""
create or replace temp table judged as
select row_number() over (order by a.customer_id) as person, a.customer_id, a.arm, a.assigned_at,
       case when a.holdout_percent <> $holdout_percent then '{ANOTHER_SHARE}'
            when a.assigned_at > $latest then '{TOO_RECENT}'
            when c.customer_id is null then '{NOT_KNOWN}'
            when c.is_test then '{TEST_CUSTOMER}'
            when s.customer_id is null then '{NEVER_ASKED}'
            when not s.is_allowed then s.reason_code
            when s.expires_at <= $at then 'expired'
       end as reason
from assigned a
left join customers c on c.customer_id = a.customer_id
left join consent_standing s
    on s.customer_id = a.customer_id and s.purpose_code = '{PURPOSE}' and s.channel_code = '{EVERY}'
"""  # noqa: S608 - names of ours
# Amounts of several currencies cannot be added: those of the currency most orders are in.
_DID = """
with main_currency as (
    select currency_code from orders where not is_cancelled
    group by currency_code order by count(*) desc, currency_code limit 1
),
told as (
    select o.customer_id, cast(o.ordered_at as timestamp) as happened_at, 0 as events, 0 as views, 1 as orders,
           case when c.currency_code is null then 0 else 1 end as paid_orders,
           case when c.currency_code is null then 0 else o.net_cents end as net_cents
    from orders o left join main_currency c on c.currency_code = o.currency_code
    where not o.is_cancelled
    union all
    select customer_id, cast(occurred_at as timestamp), 1, case when event_name = 'Product Viewed' then 1 else 0 end, 0, 0, 0
    from web_events
)
select j.person, j.arm,
       cast((epoch_us(t.happened_at) - epoch_us(j.assigned_at) + 86399999999) // 86400000000 as integer) as day,
       cast(sum(t.events) as bigint) as events, cast(sum(t.views) as bigint) as views,
       cast(sum(t.orders) as bigint) as orders, cast(sum(t.paid_orders) as bigint) as paid_orders,
       cast(sum(t.net_cents) as bigint) as net_cents
from judged j join told t on t.customer_id = j.customer_id
where j.reason is null and t.happened_at > j.assigned_at and t.happened_at <= j.assigned_at + to_days($days)
group by 1, 2, 3 order by 1, 3
"""


@dataclass(frozen=True)
class WentOut:
    """A file that went out: over which channel, when, under which version, and how many in a hundred it held out."""

    channel: str
    at: datetime
    version: int
    holdout_percent: int


@dataclass(frozen=True)
class Measured:
    """People by arm: assigned under the share that is measured, and measured; the others by reason. `did`: a row per person and day.

    Assigned = measured + left out, summed over reasons; those who were assigned under another share are counted apart.
    """

    assigned: Mapping[str, int]
    people: Mapping[str, int]
    left_out: Mapping[str, int]
    another_share: int
    did: pl.DataFrame


class Arms:
    """The people of one segment in their arms. Open it with `open_arms`."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, at: datetime, until: datetime, files: Sequence[WentOut], tables: Mapping[str, str]
    ) -> None:  # fmt: skip
        self._connection = connection
        self._at = at
        self.until = until
        self.files = files
        self.tables = tables
        shares = [file.holdout_percent for file in files if file.holdout_percent] or [0]
        self.holdout_percent = shares[-1]  # people drawn under different shares are not alike in when they came

    def measured(self, days: int) -> Measured:
        """Whoever has been in an arm for so many days, as far as is known, and what they did in them."""
        query = self._connection.execute
        latest = self.until - timedelta(days=days)
        query(_JUDGED, {"holdout_percent": self.holdout_percent, "latest": latest, "at": self._at})
        counts = query("select arm, reason, count(*) from judged group by arm, reason").fetchall()
        assigned, people, left_out = dict.fromkeys(ARMS, 0), dict.fromkeys(ARMS, 0), dict[str, int]()
        another_share = 0
        for arm, reason, count in counts:
            if reason == ANOTHER_SHARE:
                another_share += count
                continue
            assigned[arm] += count
            if reason is None:
                people[arm] += count
            else:
                left_out[reason] = left_out.get(reason, 0) + count
        did: pl.DataFrame = self._connection.sql(_DID, params={"days": days}).pl()
        return Measured(assigned, people, dict(sorted(left_out.items())), another_share, did)


@contextmanager
def open_arms(home: Home, name: str, at: datetime, channel: str | None = None) -> Iterator[Arms]:
    """The arms of a segment as of a naive UTC time, over one channel or all together.

    Raises: SegmentError where nothing of that segment, or nothing over that channel, has gone out by then.
    """
    known = kept.assigned_files(home)
    if name not in known:
        there = ", ".join(known) or "none"
        raise SegmentError(
            f"segment {name[:60]}: expected one that went out ({there}), found none. Export it first: "
            "what is compared are people whom an export assigned."
        )
    paths = [str(path) for path in known[name]]
    with connected(home, TABLES) as connection:
        try:
            rows = connection.execute(_FILES, {"files": paths, "at": at}).fetchall()
            connection.execute(_ASSIGNED, {"files": paths, "at": at, "channel_code": channel})
        except (duckdb.IOException, duckdb.InvalidInputException) as fault:
            raise SegmentError(
                f"assigned: expected Parquet files, found {str(fault).splitlines()[0][:120]}. Restore them."
            ) from None
        files = [WentOut(*row) for row in rows]
        channels = sorted({file.channel for file in files})
        if not files:
            raise SegmentError(
                f"segment {name}: expected a file that went out before {at}, up to when the home is known, found none. "
                "Measure it after the next `troth run`."
            )
        if channel is not None and channel not in channels:
            raise SegmentError(
                f"segment {name}, channel: expected one it went out over ({', '.join(channels)}), found {channel[:40]}. "
                "Choose one of them."
            )
        mine = [file for file in files if channel in (None, file.channel)]
        yield Arms(connection, at, _known_until(connection, at), mine, versions(home, TABLES))


def _known_until(connection: duckdb.DuckDBPyConnection, at: datetime) -> datetime:
    """What happened is known up to here, or up to the time asked for where that is before."""
    (newest,) = connection.execute(f"select max(cast(feature_at as timestamp)) from {_CLOCK}").fetchall()[0]  # noqa: S608
    return datetime(1970, 1, 1) if newest is None else min(at, newest)
