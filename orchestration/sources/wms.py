"""Warehouse: location master CSV, EPCIS 2.0 JSON, X12 846 and 945, pick and pack CSV. Contracts and the readers."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from orchestration.sources import epcis, x12
from orchestration.sources.contract import Column, Contract, FileKind, Reading, Source
from orchestration.sources.csv_rows import read_csv_rows

LOCATIONS = Contract(
    table="raw_wms__locations",
    description="Location master: the one place where a location's many names meet. One row per location and export.",
    key=("location_code", "updated_at"),
    columns=(
        Column("location_code", "text", "Retailer's own code, such as S001 or DC1.", required=True),
        Column("location_type", "text", "Kind.", required=True, values=("store", "distribution_center")),
        Column("location_name", "text", "Name for people.", required=True),
        Column("gln", "text", "GS1 global location number, 13 digits.", required=True),
        Column("pos_store_code", "text", "How the tills call it; null for a distribution centre."),
        Column("ecommerce_location_id", "text", "How the web shop calls it."),
        Column("timezone_name", "text", "IANA time zone.", required=True),
        Column("latitude", "decimal", "Degrees north."),
        Column("longitude", "decimal", "Degrees east."),
        Column("city", "text", "City."),
        Column("region_code", "text", "State."),
        Column("postal_code", "text", "Postal code."),
        Column("country_code", "text", "ISO 3166 alpha-2.", required=True),
        Column("opens_at", "text", "Opening time on the wall clock, HH:MM; null for a distribution centre."),
        Column("closes_at", "text", "Closing time on the wall clock, HH:MM."),
        Column("opened_date", "date", "First trading day.", required=True),
        Column("updated_at", "timestamp", "Last change of the master.", required=True),
    ),
    freshness_hours=24 * 90,
)
EPCIS_EVENTS = Contract(
    table="raw_wms__epcis_events",
    description="EPCIS 2.0 visibility events. One row per event, item and document.",
    key=("event_id", "item_number", "is_error_declaration"),
    columns=(
        Column(
            "event_id",
            "text",
            "eventID, or the canonical event hash (ni:///sha-256;...) where the event has none.",
            required=True,
        ),
        Column("item_number", "integer", "Position of the item within the event, from 1.", required=True, minimum=1),
        Column(
            "event_type",
            "text",
            "EPCIS event type.",
            required=True,
            values=("ObjectEvent", "AggregationEvent", "TransactionEvent", "TransformationEvent", "AssociationEvent"),
        ),
        Column(
            "action", "text", "ADD, OBSERVE or DELETE; null for a transformation.", values=("ADD", "OBSERVE", "DELETE")
        ),
        Column("biz_step", "text", "CBV business step, bare word."),
        Column("disposition", "text", "CBV disposition, bare word."),
        Column("occurred_at", "timestamp", "eventTime.", required=True),
        Column("utc_offset", "text", "eventTimeZoneOffset.", required=True),
        Column("recorded_at", "timestamp", "recordTime."),
        Column("read_point", "text", "Read point, GLN where it can be had."),
        Column("biz_location", "text", "Business location, GLN where it can be had."),
        Column(
            "source_location",
            "text",
            "Where the goods come from: location, or else possessing or owning party; GLN where it can be had.",
        ),
        Column("destination_location", "text", "Where they go, in the same way."),
        Column("transaction_type", "text", "Type of the first business transaction, bare word (po, desadv, inv ...)."),
        Column("transaction_ref", "text", "The first business transaction."),
        Column("gtin", "text", "GTIN-14 of the item.", required=True),
        Column(
            "quantity_units",
            "integer",
            "Pieces; 1 for a serialised item; negative for what a transformation consumed.",
            required=True,
        ),
        Column(
            "is_error_declaration",
            "boolean",
            "The event declares an earlier one of the same id to be wrong.",
            required=True,
        ),
        Column("error_declared_at", "timestamp", "declarationTime."),
        Column("error_reason", "text", "did_not_occur, incorrect_data ..."),
        Column("corrective_event_ids", "text", "Events that replace it, joined by a space."),
    ),
)
STOCK_ADVICE = Contract(
    table="raw_wms__stock_advice",
    description="X12 846 inventory advice: what a warehouse says it has. One row per advice, item and quantity type.",
    key=("advice_ref", "gln", "sku", "quantity_type"),
    columns=(
        Column("advice_ref", "text", "BIA03 reference.", required=True),
        Column("purpose_code", "text", "BIA01: 00 original, 05 replace."),
        Column("advised_date", "date", "BIA04.", required=True),
        Column("gln", "text", "N104 with qualifier UL: the warehouse.", required=True),
        Column(
            "known_until_at",
            "timestamp",
            "High-water mark: what the sender had booked by then is in the figures (DTM*405).",
            required=True,
        ),
        Column("sku", "text", "LIN, qualifier SK.", required=True),
        Column("gtin", "text", "LIN, qualifier UK (GTIN-14) or UP."),
        Column(
            "quantity_type",
            "text",
            "QTY01 in words.",
            required=True,
            values=("available", "on_hand", "committed", "projected", "damaged", "in_transit"),
        ),
        Column("quantity_units", "integer", "QTY02.", required=True),
    ),
    freshness_hours=24 * 8,
)
SHIPMENTS = Contract(
    table="raw_wms__shipments",
    description="X12 945 shipping advice: ordered, shipped and difference. One row per shipment and line.",
    key=("shipment_ref", "line_number"),
    columns=(
        Column("shipment_ref", "text", "W0604 shipment number.", required=True),
        Column(
            "order_ref",
            "text",
            "W0602 depositor's order number: a web order's name, or a store transfer.",
            required=True,
        ),
        Column("shipped_at", "timestamp", "W0603 date with G62*11 time.", required=True),
        Column("ship_from_gln", "text", "N1*WH.", required=True),
        Column(
            "ship_to_gln",
            "text",
            "N1*ST with qualifier UL, for transfers between locations; null for a shopper's address.",
        ),
        Column("carrier_code", "text", "W2702 SCAC."),
        Column("tracking_number", "text", "MAN*CP."),
        Column("line_number", "integer", "Position of the W12 in the advice, from 1.", required=True, minimum=1),
        Column("status_code", "text", "W1201: CL complete, BP partial, and so on."),
        Column("sku", "text", "W1207 with qualifier SK.", required=True),
        Column("gtin", "text", "W1206 (UPC case code), where given."),
        Column("ordered_units", "integer", "W1202.", required=True, minimum=0),
        Column("shipped_units", "integer", "W1203.", required=True, minimum=0),
        Column("difference_units", "integer", "W1204.", required=True),
    ),
)
PICKS = Contract(
    table="raw_wms__picks",
    description="Pick and pack records of stores and warehouses. One row per pick.",
    key=("pick_id",),
    columns=(
        Column("pick_id", "text", "Pick.", required=True),
        Column("order_ref", "text", "Web order's name.", required=True),
        Column("location_code", "text", "Where it was picked.", required=True),
        Column("sku", "text", "Item.", required=True),
        Column("requested_units", "integer", "Asked for.", required=True, minimum=1),
        Column("picked_units", "integer", "Found.", required=True, minimum=0),
        Column("pick_status", "text", "Outcome.", required=True, values=("picked", "short", "not_found")),
        Column("reason_code", "text", "Why not all: missing, damaged, misplaced ..."),
        Column("started_at", "timestamp", "Pick began.", required=True),
        Column("finished_at", "timestamp", "Pick ended.", required=True),
        Column("packed_at", "timestamp", "Packed; null when nothing was found."),
    ),
)
CONTRACTS = (LOCATIONS, EPCIS_EVENTS, STOCK_ADVICE, SHIPMENTS, PICKS)

# X12 data element 673. What else a sender writes stays as its code, for the contract to refuse.
QUANTITY_TYPES = {
    "17": "on_hand",
    "20": "damaged",  # unusable quantity
    "27": "committed",
    "29": "projected",
    "33": "available",
    "IQ": "in_transit",
}
# X12 data element 623: codes that say an offset. ET, CT, MT, PT and LT name a zone with two, and are no point in time.
TIME_OFFSETS = {
    "UT": "+00:00",
    "GM": "+00:00",
    "ES": "-05:00",
    "ED": "-04:00",
    "CS": "-06:00",
    "CD": "-05:00",
    "MS": "-07:00",
    "MD": "-06:00",
    "PS": "-08:00",
    "PD": "-07:00",
    **{f"{hours:02d}": f"+{hours:02d}:00" for hours in range(1, 13)},
    **{f"{code:02d}": f"-{25 - code:02d}:00" for code in range(13, 25)},
}
_ADVICE = (
    *("record_offset", "advice_ref", "purpose_code", "advised_date", "gln", "known_until_at", "sku", "gtin"),
    *("quantity_type", "quantity_units"),
)
_SHIPMENT = (
    *("record_offset", "shipment_ref", "order_ref", "shipped_at", "ship_from_gln", "ship_to_gln", "carrier_code"),
    *("tracking_number", "line_number", "status_code", "sku", "gtin", "ordered_units", "shipped_units"),
    "difference_units",
)
_ITEM_QUALIFIERS = {"SK": "sku", "UK": "gtin", "UP": "gtin", "EN": "gtin", "UA": "gtin"}
Rows = list[tuple[Any, ...]]


def read_locations(path: Path) -> Reading:
    """Location master CSV, see `read_csv_rows`."""
    return read_csv_rows(path, LOCATIONS)


def read_picks(path: Path) -> Reading:
    """Pick and pack CSV, see `read_csv_rows`."""
    return read_csv_rows(path, PICKS)


def read_epcis(path: Path) -> Reading:
    """Items of the events of an EPCIS 2.0 document; `record_offset` is the position of the event among the events.

    Set aside, the event or one item of it: `truncated`, `not_well_formed`, `wrong_encoding`, `wrong_type`,
    `missing_value`, `below_minimum`, `not_a_trade_item`, `wrong_check_digit`, `unknown_unit`.

    Raises: UnreadableFile when the document has no list of events.
    """
    rows, faults = epcis.read_items(path)
    return _reading(EPCIS_EVENTS, epcis.COLUMNS, rows, faults)


def read_stock_advice(path: Path) -> Reading:
    """Quantities of X12 846 transaction sets; `record_offset` is the position of the QTY among the file's segments.

    Set aside, a whole transaction set at the position of its ST or a fault of an envelope: `control_mismatch`,
    `truncated`, `unexpected_set`, `wrong_encoding`, `too_long`, `unknown_segment`.

    Raises: UnreadableFile when the file is no X12 interchange.
    """
    sets, faults = x12.read_sets(path, "846")
    rows: Rows = []
    for transaction_set in sets:
        rows.extend(_advice(transaction_set.segments))
    return _reading(STOCK_ADVICE, _ADVICE, rows, faults)


def read_shipments(path: Path) -> Reading:
    """Lines of X12 945 transaction sets; `record_offset` is the position of the W12 among the file's segments.

    Sets aside and raises as `read_stock_advice` does.
    """
    sets, faults = x12.read_sets(path, "945")
    rows: Rows = []
    for transaction_set in sets:
        rows.extend(_shipment(transaction_set.segments))
    return _reading(SHIPMENTS, _SHIPMENT, rows, faults)


def _reading(contract: Contract, names: tuple[str, ...], rows: Rows, faults: list[tuple[int, str, str]]) -> Reading:
    reading = Reading()
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    reading.frames[contract.table] = pl.DataFrame(
        pl.Series(name, values, pl.Int64() if name in ("record_offset", "item_number", "line_number") else pl.String())
        for name, values in zip(names, columns, strict=True)
    )
    for fault in faults:
        reading.rejections.add(contract.table, *fault)
    return reading


def _advice(segments: list[x12.Segment]) -> Iterator[tuple[Any, ...]]:
    reference = purpose = advised = gln = known = sku = gtin = None
    for position, elements in segments:
        name = elements[0]
        if name == "BIA":
            purpose, reference, advised = _at(elements, 1), _at(elements, 3), _date(_at(elements, 4))
        elif name == "DTM" and _at(elements, 1) == "405":
            known = _moment(_at(elements, 2), _at(elements, 3), _at(elements, 4))
        elif name == "N1" and _at(elements, 1) == "WH":
            gln = _gln(elements)
        elif name == "LIN":
            said = _identifiers(elements, 2)
            sku, gtin = said.get("sku"), said.get("gtin")
        elif name == "QTY":
            code = _at(elements, 1)
            kind = QUANTITY_TYPES.get(code or "", code)
            yield position, reference, purpose, advised, gln, known, sku, gtin, kind, _whole(_at(elements, 2))


def _shipment(segments: list[x12.Segment]) -> Iterator[tuple[Any, ...]]:
    reference = order = shipped = ship_from = ship_to = carrier = tracking = None
    line = 0
    for position, elements in segments:
        name = elements[0]
        if name == "W06":
            order, reference = _at(elements, 2), _at(elements, 4)
        elif name == "G62" and _at(elements, 1) == "11":
            shipped = _moment(_at(elements, 2), _at(elements, 4), _at(elements, 5))
        elif name == "N1" and _at(elements, 1) in ("WH", "SF"):
            ship_from = _gln(elements)
        elif name == "N1" and _at(elements, 1) == "ST":
            ship_to = _gln(elements)
        elif name == "W27":
            carrier = _at(elements, 2)
        elif name == "LX":
            tracking = None
        elif name == "MAN" and _at(elements, 1) == "CP":
            tracking = _at(elements, 2)
        elif name == "W12":
            line += 1
            said = _identifiers(elements, 7) | _identifiers(elements[:19], 17)
            gtin = _gtin(_at(elements, 6)) or said.get("gtin")
            units = [_whole(_at(elements, number)) for number in (2, 3, 4)]
            head = (position, reference, order, shipped, ship_from, ship_to, carrier, tracking, line)
            yield *head, _at(elements, 1), said.get("sku"), gtin, *units


def _at(elements: list[str], number: int) -> str | None:
    """An element by number, None where it is empty or not there."""
    return elements[number].strip() or None if number < len(elements) else None


def _identifiers(elements: list[str], first: int) -> dict[str, str]:
    """Item identifiers in pairs of qualifier and value; of several of a kind the first."""
    said: dict[str, str] = {}
    for number in range(first, len(elements) - 1, 2):
        kind, value = _ITEM_QUALIFIERS.get(elements[number].strip()), _at(elements, number + 1)
        if kind and value:
            said.setdefault(kind, (_gtin(value) or value) if kind == "gtin" else value)
    return said


def _gtin(value: str | None) -> str | None:
    """A UPC, EAN or GTIN in its 14-digit form; None for anything else."""
    is_number = value is not None and len(value) in (8, 12, 13, 14) and value.isascii() and value.isdigit()
    return value.zfill(14) if value and is_number else None


def _gln(elements: list[str]) -> str | None:
    return _at(elements, 4) if _at(elements, 3) == "UL" else None


def _date(text: str | None) -> str | None:
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if text and len(text) == 8 else text


def _moment(date: str | None, time: str | None, code: str | None) -> str | None:
    """Date, time (HHMM, HHMMSS or with hundredths) and time code as ISO 8601; without an offset it will be refused."""
    if date is None:
        return None
    clock = time or ""
    seconds = clock[4:6] or "00"
    fraction = f".{clock[6:]}" if len(clock) > 6 else ""
    return f"{_date(date)}T{clock[:2]}:{clock[2:4]}:{seconds}{fraction}{TIME_OFFSETS.get(code or '', '')}"


def _whole(text: str | None) -> str | None:
    """A decimal of X12 without a fraction of zeros."""
    return re.sub(r"\.0*$", "", text) if text else None


SOURCE = Source(
    name="wms",
    description="Warehouse system: locations, stock movements and counts, stock advice, shipments and picks.",
    contracts=CONTRACTS,
    files=(
        FileKind("locations_*.csv", (LOCATIONS.table,), read_locations),
        FileKind("epcis_*.json", (EPCIS_EVENTS.table,), read_epcis),
        FileKind("846_*.edi", (STOCK_ADVICE.table,), read_stock_advice),
        FileKind("945_*.edi", (SHIPMENTS.table,), read_shipments),
        FileKind("picks_*.csv", (PICKS.table,), read_picks),
    ),
)
