"""Standing for training over time, published beside the other tables: made from the ledger itself, and anew when anything it
rests on has changed: an event of the ledger, whose identities are whose, the policy.
"""

import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.errors import FeatureError
from troth.clock import Clock
from troth.home import Home
from troth.published import POINTER, current, publish

if TYPE_CHECKING:
    from consent.ledger.ledger import Ledger

PURPOSE, ANY_CHANNEL = "model_training", "*"
TABLE = "training_spans"
IDENTITIES = "customer_identities"
_BASIS = b"troth.basis"  # in the file's metadata


@dataclass(frozen=True)
class Basis:
    """What spans were made from: the ledger's size and root, the published version of the identities, the policy's hash."""

    ledger_size: int
    ledger_root: str
    identities_version: str
    policy_hash: str


@dataclass(frozen=True)
class Spans:
    """A published version (one row per customer and time), the identities it was made over, what else it rests on, and the
    ledger's checkpoint of that size."""

    path: Path
    identities: Path
    basis: Basis
    checkpoint: str


def training_spans(home: Home, clock: Clock) -> Spans:
    """The spans as of the ledger's newest checkpoint; made now where the published ones rest on anything else.

    Raises: FeatureError without a ledger; TrothError where it cannot be read, or no identities were published.
    """
    from consent.ledger.opening import has_ledger, open_ledger
    from consent.log.note import open_checkpoint
    from consent.receipts.shopper import policy_hash
    from consent.rule.policy import read_policy

    if not has_ledger(home):
        raise FeatureError(
            "historical read: expected a consent ledger, found none. Run `troth run` first; nothing is given out without one."
        )
    with open_ledger(home, clock) as ledger:
        note = ledger.checkpoint()  # asked for once: it grows meanwhile
        known = open_checkpoint(note, ledger.verifier)
        basis = Basis(known.size, known.root.hex(), current(home, IDENTITIES).stem, policy_hash(read_policy()))
        if _published(home) != basis:
            _make(home, ledger, basis)
    return Spans(current(home, TABLE), _identities(home, basis), basis, note)


def _published(home: Home) -> Basis | None:
    """What the published spans were made from; None where there are none, or it cannot be told."""
    import pyarrow.parquet as pq

    if not (home.published / TABLE / POINTER).exists():
        return None
    said = (pq.read_schema(current(home, TABLE)).metadata or {}).get(_BASIS)
    return None if said is None else Basis(**json.loads(said))


def _make(home: Home, ledger: "Ledger", basis: Basis) -> None:
    import polars as pl
    import pyarrow.parquet as pq

    from consent.rule.policy import read_policy
    from consent.rule.spans import standing_spans

    links = pl.read_parquet(_identities(home, basis))
    events = ledger.frame(basis.ledger_size)
    spans = standing_spans(events, links, read_policy(), PURPOSE, ANY_CHANNEL).to_arrow()
    draft = home.published / f".{TABLE}.{os.getpid()}.{threading.get_ident()}.draft"
    pq.write_table(spans.replace_schema_metadata({_BASIS: json.dumps(asdict(basis))}), draft, compression="zstd")
    publish(home, TABLE, draft)


def _identities(home: Home, basis: Basis) -> Path:
    return home.published / IDENTITIES / f"{basis.identities_version}.parquet"
