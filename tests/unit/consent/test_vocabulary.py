"""Every code of ours has the word others use for it, and every word is one that others have."""

import pytest

from consent.errors import ConsentError
from consent.events import EVENT_TYPES
from consent.receipts import vocabulary
from consent.rule.policy import LEGAL_BASES, MECHANISMS, read_policy

# Terms of DPV 2.0 and its EU-GDPR extension, as published at w3id.org/dpv (modules consent_status, consent_controls, legal_basis,
# consent_types, purposes, processing, processing_context, rights).
STATES = [
    "ConsentExpired",
    "ConsentGiven",
    "ConsentInvalidated",
    "ConsentRefused",
    "ConsentRequestDeferred",
    "ConsentRequested",
    "ConsentRevoked",
    "ConsentStatusInvalidForProcessing",
    "ConsentStatusValidForProcessing",
    "ConsentUnknown",
    "ConsentWithdrawn",
    "RenewedConsentGiven",
]
ACTS = [
    "ProvideConsent",
    "ObtainConsent",
    "ReaffirmConsent",
    "WithdrawConsent",
    "OptingOutFromProcess",
    "OptingInToProcess",
    "ObjectingToProcess",
    "CorrectingProcess",
    "Restrict",
    "Match",
    "Combine",
    "Erase",
    "Use",
    "Share",
    "Analyse",
    "Derive",
    "Profiling",
]
BASES = ["ExpressedConsent", "ContractPerformance", "LegitimateInterestOfController", "A6-1-a", "A6-1-b", "A6-1-f"]
PURPOSES = [
    "ServicePersonalisation",
    "ProvideProductRecommendations",
    "ServiceUsageAnalytics",
    "DirectMarketing",
    "SellDataToThirdParties",
    "ResearchAndDevelopment",
    "ImproveExistingProductsAndServices",
    "CustomerRelationshipManagement",
    "RequestedServiceProvision",
    "DeliveryOfGoods",
    "PaymentManagement",
]
RIGHTS = ["A7-3", "A15", "A16", "A17", "A18", "A20", "A21", "A77"]


def local(found: str) -> str:
    prefix, _, name = found.partition(":")
    assert prefix in vocabulary.CONTEXT
    return name


def test_every_event_type_has_its_state_and_its_act() -> None:
    assert set(vocabulary.EVENTS) == set(EVENT_TYPES)
    for found in vocabulary.EVENTS.values():
        assert found.state is None or local(found.state) in STATES
        assert local(found.act) in ACTS


def test_only_what_a_person_agreed_to_is_a_state_valid_for_processing() -> None:
    valid = {"dpv:ConsentGiven", "dpv:RenewedConsentGiven"}
    assert {code for code, found in vocabulary.EVENTS.items() if found.state in valid} == {"grant", "renew", "confirm"}


def test_every_purpose_of_the_policy_has_its_terms_and_what_is_done() -> None:
    codes = set(read_policy().purposes)
    assert set(vocabulary.PURPOSES) == set(vocabulary.OPERATIONS) == codes
    assert all(local(found) in PURPOSES for terms in vocabulary.PURPOSES.values() for found in terms)
    assert all(local(found) in ACTS for terms in vocabulary.OPERATIONS.values() for found in terms)


def test_every_legal_basis_and_mechanism_has_its_term() -> None:
    assert set(LEGAL_BASES) <= set(vocabulary.LEGAL_BASES)
    assert set(MECHANISMS) <= set(vocabulary.MECHANISMS)
    assert all(local(found) in BASES for terms in vocabulary.LEGAL_BASES.values() for found in terms)
    assert all(local(found) in ACTS for found in vocabulary.MECHANISMS.values())
    assert all(local(found) in RIGHTS for found in vocabulary.RIGHTS.values())


def test_a_signal_says_something_about_consent_only_if_it_is_global_privacy_control() -> None:
    assert vocabulary.event_state("signal_seen", "gpc") == "dpv:ConsentRefused"
    assert vocabulary.event_state("signal_seen", "do_not_track") is None


def test_a_method_nobody_described_is_told_by_its_code() -> None:
    assert vocabulary.indication_method("form_tick") == "tick in a form"
    assert vocabulary.indication_method("paper_card") == "paper card"


def test_a_code_without_a_term_is_refused_by_name() -> None:
    with pytest.raises(ConsentError, match=r"event type: expected one of grant, .*, found nod"):
        vocabulary.event_state("nod", "form_tick")
