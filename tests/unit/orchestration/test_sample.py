from pathlib import Path

import pytest

from orchestration.run import is_new, write_sample
from simulator import TINY
from troth.home import Home


def quietly(stage: str, done: int, total: int) -> None:
    pass


def test_an_interrupted_sample_does_not_pass_for_a_retailer_with_half_its_days(tmp_path: Path) -> None:
    home = Home(tmp_path)

    def interrupted(stage: str, done: int, total: int) -> None:
        if stage == "trading" and done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample(home, TINY, interrupted)
    assert is_new(home)
    write_sample(home, TINY, quietly)
    days = {path.name for path in (home.landing / "pos").iterdir()}
    assert len(days) == TINY.days
    assert sorted(path.name for path in tmp_path.iterdir()) == ["landing", "truth"]


def test_a_home_with_anything_of_its_own_gets_no_sample(tmp_path: Path) -> None:
    mapped, emptied = Home(tmp_path / "mapped"), Home(tmp_path / "emptied")
    for path in (mapped.landing / "ecommerce" / "mapping.yml", emptied.taken / "pos" / "2026-03-03.json"):
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    assert not is_new(mapped)
    assert not is_new(emptied)
