"""Receipts of what people's data is used for by segments and models: kept of a training, and decided again when asked.

How a use is recorded belongs to `consent.receipts.uses`, what a receipt holds and how it verifies to `consent.receipts.decisions`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import polars as pl

from consent.ledger.ledger import Ledger
from consent.log.entry import subject_key
from consent.log.merkle import VerificationError
from consent.receipts import decisions
from consent.receipts.decisions import Question, Replayed
from consent.receipts.uses import LINKS, Basis, answers, folder_of, links_file, record
from consent.rule.policy import read_policy
from models.permission import FrameStanding, identities
from models.tables import naive
from models.training import ANY_CHANNEL, PURPOSE, Keep
from troth.clock import Clock
from troth.home import Home
from troth.ids import file_hash

__all__ = ["LINKS", "Basis", "folder_of", "keeper", "record", "replay"]

VERSION_CHARACTERS = 32  # of a published version's hash, in its name


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
        return answers(subjects, FrameStanding(events, links, policy).known_at(*asked))

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


def _links(home: Home, hashed: str) -> pl.DataFrame:
    """The identities of a decision, by their hash: a published version is named by its beginning."""
    path = links_file(home, hashed[:VERSION_CHARACTERS])
    if file_hash(path) != hashed:
        raise VerificationError(f"published table {LINKS}", f"hash {hashed}", file_hash(path), "It was changed")
    return identities(path)
