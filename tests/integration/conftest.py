"""What tests against real databases are handed: a place for a ledger, in SQLite or in PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.postgres import fresh_schema, running_server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of the test process's server; only tests that ask for it start it."""
    with running_server() as server:
        yield server.get_uri()


@pytest.fixture
def postgres_place(postgres_server: str) -> Iterator[str]:
    """The address of an empty schema."""
    with fresh_schema(postgres_server) as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a ledger may rest: a folder, or the address of an empty PostgreSQL schema."""
    return str(tmp_path) if request.param == "sqlite" else str(request.getfixturevalue("postgres_place"))
