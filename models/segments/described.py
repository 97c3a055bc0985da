"""Which segments a home has: those that come with Troth, and those that were described here, in `segments/definitions/` of the home.

What was saved here is kept whole, save by save, in `segments/saved/`: who, when, what it said. A name is of one segment: one
that comes with Troth is copied under another name, never replaced.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from models.segments import definition, kept
from models.segments.conditions import SegmentError
from models.segments.decision import asked
from models.segments.definition import Segment, likes, written
from models.segments.sql import compiled
from models.tables import naive
from troth.home import Home, alone, sync, write_atomically

RESERVED = ("new", "count", "exclusions", "exports", "fields")  # words of addresses, which name no segment
_STAMP = "%Y%m%dT%H%M%S%f"


class ChangedError(SegmentError):
    """Somebody else saved the definition since it was opened: `current` is what it says now, `saved` by whom, where that is known."""

    def __init__(self, text: str, current: Segment, saved: "Saved | None") -> None:
        super().__init__(text)
        self.current = current
        self.saved = saved


@dataclass(frozen=True)
class Saved:
    """One save: what the definition said from then on, and who said it."""

    name: str
    saved_at: str
    saved_by: str
    version: int
    hash: str
    content: Mapping[str, Any]


def names(home: Home) -> list[str]:
    """Every segment there is in a home, by name."""
    return sorted({*definition.names(), *definition.names(_folder(home))})


def is_own(home: Home, name: str) -> bool:
    """Whether it was described here, and does not come with Troth."""
    return name in definition.names(_folder(home))


def load(home: Home, name: str) -> Segment:
    """The segment of a name. Raises: SegmentError listing the names there are, or saying what is wrong in the file."""
    if is_own(home, name):
        return definition.load(name, _folder(home))
    if name in definition.names():
        return definition.load(name)
    raise SegmentError(
        f"segment: expected one of {', '.join(names(home)) or 'none'}, found {name[:60]!r}. Choose one, or describe it."
    )


def loader(home: Home) -> Callable[[str], Segment]:
    """`load` for whoever asks by name alone: the segments that lookalikes start from."""
    return partial(load, home)


def check(home: Home, segment: Segment, at: datetime) -> None:
    """Whether everything it asks for is there as of an aware time. Raises: ModelsError saying what is not."""
    asked(segment)
    seeds = likes(segment)
    if segment.name in seeds:
        raise SegmentError(
            f"segment {segment.name}, lookalike: expected another segment to start from, found itself. Name another."
        )
    compiled(home, segment, naive(at), loaded=loader(home))


def save(home: Home, segment: Segment, by: str, at: datetime, started_from: str | None) -> Segment:
    """Keep a definition; gives it as saved, under the next version where another has gone out under its own.

    `started_from` is the hash of what was changed, None for a new one. Raises: ChangedError where it has changed since;
    SegmentError for a name that is taken or what `check` refuses.
    """
    check(home, segment, at)
    with alone(_folder(home)):
        path = _folder(home) / f"{segment.name}.yml"
        before = definition.read(path) if path.exists() else None
        _refuse_name(segment.name, before, started_from)
        if before is not None and before.hash != started_from:
            raise _changed(home, before)
        segment = _versioned(home, segment, before)
        if segment == before:
            return segment
        moment = at.astimezone(UTC)
        saved = Saved(segment.name, moment.isoformat(), by, segment.version, segment.hash, segment.content)
        text = json.dumps(asdict(saved), sort_keys=True, indent=1, ensure_ascii=False) + "\n"
        write_atomically(_saves(home, segment.name) / f"{moment:{_STAMP}}-{segment.hash[:12]}.json", text.encode())
        write_atomically(path, written(segment).encode())
        return segment


def remove(home: Home, name: str, started_from: str) -> None:
    """Take away a definition made here that nothing went out under, and no other starts from. What was saved stays kept.

    Raises: SegmentError where it may not be; ChangedError where it has changed since.
    """
    with alone(_folder(home)):
        path = _folder(home) / f"{name}.yml"
        if not path.exists():
            raise SegmentError(
                f"segment {name[:60]}: expected one described here, found none. Those that come with Troth stay."
            )
        current = definition.read(path)
        if current.hash != started_from:
            raise _changed(home, current)
        if kept.gone_out(home, name):
            raise SegmentError(
                f"segment {name}: expected one that never went out, found one that did. Leave it: what went out is told by it."
            )
        if users := [each for each in names(home) if each != name and name in likes(load(home, each))]:
            raise SegmentError(
                f"segment {name}: expected none that starts from it, found {', '.join(users)}. Change those first."
            )
        path.unlink()
        sync(path.parent)


def history(home: Home, name: str) -> list[Saved]:
    """What was saved under a name, oldest first."""
    return [Saved(**json.loads(path.read_bytes())) for path in sorted(_saves(home, name).glob("*.json"))]


def _folder(home: Home) -> Path:
    return kept.folder_of(home) / "definitions"


def _saves(home: Home, name: str) -> Path:
    return kept.folder_of(home) / "saved" / name


def _refuse_name(name: str, before: Segment | None, started_from: str | None) -> None:
    if name in RESERVED or name in definition.names():
        what = "one of ours" if name in RESERVED else "one that comes with Troth"
        raise SegmentError(f"segment {name}, name: expected a name of its own, found {what}. Choose another name.")
    if before is not None and started_from is None:
        raise SegmentError(
            f"segment {name}, name: expected a name of its own, found a segment that has it. Choose another name."
        )
    if before is None and started_from is not None:
        raise SegmentError(
            f"segment {name}: expected the one that was changed, found it gone. Save it as a new one, or leave it."
        )


def _changed(home: Home, current: Segment) -> ChangedError:
    saved = next((each for each in reversed(history(home, current.name)) if each.hash == current.hash), None)
    by = f"by {saved.saved_by} at {saved.saved_at[:16].replace('T', ' ')} UTC" if saved else "by somebody else"
    return ChangedError(
        f"segment {current.name}: expected it as it was when you opened it, found it changed {by}. "
        "Compare the two, and save again to replace theirs by yours.",
        current,
        saved,
    )


def _versioned(home: Home, segment: Segment, before: Segment | None) -> Segment:
    """Under the version it had, or the next one where something else has gone out under that."""
    gone = kept.gone_out(home, segment.name)
    segment = replace(segment, version=before.version if before else max([1, *gone]))
    if gone.get(segment.version, segment.hash) != segment.hash:
        segment = replace(segment, version=max(gone) + 1)
    return segment
