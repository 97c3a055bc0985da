"""Opt-in rates and how soon a no is heard, of a home: its ledger, and what its consumers left as evidence of when they acted.

What is counted, and how, belongs to `consent.measures`; here it is gathered, for the command line and the pages alike.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from consent.ledger.ledger import Ledger
from consent.ledger.opening import has_ledger, ledger_size, open_ledger
from consent.measures import DELIVERIES_SCHEMA, LEAST_PEOPLE, USES_SCHEMA, Measured, measure, propagation
from consent.receipts.decisions import load
from consent.receipts.uses import LINKS, folder_of
from consent.rule.policy import read_policy
from models.permission import identities
from serving.errors import ServingError
from serving.hub.webhooks import MOST_DELIVERIES, OUTBOX_FILE, Outbox
from serving.records.shapes import Measures
from troth.clock import FixedClock
from troth.errors import TrothError
from troth.home import Home, files_below
from troth.published import current

BY = ("purpose_code", "channel_code")
# To count a hundred thousand events takes seconds: an answer is kept in this process while nothing new was said, used or told, for an hour.
_KEPT: dict[tuple[object, ...], Measures] = {}
_MOST_KEPT = 16


@dataclass(frozen=True)
class Gathered:
    """What a home's ledger measures at a time. `heard_after`: as `consent.measures.propagation` gives it."""

    measured: Measured
    heard_after: pl.DataFrame
    ledger_size: int


def measures(home: Home, at: datetime, by: Sequence[str] = BY, least: int = LEAST_PEOPLE) -> Measures:
    """Rates of yes by purpose, channel, notice or place (`consent.measures.DIMENSIONS`), now and by week; and time to propagate.

    Numbers of fewer than `least` people, or that would give such a number away, are None. Raises: ServingError without a ledger;
    ConsentError where anything does not add up, with both numbers.
    """
    if not has_ledger(home):
        raise _no_ledger()
    outbox = home.root / OUTBOX_FILE
    known = (
        str(home.root), ledger_size(home), len(list(folder_of(home).glob("*.note"))),
        outbox.stat().st_mtime_ns if outbox.exists() else 0, at.replace(minute=0, second=0, microsecond=0), tuple(by), least,
    )  # fmt: skip
    if (found := _KEPT.get(known)) is not None:
        return found
    gathered = gather(home, at)
    answer = Measures(
        at=at,
        ledger_size=gathered.ledger_size,
        least_people=least,
        rates=gathered.measured.rates(by, least).to_dicts(),
        weekly=gathered.measured.weekly(by, least).to_dicts(),
        heard_after=gathered.heard_after.to_dicts(),
    )
    while len(_KEPT) >= _MOST_KEPT:
        _KEPT.pop(next(iter(_KEPT)), None)
    _KEPT[known] = answer
    return answer


def gather(home: Home, at: datetime, known_at: datetime | None = None) -> Gathered:
    """Everything that is measured, reconciled to the ledger leaf by leaf. Raises: ServingError without a ledger; ConsentError."""
    if not has_ledger(home):
        raise _no_ledger()
    policy = read_policy()
    with open_ledger(home, FixedClock(at)) as ledger:
        size = ledger.size
        events, signed = ledger.frame(size), _signed(ledger)
        destroyed = _destroyed(ledger, events, size)
        uses, deliveries = _uses(home, ledger), _deliveries(home)
    return Gathered(
        measured=measure(events, policy, at, size, destroyed, known_at, _links(home)),
        heard_after=propagation(events, policy, signed, uses, deliveries),
        ledger_size=size,
    )


def _no_ledger() -> ServingError:
    return ServingError("measures: expected a ledger in the home, found none. Run `troth run` first.")


def _destroyed(ledger: Ledger, events: pl.DataFrame, size: int) -> int:
    """Leaves that cannot be opened, each of them tried: they are not told by what is missing."""
    missing = np.setdiff1d(np.arange(size), events["leaf_index"].to_numpy())
    return sum(ledger.opened(int(leaf)) is None for leaf in missing)


def _signed(ledger: Ledger) -> pl.DataFrame:
    rows = [(each.size, datetime.fromisoformat(each.signed_at)) for each in ledger.signed_sizes()]
    return pl.DataFrame(rows, schema={"size": pl.Int64, "signed_at": pl.Datetime("us", "UTC")}, orient="row")


def _links(home: Home) -> pl.DataFrame | None:
    """Whose identities are whose, where tables were published."""
    try:
        return identities(current(home, LINKS))
    except TrothError:
        return None


def _uses(home: Home, ledger: Ledger) -> pl.DataFrame:
    """Recorded decisions, and exports from before decisions were recorded."""
    rows = [*_recorded_uses(home, ledger), *_exports(home)]
    return pl.DataFrame(rows, schema=USES_SCHEMA, orient="row")


def _recorded_uses(home: Home, ledger: Ledger) -> Iterator[tuple[str, str, int, datetime]]:
    for path in sorted(folder_of(home).glob("*.note")):
        found = load(path.parent, int(path.stem), ledger.verifier)
        yield (
            f"{found.use.use} {found.use.asked_by}",
            found.use.question.purpose_code,
            found.size,
            datetime.fromisoformat(found.decided_at),
        )


def _exports(home: Home) -> Iterator[tuple[str, str, int, datetime]]:
    for path in sorted(files_below(home.exports, "manifest.json")):
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


def _deliveries(home: Home) -> pl.DataFrame:
    """What webhooks were told and acknowledged; what was not, is not yet heard."""
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
