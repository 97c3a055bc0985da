"""The semantic layer: what a condition may speak of. Subjects with one row per customer, events with a time, scores of models.

A subject is a published table (its columns are its fields) or a short query over published tables. Identity columns,
tokens and test marks are no fields: a segment describes people, it does not pick one out.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Literal

import polars as pl

from models.segments.conditions import PRESENCE, Comparison, Condition, Happened, Lookalike, SegmentError, leaves
from troth.home import Home
from troth.published import current

FieldType = Literal["text", "whole", "number", "boolean", "date", "timestamp"]
Value = str | int | float | bool | date | datetime

_ORDERED = ("=", "!=", "<", "<=", ">", ">=", "in", *PRESENCE)
OPERATORS_OF: dict[FieldType, tuple[str, ...]] = {
    "text": ("=", "!=", "in", *PRESENCE),
    "boolean": ("=", "!=", *PRESENCE),
    "whole": _ORDERED,
    "number": _ORDERED,
    "date": _ORDERED,
    "timestamp": _ORDERED,
}
_EXAMPLE = {
    "whole": "3",
    "number": "0.5",
    "boolean": "true or false",
    "date": "2026-05-01 or `30 days ago`",
    "timestamp": "2026-05-01T08:00:00Z or `30 days ago`",
}
_AGO = re.compile(r"([0-9]{1,5}) (hour|day|week)s? ago")
_HOURS = {"hour": 1, "day": 24, "week": 168}
_LARGEST = 2**63
_NO_FIELDS = {"customer_id", "is_test", "hub_identity_type", "identity_count", "model_version"}

_NEWEST = "select * from {table} where feature_at = (select max(feature_at) from {table} where feature_at <= $at)"
_HOME_STORE = """
select c.customer_id, sum(s.sku_count) as in_stock_sku_count,
       sum(case when s.category_name = p.favourite_category_name then s.sku_count else 0 end)
           as favourite_in_stock_sku_count
from customers c
join (
    select a.location_code, i.category_name, count(*) as sku_count
    from ftr_sku_location_availability a
    join (select sku, max(category_name) as category_name from products group by sku) i on i.sku = a.sku
    where a.has_stock
    group by a.location_code, i.category_name
) s on s.location_code = c.home_location_code
left join (
    select * from ftr_customer_purchases
    where feature_at = (select max(feature_at) from ftr_customer_purchases where feature_at <= $at)
) p on p.customer_id = c.customer_id
group by c.customer_id
"""
# Saturday and Sunday on the wall clock of the person's own store: a Sunday evening in Los Angeles is a Monday in UTC.
_BROWSING = """
select customer_id, count(*) as view_count_28d,
       sum(case when extract(isodow from local_at) in (6, 7) then 1.0 else 0.0 end) / count(*) as weekend_view_share_28d
from (
    select e.customer_id,
           cast(e.occurred_at as timestamp) at time zone 'UTC' at time zone coalesce(l.timezone_name, 'UTC') as local_at
    from web_events e
    join customers c on c.customer_id = e.customer_id
    left join locations l on l.location_code = c.home_location_code
    where e.event_name = 'Product Viewed' and e.occurred_at <= $at and e.occurred_at > $at - interval '28' day
) v
group by customer_id
"""


@dataclass(frozen=True)
class Subject:
    """Where a subject's rows come from. `fields` is given where computed; else the table's columns are the fields."""

    tables: tuple[str, ...]
    sql: str
    fields: Mapping[str, FieldType] | None = None


@dataclass(frozen=True)
class Event:
    """What happens to customers: `sql` gives customer_id, happened_at and the fields; `times` and `units` count such rows.

    `of_products`: fields of the product, which is joined where one of them is asked for. `sums`: fields whose sum may be asked for.
    """

    tables: tuple[str, ...]
    sql: str
    times: str
    fields: Mapping[str, FieldType]
    units: str | None = None
    of_products: Mapping[str, FieldType] = field(default_factory=dict)
    sums: tuple[str, ...] = ()

    @property
    def counted_in(self) -> tuple[str, ...]:
        """What such rows are counted in."""
        return ("times", *(["units"] if self.units else []), *self.sums)

    @property
    def all_fields(self) -> dict[str, FieldType]:
        return {**self.fields, **self.of_products}


@dataclass(frozen=True)
class Score:
    """A model's answer about people, from consented training and scoring: one number per customer."""

    table: str
    column: str


SUBJECTS: dict[str, Subject] = {
    "customers": Subject(("customers",), "select * from customers"),
    "customer_purchases": Subject(("ftr_customer_purchases",), _NEWEST.format(table="ftr_customer_purchases")),
    "customer_engagement": Subject(("ftr_customer_engagement",), _NEWEST.format(table="ftr_customer_engagement")),
    "rfm": Subject(("pred_rfm",), "select * from pred_rfm"),
    "churn": Subject(("pred_churn",), "select * from pred_churn"),
    "home_store": Subject(
        ("customers", "ftr_sku_location_availability", "products", "ftr_customer_purchases"),
        _HOME_STORE,
        {"in_stock_sku_count": "whole", "favourite_in_stock_sku_count": "whole"},
    ),
    "browsing": Subject(
        ("web_events", "customers", "locations"),
        _BROWSING,
        {"view_count_28d": "whole", "weekend_view_share_28d": "number"},
    ),
}

_ORDER: dict[str, FieldType] = {"channel_type": "text", "location_code": "text", "currency_code": "text"}
_PRODUCT: dict[str, FieldType] = {"category_name": "text", "brand_name": "text"}
_ON_A_DEVICE: dict[str, FieldType] = {"device_type": "text", "os_name": "text"}


def _web(name: str, fields: Mapping[str, FieldType], of_products: Mapping[str, FieldType]) -> Event:
    sql = f"select *, occurred_at as happened_at from web_events where event_name = '{name}'"  # noqa: S608
    return Event(("web_events",), sql, "count(*)", fields, of_products=of_products)


EVENTS: dict[str, Event] = {
    "ordered": Event(
        ("orders",),
        "select *, ordered_at as happened_at from orders where not is_cancelled",
        "count(*)",
        {
            **_ORDER, "source_name": "text", "fulfillment_method": "text", "order_stage": "text", "is_late": "boolean",
            "net_cents": "whole", "gross_cents": "whole", "returned_units": "whole", "exception_count": "whole",
        },
        sums=("net_cents", "gross_cents"),
    ),
    "bought": Event(
        ("order_lines",),
        "select *, ordered_at as happened_at from order_lines where not is_cancelled",
        "count(distinct order_id)",  # two lines of one order are one time
        {**_ORDER, "sku": "text", "quantity_units": "whole", "unit_price_cents": "whole", "net_cents": "whole"},
        "coalesce(sum(quantity_units), 0)",
        _PRODUCT,
        ("net_cents",),
    ),
    "returned": Event(
        ("returns",),
        "select *, returned_at as happened_at from returns",
        "count(*)",
        {"sku": "text", "source_name": "text", "location_code": "text", "quantity_units": "whole"},
        "coalesce(sum(quantity_units), 0)",
        _PRODUCT,
    ),
    "viewed": _web("Product Viewed", {"sku": "text", **_ON_A_DEVICE}, _PRODUCT),
    "carted": _web("Product Added", {"sku": "text", **_ON_A_DEVICE}, _PRODUCT),
    "searched": _web("Products Searched", _ON_A_DEVICE, {}),
    "checked_out": _web("Checkout Started", _ON_A_DEVICE, {}),
}  # fmt: skip
THINGS = {"sku"}  # what an event may have happened to that another did not happen to
SCORES: dict[str, Score] = {"churn": Score("pred_churn", "churn_probability")}


def fields(home: Home, subject: str) -> dict[str, FieldType]:
    """The fields of a subject as published now, with types. Raises: TrothError when its table is not published."""
    known = SUBJECTS[subject]
    if known.fields is not None:
        return dict(known.fields)
    schema = pl.read_parquet_schema(current(home, known.tables[0]))
    typed = {
        name: _type(dtype) for name, dtype in schema.items() if name not in _NO_FIELDS and not name.endswith("_ref")
    }
    return {name: kind for name, kind in typed.items() if kind is not None}


class Checked:
    """Names and values of conditions held against the semantic layer, and what they are in the type of their field."""

    def __init__(self, home: Home, what: str, at: datetime) -> None:
        self._home = home
        self._what = what
        self._at = at
        self._known: dict[str, dict[str, FieldType]] = {}

    def condition(self, condition: Condition) -> None:
        """Raises: SegmentError for an unknown name, an operator that does not fit, or a value of another type."""
        for leaf in leaves(condition):
            if isinstance(leaf, Comparison):
                self.values(leaf)
            elif isinstance(leaf, Happened):
                self._event(leaf)
            else:
                self._one_of(leaf, leaf.score, "a score of a model", SCORES)

    def kind(self, comparison: Comparison) -> FieldType:
        """The type of a subject's field. Raises: SegmentError where there is none."""
        subject = comparison.subject
        self._one_of(comparison, subject, "a subject", SUBJECTS)
        of = self._known.setdefault(subject, fields(self._home, subject))
        self._one_of(comparison, comparison.field, f"a field of {subject}", of)
        return of[comparison.field]

    def values(self, comparison: Comparison, kind: FieldType | None = None) -> tuple[Value, ...]:
        """The values of a comparison in the type of its field, which is given where it is an event's."""
        kind = kind or self.kind(comparison)
        fitting = OPERATORS_OF[kind]
        if comparison.operator not in fitting:
            raise self._error(
                comparison,
                f"one of {' '.join(fitting)} for a {kind} field",
                comparison.operator,
                "Use one of them.",
            )
        return tuple(self._value(comparison, kind, value) for value in comparison.values)

    def _event(self, leaf: Happened) -> None:
        self._one_of(leaf, leaf.event, "an event", EVENTS)
        event = EVENTS[leaf.event]
        if leaf.counted not in event.counted_in:
            known = ", ".join(event.counted_in)
            raise self._error(leaf, f"one of {known} for {leaf.event}", leaf.counted, "Count in one of them.")
        self._filters(leaf.event, leaf.filters)
        if leaf.unless:
            self._one_of(leaf, leaf.unless.event, "an event", EVENTS)
            things = THINGS & event.fields.keys() & EVENTS[leaf.unless.event].fields.keys()
            self._one_of(leaf, leaf.unless.same, "a field of both that names a thing", things)
            self._filters(leaf.unless.event, leaf.unless.filters)

    def _filters(self, name: str, filters: Iterable[Comparison]) -> None:
        known = EVENTS[name].all_fields
        for each in filters:
            self._one_of(each, each.field, f"a field of {name}", known)
            self.values(each, known[each.field])

    def _one_of(self, leaf: Comparison | Happened | Lookalike, name: str, what: str, known: Collection[str]) -> None:
        if name not in known:
            there = ", ".join(known) or "none"
            expected = f"{what} ({there})" if what.startswith("a field") else f"{what} of {there}"
            raise self._error(leaf, expected, name, "Choose one of them.")

    def _error(self, leaf: Comparison | Happened | Lookalike, expected: str, found: str, advice: str) -> SegmentError:
        said = "" if isinstance(leaf, Lookalike) else f" `{leaf.text[:100]}`"
        place = leaf.place or "condition"
        return SegmentError(f"{self._what}, {place}{said}: expected {expected}, found {found}. {advice}")

    def _value(self, comparison: Comparison, kind: FieldType, text: str) -> Value:
        try:
            return _READ[kind](text, self._at)
        except (ValueError, KeyError, OverflowError):
            raise self._error(
                comparison, f"a {kind} such as {_EXAMPLE[kind]}", repr(text[:60]), "Correct the value."
            ) from None


def _type(dtype: pl.DataType) -> FieldType | None:
    if dtype == pl.String:
        return "text"
    if dtype == pl.Boolean:
        return "boolean"
    if dtype.is_integer():
        return "whole"
    if dtype.is_numeric():
        return "number"
    if dtype == pl.Date:
        return "date"
    return "timestamp" if isinstance(dtype, pl.Datetime) else None


def _whole(text: str, at: datetime) -> Value:
    """A field of whole numbers may be compared with 2.5; equality with it is simply never true."""
    if not text.lstrip("+-").isdigit():
        return _finite(text, at)
    number = int(text)
    if not -_LARGEST <= number < _LARGEST:
        raise ValueError(text)
    return number


def _finite(text: str, at: datetime) -> Value:
    number = float(text)
    if number - number != 0:  # nan and infinities
        raise ValueError(text)
    return number


def _timestamp(text: str, at: datetime) -> Value:
    if match := _AGO.fullmatch(text):
        return at - timedelta(hours=int(match[1]) * _HOURS[match[2]])
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _date(text: str, at: datetime) -> Value:
    if match := _AGO.fullmatch(text):
        return (at - timedelta(hours=int(match[1]) * _HOURS[match[2]])).date()
    return date.fromisoformat(text)


_READ: dict[FieldType, Callable[[str, datetime], Value]] = {
    "text": lambda text, at: text,
    "boolean": lambda text, at: {"true": True, "false": False}[text.lower()],
    "whole": _whole,
    "number": _finite,
    "date": _date,
    "timestamp": _timestamp,
}
