"""One event, one encoding: byte-equal to RFC 8785, the same from rows as from values, and closed to contact data."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from consent.errors import ConsentError
from consent.events import (
    ACTOR_TYPES,
    EVENT_TYPES,
    FIELDS,
    SCHEMA,
    Event,
    decode,
    decode_frame,
    encode,
    encode_frame,
    set_aside,
)
from consent.log.merkle import canonical
from tests.unit.consent.builders import MONDAY, event

codes = st.from_regex(r"[A-Za-z0-9_.:/*=-]{1,100}", fullmatch=True)
words = st.from_regex(r"[a-z_]{1,40}|\*", fullmatch=True)
times = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
made = st.builds(
    Event,
    subject_id=st.from_regex(r"[a-z]{1,10}_[a-z2-7]{22}", fullmatch=True),
    event_type=st.sampled_from(EVENT_TYPES),
    purpose_code=words,
    channel_code=words,
    occurred_at=times,
    recorded_at=times,
    received_at=times,
    notice_id=st.none() | codes,
    notice_version=st.none() | st.integers(1, 999_999_999),
    language_code=st.none() | codes,
    capture_method=codes,
    capture_place=codes,
    actor_type=st.sampled_from(ACTOR_TYPES),
    jurisdiction_code=codes,
    signal_id=codes,
    actor_id=st.none() | codes,
    linked_subject_id=st.none() | st.from_regex(r"[a-z]{1,10}_[a-z2-7]{22}", fullmatch=True),
    link_type=st.none() | st.from_regex(r"[a-z_]{1,40}", fullmatch=True),
)
values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(max_codepoint=127)), inner),
    max_leaves=12,
)


def frame_of(found: list[Event]) -> pl.DataFrame:
    schema = {name: SCHEMA[name] for name in FIELDS}
    return pl.DataFrame([tuple(getattr(one, name) for name in FIELDS) for one in found], schema=schema, orient="row")


@given(values)
def test_canonical_json_is_rfc_8785_to_the_byte(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@given(made)
def test_an_event_is_encoded_as_rfc_8785_says(one: Event) -> None:
    assert encode(one) == rfc8785.dumps(json.loads(encode(one)))


@given(made)
def test_an_encoded_event_comes_back_whole(one: Event) -> None:
    assert decode(encode(one)) == one


@given(st.lists(made, max_size=5))
def test_rows_are_encoded_and_read_as_single_events_are(found: list[Event]) -> None:
    frame = frame_of(found)
    encoded = encode_frame(frame)
    assert encoded == [encode(one) for one in found]
    rows = decode_frame(encoded, range(7, 7 + len(found)), ledger_size=12)
    assert rows.schema == pl.Schema(SCHEMA)
    assert rows.select(FIELDS).equals(frame)
    assert rows["leaf_index"].to_list() == list(range(7, 7 + len(found)))


def test_times_of_any_zone_are_written_in_utc() -> None:
    summer = timezone(timedelta(hours=-7))
    assert encode(event(MONDAY.astimezone(summer))) == encode(event(MONDAY))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("subject_id", "alma@pier.example"),
        ("subject_id", "alma"),
        ("signal_id", "alma@pier.example"),
        ("capture_place", "at the pier"),
        ("capture_method", ""),
        ("language_code", "e\u0301"),
        ("event_type", "allow"),
        ("actor_type", "robot"),
        ("notice_version", 0),
        ("occurred_at", datetime(2025, 3, 3)),
    ],
)
def test_what_is_outside_the_grammar_is_refused_by_field_and_never_quoted(field: str, value: Any) -> None:
    with pytest.raises(ConsentError, match=f"field {field}") as refusal:
        encode(event(**{field: value}))
    assert not value or str(value) not in str(refusal.value)


def test_a_bad_row_names_its_number_and_field() -> None:
    frame = frame_of([event(), event(signal_id="two words")])
    with pytest.raises(ConsentError, match="row 1: consent event field signal_id"):
        encode_frame(frame)


def test_bad_rows_are_set_aside_and_good_ones_kept() -> None:
    kept, aside = set_aside(frame_of([event(), event(subject_id="alma@pier.example"), event(signal_id="sig-2")]))
    assert kept["signal_id"].to_list() == ["sig-1", "sig-2"]
    assert aside["row_number"].to_list() == [1]
    assert "subject_id" in aside["detail"][0]
    assert "alma@" not in aside["detail"][0]


def test_a_frame_without_the_columns_is_refused_by_name() -> None:
    with pytest.raises(ConsentError, match="signal_id"):
        encode_frame(frame_of([event()]).drop("signal_id"))
