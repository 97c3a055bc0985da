"""What our codes are called by others: ISO/IEC TS 27560:2023 fields and terms of the W3C Data Privacy Vocabulary.

Sources: DPV 2.0 (https://w3id.org/dpv: consent status, legal basis, purposes, processing, processing context; EU-GDPR
extension https://w3id.org/dpv/legal/eu/gdpr), and the community group's guide to 27560 (https://w3id.org/dpv/guides/consent-27560).
Our own codes stay what the ledger and the policy hold; this is the one place where they are translated.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from consent.errors import ConsentError

_Term = TypeVar("_Term")

SCHEMA_VERSION = "ISO/IEC TS 27560:2023"
CONTEXT: Mapping[str, str] = {
    "dpv": "https://w3id.org/dpv#",
    "eu-gdpr": "https://w3id.org/dpv/legal/eu/gdpr#",
    "pd": "https://w3id.org/dpv/pd#",
}


class EventTerm(NamedTuple):
    """What an event makes of consent (a `dpv:ConsentStatus`; None: nothing), and what was done."""

    state: str | None
    act: str


EVENTS: Mapping[str, EventTerm] = {
    "grant": EventTerm("dpv:ConsentGiven", "dpv:ProvideConsent"),
    "renew": EventTerm("dpv:RenewedConsentGiven", "dpv:ReaffirmConsent"),
    "confirm": EventTerm("dpv:ConsentGiven", "dpv:ReaffirmConsent"),
    "refuse": EventTerm("dpv:ConsentRefused", "dpv:OptingOutFromProcess"),
    "withdraw": EventTerm("dpv:ConsentWithdrawn", "dpv:WithdrawConsent"),
    # An objection needs no consent before it, so it is no withdrawal: it says no to what was or may be asked.
    "object": EventTerm("dpv:ConsentRefused", "dpv:ObjectingToProcess"),
    # While processing is restricted, consent cannot justify it, and no narrower status says so.
    "restrict": EventTerm("dpv:ConsentStatusInvalidForProcessing", "dpv:Restrict"),
    "unrestrict": EventTerm(None, "dpv:CorrectingProcess"),
    "expire": EventTerm("dpv:ConsentExpired", "dpv:Restrict"),
    "notice_shown": EventTerm("dpv:ConsentRequested", "dpv:ObtainConsent"),
    "signal_seen": EventTerm("dpv:ConsentRefused", "dpv:OptingOutFromProcess"),
    "identity_linked": EventTerm(None, "dpv:Match"),
    "identity_unlinked": EventTerm(None, "dpv:CorrectingProcess"),
    "erased": EventTerm("dpv:ConsentInvalidated", "dpv:Erase"),
}

# What a reason of standing makes of consent; None where the answer does not rest on it.
REASONS: Mapping[str, str | None] = {
    "granted": "dpv:ConsentGiven",
    "contract": None,
    "not_opted_out": None,
    "notice_given": None,
    "never_asked": "dpv:ConsentUnknown",
    "refused": "dpv:ConsentRefused",
    "withdrawn": "dpv:ConsentWithdrawn",
    "objected": "dpv:ConsentRefused",
    "gpc": "dpv:ConsentRefused",
    "unconfirmed": "dpv:ConsentRequested",
    "expired": "dpv:ConsentExpired",
    "stale_notice": "dpv:ConsentExpired",
    "restricted": "dpv:ConsentStatusInvalidForProcessing",
    "erased": "dpv:ConsentInvalidated",
}

# DPV term, and the article of the GDPR where that is the law that applies.
LEGAL_BASES: Mapping[str, tuple[str, str]] = {
    "consent": ("dpv:ExpressedConsent", "eu-gdpr:A6-1-a"),
    "contract": ("dpv:ContractPerformance", "eu-gdpr:A6-1-b"),
    "legitimate_interest": ("dpv:LegitimateInterestOfController", "eu-gdpr:A6-1-f"),
}

PURPOSES: Mapping[str, tuple[str, ...]] = {
    "personalization": ("dpv:ServicePersonalisation", "dpv:ProvideProductRecommendations"),
    "analytics": ("dpv:ServiceUsageAnalytics",),
    "marketing": ("dpv:DirectMarketing",),
    "third_party_sharing": ("dpv:SellDataToThirdParties",),
    "model_training": ("dpv:ResearchAndDevelopment", "dpv:ImproveExistingProductsAndServices"),
    "profile_unification": ("dpv:CustomerRelationshipManagement",),
    "service": ("dpv:RequestedServiceProvision", "dpv:DeliveryOfGoods", "dpv:PaymentManagement"),
}

# What is done with the data, by purpose (27560 `processing_method`).
OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "personalization": ("dpv:Profiling", "dpv:Use"),
    "analytics": ("dpv:Analyse",),
    "marketing": ("dpv:Use",),
    "third_party_sharing": ("dpv:Share",),
    "model_training": ("dpv:Derive",),
    "profile_unification": ("dpv:Match", "dpv:Combine"),
    "service": ("dpv:Use",),
}

# How a person takes part under each mechanism of the policy.
MECHANISMS: Mapping[str, str] = {
    "opt_in": "dpv:OptingInToProcess",
    "opt_out": "dpv:OptingOutFromProcess",
    "notice_only": "dpv:ObjectingToProcess",
}

# In words: DPV has no list for `hasIndicationMethod`.
CAPTURE_METHODS: Mapping[str, str] = {
    "banner_accept": "accept button of the consent banner",
    "banner_reject": "reject button of the consent banner",
    "form_tick": "tick in a form",
    "associate_entry": "told to a store associate, who entered it",
    "preference_form": "form of the preference centre",
    "one_click_unsubscribe": "one-click unsubscribe link (RFC 8058)",
    "gpc": "Global Privacy Control signal of the browser",
}

RIGHTS: Mapping[str, str] = {
    "access": "eu-gdpr:A15",
    "rectification": "eu-gdpr:A16",
    "erasure": "eu-gdpr:A17",
    "restriction": "eu-gdpr:A18",
    "portability": "eu-gdpr:A20",
    "objection": "eu-gdpr:A21",
    "withdrawal": "eu-gdpr:A7-3",
    "complaint": "eu-gdpr:A77",
}


def event_state(event_type: str, capture_method: str) -> str | None:
    """27560 `event_state` of an event; None when it says nothing about consent, as a signal other than GPC does."""
    if event_type == "signal_seen" and capture_method != "gpc":
        return None
    return term(EVENTS, event_type, "event type").state


def indication_method(capture_method: str) -> str:
    """27560 `collection_method`: the method in words; a code nobody has described yet stays as it is."""
    return CAPTURE_METHODS.get(capture_method, capture_method.replace("_", " "))


def term(table: Mapping[str, _Term], code: str, what: str) -> _Term:
    """The translation of a code. Raises: ConsentError where the code has none, so that no receipt leaves it out."""
    try:
        return table[code]
    except KeyError:
        raise ConsentError(
            f"{what}: expected one of {', '.join(table)}, found {code}. Add its DPV term to vocabulary.py."
        ) from None
