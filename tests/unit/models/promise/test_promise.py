from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.promise.asking import REASONS, Line, Promise, PromiseError, Spot
from models.promise.loads import Hands, KnownLoads
from models.promise.promising import promise
from tests.unit.models.promise.high_street import (
    ITEMS,
    NETWORK,
    PLACES,
    TUESDAY,
    ask,
    codes,
    grounds,
    network,
    promised,
    rules,
)

EVERYWHERE = {(place[0], item[0]): 9 for place in PLACES for item in ITEMS}
PICKUP = ("click_and_collect",)


def test_what_a_near_store_has_is_collected_there_within_hours() -> None:
    found = promised(EVERYWHERE)
    assert found.is_promised
    assert found.chosen is not None
    (parcel,) = found.chosen.parcels
    assert (found.chosen.way, parcel.location_code, parcel.carrier) == ("click_and_collect", "BROADWAY", None)
    assert parcel.starts_at == datetime(2026, 6, 16, 15, tzinfo=UTC)  # 11:00: the slot of 10:00 has begun
    assert found.text == "Ready to be picked up at Broadway by 12:00 on Tuesday 16 June."


def test_where_no_near_store_has_it_it_is_sent() -> None:
    found = promised({("BROADWAY", "TEAPOT"): 0, ("BOSTON", "TEAPOT"): 3, ("NEWARK", "TEAPOT"): 9})
    assert found.chosen is not None
    assert found.chosen.way == "shipping"
    assert found.chosen.parcels[0].location_code == "NEWARK"
    assert ("click_and_collect", "TEAPOT", "no_stock") in codes(found)


def test_at_night_it_is_sent_and_the_next_window_is_shown_beside_it() -> None:
    night = datetime(2026, 6, 17, 3, 0, tzinfo=UTC)  # 23:00
    found = promised(EVERYWHERE, at=night)
    assert found.chosen is not None
    assert found.chosen.way == "shipping"
    assert ("click_and_collect", None, "closed") in codes(found)
    later = next(each for each in found.runners_up if each.way == "later_pickup")
    assert later.promised_at == datetime(2026, 6, 17, 14, tzinfo=UTC)  # the first slot of the morning


def test_where_nobody_sends_the_next_pickup_window_is_promised() -> None:
    night = datetime(2026, 6, 17, 3, 0, tzinfo=UTC)
    found = promised({("HARLEM", "TEAPOT"): 2}, at=night, methods=PICKUP)
    assert found.chosen is not None
    assert (found.chosen.way, found.chosen.parcels[0].location_code) == ("later_pickup", "HARLEM")


def test_a_store_is_asked_for_its_own_stock_and_not_for_that_of_whoever_serves_it() -> None:
    """saleor PR 10218 and saleor#7274: the warehouse behind a store does not make it a place to collect at."""
    found = promised({("BROADWAY", "TEAPOT"): 0, ("NEWARK", "TEAPOT"): 50}, store="BROADWAY")
    assert found.chosen is not None
    assert found.chosen.way == "shipping"
    assert ("click_and_collect", "TEAPOT", "no_stock") in codes(found)


def test_a_chosen_store_is_the_only_one_to_collect_at_however_far() -> None:
    found = promised(EVERYWHERE, store="BOSTON", methods=PICKUP)
    assert found.chosen is not None
    assert {parcel.location_code for each in (found.chosen, *found.runners_up) for parcel in each.parcels} == {"BOSTON"}
    nowhere = promised(EVERYWHERE, store="NEWARK", methods=PICKUP)
    assert codes(nowhere, "click_and_collect") == {("click_and_collect", "TEAPOT", "not_sold_here")}


def test_two_lines_of_one_item_ask_for_their_sum() -> None:
    """medusa#16502: each line alone would fit."""
    stock = {("BROADWAY", "TEAPOT"): 3}
    assert promised(stock, ("TEAPOT", 2), methods=PICKUP).is_promised
    found = promised(stock, ("TEAPOT", 2), ("TEAPOT", 2), methods=PICKUP)
    assert not found.is_promised
    assert found.lines == (Line("TEAPOT", 4),)
    assert codes(found, "click_and_collect") == {("click_and_collect", "TEAPOT", "no_stock")}


def test_what_no_place_has_whole_is_split_over_places() -> None:
    stock = {("BOSTON", "TEAPOT"): 1, ("NEWARK", "TEAPOT"): 0, ("BOSTON", "KETTLE"): 0, ("NEWARK", "KETTLE"): 5}
    found = promised(stock, ("TEAPOT", 1), ("KETTLE", 1))
    assert found.chosen is not None
    assert {parcel.location_code for parcel in found.chosen.parcels} == {"BOSTON", "NEWARK"}
    assert found.text == "Delivered in 2 parcels, the last by 20:00 on Friday 19 June."


def test_some_is_collected_and_the_rest_sent_where_the_rules_like_it_best() -> None:
    stock = {("BROADWAY", "TEAPOT"): 2, ("NEWARK", "KETTLE"): 5}
    mixed = network(rules(("- [mixed] ", "#"), ("- [click_and_collect] ", "- [mixed]\n  - [click_and_collect] ")))
    found = promised(stock, ("TEAPOT", 1), ("KETTLE", 1), of=mixed)
    assert found.chosen is not None
    assert found.chosen.way == "mixed"
    assert found.text.startswith("1 × TEAPOT ready to be picked up at Broadway by 12:00")


def test_a_basket_of_low_value_is_never_split_and_says_so() -> None:
    stock = {("BOSTON", "TEAPOT"): 1, ("NEWARK", "KETTLE"): 5}
    thrifty = network(rules(("low_value_cents: 2000", "low_value_cents: 50000")))
    found = promised(stock, ("TEAPOT", 1), ("KETTLE", 1), of=thrifty)
    assert not found.is_promised
    assert ("ship_to_home", "TEAPOT", "not_sold_here") in codes(found)
    both = promised(
        stock | {("HARLEM", "TEAPOT"): 1, ("BROADWAY", "KETTLE"): 1}, ("TEAPOT", 1), ("KETTLE", 1), of=thrifty
    )
    assert ("click_and_collect", None, "split") in codes(both)


@pytest.mark.parametrize(
    ("stock", "line", "changes", "method", "reason"),
    [
        ({("BROADWAY", "TEAPOT"): 1}, ("NO SUCH", 1), {}, "click_and_collect", "unknown_sku"),
        ({("NEWARK", "TEAPOT"): 1}, ("TEAPOT", 1), {}, "click_and_collect", "not_sold_here"),
        ({("BOSTON", "TEAPOT"): 1}, ("TEAPOT", 1), {}, "click_and_collect", "beyond_distance"),
        ({("BROADWAY", "TEAPOT"): 1}, ("TEAPOT", 2), {}, "click_and_collect", "no_stock"),
        ({("BROADWAY", "TEAPOT"): 1}, ("TEAPOT", 1), {"channel": "marketplace"}, "click_and_collect", "not_asked"),
        ({("NEWARK", "TEAPOT"): 1}, ("TEAPOT", 1), {"wanted_by": TUESDAY + timedelta(hours=1)}, "ship_to_home", "too_late"),
        ({("BROADWAY", "TEAPOT"): 1}, ("TEAPOT", 1), {"spot": Spot(postal_code="99501")}, "ship_from_store", "rule:islands_are_not_served_from_stores"),
    ],
)  # fmt: skip
def test_a_refusal_names_what_stands_in_the_way(
    stock: dict, line: tuple, changes: dict, method: str, reason: str
) -> None:  # type: ignore[type-arg]
    found = promised(stock, line, **changes)
    assert (method, None if reason == "not_asked" else line[0], reason) in codes(found)


@pytest.mark.parametrize(
    ("at", "load", "reason"),
    [
        (datetime(2026, 6, 17, 0, 30, tzinfo=UTC), {}, "after_cut_off"),  # 20:30: no slot ends before closing
        (datetime(2026, 6, 17, 8, 30, tzinfo=UTC), {}, "closed"),
        (TUESDAY, {Hands("BROADWAY", int(datetime(2026, 6, 16, 15, tzinfo=UTC).timestamp()) + 3600 * hour, True): 24 for hour in range(10)}, "no_capacity"),
    ],
)  # fmt: skip
def test_why_not_today_is_told_beside_the_next_window(at: datetime, load: dict, reason: str) -> None:  # type: ignore[type-arg]
    found = promise(ask(methods=PICKUP), at, grounds({("BROADWAY", "TEAPOT"): 5}, loads=KnownLoads(load)))
    assert found.chosen is not None
    assert found.chosen.way == "later_pickup"
    assert found.chosen.promised_at == datetime(2026, 6, 17, 14, tzinfo=UTC)
    assert ("click_and_collect", None, reason) in codes(found)


def test_hands_that_are_promised_move_the_slot_and_the_departure() -> None:
    slot = int(datetime(2026, 6, 16, 15, tzinfo=UTC).timestamp())
    busy = KnownLoads({Hands("BROADWAY", slot, True): 24})
    found = promise(ask(methods=PICKUP), TUESDAY, grounds({("BROADWAY", "TEAPOT"): 5}, loads=busy))
    assert found.chosen is not None
    assert found.chosen.parcels[0].starts_at == datetime(2026, 6, 16, 16, tzinfo=UTC)
    today = int(datetime(2026, 6, 16, 21, tzinfo=UTC).timestamp())
    full = KnownLoads({Hands("NEWARK", today, False): 50_000})
    sent = promise(ask(), TUESDAY, grounds({("NEWARK", "TEAPOT"): 5}, loads=full))
    assert sent.chosen is not None
    assert sent.chosen.parcels[0].starts_at == datetime(2026, 6, 17, 21, tzinfo=UTC)


def test_a_rule_closes_a_way_and_a_rule_closes_a_carrier() -> None:
    own = rules((
        "  - name: heavy_goods_go_by_ground",
        "  - name: aerosols_are_not_sent\n    when: {categories: [aerosols]}\n    refuse: [ship_from_store, ship_to_home]\n  - name: heavy_goods_go_by_ground",
    ))  # fmt: skip
    found = promised({("NEWARK", "SPRAY"): 9}, ("SPRAY", 1), of=network(own))
    assert ("ship_to_home", "SPRAY", "rule:aerosols_are_not_sent") in codes(found)
    heavy = promised({("NEWARK", "ANVIL"): 9}, ("ANVIL", 1))
    assert heavy.chosen is not None
    assert {parcel.carrier for each in (heavy.chosen, *heavy.runners_up) for parcel in each.parcels} == {"ground"}


def test_units_that_others_wait_for_are_taken_first() -> None:
    chances = {("BROADWAY", "TEAPOT"): [0.99, 0.9, 0.8, 0.6, 0.5]}
    alone = {("BROADWAY", "TEAPOT"): {"on_hand_units": 5}}
    behind = {("BROADWAY", "TEAPOT"): {"on_hand_units": 5, "committed_units": 1, "held_units": 1}}
    first, second = (
        promise(ask(("TEAPOT", 2), methods=PICKUP), TUESDAY, grounds(stock, found=chances)) for stock in (alone, behind)
    )
    assert first.evidence.cells[0].found_probability == pytest.approx(0.9, abs=1e-4)
    assert second.evidence.cells[0].found_probability == pytest.approx(0.6, abs=1e-4)
    assert second.evidence.cells[0].basis == "belief"
    assert second.chosen is not None
    assert second.chosen.kept_probability == pytest.approx(0.6 * 0.97, abs=1e-4)


def test_without_a_belief_the_default_of_the_kind_of_place_counts_and_says_so() -> None:
    found = promised({("BROADWAY", "TEAPOT"): 5}, ("TEAPOT", 3), methods=PICKUP)
    (cell,) = found.evidence.cells
    assert (cell.basis, cell.found_probability) == ("default", pytest.approx(0.92 * 0.98**2))


def test_old_evidence_counts_for_less_and_too_old_for_nothing() -> None:
    stock = {("BROADWAY", "TEAPOT"): 5}
    chances = []
    for hours in (0, 6, 24):
        found = promise(ask(methods=PICKUP), TUESDAY, grounds(stock, known_at=TUESDAY - timedelta(hours=hours)))
        assert found.chosen is not None
        assert found.age_seconds == hours * 3600
        chances.append(found.chosen.kept_probability)
    assert chances == sorted(chances, reverse=True)
    assert len(set(chances)) == 3
    for known_at in (TUESDAY - timedelta(hours=49), None):
        silent = promise(ask(), TUESDAY, grounds(stock, known_at=known_at))
        assert not silent.is_promised
        assert {each.reason_code for each in silent.refusals} == {"stale_evidence"}


def test_what_is_too_unlikely_is_not_promised() -> None:
    chances = {("BROADWAY", "TEAPOT"): [0.3]}
    found = promise(ask(methods=PICKUP), TUESDAY, grounds({("BROADWAY", "TEAPOT"): 5}, found=chances))
    assert not found.is_promised
    assert ("click_and_collect", None, "too_unsure") in codes(found)


def test_what_cannot_be_had_is_left_out_where_the_shopper_allows_it() -> None:
    stock = {("BROADWAY", "TEAPOT"): 5}
    assert not promised(stock, ("TEAPOT", 1), ("KETTLE", 1)).is_promised
    found = promised(stock, ("TEAPOT", 1), ("KETTLE", 2), allow_partial=True)
    assert found.is_promised
    assert (found.lines, found.left_out) == ((Line("TEAPOT", 1),), (Line("KETTLE", 2),))
    assert found.text.endswith("We cannot get 2 × KETTLE for you now.")


def test_the_answer_names_what_it_rests_on_and_nowhere_where_the_shopper_is() -> None:
    spot = Spot(latitude=40.781_234, longitude=-73.971_234)
    found = promised(EVERYWHERE, spot=spot)
    told = msgspec.json.encode(found).decode()
    assert "40.78" not in told
    assert "73.97" not in told
    assert (found.evidence.log_offset, found.evidence.rules_hash) == (41, NETWORK.rules_hash)
    assert {(cell.location_code, cell.sku) for cell in found.evidence.cells} == {("BROADWAY", "TEAPOT")}


def test_a_postal_code_is_a_place_and_another_country_needs_coordinates() -> None:
    found = promised(EVERYWHERE, spot=Spot(postal_code="10025-1234"))
    assert found.chosen is not None
    assert found.chosen.parcels[0].location_code == "BROADWAY"
    for spot in (Spot(postal_code="1011AB", country_code="NL"), Spot(latitude=40.0), Spot()):
        with pytest.raises(PromiseError, match="expected latitude and longitude"):
            promised(EVERYWHERE, spot=spot)


stocks = st.dictionaries(
    st.tuples(st.sampled_from([place[0] for place in PLACES]), st.sampled_from(["TEAPOT", "KETTLE", "SPRAY"])),
    st.fixed_dictionaries({
        "on_hand_units": st.integers(-2, 6), "committed_units": st.integers(0, 3), "held_units": st.integers(0, 2),
        "damaged_units": st.integers(0, 2), "safety_units": st.integers(0, 1),
    }),
    min_size=1,
)  # fmt: skip
baskets = st.lists(st.tuples(st.sampled_from(["TEAPOT", "KETTLE", "SPRAY"]), st.integers(1, 3)), min_size=1, max_size=4)
moments = st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)).map(lambda at: at.replace(tzinfo=UTC))


def burden(option: object) -> tuple[float, ...]:
    assert isinstance(option, msgspec.Struct)
    return (option.cost_cents, option.promised_at.timestamp(), option.carbon_grams, 1 - option.kept_probability)  # type: ignore[attr-defined]


def asked_at(found: Promise) -> datetime:
    return found.asked_at


@settings(max_examples=60)
@given(stocks, baskets, moments)
def test_never_more_than_available_never_beaten_never_in_the_past_and_never_without_a_reason(
    stock: dict, basket: list, at: datetime  # type: ignore[type-arg]
) -> None:  # fmt: skip
    found = promise(ask(*basket), at, grounds(stock, known_at=at))
    asked: dict[str, int] = {}
    for sku, units in basket:
        asked[sku] = asked.get(sku, 0) + units
    options = [*([found.chosen] if found.chosen else []), *found.runners_up]
    assert found.is_promised == bool(options)
    for option in options:
        assert {line.sku: line.units for parcel in option.parcels for line in parcel.lines} == asked
        assert option.promised_at > at
        assert not any(
            all(a <= b for a, b in zip(burden(other), burden(option), strict=True))
            for other in options
            if other is not option
        )
        for parcel in option.parcels:
            for line in parcel.lines:
                parts = stock[parcel.location_code, line.sku]
                assert line.units <= parts["on_hand_units"] - sum(units for part, units in parts.items() if part != "on_hand_units")  # fmt: skip
    assert options or found.refusals
    assert all(each.reason_code in REASONS or each.reason_code.startswith("rule:") for each in found.refusals)
    assert found.text


@settings(max_examples=60)
@given(stocks, baskets, moments, st.data())
def test_more_stock_never_makes_the_best_way_worse(
    stock: dict, basket: list, at: datetime, data: st.DataObject
) -> None:  # type: ignore[type-arg]
    one_measure = network(rules(("  - [click_and_collect]   #", "  - [click_and_collect, shipping, mixed, later_pickup] #"), ("  - [shipping] ", "#"), ("  - [mixed] ", "#"), ("  - [later_pickup] ", "#")))  # fmt: skip
    more = dict(stock)
    for place in data.draw(st.lists(st.sampled_from(sorted(stock)), max_size=3)):
        more[place] = more[place] | {"on_hand_units": more[place]["on_hand_units"] + 4}
    before, after = (promise(ask(*basket), at, grounds(each, of=one_measure, known_at=at)) for each in (stock, more))
    if before.chosen is not None:
        assert after.chosen is not None
        assert after.chosen.score_cents <= before.chosen.score_cents
