"""What a controller must be able to show: the record of processing activities, the log of what flowed, and which data reaches which use."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, get_args
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.responses import Response

from models.purpose_flow import kept as flows
from models.purpose_flow.checking import Use
from models.purpose_flow.drawing import drawn
from models.purpose_flow.errors import FlowError
from models.purpose_flow.inspecting import Inspection
from serving.console import pages
from serving.console.counter import Counter
from serving.console.frame import ROOT, Page, Visit
from serving.console.worked import timed
from serving.records import linked, page, sheet
from serving.records.events import events
from serving.records.record import record
from serving.records.shapes import Event, EventKind, Record
from serving.records.uses import of_home, reaching, uncovered

PATH = "/audit"
KINDS: tuple[EventKind, ...] = get_args(EventKind)
KIND_WORDS: Mapping[str, str] = {
    "use": "Uses",
    "export": "Exports",
    "approval": "Approvals",
    "delivery": "Deliveries",
    "recall": "Recalls",
    "webhook": "Webhooks",
    "publication": "Publications",
    "look": "Looks by staff",
    "read": "Reads by systems",
    "request": "Requests",
    "told": "Recipients told",
}
DAYS = ("7", "1", "30", "90", "365")
MOST_EVENTS, MOST_IN_A_FILE = 200, 100_000
# The record stands alone, as a file that is handed over: its style is in it.
RECORD_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def pages_of(counter: Counter) -> list[Page]:
    return [
        Page(f"{PATH}/record", "audit", _record),
        Page(f"{PATH}/record/{{form}}", "audit", _record_as),
        Page(f"{PATH}/events", "audit", _events),
        Page(f"{PATH}/events/csv", "audit", _events_as_sheet),
        Page(f"{PATH}/flow", "audit", _flow),
        Page(f"{PATH}/flow/use", "audit", _use),
    ]


def _record(visit: Visit) -> Response:
    worked = timed(visit, partial(record, visit.home, visit.at))
    found = worked.answer
    return visit.show(
        "audit_record.html",
        "Record of processing activities",
        record=found,
        seconds=worked.seconds,
        activities=[
            {
                "purpose": each.purpose_code,
                "description": each.description,
                "basis": each.bases[0].legal_basis if each.bases else None,
                "data": ", ".join(data.category.replace("_", " ") for data in each.data) or None,
                "uses": len(each.implementations),
                "recipients": ", ".join(one.name for one in each.recipients) or "nobody",
                "retention": each.retention,
                "yes": sum(count.people for count in each.people if count.is_allowed),
                "no": sum(count.people for count in each.people if not count.is_allowed),
            }
            for each in found.activities
        ],
        measures=[
            {
                "title": each.title,
                "state": {True: "on", False: "OFF", None: "cannot be told from here"}[each.is_on],
                "evidence": each.evidence,
            }
            for each in sorted(found.measures, key=lambda each: each.is_on is not False)
        ],
    )


def _record_as(visit: Visit) -> Response:
    """The record as a page that stands alone, a sheet, or JSON-LD in DPV terms."""
    form = visit.choice("form", ("html", "csv", "json"))
    made = record(visit.home, visit.at)
    name = f"record-of-processing-{made.made_at:%Y-%m-%d}"
    if form == "html":
        return Response(
            page.as_html(made),
            headers={**pages.SAFE, "Content-Security-Policy": RECORD_POLICY},
            media_type="text/html; charset=utf-8",
        )
    data, kind = _written(made, form)
    return visit.download(data, kind, f"{name}.{form}")


def _written(made: Record, form: str) -> tuple[bytes, str]:
    if form == "csv":
        return sheet.as_csv(made), "text/csv; charset=utf-8"
    return linked.as_json_ld(made), "application/ld+json"


def _events(visit: Visit) -> Response:
    kind, days, found = _happened(visit, MOST_EVENTS)
    return visit.show(
        "audit_events.html",
        "What happened",
        rows=[row_of(each) for each in reversed(found)],
        kind=kind,
        kinds={"": "everything", **KIND_WORDS},
        days=days,
        all_days=sorted(map(int, DAYS)),
        is_cut=len(found) == MOST_EVENTS,
        most=MOST_EVENTS,
        sheet=f"{ROOT}{PATH}/events/csv?{urlencode({'kind': kind, 'days': days})}",
    )


def _events_as_sheet(visit: Visit) -> Response:
    _, _, found = _happened(visit, MOST_IN_A_FILE)
    return visit.download(sheet.events_csv(found), "text/csv; charset=utf-8", f"events-{visit.at:%Y-%m-%d}.csv")


def _happened(visit: Visit, most: int) -> tuple[str, str, list[Event]]:
    kind, days = visit.choice("kind", ("", *KINDS)), visit.choice("days", DAYS)
    until = visit.desk.wall.now()
    wanted = [each for each in KINDS if each == kind] or None
    return kind, days, events(visit.home, until - timedelta(days=int(days)), until, wanted, most)


def row_of(event: Event) -> dict[str, Any]:
    return {
        "at": event.at,
        "kind": KIND_WORDS[event.kind],
        "who": event.who,
        "what": event.what,
        "purpose": event.purpose_code,
        "count": event.count,
        "evidence": event.evidence,
        "sha256": event.evidence_sha256,
    }


def _flow(visit: Visit) -> Response:
    """Which uses there are, what reaches them, and what should not."""
    known, flow = _known(visit)
    listed = of_home(visit.home, flow.graph) if flow else []
    reached = reaching(visit.home, listed)
    return visit.show(
        "audit_flow.html",
        "Purpose flow",
        known=known,
        findings=[*_uncovered(visit, listed), *(known.faults if known else ())],
        uses=[
            {
                "use": (f"{ROOT}{PATH}/flow/use?{urlencode({'name': each.title})}", each.title),
                "purpose": each.purpose or "none: nothing personal",
                "data": ", ".join(
                    sorted({one.category.replace("_", " ") for one in reached[each.title].personal.values()})
                )
                or "nothing personal",
                "columns": len(reached[each.title].personal),
                "declared_in": each.declared_in,
            }
            for each in listed
        ],
    )


def _use(visit: Visit) -> Response:
    """One use: every column of personal data that reaches it, by its shortest path."""
    known, flow = _known(visit)
    if known is None or flow is None:
        visit.refuse(
            404, "no_flow", "purpose flow: expected one that was checked, found none. The next `troth run` checks it."
        )
    title = visit.text("name")
    use = next((each for each in of_home(visit.home, flow.graph) if each.title == title), None)
    if use is None:
        visit.refuse(404, "no_such_use", "use: expected one there is, found another. See the list of uses.")
    drawing = drawn(flow, use)
    return visit.show(
        "audit_flow_use.html",
        use.title,
        use=use,
        checked_at=known.checked_at,
        reads=[".".join(each) for each in use.reads],
        text=drawing.text,
        picture=Markup(drawing.svg),  # noqa: S704 - drawn by us, names in it escaped
        ways=[
            {
                "column": each.column,
                "category": each.category,
                "is_covered": "yes" if each.is_covered else "NO",
                "how": "as it is" if each.is_direct else "decides",
                "path": each.path,
            }
            for each in sorted(drawing.rows, key=lambda each: (each.is_covered, each.column))
        ],
    )


def _uncovered(visit: Visit, listed: Sequence[Use]) -> Sequence[str]:
    """What should not be; that a use cannot be followed is told like it."""
    try:
        return uncovered(visit.home, listed)
    except FlowError as fault:
        return [str(fault)]


def _known(visit: Visit) -> tuple[flows.Kept | None, Inspection | None]:
    try:
        return flows.kept(visit.home), flows.known(visit.home)
    except FlowError as fault:
        visit.refuse(409, "flow_unreadable", str(fault))


def lately(visit: Visit, until: datetime, span: timedelta, most: int) -> list[dict[str, Any]]:
    """The newest of what happened, newest first, but for looks, reads and tables that were published."""
    kinds = [each for each in KINDS if each not in ("look", "read", "publication")]  # of which there are too many
    return [row_of(each) for each in reversed(events(visit.home, until - span, until, kinds, most))]
