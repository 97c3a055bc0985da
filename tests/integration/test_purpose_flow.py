"""Purpose flow over the project as dbt compiles it: no false alarm, and roads planted into it, one of them through a macro."""

# ruff: noqa: S608 - SQL is planted here

import ast
import json
import shutil
from collections.abc import Iterator, Mapping
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from feature_repo.catalogue import SERVICES
from models.build import BASELINES
from models.purpose_flow.checking import Use, check
from models.purpose_flow.declarations import breakers, categories, made_tables, place
from models.purpose_flow.inspecting import Inspection
from models.purpose_flow.open_lineage import events
from models.purpose_flow.uses import CONTACTS
from orchestration import cli
from orchestration.catalog import contracts
from orchestration.flow_commands import answered
from orchestration.purpose_gate import inspected_manifest
from orchestration.sources.contract import PersonalClass
from orchestration.warehouse import PROJECT, compile_project
from troth.home import Home

pytestmark = pytest.mark.slow
BORN = "raw_loyalty__members.birth_date"
MACRO = "{% macro planted_age(column) %}date_diff('year', {{ column }}, date '2026-01-01'){% endmacro %}"
PLANTED = {
    "planted_direct": "select card_ref, birth_date as born from {{ source('loyalty', 'raw_loyalty__members') }}",
    "planted_first": "select card_ref, born from {{ ref('planted_direct') }}",
    "planted_second": "select card_ref, extract(month from born) as month from {{ ref('planted_first') }}",
    "planted_third": "select card_ref, case when month in (6, 7) then 'summer' end as season from {{ ref('planted_second') }}",
    "planted_macro": "select card_ref, {{ planted_age('birth_date') }} as age from {{ source('loyalty', 'raw_loyalty__members') }}",
    "planted_join": "select o.order_id from {{ ref('orders') }} o join {{ ref('planted_direct') }} p on cast(o.ordered_at as date) = p.born",
    "planted_window": "select card_ref, rank() over (order by born) as place from {{ ref('planted_direct') }}",
    "planted_star": "select * from {{ source('loyalty', 'raw_loyalty__members') }}",
    "planted_list": "select u.v from {{ ref('planted_direct') }} p, unnest([p.born]) as u(v)",
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """dbt's own word on a copy of the project with the planted models in it."""
    folder = tmp_path_factory.mktemp("planted")
    project = folder / "dbt_project"
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("target", "logs"))
    (project / "macros" / "planted.sql").write_text(MACRO)
    for name, sql in PLANTED.items():
        (project / "models" / f"{name}.sql").write_text(sql)
    made = compile_project(project, Home(folder / "home"), folder / "target")
    return dict(json.loads(made.read_bytes()))


@pytest.fixture(scope="module")
def flow(manifest: Mapping[str, Any]) -> Inspection:
    return inspected_manifest(manifest)


def test_the_project_has_no_finding_and_every_breaker_holds_and_is_needed(flow: Inspection) -> None:
    report = flow.report
    assert [finding.sentence for finding in report.findings] == []
    assert report.faults == ()
    assert {name: ended for name, ended in report.ended.items() if not ended} == {}


def test_without_its_breakers_the_project_is_not_clean(flow: Inspection) -> None:
    for breaker in flow.breakers:
        others = [each for each in flow.breakers if each is not breaker]
        report = check(flow.graph, flow.declared, flow.uses, others, flow.keyed, flow.purposes)
        assert report.findings or report.faults, breaker.name


@pytest.mark.parametrize(
    ("read", "through"),
    [
        ("planted_direct.born", ("planted_direct",)),
        ("planted_third.season", ("planted_direct", "planted_first", "planted_second", "planted_third")),
        ("planted_macro.age", ("planted_macro",)),
        ("planted_join.order_id", ("planted_direct", "planted_join")),
        ("planted_window.place", ("planted_direct", "planted_window")),
        ("planted_star.birth_date", ("planted_star",)),
        ("planted_list.v", ("planted_direct", "planted_list")),
    ],
)
def test_a_road_planted_into_the_project_is_found_with_its_path(
    flow: Inspection, read: str, through: tuple[str, ...]
) -> None:
    planted = Use("segment", "birthdays", "marketing", (place(read),), "birthdays.yml")
    report = check(flow.graph, flow.declared, [planted], flow.breakers, flow.keyed, flow.purposes)
    paths = {".".join(finding.column): finding.paths[0] for finding in report.findings}
    assert tuple(dict.fromkeys(name for name, _ in paths[BORN].places)) == ("raw_loyalty__members", *through)


def test_a_feature_that_takes_to_a_birth_date_is_named_for_every_service_and_model_that_reads_it(
    manifest: Mapping[str, Any],
) -> None:
    changed = deepcopy(dict(manifest))
    node = changed["nodes"]["model.troth.ftr_customer_purchases"]
    node["compiled_code"] = (
        f"with built as ({node['compiled_code']}) select * replace (case when p.born is null then 0 else unit_count_90d end "
        "as unit_count_90d) from built left join planted_first as p on p.card_ref = built.customer_id"
    )
    node["depends_on"]["nodes"].append("model.troth.planted_first")
    found = [each for each in inspected_manifest(changed).report.findings if ".".join(each.column) == BORN]
    assert {finding.use.title for finding in found} >= {
        "feature service recommend_v1", "feature service churn_v1", "feature service campaign_email_v1",
        "table pred_churn", "training churn",
    }  # fmt: skip
    # Whom it matches does not rest on the changed feature, and a LEFT JOIN on a card decides nothing by the birth date.
    assert "segment lapsed_regulars" not in {finding.use.title for finding in found}
    churn = next(finding for finding in found if finding.use.title == "feature service churn_v1")
    assert {path.places[-1][1] for path in churn.paths} >= {"unit_count_90d"}


def test_every_table_that_python_makes_declares_what_it_reads(flow: Inspection, manifest: Mapping[str, Any]) -> None:
    made = {each.table: each for each in made_tables()}
    landed = {contract.table for contract in contracts()}
    # The policy and its notices are of the retailer, not of people.
    sources = {each["name"] for each in manifest["sources"].values()} - landed - {"consent_policy", "consent_notices"}
    assert sources <= set(made)
    for baseline in BASELINES:
        declared = made[baseline.table]
        assert {table for table, _ in declared.reads} == set(baseline.tables), baseline.name
        assert set(baseline.features) <= {column for _, column in declared.reads}, baseline.name
        assert set(baseline.nothing.columns) | {"model_version"} == set(declared.columns), baseline.name
        assert declared.purpose == baseline.use_purpose_code, baseline.name
    contacts = {
        (contract.table, column.token_of[1])
        for contract in contracts()
        for column in contract.columns
        if column.token_of and column.token_of[0] in CONTACTS.values() | CONTACTS.keys()
    }
    assert set(made["vault"].reads) == contacts
    for each in made.values():
        assert (PROJECT.parent / each.made_by).is_file(), each.made_by


def _named(module: Path) -> Iterator[str]:
    """Texts that a module hands to a reader of published tables, or keeps under a name in capitals."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            parts = node.args if name in ("current", "read", "versions", "scan") else []
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            parts = [node.value]
        else:
            continue
        for part in parts:
            yield from (
                each.value for each in ast.walk(part) if isinstance(each, ast.Constant) and isinstance(each.value, str)
            )


def test_every_table_about_people_that_answers_and_pages_read_is_read_by_a_declared_use(flow: Inspection) -> None:
    about = {table for table, _ in flow.declared}
    root = PROJECT.parent / "serving"
    read = {
        (name, module.relative_to(root.parent).as_posix())
        for module in root.rglob("*.py") if "records" not in module.parts
        for name in _named(module) if name in about
    }  # fmt: skip
    assert len(read) > 8
    declared = {
        table for use in flow.uses if use.kind in ("answer", "page", "audit", "right") for table, _ in use.reads
    }
    assert {each for each in read if each[0] not in declared} == set()
    assert {use.purpose for use in flow.uses if use.kind in ("answer", "page")} == {"service", "personalization"}
    assert [use.title for use in flow.uses if not use.reads and use.kind in ("answer", "page", "audit", "right")] == []


def test_every_kind_of_personal_data_has_a_term_and_purposes_of_the_policy(flow: Inspection) -> None:
    assert set(categories()) == set(PersonalClass.__args__) - {"none"}
    for name, category in categories().items():
        assert category.term.startswith("pd:"), name
        assert category.purposes <= flow.purposes, name
    assert all(told.purposes <= categories()[told.category].purposes for told in flow.declared.values())


def test_every_service_model_and_segment_is_a_use(flow: Inspection) -> None:
    titles = {use.title for use in flow.uses}
    assert titles >= {"exclusion waits_for_a_late_order of marketing", "test group never_marketed of marketing"}
    assert titles >= {"answer order", "answer profile", "answer browsing", "answer recommendations"}
    assert titles >= {f"feature service {service.name}" for service in SERVICES}
    assert titles >= {f"training {baseline.name}" for baseline in BASELINES}
    assert titles >= {"segment lapsed_regulars", "export lapsed_regulars by email"}
    assert {breaker.reviewer for breaker in breakers()} == {"authors"}


# The documented shape of the facet: https://openlineage.io/spec/facets/1-2-0/ColumnLineageDatasetFacet.json
_INPUT = {
    "type": "object",
    "required": ["namespace", "name", "field"],
    "properties": {
        "namespace": {"type": "string"},
        "name": {"type": "string"},
        "field": {"type": "string"},
        "transformations": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type"],
                "additionalProperties": False,
                "properties": {
                    "type": {"enum": ["DIRECT", "INDIRECT"]},
                    "subtype": {
                        "enum": [
                            "IDENTITY", "TRANSFORMATION", "AGGREGATION",
                            "JOIN", "GROUP_BY", "FILTER", "SORT", "WINDOW", "CONDITIONAL",
                        ]
                    },
                    "masking": {"type": "boolean"},
                },
            },
        },
    },
}  # fmt: skip
_EVENT = {
    "type": "object",
    "required": ["eventTime", "producer", "schemaURL", "job"],
    "properties": {
        "eventTime": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"},
        "job": {"type": "object", "required": ["namespace", "name"]},
        "inputs": {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["namespace", "name"]}},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["namespace", "name", "facets"],
                "properties": {
                    "facets": {
                        "type": "object",
                        "required": ["columnLineage"],
                        "properties": {
                            "columnLineage": {
                                "type": "object",
                                "required": ["_producer", "_schemaURL", "fields"],
                                "properties": {
                                    "fields": {
                                        "type": "object",
                                        "additionalProperties": {
                                            "type": "object",
                                            "required": ["inputFields"],
                                            "properties": {"inputFields": {"type": "array", "items": _INPUT}},
                                        },
                                    },
                                    "dataset": {"type": "array", "items": _INPUT},
                                },
                            }
                        },
                    }
                },
            },
        },
    },
}


@pytest.fixture(scope="module")
def told(flow: Inspection) -> dict[str, Any]:
    made = events(flow.graph, flow.declared, flow.keyed, datetime(2026, 1, 1, tzinfo=UTC))
    return {event["job"]["name"]: event for event in json.loads(json.dumps(list(made)))}


def test_lineage_is_told_in_the_shape_that_open_lineage_documents(told: Mapping[str, Any], flow: Inspection) -> None:
    for event in told.values():
        jsonschema.validate(event, _EVENT)
    assert set(told) >= {"orders", "ftr_customer_purchases", "pred_churn", "identity_members"}
    assert not [name for name in told if name.startswith("raw_")]  # landed: rests on nothing of ours


def test_an_event_tells_what_a_column_is_made_of_and_what_decides(told: Mapping[str, Any]) -> None:
    facet = told["planted_macro"]["outputs"][0]["facets"]["columnLineage"]
    (born,) = facet["fields"]["age"]["inputFields"]
    assert (born["name"], born["field"]) == ("raw_loyalty__members", "birth_date")
    assert born["transformations"] == [{"type": "DIRECT", "subtype": "TRANSFORMATION", "masking": False}]
    decided = told["planted_join"]["outputs"][0]["facets"]["columnLineage"]["dataset"]
    assert ("planted_direct", "born", "JOIN") in {
        (each["name"], each["field"], each["transformations"][0]["subtype"]) for each in decided
    }
    schema = told["stg_loyalty__members"]["outputs"][0]["facets"]["schema"]["fields"]
    assert {"name": "card_ref", "description": "pd:Identifier; may be used for profile_unification, service"} in schema
    keyed = told["identity_members"]["outputs"][0]["facets"]["columnLineage"]["fields"]["customer_id"]["inputFields"]
    assert {each["transformations"][0]["masking"] for each in keyed} == {True}


def test_a_column_is_told_about_with_the_uses_it_reaches(flow: Inspection) -> None:
    about = flow.about("ftr_customer_engagement.view_count_30d")
    assert about["personal"] == "behaviour"
    assert {each["use"] for each in about["reaches"]} >= {"feature service churn_v1", "table pred_churn"}
    assert not flow.about(BORN)["reaches"] or {each["purpose"] for each in flow.about(BORN)["reaches"]} <= {
        "profile_unification", "service",
    }  # fmt: skip


def test_the_command_says_what_was_held_and_leaves_with_a_code(tmp_path: Path) -> None:
    told = CliRunner().invoke(cli.app, ["flow", "check", "--json", "--home", str(tmp_path)])
    assert told.exit_code == 0
    answer = json.loads(told.stdout)
    assert answer["is_verified"]
    assert answer["findings"] == []
    assert answer["uses"] > 20
    written = tmp_path / "lineage.ndjson"
    exported = CliRunner().invoke(cli.app, ["flow", "export", "--to", str(written), "--home", str(tmp_path), "--json"])
    assert json.loads(exported.stdout)["events"] == len(written.read_text().splitlines())
    assert list(tmp_path.iterdir()) == [written]  # no home was opened, and no warehouse


def test_the_answer_names_every_path_of_a_finding_and_is_no_success(flow: Inspection) -> None:
    planted = Use("segment", "birthdays", "marketing", (place("planted_third.season"),), "birthdays.yml")
    answer = answered(check(flow.graph, flow.declared, [planted], flow.breakers, flow.keyed), as_json=True)
    (finding,) = (each for each in answer["findings"] if each["column"] == BORN)
    assert finding["paths"] == [
        "raw_loyalty__members.birth_date -[identity]-> planted_direct.born -[identity]-> planted_first.born "
        "-[transformation]-> planted_second.month -[conditional]-> planted_third.season -> segment birthdays"
    ]
    assert not answer["is_verified"]
    assert not finding["is_direct"]
