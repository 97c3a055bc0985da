"""What a marketer asks on the command line: which segments there are, how many may be contacted, and the export."""

from pathlib import Path
from typing import Any

from orchestration.stages import known_until
from troth.clock import SystemClock
from troth.home import Home


def listing() -> dict[str, Any]:
    from models.segments.definition import load, names

    found = [load(name) for name in names()]
    return {
        "segments": [
            {"name": s.name, "version": s.version, "owner": s.owner, "purpose": s.purpose, "channel": s.channel}
            for s in found
        ]
    }


def preview(home: Home, name: str) -> Any:
    from models.segments.definition import load
    from models.segments.preview import preview as preview_segment

    return preview_segment(home, load(name), known_until(home))


def export(home: Home, name: str, to: Path | None, dry_run: bool) -> Any:
    """Standing is asked again, from the ledger, at the time of writing: now, not at the time of the data."""
    from models.segments.definition import load
    from models.segments.export import export as export_segment

    return export_segment(home, load(name), to or home.exports / "segments", SystemClock().now(), dry_run=dry_run)
