"""The one form of every benchmark: measures with their peer, conditions, goal; as JSON lines, a table and a plot.

`troth bench --list`, `troth bench NAME [--json] [--scale S] [--plot FILE]`. A benchmark is a module beside this one with
`SUMMARY` (a sentence) and `measure(scale) -> Iterator[Measure]`; one that needs a file of the user's takes `data` as well, one that
`DRAWS` its own figure takes `plot`.
"""

import importlib
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

NAMES = (
    "pipeline",
    "online_retail",
    "identity",
    "ledger_append",
    "ledger_bulk",
    "consent_gate",
    "withdrawal",
    "leaks",
    "tamper",
    "promise",
    "as_of",
    "snapshots",
    "availability",
    "holds",
    "near_time",
    "materialize",
    "feature_reads",
    "feature_http",
    "growth",
    "historical",
    "segments",
    "pages",
)


@dataclass(frozen=True)
class Measure:
    """One number: what, how much, what it should be, and what a peer or limit reached in the same run.

    `goal` is compared with the ratio value / peer_value where there is a peer, else with the value; `better` says which
    way. `met` is None where no goal is set.
    """

    name: str
    value: float
    unit: str
    better: Literal["lower", "higher"] = "lower"
    goal: float | None = None
    peer: str | None = None
    peer_value: float | None = None
    conditions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        return self.value / self.peer_value if self.peer_value else None

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        reached = self.ratio if self.ratio is not None else self.value
        return reached <= self.goal if self.better == "lower" else reached >= self.goal

    def line(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "met": self.met}


def conditions(**more: Any) -> dict[str, Any]:
    """What every measure states: machine size, Python, versions of the engines; and what the benchmark adds."""
    engines = {name: version(name) for name in ("duckdb", "polars", "dbt-core", "dbt-duckdb", "dagster")}
    return {"cores": os.cpu_count(), "python": platform.python_version(), **engines, **more}


def main(
    name: str | None, list_all: bool, as_json: bool, scale: str | None, plot: Path | None, data: Path | None = None
) -> int:
    """Run one benchmark and print its measures. Exit code 0 when every goal set was met, 1 when one was missed, 2 for misuse."""
    if list_all or name is None:
        for each in NAMES:
            print(f"{each:<12} {importlib.import_module(f'benchmarks.{each}').SUMMARY}")
        return 0
    if name not in NAMES:
        print(
            f"benchmark: expected one of {', '.join(NAMES)}, found {name}. See `troth bench --list`.", file=sys.stderr
        )
        return 2
    measures: list[Measure] = []
    module = importlib.import_module(f"benchmarks.{name}")
    draws = plot is not None and getattr(module, "DRAWS", False)
    given = ({"data": data} if data else {}) | ({"plot": plot} if draws else {})
    for measure in module.measure(scale, **given):
        measures.append(measure)
        if as_json:
            print(json.dumps(measure.line()), flush=True)
    if not as_json:
        _print(measures)
    if plot and not draws:
        _plot(measures, plot)
    return int(any(measure.met is False for measure in measures))


def _print(measures: Sequence[Measure]) -> None:
    from rich.table import Table

    from orchestration.printing import console

    table = Table("measure", "value", "unit", "peer", "peer value", "ratio", "goal", "met", header_style="dim")
    for m in measures:
        sign = "<=" if m.better == "lower" else ">="
        table.add_row(
            m.name, _short(m.value), m.unit, m.peer or "", _short(m.peer_value) if m.peer_value else "",
            f"{m.ratio:.2f}" if m.ratio else "", f"{sign} {m.goal:g}" if m.goal is not None else "",
            {True: "yes", False: "NO", None: ""}[m.met],
        )  # fmt: skip
    out = console()
    out.print(table)
    if measures:
        out.print(f"[dim]{json.dumps(dict(measures[0].conditions))}[/]", highlight=False)


def _short(value: float) -> str:
    """Three digits of a small number, every whole one of a large number."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _plot(measures: Sequence[Measure], path: Path) -> None:
    """Bars of the measures that have a peer, each beside it on a scale of its own, for their units differ; the goal as a line."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    shown = [m for m in measures if m.peer_value] or list(measures)
    figure, rows = plt.subplots(len(shown), figsize=(8, 1 + 1.1 * len(shown)), layout="constrained", squeeze=False)
    for axes, m in zip(rows[:, 0], shown, strict=True):
        sides = {"Troth": m.value} | ({"peer": m.peer_value} if m.peer_value else {})
        bars = axes.barh(list(sides), list(sides.values()), color=["tab:blue", "tab:gray"][: len(sides)])
        axes.bar_label(bars, [f"{_short(value)} {m.unit}" for value in sides.values()], padding=3)
        if m.goal is not None:
            axes.axvline(m.goal * (m.peer_value or 1), color="tab:red", linestyle="--", label=f"goal {m.goal:g}")
            axes.legend(loc="lower right")
        axes.set_title(f"{m.name}, beside {m.peer}" if m.peer else m.name, loc="left", fontsize="medium")
        axes.margins(x=0.25)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    plt.close(figure)
