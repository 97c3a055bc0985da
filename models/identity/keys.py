"""Which records are worth comparing: keys whose agreement makes two records a candidate pair, chosen from what the records hold.

A value that very many records share is no key: it would compare everyone with everyone, and says nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import polars as pl

from models.identity.fields import KEYS, Field, Key

MOST_PER_VALUE = 500  # records that share a value of a key
PAIRS_PER_RECORD = 30.0  # how many comparisons a record may cost
MOST_COMPARISONS = 2_000  # that finding one more pair of one person is worth
_SEPARATOR = "\x1f"

Numbers = np.ndarray


@dataclass(frozen=True, slots=True)
class Reach:
    """A key as fields and the number of their best levels that suffice."""

    key: Key
    best: Mapping[int, int]


def reach(key: Key, fields: Sequence[Field]) -> Reach | None:
    """None where the records lack a field of the key."""
    place = {field.name: number for number, field in enumerate(fields)}
    if not all(name in place for name, _ in key.reaches):
        return None
    return Reach(key, {place[name]: fields[place[name]].level_names.index(level) + 1 for name, level in key.reaches})


def key_value(key: Key) -> pl.Expr:
    """The value of a key: its columns in one text, null where one is missing."""
    return pl.concat_str([pl.col(column) for column in key.columns], separator=_SEPARATOR)


def pair_counts(records: pl.DataFrame, keys: Iterable[Key]) -> dict[Key, float]:
    """How many pairs of records each key makes, without the values that too many share."""
    found = {}
    for key in keys:
        if set(key.columns) <= set(records.columns):
            size = records.lazy().select(value=key_value(key)).drop_nulls().group_by("value").len().collect()["len"]
            size = size.filter(size <= MOST_PER_VALUE).cast(pl.Float64)
            found[key] = float((size * (size - 1) / 2).sum())
    return found


def chosen(records: pl.DataFrame, fields: Sequence[Field], person: Sequence[Numbers], present: Numbers) -> list[Reach]:
    """The keys to compare by: each the one that reaches most pairs of one person for the comparisons it costs, while that is worth it.

    `person`: by field, the share of pairs of one person at each level; `present`: by field, of pairs in which both records have it.
    """
    budget = PAIRS_PER_RECORD * records.height
    costs = pair_counts(records, KEYS)
    able = [(each, cost) for key, cost in costs.items() if (each := reach(key, fields)) and 0 < cost <= budget]
    taken: list[Reach] = []
    reached = 0.0
    while able:
        gains = [
            (Reached([*taken, each], len(fields)).share(person, present) - reached, cost, each) for each, cost in able
        ]
        gain, cost, best = max(gains, key=lambda one: (one[0] / (one[1] + records.height / 2), one[2].key.name))
        able = [(each, price) for each, price in able if each is not best and price <= budget - cost]
        if gain * records.height / 2 >= cost / MOST_COMPARISONS:
            taken.append(best)
            budget -= cost
            reached += gain
    return taken


class Reached:
    """What share of a class of pairs at least one of some keys reaches, where fields agree independently of each other."""

    def __init__(self, keys: Sequence[Reach], fields: int) -> None:
        signs: dict[tuple[int, ...], int] = defaultdict(int)  # inclusion and exclusion over sets of keys
        for count in range(1, len(keys) + 1):
            for some in combinations(keys, count):
                best = [0] * fields
                for each in some:
                    for field, number in each.best.items():
                        best[field] = min(number, best[field] or number)
                signs[tuple(best)] += 1 if count % 2 else -1
        kept = [best for best, sign in signs.items() if sign]
        self._signs = np.array([signs[best] for best in kept], float)
        self._best = np.array(kept, int).reshape(-1, fields)

    def share(self, levels: Sequence[Numbers], present: Numbers) -> float:
        """`levels`: by field, the share of pairs at each level where both records have it; `present`: of pairs in which both do."""
        return float(self._signs @ self._factors(levels, present).prod(1))

    def shares(self, levels: Sequence[Numbers], present: Numbers) -> list[Numbers]:
        """By field, the share reached of the pairs at each of its levels."""
        factors, found = self._factors(levels, present), []
        for field, each in enumerate(levels):
            others = np.delete(factors, field, 1).prod(1) * self._signs
            best = self._best[:, field, None]
            found.append(others @ ((best == 0) | (np.arange(len(each)) < best)))
        return found

    def _factors(self, levels: Sequence[Numbers], present: Numbers) -> Numbers:
        tables = [np.r_[1.0, at * np.cumsum(each)] for each, at in zip(levels, present, strict=True)]
        return np.stack([table[self._best[:, field]] for field, table in enumerate(tables)], 1)


def with_keys(records: pl.DataFrame, keys: Sequence[Reach]) -> pl.DataFrame:
    """The records with a column for each key, null where its value is missing or shared by too many."""
    values = records.with_columns(key_value(each.key).alias(column_of(each)) for each in keys)
    return values.with_columns(
        pl.when(pl.len().over(column_of(each)) <= MOST_PER_VALUE).then(column_of(each)).alias(column_of(each))
        for each in keys
    )


def column_of(each: Reach) -> str:
    return f"key__{each.key.name}"
