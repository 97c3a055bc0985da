"""What the privacy desk does, for the command line and the pages alike: every request through one log, whatever is asked.

What has to be done in every room (erasing, collecting, correcting) is done by others; see `work.py`.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from consent.events import Event
from consent.ledger.opening import open_ledger, signer_of
from consent.rights import ALTERNATIVES, Request, RightsLog, open_certificate, open_rights
from consent.rule.policy import EVERY, read_policy
from serving.activation.recalling import has_answered
from serving.hub.webhooks import MOST_DELIVERIES, OUTBOX_FILE, Outbox
from serving.rights.persons import RightsError, resolve
from troth.clock import Clock
from troth.home import Home

ACTOR, PLACE = "privacy_desk", "privacy_desk"
FOLDER = "rights"  # in the home, a folder for each erasure
NOTE = "certificate.note"


def receive(home: Home, clock: Clock, kind: str, subjects: Sequence[str], through: str = PLACE) -> dict[str, Any]:
    """Take a request in; who it is about is written down as tokens, sealed, until it ends."""
    with open_rights(home) as log:
        return told(log.receive(kind, resolve(home, subjects).tokens, clock.now(), through, ACTOR), clock.now())


def requests(home: Home, clock: Clock) -> dict[str, Any]:
    """Every request with its state and deadline; `overdue` counts those that should have been answered."""
    now = clock.now()
    found = every_request(home, clock)
    late = [r.recipient for request in found for r in request.recipients if r.state(now) == "overdue"]
    return {
        "requests": [told(request, now) for request in found],
        "overdue": sum(request.is_overdue(now) for request in found),
        "overdue_recipients": len(late),
    }


def every_request(home: Home, clock: Clock) -> list[Request]:
    """Every request, oldest first, with what recipients have acknowledged by now."""
    acknowledge_webhooks(home, clock)
    acknowledge_recalls(home, clock)
    with open_rights(home) as log:
        return log.requests()


def advance(home: Home, clock: Clock, request_id: str, state: str, reason: str | None) -> dict[str, Any]:
    """Bring a request into its next state by hand: identity checked, refused or routed with a reason, done."""
    with open_rights(home) as log:
        return told(log.advance(request_id, state, clock.now(), ACTOR, reason), clock.now())


def extend(home: Home, clock: Clock, request_id: str, reason: str) -> dict[str, Any]:
    with open_rights(home) as log:
        return told(log.extend(request_id, reason, clock.now(), ACTOR), clock.now())


def acknowledge(home: Home, clock: Clock, request_id: str, recipient: str) -> dict[str, Any]:
    with open_rights(home) as log:
        return told(log.acknowledge(request_id, recipient, clock.now()), clock.now())


def acknowledge_webhooks(home: Home, clock: Clock) -> int:
    """Take over what downstream systems have acknowledged by webhook. How many recipients that were waited for."""
    if not (home.root / OUTBOX_FILE).exists():
        return 0
    outbox, count = Outbox(home), 0
    try:
        with open_rights(home) as log:
            for request in log.requests():
                waiting = {r.recipient for r in request.recipients if r.acknowledged_at is None}
                for destination in outbox.destinations():
                    name = f"webhook:{destination.name}"
                    if name in waiting and _has_acknowledged(
                        home, outbox, destination.destination_id, request.request_id
                    ):
                        log.acknowledge(request.request_id, name, clock.now())
                        count += 1
    finally:
        outbox.close()
    return count


def acknowledge_recalls(home: Home, clock: Clock) -> int:
    """Take over what recipients of segments have answered to recalls. How many recipients that were waited for."""
    count = 0
    with open_rights(home) as log:
        for request in log.requests():
            for each in request.recipients:
                kind, _, delivery_id = each.recipient.partition(":")
                if kind == "activation" and each.acknowledged_at is None and has_answered(home, delivery_id):
                    log.acknowledge(request.request_id, each.recipient, clock.now())
                    count += 1
    return count


def _has_acknowledged(home: Home, outbox: Outbox, destination_id: str, request_id: str) -> bool:
    """Whether every `erased` event of a request was delivered to a destination."""
    path = home.root / FOLDER / request_id / NOTE
    if not path.exists():
        return False
    leaves = set(json.loads(path.read_text(encoding="utf-8").splitlines()[1])["places"]["ledger"]["leaves"])
    after = 0
    while leaves and (page := outbox.deliveries(destination_id, "delivered", after, MOST_DELIVERIES)):
        leaves -= {delivery.leaf_index for delivery in page}
        after = page[-1].delivery_id
    return not leaves


def say_no(
    home: Home,
    clock: Clock,
    subjects: Sequence[str],
    event_type: str,
    purpose_code: str = EVERY,
    channel_code: str = EVERY,
) -> dict[str, Any]:
    """Record an objection, a restriction or its end under every proved identity.

    An objection to what rests on a contract cannot be granted: it is routed to a person, with what we can do instead.
    """
    policy = read_policy()
    if purpose_code != EVERY and purpose_code not in policy.purposes:
        raise RightsError(f"purpose: expected one of {', '.join(policy.purposes)}, found another. Name one of them.")
    person = resolve(home, subjects)
    now = clock.now()
    with open_rights(home) as log:
        request = begun(log, home, clock, "objection" if event_type == "object" else "restriction", subjects)
        if purpose_code != EVERY and policy.purposes[purpose_code].legal_basis == "contract":
            routed = told(log.advance(request.request_id, "routed", now, ACTOR, "contract"), now)
            return {**routed, "instead": ALTERNATIVES["contract"]}
        with open_ledger(home, clock) as ledger:
            events = [
                _event(token, event_type, purpose_code, channel_code, now, request.request_id)
                for token in person.tokens
            ]
            leaves = ledger.append(events)
        return {**told(log.advance(request.request_id, "done", clock.now(), ACTOR), now), "leaves": leaves}


def _event(token: str, event_type: str, purpose_code: str, channel_code: str, at: datetime, request_id: str) -> Event:
    return Event(
        subject_id=token, event_type=event_type, purpose_code=purpose_code, channel_code=channel_code,
        occurred_at=at, recorded_at=at, received_at=at, notice_id=None, notice_version=None, language_code=None,
        capture_method="rights_request", capture_place=PLACE, actor_type="subject", jurisdiction_code=EVERY,
        signal_id=f"{event_type}:{request_id}",
    )  # fmt: skip


def begun(log: RightsLog, home: Home, clock: Clock, kind: str, subjects: Sequence[str]) -> Request:
    """A request taken in (or the open one) and under way: whoever works at the desk has checked who asks."""
    request = log.receive(kind, resolve(home, subjects).tokens, clock.now(), PLACE, ACTOR)
    for state in ("identity_checked", "in_progress"):
        if request.state == "received" or (request.state == "identity_checked" and state == "in_progress"):
            request = log.advance(request.request_id, state, clock.now(), ACTOR)
    return request


def certificate(home: Home, request_id: str) -> dict[str, Any] | None:
    """What the certificate of an erasure says, its signature checked; None while there is none. Raises: VerificationError."""
    path = home.root / FOLDER / request_id / NOTE
    return open_certificate(path.read_text(encoding="utf-8"), signer_of(home).verifier) if path.exists() else None


def told(request: Request, now: datetime) -> dict[str, Any]:
    """A request as the command line shows it."""
    return {
        "request_id": request.request_id,
        "kind": request.kind,
        "state": request.state,
        "received_at": request.received_at.isoformat(timespec="seconds"),
        "deadline": request.deadline.isoformat(timespec="seconds"),
        "is_overdue": request.is_overdue(now),
        "through": request.received_through,
        "acts": [
            {"at": act.at.isoformat(timespec="seconds"), "actor": act.actor, "state": act.state, "reason": act.reason}
            for act in request.acts
        ],
        "recipients": {each.recipient: each.state(now) for each in request.recipients},
    }
