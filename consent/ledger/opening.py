"""The home's ledger: where it is, who signs for it, under whose keys."""

from pathlib import Path

from consent.ledger.databases import stored_size
from consent.ledger.keyring import KeyRing
from consent.ledger.ledger import Ledger
from consent.log.note import Ed25519Signer, Signer
from troth.clock import Clock
from troth.home import Home

ORIGIN = "troth/consent-ledger"


def open_ledger(home: Home, clock: Clock) -> Ledger:
    """The home's ledger, signed and sealed with the home's keys."""
    return Ledger.open(home.ledger, signer_of(home), KeyRing(home.keks()), clock)


def signer_of(home: Home) -> Signer:
    """Who signs for the home's ledger: its checkpoints, the seals of its receipts, and the decisions made under it."""
    return Ed25519Signer(ORIGIN, home.key("ledger"))


def ledger_size(path: Path) -> int:
    """Size of the ledger at a path, fast and unverified. Raises: LedgerError when there is none to read."""
    return stored_size(path)
