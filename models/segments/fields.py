"""What a condition may speak of: subjects with one row per customer, their fields, types and SQL.

A subject is a published table (its columns are its fields) or a short query over published tables. Identity columns,
tokens and test marks are no fields: a segment describes people, it does not pick one out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal

import polars as pl

from models.segments.definition import Comparison, Segment, SegmentError, comparisons
from troth.home import Home
from troth.published import current

FieldType = Literal["text", "whole", "number", "boolean", "date", "timestamp"]
Value = str | int | float | bool | date | datetime

_ORDERED = ("=", "!=", "<", "<=", ">", ">=", "in")
OPERATORS_OF: dict[FieldType, tuple[str, ...]] = {
    "text": ("=", "!=", "in"),
    "boolean": ("=", "!="),
    "whole": _ORDERED,
    "number": _ORDERED,
    "date": _ORDERED,
    "timestamp": _ORDERED,
}
_EXAMPLE = {
    "whole": "3",
    "number": "0.5",
    "boolean": "true or false",
    "date": "2026-05-01",
    "timestamp": "2026-05-01T08:00:00Z",
}
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


def values(home: Home, segment: Segment) -> dict[Comparison, tuple[Value, ...]]:
    """The values of every comparison in the type of its field.

    Raises: SegmentError for an unknown subject or field, an operator that does not fit, or a value of another type.
    """
    known: dict[str, dict[str, FieldType]] = {}
    typed: dict[Comparison, tuple[Value, ...]] = {}
    for comparison in comparisons(segment.where):
        what = f"segment {segment.name}, condition `{comparison.text[:100]}`"
        subject, field = comparison.subject, comparison.field
        if subject not in SUBJECTS:
            raise SegmentError(
                f"{what}: expected a subject of {', '.join(SUBJECTS)}, found {subject}. Choose one of them."
            )
        of = known.setdefault(subject, fields(home, subject))
        if field not in of:
            raise SegmentError(
                f"{what}: expected a field of {subject} ({', '.join(of)}), found {field}. Choose one of them."
            )
        fitting = OPERATORS_OF[of[field]]
        if comparison.operator not in fitting:
            raise SegmentError(
                f"{what}: expected one of {' '.join(fitting)} for a {of[field]} field, found {comparison.operator}. "
                "Use one of them."
            )
        typed[comparison] = tuple(_value(what, of[field], value) for value in comparison.values)
    return typed


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


def _value(what: str, kind: FieldType, text: str) -> Value:
    try:
        if kind == "whole":
            # A field of whole numbers may be compared with 2.5; equality with it is simply never true.
            return int(text) if text.lstrip("+-").isdigit() else _finite(text)
        if kind == "number":
            return _finite(text)
        if kind == "boolean":
            return {"true": True, "false": False}[text.lower()]
        if kind == "date":
            return date.fromisoformat(text)
        if kind == "timestamp":
            at = datetime.fromisoformat(text)
            return at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at
    except (ValueError, KeyError):
        raise SegmentError(
            f"{what}: expected a {kind} such as {_EXAMPLE[kind]}, found {text[:60]!r}. Correct the value."
        ) from None
    return text


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:  # nan and infinities
        raise ValueError(text)
    return number
