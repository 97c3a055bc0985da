"""What audits answer, for pages and the command line alike. No contact data: people are customer ids, tokens and keys.

Every answer has `checks` in the words of the single-file verifier (`verified`, `failed`, `not covered`, each with evidence, and what was
expected and found where it failed) and `is_verified`: nothing failed, and something was proved.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from consent.receipts.verifier import Check


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What every audit says."""

    is_verified: bool
    checks: Sequence[Check]


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """One identity of a person: how it came to them, whether that is proved, how many leaves speak of it, how many were erased."""

    number: int
    token: str
    customer_id: str | None
    link: str
    is_proved: bool
    leaf_count: int
    erased_count: int


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """One event of the ledger about a person, by the number of its identity. Only `leaf` and `is_proved` are left of one that was erased."""

    leaf: int
    identity: int
    event: str
    is_proved: bool
    purpose: str | None = None
    channel: str | None = None
    occurred_at: datetime | None = None
    recorded_at: datetime | None = None
    received_at: datetime | None = None
    notice: str | None = None
    method: str | None = None
    place: str | None = None
    by: str | None = None
    jurisdiction: str | None = None


class Stands(msgspec.Struct, frozen=True, kw_only=True):
    """May we, for one purpose and channel? `of`: the customer, or the identity where it is nobody's we know."""

    of: str
    purpose: str
    channel: str
    is_allowed: bool
    reason: str
    since_at: datetime | None
    expires_at: datetime | None
    leaf: int | None
    in_words: str


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """From when until when an answer stayed, as it was known then. Before the first nobody had said anything: never asked."""

    of: str
    purpose: str
    channel: str
    from_at: datetime
    until_at: datetime | None
    is_allowed: bool
    reason: str
    leaf: int | None


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded use that decided about a person: its receipt and their row in it. `is_proved`: the row is one of those signed."""

    number: int
    use: str
    asked_by: str
    purpose: str
    channel: str
    decided_at: datetime
    ledger_size: int
    of: str
    is_allowed: bool
    reason: str
    since_at: str | None
    leaf: int | None
    is_proved: bool | None
    outputs: Sequence[str]


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was decided about a person: whether they are in it, and the decision. `folder` is below the home."""

    folder: str
    segment: str
    version: int
    channel: str
    exported_at: str
    number: int | None
    is_in_file: bool
    is_allowed: bool | None
    reason: str | None


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """A training that decided about a person. `is_touched`: they were learned from, and would not be today."""

    model: str
    number: int
    versions: Sequence[str]
    is_in_use: bool
    decided_at: datetime
    is_allowed: bool
    reason: str
    is_touched: bool


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who was given a person's data, or told what they said: what happened when, and how far it got."""

    recipient: str
    what: str
    state: str
    at: datetime | None
    reference: str | None
    acknowledged_at: datetime | None = None


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """One of the staff looked at a person: on which page, what for, and why."""

    at: datetime
    staff: str
    page: str
    act: str
    purpose: str | None
    is_allowed: bool
    reason: str | None
    why: str | None


class Requested(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asked of us about their own data."""

    request_id: str
    kind: str
    state: str
    received_at: datetime
    deadline: datetime
    is_overdue: bool


class SubjectAudit(Answer, frozen=True, kw_only=True):
    """All that can be said of one person."""

    subject: str
    at: datetime
    known_at: datetime | None
    ledger_size: int
    root: str
    checkpoint: str
    is_erased: bool
    identities: Sequence[Identity]
    events: Sequence[Said]
    standing: Sequence[Stands]
    spans: Sequence[Span]
    uses: Sequence[Used]
    exports: Sequence[Exported]
    trainings: Sequence[Trained]
    recipients: Sequence[Received]
    looks: Sequence[Looked]
    requests: Sequence[Requested]


class Differs(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it was signed or decided. `subject_key`: whose decision, as receipts name people."""

    what: str
    expected: str
    found: str
    subject_key: str | None = None


class FileChecked(msgspec.Struct, frozen=True, kw_only=True):
    """A file against its manifest. `found_*` is None where there is none, or only the manifest knows it."""

    name: str
    sha256: str
    rows: int | None
    found_sha256: str | None
    found_rows: int | None


class CountChecked(msgspec.Struct, frozen=True, kw_only=True):
    """How many by reason: in the manifest (None: not a reason of it), in the receipts as signed, and decided again."""

    reason: str
    is_allowed: bool
    in_manifest: int | None
    in_receipts: int | None
    again: int | None


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded use: who asked for what, under which ledger, how many; and what deciding again found."""

    number: int
    sha256: str
    use: str
    asked_by: str
    purpose: str
    channel: str
    decided_at: datetime
    ledger_size: int
    root: str
    policy_sha256: str
    subjects: int
    allowed: int
    decisions_root: str
    root_again: str | None = None
    differences: int = 0
    erased_since: int = 0


class ExportAudit(Answer, frozen=True, kw_only=True):
    """An export, from its files back to the consents. `folder` is None where only its receipt is here."""

    folder: str | None
    segment: str
    version: int | None
    channel: str
    purpose: str
    exported_at: str
    ledger_size: int
    receipts: Sequence[Receipt]
    files: Sequence[FileChecked]
    counts: Sequence[CountChecked]
    amendments: Sequence[Mapping[str, Any]]
    withdrawn_since: int | None
    differences: Sequence[Differs]


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """Reads of personal features by one caller for one purpose: how many people were asked for, allowed, refused by reason."""

    service: str
    caller: str
    route: str
    purpose: str
    channel: str
    requests: int
    asked: int
    allowed: int
    refused: Mapping[str, int]
    first_at: datetime
    last_at: datetime


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """Personal data that reaches a column read by a use, by its shortest path. `is_covered`: its purposes cover the use's."""

    column: str
    category: str
    purposes: Sequence[str]
    path: str
    is_covered: bool


class FeatureAudit(Answer, frozen=True, kw_only=True):
    """A feature view or service: what it is for, what of people is in it, who read it, how old it is. `flow` is None where nobody followed it."""

    name: str
    kind: str
    purpose: str | None
    channel: str
    services: Sequence[str]
    views: Sequence[str]
    columns: Sequence[str]
    is_personal: bool
    flow: Sequence[Reached] | None
    reads: Sequence[Read]
    published: Sequence[Mapping[str, Any]]
    standing_ledger_size: int | None
    ledger_size: int | None


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a version against the manifest."""

    name: str
    sha256: str
    found_sha256: str | None


class Withdrawn(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who was learned from, or sent out, and would not be today: why not, since when."""

    customer_id: str
    reason: str
    since_at: datetime | None


class ModelAudit(Answer, frozen=True, kw_only=True):
    """A version of a model, back to the consents its training set rests on."""

    model: str
    version: str
    is_in_use: bool
    is_latest: bool
    other_versions: Sequence[str]
    use_purpose: str
    training: Mapping[str, Any]
    receipts: Sequence[Receipt]
    artifacts: Sequence[Artifact]
    promoted_to: Sequence[str]
    withdrawn_since: Mapping[str, int]
    withdrawn: Sequence[Withdrawn]
    differences: Sequence[Differs]


class LedgerAudit(Answer, frozen=True, kw_only=True):
    """The ledger and everything that was signed over it."""

    ledger_size: int | None
    root: str | None
    checkpoint: str | None
    checkpoints: int
    witnesses: Sequence[str]
    decisions: int
    verifier_key: str


class Bundle(Answer, frozen=True, kw_only=True):
    """A folder of evidence, as the verifier in it saw it."""

    folder: str
    about: str
    files: int
    bytes: int
    verifier_key: str
    check_it_yourself: str
