"""What the ledger heard after standing was projected: published standing in memory, with newer events decided on top.

Between two publishings a withdrawal must block at once, and everybody else must go on being answered. Imports lazily: a
reader whose projection is up to date needs none of it.
"""

import os
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from feature_repo.errors import FeatureError
from troth.clock import SystemClock
from troth.home import Home
from troth.published import POINTER, current

if TYPE_CHECKING:
    from consent.events import Recorded
    from consent.ledger.ledger import Ledger
    from consent.rule.gate import Gate

_STANDING, _IDENTITIES = "consent_standing", "customer_identities"
_Seen = tuple[tuple[int, int], ...]  # the pointers of what was read, as the file system knows them


class _SpoiltError(FeatureError):
    """A gate that is not to be asked again."""


class _History:
    """What a ledger holds of each subject, and whether any of it could not be read: a gate says no then, and tells nobody."""

    def __init__(self, ledger: "Ledger") -> None:
        self._ledger = ledger
        self.has_failed = False

    def events_of(self, subject_id: str) -> "list[Recorded]":
        try:
            return self._ledger.events_of(subject_id)
        except BaseException:
            self.has_failed = True
            raise


class Heard:
    """Standing as of the newest ledger size, for one home. Threads share it.

    An answer takes no lock while the gate has heard enough. One thread lays a tail over it, or builds it again from what
    was published since; who needs neither goes on meanwhile.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._pointers = [str(home.published / table / POINTER) for table in (_STANDING, _IDENTITIES)]
        self._building, self._hearing = threading.Lock(), threading.Lock()
        self._ledger: Ledger | None = None
        self._known: tuple[_Seen, Gate] | None = None
        self._newest = datetime.min.replace(tzinfo=UTC)

    def is_built(self) -> bool:
        """Whether an answer need not build the gate first: it stands, over what is published now."""
        known = self._known
        try:
            return known is not None and known[0] == self._seen()
        except OSError:
            return False

    def answer(
        self, customer_id: str, ledger_size: int, at: datetime, purpose_code: str, channel_code: str
    ) -> tuple[bool, str] | None:
        """Whether a use is allowed by the first `ledger_size` events, and why; None when that cannot be told."""
        try:
            gate = self._built(ledger_size, at)
            if gate.ledger_size < ledger_size:
                with self._hearing:
                    self._catch_up(gate, ledger_size, at)
            return gate.allows_as_of(ledger_size, customer_id, purpose_code, channel_code, at)
        except Exception:  # a table half there, a database gone, a fault of either's driver: it cannot be told
            return None

    def _built(self, ledger_size: int, at: datetime) -> "Gate":
        """The gate of what is published now; while another thread builds that, the one before."""
        known, seen = self._known, self._seen()
        if known is not None and (known[0] == seen or not self._building.acquire(blocking=False)):
            return known[1]
        if known is None:
            self._building.acquire()
        try:
            if self._known is None or self._known[0] != seen:
                self._opened()
                gate = self._read()
                try:
                    self._catch_up(gate, ledger_size, at)
                except _SpoiltError:
                    raise
                except BaseException:
                    self._known = seen, gate
                    raise
                self._known = seen, gate
            return self._known[1]
        finally:
            self._building.release()

    def _seen(self) -> _Seen:
        found = [os.stat(pointer) for pointer in self._pointers]  # a Path costs five times as much
        return tuple((each.st_ino, each.st_mtime_ns) for each in found)

    def _catch_up(self, gate: "Gate", ledger_size: int, at: datetime) -> None:
        """Lay what is new over a gate. One that could not read all it needed refuses people who said yes, and would for as long as it
        lives: it is built again by whoever asks next. Raises: _SpoiltError then."""
        if gate.ledger_size < ledger_size:
            ledger = self._opened()
            tail, history = list(ledger.events(gate.ledger_size, ledger_size)), _History(ledger)
            # What is in the ledger has happened: who asked a moment earlier, or by a slower clock, must not settle that it has not.
            self._newest = max([at, self._newest, *(one.event.received_at for one in tail)])
            try:
                gate.overlay(tail, history, self._newest, ledger_size)
            finally:
                if history.has_failed:
                    if self._known is not None and self._known[1] is gate:
                        self._known = None
                    raise _SpoiltError(
                        "ledger: expected the events of who is touched, found some unreadable. Ask again."
                    )

    def _opened(self) -> "Ledger":
        """The ledger; the first gate opens it, before another thread can have one to catch up."""
        from consent.ledger.opening import open_ledger

        if self._ledger is None:
            self._ledger = open_ledger(self._home, SystemClock())
        return self._ledger

    def _read(self) -> "Gate":
        import polars as pl

        from consent.rule.gate import Gate
        from consent.rule.policy import read_policy

        rows = pl.read_parquet(current(self._home, _STANDING))
        times = [name for name in ("since_at", "expires_at") if rows.schema[name] == pl.Datetime("us")]
        rows = rows.with_columns(pl.col(times).dt.replace_time_zone("UTC"))
        links = pl.read_parquet(current(self._home, _IDENTITIES))
        return Gate.build(rows, read_policy(), links)
