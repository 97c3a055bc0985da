"""Who a segment matches, as pages tell it: now, when runs counted, by channel and reason. Counts alone."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from models.segments import described
from models.segments.definition import Segment
from models.segments.fields import SUBJECTS, FieldType
from models.segments.fields import fields as fields_of
from models.segments.preview import SegmentPreview
from models.segments.preview import preview as preview_of
from serving.audit.exports import made
from serving.console.charts import Bar, Line
from serving.console.frame import ROOT, Visit
from serving.console.wording import field_words
from serving.problems import ProblemError
from troth.errors import TrothError

MOST_POINTS = 90  # of a chart over time
_COUNTING = threading.BoundedSemaphore(2)  # each count takes all cores for up to a second
_PATIENCE_SECONDS = 20


def segment_named(visit: Visit) -> Segment:
    """The segment of the address. Raises: ProblemError 404."""
    name = str(visit.request.path_params["name"])  # of the address, whatever a form says
    if name not in described.names(visit.home):
        visit.refuse(404, "no_such_segment", "segment: expected one that is described, found none of that name.")
    return described.load(visit.home, name)


def counted(visit: Visit, segment: Segment) -> SegmentPreview:
    """Who matches now, by reason. Raises: ModelsError; ProblemError 503 where too many count at once."""
    with _turn():
        return preview_of(visit.home, segment, visit.at, loaded=described.loader(visit.home))


def count_values(found: SegmentPreview) -> dict[str, Any]:
    """What the piece `segment_counts.html` says."""
    channels = []
    for name, channel in found.channels.items():
        refused = sorted(channel.refused.items(), key=lambda each: -each[1])
        people = [("may be contacted", channel.may_be_contacted)]
        people += [(reason.replace("_", " "), many) for reason, many in refused]
        bars = [Bar(reason, many, many if number == 0 else None) for number, (reason, many) in enumerate(people)]
        rows = [{"reason": reason, "people": many} for reason, many in people]
        channels.append({"name": name, "may": channel.may_be_contacted, "rows": rows, "bars": bars})
    fields = [name for name in (found.sample[0] if found.sample else {}) if name != "people"]
    return {
        "found": found,
        "channels": channels,
        "sample_columns": [
            *((name, " ".join((name.partition(".")[0].replace("_", " ") + ":", field_words(name.partition(".")[2]))), "text", None) for name in fields),
            ("people", "People", "number", "count"),
        ],
        "overlap": [
            {
                "segment": (f"{ROOT}/segments/{each.segment}", each.segment),
                "members": each.members,
                "shared": each.shared,
                "share": each.shared / found.matched if found.matched else None,
            }
            for each in found.overlap
        ],
        "overlap_at": moment(found.overlap[0].as_of_at) if found.overlap else None,
        "as_of": moment(found.as_of_at),
    }  # fmt: skip


def sizes_over_time(sizes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A chart of what runs counted, and the table behind it: who matched, and who might be contacted over each channel."""
    newest = sizes[-MOST_POINTS:]
    channels = list(dict.fromkeys(channel for row in newest for channel in row.get("channels", {})))
    rows = [
        {
            "as_of_at": moment(row["as_of_at"]),
            "version": row["version"],
            "matched": row["matched"],
            **{name: row["channels"].get(name, {}).get("may_be_contacted") for name in channels},
        }
        for row in newest
    ]
    labels = [f"{row['as_of_at']:%d %b}" for row in rows]
    lines = [Line("match", [row["matched"] for row in rows])]
    lines += [Line(f"may be contacted by {name}", [row[name] for row in rows]) for name in channels]
    columns = [
        ("as_of_at", "Counted", "text", "moment"),
        ("version", "Version", "number", None),
        ("matched", "Match", "number", "count"),
        *((name, f"May be contacted by {name}", "number", "count") for name in channels),
    ]
    return {"labels": labels, "lines": lines, "rows": rows[::-1], "columns": columns}


def went_out(visit: Visit) -> list[dict[str, Any]]:
    """Files and deliveries that went out, newest first, by what their manifests say."""
    rows = []
    for each in made(visit.home):
        counts = each.manifest["counts"]
        rows.append(
            {
                "name": each.segment,
                "segment": (f"{ROOT}/segments/{each.segment}", each.segment),
                "exported_at": moment(each.manifest["exported_at"]),
                "version": each.version,
                "channel": each.channel,
                "exported": counts["exported"],
                "refused": sum(counts["refused"].values()),
                "receipt": next(iter(each.numbers), None),
            }
        )
    return sorted(rows, key=lambda row: row["exported_at"], reverse=True)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def subjects(visit: Visit) -> dict[str, dict[str, FieldType]]:
    """The subjects whose tables the home has, with their fields and types."""
    found: dict[str, dict[str, FieldType]] = {}
    for subject in SUBJECTS:
        try:
            found[subject] = fields_of(visit.home, subject)
        except TrothError:  # not published here
            continue
    return found


@contextmanager
def _turn() -> Iterator[None]:
    if not _COUNTING.acquire(timeout=_PATIENCE_SECONDS):
        raise ProblemError(
            503, "busy", "count: expected fewer at once, found too many. Try again.", headers={"Retry-After": "5"}
        )
    try:
        yield
    finally:
        _COUNTING.release()
