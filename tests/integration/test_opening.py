"""A home that names a PostgreSQL ledger: one ledger, found again, and never an empty or another one in its place."""

import sys
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from consent.errors import ConsentError, LedgerError
from consent.ledger.keyring import kek_id
from consent.ledger.opening import has_ledger, is_outside, ledger_place, ledger_size, open_ledger
from consent.ledger.rotation import rotate_kek
from consent.vault import open_vault
from tests.integration.places import by_hand, raw
from tests.integration.postgres import break_down, running_server
from tests.unit.consent.builders import ALMA, MONDAY, event, events, subject
from troth.clock import FixedClock
from troth.errors import TrothError
from troth.home import Home
from troth.settings import given_ledger

CLOCK = FixedClock(MONDAY)
ADDRESS = "alma@pier.example"
VARIABLE = "TROTH_LEDGER"


@pytest.fixture
def place(postgres_place: str) -> str:
    """Named, so that connections to it can be told from others."""
    return f"{postgres_place}&application_name={postgres_place.split('%3D')[1]}"


@pytest.fixture
def home(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Alma's home; its ledger is in PostgreSQL."""
    monkeypatch.setenv(VARIABLE, place)
    home = Home(tmp_path / "home")
    with open_ledger(home, CLOCK) as ledger:
        ledger.append(events(3))
    return home


def hang_up(place: str) -> None:
    """End the connections of the tested home."""
    address, name = place.split("&application_name=")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = %s", (name,)
        )


def keks_of(place: str) -> set[bytes]:
    """Ids of the key-encryption keys that the database's keys are under."""
    with raw(place) as run:
        return {bytes(kek) for (kek,) in run("select kek_id from subject_keys")}


def test_a_home_that_names_a_server_keeps_its_ledger_there_and_finds_it_again(home: Home) -> None:
    assert not home.ledger.exists()
    assert (is_outside(), has_ledger(home), ledger_size(home)) == (True, True, 3)
    with open_ledger(home, CLOCK) as ledger:
        assert ledger.append(events(4)) == [0, 1, 2, 3]
        assert ledger_size(home) == 4
        ledger.verify()


def test_a_home_without_events_has_no_ledger_until_it_is_opened(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, place)
    home = Home(tmp_path)
    assert not has_ledger(home)
    with pytest.raises(LedgerError, match="found UndefinedTable"):
        ledger_size(home)
    open_ledger(home, CLOCK).close()
    assert (has_ledger(home), ledger_size(home)) == (True, 0)


def test_a_home_whose_variable_was_forgotten_starts_no_empty_ledger(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    for ask in (has_ledger, lambda home: open_ledger(home, CLOCK)):
        with pytest.raises(LedgerError, match=r"expected the one that ledger\.checkpoint .* Set TROTH_LEDGER"):
            ask(home)
    with pytest.raises(LedgerError, match="expected a readable ledger"):
        ledger_size(home)
    assert not home.ledger.exists()


def test_a_home_with_a_file_starts_no_empty_ledger_on_a_server(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    with open_ledger(home, CLOCK) as ledger:
        ledger.append(events(3))
    monkeypatch.setenv(VARIABLE, place)
    with pytest.raises(LedgerError, match="Set TROTH_LEDGER as it was"):
        open_ledger(home, CLOCK)
    with pytest.raises(LedgerError, match="expected a PostgreSQL database"):
        ledger_size(home)
    with raw(place) as run:
        assert run("select to_regclass('checkpoints')") == [(None,)]


def test_another_homes_ledger_is_refused_to_readers_and_writers(
    home: Home, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, other = Home(tmp_path / "new"), Home(tmp_path / "other")
    with pytest.raises(LedgerError, match="expected keys under a key-encryption key at hand"):
        open_ledger(new, CLOCK)
    monkeypatch.delenv(VARIABLE)
    with open_ledger(other, CLOCK) as ledger:
        ledger.append(events(3))
    monkeypatch.setenv(VARIABLE, place)
    for ask in (has_ledger, ledger_size):
        with pytest.raises(LedgerError, match="checkpoint of size 3 that the home remembers, found another"):
            ask(other)


def test_a_reader_that_comes_back_to_an_older_backup_refuses(home: Home, place: str) -> None:
    assert ledger_size(home) == 3
    with open_ledger(home, CLOCK) as ledger:
        ledger.append(events(5))
    with by_hand(place) as run:
        run("delete from checkpoints where size > 3")
    hang_up(place)
    with pytest.raises(LedgerError, match="checkpoint of size 5 that the home remembers, found none"):
        ledger_size(home)


def test_a_reader_lives_through_a_server_that_breaks_down_and_refuses_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_server() as server:
        monkeypatch.setenv(VARIABLE, server.get_uri())
        home = Home(tmp_path)
        with open_ledger(home, CLOCK) as ledger:
            ledger.append(events(3))
        assert ledger_size(home) == 3
        break_down(server)
        for ask in (ledger_size, has_ledger, lambda home: open_ledger(home, CLOCK)):
            with pytest.raises(LedgerError, match="expected a PostgreSQL database, found"):
                ask(home)
        server.ensure_postgres_running()
        assert ledger_size(home) == 3


def test_no_error_repeats_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    for address in (
        f"postgresql://alma:secret@/pier?host={tmp_path}",
        "mysql://alma:secret@pier",
        "postgresql://a:secret@[",
    ):
        monkeypatch.setenv(VARIABLE, address)
        for ask in (ledger_size, has_ledger, lambda home: open_ledger(home, CLOCK)):
            with pytest.raises(TrothError, match=r"expected .*postgresql|PostgreSQL") as refusal:
                ask(home)
            assert "secret" not in str(refusal.value)
            assert refusal.value.__suppress_context__ or refusal.value.__context__ is None
    monkeypatch.setenv(VARIABLE, "postgresql://alma:secret@pier/ledger")
    assert ledger_place(home) == "the database of TROTH_LEDGER"
    assert given_ledger({}) is None


def test_without_the_driver_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "postgresql://pier/ledger")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(LedgerError, match=r"expected psycopg .* extra `postgresql`"):
        open_ledger(Home(tmp_path), CLOCK)


def test_a_rotation_wraps_every_key_in_the_database_and_the_vault_anew(home: Home, place: str) -> None:
    with open_vault(home) as vault:
        vault.put([(ALMA, ADDRESS)])
    with open_ledger(home, CLOCK) as ledger:
        ledger.append([event(subject_id=subject(number)) for number in range(5)])
    old, pages = home.key("kek"), _pages(place)
    done = rotate_kek(home, CLOCK)
    assert (done.ledger_keys, done.vault_keys, done.destroyed) == (6, 1, ("kek",))
    assert keks_of(place) == {kek_id(home.key("kek"))} != {kek_id(old)}
    assert _pages(place) != pages  # written anew: no page has an old key
    with open_ledger(home, CLOCK) as ledger, open_vault(home) as vault:
        assert ledger.verify().size == 8
        assert vault.get([ALMA]) == {ALMA: ADDRESS}


def _pages(place: str) -> int:
    with raw(place) as run:
        return int(run("select pg_relation_filenode('subject_keys')")[0][0])


def test_a_rotation_refuses_while_somebody_has_the_ledger_open(home: Home, place: str) -> None:
    before = home.key("kek")
    with open_ledger(home, CLOCK) as ledger:
        with pytest.raises(ConsentError, match="expected the ledger to be open nowhere else, found it in use"):
            rotate_kek(home, CLOCK)
        assert len(ledger.events_of(ALMA)) == 3
    assert keks_of(place) == {kek_id(before)}
    rotate_kek(home, CLOCK)
    assert not (home.root / "keys" / "kek.next.key").exists()
    assert keks_of(place) == {kek_id(home.key("kek"))}


def test_who_lost_the_connection_while_keys_were_rotated_writes_nothing_under_the_destroyed_key(
    home: Home, place: str
) -> None:
    with closing(open_ledger(home, CLOCK)) as late:
        hang_up(place)  # as a server that was started again: nobody has the ledger open now
        rotate_kek(home, CLOCK)
        for _ in range(2):
            with pytest.raises(LedgerError, match="expected keys under a key-encryption key at hand"):
                late.append([event(subject_id=subject(1))])
    assert keks_of(place) == {kek_id(home.key("kek"))}
    with open_ledger(home, CLOCK) as ledger:
        assert ledger.verify().size == 3


def test_a_rotation_that_died_leaves_all_readable_and_the_next_one_finishes_it(home: Home, place: str) -> None:
    home.key("kek.next")
    with open_ledger(home, CLOCK) as ledger:
        ledger.append([event(subject_id=subject(1))])  # half are under the new one
        assert len(keks_of(place)) == 2
        ledger.verify()
    rotate_kek(home, CLOCK)
    assert keks_of(place) == {kek_id(home.key("kek"))}
