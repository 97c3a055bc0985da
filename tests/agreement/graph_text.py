"""The asset graph as sorted text: what there is, what follows from what, and when. For comparison with tests/golden/graph.txt.

Write it anew with `python -m tests.agreement.graph_text > tests/golden/graph.txt`, and read the difference before it is committed.
"""

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestration import warehouse
from troth.home import Home
from troth.settings import Settings, silence_telemetry


def parsed(home: Home) -> Path:
    """dbt's manifest of the project, made in the home: other runs keep their own."""
    target = home.root / "target"
    environment = {**os.environ, **warehouse.dbt_environment(home, None), "DBT_TARGET_PATH": str(target)}
    project = str(warehouse.PROJECT)
    arguments = ["--quiet", "parse", "--project-dir", project, "--profiles-dir", project]
    subprocess.run([warehouse.dbt_executable(), *arguments], env=environment, check=True, stdout=sys.stderr)
    return target / "manifest.json"


def lines(definitions: Any) -> Iterator[str]:
    """One line per asset, edge, check, job, schedule and sensor."""
    graph = definitions.resolve_asset_graph()
    for node in graph.asset_nodes:
        if node.is_materializable:
            days = " by trading_day" if node.partitions_def else ""
            yield f"asset {node.key.to_user_string()} in {node.group_name}{days}"
            yield from (f"edge {parent.to_user_string()} -> {node.key.to_user_string()}" for parent in node.parent_keys)
        else:
            yield f"source {node.key.to_user_string()}"
    for key in graph.asset_check_keys:
        blocking = " blocking" if graph.get(key).blocking else ""
        yield f"check {key.asset_key.to_user_string()} {key.name}{blocking}"
    repository = definitions.get_repository_def()
    for job in definitions.jobs:
        assets = repository.get_job(job.name).asset_layer.selected_asset_keys
        yield f"job {job.name} of {len(assets)} assets"
    for schedule in definitions.schedules:
        yield f"schedule {schedule.job_name} at {schedule.cron_schedule} {schedule.execution_timezone}"
    for sensor in definitions.sensors:
        yield f"sensor {sensor.name}"


def main() -> None:
    """Print the graph of a home that does not exist yet."""
    silence_telemetry()
    warnings.simplefilter("ignore")
    from orchestration.definitions import build_definitions

    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        definitions = build_definitions(Settings(home, workers=1), parsed(home))
        print("\n".join(sorted(lines(definitions))))


if __name__ == "__main__":
    main()
