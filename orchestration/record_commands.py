"""The record of processing activities and the log of events on the command line. Parses and prints; what is told is in `serving/records/`."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestration.options import HomeOption, JsonOption
from troth.settings import here

FORMATS = ("html", "csv", "json")


def audit_record(
    form: Annotated[str, typer.Option("--format", help="html, csv or json (JSON-LD in DPV terms).")] = "html",
    out: Annotated[Path | None, typer.Option(help="File to write; without one a summary is printed.")] = None,
    compare: Annotated[Path | None, typer.Option(help="An earlier record in JSON: print what differs.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit code 1 where people are told otherwise than what runs.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """The record of processing activities (GDPR 30), made from what really runs: purposes, data, recipients, measures, versions."""
    import msgspec

    from orchestration.printing import show
    from serving.records import compare as comparing
    from serving.records import linked, page, sheet
    from serving.records.record import record
    from troth.clock import SystemClock
    from troth.home import write_atomically

    if form not in FORMATS:
        raise typer.BadParameter(f"expected one of {', '.join(FORMATS)}, found {form[:20]!r}; choose one of them")
    made = record(here(home).home, SystemClock().now())
    if out is not None:
        written = {"html": page.as_html, "csv": sheet.as_csv, "json": linked.as_json_ld}[form]
        write_atomically(out, written(made))
    answer: dict[str, Any] = {
        "made_at": made.made_at,
        "sha256": made.sha256,
        "flow_checked_at": made.flow_checked_at,
        "file": None if out is None else str(out),
        "activities": [
            {
                "purpose": each.purpose_code,
                "basis": each.bases[0].legal_basis,
                "data": ", ".join(data.category for data in each.data),
                "uses": len(each.implementations),
                "recipients": len(each.recipients),
                "kept": each.retention,
                "answers_yes": sum(count.people for count in each.people if count.is_allowed),
                "answers_no": sum(count.people for count in each.people if not count.is_allowed),
            }
            for each in made.activities
        ],
        "measures_off": [each.title for each in made.measures if each.is_on is False],
        "differences": [{"difference": each.sentence} for each in made.differences],
    }
    if compare is not None:
        changes = comparing.diff(linked.read_json_ld(compare), made)
        answer["changes"] = [msgspec.structs.asdict(each) for each in changes]
    if check:
        answer["is_verified"] = not made.differences
    sys.exit(show(answer, as_json))


def audit_events(
    since: Annotated[datetime | None, typer.Option(help="From this time on, UTC; default seven days ago.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Before this time, UTC; default now.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only these kinds; may be given several times.")] = None,
    count: Annotated[int, typer.Option(help="At most so many, the newest.", min=1, max=100_000)] = 200,
    out: Annotated[Path | None, typer.Option(help="Write them as CSV to this file.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What flowed, was approved and was shared: uses, exports, deliveries, recalls, publications, looks, reads, requests."""
    import msgspec

    from orchestration.printing import show
    from serving.records.events import events
    from serving.records.sheet import events_csv
    from troth.clock import SystemClock
    from troth.home import write_atomically

    end = _utc(until) or SystemClock().now()
    begin = _utc(since) or end - timedelta(days=7)
    found = events(here(home).home, begin, end, kind or None, count)  # type: ignore[arg-type]  # what is no kind is refused there
    if out is not None:
        write_atomically(out, events_csv(found))
        sys.exit(show({"events": len(found), "file": str(out)}, as_json))
    rows = [msgspec.structs.asdict(each) for each in found]
    if not as_json:
        rows = [{**row, "at": row["at"].strftime("%Y-%m-%d %H:%M:%S")} for row in rows]
    sys.exit(show({"since": begin, "until": end, "count": len(rows), "events": rows}, as_json))


def _utc(at: datetime | None) -> datetime | None:
    """A time as it was typed, which is UTC where it does not say otherwise."""
    return at if at is None or at.tzinfo is not None else at.replace(tzinfo=UTC)
