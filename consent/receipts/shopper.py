"""What a shopper, or an auditor, takes home: who was asked, what was said, what may be done, and the proof of all of it.

A receipt is one canonical JSON object (README, Receipts). It holds an ISO/IEC TS 27560 record, every event of the subject
with its proof, and the proof that none was left out; `verifier.py` checks it without us. What is in the log and what
the events mean is decided elsewhere.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import yaml

from consent.errors import ConsentError
from consent.events import Recorded, decode
from consent.log.entry import prefix_of
from consent.log.index import verify_state_proof
from consent.log.merkle import VerificationError, canonical
from consent.log.note import Signer, checkpoint_unverified, sign_note, split_unverified, to_base64
from consent.log.tlog_proof import Proof
from consent.receipts import vocabulary
from consent.rule.policy import EVERY, Policy
from consent.rule.standing import Standing, standing
from troth.home import write_atomically

RECEIPT = "troth consent receipt 1"
STANDING_RECEIPT = "troth standing receipt 1"
SEAL = "troth receipt seal 1"
KANTARA = "KI-CR-v1.1.0"
CONTROLLER_FILE = Path(__file__).parents[1] / "controller.yml"
_ATTEMPTS = 5  # a writer may move the checkpoint between two reads

Receipt = dict[str, Any]


class Provable(Protocol):
    """What a receipt needs of a ledger."""

    def checkpoint(self) -> str: ...
    def entry(self, leaf: int, /) -> bytes: ...
    def opened(self, leaf: int, /) -> tuple[bytes, bytes] | None: ...
    def inclusion_proof(self, leaf: int, size: int, /) -> list[bytes]: ...
    def state_proof(self, subject_id: str, /) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Processing:
    """What a purpose needs: categories of personal data (`pd:` terms), how long it is kept (ISO 8601), who receives it."""

    personal_data: tuple[str, ...]
    retention: str
    recipients: tuple[str, ...]


@dataclass(frozen=True)
class Controller:
    """Who answers for the data (27560 `pii_controller`), and what the person must be told of it."""

    party_id: str
    name: str
    address: str
    country: str
    contact: str
    email: str
    phone: str
    url: str
    privacy_notice: str
    language: str
    service: str
    storage_locations: tuple[str, ...]
    processing_locations: tuple[str, ...]
    withdrawal_method: str
    rights: tuple[str, ...]
    authority: Mapping[str, str]
    purposes: Mapping[str, Processing]


_LISTS = ("storage_locations", "processing_locations", "rights")


def read_controller(path: Path = CONTROLLER_FILE) -> Controller:
    """The `controller` section of a file. Raises: ConsentError naming the entry that is wrong."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))["controller"]
        purposes = {
            code: Processing(_texts(entry["personal_data"]), _text(entry["retention"]), _texts(entry["recipients"]))
            for code, entry in found.pop("purposes").items()
        }
        authority = {name: _text(found["authority"][name]) for name in ("name", "url")}
        values: dict[str, Any] = {
            name: _texts(value) if name in _LISTS else _text(value)
            for name, value in found.items()
            if name != "authority"
        }
        return Controller(**values, authority=authority, purposes=purposes)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as fault:
        raise ConsentError(
            f"{path.name}: expected a controller with every entry of a receipt, found a fault at {fault}. Correct it."
        ) from fault


def shopper_receipt(
    ledger: Provable,
    policy: Policy,
    subject_id: str,
    at: datetime,
    controller: Controller,
    *,
    known_at: datetime | None = None,
    signer: Signer | None = None,
) -> Receipt:
    """Everything that was said under one identity and what it allows at a time, with the evidence.

    With a signer (the ledger's own) the rest of it, policy and controller, is sealed by that key too.
    Raises: VerificationError when the ledger cannot prove it.
    """
    evidence, events = _evidence(ledger, subject_id)
    pairs = [(code, channel) for code, purpose in policy.purposes.items() for channel in purpose.channels]
    rows = _standings(policy, events, subject_id, sorted(pairs), at, known_at)
    receipt = {
        "format": RECEIPT,
        **_asked(policy, subject_id, at, known_at),
        **evidence,
        "standing": rows,
        "record": _record(policy, controller, subject_id, events, rows, evidence["checkpoint"], at),
        "seal": None,
    }
    return sealed(receipt, signer) if signer else receipt


def standing_receipt(
    ledger: Provable,
    policy: Policy,
    subject_id: str,
    purpose_code: str,
    channel_code: str,
    at: datetime,
    *,
    known_at: datetime | None = None,
    signer: Signer | None = None,
) -> Receipt:
    """The answer to one question, with the evidence: granted, and nothing later was left out; or never asked.

    It shows every event of the subject: a no for every purpose would hide among those of another. Raises: VerificationError.
    """
    evidence, events = _evidence(ledger, subject_id)
    receipt = {
        "format": STANDING_RECEIPT,
        "purpose_code": purpose_code,
        "channel_code": channel_code,
        **_asked(policy, subject_id, at, known_at),
        **evidence,
        "standing": _standings(policy, events, subject_id, [(purpose_code, channel_code)], at, known_at),
        "seal": None,
    }
    return sealed(receipt, signer) if signer else receipt


def sealed(receipt: Receipt, signer: Signer) -> Receipt:
    """The receipt with a note over all of it: `troth receipt seal 1`, `sha256 <base64>`."""
    hashed = sha256(canonical({**receipt, "seal": None})).digest()
    return {**receipt, "seal": sign_note(f"{SEAL}\nsha256 {to_base64(hashed)}\n", signer)}


def encoded(receipt: Mapping[str, Any]) -> bytes:
    """The one spelling of a receipt as a file."""
    return canonical(receipt) + b"\n"


def write(receipt: Receipt, path: Path) -> Path:
    """The receipt as one file, with everything in it."""
    write_atomically(path, encoded(receipt))
    return path


def write_folder(receipt: Receipt, folder: Path) -> Path:
    """The receipt as `receipt.json` and a `.tlog-proof` for every event, which any C2SP tool reads.

    The proof's extra data is the entry it is of.
    """
    folder.mkdir(parents=True, exist_ok=False)
    for event in receipt["events"]:
        write_atomically(folder / _proof_name(event), event["tlog_proof"].encode())
    events = [{**event, "tlog_proof": _proof_name(event)} for event in receipt["events"]]
    write_atomically(folder / "receipt.json", encoded({**receipt, "events": events}))
    return folder


def kantara(receipt: Receipt) -> dict[str, Any]:
    """The consents that stand, as a Kantara Consent Receipt v1.1. Raises: ConsentError when none does."""
    record = receipt["record"]
    rows = {(row["purpose_code"], row["channel_code"]): row for row in receipt["standing"]}
    given = [
        part
        for part in record["pii_processing"]
        if rows[part["purpose_code"], part["channel_code"]]["reason_code"] == "granted"
    ]
    if not given:
        raise ConsentError(
            "Kantara receipt: expected a consent that stands, found none. Hand out the record of what was said instead."
        )
    latest = max(given, key=lambda part: str(rows[part["purpose_code"], part["channel_code"]]["since_at"]))
    since = datetime.fromisoformat(rows[latest["purpose_code"], latest["channel_code"]]["since_at"])
    party = record["party_identification"][0]
    return {
        "version": KANTARA,
        "jurisdiction": latest["jurisdiction"],
        "consentTimestamp": int(since.timestamp()),
        "collectionMethod": latest["collection_method"],
        "consentReceiptID": record["header"]["record_id"],
        "language": latest["language"],
        "piiPrincipalId": receipt["subject_id"],
        "piiControllers": [
            {
                "piiController": party["party_name"],
                "contact": party["party_contact"],
                "address": {"streetAddress": party["party_address"], "addressCountry": party["party_country"]},
                "email": party["party_email"],
                "phone": party["party_phone"],
                "piiControllerUrl": party["party_url"],
            }
        ],
        "policyUrl": latest["privacy_notice"],
        "services": [{"service": latest["service"], "purposes": [_kantara_purpose(part) for part in given]}],
        "sensitive": False,
        "spiCat": [],
    }


def policy_document(policy: Policy) -> dict[str, Any]:
    """What the rule of standing reads of a policy, as JSON: one row per purpose, asked channel and jurisdiction."""
    rules = [
        {
            "purpose_code": code,
            "channel_code": channel,
            "jurisdiction_code": place,
            "mechanism": policy.mechanism(code, place),
            "expires_after_days": policy.days(code, place),
            "confirm_within_days": policy.confirm_days(code, channel, place),
        }
        for code, purpose in policy.purposes.items()
        for channel in purpose.channels
        for place in policy.jurisdictions
    ]
    return {
        "purposes": {
            code: {"legal_basis": purpose.legal_basis, "channels": list(purpose.channels)}
            for code, purpose in policy.purposes.items()
        },
        "channels": sorted(policy.channels),
        "notices": {
            code: {"minimum_version": notice.minimum_version, "silence_version": notice.silence_version}
            for code, notice in policy.notices.items()
        },
        "jurisdictions": sorted(policy.jurisdictions),
        "gpc_purposes": sorted(policy.gpc_purposes),
        "rules": sorted(rules, key=lambda row: (row["purpose_code"], row["channel_code"], row["jurisdiction_code"])),
    }


def policy_hash(policy: Policy) -> str:
    """SHA-256 of the policy document, in hex: which rules a decision was made under."""
    return sha256(canonical(policy_document(policy))).hexdigest()


def moment(at: datetime | None) -> str | None:
    """A time as every format of ours spells it. Raises: ConsentError for a time without a zone."""
    if at is not None and at.tzinfo is None:
        raise ConsentError("time of a receipt: expected one with its zone, found none. Give it in UTC.")
    return None if at is None else at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def standing_row(found: Standing) -> dict[str, Any]:
    """A standing as JSON."""
    return {
        "is_allowed": found.is_allowed,
        "reason_code": found.reason_code,
        "since_at": moment(found.since_at),
        "expires_at": moment(found.expires_at),
        "leaf_index": found.leaf_index,
    }


def _asked(policy: Policy, subject_id: str, at: datetime, known_at: datetime | None) -> dict[str, Any]:
    return {
        "subject_id": subject_id,
        "at": moment(at),
        "known_at": moment(known_at),
        "policy": policy_document(policy),
    }


def _evidence(ledger: Provable, subject_id: str) -> tuple[dict[str, Any], list[Recorded]]:
    """Checkpoint, state proof and every event with its proof, all of one moment; and the events that can be read."""
    for _ in range(_ATTEMPTS):
        note = ledger.checkpoint()
        proof = ledger.state_proof(subject_id)
        checkpoint = checkpoint_unverified(split_unverified(note)[0])
        if (proof["runs"][-1]["stop"] if proof["runs"] else 0) == checkpoint.size and note == ledger.checkpoint():
            break
    if checkpoint.state_root is None:
        raise VerificationError("checkpoint", "a state root", "none", "Append an event: newer checkpoints carry it")
    leaves = verify_state_proof(proof, prefix_of(subject_id), checkpoint.size, checkpoint.state_root)
    shown, events = [], []
    for leaf in leaves:
        entry, opened = ledger.entry(leaf), ledger.opened(leaf)
        path = ledger.inclusion_proof(leaf, checkpoint.size)
        event = decode(opened[0]) if opened else None
        shown.append(
            {
                "leaf_index": leaf,
                "entry": entry.hex(),
                "event": _as_json(opened[0]) if opened else None,
                "salt": opened[1].hex() if opened else None,
                "tlog_proof": Proof(leaf, tuple(path), note, entry).text,
            }
        )
        if event is not None:
            events.append(Recorded(leaf, event))
    return {"checkpoint": note, "state_proof": proof, "events": shown}, events


def _standings(
    policy: Policy,
    events: Sequence[Recorded],
    subject_id: str,
    pairs: Sequence[tuple[str, str]],
    at: datetime,
    known_at: datetime | None,
) -> list[dict[str, Any]]:
    """Of this identity by itself (README, steps 1 to 5 and 7): what joined identities said is in their receipts."""
    return [
        {
            "purpose_code": code,
            "channel_code": channel,
            **standing_row(standing(events, subject_id, code, channel, at, policy=policy, known_at=known_at, links=())),
        }
        for code, channel in pairs
    ]


def _record(
    policy: Policy,
    controller: Controller,
    subject_id: str,
    events: Sequence[Recorded],
    rows: Sequence[Mapping[str, Any]],
    note: str,
    at: datetime,
) -> dict[str, Any]:
    """The ISO/IEC TS 27560 record: header, what is done for each purpose, parties, events."""
    by_leaf = {recorded.leaf_index: recorded for recorded in events}
    return {
        "header": {
            "schema_version": vocabulary.SCHEMA_VERSION,
            "record_id": _uuid(f"{note}\n{subject_id}\n{moment(at)}"),
            "pii_principal_id": subject_id,
        },
        "pii_processing": [_processing(policy, controller, row, by_leaf.get(row["leaf_index"])) for row in rows],
        "party_identification": [_party(controller), _authority(controller)],
        "events": [told for recorded in events if (told := _told(policy, recorded)) is not None],
    }


def _processing(
    policy: Policy, controller: Controller, row: Mapping[str, Any], decided_by: Recorded | None
) -> dict[str, Any]:
    """27560 `pii_processing` of one purpose over one channel."""
    code = row["purpose_code"]
    purpose, event = policy.purposes[code], decided_by.event if decided_by else None
    processing = vocabulary.term(controller.purposes, code, "controller's purpose")
    basis, article = vocabulary.term(vocabulary.LEGAL_BASES, purpose.legal_basis, "legal basis")
    return {
        "purpose_code": code,
        "channel_code": row["channel_code"],
        "purpose": purpose.description,
        "purpose_type": list(vocabulary.term(vocabulary.PURPOSES, code, "purpose")),
        "lawful_basis": [basis, article],
        "event_state": vocabulary.term(vocabulary.REASONS, row["reason_code"], "reason"),
        "privacy_notice": controller.privacy_notice,
        "notice": f"{event.notice_id} version {event.notice_version}" if event and event.notice_id else None,
        "language": event.language_code if event and event.language_code else controller.language,
        "pii_information": [
            {
                "pii_type": category,
                "pii_optional": False,
                "sensitive_pii_category": False,
                "special_pii_category": False,
            }
            for category in processing.personal_data
        ],
        "pii_controllers": [controller.party_id],
        "collection_method": vocabulary.indication_method(event.capture_method) if event else "not collected",
        "processing_method": list(vocabulary.term(vocabulary.OPERATIONS, code, "purpose")),
        "storage_locations": list(controller.storage_locations),
        "processing_locations": list(controller.processing_locations),
        "retention_period": processing.retention,
        "geographic_restrictions": list(controller.processing_locations),
        "service": controller.service,
        "jurisdiction": event.jurisdiction_code if event else controller.country,
        "recipient_third_parties": list(processing.recipients),
        "withdrawal_method": controller.withdrawal_method,
        "privacy_rights": [vocabulary.term(vocabulary.RIGHTS, right, "right") for right in controller.rights],
        "authority_party": "authority",
    }


def _told(policy: Policy, recorded: Recorded) -> dict[str, Any] | None:
    """27560 `event`; None for one that says nothing about consent."""
    event = recorded.event
    state = vocabulary.event_state(event.event_type, event.capture_method)
    if state is None:
        return None
    days = policy.days(event.purpose_code, event.jurisdiction_code) if event.purpose_code in policy.purposes else None
    return {
        "leaf_index": recorded.leaf_index,
        "event_time": moment(event.occurred_at),
        "validity_duration": f"P{days}D" if days and event.event_type in ("grant", "renew") else "until changed",
        "entity_id": event.actor_id or event.actor_type,
        "event_type": vocabulary.term(vocabulary.EVENTS, event.event_type, "event type").act,
        "event_state": state,
        "purpose_code": event.purpose_code,
        "channel_code": event.channel_code,
        "collection_method": vocabulary.indication_method(event.capture_method),
        "collection_place": event.capture_place,
    }


def _party(controller: Controller) -> dict[str, Any]:
    return {
        "party_id": controller.party_id,
        "party_name": controller.name,
        "party_type": "dpv:Organisation",
        "party_role": "dpv:DataController",
        "party_address": controller.address,
        "party_country": controller.country,
        "party_contact": controller.contact,
        "party_email": controller.email,
        "party_phone": controller.phone,
        "party_url": controller.url,
    }


def _authority(controller: Controller) -> dict[str, Any]:
    return {
        "party_id": "authority",
        "party_name": controller.authority["name"],
        "party_type": "dpv:Authority",
        "party_role": "dpv:DataProtectionAuthority",
        "party_url": controller.authority["url"],
    }


def _kantara_purpose(part: Mapping[str, Any]) -> dict[str, Any]:
    recipients = part["recipient_third_parties"]
    shared = {"thirdPartyName": ", ".join(recipients)} if recipients else {}
    over = "" if part["channel_code"] == EVERY else f" Over: {part['channel_code']}."
    return {
        "purpose": part["purpose"] + over,
        "purposeCategory": part["purpose_type"],
        "consentType": "EXPLICIT",
        "piiCategory": [pii["pii_type"] for pii in part["pii_information"]],
        "primaryPurpose": False,
        "termination": part["withdrawal_method"],
        "thirdPartyDisclosure": bool(recipients),
        **shared,
    }


def _proof_name(event: Mapping[str, Any]) -> str:
    return f"{event['leaf_index']}.tlog-proof"


def _as_json(event: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(event)
    return found


def _uuid(text: str) -> str:
    """A UUID version 8 (RFC 9562) of what the receipt is of: asked again, it is the same."""
    raw = bytearray(sha256(text.encode()).digest()[:16])
    raw[6], raw[8] = raw[6] & 0x0F | 0x80, raw[8] & 0x3F | 0x80
    digits = raw.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("an empty text")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("what should be a list")
    return tuple(_text(entry) for entry in value)
