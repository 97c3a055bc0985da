"""Whom somebody means by an e-mail, a phone, a card, a customer id or an order number. Says who, and never whether one may look at them."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from serving import orders
from serving.answers import CUSTOMER_PREFIX
from serving.console.counter import Counter
from serving.console.said import Identity
from serving.orders import NoSuchOrderError
from troth.published import current

LINKS = "customer_identities"
_CUSTOMER = re.compile(rf"{CUSTOMER_PREFIX}[0-9a-z]{{1,40}}")
_TYPES = ("email", "phone", "card", "account")  # what people know of themselves


class Found(NamedTuple):
    """A customer, and whether what was typed proves it: a phone that was only seen in a record does not."""

    customer_id: str
    is_proved: bool


def find(counter: Counter, typed: str) -> Found | None:
    """The one customer that something typed leads to; None where it leads to nobody, or to several."""
    if _CUSTOMER.fullmatch(typed):
        return Found(typed, True)
    return _by_identifier(counter, typed) or _by_order(counter, typed)


def identities(counter: Counter, customer_id: str) -> list[Identity]:
    """The identities of a customer, surest first, but for tests."""
    import polars as pl

    rows = (
        pl.scan_parquet(current(counter.home, LINKS))
        .filter(pl.col("customer_id") == customer_id, ~pl.col("is_test"))
        .select(Identity._fields)
        .with_columns(pl.col("linked_at").dt.replace_time_zone("UTC"))
        .collect()
    )
    order = ("hub", "deterministic", "probabilistic", "contact")
    found = [Identity(*row) for row in rows.iter_rows()]
    return sorted(
        found, key=lambda each: (order.index(each.link_type) if each.link_type in order else 9, each.identity_ref)
    )


def _by_identifier(counter: Counter, typed: str) -> Found | None:
    """By proof where there is one, else by what was seen in a record: of one customer alone."""
    import polars as pl

    tokens = [token for kind in _kinds(typed) if (token := counter.token(kind, typed))]
    rows = (
        pl.scan_parquet(current(counter.home, LINKS))
        .filter(pl.col("identity_ref").is_in(tokens), ~pl.col("is_test"))
        .select("customer_id", is_proved=pl.col("link_type") != "contact")
        .collect()
    )
    for is_proved in (True, False):
        customers = set(rows.filter(pl.col("is_proved") == is_proved)["customer_id"])
        if len(customers) == 1:
            return Found(customers.pop(), is_proved)
        if customers:
            return None
    return None


def _by_order(counter: Counter, typed: str) -> Found | None:
    try:
        customer_id = orders.find(counter.home, typed)["customer_id"]
    except NoSuchOrderError:
        return None
    return None if customer_id is None else Found(customer_id, True)


def _kinds(typed: str) -> Iterator[str]:
    if "@" in typed:
        yield "email"
        return
    yield from (kind for kind in _TYPES if kind != "email")
