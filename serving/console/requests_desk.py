"""Requests of people about their own data: by deadline, one by one, and what is done for them. Every look and act is written down.

What a request needs in other rooms is done by `Seams.work`; where nobody handed that in, the page says with what command it is done.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from starlette.responses import Response

from consent.errors import ConsentError
from consent.log.merkle import VerificationError
from consent.rights import ALTERNATIVES, EXTENDED, EXTENSIONS, KINDS, OPEN, REFUSALS, STATES, Request, open_rights
from consent.rule.policy import EVERY, read_policy
from serving.console.frame import ROOT, Area, Page, Visit
from serving.console.pages import age
from serving.problems import ProblemError
from serving.rights import desk
from serving.rights.persons import Person, RightsError, resolve
from serving.rights.work import Work
from troth.errors import TrothError

SOON = timedelta(days=7)
MOST_ENDED = 50
KIND_WORDS = {
    "access": "Access: a copy of what we hold (GDPR 15)",
    "portability": "Portability: what they gave us, to take elsewhere (GDPR 20)",
    "rectification": "Correction (GDPR 16)",
    "erasure": "Erasure (GDPR 17)",
    "restriction": "Restriction (GDPR 18)",
    "objection": "Objection (GDPR 21)",
}
STATE_WORDS = {
    "received": "received: check who asks",
    "identity_checked": "who asks was checked",
    "in_progress": "being worked on",
    "routed": "with somebody who decides",
    "done": "done",
    "refused": "refused",
    EXTENDED: "two more months taken",
}
STEP_WORDS = {
    "identity_checked": "Who asks was checked",
    "in_progress": "It is being worked on",
    "done": "It is done",
    "refused": "Refuse it",
    "routed": "Hand it to somebody who decides",
}
REASONS: Mapping[str, str] = {**REFUSALS, **ALTERNATIVES, **EXTENSIONS}
COMMANDS = {
    "rectification": "troth privacy rectify",
    "erasure": "troth privacy erase --request",
    "access": "troth privacy access",
    "portability": "troth privacy access --portable",
}


def area() -> Area:
    one = "/requests/{request_id}"
    return Area("requests", "Requests", "/requests", "requests", [
        Page("/requests", "requests", _listed),
        Page("/requests", "requests", _receive, "POST"),
        Page(one, "requests", _one),
        Page(f"{one}/advance", "requests", _advance, "POST"),
        Page(f"{one}/extend", "requests", _extend, "POST"),
        Page(f"{one}/acknowledge", "requests", _acknowledge, "POST"),
        Page(f"{one}/no", "requests", _say_no, "POST"),
        Page(f"{one}/erasure", "requests", _foresee),
        Page(f"{one}/erasure", "requests", _erase, "POST"),
        Page(f"{one}/certificate", "requests", _certificate),
        Page(f"{one}/holdings", "requests", _holdings),
        Page(f"{one}/package", "requests", _package, "POST"),  # and `reveal`
    ])  # fmt: skip


def _listed(visit: Visit) -> Response:
    return _list(visit)


def _list(visit: Visit, wrong: str | None = None, status: int = 200) -> Response:
    now = visit.desk.wall.now()
    found = desk.every_request(visit.home, visit.desk.wall)
    waiting = sorted((each for each in found if each.state in OPEN), key=lambda each: each.deadline)
    ended = sorted((each for each in found if each.state not in OPEN), key=lambda each: each.acts[-1].at, reverse=True)
    unheard = [r.state(now) for each in found for r in each.recipients if r.acknowledged_at is None]
    return visit.show(
        "requests.html",
        "Requests",
        status,
        wrong=wrong,
        waiting=[_row(each, now) for each in waiting],
        ended=[_row(each, now) for each in ended[:MOST_ENDED]],
        ended_count=len(ended),
        facts=[
            ("Open", len(waiting)),
            ("Overdue", sum(each.is_overdue(now) for each in waiting)),
            ("Due within 7 days", sum(now <= each.deadline <= now + SOON for each in waiting)),
            ("Recipients who have not answered", len(unheard)),
            ("of them overdue", unheard.count("overdue")),
        ],
        kinds=KIND_WORDS,
        kind=visit.form.get("kind", ""),
        subject=visit.form.get("subject", ""),
    )


def _row(request: Request, now: datetime) -> dict[str, Any]:
    waited = [each for each in request.recipients if each.acknowledged_at is None]
    return {
        "number": (f"{ROOT}/requests/{request.request_id}", request.request_id),
        "kind": request.kind.capitalize(),
        "state": STATE_WORDS[request.state],
        "received_at": request.received_at,
        "deadline": request.deadline,
        "left": _left(request, now),
        "through": request.received_through,
        "recipients": f"{len(waited)} of {len(request.recipients)} not yet" if waited else None,
        "ended_at": request.acts[-1].at,
    }


def _left(request: Request, now: datetime) -> str:
    """What is left of a request's time, in words."""
    if request.state not in OPEN:
        return "ended"
    if request.is_overdue(now):
        return f"Overdue by {age(now - request.deadline)}"
    return f"{age(request.deadline - now)} left"


def _receive(visit: Visit) -> Response:
    kind, subject = visit.choice("kind", KINDS), visit.text("subject")
    if not subject:
        return _list(visit, "who: expected an e-mail, phone, card, customer id or token, found none. Fill it in.", 422)
    try:
        token = resolve(visit.home, [subject]).tokens[0]
        made = desk.receive(visit.home, visit.desk.wall, kind, [subject])
    except (RightsError, IndexError):
        return _list(
            visit, "who: expected somebody we know, found nobody known by that. Ask for another identifier.", 422
        )
    visit.look("request_received", token, why=f"{made['request_id']}: {kind}")
    return visit.go(f"/requests/{made['request_id']}", "The request is taken in: from now on its month runs.")


def _one(visit: Visit) -> Response:
    request = _asked(visit)
    with suppress(ConsentError):
        visit.look("request_opened", _subjects(visit, request)[0], why=request.request_id)
    return _shown(visit, request)


def _shown(visit: Visit, request: Request, wrong: str | None = None, status: int = 200) -> Response:
    now, work = visit.desk.wall.now(), visit.desk.seams.work
    is_open = request.state in OPEN
    progress = work.progress(request.request_id) if work and request.kind == "erasure" and is_open else None
    certificate, doubt = _certified(visit, request)
    return visit.show(
        "request.html",
        f"{request.kind.capitalize()}, {request.request_id}",
        status,
        wrong=wrong,
        request=request,
        is_open=is_open,
        is_overdue=request.is_overdue(now),
        words=KIND_WORDS[request.kind],
        state=STATE_WORDS[request.state],
        left=_left(request, now),
        person=_person(visit, request) if is_open else None,
        acts=[
            {"at": act.at, "actor": act.actor, "state": STATE_WORDS[act.state], "reason": REASONS.get(act.reason or "")}
            for act in request.acts
        ],
        recipients=[
            {**_fields(each, "recipient", "told_through", "due_at", "acknowledged_at"), "state": each.state(now)}
            for each in request.recipients
        ],
        waited=[each.recipient for each in request.recipients if each.acknowledged_at is None],
        steps=[(state, STEP_WORDS[state]) for state in STATES[request.state] if state not in ("refused", "routed")],
        may_refuse="refused" in STATES[request.state],
        may_route="routed" in STATES[request.state],
        may_extend=is_open and not request.is_overdue(now) and not any(act.state == EXTENDED for act in request.acts),
        refusals=REFUSALS,
        alternatives=ALTERNATIVES,
        extensions=EXTENSIONS,
        is_checked=request.state in ("identity_checked", "in_progress", "routed"),
        has_work=work is not None,
        command=COMMANDS.get(request.kind),
        progress=progress,
        purposes=_purposes(),
        certificate=certificate,
        doubt=doubt,
    )


def _advance(visit: Visit) -> Response:
    request = _asked(visit)
    state, reason = visit.choice("state", tuple(STEP_WORDS)), visit.text("reason") or None
    said = f"{state}{f' ({reason})' if reason in REASONS else ''}"
    return _done(visit, request, "request_advanced", said, "Written down.", lambda: desk.advance(
        visit.home, visit.desk.wall, request.request_id, state, reason
    ))  # fmt: skip


def _extend(visit: Visit) -> Response:
    request, reason = _asked(visit), visit.choice("reason", tuple(EXTENSIONS))
    note = f"Two more months are taken. Tell the person now: {EXTENSIONS[reason]}"
    return _done(visit, request, "request_extended", reason, note, lambda: desk.extend(
        visit.home, visit.desk.wall, request.request_id, reason
    ))  # fmt: skip


def _acknowledge(visit: Visit) -> Response:
    request, recipient = _asked(visit), visit.text("recipient")
    return _done(visit, request, "recipient_acknowledged", "a recipient", f"{recipient} has done its part.", lambda: desk.acknowledge(
        visit.home, visit.desk.wall, request.request_id, recipient
    ))  # fmt: skip


def _say_no(visit: Visit) -> Response:
    """What an objection or a restriction asks, under every identity that is proved to be theirs."""
    request = _asked(visit)
    if request.kind not in ("objection", "restriction"):
        return _shown(
            visit, request, "request: expected an objection or a restriction, found another. Take its own steps.", 422
        )
    purpose = visit.choice("purpose", (EVERY, *_purposes())) if request.kind == "objection" else EVERY
    kind = "object" if request.kind == "objection" else "restrict"
    note = (
        "Recorded in the ledger; it counts from now on."
        if purpose != "service"
        else "Routed: it cannot be granted by itself."
    )
    return _done(visit, request, f"{request.kind}_recorded", purpose, note, lambda: desk.say_no(
        visit.home, visit.desk.wall, _subjects(visit, request), kind, purpose
    ))  # fmt: skip


def _done(visit: Visit, request: Request, act: str, said: str, note: str, do: Any) -> Response:
    """Do an act whose reason was given and write it down, or show the request again with what stands against it."""
    try:
        why = visit.why()
        subject = None
        with suppress(ConsentError):
            subject = _subjects(visit, request)[0]
        do()
    except (ConsentError, RightsError) as refusal:
        return _shown(visit, _asked(visit), str(refusal), 422)
    except ProblemError as problem:
        return _shown(visit, request, problem.details.detail, 422)
    visit.look(act, subject, why=f"{request.request_id}, {said}: {why}")
    return visit.go(f"/requests/{request.request_id}", note)


def _foresee(visit: Visit) -> Response:
    """What an erasure would touch. Nothing is touched by looking."""
    request, work = _workable(visit, "erasure")
    return _foreseen(visit, request, work)


def _foreseen(visit: Visit, request: Request, work: Work, wrong: str | None = None) -> Response:
    began = visit.desk.wall.now()
    subjects = _subjects(visit, request)
    found = work.foresee(subjects)
    visit.look("erasure_foreseen", subjects[0], why=request.request_id)
    return visit.show(
        "request_erasure.html",
        "What an erasure would touch",
        422 if wrong else 200,
        wrong=wrong,
        request=request,
        places=[
            {"place": place, "tables": len(rows), "rows": sum(rows.values())} for place, rows in found.places.items()
        ],
        tables=[
            {"place": place, "table": table, "rows": count}
            for place, rows in found.places.items()
            for table, count in rows.items()
        ],
        kept=_kept(found.kept),
        recipients=[{"recipient": each} for each in found.recipients],
        seconds=(visit.desk.wall.now() - began).total_seconds(),
        why=visit.form.get("why", ""),
    )


def _erase(visit: Visit) -> Response:
    """Asked twice: with a reason, and then once more with what it means."""
    request, work = _workable(visit, "erasure")
    try:
        why = visit.why()
    except ProblemError as problem:
        return _foreseen(visit, request, work, problem.details.detail)
    if visit.text("sure") != request.request_id:
        is_wrong = "sure" in visit.form
        return visit.show(
            "request_sure.html",
            "Erase this person?",
            422 if is_wrong else 200,
            request=request,
            why=why,
            is_wrong=is_wrong,
        )
    visit.look("erasure_begun", _subjects(visit, request)[0], why=f"{request.request_id}: {why}")
    work.erase(request.request_id)
    return visit.go(f"/requests/{request.request_id}", "The erasure has begun. It goes on while you do something else.")


def _certificate(visit: Visit) -> Response:
    request = _asked(visit)
    path = visit.home.root / desk.FOLDER / request.request_id / desk.NOTE
    if not path.exists():
        visit.refuse(404, "no_certificate", "certificate: expected one, found none. It is made when an erasure ends.")
    return visit.download(path.read_bytes(), "text/plain; charset=utf-8", f"{request.request_id}.note")


def _holdings(visit: Visit) -> Response:
    """What would be handed over, counted."""
    request, work = _workable(visit, "access", "portability")
    began = visit.desk.wall.now()
    subjects = _subjects(visit, request)
    found = work.holdings(subjects, visit.desk.wall, request.kind == "portability")
    visit.look("holdings_counted", subjects[0], why=request.request_id)
    return visit.show(
        "request_holdings.html",
        "What would be handed over",
        request=request,
        given=_counted(found.given),
        derived=_counted(found.derived),
        other=_counted(found.other),
        not_included=found.not_included,
        seconds=(visit.desk.wall.now() - began).total_seconds(),
    )


def _package(visit: Visit) -> Response:
    visit.needs("reveal")
    request, work = _workable(visit, "access", "portability")
    subjects, why = _subjects(visit, request), visit.why()
    visit.look("package_downloaded", subjects[0], why=f"{request.request_id}: {why}")
    packed = work.package(subjects, visit.desk.wall, request.kind == "portability")
    return visit.download(packed, "application/zip", f"{request.request_id}.zip")


def _asked(visit: Visit) -> Request:
    """The request of the address. Raises: ProblemError 404."""
    try:
        with open_rights(visit.home) as log:
            return log.request(visit.text("request_id", 40))
    except ConsentError:
        visit.refuse(
            404, "no_such_request", "request: expected a known number, found another. See the list of requests."
        )


def _workable(visit: Visit, *kinds: str) -> tuple[Request, Work]:
    """An open request of these kinds whose asker was checked, and who does what it needs. Raises: ProblemError."""
    request, work = _asked(visit), visit.desk.seams.work
    if work is None:
        visit.refuse(
            409,
            "not_from_here",
            f"request: expected to be carried out elsewhere, found asked here. Use `{COMMANDS[kinds[0]]}`.",
        )
    if request.kind not in kinds or request.state not in ("identity_checked", "in_progress", "routed"):
        visit.refuse(
            409,
            "not_now",
            f"request: expected one for {' or '.join(kinds)} whose asker was checked, found {request.kind}, {request.state}. "
            "Take the steps in order.",
        )
    return request, work


def _subjects(visit: Visit, request: Request) -> list[str]:
    """Whom a request is about. Raises: ConsentError once it has ended."""
    with open_rights(visit.home) as log:
        return log.subjects(request.request_id)


def _person(visit: Visit, request: Request) -> dict[str, Any] | None:
    """Who it is about, without a name: customer ids, and how many identifiers of which kind."""
    found: Person | None = None
    with suppress(TrothError):  # nothing was published yet, or nobody is known by it any more
        found = resolve(visit.home, _subjects(visit, request))
    if found is None:
        return None
    kinds: dict[str, int] = {}
    for token in found.tokens:
        kinds[token.partition("_")[0]] = kinds.get(token.partition("_")[0], 0) + 1
    return {
        "customers": found.customer_ids,
        "identifiers": ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())),
        "unproved": len(found.unproved),
    }


def _certified(visit: Visit, request: Request) -> tuple[dict[str, Any] | None, str | None]:
    """What the certificate of an erasure says; or what speaks against it."""
    if request.kind != "erasure" or request.state != "done":
        return None, None
    try:
        found = desk.certificate(visit.home, request.request_id)
    except VerificationError as evidence:
        return None, str(evidence)
    if found is None:
        return None, "certificate: expected one of a finished erasure, found none. Restore it from a backup."
    return {
        "certified_at": datetime.fromisoformat(found["certified_at"]),
        "subjects": len(found["subject_keys"]),
        "files": found["search"]["files"],
        "identifiers": found["search"]["identifiers"],
        "finds": len(found["search"]["finds"]),
        "sealed_leaves": found["search"]["sealed_leaves"],
        "kept": _kept(found["kept"]),
    }, None


def _kept(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "what": each.get("table") or each.get("what"),
            "count": each.get("rows", each.get("count")),
            "why": each["why"],
        }
        for each in found
    ]


def _counted(found: Mapping[str, int]) -> list[dict[str, Any]]:
    return [{"name": name, "count": count} for name, count in sorted(found.items())]


def _purposes() -> dict[str, str]:
    return {code: purpose.description for code, purpose in read_policy().purposes.items()}


def _fields(found: object, *names: str) -> dict[str, Any]:
    return {name: getattr(found, name) for name in names}
