"""The flow of a whole project: every column of every table, and which columns it rests on, direct and indirect.

Built from compiled SQL, table by table in build order, and from what Python's tables declare.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError

from models.purpose_flow.errors import FlowError
from models.purpose_flow.following import follow
from models.purpose_flow.relations import ROWS, Flow, How, Place, Relation, table


@dataclass(frozen=True)
class Table:
    """One table: a source (no SQL) with its columns, or a query. `key`: columns that a test holds to be one row's alone."""

    name: str
    columns: tuple[str, ...] = ()
    sql: str | None = None
    key: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()  # tables its SQL reads


@dataclass(frozen=True)
class Made:
    """A table that Python makes: what its code looks at, and which columns it takes over as they stand."""

    table: str
    made_by: str
    reads: tuple[Place, ...]
    purpose: str | None = None
    columns: tuple[str, ...] = ()
    copies: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)
    keyed: tuple[str, ...] = ()


@dataclass
class Graph:
    """`into`: what each column, and each table's rows, rest on. `queries`: the syntax tree of each table that has SQL."""

    into: dict[Place, Flow] = field(default_factory=dict)
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    queries: dict[str, exp.Expr] = field(default_factory=dict)

    def has(self, place: Place) -> bool:
        return place[0] in self.columns and (place[1] == ROWS or place[1] in self.columns[place[0]])

    def add(self, name: str, relation: Relation) -> None:
        """A table and what it rests on; each of its columns rests on its rows, too."""
        self.columns[name] = tuple(relation.columns)
        own: tuple[Place, How] = ((name, ROWS), "ROWS")
        for column, flow in relation.columns.items():
            self.into[name, column] = flow | {own}
        self.into[name, ROWS] = relation.rows

    def edges(self) -> int:
        return sum(len(flow) for flow in self.into.values())


def built(tables: Iterable[Table], made: Sequence[Made] = (), tokens: Mapping[Place, Place] | None = None) -> Graph:
    """The graph of a project. `tokens`: columns that landing makes under a key, and what of.

    Raises: FlowError for SQL that cannot be followed, and for a declaration that names what there is not.
    """
    graph = Graph()
    known: dict[str, Relation] = {}
    by_name = {each.name: each for each in tables}
    for one in made:
        by_name.setdefault(one.table, Table(one.table, one.columns))
    for each in _in_build_order(by_name):
        if each.sql is None:
            graph.add(each.name, Relation([(column, frozenset()) for column in each.columns]))
        else:
            tree, relation = _followed(each, known)
            graph.queries[each.name] = tree
            graph.add(each.name, relation)
        known[each.name] = table(each.name, graph.columns[each.name], each.key)
    for one in made:
        _made(graph, one)
    for token, source in (tokens or {}).items():
        _known(graph, f"token {'.'.join(token)}", (token, source))
        graph.into[token] |= {(source, "TRANSFORMATION")}
    return graph


def _followed(each: Table, known: Mapping[str, Relation]) -> tuple[exp.Expr, Relation]:
    try:
        tree = parse_one(each.sql or "", dialect="duckdb")
        return tree, follow(tree, known)
    except SqlglotError:
        raise FlowError(f"{each.name}: expected SQL of DuckDB, found what does not parse. Correct the model.") from None
    except FlowError as error:
        raise FlowError(f"{each.name}, {error}") from None


def _made(graph: Graph, made: Made) -> None:
    what = f"{made.table}, made by {made.made_by}"
    _known(graph, what, [*made.reads, *(place for places in made.copies.values() for place in places)])
    _known(graph, what, [(made.table, column) for column in (*made.copies, *made.keyed)])
    read: Flow = frozenset((place, "TRANSFORMATION") for place in made.reads)
    # Tables that code reads: which rows they have may decide about anything it makes.
    whole: Flow = frozenset(((name, ROWS), "ROWS") for name, _ in made.reads)
    for column in graph.columns[made.table]:
        copied: Flow = frozenset((place, "IDENTITY") for place in made.copies.get(column, ()))
        graph.into[made.table, column] |= copied or read
    graph.into[made.table, ROWS] |= frozenset((place, "FILTER") for place in made.reads) | whole


def _known(graph: Graph, what: str, places: Iterable[Place]) -> None:
    missing = sorted({".".join(place) for place in places if not graph.has(place)})
    if missing:
        raise FlowError(
            f"{what}: expected columns of the project, found {', '.join(missing)}. Correct the declaration, or the column's name."
        )


def _in_build_order(tables: Mapping[str, Table]) -> list[Table]:
    ordered: dict[str, Table] = {}

    def visit(name: str) -> None:
        if name in tables and name not in ordered:
            for needed in tables[name].needs:
                visit(needed)
            ordered[name] = tables[name]

    for name in sorted(tables):
        visit(name)
    return list(ordered.values())
