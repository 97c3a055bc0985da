"""One name, one home: contracts, dbt, features, purposes and channels say the same. No dbt is started, no Feast imported.

Contracts against dbt sources and models stand in tests/integration/test_dbt_agreement.py.
"""

import re
from typing import Any

import pytest
import yaml

from consent.rule.policy import policy_frame, read_policy
from feature_repo import catalogue
from models.build import BASELINES
from models.permission import asked_channel
from models.segments.decision import CONTACT_POINTS
from models.segments.definition import load, names
from models.segments.fields import EVENTS
from models.training import PURPOSE
from orchestration.catalog import contracts
from orchestration.sources.contract import Contract
from simulator.formats import consent as signals
from tests.agreement.committed import ROOT

MODELS = ROOT / "dbt_project" / "models"
DBT_TYPES = {"text": "string", "integer": "bigint", "decimal": "double", "boolean": "boolean", "timestamp": "timestamp"}
POLICY = read_policy()
ASKED = set(policy_frame(POLICY).select("purpose_code", "channel_code").rows())


def columns_of(model: str) -> dict[str, str]:
    """A published model's columns and types, as its YAML contract enforces them."""
    path = next(path for path in MODELS.rglob(f"{model}.yml") if path.parent.name in ("marts", "features"))
    described: dict[str, Any] = yaml.safe_load(path.read_text())["models"][0]
    return {column["name"]: column["data_type"] for column in described["columns"]}


@pytest.mark.parametrize("view", catalogue.VIEWS, ids=lambda view: view.name)
def test_a_feature_view_has_exactly_the_columns_of_its_table(view: catalogue.View) -> None:
    columns = columns_of(view.table)
    meant = {field.name: DBT_TYPES[field.type] for field in view.fields}
    found = {
        name: kind
        for name, kind in columns.items()
        if name not in (*view.entity.join_keys, view.event_column, view.mark_column)
    }
    assert meant == found, f"{view.name}\n  features: {sorted(meant.items())}\n  columns:  {sorted(found.items())}"
    assert {*view.entity.join_keys, view.event_column} <= set(columns)


def test_the_index_of_availability_has_the_columns_of_its_table() -> None:
    view = catalogue.AVAILABILITY
    columns = columns_of(view.table)
    assert {field.name: DBT_TYPES[field.type] for field in view.fields}.items() <= columns.items()
    assert {*view.entity.join_keys, view.event_column} <= set(columns)


@pytest.mark.parametrize("view", [*catalogue.VIEWS, *catalogue.INDEXES], ids=lambda view: view.name)
def test_every_view_and_feature_is_described(view: catalogue.View) -> None:
    assert "One row per " in view.description
    assert view.entity.description.endswith(".")
    assert [field.name for field in view.online_fields if not field.description.endswith(".")] == []


@pytest.mark.parametrize("contract", contracts(), ids=lambda contract: contract.table)
def test_every_raw_table_says_its_grain_and_describes_every_column(contract: Contract) -> None:
    assert "One row per " in contract.description
    assert [column.name for column in contract.columns if not column.description.endswith((".", "..."))] == []
    known = {column.name for column in contract.columns}
    assert set(contract.key) <= known
    assert {column.token_of[1] for column in contract.columns if column.token_of} <= known


def test_every_feature_table_is_a_view_and_every_view_a_table() -> None:
    tables, views = (
        sorted(path.stem for path in MODELS.glob("features/*.sql")),
        sorted(v.table for v in catalogue.VIEWS),
    )
    assert tables == views, f"feature tables: {tables}\nfeature views:  {views}"


def test_standing_is_asked_for_exactly_what_the_policy_asks() -> None:
    slots = {catalogue.standing_slot(purpose, channel) for purpose, channel in ASKED}
    assert slots == set(catalogue.STANDING_SLOTS), (
        f"policy: {sorted(map(str, slots))}\nslots: {catalogue.STANDING_SLOTS}"
    )


@pytest.mark.parametrize("service", catalogue.SERVICES, ids=lambda service: service.name)
def test_a_feature_service_asks_for_what_the_policy_asks(service: catalogue.Service) -> None:
    assert service.purpose_code is None or (service.purpose_code, service.channel_code) in ASKED


def test_segments_and_models_are_for_purposes_and_channels_of_the_policy() -> None:
    for name in names():
        segment = load(name)
        for channel in segment.channels:
            assert (segment.purpose, asked_channel(POLICY, name, segment.purpose, channel)) in ASKED
    assert set(CONTACT_POINTS) <= set(POLICY.channels)
    assert {PURPOSE, *(baseline.use_purpose_code for baseline in BASELINES)} <= set(POLICY.purposes)


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_events_of_segments_speak_of_columns_of_the_marts(name: str) -> None:
    event = EVENTS[name]
    for table, fields in ((event.tables[0], event.fields), ("products", event.of_products)):
        (model,) = yaml.safe_load((MODELS / "marts" / f"{table}.yml").read_text())["models"][:1]
        columns = {column["name"] for column in model["columns"]}
        assert fields.keys() <= columns, f"event {name}: {sorted(fields)}\n{table}: {sorted(columns)}"


def test_the_simulator_asks_for_what_the_policy_asks() -> None:
    questions = {
        (purpose, channel)
        for place in (signals.BANNER, signals.ENROLMENT, signals.TABLET)
        for purpose, channel, _ in place
    }
    assert questions <= ASKED, f"simulator: {sorted(questions)}\npolicy: {sorted(ASKED)}"


def test_sql_names_only_purposes_and_channels_of_the_policy() -> None:
    purposes, channels = set(), set()
    for path in sorted((ROOT / "dbt_project").rglob("*.sql")):
        if "target" not in path.parts:
            text = re.sub(r"--[^\n]*", "", path.read_text())
            purposes |= compared(text, "purpose_code")
            channels |= compared(text, "channel_code")
    for purpose, channel in re.findall(
        r"\('([a-z_]+)', '([a-z_*]+)'\)", (MODELS / "features" / "ftr_subject_standing.sql").read_text()
    ):
        purposes.add(purpose)
        channels.add(channel)
    assert purposes - {"*"} <= set(POLICY.purposes), f"SQL: {sorted(purposes)}\npolicy: {sorted(POLICY.purposes)}"
    assert channels - {"*"} <= set(POLICY.channels), f"SQL: {sorted(channels)}\npolicy: {sorted(POLICY.channels)}"
    assert len(purposes) >= len(POLICY.purposes)


def compared(sql: str, column: str) -> set[str]:
    """Literals that a column is compared with, or that a case expression gives it."""
    found = set(re.findall(rf"{column}\s*(?:=|<>|!=)\s*'([a-z_*]+)'", sql))
    for listed in re.findall(rf"{column}\s+(?:not\s+)?in\s*\(([^)]*)\)", sql):
        found |= set(re.findall(r"'([^']+)'", listed))
    return found | set(re.findall(rf"then\s+'([^']+)'\s+else\s+{column}\s+end", sql))
