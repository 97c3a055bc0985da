"""Groups hold together as a whole: bridges, proofs and bans, on small graphs and at random."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.identity.clusters import DOUBT, MOST_TOGETHER, Pairs, clusters, components, undecided

Weights = Mapping[tuple[int, int], tuple[float, float]]  # bits above the bar, and within
GOOD, BAD = (5.0, 8.0), (-15.0, -8.0)


def pairs(weights: Weights) -> Pairs:
    ends = np.array(list(weights), np.int64).reshape(-1, 2)
    said = np.array(list(weights.values()), float).reshape(-1, 2)
    return Pairs(ends[:, 0], ends[:, 1], said[:, 0], said[:, 1])


def sure(ends: Iterable[tuple[int, int]]) -> Pairs:
    return pairs(dict.fromkeys(ends, (99.0, 99.0)))


def sets(label: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(label == name).tolist()) for name in set(label.tolist())}


def everyone(count: int, but: Weights, otherwise: tuple[float, float]) -> Weights:
    return dict.fromkeys(combinations(range(count), 2), otherwise) | dict(but)


TWO_FAMILIES = {pair: GOOD for group in ((0, 1, 2), (3, 4, 5)) for pair in combinations(group, 2)}


def test_two_strong_groups_with_one_weak_bridge_stay_two() -> None:
    bridged = pairs(everyone(6, {**TWO_FAMILIES, (2, 3): (0.5, 3.0)}, BAD))
    assert clusters(6, bridged).tolist() == [0, 0, 0, 3, 3, 3]


def test_even_a_strong_bridge_does_not_outvote_what_all_others_say() -> None:
    bridged = pairs(everyone(6, {**TWO_FAMILIES, (2, 3): GOOD}, BAD))
    assert clusters(6, bridged).tolist() == [0, 0, 0, 3, 3, 3]


def test_groups_whose_other_pairs_were_never_compared_are_not_joined_by_a_doubtful_bridge() -> None:
    assert clusters(6, pairs({**TWO_FAMILIES, (2, 3): (0.5, 3.0)})).tolist() == [0, 0, 0, 3, 3, 3]


def test_a_chain_of_good_links_becomes_one_where_its_ends_speak_for_it_a_little() -> None:
    links = {(number, number + 1): GOOD for number in range(5)}
    chain = pairs(everyone(6, links, (-2.0, DOUBT + 0.5)))
    assert clusters(6, chain).tolist() == [0] * 6


def test_nobody_is_joined_by_pairs_below_the_bar() -> None:
    assert clusters(3, pairs(everyone(3, {}, (-0.1, 30.0)))).tolist() == [0, 1, 2]
    assert clusters(0, pairs({})).tolist() == []


def test_what_is_proved_stays_together_against_all_evidence() -> None:
    worst = pairs(everyone(3, {}, (-60.0, -60.0)))
    assert clusters(3, worst, sure([(0, 1), (1, 2)])).tolist() == [0, 0, 0]


def test_proofs_hold_against_strong_links_that_pull_apart() -> None:
    pull = {(0, 2): (30.0, 40.0), (0, 3): (30.0, 40.0), (2, 3): (30.0, 40.0)}
    label = clusters(4, pairs(everyone(4, pull, (-60.0, -60.0))), sure([(0, 1)]))
    assert label[0] == label[1]


def test_a_forbidden_pair_is_apart_whatever_is_proved_or_likely() -> None:
    likely = pairs({(0, 1): GOOD})
    assert clusters(2, likely, None, sure([(0, 1)])).tolist() == [0, 1]
    assert clusters(2, likely, sure([(0, 1)]), sure([(0, 1)])).tolist() == [0, 1]


def test_records_joined_only_through_another_part_when_it_belongs_elsewhere() -> None:
    """0 and 1 would be believed one inside a set that 2 joins, but 2 is banned from both: nothing joins them."""
    triangle = pairs({(0, 1): (-1.0, 5.0), (0, 2): GOOD, (1, 2): GOOD})
    assert clusters(3, triangle, None, sure([(0, 2), (1, 2)])).tolist() == [0, 1, 2]


def test_a_crowd_is_joined_by_proof_alone() -> None:
    count = MOST_TOGETHER + 1
    star = pairs({(0, number): GOOD for number in range(1, count)})
    assert clusters(count, star).tolist() == list(range(count))
    label = clusters(count, star, sure([(5, 9), (9, 700)]), sure([(5, 8)]))
    assert sets(label) == {frozenset({5, 9, 700})} | {frozenset({n}) for n in range(count) if n not in {5, 9, 700}}
    parted = clusters(count, star, sure([(5, 9), (9, 700)]), sure([(5, 700)]))
    assert parted[5] != parted[700]
    assert parted[9] in (parted[5], parted[700])
    smaller = pairs({(0, number): GOOD for number in range(1, 3)} | {(1, 2): GOOD})
    assert clusters(count, smaller)[:4].tolist() == [0, 0, 0, 3]


def test_undecided_gives_the_pairs_not_compared_within_sets_of_three_and_more() -> None:
    known = pairs({(0, 1): GOOD, (1, 2): GOOD, (4, 3): GOOD, (5, 6): BAD, (8, 9): GOOD, (7, 8): GOOD, (7, 9): BAD})
    first, second = undecided(12, known, sure([(10, 2)]))
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == {(0, 2), (0, 10), (1, 10), (2, 10)}
    assert [found.tolist() for found in undecided(3, pairs({}))] == [[], []]


PEOPLE = 9
ENDS = st.tuples(st.integers(0, PEOPLE - 1), st.integers(0, PEOPLE - 1)).map(sorted).map(tuple).filter(lambda e: e[0] != e[1])  # fmt: skip
BITS = st.floats(-20, 20, allow_nan=False)
GRAPHS = st.dictionaries(ENDS, st.tuples(BITS, BITS), max_size=24)
FEW = st.sets(ENDS, max_size=5)


def _connected(inside: frozenset[int], joining: set[tuple[int, int]]) -> bool:
    place = {record: number for number, record in enumerate(sorted(inside))}
    ends = [(place[a], place[b]) for a, b in joining if a in inside and b in inside]
    first, second = np.array(ends, int).reshape(-1, 2).T
    return len(set(components(len(inside), first, second).tolist())) == 1


@settings(max_examples=200, deadline=None)
@given(GRAPHS, FEW, FEW)
def test_whatever_the_evidence_proofs_join_bans_part_and_nothing_else_joins_than_likely_pairs(
    graph: dict[Any, Any], proofs: set[Any], bans: set[Any]
) -> None:
    label = clusters(PEOPLE, pairs(graph), sure(sorted(proofs)), sure(sorted(bans)))
    assert all(label[group_name] == group_name for group_name in set(label.tolist()))
    assert all(min(group) == label[min(group)] for group in sets(label))
    assert all(label[a] != label[b] for a, b in bans)
    first, second = np.array(sorted(proofs), int).reshape(-1, 2).T
    proved = components(PEOPLE, first, second)
    torn = {proved[a] for a, b in bans if proved[a] == proved[b]}
    assert all(label[a] == label[b] for a, b in proofs if proved[a] not in torn)
    joining = {ends for ends, (bits, _) in graph.items() if bits >= 0} | proofs
    assert all(_connected(group, joining) for group in sets(label))


@settings(max_examples=200, deadline=None)
@given(st.permutations(range(PEOPLE)), st.integers(0, 10**6), FEW)
def test_who_is_together_does_not_depend_on_how_records_are_numbered(
    order: list[int], seed: int, bans: set[Any]
) -> None:
    """Weights all different, all pairs compared: where the evidence is equal to the last bit, either answer is right."""
    random = np.random.default_rng(seed)
    graph = {ends: tuple(random.uniform(-20, 20, 2)) for ends in combinations(range(PEOPLE), 2)}
    proofs = sorted({(0, 1), (2, 3)} - bans)
    plain = clusters(PEOPLE, pairs(graph), sure(proofs), sure(sorted(bans)))  # type: ignore[arg-type]
    shuffled = list(graph)
    random.shuffle(shuffled)
    renumbered = clusters(
        PEOPLE,
        pairs({(order[b], order[a]): graph[a, b] for a, b in shuffled}),  # type: ignore[misc]
        sure([(order[b], order[a]) for a, b in reversed(proofs)]),
        sure([(order[a], order[b]) for a, b in sorted(bans)]),
    )
    assert sets(renumbered) == {frozenset(order[record] for record in group) for group in sets(plain)}


@settings(max_examples=60, deadline=None)
@given(GRAPHS, FEW)
def test_undecided_and_compared_pairs_make_up_all_pairs_of_each_set(graph: dict[Any, Any], proofs: set[Any]) -> None:
    first, second = undecided(PEOPLE, pairs(graph), sure(sorted(proofs)))
    found = list(zip(first.tolist(), second.tolist(), strict=True))
    joining = np.array(sorted({ends for ends, (bits, _) in graph.items() if bits >= 0} | proofs), int).reshape(-1, 2).T
    whole = [group for group in sets(components(PEOPLE, joining[0], joining[1])) if len(group) > 2]
    wanted = {ends for group in whole for ends in combinations(sorted(group), 2)} - graph.keys()
    assert len(found) == len(set(found))
    assert set(found) == wanted
