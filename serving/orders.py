"""The post-purchase view of one order: where it is, what was promised and what happened, in words for two audiences.

Read from published tables by the order's id; decided nowhere here. A shopper is told no codes of ours and nothing of how money
and papers are checked; the contact centre sees every event with the record it rests on.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from serving.errors import ServingError
from serving.order_words import (
    AMISS,
    AMISS_TO_CENTRE,
    BACK,
    METHODS,
    REASONS,
    REFUNDED_FOR,
    STAGES,
    STILL_OPEN,
    TOLD,
    TOLD_TO_CENTRE,
)
from troth.home import Home
from troth.published import current

Audience = Literal["shopper", "contact_centre"]
AUDIENCES: tuple[Audience, ...] = ("shopper", "contact_centre")
TABLES = ("orders", "order_lines", "order_events", "order_exceptions", "refunds", "returns", "products", "locations")
Row = Mapping[str, Any]


class NoSuchOrderError(ServingError):
    """Nobody knows an order of that name."""


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """What was promised at the checkout, against what happened; `is_late` is null where nothing was promised."""

    text: str
    promised_at: datetime | None = None
    fulfilled_at: datetime | None = None
    is_late: bool | None = None
    late_minutes: int | None = None


class OrderLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line and what became of it; `sent_units` is null where no source says by line."""

    item: str
    units: int
    sent_units: int | None
    cancelled_units: int
    returned_units: int
    refunded: str
    text: str
    order_line_id: str | None = None
    sku: str | None = None


class OrderEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that happened, oldest first. The contact centre sees who says so."""

    occurred_at: datetime
    text: str
    event_type: str | None = None
    reason_code: str | None = None
    units: int | None = None
    location_code: str | None = None
    known_at: datetime | None = None
    source_name: str | None = None
    source_table: str | None = None
    source_ref: str | None = None


class OrderRefund(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Money given back, and for what."""

    refunded_at: datetime
    amount: str
    text: str
    refund_type: str | None = None
    source_ref: str | None = None


class OrderReturn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Goods that came back."""

    returned_at: datetime
    text: str
    units: int
    restock_type: str | None = None
    location_code: str | None = None
    source_ref: str | None = None


class OrderException(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went otherwise than it should, in plain words."""

    occurred_at: datetime
    text: str
    exception_type: str | None = None
    reason_code: str | None = None
    source_table: str | None = None
    source_ref: str | None = None


class OrderView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One order as an audience may see it."""

    status: str
    ordered_at: datetime
    channel: str
    method: str
    total: str
    refunded: str
    promise: Promise
    lines: list[OrderLine]
    timeline: list[OrderEvent]
    returns: list[OrderReturn]
    refunds: list[OrderRefund]
    exceptions: list[OrderException]
    tracking: list[str] = []
    order_id: str | None = None
    marketplace_order_id: str | None = None
    customer_id: str | None = None
    order_stage: str | None = None


class OrderInBrief(msgspec.Struct, frozen=True, kw_only=True):
    """One order of a customer's, in a line. `is_open`: something is still to happen before they have it, or it is called off."""

    order_id: str
    order_name: str
    ordered_at: datetime
    channel: str
    method: str
    status: str
    total: str
    promise: Promise
    is_open: bool


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one order, and the published version of each table they come from."""

    order: dict[str, Any]
    rows: dict[str, list[dict[str, Any]]]
    versions: dict[str, str | None]


def find(home: Home, name: str) -> dict[str, Any]:
    """The order by its id, its name (with or without #), or what its marketplace calls it.

    Raises: NoSuchOrderError when there is none, or more than one.
    """
    import polars as pl

    names = [name, f"#{name}", f"ecommerce/{name}", f"pos/{name}"]
    rows = (
        pl.scan_parquet(current(home, "orders"))
        .filter(pl.any_horizontal(pl.col("order_id", "order_name", "marketplace_order_id").is_in(names)))
        .with_columns(_in_utc())
        .collect()
        .to_dicts()
    )
    if len(rows) != 1:
        raise NoSuchOrderError(
            "order: expected the name or id of one order, such as #10001 or a receipt's store/till/number/day, "
            f"found {len(rows) or 'none'} that it names. Read it from the receipt or confirmation again."
        )
    return rows[0]


def read(home: Home, order: dict[str, Any]) -> Found:
    """Everything published about an order."""
    import polars as pl

    files = {table: current(home, table) for table in TABLES}

    def rows(table: str, by: str, values: Sequence[str]) -> list[dict[str, Any]]:
        return (
            pl.scan_parquet(files[table]).filter(pl.col(by).is_in(values)).with_columns(_in_utc()).collect().to_dicts()
        )

    own = {table: rows(table, "order_id", [order["order_id"]]) for table in TABLES[1:6]}
    every = [order, *(row for part in own.values() for row in part)]
    skus = {str(row["sku"]) for row in every if row.get("sku")}
    places = {str(row["location_code"]) for row in every if row.get("location_code")}
    own["products"] = rows("products", "sku", sorted(skus))
    own["locations"] = rows("locations", "location_code", sorted(places))
    return Found(order=order, rows=own, versions={table: path.stem for table, path in files.items()})


def of_customer(home: Home, customer_id: str, most: int) -> list[OrderInBrief]:
    """A customer's newest orders, newest first. Whoever asks has asked for standing first."""
    import polars as pl

    rows = (
        pl.scan_parquet(current(home, "orders"))
        .filter(pl.col("customer_id") == customer_id)
        .sort("ordered_at", "order_id", descending=True)
        .head(most)
        .with_columns(_in_utc())
        .collect()
        .to_dicts()
    )
    codes = {row["location_code"] for row in rows if row["location_code"]}
    places = pl.scan_parquet(current(home, "locations")).filter(pl.col("location_code").is_in(sorted(codes)))
    named = {"products": [], "order_lines": [], "locations": places.collect().to_dicts() if codes else []}
    return [_Teller(Found(order=row, rows=named, versions={}), is_centre=True).in_brief() for row in rows]


def _in_utc() -> Any:
    """Tables hold UTC without saying so."""
    import polars.selectors as cs

    return cs.datetime(time_zone=None).dt.replace_time_zone("UTC")


def view(found: Found, audience: Audience) -> OrderView:
    """The order in words for an audience."""
    return _Teller(found, is_centre=audience == "contact_centre").view()


def in_short(told: OrderView) -> OrderView:
    """The same with the timeline as time, words and source alone: what fits on a terminal."""
    short = [
        OrderEvent(occurred_at=each.occurred_at, text=each.text, source_name=each.source_name) for each in told.timeline
    ]
    return msgspec.structs.replace(told, timeline=short)


class _Teller:
    """Words for the rows of one order."""

    def __init__(self, found: Found, *, is_centre: bool) -> None:
        self._order, self._rows, self._is_centre = found.order, found.rows, is_centre
        self._items = {row["sku"]: row["product_name"] for row in found.rows["products"]}
        self._places = {row["location_code"]: row["location_name"] for row in found.rows["locations"]}

    def view(self) -> OrderView:
        order, events = self._order, sorted(self._rows["order_events"], key=_in_time)
        parcels = (_parcel(row) for row in events if row["tracking_number"])
        return OrderView(
            status=self._words(STAGES[order["order_stage"]], order),
            ordered_at=order["ordered_at"],
            channel=order["channel_type"],
            method=METHODS[order["fulfillment_method"]],
            total=self._money(order["gross_cents"]),
            refunded=self._money(order["refunded_cents"]),
            promise=self._promise(),
            lines=[self._line(row) for row in sorted(self._rows["order_lines"], key=lambda row: row["line_number"])],
            timeline=list(self._timeline(events)),
            returns=[self._return(row) for row in _by_time(self._rows["returns"], "returned_at")],
            refunds=[self._refund(row) for row in _by_time(self._rows["refunds"], "refunded_at") if row["gross_cents"]],
            exceptions=list(self._exceptions()),
            tracking=list(dict.fromkeys(parcels)),
            **self._codes(order, "order_id", "marketplace_order_id", "customer_id", "order_stage"),
        )

    def in_brief(self) -> OrderInBrief:
        order = self._order
        return OrderInBrief(
            order_id=order["order_id"],
            order_name=order["order_name"],
            ordered_at=order["ordered_at"],
            channel=order["channel_type"],
            method=METHODS[order["fulfillment_method"]],
            status=self._words(STAGES[order["order_stage"]], order),
            total=self._money(order["gross_cents"]),
            promise=self._promise(),
            is_open=order["order_stage"] in STILL_OPEN,
        )

    def _promise(self) -> Promise:
        order = self._order
        if order["promised_at"] is None:
            return Promise(text="No time was promised.", fulfilled_at=order["fulfilled_at"])
        what = "ready" if order["promise_type"] == "ready_by" else "delivered"
        text = f"Promised to be {what} by {_when(order['promised_at'])}."
        if order["is_late"]:
            text += f" Late by {_minutes(order['late_minutes'])}" + (".", " so far.")[order["fulfilled_at"] is None]
        elif order["fulfilled_at"]:
            text += " Kept."
        names = ("promised_at", "fulfilled_at", "is_late", "late_minutes")
        return Promise(text=text, **{name: order[name] for name in names})

    def _line(self, row: Row) -> OrderLine:
        became = [
            f"{row[name]} {word}"
            for name, word in (("sent_units", "sent"), ("cancelled_units", "cancelled"), ("returned_units", "returned"))
            if row[name]
        ]
        if row["refunded_cents"]:
            became.append(f"{self._money(row['refunded_cents'])} refunded")
        return OrderLine(
            item=self._item(row["sku"]), units=row["quantity_units"], sent_units=row["sent_units"], cancelled_units=row["cancelled_units"],
            returned_units=row["returned_units"], refunded=self._money(row["refunded_cents"]), text=", ".join(became) or "nothing yet",
            **self._codes(row, "order_line_id", "sku"),
        )  # fmt: skip

    def _timeline(self, events: Sequence[Row]) -> Iterator[OrderEvent]:
        for row in events:
            words = TOLD.get(row["event_type"]) or (TOLD_TO_CENTRE.get(row["event_type"]) if self._is_centre else None)
            if words:
                known = {"known_at": row["received_at"]} if self._is_centre else {}
                names = (
                    "event_type",
                    "reason_code",
                    "units",
                    "location_code",
                    "source_name",
                    "source_table",
                    "source_ref",
                )
                yield OrderEvent(
                    occurred_at=row["occurred_at"], text=self._words(words, row), **known, **self._codes(row, *names)
                )

    def _return(self, row: Row) -> OrderReturn:
        text = self._words("{goods} came back {place}.", row)
        if self._is_centre:
            text = f"{text[:-1]}: {BACK[row['restock_type']]}."
        codes = self._codes(row, "restock_type", "location_code") | self._ref(row["return_line_id"])
        return OrderReturn(returned_at=row["returned_at"], text=text, units=row["quantity_units"], **codes)

    def _refund(self, row: Row) -> OrderRefund:
        amount = self._money(row["gross_cents"])
        text = f"{amount} {self._words(REFUNDED_FOR[row['refund_type']], row)}"
        codes = self._codes(row, "refund_type") | self._ref(row["refund_line_id"])
        return OrderRefund(refunded_at=row["refunded_at"], amount=amount, text=f"{text}.", **codes)

    def _exceptions(self) -> Iterator[OrderException]:
        for row in _by_time(self._rows["order_exceptions"], "occurred_at"):
            kinds = (row["exception_type"], row["reason_code"])
            tables = (AMISS_TO_CENTRE, AMISS) if self._is_centre else (AMISS,)
            words = next((table[kind] for table in tables for kind in kinds if kind in table), None)
            if words:
                codes = self._codes(row, "exception_type", "reason_code", "source_table", "source_ref")
                yield OrderException(occurred_at=row["occurred_at"], text=self._words(words, row), **codes)

    def _words(self, words: str, row: Row) -> str:
        """A sentence of the tables above with what the row says put in, and without gaps where it says nothing."""
        place = self._places.get(row.get("location_code") or "")
        units, reason = row.get("units") or row.get("quantity_units"), REASONS.get(row.get("reason_code") or "")
        item = self._item(row["sku"]) if row.get("sku") else self._item_of(row.get("order_line_id"))
        goods = f"{units} x {item}" if units and item else item or "your order"
        text = words.format(
            place=f"at {place}" if place else "", goods=goods, why=f": {reason}" if reason else "",
            carrier=f" with {row['carrier_name']}" if row.get("carrier_name") else "",
            money=self._money(abs(row.get("amount_cents") or 0)), late=_minutes(row.get("late_minutes") or 0),
            promised=_when(row["promised_at"]) if row.get("promised_at") else "",
        )  # fmt: skip
        text = " ".join(text.split()).replace(" .", ".")
        return text[:1].upper() + text[1:] if words[:1].isupper() or words.startswith("{") else text

    def _item(self, sku: str) -> str:
        return str(self._items.get(sku) or sku)

    def _item_of(self, order_line_id: str | None) -> str | None:
        lines = (row["sku"] for row in self._rows["order_lines"] if row["order_line_id"] == order_line_id)
        return next((self._item(sku) for sku in lines), None)

    def _money(self, amount_cents: int) -> str:
        return f"{amount_cents / 100:.2f} {self._order['currency_code']}"

    def _codes(self, row: Row, *names: str) -> dict[str, Any]:
        return {name: row[name] for name in names} if self._is_centre else {}

    def _ref(self, source_ref: str) -> dict[str, Any]:
        return {"source_ref": source_ref} if self._is_centre else {}


def _in_time(event: Row) -> tuple[datetime, int, str]:
    """Of what happened in one second, first what comes first."""
    course = [*TOLD, *TOLD_TO_CENTRE]
    return event["occurred_at"], course.index(event["event_type"]), event["order_event_id"]


def _by_time(rows: Sequence[Row], column: str) -> list[Row]:
    return sorted(rows, key=lambda row: row[column])


def _parcel(row: Row) -> str:
    return " ".join(part for part in (row["carrier_name"], row["tracking_number"]) if part)


def _when(at: datetime) -> str:
    return f"{at:%a} {at.day} {at:%b %Y, %H:%M} UTC"


def _minutes(count: int) -> str:
    """A length of time as people say it."""
    days, hours, minutes = count // 1440, count % 1440 // 60, count % 60
    parts = [f"{n} {word}{'s' * (n != 1)}" for n, word in ((days, "day"), (hours, "hour"), (minutes, "minute")) if n]
    return " and ".join(parts[:2]) or "less than a minute"
