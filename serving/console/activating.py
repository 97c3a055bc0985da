"""Pages of what is sent to where it is used: what waits for somebody else's yes, what went out to whom, what was called back and who has not answered."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.responses import Response

from models.segments import described
from serving.activation import approving, recalling, worker
from serving.activation.deliveries import OPEN, Delivery, Recall, acts, deliveries, delivery, recalls
from serving.activation.destinations import Destination, read_destinations, read_schedules
from serving.activation.dispatch import Dispatch
from serving.activation.errors import ActivationError
from serving.console.frame import ROOT, Area, Page, Visit
from troth.errors import TrothError
from troth.home import Home

Start = Callable[[Home, str, str], None]
AGAIN_SECONDS = 3
_MOST_LISTED = 100
_STATES = {
    "counting": "being counted",
    "counted": "counted, not asked for yet",
    "asked": "waits for somebody else's yes",
    "approved": "let out, goes with the next round",
    "sending": "under way",
    "committing": "being handed over",
    "sent": "sent",
    "refused": "refused",
    "expired": "nobody answered in time",
    "void": "void: it was changed since",
    "empty": "nobody may be contacted",
    "failed": "given up",
}
_RECALL_STATES = {
    "pending": "not told yet",
    "told": "told, no answer yet",
    "acknowledged": "answered",
    "failed": "could not be told",
}


def area(start: Start = worker.start) -> Area:
    """`start` lets a delivery go out by itself."""
    return Area(
        "deliveries", "Deliveries", "/deliveries", "approve",
        [
            Page("/deliveries", "approve", _list),
            Page("/deliveries/new", "export", _new),
            Page("/deliveries/new", "export", partial(_begun, start), "POST"),
            Page("/deliveries/{delivery}", "approve", _one),
            Page("/deliveries/{delivery}/ask", "export", _asked, "POST"),
            Page("/deliveries/{delivery}/approve", "approve", _approve, "POST"),
            Page("/deliveries/{delivery}/refuse", "approve", _refuse, "POST"),
            Page("/deliveries/{delivery}/send", "export", partial(_send, start), "POST"),
            Page("/deliveries/{delivery}/acknowledge", "approve", _acknowledge, "POST"),
        ],
    )  # fmt: skip


def _list(visit: Visit) -> Response:
    found, now = deliveries(visit.home), visit.desk.wall.now()
    waiting = recalling.waiting(visit.home, now)
    destinations, fault = _destinations(visit)
    over = [each for each in found if each.state not in OPEN]
    return visit.show(
        "deliveries.html",
        "Deliveries",
        asked=[_row(each) for each in found if each.state == "asked"],
        under_way=[_row(each) for each in found if each.state in OPEN and each.state != "asked"],
        over=[_row(each) for each in over[:_MOST_LISTED]],
        over_count=len(over),
        recalls=[_recall_row(each.recall, visit, is_linked=True) for each in waiting],
        overdue=sum(each.is_overdue for each in waiting),
        destinations=[_destination_row(each) for each in destinations],
        schedules=[] if fault else [vars(each) for each in read_schedules(visit.home)],
        fault=fault,
    )


def _new(visit: Visit, wrong: str | None = None) -> Response:
    destinations, fault = _destinations(visit)
    mine = [each for each in destinations if any(visit.may_ask(purpose) for purpose in each.purposes)]
    return visit.show(
        "delivery_new.html",
        "Send a segment",
        422 if wrong else 200,
        wrong=wrong or fault,
        segments=described.names(visit.home),
        destinations=mine,
        channels=sorted({channel for each in mine for channel in each.channels}),
        segment=visit.text("segment"),
        destination=visit.text("destination"),
        channel=visit.text("channel"),
    )


def _begun(start: Start, visit: Visit) -> Response:
    """How many it would reach is decided beside the pages: nothing is written, and nobody asked."""
    name, destination, channel = visit.text("segment"), visit.text("destination"), visit.text("channel") or None
    try:
        _may(visit, described.load(visit.home, name).purpose)
        found = approving.begin(_dispatch(visit), name, destination, channel, by=visit.staff)
    except TrothError as error:
        return _new(visit, str(error))
    start(visit.home, found.delivery_id, visit.staff)
    return visit.go(f"/deliveries/{found.delivery_id}")


def _asked(visit: Visit) -> Response:
    found = _delivery(visit)
    _may(visit, found.purpose_code)
    try:
        why = visit.text("why", approving.MOST_REASON)
        found = approving.put(_dispatch(visit), found.delivery_id, by=visit.staff, why=why)
    except TrothError as error:
        return _one(visit, str(error))
    visit.look(f"asked for delivery {found.delivery_id}", why=found.why)
    is_for_two = found.state == "asked"
    note = "Somebody else has to let it out now." if is_for_two else "It needs nobody else: it goes with the next round, or now."  # fmt: skip
    return visit.go(f"/deliveries/{found.delivery_id}", note)


def _one(visit: Visit, wrong: str | None = None) -> Response:
    found = _delivery(visit)
    is_under_way = found.state in ("counting", "sending", "committing")
    mine = recalls(visit.home, found.delivery_id)
    answer = visit.show(
        "delivery.html",
        f"{found.segment_name} to {found.to.recipient.legal_name}",
        422 if wrong else 200,
        wrong=wrong,
        found=found,
        state=_STATES[found.state],
        is_mine=approving.is_same_person(visit.staff, found.asked_by),
        is_under_way=is_under_way and not found.last_fault,
        facts=_destination_facts(found.to),
        reasons=_reasons(found.refused),
        manifest=json.loads(found.manifest) if found.manifest else None,
        acts=[{"at": each.at, "act": each.act, "who": each.who, "why": each.why or None} for each in acts(visit.home, found.delivery_id)],
        recalls=[_recall_row(each, visit) for each in mine],
        unanswered=sum(each.state != "acknowledged" for each in mine),
    )  # fmt: skip
    if is_under_way and not found.last_fault and visit.request.method == "GET":
        answer.headers["Refresh"] = str(AGAIN_SECONDS)
    return answer


def _approve(visit: Visit) -> Response:
    return _decided(visit, approving.approve, "approved", "It is let out, and goes with the next round.")


def _refuse(visit: Visit) -> Response:
    return _decided(visit, approving.refuse, "refused", "It is refused; nothing goes out.")


def _decided(visit: Visit, decide: Callable[..., Delivery], what: str, note: str) -> Response:
    found = _delivery(visit)
    try:
        decide(_dispatch(visit), found.delivery_id, by=visit.staff, why=visit.text("why", approving.MOST_REASON))
    except ActivationError as error:
        return _one(visit, str(error))
    visit.look(f"{what} delivery {found.delivery_id}", why=visit.text("why"))
    return visit.go(f"/deliveries/{found.delivery_id}", note)


def _send(start: Start, visit: Visit) -> Response:
    found = _delivery(visit)
    _may(visit, found.purpose_code)
    if found.state not in ("approved", "sending", "committing"):
        return _one(
            visit, f"delivery: expected one that was let out, found one that is {found.state}. Nothing was sent."
        )
    visit.look(f"sent delivery {found.delivery_id}", None, found.purpose_code)
    start(visit.home, found.delivery_id, visit.staff)
    return visit.go(
        f"/deliveries/{found.delivery_id}", "It is on its way. Whoever says no until it is handed over is not in it."
    )


def _acknowledge(visit: Visit) -> Response:
    found = _delivery(visit)
    receipt = visit.text("receipt", 200)
    if not receipt:
        return _one(visit, "receipt: expected what the recipient answered, found nothing. Write it down.")
    try:
        done = recalling.acknowledge(
            _dispatch(visit),
            found.delivery_id,
            visit.whole("number", 0, 10**6) or None,
            by=visit.staff,
            receipt=receipt,
        )
    except ActivationError as error:
        return _one(visit, str(error))
    visit.look(f"acknowledged recalls of {found.delivery_id}", why=receipt)
    return visit.go(f"/deliveries/{found.delivery_id}", f"{len(done)} recalls are written down as answered.")


def _delivery(visit: Visit) -> Delivery:
    try:
        return delivery(visit.home, str(visit.request.path_params["delivery"]))
    except ActivationError:
        visit.refuse(404, "no_such_delivery", "delivery: expected one of this home, found none of that id.")


def _may(visit: Visit, purpose: str) -> None:
    if not visit.may_ask(purpose):
        visit.refuse(
            403, "not_your_purpose", f"segment: expected one for a purpose of your roles, found {purpose}. Ask whoever gives roles."
        )  # fmt: skip


def _dispatch(visit: Visit) -> Dispatch:
    return Dispatch(visit.home, visit.desk.clock, visit.desk.wall)


def _destinations(visit: Visit) -> tuple[list[Destination], str | None]:
    """What the home declares, or what is wrong with it: a page is shown either way."""
    try:
        return read_destinations(visit.home), None
    except ActivationError as error:
        return [], str(error)


def _row(found: Delivery) -> dict[str, Any]:
    return {
        "link": (f"{ROOT}/deliveries/{found.delivery_id}", f"{found.segment_name} to {found.to.name}"),
        "recipient": found.to.recipient.legal_name,
        "role": found.to.recipient.role,
        "channel": found.channel_code,
        "people": found.expected if found.exported is None else found.exported,
        "asked_by": found.asked_by,
        "asked_at": found.asked_at,
        "sent_at": found.sent_at,
        "state": _STATES[found.state],
        "fault": found.last_fault,
    }


def _recall_row(found: Recall, visit: Visit, *, is_linked: bool = False) -> dict[str, Any]:
    now = visit.desk.wall.now()
    name = f"{found.destination}, recall {found.number}"
    state = _RECALL_STATES[found.state]
    late = found.is_overdue(now)
    return {
        "link": (f"{ROOT}/deliveries/{found.delivery_id}#recalls", name) if is_linked else None,
        "number": found.number,
        "recipient": found.recipient.legal_name,
        "people": found.count,
        "why": ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in found.reasons.items()),
        "made_at": found.made_at,
        "age": found.age(now),
        "answer_by": found.answer_by,
        "state": f"{state}, overdue" if late and found.state != "acknowledged" else f"{state}, late" if late else state,
        "receipt": found.receipt_id,
        "fault": found.last_fault,
    }


def _destination_row(found: Destination) -> dict[str, Any]:
    return {
        "name": found.name,
        "recipient": found.recipient.legal_name,
        "role": found.recipient.role,
        "country": found.recipient.country,
        "kind": found.kind,
        "purposes": ", ".join(found.purposes),
        "channels": ", ".join(found.channels),
        "fields": ", ".join(found.fields),
        "approval": "a second person" if found.needs_approval else "nobody else",
        "keep_days": found.keep_days,
    }


def _destination_facts(found: Destination) -> list[tuple[str, str]]:
    receives = [each.replace("_", " ") for each in ("reference", *found.fields)]
    return [
        ("Recipient", found.recipient.legal_name),
        ("Is to us", found.recipient.role.replace("_", " ")),
        ("Country", found.recipient.country),
        ("Receives", ", ".join(receives)),
        ("Way", f"{found.kind}, {found.format}"),
        ("May use it for", f"{found.keep_days} days"),
    ]


def _reasons(refused: dict[str, int]) -> list[dict[str, Any]]:
    return [{"reason": reason, "people": count} for reason, count in sorted(refused.items(), key=lambda each: -each[1])]
