from pathlib import Path

import pytest

from troth.errors import TrothError
from troth.home import Home
from troth.published import current, publish


def draft(home: Home, content: bytes) -> Path:
    home.root.mkdir(exist_ok=True)
    path = home.root / "draft"
    path.write_bytes(content)
    return path


def test_a_reader_keeps_the_version_it_opened_when_a_new_one_is_published(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert publish(home, "orders", draft(home, b"monday"))
    opened = current(home, "orders")
    assert publish(home, "orders", draft(home, b"tuesday"))
    assert opened.read_bytes() == b"monday"
    assert current(home, "orders").read_bytes() == b"tuesday"


def test_publishing_the_same_content_again_changes_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    publish(home, "orders", draft(home, b"monday"))
    assert not publish(home, "orders", draft(home, b"monday"))
    assert not (tmp_path / "draft").exists()


def test_a_table_never_published_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TrothError, match="Run `troth run` first"):
        current(Home(tmp_path), "orders")
