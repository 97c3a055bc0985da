"""One order, for whoever is asked about it: found by its number, told in words for staff, or as the shopper would hear it.

Standing of whose order it is decides. Not found and not allowed are answered alike.
"""

from functools import partial
from typing import NamedTuple
from urllib.parse import quote

from starlette.responses import Response

from serving.answers import OrderAnswer, tell_order
from serving.console import finding
from serving.console.counter import Counter
from serving.console.customers import count_search, look_id
from serving.console.frame import Area, Page, Visit
from serving.console.said import Identity
from serving.orders import NoSuchOrderError, OrderView, find

NONE = "No order was found that we may show. Check the number on the receipt or confirmation, and the e-mail if you typed one."
TOLD = {"contact_centre": "for you", "shopper": "as the shopper hears it"}


class Asked(NamedTuple):
    """An order that may be shown, and whose it is."""

    order_id: str
    customer_id: str | None
    identities: list[Identity]
    answer: OrderAnswer
    view: OrderView


def area(counter: Counter) -> Area:
    return Area(
        "orders", "Orders", "/orders", "orders",
        [
            Page("/orders", "orders", _form),
            Page("/orders", "orders", partial(_search, counter), "POST"),
            Page("/orders/{order_id:path}", "orders", partial(_order, counter)),
        ],
    )  # fmt: skip


def _form(visit: Visit) -> Response:
    return visit.show("orders.html", "Find an order", name="", email="", wrong=None)


def _search(counter: Counter, visit: Visit) -> Response:
    name, email = visit.text("name"), visit.text("email")
    if not name:
        wrong = "name: expected the number of an order, found nothing. Type it as it stands on the receipt."
        return visit.show("orders.html", "Find an order", 422, name="", email=email, wrong=wrong)
    count_search(counter, visit)
    found = _asked(counter, visit, name, "contact_centre")
    if found is None or (email and not _is_of(found, counter.token("email", email))):
        return visit.show("orders.html", "Find an order", 404, name=name, email=email, wrong=NONE)
    return visit.go(f"/orders/{quote(found.order_id)}")


def _order(counter: Counter, visit: Visit) -> Response:
    told = visit.choice("told", list(TOLD))
    found = _asked(counter, visit, visit.text("order_id"), told)
    if found is None:
        visit.refuse(404, "no_such_order", f"order: expected one we may show, found none. {NONE}")
    return visit.show(
        "order.html",
        f"Order {found.answer.order}",
        order_id=found.order_id,
        customer_id=found.customer_id,
        view=found.view,
        answer=found.answer,
        told=told,
        tellings=TOLD,
        is_centre=told == "contact_centre",
    )


def _asked(counter: Counter, visit: Visit, name: str, told: str) -> Asked | None:
    """The order, and a line in the log of looks: whose it is, or that there is none. None for no order, and for none we may show."""
    if not visit.may_ask("service"):
        visit.refuse(
            403, "not_your_purpose", "page: expected a role that serves people, found another. Ask whoever gives roles."
        )
    try:
        order = find(counter.home, name)
    except NoSuchOrderError:
        visit.look("order", purpose_code="service", allowed=False, reason_code="no_such_order")
        return None
    customer_id = order["customer_id"]
    theirs = finding.identities(counter, customer_id) if customer_id else []
    answer = tell_order(counter.answers, order, visit.at, told)
    subject = look_id(customer_id, theirs) if customer_id else None
    visit.look("order", subject, "service", answer.is_allowed, answer.reason_code)
    return None if answer.view is None else Asked(order["order_id"], customer_id, theirs, answer, answer.view)


def _is_of(found: Asked, token: str | None) -> bool:
    """Whether an e-mail is one of whoever ordered, as far as any record says."""
    return any(each.identity_ref == token for each in found.identities)
