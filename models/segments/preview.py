"""How many match, how many of them may be contacted, and the rest by reason. Counts only: nobody is named."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from models.segments.decision import asked, counted, decided, members
from models.segments.definition import Segment
from models.tables import naive, read
from troth.home import Home

_STANDING = ("customer_id", "purpose_code", "channel_code", "is_allowed", "reason_code", "expires_at", "ledger_size")


@dataclass(frozen=True)
class SegmentPreview:
    """Matched = may be contacted + refused, summed over reasons. Test customers match nothing and are counted apart.

    `ledger_size` is the position of the ledger that the answer rests on; None when nobody has a standing at all.
    """

    name: str
    version: int
    purpose: str
    channel: str
    matched: int
    may_be_contacted: int
    refused: Mapping[str, int]
    test_customers: int
    ledger_size: int | None


def preview(home: Home, segment: Segment, at: datetime) -> SegmentPreview:
    """Counts as of an aware time, from published tables alone; a grant that has ended by then is `expired`.

    Raises: ModelsError when the definition asks for a field, purpose or channel that there is not.
    """
    moment = naive(at)
    purpose, channel = asked(segment)
    standing = read(home, "consent_standing", _STANDING).filter(
        pl.col("purpose_code") == purpose, pl.col("channel_code") == channel
    )
    has_ended = pl.col("is_allowed") & (pl.col("expires_at") <= moment).fill_null(False)
    now = standing.with_columns(
        pl.when(has_ended).then(pl.lit(False)).otherwise("is_allowed").alias("is_allowed"),
        pl.when(has_ended).then(pl.lit("expired")).otherwise("reason_code").alias("reason_code"),
    )
    counts = counted(decided(members(home, segment, moment).rows, now)["decision"])
    return SegmentPreview(
        name=segment.name,
        version=segment.version,
        purpose=segment.purpose,
        channel=segment.channel,
        matched=counts.matched,
        may_be_contacted=counts.may_be_contacted,
        refused=counts.refused,
        test_customers=counts.test_customers,
        ledger_size=standing["ledger_size"].cast(pl.Int64).max(),  # type: ignore[arg-type]
    )
