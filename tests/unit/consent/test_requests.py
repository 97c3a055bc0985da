"""Events prepared by a second process are those prepared in this one; whatever ends early ends cleanly."""

import os
import signal
import threading
from collections.abc import Iterator
from io import BytesIO

import polars as pl
import psutil
import pytest

from consent.errors import ConsentError, LedgerError
from consent.events import FIELDS, SCHEMA, encode
from consent.ledger import requests
from consent.ledger.requests import BATCH, Request, requests_of
from consent.log.entry import SALT_BYTES, entry_keys
from consent.log.index import KEY_BYTES
from consent.log.merkle import commitment, leaf_hash
from tests.unit.consent.builders import events

LARGE = 64 * BATCH  # from here on a second process prepares


def frame_of(count: int) -> pl.DataFrame:
    """So many events of Alma's, told apart by their signal."""
    row = tuple(getattr(events(1)[0], name) for name in FIELDS)
    one = pl.DataFrame([row], schema={name: SCHEMA[name] for name in FIELDS}, orient="row")
    return one.select(pl.all().repeat_by(count).explode()).with_columns(
        signal_id=pl.format("sig-{}", pl.int_range(count))
    )


@pytest.fixture(scope="module")
def large() -> pl.DataFrame:
    return frame_of(LARGE + 500)


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert second_processes() == []
    assert set(threading.enumerate()) - before == set()


def said(prepared: list[Request]) -> list[tuple[bytes, bytes]]:
    """Key and event, without the salt."""
    return [
        (entry[:KEY_BYTES], told[SALT_BYTES:])
        for request in prepared
        for entry, told in zip(request.entries, request.told, strict=True)
    ]


def test_a_request_commits_to_every_event_under_a_salt_of_its_own() -> None:
    encoded = [encode(each) for each in events(3)]
    keys = entry_keys([("sig", "alma", "grant", "p", str(n)) for n in range(3)])
    request = Request.of(keys, encoded)
    for key, event, told, entry, hashed in zip(
        keys, encoded, request.told, request.entries, request.hashes, strict=True
    ):
        assert told[SALT_BYTES:] == event
        assert entry == key + commitment(told[:SALT_BYTES], event)
        assert hashed == leaf_hash(entry)
    assert len({told[:SALT_BYTES] for told in request.told}) == 3


def test_a_second_process_prepares_what_this_one_would(large: pl.DataFrame) -> None:
    beside = list(requests_of(large))
    assert [len(request.entries) for request in beside] == [BATCH] * 64 + [500]
    here = [request for start in (0, LARGE // 2) for request in requests_of(large[start : start + LARGE // 2])]
    assert said(beside)[:LARGE] == said(here)
    for request in (beside[0], beside[-1]):
        for told, entry, hashed in zip(request.told, request.entries, request.hashes, strict=True):
            assert entry[KEY_BYTES:] == commitment(b"", told)
            assert hashed == leaf_hash(entry)


@pytest.mark.parametrize("count", [3 * BATCH, LARGE], ids=["here", "beside"])
def test_a_bad_row_in_the_middle_is_refused_with_the_same_words_after_whole_requests_before_it(count: int) -> None:
    bad = frame_of(count).with_columns(
        subject_id=pl.when(pl.int_range(count) == count - 5).then(pl.lit("alma@pier.example")).otherwise("subject_id")
    )
    given: list[Request] = []
    with pytest.raises(ConsentError, match="field subject_id") as refusal:
        given.extend(requests_of(bad))
    assert "alma@pier.example" not in str(refusal.value)
    assert len(given) <= count // BATCH - 1
    assert all(len(request.entries) == BATCH for request in given)


def test_a_frame_that_is_given_up_halfway_leaves_no_process_and_no_thread(large: pl.DataFrame) -> None:
    prepared = requests_of(large)
    next(prepared)
    prepared.close()


def test_a_killed_process_is_told_and_nothing_half_is_given(large: pl.DataFrame) -> None:
    given: list[Request] = []

    def take() -> None:
        for request in requests_of(large):
            given.append(request)
            for child in second_processes() if len(given) == 1 else []:
                os.kill(child, signal.SIGKILL)

    with pytest.raises(LedgerError, match="found it gone"):
        take()
    assert 0 < len(given) < 65
    assert said(given) == said(list(requests_of(large[: BATCH * len(given)])))


def second_processes() -> list[int]:
    return [
        child.pid for child in psutil.Process().children() if "consent.ledger.requests" in " ".join(child.cmdline())
    ]


def test_an_answer_cut_off_anywhere_is_refused() -> None:
    written = BytesIO()
    requests._write(written, Request.of([b"k" * KEY_BYTES] * 3, [b"one", b"two", b"three"]))
    whole = written.getvalue()
    assert said([requests._read(BytesIO(whole)) or Request([], [], [])])[2] == (b"k" * KEY_BYTES, b"three")
    for length in range(len(whole)):
        with pytest.raises(LedgerError, match="found it gone"):
            requests._read(BytesIO(whole[:length]))
