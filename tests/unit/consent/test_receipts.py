"""Receipts say what the standards ask for, in one spelling, and the same question gets the same receipt."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from consent.errors import ConsentError
from consent.log.merkle import VerificationError, canonical
from consent.log.note import Verifier
from consent.log.tlog_proof import verify_proof
from consent.receipts import shopper as receipts
from consent.receipts.shopper import Receipt, kantara, policy_document, policy_hash, read_controller, shopper_receipt
from consent.receipts.verifier import check_policy
from consent.receipts.vocabulary import REASONS as STATES
from consent.rule.policy import read_policy
from consent.rule.standing import REASONS
from tests.unit.consent.builders import ALMA, MONDAY, event
from tests.unit.consent.receipts_ledger import SIGNER, PlainLedger

DAY = timedelta(days=1)
AT = MONDAY + 30 * DAY
CONTROLLER = read_controller()
POLICY = read_policy()
# Mandatory fields of ISO/IEC TS 27560:2023, as the Data Privacy Vocabulary's guide lists them, and those optional ones we always know.
HEADER = {"schema_version", "record_id", "pii_principal_id"}
PROCESSING = {
    *("privacy_notice", "language", "purpose", "purpose_type", "lawful_basis", "pii_information", "pii_controllers"),
    *("collection_method", "processing_method", "storage_locations", "retention_period", "processing_locations"),
    *("geographic_restrictions", "service", "jurisdiction", "recipient_third_parties", "withdrawal_method"),
    *("privacy_rights", "authority_party"),
}
PARTY = {"party_id", "party_address", "party_name", "party_contact", "party_type"}
EVENT = {"event_time", "validity_duration", "entity_id", "event_type", "event_state"}


def history() -> list[Any]:
    return [
        event(MONDAY, event_type="notice_shown", signal_id="s0"),
        event(MONDAY, signal_id="s1"),
        event(MONDAY + DAY, purpose_code="marketing", channel_code="email", capture_method="form_tick", signal_id="s2"),
        event(MONDAY + 2 * DAY, event_type="refuse", purpose_code="third_party_sharing", signal_id="s3"),
        event(MONDAY + 3 * DAY, event_type="signal_seen", capture_method="gpc", actor_type="system", signal_id="s4"),
        event(
            MONDAY + 4 * DAY,
            event_type="identity_linked",
            linked_subject_id="card_" + "a" * 22,
            link_type="hub",
            signal_id="s5",
        ),
    ]


@pytest.fixture(scope="module")
def made() -> Receipt:
    return shopper_receipt(PlainLedger(history()), POLICY, ALMA, AT, CONTROLLER)


def test_the_record_has_every_mandatory_field_of_27560(made: Receipt) -> None:
    record = made["record"]
    assert set(record["header"]) == HEADER
    assert record["header"]["schema_version"] == "ISO/IEC TS 27560:2023"
    for part in record["pii_processing"]:
        assert part.keys() >= PROCESSING
        assert all(part[name] not in (None, "") for name in PROCESSING)
        assert all(pii["pii_type"].startswith("pd:") for pii in part["pii_information"])
    assert record["party_identification"][0].keys() >= PARTY
    for told in record["events"]:
        assert told.keys() >= EVENT
        assert all(told[name] for name in EVENT)


def test_every_purpose_and_channel_that_is_asked_is_processed_in_the_record(made: Receipt) -> None:
    asked = sorted((code, channel) for code, purpose in POLICY.purposes.items() for channel in purpose.channels)
    assert [(part["purpose_code"], part["channel_code"]) for part in made["record"]["pii_processing"]] == asked
    assert [(row["purpose_code"], row["channel_code"]) for row in made["standing"]] == asked


def test_events_are_told_by_the_states_of_the_vocabulary_and_links_are_not_consent(made: Receipt) -> None:
    assert [told["event_state"] for told in made["record"]["events"]] == [
        "dpv:ConsentRequested", "dpv:ConsentGiven", "dpv:ConsentGiven", "dpv:ConsentRefused", "dpv:ConsentRefused",
    ]  # fmt: skip
    assert made["record"]["events"][1]["validity_duration"] == "P730D"
    assert len(made["events"]) == 6


def test_every_reason_of_standing_has_its_state() -> None:
    assert set(REASONS) - {"unknown_purpose", "unknown_channel", "ledger_unreadable"} <= set(STATES)


def test_the_same_question_gets_the_same_receipt_to_the_byte() -> None:
    made = [receipts.encoded(shopper_receipt(PlainLedger(history()), POLICY, ALMA, AT, CONTROLLER)) for _ in range(2)]
    assert made[0] == made[1]
    assert made[0] == canonical(json.loads(made[0])) + b"\n"


def test_each_proof_is_one_that_other_tools_read(made: Receipt) -> None:
    for found in made["events"]:
        entry = bytes.fromhex(found["entry"])
        proved = verify_proof(found["tlog_proof"], entry, Verifier.parse(SIGNER.text))
        assert (proved.index, proved.extra_unverified) == (found["leaf_index"], entry)


def test_a_kantara_receipt_has_its_fields_and_only_consents_that_stand(made: Receipt) -> None:
    found = kantara(made)
    assert found["version"] == "KI-CR-v1.1.0"
    assert found["consentTimestamp"] == int((MONDAY + DAY).timestamp())
    assert found["collectionMethod"] == "tick in a form"
    assert set(found) == {
        *("version", "jurisdiction", "consentTimestamp", "collectionMethod", "consentReceiptID", "language"),
        *("piiPrincipalId", "piiControllers", "policyUrl", "services", "sensitive", "spiCat"),
    }
    purposes = found["services"][0]["purposes"]
    assert [purpose["purposeCategory"][0] for purpose in purposes] == [
        "dpv:DirectMarketing",
        "dpv:ServicePersonalisation",
    ]
    for purpose in purposes:
        assert purpose["thirdPartyDisclosure"] is ("thirdPartyName" in purpose)
        assert purpose.keys() >= {"purpose", "consentType", "piiCategory", "primaryPurpose", "termination"}


def test_no_kantara_receipt_is_made_where_no_consent_stands() -> None:
    refused = shopper_receipt(PlainLedger([event(event_type="refuse")]), POLICY, ALMA, AT, CONTROLLER)
    with pytest.raises(ConsentError, match="expected a consent that stands, found none"):
        kantara(refused)


def test_the_policy_in_a_receipt_is_what_the_rule_reads_and_its_hash_tells_any_change() -> None:
    document = policy_document(POLICY)
    assert check_policy(json.loads(canonical(document))) == document
    assert policy_hash(POLICY) == policy_hash(read_policy())
    shorter = replace(POLICY.jurisdictions["US-CA"], expires_after_days={"third_party_sharing": 179})
    assert policy_hash(replace(POLICY, jurisdictions={**POLICY.jurisdictions, "US-CA": shorter})) != policy_hash(POLICY)


def test_the_controller_file_answers_for_every_purpose_of_the_policy() -> None:
    assert set(CONTROLLER.purposes) == set(POLICY.purposes)


@pytest.mark.parametrize(
    "spoiled",
    [
        "controller: {}",
        "nothing",
        "controller:\n  purposes: {service: {retention: 7}}",
        "controller: {purposes: []}",
        ":",
    ],
)
def test_a_controller_with_a_fault_is_refused(spoiled: str, tmp_path: Path) -> None:
    path = tmp_path / "controller.yml"
    path.write_text(spoiled)
    with pytest.raises(ConsentError, match=r"controller.yml: expected a controller"):
        read_controller(path)


def test_a_time_without_its_zone_is_refused() -> None:
    with pytest.raises(ConsentError, match="expected one with its zone"):
        shopper_receipt(PlainLedger(), POLICY, ALMA, datetime(2025, 3, 3), CONTROLLER)


def test_a_ledger_that_proves_another_history_gives_no_receipt() -> None:
    class Forgetful(PlainLedger):
        def state_proof(self, subject_id: str) -> dict[str, Any]:
            return PlainLedger(history()[:2]).state_proof(subject_id)

    with pytest.raises(VerificationError, match="state proof"):
        shopper_receipt(Forgetful(history()), POLICY, ALMA, AT, CONTROLLER)


def test_a_checkpoint_that_moves_while_a_receipt_is_made_is_waited_for() -> None:
    class Busy(PlainLedger):
        moves = 2

        def state_proof(self, subject_id: str) -> dict[str, Any]:
            proof = super().state_proof(subject_id)
            if self.moves:
                self.moves -= 1
                self.append([event(subject_id="card_" + "b" * 22, signal_id=f"busy-{self.moves}")])
            return proof

    receipt = shopper_receipt(Busy(history()), POLICY, ALMA, AT, CONTROLLER)
    assert receipt["state_proof"]["runs"][-1]["stop"] == 8


def test_a_folder_is_not_written_over_another(made: Receipt, tmp_path: Path) -> None:
    receipts.write_folder(made, tmp_path / "receipt")
    with pytest.raises(FileExistsError):
        receipts.write_folder(made, tmp_path / "receipt")
