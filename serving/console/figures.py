"""Measures as the pages of operations show them: in words, in tables and in charts, the numbers always behind. Measured elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from models.stock.belief.model import in_use
from serving.console import charts
from serving.console.charts import Line
from serving.console.pages import age, money, percent
from serving.measures import Measured, Measures
from troth.errors import TrothError
from troth.home import Home

MOST_BARS = 15
MEASURES = {
    "Promises": {
        "promise_kept": "Promise kept: in time, and every piece",
        "on_time": "In time, short or not",
        "perfect_order": "Perfect: kept, undamaged, papers right",
        "order_fill": "Orders served in full",
        "line_fill": "Lines served in full",
        "unit_fill": "Pieces served",
        "oversold_orders": "Orders with a piece oversold",
        "oversold_units": "Pieces oversold",
        "order_accuracy": "Warehouse and shop agree on what left",
        "undamaged": "Nothing lost or damaged",
        "right_papers": "Money agrees",
    },
    "Times": {
        "pick_time": "From begin to end of a pick",
        "time_to_ready": "From the order until ready at the store",
        "delivery_time": "From the order until delivered",
    },
    "Picks and records": {
        "nil_pick": "Picks that found nothing",
        "short_pick": "Picks that found too little",
        "phantom_pick": "Found too little though the books had enough",
        "record_exact": "Counts that found what was recorded",
        "record_within_tolerance": "Counts that nearly did",
        "record_sign": "Counts right on whether there is any",
    },
    "What keeping back costs": {
        "shut_by_protection": "Positions where nothing is left to promise",
        "withheld_margin": "Margin kept back, a position",
        "overprotection_cost": "Margin kept back too much, a position",
    },
    "How old": {"answer_staleness": "Stock that answers rested on"},
}
WEEKLY = {
    "Promises by week, %": ("promise_kept", "on_time", "unit_fill"),
    "What was not there, by week, %": ("oversold_orders", "nil_pick", "phantom_pick"),
}
SHORT = {
    "promise_kept": "Promise kept",
    "on_time": "In time",
    "unit_fill": "Pieces served",
    "oversold_orders": "Orders oversold",
    "nil_pick": "Nil picks",
    "phantom_pick": "Phantom picks",
}


def spelled(value: float | None, unit: str) -> str:
    """A figure in its unit, as people read it."""
    if value is None:
        return "–"
    return percent(value) if unit == "share" else money(value) if unit == "cents" else age(value)


def sections(found: Measures) -> list[dict[str, Any]]:
    """All measures in tables: a row a measure, its figure, percentiles where there are any, and of how many."""
    known: dict[str, list[Measured]] = {}
    for each in found.measures:
        known.setdefault(each.measure_name, []).append(each)
    told = []
    for title, measures in MEASURES.items():
        rows = [row for name, meaning in measures.items() for row in _rows(known.get(name, []), meaning, {})]
        if rows:
            told.append({"title": title, "rows": rows, "has_percentiles": any(row["p50"] for row in rows)})
    return told


def grouped(found: Measures, name: str, places: Mapping[str, str]) -> dict[str, Any]:
    """One measure by whatever it was asked by: rows in the order of what is most in number, weeks in their own, and a chart."""
    mine = [each for each in found.measures if each.measure_name == name]
    title = next(part[name] for part in MEASURES.values() if name in part)
    rows = _rows(mine, title, places)
    main = [each for each in mine if each.statistic_type in ("share", "mean")]
    chart = None
    if main and found.by == "week":
        weeks = sorted(main, key=lambda each: str(each.period_start))
        labels = [str(each.period_start)[5:] for each in weeks]
        chart = charts.lines(f"{title}, {_unit(weeks[0])}", labels, [Line(title, [_scaled(each) for each in weeks])])
    elif main:
        most = sorted(main, key=lambda each: -each.denominator)[:MOST_BARS]
        unit = f"{title}, {_unit(most[0])}"
        chart = charts.bars(unit, [charts.Bar(group_of(each, places), _scaled(each)) for each in most])
    if found.by != "week":
        rows.sort(key=lambda row: (-row["of"], row["group"]))
    return {"title": title, "rows": rows, "chart": chart, "has_percentiles": any(row["p50"] for row in rows)}


def _unit(each: Measured) -> str:
    return {"share": "%", "cents": "in money", "seconds": "hours"}[each.unit_type]


def _scaled(each: Measured) -> float:
    return each.value * {"share": 100.0, "cents": 0.01, "seconds": 1 / 3600}[each.unit_type]


def _rows(measures: Sequence[Measured], meaning: str, names: Mapping[str, str]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for each in measures:
        group = group_of(each, names)
        row = rows.setdefault(
            group, {"measure": meaning, "group": group, "value": None, "p50": None, "p90": None, "p95": None, "of": 0}
        )
        name = "value" if each.statistic_type in ("share", "mean") else each.statistic_type
        row[name] = spelled(each.value, each.unit_type)
        row["of"] = each.denominator
    return list(rows.values())


def group_of(each: Measured, names: Mapping[str, str]) -> str:
    """What a figure is of, where it is not of all."""
    place = names.get(each.location_code or "", each.location_code)
    way = each.fulfillment_method and each.fulfillment_method.replace("_", " ")
    kind = each.answer_type and each.answer_type.replace("_", " ")
    parts = (each.period_start and str(each.period_start), place, way, each.category_name, kind)
    return ", ".join(part for part in parts if part)


def weekly(title: str, names: Sequence[str], measures: Sequence[Measured]) -> dict[str, Any]:
    """A chart of shares by week, and the rows behind it."""
    values = {
        (each.measure_name, str(each.period_start)): each
        for each in measures
        if each.statistic_type == "share" and each.measure_name in names
    }
    weeks = sorted({week for _, week in values})
    lines = [
        Line(SHORT[name], [100 * found.value if (found := values.get((name, week))) else None for week in weeks])
        for name in names
    ]
    columns = [("week", "Week of", "text", None), *((name, SHORT[name], "number", "percent") for name in names)]
    rows = [
        {"week": week, **{name: found.value if (found := values.get((name, week))) else None for name in names}}
        for week in weeks
    ]
    return {
        "title": title,
        "chart": charts.lines(title, [week[5:] for week in weeks], lines) if weeks else None,
        "columns": columns,
        "rows": rows,
    }


def reliability(home: Home) -> dict[str, Any] | None:
    """How often goods were found that were believed to be there, by how sure we were; None before a model is in use."""
    try:
        model = in_use(home)
    except TrothError:
        return None
    rows = model.reliability.filter(pl.col("group") == "all").sort("bin_from").to_dicts()
    if not rows:
        return None
    title = "How often a piece was found, by how sure we were, %"
    labels = [f"{100 * row['bin_from']:.0f} to {100 * row['bin_to']:.0f}" for row in rows]
    found = Line(
        "Found, with its interval", *([100 * row[name] for row in rows] for name in ("observed", "lower", "upper"))
    )
    believed = Line("Believed", [100 * row["mean_predicted"] for row in rows])
    return {
        "title": title,
        "chart": charts.lines(title, labels, [found, believed]),
        "rows": [{**row, "sure": f"{label} %"} for row, label in zip(rows, labels, strict=True)],
        "picks": sum(row["picks"] for row in rows),
        "error": model.diagnostics.get("calibration_error"),
        "version": model.version,
    }
