"""What this room does with columns of people, beside feature services: its answers and pages, and the places that data is sent to.

Each says its purpose and what it reads, so that purpose flow holds it like any other use. What an answer reads is taken from its module.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from feature_repo.catalogue import RECOMMEND_CONTEXT
from models.purpose_flow import kept, uses
from models.purpose_flow.checking import Use
from models.purpose_flow.declarations import made_tables
from models.purpose_flow.graph import Graph
from models.purpose_flow.inspecting import Reaching
from models.purpose_flow.relations import Place
from models.segments import described
from models.segments.definition import Segment
from serving import orders, profiles
from serving.activation.destinations import FILE, SHARING, Destination, read_destinations
from serving.console.said import Identity
from troth.home import Home

Columns = Mapping[str, Iterable[str]]


def answers(graph: Graph) -> Iterator[Use]:
    """What the service and its pages answer about people from published tables, under the purpose that standing is asked for."""
    said = {"customer_profiles": [*profiles.IDENTITY, *profiles.BEHAVIOUR, *profiles.STORE, *profiles.CHANNEL]}
    fields = profiles.FieldSaid.__struct_fields__
    yield _use(graph, "answer", "profile", "service", {**said, "customer_fields": fields}, "serving/profiles.py")
    yield _use(graph, "answer", "browsing", "personalization", {"customer_profiles": profiles.BROWSING}, "serving/profiles.py")  # fmt: skip
    whole = {table: graph.columns.get(table, ()) for table in orders.TABLES}
    yield _use(graph, "answer", "order", "service", whole, "serving/orders.py")
    shown = {RECOMMEND_CONTEXT.views[0].table: ["customer_id"], "pred_recommendations": ["sku", "neighbour_sku", "score"]}  # fmt: skip
    yield _use(graph, "answer", "recommendations", "personalization", shown, "serving/answers.py")
    asked = ("customer_id", "purpose_code", "channel_code", "is_allowed", "reason_code")
    links = {"customer_identities": ("customer_id", "identity_ref"), "consent_standing": asked}
    yield _use(graph, "answer", "standing", "service", links, "serving/answers.py")
    yield _use(
        graph,
        "page",
        "one customer",
        "service",
        {"customer_identities": Identity._fields, "returns": graph.columns.get("returns", ())},
        "serving/console/customers.py",
    )
    yield _use(
        graph,
        "page",
        "contact data in the clear",
        "service",
        {"vault": ["email", "phone"]},
        "serving/console/customers.py",
    )
    said_by = {
        "customer_identities": ("customer_id", "identity_ref", "link_type"),
        "consent_ledger": graph.columns.get("consent_ledger", ()),
    }
    yield _use(graph, "audit", "one person", "service", said_by, "serving/audit/people.py")
    landed = {table: columns for table, columns in graph.columns.items() if table.startswith("raw_")}
    yield _use(graph, "right", "access and portability", "service", landed, "orchestration/rights/access.py")


def sent(places: Iterable[Destination]) -> Iterator[Use]:
    """Places that exports are sent to: customers' ids, and from the vault the contact data of the channels they take."""
    for place in places:
        channels = place.channels if "contact" in place.fields else ()
        taken = (("vault", uses.CONTACTS[channel]) for channel in channels if channel in uses.CONTACTS)
        reads = (("customers", "customer_id"), *taken)
        for purpose in purposes_of(place):
            yield Use("destination", f"{place.name} for {purpose}", purpose, reads, FILE, is_of_home=True)


def purposes_of(place: Destination) -> tuple[str, ...]:
    """What data sent to a place is used for: its purposes, and sharing where whoever receives it uses it for themselves."""
    return tuple(dict.fromkeys((*place.purposes, *((SHARING,) if place.is_third_party else ()))))


def of_home(home: Home, graph: Graph) -> list[Use]:
    """Every use there is in a home as it is now, over the columns that its flow was followed through."""
    made = made_tables()
    return [
        *uses.services(graph), *uses.makers(made), *uses.trainings(made), *uses.of_segments(segments(home), described.loader(home)),
        *answers(graph), *sent(read_destinations(home)),
    ]  # fmt: skip


def reaching(home: Home, listed: Iterable[Use]) -> Mapping[str, Reaching]:
    """What personal data reaches uses, by their titles, over the flow that the home keeps; followed once for as long as neither changes."""
    return _reaching(home, _mark(home), tuple(listed))


def uncovered(home: Home, listed: Iterable[Use]) -> Sequence[str]:
    """What reaches uses that their purposes do not cover, a sentence each, with its path.

    Raises: FlowError for a use that reads what there is not, or is for a purpose there is not.
    """
    return _uncovered(home, _mark(home), tuple(listed))


def _mark(home: Home) -> tuple[int, int] | None:
    """What tells the file of the kept flow from another under its name."""
    path = kept.file_of(home)
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None


@lru_cache(maxsize=4)
def _reaching(home: Home, _mark: tuple[int, int] | None, listed: tuple[Use, ...]) -> Mapping[str, Reaching]:
    flow = kept.known(home)
    return {} if flow is None else flow.reaching(listed)


@lru_cache(maxsize=4)
def _uncovered(home: Home, _mark: tuple[int, int] | None, listed: tuple[Use, ...]) -> Sequence[str]:
    return tuple(found.sentence for found in kept.uncovered(home, listed))


def segments(home: Home) -> list[Segment]:
    """The segments of a home: those that come with Troth, and those described in it."""
    return [described.load(home, name) for name in described.names(home)]


def _use(graph: Graph, kind: str, name: str, purpose: str, columns: Columns, declared_in: str) -> Use:
    """A use of those of the columns that are followed: an answer may know a column before the next run does."""
    reads: list[Place] = [
        (table, column) for table, listed in columns.items() for column in listed if graph.has((table, column))
    ]
    return Use(kind, name, purpose, tuple(dict.fromkeys(reads)), declared_in)
