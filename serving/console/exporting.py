"""The pages that send a segment out: decided first, then asked, then written, while the page may be closed; what is in the file, and nobody who."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from starlette.responses import Response

from models.errors import ModelsError
from models.segments.decision import asked
from models.segments.definition import Segment, parse
from models.segments.export import MEMBERS
from serving.activation.destinations import Destination, read_destinations
from serving.console import counting, export_work
from serving.console.charts import Bar
from serving.console.export_work import Job
from serving.console.frame import ROOT, Page, Visit
from serving.console.wording import told
from serving.errors import ServingError
from troth.home import Home
from troth.ids import file_hash

Start = Callable[[Home, str], None]
HOLDS = timedelta(hours=24)  # what was decided is not written after so long: sizes and standing are others by then
AGAIN_SECONDS = 2
_MOST_LISTED = 100


def pages(start: Start) -> list[Page]:
    return [
        Page("/segments/exports", "export", _list),
        Page("/segments/exports/{job}", "export", _one),
        Page("/segments/exports/{job}", "export", partial(_confirmed, start), "POST"),
        Page("/segments/exports/{job}/members", "reveal", _members, "POST"),
        Page("/segments/{name}/export", "export", _choose),
        Page("/segments/{name}/export", "export", partial(_begun, start), "POST"),
    ]


def _choose(visit: Visit) -> Response:
    segment = counting.segment_named(visit)
    _may(visit, segment.purpose)
    destinations, fault = _destinations(visit, segment)
    return visit.show(
        "segment_export.html",
        f"Send out {segment.name}",
        segment=segment,
        where=told(segment.where),
        destinations=destinations,
        fault=fault,
    )


def _begun(start: Start, visit: Visit) -> Response:
    segment = counting.segment_named(visit)
    _may(visit, segment.purpose)
    channel = visit.choice("channel", segment.channels)
    try:
        asked(segment)
    except ModelsError as error:
        visit.refuse(422, "does_not_fit", str(error))
    made = export_work.begin(visit.home, segment, channel, visit.staff, visit.desk.wall.now())
    visit.look(f"tried export {made.job_id}")
    start(visit.home, made.job_id)
    return visit.go(f"/segments/exports/{made.job_id}")


def _list(visit: Visit) -> Response:
    rows = [
        {
            "link": (f"{ROOT}/segments/exports/{each.job_id}", f"{each.segment_name} by {each.channel_code}"),
            "asked_at": each.asked_at,
            "by": each.asked_by,
            "state": _state_words(each),
            "people": each.expected if each.decided_at else None,
        }
        for found in export_work.jobs(visit.home)[:_MOST_LISTED]
        if (each := export_work.job(visit.home, found.job_id))
    ]
    return visit.show(
        "segment_exports.html", "What was sent out", rows=rows, all_sent=counting.went_out(visit)[:_MOST_LISTED]
    )


def _one(visit: Visit) -> Response:
    found = _job(visit)
    manifest = export_work.manifest_of(visit.home, found.job_id) if found.state == "written" else None
    is_going_on = found.state in ("deciding", "writing")
    is_still = visit.request.query_params.get("still") == "yes"
    answer = visit.show(
        "segment_job.html",
        f"{found.segment_name} by {found.channel_code.replace('_', ' ')}",
        job=found,
        is_going_on=is_going_on,
        is_still=is_still,
        is_stale=_is_stale(visit, found),
        where=told(parse(found.definition).where),
        age=visit.desk.wall.now() - found.asked_at,
        state=_state_words(found),
        counts=_counts(found, manifest),
        manifest=manifest,
        file=manifest and _file(visit, found, manifest),
        moment=counting.moment,
    )
    if is_going_on and not is_still:
        answer.headers["Refresh"] = str(AGAIN_SECONDS)
    return answer


def _confirmed(start: Start, visit: Visit) -> Response:
    found = _job(visit)
    _may(visit, found.purpose_code)
    path = f"/segments/exports/{found.job_id}"
    if _is_stale(visit, found):
        return visit.go(path, "This was decided too long ago to be written. Try it again.")
    try:
        made = export_work.confirm(visit.home, found.job_id, visit.staff)
        visit.look(f"wrote export {made.job_id}")
        start(visit.home, made.job_id)
    except (ServingError, ModelsError) as error:
        return visit.go(path, str(error))
    return visit.go(path)


def _members(visit: Visit) -> Response:
    """The file itself, for whoever may see contact data, with a reason that is written down."""
    found = _job(visit)
    why = visit.why()
    path = export_work.folder_of(visit.home, found.job_id) / MEMBERS
    if found.state != "written" or not path.exists():
        visit.refuse(404, "no_such_file", "file: expected one that was written, found none. Look at the export again.")
    visit.look(f"downloaded export {found.job_id}", None, found.purpose_code, why=why)
    return visit.download(path.read_bytes(), "text/csv; charset=utf-8", f"{found.job_id}.csv")


def _job(visit: Visit) -> Job:
    found = export_work.job(visit.home, str(visit.request.path_params["job"]))
    if found is None:
        visit.refuse(404, "no_such_export", "export: expected one that was begun here, found none of that name.")
    return found


def _destinations(visit: Visit, segment: Segment) -> tuple[list[Destination], str | None]:
    """Where a segment may be sent, and what is wrong where that cannot be read."""
    try:
        found = read_destinations(visit.home)
    except ServingError as error:
        return [], str(error)
    channels = set(segment.channels)
    return [each for each in found if segment.purpose in each.purposes and channels & set(each.channels)], None


def _may(visit: Visit, purpose: str) -> None:
    if not visit.may_ask(purpose):
        visit.refuse(
            403, "not_your_purpose", f"segment: expected one for a purpose of your roles, found {purpose}. Ask whoever gives roles."
        )  # fmt: skip


def _is_stale(visit: Visit, found: Job) -> bool:
    return found.decided_at is not None and visit.desk.wall.now() - found.decided_at > HOLDS


def _state_words(found: Job) -> str:
    return {
        "deciding": "is being decided",
        "decided": "decided, not written",
        "writing": "is being written",
        "written": "written",
        "failed": "failed",
        "stopped": "stopped in the middle",
    }[found.state]


def _counts(found: Job, manifest: dict[str, Any] | None) -> dict[str, Any] | None:
    """Who was decided about, by reason: what the file holds once there is one, else what it would."""
    if found.decided_at is None:
        return None
    counted = manifest["counts"] if manifest else {"exported": found.expected, "refused": found.refused}
    refused = sorted(counted["refused"].items(), key=lambda each: -each[1])
    people = [("in the file" if manifest else "would be in the file", counted["exported"])]
    people += [(reason.replace("_", " "), many) for reason, many in refused]
    return {
        "exported": counted["exported"],
        "refused": sum(counted["refused"].values()),
        "rows": [{"reason": reason, "people": many} for reason, many in people],
        "bars": [Bar(reason, many, many if number == 0 else None) for number, (reason, many) in enumerate(people)],
    }


def _file(visit: Visit, found: Job, manifest: dict[str, Any]) -> dict[str, Any]:
    """The file as its manifest says it, and whether it is still that."""
    path = export_work.folder_of(visit.home, found.job_id) / MEMBERS
    named = manifest["files"][MEMBERS]
    return {
        "place": path.relative_to(visit.home.root).as_posix(),
        "sha256": named["sha256"],
        "rows": named["rows"],
        "is_whole": path.exists() and file_hash(path) == named["sha256"],
    }
