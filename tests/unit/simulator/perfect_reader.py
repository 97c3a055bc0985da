"""A slow reader of the landed files with nothing but standard parsers: what a perfect reader books, written independently."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from lxml import etree

Movement = tuple[str, str, str, int, datetime]


def files(landing: Path, source: str, pattern: str) -> list[Path]:
    return sorted((landing / source).rglob(pattern))


def json_objects(landing: Path, source: str, pattern: str) -> Iterator[dict[str, Any]]:
    """Every line that is a JSON object, files in order of name."""
    for path in files(landing, source, pattern):
        for line in path.read_text().splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def csv_rows(landing: Path, source: str, pattern: str) -> Iterator[dict[str, str]]:
    """Every row that has all its columns."""
    for path in files(landing, source, pattern):
        with path.open(newline="") as file:
            yield from (row for row in csv.DictReader(file) if None not in row.values() and None not in row)


def locations(landing: Path) -> list[dict[str, str]]:
    return list(csv_rows(landing, "wms", "locations_*.csv"))


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def local(element: Any, name: str) -> str | None:
    """Text of the first child with a local name."""
    found = element.find(f"{{*}}{name}")
    return None if found is None else found.text


def transactions(landing: Path) -> dict[tuple[str, ...], Any]:
    """Transactions by store, till, number and day; the last copy wins."""
    found = {}
    for path in files(landing, "pos", "*.xml"):
        for element in etree.parse(path).getroot():
            key = tuple(
                str(local(element, name))
                for name in ("RetailStoreID", "WorkstationID", "SequenceNumber", "BusinessDayDate")
            )
            found[key] = element
    return found


def lines(transaction: Any) -> Iterator[tuple[str, Any]]:
    """`Sale` or `Return` and its element, struck-out and unreadable lines left out."""
    for item in transaction.iter("{*}LineItem"):
        for kind in ("Sale", "Return"):
            line = item.find(f"{{*}}{kind}")
            if line is not None and item.get("VoidFlag") is None and str(local(line, "Quantity")).isdigit():
                yield kind, line


def pos_movements(landing: Path) -> Iterator[Movement]:
    stores = {row["pos_store_code"]: row for row in locations(landing) if row["pos_store_code"]}
    for (code, *_), element in transactions(landing).items():
        if element.get("CancelFlag") or element.get("TrainingModeFlag"):
            continue
        at = datetime.fromisoformat(str(local(element, "EndDateTime")))
        if at.tzinfo is None:
            at = at.replace(tzinfo=ZoneInfo(stores[code]["timezone_name"]))
        for kind, line in lines(element):
            units = int(str(local(line, "Quantity")))
            place, sku = stores[code]["location_code"], str(local(line, "ItemID"))
            if kind == "Sale":
                yield place, sku, "sale", -units, at.astimezone(UTC)
            elif local(line, "Disposition") == "Restock":
                yield place, sku, "return", units, at.astimezone(UTC)


def epcis_events(landing: Path) -> list[dict[str, Any]]:
    """Events once each, without those that were declared wrong."""
    found: dict[str, dict[str, Any]] = {}
    wrong = set()
    for path in files(landing, "wms", "epcis_*.json"):
        for event in json.loads(path.read_text())["epcisBody"]["eventList"]:
            if "errorDeclaration" in event:
                wrong.add(event["eventID"])
            elif "eventTime" in event:
                found[event.get("eventID") or json.dumps(event, sort_keys=True)] = event
    return [event for key, event in found.items() if key not in wrong]


def epcis_items(event: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """SKU and units; item references count from 1 as SKUs do."""
    for item in event.get("quantityList", []):
        reference = item["epcClass"].split(":")[-1].split(".")[1]
        yield f"SKU-{int(reference[1:]):05d}", item["quantity"]
    for epc in event.get("epcList", []):
        reference = epc.split("/01/")[1][8:13] if epc.startswith("https") else epc.split(":")[-1].split(".")[1][1:]
        yield f"SKU-{int(reference):05d}", 1


def epcis_movements(landing: Path) -> Iterator[Movement]:
    places = {row["gln"][:12]: row for row in locations(landing)}
    for event in epcis_events(landing):
        company, reference, _ = event["bizLocation"]["id"].split(":")[-1].split(".")
        place = places[company + reference]
        step = event["bizStep"].replace("BizStep-", "").split(":")[-1].split("/")[-1]
        sign = -1 if event["action"] == "DELETE" or step == "shipping" else 1
        is_store = place["location_type"] == "store"
        kind = {
            "stock_taking": "opening", "receiving": "transfer_in" if is_store else "receipt", "shipping": "transfer_out",
            "inspecting": "adjustment", "destroying": "destruction",
        }.get(step)  # fmt: skip
        if kind:
            for sku, units in epcis_items(event):
                yield place["location_code"], sku, kind, sign * units, moment(event["eventTime"])


def transaction_sets(landing: Path, kind: str) -> Iterator[list[list[str]]]:
    """Segments of each X12 transaction set whose trailer counts them rightly."""
    for path in files(landing, "wms", f"{kind}_*.edi"):
        found: list[list[str]] = []
        for segment in path.read_text().replace("\n", "").split("~"):
            elements = segment.split("*")
            found = [elements] if elements[0] == "ST" else [*found, elements]
            if elements[0] == "SE" and int(elements[1]) == len(found) and elements[2] == found[0][2]:
                yield found


def shipment_movements(landing: Path) -> Iterator[Movement]:
    places = {row["gln"]: row["location_code"] for row in locations(landing)}
    seen = set()
    for segments in transaction_sets(landing, "945"):
        first = {}
        for elements in segments:
            first.setdefault(elements[0], elements)
        if first["W06"][4] in seen:
            continue
        seen.add(first["W06"][4])
        at = datetime.strptime(first["G62"][2] + first["G62"][4], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        for elements in segments:
            if elements[0] == "W12":
                yield places[first["N1"][4]], elements[8], "shipment", -int(elements[3]), at


def pick_movements(landing: Path) -> Iterator[Movement]:
    rows = {row["pick_id"]: row for row in csv_rows(landing, "wms", "picks_*.csv") if row["requested_units"].isdigit()}
    for row in rows.values():
        yield row["location_code"], row["sku"], "pick", -int(row["picked_units"]), moment(row["finished_at"])


def web_return_movements(landing: Path) -> Iterator[Movement]:
    places = {int(row["ecommerce_location_id"]): row["location_code"] for row in locations(landing)}
    refunds = {refund["id"]: refund for refund in json_objects(landing, "ecommerce", "refunds_*.jsonl")}
    for refund in refunds.values():
        for line in refund["refund_line_items"]:
            if line["restock_type"] == "return":
                yield (
                    places[line["location_id"]],
                    line["line_item"]["sku"],
                    "web_return",
                    line["quantity"],
                    moment(refund["created_at"]),
                )


def movements(landing: Path) -> dict[tuple[str, str, str, datetime], int]:
    """Units moved by place, SKU, type and moment: goods listed one by one count together."""
    parts = (pos_movements, epcis_movements, shipment_movements, pick_movements, web_return_movements)
    found: Counter[tuple[str, str, str, datetime]] = Counter()
    for place, sku, kind, units, at in (movement for part in parts for movement in part(landing)):
        found[place, sku, kind, at] += units
    return {key: units for key, units in found.items() if units}


def latest(rows: Iterator[dict[str, Any]], key: str, version: str) -> dict[Any, dict[str, Any]]:
    """The newest version of each object."""
    found: dict[Any, dict[str, Any]] = {}
    for row in rows:
        if row[key] not in found or moment(row[version]) >= moment(found[row[key]][version]):
            found[row[key]] = row
    return found
