"""Every store of holds answers as the reference does, whatever is asked in whatever order and by whatever clock."""

import itertools
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from models.stock.holds.store import Holds
from models.stock.holds.words import Hold, Level, Limits, Line, Refusal, Request, Settlement
from tests.integration.held import Reference, closing, minutes, opened
from tests.integration.redis_server import running_redis

_EXAMPLES = itertools.count()
_LONGEST = 40
_PLACES = [("mitte", "bulb"), ("mitte", "kettle"), ("hafen", "bulb"), ("hafen", "ghost")]
places = st.sampled_from(_PLACES)
lines = st.lists(st.tuples(places, st.integers(1, 3)), min_size=1, max_size=4)
keys = st.sampled_from("abcdef")
times = st.integers(0, 60)


class Holding(RuleBasedStateMachine):
    """Asks a store and the reference the same, and compares everything after every step."""

    store: Holds

    def __init__(self) -> None:
        super().__init__()
        self.mark = f"{next(_EXAMPLES)}-"
        self.reference = Reference()
        self.ids: dict[str, str] = {}
        self.at = 0

    @rule(place=places, units=st.integers(-2, 8), version=st.integers(0, 9))
    def set_free(self, place: tuple[str, str], units: int, version: int) -> None:
        if place[1] != "ghost":
            self.store.set_free([(self.mark + place[0], place[1], units)], version)
            self.reference.set_free(place, units, version)

    @rule(key=keys, wanted=lines, lasting=st.sampled_from([10, 20]), at=times)
    def hold(self, key: str, wanted: list[tuple[tuple[str, str], int]], lasting: int, at: int) -> None:
        self.at = at
        request = Request(self.mark + key, self._lines(wanted), timedelta(minutes=lasting))
        answer = self.store.hold(request, minutes(at))
        summed: dict[tuple[str, str], int] = {}
        for place, units in wanted:
            summed[place] = summed.get(place, 0) + units
        self._compare(answer, self.reference.hold(key, summed, lasting, at))
        if isinstance(answer, Hold):
            assert self.ids.setdefault(key, answer.hold_id) == answer.hold_id
        elif answer.reason == "not_enough":
            for short in answer.shortages:
                place = (short.location_code.removeprefix(self.mark), short.sku)
                assert (short.free_units, short.held_units) == (
                    self.reference.free(place), self.reference.held(place, at),
                )  # fmt: skip
                assert short.asked_units == summed[place]
                assert short.short_units > 0

    @rule(key=keys, until=st.integers(0, 90), at=times)
    def extend(self, key: str, until: int, at: int) -> None:
        self.at = at
        if key in self.ids:
            answer = self.store.extend(self.ids[key], minutes(until), minutes(at))
            self._compare(answer, self.reference.extend(key, until, at, _LONGEST))

    @rule(key=keys, at=times)
    def release(self, key: str, at: int) -> None:
        self.at = at
        if key in self.ids:
            self._compare(self.store.release(self.ids[key], minutes(at)), self.reference.release(key))

    @rule(key=keys, part=st.none() | lines, version=st.none() | st.integers(0, 9), at=times)
    def settle(self, key: str, part: list[tuple[tuple[str, str], int]] | None, version: int | None, at: int) -> None:
        self.at = at
        if key not in self.ids:
            return
        total = dict(self.reference.holds[key].request if part is None else part)
        was = self.reference.holds[key].state(at)
        said = None if part is None else self._lines(list(total.items()))
        answer = self.store.settle(self.ids[key], minutes(at), said, version)
        refusal = self.reference.settle(key, total, version)
        self._compare(answer.hold if isinstance(answer, Settlement) else answer, refusal)
        if isinstance(answer, Settlement):
            assert answer.was == was
            for short in answer.overdrawn:
                place = (short.location_code.removeprefix(self.mark), short.sku)
                assert self.reference.held(place, at) > max(0, self.reference.free(place))

    @rule(at=times)
    def sweep(self, at: int) -> None:
        self.at = at
        self.store.sweep(minutes(at), 10_000)
        self.reference.sweep(at)

    @invariant()
    def all_levels_and_holds_are_those_of_the_reference(self) -> None:
        known = self.reference
        levels = self.store.levels([(self.mark + place[0], place[1]) for place in _PLACES], minutes(self.at))
        assert levels == [
            Level(known.free(place), known.held(place, self.at)) if place in known.told else None for place in _PLACES
        ]
        for key, hold_id in self.ids.items():
            found, expected = self.store.get(hold_id, minutes(self.at)), known.holds[key]
            assert isinstance(found, Hold)
            assert (found.state, found.expires_at) == (expected.state(self.at), minutes(expected.expires))
            assert {
                (line.location_code.removeprefix(self.mark), line.sku): (
                    line.units,
                    line.settled_units,
                    line.held_units,
                )
                for line in found.lines
            } == {
                place: (units, expected.settled.get(place, 0), expected.left(place) if found.state == "held" else 0)
                for place, units in expected.request.items()
            }
        alive = [hold for hold in self._listed() if hold.key.startswith(self.mark)]
        assert sorted(hold.key.removeprefix(self.mark) for hold in alive) == sorted(
            key for key, hold in known.holds.items() if hold.state(self.at) == "held"
        )

    def _listed(self) -> Iterator[Hold]:
        page = self.store.active(minutes(self.at), limit=2)
        yield from page.holds
        while page.next:
            page = self.store.active(minutes(self.at), page.next, limit=2)
            yield from page.holds

    def _lines(self, wanted: list[tuple[tuple[str, str], int]]) -> tuple[Line, ...]:
        return tuple(Line(self.mark + place[0], place[1], units) for place, units in wanted)

    def _compare(self, answer: Hold | Refusal, refusal: str | None) -> None:
        assert (answer.reason if isinstance(answer, Refusal) else None) == refusal

    def teardown(self) -> None:
        for hold_id in self.ids.values():
            self.store.release(hold_id, minutes(0))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "redis"])
def test_a_store_answers_as_the_reference_does(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if kind == "redis":
        with running_redis() as server:
            _hold_to_reference(server.address)
    else:
        place = str(tmp_path / "stock.db") if kind == "sqlite" else request.getfixturevalue("postgres_place")
        _hold_to_reference(place)


def _hold_to_reference(place: str) -> None:
    with closing(opened(place, Limits(lasting=timedelta(minutes=_LONGEST)))) as store:
        machine = type("Machine", (Holding,), {"store": store})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=8,
                stateful_step_count=20,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=[
                    Phase.explicit,
                    Phase.generate,
                ],  # a smaller case takes minutes to find; the larger one says enough
            ),
        )
