"""From pairs to people: groups that hold together as a whole, so that one weak bridge does not make one person of two.

Within each set of records joined by likely pairs, average linkage (Sokal and Michener 1958, UPGMA) over the evidence of all pairs, for and
against: two groups become one only while the evidence between them, on average, speaks for it. There the question is no more whether two
records out of all are of one person, which is rare, but whether two that a chain joins are: that prior is even.
"""

from dataclasses import dataclass

import numpy as np

MOST_BITS = 6.0  # that one pair may weigh: no single agreement outvotes many disagreements
DOUBT = 2.0  # bits by which the evidence between two groups must speak for one person
_NEVER = 1e9
_TIE, _MOST_SAID = 1e-7, 500.0  # of two pairs that weigh as much as one may, the one of which more was said goes first

Numbers = np.ndarray


@dataclass(frozen=True)
class Pairs:
    """Compared records by number. `bits`: by how much the odds of one person lie above the bar, among all pairs; `within`: log2 odds
    among pairs that a chain joins."""

    first: Numbers
    second: Numbers
    bits: Numbers
    within: Numbers

    @property
    def columns(self) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        return self.first, self.second, self.bits, self.within

    def only(self, kept: Numbers) -> "Pairs":
        return Pairs(*(column[kept] for column in self.columns))


def components(count: int, first: Numbers, second: Numbers) -> Numbers:
    """Number of the connected set of each of `count` records."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(first), np.int8)
    found: Numbers = connected_components(coo_matrix((ones, (first, second)), (count, count)), directed=False)[1]
    return found


def undecided(count: int, pairs: Pairs, proved: Pairs | None = None) -> tuple[Numbers, Numbers]:
    """The pairs not compared yet within sets that likely or proved pairs join: what `clusters` wants to know of them too."""
    first, second = _joining(pairs, proved)
    label = components(count, first, second)
    members = np.argsort(label, kind="stable")
    sizes = np.bincount(label)
    starts = np.r_[0, np.cumsum(sizes)[:-1]]
    inside = label[pairs.first] == label[pairs.second]
    seen = _codes(count, pairs.first[inside], pairs.second[inside])
    wanted: list[Numbers] = []
    for at in np.flatnonzero((sizes > 2) & (sizes <= MOST_TOGETHER)):
        group = np.sort(members[starts[at] : starts[at] + sizes[at]])
        rows, columns = np.triu_indices(len(group), 1)
        wanted.append(np.stack([group[rows], group[columns]], 1))
    if not wanted:
        return np.zeros(0, int), np.zeros(0, int)
    every = np.concatenate(wanted)
    fresh = np.isin(_codes(count, every[:, 0], every[:, 1]), seen, invert=True)
    return every[fresh, 0], every[fresh, 1]


MOST_TOGETHER = 2_000  # records in one connected set that are weighed against each other


def clusters(count: int, pairs: Pairs, proved: Pairs | None = None, forbidden: Pairs | None = None) -> Numbers:
    """The group of each of `count` records, named by its smallest record.

    `proved` pairs are together whatever else is known, unless `forbidden` parts them: a steward's no outweighs everything.
    """
    first, second = _joining(pairs, proved)
    label = components(count, first, second)
    is_crowded = np.bincount(label)[label] > MOST_TOGETHER if count else np.zeros(0, bool)
    if is_crowded.any():  # a crowd shares a default value, not a person: only what is proved joins there
        pairs = pairs.only(~is_crowded[pairs.first] & ~is_crowded[pairs.second])
        first, second = _joining(pairs, proved)
        label = components(count, first, second)
    result = np.arange(count)
    sizes = np.bincount(label)
    order = np.argsort(label, kind="stable")
    starts = np.r_[0, np.cumsum(sizes)[:-1]]
    place = np.empty(count, int)
    place[order] = np.arange(count) - starts[label[order]]
    inside = label[pairs.first] == label[pairs.second]
    by_set = _by_label(label, pairs, inside)
    proofs = _by_label(label, proved) if proved else {}
    bans = _by_label(label, forbidden, label[forbidden.first] == label[forbidden.second]) if forbidden else {}
    for at in np.flatnonzero(sizes > 1).tolist():
        group = order[starts[at] : starts[at] + sizes[at]]
        part = by_set.get(at)
        if at not in bans and (len(group) == 2 or part is None or _all_agree(part, len(group))):
            result[group] = group.min()
            continue
        names = _weighed(len(group), place, part, proofs.get(at), bans.get(at))
        smallest = np.full(names.max() + 1, count)
        np.minimum.at(smallest, names, group)
        result[group] = smallest[names]
    kept = result[first] == result[second]
    parts = components(count, first[kept], second[kept])  # who was joined through somebody that then went elsewhere
    heads = np.full(count, count)
    np.minimum.at(heads, parts, np.arange(count))
    return np.asarray(heads[parts])


def _joining(pairs: Pairs, proved: Pairs | None) -> tuple[Numbers, Numbers]:
    likely = pairs.bits >= 0
    first, second = pairs.first[likely], pairs.second[likely]
    if proved is None:
        return first, second
    return np.r_[first, proved.first], np.r_[second, proved.second]


def _codes(count: int, first: Numbers, second: Numbers) -> Numbers:
    return np.asarray(np.minimum(first, second).astype(np.int64) * count + np.maximum(first, second))


def _by_label(label: Numbers, pairs: Pairs, kept: Numbers | None = None) -> dict[int, Pairs]:
    """Pairs by the set both records are in."""
    chosen = np.arange(len(pairs.first)) if kept is None else np.flatnonzero(kept)
    labels = label[pairs.first[chosen]]
    order = chosen[np.argsort(labels, kind="stable")]
    names, starts = np.unique(label[pairs.first[order]], return_index=True)
    ends = np.r_[starts[1:], len(order)][: len(starts)]
    return {
        int(name): pairs.only(some)
        for name, some in ((name, order[start:end]) for name, start, end in zip(names, starts, ends, strict=True))
    }


def _all_agree(part: Pairs, size: int) -> bool:
    return len(part.bits) == size * (size - 1) // 2 and bool((part.bits >= 0).all())


def _weighed(size: int, place: Numbers, part: Pairs | None, proofs: Pairs | None, bans: Pairs | None) -> Numbers:
    """Number of the group of each record of one connected set."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    distance = np.full((size, size), MOST_BITS + 1.0)  # what is not known speaks a little against
    if part is not None:
        said = part.within - DOUBT
        ties = _TIE * (_MOST_SAID - np.clip(said, -_MOST_SAID, _MOST_SAID - 1.0))
        _set(distance, place, part, MOST_BITS - np.clip(said, -MOST_BITS, MOST_BITS) + ties)
    if proofs is not None:
        together = components(size, place[proofs.first], place[proofs.second])
        distance[together[:, None] == together[None, :]] = _TIE / 2
        _set(distance, place, proofs, np.zeros(len(proofs.first)))
    if bans is not None:
        _set(distance, place, bans, np.full(len(bans.first), _NEVER))
    np.fill_diagonal(distance, 0.0)
    found: Numbers = fcluster(linkage(squareform(distance, checks=False), "average"), MOST_BITS, "distance")
    return found


def _set(distance: Numbers, place: Numbers, pairs: Pairs, values: Numbers) -> None:
    distance[place[pairs.first], place[pairs.second]] = values
    distance[place[pairs.second], place[pairs.first]] = values
