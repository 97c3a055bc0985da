"""The numbers of `troth consent measures`: the home's ledger, and what its consumers left as evidence of when they acted."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.auditing import reading, seconds
from orchestration.errors import MISUSE, RunError
from troth.errors import TrothError
from troth.home import Home

if TYPE_CHECKING:
    import polars as pl

    from consent.ledger.ledger import Ledger
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
    from consent.measures import measure, propagation
    from consent.rule.policy import read_policy

    if plot is not None:
        refuse_without_matplotlib()
    odd = [name for name in asked.by if name not in NAMES]
    if odd or len({*asked.by}) < len(asked.by):
        raise RunError(f"--by: expected some of {', '.join(NAMES)}, each once, found another. Correct it.", MISUSE)
    by, policy = [NAMES[name] for name in asked.by], read_policy()
    with reading(home) as ledger:
        size = ledger.size
        events, signed = ledger.frame(size), _signed(ledger)
        destroyed = _destroyed(ledger, events, size)
        uses, deliveries = _uses(home, ledger), _deliveries(home)
    found = measure(events, policy, asked.at, size, destroyed, asked.known_at, _links(home))
    rates = found.rates(by, asked.least)
    answer: dict[str, Any] = {
        "at": seconds(asked.at),
        "known_at": seconds(asked.known_at),
        "ledger_size": size,
        "least_people": asked.least,
        "rates": rates.to_dicts(),
        "control_sum": int(found.control["leaves"].sum()),
        "heard_after": propagation(events, policy, signed, uses, deliveries).to_dicts(),
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


def _destroyed(ledger: "Ledger", events: "pl.DataFrame", size: int) -> int:
    """Leaves that cannot be opened, each of them tried: they are not told by what is missing."""
    import numpy as np

    missing = np.setdiff1d(np.arange(size), events["leaf_index"].to_numpy())
    return sum(ledger.opened(int(leaf)) is None for leaf in missing)


def _signed(ledger: "Ledger") -> "pl.DataFrame":
    import polars as pl

    rows = [(each.size, datetime.fromisoformat(each.signed_at)) for each in ledger.signed_sizes()]
    return pl.DataFrame(rows, schema={"size": pl.Int64, "signed_at": pl.Datetime("us", "UTC")}, orient="row")


def _links(home: Home) -> "pl.DataFrame | None":
    """Whose identities are whose, where tables were published."""
    from models.permission import LINKS, identities
    from troth.published import current

    try:
        return identities(current(home, LINKS))
    except TrothError:
        return None


def _uses(home: Home, ledger: "Ledger") -> "pl.DataFrame":
    """Recorded decisions, and exports from before decisions were recorded."""
    import polars as pl

    from consent.measures import USES_SCHEMA

    rows = [*_recorded_uses(home, ledger), *_exports(home)]
    return pl.DataFrame(rows, schema=USES_SCHEMA, orient="row")


def _recorded_uses(home: Home, ledger: "Ledger") -> Iterator[tuple[str, str, int, datetime]]:
    from consent.receipts.decisions import load
    from models.decisions import folder_of

    for path in sorted(folder_of(home).glob("*.note")):
        found = load(path.parent, int(path.stem), ledger.verifier)
        yield (
            f"{found.use.use} {found.use.asked_by}",
            found.use.question.purpose_code,
            found.size,
            datetime.fromisoformat(found.decided_at),
        )


def _exports(home: Home) -> Iterator[tuple[str, str, int, datetime]]:
    for path in sorted(home.exports.rglob("manifest.json")):
        try:
            told = json.loads(path.read_bytes())
            if "segment" in told and "decision" not in told:
                yield (
                    f"export segment:{told['segment']['name']}",
                    told["segment"]["purpose"],
                    told["consent"]["ledger_size"],
                    datetime.fromisoformat(told["exported_at"]),
                )
        except (ValueError, TypeError, KeyError) as fault:
            raise TrothError(
                f"{path.name}: expected the manifest of a segment export, found {type(fault).__name__}. Restore it."
            ) from None


def _deliveries(home: Home) -> "pl.DataFrame":
    """What webhooks were told and acknowledged; what was not, is not yet heard."""
    import polars as pl

    from consent.measures import DELIVERIES_SCHEMA
    from serving.hub.webhooks import MOST_DELIVERIES, OUTBOX_FILE, Outbox

    rows: list[tuple[str, int, datetime | None]] = []
    if (home.root / OUTBOX_FILE).exists():
        outbox = Outbox(home)
        try:
            for destination in outbox.destinations():
                last = 0
                while some := outbox.deliveries(destination.destination_id, None, last, MOST_DELIVERIES):
                    last = some[-1].delivery_id
                    rows += [
                        (
                            f"webhook {destination.name}",
                            each.leaf_index,
                            each.last_attempt_at if each.state == "delivered" else None,
                        )
                        for each in some
                    ]
        finally:
            outbox.close()
    return pl.DataFrame(rows, schema=DELIVERIES_SCHEMA, orient="row")
