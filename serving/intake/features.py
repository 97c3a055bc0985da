"""What the stream says of stock, as rows of the views that speak of it: in the online store within a second, for whoever reads features.

A row says all that a published one says: what the stream knows, and the rest as the version said that the stream rests on. Its time is the newest
that the stream had heard then, and later than that version's: so it is read instead of it, gives way to the version that heard the same, and is
the same row when it is told again after a kill.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from feature_repo.catalogue import SKU_LOCATION_AVAILABILITY
from feature_repo.store import OnlineStore, Written, entity_values, online_store
from models.stock.atp import available_arrays
from models.stock.stream import Base, Moved, Place, Stream, Told
from serving.event_log.events import Event
from serving.operations.freshness import STREAMED, Shown, tell_shown
from troth import published
from troth.clock import microseconds
from troth.home import Home

MOST_AT_ONCE = 10_000  # rows in one go
_EVERY_SECONDS = 0.2
_IDLE_SECONDS = 1.0  # between two words that nothing is missing
_AGAIN_SECONDS = 1.0  # after a store that could not be written
_DAY = 86_400_000_000
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """What the version says that the stream rests on and cannot know: as of when (microseconds), and units sold, a row for each of the base's."""

    as_of_us: int
    sold_units: NDArray[np.int64]


def read_published(home: Home, base: Base) -> Published | None:
    """That of a home; None where the view was not published."""
    view = SKU_LOCATION_AVAILABILITY
    if not (home.published / view.table / published.POINTER).exists():
        return None
    frame = pl.read_parquet(published.current(home, view.table), columns=["sku", "location_code", "sold_units_28d", view.event_column])  # fmt: skip
    sold = np.zeros(base.frame.height + 1, dtype=np.int64)  # the last: of positions the base does not know
    sold[base.positions.rows(frame["sku"], frame["location_code"])] = frame["sold_units_28d"].fill_null(0).to_numpy()
    sold[-1] = 0
    newest = frame[view.event_column].cast(pl.Datetime("us")).to_physical().max()
    return Published(int(newest or 0), sold)  # type: ignore[arg-type]


class StockFeatures:
    """The rows of a home's streamed views. One thread tells it of the stream; another, its own, writes. A store that is away delays rows, never the stream."""

    def __init__(self, home: Home, store: OnlineStore | None = None) -> None:
        self.written = Written()
        self._home, self._store = home, store
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="stock features")
        self._writing: Future[Written] | None = None
        self._in_flight: list[Place] = []
        self._left: Future[set[Place]] | None = None  # positions that an earlier projector wrote of
        self._is_left_known = False
        self._base = Base(_NO_POSITIONS)
        self._published: Published | None = None
        self._near: dict[Place, int] = {}  # positions the stream spoke of, by the offset of its newest word
        self._moved: dict[Place, int] = {}  # when their stock last moved, as the stream knows
        self._due: set[Place] = set()
        self._at_us = 0
        self._wait_until = self._tell_at = float("-inf")

    def rest_on(self, base: Base, told: Published | None) -> None:
        """Take another version below the stream. What the stream spoke of before is said again on top of it."""
        self._base, self._published = base, told
        if told is not None:
            self._at_us = max(self._at_us, told.as_of_us + 1)
        self._due.update(self._near)
        self._near = {place: offset for place, offset in self._near.items() if offset > base.offset}
        self._moved = {place: at for place, at in self._moved.items() if place in self._near}

    def hear(self, events: Sequence[Event], told: Iterable[Told], touched: Iterable[Place]) -> None:
        """Take what the stream was told by events, and whose parts may be others for it."""
        if not events:
            return
        self._at_us = max(self._at_us, *(microseconds(event.received_at) for event in events))
        for each in told:
            if isinstance(change := each.change, Moved):
                place = (change.location_code, change.sku)
                self._moved[place] = max(self._moved.get(place, 0), change.occurred_at)
        for place in touched:
            self._near[place] = events[-1].offset
            self._due.add(place)

    def step(self, stream: Stream, offset: int, until: datetime) -> None:
        """Have written what is due, a few times a second. `offset`, `until`: how far the stream is."""
        now = time.monotonic()
        if self._published is None or now < self._wait_until or not self._is_free():
            return
        if not self._due and now < self._tell_at:
            return
        some, rest = list(self._due)[:MOST_AT_ONCE], max(0, len(self._due) - MOST_AT_ONCE)
        shown = None if rest or not self._is_left_known else Shown(offset=offset, until=until)
        self._due.difference_update(some)
        self._in_flight = some
        self._wait_until, self._tell_at = now + _EVERY_SECONDS, now + _IDLE_SECONDS
        frame = self._rows(stream, some, self._published) if some else None
        self._writing = self._writer.submit(self._write, frame, shown)

    def close(self) -> None:
        """What is not written yet the next start writes."""
        self._writer.shutdown(cancel_futures=True)

    def _is_free(self) -> bool:
        """Whether the last write is done; what failed is due again."""
        if not self._is_left_known:
            self._left = self._left or self._writer.submit(self._touched)
            if not self._left.done():
                return False
            if (fault := self._left.exception()) is not None:
                self._left = None
                self._failed(fault)
                return False
            self._due |= self._left.result()
            self._is_left_known = True
        if self._writing is None:
            return True
        if not self._writing.done():
            return False
        fault = self._writing.exception()
        if fault is None:
            self.written += self._writing.result()
        else:
            self._due.update(self._in_flight)
            self._failed(fault)
        self._writing, self._in_flight = None, []
        return True

    def _failed(self, fault: BaseException) -> None:
        self._wait_until = time.monotonic() + _AGAIN_SECONDS
        _LOGGER.warning("stock features: expected to write them, found %s. They are tried again.", type(fault).__name__)

    def _rows(self, stream: Stream, places: Sequence[Place], told: Published) -> pl.DataFrame:
        """Rows of both views, all columns of either."""
        parts = stream.parts(places)
        del parts["last_event_at"]  # of orders too: here what moved counts
        rows = self._base.positions.rows_of(places)
        moved = np.array([self._moved.get(place, 0) for place in places], dtype=np.int64)
        moved = np.maximum(moved, self._base.columns["last_event_at"][rows])
        available = available_arrays(parts)
        at = pl.lit(self._at_us).cast(pl.Datetime("us"))
        return pl.DataFrame(
            {
                "location_code": [location for location, _ in places],
                "sku": [sku for _, sku in places],
                **parts,
                "available_units": available,
                "has_stock": available > 0,
                "sold_units_28d": told.sold_units[rows],
                "days_since_last_movement": np.where(moved > 0, np.maximum(0, (self._at_us - moved) // _DAY), 0),
                "last_movement_at": pl.Series(moved).replace(0, None).cast(pl.Datetime("us")),
            }
        ).with_columns(at.alias(view.event_column) for view in STREAMED)

    def _write(self, frame: pl.DataFrame | None, shown: Shown | None) -> Written:
        """In the thread that writes."""
        written = Written()
        if frame is not None:
            for view in STREAMED:
                written += self._opened().write_frame(view, frame)
        if shown is not None:
            tell_shown(self._home, shown)
        return written

    def _touched(self) -> set[Place]:
        """Positions written of since the version the store stands at; in the thread that writes."""
        store = self._opened()
        store.keep(STREAMED)
        found = (entity_values(view.entity, key) for view in STREAMED for key in store.touched(view))
        return {(location, sku) for sku, location in found}

    def _opened(self) -> OnlineStore:
        if self._store is None:
            self._store = online_store(self._home.features)
        return self._store


_NO_POSITIONS = pl.DataFrame(schema={"location_code": pl.String, "sku": pl.String, "last_event_at": pl.Int64})
