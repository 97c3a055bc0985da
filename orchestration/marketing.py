"""What a marketer asks on the command line: which segments there are, what they may speak of, how many may be contacted, the export."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.stages import known_until
from troth.clock import SystemClock
from troth.home import Home

if TYPE_CHECKING:
    from models.segments.definition import Segment


def listing(home: Home) -> dict[str, Any]:
    from models.segments.described import is_own, loader, names

    return {
        "segments": [
            {
                "name": each.name,
                "version": each.version,
                "owner": each.owner,
                "purpose": each.purpose,
                "channels": ", ".join(each.channels),
                "comes from": "this home" if is_own(home, each.name) else "Troth",
                "description": each.description,
            }
            for each in map(loader(home), names(home))
        ]
    }


def fields(home: Home) -> dict[str, Any]:
    """Subjects and events with their fields and types, and the models whose scores a lookalike may use."""
    from models.segments.fields import EVENTS, SCORES, SUBJECTS
    from models.segments.fields import fields as fields_of

    return {
        "fields": [
            {"field": f"{subject}.{name}", "type": kind}
            for subject in SUBJECTS
            for name, kind in fields_of(home, subject).items()
        ],
        "events": [
            {
                "event": name,
                "counted in": ", ".join(event.counted_in),
                "fields": ", ".join(event.all_fields),
            }
            for name, event in EVENTS.items()
        ],
        "scores": list(SCORES),
    }


def preview(home: Home, name: str) -> Any:
    from models.segments.described import loader
    from models.segments.preview import preview as preview_segment

    return preview_segment(home, _segment(home, name), known_until(home), loaded=loader(home))


def sql(home: Home, name: str, dialect: str) -> dict[str, Any]:
    """The query of a segment for an engine, and its parameters."""
    from models.segments.described import loader
    from models.segments.sql import compiled, rendered
    from models.tables import naive

    query = compiled(home, _segment(home, name), naive(known_until(home)), loaded=loader(home))
    return {
        "sql": rendered(query, dialect),
        "parameters": dict(query.parameters),
        "tables": list(query.tables),
    }


def export(home: Home, name: str, channel: str | None, to: Path | None, dry_run: bool) -> Any:
    """Standing is asked again, from the ledger, at the time of writing: now, not at the time of the data."""
    from models.segments.described import loader
    from models.segments.export import export as export_segment

    segment, now = _segment(home, name), SystemClock().now()
    folder = to or home.exports / "segments" / f"{segment.name}-{now:%Y%m%dT%H%M%S%f}"
    return export_segment(home, segment, folder, now, dry_run=dry_run, channel=channel, loaded=loader(home))


def exclude(home: Home, name: str, file: Path, remove: bool, dry_run: bool) -> dict[str, Any]:
    """Put the people in a file on a list that no segment reaches, or take them off; one identifier a line, as it was said.

    Kept are customer ids and tokens. A line that names nobody is told by its number alone.
    """
    from models.permission import LINKS, identities
    from models.segments.conditions import SegmentError
    from models.segments.kept import change_exclusions, exclusion_lists
    from models.tables import naive
    from serving.rights.persons import RightsError, tokens_of
    from troth.published import current

    if not file.is_file():
        raise SegmentError(f"exclusion list {name}: expected a file, found none at {file.name}. Correct the path.")
    known = identities(current(home, LINKS)).select("identity_ref", "customer_id")
    found: set[str] = set()
    unknown: list[int] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        said = line.strip()
        try:
            found |= {said} if said.startswith("cus_") else set(tokens_of(home, said, known)) if said else set()
        except RightsError:
            unknown.append(number)
    told = {"list": name, "identifiers": len(found), "lines_of_nobody": unknown, "is_written": not dry_run}
    if dry_run:
        return {**told, "lists": sorted(exclusion_lists(home))}
    now = naive(SystemClock().now())
    sides: dict[str, Any] = {"remove": found} if remove else {"add": found}
    added, removed, size = change_exclusions(home, name, now, **sides)
    return {**told, "added": added, "removed": removed, "size": size}


def _segment(home: Home, name: str) -> "Segment":
    """By its name, or in a file of the marketer's own."""
    from models.segments.definition import read
    from models.segments.described import load

    return read(Path(name)) if name.endswith((".yml", ".yaml")) else load(home, name)
