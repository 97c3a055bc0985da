"""Who uses columns and what for, taken from where each says so: feature services, models, segments, and files that go out."""

from collections.abc import Iterable, Iterator

from models.purpose_flow.checking import Use
from models.purpose_flow.errors import FlowError
from models.purpose_flow.following import Place
from models.purpose_flow.graph import Graph, Made, Table

# What an export takes from the vault to reach people over a channel.
CONTACTS = {"email": "email", "sms": "phone"}


def services(graph: Graph) -> Iterator[Use]:
    """Feature services, and reads of our own answers under the same gate."""
    from feature_repo.catalogue import RECOMMEND_CONTEXT, SERVICES

    for service in (*SERVICES, RECOMMEND_CONTEXT):
        reads = [
            (view.table, column)
            for view in service.views
            for column in (*view.entity.join_keys, *(each.name for each in view.fields))
            # Fields of an index are made of several tables: those of the view's own are here.
            if view.is_feature or column in graph.columns.get(view.table, ())
        ]
        yield Use("feature service", service.name, service.purpose_code, tuple(reads), "feature_repo/catalogue.py")


def makers(made: Iterable[Made]) -> Iterator[Use]:
    """Tables that Python makes, each for its purpose."""
    for each in made:
        yield Use("table", each.table, each.purpose, each.reads, each.made_by)


def trainings(made: Iterable[Made]) -> Iterator[Use]:
    """Models that learn from people: what they read is learned from, too."""
    from models.build import BASELINES

    by_table = {each.table: each for each in made}
    for baseline in BASELINES:
        if baseline.table not in by_table:
            raise FlowError(
                f"model {baseline.name}: expected its table {baseline.table} among those Python makes, found none. "
                "Declare it in models/purpose_flow/assets.yml."
            )
        reads = by_table[baseline.table].reads
        yield Use("training", baseline.name, "model_training", reads, f"models/{baseline.name}.py")


def segment_tables() -> list[Table]:
    """Subjects and events that segments speak of, each as a query over published tables."""
    from models.segments.fields import EVENTS, SUBJECTS

    listed = [(f"of_{name}", subject.sql, subject.tables) for name, subject in SUBJECTS.items()]
    listed += [(f"of_{name}", event.sql, event.tables) for name, event in EVENTS.items()]
    return [Table(name, sql=sql, needs=needs) for name, sql, needs in listed]


def segments() -> Iterator[Use]:
    """Segments, and what their exports take from the vault, by channel."""
    from models.segments.definition import load, names

    for name in names():
        segment = load(name)
        where = f"models/segments/definitions/{name}.yml"
        reads = tuple(dict.fromkeys([("customers", "customer_id"), ("customers", "is_test"), *_asked(name)]))
        yield Use("segment", name, segment.purpose, reads, where)
        for channel in segment.channels:
            if channel in CONTACTS:
                taken = (("vault", CONTACTS[channel]), ("customers", "customer_id"))
                yield Use("export", f"{name} by {channel}", segment.purpose, taken, where)


def _asked(name: str, seen: frozenset[str] = frozenset()) -> Iterator[Place]:
    """The columns that a segment's conditions speak of, those of segments that it is alike to among them."""
    from models.segments.conditions import Comparison, Happened, leaves
    from models.segments.definition import load
    from models.segments.fields import EVENTS, SCORES

    segment = load(name)
    compared = [segment.rank.by] if segment.rank else []
    for leaf in leaves(segment.where):
        if isinstance(leaf, Comparison):
            compared.append(leaf)
        elif isinstance(leaf, Happened):
            event = EVENTS[leaf.event]
            own = [each.field for each in leaf.filters if each.field in event.fields]
            more = ["quantity_units"] if leaf.counted == "units" else []
            yield from ((f"of_{leaf.event}", column) for column in ("customer_id", "happened_at", *own, *more))
            yield from (("products", each.field) for each in leaf.filters if each.field in event.of_products)
        else:
            yield (SCORES[leaf.score].table, SCORES[leaf.score].column)
            if leaf.like is not None and leaf.like not in seen:
                yield from _asked(leaf.like, seen | {name})
    yield from ((f"of_{each.subject}", each.field) for each in compared)
