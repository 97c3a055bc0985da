"""EPCIS 2.0 documents (GS1, JSON and JSON-LD) as rows of text, one per event and item; nothing of contracts or types."""

import copy
import importlib.resources
import json
import logging
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from orchestration.sources import gs1
from orchestration.sources.contract import UnreadableFile
from orchestration.sources.encoding import as_utf8

COLUMNS = (
    *("record_offset", "event_id", "item_number", "event_type", "action", "biz_step", "disposition", "occurred_at"),
    *("utc_offset", "recorded_at", "read_point", "biz_location", "source_location", "destination_location"),
    *("transaction_type", "transaction_ref", "gtin", "quantity_units", "is_error_declaration", "error_declared_at"),
    *("error_reason", "corrective_event_ids"),
)
# Lists of serials and of quantities by event type, and the sign of what they hold: a transformation consumes its inputs.
_ITEM_LISTS = {
    "AggregationEvent": (("childEPCs", "childQuantityList", ""),),
    "AssociationEvent": (("childEPCs", "childQuantityList", ""),),
    "TransformationEvent": (("inputEPCList", "inputQuantityList", "-"), ("outputEPCList", "outputQuantityList", "")),
}
_PLAIN_LISTS = (("epcList", "quantityList", ""),)
_PIECES = frozenset({"EA", "H87", "C62"})  # UN/ECE Recommendation 20
_CONTEXT = "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld"
_CONTEXT_FILE = "e532647e8eb371379b8b0e8602d8981c8566bc60f7351f22c76a5bc865962008.jsonld"
_LIST_START = re.compile(r'"(?:epcis:)?eventList"\s*:\s*\[')
_CONTEXT_START = re.compile(r'"@context"\s*:\s*')
_NEXT_EVENT = re.compile(r"[,}]\s*(?=\{)")
_SPACE = re.compile(r"[\s,]*")
_OFFSET = re.compile(r"[+-][0-9]{2}:?[0-9]{2}$|[Zz]$")

Fault = tuple[int, str, str]  # position of the event from 1, reason code, detail


class _EventError(Exception):
    """Why an event cannot be shaped: reason code and detail."""


def read_items(path: Path) -> tuple[list[tuple[Any, ...]], list[Fault]]:
    """Rows (see COLUMNS) of every item of every event, and the events or items that could not be shaped.

    Reads EPCISDocument, EPCISQueryDocument, a bare list of events and a single event. A broken event never stops
    another, and in a broken document every whole event is read.

    Raises: UnreadableFile when there is no list of events.
    """
    data = as_utf8(path.read_bytes())
    faults: list[Fault] = []
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        context, events = _salvaged(path.name, data, faults)
    else:
        context = document.get("@context") if isinstance(document, dict) else None
        events = enumerate(_event_list(path.name, document), 1)
    rows: list[tuple[Any, ...]] = []
    for position, event in events:
        try:
            rows.extend(_items(event, position, context, faults))
        except _EventError as error:
            reason, detail = error.args
            faults.append((position, reason, detail))
    return rows, faults


def _event_list(name: str, document: Any) -> list[Any]:
    if isinstance(document, list):
        return document
    if isinstance(document, dict):
        body = document.get("epcisBody", document)
        results = body.get("queryResults") if isinstance(body, dict) else None
        if isinstance(results, dict):
            body = results.get("resultsBody", results)
        if isinstance(body, dict):
            if isinstance(body.get("eventList"), list):
                return list(body["eventList"])
            single = body.get("event", body)
            if isinstance(single, dict) and "eventTime" in single:
                return [single]
    raise UnreadableFile(
        f"{name}: expected an EPCIS document with an eventList, found none. Ask the sender for the file."
    )


def _salvaged(name: str, data: bytes, faults: list[Fault]) -> tuple[Any, Iterator[tuple[int, Any]]]:
    """Context and whole events of a document that is no JSON as it stands."""
    text = data.decode("utf-8", "surrogateescape")
    start = _LIST_START.search(text)
    if not start:
        raise UnreadableFile(
            f"{name}: expected an EPCIS document in JSON, found none. Ask the sender for the file again."
        )
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    context_start = _CONTEXT_START.search(text)
    context = None
    if context_start:
        context, _ = _decoded(decoder, text, context_start.end())
    return context, _salvaged_events(decoder, text, start.end(), faults)


def _salvaged_events(decoder: json.JSONDecoder, text: str, at: int, faults: list[Fault]) -> Iterator[tuple[int, Any]]:
    position = 0
    while True:
        at = _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches anything, the empty text too
        if at == len(text):
            faults.append((position + 1, "truncated", "expected the end of the document"))
            return
        if text[at] == "]":
            if not faults:
                faults.append((0, "not_well_formed", "expected JSON around the events"))
            return
        position += 1
        event, end = _decoded(decoder, text, at)
        if end is None:
            follow = _next_event(decoder, text, at)
            if follow is None:
                is_closed = re.search(r"\]\s*\}\s*\}?\s*$", text[at:])
                faults.append((position, "not_well_formed" if is_closed else "truncated", "expected a whole event"))
                return
            faults.append((position, "not_well_formed", "expected JSON"))
            at = follow
            continue
        at = end
        if _is_unicode(event):
            yield position, event
        else:
            faults.append((position, "wrong_encoding", "expected UTF-8"))


def _decoded(decoder: json.JSONDecoder, text: str, at: int) -> tuple[Any, int | None]:
    """Value at a place of a text and where it ends; None for the end when there is none."""
    try:
        return decoder.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None, None


def _next_event(decoder: json.JSONDecoder, text: str, at: int) -> int | None:
    """Where the next whole event starts behind a broken one."""
    for match in _NEXT_EVENT.finditer(text, at):
        event, end = _decoded(decoder, text, match.end())
        if end is not None and isinstance(event, dict) and "eventTime" in event:
            return match.end()
    return None


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _items(event: Any, position: int, context: Any, faults: list[Fault]) -> Iterator[tuple[Any, ...]]:
    """Rows of one event. An item that cannot be shaped becomes a fault, and the others stay."""
    if not isinstance(event, dict):
        raise _EventError("wrong_type", "event: expected an object")
    said = _common(event)
    kind = said[0]
    number = 0
    rows: list[tuple[int, str, str | None]] = []
    for serials, quantities, sign in _ITEM_LISTS.get(kind or "", _PLAIN_LISTS):
        for item in _listed(event, serials, str):
            number += 1
            found = _gtin(gs1.without_serial(item), position, number, faults)
            if found:
                rows.append((number, found, f"{sign}1"))
        for element in _listed(event, quantities, dict):
            number += 1
            try:
                quantity = _quantity(element, sign)
                item_class = _text(element, "epcClass") or ""
            except _EventError as error:
                reason, detail = error.args
                faults.append((position, reason, f"item {number}, {detail}"))
                continue
            found = _gtin(item_class, position, number, faults)
            if found:
                rows.append((number, found, quantity))
    if not number:
        raise _EventError("missing_value", "event: expected at least one item")
    event_id = (
        _text(event, "eventID") or _text(event, "id") or _text(event, "@id") or (_hash(event, context) if rows else "")
    )
    declaration = _declaration(event)
    return ((position, event_id, row[0], *said, row[1], row[2], *declaration) for row in rows)


def _common(event: dict[str, Any]) -> tuple[str | None, ...]:
    """What an event says of all its items, in the order of COLUMNS."""
    kind = _text(event, "type") or _text(event, "@type") or _text(event, "isA")
    time, offset = _text(event, "eventTime"), _text(event, "eventTimeZoneOffset")
    if offset is None and time and (stated := _OFFSET.search(time)):
        offset = "+00:00" if stated[0] in "Zz" else stated[0]
    transaction: dict[str, Any] = next(iter(_listed(event, "bizTransactionList", dict)), {})
    return (
        kind and kind.rpartition(":")[2],
        _text(event, "action"),
        *(_word(event, "bizStep"), _word(event, "disposition"), time, offset, _text(event, "recordTime")),
        *(_place(event, "readPoint"), _place(event, "bizLocation")),
        *(_party(event, "sourceList", "source"), _party(event, "destinationList", "destination")),
        *(_word(transaction, "type"), _text(transaction, "bizTransaction")),
    )


def _declaration(event: dict[str, Any]) -> tuple[str | None, ...]:
    declaration = event.get("errorDeclaration")
    if declaration is None:
        return "false", None, None, None
    if not isinstance(declaration, dict):
        raise _EventError("wrong_type", "errorDeclaration: expected an object")
    corrective = " ".join(_listed(declaration, "correctiveEventIDs", str))
    return "true", _text(declaration, "declarationTime"), _word(declaration, "reason"), corrective or None


def _text(said: dict[str, Any], name: str) -> str | None:
    value = said.get(name)
    if value is None or isinstance(value, str):
        return value
    raise _EventError("wrong_type", f"{name}: expected text")


def _listed(said: dict[str, Any], name: str, kind: type) -> list[Any]:
    values = said.get(name)
    if values is None:
        return []
    if isinstance(values, list) and all(isinstance(value, kind) for value in values):
        return values
    raise _EventError("wrong_type", f"{name}: expected a list of {'texts' if kind is str else 'objects'}")


def _word(said: dict[str, Any], name: str) -> str | None:
    term = _text(said, name)
    return None if term is None else gs1.bare_word(term)


def _place(event: dict[str, Any], name: str) -> str | None:
    value = event.get(name)
    place = _text(value, "id") if isinstance(value, dict) else _text(event, name)
    return None if place is None else gs1.gln(place)


def _party(event: dict[str, Any], name: str, key: str) -> str | None:
    """The place goods come from or go to, or else the party: a location counts before a possessor, him before an owner."""
    by_type = {_word(element, "type"): _text(element, key) for element in _listed(event, name, dict)}
    party = by_type.get("location") or by_type.get("possessing_party") or by_type.get("owning_party")
    return None if party is None else gs1.gln(party)


def _gtin(identifier: str, position: int, number: int, faults: list[Fault]) -> str | None:
    found = gs1.gtin(identifier)
    if found is None:
        faults.append((position, "not_a_trade_item", f"item {number}: expected an SGTIN, an LGTIN or a GTIN"))
    elif not gs1.is_checked(found):
        faults.append((position, "wrong_check_digit", f"item {number}: expected a GTIN with its check digit"))
    else:
        return found
    return None


def _quantity(element: dict[str, Any], sign: str) -> str | None:
    """Quantity as text. EPCIS knows no negative one: the action or the list says which way goods went."""
    unit = _text(element, "uom")
    if unit is not None and unit not in _PIECES:
        raise _EventError("unknown_unit", f"uom: expected pieces ({', '.join(sorted(_PIECES))})")
    value = element.get("quantity")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _EventError("wrong_type", "quantity: expected a number")
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    if text.startswith("-"):
        raise _EventError("below_minimum", "quantity: expected at least 0")
    return sign + text


@cache
def _hasher() -> Any:
    """The reference implementation of the CBV 2.0 event hash (`epcis-event-hash-generator`, MIT), kept off the network.

    It is loaded for events without id only: 0.3 s to import and 2 ms an event, against 10 us for reading one.
    """
    from epcis_event_hash_generator import hash_generator, json_to_py
    from pyld import jsonld  # type: ignore[import-untyped]

    file = importlib.resources.files("epcis_event_hash_generator") / _CONTEXT_FILE
    context = json.loads(file.read_text(encoding="utf-8"))

    def load(url: str, options: object = None) -> dict[str, Any]:
        if url != _CONTEXT:
            raise jsonld.JsonLdError(
                "Contexts are never fetched.", "jsonld.LoadDocumentError", code="loading document failed"
            )
        return {"contentType": "application/ld+json", "contextUrl": None, "documentUrl": url, "document": context}

    jsonld.set_document_loader(load)
    return hash_generator, json_to_py


def _hash(event: dict[str, Any], context: Any) -> str:
    """Canonical hash (`ni:///sha-256;...`) of an event without id: the same for every spelling of the same event.

    One event at a time: the generator's matching of bare words depends on what else is in the document, and the
    prefixes it has met stay in a table of its own, which is emptied here so that no document changes another's hashes.
    """
    hash_generator, json_to_py = _hasher()
    prefixes = [
        {key: value for key, value in part.items() if isinstance(value, str)}
        for part in (context if isinstance(context, list) else [context])
        if isinstance(part, dict)
    ]
    plain = {key: value for key, value in event.items() if key != "errorDeclaration"}
    json_to_py._namespaces.clear()
    root, silence = logging.getLogger(), logging.NullHandler()
    root.addHandler(silence)  # it logs through the root, which would otherwise set itself up to print
    try:
        # It changes what it is given.
        document = {"@context": [_CONTEXT, *prefixes], "epcisBody": {"eventList": [copy.deepcopy(plain)]}}
        hashes = hash_generator.epcis_hashes_from_events(json_to_py.event_list_from_epcis_document_json(document))
    except Exception:  # any fault in it is the event's own: it could not be hashed, so it has no identity
        hashes = []
    finally:
        root.removeHandler(silence)
    if len(hashes) != 1:
        raise _EventError("missing_value", "eventID: expected one, or an event that can be hashed")
    return str(hashes[0])
