"""What the benchmark of holds counts as oversold, held to cases counted by hand."""

from datetime import timedelta

from benchmarks.holds import _BEGAN, UNITS, Diary, oversold
from models.stock.holds.words import HeldLine, Hold


def hold(made: int, units: int, expires: int) -> Hold:
    line = HeldLine("mitte", "sku0", units, 0, units)
    return Hold("h", "b", "held", (line,), *(_BEGAN + timedelta(microseconds=at) for at in (made, expires)))


def test_units_promised_to_two_at_one_moment_are_oversold_and_only_those() -> None:
    diary = Diary()
    diary.took(hold(0, UNITS - 1, 100), since=10)
    diary.took(hold(90, 3, 200), since=100)  # the first ends where this one begins
    assert oversold(diary) == 0
    diary.took(hold(50, 2, 150), since=60)
    assert oversold(diary) == 1


def test_what_was_given_back_in_time_is_free_and_what_was_ordered_never_again() -> None:
    diary = Diary()
    diary.took(hold(0, UNITS, 100), since=10, released=40)
    diary.took(hold(41, UNITS, 100), since=50, is_ordered=True)
    assert oversold(diary) == 0
    diary.took(hold(200, 4, 300), since=210)
    assert oversold(diary) == 4


def test_who_gives_back_after_it_expired_had_nothing_meanwhile() -> None:
    diary = Diary()
    diary.took(hold(0, UNITS, 100), since=10, released=500)
    diary.took(hold(100, UNITS, 200), since=150)
    assert oversold(diary) == 0
