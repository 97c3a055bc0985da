"""Breakers at work: which steps they end, and whether they are what they say, as far as the SQL can tell."""

from collections.abc import Iterator, Mapping, Sequence

from sqlglot import exp

from models.purpose_flow.declarations import Breaker, Personal
from models.purpose_flow.graph import Graph
from models.purpose_flow.relations import DIRECT, ROWS, How, Place

_NAMING = ("identifier", "contact", "name", "birth_date")  # kinds that single a person out, whatever is counted


class Broken:
    """A graph without the steps that breakers end. `ended`: those steps that were met, by breaker."""

    def __init__(self, graph: Graph, breakers: Sequence[Breaker]) -> None:
        self._graph = graph
        self._breakers = breakers
        self._into: dict[Place, list[tuple[Place, How]]] = {}
        self.ended: dict[str, set[tuple[Place, Place]]] = {breaker.name: set() for breaker in breakers}

    def into(self, place: Place) -> list[tuple[Place, How]]:
        """What a place rests on where no breaker stands between, in a fixed order: direct steps first."""
        if place not in self._into:
            steps = [step for step in self._graph.into.get(place, ()) if not self._ends(step, place)]
            for breaker in self._breakers:
                if breaker.kind == "picked" and breaker.covers(place):
                    steps.extend((source, "TRANSFORMATION") for source in breaker.rests_on)
            self._into[place] = sorted(steps, key=lambda step: (step[1] not in DIRECT, step))
        return self._into[place]

    def _ends(self, step: tuple[Place, How], place: Place) -> bool:
        source, how = step
        for breaker in self._breakers:
            if breaker.kind == "token":
                ends = how not in DIRECT and how != "ROWS" and breaker.covers(source)
            elif breaker.kind == "picked":
                ends = breaker.covers(place) and source[0] == breaker.of
            elif breaker.kind == "begins":
                ends = breaker.covers(place) and how == "JOIN" and ".".join(source) == breaker.of
            else:
                ends = breaker.covers(place)
            if ends:
                self.ended[breaker.name].add((source, place))
                return True
        return False


def faults(
    graph: Graph, declared: Mapping[Place, Personal], breakers: Sequence[Breaker], keyed: frozenset[Place]
) -> Iterator[str]:
    """What breakers say that does not hold, in words."""
    judges = {
        "keyed": _not_keyed,
        "token": _no_token,
        "aggregate": _no_aggregate,
        "goods": _no_goods,
        "picked": _not_picked,
        "begins": _no_beginning,
    }
    for breaker in breakers:
        places = [
            place for table, columns in graph.columns.items()
            for place in ((table, column) for column in (*columns, ROWS)) if breaker.covers(place)
        ]  # fmt: skip
        if not places:
            yield f"breaker {breaker.name}: expected columns of the project, found none that its patterns name. Correct or remove it."
        for place in places:
            found = judges[breaker.kind](breaker, place, graph, declared, keyed)
            if found:
                yield f"breaker {breaker.name}, {'.'.join(place)}: {found}"


Judged = str | None


def _not_keyed(
    breaker: Breaker, place: Place, graph: Graph, declared: Mapping[Place, Personal], keyed: frozenset[Place]
) -> Judged:
    """Of a table whose ids are keyed the rest may be covered, as long as it is declared to hold nothing of a person."""
    if place in keyed or place not in declared:
        return None
    return "expected a column made under a key, found one that nobody says is. Declare it where it is made, or remove the breaker."


def _no_token(
    breaker: Breaker, place: Place, graph: Graph, declared: Mapping[Place, Personal], keyed: frozenset[Place]
) -> Judged:
    clear = next(
        (source for source in _made_of(graph, place, keyed) if source in declared and source not in keyed), None
    )
    if clear is None:
        return None
    return f"expected a token made under a key, found {'.'.join(clear)} in it. Keep what is clear out of the column."


def _made_of(graph: Graph, place: Place, stop: frozenset[Place]) -> Iterator[Place]:
    """Columns without anything above that a place is made of directly, and those it is stopped at."""
    seen, waiting = {place}, [place]
    while waiting:
        one = waiting.pop()
        steps = [] if one in stop else [source for source, how in graph.into.get(one, ()) if how in DIRECT]
        if not steps:
            yield one
        waiting.extend(source for source in steps if source not in seen)
        seen.update(steps)


def _no_aggregate(
    breaker: Breaker, place: Place, graph: Graph, declared: Mapping[Place, Personal], keyed: frozenset[Place]
) -> Judged:
    """Every direct road to something of a person must pass an aggregate, and none may show what singles a person out."""
    if place[1] == ROWS:
        return _too_few(breaker, place, graph, declared)
    seen, waiting = {place}, [place]
    while waiting:
        for source, how in graph.into.get(waiting.pop(), ()):
            if how not in DIRECT or how == "AGGREGATION" or source in seen:
                continue
            if source in declared:
                return f"expected an aggregate, found {'.'.join(source)} as it stands. Count it, or leave it out."
            seen.add(source)
            waiting.append(source)
    if place in declared and declared[place].category in _NAMING:
        return f"expected nothing that singles a person out, found {declared[place].category}. Leave the column out."
    return None


def _no_goods(
    breaker: Breaker, place: Place, graph: Graph, declared: Mapping[Place, Personal], keyed: frozenset[Place]
) -> Judged:
    """Counted by things alone: no column of a person may be among what it is grouped by, nor shown. No floor of people is claimed."""
    if place[1] != ROWS:
        return _no_aggregate(breaker, place, graph, declared, keyed)
    by = next((source for source in _grouped_by(graph, place) if source in declared), None)
    if by is None:
        return None
    return f"expected groups of things alone, found {'.'.join(by)} among their keys. Group by things, or ask for a floor of people."


def _grouped_by(graph: Graph, place: Place) -> Iterator[Place]:
    """Columns that the rows of a table are grouped by, as far as they were taken over as they stand."""
    waiting = [source for source, how in graph.into.get(place, ()) if how == "GROUP_BY"]
    seen = set(waiting)
    while waiting:
        one = waiting.pop()
        yield one
        more = [source for source, how in graph.into.get(one, ()) if how in ("IDENTITY", "TRANSFORMATION")]
        waiting.extend(source for source in more if source not in seen)
        seen.update(more)


def _no_beginning(
    breaker: Breaker, place: Place, graph: Graph, declared: Mapping[Place, Personal], keyed: frozenset[Place]
) -> Judged:
    """Rows over time may begin with a moment: the SQL compares it in a join, as the earlier side, and does nothing else with it."""
    moment, tree = breaker.of.partition(".")[2], graph.queries.get(place[0])
    if place[1] != ROWS or tree is None:
        return f"expected the rows of a table with SQL, found {'.'.join(place)}. Name the rows: `table.[*]`."
    named = [each for each in tree.find_all(exp.Column) if each.name.lower() == moment]
    compared = [each for each in named if _is_earlier(each)]
    if compared and all(_is_earlier(each) or isinstance(each.parent, exp.Select) for each in named):
        return None
    return f"expected {moment} only in `on {moment} <= ...` of a join, found otherwise. Correct the SQL, or remove the breaker."


def _is_earlier(column: exp.Column) -> bool:
    """Whether it is the earlier side of a comparison in a join's ON."""
    asked = column.parent
    if not isinstance(asked, exp.LTE) or asked.this is not column or not isinstance(asked.expression, exp.Column):
        return False
    return isinstance(asked.parent, exp.Join)


def _too_few(breaker: Breaker, place: Place, graph: Graph, declared: Mapping[Place, Personal]) -> Judged:
    """A floor of people must stand in the SQL: HAVING COUNT(DISTINCT <who>) >= k. Of one person nothing is hidden."""
    if breaker.least_people <= 1:
        return "expected a floor of two people or more, found none. Ask for one, or declare that goods are counted."
    who = {name for (_, name), personal in declared.items() if personal.category == "identifier"}
    tree = graph.queries.get(place[0])
    for having in tree.find_all(exp.Having) if tree is not None else ():
        for asked in having.find_all(exp.GTE, exp.GT):
            floor = _floor(asked)
            people = asked.this.find(exp.Distinct) if isinstance(asked.this, exp.Count) else None
            named = {each.name.lower() for each in people.find_all(exp.Column)} if people is not None else set()
            if floor >= breaker.least_people and named & who and asked.find_ancestor(exp.Or, exp.Not) is None:
                return None
    return (
        f"expected HAVING COUNT(DISTINCT <who>) >= {breaker.least_people}, found none in its SQL. "
        "Ask for so many people there, or declare how many there are."
    )


def _floor(asked: exp.Binary) -> int:
    number = asked.expression
    if not isinstance(number, exp.Literal) or not number.is_int:
        return 0
    return int(number.name) + isinstance(asked, exp.GT)


def _not_picked(
    breaker: Breaker, place: Place, graph: Graph, declared: Mapping[Place, Personal], keyed: frozenset[Place]
) -> Judged:
    table, column = place
    selector, value = breaker.where
    tree = graph.queries.get(table)
    for shown in tree.find_all(exp.Alias) if tree is not None else ():
        if shown.alias.lower() != column or isinstance(shown.this, exp.Column):
            continue
        cases = list(shown.this.find_all(exp.If))
        asked = [one.this for one in cases]
        if cases and all(
            isinstance(one, exp.EQ) and one.this.name.lower() == selector and one.expression.name == value
            for one in asked
        ):
            return None
    return (
        f"expected `case when {selector} = '{value}' then ...` in its SQL, found none. "
        "Pick the rows there, or remove the breaker."
    )
