"""Who uses columns and what for, taken from where each says so: feature services, models, segments, and files that go out."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from models.purpose_flow.checking import Use
from models.purpose_flow.errors import FlowError
from models.purpose_flow.graph import Graph, Made, Table
from models.purpose_flow.relations import Place

if TYPE_CHECKING:
    from models.segments.conditions import Comparison, Condition
    from models.segments.definition import Segment

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
    """Segments that come with Troth, and what holds for all of them."""
    from models.segments.definition import load, names

    yield from of_segments([load(name) for name in names()], load)


def of_segments(segments: "Iterable[Segment]", loaded: "Callable[[str], Segment]") -> Iterator[Use]:
    """Segments, the rules they share, and what their exports take from the vault, by channel.

    `loaded` gives the segments that lookalikes start from. Exclusions are asked of whoever matches any segment, so each of them is a use
    of every purpose that a segment has; lists of a home hold tokens and ids, and read no column.
    """
    from models.segments.definition import names

    listed = list(segments)
    shipped = set(names())
    for segment in listed:
        is_own = segment.name not in shipped
        where = f"{'segments' if is_own else 'models/segments'}/definitions/{segment.name}.yml"
        reads = tuple(dict.fromkeys([*_always(segment), *_asked(segment, loaded)]))
        yield Use("segment", segment.name, segment.purpose, reads, where, is_own)
        for channel in segment.channels:
            if channel in CONTACTS:
                taken = (("vault", CONTACTS[channel]), ("customers", "customer_id"))
                yield Use("export", f"{segment.name} by {channel}", segment.purpose, taken, where, is_own)
    yield from shared_rules(dict.fromkeys(segment.purpose for segment in listed))


def _always(segment: "Segment") -> Iterator[Place]:
    """What is looked at of everybody who matches: who they are, and the token of the address that a channel goes to."""
    from models.segments.decision import CONTACT_POINTS

    yield from (("customers", "customer_id"), ("customers", "is_test"))
    yield from (("customers", column) for channel in segment.channels if (column := CONTACT_POINTS.get(channel)))


def shared_rules(purposes: Iterable[str]) -> Iterator[Use]:
    """What `rules.yml` reads of whoever matches a segment: its exclusions for every purpose, its test groups for theirs."""
    from models.segments.rules import RULES_FILE, read_rules

    rules = read_rules()
    where = f"models/segments/{RULES_FILE.name}"
    for purpose in purposes:
        for exclusion in rules.exclusions:
            reads = (("customers", "customer_id"), *_of_condition(exclusion.where))
            yield Use("exclusion", f"{exclusion.name} of {purpose}", purpose, tuple(dict.fromkeys(reads)), where)
        for group in rules.test_groups:
            if purpose in group.purposes:
                yield Use("test group", f"{group.name} of {purpose}", purpose, (("customers", "customer_id"),), where)


def _asked(
    segment: "Segment", loaded: "Callable[[str], Segment]", seen: frozenset[str] = frozenset()
) -> Iterator[Place]:
    """The columns that a segment's conditions speak of, those of segments that it is alike to among them."""
    from models.segments.conditions import Lookalike, leaves

    yield from _of_condition(segment.where)
    if segment.rank is not None:
        yield f"of_{segment.rank.by.subject}", segment.rank.by.field
    for leaf in leaves(segment.where):
        if isinstance(leaf, Lookalike) and leaf.like is not None and leaf.like not in seen:
            yield from _asked(loaded(leaf.like), loaded, seen | {segment.name, leaf.like})


def _of_condition(where: "Condition") -> Iterator[Place]:
    """The columns that a condition itself speaks of."""
    from models.segments.conditions import Comparison, Happened, leaves
    from models.segments.fields import SCORES

    for leaf in leaves(where):
        if isinstance(leaf, Comparison):
            yield f"of_{leaf.subject}", leaf.field
        elif isinstance(leaf, Happened):
            summed = {"times": [], "units": ["quantity_units"]}.get(leaf.counted, [leaf.counted, "currency_code"])
            same = [leaf.unless.same] if leaf.unless else []
            yield from _of_event(leaf.event, leaf.filters, [*summed, *same])
            if leaf.unless:
                yield from _of_event(leaf.unless.event, leaf.unless.filters, same)
        else:
            yield SCORES[leaf.score].table, SCORES[leaf.score].column


def _of_event(name: str, filters: "Iterable[Comparison]", more: Iterable[str]) -> Iterator[Place]:
    """The columns that counting an event looks at."""
    from models.segments.fields import EVENTS

    asked = [each.field for each in filters]
    own = [field for field in asked if field in EVENTS[name].fields]
    yield from ((f"of_{name}", column) for column in ("customer_id", "happened_at", *own, *more))
    yield from (("products", field) for field in asked if field in EVENTS[name].of_products)
