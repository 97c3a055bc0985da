from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ModelsError
from models.stock.belief.beliefs import CELLS, Beliefs, at_least, mean_units
from models.stock.belief.believing import EVIDENCE, beliefs_at, believe, published, update
from models.stock.belief.evidence import Tables
from models.stock.belief.filtering import (
    ASK,
    COUNT,
    IN,
    MISS,
    OPEN,
    SALE,
    TAKE,
    TRANSFER_IN,
    Evidence,
    Scores,
    found_probability,
    moved,
    step,
    thinned,
)  # fmt: skip
from models.stock.belief.parameters import Parameters, opening_errors
from models.stock.belief.safety import safety_units

MONDAY = datetime(2026, 3, 2, 10, 30)
SHOP, HUB = "S001", "DC1"
LOCATIONS = pl.DataFrame(
    {
        "location_code": [SHOP, HUB],
        "location_type": ["store", "distribution_center"],
        "timezone_name": ["America/Chicago"] * 2,
    }
)
PRODUCTS = pl.DataFrame(
    {
        "sku": ["kettle", "kite", "tent"],
        "category_name": ["Kitchen", "Toys", "Sports"],
        "price_cents": [2400, 1600, 9900],
    }
)
MOVEMENT = {
    "location_code": pl.String, "sku": pl.String, "movement_type": pl.String, "units": pl.Int64, "occurred_at": pl.Datetime("us"),
    "known_at": pl.Datetime("us"),
}  # fmt: skip
PICK = {
    "location_code": pl.String, "sku": pl.String, "asked_units": pl.Int64, "picked_units": pl.Int64, "picked_at": pl.Datetime("us"),
    "known_at": pl.Datetime("us"),
}  # fmt: skip
COUNTED = {
    "location_code": pl.String, "sku": pl.String, "counted_units": pl.Int64, "counted_at": pl.Datetime("us"), "known_at": pl.Datetime("us"),
}  # fmt: skip


def tables(movements: list[tuple] = (), picks: list[tuple] = (), counts: list[tuple] = ()) -> Tables:  # type: ignore[type-arg,assignment]
    """Rows as (sku, what, units, day, late days): told on the morning after, or later; at the shop unless the SKU says `sku@location`."""

    def at(row: tuple, hour: int) -> list:  # type: ignore[type-arg]
        sku, _, location = row[0].partition("@")
        occurred = MONDAY + timedelta(days=row[3] - 1, hours=hour)
        return [
            location or SHOP,
            sku,
            *row[1:3],
            occurred,
            MONDAY + timedelta(days=row[3] + (row[4] if len(row) > 4 else 0), minutes=-20),
        ]

    return Tables(
        pl.DataFrame([at(row, 8 if row[1] == "sale" else 3) for row in movements], schema=MOVEMENT, orient="row"),
        pl.DataFrame([at(row, 9) for row in picks], schema=PICK, orient="row"),
        pl.DataFrame([[*(line := at(row, 5))[:2], *line[3:]] for row in counts], schema=COUNTED, orient="row"),
        PRODUCTS,
        LOCATIONS,
    )


def alone(**arrays: object) -> Beliefs:
    """One shop, one kettle, `base` and `mass` as given."""
    mass = np.asarray(arrays.pop("mass"), np.float32)
    beliefs = Beliefs(
        locations=LOCATIONS[:1], items=pl.DataFrame({"sku": ["kettle"], "category": ["Kitchen"]}), place=np.zeros(1, np.int32), item=np.zeros(1, np.int32),
        base=np.zeros(1, np.int32), mass=mass[None, :], books=np.zeros(1, np.int32), scale=np.ones(1, np.float32), traffic=np.zeros(1, np.float32),
        silent=np.zeros(1, np.float32),
    )  # fmt: skip
    for name in ("sold", "exposure", "asked", "quiet"):
        setattr(beliefs, name, np.zeros(1, np.float32))
    for name in ("seen_day", "counted_day", "missed_day"):
        setattr(beliefs, name, np.zeros(1, np.int32))
    for name, value in arrays.items():
        setattr(beliefs, name, value)
    return beliefs


def told(
    beliefs: Beliefs, events: list[tuple[int, int, int]], lines: int = 0, heard: int = 0, days: float = 1.0
) -> Evidence:
    """(kind, units, found) of the kettle, in order."""
    size = len(events)
    return Evidence(
        position=np.zeros(size, np.int32), kind=np.array([e[0] for e in events], np.int8), units=np.array([e[1] for e in events], np.int32),
        day=np.full(size, 7, np.int32), found=np.array([e[2] for e in events], np.int32), lines=np.array([lines], np.float32),
        heard=np.array([heard], np.float32), heard_days=np.array([min(heard, 1)], np.float32), place=beliefs.place, item=beliefs.item,
        locations=beliefs.locations, items=beliefs.items, days=days,
    )  # fmt: skip


def pieces(*chances: float) -> list[float]:
    whole = np.array(chances) / sum(chances)
    return [*whole, *[0.0] * (CELLS - len(chances))]


units = st.integers(0, 40)
events = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([IN, TRANSFER_IN, SALE, TAKE]), st.integers(1, 40), st.just(0)),
        st.tuples(st.sampled_from([COUNT, OPEN]), units, st.just(0)),
        st.tuples(st.just(ASK), st.integers(1, 5), st.integers(0, 5)),
        st.tuples(st.just(MISS), st.integers(1, 5), st.just(0)),
    ),
    max_size=12,
)
masses = st.lists(st.floats(0.01, 1), min_size=1, max_size=CELLS).map(lambda chances: pieces(*chances))


@settings(max_examples=50, deadline=None)
@given(masses, units, events, st.integers(0, 6), st.integers(0, 300))
def test_whatever_is_told_probabilities_stay_probabilities(
    mass: list[float], base: int, said: list, lines: int, heard: int
) -> None:  # type: ignore[type-arg]
    beliefs = alone(mass=mass, base=np.array([base], np.int32))
    for _ in range(2):
        step(beliefs, told(beliefs, said, lines, heard))
        assert beliefs.mass.min() >= 0
        assert beliefs.mass.sum() == pytest.approx(1, abs=1e-4)
        assert beliefs.base[0] >= 0


@settings(max_examples=50, deadline=None)
@given(masses, units)
def test_more_pieces_are_never_likelier_than_fewer(mass: list[float], base: int) -> None:
    beliefs = alone(
        mass=mass,
        base=np.array([base], np.int32),
        silent=np.array([2.0], np.float32),
        traffic=np.array([50.0], np.float32),
    )
    chances = found_probability(beliefs, range(80))[0]
    assert (np.diff(chances) <= 1e-6).all()
    assert chances[0] == 1


@settings(max_examples=50, deadline=None)
@given(masses, units, units)
def test_a_count_that_cannot_err_leaves_one_number(mass: list[float], base: int, counted: int) -> None:
    beliefs = alone(
        mass=mass, base=np.array([base], np.int32), parameters=Parameters(count_error=0, loss_per_day=0, gain_per_day=0)
    )
    step(beliefs, told(beliefs, [(COUNT, counted, 0)]))
    below, above = at_least(beliefs.base, beliefs.mass, [counted, counted + 1])[0]
    assert below == pytest.approx(1, abs=1e-5)
    assert above == pytest.approx(0, abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(masses, units, st.integers(1, 4))
def test_a_failed_pick_never_raises_what_will_be_found(mass: list[float], base: int, wanted: int) -> None:
    told_nothing, told_miss = (alone(mass=mass, base=np.array([base], np.int32)) for _ in range(2))
    step(told_nothing, told(told_nothing, []))
    step(told_miss, told(told_miss, [(ASK, wanted, 0), (MISS, wanted, 0)]))
    for q in range(1, 5):
        assert found_probability(told_miss, [q])[0, 0] <= found_probability(told_nothing, [q])[0, 0] + 1e-4


@settings(max_examples=50, deadline=None)
@given(masses, st.integers(1, 60))
def test_a_quiet_day_makes_an_empty_shelf_likelier(mass: list[float], heard: int) -> None:
    quiet, unheard = alone(mass=mass), alone(mass=mass)
    step(unheard, told(unheard, [], 0, 0))
    step(quiet, told(quiet, [], 0, heard))
    assert quiet.mass[0, 0] >= unheard.mass[0, 0] - 1e-4


@settings(max_examples=50, deadline=None)
@given(masses, units, st.integers(-30, 30), st.integers(0, 20))
def test_a_move_keeps_what_the_window_can_hold(mass: list[float], base: int, by: int, to: int) -> None:
    row, start, end = np.array([mass], np.float32), np.array([base], np.int32), np.array([to], np.int32)
    expected = np.zeros(CELLS)
    for cell, chance in enumerate(mass):
        expected[min(max(base + cell + by - to, 0), CELLS - 1)] += chance
    assert moved(start, row, np.array([by], np.int32), end)[0] == pytest.approx(expected, abs=1e-5)


def reference(opening: int, days: list[tuple[int, int, int]], p: Parameters) -> dict[int, float]:
    """The filter of one position without windows: opened, then by day (sold lines of a piece, heard lines, pieces in); as one would write it on paper."""
    errors = opening_errors(np.array([p.wrong_share], np.float32), p, CELLS)[0]
    belief: dict[int, float] = {}
    for cell, chance in enumerate(errors):
        belief[max(opening + cell - CELLS // 2, 0)] = belief.get(max(opening + cell - CELLS // 2, 0), 0) + float(chance)
    sold, exposure = 0.0, 0.0
    for lines, heard, arrived in days:
        before = 1 - belief.get(0, 0)
        belief = {n + arrived: c for n, c in belief.items()}
        for _ in range(lines):
            after: dict[int, float] = {}
            for n, c in belief.items():
                for left, share in (
                    (n - 1, (1 - p.slip) * (1 - p.mis_scan) * (n >= 1)),
                    (max(n - 1, 0), p.slip * (1 - p.mis_scan)),
                    (n, p.mis_scan),
                ):
                    after[left] = after.get(left, 0) + share * c
            belief = {n: c / sum(after.values()) for n, c in after.items() if n >= 0}
        there = 1.0 if lines else max(before, 1 - belief.get(0, 0))
        kind = (sold + 1) / (exposure + 1000)
        prior = (sold + 1) / (exposure + 1 / kind)
        a, share = p.likeness + sold, heard / (heard + p.likeness / prior + exposure)
        chance = [(1 - share) ** a]
        for n in range(lines):
            chance.append(chance[-1] * (a + n) / (n + 1) * share)
        belief[0] = belief.get(0, 0) * (1 - sum(chance[:lines])) / chance[lines]
        total, rate = sum(belief.values()), a / (p.likeness / prior + exposure)
        belief = {n: c / total for n, c in belief.items()}
        loss = p.loss_per_day + p.mis_scan * rate * heard
        drifted: dict[int, float] = {}
        for n, c in belief.items():
            for to, flow in (
                (n - 1, loss if n else 0),
                (n + 1, p.gain_per_day),
                (n, 1 - p.gain_per_day - (loss if n else 0)),
            ):
                drifted[to] = drifted.get(to, 0) + flow * c
        belief, sold, exposure = drifted, sold + lines, exposure + heard * there
    return belief


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 9),
    st.lists(st.tuples(st.integers(0, 3), st.integers(20, 80), st.sampled_from([0, 0, 4])), min_size=1, max_size=12),
)
def test_arrays_and_paper_agree(opening: int, days: list[tuple[int, int, int]]) -> None:
    # Where far more sold than books ever had, nothing likely is left, and single precision tells in the third digit.
    books, days = opening, list(days)
    for number, (lines, heard, arrived) in enumerate(days):
        days[number] = (min(lines, books + arrived + 3), heard, arrived)
        books += arrived - days[number][0]
    beliefs = alone(mass=pieces(1.0), parameters=(p := Parameters()))
    for number, (lines, heard, arrived) in enumerate(days):
        said = (
            ([(OPEN, opening, 0)] if number == 0 else [])
            + ([(IN, arrived, 0)] if arrived else [])
            + [(SALE, 1, 0)] * lines
        )
        step(beliefs, told(beliefs, said, lines, heard))
    paper = reference(opening, days, p)
    ours = at_least(beliefs.base, beliefs.mass, [1, 2, 3, 5])[0]
    for q, found in zip((1, 2, 3, 5), ours, strict=True):
        assert found == pytest.approx(sum(c for n, c in paper.items() if n >= q), abs=1e-3)


rows = st.lists(
    st.tuples(
        st.sampled_from(["kettle", "kite", "tent@DC1"]), st.sampled_from(["sale", "receipt", "transfer_in", "return", "adjustment", "destruction"]),
        st.integers(1, 6), st.integers(1, 6), st.integers(0, 3),
    ), max_size=25,
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(rows, st.lists(st.tuples(st.sampled_from(["kettle", "kite"]), st.integers(1, 3), st.integers(0, 3), st.integers(1, 6)), max_size=4),
       st.lists(st.tuples(st.sampled_from(["kettle", "tent@DC1"]), st.just("count"), st.integers(0, 9), st.integers(1, 6), st.integers(0, 3)), max_size=4))  # fmt: skip
def test_day_by_day_is_the_same_as_all_at_once(moves: list, picks: list, counts: list) -> None:  # type: ignore[type-arg]
    signed = [(s, k, -u if k in {"sale", "destruction"} else u, d, late) for s, k, u, d, late in moves]
    everything = tables([("kettle", "opening", 5, 0), ("tent@DC1", "opening", 300, 0), *signed], picks, counts)
    at_once = beliefs_at(everything, MONDAY + timedelta(days=9), Parameters())
    by_day = beliefs_at(everything.known(None, MONDAY + timedelta(days=4)), MONDAY + timedelta(days=4), Parameters())
    for day in range(5, 10):
        update(by_day, everything.known(None, MONDAY + timedelta(days=day)), MONDAY + timedelta(days=day))
    assert published(by_day).equals(published(at_once))


def test_a_warehouse_of_hundreds_is_known_to_the_piece() -> None:
    beliefs = beliefs_at(
        tables([("tent@DC1", "opening", 640, 0), ("tent@DC1", "shipment", -212, 1)]),
        MONDAY + timedelta(days=1),
        Parameters(),
    )
    assert mean_units(beliefs.base, beliefs.mass)[0] == pytest.approx(428, abs=0.5)
    assert found_probability(beliefs, [1, 400, 440])[0] == pytest.approx([1, 1, 0], abs=0.01)


def test_one_failed_pick_does_not_empty_a_warehouse_and_a_second_does() -> None:
    stock = [("tent@DC1", "opening", 640, 0)]
    once = beliefs_at(tables(stock, picks=[("tent@DC1", 1, 0, 1)]), MONDAY + timedelta(days=3), Parameters())
    twice = beliefs_at(
        tables(stock, picks=[("tent@DC1", 1, 0, 1), ("tent@DC1", 1, 0, 2)]), MONDAY + timedelta(days=3), Parameters()
    )
    assert found_probability(once, [600])[0, 0] > 0.9
    assert found_probability(twice, [1])[0, 0] < 0.1


def test_a_count_told_late_is_carried_forward_by_what_was_sold_since() -> None:
    known = tables([("kettle", "opening", 9, 0), ("kettle", "sale", -2, 3)], counts=[("kettle", "count", 4, 2, 3)])
    beliefs = beliefs_at(known, MONDAY + timedelta(days=5), Parameters(count_error=0))
    assert mean_units(beliefs.base, beliefs.mass)[0] == pytest.approx(2, abs=0.1)


def test_where_a_till_is_silent_less_is_promised() -> None:
    sales = [("kettle", "sale", -1, day) for day in range(1, 9)] + [
        ("kettle", "receipt", 1, day) for day in range(1, 9)
    ]
    known = tables([("kettle", "opening", 2, 0), *sales])
    heard = found_probability(beliefs_at(known, MONDAY + timedelta(days=8), Parameters()), [2])[0, 0]
    silent = found_probability(beliefs_at(known, MONDAY + timedelta(days=10), Parameters()), [2])[0, 0]
    assert silent < heard - 0.2


def test_a_correction_nobody_counted_for_is_taken_as_a_count() -> None:
    corrected = tables([("kettle", "opening", 9, 0), ("kettle", "adjustment", -6, 1)])
    assert mean_units(*_window(beliefs_at(corrected, MONDAY + timedelta(days=1), Parameters())))[0] == pytest.approx(
        3, abs=0.2
    )


def _window(beliefs: Beliefs) -> tuple[np.ndarray, np.ndarray]:
    return beliefs.base, beliefs.mass


def test_picks_are_foreseen_before_they_are_known() -> None:
    scores = Scores()
    known = tables([("kettle", "opening", 1, 0), ("kettle", "pick", -1, 1)], picks=[("kettle", 3, 1, 1)])
    beliefs_at(known, MONDAY + timedelta(days=1), Parameters(), scores)
    assert [each.tolist() for each in scores.outcome] == [[0]]
    assert scores.probability[0][0] < 0.2


def test_the_published_frame_says_what_it_rests_on() -> None:
    known = tables(
        [("kettle", "opening", 4, 0), ("kite", "opening", 2, 0), ("kite", "sale", -1, 1)],
        counts=[("kettle", "count", 4, 1)],
    )
    frame = believe(known, MONDAY + timedelta(days=1), model_version="0a")
    assert frame["evidence"].to_list() == ["counted", "left"]
    assert set(frame["evidence"]) <= set(EVIDENCE)
    assert frame["model_version"].to_list() == ["0a", "0a"]
    assert (frame["p_zero"] + frame["p_found_1"]).to_list() == pytest.approx([1, 1])
    assert frame["as_of_at"].to_list() == [MONDAY + timedelta(days=1)] * 2


def test_nothing_known_is_no_position() -> None:
    assert believe(tables(), MONDAY).height == 0


def test_time_does_not_run_backwards() -> None:
    beliefs = beliefs_at(tables([("kettle", "opening", 4, 0)]), MONDAY, Parameters())
    with pytest.raises(ModelsError, match="expected a time after"):
        update(beliefs, tables(), MONDAY)


def test_safety_units_cover_what_may_not_be_there_and_no_more_than_the_books() -> None:
    sure, doubtful, gone = pieces(0, 0, 0, 0, 1), pieces(0.2, 0.2, 0.2, 0.2, 0.2), pieces(1.0)
    kept = [
        int(safety_units(alone(mass=mass, books=np.array([4], np.int32)), 0.9)[0]) for mass in (sure, doubtful, gone)
    ]
    assert kept == [0, 4, 4]


@settings(max_examples=50, deadline=None)
@given(masses, st.floats(0.05, 5))
def test_unheard_demand_never_adds_a_piece(mass: list[float], expected: float) -> None:
    row, base = np.array([mass], np.float32), np.zeros(1, np.int32)
    less = thinned(base, row, np.array([expected], np.float32))
    assert less.sum() == pytest.approx(1, abs=1e-4)
    assert (at_least(base, less, range(1, 20)) <= at_least(base, row, range(1, 20)) + 1e-5).all()
