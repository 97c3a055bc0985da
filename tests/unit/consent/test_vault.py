"""Contact data comes back to who holds the key, and to nobody else."""

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.errors import ConsentError
from consent.vault import Vault, open_vault
from tests.unit.consent.builders import ALMA
from troth.home import Home

KEY = b"v" * 32
ADDRESS = "alma@pier.example"


def test_what_is_put_comes_back_after_reopening(tmp_path: Path) -> None:
    with Vault(tmp_path / "vault.db", KEY) as vault:
        assert vault.put([(ALMA, ADDRESS)]) == 1
    with Vault(tmp_path / "vault.db", KEY) as vault:
        assert vault.get([ALMA, "email_unknown"]) == {ALMA: ADDRESS}


def test_putting_twice_keeps_the_first_value_and_counts_nothing_new(tmp_path: Path) -> None:
    with Vault(tmp_path / "vault.db", KEY) as vault:
        vault.put([(ALMA, ADDRESS)])
        assert vault.put([(ALMA, "ALMA@pier.example"), (ALMA, ADDRESS)]) == 0
        assert vault.size == 1
        assert vault.get([ALMA]) == {ALMA: ADDRESS}


@given(st.dictionaries(st.text("abcdef_", min_size=1), st.text(st.characters(exclude_categories=("Cs",)))))
def test_any_values_come_back_as_they_were(contacts: dict[str, str]) -> None:
    with Vault(Path(":memory:"), KEY) as vault:
        assert vault.put(contacts.items()) == len(contacts)
        assert vault.get(contacts) == contacts


def test_no_byte_of_a_value_is_readable_on_disk(tmp_path: Path) -> None:
    with Vault(tmp_path / "vault.db", KEY) as vault:
        vault.put([(ALMA, ADDRESS)])
    for path in tmp_path.iterdir():
        assert ADDRESS.encode() not in path.read_bytes()


def test_another_key_opens_nothing_and_the_refusal_quotes_nothing(tmp_path: Path) -> None:
    with Vault(tmp_path / "vault.db", KEY) as vault:
        vault.put([(ALMA, ADDRESS)])
    with (
        Vault(tmp_path / "vault.db", b"w" * 32) as vault,
        pytest.raises(ConsentError, match="does not open") as refusal,
    ):
        vault.get([ALMA])
    assert ALMA not in str(refusal.value)


def test_a_value_moved_under_another_token_does_not_open(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    with Vault(path, KEY) as vault:
        vault.put([(ALMA, ADDRESS)])
    connection = sqlite3.connect(path)
    connection.execute("update contacts set contact_ref = 'email_other'")
    connection.commit()
    connection.close()
    with Vault(path, KEY) as vault, pytest.raises(ConsentError, match="does not open"):
        vault.get(["email_other"])


def test_a_file_that_is_no_vault_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vault.db").write_bytes(b"not a database, and long enough to be looked at" * 10)
    with pytest.raises(ConsentError, match="expected a SQLite database"):
        Vault(tmp_path / "vault.db", KEY)


def test_the_vault_of_a_home_is_under_the_key_of_that_home(tmp_path: Path) -> None:
    with open_vault(Home(tmp_path)) as vault:
        vault.put([(ALMA, ADDRESS)])
    with open_vault(Home(tmp_path)) as vault:
        assert vault.get([ALMA]) == {ALMA: ADDRESS}
