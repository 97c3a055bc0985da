"""Spark finds, compares and scores records of people as DuckDB does: to the byte, whatever alphabet they write in."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl
import pytest

from models.errors import ModelsError
from models.identity import spark
from models.identity.matching import Matcher
from models.identity.model import unlearned
from models.identity.resolving import resolve
from orchestration.identities import comparing_on
from tests.unit.models.identity.made_people import frame, mistyped, records
from tests.unit.models.identity.test_resolving import World

CROWD = records(400, seed=2).drop("person").sort("record_id")  # enough for random pairs to be drawn
FEW_FIELDS = CROWD.drop("email", "email_local", "phone", "payment")
KEY = b"0123456789abcdef"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Spark in this process's own JVM, with two cores and no pages."""
    sql = pytest.importorskip(
        "pyspark.sql", reason="pyspark is not installed: it comes with the extra `spark`"
    ).SparkSession
    if shutil.which("java") is None:
        pytest.skip("Java is not installed: Spark runs on it")
    folder: Path = tmp_path_factory.mktemp("spark")
    told = {
        "spark.master": "local[2]", "spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.log.level": "ERROR",
        "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1", "spark.local.dir": str(folder),
        "spark.sql.warehouse.dir": str(folder), "spark.sql.shuffle.partitions": "2", "spark.driver.memory": "1g",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",  # too little to do to be compiled well
    }  # fmt: skip
    session = sql.builder.config(map=told).getOrCreate()
    with spark.database() as found:
        yield found
    session.stop()


def same(one: pl.DataFrame, other: pl.DataFrame) -> bool:
    return one.sort("first", "second").equals(other.sort("first", "second"))


def test_a_model_learned_on_spark_is_the_same_to_the_byte_and_so_are_pairs_and_levels(database: Any) -> None:
    here, there = Matcher(FEW_FIELDS), Matcher(FEW_FIELDS, database=database)
    mine, theirs = here.learn(), there.learn()
    assert there.model.encoded() == here.model.encoded()
    assert mine.height > 1_000
    assert same(theirs, mine)
    assert np.allclose(there.scored(mine)["bits"], here.scored(mine)["bits"], rtol=0, atol=1e-9)


def test_on_spark_only_what_changed_is_compared_and_the_same_as_on_duckdb(database: Any) -> None:
    changed = pl.Series(np.arange(CROWD.height) % 17 == 0)
    mine = Matcher(CROWD, unlearned()).compared(changed)
    assert 0 < mine.height < Matcher(CROWD, unlearned()).compared().height
    assert same(Matcher(CROWD, unlearned(), database).compared(changed), mine)


def test_names_in_every_alphabet_and_of_every_length_have_the_same_levels_on_spark(database: Any) -> None:
    random = Random(5)
    alphabets = ("abcde", "abcdefghijklmnopqrstuvwxyz", "абвгдеё", "李王张陈芳", "aß😀")
    rows = []
    for number in range(4_000):
        word = "".join(random.choices(alphabets[number % 5], k=random.choice((2, 3, 4, 6, 9, 14, 25))))
        for said in (word, mistyped(mistyped(word, random) + word[:2], random)):
            rows.append(
                {
                    "record_id": f"r{len(rows):05}",
                    "first_name": said,
                    "last_name": said,
                    "city": said,
                    "birth_date": said,
                }
            )
    first = np.arange(0, len(rows), 2)
    mine, theirs = (Matcher(frame(rows), unlearned(), on).compared_these(first, first + 1) for on in (None, database))
    assert mine["pattern"].n_unique() > 10
    assert same(theirs, mine)


def test_customers_are_the_same_on_spark(database: Any) -> None:
    rows = records(60, seed=9).to_dicts()
    world = World({f"{('account', 'card', 'email')[n % 3]}_{n}": row for n, row in enumerate(rows)})
    mine, theirs = (resolve(world.evidence(), unlearned(), KEY, database=on) for on in (None, database))
    assert mine.members["customer_id"].n_unique() < mine.members.height
    assert theirs.members.equals(mine.members)
    assert theirs.links.equals(mine.links)
    assert theirs.remembered.pairs.equals(mine.remembered.pairs)


def test_without_pyspark_spark_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with (
        pytest.raises(ModelsError, match="expected pyspark, found none"),
        comparing_on("spark"),
    ):
        pass
    assert isinstance(comparing_on("duckdb"), nullcontext)
