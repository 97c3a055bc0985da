from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from models.promise.asking import Line, PromiseError
from models.promise.book import Book
from models.promise.keeping import Failed, Wish, give, repromise
from models.promise.promising import Grounds, promise
from models.stock.holds.sqlite import sqlite_holds
from models.stock.holds.store import Holds
from tests.unit.models.promise.high_street import HERE, NETWORK, TUESDAY, Shelf, Stock, ask, grounds, network, rules

STOCK: Stock = {("BROADWAY", "TEAPOT"): 2, ("HARLEM", "TEAPOT"): 1, ("NEWARK", "TEAPOT"): 9, ("BROADWAY", "KETTLE"): 1}


class Counter:
    """A home's holds and book over what the board shows; `sold`: by how much holds know of less than the board."""

    def __init__(self, root: Path, sold: Stock | None = None) -> None:
        self.holds: Holds = sqlite_holds(root / "stock.db")
        self.book = Book(root / "promises.db")
        self.grounds: Grounds = replace(grounds(STOCK), loads=self.book)
        free = {place: units for place, units in STOCK.items() if isinstance(units, int)} | dict(sold or {})
        self.holds.set_free([(*place, units) for place, units in free.items() if isinstance(units, int)], 1)

    def close(self) -> None:
        self.holds.close()
        self.book.close()


@pytest.fixture
def counter(tmp_path: Path):  # type: ignore[no-untyped-def]
    found = Counter(tmp_path)
    yield found
    found.close()


def test_a_promise_is_held_and_asked_again_it_is_the_same_one(counter: Counter) -> None:
    wish = Wish(key="cart 7")
    first = give(ask(("TEAPOT", 2)), TUESDAY, counter.grounds, wish, counter.holds, counter.book)
    again = give(ask(("TEAPOT", 2)), TUESDAY, counter.grounds, wish, counter.holds, counter.book)
    assert first.chosen is not None
    assert first.chosen.parcels[0].location_code == "BROADWAY"
    assert (again.promise_id, again.hold_id, again.held_until) == (first.promise_id, first.hold_id, first.held_until)
    assert counter.holds.held([("BROADWAY", "TEAPOT")], TUESDAY) == [2]
    with pytest.raises(PromiseError, match="another"):
        give(ask(("TEAPOT", 1)), TUESDAY, counter.grounds, wish, counter.holds, counter.book)


def test_where_somebody_was_quicker_the_next_way_is_promised_and_it_is_said(tmp_path: Path) -> None:
    counter = Counter(tmp_path, sold={("BROADWAY", "TEAPOT"): 0})
    found = give(ask(("TEAPOT", 1)), TUESDAY, counter.grounds, Wish(key="cart"), counter.holds, counter.book)
    counter.close()
    assert found.chosen is not None
    assert found.chosen.parcels[0].location_code == "HARLEM"
    assert found.hold_id is not None
    told = [(each.reason_code, each.sku, each.location_code) for each in found.refusals]
    assert told[0] == ("hold_refused", "TEAPOT", "BROADWAY")


def test_where_nothing_can_be_held_nothing_is_promised(tmp_path: Path) -> None:
    counter = Counter(tmp_path, sold=dict.fromkeys(STOCK, 0))
    found = give(ask(("TEAPOT", 1)), TUESDAY, counter.grounds, Wish(key="cart"), counter.holds, counter.book)
    assert (found.is_promised, found.hold_id) == (False, None)
    assert counter.book.of_key("cart") is None
    counter.close()


def test_a_promise_given_takes_hands_and_one_that_was_only_asked_for_does_not(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    one_line = network(rules(("lines_per_slot: 24", "lines_per_slot: 1")))
    busy = replace(counter.grounds, network=one_line)
    first, second = (
        give(ask(("TEAPOT", 1), methods=("click_and_collect",), store="BROADWAY"), TUESDAY, busy, Wish(key=key), counter.holds, Book(tmp_path / "promises.db"))
        for key in ("a", "b")
    )  # fmt: skip
    third = give(ask(("KETTLE", 1), methods=("click_and_collect",)), TUESDAY, replace(busy, loads=Book(tmp_path / "promises.db")), Wish(key="c"), counter.holds, counter.book)  # fmt: skip
    counter.close()
    assert first.chosen is not None
    assert second.chosen is not None
    assert third.chosen is not None
    assert third.chosen.promised_at > first.chosen.promised_at


def test_what_is_kept_of_a_promise_says_nothing_of_where_the_shopper_is(counter: Counter) -> None:
    found = give(ask(("TEAPOT", 1)), TUESDAY, counter.grounds, Wish(key="cart"), counter.holds, counter.book)
    kept = counter.book.of_id(found.promise_id)
    assert kept is not None
    assert {parcel.distance_km for each in (kept.chosen, *kept.runners_up) if each for parcel in each.parcels} == {None}
    assert b"40.7" not in msgspec.json.encode(kept)


def test_when_a_pick_fails_another_place_is_promised_and_the_shopper_is_told(counter: Counter) -> None:
    before = give(
        ask(("TEAPOT", 2), ("KETTLE", 1)), TUESDAY, counter.grounds, Wish(key="cart"), counter.holds, counter.book
    )
    failed = [Failed("BROADWAY", "TEAPOT", found_units=1)]
    after = repromise(
        before,
        failed,
        HERE,
        TUESDAY,
        counter.grounds,
        wish=Wish(key="again"),
        holds=counter.holds,
        recorder=counter.book,
    )
    assert after.replaces == before.promise_id
    assert after.lines == (Line("TEAPOT", 1),)
    assert after.chosen is not None
    assert after.chosen.parcels[0].location_code == "HARLEM"
    assert after.hold_id is not None
    assert after.text == (
        "We are sorry: we could not find 1 × TEAPOT at Broadway. It will be ready to be picked up at Harlem by 12:00 on Tuesday 16 June."
    )
    assert (after.refusals[0].reason_code, after.refusals[0].location_code) == ("pick_failed", "BROADWAY")


def test_what_nobody_else_has_is_paid_back() -> None:
    only = Grounds(Shelf({("BROADWAY", "TEAPOT"): 2}), NETWORK)

    before = promise(ask(("TEAPOT", 2)), TUESDAY, only)
    after = repromise(before, [Failed("BROADWAY", "TEAPOT")], HERE, TUESDAY, only)
    assert not after.is_promised
    assert after.text.endswith("We cannot get it elsewhere either, and will give your money back for it.")


@pytest.mark.parametrize(
    "failed",
    [
        [],
        [Failed("HARLEM", "TEAPOT")],
        [Failed("BROADWAY", "TEAPOT", found_units=2)],
        [Failed("BROADWAY", "TEAPOT")] * 2,
    ],
)
def test_only_what_was_promised_and_not_found_is_promised_again(failed: list[Failed]) -> None:

    here = grounds({("BROADWAY", "TEAPOT"): 2})
    before = promise(ask(("TEAPOT", 2)), TUESDAY, here)
    with pytest.raises(PromiseError, match="failed: expected"):
        repromise(before, failed, HERE, TUESDAY, here)
