from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from models.stock.board.writer import BoardWriter
from models.tables import write
from serving import answers
from serving.answers import Desk
from serving.supply import NoSuchGroupError, Promisable, ask_promisable, locations_of
from troth.home import Home

AT = datetime(2026, 3, 2, 9, tzinfo=UTC)
SOON, LATER = AT + timedelta(days=2), AT + timedelta(days=5)
PIER, HILL = ("S001", "tent"), ("S002", "tent")


def shop(root: Path) -> Desk:
    """Ten tents at the pier, two of them committed, three protected for the store and one for the app; at the hill one too few.

    Four come to the pier in two days; five are scheduled to go in five days, so that one of them is committed already.
    """
    home = Home(root)
    with BoardWriter(home.stock / "board") as board:
        parts = {
            "on_hand_units": np.array([10, 1]),
            "committed_units": np.array([2 + 1, 2]),
            "protected_units": np.array([4, 0]),
        }
        board.write([PIER, HILL], parts, np.array([1, 1]))
        board.tell(7, AT, AT)
    publish_supply(home)
    return answers.desk(home)


def publish_supply(home: Home) -> None:
    """The tables that answers rest on beside the board."""
    protected = [("S001", "tent", "protected", "store", 3), ("S001", "tent", "protected", "app", 1)]
    tables = {
        "stock_states": (["location_code", "sku", "state_type", "channel_type", "units"], protected),
        "stock_supplies": (["location_code", "sku", "units", "expected_at", "is_overdue"], [(*PIER, 4, SOON, False), (*PIER, 50, AT, True)]),
        "stock_demands": (["location_code", "sku", "demand_type", "units", "due_at"], [(*PIER, "scheduled", 5, LATER), (*PIER, "committed", 2, SOON)]),
        "location_groups": (["group_code", "location_code"], [("all", "S002"), ("all", "S001"), ("type/store", "S001")]),
    }  # fmt: skip
    for name, (columns, rows) in tables.items():
        frame = pl.DataFrame(rows, schema=columns, orient="row")
        write(home, name, frame.with_columns(pl.col(pl.Datetime).dt.replace_time_zone(None)))


def units(found: Promisable) -> int:
    return found.available_units


def test_what_comes_is_promised_from_when_it_comes_and_what_is_scheduled_is_kept_for_it(tmp_path: Path) -> None:
    desk = shop(tmp_path)
    # Now: 10 on hand less 3 committed less 4 protected is 3, and of the five scheduled one is not covered by what comes: that one is among the committed.
    assert [units(ask_promisable(desk, "tent", ["S001"], AT, None, when)) for when in (AT, SOON, LATER)] == [3, 3, 3]
    (place,) = ask_promisable(desk, "tent", ["S001"], AT).places
    assert [(change.at, change.units) for change in place.changes] == [(SOON, 4), (LATER, -5)]
    assert (place.free_units, place.protected_units, place.age_seconds) == (3, 4, 0)


def test_what_is_protected_for_a_channel_is_had_by_it_alone(tmp_path: Path) -> None:
    desk = shop(tmp_path)
    asked = {channel: ask_promisable(desk, "tent", ["S001"], AT, channel) for channel in ("store", "app", "web")}
    assert {channel: units(found) for channel, found in asked.items()} == {"store": 6, "app": 4, "web": 3}
    assert [found.places[0].protected_units for found in asked.values()] == [1, 3, 4]


def test_a_shortage_of_one_place_is_not_made_good_by_another(tmp_path: Path) -> None:
    desk = shop(tmp_path)
    found = ask_promisable(desk, "tent", locations_of(desk, "all"), AT, group_code="all")
    assert [(place.location_code, place.free_units, place.available_units) for place in found.places] == [
        ("S001", 3, 3),
        ("S002", -1, 0),
    ]
    assert units(found) == 3


def test_nothing_is_promised_of_what_nobody_has_a_record_of(tmp_path: Path) -> None:
    found = ask_promisable(shop(tmp_path), "rope", ["S001"], AT)
    assert (units(found), found.places[0].free_units) == (0, None)


def test_a_group_that_nobody_formed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoSuchGroupError, match="expected one such as"):
        locations_of(shop(tmp_path), "region/nowhere")
