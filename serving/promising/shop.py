"""What promising needs at hand: stock, the network, holds and the book, each opened when it is first needed."""

import threading
import time
from contextlib import suppress

from models.promise.book import Book
from models.promise.network import Network, network
from models.promise.places import postal_codes
from models.promise.promising import Grounds
from models.promise.published import PublishedShelf
from models.promise.rules import path_of
from models.promise.sight import Shelf
from models.stock.board.reader import Board
from models.stock.holds.opening import open_holds
from models.stock.holds.store import HoldStore
from models.tables import versions
from serving.board import open_board
from troth.errors import TrothError
from troth.home import Home

_LOOK_SECONDS = 1.0  # between looks for newer tables and rules


class Shop:
    """What promising needs at hand, opened when it is first needed. Threads share it."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._network: Network | None = None
        self._seen: tuple[object, float] = (None, float("-inf"))
        self._shelf: Shelf | None = None
        self._holds: HoldStore | None = None
        self._book: Book | None = None

    def grounds(self) -> Grounds:
        """Raises: TrothError where nothing was published yet."""
        return Grounds(self.shelf(), self._current(), self.book())

    def prepare(self) -> None:
        """Read what promises need before anybody waits for it. What is not there yet is read when it is asked for."""
        with suppress(TrothError):
            self.grounds()

    def is_ready(self) -> bool:
        """Whether all is read that a promise needs, as it is now. Once a second that takes a look at three small files, else nothing."""
        return isinstance(self._shelf, Board) and self._network is not None and self._is_current()

    def shelf(self) -> Shelf:
        """The board where a projector writes one, else the published table."""
        if not isinstance(self._shelf, Board):
            board = open_board(self._home)
            self._shelf = board or self._shelf or PublishedShelf(self._home)
        return self._shelf

    def holds(self) -> HoldStore:
        with self._lock:
            if self._holds is None:
                self._holds = open_holds(self._home)
            return self._holds

    def book(self) -> Book:
        with self._lock:
            if self._book is None:
                self._book = Book(self._home.stock / "promises.db")
            return self._book

    def close(self) -> None:
        """Close what was opened; it opens again when needed."""
        with self._lock:
            for each in (self._holds, self._book):
                if each is not None:
                    each.close()
            self._holds = self._book = None

    def _current(self) -> Network:
        """The network of the tables and rules as they are now, as of a second ago."""
        found = self._network
        if found is not None and self._is_current():
            return found
        with self._lock:
            if self._network is None or not self._is_current():
                seen = self._look()
                self._network = network(self._home)
                postal_codes()  # read now, not when somebody waits
                if not isinstance(self._shelf, Board):
                    self._shelf = None
                self._seen = seen, time.monotonic()
            return self._network

    def _is_current(self) -> bool:
        seen, looked = self._seen
        if time.monotonic() - looked < _LOOK_SECONDS:
            return True
        if seen != self._look():
            return False
        self._seen = seen, time.monotonic()
        return True

    def _look(self) -> object:
        """What the network is made of, so that a change shows."""
        rules = path_of(self._home)
        return versions(self._home, ("locations", "products")), rules, rules.stat().st_mtime_ns
