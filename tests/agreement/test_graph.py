"""The Dagster graph: what it was when somebody last looked at it, and lineage that joins up by name."""

import subprocess
import sys
from collections import defaultdict
from difflib import unified_diff

import pytest

from feature_repo import catalogue
from orchestration.catalog import contracts
from tests.agreement.committed import ROOT

GOLDEN = ROOT / "tests" / "golden" / "graph.txt"
COMMAND = ("-m", "tests.agreement.graph_text")
# What no feature rests on: the balance of points is for members and for those who reconcile it, who looked at whom for auditors, what
# was counted for belief and for those who look into breaks.
ENDS = {"raw_loyalty__points", "raw_steward__reveals", "raw_stock__counts"}


@pytest.fixture(scope="module")
def graph() -> list[str]:
    """The graph as it is, in a process of its own: dagster-dbt wants one without our warnings made errors."""
    done = subprocess.run([sys.executable, *COMMAND], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()


def assets(graph: list[str]) -> set[str]:
    return {line.split()[1] for line in graph if line.startswith("asset ")}


def upstream(graph: list[str]) -> dict[str, set[str]]:
    """Everything each asset follows from, directly or not."""
    parents: dict[str, set[str]] = defaultdict(set)
    for line in graph:
        if line.startswith("edge "):
            _, parent, _, child = line.split()
            parents[child].add(parent)
    found: dict[str, set[str]] = {}

    def of(asset: str) -> set[str]:
        if asset not in found:
            found[asset] = set().union(parents[asset], *(of(parent) for parent in sorted(parents[asset])))
        return found[asset]

    return {asset: of(asset) for asset in assets(graph)}


def test_the_graph_is_what_it_was(graph: list[str]) -> None:
    difference = list(
        unified_diff(GOLDEN.read_text().splitlines(), graph, "tests/golden/graph.txt", "the graph", lineterm="", n=0)
    )
    assert not difference, "\n".join(
        [*difference, "", "If this is meant: python " + " ".join(COMMAND) + " > tests/golden/graph.txt"]
    )


def test_an_assets_key_is_the_name_of_its_table(graph: list[str]) -> None:
    models = {path.stem for path in (ROOT / "dbt_project" / "models").rglob("*.sql")}
    tables = {contract.table for contract in contracts()}
    views = {f"online_{view.name}" for view in (*catalogue.VIEWS, *catalogue.INDEXES)}
    others = {
        name
        for name in assets(graph) - models - tables - views
        if not name.startswith(("pred_", "consent_", "identity_"))
    }
    assert models | tables | views <= assets(graph)
    assert others == {"vault", "stock_belief", "segments", "segment_results", "purpose_flow"}


def test_nothing_comes_from_outside_the_graph(graph: list[str]) -> None:
    assert [line for line in graph if line.startswith("source ")] == []


def test_lineage_joins_up_from_raw_tables_to_features(graph: list[str]) -> None:
    above = upstream(graph)
    raw = {contract.table for contract in contracts()}
    features = [view.table for view in catalogue.VIEWS]
    assert [table for table in features if not above[table] & raw] == []
    unread = raw - set().union(*(above[table] for table in features))
    assert unread == ENDS, f"no feature rests on: {sorted(unread)}\nnamed as such:      {sorted(ENDS)}"
    assert all(view.table in above[f"online_{view.name}"] for view in catalogue.VIEWS)
    assert "consent_ledger" in above["ftr_subject_standing"]


def test_every_raw_table_has_its_two_checks_and_they_block(graph: list[str]) -> None:
    wanted = {
        f"check {contract.table} {check} blocking"
        for contract in contracts()
        for check in ("keeps_its_contract", "sets_few_rows_aside")
    }
    assert wanted - set(graph) == set()
