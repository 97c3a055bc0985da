"""The open benchmark on a very small retailer: it runs, judges everybody by the same questions, and says what it should."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import availability
from benchmarks.availability.replay import KINDS, mornings, setting_of
from benchmarks.availability.worlds import world
from troth.errors import TrothError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worlds")


def test_one_command_judges_every_entrant_by_the_same_questions(folder: Path, tmp_path: Path) -> None:
    measures = {each.name: each for each in availability.measure("tiny", folder, tmp_path / "curves.png")}
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    entrants = {name.split(".")[0] for name in measures if "." in name}
    assert entrants == {
        "naive_atp", "fixed_safety_stock", "zero_balance_walk", "belief", "belief_uncalibrated", "calibrated_books", "hidden_markov", "gradient_boosting",
    }  # fmt: skip
    assert (
        measures["naive_atp.brier"].value == measures["zero_balance_walk.brier"].value == measures["brier"].peer_value
    )
    assert all(
        0 <= each.value <= 1
        for name, each in measures.items()
        if name.endswith((".brier", ".ece", ".oversell", ".phantoms_found"))
    )
    assert measures["belief.brier"].value < measures["naive_atp.brier"].value


def test_a_world_is_made_once_and_hides_the_truth_from_what_engines_hear(folder: Path) -> None:
    size = availability._size("tiny")
    kept = world(folder, size.scale, size.held_out[0])
    before = sorted(path.stat().st_mtime_ns for path in folder.rglob("*.parquet"))
    again = world(folder, size.scale, size.held_out[0])
    assert sorted(path.stat().st_mtime_ns for path in folder.rglob("*.parquet")) == before
    assert kept.movements.equals(again.movements)
    told = next(mornings(kept, setting_of(kept))).told
    assert not {"found_units", "on_hand", "misplaced"} & {
        *told.movements.columns,
        *told.picks.columns,
        *told.counts.columns,
    }


def test_nobody_hears_of_a_day_before_its_files_came_and_the_questions_are_fixed(folder: Path) -> None:
    size = availability._size("tiny")
    kept = world(folder, size.scale, size.held_out[0])
    setting = setting_of(kept)
    first, second = (list(mornings(kept, setting)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert all(
            frame["known_at"].max() is None or frame["known_at"].max() <= one.told.at
            for frame in (one.told.movements, one.told.picks, one.told.counts)
        )
        if one.questions is not None and other.questions is not None:
            assert np.array_equal(one.questions.position, other.questions.position)
            assert (one.books[one.questions.position] > 0).all()
            assert set(one.questions.kind) == set(range(len(KINDS)))
    late = kept.movements.filter((kept.movements["known_at"] - kept.movements["occurred_at"]).dt.total_days() >= 2)
    assert late.height > 0


def test_an_unknown_scale_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrothError, match="expected retailer, tiny or belief_10m"):
        list(availability.measure("galactic", tmp_path))


def test_the_size_benchmark_updates_as_many_positions_as_it_says() -> None:
    from benchmarks.availability import size

    measures = {each.name: each for each in size.measure(4, 300)}
    assert measures["peak_memory"].value < 4
    assert measures["update_seconds"].conditions["positions"] == 1_200
