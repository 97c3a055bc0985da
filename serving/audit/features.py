"""A feature view or service: what for, what of people is in it and by which path, who read it, and how old it is."""

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from consent.log.merkle import VerificationError
from consent.receipts.verifier import Refusal, Report
from feature_repo.catalogue import INDEXES, RECOMMEND_CONTEXT, SERVICES, VIEWS, Service, View
from feature_repo.reads import projection, source
from models.purpose_flow import kept as flows
from models.purpose_flow.breaking import Broken
from models.purpose_flow.checking import Path, back, origins
from models.purpose_flow.inspecting import Inspection
from models.purpose_flow.relations import How, Place
from serving.audit.evidence import proving
from serving.audit.shapes import FeatureAudit, Reached, Read
from serving.errors import ServingError
from serving.operations.read_log import FILE_NAME, PersonalRead
from troth.errors import TrothError
from troth.home import Home
from troth.ids import file_hash
from troth.published import current


def feature(home: Home, name: str, at: datetime, flow: Inspection | None = None) -> FeatureAudit:
    """What is known of a view or a service at a time. `flow`: of the project as it is; else the one the home keeps.

    Raises: ServingError for a name that is neither.
    """
    report = Report(name)
    services = [
        each for each in (*SERVICES, RECOMMEND_CONTEXT) if name == each.name or name in {v.name for v in each.views}
    ]
    view = next((each for each in (*VIEWS, *INDEXES) if each.name == name), None)
    if view is None and not services:
        known = ", ".join(sorted({each.name for each in (*SERVICES, *VIEWS, *INDEXES)}))
        raise ServingError(f"feature: expected one of {known}, found {name[:60]!r}. Name one of them.")
    service = services[0] if view is None else None
    views = [view] if view is not None else list(services[0].views)
    reads = list(_reads(home, {each.name for each in services}))
    _check_reads(services, reads, report)
    is_personal = any(each.is_personal for each in views)
    standing_size, size = _standing(home, at, report) if is_personal else (None, None)
    return FeatureAudit(
        name=name,
        kind="view" if service is None else "service",
        purpose=service.purpose_code if service else None,
        channel=service.channel_code if service else "*",
        services=[each.name for each in services],
        views=[each.name for each in views],
        columns=[f"{each.table}.{field.name}" for each in views for field in each.online_fields],
        is_personal=is_personal,
        flow=_flow(home, services, views, flow, report) if is_personal else [],
        reads=reads,
        published=_published(home, views, report),
        standing_ledger_size=standing_size,
        ledger_size=size,
        is_verified=report.is_verified,
        checks=report.checks,
    )


def _flow(
    home: Home, services: Sequence[Service], views: Sequence[View], flow: Inspection | None, report: Report
) -> list[Reached] | None:
    """Which personal data reaches the columns, each by its shortest path, and whether its purposes cover what they are for."""
    if flow is None:
        with proving(report, "the flow that the home keeps can be read"):
            found = flows.kept(home)
            flow = found.inspection() if found else None
            if found:
                report.proved("the flow that the home keeps can be read", f"checked at {found.checked_at.isoformat()}")
            else:
                report.not_covered("paths of personal data", "no flow is kept: `troth flow check`")
    if flow is None:
        return None
    broken = Broken(flow.graph, flow.breakers)
    names = {each.name for each in services}
    uses = [use for use in flow.uses if use.kind == "feature service" and use.name in names]
    purposes = {use.purpose for use in uses}
    reads = [(each.table, field.name) for each in views for field in each.fields]
    way = back(broken, [place for place in reads if flow.graph.has(place)])
    reached = []
    for origin in origins(flow.declared, broken, way):
        personal, path = flow.declared[origin], _path(way, origin)
        uncovered = sorted({str(one) for one in purposes if one not in personal.purposes})
        found_path, column = path.text, ".".join(origin)
        reached.append(
            Reached(
                column=column,
                category=personal.category,
                purposes=sorted(personal.purposes),
                path=found_path,
                is_covered=not uncovered,
            )
        )
        if uncovered:
            expected = f"data that may be used for {', '.join(uncovered)}"
            report.failed(Refusal(f"{column} by {found_path}", expected, f"for {', '.join(sorted(personal.purposes))}"))
    if reached and all(each.is_covered for each in reached):
        report.proved("every path of personal data is covered by its purposes", f"{len(reached)} columns")
    return sorted(reached, key=lambda each: (each.is_covered, each.column))


def _path(way: Mapping[Place, tuple[Place, How] | None], origin: Place) -> Path:
    places, hows = [origin], list[How]()
    while (step := way[places[-1]]) is not None:
        places.append(step[0])
        hows.append(step[1])
    return Path(tuple(places), tuple(hows))


def _reads(home: Home, services: Collection[str]) -> Iterator[Read]:
    """Reads of these services by caller and purpose, from the log of personal reads, the most frequent first."""
    decoder = msgspec.json.Decoder(PersonalRead)
    lines: dict[tuple[str, ...], list[PersonalRead]] = {}
    marks = [f'"service":"{name}"'.encode() for name in services]
    for path in sorted((home.root / "logs").glob(f"{FILE_NAME.partition('.')[0]}*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                if not any(mark in line for mark in marks):
                    continue
                try:
                    read = decoder.decode(line)
                except msgspec.MsgspecError:
                    continue
                key = (read.service, read.caller, read.route, read.purpose_code, read.channel_code)
                lines.setdefault(key, []).append(read)
    for (service, caller, route, purpose, channel), mine in sorted(lines.items(), key=lambda one: -len(one[1])):
        refused: Counter[str] = sum((Counter(each.refused) for each in mine), Counter())
        yield Read(
            service=service,
            caller=caller,
            route=route,
            purpose=purpose,
            channel=channel,
            requests=len(mine),
            asked=sum(each.asked for each in mine),
            allowed=sum(each.allowed for each in mine),
            refused=dict(sorted(refused.items())),
            first_at=min(each.at for each in mine),
            last_at=max(each.at for each in mine),
        )


def _check_reads(services: Sequence[Service], reads: Sequence[Read], report: Report) -> None:
    """That every read was for the purpose of its service, and that who was asked for was allowed or refused."""
    purposes = {each.name: each.purpose_code for each in services}
    before = len(report.checks)
    for read in reads:
        what = f"reads of {read.service} by {read.caller}"
        if purposes[read.service] != read.purpose:
            report.failed(
                Refusal(what, f"purpose {purposes[read.service]}", read.purpose, "Ask who changed the service")
            )
        if read.asked != read.allowed + sum(read.refused.values()):
            found = f"{read.allowed} allowed and {sum(read.refused.values())} refused"
            report.failed(Refusal(what, f"{read.asked} answered", found, "A line of the log was changed"))
    if reads and len(report.checks) == before:
        report.proved(
            "every read was for the purpose of its service", f"{sum(each.requests for each in reads)} requests"
        )
    if not reads:
        report.not_covered("reads", "none is in the log")


def _published(home: Home, views: Sequence[View], report: Report) -> list[dict[str, Any]]:
    """The version each view's table was published in last, by the hash that names it."""
    found = []
    for view in views:
        pointer = home.published / view.table / "CURRENT"
        if not pointer.is_file():
            report.not_covered(f"table {view.table}", "nothing was published of it")
            continue
        path = current(home, view.table)
        with proving(report, f"published table {view.table} is the version it is named by", path.stem):
            if (hashed := file_hash(path)[: len(path.stem)]) != path.stem:
                raise VerificationError(f"published table {view.table}", f"hash {path.stem}", hashed, "It was changed")
        at = datetime.fromtimestamp(pointer.stat().st_mtime, UTC)
        found.append({"view": view.name, "table": view.table, "version": path.stem, "published_at": at})
    return found


def _standing(home: Home, at: datetime, report: Report) -> tuple[int | None, int | None]:
    """The size of the ledger that reads are decided under, and that of the ledger now."""
    try:
        from_where = source(home)
        reason, now, seen = projection(from_where, at)
    except (TrothError, OSError, sqlite3.Error) as fault:
        report.not_covered(
            "standing that reads are decided under", f"the online store cannot be asked: {type(fault).__name__}"
        )
        return None, None
    if reason is not None:
        report.not_covered("standing that reads are decided under", f"everybody is refused now: {reason}")
    else:
        report.proved(
            "reads are decided under projected standing and what the ledger heard since", f"{seen} of {now} leaves"
        )
    return seen, now
