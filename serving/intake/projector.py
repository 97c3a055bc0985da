"""The projector: what the log tells of stock, shown on the board, to the holds and in the features of stock, as it comes.

Its state is the warehouse's last word and the events after it, so a kill loses nothing: the next start reads both again. Everything it writes is
absolute, and an older number never replaces a newer, so that doing it again changes nothing.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import polars as pl

from models.stock.atp import PARTS
from models.stock.base import Announced, Believed, announced, belief_version, places_of, read_base, read_belief
from models.stock.board.writer import BoardWriter
from models.stock.holds.store import HoldStore
from models.stock.stream import Base, Place, Stream, Told
from serving.event_log.events import Event
from serving.event_log.letters import NewLetter
from serving.event_log.log import PROJECTOR, Log
from serving.intake.changes import MeaninglessError, Places, changes, hold_of
from serving.intake.drift import report
from serving.intake.features import Published, StockFeatures, read_published
from troth.clock import Clock
from troth.errors import TrothError
from troth.home import Home

BASE = "stock_base"  # the consumer that keeps the log from forgetting what a start must read again
MOST_AT_ONCE = 2_000  # events, and positions written, in one go: a reader waits for no more
_IDLE_SECONDS = 0.02
_HELD_SECONDS = 0.25  # how old what the board shows of holds may be
_COMMIT_SECONDS = 0.5
_LOOK_SECONDS = 1.0  # between looks for a newer word of the warehouse
_PAGE = 1_000
_EMPTY = pl.DataFrame(schema={"location_code": pl.String, "sku": pl.String, "last_event_at": pl.Int64})
_LOGGER = logging.getLogger(__name__)


@dataclass
class Tally:
    """What a projector did since it started."""

    events: int = 0
    dead: int = 0
    cells: int = 0
    rebases: int = 0
    drifts: int = 0


class Projector:
    """The one that writes the home's board. Use as a context manager; one thread calls `step` again and again, or `run`."""

    def __init__(self, home: Home, log: Log, holds: HoldStore, clock: Clock) -> None:
        """Raises: BoardError while another process writes the board; TrothError when a table that was announced is gone."""
        self.tally = Tally()
        self._home, self._log, self._holds, self._clock = home, log, holds, clock
        self._board = BoardWriter(home.stock / "board")
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="stock base")
        self._loading: Future[_Loaded] | None = None
        self._believing: Future[Believed] | None = None
        self._belief: str | None = None
        self._held: set[Place] = set()
        self._looked = self._committed = self._refreshed = float("-inf")
        self._told = announced(home)
        loaded = None if self._told is None else _loaded(home, self._told)
        base = Base(_EMPTY) if loaded is None else loaded.base
        self._places = Places({}, frozenset()) if loaded is None else loaded.places
        self._stream = Stream(base)
        self._features = StockFeatures(home)
        self._features.rest_on(base, None if loaded is None else loaded.published)
        self.position = base.offset

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._loader.shutdown(cancel_futures=True)
        self._features.close()
        self._commit()
        self._board.close()

    @property
    def pending(self) -> int:
        """Changes of the stream that the warehouse does not know yet."""
        return self._stream.pending

    def catch_up(self) -> None:
        """Bring the board to the end of the log: every position anew, for nobody knows how far the last writer came."""
        while events := self._log.read(self.position, MOST_AT_ONCE):
            told = self._understood(events)
            self._features.hear(events, told, self._stream.apply(told))
            self._settle(events)
            self.position = events[-1].offset
        self._show(self._stream.places())
        if (version := belief_version(self._home)) is not None:
            self._belief = version
            self._believe(read_belief(self._home, version))
        self._tell()

    def step(self) -> int:
        """Take what the log has, up to `MOST_AT_ONCE` events; how many there were."""
        began = self._clock.now()
        events = self._log.read(self.position, MOST_AT_ONCE)
        if events:
            told = self._understood(events)
            touched = self._stream.apply(told)
            self.position = events[-1].offset
            self.tally.events += len(events)
            self._settle(events)
            self._show(touched)
            self._features.hear(events, told, touched)
        self._tell()
        is_all = len(events) < MOST_AT_ONCE
        self._features.step(self._stream, self.position, began if is_all else events[-1].received_at)
        now = time.monotonic()
        if now - self._refreshed >= _HELD_SECONDS:
            self._refreshed = now
            self._refresh_held()
        if now - self._committed >= _COMMIT_SECONDS:
            self._committed = now
            self._commit()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._look()
            self._look_at_belief()
        return len(events)

    def run(self, is_stopped: Callable[[], bool]) -> None:
        """Until told to stop."""
        self.catch_up()
        while not is_stopped():
            if not self.step():
                time.sleep(_IDLE_SECONDS)

    def _understood(self, events: Sequence[Event]) -> list[Told]:
        """Changes of events; what cannot be understood is set aside, and stops nobody."""
        found: list[Told] = []
        letters: list[NewLetter] = []
        for event in events:
            try:
                found += [Told(event.offset, change) for change in changes(event, self._places)]
            except MeaninglessError as fault:
                letters.append(NewLetter.of(event, event.offset, "projector", "meaningless", str(fault)))
        if letters:
            self._log.letters.add(letters)
            self.tally.dead += len(letters)
        return found

    def _settle(self, events: Sequence[Event]) -> None:
        """Orders end the holds they took up; told again, it changes nothing."""
        for event in events:
            if (hold_id := hold_of(event)) is not None:
                self._holds.settle(hold_id, self._clock.now(), version=event.offset)

    def _show(self, places: Iterable[Place]) -> None:
        """Holds hear first: whoever reads more on the board than can be held is told so when they hold."""
        queue = iter(places)
        while some := list(islice(queue, MOST_AT_ONCE)):
            parts = self._stream.parts(some)
            last_event_at = parts.pop("last_event_at")
            free = parts["on_hand_units"] - sum(parts[part] for part in PARTS[1:] if part in parts)
            self._holds.set_free(
                ((location, sku, units) for (location, sku), units in zip(some, free.tolist(), strict=True)),
                self.position,
            )
            held = self._holds.held(some, self._clock.now())
            self._board.write(some, {**parts, "held_units": np.array(held)}, last_event_at, self.position)
            self._held.update(place for place, units in zip(some, held, strict=True) if units)
            self.tally.cells += len(some)

    def _refresh_held(self) -> None:
        """What is held now, wherever anything is or was a moment ago: holds come, go and expire without an event."""
        now = self._clock.now()
        alive: set[Place] = set()
        page = self._holds.active(now, limit=_PAGE)
        while True:
            alive.update(
                (line.location_code, line.sku) for hold in page.holds for line in hold.lines if line.held_units
            )
            if page.next is None:
                break
            page = self._holds.active(now, page.next, _PAGE)
        places = [*alive, *(self._held - alive)]
        for start in range(0, len(places), MOST_AT_ONCE):
            some = places[start : start + MOST_AT_ONCE]
            held = np.array(self._holds.held(some, now))
            self._board.write(some, {"held_units": held}, offset=self.position)
        self._held = alive

    def _look(self) -> None:
        """Take a newer word of the warehouse, read beside the projector's own work."""
        if self._loading is None:
            told = announced(self._home)
            if told is not None and told != self._told:
                self._loading = self._loader.submit(_loaded, self._home, told)
        elif self._loading.done():
            loaded = self._loading.result()
            told, base = loaded.told, loaded.base
            self._loading = None
            before, self._told = self._told, told
            if base.offset < self._stream.base.offset:
                _LOGGER.warning(
                    "stock base: expected an offset from %s, found %s. It is left.",
                    self._stream.base.offset,
                    base.offset,
                )
                return
            self._places = loaded.places
            rebased = self._stream.rebase(base)
            self._show(rebased.touched)
            self._features.rest_on(base, loaded.published)
            self._tell()
            self.tally.rebases += 1
            self.tally.drifts += len(rebased.drifts)
            report(self._home, before, told, rebased, self._clock.now())

    def _look_at_belief(self) -> None:
        """Take a newer belief, as it is published."""
        if self._believing is None:
            version = belief_version(self._home)
            if version is not None and version != self._belief:
                self._believing = self._loader.submit(read_belief, self._home, version)
        elif self._believing.done():
            believed = self._believing.result()
            self._believing, self._belief = None, believed.version
            self._believe(believed)

    def _believe(self, believed: Believed) -> None:
        for start in range(0, len(believed.places), MOST_AT_ONCE):
            some = slice(start, start + MOST_AT_ONCE)
            self._board.believe(believed.places[some], believed.found[some], believed.as_of_at)

    def _tell(self) -> None:
        self._board.tell(self.position, self._clock.now(), self._told.recomputed_at if self._told else None)

    def _commit(self) -> None:
        """How far it is, for those who watch and for the log's own bounds."""
        self._log.commit(BASE, self._stream.base.offset)
        self._log.commit(PROJECTOR, self.position)


@dataclass(frozen=True)
class _Loaded:
    """The warehouse's word as it was read."""

    told: Announced
    base: Base
    places: Places
    published: Published | None


def _loaded(home: Home, told: Announced) -> _Loaded:
    base, (by_shop, stores) = read_base(home, told), places_of(home, told)
    return _Loaded(told, base, Places(by_shop, stores), read_published(home, base))


def main(arguments: Sequence[str]) -> int:
    """`python -m serving.intake.projector HOME [PARENT]`: project until stopped, or until whoever started it is gone. 0 stopped, 1 refused.

    `PARENT`: the process that started it, which may be gone before this one can ask who it was.
    """
    from models.stock.holds.opening import open_holds
    from serving.answers import clock_of
    from serving.event_log.log import open_log
    from serving.server import hub_clock

    # Two threads take turns here, and the one that writes features gives its turn up at every row: 5 ms to get it back would be a second for 200.
    sys.setswitchinterval(0.0005)
    home, parent = Home(Path(arguments[0])), int(arguments[1]) if len(arguments) > 1 else os.getppid()
    stopped = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stopped.set())
    try:
        log, holds = open_log(home), open_holds(home)
        with closing(log), closing(holds), Projector(home, log, holds, hub_clock(home, clock_of(home))) as projector:
            projector.run(lambda: stopped.is_set() or os.getppid() != parent)
    except TrothError as fault:
        sys.stderr.write(f"projector: {fault}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
