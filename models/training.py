"""The consented training set: which rows may be learned from, which were left out, and why.

A row may be learned from when its person's standing for `model_training` held at the row's `feature_at`, as it was
known then, and still holds at `as_of_at`. What the rule of standing is, belongs to `consent`; the same over any times at
once, for historical reads, is `feature_repo/historical/consenting.py`, and a test holds the two equal.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import polars as pl

from feature_repo.historical.consenting import NEVER_ASKED, SINCE
from feature_repo.historical.consenting import TEST_CUSTOMER as NOT_CUSTOMER
from feature_repo.historical.spans import ANY_CHANNEL, PURPOSE

__all__ = [
    "ANY_CHANNEL",
    "NEVER_ASKED",
    "NOT_CUSTOMER",
    "PURPOSE",
    "SINCE",
    "Consented",
    "Keep",
    "Standing",
    "consented",
    "permitted",
]

# Keeps the receipt of a training: model, its candidates, their standing, when (naive UTC), hashes of the files learned.
Keep = Callable[[str, pl.Series, pl.DataFrame, datetime, Mapping[str, str]], object]


class Standing(Protocol):
    """May we? For every customer at once."""

    def known_at(self, purpose_code: str, channel_code: str, at: datetime) -> pl.DataFrame:
        """Columns customer_id, is_allowed, reason_code: standing at a naive UTC time as it was known at that time.

        A customer without a row was never asked.
        """
        ...


@dataclass(frozen=True)
class Consented:
    """Rows that may be used, how many were looked at, and how many were left out by reason."""

    rows: pl.DataFrame
    considered: int
    left_out: Mapping[str, int]

    @property
    def kept(self) -> int:
        return self.rows.height


def consented(rows: pl.DataFrame, standing: Standing, as_of_at: datetime, test_customers: pl.Series) -> Consented:
    """Keep the rows (customer_id, feature_at, ...) whose person allowed `model_training` then and allows it still.

    Reasons: `test_customer`; a standing's reason code when it did not hold at `feature_at`; the same with `_since`
    when it held then and does not at `as_of_at`. A row has its first reason only, so kept and left out add up.
    """
    times = rows["feature_at"].unique().sort()
    then = pl.concat(
        [
            _refusal(standing, PURPOSE, at, "then").with_columns(pl.lit(at, times.dtype).alias("feature_at"))
            for at in times
        ]
        or [pl.DataFrame(schema={"customer_id": pl.String, "then": pl.String, "feature_at": times.dtype})]
    )
    marked = (
        rows.join(then, on=["customer_id", "feature_at"], how="left", validate="m:1", maintain_order="left")
        .join(
            _refusal(standing, PURPOSE, as_of_at, "now"),
            on="customer_id",
            how="left",
            validate="m:1",
            maintain_order="left",
        )
        .with_columns(pl.col("then", "now").fill_null(NEVER_ASKED).replace("", None))
    )
    return _split(marked, _test_customer(test_customers), pl.col("then"), pl.col("now") + SINCE)


def permitted(
    rows: pl.DataFrame, standing: Standing, purpose_code: str, at: datetime, test_customers: pl.Series
) -> Consented:
    """Keep the rows (customer_id, ...) whose person allows a purpose at a time; the others by reason."""
    marked = rows.join(
        _refusal(standing, purpose_code, at, "now"), on="customer_id", how="left", validate="m:1", maintain_order="left"
    ).with_columns(pl.col("now").fill_null(NEVER_ASKED).replace("", None))
    return _split(marked, _test_customer(test_customers), pl.col("now"))


def _refusal(standing: Standing, purpose_code: str, at: datetime, name: str) -> pl.DataFrame:
    """customer_id and why not: the reason code, or an empty text where the answer is yes."""
    answer = standing.known_at(purpose_code, ANY_CHANNEL, at)
    allowed = pl.col("is_allowed").fill_null(False)
    return answer.select(
        "customer_id",
        pl.when(allowed).then(pl.lit("")).otherwise(pl.col("reason_code").fill_null(NEVER_ASKED)).alias(name),
    )


def _test_customer(test_customers: pl.Series) -> pl.Expr:
    return pl.when(pl.col("customer_id").is_in(test_customers.implode())).then(pl.lit(NOT_CUSTOMER))


def _split(marked: pl.DataFrame, *reasons: pl.Expr) -> Consented:
    """Rows without any reason against them, and the others counted by the first."""
    marked = marked.with_columns(pl.coalesce(*reasons).alias("left_out"))
    counts = marked.drop_nulls("left_out").group_by("left_out").len().sort("left_out")
    return Consented(
        rows=marked.filter(pl.col("left_out").is_null()).drop("then", "now", "left_out", strict=False),
        considered=marked.height,
        left_out=dict(counts.iter_rows()),
    )
