from pathlib import Path

import pytest

from troth.errors import TrothError
from troth.settings import from_environment, given_matching, given_read_log_days, given_stock


def test_the_home_is_var_unless_told_otherwise(tmp_path: Path) -> None:
    assert from_environment({}).home.root.name == "var"
    assert from_environment({"TROTH_HOME": str(tmp_path)}).home.root == tmp_path
    assert from_environment({"TROTH_HOME": "/elsewhere"}, tmp_path).home.root == tmp_path


@pytest.mark.parametrize("workers", ["none", "0", "-1", "1.5"])
def test_a_senseless_number_of_workers_is_refused(workers: str) -> None:
    with pytest.raises(TrothError, match="TROTH_WORKERS: expected a whole number from 1"):
        from_environment({"TROTH_WORKERS": workers})


def test_stock_for_baskets_is_in_a_file_unless_a_database_is_named() -> None:
    assert given_stock({}) is given_stock({"TROTH_STOCK": ""}) is None
    for address in ("postgresql://pier/stock", "redis://pier:6379/0", "rediss://pier"):
        assert given_stock({"TROTH_STOCK": address}) == address
    with pytest.raises(TrothError, match=r"TROTH_STOCK: expected postgresql:.* or redis:") as refusal:
        given_stock({"TROTH_STOCK": "mysql://clerk:secret@pier"})
    assert "secret" not in str(refusal.value)


def test_records_are_compared_on_duckdb_unless_spark_is_asked_for() -> None:
    assert [given_matching({}), given_matching({"TROTH_MATCHING": ""})] == ["duckdb", "duckdb"]
    assert given_matching({"TROTH_MATCHING": "spark"}) == "spark"
    with pytest.raises(TrothError, match="TROTH_MATCHING: expected duckdb or spark, found 'postgres'"):
        given_matching({"TROTH_MATCHING": "postgres"})


def test_the_log_of_personal_reads_is_kept_for_more_than_a_year_unless_told_otherwise() -> None:
    assert [given_read_log_days({}), given_read_log_days({"TROTH_READ_LOG_DAYS": "30"})] == [400, 30]
    for wrong in ("0", "-1", "a year", "1.5"):
        with pytest.raises(TrothError, match="TROTH_READ_LOG_DAYS: expected a whole number from 1"):
            given_read_log_days({"TROTH_READ_LOG_DAYS": wrong})
