"""The pages that describe a segment: a form of conditions, or its text; counts while it grows; saving, and who saved before."""

from dataclasses import replace
from typing import Any

from starlette.responses import Response

from models.errors import ModelsError
from models.purpose_flow.kept import refuse_uncovered
from models.purpose_flow.uses import of_segments
from models.segments import described
from models.segments.conditions import SegmentError
from models.segments.definition import Segment, parse, written
from models.segments.described import ChangedError
from models.segments.fields import EVENTS, SCORES
from models.segments.values import values
from serving.console import builder, counting, typed
from serving.console.builder import Draft, UnfitError
from serving.console.frame import Page, Visit
from serving.console.wording import GROUPS, OPERATORS, field_words, told
from troth.errors import TrothError

MOST_DEFINITION = 32_000  # characters of a definition as text
_UNFIT = "This definition says more than the form can show. It is changed as text."


def pages() -> list[Page]:
    return [
        Page("/segments/new", "segments", _new),
        Page("/segments/new", "segments", _posted, "POST"),
        Page("/segments/count", "segments", _live, "POST"),
        Page("/segments/{name}/edit", "segments", _edit),
        Page("/segments/{name}/edit", "segments", _posted, "POST"),
        Page("/segments/{name}/remove", "segments", _remove, "POST"),
    ]


def _new(visit: Visit) -> Response:
    """From nothing, or from another one's words."""
    like = visit.text("like", 63)
    if not like:
        return _form(visit, builder.empty(visit.staff), None)
    if like not in described.names(visit.home):
        visit.refuse(404, "no_such_segment", "segment: expected one that is described, found none of that name.")
    return _shown(visit, replace(described.load(visit.home, like), name=f"{like[:57]}_copy", version=1), None)


def _edit(visit: Visit) -> Response:
    segment = counting.segment_named(visit)
    _own(visit, segment.name)
    return _shown(visit, segment, segment.hash)


def _posted(visit: Visit) -> Response:
    name = visit.request.path_params.get("name")
    if name is not None:
        _own(visit, counting.segment_named(visit).name)
    act = visit.text("do") or "count"
    if "text" in visit.form:
        return _posted_text(visit, act, name)
    return _posted_form(visit, act, name)


def _posted_form(visit: Visit, act: str, name: str | None) -> Response:
    draft = _typed(visit, name)
    if act.startswith(("add-", "drop", "filter ")):
        at = builder.changed(draft, act)
        return _form(visit, draft, name, at=at, status=422 if draft.faults else 200)
    if act == "count":
        found = _counted(visit, draft)
        return _form(visit, draft, name, found=found, status=200 if found else 422)
    segment = typed.segment_of(draft, visit.home, visit.at, _purposes(visit))
    changed = None
    try:
        if segment is not None:
            return _text(visit, written(segment), name) if act == "text" else _saved(visit, segment)
    except ChangedError as error:
        changed = error
    except ModelsError as error:
        draft.faults["name" if ", name: " in str(error) else "w"] = typed.told_fault(error)
    return _form(visit, draft, name, changed=changed, status=409 if changed else 422)


def _posted_text(visit: Visit, act: str, name: str | None) -> Response:
    text = visit.text("text", MOST_DEFINITION)
    try:
        segment = _parsed(visit, text, name)
        if act == "form":
            return _form(visit, builder.of_segment(segment), name)
        if act == "count":
            return _text(visit, text, name, found=counting.count_values(counting.counted(visit, segment)))
        return _saved(visit, segment)
    except ChangedError as error:
        return _text(visit, text, name, changed=error, status=409)
    except UnfitError:
        return _text(visit, text, name, fault=_UNFIT)
    except ModelsError as error:
        return _text(visit, text, name, fault=str(error), status=422)


def _live(visit: Visit) -> Response:
    """Counts for what is typed at this moment, or what is still missing in it."""
    if "text" in visit.form:
        try:
            segment = parse(visit.text("text", MOST_DEFINITION))
            return visit.fragment("segment_counts.html", **counting.count_values(counting.counted(visit, segment)))
        except ModelsError as error:
            return visit.fragment("wrong.html", detail=str(error))
    draft = _typed(visit, None)
    found = _counted(visit, draft)
    if found is None:
        return visit.fragment("segment_faults.html", faults=draft.all_faults)
    return visit.fragment("segment_counts.html", **found)


def _counted(visit: Visit, draft: Draft) -> dict[str, Any] | None:
    """Counts of a draft; what it is called need not be said yet."""
    for name in ("name", "description", "owner"):
        draft.said[name] = draft.said[name] or "draft"
    segment = typed.segment_of(draft, visit.home, visit.at, _purposes(visit))
    for name in ("name", "description", "owner"):
        draft.said[name] = "" if draft.said[name] == "draft" else draft.said[name]
    if segment is None:
        return None
    try:
        return counting.count_values(counting.counted(visit, segment))
    except ModelsError as error:
        draft.faults["w"] = typed.told_fault(error)
        return None


def _typed(visit: Visit, name: str | None) -> Draft:
    draft = builder.of_form(visit.form)
    if name is not None:
        draft.said["name"] = name  # a segment keeps its name
    return draft


def _parsed(visit: Visit, text: str, name: str | None) -> Segment:
    segment = parse(text)
    if name is not None and segment.name != name:
        raise SegmentError(
            f"segment {name}, name: expected it to keep its name, found {segment.name}. Copy it to have another."
        )
    if segment.purpose not in _purposes(visit):
        raise SegmentError(
            f"segment {segment.name}, purpose: expected one of {', '.join(_purposes(visit)) or 'none'}, found "
            f"{segment.purpose}. Choose one that your roles may ask for."
        )
    return segment


def _saved(visit: Visit, segment: Segment) -> Response:
    started_from = visit.text("started_from", 64) or None
    described.check(visit.home, segment, visit.at)
    refuse_uncovered(visit.home, of_segments([segment], described.loader(visit.home)))
    saved = described.save(visit.home, segment, visit.staff, visit.desk.wall.now(), started_from)
    visit.look(f"saved segment {saved.name} version {saved.version}")
    return visit.go(f"/segments/{saved.name}", f"{saved.name} is saved as version {saved.version}.")


def _remove(visit: Visit) -> Response:
    segment = counting.segment_named(visit)
    _own(visit, segment.name)
    try:
        described.remove(visit.home, segment.name, visit.text("started_from", 64))
    except SegmentError as error:
        return visit.go(f"/segments/{segment.name}", str(error))
    visit.look(f"removed segment {segment.name}")
    return visit.go("/segments", f"{segment.name} is removed. What was saved of it stays kept.")


def _own(visit: Visit, name: str) -> None:
    if not described.is_own(visit.home, name):
        visit.refuse(
            403, "not_ours", f"segment {name}: expected one described here, found one that comes with Troth. Copy it."
        )


def _purposes(visit: Visit) -> list[str]:
    return [name for name in typed.choices()[0] if visit.may_ask(name)]


def _shown(visit: Visit, segment: Segment, started_from: str | None) -> Response:
    name = segment.name if started_from else None
    try:
        return _form(visit, builder.of_segment(segment), name, started_from=started_from)
    except UnfitError:
        return _text(visit, written(segment), name, started_from=started_from, fault=_UNFIT)


def _form(
    visit: Visit,
    draft: Draft,
    name: str | None,
    *,
    started_from: str | None = None,
    at: str | None = None,
    found: dict[str, Any] | None = None,
    changed: ChangedError | None = None,
    status: int = 200,
) -> Response:
    subjects = counting.subjects(visit)
    events = {event: {field: field_words(field) for field in known.all_fields} for event, known in EVENTS.items()}
    things = [name for name, event in EVENTS.items() if builder.SAME in event.fields]
    return visit.show(
        "segment_edit.html",
        f"Change {name}" if name else "New segment",
        status,
        name=name,
        draft=draft,
        at=at,
        counts=found,
        **_behind(visit, started_from, changed),
        purpose_names=[(each, each.replace("_", " ")) for each in _purposes(visit)],
        channels=typed.choices()[1],
        subjects={subject: {field: field_words(field) for field in fields} for subject, fields in subjects.items()},
        numbers={
            subject: {field: field_words(field) for field, kind in fields.items() if kind in ("whole", "number", "timestamp", "date")}
            for subject, fields in subjects.items()
        },
        events=events,
        event_names=[(event, event.replace("_", " ")) for event in EVENTS],
        all_filters={field: said for fields in events.values() for field, said in fields.items()},
        score_names=[(score, score) for score in SCORES],
        segment_names=[(each, f"as the middle of {each}") for each in described.names(visit.home) if each != name],
        operators=OPERATORS,
        groups=GROUPS,
        times=[(each, _times_words(each)) for each in builder.TIMES],
        things=things,
        thing_names=[(name, name.replace("_", " ")) for name in things],
        units=[(each, each) for each in builder.UNITS],
        suggested=_suggested(visit, draft, subjects),
    )  # fmt: skip


def _times_words(said: str) -> str:
    words, _, counted = said.rpartition(" ")
    return (
        f"{words} so many {counted}"
        if counted in ("times", "units")
        else f"{words}, in {counted.replace('_', ' ')} summed"
    )


def _text(
    visit: Visit,
    text: str,
    name: str | None,
    *,
    started_from: str | None = None,
    fault: str | None = None,
    found: dict[str, Any] | None = None,
    changed: ChangedError | None = None,
    status: int = 200,
) -> Response:
    return visit.show(
        "segment_text.html",
        f"Change {name}" if name else "New segment",
        status,
        name=name,
        text=text,
        fault=fault,
        counts=found,
        **_behind(visit, started_from, changed),
    )


def _behind(visit: Visit, started_from: str | None, changed: ChangedError | None) -> dict[str, Any]:
    """What the form was opened on, and what somebody else made of it meanwhile."""
    if changed is not None:
        started_from = changed.current.hash
    elif started_from is None:
        started_from = visit.text("started_from", 64) if visit.form else ""
    return {
        "started_from": started_from,
        "changed": changed and str(changed),
        "theirs": changed and told(changed.current.where),
    }


def _suggested(visit: Visit, draft: Draft, subjects: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """Values that many share, by the field they are of, for what the form speaks of."""
    asked: set[tuple[str, str]] = set()
    for row in draft.where.all():
        if row.kind == "fact":
            subject, _, field = row.said["field"].partition(".")
            if subjects.get(subject, {}).get(field) == "text":
                asked.add((subject, field))
        if row.kind == "event" and row.said["event"] in EVENTS:
            known = EVENTS[row.said["event"]].all_fields
            asked |= {(row.said["event"], each["on"]) for each in row.filters if known.get(each["on"]) == "text"}
    found = {}
    for of, field in sorted(asked):
        try:
            found[f"{of}.{field}"] = values(visit.home, of, field)
        except TrothError:  # nothing published to choose from
            continue
    return found
