"""Receipts of what people's data is used for by segments and models: recorded when it is used, decided again when asked.

A subject here is a customer; whose identities are whose is an input of the decision, named by its published version.
What a receipt holds and how it verifies belongs to `consent.receipts.decisions`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from consent.ledger.ledger import Ledger
from consent.ledger.opening import signer_of
from consent.log.entry import subject_key
from consent.log.merkle import VerificationError
from consent.receipts import decisions
from consent.receipts.decisions import DecisionReceipt, Question, Replayed, Use
from consent.receipts.shopper import policy_hash
from consent.rule.policy import read_policy
from models.errors import ModelsError
from models.permission import LINKS, FrameStanding, identities
from models.tables import naive
from models.training import ANY_CHANNEL, NEVER_ASKED, PURPOSE, Keep
from troth.clock import Clock
from troth.home import Home
from troth.ids import file_hash

VERSION_CHARACTERS = 32  # of a published version's hash, in its name
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

    `standing`: what `FrameStanding.known_at` gave; whoever of the customers is missing there was never asked.
    """
    purpose_code, channel_code, moment = asked
    at = moment.replace(tzinfo=UTC)
    told = Use(
        use=use,
        asked_by=asked_by,
        question=Question(purpose_code, channel_code, at, at),
        policy_sha256=policy_hash(read_policy()),
        definition_sha256=definition,
        inputs={LINKS: file_hash(_links_file(home, basis.links_version))},
        outputs=dict(outputs or {}),
    )
    rows = _answers(customers.to_list(), standing)
    return decisions.record(folder_of(home), told, rows, basis.checkpoint, signer_of(home), clock)


def keeper(home: Home, basis: Basis, clock: Clock) -> Keep:
    """Keeps the receipt of every training that `build.train_all` tells it of, all decided under one basis."""

    def keep(
        model: str, customers: pl.Series, standing: pl.DataFrame, at: datetime, outputs: Mapping[str, str]
    ) -> None:
        asked = (PURPOSE, ANY_CHANNEL, at)
        record(home, "training", f"model:{model}", asked, customers, standing, basis, clock, outputs=outputs)

    return keep


def replay(home: Home, number: int, ledger: Ledger) -> Replayed:
    """Decide a recorded use again from the ledger and the identities as of then. Raises: VerificationError, ModelsError."""
    folder, key, policy = folder_of(home), ledger.verifier, read_policy()
    receipt = decisions.load(folder, number, key)
    links = _links(home, receipt.use.inputs.get(LINKS, ""))
    kept = set(pl.read_parquet(folder / f"{receipt.decisions_root}.parquet", columns=["subject_key"])["subject_key"])
    customers = [each for each in links["customer_id"].unique().sort() if subject_key(each).hex() in kept]

    def decide(events: pl.DataFrame, subjects: Sequence[str], question: Question) -> pl.DataFrame:
        asked = question.purpose_code, question.channel_code, naive(question.known_at or question.at)
        return _answers(subjects, FrameStanding(events, links, policy).known_at(*asked))

    return decisions.replay(folder, number, key, _OfCustomers(ledger, links), policy, customers, decide)


class _OfCustomers:
    """A ledger asked about customers: theirs are the leaves of all their identities."""

    def __init__(self, ledger: Ledger, links: pl.DataFrame) -> None:
        self.frame, self.check_extends, self.opened = ledger.frame, ledger.check_extends, ledger.opened
        self._ledger = ledger
        self._links = links

    def leaves_of(self, customer_id: str) -> list[int]:
        mine = self._links.filter(pl.col("customer_id") == customer_id)["identity_ref"]
        return sorted({leaf for one in mine for leaf in self._ledger.leaves_of(one)})


def _answers(customers: Sequence[str], standing: pl.DataFrame) -> pl.DataFrame:
    """One row per customer, in the shape a receipt commits to."""
    asked = pl.DataFrame({"subject_id": customers}, schema={"subject_id": pl.String()})
    return asked.join(
        standing.select(pl.col("customer_id").alias("subject_id"), *_COLUMNS), on="subject_id", how="left"
    ).with_columns(pl.col("is_allowed").fill_null(False), pl.col("reason_code").fill_null(NEVER_ASKED))


def _links(home: Home, hashed: str) -> pl.DataFrame:
    """The identities of a decision, by their hash: a published version is named by its beginning."""
    path = _links_file(home, hashed[:VERSION_CHARACTERS])
    if file_hash(path) != hashed:
        raise VerificationError(f"published table {LINKS}", f"hash {hashed}", file_hash(path), "It was changed")
    return identities(path)


def _links_file(home: Home, version: str) -> Path:
    path = home.published / LINKS / f"{version}.parquet"
    if not path.is_file():
        raise ModelsError(
            f"published table {LINKS}: expected the version of the decision, found none of that name. "
            "It was replaced by an erasure, or removed: the receipt stands on its signature."
        )
    return path
