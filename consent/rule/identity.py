"""Which identities were joined, and when: the link events of the ledger as one table of pairs, and the events to append.

Every form of standing reads this table (README.md, "The rule of standing", step 6). What the links mean for a purpose is not said here.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import combinations
from typing import Protocol

import polars as pl

from consent.events import Event, Recorded

LINK_EVENTS = ("identity_linked", "identity_unlinked")
HUB, DETERMINISTIC = "hub", "deterministic"
JOINED_SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("subject_id", "other_subject_id"), pl.String()),
    **dict.fromkeys(("linked_at", "split_at", "unlinked_at"), pl.Datetime("us", "UTC")),
}
EVERY_TYPE = ""

Pair = tuple[str, str]  # the smaller id first
Span = tuple[datetime, datetime | None]


@dataclass(frozen=True, slots=True)
class Joined:
    """A time in which a chain of links joined two identities; one with `split_at < unlinked_at` was joined through a third.

    `subject_id` hears what `other_subject_id` said no to until `split_at`; its own grants count against that after `unlinked_at`.
    """

    subject_id: str
    other_subject_id: str
    linked_at: datetime
    split_at: datetime | None
    unlinked_at: datetime | None

    def holds(self, at: datetime) -> bool:
        """Whether the two are joined at a time."""
        if self.linked_at > at or self.split_at != self.unlinked_at:
            return False
        return self.unlinked_at is None or self.unlinked_at > at

    def ended(self, at: datetime) -> bool:
        """Whether the two had been parted by a time."""
        return self.linked_at <= at and self.unlinked_at is not None and self.unlinked_at <= at


@dataclass(frozen=True, slots=True)
class LinkSaid:
    """A link event of a frame: what `joined` reads of an event."""

    subject_id: str
    linked_subject_id: str | None
    link_type: str | None
    event_type: str
    occurred_at: datetime
    recorded_at: datetime
    received_at: datetime


Link = Event | LinkSaid


class Readable(Protocol):
    """Anything that has a subject's events, such as a ledger."""

    def events_of(self, subject_id: str) -> Sequence[Recorded]: ...


def joined(events: Iterable[Link]) -> list[Joined]:
    """The table of pairs of link events, in whatever order and however often they come; other events say nothing."""
    edges = _edges(events)
    if not any(end for spans in edges.values() for _, end in spans):
        return sorted(_never_parted(edges), key=_order)
    found: list[Joined] = []
    for group in _groups(edges):
        parted = any(end for pair in group for _, end in edges[pair])
        mine = {pair: edges[pair] for pair in group}
        found += _through_others(_swept(mine)) if parted else _never_parted(mine)
    return sorted(found, key=_order)


def joined_frame(events: pl.DataFrame, known_at: datetime | None = None) -> pl.DataFrame:
    """The raw table `consent_links`: `joined` of a frame of ledger rows, of what had been received by `known_at` where given."""
    links = events.lazy().filter(pl.col("event_type").is_in(LINK_EVENTS))
    if known_at is not None:
        links = links.filter(pl.col("received_at") <= pl.lit(known_at.astimezone(UTC), pl.Datetime("us", "UTC")))
    names = ("subject_id", "linked_subject_id", "link_type", "event_type", "occurred_at", "recorded_at", "received_at")
    said = links.select(names).unique().collect() if set(names) <= set(events.columns) else pl.DataFrame()
    rows = joined(LinkSaid(*row) for row in said.iter_rows())
    columns = {name: [getattr(row, name) for row in rows] for name in JOINED_SCHEMA}
    return pl.DataFrame(columns, schema=JOINED_SCHEMA)


def joined_of(events: Readable, subject_id: str, known_at: datetime | None = None) -> list[Joined]:
    """The rows of a subject and of everyone it was ever joined to, found by following links from subject to subject."""
    return joined(_around(events, subject_id, known_at))


def company(events: Readable, subject_id: str) -> set[str]:
    """Every identity a subject was ever joined to through any chain of links, and itself."""
    return {
        subject_id,
        *(event.linked_subject_id for event in _around(events, subject_id, None) if event.linked_subject_id),
    }


def record_links(ledger: Iterable[Event], current: pl.DataFrame, at: datetime) -> list[Event]:
    """The link events to append so that the ledger says what the warehouse believes now.

    `ledger`: the link events it holds. `current`: customer_id, identity_ref, link_type. Each customer's identities are linked to its hub,
    two events a link, one for each side. The ids are told by the link and how often it was made before, so appending what was
    appended already changes nothing.
    """
    said = list(ledger)
    meant, held, made = set(_stars(current)), set(), defaultdict(set)
    for (pair, link_type), spans in _typed_edges(said).items():
        if link_type and spans and spans[-1][1] is None:
            held.add((*pair, link_type))
    for event in said:
        if event.event_type in LINK_EVENTS and event.linked_subject_id:
            made[(*_pair(event), event.link_type or "", event.event_type)].add(event.signal_id)
    found: list[Event] = []
    for event_type, changed in (("identity_unlinked", held - meant), ("identity_linked", meant - held)):
        for first, second, link_type in sorted(changed):
            times = len(made[first, second, link_type, event_type])
            signal_id = f"link-{_digest(event_type, first, second, link_type, str(times))}"
            found += [
                _link_event(event_type, one, other, link_type, at, signal_id)
                for one, other in ((first, second), (second, first))
            ]
    return found


def _pair(event: Link) -> Pair:
    one, other = event.subject_id, str(event.linked_subject_id)
    return (one, other) if one < other else (other, one)


def _typed_edges(events: Iterable[Link]) -> dict[tuple[Pair, str], list[Span]]:
    """When each pair was linked by each type: from `happened_at` of a link to `received_at` of an unlink of that type or of none."""
    on: dict[tuple[Pair, str], set[datetime]] = defaultdict(set)
    off: dict[tuple[Pair, str], set[datetime]] = defaultdict(set)
    for event in events:
        if event.linked_subject_id is None or event.linked_subject_id == event.subject_id:
            continue
        key = (_pair(event), event.link_type or EVERY_TYPE)
        if event.event_type == "identity_linked":
            on[key].add(min(event.occurred_at, event.recorded_at, event.received_at))
        elif event.event_type == "identity_unlinked":
            off[key].add(event.received_at)
    return {
        (pair, kind): list(_spans(made, off[pair, kind] | off[pair, EVERY_TYPE])) for (pair, kind), made in on.items()
    }


def _spans(on: set[datetime], off: set[datetime]) -> Iterator[Span]:
    """Maximal times linked; at the same instant linked wins."""
    since: datetime | None = None
    for moment in sorted(on | off):
        if moment in on:
            since = moment if since is None else since
        elif since is not None:
            yield since, moment
            since = None
    if since is not None:
        yield since, None


def _edges(events: Iterable[Link]) -> dict[Pair, list[Span]]:
    """When each pair was linked by any type."""
    found: dict[Pair, list[Span]] = defaultdict(list)
    for (pair, _), spans in _typed_edges(events).items():
        found[pair] += spans
    return found


def _groups(edges: Mapping[Pair, list[Span]]) -> list[list[Pair]]:
    """Pairs by the identities that any chain ever joined."""
    parent: dict[str, str] = {}
    for first, second in edges:
        parent[_root(parent, first)] = _root(parent, second)
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in edges:
        groups[_root(parent, pair[0])].append(pair)
    return list(groups.values())


def _root(parent: dict[str, str], one: str) -> str:
    while (above := parent.setdefault(one, one)) != one:
        parent[one] = parent[above]
        one = above
    return one


def _never_parted(edges: Mapping[Pair, list[Span]]) -> Iterator[Joined]:
    """Without a split, two are joined from the link that brought their two groups together: links by time, groups merged."""
    members: dict[str, list[str]] = {}
    group: dict[str, str] = {}
    for since, first, second in sorted(
        (spans[0][0] if len(spans) == 1 else min(spans)[0], *pair) for pair, spans in edges.items()
    ):
        one, other = group.setdefault(first, first), group.setdefault(second, second)
        mine, theirs = members.setdefault(one, [one]), members.setdefault(other, [other])
        if one == other:
            continue
        for left in mine:
            for right in theirs:
                yield Joined(left, right, since, None, None)
                yield Joined(right, left, since, None, None)
        if len(mine) < len(theirs):
            one, other, mine, theirs = other, one, theirs, mine
        mine += theirs
        for moved in members.pop(other):
            group[moved] = one


def _swept(edges: Mapping[Pair, list[Span]]) -> list[Joined]:
    """Maximal times joined by a chain, from the groups between any two changes of a link."""
    changes = sorted({moment for spans in edges.values() for span in spans for moment in span if moment is not None})
    begun: dict[Pair, datetime] = {}
    found: list[Joined] = []

    def end(pair: Pair, moment: datetime | None) -> None:
        since = begun.pop(pair)
        found.extend(Joined(one, other, since, moment, moment) for one, other in (pair, pair[::-1]))

    for moment in changes:
        parent: dict[str, str] = {}
        for pair, spans in edges.items():
            if any(since <= moment and (until is None or until > moment) for since, until in spans):
                parent[_root(parent, pair[0])] = _root(parent, pair[1])
        groups: dict[str, list[str]] = defaultdict(list)
        for one in sorted(parent):
            groups[_root(parent, one)].append(one)
        now = {pair for group in groups.values() for pair in combinations(group, 2)}
        for pair in sorted(begun.keys() - now):
            end(pair, moment)
        for pair in now - begun.keys():
            begun[pair] = moment
    for pair in sorted(begun):
        end(pair, None)
    return found


def _through_others(rows: list[Joined]) -> list[Joined]:
    """The rows, and for each who was joined to one that had been parted from a third: until that ended too, and so on."""
    legs = defaultdict(list)  # who was joined to each identity and is no longer
    for row in rows:
        if row.unlinked_at is not None:
            legs[row.other_subject_id].append(row)
    found = {(row.subject_id, row.other_subject_id, row.split_at, row.unlinked_at): row for row in rows}
    waiting = [row for row in rows if row.unlinked_at is not None]
    while waiting:
        heard = waiting.pop()
        silent_at = max(heard.linked_at, heard.split_at or heard.linked_at)
        for leg in legs[heard.subject_id]:
            if leg.subject_id == heard.other_subject_id or leg.unlinked_at is None or leg.unlinked_at <= silent_at:
                continue
            key = (leg.subject_id, heard.other_subject_id, heard.split_at, leg.unlinked_at)
            row = Joined(key[0], key[1], max(leg.linked_at, heard.linked_at), *key[2:])
            if key not in found or row.linked_at < found[key].linked_at:
                found[key] = row
                waiting.append(row)
    return list(found.values())


def _order(row: Joined) -> tuple[str, str, datetime, bool, datetime, datetime]:
    split, unlinked = row.split_at or row.linked_at, row.unlinked_at or row.linked_at
    return (row.subject_id, row.other_subject_id, row.linked_at, row.unlinked_at is None, unlinked, split)


def _around(events: Readable, subject_id: str, known_at: datetime | None) -> list[Event]:
    """The link events of every identity that a chain of links leads to."""
    found: list[Event] = []
    seen, waiting = {subject_id}, [subject_id]
    while waiting:
        for recorded in events.events_of(waiting.pop()):
            event = recorded.event
            if event.event_type not in LINK_EVENTS or (known_at is not None and event.received_at > known_at):
                continue
            found.append(event)
            if event.linked_subject_id and event.linked_subject_id not in seen:
                seen.add(event.linked_subject_id)
                waiting.append(event.linked_subject_id)
    return found


def _stars(current: pl.DataFrame) -> Iterator[tuple[str, str, str]]:
    """(smaller id, larger id, link type) of each customer's identities with its hub; without a hub, with the smallest id."""
    by_customer: dict[str, dict[str, str]] = defaultdict(dict)
    for customer_id, identity_ref, link_type in current.select("customer_id", "identity_ref", "link_type").iter_rows():
        kinds = by_customer[customer_id]
        if kinds.get(identity_ref) != HUB:  # one identity told twice: a hub before all else
            kinds[identity_ref] = min(link_type, kinds.get(identity_ref, link_type)) if link_type != HUB else HUB
    for kinds in by_customer.values():
        centre = min(kinds, key=lambda one: (kinds[one] != HUB, one))
        for one, link_type in kinds.items():
            if one != centre:
                kind = DETERMINISTIC if link_type == HUB else link_type
                yield (*sorted((centre, one)), kind)  # type: ignore[misc]  # two of them


def _link_event(event_type: str, one: str, other: str, link_type: str, at: datetime, signal_id: str) -> Event:
    return Event(
        subject_id=one, event_type=event_type, purpose_code="*", channel_code="*", occurred_at=at, recorded_at=at,
        received_at=at, notice_id=None, notice_version=None, language_code=None, capture_method="identity_resolution",
        capture_place="warehouse", actor_type="system", jurisdiction_code="*", signal_id=signal_id,
        linked_subject_id=other, link_type=link_type,
    )  # fmt: skip


def _digest(*said: str) -> str:
    return sha256("\0".join(said).encode()).hexdigest()[:32]
