"""Which cells of a table of counts must not be shown, so that no small group can be read from it or worked out from its totals.

Threshold rule, then complementary suppression. That nothing hidden follows from what is shown is audited by the rank of
the published sums (L. H. Cox, Suppression Methodology and Statistical Disclosure Control, JASA 75, 1980, 377-385).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_NOUGHT = 1e-8


def hidden_cells(
    counts: Counts, people: Counts, sums: Mapping[int, Sequence[int]], least: int, has_total: bool = False
) -> Mask:
    """The cells to hide of a table of one row per cell, one column per count.

    `people`: how many different people are behind each count; from 1 to `least` - 1 is small. `sums`: column to the columns
    it is the sum of. `has_total`: the last row is the sum of the others. What is hidden of one sum is together of at least
    `least` people, and no hidden count is determined by those shown and their sums; what can be inferred of one is a range.
    """
    rows, columns = counts.shape
    lines = _lines(rows, columns, sums, has_total)
    weights, values = people.ravel(), counts.ravel()
    hidden = (weights > 0) & (weights < least)
    while True:
        given_away = [line for line in lines if _is_open(line, hidden, weights, least)]
        more = {found for line in given_away if (found := _smallest_shown(line, hidden, values)) is not None}
        if not more:
            exact = _determined(lines, hidden)
            settling = [line for line in lines if exact[np.abs(line) - 1].any()]
            shown = [found for line in settling if (found := _smallest_shown(line, hidden, values)) is not None]
            more = {min(shown, key=lambda place: (values[place] == 0, values[place], place))} if shown else set()
        if not more:
            return hidden.reshape(counts.shape)
        hidden[list(more)] = True


def _lines(rows: int, columns: int, sums: Mapping[int, Sequence[int]], has_total: bool) -> list[npt.NDArray[np.int64]]:
    """Every sum that a reader may take: 1 + the place of each part, and minus that of the whole, at the end."""
    of_rows = [
        np.array([*(row * columns + part + 1 for part in parts), -(row * columns + whole + 1)])
        for row in range(rows)
        for whole, parts in sums.items()
    ]
    last = (rows - 1) * columns
    of_columns = [
        np.array([*(row * columns + column + 1 for row in range(rows - 1)), -(last + column + 1)])
        for column in range(columns if has_total else 0)
    ]
    return [*of_rows, *of_columns]


def _is_open(line: npt.NDArray[np.int64], hidden: Mask, weights: Counts, least: int) -> bool:
    """Whether the sum gives away what is hidden in it: one cell alone, or too few people together."""
    places = np.abs(line) - 1
    if not hidden[places].any():
        return False
    parts = places[:-1][hidden[places[:-1]]]
    return not hidden[places[-1]] and int(weights[parts].sum()) < least


def _determined(lines: Sequence[npt.NDArray[np.int64]], hidden: Mask) -> Mask:
    """The hidden cells that have one value in every solution of the sums, given the cells shown."""
    places = np.flatnonzero(hidden)
    found = np.zeros(hidden.size, bool)
    touched = [line for line in lines if hidden[np.abs(line) - 1].any()]
    if not len(places) or not touched:
        return found
    at = np.zeros(hidden.size, np.int64)
    at[places] = np.arange(len(places))
    system = np.zeros((len(touched), len(places)))
    for number, line in enumerate(touched):
        mine = line[hidden[np.abs(line) - 1]]
        system[number, at[np.abs(mine) - 1]] = np.sign(mine)
    _, strengths, basis = np.linalg.svd(system)
    rank = int((strengths > _NOUGHT).sum())
    found[places] = np.abs(basis[rank:]).max(axis=0, initial=0.0) < _NOUGHT  # they do not move where solutions differ
    return found


def _smallest_shown(line: npt.NDArray[np.int64], hidden: Mask, values: Counts) -> int | None:
    """The cell of a sum whose loss costs least: the smallest that is shown; a nought only when nothing else is left."""
    shown = [int(place) for place in np.abs(line) - 1 if not hidden[place]]
    return min(shown, key=lambda place: (values[place] == 0, values[place], place), default=None)
