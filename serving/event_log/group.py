"""Group commit: whoever stands first in line writes for all who wait. Knows nothing of what is written."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Place(Generic[Item, Result]):
    """One caller's place in the line: what it brought, and what came of it."""

    __slots__ = ("fault", "is_done", "item", "leads", "result", "turn")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.result: Result | None = None
        self.fault: BaseException | None = None
        self.is_done = self.leads = False
        self.turn = threading.Lock()
        self.turn.acquire()


class GroupCommit(Generic[Item, Result]):
    """A line of threads before one writer.

    `commit` is given the items of a group, at most `most` by weight unless one alone is heavier, and answers with a result each, in
    their order; a fault of it is everybody's in the group.
    """

    def __init__(
        self, commit: Callable[[Sequence[Item]], Sequence[Result]], weigh: Callable[[Item], int], most: int
    ) -> None:
        self._commit, self._weigh, self._most = commit, weigh, most
        self._waiting: deque[_Place[Item, Result]] = deque()
        self._lock = threading.Lock()
        self._is_led = False

    def submit(self, item: Item) -> Result:
        """Wait until the item was committed, with others or for others. Raises: what `commit` did."""
        place: _Place[Item, Result] = _Place(item)
        with self._lock:
            self._waiting.append(place)
            if not self._is_led:
                self._is_led = place.leads = True
        try:
            if not place.leads:
                place.turn.acquire()  # released when it is done, or first in line
        except BaseException:
            self._give_up(place)
            raise
        if not place.is_done:
            self._lead(place)
        if place.fault is not None:
            raise place.fault
        return place.result  # type: ignore[return-value]  # done without a fault: it has one

    def _lead(self, leader: _Place[Item, Result]) -> None:
        group = self._next_group()
        fault: BaseException | None = RuntimeError("group commit: expected a result, found an interruption. Try again.")
        try:
            results = self._commit([place.item for place in group])
            for place, result in zip(group, results, strict=True):
                place.result = result
            fault = None
        except Exception as found:
            fault = found
        finally:
            for place in group:
                place.fault, place.is_done = fault, True
            self._hand_over()
            for place in group:
                if place is not leader:
                    place.turn.release()

    def _next_group(self) -> list[_Place[Item, Result]]:
        """The first in line, and those behind who still fit."""
        with self._lock:
            group = [self._waiting.popleft()]
            weight = self._weigh(group[0].item)
            while self._waiting and weight + (more := self._weigh(self._waiting[0].item)) <= self._most:
                weight += more
                group.append(self._waiting.popleft())
        return group

    def _hand_over(self) -> None:
        """The next in line leads, if there is one."""
        with self._lock:
            self._is_led = bool(self._waiting)
            if self._is_led:
                self._waiting[0].leads = True
                self._waiting[0].turn.release()

    def _give_up(self, place: _Place[Item, Result]) -> None:
        """An interrupted caller leaves the line; if it was just made first, the next is."""
        with self._lock:
            if place in self._waiting:
                self._waiting.remove(place)
        if place.leads and not place.is_done:
            self._hand_over()
