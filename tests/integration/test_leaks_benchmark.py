"""The service under load while each thing it rests on is killed once: nobody who said no is told of, and everybody is answered again."""

import pytest

from benchmarks import leaks
from benchmarks.leaks import Heard, Word

pytestmark = pytest.mark.slow  # it starts the service twice


def test_nobody_who_said_no_is_told_of_while_each_store_and_process_is_killed_once() -> None:
    measures = {each.name: each for each in leaks.measure("few")}
    state = measures["leaks"].conditions
    assert set(state["faults"]) == {
        "redis_killed", "redis_emptied", "redis_set_back", "ledger_away", "worker_killed", "service_killed", "projector_killed", "publisher_killed",
    }  # fmt: skip
    assert state["told_of"] > 0
    assert state["words"] > 0
    assert [(name, each.value) for name, each in measures.items() if each.met is False] == []


@pytest.mark.parametrize(
    ("sent", "there", "is_leak"),
    [
        (1.0, 9.0, False),  # asked before anything was acknowledged
        (3.5, 9.0, False),  # the no was on its way
        (4.5, 4.8, True),
        (4.5, 5.5, False),  # a yes was on its way before the answer came
        (6.5, 9.0, False),
    ],
)
def test_a_leak_is_an_answer_asked_for_after_a_no_was_acknowledged_and_there_before_a_yes(
    sent: float, there: float, is_leak: bool
) -> None:
    heard = Heard({"cus_ada": [Word(True, 0.0, 0.0), Word(False, 3.0, 4.0), Word(True, 5.0, 6.0)]})
    heard.note(sent, there, [("cus_ada", True, "granted")])
    assert heard.leaks() == (["cus_ada"] if is_leak else [])
