"""From dbt's manifest to what the graph needs: tables with compiled SQL, tested keys, and what columns declare."""

from collections.abc import Iterator, Mapping
from typing import Any

from models.purpose_flow.errors import FlowError
from models.purpose_flow.graph import Table
from models.purpose_flow.relations import Place


def tables(manifest: Mapping[str, Any]) -> list[Table]:
    """Every source, seed, snapshot and model. Raises: FlowError when a model was not compiled."""
    keys = _keys(manifest)
    found = [Table(source["name"], tuple(source["columns"])) for source in manifest["sources"].values()]
    named = {key: node["name"] for key, node in (*manifest["nodes"].items(), *manifest["sources"].items())}
    for node in manifest["nodes"].values():
        if node["resource_type"] not in ("model", "seed", "snapshot"):
            continue
        sql = node.get("compiled_code") or None
        if sql is None and node["resource_type"] == "model":
            raise FlowError(f"dbt model {node['name']}: expected compiled SQL, found none. Run `dbt compile`.")
        needs = tuple(named[key] for key in node.get("depends_on", {}).get("nodes", ()) if key in named)
        found.append(Table(node["name"], tuple(node["columns"]), sql, keys.get(node["unique_id"], ()), needs))
    return found


def columns(manifest: Mapping[str, Any]) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Every column that is described, with its `meta`."""
    for node in (*manifest["sources"].values(), *manifest["nodes"].values()):
        for column in node.get("columns", {}).values():
            yield (
                (node["name"], column["name"].lower()),
                {**column.get("meta", {}), **column.get("config", {}).get("meta", {})},
            )


def _keys(manifest: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Columns that the test `keeps_its_rules` holds to be one row's alone, by model."""
    found = {}
    for node in manifest["nodes"].values():
        test = node.get("test_metadata") or {}
        if test.get("name") == "keeps_its_rules" and node.get("config", {}).get("severity", "error").lower() == "error":
            found[node["attached_node"]] = tuple(test["kwargs"]["key"])
    return found
