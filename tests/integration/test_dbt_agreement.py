"""What dbt's YAML says agrees with contracts and policy, and leaves nothing undescribed. No dbt is started."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from consent.rule.policy import policy_frame, read_policy
from models.identity.resolving import LINK_SCHEMA, MEMBER_SCHEMA
from orchestration import identities
from tests.builders import CONSENT_TABLES, CONTRACTS

MODELS = Path(__file__).parents[2] / "dbt_project" / "models"
DBT_TYPES = {
    "text": "varchar", "integer": "bigint", "decimal": "double", "boolean": "boolean", "date": "date",
    "timestamp": "timestamp with time zone", "local_timestamp": "timestamp",
}  # fmt: skip
OPTIONAL_TABLES = {"stock_belief"}  # empty while nobody has written them
IDENTITY_TABLES = {"identity_members": MEMBER_SCHEMA, "identity_links": LINK_SCHEMA}
ENDS_AFTER = "received_at"  # the last of the provenance columns


@cache
def sources() -> dict[str, dict[str, Any]]:
    files = [yaml.safe_load(path.read_text()) for path in MODELS.glob("staging/*/sources.yml")]
    return {table["name"]: table for file in files for source in file["sources"] for table in source["tables"]}


@cache
def models() -> dict[str, dict[str, Any]]:
    files = {path: yaml.safe_load(path.read_text()) for path in sorted(MODELS.rglob("*.yml"))}
    return {path.stem: file["models"][0] for path, file in files.items() if "models" in file}


def personal(column: dict[str, Any]) -> str:
    return column.get("config", {}).get("meta", {}).get("personal", "none")


@pytest.mark.parametrize("table", CONTRACTS)
def test_a_source_has_the_columns_of_its_contract(table: str) -> None:
    contract, source = CONTRACTS[table], sources()[table]
    said = [(c["name"], c["data_type"], c["description"], personal(c)) for c in source["columns"]]
    meant = [(c.name, DBT_TYPES[c.type], c.description, c.personal) for c in contract.columns]
    assert said[: len(meant)] == meant
    assert [name for name, *_ in said] == list(contract.schema)
    assert said[-1][0] == ENDS_AFTER
    assert source["description"] == contract.description


@pytest.mark.parametrize("table", CONSENT_TABLES)
def test_the_consent_tables_have_the_columns_that_the_consent_room_writes(table: str) -> None:
    assert [column["name"] for column in sources()[table]["columns"]] == list(CONSENT_TABLES[table])


@pytest.mark.parametrize("table", IDENTITY_TABLES)
def test_the_identity_tables_have_the_columns_that_the_models_room_writes(table: str) -> None:
    assert sorted(column["name"] for column in sources()[table]["columns"]) == sorted(IDENTITY_TABLES[table])


def test_every_source_is_a_contract_or_written_by_a_room_before_sql() -> None:
    assert sorted(set(sources()) - set(identities.TABLES) - OPTIONAL_TABLES) == sorted([*CONTRACTS, *CONSENT_TABLES])
    assert set(IDENTITY_TABLES) <= set(sources())


def test_every_published_table_with_a_customer_is_searched_for_test_accounts() -> None:
    said = (MODELS.parent / "tests" / "assert_every_customer_named_is_a_customer.sql").read_text()
    searched = said.partition("set tables = [")[2].partition("]")[0]
    carry = {
        path.stem
        for folder in ("marts", "features")
        for path in MODELS.glob(f"{folder}/*.sql")
        if any(column["name"] == "customer_id" for column in models()[path.stem]["columns"])
    }
    assert set(re.findall(r"'(\w+)'", searched)) == carry - {"customers"}


def test_every_field_that_records_say_has_a_rule_and_every_rule_a_field() -> None:
    said = (MODELS / "intermediate" / "int_customer_fields__said.sql").read_text()
    rules = (MODELS.parent / "macros" / "survivorship.sql").read_text()
    ruled = set(re.findall(r"\('(\w+)', 'most_\w+', \[", rules))
    listed = set(re.findall(r"\('(\w+)', ['\"]", said.partition("with identities")[0])) | set(
        re.findall(r"select '(\w+)', ", said)
    )
    assert listed - {"account", "card"} == ruled - {"account", "card"}


def test_every_model_has_its_yaml_beside_it() -> None:
    assert sorted(models()) == sorted(path.stem for path in MODELS.rglob("*.sql"))


@pytest.mark.parametrize("name", models())
def test_every_model_says_its_grain_and_describes_every_column(name: str) -> None:
    model = models()[name]
    assert "One row per " in model["description"]
    assert [column["name"] for column in model["columns"] if not column.get("description")] == []


@pytest.mark.parametrize("name", models())
def test_every_personal_column_says_for_which_purposes_it_may_be_used(name: str) -> None:
    purposes = set(read_policy().purposes)
    for column in models()[name]["columns"]:
        meta = column.get("config", {}).get("meta", {})
        assert ("personal" in meta) == ("purposes" in meta), column["name"]
        assert set(meta.get("purposes", ())) <= purposes, column["name"]


def test_every_mart_and_feature_table_promises_one_row_per_key_and_columns_that_are_never_missing() -> None:
    for path in (*MODELS.glob("marts/*.sql"), *MODELS.glob("features/*.sql")):
        model = models()[path.stem]
        rules = next(test["keeps_its_rules"] for test in model["data_tests"])["arguments"]
        required = {c["name"] for c in model["columns"] if {"type": "not_null"} in c.get("constraints", ())}
        assert set(rules["key"]) <= required, path.stem


def test_the_standing_of_a_subject_has_a_column_for_everything_the_policy_asks() -> None:
    asked = policy_frame(read_policy()).select("purpose_code", "channel_code").unique().rows()
    names = {purpose if channel == "*" else f"{purpose}_{channel}" for purpose, channel in asked}
    columns = {column["name"] for column in models()["ftr_subject_standing"]["columns"]}
    meant = {f"is_{name}_allowed" for name in names} | {f"reason_{name}" for name in names}
    assert columns == meant | {"customer_id", "feature_at", "ledger_size"}


def test_no_contact_data_in_the_clear_leaves_staging() -> None:
    clear = {
        c.name
        for contract in CONTRACTS.values()
        for c in contract.columns
        if c.personal in ("contact", "name", "birth_date")
    }
    found = {
        (name, column["name"])
        for name, model in models().items()
        for column in model["columns"]
        if column["name"] in clear
    }
    assert found == set()
