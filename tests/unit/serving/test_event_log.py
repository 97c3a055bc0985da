"""What the event log promises, in the embedded database; the same in PostgreSQL: tests/integration/test_event_log_places.py."""

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.event_log.databases import SQLiteDatabase
from serving.event_log.events import EventConflictError, LogError, LogFullError, NewEvent
from serving.event_log.log import LANDING, PROJECTOR, Bounds, Log, open_log
from troth.home import Home

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def sale(event_id: str = "till-7/1", **changes: object) -> NewEvent:
    plain = NewEvent(
        source_name="pos",
        event_id=event_id,
        event_type="movement",
        key="position/S001/SKU-00001",
        occurred_at=NOON,
        recorded_at=NOON + timedelta(seconds=1),
        received_at=NOON + timedelta(microseconds=1_234_567),
        payload=b'{"units": -1}',
    )
    return msgspec.structs.replace(plain, **changes)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    opened = open_log(Home(tmp_path))
    yield opened
    opened.close()


def bounded(tmp_path: Path, **changes: object) -> Log:
    return Log(SQLiteDatabase(tmp_path / "log" / "events.db"), replace(Bounds(), **changes))


def test_an_event_is_read_as_it_was_appended(log: Log) -> None:
    assert log.append([sale("a"), sale("b", topic="till", key="order/7")]) == [1, 2]
    first, second = log.read(0, 10)
    assert (first.offset, first.event_id, first.payload) == (1, "a", b'{"units": -1}')
    assert (first.occurred_at, first.received_at) == (NOON, NOON + timedelta(microseconds=1_234_567))
    assert (second.topic, second.key) == ("till", "order/7")
    assert log.read(1, 10) == [second]
    assert log.read(2, 10) == []


def test_the_same_event_again_keeps_its_offset_and_is_counted(log: Log) -> None:
    assert log.append([sale("a"), sale("a"), sale("b")]) == [1, 1, 2]
    assert log.append([sale("b", received_at=NOON + timedelta(days=1)), sale("c")]) == [2, 3]
    assert [each.event_id for each in log.read(0, 10)] == ["a", "b", "c"]
    assert log.counters() == {"known": 2, "conflict": 0}


def test_one_id_is_one_event_of_each_source(log: Log) -> None:
    assert log.append([sale("a"), sale("a", source_name="wms")]) == [1, 2]


def test_an_id_with_another_content_is_set_aside_and_the_others_are_kept(log: Log) -> None:
    log.append([sale("a")])
    with pytest.raises(EventConflictError, match=r"events \[1\]: expected ids not used before") as refused:
        log.append([sale("b"), sale("a", payload=b'{"units": -2}'), sale("c")])
    assert refused.value.positions == [1]
    assert [each.event_id for each in log.read(0, 10)] == ["a", "b", "c"]
    (letter,) = log.letters.list()
    assert (letter.reason_code, letter.event_offset, letter.event_id) == ("conflict", 1, "a")
    assert log.letters.payload(letter.letter_id) == b'{"units": -2}'
    assert log.counters()["conflict"] == 1


def test_the_same_conflict_again_is_one_letter_seen_twice(log: Log) -> None:
    log.append([sale("a")])
    for _ in range(2):
        log.take([sale("a", payload=b'{"units": -2}')])
    assert [each.seen_count for each in log.letters.list()] == [2]


def test_an_opened_log_goes_on_where_it_was(tmp_path: Path) -> None:
    first = open_log(Home(tmp_path))
    first.append([sale("a")])
    first.commit(PROJECTOR, 1)
    first.close()
    again = open_log(Home(tmp_path))
    assert again.append([sale("a"), sale("b")]) == [1, 2]
    assert again.position(PROJECTOR) == 1
    again.close()


def test_a_position_never_goes_back_and_never_beyond_the_newest(log: Log) -> None:
    log.append([sale("a"), sale("b")])
    assert log.position("board") == 0
    log.commit("board", 2)
    log.commit("board", 1)
    assert log.position("board") == 2
    with pytest.raises(LogError, match="offset: expected at most 2, found 3"):
        log.commit("board", 3)


def test_what_a_consumer_has_not_had_is_told_with_its_age(log: Log) -> None:
    log.append([sale("a"), sale("b", received_at=NOON + timedelta(minutes=5))])
    log.commit(PROJECTOR, 1)
    (told,) = log.consumers()
    assert (told.consumer_name, told.offset, told.behind) == (PROJECTOR, 1, 1)
    assert told.oldest_received_at == NOON + timedelta(minutes=5)


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        ({"event_type": "gossip"}, "expected a type of movement"),
        ({"payload": b""}, "expected a payload of 1 to"),
        ({"payload": b"x" * (900_001)}, "found 900001"),
        ({"event_id": ""}, "expected a source, an id and a key"),
        ({"event_id": "a\0b"}, "expected a source, an id and a key"),
        ({"key": "k" * 501}, "expected a source, an id and a key"),
    ],
)
def test_what_is_no_event_is_refused_before_anything_is_kept(log: Log, odd: dict[str, object], says: str) -> None:
    with pytest.raises(LogError, match=says):
        log.append([sale("a"), msgspec.structs.replace(sale("b"), **odd)])
    assert log.head() == 0


def test_a_batch_over_the_bound_is_refused(tmp_path: Path) -> None:
    log = bounded(tmp_path, most_events=2)
    with pytest.raises(LogError, match="expected at most 2, found 3"):
        log.append([sale("a"), sale("b"), sale("c")])
    log.close()


def test_a_reader_too_far_behind_holds_writers_back_until_it_has_caught_up(tmp_path: Path) -> None:
    log = bounded(tmp_path, most_behind={PROJECTOR: 2})
    log.append([sale("a")])
    log.commit(PROJECTOR, 0)
    log.append([sale("b")])
    with pytest.raises(LogFullError, match="expected projector less than 2 events behind") as refused:
        log.append([sale("c")])
    assert refused.value.retry_seconds > 0
    assert log.head() == 2
    log.commit(PROJECTOR, 1)
    assert log.append([sale("c")]) == [3]
    log.close()


def test_a_log_nobody_reads_does_not_grow_without_end(tmp_path: Path) -> None:
    log = bounded(tmp_path, most_behind_otherwise=1)
    log.append([sale("a")])
    with pytest.raises(LogFullError, match="expected anybody less than 1"):
        log.append([sale("b")])
    log.close()


def test_a_disk_that_is_nearly_full_takes_nothing_more(tmp_path: Path) -> None:
    log = bounded(tmp_path, least_free_bytes=1 << 62)
    with pytest.raises(LogFullError, match="bytes free on its disk, found less"):
        log.append([sale("a")])
    assert log.head() == 0
    log.close()


def test_a_database_that_may_not_grow_is_a_full_log_and_takes_more_when_it_may(tmp_path: Path) -> None:
    database = SQLiteDatabase(tmp_path / "log" / "events.db")
    log = Log(database)
    log.append([sale("a")])
    pages = database.read("pragma page_count")[0][0]
    database._writer.execute(f"pragma max_page_count = {pages}")
    with pytest.raises(LogFullError, match="expected room on the disk"):
        log.append([sale(str(number), payload=b"x" * 9_000) for number in range(50)])
    assert log.head() == 1
    database._writer.execute("pragma max_page_count = 1000000")
    assert log.append([sale("b")]) == [2]
    log.close()


def test_events_are_trimmed_only_when_landed_and_projected_and_their_ids_stay_known(log: Log) -> None:
    log.append([sale(name) for name in "abcd"])
    assert log.trim(5) == 0
    log.commit(PROJECTOR, 4)
    log.commit(LANDING, 2)
    assert log.trim(5) == 2
    log.commit("board", 1)
    log.commit(LANDING, 4)
    assert log.trim(5) == 0  # the board has not had it
    log.commit("board", 4)
    assert log.trim(5) == 1
    assert [each.offset for each in log.read(0, 10)] == [4]
    assert log.append([sale("a"), sale("e")]) == [1, 5]


def test_ids_are_forgotten_with_their_events_where_asked(log: Log) -> None:
    log.append([sale("a"), sale("b")])
    for consumer in (PROJECTOR, LANDING):
        log.commit(consumer, 2)
    log.trim(2, remembered_since=NOON + timedelta(days=90))
    assert log.append([sale("a"), sale("b")]) == [3, 2]


def test_a_forgotten_consumer_holds_nothing_back(log: Log) -> None:
    log.append([sale("a"), sale("b")])
    for consumer, offset in ((PROJECTOR, 2), (LANDING, 2), ("gone", 0)):
        log.commit(consumer, offset)
    assert log.trim(2) == 0
    assert log.forget_consumer("gone")
    assert not log.forget_consumer("gone")
    assert log.trim(2) == 1


def test_a_blanked_event_is_nowhere_in_the_files_and_its_id_stays_known(log: Log, tmp_path: Path) -> None:
    log.append([sale("a", payload=b'{"email": "rosalind@example.com"}', key="subject/rosalind"), sale("b")])
    assert log.blank([1, 7]) == 1
    first, second = log.read(0, 10)
    assert first.is_erased
    assert first.key == ""
    assert not second.is_erased
    held = b"".join(path.read_bytes() for path in (tmp_path / "log").iterdir())
    assert b"rosalind" not in held
    assert log.append([sale("a", payload=b'{"email": "rosalind@example.com"}')]) == [1]
    assert log.append([sale("a", payload=b"another")]) == [1]


def test_threads_that_append_at_once_have_every_event_once_and_no_gap(log: Log) -> None:
    found: dict[str, int] = {}

    def send(name: str) -> None:
        for number in range(30):
            mine, shared = f"{name}/{number}", f"shared/{number}"
            first, second = log.append([sale(mine), sale(shared)])
            found[mine] = first
            assert found.setdefault(shared, second) == second

    threads = [threading.Thread(target=send, args=(str(number),)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    events = log.read(0, 1_000)
    assert [each.offset for each in events] == list(range(1, 8 * 30 + 30 + 1))
    assert {each.event_id: each.offset for each in events} == found


def test_a_fault_of_one_write_is_told_to_its_sender_and_the_next_write_works(tmp_path: Path) -> None:
    database = SQLiteDatabase(tmp_path / "log" / "events.db")
    log = Log(database)
    other = sqlite3.connect(tmp_path / "log" / "events.db", isolation_level=None)
    database._writer.execute("pragma busy_timeout = 1")
    other.execute("begin immediate")
    with pytest.raises(LogError, match="expected a database that can be written"):
        log.append([sale("a")])
    other.execute("rollback")
    other.close()
    assert log.append([sale("a")]) == [1]
    log.close()


def test_a_file_that_is_no_database_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "events.db").write_bytes(b"not a database, " * 600)
    with pytest.raises(LogError, match=r"event log events.db: expected a SQLite database, found .* Restore it"):
        open_log(Home(tmp_path))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 1)), max_size=6), max_size=8))
def test_batching_does_not_matter_and_the_log_is_what_a_dictionary_says(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[int, int]]]
) -> None:
    log = Log(SQLiteDatabase(tmp_path_factory.mktemp("log") / "events.db"))
    expected: dict[int, tuple[int, int]] = {}
    for batch in batches:
        verdicts = log.take([sale(str(name), payload=b"%d" % content) for name, content in batch])
        for (name, content), verdict in zip(batch, verdicts, strict=True):
            is_new = name not in expected
            offset, before = expected.setdefault(name, (len(expected) + 1, content))
            kind = "new" if is_new else "known" if before == content else "conflict"
            assert (verdict.offset, verdict.kind) == (offset, kind)
    assert [(each.event_id, each.payload) for each in log.read(0, 100)] == [
        (str(name), b"%d" % content) for name, (_, content) in expected.items()
    ]
    log.close()
