"""The event log where it may rest, a file or a server: the same promises, with writers in several processes."""

import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from serving.event_log.databases import PostgresDatabase, SQLiteDatabase
from serving.event_log.events import LogError
from serving.event_log.letters import NewLetter
from serving.event_log.log import LANDING, PROJECTOR, Log, open_log
from tests.unit.serving.test_event_log import NOON, sale
from troth.errors import TrothError
from troth.home import Home
from troth.settings import given_log


def opened(place: str) -> Log:
    return Log(PostgresDatabase(place) if place.startswith("postgresql") else SQLiteDatabase(Path(place) / "events.db"))


@pytest.fixture
def log(place: str) -> Iterator[Log]:
    found = opened(place)
    yield found
    found.close()


def append_alone(place: str, name: str, count: int) -> None:
    """A process that appends its own events and those that everybody sends."""
    log = opened(place)
    for number in range(count):
        log.append([sale(f"{name}/{number}"), sale(f"shared/{number}")])
    log.close()


def test_appended_known_conflicting_committed_and_trimmed_alike(log: Log) -> None:
    assert log.append([sale("a"), sale("b"), sale("a")]) == [1, 2, 1]
    assert [verdict.kind for verdict in log.take([sale("b"), sale("b", payload=b"{}"), sale("c")])] == [
        "known",
        "conflict",
        "new",
    ]
    assert [(each.event_id, each.payload, each.received_at) for each in log.read(1, 1)] == [
        ("b", b'{"units": -1}', sale().received_at)
    ]
    assert log.counters() == {"known": 2, "conflict": 1}
    for consumer in (PROJECTOR, LANDING):
        log.commit(consumer, 3)
        log.commit(consumer, 2)
    assert [(each.consumer_name, each.offset, each.behind) for each in log.consumers()] == [
        (LANDING, 3, 0),
        (PROJECTOR, 3, 0),
    ]
    assert (log.trim(9), log.first(), log.head()) == (2, 3, 3)
    assert log.append([sale("a"), sale("d")]) == [1, 4]


def test_dead_letters_are_kept_settled_and_emptied_alike(log: Log) -> None:
    letter = NewLetter(
        route="events", source_name="pos", reason_code="odd", detail="units: odd.", received_at=NOON, payload=b"\0{"
    )
    assert log.letters.add([letter, msgspec.structs.replace(letter, payload=b"2"), letter])
    first, second = log.letters.list()
    assert (first.seen_count, second.seen_count, first.received_at) == (2, 1, NOON)
    assert log.letters.payload(first.letter_id) == b"\0{"
    log.letters.settle([first.letter_id], "replayed", NOON)
    assert [each.letter_id for each in log.letters.list()] == [second.letter_id]
    assert log.letters.payload(first.letter_id) == b""


def test_a_blanked_event_is_emptied_and_stays_known(log: Log) -> None:
    log.append([sale("a", key="subject/rosalind"), sale("b")])
    assert log.rewrite({1: b"", 2: b'{"units": -7}', 9: b""}) == 2
    first, second = log.read(0, 9)
    assert (first.is_erased, first.key, second.payload) == (True, "", b'{"units": -7}')
    assert log.append([sale("a"), sale("b")]) == [1, 2]


def test_a_reader_never_sees_an_offset_before_the_one_below_it_whatever_writers_do(place: str, log: Log) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append_alone, args=(place, name, 40)) for name in "xyz"]
    threads = [threading.Thread(target=append_alone, args=(place, name, 40)) for name in "uvw"]
    for each in (*writers, *threads):
        each.start()
    seen: list[int] = []
    while any(each.is_alive() for each in (*writers, *threads)):
        page = [event.offset for event in log.read(seen[-1] if seen else 0, 50)]
        assert page == list(range(len(seen) + 1, len(seen) + 1 + len(page)))
        seen += page
    for each in (*writers, *threads):
        each.join()
    assert [each.exitcode for each in writers] == [0] * 3
    names = [event.event_id for event in log.read(0, 10_000)]
    assert sorted(names) == sorted(
        [f"{name}/{n}" for name in "xyzuvw" for n in range(40)] + [f"shared/{n}" for n in range(40)]
    )


def test_a_lost_connection_is_made_anew(postgres_place: str) -> None:
    database = PostgresDatabase(postgres_place)
    log = Log(database)
    log.append([sale("a")])
    for connection in (database._writer, database._reader):
        connection.close()
    assert log.append([sale("a"), sale("b")]) == [1, 2]
    assert log.head() == 2
    log.close()


def test_where_the_log_rests_is_said_by_the_environment_and_never_repeated(
    postgres_place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TROTH_LOG", postgres_place)
    log = open_log(Home(tmp_path))
    assert log.append([sale("a")]) == [1]
    log.close()
    assert not (tmp_path / "log").exists()
    assert given_log({}) is None
    with pytest.raises(TrothError, match="TROTH_LOG: expected postgresql://") as refused:
        given_log({"TROTH_LOG": "mysql://root:secret@db"})
    assert "secret" not in str(refused.value)
    monkeypatch.setenv("TROTH_LOG", "postgresql://nobody:secret@127.0.0.1:1/none")
    with pytest.raises(LogError, match="expected a PostgreSQL that answers") as unreachable:
        open_log(Home(tmp_path))
    assert "secret" not in str(unreachable.value)
