"""The auditor's pages: the ledger and its verification, measures, what happened lately; and the way to people, uses and the record."""

import io
import zipfile
from collections.abc import Sequence
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from starlette.responses import Response

from consent.errors import LedgerError
from consent.ledger.opening import has_ledger
from consent.log.note import split_unverified
from consent.receipts.uses import folder_of
from consent.rights import OPEN
from serving.activation import deliveries
from serving.activation.recalling import waiting
from serving.audit.bundles import KINDS, bundle
from serving.audit.ledgers import ledger
from serving.audit.shapes import LedgerAudit
from serving.console import audit_people, audit_record, audit_uses, pages
from serving.console.audit_people import checks, is_name, label
from serving.console.audit_record import lately
from serving.console.audit_uses import recorded
from serving.console.charts import Interval, Line
from serving.console.counter import Counter
from serving.console.frame import Area, Page, Visit
from serving.console.worked import Worked, keep, kept, timed
from serving.errors import ServingError
from serving.records.measures import measures
from serving.records.shapes import Measures
from serving.rights import desk

PATH = "/audit"
LEDGER, MEASURES = "ledger", "measures"
LATELY, MOST_LATELY = timedelta(days=7), 15
MOST_LINES, MOST_WEEKS = 4, 53


def area(counter: Counter) -> Area:
    return Area("audit", "Audit", PATH, "audit", [
        Page(PATH, "audit", partial(_overview, counter)),
        Page(f"{PATH}/ledger", "audit", partial(_ledger, counter)),
        Page(f"{PATH}/ledger", "audit", _verify, "POST"),
        Page(f"{PATH}/measures", "audit", _measures),
        Page(f"{PATH}/measures", "audit", _measure, "POST"),
        Page(f"{PATH}/bundle", "audit", _bundle, "POST"),
        *audit_people.pages_of(counter),
        *audit_uses.pages_of(counter),
        *audit_record.pages_of(counter),
    ])  # fmt: skip


def _overview(counter: Counter, visit: Visit) -> Response:
    now = visit.desk.wall.now()
    verified, measured = kept(visit.home, LEDGER, LedgerAudit), kept(visit.home, MEASURES, Measures)
    requests = desk.every_request(visit.home, visit.desk.wall)
    told, fault = _newest(counter, visit)
    return visit.show(
        "audit.html",
        "Audit",
        fault=fault,
        facts=[
            ("Events in the ledger", pages.count(told["size"]) if told else "unknown"),
            ("Newest checkpoint", pages.moment(told["signed_at"]) if told else "unknown"),
            ("Ledger verified", _verified(verified, told["size"] if told else None)),
            ("Recorded uses", pages.count(len(recorded(folder_of(visit.home))))),
            ("Open requests", sum(each.state in OPEN for each in requests)),
            ("of them overdue", sum(each.is_overdue(now) for each in requests)),
        ],
        root_hash=told["root"] if told else None,
        measured=measured,
        rates=(rates := _rates(measured)),
        intervals=intervals(rates),
        happened=lately(visit, now, LATELY, MOST_LATELY),
        recalls=_recalls(visit),
    )


def _newest(counter: Counter, visit: Visit) -> tuple[dict[str, Any] | None, str | None]:
    """Size, root and time of the newest checkpoint; or why they cannot be told."""
    try:
        if not has_ledger(visit.home):
            return None, "ledger: expected one in this home, found none. Run `troth run` first."
        found = counter.ledger
        return {
            "size": found.size,
            "root": found.root().hex(),
            "signed_at": found.signed_at(),
            "note": found.checkpoint(),
            "key": found.verifier.text,
        }, None
    except LedgerError as doubt:
        return None, str(doubt)


def _verified(found: Worked[LedgerAudit] | None, size: int | None) -> str:
    if found is None:
        return "never from here"
    outcome = "yes" if found.answer.is_verified else "NO: it does not verify"
    since = size - found.answer.ledger_size if size is not None and found.answer.ledger_size is not None else 0
    grown = f", {since:,} events ago" if since else ""
    return f"{outcome}, {pages.moment(found.at)}{grown}"


def _rates(found: Worked[Measures] | None) -> list[dict[str, Any]]:
    """Rates of yes by use and channel."""
    return [
        {**row, "what": label(row["purpose_code"], row["channel_code"])}
        for row in (found.answer.rates if found else ())
        if not row["is_total"]
    ]


def _recalls(visit: Visit) -> list[dict[str, Any]]:
    """Withdrawals that recipients were told of and have not acknowledged."""
    if not (visit.home.root / deliveries.FILE).exists():
        return []
    return [
        {
            "delivery": each.recall.delivery_id,
            "age": each.age,
            "state": "overdue" if each.is_overdue else each.recall.state,
            "told_at": each.recall.told_at,
        }
        for each in waiting(visit.home, visit.desk.wall.now())
    ]


def _ledger(counter: Counter, visit: Visit) -> Response:
    told, fault = _newest(counter, visit)
    found = kept(visit.home, LEDGER, LedgerAudit)
    return visit.show(
        "audit_ledger.html",
        "The ledger",
        told=told,
        fault=fault,
        found=found,
        failed=[each for each in found.answer.checks if each.outcome == "failed"] if found else [],
        checks=checks(found.answer.checks) if found else [],
        cosigners=sorted({name for name, _ in split_unverified(told["note"])[1]}) if told else [],
    )


def _verify(visit: Visit) -> Response:
    """Everything from the entries on. Whoever asks is shown what was found, and so is who comes later."""
    try:
        found = keep(visit.home, LEDGER, timed(visit, partial(ledger, visit.home)))
    except LedgerError as doubt:
        visit.refuse(409, "no_ledger", str(doubt))
    visit.look("ledger_verified", allowed=found.answer.is_verified)
    outcome = "It verifies" if found.answer.is_verified else "It does NOT verify"
    return visit.go(f"{PATH}/ledger", f"{outcome}; that took {found.seconds:.1f} s.")


def _measures(visit: Visit) -> Response:
    found = kept(visit.home, MEASURES, Measures)
    rates = _rates(found)
    newest = sorted({str(row["week"]) for row in (found.answer.weekly if found else ())})[-MOST_WEEKS:]
    weeks, lines = _weekly(found, newest)
    return visit.show(
        "audit_measures.html",
        "Measures of consent",
        found=found,
        rates=rates,
        intervals=intervals(rates),
        weeks=weeks,
        lines=lines,
        weekly=[
            {**row, "what": label(row["purpose_code"], row["channel_code"])}
            for row in (found.answer.weekly if found else ())
            if str(row["week"]) in newest
        ],
        heard=found.answer.heard_after if found else [],
    )


def intervals(rates: list[dict[str, Any]]) -> list[Interval]:
    """In percent, as charts draw them."""
    return [
        Interval(
            row["what"], *(None if row[name] is None else 100 * row[name] for name in ("rate", "rate_low", "rate_high"))
        )
        for row in rates
    ]


def _weekly(found: Worked[Measures] | None, weeks: Sequence[str]) -> tuple[list[str], list[Line]]:
    """Rates by the week people were asked in, of what is asked most: a label for each of these weeks, and the lines."""
    rows = found.answer.weekly if found else []
    asked: dict[tuple[str, str], int] = {}
    rate: dict[tuple[str, str, str], float] = {}
    for row in rows:
        key = (row["purpose_code"], row["channel_code"])
        asked[key] = asked.get(key, 0) + (row["asked"] or 0)
        if row["rate"] is not None:
            rate[*key, str(row["week"])] = 100 * row["rate"]
    most = sorted(asked, key=lambda key: -asked[key])[:MOST_LINES]
    return [f"{date.fromisoformat(week):%b %Y}" for week in weeks], [
        Line(label(*key), [rate.get((*key, week)) for week in weeks]) for key in most
    ]


def _measure(visit: Visit) -> Response:
    found = keep(visit.home, MEASURES, timed(visit, lambda: measures(visit.home, visit.at)))
    return visit.go(
        f"{PATH}/measures", f"Counted, and reconciled with the ledger leaf by leaf; that took {found.seconds:.1f} s."
    )


def _bundle(visit: Visit) -> Response:
    """Evidence about a person, an export or a model as a zip that verifies alone. Files that went out are not in it. Nothing stays here."""
    kind, name, version, why = visit.choice("kind", KINDS), visit.text("name"), visit.text("version", 32), visit.why()
    if kind == "subject" and not is_name(name):
        visit.refuse(
            404, "no_such_subject", "bundle: expected a customer id or a token, found another. Find the person first."
        )
    visit.look(
        "bundle", name if kind == "subject" else None, why=f"{kind}{'' if kind == 'subject' else f' {name}'}: {why}"
    )
    with TemporaryDirectory() as place:
        folder = Path(place) / f"evidence-{kind}-{visit.at:%Y%m%dT%H%M%S}"
        try:
            bundle(visit.home, kind, name, folder, visit.at, version=version or None)
        except ServingError as fault:
            visit.refuse(404, "no_such_evidence", str(fault))
        return visit.download(_zipped(folder), "application/zip", f"{folder.name}.zip")


def _zipped(folder: Path) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            archive.write(path, f"{folder.name}/{path.relative_to(folder).as_posix()}")
    return packed.getvalue()
