"""Which rows may be learned from: whose standing for training held when the row happened, and still holds.

The rule of `models/training.py`, over spans instead of single times. Rows that may not are counted by their first reason.
"""

# ruff: noqa: S608 (names are quoted or numbers, values are parameters)

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.historical.joining import AT, ID, POSITION, Asked, epoch

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SUBJECT = "customer_id"
NEVER_ASKED = "never_asked"
TEST_CUSTOMER = "test_customer"
SINCE = "_since"  # suffix of a reason that came up after the row happened


@dataclass(frozen=True)
class Judged:
    """Positions of the rows that may be learned from, in order; how many may not, by reason; and `people`: of every customer asked
    about, the standing that decided now (`customer_id` and the answer of `standing_frame`, null for never asked)."""

    kept: "np.ndarray[Any, Any]"
    left_out: Mapping[str, int]
    people: "pa.Table"


def judged(asked: Asked, spans: Path, customers: Path, identities: Path, at: datetime) -> Judged:
    """Judge entity rows with a `customer_id` by published spans of standing, customers and identities, as of an aware time.

    Reasons: `test_customer`; a standing's reason when it did not hold at the row's time; the same with `_since` when it held then
    and does not at `at`. Who is not in the spans, or has no id or time, was never asked.
    """
    import numpy as np

    nanoseconds = asked.entities.is_nanosecond
    number = asked.number([SUBJECT], nanoseconds)
    run = asked.connection.execute
    run(
        f"""
        create or replace temp table spans as
        select ids.{ID}, {epoch("spans.from_at", nanoseconds)} as began, spans.*,
            spans.from_at <= $at and coalesce(spans.until_at > $at, true) as is_now
        from read_parquet($spans) spans join ids_{number} ids using ({SUBJECT})
        """,
        {"spans": str(spans), "at": at.astimezone(UTC)},
    )
    run(
        f"""
        create or replace temp table people as
        select ids.{ID},
            case when testers.{SUBJECT} is not null then '{TEST_CUSTOMER}' end as why_not,
            case
                when not coalesce(standing.is_allowed, false)
                    then coalesce(standing.reason_code, '{NEVER_ASKED}') || '{SINCE}'
            end as why_not_now
        from ids_{number} ids
        left join (
            select distinct {SUBJECT} from read_parquet($customers) where coalesce(is_test, true)
        ) testers using ({SUBJECT})
        left join (select * from spans where is_now) standing using ({ID})
        """,
        {"customers": str(customers)},
    )
    run(
        f"""
        create or replace temp table judged as
        select asked.{POSITION},
            coalesce(
                people.why_not,
                case
                    when not coalesce(standing.is_allowed, false) then coalesce(standing.reason_code, '{NEVER_ASKED}')
                end,
                people.why_not_now
            ) as left_out
        from asked_{number} asked
        asof left join spans standing on asked.{ID} = standing.{ID} and asked.{AT} >= standing.began
        join people on asked.{ID} = people.{ID}
        """
    )
    kept = asked.connection.sql(f"select {POSITION} from judged where left_out is null").to_arrow_table()
    counts = asked.connection.sql(
        "select left_out, count(*) from judged where left_out is not null group by left_out order by left_out"
    ).fetchall()
    left_out = dict(counts)
    nobody = asked.entities.table.num_rows - kept.num_rows - sum(left_out.values())
    if nobody:
        left_out[NEVER_ASKED] = left_out.get(NEVER_ASKED, 0) + nobody
    people = asked.connection.sql(
        f"""
        select ids.{SUBJECT}, standing.is_allowed, standing.reason_code, standing.since_at, standing.expires_at, standing.leaf_index
        from ids_{number} ids
        semi join read_parquet($identities) identities using ({SUBJECT})
        left join (select * from spans where is_now) standing using ({ID})
        """,
        params={"identities": str(identities)},
    ).to_arrow_table()
    return Judged(np.sort(kept.column(0).to_numpy()), dict(sorted(left_out.items())), people)
