"""A line of threads before one writer: everybody gets their own result, whatever goes wrong for others."""

import threading
from collections.abc import Sequence

import pytest

from serving.event_log.group import GroupCommit


class Slow:
    """A writer that waits to be let go, and remembers its groups."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.go = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.groups.append(list(items))
        assert self.go.wait(10)
        if 13 in items:
            raise ValueError("unlucky")
        return [item * 10 for item in items]


def submitted(line: GroupCommit[int, int], items: Sequence[int]) -> dict[int, object]:
    found: dict[int, object] = {}

    def one(item: int) -> None:
        try:
            found[item] = line.submit(item)
        except ValueError as fault:
            found[item] = str(fault)

    threads = [threading.Thread(target=one, args=(item,)) for item in items]
    for thread in threads:
        thread.start()
    line._commit.go.set()  # type: ignore[attr-defined]  # it is a Slow
    for thread in threads:
        thread.join(10)
    return found


def test_everybody_gets_the_result_of_their_own_item() -> None:
    writer = Slow()
    line = GroupCommit(writer, lambda _: 1, 1_000)
    assert submitted(line, range(20, 40)) == {item: item * 10 for item in range(20, 40)}
    assert sorted(item for group in writer.groups for item in group) == list(range(20, 40))
    assert line.submit(99) == 990


def test_a_group_is_no_heavier_than_it_may_be_unless_one_alone_is() -> None:
    writer = Slow()
    writer.go.set()
    line = GroupCommit(writer, lambda item: item, 5)
    assert submitted(line, [1, 2, 3, 4, 9]) == {1: 10, 2: 20, 3: 30, 4: 40, 9: 90}
    assert all(sum(group) <= 5 or len(group) == 1 for group in writer.groups)


def test_a_fault_is_that_of_its_group_and_the_line_goes_on() -> None:
    line = GroupCommit(Slow(), lambda _: 1, 1)
    assert submitted(line, [1, 13, 2]) == {1: 10, 13: "unlucky", 2: 20}
    assert line.submit(4) == 40


def test_an_interruption_of_who_writes_is_told_to_all_who_waited_and_the_line_goes_on() -> None:
    def interrupted(items: Sequence[int]) -> list[int]:
        if 7 in items:
            raise KeyboardInterrupt
        return list(items)

    line: GroupCommit[int, int] = GroupCommit(interrupted, lambda _: 1, 10)
    with pytest.raises(KeyboardInterrupt):
        line.submit(7)
    assert line.submit(8) == 8
