"""`troth stock cycle`, every 15 minutes: what came in is landed and read, availability recomputed, published and announced. Composition only."""

from dataclasses import dataclass, field

import msgspec

from orchestration import taking, warehouse
from orchestration.catalog import SOURCES
from orchestration.errors import NOTHING_READABLE, RunError
from orchestration.instance import dagster_home
from orchestration.near_time import known_offset, land_log
from orchestration.progress import Display
from orchestration.run import Stages
from serving.operations.runs import UNFINISHED, CheckCounts, StageTime, unfinished
from troth.home import write_atomically
from troth.settings import Settings


@dataclass
class CycleReport:
    """What a cycle did. `offset`: up to where the warehouse knows the stream now."""

    home: str
    landed_events: int
    days_read: list[str]
    offset: int
    checks: CheckCounts = field(default_factory=CheckCounts)
    stages: list[StageTime] = field(default_factory=list)


def cycle(settings: Settings, display: Display) -> CycleReport:
    """Land, read, recompute availability, publish and announce it. Days it read are judged in whole by the next full run.

    Raises: RunError when nothing was ever read, or a step or blocking check failed.
    """
    home, stages = settings.home, Stages(display)
    with stages.stage("land what came in"):
        landed = land_log(home)
    with stages.stage("look for new files"):
        plans = [plan for source in SOURCES for plan in taking.plan(home, source.name)]
    if not plans and not any(home.taken.glob("*/*.json")):
        raise RunError(
            f"landed files: expected some under {home.landing}, found none. Run `troth run` first.", NOTHING_READABLE
        )
    days = sorted({plan.day for plan in plans})
    write_atomically(home.reports / UNFINISHED, msgspec.json.encode(sorted({*(unfinished(home) or ()), *days})))
    report = CycleReport(str(home.root), landed.events, days, 0)
    with taking.Readers(home, settings.workers) as readers:
        readers.begin(plans)
        dagster_home(home)
        warehouse.export_environment(home)
        with stages.stage("load the graph"):
            manifest = warehouse.manifest(home, warehouse.parse(home))
            from orchestration.graph import Graph

            graph = Graph(settings, manifest, display, readers)
        for block in graph.blocks(days):
            stages.times += graph.take(block, report.checks)
        stages.times += graph.recompute_availability(report.checks)
    report.offset = known_offset(home)
    report.stages = stages.complete()
    return report
