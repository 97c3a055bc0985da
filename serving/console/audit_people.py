"""One person, for an auditor: found by what leads to them, told by customer id or token; what they said with its proofs, what followed, who looked.

What was typed stands in no address and no log. Contact data is masked, and shown in the clear once, with a reason.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from starlette.responses import Response

from consent.ledger.opening import has_ledger
from consent.receipts.verifier import Check
from serving.audit import people
from serving.audit.shapes import Said, Span, SubjectAudit
from serving.console import finding, said
from serving.console.charts import Row, Stay
from serving.console.counter import Counter
from serving.console.customers import count_search
from serving.console.frame import ROOT, Page, Visit
from serving.console.masking import masked
from serving.console.pages import words
from serving.console.worked import timed
from serving.errors import ServingError
from troth.ids import IDENTIFIER_TYPES

PATH = "/audit/subjects"
CONTACTS = ("email", "phone")
LINKS = {
    "itself": "the identity asked for",
    "hub": "their own",
    "deterministic": "proved to be theirs",
    "probabilistic": "looks like theirs, not proved",
    "contact": "seen in a record of theirs, not proved",
    "payment": "paid with, proves nobody",
}
WHO_IS_WHOM = {
    "identity_linked": "Another identity was found to be the same person's.",
    "identity_unlinked": "Another identity was found not to be the same person's.",
    "erased": "Erased: what was said before can be read by nobody.",
}
NOBODY = "who: expected somebody we know something of, found nobody. Try another identifier of theirs."
_CUSTOMER = re.compile(r"cus_[0-9a-z]{1,40}")
_TOKEN = re.compile(rf"(?:{'|'.join(IDENTIFIER_TYPES)})_[a-z2-7]{{22}}")
_OUTCOMES = ("failed", "not covered", "verified")


def pages_of(counter: Counter) -> list[Page]:
    return [
        Page(PATH, "audit", _form),
        Page(PATH, "audit", partial(_find, counter), "POST"),
        Page(f"{PATH}/{{who}}", "audit", partial(_subject, counter)),
        Page(f"{PATH}/{{who}}/proofs", "audit", partial(_proved, counter), "POST"),
        Page(f"{PATH}/{{who}}/reveal", "audit", partial(_reveal, counter), "POST"),  # and `reveal`
    ]


def label(purpose_code: str, channel_code: str) -> str:
    """A purpose and its channel in as few words as a chart has room for."""
    return words(purpose_code) if channel_code == "*" else f"{words(purpose_code)}, {words(channel_code)}"


def checks(found: Sequence[Check]) -> list[dict[str, Any]]:
    """What was checked as rows, failures first."""
    return [
        {
            "outcome": each.outcome,
            "check": each.check,
            "evidence": each.evidence,
            "expected": each.expected,
            "found": each.found,
        }
        for each in sorted(found, key=lambda each: _OUTCOMES.index(each.outcome))
    ]


def _form(visit: Visit) -> Response:
    return visit.show("audit_find.html", "Find a person", typed="", wrong=None)


def _find(counter: Counter, visit: Visit) -> Response:
    typed = visit.text("who")
    if not typed:
        wrong = "who: expected an e-mail, phone, card, customer id or token, found nothing. Type one of them."
        return visit.show("audit_find.html", "Find a person", 422, typed="", wrong=wrong)
    count_search(counter, visit)
    who = _meant(counter, visit, typed)
    if who is None:
        visit.look("search", allowed=False, reason_code="unknown_subject")
        return visit.show("audit_find.html", "Find a person", 404, typed=typed, wrong=NOBODY)
    visit.look("search", who)
    return visit.go(f"{PATH}/{who}")


def _meant(counter: Counter, visit: Visit, typed: str) -> str | None:
    """The customer id or token that something typed leads to; None where nothing is known of them."""
    if found := finding.find(counter, typed):
        typed = found.customer_id
    known = people.known_of(visit.home, typed)
    if not is_name(known.said):
        return None
    is_linked = bool((known.links["link_type"] != "itself").any())
    is_heard = has_ledger(visit.home) and any(map(counter.ledger.leaves_of, known.tokens))
    return known.said if is_linked or is_heard else None


def is_name(text: str) -> bool:
    """Whether something leads to a person without naming them, so that it may stand in an address."""
    return bool(_CUSTOMER.fullmatch(text) or _TOKEN.fullmatch(text))


def _subject(counter: Counter, visit: Visit) -> Response:
    return _shown(counter, visit)


def _proved(counter: Counter, visit: Visit) -> Response:
    """The same, with the rows of every receipt held against what was signed."""
    return _shown(counter, visit, prove=True)


def _reveal(counter: Counter, visit: Visit) -> Response:
    """The page once more with the contact data in the clear. Nothing is kept of it but that it was shown, and why."""
    visit.needs("reveal")
    return _shown(counter, visit, why=visit.why())


def _shown(counter: Counter, visit: Visit, *, prove: bool = False, why: str | None = None) -> Response:
    who = visit.text("who")
    if not is_name(who):
        visit.refuse(404, "no_such_subject", NOBODY)
    try:
        worked = timed(visit, lambda: people.subject(visit.home, who, visit.at, prove=prove))
    except ServingError:
        visit.look("audit", allowed=False, reason_code="unknown_subject")
        visit.refuse(404, "no_such_subject", NOBODY)
    visit.look("reveal" if why else "audit", who, why=why)
    found = worked.answer
    failed = [each for each in found.checks if each.outcome == "failed"]
    return visit.show(
        "audit_subject.html",
        "Person",
        who=who,
        found=found,
        seconds=worked.seconds,
        is_proved=prove,
        failed=failed,
        checks=checks(found.checks),
        events=[_event(counter, each) for each in reversed(found.events)],
        standing=[
            {
                "what": said.what(counter.policy, each.purpose, each.channel),
                "of": each.of,
                "is_allowed": each.is_allowed,
                "reason": each.reason,
                "since_at": each.since_at,
                "expires_at": each.expires_at,
                "leaf": each.leaf,
                "in_words": each.in_words,
            }
            for each in found.standing
        ],
        several=len({each.of for each in found.standing}) > 1,
        chart=_chart(found, visit.at),
        chart_from=min((each.from_at for each in found.spans), default=visit.at),
        chart_until=visit.at,
        spans=[_span(counter, each) for each in found.spans],
        identities=_identities(counter, found, is_clear=why is not None),
        is_clear=why is not None,
        may_reveal=visit.may("reveal"),
        uses=[
            {
                "number": (f"{ROOT}/audit/uses/{each.number}", each.number),
                "use": each.use,
                "asked_by": each.asked_by,
                "what": said.what(counter.policy, each.purpose, each.channel),
                "decided_at": each.decided_at,
                "answer": f"{'yes' if each.is_allowed else 'no'}, {each.reason.replace('_', ' ')}",
                "ledger_size": each.ledger_size,
                "proof": {None: "not asked", True: "row is signed", False: "row is NOT as signed"}[each.is_proved],
            }
            for each in found.uses
        ],
        exports=[
            {
                "segment": f"{each.segment}, version {each.version}",
                "channel": each.channel,
                "exported_at": each.exported_at,
                "in_file": "yes" if each.is_in_file else "no",
                "why": (each.reason or "").replace("_", " "),
                "number": (f"{ROOT}/audit/exports/{each.number}", each.number) if each.number else None,
            }
            for each in found.exports
        ],
        trainings=[
            {
                "model": (f"{ROOT}/audit/models/{each.model}", each.model),
                "decided_at": each.decided_at,
                "answer": f"{'learned from' if each.is_allowed else 'left out'}, {each.reason.replace('_', ' ')}",
                "in_use": "yes" if each.is_in_use else "no",
                "touched": "yes: would be left out today" if each.is_touched else "no",
            }
            for each in found.trainings
        ],
        recipients=found.recipients,
        looks=found.looks,
        requests=[
            {
                "number": (f"{ROOT}/requests/{each.request_id}", each.request_id),
                "plain": each.request_id,
                "kind": each.kind,
                "state": "overdue" if each.is_overdue else each.state,
                "received_at": each.received_at,
                "deadline": each.deadline,
            }
            for each in found.requests
        ],
    )


def _event(counter: Counter, event: Said) -> dict[str, Any]:
    words = said.in_words(event.event, event.purpose or "*", event.channel or "*", counter.policy)
    return {
        "at": event.occurred_at,
        "words": words or WHO_IS_WHOM.get(event.event, event.event.replace("_", " ")),
        "place": event.place,
        "notice": event.notice,
        "by": event.by,
        "identity": event.identity,
        "leaf": event.leaf,
        "proof": "in the ledger, and nothing left out" if event.is_proved else "NOT proved",
    }


def _identities(counter: Counter, found: SubjectAudit, *, is_clear: bool) -> list[dict[str, Any]]:
    values = counter.vault.get([each.token for each in found.identities if each.token.startswith(CONTACTS)])
    return [
        {
            "number": each.number,
            "kind": each.token.partition("_")[0],
            "token": each.token,
            "contact": _contact(each.token, values.get(each.token), is_clear),
            "link": LINKS.get(each.link, each.link.replace("_", " ")),
            "leaves": each.leaf_count,
            "erased": each.erased_count,
        }
        for each in found.identities
    ]


def _contact(token: str, value: str | None, is_clear: bool) -> str | None:
    return value if value is None or is_clear else masked(token.partition("_")[0], value)


def _span(counter: Counter, span: Span) -> dict[str, Any]:
    return {
        "what": said.what(counter.policy, span.purpose, span.channel),
        "of": span.of,
        "from_at": span.from_at,
        "until_at": span.until_at,
        "answer": f"{'yes' if span.is_allowed else 'no'}, {span.reason.replace('_', ' ')}",
        "leaf": span.leaf,
    }


def _chart(found: SubjectAudit, now: datetime) -> list[Row]:
    """A row for each purpose and channel that anything was ever said about."""
    rows: dict[tuple[str, str, str], list[Stay]] = {}
    for each in found.spans:
        stay = Stay(each.from_at, each.until_at or now, each.is_allowed, each.reason.replace("_", " "))
        rows.setdefault((each.of, each.purpose, each.channel), []).append(stay)
    return [Row(label(purpose, channel), stays) for (_, purpose, channel), stays in rows.items()]
