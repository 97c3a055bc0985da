"""What things rest on, in one form for columns, rows and whole queries; and how one more step changes it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

# The subtypes of OpenLineage's column lineage facet, and ours for "which rows the table had".
How = Literal[
    "IDENTITY", "TRANSFORMATION", "AGGREGATION", "JOIN", "FILTER", "GROUP_BY", "SORT", "WINDOW", "CONDITIONAL", "ROWS",
]  # fmt: skip
DIRECT: Mapping[str, int] = {"IDENTITY": 0, "TRANSFORMATION": 1, "AGGREGATION": 2}  # the more is done, the higher
ROWS = "*"  # stands for a column: which rows there are, and in which order

Place = tuple[str, str]  # (table, column or ROWS)
Flow = frozenset[tuple[Place, How]]
NOTHING: Flow = frozenset()


@dataclass(frozen=True)
class Relation:
    """What a query gives: its columns in order, what each rests on, and what its rows rest on.

    `others` is what a column rests on that is not listed, where names are not known (a table function); else None.
    `keys` are sets of columns that no two rows share; the empty one says that there is at most one row.
    """

    listed: Sequence[tuple[str, Flow]]
    rows: Flow = NOTHING
    others: Flow | None = None
    keys: frozenset[frozenset[str]] = frozenset()

    @cached_property
    def columns(self) -> Mapping[str, Flow]:
        """By name. Of columns of one name a reader may get any; the later ones are also called `name_1`, as in DuckDB."""
        found: dict[str, Flow] = {}
        seen: Counter[str] = Counter()
        for name, flow in self.listed:
            found[name] = found.get(name, NOTHING) | flow
            if seen[name]:
                found[f"{name}_{seen[name]}"] = found.get(f"{name}_{seen[name]}", NOTHING) | flow
            seen[name] += 1
        return found

    def column(self, name: str) -> Flow | None:
        return self.columns.get(name, self.others)

    @property
    def everything(self) -> Flow:
        return frozenset().union(*(flow for _, flow in self.listed), self.others or NOTHING)


def table(name: str, columns: Iterable[str], key: Iterable[str] = ()) -> Relation:
    """A table as it stands: each column rests on itself. `key`: columns that a test holds to be one row's alone."""
    return Relation(
        [(column, frozenset({((name, column), "IDENTITY")})) for column in columns],
        frozenset({((name, ROWS), "ROWS")}),
        keys=frozenset({frozenset(key)} if key else ()),
    )


def through(flow: Flow, how: How) -> Flow:
    """A flow after one more step: indirect stays what it first was; of direct ones the one that does more counts."""
    return frozenset((place, _then(first, how)) for place, first in flow)


def _then(first: How, how: How) -> How:
    if first not in DIRECT or how == "IDENTITY":
        return first
    if how not in DIRECT:
        return how
    return max(first, how, key=DIRECT.__getitem__)
