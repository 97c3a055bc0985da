"""Changing the key-encryption key: nothing is unreadable on the way, and nothing old opens afterwards."""

import shutil
from base64 import b64encode
from pathlib import Path

import pytest

from consent.errors import ConsentError, LedgerError
from consent.ledger.opening import open_ledger
from consent.ledger.rotation import rotate_kek
from consent.vault import open_vault
from tests.unit.consent.builders import ALMA, MONDAY, events
from troth.clock import FixedClock
from troth.errors import TrothError
from troth.home import Home
from troth.settings import given_keks

CLOCK = FixedClock(MONDAY)
ADDRESS = "alma@pier.example"
GIVEN = bytes(range(64, 96))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    with open_ledger(home, CLOCK) as ledger, open_vault(home) as vault:
        ledger.append(events(3))
        vault.put([(ALMA, ADDRESS)])
    return home


def _is_whole(home: Home) -> bool:
    with open_ledger(home, CLOCK) as ledger, open_vault(home) as vault:
        ledger.verify()
        return len(ledger.events_of(ALMA)) == 3 and vault.get([ALMA]) == {ALMA: ADDRESS}


def test_after_a_rotation_all_is_readable_and_the_old_key_opens_nothing(home: Home) -> None:
    old = home.key("kek")
    done = rotate_kek(home, CLOCK)
    assert (done.ledger_keys, done.vault_keys, done.destroyed) == (1, 1, ("kek",))
    assert home.keks() == [home.key("kek")]
    assert _is_whole(home)
    assert not any(old in path.read_bytes() for path in (home.root / "keys").iterdir())
    (home.root / "keys" / "kek.key").write_bytes(old)
    with open_ledger(home, CLOCK) as ledger, pytest.raises(LedgerError, match="key-encryption key"):
        ledger.events_of(ALMA)


def test_a_backup_from_before_an_erasure_cannot_be_read_after_a_rotation(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.root, tmp_path / "backup", ignore=shutil.ignore_patterns("keys"))
    with open_vault(home) as vault:
        vault.erase([ALMA])
    rotate_kek(home, CLOCK)
    shutil.copytree(home.root / "keys", tmp_path / "backup" / "keys")
    backup = Home(tmp_path / "backup")
    with open_vault(backup) as vault, pytest.raises(ConsentError, match="does not open"):
        vault.get([ALMA])


@pytest.mark.parametrize("steps", range(5))
def test_a_rotation_that_died_leaves_all_readable_and_the_next_one_finishes_it(home: Home, steps: int) -> None:
    keys = home.root / "keys"
    if steps >= 1:
        home.key("kek.next")
    if steps >= 2:
        with open_ledger(home, CLOCK) as ledger:
            ledger.rewrap_keys()
    if steps >= 3:
        with open_vault(home) as vault:
            vault.rewrap_keys()
    if steps >= 4:
        (keys / "kek.key").write_bytes(bytes(32))
    assert _is_whole(home)
    rotate_kek(home, CLOCK)
    assert _is_whole(home)
    assert not (keys / "kek.next.key").exists()


def test_a_rotation_waits_for_whoever_still_wraps_under_the_old_key(home: Home) -> None:
    with open_ledger(home, CLOCK) as ledger:
        assert ledger.size == 3
        with pytest.raises(ConsentError, match="found it in use"):
            rotate_kek(home, CLOCK)
        assert len(ledger.events_of(ALMA)) == 3
    rotate_kek(home, CLOCK)
    assert _is_whole(home)


def test_a_key_given_by_the_environment_takes_over_from_the_file(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TROTH_KEK", GIVEN.hex())
    done = rotate_kek(home, CLOCK)
    assert done.destroyed == ("kek",)
    assert home.keks() == [GIVEN]
    assert _is_whole(home)
    monkeypatch.setenv("TROTH_KEK", bytes(32).hex())
    monkeypatch.setenv("TROTH_KEK_BEFORE", GIVEN.hex())
    rotate_kek(home, CLOCK)
    monkeypatch.delenv("TROTH_KEK_BEFORE")
    assert _is_whole(home)


def test_given_keys_are_spelled_in_hex_or_base64_and_a_wrong_one_is_not_quoted() -> None:
    told = {"TROTH_KEK": GIVEN.hex(), "TROTH_KEK_BEFORE": b64encode(GIVEN).decode()}
    assert given_keks(told) == [GIVEN, GIVEN]
    assert given_keks({}) == []
    with pytest.raises(TrothError, match="expected 32 bytes") as refusal:
        given_keks({"TROTH_KEK": "secret-words"})
    assert "secret-words" not in str(refusal.value)
