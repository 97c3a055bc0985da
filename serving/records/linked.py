"""The record as JSON-LD 1.1 in terms of the Data Privacy Vocabulary 2.0, and read back from there.

Every activity is a `dpv:Process`. What the vocabulary has no word for (columns, versions, hashes, counts) stands whole under
`record`, a JSON literal, from which the same record is read again.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from consent.receipts import vocabulary
from serving.errors import ServingError
from serving.records.shapes import NOT_DECLARED, Activity, Recipient, Record

TROTH = "https://troth.example/records#"
_IDS = (
    "dpv:hasPurpose", "dpv:hasPersonalData", "dpv:hasDataSubject", "dpv:hasLegalBasis", "dpv:hasProcessing",
    "dpv:hasTechnicalOrganisationalMeasure", "dpv:hasRight",
)  # fmt: skip
CONTEXT: dict[str, Any] = {
    "@version": 1.1,
    **vocabulary.CONTEXT,
    "dct": "http://purl.org/dc/terms/",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
    "troth": TROTH,
    "record": {"@id": "troth:record", "@type": "@json"},
    **{name: {"@type": "@id"} for name in _IDS},
}


def as_json_ld(record: Record) -> bytes:
    """One document: the record, its activities with their purposes, data, people, recipients, retention and measures."""
    controller = "troth:controller"
    document = {
        "@context": CONTEXT,
        "@id": f"troth:record-{record.sha256[:16]}",
        "@type": "dpv:DataProcessingRecord",
        "dct:created": {"@type": "xsd:dateTime", "@value": record.made_at.isoformat()},
        "dct:identifier": record.sha256,
        "dpv:hasDataController": {
            "@id": controller,
            "@type": "dpv:DataController",
            "dpv:hasName": record.controller.name,
            "dpv:hasAddress": record.controller.address,
            "dpv:hasContact": [record.controller.contact, record.controller.email, record.controller.phone],
            "dpv:hasAuthority": {
                "@type": "dpv:DataProtectionAuthority",
                "dpv:hasName": record.controller.authority_name,
                "dpv:hasContact": record.controller.authority_url,
            },
        },
        "dpv:hasRight": [vocabulary.RIGHTS[each] for each in record.controller.rights],
        "dpv:hasTechnicalOrganisationalMeasure": _once(each.term for each in record.measures if each.is_on),
        "dpv:hasProcess": [_process(record, each) for each in record.activities],
        "record": msgspec.to_builtins(record),
    }
    return (json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode()


def read_json_ld(path: Path) -> Record:
    """A record that was written before. Raises: ServingError for a file that is none."""
    try:
        return msgspec.convert(json.loads(path.read_bytes())["record"], Record)
    except (OSError, ValueError, TypeError, KeyError):
        raise ServingError(
            f"{path.name}: expected a record of processing as JSON, found another file. Give one that `troth audit record` wrote."
        ) from None


def _process(record: Record, activity: Activity) -> dict[str, Any]:
    found: dict[str, Any] = {
        "@id": f"troth:{activity.purpose_code}",
        "@type": "dpv:Process",
        "dct:title": activity.purpose_code,
        "dct:description": activity.description,
        "dpv:hasPurpose": activity.terms,
        "dpv:hasProcessing": activity.operations,
        "dpv:hasPersonalData": [each.term for each in activity.data],
        "dpv:hasDataSubject": _once(each.term for each in activity.subjects),
        "dpv:hasLegalBasis": _once(term for each in activity.bases for term in (each.term, each.article)),
        "dpv:hasRecipient": [_recipient(each) for each in activity.recipients],
    }
    if activity.retention != NOT_DECLARED:
        duration = {"@type": "xsd:duration", "@value": activity.retention}
        found["dpv:hasStorageCondition"] = {"@type": "dpv:StorageDuration", "dpv:hasDuration": duration}
    return {name: value for name, value in found.items() if value != []}


def _recipient(recipient: Recipient) -> dict[str, Any]:
    role = {"processor": "dpv:DataProcessor", "third_party": "dpv:ThirdParty"}.get(recipient.role or "")
    found: dict[str, Any] = {"@type": role or "dpv:Recipient", "dpv:hasName": recipient.name}
    if recipient.country is not None:
        found["dpv:hasCountry"] = recipient.country
    return found


def _once(terms: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(terms))
