"""One customer, for whoever serves them: found by what they say of themselves, shown under standing, contact data masked.

What was typed stands in no address and no log. Nobody found, several found and not allowed are answered alike.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl
from starlette.responses import Response

from consent.rule.identity import PROVED
from serving import orders
from serving.answers import ProfileAnswer, Recommendation, ask_profile, ask_recommend
from serving.console import finding, said
from serving.console.counter import Counter
from serving.console.frame import Area, Page, Visit
from serving.console.masking import masked
from serving.console.said import Identity, May
from serving.order_words import BACK
from serving.profiles import Profile
from troth.published import current

MOST_ORDERS, MOST_OFFERED, MOST_RETURNS = 20, 6, 10
LINK_DAYS = 7
CONTACTS = {"email": "E-mail", "phone": "Phone"}
NOBODY = (
    "Nobody was found whom we may show, or more than one person was. Check what was typed, or ask for something else: "
    "an e-mail, a loyalty card, an order number."
)
UNPROVED = (
    "Found by something that was only seen in a record. Make sure who is in front of you before you tell anything."
)
SURE = {
    "hub": "their own",
    "deterministic": "proved to be theirs",
    "probabilistic": "very likely theirs, not proved",
    "contact": "seen in a record of theirs, not proved",
    "payment": "paid with, proves nobody",
}


@dataclass(frozen=True)
class Contact:
    """A contact point as it is shown: masked, or, once and with a reason, in the clear."""

    field_name: str
    title: str
    shown: str
    is_clear: bool


def area(counter: Counter) -> Area:
    return Area(
        "customers", "Customers", "/customers", "customers",
        [
            Page("/customers", "customers", _form),
            Page("/customers", "customers", partial(_search, counter), "POST"),
            Page("/customers/{customer_id}", "customers", partial(_customer, counter)),
            Page("/customers/{customer_id}/reveal", "reveal", partial(_reveal, counter), "POST"),
            Page("/customers/{customer_id}/link", "customers", partial(_link, counter), "POST"),
        ],
    )  # fmt: skip


def count_search(counter: Counter, visit: Visit) -> None:
    """Raises: ProblemError 429 for who searches too often."""
    wait = counter.searches.wait_seconds(visit.staff, visit.desk.wall.now())
    if wait:
        visit.look("search", allowed=False, reason_code="too_often")
        visit.refuse(
            429,
            "too_many_searches",
            f"search: expected at most {counter.searches.most} an hour, found more. Wait {wait // 60 + 1} minutes, or ask "
            "somebody else to look.",
        )


def look_id(customer_id: str, theirs: list[Identity]) -> str:
    """What a look calls a customer: an identity that is proved to be theirs, for an audit begins with those; else their own id."""
    return next((each.identity_ref for each in theirs if each.link_type in PROVED), customer_id)


def _form(visit: Visit) -> Response:
    return visit.show("customers.html", "Find a customer", typed="", wrong=None)


def _search(counter: Counter, visit: Visit) -> Response:
    typed = visit.text("who")
    if not typed:
        wrong = "who: expected what the customer says of themselves, found nothing. Type one of them."
        return visit.show("customers.html", "Find a customer", 422, typed="", wrong=wrong)
    count_search(counter, visit)
    found = finding.find(counter, typed)
    answer = ask_profile(counter.answers, found.customer_id, visit.at) if found else None
    if found is None or answer is None or not answer.is_allowed:
        _write_search(counter, visit, found.customer_id if found else None, answer)
        return visit.show("customers.html", "Find a customer", 404, typed=typed, wrong=NOBODY)
    _write_search(counter, visit, found.customer_id, answer)
    return visit.go(f"/customers/{found.customer_id}", None if found.is_proved else UNPROVED)


def _write_search(counter: Counter, visit: Visit, customer_id: str | None, answer: ProfileAnswer | None) -> None:
    whom = look_id(customer_id, finding.identities(counter, customer_id)) if customer_id else None
    is_allowed = answer is not None and answer.is_allowed
    visit.look("search", whom, "service", is_allowed, answer.reason_code if answer else "unknown_subject")


def _customer(counter: Counter, visit: Visit) -> Response:
    return _shown(counter, visit)


def _shown(counter: Counter, visit: Visit, clear: str | None = None, why: str | None = None) -> Response:
    """The page. `clear`: the one contact point that is shown as it is, on this answer alone."""
    customer_id, at = visit.text("customer_id"), visit.at
    theirs, answer, profile = _served(counter, visit, "reveal" if clear else "customer", why, clear)
    place = _place(counter, visit, profile)
    offer = _offer(counter, visit, customer_id, theirs, place)
    once = said.Once(counter.ledger)
    standings = said.standings(once, theirs, counter.policy, at)
    may = said.may(standings, counter.policy)
    told = said.history(once, theirs, counter.policy)
    known = orders.of_customer(counter.home, customer_id, MOST_ORDERS)
    return visit.show(
        "customer.html",
        "Customer",
        customer_id=customer_id,
        profile=profile,
        age_seconds=answer.age_seconds,
        contacts=_contacts(counter, profile, clear),
        identities=_in_words(theirs),
        places=counter.places(),
        place=place,
        orders=known,
        waiting=[each for each in known if each.is_open],
        returns=_returns(counter, customer_id),
        offer=offer,
        offered=_offered(counter, offer) if offer else [],
        may=may,
        refused=_refused(offer, may) if offer else None,
        refusal=said.reason(offer.reason_code) if offer else None,
        history=told[: said.MOST_EVENTS],
        history_count=len(told),
        may_reveal=visit.may("reveal"),
        link_days=LINK_DAYS,
        most_orders=MOST_ORDERS,
    )


def _served(
    counter: Counter, visit: Visit, act: str, why: str | None = None, clear: str | None = None
) -> tuple[list[Identity], ProfileAnswer, Profile]:
    """Whom the page is about, after standing for `service` was asked, and written down that somebody looked.

    Raises: ProblemError 404, the same for nobody and for who may not be served; 403 for a role that serves nobody.
    """
    if not (visit.may("customers") and visit.may_ask("service")):
        visit.refuse(
            403, "not_your_purpose", "page: expected a role that serves people, found another. Ask whoever gives roles."
        )
    customer_id = visit.text("customer_id")
    answer = ask_profile(counter.answers, customer_id, visit.at)
    theirs = finding.identities(counter, customer_id)
    whom = look_id(customer_id, theirs)
    said_why = f"{clear}: {why}" if clear and why else why
    visit.look(act, whom, "service", answer.is_allowed, answer.reason_code, said_why)
    if answer.profile is None:
        visit.refuse(404, "no_such_customer", f"customer: expected one we may show, found none. {NOBODY}")
    return theirs, answer, answer.profile


def _reveal(counter: Counter, visit: Visit) -> Response:
    """The page once more, with one contact point in the clear. Nothing is kept of it but that it was shown, and why."""
    return _shown(counter, visit, visit.choice("what", list(CONTACTS)), visit.why())


def _link(counter: Counter, visit: Visit) -> Response:
    """A link to the person's own preferences, for them alone: whoever has it chooses in their name."""
    why = visit.why()
    theirs, _, _ = _served(counter, visit, "preference_link", why)
    own = next((each for each in theirs if each.link_type == "hub"), None)
    if own is None:
        visit.refuse(
            422, "no_identity", "link: expected an identity that is the customer's own, found none. Ask for an e-mail."
        )
    made = counter.links.make("preferences", own.identity_ref, visit.at, LINK_DAYS)
    address = f"{visit.request.url.scheme}://{visit.request.url.netloc}/preferences/{made.text}"
    return visit.show(
        "customer_link.html",
        "Link to their preferences",
        customer_id=visit.text("customer_id"),
        address=address,
        identifier=own.identity_type,
        until=made.expires_at,
    )


def _place(counter: Counter, visit: Visit, profile: Profile) -> str:
    """The store that offers are for: the one chosen, else where the customer shops; "" for none."""
    home = str(profile.store["home_location_code"] or "")
    asked = visit.text("store") or home
    return asked if asked in counter.places() else ""


def _contacts(counter: Counter, profile: Profile, clear: str | None) -> list[Contact]:
    refs = {each.field_name: each.field_value for each in profile.fields if each.field_name in CONTACTS}
    values = counter.vault.get([ref for ref in refs.values() if ref])
    return [
        Contact(name, title, value if name == clear else masked(name, value), name == clear)
        for name, title in CONTACTS.items()
        if (value := values.get(refs.get(name) or ""))
    ]


def _in_words(theirs: list[Identity]) -> list[dict[str, Any]]:
    """Identities as rows: how many of a type are how sure, by whose word, since when."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for each in theirs:
        key = (each.identity_type, each.link_type, each.source_name)
        row = rows.setdefault(
            key,
            {
                "kind": each.identity_type,
                "sure": SURE.get(each.link_type, each.link_type.replace("_", " ")),
                "source": each.source_name,
                "count": 0,
                "since": each.linked_at,
            },
        )
        row["count"] += 1
        row["since"] = min((at for at in (row["since"], each.linked_at) if at is not None), default=None)
    return list(rows.values())


def _returns(counter: Counter, customer_id: str) -> list[dict[str, Any]]:
    rows = (
        pl.scan_parquet(current(counter.home, "returns"))
        .filter(pl.col("customer_id") == customer_id)
        .select("order_id", "sku", "quantity_units", "returned_at", "location_code", "restock_type")
        .sort("returned_at", descending=True)
        .head(MOST_RETURNS)
        .with_columns(pl.col("returned_at").dt.replace_time_zone("UTC"))
        .collect()
    )
    items, places = counter.items(), counter.places()
    return [
        {
            "at": row["returned_at"],
            "item": f"{row['quantity_units']} × {items[row['sku']].name if row['sku'] in items else row['sku']}",
            "where": places[row["location_code"]].name if row["location_code"] in places else None,
            "state": BACK[row["restock_type"]],
        }
        for row in rows.iter_rows(named=True)
    ]


def _offer(
    counter: Counter, visit: Visit, customer_id: str, theirs: list[Identity], place: str
) -> Recommendation | None:
    """What may be offered at a place, or wherever it is, and a line that it was asked; None for a role that offers nothing."""
    if not visit.may_ask("personalization"):
        return None
    found = ask_recommend(
        counter.answers, customer_id, visit.at, MOST_OFFERED, allow_popular=True, at_location=place or None
    )
    whom = look_id(customer_id, theirs)
    visit.look("recommendations", whom, "personalization", found.is_allowed, found.reason_code)
    return found


def _refused(offer: Recommendation, may: list[May]) -> May | None:
    """Why nothing personal is offered, by the rule; None where it is allowed, or something else is in the way."""
    alike = (each for each in may if (each.purpose_code, each.reason_code) == (offer.purpose_code, offer.reason_code))
    return None if offer.is_allowed else next(alike, None)


def _offered(counter: Counter, offer: Recommendation) -> list[dict[str, Any]]:
    items, places = counter.items(), counter.places()
    return [
        {
            "sku": each.sku,
            "name": items[each.sku].name if each.sku in items else each.sku,
            "cents": items[each.sku].cents if each.sku in items else None,
            "place": places[each.location_code].name if each.location_code in places else each.location_code,
            "units": each.available_units,
            "is_personal": each.basis != "popular",
        }
        for each in offer.items
    ]
