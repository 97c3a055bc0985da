"""Contact data comes back to who holds the key, and to nobody else."""

import sqlite3
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from consent.errors import ConsentError
from consent.vault import Vault, open_vault
from tests.unit.consent.builders import ALMA
from troth.home import Home

KEY = b"v" * 32
ADDRESS = "alma@pier.example"


def test_what_is_put_comes_back_after_reopening(tmp_path: Path) -> None:
    with Vault(tmp_path / "vault.db", [KEY]) as vault:
        assert vault.put([(ALMA, ADDRESS)]) == 1
    with Vault(tmp_path / "vault.db", [KEY]) as vault:
        assert vault.get([ALMA, "email_unknown"]) == {ALMA: ADDRESS}


def test_putting_twice_keeps_the_first_value_and_counts_nothing_new(tmp_path: Path) -> None:
    with Vault(tmp_path / "vault.db", [KEY]) as vault:
        vault.put([(ALMA, ADDRESS)])
        assert vault.put([(ALMA, "ALMA@pier.example"), (ALMA, ADDRESS)]) == 0
        assert vault.size == 1
        assert vault.get([ALMA]) == {ALMA: ADDRESS}


@given(st.dictionaries(st.text("abcdef_", min_size=1), st.text(st.characters(exclude_categories=("Cs",)))))
def test_any_values_come_back_as_they_were(contacts: dict[str, str]) -> None:
    with Vault(Path(":memory:"), [KEY]) as vault:
        assert vault.put(contacts.items()) == len(contacts)
        assert vault.get(contacts) == contacts


def test_no_byte_of_a_value_is_readable_on_disk(tmp_path: Path) -> None:
    with Vault(tmp_path / "vault.db", [KEY]) as vault:
        vault.put([(ALMA, ADDRESS)])
    for path in tmp_path.iterdir():
        assert ADDRESS.encode() not in path.read_bytes()


def test_another_key_opens_nothing_and_the_refusal_quotes_nothing(tmp_path: Path) -> None:
    with Vault(tmp_path / "vault.db", [KEY]) as vault:
        vault.put([(ALMA, ADDRESS)])
    with (
        Vault(tmp_path / "vault.db", [b"w" * 32]) as vault,
        pytest.raises(ConsentError, match="does not open") as refusal,
    ):
        vault.get([ALMA])
    assert ALMA not in str(refusal.value)


def test_a_value_moved_under_another_token_does_not_open(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    with Vault(path, [KEY]) as vault:
        vault.put([(ALMA, ADDRESS)])
    connection = sqlite3.connect(path)
    connection.execute("update contacts set contact_ref = 'email_other'")
    connection.commit()
    connection.close()
    with Vault(path, [KEY]) as vault, pytest.raises(ConsentError, match="does not open"):
        vault.get(["email_other"])


def test_a_file_that_is_no_vault_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vault.db").write_bytes(b"not a database, and long enough to be looked at" * 10)
    with pytest.raises(ConsentError, match="expected a SQLite database"):
        Vault(tmp_path / "vault.db", [KEY])


def test_the_vault_of_a_home_is_under_the_key_of_that_home(tmp_path: Path) -> None:
    with open_vault(Home(tmp_path)) as vault:
        vault.put([(ALMA, ADDRESS)])
    with open_vault(Home(tmp_path)) as vault:
        assert vault.get([ALMA]) == {ALMA: ADDRESS}


def test_an_erased_value_is_gone_and_its_neighbours_stay(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    with Vault(path, [KEY]) as vault:
        vault.put([(ALMA, ADDRESS), ("email_bruno", "bruno@pier.example")])
        sealed = _rows(path)[ALMA]
        assert vault.erase([ALMA, ALMA, "email_unknown"]) == 1
        assert vault.get([ALMA, "email_bruno"]) == {"email_bruno": "bruno@pier.example"}
        assert vault.held([ALMA, "email_bruno"]) == ["email_bruno"]
        assert vault.erase([ALMA]) == 0
    for file in tmp_path.iterdir():
        assert not any(part in file.read_bytes() for part in (ALMA.encode(), *sealed))


def test_an_erasure_says_so_while_a_reader_holds_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    with Vault(path, [KEY]) as vault:
        vault.put([(ALMA, ADDRESS)])
        vault._connection.execute("pragma busy_timeout = 10")
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("begin")
        reader.execute("select * from contacts").fetchall()
        with pytest.raises(ConsentError, match="found it being read"):
            vault.erase([ALMA])
        reader.close()
        vault.erase([ALMA])
    assert not any(ALMA.encode() in file.read_bytes() for file in tmp_path.iterdir())


def test_values_open_under_the_new_key_alone_once_they_are_wrapped_anew(tmp_path: Path) -> None:
    path, newer = tmp_path / "vault.db", b"w" * 32
    with Vault(path, [KEY]) as vault:
        vault.put([(ALMA, ADDRESS)])
    with Vault(path, [newer, KEY]) as vault:
        assert vault.get([ALMA]) == {ALMA: ADDRESS}
        assert (vault.rewrap_keys(), vault.rewrap_keys()) == (1, 0)
    with Vault(path, [newer]) as vault:
        assert vault.get([ALMA]) == {ALMA: ADDRESS}
    with Vault(path, [KEY]) as vault, pytest.raises(ConsentError, match="does not open"):
        vault.get([ALMA])


def test_a_corrected_value_takes_the_place_of_the_wrong_one(tmp_path: Path) -> None:
    with Vault(tmp_path / "vault.db", [KEY]) as vault:
        vault.put([(ALMA, "amla@pier.example")])
        vault.replace(ALMA, ADDRESS)
        assert (vault.get([ALMA]), vault.size) == ({ALMA: ADDRESS}, 1)


def test_a_vault_under_one_key_for_all_is_brought_over_whole(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    connection = sqlite3.connect(path)
    connection.execute("create table contacts (contact_ref text primary key, sealed blob not null)")
    nonce = bytes(12)
    sealed = nonce + AESGCM(b"f" * 32).encrypt(nonce, ADDRESS.encode(), ALMA.encode())
    connection.execute("insert into contacts values (?, ?)", (ALMA, sealed))
    connection.commit()
    connection.close()
    with pytest.raises(ConsentError, match="one key for all"):
        Vault(path, [KEY])
    with Vault(path, [KEY], lambda: b"f" * 32) as vault:
        assert vault.get([ALMA]) == {ALMA: ADDRESS}
    with Vault(path, [KEY]) as vault:
        assert vault.get([ALMA]) == {ALMA: ADDRESS}


def _rows(path: Path) -> dict[str, tuple[bytes, bytes]]:
    connection = sqlite3.connect(path)
    rows = connection.execute("select contact_ref, wrapped, sealed from contacts").fetchall()
    connection.close()
    return {token: (wrapped, sealed) for token, wrapped, sealed in rows}
