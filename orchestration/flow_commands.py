"""The group `troth flow`: what of a person reaches what use, and whether its purpose covers it.

Parses and prints; what is followed and checked is in `models/purpose_flow/`. Needs no home and no data: dbt's SQL alone.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestration.options import HomeOption, JsonOption
from troth.settings import here

if TYPE_CHECKING:
    from models.purpose_flow.checking import Report

app = typer.Typer(
    no_args_is_help=True,
    help="Which personal data reaches which use, column by column, and whether its purpose covers it.",
)


@app.command("check")
def flow_check(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Hold every use against what reaches it. Exit code 1 with every path that its purpose does not cover, or a breaker that is none."""
    from orchestration.printing import show
    from orchestration.purpose_gate import inspection

    sys.exit(show(answered(inspection(here(home).home).report, as_json), as_json))


def answered(report: "Report", as_json: bool) -> dict[str, Any]:
    """A report as it is printed: every path for machines, a line for each finding with its shortest path for people."""
    findings: list[dict[str, Any]] = [
        {
            "use": finding.use.title,
            "purpose": finding.use.purpose,
            "column": ".".join(finding.column),
            "personal": finding.personal.category,
            "purposes": sorted(finding.personal.purposes),
            "is_direct": any(path.is_direct for path in finding.paths),
            "paths": [f"{path.text} -> {finding.use.title}" for path in finding.paths],
        }
        for finding in report.findings
    ]
    if not as_json:
        findings = [
            {"column": each["column"], "may_be_used_for": ", ".join(each["purposes"]), "path": each["paths"][0]}
            for each in findings
        ]
    return {
        "is_verified": report.is_verified,
        "uses": report.uses,
        "tables": report.tables,
        "columns": report.columns,
        "edges": report.edges,
        "personal_columns": report.personal_columns,
        "steps_ended_by": dict(report.ended),
        "findings": findings,
        "faults": list(report.faults),
    }


@app.command("show")
def flow_show(
    column: Annotated[str, typer.Argument(help="table.column; table.* for which rows there are.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a column holds and rests on, and which uses it reaches."""
    from orchestration.printing import show
    from orchestration.purpose_gate import inspection

    sys.exit(show(inspection(here(home).home).about(column), as_json))


@app.command("export")
def flow_export(
    to: Annotated[Path, typer.Option(help="File for the events, one JSON document a line.")] = Path("lineage.ndjson"),
    namespace: Annotated[str, typer.Option(help="OpenLineage namespace of jobs and tables.")] = "troth",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """The lineage of every column as OpenLineage events, for a catalogue that reads them."""
    from models.purpose_flow.open_lineage import events
    from orchestration.printing import show
    from orchestration.purpose_gate import inspection
    from troth.clock import SystemClock
    from troth.home import write_atomically

    found = inspection(here(home).home)
    lines = [
        json.dumps(event, separators=(",", ":"), ensure_ascii=False)
        for event in events(found.graph, found.declared, found.keyed, SystemClock().now(), namespace)
    ]
    write_atomically(to, ("\n".join(lines) + "\n").encode())
    sys.exit(show({"events": len(lines), "file": str(to)}, as_json))


@app.command("draw")
def flow_draw(
    name: Annotated[
        str, typer.Argument(help="A use, such as `segment lapsed_regulars`; its name alone where only one has it.")
    ],
    out: Annotated[Path, typer.Option(help="SVG file to write.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a use: every column its personal data comes from, and the path from there. What is drawn is printed as rows."""
    from dataclasses import asdict

    from models.purpose_flow.drawing import drawn, use_of
    from orchestration.printing import show
    from orchestration.purpose_gate import inspection
    from troth.home import write_atomically

    found = inspection(here(home).home)
    drawing = drawn(found, use_of(found.uses, name))
    write_atomically(out, (drawing.svg + "\n").encode())
    rows = [asdict(each) for each in drawing.rows]
    sys.exit(show({"use": drawing.title, "text": drawing.text, "file": str(out), "columns": rows}, as_json))
