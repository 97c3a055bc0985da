"""Column lineage of the dbt models for Dagster's pages: which upstream columns a column comes from.

How SQL is followed is in `models/purpose_flow/`. Written when the graph is opened for people, read when it is loaded.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from troth.home import write_atomically

LINEAGE_FILE = "column_lineage.json"
OF_ROWS = ("ROWS", "JOIN", "FILTER", "GROUP_BY", "SORT")


def refresh(parsed: Path) -> bool:
    """Write the column lineage of a project version beside its manifest, which holds compiled SQL. False when it is there."""
    if (parsed / LINEAGE_FILE).exists():
        return False
    models = model_lineage(json.loads((parsed / "manifest.json").read_bytes()))
    if models:
        write_atomically(parsed / LINEAGE_FILE, json.dumps(models, sort_keys=True).encode())
    return bool(models)


def known(parsed: Path) -> dict[str, dict[str, list[tuple[str, str]]]]:
    """Lineage as written for a project version; empty before that."""
    path = parsed / LINEAGE_FILE
    return dict(json.loads(path.read_bytes())) if path.exists() else {}


def model_lineage(manifest: Mapping[str, Any]) -> dict[str, dict[str, list[tuple[str, str]]]]:
    """Model -> column -> [(upstream table, its column)], sorted: what stands in its expression, not what decides about rows.

    Empty while a model is not compiled.
    """
    from models.purpose_flow import project
    from models.purpose_flow.graph import built

    models = [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]
    if not all(node.get("compiled_code") for node in models):
        return {}
    graph = built(project.tables(manifest))
    return {
        name: {
            column: sorted({source for source, how in graph.into[name, column] if how not in OF_ROWS})
            for column in graph.columns[name]
        }
        for name in sorted(graph.queries)
    }
