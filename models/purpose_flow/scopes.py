"""What names mean in one place of a query: tables, common tables, columns, aliases, and the place around."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlglot import exp

from models.purpose_flow.errors import FlowError
from models.purpose_flow.relations import NOTHING, Flow, How, Place, Relation, through


@dataclass
class Scope:
    """What names mean in one place of a query: common tables, tables of FROM, columns merged by USING, and the scope around."""

    tables: Mapping[str, Relation]  # of the project
    query: "Callable[[exp.Expr, Scope], Relation]"  # how a query inside an expression is followed
    common: dict[str, Relation]
    around: "Scope | None" = None
    sources: dict[str, Relation] = field(default_factory=dict)
    merged: dict[str, Flow] = field(default_factory=dict)
    aliases: dict[str, Flow] = field(default_factory=dict)
    bound: frozenset[str] = frozenset()  # parameters of lambdas
    rows: set[tuple[Place, How]] = field(default_factory=set)
    starred: list[str] = field(default_factory=list)  # sources that `*` shows: not those of semi and anti joins
    unique: str | None = None  # the one source each of whose rows comes out once at most

    def inside(self) -> "Scope":
        return Scope(self.tables, self.query, dict(self.common), self)

    def add(self, flow: Flow, how: How) -> None:
        self.rows |= through(flow, how)


def common_table(name: str, scope: Scope | None) -> Relation | None:
    while scope is not None:
        if name in scope.common:
            return scope.common[name]
        scope = scope.around
    return None


def column_flow(column: exp.Column, scope: Scope) -> Flow:
    """A column, a field of a struct column, or all columns of a table (`t.*` or `t` as a value)."""
    names = [name_of(part.name) for part in column.parts if not isinstance(part, exp.Star)]
    if isinstance(column.this, exp.Star):
        around: Scope | None = scope
        while around is not None:
            if names[-1] in around.sources:
                return around.sources[names[-1]].everything
            around = around.around
        raise _unknown(column)
    # The table may be written with its schema before it: the last name that is one of the query's tables counts.
    for number in reversed(range(len(names) - 1)):
        found = of_source(names[number], names[number + 1], scope)
        if found is not None:
            return through(found, "TRANSFORMATION") if number + 2 < len(names) else found
    found = bare_flow(names[0], scope)
    if found is None:
        raise _unknown(column)
    return through(found, "TRANSFORMATION") if len(names) > 1 else found


def of_source(source: str, name: str, scope: Scope | None) -> Flow | None:
    while scope is not None:
        if source in scope.sources and (flow := scope.sources[source].column(name)) is not None:
            return flow
        scope = scope.around
    return None


def bare_flow(name: str, scope: Scope | None) -> Flow | None:
    """A name without a table: a parameter, a column of this scope, an alias before it, a whole table, or the scope around."""
    while scope is not None:
        if name in scope.bound:
            return NOTHING
        flows = [flow for one in scope.sources.values() if (flow := one.columns.get(name)) is not None]
        if flows or name in scope.merged:
            return frozenset().union(*flows, scope.merged.get(name, NOTHING))
        if name in scope.aliases:
            return scope.aliases[name]
        if name in scope.sources:
            return through(scope.sources[name].everything, "TRANSFORMATION")
        open_ones = [one.others for one in scope.sources.values() if one.others is not None]
        if open_ones:
            return frozenset().union(*open_ones)
        scope = scope.around
    return None


def name_of(text: str) -> str:
    return text.lower()


def _unknown(column: exp.Expr) -> FlowError:
    return FlowError(
        f"column {column.sql(dialect='duckdb')[:80]}: expected one of the query's tables, found none of that name. "
        "Declare the column of its source, or correct the name."
    )
