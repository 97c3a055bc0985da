"""`troth stock measures`: how well promises, stock and hands did, as a table or a plot. Parses and prints; read in `serving/measures.py`."""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from orchestration.options import HomeOption, JsonOption
from troth.settings import here

if TYPE_CHECKING:
    from serving.measures import By, Measured, Measures

_MOST_DRAWN = 12  # groups in a plot; more cannot be told apart
_FIELDS_A_ROW = 3


def stock_measures(
    by: Annotated[str | None, typer.Option(help="location, method, route (both), category or week; overall when left out.")] = None,
    since: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="From the week on in which this day is.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the shares into this file, such as measures.png.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Promise kept, oversell, nil picks, fill, perfect orders, times, record accuracy, staleness and what keeping back costs."""
    from orchestration.measuring import refuse_without_matplotlib
    from orchestration.printing import show
    from serving.measures import measured

    if plot is not None:
        refuse_without_matplotlib()
    found = measured(here(home).home, cast("By | None", by), since.date() if since else None)
    if plot is not None:
        draw(found, plot)
    if as_json:
        sys.exit(show(found, True))
    told: dict[str, Any] = {"measures": for_people(found.measures)}
    show(told | ({"left_out": found.left_out} if found.left_out else {}), False)


def for_people(measures: Sequence["Measured"]) -> list[dict[str, Any]]:
    """One row a measure and group: shares in percent, times as people say them, percentiles beside the mean."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for each in measures:
        group = _group(each)
        row = rows.setdefault((*group.values(), each.measure_name), {**group, "measure": each.measure_name})
        value = "value" if each.statistic_type in ("share", "mean") else each.statistic_type
        row[value] = spoken(each.value, each.unit_type)
        row["of"] = each.denominator
    columns = list(dict.fromkeys(column for row in rows.values() for column in row if column != "of"))
    return [{column: row.get(column) for column in (*columns, "of")} for row in rows.values()]


def spoken(value: float, unit: str) -> str:
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit == "cents":
        return f"{value / 100:,.2f}"
    size, name = next(
        ((size, name) for size, name in ((86400, "d"), (3600, "h"), (60, "min")) if value >= size), (1, "s")
    )
    return f"{value / size:.1f} {name}"


def draw(found: "Measures", path: Path) -> None:
    """A field for each share, on a scale of its own: by week as lines, else as bars, those of most cases where there are too many."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import PercentFormatter

    fields_of: dict[str, list[Measured]] = {}
    for each in found.measures:
        if each.statistic_type == "share":
            fields_of.setdefault(each.measure_name, []).append(each)
    rows = -(-max(1, len(fields_of)) // _FIELDS_A_ROW)
    figure, fields = plt.subplots(rows, _FIELDS_A_ROW, figsize=(12, 1 + 2 * rows), squeeze=False, layout="constrained")
    for axes in fields.flat[len(fields_of) :]:
        axes.set_visible(False)
    for axes, (name, mine) in zip(fields.flat, fields_of.items(), strict=False):
        if found.by == "week":
            mine.sort(key=lambda each: str(each.period_start))
            axes.plot([str(each.period_start) for each in mine], [each.value for each in mine], marker="o")
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        else:
            mine.sort(key=lambda each: -each.denominator)
            shown = mine[:_MOST_DRAWN]
            bars = axes.barh(
                [" ".join(_group(each).values()) or "all" for each in shown], [each.value for each in shown]
            )
            labels = [f"{spoken(each.value, 'share')} of {each.denominator}" for each in shown]
            axes.bar_label(bars, labels, fontsize="x-small", padding=2)
            axes.xaxis.set_major_formatter(PercentFormatter(1.0))
            axes.invert_yaxis()
            axes.margins(x=0.5)
        axes.set_title(name, loc="left", fontsize="medium")
        axes.tick_params(labelsize="x-small")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    plt.close(figure)


def _group(each: "Measured") -> Mapping[str, str]:
    named = {
        "week": each.period_start, "location": each.location_code, "method": each.fulfillment_method, "category": each.category_name,
        "answer": each.answer_type,
    }  # fmt: skip
    return {name: str(value) for name, value in named.items() if value is not None}
