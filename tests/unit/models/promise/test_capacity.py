"""Hands of a slot or a departure: taken with the record of the promise, never more of them than there are."""

import random
import sqlite3
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.promise.asking import Line, Parcel, Promise
from models.promise.book import Book, Full, work_of
from models.promise.keeping import MOST_TRIES, Wish, give
from models.promise.loads import NO_LOADS, Hands
from models.promise.promising import Grounds, promise
from models.stock.holds.sqlite import sqlite_holds
from models.stock.holds.store import Holds
from tests.unit.models.promise.high_street import TUESDAY, Stock, ask, codes, grounds, network, rules

PICKUP = ("click_and_collect",)
ONE_A_SLOT = network(rules(("lines_per_slot: 24", "lines_per_slot: 1")))
PROMISE = promise(ask(("TEAPOT", 1), methods=PICKUP), TUESDAY, grounds({("BROADWAY", "TEAPOT"): 5}))
assert PROMISE.chosen is not None
PARCEL = PROMISE.chosen.parcels[0]


def of(number: str, *parcels: Parcel) -> Promise:
    """A promise of these parcels."""
    assert PROMISE.chosen is not None
    option = msgspec.structs.replace(PROMISE.chosen, parcels=parcels)
    return msgspec.structs.replace(PROMISE, promise_id=number, chosen=option)


def parcel(slot: int, lines: int = 1, carrier: str | None = None, place: str = "BROADWAY") -> Parcel:
    at = datetime(2026, 6, 16, 15, tzinfo=UTC) + timedelta(hours=slot)
    goods = tuple(Line(f"SKU-{number}", 1) for number in range(lines))
    return msgspec.structs.replace(PARCEL, starts_at=at, lines=goods, carrier=carrier, location_code=place)


def hands(slot: int, *, is_pickup: bool = True, place: str = "BROADWAY") -> Hands:
    return Hands(place, int(parcel(slot).starts_at.timestamp()), is_pickup)


@pytest.fixture
def book(tmp_path: Path):  # type: ignore[no-untyped-def]
    with closing(Book(tmp_path / "promises.db")) as found:
        yield found


def test_what_there_is_no_room_for_is_not_kept_and_the_loads_are_told(book: Book) -> None:
    capacity = {hands(0): 3, hands(1): 1}
    assert not isinstance(book.record(of("a", parcel(0, 2)), "a", capacity), Full)
    both = of("b", parcel(0, 2), parcel(1))
    assert book.record(both, "b", capacity) == Full({hands(0): 2})
    assert (book.of_key("b"), book.of_id("b"), book.load(hands(1))) == (None, None, 0)
    assert not isinstance(book.record(of("c", parcel(0), parcel(1)), "c", capacity), Full)
    assert book.record(of("d", parcel(0), parcel(1)), None, capacity) == Full({hands(0): 3, hands(1): 1})


def test_a_promise_that_was_kept_is_found_again_however_full_it_is_now_and_takes_nothing_more(book: Book) -> None:
    capacity = {hands(0): 1}
    for key in ("key", None):
        number = f"of {key}"
        capacity[hands(0)] = book.load(hands(0)) + 1
        first = book.record(of(number, parcel(0)), key, capacity)
        again = book.record(of(number, parcel(0)), key, {hands(0): 0})
        assert isinstance(first, Promise)
        assert isinstance(again, Promise)
        assert again.promise_id == number
        book._read_at = 0  # look now
    assert book.load(hands(0)) == 2


def test_a_basket_of_more_lines_than_a_slot_has_takes_the_whole_slot(book: Book) -> None:
    assert not isinstance(book.record(of("a", parcel(0, 5)), "a", {hands(0): 4}), Full)
    assert book.record(of("b", parcel(0)), "b", {hands(0): 4}) == Full({hands(0): 4})


def test_those_who_pack_for_a_carrier_are_not_those_who_hand_over_at_the_same_second(book: Book) -> None:
    capacity = {hands(0): 1, hands(0, is_pickup=False): 1}
    assert not isinstance(book.record(of("a", parcel(0)), "a", capacity), Full)
    assert not isinstance(book.record(of("b", parcel(0, carrier="post")), "b", capacity), Full)
    assert (book.load(hands(0)), book.load(hands(0, is_pickup=False))) == (1, 1)


def test_a_book_that_did_not_tell_hands_apart_is_taken_over_with_all_it_promised(tmp_path: Path) -> None:
    path = tmp_path / "promises.db"
    with closing(Book(path)) as book:
        book.record(of("a", parcel(0, 2), parcel(1, 1, "post")), "a", {})
    with closing(sqlite3.connect(path)) as old:
        old.executescript("drop table taken; create table work (number integer primary key)")
    for _ in range(2):
        with closing(Book(path)) as book:
            assert (book.load(hands(0)), book.load(hands(1, is_pickup=False)), book.load(hands(1))) == (2, 1, 0)


@settings(max_examples=30, deadline=None)
@given(
    tries=st.lists(
        st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from([None, "post"])), min_size=1, max_size=3),
        max_size=20,
    ),
    most=st.integers(1, 6),
)  # fmt: skip
def test_what_is_kept_is_what_would_fit_one_after_the_other(
    tmp_path_factory: pytest.TempPathFactory, tries: list[list[tuple[int, int, str | None]]], most: int
) -> None:
    capacity = {hands(slot, is_pickup=is_pickup): most for slot in range(3) for is_pickup in (True, False)}
    expected: Counter[Hands] = Counter()
    with closing(Book(tmp_path_factory.mktemp("book") / "promises.db")) as book:
        for number, parcels in enumerate(tries):
            asked = of(str(number), *(parcel(*each) for each in parcels))
            work = work_of(asked, capacity)
            fits = all(expected[each] + lines <= most for each, lines in work.items())
            assert isinstance(book.record(asked, None, capacity), Full) != fits
            expected.update(work if fits else {})
        assert {each: book.load(each) for each in capacity} == {each: expected[each] for each in capacity}


def test_threads_never_take_more_hands_than_there_are(book: Book) -> None:
    slots, most, tries = 8, 5, 400
    capacity = {hands(slot): most for slot in range(slots)}

    def take(worker: int) -> int:
        chance = random.Random(worker)
        kept = 0
        for number in range(tries):
            asked = of(f"{worker}/{number}", parcel(chance.randrange(slots), chance.randint(1, 2)))
            kept += sum(work_of(asked, capacity).values()) * (not isinstance(book.record(asked, None, capacity), Full))
        return kept

    with ThreadPoolExecutor(8) as pool:
        kept = sum(pool.map(take, range(8)))
    book._read_at = float("-inf")
    assert {book.load(each) for each in capacity} <= {most - 1, most}
    assert sum(book.load(each) for each in capacity) == kept


class Counters:
    """Holds and book of a home; grounds whose loads nobody tells, as if all asked in the same moment."""

    def __init__(self, root: Path, stock: Stock) -> None:
        self.holds: Holds = sqlite_holds(root / "stock.db")
        self.book = Book(root / "promises.db")
        self.grounds: Grounds = grounds(stock, of=ONE_A_SLOT, loads=NO_LOADS)
        self.holds.set_free([(*place, units) for place, units in stock.items() if isinstance(units, int)], 1)

    def give(self, key: str, **more: object) -> Promise:
        return give(ask(("TEAPOT", 1), **more), TUESDAY, self.grounds, Wish(key=key), self.holds, self.book)

    def close(self) -> None:
        self.holds.close()
        self.book.close()


def test_who_finds_the_slot_taken_gets_the_next_one_and_keeps_what_was_held(tmp_path: Path) -> None:
    with closing(Counters(tmp_path, {("BROADWAY", "TEAPOT"): 9})) as counters:
        found = [counters.give(key, methods=PICKUP) for key in "abc"]
        starts = [each.chosen.parcels[0].starts_at for each in found if each.chosen]
        assert [at - starts[0] for at in starts] == [timedelta(hours=number) for number in range(3)]
        assert "no_capacity" not in {code for each in found for _, _, code in codes(each)}
        assert len({each.hold_id for each in found}) == 3
        assert counters.holds.held([("BROADWAY", "TEAPOT")], TUESDAY) == [3]
        assert counters.give("b", methods=PICKUP).promise_id == found[1].promise_id


def test_where_every_way_tried_is_full_nothing_is_promised_nothing_held_and_it_is_said(tmp_path: Path) -> None:
    with closing(Counters(tmp_path, {("BROADWAY", "TEAPOT"): 9})) as counters:
        given_first = [counters.give(str(number), methods=PICKUP) for number in range(MOST_TRIES)]
        assert all(each.is_promised for each in given_first)
        found = counters.give("late", methods=PICKUP)
        assert (found.is_promised, found.hold_id, found.chosen) == (False, None, None)
        assert ("click_and_collect", None, "no_capacity") in codes(found)
        assert counters.holds.held([("BROADWAY", "TEAPOT")], TUESDAY) == [MOST_TRIES]
        assert counters.give("late", methods=PICKUP, store="HARLEM").chosen is None


def test_what_is_held_is_what_was_promised_whoever_was_quicker(tmp_path: Path) -> None:
    stock: Stock = {("BROADWAY", "TEAPOT"): 30, ("HARLEM", "TEAPOT"): 30, ("NEWARK", "TEAPOT"): 10}
    with closing(Counters(tmp_path, stock)) as counters, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(counters.give, map(str, range(40))))
        promised: Counter[tuple[str, str]] = Counter()
        taken: Counter[Hands] = Counter()
        for each in found:
            taken.update(work_of(each, {}))
            for one in each.chosen.parcels if each.chosen else ():
                promised.update({(one.location_code, line.sku): line.units for line in one.lines})
        assert max(taken[each] for each in taken if each.is_pickup) == 1
        assert counters.holds.held(list(stock), TUESDAY) == [promised[place] for place in stock]
        assert len({one.location_code for each in found if each.chosen for one in each.chosen.parcels}) > 1
