"""What assets are handed: the home, the clock, and a place to report to. Nothing here reads the environment by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from troth.clock import Clock, SystemClock
from troth.home import Home


class HomeResource(dg.ConfigurableResource):
    """The retailer's home on disk, and how many worker processes may read at once."""

    root: str
    workers: int = 2

    @property
    def home(self) -> Home:
        return Home(Path(self.root))

    @property
    def clock(self) -> Clock:
        return SystemClock()


class Reporter:
    """Where steps say how far they are and what came of them. `troth run` puts its progress display here."""

    def __init__(self, advance: Callable[[str, int, int], None] | None = None) -> None:
        self._advance = advance
        self.told: dict[str, Any] = {}

    def advance(self, stage: str, done: int, total: int) -> None:
        if self._advance:
            self._advance(stage, done, total)

    def tell(self, subject: str, value: Any) -> None:
        self.told[subject] = value
