"""The home's ledger: which database it rests in, who signs for it, under whose keys. What other rooms ask about it.

Without `TROTH_LEDGER` it is a SQLite file of the home, with it in PostgreSQL. Either way `ledger.checkpoint` in the home remembers
a recent checkpoint: another ledger, an older one or none in its place is refused.
"""

import atexit
import os
import threading
from pathlib import Path

from consent.errors import LedgerError
from consent.ledger.databases import refuse_in_use, stored_size
from consent.ledger.keyring import KeyRing, kek_id
from consent.ledger.ledger import Ledger
from consent.ledger.postgres import PostgresDatabase, PostgresReader
from consent.ledger.store import Store
from consent.log.note import Ed25519Signer, Signer
from troth.clock import Clock
from troth.home import Home
from troth.settings import given_ledger

ORIGIN = "troth/consent-ledger"
_READERS: dict[tuple[int, str, Path], PostgresReader] = {}  # by process, for a forked one must not share a connection
_READING = threading.Lock()


def open_ledger(home: Home, clock: Clock, *, alone: bool = False) -> Ledger:
    """The home's ledger, made on first use, signed and sealed with the home's keys.

    Raises: LedgerError when it cannot be opened, is not the one the home remembers, or, `alone`, is open elsewhere.
    """
    has_ledger(home)
    address, keks = given_ledger(), home.keks()
    if address is None:
        if alone:
            refuse_in_use(home.ledger)
        return Ledger.open(home.ledger, signer_of(home), KeyRing(keks), clock)
    store = Store(PostgresDatabase(address, [kek_id(key) for key in keks], alone=alone))
    try:
        return Ledger(store, signer_of(home), KeyRing(keks), clock, _mark(home))
    except BaseException:
        store.close()
        raise


def has_ledger(home: Home) -> bool:
    """Whether it was made yet. Raises: LedgerError when that cannot be told, or when the home remembers one that is not there."""
    reader = _reader(home)
    is_there = home.ledger.exists() if reader is None else reader.has_ledger()
    if not is_there and _mark(home).exists():
        raise LedgerError(
            f"ledger: expected the one that {_mark(home).name} in the home remembers, found none in {ledger_place(home)}. "
            "Set TROTH_LEDGER as it was when the ledger was made, or restore it from a backup."
        )
    return is_there


def ledger_size(home: Home) -> int:
    """Size of the home's ledger, fast and unverified. Raises: LedgerError when there is none to read."""
    reader = _reader(home)
    return stored_size(home.ledger) if reader is None else reader.size()


def ledger_place(home: Home) -> str:
    """Where the ledger rests, in words that may be shown: the address itself may hold a password."""
    return str(home.ledger) if given_ledger() is None else "the database of TROTH_LEDGER"


def is_outside() -> bool:
    """Whether the ledger rests with a server, where nothing that looks through the home's files sees it."""
    return given_ledger() is not None


def signer_of(home: Home) -> Signer:
    """Who signs for the home's ledger: its checkpoints, the seals of its receipts, and the decisions made under it."""
    return Ed25519Signer(ORIGIN, home.key("ledger"))


def _mark(home: Home) -> Path:
    return home.ledger.with_suffix(".checkpoint")


def _reader(home: Home) -> PostgresReader | None:
    """This process's reader of the home's ledger, where that is in PostgreSQL."""
    address = given_ledger()
    if address is None:
        return None
    wanted = (os.getpid(), address, _mark(home))
    with _READING:
        found = _READERS.get(wanted)
        if found is None:
            found = _READERS[wanted] = PostgresReader(address, _mark(home))
            atexit.register(_close, wanted)
        return found


def _close(wanted: tuple[int, str, Path]) -> None:
    if wanted[0] == os.getpid():
        _READERS.pop(wanted).close()
