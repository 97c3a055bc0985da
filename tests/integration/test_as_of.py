"""What was on hand as it was known then equals what a home says that got no later file, to the byte."""

from pathlib import Path

import pytest

from benchmarks.as_of import race
from simulator import TINY

pytestmark = pytest.mark.slow  # three dbt runs


def test_a_tiny_retailers_past_is_what_a_replay_of_the_files_received_by_then_says(tmp_path: Path) -> None:
    answers = race(tmp_path, TINY, seed=11, questions=300, known_times=2)
    assert [(answers.ours[number], answers.replayed[number]) for number in answers.different] == []
    assert len({question[3] for question in answers.questions}) == 2
    assert sum(b'"on_hand_units":null' not in answer for answer in answers.ours) > 100
