"""Holds in real SQLite files, PostgreSQL and Redis: never more than is free, whoever asks at the same time, and why not."""

import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from models.stock.holds.opening import open_holds
from models.stock.holds.postgres import join_postgres, postgres_holds
from models.stock.holds.redis import redis_holds
from models.stock.holds.sqlite import join_sqlite
from models.stock.holds.store import Holds
from models.stock.holds.words import Hold, HoldsError, Level, Limits, Line, Refusal, Settlement, Shortage
from tests.integration.held import AT, basket, closing, made, minutes, opened, refused
from tests.integration.redis_server import RedisServer, running_redis
from troth.home import Home

ROOT = Path(__file__).parents[2]
BULB, KETTLE = ("mitte", "bulb"), ("mitte", "kettle")


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def stock_place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store: a file, an address of a schema, or one of a Redis with a name of its own."""
    if request.param == "sqlite":
        return str(tmp_path / "stock.db")
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_place"))
    server = request.getfixturevalue("redis_server")
    return f"{server.address}#{tmp_path.name}"


@pytest.fixture
def store(stock_place: str) -> Iterator[Holds]:
    with closing(opened(stock_place)) as store:
        yield store


def at_once(tasks: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(tasks)) as pool:
        return [each.result() for each in [pool.submit(task) for task in tasks]]


def test_of_many_who_want_the_last_unit_one_gets_it_and_the_others_hear_why(store: Holds) -> None:
    store.set_free([(*BULB, 1)], 1)
    answers = at_once([lambda n=n: store.hold(basket(f"b{n}", (*BULB, 1)), AT) for n in range(6)])  # type: ignore[misc]
    assert sum(isinstance(answer, Hold) for answer in answers) == 1
    for refusal in (answer for answer in answers if isinstance(answer, Refusal)):
        assert refusal == Refusal("not_enough", (Shortage(*BULB, asked_units=1, free_units=1, held_units=1),))
        assert refusal.shortages[0].short_units == 1
        assert "too few at bulb at mitte" in str(refusal)


def test_two_lines_of_one_position_ask_for_their_sum(store: Holds) -> None:
    """medusajs/medusa#16502: each line was held against the same number, so a bundle took more than there was."""
    store.set_free([(*BULB, 3)], 1)
    refusal = refused(store.hold(basket("bundle", (*BULB, 2), (*BULB, 2)), AT))
    assert refusal.shortages == (Shortage(*BULB, asked_units=4, free_units=3, held_units=0),)
    assert store.held([BULB], AT) == [0]
    assert made(store.hold(basket("bundle", (*BULB, 2), (*BULB, 1)), AT)).lines[0].held_units == 3


def test_a_basket_is_held_whole_or_not_at_all(store: Holds) -> None:
    store.set_free([(*BULB, 5), (*KETTLE, 1)], 1)
    refusal = refused(store.hold(basket("b", (*BULB, 2), (*KETTLE, 2)), AT))
    assert [(short.sku, short.short_units) for short in refusal.shortages] == [("kettle", 1)]
    unknown = refused(store.hold(basket("b", (*BULB, 2), ("mitte", "ghost", 1)), AT))
    assert (unknown.reason, [short.sku for short in unknown.shortages]) == ("unknown_position", ["ghost"])
    assert store.held([BULB, KETTLE], AT) == [0, 0]


def test_baskets_that_cross_each_other_wait_for_none_in_a_circle(store: Holds) -> None:
    skus = [f"sku{n}" for n in range(4)]
    store.set_free([("mitte", sku, 12) for sku in skus], 1)

    def ask(who: int) -> Counter[bool]:
        turned = skus[who % 4 :] + skus[: who % 4]
        lines = [("mitte", sku, 1) for sku in (turned if who % 2 else turned[::-1])]
        return Counter(isinstance(store.hold(basket(f"{who}-{n}", *lines), AT), Hold) for n in range(6))

    told = sum(at_once([lambda who=who: ask(who) for who in range(4)]), Counter[bool]())  # type: ignore[misc]
    assert told == {True: 12, False: 12}
    assert store.held([("mitte", sku) for sku in skus], AT) == [12] * 4


def test_a_retry_gets_the_hold_it_made_even_while_the_first_try_is_under_way(store: Holds) -> None:
    store.set_free([(*BULB, 9), (*KETTLE, 9)], 1)
    request = basket("b", (*BULB, 2), (*KETTLE, 1))
    answers = at_once([lambda: store.hold(request, AT)] * 6)
    assert len({made(answer).hold_id for answer in answers}) == 1
    assert store.held([BULB, KETTLE], AT) == [2, 1]


def test_one_key_holds_one_basket_even_where_two_come_at_once(store: Holds) -> None:
    places = [("mitte", f"sku{n}") for n in range(6)]
    store.set_free([(*place, 9) for place in places], 1)
    answers = at_once([lambda place=place: store.hold(basket("b", (*place, 1)), AT) for place in places])  # type: ignore[misc]
    reasons = sorted(answer.reason if isinstance(answer, Refusal) else "" for answer in answers)
    assert reasons == ["", *["key_reused"] * 5]
    assert sum(store.held(places, AT)) == 1


def test_processes_that_fight_for_few_units_never_get_more(stock_place: str, store: Holds) -> None:
    skus = [f"sku{n}" for n in range(3)]
    store.set_free([("mitte", sku, 20) for sku in skus], 1)
    command = [sys.executable, "-m", "tests.integration.holder", stock_place, ",".join(skus), "40"]
    processes = [
        subprocess.Popen([*command, f"p{n}"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    told: list[str] = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        told += out.split()
    assert len(told) == len(set(told)) == sum(store.held([("mitte", sku) for sku in skus], AT))
    assert store.held([("mitte", sku) for sku in skus], AT) == [20] * 3


def test_time_alone_frees_what_expired_and_sweeping_changes_no_answer(store: Holds) -> None:
    store.set_free([(*BULB, 2)], 1)
    first = made(store.hold(basket("first", (*BULB, 2)), AT))
    assert first.expires_at == minutes(15)
    before = minutes(15) - timedelta(microseconds=1)
    assert (store.held([BULB], before), store.held([BULB], minutes(15))) == ([2], [0])
    expired = store.get(first.hold_id, minutes(15))
    assert isinstance(expired, Hold)
    assert (expired.state, expired.ended_at) == ("expired", first.expires_at)
    assert store.sweep(minutes(16)).expired == 1
    assert store.sweep(minutes(16)).expired == 0
    assert store.get(first.hold_id, minutes(16)) == expired
    assert made(store.hold(basket("first", (*BULB, 2)), minutes(16))) == expired
    assert store.active(minutes(16)).holds == []


def test_what_ended_long_ago_is_forgotten_with_its_key(store: Holds) -> None:
    store.set_free([(*BULB, 2)], 1)
    first = made(store.hold(basket("b", (*BULB, 1)), AT))
    store.release(first.hold_id, AT)
    assert store.sweep(AT + Limits().remembered - timedelta(seconds=1)).forgotten == 0
    assert store.sweep(AT + Limits().remembered).forgotten == 1
    assert refused(store.get(first.hold_id, AT)).reason == "unknown_hold"
    assert made(store.hold(basket("b", (*BULB, 2)), AT)).hold_id != first.hold_id


def test_an_expired_hold_lives_again_only_if_all_of_it_is_still_free(store: Holds) -> None:
    store.set_free([(*BULB, 2), (*KETTLE, 1)], 1)
    late = made(store.hold(basket("late", (*BULB, 1), (*KETTLE, 1)), AT))
    assert made(store.extend(late.hold_id, minutes(40), minutes(20))).state == "held"
    other = made(store.hold(basket("other", (*KETTLE, 1)), minutes(41)))
    refusal = refused(store.extend(late.hold_id, minutes(60), minutes(41)))
    assert (refusal.reason, refusal.shortages) == ("expired", (Shortage(*KETTLE, 1, 1, 1),))
    store.release(other.hold_id, minutes(42))
    assert made(store.extend(late.hold_id, minutes(60), minutes(42))).expires_at == minutes(60)
    assert refused(store.extend(late.hold_id, AT + timedelta(days=2), minutes(43))).reason == "too_long"
    assert made(store.extend(late.hold_id, minutes(50), minutes(43))).expires_at == minutes(60), "never shorter"


def test_a_clock_that_goes_back_wakes_nothing_that_ended(store: Holds) -> None:
    store.set_free([(*BULB, 1)], 1)
    first = made(store.hold(basket("first", (*BULB, 1)), AT))
    store.release(first.hold_id, minutes(16))
    assert refused(store.extend(first.hold_id, minutes(30), minutes(1))).reason == "released"
    second = made(store.hold(basket("second", (*BULB, 1)), minutes(1)))
    third = made(store.hold(basket("third", (*BULB, 1)), minutes(20)))
    assert store.held([BULB], minutes(2)) == [1], "the second was counted out when the third got its unit"
    assert store.get(second.hold_id, minutes(2)) == store.get(second.hold_id, minutes(20))
    late = store.settle(second.hold_id, minutes(2))
    assert isinstance(late, Settlement)
    assert late.was == "expired"
    assert third.state == "held"


def test_a_hold_that_lives_again_ends_for_good_what_expired_in_between(store: Holds) -> None:
    store.set_free([(*BULB, 1)], 1)
    first = made(store.hold(basket("first", (*BULB, 1)), AT))
    second = made(store.hold(basket("second", (*BULB, 1), lasting=timedelta(minutes=4)), minutes(16)))
    assert made(store.extend(first.hold_id, minutes(40), minutes(21))).state == "held"
    late = store.settle(second.hold_id, minutes(17))
    assert isinstance(late, Settlement)
    assert late.was == "expired"
    assert late.overdrawn == (Shortage(*BULB, asked_units=0, free_units=0, held_units=1),)


def test_an_order_takes_what_was_held_and_what_is_free_falls_with_it(store: Holds) -> None:
    store.set_free([(*BULB, 5), (*KETTLE, 5)], 1)
    hold = made(store.hold(basket("b", (*BULB, 3), (*KETTLE, 1)), AT))
    for _ in range(2):  # said twice, it happens once
        part = store.settle(hold.hold_id, AT, [Line(*BULB, 2)])
        assert isinstance(part, Settlement)
        assert (part.hold.state, part.was, part.overdrawn) == ("held", "held", ())
        assert store.levels([BULB, KETTLE], AT) == [Level(3, 1), Level(5, 1)]
    for _ in range(2):
        whole = store.settle(hold.hold_id, AT)
        assert isinstance(whole, Settlement)
        assert whole.hold.state == "settled"
        assert store.levels([BULB, KETTLE], AT) == [Level(2, 0), Level(4, 0)]
    beyond = refused(store.settle(hold.hold_id, AT, [Line(*BULB, 4), Line("hafen", "bulb", 1)]))
    assert (beyond.reason, len(beyond.shortages)) == ("not_held", 2)


def test_an_order_counts_after_its_hold_expired_and_says_who_was_promised_too_much(store: Holds) -> None:
    store.set_free([(*BULB, 2)], 1)
    late = made(store.hold(basket("late", (*BULB, 2)), AT))
    made(store.hold(basket("next", (*BULB, 1)), minutes(16)))
    order = store.settle(late.hold_id, minutes(17))
    assert isinstance(order, Settlement)
    assert (order.was, order.hold.state) == ("expired", "settled")
    assert order.overdrawn == (Shortage(*BULB, asked_units=0, free_units=0, held_units=1),)
    assert refused(store.hold(basket("more", (*BULB, 1)), minutes(17))).reason == "not_enough"


def test_a_number_that_knows_nothing_of_an_order_does_not_bring_its_units_back(store: Holds) -> None:
    """HotWax and Retail Pro: both say 10, two ship, the till is not told, and next morning its file says 10 again."""
    store.set_free([(*BULB, 10)], 100)
    hold = made(store.hold(basket("b", (*BULB, 2)), AT))
    store.settle(hold.hold_id, AT, version=105)
    store.set_free([(*BULB, 10)], 103)  # a sale elsewhere was corrected; the order is not in this number
    assert store.levels([BULB], AT) == [Level(8, 0)]
    store.set_free([(*BULB, 8)], 105)
    assert store.levels([BULB], AT) == [Level(8, 0)]
    store.set_free([(*BULB, 10)], 104)  # late, and older
    assert store.levels([BULB], AT) == [Level(8, 0)]


def test_an_order_the_numbers_know_already_does_not_fall_twice(store: Holds) -> None:
    store.set_free([(*BULB, 10)], 100)
    hold = made(store.hold(basket("b", (*BULB, 2)), AT))
    store.set_free([(*BULB, 8)], 105)
    store.settle(hold.hold_id, AT, version=105)
    assert store.levels([BULB], AT) == [Level(8, 0)]


def test_ten_thousand_positions_are_set_and_read_in_one_call(store: Holds) -> None:
    rows = [(f"store{n % 50}", f"sku{n}", n) for n in range(10_000)]
    store.set_free(rows, 7)
    store.set_free([(location, sku, -1) for location, sku, _ in rows[:5_000]], 6)
    assert store.levels([row[:2] for row in rows], AT) == [Level(n, 0) for n in range(10_000)]
    store.set_free([(location, sku, 3) for location, sku, _ in rows[:5_000]], 7)
    assert sum(level.free_units for level in store.levels([row[:2] for row in rows], AT) if level) == 37_512_500


def test_what_is_alive_is_listed_page_by_page_soonest_to_expire_first(store: Holds) -> None:
    store.set_free([(*BULB, 100)], 1)
    for n in range(7):
        made(store.hold(basket(f"b{n}", (*BULB, 1), lasting=timedelta(minutes=20 - n // 2)), AT))
    seen, page = [], store.active(AT, limit=3)
    while page.next:
        seen += page.holds
        page = store.active(AT, page.next, limit=3)
    seen += page.holds
    assert sorted(hold.key for hold in seen) == [f"b{n}" for n in range(7)]
    assert [hold.expires_at for hold in seen] == sorted(hold.expires_at for hold in seen)
    with pytest.raises(HoldsError, match="Start from the first page"):
        store.active(AT, "somewhere")


def test_many_who_open_a_new_place_at_once_make_one_store(stock_place: str) -> None:
    stores = at_once([lambda: opened(stock_place)] * 4)
    stores[0].set_free([(*BULB, 4)], 1)
    at_once([lambda n=n, each=each: each.hold(basket(f"b{n}", (*BULB, 1)), AT) for n, each in enumerate(stores)])  # type: ignore[misc]
    assert stores[3].held([BULB], AT) == [4]
    for each in stores:
        each.close()


def test_in_sqlite_cells_and_what_is_free_change_in_one_transaction_of_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "stock.db"
    with closing(opened(str(path))) as store:
        caller = sqlite3.connect(path, isolation_level=None)
        with pytest.raises(HoldsError, match="begin immediate"):
            join_sqlite(caller)
        caller.execute("begin immediate")
        join_sqlite(caller).set_free([(*BULB, 3)], 1)
        assert store.levels([BULB], AT) == [None]
        caller.execute("rollback")
        caller.execute("begin immediate")
        join_sqlite(caller).set_free([(*BULB, 3)], 1)
        hold = made(join_sqlite(caller).hold(basket("b", (*BULB, 1)), AT))
        caller.execute("commit")
        caller.row_factory = sqlite3.Row
        caller.execute("begin immediate")
        join_sqlite(caller).settle(hold.hold_id, AT, version=2)
        caller.execute("commit")
        caller.close()
        assert store.levels([BULB], AT) == [Level(2, 0)]


def test_in_postgresql_cells_and_what_is_free_change_in_one_transaction_of_the_caller(postgres_place: str) -> None:
    with closing(opened(postgres_place)) as store, psycopg.connect(postgres_place) as caller:
        join_postgres(caller).set_free([(*BULB, 3)], 1)
        assert store.levels([BULB], AT) == [None]
        caller.rollback()
        join_postgres(caller).set_free([(*BULB, 3)], 1)
        caller.commit()
        assert store.levels([BULB], AT) == [Level(3, 0)]
        caller.execute("set transaction isolation level repeatable read")
        with pytest.raises(HoldsError, match="expected a transaction that is read committed, found repeatable read"):
            join_postgres(caller)


def test_a_position_that_stays_locked_is_told_of_not_waited_for_without_end(postgres_place: str) -> None:
    with closing(postgres_holds(postgres_place, patience=0.05)) as store, psycopg.connect(postgres_place) as other:
        store.set_free([(*BULB, 3)], 1)
        other.execute("select * from stock_free for update")
        with pytest.raises(HoldsError, match="found it locked"):
            store.hold(basket("b", (*BULB, 1)), AT)


def test_a_redis_that_forgets_is_refused(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.address) as client:
        client.config_set("appendfsync", "everysec")
        with pytest.raises(HoldsError, match="appendfsync always"):
            redis_holds(redis_server.address)
        client.config_set("appendfsync", "always")


def test_no_error_repeats_an_address(redis_server: RedisServer) -> None:
    with pytest.raises(HoldsError) as fault:
        opened("postgresql://clerk:secret@127.0.0.1:1/stock?connect_timeout=1")
    assert "secret" not in str(fault.value)
    with pytest.raises(HoldsError) as fault:
        opened("redis://clerk:secret@127.0.0.1:1/0")
    assert "secret" not in str(fault.value)


def test_a_home_keeps_its_holds_in_a_file_or_where_the_settings_say(
    tmp_path: Path, redis_server: RedisServer, postgres_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    for address in (None, postgres_place, redis_server.address):
        if address:
            monkeypatch.setenv("TROTH_STOCK", address)
        with closing(open_holds(home)) as store:
            store.set_free([(*BULB, 1)], 1)
            assert made(store.hold(basket("b", (*BULB, 1)), AT)).state == "held"
    assert (home.stock / "stock.db").exists()


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (basket("b"), "no_lines"),
        (basket("b", (*BULB, 1), (*KETTLE, 0)), "not_positive"),
        (basket("b", *[("mitte", f"sku{n}", 1) for n in range(4)]), "too_many_lines"),
        (basket("b", (*BULB, 60), (*BULB, 41)), "too_many_units"),
        (basket("b", (*BULB, 1), lasting=timedelta(hours=2)), "too_long"),
    ],
)
def test_a_basket_beyond_the_limits_is_refused_with_its_reason(tmp_path: Path, request_: Any, reason: str) -> None:
    limits = Limits(lines=3, units=100, lasting=timedelta(hours=1))
    with closing(opened(str(tmp_path / "stock.db"), limits)) as store:
        refusal = refused(store.hold(request_, AT))
        assert refusal.reason == reason
        assert "None" not in str(refusal)


def test_an_id_that_nobody_made_is_that_of_no_hold(store: Holds) -> None:
    for hold_id in ("hold_" + "0" * 24, "", "h\0ld", "*", "hold_1 or true"):
        for answer in (
            store.get(hold_id, AT), store.release(hold_id, AT), store.settle(hold_id, AT), store.extend(hold_id, minutes(9), AT),
        ):  # fmt: skip
            assert refused(answer).reason == "unknown_hold"


def test_a_time_without_zone_is_refused(tmp_path: Path) -> None:
    with closing(opened(str(tmp_path / "stock.db"))) as store, pytest.raises(HoldsError, match="aware datetime"):
        store.held([BULB], datetime(2026, 3, 2, 9))
