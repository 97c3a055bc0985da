"""The asset graph as `troth run` drives it: in this process, on the home's own Dagster instance, with its checks counted."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.assets import TRADING_DAY
from orchestration.definitions import AVAILABILITY_CYCLE, RAW, build_definitions, resources
from orchestration.errors import STEP_FAILED, RunError
from orchestration.progress import Display
from orchestration.resources import Reporter
from orchestration.taking import Readers
from serving.operations.runs import CheckCounts, StageTime
from troth.settings import Settings

FIRST, LAST = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Graph:
    """Definitions and instance of one home, and what its steps told while they ran."""

    def __init__(self, settings: Settings, manifest: Path, display: Display, readers: Readers) -> None:
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        logging.getLogger("dagster").setLevel(logging.CRITICAL)
        self._reporter = Reporter(display.advance)
        definitions = build_definitions(settings, manifest)
        self._assets = [asset for asset in definitions.assets or () if isinstance(asset, dg.AssetsDefinition)]
        self._resources = resources(settings, self._reporter, readers)
        self._instance = dg.DagsterInstance.get()

    def told(self, subject: str) -> Any:
        return self._reporter.told[subject]

    def blocks(self, days: Sequence[str]) -> list[list[str]]:
        """Days grouped into runs of neighbours, as Dagster orders its partitions: one backfill each."""
        known = self._instance.get_dynamic_partitions(TRADING_DAY)
        new = [day for day in days if day not in known]
        self._instance.add_dynamic_partitions(TRADING_DAY, new)
        place = {day: i for i, day in enumerate(self._instance.get_dynamic_partitions(TRADING_DAY))}
        blocks: list[list[str]] = []
        for day in sorted(days, key=place.__getitem__):
            if blocks and place[day] == place[blocks[-1][-1]] + 1:
                blocks[-1].append(day)
            else:
                blocks.append([day])
        return blocks

    def take(self, days: Sequence[str], checks: CheckCounts) -> list[StageTime]:
        """Raw tables for neighbouring days, as one backfill."""
        return self._run(RAW, {FIRST: days[0], LAST: days[-1]}, checks)

    def bring_up_to_date(self, checks: CheckCounts) -> list[StageTime]:
        """Everything after the raw tables."""
        return self._run(dg.AssetSelection.all() - RAW, {}, checks)

    def recompute_availability(self, checks: CheckCounts) -> list[StageTime]:
        """What availability rests on, and it; published and online."""
        return self._run(AVAILABILITY_CYCLE, {}, checks)

    def _run(self, selection: dg.AssetSelection, tags: dict[str, str], checks: CheckCounts) -> list[StageTime]:
        result = dg.materialize(
            self._assets,
            instance=self._instance,
            resources=self._resources,
            selection=selection,
            tags=tags,
            run_config=QUIET,
            raise_on_error=False,
        )
        for check in result.get_asset_check_evaluations():
            if check.passed:
                checks.passed += 1
            elif check.severity == dg.AssetCheckSeverity.ERROR:
                checks.failed += 1
                checks.failures.append(f"{check.asset_key.to_user_string()} {check.check_name}")
        if _was_interrupted(result):
            raise KeyboardInterrupt
        if not result.success:
            raise RunError(_why(result, checks), STEP_FAILED)
        steps = sorted(self._instance.get_run_step_stats(result.run_id), key=lambda step: step.start_time or 0)
        return [
            StageTime(step.step_key.replace("_", " "), round(step.end_time - step.start_time, 2))
            for step in steps
            if step.start_time and step.end_time
        ]


def _was_interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Dagster makes a failed step of Ctrl-C; it is not the step's fault."""
    failures = (event.step_failure_data.error for event in result.all_events if event.is_step_failure)
    return any(error and error.cls_name == "DagsterExecutionInterruptedError" for error in failures)


def _why(result: dg.ExecuteInProcessResult, checks: CheckCounts) -> str:
    """The failed checks, or the failed steps with their errors: what was expected and found is in them."""
    lines = [f"check failed: {failure}" for failure in checks.failures]
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            cause = error.cause if error and error.cause else error
            lines.append(f"step {event.step_key}: {cause.message.strip() if cause else 'failed'}")
    return (
        "run: expected every step and blocking check to pass, found failures. Mend them and run again.\n"
        + "\n".join(lines)
    )
