"""Record and log as CSV (RFC 4180, UTF-8), one line a fact or an event; no cell can be run by a spreadsheet."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from models.segments.export import protected
from serving.records.shapes import Activity, Event, Record

HEADER = ("purpose", "part", "name", "value", "detail")
EVENT_HEADER = ("at", "kind", "who", "what", "purpose", "count", "evidence", "sha256")


def as_csv(record: Record) -> bytes:
    """One line per fact: which purpose, which part of Article 30(1), its name, its value, and what more is known of it."""
    return _csv(HEADER, _facts(record))


def events_csv(events: Iterable[Event]) -> bytes:
    """One line per event of the log."""
    return _csv(EVENT_HEADER, ((each.at.isoformat(), each.kind, each.who, each.what, each.purpose_code, each.count, each.evidence, each.evidence_sha256) for each in events))  # fmt: skip


Row = Sequence[object]


def _facts(record: Record) -> Iterator[Row]:
    who = record.controller
    yield "", "controller", who.name, who.address, f"{who.contact}, {who.email}, {who.phone}"
    yield "", "authority", who.authority_name, who.authority_url, ""
    for activity in record.activities:
        yield from _activity(activity)
    for measure in record.measures:
        state = {True: "on", False: "off", None: "cannot be told from here"}[measure.is_on]
        yield "", "measure", measure.title, state, measure.evidence
    for difference in record.differences:
        yield difference.purpose_code, "difference", difference.name, difference.kind, difference.sentence
    for name, found in record.inputs.items():
        yield "", "made from", name, found, ""
    yield "", "record", "sha256", record.sha256, record.made_at.isoformat()


def _activity(activity: Activity) -> Iterator[Row]:
    code = activity.purpose_code
    yield code, "purpose", code, activity.description, " ".join(activity.terms)
    for basis in activity.bases:
        days = (
            "does not end by itself"
            if basis.expires_after_days is None
            else f"ends after {basis.expires_after_days} days"
        )
        yield code, "legal basis", basis.jurisdiction_code, basis.legal_basis, f"{basis.article}, {basis.mechanism}, {days}"  # fmt: skip
    for subjects in activity.subjects:
        yield code, "data subjects", subjects.title, subjects.term, f"from {subjects.source}"
    for data in activity.data:
        yield code, "personal data", data.category, data.term, f"{' '.join(data.columns)} -> {'; '.join(data.uses)}"
    for each in activity.recipients:
        transfer = "" if not each.is_transfer else ", transfer to another country"
        yield (
            code,
            "recipient",
            each.name,
            each.role or each.kind,
            f"{each.country or 'country not declared'}{transfer}",
        )
    yield code, "retention", "period", activity.retention, ""
    for running in activity.implementations:
        yield code, "implementation", f"{running.kind} {running.name}", running.version or "", f"{running.sha256} {running.declared_in}"  # fmt: skip
    for count in activity.people:
        yield code, "people", f"{'may' if count.is_allowed else 'may not'}: {count.reason_code}", count.people, f"channel {count.channel_code}"  # fmt: skip


def _csv(header: Sequence[str], rows: Iterable[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows(["" if cell is None else protected(str(cell)) for cell in row] for row in rows)
    return text.getvalue().encode()
