"""What a running service keeps at hand to watch itself: counts, limits, the log of personal reads, traces, and whether it is being stopped."""

import asyncio
import signal
import threading
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import FrameType

from starlette.requests import Request

from feature_repo.catalogue import Service
from feature_repo.column_reads import Columns
from feature_repo.packed import to_microseconds
from serving.errors import ServingError
from serving.operations.counts import AGES, Counts
from serving.operations.limits import Limits
from serving.operations.read_log import PersonalRead, ReadLog
from serving.operations.tokens import Tokens
from serving.operations.traces import Traces, traces
from troth.clock import Clock, SystemClock
from troth.home import Home
from troth.settings import given_read_log_days

ALLOWED = "allowed"


class Post:
    """One service's own. What it needs of the disk is made when first needed."""

    def __init__(
        self, home: Home, told_by: Traces | None = None, wall: Clock | None = None, drain_seconds: float = 0.0
    ) -> None:
        self.folder = home.root / "serving"
        self.traces = told_by or traces()
        self._wall = wall or SystemClock()
        self.read_log = ReadLog(home.root / "logs", kept=timedelta(days=given_read_log_days()))
        self.tokens = Tokens(home, self._wall)
        self.is_stopping = False
        self._drain_seconds = drain_seconds
        self._counts: Counts | None = None
        self._limits: Limits | None = None

    @property
    def counts(self) -> Counts:
        if self._counts is None:
            self._counts = Counts(self.folder / "counts")
        return self._counts

    @property
    def limits(self) -> Limits:
        if self._limits is None:
            self._limits = Limits(self.folder / "limits.bin")
        return self._limits

    def drain(self) -> None:
        """From the first SIGTERM on say that the service is not ready, and stop it a while later: who sends requests here looks first."""
        if not self._drain_seconds or threading.current_thread() is not threading.main_thread():
            return
        loop, stop = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)

        def told(number: int, frame: FrameType | None) -> None:
            if callable(stop):
                if self.is_stopping:
                    stop(number, frame)
                else:
                    loop.call_soon_threadsafe(loop.call_later, self._drain_seconds, stop, number, None)
            self.is_stopping = True

        signal.signal(signal.SIGTERM, told)

    def close(self) -> None:
        if self._counts is not None:
            self._counts.close()
            self._counts = None
        self.read_log.close()

    def read(self, request: Request, use: Service, found: Columns, at: datetime) -> None:
        """Count what was read for a use and, where it is personal, write it down. Raises: ServingError when that cannot be."""
        refused = Counter(
            reason for is_allowed, reason in zip(found.is_allowed, found.reason_codes, strict=True) if not is_allowed
        )
        oldest_us = min((each for each in found.newest_us if each is not None), default=None)
        age_seconds = None if oldest_us is None else (to_microseconds(at) - oldest_us) / 1e6
        self.told(request, use, refused, sum(found.is_allowed), found.evidence.ledger_size, age_seconds)

    def told(
        self,
        request: Request,
        use: Service,
        refused: Mapping[str, int],
        allowed: int,
        ledger_size: int | None,
        oldest_seconds: float | None,
    ) -> None:
        """The same of what was counted already."""
        counts = self.counts
        if allowed:
            counts.add(("reads", use.name, ALLOWED), allowed)
        for reason, count in refused.items():
            counts.add(("reads", use.name, reason), count)
        if oldest_seconds is not None:
            counts.observe(("age", use.name), oldest_seconds, AGES)
        if use.purpose_code is None:
            return
        scope = request.scope
        self._write_down(
            PersonalRead(
                at=self._wall.now(),
                request_id=scope.get("troth.request_id", ""),
                caller=scope.get("troth.caller", ""),
                route=scope["route"].path,
                service=use.name,
                purpose_code=use.purpose_code,
                channel_code=use.channel_code,
                asked=allowed + sum(refused.values()),
                allowed=allowed,
                refused=refused,
                ledger_size=ledger_size,
            )
        )

    def _write_down(self, read: PersonalRead) -> None:
        try:
            removed = self.read_log.write(read)
        except ServingError:
            self.counts.add(("unwritten",))
            raise
        if removed:
            self.counts.add(("forgotten",), removed)
