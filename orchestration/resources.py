"""What assets are handed: the home, the clock, and a place to report to. Nothing here reads the environment by itself."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource
from packaging.version import Version

from orchestration.taking import Readers
from troth.clock import Clock, SystemClock
from troth.home import Home


class Dbt(DbtCliResource):  # type: ignore[misc]  # dagster-dbt is not typed
    """dbt as a subprocess, without the 8 s (2 cores, dagster-dbt 0.29.27) that asking it for its version and opening a second
    adapter in this process would add to every run: the version is the package's, and no step fetches metadata by adapter."""

    @cached_property
    def _cli_version(self) -> Version:
        return Version(version("dbt-core"))

    def _initialize_dbt_core_adapter(self, args: Sequence[str]) -> Any:
        return None


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


class Reading:
    """Worker processes for reading. `troth run` brings its own, already at work; a run of Dagster's starts and ends some."""

    def __init__(self, begun: Readers | None = None) -> None:
        self._begun = begun

    def of(self, troth: HomeResource) -> AbstractContextManager[Readers]:
        return nullcontext(self._begun) if self._begun else Readers(troth.home, troth.workers)


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
