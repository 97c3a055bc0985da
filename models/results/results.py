"""What a segment did as of a time, over every channel; kept run after run, so that a page can show it at once and over time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from models.results.arms import Arms, open_arms
from models.results.figures import Window, window
from models.segments import kept
from models.tables import naive
from troth.home import Home, write_atomically

WINDOWS = (7, 14, 28)  # days after a person's file
ALL_CHANNELS = "*"


@dataclass(frozen=True)
class ChannelResults:
    """Over one channel; or over all of them together (`*`), from a person's first file over any."""

    channel: str
    holdout_percent: int
    files: int
    first_at: str
    last_at: str
    windows: Sequence[Window]


@dataclass(frozen=True)
class SegmentResults:
    """What is known of a segment at a time. What people did is known until `known_until`; `tables` are the versions read."""

    name: str
    as_of_at: str
    known_until: str
    channels: Sequence[ChannelResults]
    tables: dict[str, str]


@dataclass(frozen=True)
class Looked:
    """What was kept of one look: the difference of each measure with the bounds that hold however often anybody looks, or None."""

    as_of_at: str
    channel: str
    days: int
    people: dict[str, int]
    has_mismatch: bool
    differences: dict[str, tuple[float, float, float] | None]


def results(
    home: Home, name: str, at: datetime, *, channel: str | None = None, windows: Sequence[int] = WINDOWS
) -> SegmentResults:
    """As of an aware time: over the channel asked for; or over all together, and over each where there are several.

    Raises: SegmentError where nothing of it has gone out.
    """
    moment = naive(at)
    with open_arms(home, name, moment, channel) as arms:
        found = [_over(channel or ALL_CHANNELS, arms, windows)]
        there = {file.channel for file in arms.files}
        until, tables = arms.until, arms.tables
    for each in sorted(there) if channel is None and len(there) > 1 else []:
        with open_arms(home, name, moment, each) as arms:
            found.append(_over(each, arms, windows))
    return SegmentResults(name, _utc(moment), _utc(until), found, dict(tables))


def _over(channel: str, arms: Arms, windows: Sequence[int]) -> ChannelResults:
    times = [file.at for file in arms.files]
    return ChannelResults(
        channel, arms.holdout_percent, len(times), _utc(min(times)), _utc(max(times)),
        [window(arms.measured(days), days, arms.holdout_percent) for days in windows],
    )  # fmt: skip


def _utc(at: datetime) -> str:
    return at.replace(tzinfo=UTC).isoformat()


def went_out(home: Home, before: datetime | None = None) -> list[str]:
    """Segments of which a file has gone out, by name; before an aware time, where one is given."""
    stamp = f"{naive(before):%Y%m%dT%H%M%S}" if before else "9"
    return [name for name, paths in kept.assigned_files(home).items() if paths[0].name < stamp]


def record(home: Home, names: Sequence[str], at: datetime, advance: Callable[[int], None] = lambda _: None) -> list[SegmentResults]:  # fmt: skip
    """Measure each, and keep the figures: the newest whole, the differences of every look. The same time again replaces what was kept."""
    found = []
    for done, name in enumerate(names):
        advance(done)
        one = results(home, name, at)
        before = [looked for looked in looks(home, name) if looked.as_of_at != one.as_of_at]
        lines = [msgspec.json.encode(looked) for looked in [*before, *_looked(one)]]
        write_atomically(_file(home, name, ".jsonl"), b"".join(line + b"\n" for line in lines))
        write_atomically(_file(home, name, ".json"), msgspec.json.encode(one))
        found.append(one)
    return found


def newest(home: Home, name: str) -> SegmentResults | None:
    """What was kept last, if anything was."""
    path = _file(home, name, ".json")
    return msgspec.json.decode(path.read_bytes(), type=SegmentResults) if path.exists() else None


def looks(home: Home, name: str) -> list[Looked]:
    """Every look that was kept, oldest first; one per time, channel and window."""
    path = _file(home, name, ".jsonl")
    lines = path.read_bytes().splitlines() if path.exists() else []
    found = [msgspec.json.decode(line, type=Looked) for line in lines]
    return sorted(found, key=lambda looked: looked.as_of_at)


def _looked(found: SegmentResults) -> list[Looked]:
    return [
        Looked(
            found.as_of_at, over.channel, each.days, dict(each.people), each.has_mismatch,
            {
                said.measure: None if (d := said.difference) is None else (d.value, d.always_low, d.always_high)
                for said in each.estimates
            },
        )
        for over in found.channels
        for each in over.windows
    ]  # fmt: skip


def _file(home: Home, name: str, ending: str) -> Path:
    return kept.folder_of(home) / "results" / f"{name}{ending}"
