"""The peer of the identity benchmark: what becomes of its faults, and of Ctrl-C."""

import duckdb
import polars as pl
import pytest
from splink import DuckDBAPI
from splink.internals.exceptions import SplinkException

from benchmarks.linkage import Labelled, plain


@pytest.mark.parametrize(
    ("cause", "said", "expected"),
    [
        (duckdb.InterruptException, "INTERRUPT Error: Interrupted!", KeyboardInterrupt),
        (RuntimeError, "Query interrupted", KeyboardInterrupt),
        (RuntimeError, "something else", SplinkException),
        (duckdb.OutOfMemoryException, "out of memory", SplinkException),
    ],
)
@pytest.mark.parametrize("queries", [0, 3])
def test_an_interruption_of_the_peer_is_one_and_a_fault_stays_a_fault(
    cause: type[Exception], said: str, expected: type[BaseException], queries: int
) -> None:
    left = iter(range(queries))

    class Failing(DuckDBAPI):  # type: ignore[misc]
        def _execute_sql_against_backend(self, final_sql: str) -> object:
            if next(left, None) is None:
                raise cause(said)
            return super()._execute_sql_against_backend(final_sql)

    names = ("record_id", "first_name", "surname", "dob", "city", "email")
    rows = [{name: f"{name} {number}" for name in names} for number in range(4)]
    data = Labelled("fake_1000", pl.DataFrame(rows), {row["record_id"]: row["record_id"] for row in rows}, {})
    with pytest.raises((expected, cause) if expected is SplinkException else expected):
        plain(data, Failing())
