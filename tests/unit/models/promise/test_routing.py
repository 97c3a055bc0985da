from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.promise import routing
from models.promise.routing import Lanes, Worth, routes, undominated

WORTH = Worth(hour_cents=3_600, carbon_kg_cents=1_000, failure_cents=500, now=0)


@st.composite
def networks(draw: st.DrawFn, most_lanes: int = 6, most_lines: int = 4) -> Lanes:
    count, lines = draw(st.integers(1, most_lanes)), draw(st.integers(1, most_lines))
    seed = draw(st.integers(0, 2**32 - 1))
    chance = np.random.default_rng(seed)
    return Lanes(
        is_pickup=chance.random(count) < 0.3,
        promised=chance.integers(1, 5, count),
        on_time=chance.choice([0.9, 0.95, 1], count),
        cents=chance.integers(100, 600, count),
        grams=chance.integers(50, 300, count),
        serves=chance.random((count, lines)) < draw(st.sampled_from([0.4, 0.7, 1.0])),
        found=chance.choice([0.5, 0.8, 0.9, 1.0], (count, lines)),
        line_cents=chance.integers(0, 60, (count, lines)),
        line_grams=chance.integers(0, 60, (count, lines)),
    )


Burden = tuple[float, ...]


def every_way(lanes: Lanes, parcels: int, may_mix: bool) -> set[Burden]:
    """What each way to give every line a lane comes to: cents, seconds, grams, chance to fail."""
    found: set[Burden] = set()
    for ways in product(range(len(lanes)), repeat=lanes.serves.shape[1]):
        used = sorted(set(ways))
        pickups = sum(bool(lanes.is_pickup[lane]) for lane in used)
        mixes = len(used) > 1 and (pickups > 1 or (pickups == 1 and not may_mix))
        if mixes or len(used) > parcels or not all(lanes.serves[lane, line] for line, lane in enumerate(ways)):
            continue
        kept = 1.0
        for line, lane in enumerate(ways):
            kept *= lanes.found[lane, line]
        for lane in used:
            kept *= lanes.on_time[lane]
        cents = sum(lanes.cents[used]) + sum(lanes.line_cents[lane, line] for line, lane in enumerate(ways))
        grams = sum(lanes.grams[used]) + sum(lanes.line_grams[lane, line] for line, lane in enumerate(ways))
        found.add((float(cents), float(max(lanes.promised[used])), float(grams), round(1 - round(float(kept), 9), 9)))
    return found


def unbeaten(found: set[Burden]) -> set[Burden]:
    return {
        one for one in found if not any(other != one and all(a <= b for a, b in zip(other, one, strict=True)) for other in found)
    }  # fmt: skip


def burdens(found: routing.Routes) -> set[Burden]:
    return {(*map(float, row[:3]), round(float(row[3]), 9)) for row in found.burdens}


@given(networks(), st.integers(1, 4), st.booleans())
def test_the_ways_found_are_those_of_trying_every_assignment(lanes: Lanes, parcels: int, may_mix: bool) -> None:
    found = routes(lanes, parcels, may_mix=may_mix)
    assert found.is_exact
    assert burdens(found) == unbeaten(every_way(lanes, parcels, may_mix))


@given(networks(), st.integers(1, 3))
def test_leaving_out_worse_lanes_changes_nothing(lanes: Lanes, parcels: int) -> None:
    fewer = lanes.take(undominated(lanes))
    assert burdens(routes(fewer, parcels, may_mix=True)) == burdens(routes(lanes, parcels, may_mix=True))


@given(networks(), st.integers(1, 3), st.integers(0, 600))
def test_a_limit_on_splits_leaves_the_best_way_and_takes_away_worse_splits_alone(
    lanes: Lanes, parcels: int, within: int
) -> None:
    everything = routes(lanes, parcels, may_mix=True)
    found = routes(lanes, parcels, may_mix=True, worth=WORTH, within_cents=within)
    assert burdens(found) <= burdens(everything)
    if len(everything):
        scores = WORTH.score(everything.burdens)
        is_split = (everything.lane_of != everything.lane_of[:, :1]).any(axis=1)
        assert burdens(found) == burdens(everything.take(~is_split | (scores <= scores.min() + within)))


@given(networks(), st.integers(1, 3))
def test_the_best_by_score_is_never_beaten_in_everything(lanes: Lanes, parcels: int) -> None:
    every = every_way(lanes, parcels, True)
    found = routes(lanes, parcels, may_mix=True, worth=WORTH)
    if len(found):
        best = found.burdens[np.argmin(WORTH.score(found.burdens))]
        assert not any(all(a <= b + 1e-9 for a, b in zip(one, best, strict=True)) and any(a < b - 1e-9 for a, b in zip(one, best, strict=True)) for one in every)  # fmt: skip
        assert min(WORTH.score(np.array([one]))[0] for one in every) >= WORTH.score(best[None])[0] - 1e-6


@given(networks(), st.data())
def test_a_place_that_can_serve_more_never_makes_the_best_way_worse(lanes: Lanes, data: st.DataObject) -> None:
    more = lanes.serves.copy()
    for lane, line in data.draw(st.lists(st.tuples(st.integers(0, more.shape[0] - 1), st.integers(0, more.shape[1] - 1)), max_size=4)):  # fmt: skip
        more[lane, line] = True
    richer = routing.replace(lanes, serves=more)
    before, after = (routes(each, 3, may_mix=True, worth=WORTH) for each in (lanes, richer))
    if len(before):
        assert WORTH.score(after.burdens).min() <= WORTH.score(before.burdens).min() + 1e-9


def test_a_basket_of_more_lines_than_can_be_tried_is_shared_out_and_says_so() -> None:
    chance, lines = np.random.default_rng(4), 60
    serves = np.ones((4, lines), dtype=np.bool_)
    serves[0, 0] = serves[1, 1] = serves[2, 2] = serves[3, 3] = False  # nobody has everything
    lanes = Lanes(
        np.zeros(4, dtype=np.bool_), np.arange(4), np.full(4, 0.95), np.full(4, 500), np.full(4, 100), serves,
        np.full((4, lines), 0.999), chance.integers(1, 9, (4, lines)), chance.integers(1, 9, (4, lines)),
    )  # fmt: skip
    found = routes(lanes, 3, may_mix=False)
    assert len(found)
    assert not found.is_exact
    for route in found.lane_of:
        assert serves[route, np.arange(lines)].all()
        assert len(set(route.tolist())) in (2, 3)
