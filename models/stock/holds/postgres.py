"""Holds in PostgreSQL: rows of positions locked in order, work done again where the server asks for that, synced before it answers.

Needs the extra `postgresql`. The address may hold a password: no error repeats it, nor the driver's words.
"""

import random
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeVar

from models.stock.holds.connections import Connections
from models.stock.holds.store import Holds, Joined, Keeper
from models.stock.holds.tables import SCHEMA, Again, Tables, prepare
from models.stock.holds.words import HoldsError, Limits
from troth.postgres import connect, driver

T = TypeVar("T")
_TRIES = 8
_PATIENCE = 5.0  # seconds; a position is locked for milliseconds
_AGAIN = "Do it again: what is held already is not held twice."
_ORDERLY = tuple(
    statement.replace(" text ", ' text collate "C" ') for statement in SCHEMA
)  # order by bytes, as Python's


_ASKED = """(select value ->> 0 as location_code, value ->> 1 as sku, (value ->> 2)::bigint as units
    from jsonb_array_elements(cast(? as jsonb)) as value)"""
_IDS = "(select value as hold_id from jsonb_array_elements_text(cast(? as jsonb)) as value)"


class PostgresSession:
    """Statements of a transaction that somebody else began."""

    locks = True

    def __init__(self, connection: Any) -> None:
        from psycopg.rows import tuple_row

        self._cursor = partial(connection.cursor, binary=True, row_factory=tuple_row)

    def run(self, statement: str, *values: object) -> list[Any]:
        return self.ask((statement, *values))[0]

    def ask(self, *asked: tuple[Any, ...]) -> list[list[Any]]:
        cursors = [self._cursor().execute(_spoken(statement), values) for statement, *values in asked]
        return [cursor.fetchall() for cursor in cursors]

    def do(self, statement: str, *values: object) -> None:
        self._cursor().execute(_spoken(statement), values)


@cache
def _spoken(statement: str) -> str:
    return statement.replace("$asked", _ASKED).replace("$ids", _IDS).replace("?", "%s")


class PostgresPlace:
    """A PostgreSQL schema. `synchronous_commit` is on, whatever the server says."""

    def __init__(self, address: str, connections: int = 8, patience: float = _PATIENCE) -> None:
        self._psycopg = driver("holds", HoldsError)
        self._address = address
        self._patience = patience
        self._connections = Connections(self._connect, connections)
        self._writing("begin", _make)

    def close(self) -> None:
        self._connections.close()

    def writing(self, work: Callable[[Keeper], T]) -> T:
        return self._writing("begin isolation level read committed read write", lambda session: work(Tables(session)))

    def reading(self, work: Callable[[Keeper], T]) -> T:
        return self._writing("begin isolation level repeatable read read only", lambda session: work(Tables(session)))

    def _writing(self, begin: str, work: Callable[[PostgresSession], T]) -> T:
        """What the work gives. A connection that is lost is made anew: whatever became of the work, it may be done twice."""
        errors = self._psycopg.errors
        for again in range(_TRIES):
            try:
                with self._connections.one() as connection:
                    return self._worked(connection, begin, work)
            except errors.LockNotAvailable:
                raise HoldsError(
                    f"holds: expected a position to be free within {self._patience:g} s, found it locked. {_AGAIN}"
                ) from None
            except self._psycopg.OperationalError as fault:
                found = fault
            except self._psycopg.Error as fault:
                raise _unusable(fault) from None
            _wait(again)
        raise _unusable(found) from None

    def _worked(self, connection: Any, begin: str, work: Callable[[PostgresSession], T]) -> T:
        errors = self._psycopg.errors
        for again in range(_TRIES):
            try:
                with connection.pipeline():  # what nobody waits for goes together
                    connection.execute(begin)
                    done = work(PostgresSession(connection))
                    connection.execute("commit")
                return done
            except (errors.SerializationFailure, errors.DeadlockDetected, Again):
                connection.rollback()
            _wait(again)
        raise HoldsError(f"holds: expected a turn within {_TRIES} tries, found others faster. {_AGAIN}")

    def _connect(self) -> Any:
        return connect(self._psycopg, self._address, f"; set lock_timeout = {round(1000 * self._patience)}")


def _make(session: PostgresSession) -> None:
    session.run("select pg_advisory_xact_lock(hashtext('troth holds'), hashtext(current_schema()))")
    prepare(session, _ORDERLY)


def _wait(again: int) -> None:
    time.sleep(random.uniform(0.5, 1) * 0.002 * 2**again)  # noqa: S311


def _unusable(fault: Exception) -> HoldsError:
    return HoldsError(f"holds: expected a PostgreSQL database that works, found {type(fault).__name__}. {_AGAIN}")


def postgres_holds(
    address: str, limits: Limits | None = None, connections: int = 8, patience: float = _PATIENCE
) -> Holds:
    """The holds of a PostgreSQL schema, made on first use; `?options=-csearch_path%3D<schema>` names it.

    `connections`: how many threads ask at the same time. `patience`: seconds to wait for a position that others have locked.
    Raises: HoldsError when it cannot be reached, or there is no driver.
    """
    return Holds(PostgresPlace(address, connections, patience), limits)


def join_postgres(connection: Any, limits: Limits | None = None) -> Holds:
    """The same within the caller's transaction of psycopg: its commit is theirs, and so is doing it again.

    It must be read committed: a fixed snapshot does not see what is held by those a lock was waited for. Name all positions in one
    `set_free`, or two that call it in another order may wait for each other. Raises: HoldsError for another isolation.
    """
    session = PostgresSession(connection)
    found = session.run("select current_setting('transaction_isolation')")[0][0]
    if found != "read committed":
        raise HoldsError(f"holds: expected a transaction that is read committed, found {found}. Begin it so.")
    return Holds(Joined(Tables(session)), limits)
