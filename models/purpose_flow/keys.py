"""Which columns of a query no two of its rows share, as far as its syntax tree says so.

A LEFT JOIN to such columns adds no row and takes none away: what stands on its right decides about its own columns alone.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

from sqlglot import exp

Keys = frozenset[frozenset[str]]
ONE_ROW: Keys = frozenset({frozenset()})


class Keyed(Protocol):
    """A relation as far as keys go."""

    @property
    def columns(self) -> Mapping[str, object]: ...

    @property
    def keys(self) -> Keys: ...


def adds_no_row(join: exp.Join, name: str, right: Keyed) -> bool:
    """Whether a join leaves the rows of its left side as they are: a LEFT JOIN that asks every column of a key to be equal."""
    if str(join.args.get("side") or "").upper() != "LEFT" or join.args.get("kind") or join.args.get("method"):
        return False
    asked = {each.name.lower() for each in join.args.get("using") or ()}
    on = join.args.get("on")
    for part in on.flatten() if isinstance(on, exp.And) else (on,):
        equal = part.unnest() if isinstance(part, exp.Expr) else part
        if isinstance(equal, exp.EQ):
            asked |= {side for side in (_column_of(equal, name, turned) for turned in (False, True)) if side}
    return any(key <= asked for key in right.keys)


def _column_of(equal: exp.EQ, name: str, turned: bool) -> str | None:
    """The column of the right side that is asked to equal something that the right side does not say."""
    one, other = (equal.expression, equal.this) if turned else (equal.this, equal.expression)
    if not isinstance(one, exp.Column) or one.table.lower() != name or other.find(exp.Query):
        return None
    return None if any(each.table.lower() in (name, "") for each in other.find_all(exp.Column)) else one.name.lower()


def keys_of(select: exp.Select, sources: Mapping[str, Keyed], unique: str | None) -> Keys:
    """Keys of what a SELECT gives. `unique`: the source each of whose rows comes out once at most."""
    if any(projection.find(exp.Explode, exp.Unnest) for projection in select.expressions):
        return frozenset()
    found: set[frozenset[str]] = set()
    limit = select.args.get("limit")
    if limit is not None and isinstance(limit.expression, exp.Literal) and limit.expression.name == "1":
        found.add(frozenset())
    group = select.args.get("group")
    if group is not None:
        found |= _of_groups(select, group)
    elif any(_is_aggregate(projection) for projection in select.expressions):
        found.add(frozenset())
    elif unique is not None:
        found |= _kept(select, sources, unique)
    found |= set(_numbered(select))
    return frozenset(found)


def _numbered(select: exp.Select) -> Iterator[frozenset[str]]:
    """`row_number() over (partition by ...)` gives each row of a partition another number: both together are a key.

    Of what the SELECT's own DISTINCT or window clauses make of it nothing is said.
    """
    if select.args.get("distinct") is not None:
        return
    for projection in select.expressions:
        window = projection.unalias()
        if not isinstance(window, exp.Window) or not isinstance(window.this, exp.RowNumber) or window.args.get("alias"):
            continue
        names = {projection.alias_or_name.lower()}
        for part in window.args.get("partition_by") or ():
            same = (each for each in select.expressions if isinstance(part, exp.Column) and each.unalias() == part)
            shown = next((each.alias_or_name for each in same), "")
            names.add(shown.lower())
        if "" not in names:
            yield frozenset(names)


def _is_aggregate(projection: exp.Expr) -> bool:
    """An aggregate over all rows: not one over a window, and not one of a query inside."""
    return any(
        not isinstance(found.parent, exp.Window | exp.Filter | exp.WithinGroup)
        and found.find_ancestor(exp.Select) is projection.find_ancestor(exp.Select)
        and found.find_ancestor(exp.Window) is None
        for found in projection.find_all(exp.AggFunc)
    )


def _of_groups(select: exp.Select, group: exp.Group) -> set[frozenset[str]]:
    if any(group.args.get(kind) for kind in ("all", "rollup", "cube", "grouping_sets", "totals")):
        return set()
    names = set()
    for part in group.expressions:
        shown = [each for at, each in enumerate(select.expressions, 1) if _shows(each, part, at)]
        if not shown or not shown[0].alias_or_name or isinstance(shown[0], exp.Star):
            return set()
        names.add(shown[0].alias_or_name.lower())
    return {frozenset(names)} if names else set()


def _shows(projection: exp.Expr, part: exp.Expr, at: int) -> bool:
    if isinstance(part, exp.Literal):
        return not part.is_string and part.name == str(at)
    return projection.unalias() == part


def _kept(select: exp.Select, sources: Mapping[str, Keyed], unique: str) -> set[frozenset[str]]:
    """Keys of the one source that a SELECT shows under their columns' new names."""
    named: dict[str, str] = {}
    for projection in select.expressions:
        is_star = isinstance(projection, exp.Star) or (
            isinstance(projection, exp.Column) and isinstance(projection.this, exp.Star)
        )
        if is_star and (not getattr(projection, "table", "") or projection.table.lower() == unique):
            star = projection.this if isinstance(projection, exp.Column) else projection
            if any(star.args.get(key) for key in ("except_", "replace", "rename")):
                continue
            named |= {name: name for name in sources[unique].columns}
        elif isinstance(shown := projection.unalias(), exp.Column) and not isinstance(shown.this, exp.Star):
            of = shown.table.lower()
            if of == unique or (not of and len(sources) == 1):
                named[shown.name.lower()] = projection.alias_or_name.lower()
    listed = [each.alias_or_name.lower() for each in select.expressions]
    fixed = _fixed(select, unique, alone=len(sources) == 1)
    keys = [key - fixed for key in sources[unique].keys]
    return {
        frozenset(named[name] for name in key)
        for key in keys
        if all(name in named and listed.count(named[name]) <= 1 for name in key)
    }


def _is_constant(value: exp.Expr) -> bool:
    """A literal, perhaps cast: the same for every row."""
    return all(isinstance(part, exp.Literal | exp.Cast | exp.DataType | exp.Paren) for part in value.walk())


def _fixed(select: exp.Select, unique: str, *, alone: bool) -> set[str]:
    """Columns of the one source that WHERE asks to be one value: two rows do not differ in them."""
    where = select.args.get("where")
    asked = where.this if where is not None else None
    found = set()
    for part in asked.flatten() if isinstance(asked, exp.And) else (asked,):
        equal = part.unnest() if isinstance(part, exp.Expr) else part
        if not isinstance(equal, exp.EQ):
            continue
        for one, other in ((equal.this, equal.expression), (equal.expression, equal.this)):
            of = one.table.lower() if isinstance(one, exp.Column) else None
            if _is_constant(other) and (of == unique or (of == "" and alone)):
                found.add(one.name.lower())
    return found
