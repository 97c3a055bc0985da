"""The check: every path on which personal data reaches a use whose purpose does not cover it, and breakers that are none.

A path is followed from the use back to what it rests on, by whatever road, until a breaker. Per column it starts from and
column the use reads, the shortest is told.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from models.purpose_flow.breaking import Broken, faults
from models.purpose_flow.declarations import Breaker, Personal
from models.purpose_flow.errors import FlowError
from models.purpose_flow.graph import Graph
from models.purpose_flow.relations import DIRECT, How, Place


@dataclass(frozen=True)
class Use:
    """Who reads columns, and what for. Without a purpose nothing personal may reach it.

    `is_of_home`: described in a home, not part of the code. What is found of it stops it alone.
    """

    kind: str
    name: str
    purpose: str | None
    reads: tuple[Place, ...]
    declared_in: str
    is_of_home: bool = False

    @property
    def title(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Path:
    """From where personal data lies to the column that a use reads; `hows` say what each step does."""

    places: tuple[Place, ...]
    hows: tuple[How, ...]

    @property
    def is_direct(self) -> bool:
        return all(how in DIRECT for how in self.hows)

    @property
    def text(self) -> str:
        steps = [".".join(self.places[0])]
        for how, place in zip(self.hows, self.places[1:], strict=True):
            if how == "ROWS" and place[0] == steps[-1].partition(".")[0]:
                continue  # from a table's rows to its own columns is no step of its own
            steps.append(f"-[{how.lower()}]-> {'.'.join(place)}" if how != "ROWS" else f"-> {'.'.join(place)}")
        return " ".join(steps)


@dataclass(frozen=True)
class Finding:
    """One column whose data reaches a use that its purposes do not cover; a path for every column the use reads it by."""

    use: Use
    column: Place
    personal: Personal
    paths: tuple[Path, ...]

    @property
    def sentence(self) -> str:
        allowed, wanted = (
            ", ".join(sorted(self.personal.purposes)) or "nothing",
            self.use.purpose or "a use without a purpose",
        )
        return (
            f"{self.use.title}: expected data that may be used for {wanted}, found {'.'.join(self.column)} "
            f"({self.personal.category}, for {allowed}): {self.paths[0].text} -> {self.use.title}. "
            "Read other columns, declare the purpose where people were asked for it, or declare a reviewed breaker."
        )


@dataclass(frozen=True)
class Report:
    """What was found, what it was looked for in, and which breakers held."""

    findings: tuple[Finding, ...]
    faults: tuple[str, ...]
    uses: int
    tables: int
    columns: int
    edges: int
    personal_columns: int
    ended: Mapping[str, int]  # breaker -> how many steps it ended on the way to a use

    @property
    def is_verified(self) -> bool:
        return not self.findings and not self.faults


def check(
    graph: Graph,
    declared: Mapping[Place, Personal],
    uses: Sequence[Use],
    breakers: Sequence[Breaker],
    keyed: Iterable[Place] = (),
    purposes: Iterable[str] = (),
) -> Report:
    """Hold every use against what reaches it. `keyed`: columns made under a key; `purposes`: those there are.

    Raises: FlowError for a use that reads what there is not, or is for a purpose there is not.
    """
    broken = Broken(graph, breakers)
    return Report(
        findings=_all_findings(graph, declared, uses, broken, purposes),
        faults=tuple(faults(graph, declared, breakers, frozenset(keyed))),
        uses=len(uses),
        tables=len(graph.columns),
        columns=sum(map(len, graph.columns.values())),
        edges=graph.edges(),
        personal_columns=len(declared),
        ended={breaker.name: len(broken.ended[breaker.name]) for breaker in breakers},
    )


def findings(
    graph: Graph,
    declared: Mapping[Place, Personal],
    uses: Sequence[Use],
    breakers: Sequence[Breaker],
    purposes: Iterable[str] = (),
) -> tuple[Finding, ...]:
    """What reaches uses that does not belong there, breakers being taken at their word: `check` holds those against the SQL.

    Raises: FlowError as `check` does.
    """
    return _all_findings(graph, declared, uses, Broken(graph, breakers), purposes)


def _all_findings(
    graph: Graph, declared: Mapping[Place, Personal], uses: Sequence[Use], broken: Broken, purposes: Iterable[str]
) -> tuple[Finding, ...]:
    known = set(purposes)
    for use in uses:
        _fits(graph, use, known)
    return tuple(finding for use in uses for finding in _findings(use, declared, broken))


def _fits(graph: Graph, use: Use, known: set[str]) -> None:
    missing = sorted(".".join(place) for place in use.reads if not graph.has(place))
    if missing:
        raise FlowError(
            f"{use.title}: expected columns of the project, found {', '.join(missing)}. Correct {use.declared_in}."
        )
    if known and use.purpose is not None and use.purpose not in known:
        raise FlowError(
            f"{use.title}: expected a purpose of {', '.join(sorted(known))}, found {use.purpose}. Correct {use.declared_in}."
        )


def _findings(use: Use, declared: Mapping[Place, Personal], broken: Broken) -> Iterator[Finding]:
    reached = back(broken, use.reads)
    uncovered = {
        place: declared[place] for place in reached
        if place in declared and (use.purpose is None or use.purpose not in declared[place].purposes)
    }  # fmt: skip
    if not uncovered:
        return
    ways = {place: back(broken, [place]) for place in use.reads}
    for origin in origins(uncovered, broken, reached):
        paths = [path_from(way, origin) for way in ways.values() if origin in way]
        yield Finding(use, origin, uncovered[origin], tuple(sorted(paths, key=lambda each: len(each.places))))


def back(broken: Broken, start: Iterable[Place]) -> dict[Place, tuple[Place, How] | None]:
    """Everything that places rest on, each with its next step towards them; nearest first."""
    reached: dict[Place, tuple[Place, How] | None] = dict.fromkeys(start)
    waiting = deque(reached)
    while waiting:
        place = waiting.popleft()
        for source, how in broken.into(place):
            if source not in reached:
                reached[source] = (place, how)
                waiting.append(source)
    return reached


def origins(declared: Mapping[Place, Personal], broken: Broken, reached: Iterable[Place]) -> Iterator[Place]:
    """Where declared data comes from, of what was reached: columns that the same kind of data was carried on to are not told again."""
    told: set[Place] = set()
    for place in reversed([each for each in reached if each in declared]):  # furthest from the use first
        if not _carried(place, declared, broken, told):
            yield place
        told.add(place)


def _carried(place: Place, declared: Mapping[Place, Personal], broken: Broken, told: set[Place]) -> bool:
    """Whether a place takes over, directly, data of its own kind that was told of before."""
    category, seen, waiting = declared[place].category, {place}, [place]
    while waiting:
        for source, how in broken.into(waiting.pop()):
            if how not in DIRECT or source in seen:
                continue
            if source in told and declared[source].category == category:
                return True
            seen.add(source)
            waiting.append(source)
    return False


def path_from(way: Mapping[Place, tuple[Place, How] | None], origin: Place) -> Path:
    """The shortest path from a place to what `back` began with."""
    places, hows = [origin], []
    while (step := way[places[-1]]) is not None:
        places.append(step[0])
        hows.append(step[1])
    return Path(tuple(places), tuple(hows))
