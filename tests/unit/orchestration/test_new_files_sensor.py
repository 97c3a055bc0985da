import os
import subprocess
import sys
from pathlib import Path

import dagster as dg

from orchestration.assets import TRADING_DAY
from orchestration.definitions import new_files
from troth.home import Home


def land(home: Home, day: str, content: str) -> None:
    path = home.landing / "loyalty" / day / "points_1.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def look(home: Home) -> dg.SensorResult | dg.SkipReason:
    with dg.DagsterInstance.ephemeral() as instance:
        answer = new_files(home, dg.define_asset_job("take_landed"))(dg.build_sensor_context(instance))
    assert isinstance(answer, dg.SensorResult | dg.SkipReason)
    return answer


def test_nothing_new_asks_for_no_run(tmp_path: Path) -> None:
    answer = look(Home(tmp_path))
    assert isinstance(answer, dg.SkipReason)
    assert "nothing new" in str(answer.skip_message)


def test_each_day_with_new_files_gets_a_run_and_a_partition(tmp_path: Path) -> None:
    home = Home(tmp_path)
    land(home, "2026-03-03", "a\n")
    land(home, "2026-03-04", "b\n")
    answer = look(home)
    assert isinstance(answer, dg.SensorResult)
    assert [request.partition_key for request in answer.run_requests or ()] == ["2026-03-03", "2026-03-04"]
    (partitions,) = answer.dynamic_partitions_requests or ()
    assert (partitions.partitions_def_name, partitions.partition_keys) == (TRADING_DAY, ["2026-03-03", "2026-03-04"])


def test_the_same_files_ask_under_the_same_key_in_every_process(tmp_path: Path) -> None:
    """Else every tick of a restarted daemon would start the run again."""
    land(Home(tmp_path), "2026-03-03", "a\n")
    told = (
        "import sys\nfrom pathlib import Path\nfrom tests.unit.orchestration.test_new_files_sensor import look\n"
        "from troth.home import Home\nprint(look(Home(Path(sys.argv[1]))).run_requests[0].run_key)\n"
    )
    keys = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", told, str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(keys) == 1
