"""What the columns and the rows of one query rest on, read from its syntax tree alone; nothing is run.

Whatever can change a value or a row is found: what is copied or computed from (direct), and what decides (indirect: joins,
filters, groups, windows, conditions). What is not known is taken to rest on everything inside it; what cannot be
followed is an error, never left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sqlglot import exp

from models.purpose_flow.errors import FlowError
from models.purpose_flow.keys import adds_no_row, keys_of
from models.purpose_flow.relations import NOTHING, Flow, How, Place, Relation, through
from models.purpose_flow.scopes import Scope, common_table, name_of
from models.purpose_flow.values import any_flow, parts_flow, value_flow


def follow(query: exp.Expr, tables: Mapping[str, Relation]) -> Relation:
    """What a query rests on, `tables` being what it may read. Raises: FlowError for what cannot be followed."""
    return _query(query, Scope(tables, _query, {}))


def _query(query: exp.Expr, scope: Scope) -> Relation:
    scope = scope.inside()
    if (common := query.args.get("with_")) is not None:
        for each in common.expressions:
            scope.common[name_of(each.alias)] = _common(each, bool(common.args.get("recursive")), scope)
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


def _common(cte: exp.CTE, is_recursive: bool, scope: Scope) -> Relation:
    name = name_of(cte.alias)
    if not is_recursive or not any(name_of(one.name) == name for one in cte.this.find_all(exp.Table)):
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


def _select(select: exp.Select, scope: Scope) -> Relation:
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
        scope.add(parts_flow(window, scope), "WINDOW")
    if (distinct := select.args.get("distinct")) is not None:
        on = distinct.args.get("on")
        scope.add(value_flow(on, scope) if on is not None else all_flows(columns), "GROUP_BY")
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
            scope.add(any_flow(clause, scope), "FILTER")
    relation = Relation(columns, frozenset(scope.rows), keys=keys_of(select, scope.sources, scope.unique))
    return _ordered(select, relation, scope, columns)


def _clause(clause: exp.Expr, scope: Scope, columns: Sequence[tuple[str, Flow]], is_where: bool = False) -> Flow:
    """What a clause rests on. Beyond WHERE an alias may be meant where a column has its name: both are taken."""
    if clause.args.get("all") or any(isinstance(part.this, exp.Var) for part in clause.expressions):
        return all_flows(columns) | parts_flow(clause, scope)
    named = NOTHING
    if not is_where:
        for part in clause.find_all(exp.Column):
            named |= scope.aliases.get(name_of(part.name), NOTHING)
        for part in clause.expressions:  # by its place in the list
            number = part.this if isinstance(part, exp.Ordered) else part
            if isinstance(number, exp.Literal) and number.is_int and 0 < int(number.name) <= len(columns):
                named |= columns[int(number.name) - 1][1]
    return named | parts_flow(clause, scope)


def _ordered(
    query: exp.Expr, relation: Relation, scope: Scope, columns: Sequence[tuple[str, Flow]] | None = None
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
            found |= through(any_flow(query.args.get(key), inside), "FILTER")
    return replace(relation, rows=frozenset(found))


def _project(projection: exp.Expr, scope: Scope, columns: list[tuple[str, Flow]]) -> None:
    """Add what one item of a SELECT list gives."""
    star = projection.this if isinstance(projection, exp.Column) else projection
    if isinstance(star, exp.Star):
        of = name_of(projection.table) if isinstance(projection, exp.Column) else None
        columns.extend(_star(star, of, scope))
        return
    if projection.find(exp.Columns):
        raise _cannot(projection)
    flow = value_flow(projection, scope)
    for unnested in projection.find_all(exp.Explode, exp.Unnest):
        scope.add(parts_flow(unnested, scope), "FILTER")  # how long a list is says how many rows there are
    name = name_of(projection.alias_or_name) or name_of(projection.sql(dialect="duckdb"))
    columns.append((name, flow))
    scope.aliases[name] = scope.aliases.get(name, NOTHING) | flow  # items after it may use its name


def _star(star: exp.Star, of: str | None, scope: Scope) -> Iterator[tuple[str, Flow]]:
    left_out = {name_of(each.name) for each in star.args.get("except_") or ()}
    replaced = {name_of(each.alias): value_flow(each.this, scope) for each in star.args.get("replace") or ()}
    renamed = {name_of(each.this.name): name_of(each.alias) for each in star.args.get("rename") or ()}
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


def _set_operation(query: exp.SetOperation, scope: Scope) -> Relation:
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


def _values(values: exp.Values, scope: Scope) -> Relation:
    rows = [row.expressions if isinstance(row, exp.Tuple) else (row,) for row in values.expressions]
    columns = [frozenset().union(*(value_flow(value, scope) for value in column)) for column in zip(*rows, strict=True)]
    return _renamed(Relation([(f"col{i}", flow) for i, flow in enumerate(columns)]), values.args.get("alias"))


def _joined(join: exp.Join, scope: Scope) -> None:
    earlier, rows = list(scope.sources), set(scope.rows)
    shown = str(join.args.get("kind") or "").upper() not in ("SEMI", "ANTI")
    name = _join(join.this, scope, shown)
    relation = scope.sources[name]
    names = [name_of(each.name) for each in join.args.get("using") or ()]
    if str(join.args.get("method") or "").upper() == "NATURAL":
        names = [each for each in relation.columns if any(each in scope.sources[one].columns for one in earlier)]
    decides: Flow = NOTHING
    for each in names:
        flows = [scope.sources[one].column(each) for one in (*earlier, name)]
        merged = frozenset().union(*(flow for flow in flows if flow is not None), scope.merged.get(each, NOTHING))
        scope.merged[each] = merged
        decides |= merged
    decides |= any_flow([part for key, part in join.args.items() if key not in ("this", "using")], scope)
    if adds_no_row(join, name, relation):
        # Rows are those of the left side whatever is on the right; only what is shown of the right is decided here.
        scope.rows = rows
        decided = through(decides, "JOIN") | relation.rows
        scope.sources[name] = replace(relation, listed=[(each, flow | decided) for each, flow in relation.listed])
        return
    scope.unique = None
    scope.add(decides, "JOIN")


def _join(source: exp.Expr, scope: Scope, shown: bool = True) -> str:
    """Add a source of FROM to the scope, with those joined to it inside parentheses. Gives its name."""
    name = name_of(source.alias_or_name) or f"?{len(scope.sources)}"
    scope.sources[name] = relation = _source(source, scope)
    scope.rows |= relation.rows
    scope.unique = name if len(scope.sources) == 1 else scope.unique
    if shown:
        scope.starred.append(name)
    for join in source.args.get("joins") or ():
        _joined(join, scope)
    return name


def _source(source: exp.Expr, scope: Scope) -> Relation:
    alias = source.args.get("alias")
    if source.args.get("pivots"):
        raise _cannot(source)
    if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier):
        name = name_of(source.name)
        relation = None if source.args.get("db") else common_table(name, scope)
        relation = scope.tables.get(name) if relation is None else relation
        if relation is None:
            raise FlowError(
                f"table {name}: expected one of the project, found none of that name. Declare it as a source."
            )
        sampled = any_flow(source.args.get("sample"), scope)
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


def _function(call: exp.Expr, alias: exp.Expr | None, scope: Scope) -> Relation:
    """A table made by a function: each of its columns, and how many rows it has, rest on all arguments."""
    flow = through(parts_flow(call, scope), "TRANSFORMATION")
    names = [name_of(each.name) for each in alias.args.get("columns") or ()] if alias is not None else []
    return Relation([(name, flow) for name in names], through(flow, "FILTER"), flow)


def _renamed(relation: Relation, alias: exp.Expr | None) -> Relation:
    """A relation whose first columns are renamed by `as name(first, second, ...)`."""
    names = (
        [name_of(each.name) for each in alias.args.get("columns") or ()] if isinstance(alias, exp.TableAlias) else []
    )
    if not names:
        return relation
    flows = [flow for _, flow in relation.listed]
    listed = [*zip(names, flows, strict=False), *relation.listed[len(names) :]]
    return replace(relation, listed=listed, keys=frozenset(key for key in relation.keys if not key))


def all_flows(columns: Sequence[tuple[str, Flow]]) -> Flow:
    return frozenset().union(*(flow for _, flow in columns))


def _cannot(query: exp.Expr) -> FlowError:
    return FlowError(
        f"{query.sql(dialect='duckdb')[:80]}: expected SQL that can be followed, found {type(query).__name__.upper()}. "
        "Write it with SELECT, JOIN, WHERE, GROUP BY and CASE."
    )
