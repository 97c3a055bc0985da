"""The books of stock: `troth stock breaks` and `troth stock rebuild`, and `troth ask stock`: what was on hand, as known when.

Parses and prints; what is done is in `models/stock/`.
"""

import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from orchestration.options import HomeOption, JsonOption
from troth.settings import here

_SHOWN = (
    "break_type",
    "location_code",
    "sku",
    "units",
    "value_cents",
    "age_days",
    "is_open",
    "owner_role",
    "opened_at",
    "closed_at",
)


def stock_breaks(
    break_type: Annotated[str | None, typer.Option("--type", help="One type of break.")] = None,
    owner: Annotated[str | None, typer.Option(help="Those one role looks into.")] = None,
    closed: Annotated[bool, typer.Option("--closed", help="Those that ended, instead of those that are open.")] = False,
    limit: Annotated[int, typer.Option(help="How many to show, dearest first.", min=0)] = 20,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Where sources, counts and plain sense differ from what is believed: by cause, age, cost and owner."""
    from models.stock.reconciling import breaks

    found = breaks(here(home).home, not closed, break_type, owner)
    shown = found.breaks.head(limit)
    rows = (
        shown if as_json else shown.select(*(name for name in _SHOWN if closed or name not in ("is_open", "closed_at")))
    )
    _show({"count": found.breaks.height, "by_type": found.sums.to_dicts(), "breaks": rows.to_dicts()}, as_json)


def stock_rebuild(
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without this it only says what differs.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count every position again from its movements. A dry run unless --yes; exit code 1 when a counter was wrong and stays so."""
    from models.stock import reconciling

    at_home = here(home).home
    apart = reconciling.differences(at_home)
    answer = {"is_dry_run": not yes, "wrong": apart.height, "counters": apart.to_dicts()}
    if yes:
        answer["rebuilt"] = reconciling.rebuild(at_home)
    _show({**answer, "is_verified": yes or not apart.height}, as_json)


def ask_stock(
    sku: Annotated[str, typer.Argument(help="Item.")],
    location: Annotated[str, typer.Argument(help="Location, such as S001.")],
    at: Annotated[datetime | None, typer.Option("--at", help="When it was on hand, UTC; now when left out.")] = None,
    known: Annotated[
        datetime | None, typer.Option("--known", help="As it was known when, UTC; now when left out.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What was on hand at one time, as it was known at another."""
    from models.stock.history import stock_as_of
    from troth.clock import SystemClock

    now = SystemClock().now()
    valid_at, known_at = (now if moment is None else moment.replace(tzinfo=UTC) for moment in (at, known))
    _show(stock_as_of(here(home).home, location, sku, valid_at, known_at), as_json)


def _show(answer: Any, as_json: bool) -> None:
    from orchestration.printing import show

    sys.exit(show(answer, as_json))
