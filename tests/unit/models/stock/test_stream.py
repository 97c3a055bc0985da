from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.stock.stream import Base, Change, GivenUp, Gone, Moved, Ordered, Place, Stream, Told, hashed

SKUS, PLACES, ORDERS = ("tent", "rope"), ("S001", "DC1"), ("1", "2", "3")
EMPTY = {"location_code": pl.String, "sku": pl.String, "on_hand_units": pl.Int64, "committed_units": pl.Int64,
         "last_event_at": pl.Int64}  # fmt: skip
UNITS = st.integers(1, 5)
CHANGES = st.lists(
    st.one_of(
        st.builds(Moved, st.integers(0, 9).map("m{}".format), st.sampled_from(PLACES), st.sampled_from(SKUS), st.integers(-5, 5), st.integers(1, 99)),
        st.builds(Gone, st.integers(0, 9).map("g{}".format), st.sampled_from(ORDERS).map("#{}".format), st.sampled_from(SKUS), UNITS),
        st.builds(GivenUp, st.integers(0, 9).map("r{}".format), st.sampled_from(ORDERS), st.sampled_from(SKUS), UNITS),
        st.tuples(st.sampled_from(ORDERS), st.integers(1, 20), st.booleans(), st.sampled_from(PLACES), st.dictionaries(st.sampled_from(SKUS), UNITS)).map(
            lambda told: Ordered(told[0], f"#{told[0]}", *told[1:])
        ),
    ),
    max_size=25,
)  # fmt: skip


def settled(changes: Iterable[Change]) -> tuple[dict[tuple[type, str], Change], dict[str, Ordered]]:
    """Every effect once, the newest version of every order."""
    effects: dict[tuple[type, str], Change] = {}
    orders: dict[str, Ordered] = {}
    for change in changes:
        if not isinstance(change, Ordered):
            effects.setdefault((type(change), change[0]), change)
        elif change.order_id not in orders or change.updated_at >= orders[change.order_id].updated_at:
            orders[change.order_id] = change
    return effects, orders


def reckoned(changes: Sequence[Change]) -> dict[Place, tuple[int, int]]:
    """On hand and committed by position, from scratch."""
    effects, orders = settled(changes)
    on_hand: dict[Place, int] = defaultdict(int)
    committed: dict[Place, int] = defaultdict(int)
    for effect in effects.values():
        if isinstance(effect, Moved):
            on_hand[effect.location_code, effect.sku] += effect.units
    for order in orders.values():
        for sku, units in order.lines.items() if order.is_open else ():
            gone = [
                each.units
                for each in effects.values()
                if isinstance(each, Gone) and (each.order_name, each.sku) == (order.order_name, sku)
            ]
            given_up = [
                each.units
                for each in effects.values()
                if isinstance(each, GivenUp) and (each.order_id, each.sku) == (order.order_id, sku)
            ]
            committed[order.location_code, sku] += max(0, units - sum(gone) - sum(given_up))
    return {place: (on_hand[place], committed[place]) for place in ((a, b) for a in PLACES for b in SKUS)}


def warehouse(changes: Sequence[Change], offset: int) -> Base:
    """What the warehouse would publish that knows these changes, whichever way it had them."""
    effects, orders = settled(changes)
    gone: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    given_up: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for effect in effects.values():
        if isinstance(effect, Gone):
            gone[effect.order_name][effect.sku] += effect.units
        elif isinstance(effect, GivenUp):
            given_up[effect.order_id][effect.sku] += effect.units
    rows = [(*place, *parts, 0) for place, parts in reckoned(changes).items() if any(parts)]
    booked = np.sort(hashed(pl.Series([effect[0] for effect in effects.values()], dtype=pl.String)))
    return Base(pl.DataFrame(rows, schema=EMPTY, orient="row"), orders, gone, given_up, booked, offset)


def shown(stream: Stream) -> dict[Place, tuple[int, int]]:
    places = [(a, b) for a in PLACES for b in SKUS]
    parts = stream.parts(places)
    return dict(
        zip(places, zip(parts["on_hand_units"].tolist(), parts["committed_units"].tolist(), strict=True), strict=True)
    )


def told(changes: Iterable[Change], after: int = 0) -> list[Told]:
    return [Told(offset, change) for offset, change in enumerate(changes, after + 1)]


def consistent(changes: Sequence[Change]) -> list[Change]:
    """An id names one effect, a time of an order one version of it."""
    effects: dict[tuple[object, ...], Change] = {}
    return [
        effects.setdefault((type(each), each[0], each[2] if isinstance(each, Ordered) else None), each)
        for each in changes
    ]


@given(
    CHANGES.map(consistent), st.integers(0, 25), st.sets(st.integers(0, 24)), st.lists(st.integers(1, 9), max_size=9)
)
def test_what_the_warehouse_knows_and_what_the_stream_adds_is_all_there_is(
    changes: list[Change], split: int, by_file: set[int], sizes: list[int]
) -> None:
    split = min(split, len(changes))
    files = [change for place, change in enumerate(changes) if place >= split and place in by_file]
    stream = Stream(warehouse([*changes[:split], *files], split))
    queue = told(changes)[split:]
    for size in (*sizes, len(queue)):
        stream.apply(queue[:size])
        queue = queue[size:]
    assert shown(stream) == reckoned(changes)
    before = shown(stream)
    stream.apply(told(changes))  # all of it again
    assert shown(stream) == before


@given(CHANGES.map(consistent), CHANGES.map(consistent), st.integers(0, 25))
def test_a_rebase_keeps_what_the_warehouse_does_not_know_yet_and_names_every_difference(
    streamed: list[Change], filed: list[Change], split: int
) -> None:
    both = consistent([*streamed, *filed])
    streamed, filed = both[: len(streamed)], both[len(streamed) :]
    split = min(split, len(streamed))
    stream = Stream(warehouse([], 0))
    stream.apply(told(streamed))
    before = shown(stream)
    rebased = stream.rebase(warehouse([*streamed[:split], *filed], split))
    after = shown(stream)
    assert after == reckoned([*streamed[:split], *filed, *streamed[split:]])
    names = ("on_hand_units", "committed_units")
    differing = {(*place, names[part], before[place][part], after[place][part])
                 for place in before for part in (0, 1) if before[place][part] != after[place][part]}  # fmt: skip
    assert {tuple(drift) for drift in rebased.drifts} == differing
    assert {drift[:2] for drift in differing} <= rebased.touched
    stream.apply(told(streamed))
    assert shown(stream) == after


@given(CHANGES.map(consistent))
def test_every_position_that_changes_is_named(changes: list[Change]) -> None:
    stream = Stream(warehouse([], 0))
    for each in told(changes):
        before = shown(stream)
        touched = stream.apply([each])
        after = shown(stream)
        assert {place for place in before if before[place] != after[place]} <= touched


def test_an_older_version_of_an_order_changes_nothing() -> None:
    stream = Stream(warehouse([], 0))
    stream.apply(
        told([Ordered("1", "#1", 9, True, "S001", {"tent": 2}), Ordered("1", "#1", 8, True, "S001", {"tent": 5})])
    )
    assert shown(stream)["S001", "tent"] == (0, 2)


def test_a_base_never_goes_back_and_names_a_position_once() -> None:
    stream = Stream(warehouse([], 5))
    with pytest.raises(ValueError, match="offset"):
        stream.rebase(warehouse([], 4))
    twice = pl.DataFrame([("S001", "tent", 1, 0, 0)] * 2, schema=EMPTY, orient="row")
    with pytest.raises(ValueError, match="once"):
        Base(twice)
