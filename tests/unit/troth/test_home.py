import stat
from pathlib import Path

import pytest

from troth.errors import TrothError
from troth.home import Home, write_atomically


def test_a_key_is_made_once_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.key("token") == home.key("token")
    assert stat.S_IMODE((tmp_path / "keys" / "token.key").stat().st_mode) == 0o600


def test_a_damaged_key_is_refused_rather_than_replaced(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.key("vault")
    (tmp_path / "keys" / "vault.key").write_bytes(b"short")
    with pytest.raises(TrothError, match="expected 32 bytes, found 5"):
        home.key("vault")


def test_an_atomic_write_leaves_no_draft(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep" / "file", b"first")
    write_atomically(tmp_path / "deep" / "file", b"second")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]
    assert (tmp_path / "deep" / "file").read_bytes() == b"second"
