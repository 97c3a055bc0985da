"""Dagster's own storage, inside the home: run history, event log, concurrency. Telemetry is off."""

import os
from pathlib import Path

from troth.home import Home, write_atomically
from troth.settings import silence_telemetry

CONFIGURATION = """\
telemetry:
  enabled: false
# No sign-up dialog over a colleague's first look at the graph.
nux:
  enabled: false
event_log_storage:
  module: orchestration.event_log
  class: BatchingSqliteEventLogStorage
  config:
    base_dir: {root}/history/runs
# No capture of what steps print: it costs two processes a step, and they complain loudly of Ctrl-C.
compute_logs:
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
concurrency:
  pools:
    # One pool, `warehouse`: DuckDB has one writer.
    default_limit: 1
"""


def dagster_home(home: Home) -> Path:
    """Write dagster.yaml and point this process (and `dagster dev` started from it) at the home's instance."""
    silence_telemetry()
    home.dagster.mkdir(parents=True, exist_ok=True)
    text = CONFIGURATION.format(root=home.dagster).encode()
    path = home.dagster / "dagster.yaml"
    if not path.exists() or path.read_bytes() != text:
        write_atomically(path, text)
    os.environ["DAGSTER_HOME"] = str(home.dagster)
    # Events of one step are written together (see event_log.py).
    os.environ["DAGSTER_EVENT_BATCH_SIZE"] = "500"
    return home.dagster
