"""How promises, stock and hands do: kept and oversold, late and stale, what differs and whose it is, what to count, what a run found. No person in it."""

import csv
import io
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import polars as pl
from starlette.responses import Response

from models.segments.export import protected
from models.stock.belief.counting import counts_worth
from models.stock.reconciling import breaks
from serving.answers import ask_lags
from serving.console import figures
from serving.console.counter import Counter
from serving.console.frame import ROOT, Area, Page, Visit
from serving.console.pages import count
from serving.intake import drift
from serving.measures import GRAINS, By, Measured, measured
from serving.operations.runs import last_report, set_aside, unfinished
from troth.published import current

PATH = "/operations"
PARTS = {
    "": "Overview",
    "/measures": "Measures",
    "/breaks": "What differs",
    "/counts": "Count list",
    "/freshness": "How fresh",
    "/checks": "Last run",
}
MOST_BREAKS, MOST_COUNTS, MOST_DRIFTS = 50, 100, 20


def area(counter: Counter) -> Area:
    handlers = {
        "": _overview,
        "/measures": _measures,
        "/breaks": _breaks,
        "/breaks.csv": _breaks_file,
        "/counts": _counts,
        "/counts.csv": _counts_file,
        "/freshness": _freshness,
        "/checks": _checks,
    }
    pages = [Page(PATH + path, "operations", partial(handle, counter)) for path, handle in handlers.items()]
    return Area("operations", "Operations", PATH, "operations", pages)


def _overview(counter: Counter, visit: Visit) -> Response:
    """Where one looks first: the figures of all time, their weeks, how sure we were, and what waits for somebody."""
    found, by_week = measured(counter.home), measured(counter.home, "week")
    shares = {each.measure_name: each for each in found.measures if each.statistic_type in ("share", "mean")}
    median = {each.measure_name: each for each in found.measures if each.statistic_type == "p50"}
    still = breaks(counter.home)
    report = last_report(counter.home)
    late = [each for each in ask_lags(counter.answers, visit.at) if each.is_late]
    return _show(
        visit,
        "operations.html",
        "Operations",
        "",
        shares=shares,
        median=median,
        spelled=figures.spelled,
        open_breaks=still.breaks.height,
        open_cents=int(still.breaks["value_cents"].abs().sum() or 0),
        report=report,
        late=late,
        weekly=[figures.weekly(title, names, by_week.measures) for title, names in figures.WEEKLY.items()],
        reliability=figures.reliability(counter.home),
    )


def _measures(counter: Counter, visit: Visit) -> Response:
    """All measures together, or one of them by place, way, category or week, the worst place to look at first."""
    by = visit.choice("by", ("all", *GRAINS))
    name = visit.choice("measure", [name for part in figures.MEASURES.values() for name in part])
    grain: By | None = None if by == "all" else by  # type: ignore[assignment]  # one of the same closed list
    found = measured(counter.home, grain)
    places = {code: place.name for code, place in counter.places().items()}
    return _show(
        visit,
        "operations_measures.html",
        "Measures",
        "/measures",
        by=by,
        name=name,
        choices=["all", *GRAINS],
        titles=figures.MEASURES,
        sections=figures.sections(found) if grain is None else [],
        one=figures.grouped(found, name, places) if grain is not None else None,
        left_out=found.left_out,
        version=found.table_version,
    )


def _breaks(counter: Counter, visit: Visit) -> Response:
    asked = _asked_breaks(counter, visit)
    found = breaks(
        counter.home, not asked["closed"], asked["type"] or None, asked["owner"] or None, asked["store"] or None
    )
    number = visit.whole("page", 0, 10_000)
    items, places = counter.items(), counter.places()
    rows = [
        {
            **row,
            "item": items[row["sku"]].name if row["sku"] in items else row["sku"],
            "place": places[row["location_code"]].name if row["location_code"] in places else row["location_code"],
        }
        for row in found.breaks.slice(number * MOST_BREAKS, MOST_BREAKS).to_dicts()
    ]
    query = urlencode({name: value for name, value in asked.items() if value})
    return _show(
        visit,
        "operations_breaks.html",
        "What differs",
        "/breaks",
        rows=rows,
        sums=found.sums.to_dicts(),
        count=found.breaks.height,
        number=number,
        pages=-(-found.breaks.height // MOST_BREAKS),
        asked=asked,
        query=query,
        kinds=_kinds(current(counter.home, "stock_breaks")),
        places=places,
    )


def _breaks_file(counter: Counter, visit: Visit) -> Response:
    asked = _asked_breaks(counter, visit)
    found = breaks(
        counter.home, not asked["closed"], asked["type"] or None, asked["owner"] or None, asked["store"] or None
    )
    return visit.download(as_csv(found.breaks.columns, found.breaks.rows()), "text/csv; charset=utf-8", "breaks.csv")


def _asked_breaks(counter: Counter, visit: Visit) -> dict[str, str]:
    types, owners = _kinds(current(counter.home, "stock_breaks"))
    return {
        "type": visit.choice("type", ("", *types)),
        "owner": visit.choice("owner", ("", *owners)),
        "closed": visit.choice("closed", ("", "yes")),
        "store": visit.choice("store", ("", *counter.places())),
    }


@lru_cache(maxsize=4)
def _kinds(path: Path) -> tuple[list[str], list[str]]:
    """Types and owners there are, of a published version, which never changes."""
    found = pl.read_parquet(path, columns=["break_type", "owner_role"])
    return found["break_type"].unique().sort().to_list(), found["owner_role"].unique().sort().to_list()


def _counts(counter: Counter, visit: Visit) -> Response:
    store = visit.choice("store", ("", *counter.places()))
    rows = _counted(counter, store)
    return _show(
        visit,
        "operations_counts.html",
        "Count list for tomorrow",
        "/counts",
        rows=rows,
        store=store,
        places=counter.places(),
        minutes=sum(row["minutes"] for row in rows),
        worth=sum(row["value_cents"] for row in rows),
        most=MOST_COUNTS,
        day=visit.at,
    )


def _counts_file(counter: Counter, visit: Visit) -> Response:
    store = visit.choice("store", ("", *counter.places()))
    columns = (
        "location_code", "place", "sku", "item", "books_units", "mean_units", "p_zero", "value_cents", "minutes", "reason", "counted_units",
    )  # fmt: skip
    rows = [[row.get(name) for name in columns] for row in _counted(counter, store)]
    return visit.download(as_csv(columns, rows), "text/csv; charset=utf-8", f"count-list{store and f'-{store}'}.csv")


def _counted(counter: Counter, store: str) -> list[dict[str, Any]]:
    items, places = counter.items(), counter.places()
    return [
        {
            **row,
            "item": items[row["sku"]].name if row["sku"] in items else row["sku"],
            "place": places[row["location_code"]].name if row["location_code"] in places else row["location_code"],
        }
        for row in counts_worth(counter.home, store or None, MOST_COUNTS).to_dicts()
    ]


def _freshness(counter: Counter, visit: Visit) -> Response:
    found = measured(counter.home)
    stale = [each for each in found.measures if each.measure_name.endswith("_staleness")]
    return _show(
        visit,
        "operations_freshness.html",
        "How fresh",
        "/freshness",
        lags=ask_lags(counter.answers, visit.at),
        sources=_by_statistic([each for each in stale if each.measure_name != "answer_staleness"]),
        answers=_by_statistic([each for each in stale if each.measure_name == "answer_staleness"]),
        drifts=[_drift(each) for each in drift.reports(counter.home)[:MOST_DRIFTS]],
    )


def _checks(counter: Counter, visit: Visit) -> Response:
    aside = set_aside(counter.home).to_dicts()
    for row in aside:
        row["source"] = row["table"].removeprefix("raw_").partition("__")[0]
    return _show(
        visit,
        "operations_checks.html",
        "Last run",
        "/checks",
        report=last_report(counter.home),
        waiting=unfinished(counter.home) or [],
        aside=aside,
        aside_rows=sum(row["rows"] for row in aside),
    )


def _show(visit: Visit, template: str, title: str, here: str, **values: Any) -> Response:
    parts = [(ROOT + PATH + path, name, path == here) for path, name in PARTS.items()]
    return visit.show(template, title, areas_of=parts, **values)


def as_csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """RFC 4180, in UTF-8 with a mark that spreadsheets know it by; no cell is taken for a formula."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows(["" if cell is None else protected(str(cell)) for cell in row] for row in rows)
    return file.getvalue().encode("utf-8-sig")


def _by_statistic(measures: Sequence[Measured]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for each in measures:
        name = each.measure_name.removesuffix("_staleness")
        group = (each.answer_type or "all").replace("_", " ") if name == "answer" else name
        row = rows.setdefault(group, {"group": group, "mean": None, "p50": None, "p90": None, "p95": None, "of": 0})
        row[each.statistic_type] = each.value
        row["of"] = each.denominator
    return list(rows.values())


def _drift(each: drift.DriftReport) -> dict[str, Any]:
    why = ", ".join(f"{count(rows)} {reason.replace('_', ' ')}" for reason, rows in each.counts.items())
    return {"at": each.healed_at, "drifted": each.drifted, "why": why or "–"}
