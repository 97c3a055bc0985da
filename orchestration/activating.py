"""What is asked of deliveries on the command line: plain values in, plain values out. What is done is in `serving/activation/`."""

from typing import TYPE_CHECKING, Any

from troth.home import Home

if TYPE_CHECKING:
    from orchestration.progress import Display
    from serving.activation.deliveries import Delivery
    from serving.activation.dispatch import Dispatch


def dispatch_of(home: Home, display: "Display | None" = None) -> "Dispatch":
    from serving.activation.dispatch import Dispatch, nobody_listens
    from serving.answers import clock_of

    return Dispatch(home, clock_of(home), advance=display.advance if display else nobody_listens)


def destinations(home: Home) -> dict[str, Any]:
    """What the home declares: who receives what for what."""
    from serving.activation.destinations import read_destinations, read_schedules

    return {
        "destinations": [
            {
                "name": each.name,
                "kind": each.kind,
                "where": each.where,
                "format": each.format,
                "purposes": ", ".join(each.purposes),
                "channels": ", ".join(each.channels),
                "fields": ", ".join(each.fields),
                "recipient": each.recipient.legal_name,
                "role": each.recipient.role,
                "country": each.recipient.country,
                "needs_approval": each.needs_approval,
            }
            for each in read_destinations(home)
        ],
        "schedules": [
            {
                "name": each.name,
                "segment": each.segment,
                "destination": each.destination,
                "channel": each.channel,
                "cron": each.cron,
                "asked_by": each.asked_by,
            }
            for each in read_schedules(home)
        ],
    }


def secret(home: Home, name: str) -> dict[str, Any]:
    """What the receiver of a webhook verifies messages with."""
    from serving.activation.destinations import destination_of, webhook_secret
    from serving.activation.errors import ActivationError

    destination = destination_of(home, name)
    if destination.kind != "webhook":
        raise ActivationError(
            f"destination {name}: expected a webhook, found {destination.kind}. Messages alone are signed."
        )
    return {"destination": name, "secret": webhook_secret(home, destination)}


def ask(
    home: Home, segment: str, destination: str, channel: str | None, by: str, why: str, dry_run: bool
) -> dict[str, Any]:
    from serving.activation.approving import ask as ask_for

    found = ask_for(dispatch_of(home), segment, destination, channel, by=by, why=why, dry_run=dry_run)
    told = {**_told(found), "is_kept": not dry_run}
    if dry_run:
        del told["delivery_id"]
    return told


def approve(home: Home, delivery_id: str, by: str, why: str) -> dict[str, Any]:
    from serving.activation.approving import approve as let_out

    return _told(let_out(dispatch_of(home), delivery_id, by=by, why=why))


def refuse(home: Home, delivery_id: str, by: str, why: str) -> dict[str, Any]:
    from serving.activation.approving import refuse as say_no

    return _told(say_no(dispatch_of(home), delivery_id, by=by, why=why))


def send(home: Home, delivery_id: str, by: str, dry_run: bool, display: "Display") -> dict[str, Any]:
    """Send it, or say what would go out now."""
    from serving.activation.sending import foreseen
    from serving.activation.sending import send as send_it

    dispatch = dispatch_of(home, display)
    if dry_run:
        found, report = foreseen(dispatch, delivery_id)
        now = {"matched": report.matched, "would_go_out": report.exported, "refused": dict(report.refused)}
        return {**_told(found), "now": now, "is_sent": False}
    found = send_it(dispatch, delivery_id, by=by)
    return {**_told(found), "is_sent": found.state == "sent"}


def listing(home: Home) -> dict[str, Any]:
    from serving.activation.deliveries import deliveries, recalls
    from troth.clock import SystemClock

    now = SystemClock().now()
    back: dict[str, list[Any]] = {}
    for recall in recalls(home):
        back.setdefault(recall.delivery_id, []).append(recall)
    return {
        "deliveries": [
            {
                "delivery_id": each.delivery_id,
                "state": each.state,
                "segment": f"{each.segment_name} {each.segment_version}",
                "destination": each.destination,
                "channel": each.channel_code,
                "people": each.expected if each.exported is None else each.exported,
                "asked_by": each.asked_by,
                "asked_at": _moment(each.asked_at),
                "sent_at": _moment(each.sent_at),
                "recalled": sum(recall.count for recall in back.get(each.delivery_id, ())),
                "overdue": sum(
                    recall.acknowledged_at is None and recall.is_overdue(now)
                    for recall in back.get(each.delivery_id, ())
                ),
            }
            for each in deliveries(home)
        ]
    }


def show(home: Home, delivery_id: str) -> dict[str, Any]:
    """A delivery with everything that was done about it, its manifest and its recalls."""
    import json

    from serving.activation.deliveries import acts, delivery, recalls
    from troth.clock import SystemClock

    found, now = delivery(home, delivery_id), SystemClock().now()
    return {
        **_told(found),
        "acts": [
            {"at": _moment(each.at), "act": each.act, "who": each.who, "why": each.why}
            for each in acts(home, delivery_id)
        ],
        "recalls": [
            {
                "number": each.number,
                "state": each.state,
                "people": each.count,
                "reasons": ", ".join(f"{count} {reason}" for reason, count in each.reasons.items()),
                "made_at": _moment(each.made_at),
                "answer_by": _moment(each.answer_by),
                "age_hours": round(each.age(now).total_seconds() / 3600, 1),
                "is_overdue": each.is_overdue(now),
                "acknowledged_at": _moment(each.acknowledged_at),
                "receipt_id": each.receipt_id,
                "last_fault": each.last_fault,
            }
            for each in recalls(home, delivery_id)
        ],
        "manifest": json.loads(found.manifest) if found.manifest else None,
    }


def recall(home: Home, again: bool, dry_run: bool, display: "Display") -> dict[str, Any]:
    """One round: find whom to call back, tell recipients, take their answers, go on with what stopped."""
    from serving.activation.recalling import foreseen
    from serving.activation.rounds import go_round

    dispatch = dispatch_of(home, display)
    if dry_run:
        return {"would_be_recalled": foreseen(dispatch), "is_done": False}
    return {**vars(go_round(dispatch, again=again)), "is_done": True}


def acknowledge(home: Home, delivery_id: str, number: int | None, by: str, receipt: str) -> dict[str, Any]:
    from serving.activation.recalling import acknowledge as answered

    found = answered(dispatch_of(home), delivery_id, number, by=by, receipt=receipt)
    return {"acknowledged": [{"number": each.number, "people": each.count} for each in found]}


def _told(found: "Delivery") -> dict[str, Any]:
    """A delivery as it is told: who, what, to whom, how many, and where it stands."""
    to = found.to
    return {
        "delivery_id": found.delivery_id,
        "state": found.state,
        "segment": found.segment_name,
        "version": found.segment_version,
        "definition_hash": found.definition_hash,
        "channel": found.channel_code,
        "purposes": list(found.purposes),
        "destination": to.name,
        "recipient": f"{to.recipient.legal_name} ({to.recipient.role}, {to.recipient.country})",
        "asked_by": found.asked_by,
        "asked_at": _moment(found.asked_at),
        "why": found.why,
        "needs_approval": to.needs_approval,
        "decided_by": found.decided_by,
        "decided_why": found.decided_why,
        "expires_at": _moment(found.expires_at),
        "matched": found.matched,
        "expected": found.expected,
        "refused": dict(found.refused),
        "exported": found.exported,
        "sent_at": _moment(found.sent_at),
        "receipts": list(found.receipt_numbers),
        "receipt_id": found.receipt_id,
        "attempts_in_vain": found.attempt_count,
        "last_fault": found.last_fault,
        "next_attempt_at": _moment(found.next_attempt_at),
    }


def _moment(at: Any) -> str | None:
    return at.isoformat(timespec="seconds") if at else None
