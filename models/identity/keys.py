"""Which records are worth comparing: keys whose agreement makes two records a candidate pair, chosen from what the records hold.

A value that very many records share is no key: it would compare everyone with everyone, and says nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

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
    """A key as fields and the number of their best levels that suffice. `coverage`: share of the records that have a value of it which
    is not shared by too many."""

    key: Key
    best: Mapping[int, int]
    coverage: float = 1.0


def reach(key: Key, fields: Sequence[Field]) -> Reach | None:
    """None where the records lack a field of the key."""
    place = {field.name: number for number, field in enumerate(fields)}
    if not all(name in place for name, _ in key.reaches):
        return None
    return Reach(key, {place[name]: fields[place[name]].level_names.index(level) + 1 for name, level in key.reaches})


def key_value(key: Key) -> pl.Expr:
    """The value of a key: its columns in one text, null where one is missing."""
    return pl.concat_str([pl.col(column) for column in key.columns], separator=_SEPARATOR)


def pair_counts(records: pl.DataFrame, keys: Iterable[Key]) -> dict[Key, tuple[float, float]]:
    """How many pairs of records each key makes, without the values that too many share; and the share of its records that leaves."""
    found = {}
    for key in keys:
        if set(key.columns) <= set(records.columns):
            size = records.lazy().select(value=key_value(key)).drop_nulls().group_by("value").len().collect()["len"]
            kept = size.filter(size <= MOST_PER_VALUE).cast(pl.Float64)
            found[key] = float((kept * (kept - 1) / 2).sum()), float(kept.sum()) / max(float(size.sum()), 1.0)
    return found


def chosen(records: pl.DataFrame, fields: Sequence[Field], person: Sequence[Numbers], present: Numbers) -> list[Reach]:
    """The keys to compare by: each the one that reaches most pairs of one person for the comparisons it costs, while that is worth it.

    `person`: by field, the share of pairs of one person at each level; `present`: by field, of pairs in which both records have it.
    """
    budget = PAIRS_PER_RECORD * records.height
    costs = pair_counts(records, KEYS)
    able = [
        (replace(each, coverage=coverage), cost)
        for key, (cost, coverage) in costs.items()
        if (each := reach(key, fields)) and 0 < cost <= budget
    ]
    taken: list[Reach] = []
    so_far, reached = Reached((), len(fields)), 0.0
    while able:
        gains = [(so_far.joined_by(each).share(person, present) - reached, cost, each) for each, cost in able]
        gain, cost, best = max(gains, key=lambda one: (one[0] / (one[1] + records.height / 2), one[2].key.name))
        able = [(each, price) for each, price in able if each is not best and price <= budget - cost]
        if gain * records.height / 2 >= cost / MOST_COMPARISONS:
            taken.append(best)
            so_far = so_far.joined_by(best)
            budget -= cost
            reached += gain
    return taken


class Reached:
    """What share of a class of pairs at least one of some keys reaches, where fields agree independently of each other."""

    def __init__(self, keys: Sequence[Reach], fields: int) -> None:
        self._fields = fields
        self._terms: dict[
            tuple[int, ...], float
        ] = {}  # by what is demanded of each field: inclusion and exclusion over sets of keys
        for each in keys:
            self._terms = self._with(each)
        self._signs = np.array(list(self._terms.values()), float)
        self._best = np.array(list(self._terms), int).reshape(-1, fields)

    def joined_by(self, key: Reach) -> "Reached":
        """The same with one more key."""
        found = Reached((key,), self._fields)
        found._terms = self._with(key)
        found._signs = np.array(list(found._terms.values()), float)
        found._best = np.array(list(found._terms), int).reshape(-1, self._fields)
        return found

    def _with(self, key: Reach) -> dict[tuple[int, ...], float]:
        alone = tuple(key.best.get(field, 0) for field in range(self._fields))
        terms = defaultdict(float, self._terms)
        terms[alone] += key.coverage
        for best, sign in self._terms.items():
            both = tuple(
                min(mine, other) if mine and other else mine or other for mine, other in zip(best, alone, strict=True)
            )
            terms[both] -= sign * key.coverage
        return {best: sign for best, sign in terms.items() if abs(sign) > 1e-12}

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
