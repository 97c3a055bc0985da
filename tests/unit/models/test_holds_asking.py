from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.stock.holds.asking import Asked, Kept, KeptLine, asked, lacking, micros, moment, overdrawn, taken
from models.stock.holds.words import HoldsError, Level, Limits, Line, Position, Refusal, Request, Shortage

BULB, KETTLE = Position("mitte", "bulb"), Position("mitte", "kettle")
lines = st.lists(
    st.builds(Line, st.sampled_from(["mitte", "hafen"]), st.sampled_from("abc"), st.integers(1, 9)), min_size=1, max_size=6
)  # fmt: skip


def wanted(*given_lines: Line, key: str = "b", lasting: timedelta = timedelta(minutes=15)) -> Asked:
    found = asked(Request(key, given_lines, lasting), Limits())
    assert isinstance(found, Asked)
    return found


@given(lines, st.randoms(use_true_random=False))
def test_one_basket_in_any_order_is_one_request(basket: list[Line], chance: object) -> None:
    turned = list(basket)
    chance.shuffle(turned)  # type: ignore[attr-defined]
    assert wanted(*basket) == wanted(*turned)
    assert sum(line.units for line in wanted(*basket).lines) == sum(line.units for line in basket)
    assert len({line[:2] for line in wanted(*basket).lines}) == len(wanted(*basket).lines)


@given(lines, lines)
def test_another_basket_is_another_request(one: list[Line], other: list[Line]) -> None:
    same = wanted(*one).lines == wanted(*other).lines
    assert (wanted(*one).request == wanted(*other).request) == same
    assert wanted(*one).request != wanted(*one, lasting=timedelta(minutes=16)).request


def test_what_lacks_is_told_by_position_and_what_is_overdrawn_can_give_nothing() -> None:
    levels = {BULB: Level(5, 3), KETTLE: Level(-2, 0)}
    basket = [Line(*BULB, 2), Line(*KETTLE, 1)]
    refusal = lacking(basket, levels)
    assert refusal == Refusal("not_enough", (Shortage(*KETTLE, asked_units=1, free_units=-2, held_units=0),))
    assert refusal.shortages[0].short_units == 1
    assert lacking(basket[:1], levels) is None
    unknown = lacking([Line("hafen", "bulb", 1), *basket], levels)
    assert unknown == Refusal("unknown_position", (Shortage("hafen", "bulb", 1),))


def test_more_held_than_free_is_overdrawn_nothing_held_never_is() -> None:
    levels = {BULB: Level(2, 3), KETTLE: Level(-4, 0), Position("hafen", "bulb"): Level(3, 3)}
    assert overdrawn(levels) == (Shortage(*BULB, asked_units=0, free_units=2, held_units=3),)


def test_an_order_takes_what_it_says_in_all_less_what_it_took_before() -> None:
    kept = Kept("h", "b", "r", 0, 9, None, None, (KeptLine(*BULB, 3, 1, 2), KeptLine(*KETTLE, 2, 2, 0)))
    assert taken(kept, None) == {BULB: 2}
    assert taken(kept, [Line(*BULB, 2), Line(*KETTLE, 1)]) == {BULB: 1}
    assert taken(kept, [Line(*BULB, 4)]) == Refusal("not_held", (Shortage(*BULB, 4),))


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)), st.integers(-12, 12))
def test_a_time_comes_back_to_the_microsecond_whatever_its_zone(at: datetime, hours: int) -> None:
    aware = at.replace(tzinfo=timezone(timedelta(hours=hours)))
    assert moment(micros(aware)) == aware
    assert moment(micros(aware)).tzinfo is UTC


@pytest.mark.parametrize("text", ["", " \n", "a\x1fb", "a\nb", "x" * 201, None, 7])
def test_codes_that_could_part_a_key_are_refused(text: object) -> None:
    for line in (Line(text, "bulb", 1), Line("mitte", text, 1)):  # type: ignore[arg-type]
        with pytest.raises(HoldsError, match="printable characters"):
            asked(Request("b", (line,)), Limits())
    with pytest.raises(HoldsError, match="printable characters"):
        asked(Request(text, (Line(*BULB, 1),)), Limits())  # type: ignore[arg-type]


@pytest.mark.parametrize("units", [1.0, "1", None, 2**60])
def test_units_are_whole_numbers(units: object) -> None:
    with pytest.raises(HoldsError, match="holds: expected units"):
        asked(Request("b", (Line(*BULB, units),)), Limits())  # type: ignore[arg-type]


def test_a_hold_of_no_time_is_refused() -> None:
    with pytest.raises(HoldsError, match="Say for how long"):
        asked(Request("b", (Line(*BULB, 1),), timedelta(0)), Limits())


@pytest.mark.parametrize("reason", Refusal.__dataclass_fields__["reason"].type.__args__)
def test_every_reason_has_a_sentence(reason: str) -> None:
    sentence = str(Refusal(reason, (Shortage(*BULB, 2),), most=3))  # type: ignore[arg-type]
    assert sentence.startswith("hold: expected ")
    assert ", found " in sentence
    assert sentence.endswith(".")
