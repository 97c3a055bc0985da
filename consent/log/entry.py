"""The log's entry: 64 public bytes per event, made of keyed hashes and a salted commitment, never of personal data."""

from collections.abc import Iterable, Sequence
from hashlib import sha256

from consent.log.index import KEY_BYTES, SCOPE_BYTES, SIGNAL_BYTES, SUBJECT_BYTES
from consent.log.merkle import HASH_BYTES, commitment

ENTRY_BYTES = KEY_BYTES + HASH_BYTES
SALT_BYTES = 16  # 128 bits: as hard to guess as the tokens are
_SUBJECT = b"troth-consent-subject-v1\0"
_SCOPE = b"troth-consent-scope-v1\0"
_SIGNAL = b"troth-consent-signal-v1\0"


def subject_key(subject_id: str) -> bytes:
    """What the log calls a subject. The subject's id is a keyed token: without the home's token key it leads nowhere."""
    return sha256(_SUBJECT + subject_id.encode()).digest()[:SUBJECT_BYTES]


def scope_key(subject_id: str, purpose_code: str, channel_code: str) -> bytes:
    """What the log calls a purpose and channel of one subject."""
    return sha256(_SCOPE + f"{subject_id}\0{purpose_code}\0{channel_code}".encode()).digest()[:SCOPE_BYTES]


def prefix_of(subject_id: str, purpose_code: str | None = None, channel_code: str | None = None) -> bytes:
    """What the index rows of a subject begin with; with purpose and channel, those of events about just that pair."""
    if purpose_code is None or channel_code is None:
        return subject_key(subject_id)
    return subject_key(subject_id) + scope_key(subject_id, purpose_code, channel_code)


def entry_keys(said: Iterable[Sequence[str]]) -> list[bytes]:
    """Subject, scope and signal key of each (signal_id, subject_id, event_type, purpose_code, channel_code).

    A signal sent again has the keys it had, whichever file brings it and whenever. No value of the grammar holds a zero byte.
    """
    subjects: dict[str, bytes] = {}
    found = []
    for signal_id, subject_id, event_type, purpose_code, channel_code in said:
        subject = subjects.get(subject_id)
        if subject is None:
            subject = subjects[subject_id] = subject_key(subject_id)
        scope = f"{subject_id}\0{purpose_code}\0{channel_code}"
        signal = f"{signal_id}\0{subject_id}\0{event_type}\0{purpose_code}\0{channel_code}"
        found.append(
            subject
            + sha256(_SCOPE + scope.encode()).digest()[:SCOPE_BYTES]
            + sha256(_SIGNAL + signal.encode()).digest()[:SIGNAL_BYTES]
        )
    return found


def entry(key: bytes, salt: bytes, event: bytes) -> bytes:
    """The log's entry of an event with its keys."""
    return key + commitment(salt, event)
