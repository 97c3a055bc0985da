"""Spark as Splink's database (extra `spark`): the same pairs and levels as on DuckDB, for more records than one machine can hold.

Where Spark runs, and with how much memory, is in Spark's own configuration. Nothing is written: pairs are found, compared and
taken in one job, so that no names lie in checkpoints that erasure would have to know of.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from models.errors import ModelsError

TASKS_PER_CORE = 4  # that the pairs to compare are spread over: a frequent value of a key makes many in one place


@contextmanager
def database() -> Iterator[Any]:
    """Spark as `Matcher` takes it: the session that is active, or a new one, stopped afterwards; local unless Spark is configured otherwise.

    Raises: ModelsError where pyspark or Java is missing.
    """
    try:
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        raise ModelsError(
            "identity on Spark: expected pyspark, found none. Install the extra `spark`, or set TROTH_MATCHING=duckdb."
        ) from None
    running = SparkSession.getActiveSession()
    try:
        session = running or SparkSession.builder.appName("troth identity").getOrCreate()
    except (PySparkException, Py4JError) as fault:
        raise ModelsError(
            f"identity on Spark: expected a session, found {type(fault).__name__}. "
            "Look for Java 17 or later and Spark's configuration, or set TROTH_MATCHING=duckdb."
        ) from None
    try:
        yield _splinks(session)
    finally:
        if running is None:
            session.stop()


def _splinks(session: Any) -> Any:
    from splink import DuckDBAPI, SparkAPI
    from sqlglot import exp, parse_one

    cores = session.sparkContext.defaultParallelism
    if session.sparkContext.master.startswith("local"):
        session.sparkContext.pythonExec = sys.executable  # Spark would take the first python3 that there is

    def as_double(node: exp.Expression) -> exp.Expression:
        """A number cast to double as a literal of Spark's doubles: it reads plain ones as decimals, of 38 digits at most."""
        number = node.this if isinstance(node, exp.Cast) and node.is_type("double") else None
        return exp.Var(this=f"{number.name}D") if isinstance(number, exp.Literal) and not number.is_string else node

    class Spark(SparkAPI):
        # Splink's own translation derives a class from sqlglot's, which a compiled sqlglot (30.30, as dagster-dbt asks for) refuses.
        def _setup_for_execute_sql(self, sql: str, physical_name: str) -> str:
            return parse_one(sql, read="spark").transform(as_double).sql("spark")

        # Splink keeps each step in a file; here each is read once.
        def _break_lineage_and_repartition(self, spark_df: Any, templated_name: str, physical_name: str) -> Any:
            is_pairs = templated_name == "__splink__blocked_id_pairs"
            return spark_df.repartition(TASKS_PER_CORE * cores) if is_pairs else spark_df

    here, there = Spark.sql_dialect, DuckDBAPI.sql_dialect
    for name in ("damerau_levenshtein_function_name", "jaro_winkler_function_name"):
        session.udf.register(getattr(here, name), _as_in_duckdb(getattr(there, name)))
    return Spark(spark_session=session, register_udfs_automatically=False)  # type: ignore[no-untyped-call]


def _as_in_duckdb(name: str) -> Any:
    """A function of two texts for Spark, computed by DuckDB where the worker is.

    Those that Splink brings for Spark are others: its Jaro-Winkler halves an odd number of exchanged letters without rounding, and
    both count letters where DuckDB counts bytes.
    """
    from pyspark.sql.functions import arrow_udf

    def function(first, second):  # type: ignore[no-untyped-def] # of Arrow arrays; Spark would read annotations
        import duckdb
        import pyarrow as pa

        pairs = pa.table({"first": first, "second": second})
        query = f"select {name}(first, second)::double as found from pairs"  # noqa: S608 - a name of ours
        with duckdb.cursor() as connection:  # of the one that a worker opens once
            connection.execute("set threads = 1")
            found = connection.register("pairs", pairs).sql(query).to_arrow_table()
        return found["found"].combine_chunks()

    return arrow_udf(function, "double")
