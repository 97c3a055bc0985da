"""Connections that threads borrow: as many as are used at once, few kept. One that a fault touched is closed, not kept."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

from models.stock.holds.words import HoldsError


class Closable(Protocol):
    def close(self) -> Any: ...


C = TypeVar("C", bound=Closable)


class Connections(Generic[C]):
    def __init__(self, connect: Callable[[], C], most: int = 8) -> None:
        """`most`: how many are open at the same time; who needs one more waits."""
        self._connect = connect
        self._idle: list[C] = []
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(most)
        self._is_closed = False

    @contextmanager
    def one(self) -> Iterator[C]:
        with self._turns:
            with self._lock:
                if self._is_closed:
                    raise HoldsError("holds: expected an open store, found it closed. Open it again.")
                idle = self._idle.pop() if self._idle else None
            connection = idle or self._connect()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._take_back(connection)

    def _take_back(self, connection: C) -> None:
        with self._lock:
            if self._is_closed:
                connection.close()
            else:
                self._idle.append(connection)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            while self._idle:
                self._idle.pop().close()
