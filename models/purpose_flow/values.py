"""What the value of an expression rests on. What is not known is taken to rest on everything inside it."""

from collections.abc import Callable

from sqlglot import exp

from models.purpose_flow.relations import NOTHING, Flow, How, through
from models.purpose_flow.scopes import Scope, bare_flow, column_flow, name_of


def value_flow(value: exp.Expr, scope: Scope) -> Flow:
    """What the value of an expression rests on."""
    if isinstance(value, exp.Alias | exp.Paren):
        return value_flow(value.this, scope)
    if isinstance(value, exp.Column):
        return column_flow(value, scope)
    if isinstance(value, exp.Identifier):  # of a lambda, or before a dot
        return bare_flow(name_of(value.name), scope) or NOTHING
    if isinstance(value, exp.Query | exp.Subquery | exp.Exists):
        return _subquery(value, scope)
    special: Callable[[exp.Expr, Scope], Flow] = _SPECIAL.get(type(value), parts_flow)
    return through(special(value, scope), _step(value))


def _step(value: exp.Expr) -> How:
    return "AGGREGATION" if isinstance(value, exp.AggFunc) else "TRANSFORMATION"


def _subquery(value: exp.Expr, scope: Scope) -> Flow:
    if isinstance(value, exp.Exists):
        return through(scope.query(value.this, scope).rows, "CONDITIONAL")
    relation = scope.query(value, scope)
    return through(relation.everything, "TRANSFORMATION") | relation.rows


def parts_flow(value: exp.Expr, scope: Scope) -> Flow:
    """All that stands inside an expression, whatever it is."""
    return frozenset().union(*(any_flow(part, scope) for key, part in value.args.items() if key != "alias"))


def any_flow(part: object, scope: Scope) -> Flow:
    if isinstance(part, list | tuple):
        return frozenset().union(*(any_flow(each, scope) for each in part))
    if isinstance(part, exp.DataType) or not isinstance(part, exp.Expr):
        return NOTHING
    return value_flow(part, scope)


def _case(value: exp.Expr, scope: Scope) -> Flow:
    """CASE and IF: what is asked decides, what is answered flows."""
    if isinstance(value, exp.If):
        asked, answered = any_flow(value.this, scope), [value.args.get("true"), value.args.get("false")]
    else:
        asked = frozenset().union(
            any_flow(value.this, scope), *(any_flow(one.this, scope) for one in value.args.get("ifs") or ())
        )
        answered = [*(one.args.get("true") for one in value.args.get("ifs") or ()), value.args.get("default")]
    return through(asked, "CONDITIONAL") | any_flow(answered, scope)


def _window(value: exp.Expr, scope: Scope) -> Flow:
    around = [part for key, part in value.args.items() if key not in ("this", "alias", "over", "order")]
    if (order := value.args.get("order")) is not None:
        around.append(order.expressions)
    return any_flow(value.this, scope) | through(any_flow(around, scope), "WINDOW")


def _filtered(value: exp.Expr, scope: Scope) -> Flow:
    """An aggregate with FILTER or WITHIN GROUP."""
    how: How = "CONDITIONAL" if isinstance(value, exp.Filter) else "SORT"
    decides = any_flow(value.expression, scope)
    # PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY x) gives an x.
    shown = through(decides, "AGGREGATION") if isinstance(value, exp.WithinGroup) else NOTHING
    return any_flow(value.this, scope) | through(decides, how) | shown


def _in_order(value: exp.Expr, scope: Scope) -> Flow:
    return any_flow(value.this, scope) | through(any_flow(value.expressions, scope), "SORT")


def _best(value: exp.Expr, scope: Scope) -> Flow:
    """ARG_MAX(a, b): a is shown, b decides which."""
    return any_flow(value.this, scope) | through(any_flow([value.expression, value.args.get("count")], scope), "SORT")


def _lambda(value: exp.Expr, scope: Scope) -> Flow:
    inside = scope.inside()
    inside.bound = scope.bound | {name_of(each.name) for each in value.expressions}
    inside.aliases = scope.aliases
    return any_flow(value.this, inside)


def _comprehension(value: exp.Expr, scope: Scope) -> Flow:
    inside = scope.inside()
    inside.bound = scope.bound | {name_of(value.expression.name)}
    listed = any_flow(
        [part for key, part in value.args.items() if key not in ("this", "expression", "condition")], scope
    )
    return listed | any_flow([value.this, value.args.get("condition")], inside)


def _named(value: exp.Expr, scope: Scope) -> Flow:
    """`name := value`, `{'name': value}`: the name is no column."""
    return any_flow(value.expression, scope)


def _dot(value: exp.Expr, scope: Scope) -> Flow:
    """A field of a struct, or a call after a dot."""
    after = value.expression
    return any_flow(value.this, scope) | (NOTHING if isinstance(after, exp.Identifier) else any_flow(after, scope))


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
