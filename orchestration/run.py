"""`troth run`: everything once, in the right order, with progress and a closing report. Composition only.

The order: a sample retailer if nothing has landed; raw tables by trading day; then ledger, marts, features, models, segments.
Heavy libraries are imported while the simulator or the readers work in other processes.
"""

import contextlib
import dataclasses
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from orchestration import near_time, taking, warehouse
from orchestration.catalog import SOURCES
from orchestration.errors import NOTHING_READABLE, RunError
from orchestration.instance import dagster_home
from orchestration.progress import Display
from orchestration.summary import duplicates_row, identity_counts, source_rows, stock_rows
from serving.operations.runs import (
    LAST_RUN,
    UNFINISHED,
    CheckCounts,
    RunReport,
    StageTime,
    last_report,
    unfinished,
)
from troth.home import Home, files_below, write_atomically
from troth.settings import Settings

if TYPE_CHECKING:
    from simulator import Scale

SAMPLE_SEED = 7
DAYS_FOR_LATE_FILES = 5


@dataclass
class Stages:
    """Wall-clock seconds per stage, in the order they began."""

    display: Display
    times: list[StageTime] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        self.display.begin(name)
        try:
            yield
        finally:
            self.times.append(StageTime(name, round(time.monotonic() - began, 2)))
            self.display.end(name)

    def complete(self) -> list[StageTime]:
        """The stages, and what passed between them: Dagster's planning, its records, waiting."""
        rest = time.monotonic() - self.began - sum(stage.seconds for stage in self.times)
        return [*self.times, StageTime("between the stages", round(rest, 2))]


def run(settings: Settings, display: Display, sample: bool = True, force: bool = False) -> RunReport:
    """Take what has landed and bring everything up to date. Nothing new: the last report again, and nothing is touched.

    Raises: RunError when nothing can be read, or a blocking check or a step failed (what was done before it stays).
    """
    home = settings.home
    stages = Stages(display)
    if sample and is_new(home):
        parsing = warehouse.parse(home)
        with stages.stage("write a sample retailer"):
            write_sample(home, sample_scale(), display.advance)
    else:
        parsing = None
    with stages.stage("land what came in"):
        near_time.land_log(home)
    with stages.stage("look for new files"):
        plans = [plan for source in SOURCES for plan in taking.plan(home, source.name)]
        last = last_report(home)
        fingerprint = _fingerprint()
        before = unfinished(home)
    if not plans and before is None and last and last.fingerprint == fingerprint and not force:
        last.is_changed, last.stages = False, stages.complete()
        return last
    if not plans and not any(home.taken.glob("*/*.json")):
        raise RunError(
            f"landed files: expected some under {home.landing}/<source>/<day>/, found none. "
            "Land files there, pass --source with --mapping, or leave out --no-sample.", NOTHING_READABLE,
        )  # fmt: skip
    days = sorted({*(before or ()), *(plan.day for plan in plans)})
    # Written before anything is taken and removed when all is done: what a failed check or a crash left behind is judged
    # again, although its files count as taken.
    write_atomically(home.reports / UNFINISHED, msgspec.json.encode(days))
    with taking.Readers(home, settings.workers) as readers:
        readers.begin(plans)
        report = _bring_up_to_date(settings, display, stages, days, readers, parsing, fingerprint)
    (home.reports / UNFINISHED).unlink()
    return report


def _bring_up_to_date(
    settings: Settings,
    display: Display,
    stages: Stages,
    days: list[str],
    readers: taking.Readers,
    parsing: warehouse.Parsing | None,
    fingerprint: str,
) -> RunReport:
    home = settings.home
    dagster_home(home)
    warehouse.export_environment(home)
    parsing = parsing or warehouse.parse(home)
    # Imports take seconds: have them done while the readers are at work and dbt parses.
    threading.Thread(target=_import_ahead, daemon=True).start()
    with stages.stage("load the graph"):
        manifest = warehouse.manifest(home, parsing)
        from orchestration.graph import Graph

        graph = Graph(settings, manifest, display, readers)
    checks = CheckCounts()
    failed: RunError | None = None
    try:
        for block in graph.blocks(days):
            stages.times += graph.take(block, checks)
    except RunError as error:
        failed = error
    if not sum(row.rows for row in source_rows(home)):  # then a check that failed for it is not the news
        raise RunError(
            f"landed files: expected rows that can be read, found none in {len(days)} days of files. "
            "See why with `troth quarantine list`.",
            NOTHING_READABLE,
        )
    if failed:
        raise failed
    stages.times += graph.bring_up_to_date(checks)
    report = RunReport(str(home.root), True, None)
    with stages.stage("sum up"):
        until = taking.known_until(home)
        report.known_until = until.isoformat() if until else None
        report.sources = source_rows(home)
        report.identities, report.customers = identity_counts(home)
        report.stock = stock_rows(home)
        report.ledger = graph.told("ledger")
        report.resolution, report.duplicates = graph.told("resolution"), duplicates_row(home)
        report.belief = graph.told("belief")
        report.features, report.models, report.segments = (
            graph.told("features"),
            graph.told("models"),
            graph.told("segments"),
        )
    report.checks, report.stages, report.fingerprint = checks, stages.complete(), fingerprint
    write_atomically(home.reports / LAST_RUN, msgspec.json.format(msgspec.json.encode(report)))
    return report


def is_new(home: Home) -> bool:
    """Whether nothing has landed and nothing was ever taken: the only home that a sample may be written into."""
    landed = (path for path in files_below(home.landing) if path.is_file())
    return next(landed, None) is None and next(home.taken.glob("*/*.json"), None) is None


def sample_scale() -> "Scale":
    """The small retailer up to the other day, so that ages and expiries are those of a running shop, late files included."""
    import simulator

    small = simulator.SCALES["small"]
    first_day = (datetime.now(UTC) - timedelta(days=small.days + DAYS_FOR_LATE_FILES)).date()
    return dataclasses.replace(small, first_day=first_day)


def write_sample(home: Home, scale: "Scale", advance: Callable[[str, int, int], None]) -> None:
    """Land a generated retailer in a new home, whole or not at all."""
    import simulator

    simulator.simulate_whole(home, scale, SAMPLE_SEED, advance)


def _fingerprint() -> str:
    """What results depend on besides landed files: readers, SQL, policy, features, models. Any change is something new."""
    digest = hashlib.sha256(f"{taking.READER_VERSION} {warehouse.project_fingerprint()}".encode())
    root = Path(__file__).resolve().parent.parent
    for room in ("consent", "feature_repo", "models", "orchestration", "troth"):
        for path in sorted((root / room).rglob("*")):
            if path.suffix in (".py", ".yml"):
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _import_ahead() -> None:
    with contextlib.suppress(ImportError):  # the step that needs it will say so
        import dagster_dbt  # noqa: F401
        import great_expectations  # noqa: F401
