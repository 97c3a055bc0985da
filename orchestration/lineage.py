"""Column lineage of the dbt models, computed from their compiled SQL: which upstream columns a column comes from.

One pass over the models in build order; each model's columns are those its SQL gives, so that `select *` downstream
resolves. Written when the graph is opened for people, read when it is loaded.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from troth.home import write_atomically

LINEAGE_FILE = "column_lineage.json"


def refresh(built: Path, parsed: Path) -> bool:
    """Write the column lineage of a project version beside its manifest, from a home's build with compiled SQL.

    Takes about 6 s for 40 models. False when it is there, or when the build is of another version or has not happened:
    lineage comes with the first build.
    """
    if (parsed / LINEAGE_FILE).exists() or not (built / "manifest.json").exists():
        return False
    compiled, said = (json.loads((folder / "manifest.json").read_bytes()) for folder in (built, parsed))
    if _checksums(compiled) != _checksums(said):
        return False
    models = model_lineage(compiled)
    if models:
        write_atomically(parsed / LINEAGE_FILE, json.dumps(models, sort_keys=True).encode())
    return bool(models)


def known(parsed: Path) -> dict[str, dict[str, list[tuple[str, str]]]]:
    """Lineage as written for a project version; empty before that."""
    path = parsed / LINEAGE_FILE
    return dict(json.loads(path.read_bytes())) if path.exists() else {}


def _checksums(manifest: Mapping[str, Any]) -> dict[str, str]:
    models = (node for node in manifest["nodes"].values() if node["resource_type"] == "model")
    return {node["name"]: node["checksum"]["checksum"] for node in models}


def model_lineage(manifest: Mapping[str, Any]) -> dict[str, dict[str, list[tuple[str, str]]]]:
    """Model -> column -> [(upstream table, its column)], sorted; constants and row numbers have no upstream."""
    from sqlglot import exp, parse_one
    from sqlglot.lineage import lineage
    from sqlglot.optimizer.qualify import qualify
    from sqlglot.optimizer.scope import build_scope

    schema: dict[str, object] = {
        source["name"]: dict.fromkeys(source["columns"], "unknown") for source in manifest["sources"].values()
    }
    found: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for node in _in_build_order(manifest):
        code = node.get("compiled_code")
        if not code:
            continue
        query = parse_one(code, dialect="duckdb")
        for table in query.find_all(exp.Table):
            table.set("db", None)
            table.set("catalog", None)
        qualified: exp.Query = qualify(  # type: ignore[assignment]
            query, dialect="duckdb", schema=schema, validate_qualify_columns=False, identify=False
        )
        scope = build_scope(qualified)
        columns: dict[str, list[tuple[str, str]]] = {}
        for name in qualified.named_selects:
            leaves = lineage(name, qualified, dialect="duckdb", schema=schema, scope=scope, trim_selects=False).walk()
            columns[name] = sorted(
                {
                    (leaf.source.name, leaf.name.rpartition(".")[2].strip('"'))
                    for leaf in leaves
                    if not leaf.downstream and isinstance(leaf.source, exp.Table) and leaf.source.name in schema
                }
            )
        found[node["name"]] = columns
        schema[node["name"]] = dict.fromkeys(columns, "unknown")
    return found


def _in_build_order(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    models = {key: node for key, node in manifest["nodes"].items() if node["resource_type"] == "model"}
    ordered: dict[str, Mapping[str, Any]] = {}

    def visit(key: str) -> None:
        if key in models and key not in ordered:
            for upstream in models[key]["depends_on"]["nodes"]:
                visit(upstream)
            ordered[key] = models[key]

    for key in sorted(models):
        visit(key)
    return list(ordered.values())
