"""Receipts of what customers' data is used for, recorded when it is used.

A subject here is a customer; whose identities are whose is an input of the decision, named by its published version. What a
receipt holds and how it verifies belongs to `decisions.py`; that it is decided again, to `models/decisions.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from consent.errors import ConsentError
from consent.ledger.opening import signer_of
from consent.receipts import decisions
from consent.receipts.decisions import DecisionReceipt, Question, Use
from consent.receipts.shopper import policy_hash
from consent.rule.policy import read_policy
from troth.clock import Clock
from troth.home import Home
from troth.ids import file_hash

LINKS = "customer_identities"
_COLUMNS = ("is_allowed", "reason_code", "since_at", "expires_at", "leaf_index")


@dataclass(frozen=True)
class Basis:
    """What a use was decided under: a checkpoint of the ledger, and the version of the identities it was decided over."""

    checkpoint: str
    links_version: str


def folder_of(home: Home) -> Path:
    """Where the home keeps receipts of use."""
    return home.root / "decisions"


def record(
    home: Home,
    use: str,
    asked_by: str,
    asked: tuple[str, str, datetime],
    customers: pl.Series,
    standing: pl.DataFrame,
    basis: Basis,
    clock: Clock,
    *,
    definition: str | None = None,
    outputs: Mapping[str, str] | None = None,
) -> DecisionReceipt:
    """Sign and keep the receipt of a use. `asked`: purpose, channel, naive UTC time, at which all that was known counted.

    `standing`: customer_id and the columns of `standing_frame`'s answer; whoever of the customers is missing was never asked.
    """
    purpose_code, channel_code, moment = asked
    at = moment.replace(tzinfo=UTC)
    told = Use(
        use=use,
        asked_by=asked_by,
        question=Question(purpose_code, channel_code, at, at),
        policy_sha256=policy_hash(read_policy()),
        definition_sha256=definition,
        inputs={LINKS: file_hash(links_file(home, basis.links_version))},
        outputs=dict(outputs or {}),
    )
    rows = answers(customers.to_list(), standing)
    return decisions.record(folder_of(home), told, rows, basis.checkpoint, signer_of(home), clock)


def answers(customers: Sequence[str], standing: pl.DataFrame) -> pl.DataFrame:
    """One row per customer, in the shape a receipt commits to."""
    asked = pl.DataFrame({"subject_id": customers}, schema={"subject_id": pl.String()})
    return asked.join(
        standing.select(pl.col("customer_id").alias("subject_id"), *_COLUMNS), on="subject_id", how="left"
    ).with_columns(pl.col("is_allowed").fill_null(False), pl.col("reason_code").fill_null("never_asked"))


def links_file(home: Home, version: str) -> Path:
    """A version of the identities. Raises: ConsentError where it is not there any more."""
    path = home.published / LINKS / f"{version}.parquet"
    if not path.is_file():
        raise ConsentError(
            f"published table {LINKS}: expected the version of the decision, found none of that name. "
            "It was replaced by an erasure, or removed: the receipt stands on its signature."
        )
    return path
