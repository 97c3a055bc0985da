"""The numbers of `troth consent measures`, as a terminal and a plot show them. What is counted is in `serving/records/measures.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.auditing import reading, seconds
from orchestration.errors import MISUSE, RunError
from troth.home import Home

if TYPE_CHECKING:
    from consent.measures import Measured

NAMES = {
    "purpose": "purpose_code",
    "channel": "channel_code",
    "notice": "notice_id",
    "version": "notice_version",
    "place": "capture_place",
}
CONTROL_IS = "not suppressed, so it tells of single people: for auditors only"
_WEEKS_DRAWN = 5  # lines; more cannot be told apart


@dataclass(frozen=True)
class Asked:
    """What is to be measured: by which dimensions (`NAMES`), when, as known when, and from how many people on it is shown.

    `has_control`: also the control table, whose numbers are not suppressed, and which would give away what the rates hide.
    """

    by: Sequence[str]
    at: datetime
    known_at: datetime | None
    least: int
    is_weekly: bool
    has_control: bool = False


def measures(home: Home, asked: Asked, plot: Path | None) -> dict[str, Any]:
    """Opt-in rates, reconciled to the ledger, and how long each consumer took to hear a no.

    Raises: ConsentError where anything does not add up, with both numbers.
    """
    from serving.records.measures import gather

    if plot is not None:
        refuse_without_matplotlib()
    odd = [name for name in asked.by if name not in NAMES]
    if odd or len({*asked.by}) < len(asked.by):
        raise RunError(f"--by: expected some of {', '.join(NAMES)}, each once, found another. Correct it.", MISUSE)
    by = [NAMES[name] for name in asked.by]
    with reading(home):  # refuses with the code of what cannot be read
        gathered = gather(home, asked.at, asked.known_at)
    found = gathered.measured
    rates = found.rates(by, asked.least)
    answer: dict[str, Any] = {
        "at": seconds(asked.at),
        "known_at": seconds(asked.known_at),
        "ledger_size": gathered.ledger_size,
        "least_people": asked.least,
        "rates": rates.to_dicts(),
        "control_sum": int(found.control["leaves"].sum()),
        "heard_after": gathered.heard_after.to_dicts(),
    }
    if asked.has_control:
        answer |= {"answers": found.answers.height, "control": found.control.to_dicts(), "control_is": CONTROL_IS}
    if asked.is_weekly:
        weekly = found.weekly(by, asked.least)
        answer["weekly"] = weekly.to_dicts()
    if plot is not None:
        draw(found, by, asked.least, plot)
        answer["plot"] = str(plot)
    return answer


def for_people(answer: dict[str, Any]) -> dict[str, Any]:
    """The same for a terminal: short names of columns, and none in which there is nothing but noughts."""
    short = {long: name for name, long in NAMES.items()}
    tables = {name: rows for name, rows in answer.items() if name in ("rates", "weekly")}
    for name, rows in tables.items():
        told = [column for column in (rows[0] if rows else ()) if any(row[column] not in (0, None) for row in rows)]
        tables[name] = [{short.get(column, column): row[column] for column in told} for row in rows]
    blank = f"fewer than {answer['least_people']} people, or what would give such a number away"
    return {**answer, **tables, "a_blank_is": blank}


def draw(found: "Measured", by: Sequence[str], least: int, path: Path) -> None:
    """Rates with their intervals, and below the weeks of the cells asked most."""
    import matplotlib as mpl
    import polars as pl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rates = found.rates(by, least).filter(~pl.col("is_total"), pl.col("rate").is_not_null()).sort("rate")
    label = pl.concat_str(pl.col(by).cast(pl.String), separator=" · ", ignore_nulls=True).alias("label")
    rates, weekly = rates.with_columns(label), found.weekly(by, least).with_columns(label)
    most = rates.sort("asked", descending=True).head(_WEEKS_DRAWN)["label"]
    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 4 + 0.3 * rates.height), layout="constrained")
    spread = [(rates["rate"] - rates["rate_low"]).to_list(), (rates["rate_high"] - rates["rate"]).to_list()]
    above.errorbar(rates["rate"], rates["label"], xerr=spread, fmt="o", color="black", capsize=3)
    above.set(xlim=(0, 1), xlabel="said yes, of those asked (95 % interval)")
    for name in most:
        mine = weekly.filter(pl.col("label") == name, pl.col("rate").is_not_null())
        below.plot(mine["week"], mine["rate"], label=name)
    below.set(ylim=(0, 1), ylabel="said yes, by week asked")
    if len(most):
        below.legend(fontsize="small", ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    figure.savefig(path)
    plt.close(figure)


def refuse_without_matplotlib() -> None:
    """Raises: RunError where a plot was asked for and nothing is there to draw it."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise RunError("--plot: expected matplotlib, found none. Install the development dependencies.", 1)
