"""The whole of it, put together: a project's compiled SQL, what landing makes, what is declared; then the check, or one column."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from models.purpose_flow import project, uses
from models.purpose_flow.breaking import Broken
from models.purpose_flow.checking import Report, Use, back, check, origins
from models.purpose_flow.declarations import Breaker, Personal, breakers, made_tables, personal, place
from models.purpose_flow.errors import FlowError
from models.purpose_flow.graph import Graph, Made, Table, built
from models.purpose_flow.relations import DIRECT, ROWS, Place


@dataclass(frozen=True)
class Landed:
    """A raw table as its contract says: columns with their kind of personal data (or `none`), and which are keyed tokens of which."""

    table: str
    columns: Mapping[str, str]
    tokens: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reaching:
    """What reaches a use: where the personal data in it comes from, and every table that it rests on."""

    personal: Mapping[Place, Personal]
    tables: frozenset[str]


@dataclass(frozen=True)
class Inspection:
    """A project whose flow is known. `report` checks it; `about` tells of one column."""

    graph: Graph
    declared: Mapping[Place, Personal]
    uses: Sequence[Use]
    breakers: Sequence[Breaker]
    keyed: frozenset[Place]
    purposes: frozenset[str]

    @cached_property
    def report(self) -> Report:
        return check(self.graph, self.declared, self.uses, self.breakers, self.keyed, self.purposes)

    def using(self, uses: Sequence[Use]) -> "Inspection":
        """The same flow with other uses."""
        return replace(self, uses=tuple(uses))

    def reaching(self, uses: Iterable[Use]) -> dict[str, Reaching]:
        """What reaches each use, by its title. One kind of data that was carried on is told of where it comes from."""
        broken = Broken(self.graph, self.breakers)
        found = {}
        for use in uses:
            reached = back(broken, use.reads)
            declared = {place: self.declared[place] for place in reached if place in self.declared}
            first = {place: declared[place] for place in origins(declared, broken, reached)}
            found[use.title] = Reaching(first, frozenset(table for table, _ in reached))
        return found

    def about(self, name: str) -> dict[str, Any]:
        """What `table.column` holds and rests on, and which uses it reaches; `table.*` asks for its rows.

        Raises: FlowError for a column there is not.
        """
        asked = place(name)
        if not self.graph.has(asked):
            raise FlowError(
                f"column: expected `table.column` of the project, found {name[:100]!r}. Name a table of dbt, or one Python makes."
            )
        broken = Broken(self.graph, self.breakers)
        above = back(broken, [asked])
        reached = [use for use in self.uses if asked in back(broken, use.reads)]
        told = self.declared.get(asked)
        return {
            "column": name,
            "personal": told.category if told else None,
            "purposes": sorted(told.purposes) if told else [],
            "rests_on": [
                {"column": ".".join(source), "how": how.lower(), "is_direct": how in DIRECT}
                for source, how in sorted(self.graph.into[asked], key=lambda step: (step[1] not in DIRECT, step))
                if source != (asked[0], ROWS)
            ],
            "personal_data_in_it": sorted({self.declared[each].category for each in above if each in self.declared}),
            "reaches": [{"use": use.title, "purpose": use.purpose, "declared_in": use.declared_in} for use in reached],
        }


def inspected(
    manifest: Mapping[str, Any], landed: Iterable[Landed], purposes: Iterable[str], made: Sequence[Made] | None = None
) -> Inspection:
    """The flow of the project that a compiled dbt manifest describes. `purposes`: those of the policy.

    Raises: FlowError for SQL that cannot be followed, and for declarations that name what there is not.
    """
    made = made_tables() if made is None else made
    known = {source["name"] for source in manifest["sources"].values()}
    raw = list(landed)
    unread = [each for each in raw if each.table not in known]  # read by Python alone, so that dbt does not know it
    sources = [Table(each.table, tuple(each.columns)) for each in unread]
    tokens = {(each.table, token): (each.table, of) for each in raw for token, of in each.tokens.items()}
    graph = built([*sources, *project.tables(manifest), *uses.segment_tables()], made, tokens)
    meta = [((each.table, name), {"personal": kind}) for each in unread for name, kind in each.columns.items()]
    return Inspection(
        graph=graph,
        declared=personal([*project.columns(manifest), *meta]),
        uses=[*uses.services(graph), *uses.makers(made), *uses.trainings(made), *uses.segments()],
        breakers=breakers(),
        keyed=frozenset({*tokens, *((each.table, column) for each in made for column in each.keyed)}),
        purposes=frozenset(purposes),
    )
