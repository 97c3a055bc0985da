"""Which identities were joined, and when: the link events of the ledger as one table of pairs.

Every form of standing reads this table (README.md, "The rule of standing", step 6). What the links mean for a purpose is not said here,
nor where they come from (`linking.py`).
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from io import BytesIO
from itertools import combinations, product
from typing import Protocol

import polars as pl

from consent.events import Event, Recorded

LINK_EVENTS = LINKED, UNLINKED = ("identity_linked", "identity_unlinked")
HUB, DETERMINISTIC, PROBABILISTIC = "hub", "deterministic", "probabilistic"
# Every other type of link is a contact: two identifiers in one record, or two groups of identities that look alike (probabilistic).
PROVED = (HUB, DETERMINISTIC)
JOINED_SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("subject_id", "other_subject_id"), pl.String()),
    **dict.fromkeys(("linked_at", "split_at", "unlinked_at"), pl.Datetime("us", "UTC")),
    "is_proved": pl.Boolean(),
}
EVERY_TYPE = ""
_HEARD = (*LINK_EVENTS, "erased")  # an erasure ends the links of who is erased

Pair = tuple[str, str]  # the smaller id first
Span = tuple[datetime, datetime | None]
Spans = Mapping[Pair, Sequence[Span]]
_ALWAYS: Sequence[Span] = ((datetime.min.replace(tzinfo=UTC), None),)  # an identity is itself


@dataclass(frozen=True, slots=True)
class Joined:
    """A time in which a chain of links joined two identities; one with `split_at < unlinked_at` was joined through a third.

    `subject_id` hears what `other_subject_id` said no to until `split_at`; its own grants count against that after `unlinked_at`.
    `is_proved`: no contact was in the chain, else one; where a proved row says all that the other would, there is that row alone.
    """

    subject_id: str
    other_subject_id: str
    linked_at: datetime
    split_at: datetime | None
    unlinked_at: datetime | None
    is_proved: bool

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
    """A link event or an erasure of a frame: what `joined` reads of an event."""

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
    """The table of pairs of link events and erasures, in whatever order and however often they come; other events say nothing."""
    return sorted(_joined(events), key=_order)


def joined_frame(events: pl.DataFrame, known_at: datetime | None = None) -> pl.DataFrame:
    """The raw table `consent_links`: `joined` of a frame of ledger rows, of what had been received by `known_at` where given."""
    if not {"subject_id", "linked_subject_id", "link_type"} <= set(events.columns):
        return pl.DataFrame(schema=JOINED_SCHEMA)
    said = events.lazy().filter(pl.col("event_type").is_in(_HEARD))
    if known_at is not None:
        said = said.filter(pl.col("received_at") <= pl.lit(known_at.astimezone(UTC), pl.Datetime("us", "UTC")))
    one, other = pl.col("subject_id"), pl.col("linked_subject_id")
    sides = pl.min_horizontal(one, other).alias("subject_id"), pl.max_horizontal(one, other).alias("linked_subject_id")
    names = ("link_type", "event_type", "occurred_at", "recorded_at", "received_at")
    links = said.select(*sides, *names).unique().collect()  # both sides of a link say the same
    return _table(_Content(links.sort(pl.all())))


def joined_of(events: Readable, subject_id: str, known_at: datetime | None = None) -> list[Joined]:
    """The rows of a subject, and those of whom it is or was joined to that it hears; found from subject to subject."""
    return joined(one for said in _around(events, subject_id, known_at).values() for one in said)


def company(events: Readable, subject_id: str) -> set[str]:
    """Every identity a subject was ever joined to, and itself: who may hear what is said under it."""
    return set(_around(events, subject_id, None))


class _Content:
    """A frame that equals another one of the same rows in the same order."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame
        file = BytesIO()
        frame.write_ipc(file)
        self._digest = sha256(file.getbuffer()).digest()

    def __hash__(self) -> int:
        return hash(self._digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Content) and self._digest == other._digest


@lru_cache(maxsize=4)
def _table(links: _Content) -> pl.DataFrame:
    """The table is asked for at many times, and links change with a run: most of those times have the same."""
    rows = _joined(LinkSaid(*row) for row in links.frame.iter_rows())
    columns = {
        "subject_id": [row.subject_id for row in rows],
        "other_subject_id": [row.other_subject_id for row in rows],
        "linked_at": [row.linked_at for row in rows],
        "split_at": [row.split_at for row in rows],
        "unlinked_at": [row.unlinked_at for row in rows],
        "is_proved": [row.is_proved for row in rows],
    }
    order = ("subject_id", "other_subject_id", "linked_at", "unlinked_at", "split_at", "is_proved")
    return pl.DataFrame(columns, schema=JOINED_SCHEMA).sort(order, nulls_last=True)


def _joined(events: Iterable[Link]) -> list[Joined]:
    proved, contacts = _edges(events)
    surely = _by_proof(proved)
    rows = list(_rows(surely, surely, is_proved=True))
    rows += _rows(_by_one_contact(surely, contacts), surely, is_proved=False)
    return _through_others(rows) if any(row.unlinked_at for row in rows) else rows


def _pair(event: Link) -> Pair:
    one, other = event.subject_id, str(event.linked_subject_id)
    return (one, other) if one < other else (other, one)


def _edges(events: Iterable[Link]) -> tuple[dict[Pair, list[Span]], dict[Pair, list[Span]]]:
    """When each pair was linked by proof, and when as contacts: each link from its `happened_at` to the `received_at` of an unlink
    of its type or of none, or of an erasure of either."""
    on: dict[tuple[Pair, str], set[datetime]] = defaultdict(set)
    off: dict[tuple[Pair, str], set[datetime]] = defaultdict(set)
    erased: dict[str, set[datetime]] = defaultdict(set)
    for event in events:
        if event.event_type == "erased":
            erased[event.subject_id].add(event.received_at)
        if event.linked_subject_id is None or event.linked_subject_id == event.subject_id:
            continue
        key = (_pair(event), event.link_type or EVERY_TYPE)
        if event.event_type == LINKED:
            on[key].add(min(event.occurred_at, event.recorded_at, event.received_at))
        elif event.event_type == UNLINKED:
            off[key].add(event.received_at)
    proved: dict[Pair, list[Span]] = defaultdict(list)
    contacts: dict[Pair, list[Span]] = defaultdict(list)
    for (pair, kind), made in on.items():
        ended = (off.get((pair, kind)), off.get((pair, EVERY_TYPE)), erased.get(pair[0]), erased.get(pair[1]))
        (proved if kind in PROVED else contacts)[pair] += _spans(made, set().union(*filter(None, ended)))
    return proved, contacts


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


def _by_proof(edges: Spans) -> dict[Pair, list[Span]]:
    """Maximal times in which a chain of proved links joined two."""
    found: dict[Pair, list[Span]] = {}
    for group in _groups(edges):
        mine = {pair: edges[pair] for pair in group}
        parted = any(until for spans in mine.values() for _, until in spans)
        found |= _swept(mine) if parted else _never_parted(mine)
    return found


def _by_one_contact(surely: Spans, contacts: Spans) -> dict[Pair, list[Span]]:
    """Maximal times in which a chain with at most one contact joined two, for pairs that a contact ever did."""
    mates: dict[str, list[tuple[str, Sequence[Span]]]] = defaultdict(list)
    for (one, other), spans in surely.items():
        mates[one].append((other, spans))
        mates[other].append((one, spans))
    times: dict[Pair, list[Span]] = defaultdict(list)
    for (one, other), spans in contacts.items():
        for (left, near), (right, far) in product([(one, _ALWAYS), *mates[one]], [(other, _ALWAYS), *mates[other]]):
            if left != right:
                times[(left, right) if left < right else (right, left)] += _shared(spans, _shared(near, far))
    return {pair: _united([*spans, *surely.get(pair, ())]) for pair, spans in times.items() if spans}


def _shared(mine: Sequence[Span], theirs: Sequence[Span]) -> Sequence[Span]:
    """The times that are in both."""
    if mine is _ALWAYS:
        return theirs
    if theirs is _ALWAYS:
        return mine
    found = []
    for one in mine:
        for other in theirs:
            since, until = max(one[0], other[0]), min((end for end in (one[1], other[1]) if end), default=None)
            if until is None or since < until:
                found.append((since, until))
    return found


def _united(spans: Iterable[Span]) -> list[Span]:
    """The same times as few: those that touch are one."""
    found: list[Span] = []
    for since, until in sorted(spans, key=lambda span: span[0]):
        begun, ended = found[-1] if found else (since, since)
        if found and (ended is None or since <= ended):
            found[-1] = (begun, None if ended is None or until is None else max(ended, until))
        else:
            found.append((since, until))
    return found


def _rows(times: Spans, surely: Spans, *, is_proved: bool) -> Iterator[Joined]:
    """Both sides of each time; of what a contact joined, those that are no proved times as well."""
    for pair, spans in times.items():
        known = () if is_proved else surely.get(pair, ())
        for since, until in spans:
            if (since, until) not in known:
                for one, other in (pair, pair[::-1]):
                    yield Joined(one, other, since, until, until, is_proved)


def _groups(edges: Spans) -> list[list[Pair]]:
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


def _never_parted(edges: Spans) -> dict[Pair, list[Span]]:
    """Without a split, two are joined from the link that brought their two groups together: links by time, groups merged."""
    found: dict[Pair, list[Span]] = {}
    members: dict[str, list[str]] = {}
    group: dict[str, str] = {}
    for since, first, second in sorted((min(spans)[0], *pair) for pair, spans in edges.items()):
        one, other = group.setdefault(first, first), group.setdefault(second, second)
        mine, theirs = members.setdefault(one, [one]), members.setdefault(other, [other])
        if one == other:
            continue
        for left, right in product(mine, theirs):
            found[(left, right) if left < right else (right, left)] = [(since, None)]
        if len(mine) < len(theirs):
            one, other, mine, theirs = other, one, theirs, mine
        mine += theirs
        for moved in members.pop(other):
            group[moved] = one
    return found


def _swept(edges: Spans) -> dict[Pair, list[Span]]:
    """Maximal times joined by a chain, from the groups between any two changes of a link."""
    changes = sorted({moment for spans in edges.values() for span in spans for moment in span if moment is not None})
    begun: dict[Pair, datetime] = {}
    found: dict[Pair, list[Span]] = defaultdict(list)
    for moment in changes:
        parent: dict[str, str] = {}
        for pair, spans in edges.items():
            if any(since <= moment and (until is None or until > moment) for since, until in spans):
                parent[_root(parent, pair[0])] = _root(parent, pair[1])
        groups: dict[str, list[str]] = defaultdict(list)
        for one in sorted(parent):
            groups[_root(parent, one)].append(one)
        now = {pair for group in groups.values() for pair in combinations(group, 2)}
        for pair in begun.keys() - now:
            found[pair].append((begun.pop(pair), moment))
        for pair in now - begun.keys():
            begun[pair] = moment
    for pair, since in begun.items():
        found[pair].append((since, None))
    return found


def _through_others(rows: list[Joined]) -> list[Joined]:
    """The rows, and for each who was joined to one that had been parted from a third: until that ended too, and so on.

    The third may be who hears: joined again to one who was silenced with it, and parted again, it is not freed by that. A contact on
    the way to the one and another on the way to the third are two: nothing is heard.
    """
    legs = defaultdict(list)  # who was joined to each identity and is no longer
    for row in rows:
        if row.unlinked_at is not None:
            legs[row.other_subject_id].append(row)
    found = {(row.subject_id, row.other_subject_id, row.split_at, row.unlinked_at, row.is_proved): row for row in rows}
    waiting = [row for row in rows if row.unlinked_at is not None]
    while waiting:
        heard = waiting.pop()
        silent_at = max(heard.linked_at, heard.split_at or heard.linked_at)
        for leg in legs[heard.subject_id]:
            if leg.unlinked_at is None or leg.unlinked_at <= silent_at or not (leg.is_proved or heard.is_proved):
                continue
            is_proved = leg.is_proved and heard.is_proved
            key = (leg.subject_id, heard.other_subject_id, heard.split_at, leg.unlinked_at, is_proved)
            row = Joined(key[0], key[1], max(leg.linked_at, heard.linked_at), *key[2:])
            if key not in found or row.linked_at < found[key].linked_at:
                found[key] = row
                waiting.append(row)
    return list(found.values())


def _order(row: Joined) -> tuple[str, str, datetime, bool, datetime, datetime, bool]:
    split, unlinked = row.split_at or row.linked_at, row.unlinked_at or row.linked_at
    return (
        row.subject_id,
        row.other_subject_id,
        row.linked_at,
        row.unlinked_at is None,
        unlinked,
        split,
        row.is_proved,
    )


def _around(events: Readable, subject_id: str, known_at: datetime | None) -> dict[str, list[Event]]:
    """Link events and erasures of every identity that a chain with at most one contact in it ever led to."""
    found: dict[str, list[Event]] = {}
    contacts = {subject_id: 0}  # on the best way to each
    waiting = deque([subject_id])
    while waiting:
        one = waiting.popleft()
        if one not in found:
            said = [recorded.event for recorded in events.events_of(one)]
            found[one] = [
                event
                for event in said
                if event.event_type in _HEARD and (known_at is None or event.received_at <= known_at)
            ]
        for event in found[one]:
            other, passed = event.linked_subject_id, contacts[one] + (event.link_type not in PROVED)
            if event.event_type == LINKED and other and passed < min(contacts.get(other, 2), 2):
                contacts[other] = passed
                waiting.append(other)
    return found
