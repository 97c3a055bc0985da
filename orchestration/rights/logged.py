"""The event log without a person: what it holds of them is landed and read first, then emptied, or stripped where stock rests on it.

An order, a refund or a fulfilment keeps what it says of goods: whoever reads the log next still counts it. Everything else goes whole.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from orchestration import taking
from orchestration.catalog import SOURCES
from orchestration.rights.landed import stripped_json
from orchestration.rights.traces import Find, Traces
from serving.event_log.events import Event
from serving.event_log.log import LANDING, Log, has_log, open_log
from serving.intake.landing import land
from troth.home import Home

PLACE = "event log"
_PAGE = 1_000
_OF_GOODS = ("order", "refund")
_OF_PARCEL = (
    "id",
    "admin_graphql_api_id",
    "order_id",
    "status",
    "shipment_status",
    "created_at",
    "updated_at",
    "location_id",
)
_OF_LINE = ("id", "admin_graphql_api_id", "sku", "quantity")
# Where bodies say who: identifiers too short to be looked for in every byte are looked for there.
_NAMES = ("id", "email", "email_address", "phone", "customer_id", "userId", "anonymousId")


def bring_in(home: Home) -> list[str]:
    """Land and take what the log holds, so that raw says whose it is. Which files of which days that brought, as source/day/name."""
    if not has_log(home):
        return []
    log = open_log(home)
    try:
        if log.position(LANDING) == log.head():
            return []
        land(log, home)
    finally:
        log.close()
    plans = [plan for source in SOURCES for plan in taking.plan(home, source.name)]
    taking.take(home, plans, workers=1)
    return [f"{plan.source}/{plan.day}/{file.path}" for plan in plans for file in plan.read]


def erase_logged(home: Home, traces: Traces, at: datetime) -> dict[str, int]:
    """Take a person out of the log and its dead letters, leaving no trace in its files. What was done, counted."""
    if not has_log(home):
        return {"events": 0, "dead_letters": 0}
    log = open_log(home)
    try:
        found = {event.offset: _without(event, traces) for event in _events(log) if _is_about(event, traces)}
        letters = [number for number, payload in _letters(log) if _tells(payload, traces)]
        done = {"events": log.rewrite(found), "dead_letters": log.letters.erase(letters, at)}
        log.shred()
    finally:
        log.close()
    return done


def search_logged(home: Home, traces: Traces) -> list[Find]:
    """What is left of a person in the log, read by its tables: in the bytes of its files a text may be cut in two."""
    if not has_log(home):
        return []
    log = open_log(home)
    try:
        finds = [Find(PLACE, f"offset {event.offset}") for event in _events(log) if _is_about(event, traces)]
        finds += [Find(PLACE, f"dead letter {number}") for number, payload in _letters(log) if _tells(payload, traces)]
    finally:
        log.close()
    return finds


def _events(log: Log) -> Iterator[Event]:
    after = 0
    while page := log.read(after, _PAGE):
        yield from (event for event in page if not event.is_erased)
        after = page[-1].offset


def _letters(log: Log) -> Iterator[tuple[int, bytes]]:
    after = 0
    while page := log.letters.list(None, after):
        yield from ((each.letter_id, log.letters.payload(each.letter_id)) for each in page)
        after = page[-1].letter_id


def _is_about(event: Event, traces: Traces) -> bool:
    return event.key.partition("/")[2] in traces.texts or _tells(event.payload, traces)


def _tells(payload: bytes, traces: Traces) -> bool:
    if traces.spans(payload):
        return True
    short = {value.strip() for values in traces.short.values() for value in values}
    return bool(short) and not short.isdisjoint(_named(payload))


def _named(payload: bytes) -> set[str]:
    """Whom a body is about, by its own fields and those of its customer."""
    try:
        told = msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return set()
    if not isinstance(told, dict):
        return set()
    customer = told.get("customer")
    people = [{name: value for name, value in told.items() if name != "id" or "email_marketing_consent" in told}]
    people += [customer] if isinstance(customer, dict) else []
    return {str(each[name]) for each in people for name in _NAMES if each.get(name) is not None}


def _without(event: Event, traces: Traces) -> bytes:
    """What stays of an event: what it says of goods, or nothing."""
    values = {*traces.texts, *(value for values in traces.short.values() for value in values)}
    stays = b""
    if event.event_type in _OF_GOODS:
        stays = stripped_json(event.payload, values)
    elif event.event_type == "fulfilment":
        stays = _stripped_fulfilment(event.payload)
    return b"" if stays and _tells(stays, traces) else stays


def _stripped_fulfilment(payload: bytes) -> bytes:
    """Which goods left where, and when."""
    told = msgspec.json.decode(payload, type=dict[str, Any])
    lines = [{name: line[name] for name in _OF_LINE if name in line} for line in told.get("line_items") or ()]
    return msgspec.json.encode({**{name: told[name] for name in _OF_PARCEL if name in told}, "line_items": lines})
