"""Receipts of what people's data is used for by segments and models: kept of a training, and decided again when asked.

How a use is recorded belongs to `consent.receipts.uses`, what a receipt holds and how it verifies to `consent.receipts.decisions`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import polars as pl

from consent.events import Recorded
from consent.log.entry import subject_key
from consent.log.note import Verifier
from consent.receipts import decisions
from consent.receipts.decisions import Question, Redecided, Replayable, Replayed
from consent.receipts.uses import LINKS, Basis, answers, folder_of, links_of, policy_of, record
from consent.rule.identity import company
from models.permission import FrameStanding, identities
from models.tables import naive
from models.training import ANY_CHANNEL, PURPOSE, Keep
from troth.clock import Clock
from troth.home import Home

__all__ = ["LINKS", "Basis", "folder_of", "keeper", "record", "redecide", "replay"]


class Replaying(Replayable, Protocol):
    """What deciding about customers again needs of a ledger."""

    @property
    def verifier(self) -> Verifier: ...
    def events_of(self, subject_id: str) -> Sequence[Recorded]: ...


def keeper(home: Home, basis: Basis, clock: Clock) -> Keep:
    """Keeps the receipt of every training that `build.train_all` tells it of, all decided under one basis."""

    def keep(
        model: str, customers: pl.Series, standing: pl.DataFrame, at: datetime, outputs: Mapping[str, str]
    ) -> None:
        asked = (PURPOSE, ANY_CHANNEL, at)
        record(home, "training", f"model:{model}", asked, customers, standing, basis, clock, outputs=outputs)

    return keep


def replay(home: Home, number: int, ledger: Replaying) -> Replayed:
    """Decide a recorded use again from the ledger and the identities as of then. Raises: VerificationError, ConsentError."""
    return decisions.replayed(redecide(home, number, ledger))


def redecide(home: Home, number: int, ledger: Replaying) -> Redecided:
    """`replay` that names every difference. What erasures took since stands on its hash.

    Raises: VerificationError where receipt, rows or inputs are not those of the decision; ConsentError where they are gone.
    """
    folder, key = folder_of(home), ledger.verifier
    receipt = decisions.load(folder, number, key)
    policy = policy_of(home, receipt.use.policy_sha256)
    path, gone = links_of(home, receipt.use.inputs.get(LINKS, ""), key)
    links = identities(path)
    kept = set(decisions.rows_of(folder, receipt)["subject_key"])
    named = {subject_key(each).hex(): each for each in links["customer_id"].unique()}
    customers = [named[key] for key in sorted(kept & set(named))]
    silent = kept - set(named) - gone

    def decide(events: pl.DataFrame, subjects: Sequence[str], question: Question) -> pl.DataFrame:
        asked = question.purpose_code, question.channel_code, naive(question.known_at or question.at)
        return answers(subjects, FrameStanding(events, links, policy).known_at(*asked))

    return decisions.redecide(
        folder, number, key, _OfCustomers(ledger, links), policy, customers, decide, gone & kept, silent
    )


class _OfCustomers:
    """A ledger asked about customers: theirs are the leaves of all their identities, and of whoever those were ever joined to.

    For a no is heard over links: whose is erased is decided otherwise by none of their own leaves.
    """

    def __init__(self, ledger: Replaying, links: pl.DataFrame) -> None:
        self.frame, self.check_extends, self.opened = ledger.frame, ledger.check_extends, ledger.opened
        self._ledger = ledger
        self._links = links

    def leaves_of(self, customer_id: str) -> list[int]:
        mine = self._links.filter(pl.col("customer_id") == customer_id)["identity_ref"]
        near = {other for one in mine for other in company(self._ledger, one)}
        return sorted({leaf for one in near for leaf in self._ledger.leaves_of(one)})
