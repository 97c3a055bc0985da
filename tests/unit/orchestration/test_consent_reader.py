"""Consent signals become one row per decision; what decides nothing, or cannot be read, is set aside."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration.sources import consent
from orchestration.sources.contract import Reading, conform

SIGNAL = {
    "signalId": "sig-1",
    "occurredAt": "2026-03-01T10:00:00-05:00",
    "recordedAt": "2026-03-01T15:00:02Z",
    "identifier": {"type": "email", "value": "ida@example.com"},
    "place": "web_banner",
    "method": "banner_accept",
    "actor": "subject",
    "jurisdiction": "US-CA",
    "notice": {"id": "web_banner", "version": 1, "language": "en"},
    "decisions": [
        {"event": "grant", "purpose": "personalization", "channel": "*"},
        {"event": "refuse", "purpose": "marketing", "channel": "email"},
    ],
}


def read(folder: Path, *lines: object) -> Reading:
    path = folder / "web_banner_2026-03-01.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return consent.read_signals(path)


def kept_and_aside(reading: Reading) -> tuple[list[dict], list[tuple[int, str]]]:
    kept, bad = conform(
        reading.frames[consent.SIGNALS.table], consent.SIGNALS, lambda kind, value: value and f"{kind}_ref"
    )
    rejected = reading.rejections
    out = list(zip(rejected.record_offset, rejected.reason_code, strict=True))
    return kept.to_dicts(), out + [(row["record_offset"], row["reason_code"]) for row in bad.to_dicts()]


def test_a_signal_gives_one_row_per_decision_under_its_notice(tmp_path):
    kept, aside = kept_and_aside(read(tmp_path, SIGNAL))
    assert aside == []
    assert [(r["event_type"], r["purpose_code"], r["channel_code"]) for r in kept] == [
        ("grant", "personalization", "*"),
        ("refuse", "marketing", "email"),
    ]
    assert {(r["notice_id"], r["notice_version"], r["subject_id"], r["capture_place"]) for r in kept} == {
        ("web_banner", 1, "email_ref", "web_banner")
    }
    assert kept[0]["occurred_at"].isoformat() == "2026-03-01T15:00:00+00:00"


def test_global_privacy_control_gives_a_row_of_its_own_beside_the_decisions(tmp_path):
    sharing = {"event": "grant", "purpose": "third_party_sharing", "channel": "*"}
    kept, _ = kept_and_aside(read(tmp_path, SIGNAL | {"gpc": True, "decisions": [sharing]}))
    assert [(r["event_type"], r["purpose_code"], r["channel_code"], r["capture_method"]) for r in kept] == [
        ("grant", "third_party_sharing", "*", "banner_accept"),
        ("signal_seen", "third_party_sharing", "*", "gpc"),
    ]
    keys = [tuple(row[name] for name in consent.SIGNALS.key) for row in kept]
    assert len(set(keys)) == 2


def test_global_privacy_control_speaks_where_nothing_was_decided(tmp_path):
    kept, aside = kept_and_aside(read(tmp_path, SIGNAL | {"gpc": True, "decisions": []}))
    assert ([r["event_type"] for r in kept], aside) == (["signal_seen"], [])


@pytest.mark.parametrize(("gpc", "rows"), [(True, 3), ("1", 3), (1, 3), ("True", 3), (False, 2), (None, 2), ("0", 2)])
def test_privacy_control_is_heard_in_any_spelling_that_means_it(tmp_path, gpc, rows):
    assert len(kept_and_aside(read(tmp_path, SIGNAL | {"gpc": gpc}))[0]) == rows


def test_an_unsubscription_without_a_notice_lands(tmp_path):
    withdrawal = {"event": "withdraw", "purpose": "marketing", "channel": "email"}
    (row,), aside = kept_and_aside(
        read(tmp_path, SIGNAL | {"place": "unsubscribe_link", "notice": None, "decisions": [withdrawal]})
    )
    assert (row["event_type"], row["notice_id"], aside) == ("withdraw", None, [])


def test_of_a_signal_with_a_bad_decision_the_others_land(tmp_path):
    decisions = [
        *SIGNAL["decisions"],
        {"event": "shrug", "purpose": "analytics", "channel": "*"},
        "yes",
        {"event": "grant"},
    ]
    kept, aside = kept_and_aside(read(tmp_path, SIGNAL | {"decisions": decisions}))
    assert len(kept) == 2
    assert sorted(aside) == [(1, "missing_value"), (1, "unknown_code"), (1, "wrong_type")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (json.dumps(SIGNAL).encode()[:-3], "not_json"),
        (b"[]", "not_an_object"),
        (json.dumps(SIGNAL, ensure_ascii=False).replace("ida", "idä").encode("latin-1"), "wrong_encoding"),
        (json.dumps(SIGNAL | {"note": "x" * 1_000_000}).encode(), "too_long"),
        (json.dumps(SIGNAL | {"decisions": []}).encode(), "no_decision"),
        (json.dumps(SIGNAL | {"identifier": "ida@example.com"}).encode(), "wrong_type"),
        (json.dumps(SIGNAL | {"identifier": None, "decisions": SIGNAL["decisions"][:1]}).encode(), "missing_value"),
        (json.dumps(SIGNAL | {"place": "a" * 2_000, "decisions": SIGNAL["decisions"][:1]}).encode(), "too_long"),
        (json.dumps(SIGNAL | {"occurredAt": "noon", "decisions": SIGNAL["decisions"][:1]}).encode(), "wrong_type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_line_is_set_aside_without_a_word_of_what_it_holds(tmp_path, line, reason):
    reading = read(tmp_path, SIGNAL, line, SIGNAL)
    kept, aside = kept_and_aside(reading)
    assert aside == [(2, reason)]
    assert [row["record_offset"] for row in kept] == [1, 1, 3, 3]
    assert "ida" not in str(reading.rejections)


def test_a_signal_sent_twice_lands_twice_for_the_ledger_to_know_it(tmp_path):
    assert len(kept_and_aside(read(tmp_path, SIGNAL, SIGNAL))[0]) == 4


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), new=st.binary(max_size=3), dropped=st.integers(0, 4))
def test_no_edit_of_bytes_makes_it_raise_or_turns_a_refusal_elsewhere_into_anything_else(tmp_path, place, new, dropped):
    data = json.dumps(SIGNAL).encode()
    at = int(place * len(data))
    edited = data[:at] + new.replace(b"\n", b" ") + data[at + dropped :]
    kept, _ = kept_and_aside(read(tmp_path, edited, SIGNAL))
    assert [r["event_type"] for r in kept if r["record_offset"] == 2] == ["grant", "refuse"]
