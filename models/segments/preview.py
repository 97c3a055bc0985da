"""How many match, how many of them may be contacted per channel, and the rest by reason. Counts only: nobody is named."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from models.segments import kept
from models.segments.conditions import Comparison, Lookalike, leaves
from models.segments.decision import Audience, open_audience
from models.segments.definition import Segment, load
from models.segments.fields import SCORES
from models.segments.rules import Rules
from models.segments.sample import sample, shown_fields
from models.tables import naive
from troth.home import Home
from troth.published import current


@dataclass(frozen=True)
class ChannelPreview:
    """Matched = may be contacted + refused, summed over reasons."""

    may_be_contacted: int
    refused: Mapping[str, int]


@dataclass(frozen=True)
class Overlap:
    """Another segment at the time of the last run: its members then, and how many of them match this one now."""

    segment: str
    members: int
    shared: int
    as_of_at: str


@dataclass(frozen=True)
class SegmentPreview:
    """Who matches; per channel who may be contacted. Test customers match nothing and are counted apart.

    `sample`: what members have in common, in ranges, each line about at least ten people. `sizes`: what earlier runs counted.
    `ledger_size` is the position of the ledger that the answer rests on; None when nobody has a standing at all.
    """

    name: str
    version: int
    hash: str
    purpose: str
    as_of_at: str
    matched: int
    channels: Mapping[str, ChannelPreview]
    test_customers: int
    sample: Sequence[Mapping[str, str | int]]
    overlap: Sequence[Overlap]
    sizes: Sequence[Mapping[str, Any]]
    remarks: Sequence[str]
    ledger_size: int | None


def preview(
    home: Home,
    segment: Segment,
    at: datetime,
    *,
    rules: Rules | None = None,
    loaded: Callable[[str], Segment] = load,
) -> SegmentPreview:
    """Counts as of an aware time, from published tables alone; a grant that has ended by then is `expired`.

    Raises: ModelsError when the definition asks for a field, event, purpose or channel that there is not.
    """
    moment = naive(at)
    shown = shown_fields(home, segment, moment)
    with open_audience(home, segment, moment, rules=rules, shown=shown, loaded=loaded, has_standing=True) as (
        audience,
        _,
    ):
        return _previewed(home, segment, moment, audience, shown)


def record(
    home: Home,
    segments: Sequence[Segment],
    at: datetime,
    *,
    rules: Rules | None = None,
    loaded: Callable[[str], Segment] = load,
    advance: Callable[[int], None] = lambda _: None,
) -> list[SegmentPreview]:
    """Preview each, and keep sizes and members of this run for those that come. The same time again replaces what was kept."""
    moment, found, members = naive(at), [], {}
    for done, segment in enumerate(segments):
        advance(done)
        shown = shown_fields(home, segment, moment)
        with open_audience(home, segment, moment, rules=rules, shown=shown, loaded=loaded, has_standing=True) as (
            audience,
            _,
        ):
            found.append(_previewed(home, segment, moment, audience, shown))
            members[segment.name] = audience.members
    kept.record_run(home, moment, [size_of(each) for each in found], members)
    return found


def size_of(found: SegmentPreview) -> dict[str, Any]:
    """What is kept of a preview: counts alone."""
    return {
        "name": found.name,
        "version": found.version,
        "hash": found.hash,
        "as_of_at": found.as_of_at,
        "matched": found.matched,
        "channels": {
            channel: {"may_be_contacted": each.may_be_contacted, "refused": dict(each.refused)}
            for channel, each in found.channels.items()
        },
    }


def _previewed(
    home: Home, segment: Segment, at: datetime, audience: Audience, shown: Mapping[str, Comparison]
) -> SegmentPreview:
    counts = {channel: audience.counts(channel) for channel in segment.channels}
    first = next(iter(counts.values()))
    return SegmentPreview(
        name=segment.name,
        version=segment.version,
        hash=segment.hash,
        purpose=segment.purpose,
        as_of_at=at.replace(tzinfo=UTC).isoformat(),
        matched=first.matched,
        channels={channel: ChannelPreview(each.may_be_contacted, each.refused) for channel, each in counts.items()},
        test_customers=first.test_customers,
        sample=sample(home, segment, at, audience, shown),
        overlap=_overlap(home, segment, audience),
        sizes=[{key: row[key] for key in ("as_of_at", "version", "matched")} for row in kept.sizes(home, segment.name)],
        remarks=_remarks(home, segment),
        ledger_size=_ledger_size(audience),
    )


def _overlap(home: Home, segment: Segment, audience: Audience) -> list[Overlap]:
    path = kept.members_file(home)
    if not path.exists():
        return []
    members, shared, as_of_at = Counter[str](), Counter[str](), ""
    for names, people, theirs, at in audience.query(
        "select o.segment_names, count(*), count(m.customer_id), max(o.as_of_at) from read_parquet($path) o "
        "left join matched m on m.customer_id = o.customer_id and not m.is_test group by o.segment_names",
        {"path": str(path)},
    ):
        as_of_at = f"{at}+00:00"
        for name in str(names).split():
            members[name] += int(str(people))
            shared[name] += int(str(theirs))
    return [Overlap(name, members[name], shared[name], as_of_at) for name in sorted(members) if name != segment.name]


def _remarks(home: Home, segment: Segment) -> list[str]:
    scores = sorted({leaf.score for leaf in leaves(segment.where) if isinstance(leaf, Lookalike)})
    return [
        f"lookalike by {score}: no model of that name is in use, so nobody has a score and nobody matches"
        for score in scores
        if not pl.scan_parquet(current(home, SCORES[score].table)).head(1).collect().height
    ]


def _ledger_size(audience: Audience) -> int | None:
    """One number for the whole table: how much of the ledger its builder had heard."""
    size = audience.query("select max(ledger_size) from consent_standing")[0][0]
    return None if size is None else int(str(size))
