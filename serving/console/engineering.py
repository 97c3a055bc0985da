"""What a data engineer looks at first: checks, what was set aside, views that lag, versions and sizes; and the way to the tools' own pages.

dbt's page is shown in a box: it cannot read ours, ask us anything or load from elsewhere. Great Expectations' pages are nothing without what they
load from elsewhere, so what they say is said here.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any

from starlette.responses import Response

from feature_repo import catalogue
from serving.answers import ask_lags
from serving.console import pages
from serving.console.charts import Bar
from serving.console.counter import Counter
from serving.console.frame import ROOT, Area, Page, Visit
from serving.operations import tools
from serving.operations.freshness import ViewLag
from serving.operations.runs import last_report, set_aside, unfinished
from troth.errors import TrothError

AREA = "/engineering"
MOST_ROWS, MOST_SLOW = 100, 8
# A page of dbt's: one file with scripts of its own. The sandbox gives it an origin that is nobody's, so that no cookie and no page of ours is its.
DBT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:; "
    "font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
STATES = {"fresh": "fresh", "late": "late", "never_published": "never published"}


def area(counter: Counter) -> Area:
    return Area("engineering", "Engineering", AREA, "engineering", [
        Page(AREA, "engineering", partial(_overview, counter)),
        Page(f"{AREA}/tables", "engineering", _tables),
        Page(f"{AREA}/sizes", "engineering", _sizes),
        Page(f"{AREA}/features", "engineering", partial(_features, counter)),
        Page(f"{AREA}/models", "engineering", _models),
        Page(f"{AREA}/models/{{name}}", "engineering", _model),
        Page(f"{AREA}/dbt", "engineering", _dbt_site),
        Page(f"{AREA}/batches/{{name}}", "engineering", _batch),
    ])  # fmt: skip


def _overview(counter: Counter, visit: Visit) -> Response:
    report, dbt, days = last_report(visit.home), tools.dbt_run(visit.home), unfinished(visit.home)
    batches, aside = tools.batches(visit.home), set_aside(visit.home).to_dicts()
    lags, fault = _lags(counter, visit)
    failed = [
        *({"what": name, "by": "Dagster", "found": "failed"} for name in (report.checks.failures if report else ())),
        *(
            {"what": each.name, "by": f"dbt {each.kind}", "found": _told(each)}
            for each in (dbt.results if dbt else ())
            if not each.is_well
        ),
        *(
            {"what": each.table, "by": "Great Expectations", "found": "; ".join(each.failures)}
            for each in batches
            if not each.is_well
        ),
    ]
    return visit.show(
        "engineering.html",
        "Engineering",
        facts=[
            (
                "Checks of the last run",
                f"{report.checks.passed:,} passed, {report.checks.failed:,} failed" if report else "none yet",
            ),
            ("Known until", pages.moment(_instant(report.known_until) if report else None)),
            ("Days not finished", len(days or ())),
            ("Rows set aside", pages.count(sum(row["rows"] for row in aside))),
            ("Views that are late", sum(each.is_late for each in lags) if fault is None else "unknown"),
        ],
        days=list(islice(days or (), 10)),
        failed=failed,
        dbt=dbt,
        slow=_slowest(dbt) if dbt else [],
        batches=[
            {
                "name": (f"{ROOT}{AREA}/batches/{each.table}", each.table),
                "held": "yes" if each.is_well else "NO",
                "expectations": len(each.expectations),
                "at": each.at,
            }
            for each in batches
        ],
        aside=aside[:MOST_ROWS],
        lags=_late_first(lags),
        fault=fault,
        stages=[Bar(each.stage, each.seconds) for each in report.stages] if report else [],
        sources=[
            {"source": each.source, "files": each.files, "rows": each.rows, "aside": each.aside}
            for each in report.sources
        ]
        if report
        else [],
        places=_places(visit),
    )


def _slowest(run: tools.DbtRun) -> list[dict[str, Any]]:
    found = sorted((each for each in run.results if each.kind == "model"), key=lambda each: -each.seconds)[:MOST_SLOW]
    return [{"name": each.name, "status": each.status, "seconds": f"{each.seconds:.1f}"} for each in found]


def _told(found: tools.Result) -> str:
    """How a result went. Of a message the first line alone: what follows may quote a row."""
    if found.failures:
        return f"{found.status}: {found.failures:,} rows"
    return f"{found.status}: {(found.message or '').strip().splitlines()[0][:200]}" if found.message else found.status


def _places(visit: Visit) -> list[dict[str, Any]]:
    """Where each tool shows itself, and whether it does now."""
    found: list[dict[str, Any]] = []
    addresses = tools.addresses(visit.home)
    for name, title, command in (
        ("dagster", "Dagster", "dagster dev -m orchestration.dev"),
        ("feast", "Feast", "feast ui"),
    ):
        is_there = tools.answers(addresses[name])
        found.append({
            "tool": title,
            "address": addresses[name],
            "state": {True: "answers", False: f"does not answer; start it with {command}", None: "on another machine"}[is_there],
        })  # fmt: skip
    site = visit.home.root / "dbt" / tools.DBT_SITE
    docs = tools.data_docs(visit.home)
    found += [
        {
            "tool": "dbt docs",
            "address": f"{ROOT}{AREA}/dbt" if site.exists() else None,
            "state": "made by troth docs" if site.exists() else "not made yet; make them with troth docs",
        },
        {
            "tool": "Great Expectations data docs",
            "address": None,
            "state": f"{docs.relative_to(visit.home.root)} of the home, which loads from elsewhere: open it on that machine"
            if docs.exists()
            else "not made yet",
        },
    ]
    return found


def _lags(counter: Counter, visit: Visit) -> tuple[Sequence[ViewLag], str | None]:
    """How late each view is; or why that cannot be told."""
    try:
        return ask_lags(counter.answers, visit.at), None
    except TrothError as fault:
        return [], str(fault)


def _late_first(lags: Sequence[ViewLag]) -> list[dict[str, Any]]:
    return [
        {
            "view": each.view,
            "state": STATES[each.state],
            "lag": each.lag_seconds,
            "limit": each.lag_limit_seconds,
            "as_of_at": each.as_of_at,
            "streamed_until": each.streamed_until,
            "version": each.version,
        }
        for each in sorted(lags, key=lambda each: (not each.is_late, each.view))
    ]


def _tables(visit: Visit) -> Response:
    now = visit.desk.wall.now()
    known = tools.models(visit.home)
    rows = [
        {
            "name": (f"{ROOT}{AREA}/models/{each.name}", each.name) if each.name in known else None,
            "plain": each.name,
            "version": each.version,
            "age": now - each.published_at,
            "published_at": each.published_at,
            "rows": each.rows,
            "bytes": _bytes(each.bytes),
            "versions": each.versions,
        }
        for each in tools.tables(visit.home)
    ]
    return visit.show("engineering_tables.html", "Published tables", rows=rows)


def _sizes(visit: Visit) -> Response:
    found = tools.sizes(visit.home)
    rows = [{"name": each.name, "files": each.files, "size": _bytes(each.bytes), "bytes": each.bytes} for each in found]
    return visit.show(
        "engineering_sizes.html",
        "What the home takes",
        rows=rows,
        total=_bytes(sum(each.bytes for each in found)),
        bars=[Bar(each.name, each.bytes / 1e6) for each in found[:12]],
    )


def _features(counter: Counter, visit: Visit) -> Response:
    lags, fault = _lags(counter, visit)
    states = {each.view: each for each in lags}
    views = [
        {
            "name": view.name,
            "entity": view.entity.name,
            "table": view.table,
            "fields": len(view.online_fields),
            "personal": "yes" if view.is_personal else "no",
            "ttl": view.time_to_live,
            "state": STATES[states[view.name].state] if view.name in states else None,
            "lag": states[view.name].lag_seconds if view.name in states else None,
        }
        for view in catalogue.VIEWS
    ]
    services = [
        {
            "name": each.name,
            "purpose": each.purpose_code or "none: nothing personal",
            "channel": each.channel_code,
            "views": ", ".join(view.name for view in each.views),
            "description": each.description,
        }
        for each in catalogue.SERVICES
    ]
    return visit.show("engineering_features.html", "Feature registry", views=views, services=services, fault=fault)


def _models(visit: Visit) -> Response:
    run = tools.dbt_run(visit.home)
    seconds = {each.name: each for each in (run.results if run else ()) if each.kind == "model"}
    rows = [
        {
            "name": (f"{ROOT}{AREA}/models/{each.name}", each.name),
            "folder": each.folder,
            "description": each.description,
            "columns": len(each.columns),
            "state": seconds[each.name].status if each.name in seconds else None,
            "seconds": f"{seconds[each.name].seconds:.1f}" if each.name in seconds else None,
        }
        for each in tools.models(visit.home).values()
    ]
    return visit.show("engineering_models.html", "Models", rows=rows, run=run)


def _model(visit: Visit) -> Response:
    known = tools.models(visit.home)
    found = known.get(visit.text("name"))
    if found is None:
        visit.refuse(404, "no_such_model", "model: expected one of the project, found another. See the list of models.")
    columns = [
        {
            "name": each.name,
            "type": each.type,
            "description": each.description,
            "personal": each.personal,
            "purposes": ", ".join(each.purposes) or None,
            "tests": ", ".join(each.tests) or None,
        }
        for each in found.columns
    ]
    return visit.show("engineering_model.html", found.name, model=found, columns=columns, known=known)


def _dbt_site(visit: Visit) -> Response:
    path = visit.home.root / "dbt" / tools.DBT_SITE
    if not path.exists():
        visit.refuse(404, "no_dbt_docs", "dbt docs: expected them made, found none. Make them with `troth docs`.")
    return _boxed(path.read_bytes(), "text/html; charset=utf-8", DBT_POLICY)


def _batch(visit: Visit) -> Response:
    """What was expected of the batch of a table that landed last."""
    found = next((each for each in tools.batches(visit.home) if each.table == visit.text("name")), None)
    if found is None:
        visit.refuse(
            404, "no_such_batch", "batch: expected one that was judged, found another. See the list of batches."
        )
    rows = [
        {
            "held": "yes" if each.is_met else "NO",
            "expectation": each.type.removeprefix("expect_"),
            "column": each.column,
        }
        for each in found.expectations
    ]
    return visit.show("engineering_batch.html", f"Batch of {found.table}", batch=found, rows=rows)


def _boxed(data: bytes, kind: str, policy: str) -> Response:
    return Response(data, headers={**pages.SAFE, "Content-Security-Policy": policy}, media_type=kind)


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} B"
