"""What can be promised beyond here and now: to a channel, for a later time, by a group of locations. One definition, `models/stock/atp.py`, over live parts.

What is there now is the board's; what comes and what is scheduled, what is protected for whom, and who belongs to a group, are the
warehouse's, as published last. Importing this is cheap.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from serving import answers
from serving.answers import Availability, Desk
from serving.errors import ServingError

if TYPE_CHECKING:
    import polars as pl

    from models.stock.atp import Dated


class NoSuchGroupError(ServingError):
    """A group of locations that nobody formed."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Pieces that come (positive) or are scheduled to go (negative) at a time."""

    at: datetime
    units: int


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A location's part of an answer. `free_units`: before the floor of nothing, now; null where it has no record of the item.

    `protected_units`: kept back for other channels than the one that asks. `changes`: what is dated, in order.
    """

    location_code: str
    available_units: int
    free_units: int | None
    protected_units: int
    changes: list[Change]
    as_of_at: datetime | None
    age_seconds: float | None


class Promisable(msgspec.Struct, frozen=True, kw_only=True):
    """What may be promised of an item to a channel for a time: the sum of what each place can, so that none makes another's shortage good."""

    sku: str
    channel_type: str | None
    wanted_at: datetime
    group_code: str | None
    available_units: int
    places: list[Place]
    answered_at: datetime


def ask_promisable(
    at_desk: Desk, sku: str, location_codes: Sequence[str], at: datetime, channel_type: str | None = None, wanted_at: datetime | None = None,
    group_code: str | None = None,
) -> Promisable:  # fmt: skip
    """What may be promised at locations, to a channel (None: what none has a claim on), for a time (None: now).

    Raises: TrothError when the tables were never published.
    """
    from models.stock.atp import available_at

    wanted = max(at, wanted_at or at)
    now = answers.ask_availabilities(at_desk, [(sku, code) for code in location_codes], at)
    own = _own(at_desk, sku, channel_type)
    dated = _dated(at_desk, sku, at)
    places = []
    for each in now:
        changes, free = dated.get(each.location_code, []), _free(each, own.get(each.location_code, 0))
        units = 0
        if free is not None:
            # Scheduled demand that supply does not cover is committed already; here it is dated.
            units = available_at(free + _uncovered(changes), changes, wanted)
        places.append(
            Place(
                location_code=each.location_code, available_units=units, free_units=free,
                protected_units=max(0, (each.protected_units or 0) - own.get(each.location_code, 0)),
                changes=[Change(at=change.at, units=change.units) for change in changes], as_of_at=each.as_of_at, age_seconds=each.age_seconds,
            )
        )  # fmt: skip
    return Promisable(
        sku=sku, channel_type=channel_type, wanted_at=wanted, group_code=group_code, available_units=sum(place.available_units for place in places),
        places=places, answered_at=at,
    )  # fmt: skip


def locations_of(at_desk: Desk, group_code: str) -> list[str]:
    """Locations of a group of `location_groups`. Raises: NoSuchGroupError; TrothError when it was never published."""
    import polars as pl

    groups = _table(at_desk, "location_groups").filter(pl.col("group_code") == group_code).collect()
    if not groups.height:
        raise NoSuchGroupError(
            "group: expected one such as all, type/store or region/US-CA, found another. Choose one."
        )
    return sorted(groups["location_code"])


def _free(now: Availability, own_units: int) -> int | None:
    if now.on_hand_units is None:
        return None
    others = (
        now.damaged_units,
        now.quality_control_units,
        now.committed_units,
        now.held_units,
        now.safety_units,
        now.protected_units,
    )
    return now.on_hand_units - sum(each or 0 for each in others) + own_units


def _own(at_desk: Desk, sku: str, channel_type: str | None) -> dict[str, int]:
    """What is protected for the channel itself, by location."""
    import polars as pl

    if channel_type is None:
        return {}
    states = _table(at_desk, "stock_states").filter(
        pl.col("sku") == sku, pl.col("state_type") == "protected", pl.col("channel_type") == channel_type
    )
    return dict(states.select("location_code", "units").collect().iter_rows())


def _dated(at_desk: Desk, sku: str, at: datetime) -> dict[str, list["Dated"]]:
    """Supply on its way and demand that is scheduled, by location, in order of time; what is overdue is no supply."""
    import polars as pl

    from models.stock.atp import Dated

    mine = pl.col("sku") == sku
    coming = _table(at_desk, "stock_supplies").filter(mine, ~pl.col("is_overdue"))
    going = _table(at_desk, "stock_demands").filter(mine, pl.col("demand_type") == "scheduled")
    moments = pl.concat(
        [
            coming.select("location_code", at="expected_at", units=pl.col("units").cast(pl.Int64)),
            going.select("location_code", at="due_at", units=-pl.col("units").cast(pl.Int64)),
        ]
    ).collect()
    found: dict[str, list[Dated]] = {}
    for location_code, moment, units in moments.sort("at", "units", descending=[False, True]).iter_rows():
        found.setdefault(location_code, []).append(Dated(max(moment.replace(tzinfo=UTC), at), units))
    return found


def _uncovered(changes: Sequence["Dated"]) -> int:
    running = lowest = 0
    for change in changes:
        running += change.units
        lowest = min(lowest, running)
    return -lowest


def _table(at_desk: Desk, name: str) -> "pl.LazyFrame":
    import polars as pl

    from troth.published import current

    return pl.scan_parquet(current(at_desk.home, name))
