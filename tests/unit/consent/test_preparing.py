"""Events prepared by a second process are those prepared in this one; whatever ends early ends cleanly."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from io import BytesIO

import polars as pl
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.errors import ConsentError, LedgerError
from consent.events import FIELDS, SCHEMA, encode
from consent.ledger import preparing
from consent.ledger.preparing import BATCH, Prepared, prepared_of
from consent.log.entry import ENTRY_BYTES, SALT_BYTES, entry_keys
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


def columns(prepared: Prepared) -> list[tuple[bytes, bytes, bytes, bytes]]:
    """Entry, leaf hash, salt and event of each."""
    ends = prepared.lengths.cumsum().tolist()
    events = [prepared.events[end - int(length) : end - 1] for end, length in zip(ends, prepared.lengths, strict=True)]
    entries, hashes, salts = (
        [column[at : at + width] for at in range(0, len(column), width)]
        for column, width in ((prepared.entries, ENTRY_BYTES), (prepared.hashes, 32), (prepared.salts, SALT_BYTES))
    )
    return list(zip(entries, hashes, salts, events, strict=True))


def said(parts: Iterable[Prepared]) -> list[tuple[bytes, bytes]]:
    """Key and event, without the salt."""
    return [(entry[:KEY_BYTES], event) for part in parts for entry, _, _, event in columns(part)]


def three() -> Prepared:
    return Prepared.of([bytes([n]) * KEY_BYTES for n in range(3)], [b"one", b"three", b"five"])


def test_every_event_is_committed_to_under_a_salt_of_its_own() -> None:
    encoded = [encode(each) for each in events(3)]
    keys = entry_keys([("sig", "alma", "grant", "p", str(n)) for n in range(3)])
    prepared = Prepared.of(keys, encoded)
    for key, expected, (entry, hashed, salt, event) in zip(keys, encoded, columns(prepared), strict=True):
        assert event == expected
        assert entry == key + commitment(salt, event)
        assert hashed == leaf_hash(entry)
    assert len({salt for _, _, salt, _ in columns(prepared)}) == len(prepared) == 3


@given(st.lists(st.integers(0, 2), unique=True))
def test_some_of_them_and_all_joined_are_the_same_rows(numbers: list[int]) -> None:
    whole = three()
    rows = columns(whole)
    assert columns(whole.taken(numbers)) == [rows[number] for number in numbers]
    assert columns(Prepared.joined([whole, whole.taken(numbers)])) == [*rows, *(rows[number] for number in numbers)]


def test_a_second_process_prepares_what_this_one_would(large: pl.DataFrame) -> None:
    beside = list(prepared_of(large))
    assert [len(part) for part in beside] == [BATCH] * 64 + [500]
    here = [part for start in (0, LARGE // 2) for part in prepared_of(large[start : start + LARGE // 2])]
    assert said(beside)[:LARGE] == said(here)
    for part in (beside[0], beside[-1]):
        for entry, hashed, salt, event in columns(part):
            assert entry[KEY_BYTES:] == commitment(salt, event)
            assert hashed == leaf_hash(entry)


@pytest.mark.parametrize("count", [3 * BATCH, LARGE], ids=["here", "beside"])
def test_a_bad_row_in_the_middle_is_refused_with_the_same_words_after_whole_thousands_before_it(count: int) -> None:
    bad = frame_of(count).with_columns(
        subject_id=pl.when(pl.int_range(count) == count - 5).then(pl.lit("alma@pier.example")).otherwise("subject_id")
    )
    given: list[Prepared] = []
    with pytest.raises(ConsentError, match="field subject_id") as refusal:
        given.extend(prepared_of(bad))
    assert "alma@pier.example" not in str(refusal.value)
    assert len(given) <= count // BATCH - 1
    assert all(len(part) == BATCH for part in given)


def test_a_frame_that_is_given_up_halfway_leaves_no_process_and_no_thread(large: pl.DataFrame) -> None:
    prepared = prepared_of(large)
    next(prepared)
    prepared.close()


def test_a_killed_process_is_told_and_nothing_half_is_given(large: pl.DataFrame) -> None:
    given: list[Prepared] = []

    def take() -> None:
        for part in prepared_of(large):
            given.append(part)
            for child in second_processes() if len(given) == 1 else []:
                os.kill(child, signal.SIGKILL)

    with pytest.raises(LedgerError, match="found it gone"):
        take()
    assert 0 < len(given) < 65
    assert said(given) == said(list(prepared_of(large[: BATCH * len(given)])))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_second_process_whose_asker_is_gone_ends_without_a_word(share: float, large: pl.DataFrame) -> None:
    frame = BytesIO()
    large.write_ipc(frame)
    asked = preparing._HEAD.pack(frame.tell(), 0) + frame.getvalue()
    command = [sys.executable, "-m", "consent.ledger.preparing"]
    ended = subprocess.run(command, input=asked[: int(len(asked) * share)], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def second_processes() -> list[int]:
    return [
        child.pid for child in psutil.Process().children() if "consent.ledger.preparing" in " ".join(child.cmdline())
    ]


def test_an_answer_cut_off_anywhere_is_refused() -> None:
    written = BytesIO()
    preparing._write(written, three())
    whole = written.getvalue()
    read = preparing._read(BytesIO(whole))
    assert read is not None
    assert said([read])[2] == (b"\2" * KEY_BYTES, b"five")
    for length in range(len(whole)):
        with pytest.raises(LedgerError, match="found it gone"):
            preparing._read(BytesIO(whole[:length]))
