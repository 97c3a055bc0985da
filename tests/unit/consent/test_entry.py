"""What the log is told of an event: keys that say the same of the same, and a commitment that says nothing."""

from collections.abc import Sequence
from datetime import timedelta

from consent.events import KEY_FIELDS, Event, encode
from consent.log.entry import ENTRY_BYTES, entry, entry_keys, prefix_of
from tests.unit.consent.builders import ALMA, MONDAY, event

BRUNO = ALMA[:-1] + "a"


def said(one: Event) -> Sequence[str]:
    return [getattr(one, name) for name in KEY_FIELDS]


def test_the_key_is_what_was_said_and_not_when_it_reached_us() -> None:
    again = event(received_at=MONDAY + timedelta(days=9), capture_method="import")
    different = [event(), event(signal_id="sig-2"), event(event_type="withdraw"), event(channel_code="email"),
                 event(purpose_code="analytics"), event(subject_id=BRUNO)]  # fmt: skip
    assert entry_keys([said(event())]) == entry_keys([said(again)])
    assert len(set(entry_keys(map(said, different)))) == len(different)


def test_a_key_begins_with_its_subject_and_then_its_purpose_and_channel() -> None:
    email, sms, bruno = entry_keys(
        [said(event(channel_code=code)) for code in ("email", "sms")] + [said(event(subject_id=BRUNO))]
    )
    assert email.startswith(prefix_of(ALMA, "personalization", "email"))
    assert sms.startswith(prefix_of(ALMA))
    assert not sms.startswith(prefix_of(ALMA, "personalization", "email"))
    assert not bruno.startswith(prefix_of(ALMA))


def test_the_same_words_of_two_subjects_have_nothing_in_common() -> None:
    alma, bruno = entry_keys([said(event()), said(event(subject_id=BRUNO))])
    assert alma[16:24] != bruno[16:24]
    assert alma[24:] != bruno[24:]


def test_the_same_event_under_two_salts_is_two_entries() -> None:
    [key] = entry_keys([said(event())])
    entries = {entry(key, salt * 16, encode(event())) for salt in (b"a", b"b")}
    assert len(entries) == 2
    assert {len(each) for each in entries} == {ENTRY_BYTES} == {64}
