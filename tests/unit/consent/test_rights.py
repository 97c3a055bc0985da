"""Requests keep their deadlines, take their steps in order, and say nothing about who asked once they have ended."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.errors import ConsentError
from consent.log.merkle import VerificationError
from consent.rights import (
    ALTERNATIVES,
    KINDS,
    OPEN,
    REFUSALS,
    STATES,
    RightsLog,
    after_months,
    open_certificate,
    open_rights,
    sign_certificate,
)
from tests.unit.consent.builders import ALMA, MONDAY, SIGNER
from troth.home import Home

BRUNO = "card_" + "bruno" * 4 + "zz"
DESK = "privacy_desk"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RightsLog]:
    with RightsLog(tmp_path / "rights.db", b"r" * 32) as log:
        yield log


def _taken_in(log: RightsLog, kind: str = "erasure", *subjects: str) -> str:
    return log.receive(kind, subjects or (ALMA,), MONDAY, "preference_centre", DESK).request_id


@pytest.mark.parametrize(
    ("received", "due"),
    [
        ("2025-01-31", "2025-02-28"),
        ("2024-01-31", "2024-02-29"),
        ("2025-03-31", "2025-04-30"),
        ("2025-12-15", "2026-01-15"),
    ],
)
def test_a_month_ends_on_the_same_day_or_on_the_last_there_is(received: str, due: str) -> None:
    at = datetime.fromisoformat(f"{received}T10:00:00+00:00")
    assert after_months(at, 1) == datetime.fromisoformat(f"{due}T10:00:00+00:00")


def test_a_request_has_a_month_and_with_a_reason_two_more_once(log: RightsLog) -> None:
    number = _taken_in(log)
    assert log.request(number).deadline == after_months(MONDAY, 1)
    assert log.extend(number, "complexity", MONDAY, DESK).deadline == after_months(MONDAY, 3)
    assert log.request(number).state == "received"
    with pytest.raises(ConsentError, match="expected one, in time"):
        log.extend(number, "complexity", MONDAY, DESK)


def test_a_request_cannot_be_extended_when_it_is_late_nor_for_any_other_reason(log: RightsLog) -> None:
    number = _taken_in(log)
    for reason, at in (("holidays", MONDAY), ("complexity", after_months(MONDAY, 1) + timedelta(seconds=1))):
        with pytest.raises(ConsentError, match="expected one, in time"):
            log.extend(number, reason, at, DESK)


def test_a_request_is_overdue_after_its_deadline_until_it_has_ended(log: RightsLog) -> None:
    number = _taken_in(log)
    due = log.request(number).deadline
    assert [log.request(number).is_overdue(due + timedelta(seconds=s)) for s in (0, 1)] == [False, True]
    log.advance(number, "refused", due, DESK, "identity_not_proved")
    assert not log.request(number).is_overdue(due + timedelta(days=9))


def test_the_same_request_twice_is_one_while_it_is_open(log: RightsLog) -> None:
    first = _taken_in(log)
    assert _taken_in(log) == first
    assert _taken_in(log, "access") != first
    assert _taken_in(log, "erasure", BRUNO) != first
    log.advance(first, "refused", MONDAY, DESK, "not_held")
    assert _taken_in(log) != first


@given(st.lists(st.sampled_from(sorted(STATES)), max_size=8))
def test_whatever_steps_are_tried_only_those_that_follow_are_taken(tried: list[str]) -> None:
    reasons = {"refused": next(iter(REFUSALS)), "routed": next(iter(ALTERNATIVES))}
    with RightsLog(Path(":memory:"), b"r" * 32) as log:
        number = _taken_in(log)
        state = "received"
        for step in tried:
            if step in (state, *STATES[state]):
                state = log.advance(number, step, MONDAY, DESK, reasons.get(step)).state
                assert state == step
            else:
                with pytest.raises(ConsentError, match="Take the steps in order"):
                    log.advance(number, step, MONDAY, DESK, reasons.get(step))
        assert log.request(number).state == state
        assert bool(STATES[state]) == (state in OPEN)


def test_refusing_and_routing_name_one_of_the_reasons_there_are(log: RightsLog) -> None:
    number = _taken_in(log, "objection")
    for state in ("refused", "routed"):
        with pytest.raises(ConsentError, match="expected a reason"):
            log.advance(number, state, MONDAY, DESK, "because")
    routed = log.advance(number, "routed", MONDAY, DESK, "contract")
    assert (routed.state, routed.acts[-1].reason) == ("routed", "contract")


def test_who_asked_is_sealed_while_the_request_is_open_and_forgotten_when_it_ends(
    log: RightsLog, tmp_path: Path
) -> None:
    number = _taken_in(log, "erasure", ALMA, BRUNO)
    assert log.subjects(number) == [ALMA, BRUNO]
    files = [path for path in tmp_path.iterdir() if path.name.startswith("rights.db")]
    sealed = sqlite3.connect(tmp_path / "rights.db").execute("select sealed from requests").fetchone()[0]
    assert not any(token.encode() in path.read_bytes() for token in (ALMA, BRUNO) for path in files)
    for state in ("identity_checked", "in_progress", "done"):
        log.advance(number, state, MONDAY, DESK)
    with pytest.raises(ConsentError, match="found it ended"):
        log.subjects(number)
    assert not any(sealed in path.read_bytes() for path in files)


@pytest.mark.parametrize("words", ["anna@pier.example", "Anna Smith", "", "x" * 61])
def test_the_log_takes_codes_and_no_words_about_people(log: RightsLog, words: str) -> None:
    with pytest.raises(ConsentError, match="holds no contact data") as refusal:
        log.receive("access", [ALMA], MONDAY, "preference_centre", words)
    assert not words or words not in str(refusal.value)


def test_what_was_done_is_never_changed_nor_removed(log: RightsLog, tmp_path: Path) -> None:
    _taken_in(log)
    connection = sqlite3.connect(tmp_path / "rights.db")
    for change in ("update acts set actor = 'nobody'", "delete from acts"):
        with pytest.raises(sqlite3.IntegrityError, match="never"):
            connection.execute(change)
    connection.close()


def test_an_unknown_kind_or_nobody_is_refused(log: RightsLog) -> None:
    assert "forgetting" not in KINDS
    for kind, subjects in (("forgetting", [ALMA]), ("erasure", [])):
        with pytest.raises(ConsentError, match="expected a subject and one of"):
            log.receive(kind, subjects, MONDAY, "desk", DESK)


def test_recipients_are_waited_for_until_they_acknowledge(log: RightsLog) -> None:
    number, due = _taken_in(log), MONDAY + timedelta(days=30)
    log.tell(number, [("export:spring", DESK), ("webhook:mailer", "webhook")], due)
    log.tell(number, [("export:spring", DESK)], due + timedelta(days=9))
    assert [each.state(due) for each in log.request(number).recipients] == ["pending", "pending"]
    log.acknowledge(number, "webhook:mailer", due)
    late = due + timedelta(seconds=1)
    assert [each.state(late) for each in log.request(number).recipients] == ["overdue", "acknowledged"]
    with pytest.raises(ConsentError, match="expected a recipient"):
        log.acknowledge(number, "webhook:other", due)


def test_the_erased_are_remembered_by_marks_that_name_nobody(log: RightsLog, tmp_path: Path) -> None:
    assert not log.has_erased
    log.remember_erased([ALMA], MONDAY)
    log.remember_erased([ALMA], MONDAY - timedelta(days=1))
    assert log.has_erased
    assert log.erased([ALMA, BRUNO]) == {ALMA: MONDAY}
    assert not any(ALMA.encode() in path.read_bytes() for path in tmp_path.iterdir())
    with RightsLog(tmp_path / "other.db", b"s" * 32) as other:
        other.remember_erased([ALMA], MONDAY)
    with RightsLog(tmp_path / "other.db", b"r" * 32) as other:
        assert other.erased([ALMA]) == {}


def test_a_certificate_is_refused_when_a_word_of_it_was_changed() -> None:
    note = sign_certificate({"request_id": "req_1", "erased_at": MONDAY.isoformat()}, SIGNER)
    assert open_certificate(note, SIGNER.verifier)["request_id"] == "req_1"
    with pytest.raises(VerificationError):
        open_certificate(note.replace("req_1", "req_2"), SIGNER.verifier)


def test_a_log_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rights.db").write_bytes(b"not a database, and long enough to be looked at" * 10)
    with pytest.raises(ConsentError, match="expected a SQLite database"):
        open_rights(Home(tmp_path))


def test_times_have_a_zone(log: RightsLog) -> None:
    with pytest.raises(ConsentError, match="time with a zone"):
        log.receive("access", [ALMA], datetime(2025, 3, 3), "desk", DESK)
    assert log.receive("access", [ALMA], datetime(2025, 3, 3, tzinfo=UTC), "desk", DESK).state == "received"
