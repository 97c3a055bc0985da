"""What the columns and the rows of one query rest on, read from its syntax tree alone; nothing is run.

Whatever can change a value or a row is found: what is copied or computed from (direct), and what decides (indirect: joins,
filters, groups, windows, conditions). What is not known is taken to rest on everything inside it; what cannot be
followed is an error, never left out.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from sqlglot import exp

from models.purpose_flow.errors import FlowError
from models.purpose_flow.keys import adds_no_row, keys_of

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


@dataclass
class _Scope:
    """What names mean in one place of a query: common tables, tables of FROM, columns merged by USING, and the scope around."""

    tables: Mapping[str, Relation]  # of the project
    common: dict[str, Relation]
    around: "_Scope | None" = None
    sources: dict[str, Relation] = field(default_factory=dict)
    merged: dict[str, Flow] = field(default_factory=dict)
    aliases: dict[str, Flow] = field(default_factory=dict)
    bound: frozenset[str] = frozenset()  # parameters of lambdas
    rows: set[tuple[Place, How]] = field(default_factory=set)
    starred: list[str] = field(default_factory=list)  # sources that `*` shows: not those of semi and anti joins
    unique: str | None = None  # the one source each of whose rows comes out once at most

    def inside(self) -> "_Scope":
        return _Scope(self.tables, dict(self.common), self)

    def add(self, flow: Flow, how: How) -> None:
        self.rows |= through(flow, how)


def follow(query: exp.Expr, tables: Mapping[str, Relation]) -> Relation:
    """What a query rests on, `tables` being what it may read. Raises: FlowError for what cannot be followed."""
    return _query(query, _Scope(tables, {}))


def _query(query: exp.Expr, scope: _Scope) -> Relation:
    scope = scope.inside()
    if (common := query.args.get("with_")) is not None:
        for each in common.expressions:
            scope.common[_name(each.alias)] = _common(each, bool(common.args.get("recursive")), scope)
    if isinstance(query, exp.Select):
        return _select(query, scope)
    if isinstance(query, exp.SetOperation):
        return _ordered(query, _set_operation(query, scope), scope)
    if isinstance(query, exp.Subquery | exp.Paren):
        inner = _ordered(query, _query(query.this, scope), scope)
        return _renamed(inner, query.args.get("alias"))
    if isinstance(query, exp.Values):
        return _values(query, scope)
    if isinstance(query, exp.Table):
        return _ordered(query, _source(query, scope), scope)
    raise _cannot(query)


def _common(cte: exp.CTE, is_recursive: bool, scope: _Scope) -> Relation:
    name = _name(cte.alias)
    if not is_recursive or not any(_name(one.name) == name for one in cte.this.find_all(exp.Table)):
        return _renamed(_query(cte.this, scope), cte.args.get("alias"))
    if not isinstance(cte.this, exp.SetOperation):
        raise _cannot(cte)
    known = _renamed(_query(cte.this.this, scope), cte.args.get("alias"))
    while True:  # ends: flows only grow, and there are finitely many places
        inside = scope.inside()
        inside.common[name] = known
        found = _renamed(_query(cte.this, inside), cte.args.get("alias"))
        if found == known:
            return known
        known = found


def _select(select: exp.Select, scope: _Scope) -> Relation:
    if select.args.get("pivots") or select.args.get("laterals"):
        raise _cannot(select)
    if (start := select.args.get("from_")) is not None:
        _join(start.this, scope)
    for join in select.args.get("joins") or ():
        _joined(join, scope)
    columns: list[tuple[str, Flow]] = []
    for projection in select.expressions:
        _project(projection, scope, columns)
    for key, how in (("where", "FILTER"), ("having", "FILTER"), ("qualify", "FILTER"), ("group", "GROUP_BY")):
        if (clause := select.args.get(key)) is not None:
            scope.add(_clause(clause, scope, columns, is_where=key == "where"), how)  # type: ignore[arg-type]
    for window in select.args.get("windows") or ():
        scope.add(_parts(window, scope), "WINDOW")
    if (distinct := select.args.get("distinct")) is not None:
        on = distinct.args.get("on")
        scope.add(_value(on, scope) if on is not None else _all(columns), "GROUP_BY")
    known = {
        "from_",
        "joins",
        "expressions",
        "where",
        "having",
        "qualify",
        "group",
        "windows",
        "distinct",
        "with_",
        "order",
    }
    for key, clause in select.args.items():  # LIMIT, OFFSET, SAMPLE, and whatever else may decide about rows
        if key not in known:
            scope.add(_any(clause, scope), "FILTER")
    relation = Relation(columns, frozenset(scope.rows), keys=keys_of(select, scope.sources, scope.unique))
    return _ordered(select, relation, scope, columns)


def _clause(clause: exp.Expr, scope: _Scope, columns: Sequence[tuple[str, Flow]], is_where: bool = False) -> Flow:
    """What a clause rests on. Beyond WHERE an alias may be meant where a column has its name: both are taken."""
    if clause.args.get("all") or any(isinstance(part.this, exp.Var) for part in clause.expressions):
        return _all(columns) | _parts(clause, scope)
    named = NOTHING
    if not is_where:
        for part in clause.find_all(exp.Column):
            named |= scope.aliases.get(_name(part.name), NOTHING)
        for part in clause.expressions:  # by its place in the list
            number = part.this if isinstance(part, exp.Ordered) else part
            if isinstance(number, exp.Literal) and number.is_int and 0 < int(number.name) <= len(columns):
                named |= columns[int(number.name) - 1][1]
    return named | _parts(clause, scope)


def _ordered(
    query: exp.Expr, relation: Relation, scope: _Scope, columns: Sequence[tuple[str, Flow]] | None = None
) -> Relation:
    """The relation after ORDER BY (and LIMIT, OFFSET outside a SELECT): order is kept as part of its rows."""
    if (order := query.args.get("order")) is None and isinstance(query, exp.Select):
        return relation
    found: set[tuple[Place, How]] = set(relation.rows)
    inside = scope
    if columns is None:  # of a set operation or a subquery: its own columns can be named
        columns, inside = relation.listed, scope.inside()
        inside.sources[""] = relation
    if order is not None:
        found |= through(_clause(order, inside, columns), "SORT")
    if not isinstance(query, exp.Select):
        for key in ("limit", "offset"):
            found |= through(_any(query.args.get(key), inside), "FILTER")
    return replace(relation, rows=frozenset(found))


def _project(projection: exp.Expr, scope: _Scope, columns: list[tuple[str, Flow]]) -> None:
    """Add what one item of a SELECT list gives."""
    star = projection.this if isinstance(projection, exp.Column) else projection
    if isinstance(star, exp.Star):
        of = _name(projection.table) if isinstance(projection, exp.Column) else None
        columns.extend(_star(star, of, scope))
        return
    if projection.find(exp.Columns):
        raise _cannot(projection)
    flow = _value(projection, scope)
    for unnested in projection.find_all(exp.Explode, exp.Unnest):
        scope.add(_parts(unnested, scope), "FILTER")  # how long a list is says how many rows there are
    name = _name(projection.alias_or_name) or _name(projection.sql(dialect="duckdb"))
    columns.append((name, flow))
    scope.aliases[name] = scope.aliases.get(name, NOTHING) | flow  # items after it may use its name


def _star(star: exp.Star, of: str | None, scope: _Scope) -> Iterator[tuple[str, Flow]]:
    left_out = {_name(each.name) for each in star.args.get("except_") or ()}
    replaced = {_name(each.alias): _value(each.this, scope) for each in star.args.get("replace") or ()}
    renamed = {_name(each.this.name): _name(each.alias) for each in star.args.get("rename") or ()}
    if of is not None and of not in scope.sources:
        raise FlowError(f"{of}.*: expected a table of the query, found {', '.join(scope.sources)}. Name one of them.")
    once: set[str] = set()
    for source in scope.starred if of is None else (of,):
        relation = scope.sources[source]
        if relation.others is not None and not relation.listed:
            raise FlowError(
                f"*: expected columns with names, found a table function, {source}. Give its columns names: `as {source}(name)`."
            )
        for name, flow in relation.listed:
            merged = scope.merged.get(name) if of is None else None
            if name not in left_out and name not in once:
                yield renamed.get(name, name), replaced.get(name, flow | (merged or NOTHING))
            if merged is not None:
                once.add(name)  # `*` shows a column of USING once


def _set_operation(query: exp.SetOperation, scope: _Scope) -> Relation:
    left, right = _query(query.this, scope), _query(query.expression, scope)
    if query.args.get("by_name"):
        names = dict.fromkeys((*left.columns, *right.columns))
        columns = [(each, left.columns.get(each, NOTHING) | right.columns.get(each, NOTHING)) for each in names]
    elif len(left.listed) != len(right.listed):
        raise FlowError(
            f"set operation: expected as many columns on both sides, found {len(left.listed)} and {len(right.listed)}. "
            "Make them equal."
        )
    else:
        columns = [(name, flow | more) for (name, flow), (_, more) in zip(left.listed, right.listed, strict=True)]
    rows = left.rows | right.rows
    if not isinstance(query, exp.Union):  # EXCEPT, INTERSECT: what is on the right decides, and is not shown
        columns = list(left.listed)
    if not isinstance(query, exp.Union) or query.args.get("distinct"):
        rows |= through(left.everything | right.everything, "GROUP_BY")
    return Relation(columns, rows)


def _values(values: exp.Values, scope: _Scope) -> Relation:
    rows = [row.expressions if isinstance(row, exp.Tuple) else (row,) for row in values.expressions]
    columns = [frozenset().union(*(_value(value, scope) for value in column)) for column in zip(*rows, strict=True)]
    return _renamed(Relation([(f"col{i}", flow) for i, flow in enumerate(columns)]), values.args.get("alias"))


def _joined(join: exp.Join, scope: _Scope) -> None:
    earlier, rows = list(scope.sources), set(scope.rows)
    shown = str(join.args.get("kind") or "").upper() not in ("SEMI", "ANTI")
    name = _join(join.this, scope, shown)
    relation = scope.sources[name]
    names = [_name(each.name) for each in join.args.get("using") or ()]
    if str(join.args.get("method") or "").upper() == "NATURAL":
        names = [each for each in relation.columns if any(each in scope.sources[one].columns for one in earlier)]
    decides: Flow = NOTHING
    for each in names:
        flows = [scope.sources[one].column(each) for one in (*earlier, name)]
        merged = frozenset().union(*(flow for flow in flows if flow is not None), scope.merged.get(each, NOTHING))
        scope.merged[each] = merged
        decides |= merged
    decides |= _any([part for key, part in join.args.items() if key not in ("this", "using")], scope)
    if adds_no_row(join, name, relation):
        # Rows are those of the left side whatever is on the right; only what is shown of the right is decided here.
        scope.rows = rows
        decided = through(decides, "JOIN") | relation.rows
        scope.sources[name] = replace(relation, listed=[(each, flow | decided) for each, flow in relation.listed])
        return
    scope.unique = None
    scope.add(decides, "JOIN")


def _join(source: exp.Expr, scope: _Scope, shown: bool = True) -> str:
    """Add a source of FROM to the scope, with those joined to it inside parentheses. Gives its name."""
    name = _name(source.alias_or_name) or f"?{len(scope.sources)}"
    scope.sources[name] = relation = _source(source, scope)
    scope.rows |= relation.rows
    scope.unique = name if len(scope.sources) == 1 else scope.unique
    if shown:
        scope.starred.append(name)
    for join in source.args.get("joins") or ():
        _joined(join, scope)
    return name


def _source(source: exp.Expr, scope: _Scope) -> Relation:
    alias = source.args.get("alias")
    if source.args.get("pivots"):
        raise _cannot(source)
    if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier):
        name = _name(source.name)
        relation = None if source.args.get("db") else _common_table(name, scope)
        relation = scope.tables.get(name) if relation is None else relation
        if relation is None:
            raise FlowError(
                f"table {name}: expected one of the project, found none of that name. Declare it as a source."
            )
        sampled = _any(source.args.get("sample"), scope)
        return _renamed(replace(relation, rows=relation.rows | through(sampled, "FILTER")), alias)
    if isinstance(source, exp.Lateral):
        if isinstance(source.this, exp.Subquery):
            return _renamed(_query(source.this.this, scope), alias)
        return _function(source.this, alias, scope)
    if isinstance(source, exp.Subquery) and isinstance(
        source.this, exp.Table
    ):  # FROM (a JOIN b): names stay those inside
        inside = scope.inside()
        inside.around = scope
        _join(source.this, inside)
        shown = [each for one in inside.starred for each in inside.sources[one].listed]
        return _renamed(Relation(shown, frozenset(inside.rows)), alias)
    if isinstance(source, exp.Subquery | exp.Values):
        return _query(source, scope)
    if isinstance(source, exp.Unnest | exp.Table):
        return _function(source if isinstance(source, exp.Unnest) else source.this, alias, scope)
    raise _cannot(source)


def _function(call: exp.Expr, alias: exp.Expr | None, scope: _Scope) -> Relation:
    """A table made by a function: each of its columns, and how many rows it has, rest on all arguments."""
    flow = through(_parts(call, scope), "TRANSFORMATION")
    names = [_name(each.name) for each in alias.args.get("columns") or ()] if alias is not None else []
    return Relation([(name, flow) for name in names], through(flow, "FILTER"), flow)


def _common_table(name: str, scope: _Scope | None) -> Relation | None:
    while scope is not None:
        if name in scope.common:
            return scope.common[name]
        scope = scope.around
    return None


def _renamed(relation: Relation, alias: exp.Expr | None) -> Relation:
    """A relation whose first columns are renamed by `as name(first, second, ...)`."""
    names = [_name(each.name) for each in alias.args.get("columns") or ()] if isinstance(alias, exp.TableAlias) else []
    if not names:
        return relation
    flows = [flow for _, flow in relation.listed]
    listed = [*zip(names, flows, strict=False), *relation.listed[len(names) :]]
    return replace(relation, listed=listed, keys=frozenset(key for key in relation.keys if not key))


def _value(value: exp.Expr, scope: _Scope) -> Flow:
    """What the value of an expression rests on."""
    if isinstance(value, exp.Alias | exp.Paren):
        return _value(value.this, scope)
    if isinstance(value, exp.Column):
        return _column(value, scope)
    if isinstance(value, exp.Identifier):  # of a lambda, or before a dot
        return _bare(_name(value.name), scope) or NOTHING
    if isinstance(value, exp.Query | exp.Subquery | exp.Exists):
        return _subquery(value, scope)
    special: Callable[[exp.Expr, _Scope], Flow] = _SPECIAL.get(type(value), _parts)
    return through(special(value, scope), _step(value))


def _step(value: exp.Expr) -> How:
    return "AGGREGATION" if isinstance(value, exp.AggFunc) else "TRANSFORMATION"


def _subquery(value: exp.Expr, scope: _Scope) -> Flow:
    if isinstance(value, exp.Exists):
        return through(_query(value.this, scope).rows, "CONDITIONAL")
    relation = _query(value, scope)
    return through(relation.everything, "TRANSFORMATION") | relation.rows


def _parts(value: exp.Expr, scope: _Scope) -> Flow:
    """All that stands inside an expression, whatever it is."""
    return frozenset().union(*(_any(part, scope) for key, part in value.args.items() if key != "alias"))


def _any(part: object, scope: _Scope) -> Flow:
    if isinstance(part, list | tuple):
        return frozenset().union(*(_any(each, scope) for each in part))
    if isinstance(part, exp.DataType) or not isinstance(part, exp.Expr):
        return NOTHING
    return _value(part, scope)


def _case(value: exp.Expr, scope: _Scope) -> Flow:
    """CASE and IF: what is asked decides, what is answered flows."""
    if isinstance(value, exp.If):
        asked, answered = _any(value.this, scope), [value.args.get("true"), value.args.get("false")]
    else:
        asked = frozenset().union(
            _any(value.this, scope), *(_any(one.this, scope) for one in value.args.get("ifs") or ())
        )
        answered = [*(one.args.get("true") for one in value.args.get("ifs") or ()), value.args.get("default")]
    return through(asked, "CONDITIONAL") | _any(answered, scope)


def _window(value: exp.Expr, scope: _Scope) -> Flow:
    around = [part for key, part in value.args.items() if key not in ("this", "alias", "over", "order")]
    if (order := value.args.get("order")) is not None:
        around.append(order.expressions)
    return _any(value.this, scope) | through(_any(around, scope), "WINDOW")


def _filtered(value: exp.Expr, scope: _Scope) -> Flow:
    """An aggregate with FILTER or WITHIN GROUP."""
    how: How = "CONDITIONAL" if isinstance(value, exp.Filter) else "SORT"
    decides = _any(value.expression, scope)
    # PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY x) gives an x.
    shown = through(decides, "AGGREGATION") if isinstance(value, exp.WithinGroup) else NOTHING
    return _any(value.this, scope) | through(decides, how) | shown


def _in_order(value: exp.Expr, scope: _Scope) -> Flow:
    return _any(value.this, scope) | through(_any(value.expressions, scope), "SORT")


def _best(value: exp.Expr, scope: _Scope) -> Flow:
    """ARG_MAX(a, b): a is shown, b decides which."""
    return _any(value.this, scope) | through(_any([value.expression, value.args.get("count")], scope), "SORT")


def _lambda(value: exp.Expr, scope: _Scope) -> Flow:
    inside = scope.inside()
    inside.bound = scope.bound | {_name(each.name) for each in value.expressions}
    inside.aliases = scope.aliases
    return _any(value.this, inside)


def _comprehension(value: exp.Expr, scope: _Scope) -> Flow:
    inside = scope.inside()
    inside.bound = scope.bound | {_name(value.expression.name)}
    listed = _any([part for key, part in value.args.items() if key not in ("this", "expression", "condition")], scope)
    return listed | _any([value.this, value.args.get("condition")], inside)


def _named(value: exp.Expr, scope: _Scope) -> Flow:
    """`name := value`, `{'name': value}`: the name is no column."""
    return _any(value.expression, scope)


def _dot(value: exp.Expr, scope: _Scope) -> Flow:
    """A field of a struct, or a call after a dot."""
    after = value.expression
    return _any(value.this, scope) | (NOTHING if isinstance(after, exp.Identifier) else _any(after, scope))


_SPECIAL = {
    exp.Case: _case,
    exp.If: _case,
    exp.Window: _window,
    exp.Filter: _filtered,
    exp.WithinGroup: _filtered,
    exp.Order: _in_order,
    exp.ArgMax: _best,
    exp.ArgMin: _best,
    exp.Lambda: _lambda,
    exp.Comprehension: _comprehension,
    exp.PropertyEQ: _named,
    exp.Kwarg: _named,
    exp.Dot: _dot,
    exp.Star: lambda value, scope: NOTHING,
}


def _column(column: exp.Column, scope: _Scope) -> Flow:
    """A column, a field of a struct column, or all columns of a table (`t.*` or `t` as a value)."""
    names = [_name(part.name) for part in column.parts if not isinstance(part, exp.Star)]
    if isinstance(column.this, exp.Star):
        around: _Scope | None = scope
        while around is not None:
            if names[-1] in around.sources:
                return around.sources[names[-1]].everything
            around = around.around
        raise _unknown(column)
    # The table may be written with its schema before it: the last name that is one of the query's tables counts.
    for number in reversed(range(len(names) - 1)):
        found = _of(names[number], names[number + 1], scope)
        if found is not None:
            return through(found, "TRANSFORMATION") if number + 2 < len(names) else found
    found = _bare(names[0], scope)
    if found is None:
        raise _unknown(column)
    return through(found, "TRANSFORMATION") if len(names) > 1 else found


def _of(source: str, name: str, scope: _Scope | None) -> Flow | None:
    while scope is not None:
        if source in scope.sources and (flow := scope.sources[source].column(name)) is not None:
            return flow
        scope = scope.around
    return None


def _bare(name: str, scope: _Scope | None) -> Flow | None:
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


def _all(columns: Sequence[tuple[str, Flow]]) -> Flow:
    return frozenset().union(*(flow for _, flow in columns))


def _name(text: str) -> str:
    return text.lower()


def _unknown(column: exp.Expr) -> FlowError:
    return FlowError(
        f"column {column.sql(dialect='duckdb')[:80]}: expected one of the query's tables, found none of that name. "
        "Declare the column of its source, or correct the name."
    )


def _cannot(query: exp.Expr) -> FlowError:
    return FlowError(
        f"{query.sql(dialect='duckdb')[:80]}: expected SQL that can be followed, found {type(query).__name__.upper()}. "
        "Write it with SELECT, JOIN, WHERE, GROUP BY and CASE."
    )
