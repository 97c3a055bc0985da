import os
import shutil
import stat
from pathlib import Path

import pytest

from troth.errors import TrothError
from troth.home import Home, files_below, write_atomically


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


def draft_of(name: str, folder: Path, hours: float, mark: str = "a" * 16) -> Path:
    """What a kill leaves of a file so many hours ago."""
    path = folder / f".{name}.{mark}.draft"
    path.write_bytes(b"half")
    os.utime(path, (path.stat().st_mtime - hours * 3600,) * 2)
    return path


def test_a_draft_that_a_kill_left_is_removed_by_a_later_write_of_the_same_file(tmp_path: Path) -> None:
    old = draft_of("ledger.checkpoint", tmp_path, hours=1.1)
    younger = draft_of("ledger.checkpoint", tmp_path, hours=0.9, mark="b" * 16)
    write_atomically(tmp_path / "ledger.checkpoint", b"new")
    assert (old.exists(), younger.exists()) == (False, True)


def test_drafts_of_other_files_and_files_of_other_makers_stay(tmp_path: Path) -> None:
    others = [
        draft_of("mark.txt", tmp_path, hours=9),
        draft_of("other", tmp_path, hours=9),
        draft_of("mark", tmp_path, hours=9, mark="A" * 16),
        draft_of("mark", tmp_path, hours=9, mark="a" * 15),
        draft_of("m.rk", tmp_path, hours=9),
    ]
    for name in ("mark", "m?rk", "m*"):
        write_atomically(tmp_path / name, b"new")
    assert all(path.exists() for path in others)


def test_what_cannot_be_cleared_does_not_undo_the_write(tmp_path: Path) -> None:
    in_the_way = tmp_path / f".mark.{'a' * 16}.draft"
    in_the_way.mkdir()
    os.utime(in_the_way, (0, 0))
    write_atomically(tmp_path / "mark", b"new")
    assert (tmp_path / "mark").read_bytes() == b"new"


def test_files_below_a_folder_are_found_though_folders_go_away_meanwhile(tmp_path: Path) -> None:
    for name in ("a/one.sql", "b/c/two.sql", "b/other.txt", "left/out.sql"):
        write_atomically(tmp_path / name, b"")
    found = files_below(tmp_path, "*.sql", without=("left",))
    first = next(found)
    shutil.rmtree(tmp_path / ("b" if first.name == "one.sql" else "a"))
    assert [first, *found] == [first]
    assert not [*files_below(tmp_path / "gone"), *files_below(tmp_path / "left" / "out.sql")]
    assert sorted(files_below(tmp_path)) == sorted(path for path in tmp_path.rglob("*") if path.is_file())


def test_a_folder_that_is_there_and_cannot_be_read_is_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_path: str) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(os, "scandir", refuses)
    with pytest.raises(PermissionError):
        list(files_below(tmp_path))
