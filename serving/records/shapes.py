"""What a record holds. Typed structs, so that a page, a file and another program read the same."""

from datetime import datetime
from typing import Any, Literal

import msgspec

NOT_DECLARED = "not declared"
FORMAT = "troth record of processing 1"


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers for the data (GDPR 30(1)(a)), as `controller.yml` says."""

    name: str
    address: str
    country: str
    contact: str
    email: str
    phone: str
    url: str
    privacy_notice: str
    authority_name: str
    authority_url: str
    storage_locations: list[str]
    processing_locations: list[str]
    rights: list[str]


class Basis(msgspec.Struct, frozen=True, kw_only=True):
    """Why a purpose may be pursued in a place: `*` is every place not named. `expires_after_days`: of a yes; None: it does not end by itself."""

    jurisdiction_code: str
    legal_basis: str
    mechanism: str
    expires_after_days: int | None
    confirm_within_days: int | None
    term: str
    article: str


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """A category of personal data that reaches the purpose (30(1)(c)): its DPV term, the landed columns it comes from, by what uses."""

    category: str
    term: str
    columns: list[str]
    uses: list[str]


class Subjects(msgspec.Struct, frozen=True, kw_only=True):
    """A category of people (30(1)(c)), by the source their data lands from."""

    source: str
    title: str
    term: str


class Implementation(msgspec.Struct, frozen=True, kw_only=True):
    """What runs for a purpose: a feature service, model, table, segment, answer or destination, in the version in use.

    `sha256` is of its definition; `version` what it is called where it runs (a published version, a model's, a segment's number).
    """

    kind: str
    name: str
    version: str | None
    sha256: str
    declared_in: str


class Recipient(msgspec.Struct, frozen=True, kw_only=True):
    """Who is given data (30(1)(d)): places exports are sent to, webhooks, and whoever `controller.yml` names (`declared`).

    `role` (own, processor, third_party), `country` and `keep_days` (how long they may use it) as the destination declares them;
    `is_transfer`: to another country than the controller's (30(1)(e)). None where nobody said. No safeguard of a transfer is declared
    anywhere yet, so none is told.
    """

    name: str
    kind: Literal["destination", "webhook", "declared"]
    role: str | None
    country: str | None
    is_transfer: bool | None
    purposes: list[str]
    keep_days: int | None
    sha256: str


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How many people have a standing, over a channel (`*`: all together)."""

    channel_code: str
    is_allowed: bool
    reason_code: str
    people: int


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """One processing activity: a purpose, and everything that is done for it."""

    purpose_code: str
    description: str
    terms: list[str]
    operations: list[str]
    bases: list[Basis]
    subjects: list[Subjects]
    data: list[Data]
    implementations: list[Implementation]
    recipients: list[Recipient]
    retention: str  # ISO 8601, or `not declared`
    people: list[Count]


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """A technical or organisational measure (30(1)(g)), and whether it is on, by what was looked at. None: it cannot be told from here."""

    name: str
    title: str
    is_on: bool | None
    evidence: str
    term: str


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Where what `controller.yml` declares is not what flows. `kind`: declared_not_found or found_not_declared; `what`: data or recipient."""

    purpose_code: str
    what: Literal["purpose", "data", "recipient"]
    kind: Literal["declared_not_found", "found_not_declared"]
    name: str
    sentence: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The record of processing activities of a home at a time.

    `inputs`: SHA-256 of everything it was made from, by name; `sha256`: of them all. Records of equal `sha256` say the same but
    for how many people there are. `flow_checked_at` is None, and no data is told of, in a home whose flow was never checked.
    """

    format: str
    made_at: datetime
    controller: Party
    activities: list[Activity]
    measures: list[Measure]
    differences: list[Difference]
    flow_checked_at: datetime | None
    flow_is_verified: bool | None
    ledger_size: int | None
    ledger_root: str | None
    inputs: dict[str, str]
    sha256: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between two records: `where` is a path of names; None where there was, or is, nothing."""

    where: str
    before: str | None
    after: str | None


EventKind = Literal[
    "use", "export", "approval", "delivery", "recall", "webhook", "publication", "look", "read", "request", "told"
]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log: what flowed, was approved or shared. `who` is staff, a caller or a part of the system, never a subject.

    `count` is how many people (of a publication: rows) it was about; `evidence` says where it is proved, by name and
    SHA-256 (of a published version the 32 digits that are its name).
    """

    at: datetime
    kind: EventKind
    who: str
    what: str
    purpose_code: str | None = None
    count: int | None = None
    evidence: str = ""
    evidence_sha256: str | None = None


class Measures(msgspec.Struct, frozen=True, kw_only=True):
    """Opt-in rates and how soon a no is heard. Rows as `consent.measures` gives them: small cells are null."""

    at: datetime
    ledger_size: int
    least_people: int
    rates: list[dict[str, Any]]
    weekly: list[dict[str, Any]]
    heard_after: list[dict[str, Any]]
