"""The graph as OpenLineage events: for every table a JobEvent whose output carries the column lineage facet.

Written by hand after the specification (https://openlineage.io/spec/2-0-2, facet 1-2-0): events of this one kind are a few
dictionaries, and the client would bring a transport and its dependencies for them.
"""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any

from models.purpose_flow.declarations import Personal, categories
from models.purpose_flow.graph import Graph
from models.purpose_flow.relations import DIRECT, ROWS, Flow, Place

PRODUCER = "https://troth.example/models/purpose_flow"
EVENT = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/JobEvent"
FACET = "https://openlineage.io/spec/facets/1-2-0/ColumnLineageDatasetFacet.json#/$defs/ColumnLineageDatasetFacet"
SCHEMA = "https://openlineage.io/spec/facets/1-2-0/SchemaDatasetFacet.json#/$defs/SchemaDatasetFacet"


def events(
    graph: Graph, declared: Mapping[Place, Personal], keyed: Collection[Place], at: datetime, namespace: str = "troth"
) -> Iterator[dict[str, Any]]:
    """One event for every table that rests on another, sorted by table; `at` is when it was said.

    What decides about rows stands in the facet's `dataset`. Columns of personal data say so in their description, in DPV's terms.
    """
    for table in sorted(graph.columns):
        rests = frozenset().union(*(graph.into[table, column] for column in (*graph.columns[table], ROWS)))
        inputs = sorted({name for (name, _), _ in rests if name != table})
        if not inputs:
            continue
        columns = graph.columns[table]
        lineage = {
            "_producer": PRODUCER,
            "_schemaURL": FACET,
            "fields": {
                column: {"inputFields": _inputs(graph, (table, column), keyed, namespace)} for column in columns
            },
            "dataset": _inputs(graph, (table, ROWS), keyed, namespace),
        }
        schema = {
            "_producer": PRODUCER,
            "_schemaURL": SCHEMA,
            "fields": [_field(column, declared.get((table, column))) for column in columns],
        }
        yield {
            "eventTime": at.isoformat().replace("+00:00", "Z"),
            "producer": PRODUCER,
            "schemaURL": EVENT,
            "job": {"namespace": namespace, "name": table},
            "inputs": [{"namespace": namespace, "name": name} for name in inputs],
            "outputs": [
                {"namespace": namespace, "name": table, "facets": {"schema": schema, "columnLineage": lineage}}
            ],
        }


def _inputs(graph: Graph, place: Place, keyed: Collection[Place], namespace: str) -> list[dict[str, Any]]:
    flow: Flow = frozenset(step for step in graph.into[place] if step[1] != "ROWS")
    return [
        {
            "namespace": namespace,
            "name": source[0],
            "field": source[1],
            "transformations": [
                {"type": "DIRECT" if how in DIRECT else "INDIRECT", "subtype": how, "masking": place in keyed}
                for how in sorted(how for each, how in flow if each == source)
            ],
        }
        for source in sorted({source for source, _ in flow})
    ]


def _field(name: str, personal: Personal | None) -> dict[str, str]:
    if personal is None:
        return {"name": name}
    purposes = ", ".join(sorted(personal.purposes))
    return {
        "name": name,
        "description": f"{categories()[personal.category].term}; may be used for {purposes or 'nothing'}",
    }
