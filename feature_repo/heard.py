"""What the ledger heard after standing was projected: published standing in memory, with newer events decided on top.

Between two publishings a withdrawal must block at once, and everybody else must go on being answered. Imports lazily: a
reader whose projection is up to date needs none of it.
"""

import threading
from datetime import datetime
from typing import TYPE_CHECKING

from troth.clock import SystemClock
from troth.errors import TrothError
from troth.home import Home
from troth.published import current

if TYPE_CHECKING:
    from consent.ledger.ledger import Ledger
    from consent.rule.gate import Gate


class Heard:
    """Standing as of the newest ledger size, for one home. Threads share it."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._ledger: Ledger | None = None
        self._gate: Gate | None = None
        self._versions: tuple[str, ...] = ()

    def answer(
        self, customer_id: str, ledger_size: int, at: datetime, purpose_code: str, channel_code: str
    ) -> tuple[bool, str] | None:
        """Whether a use is allowed by the first `ledger_size` events, and why; None when that cannot be told."""
        try:
            with self._lock:
                gate = self._caught_up(ledger_size, at)
                return None if gate is None else gate.allows(customer_id, purpose_code, channel_code, at)
        except (TrothError, OSError):
            return None

    def _caught_up(self, ledger_size: int, at: datetime) -> "Gate | None":
        from consent.ledger.opening import open_ledger

        versions = tuple(current(self._home, table).name for table in ("consent_standing", "customer_identities"))
        if self._gate is None or versions != self._versions:
            self._gate, self._versions = self._built(), versions
        if self._gate.ledger_size < ledger_size:
            if self._ledger is None:
                self._ledger = open_ledger(self._home, SystemClock())
            tail = list(self._ledger.events(self._gate.ledger_size, ledger_size))
            self._gate.overlay(tail, self._ledger, at, ledger_size)
        return self._gate if self._gate.ledger_size == ledger_size else None

    def _built(self) -> "Gate":
        import polars as pl

        from consent.rule.gate import Gate
        from consent.rule.policy import read_policy

        rows = pl.read_parquet(current(self._home, "consent_standing"))
        times = [name for name in ("since_at", "expires_at") if rows.schema[name] == pl.Datetime("us")]
        rows = rows.with_columns(pl.col(times).dt.replace_time_zone("UTC"))
        links = pl.read_parquet(current(self._home, "customer_identities"))
        return Gate.build(rows, read_policy(), links)
