"""The service as a process of its own: what it imports, and that it answers over a socket."""

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import uvicorn

from consent.ledger.opening import open_ledger
from serving import keys
from serving.app import create_app
from serving.server import LOOPBACK
from tests.unit.feature_repo.published_home import ADA, STANDING, view_frame
from tests.unit.serving.open_shop import AT, open_shop
from troth.clock import FixedClock

SLOW_TO_IMPORT = (
    "feast",
    "polars",
    "pandas",
    "numpy",
    "pyarrow",
    "duckdb",
    "sklearn",
    "dagster",
    "dbt",
    "orchestration",
)


def test_answers_are_imported_without_anything_slow() -> None:
    code = "import sys, serving.answers, feature_repo.reads; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd(), timeout=60
    )
    assert {name.split(".")[0] for name in run.stdout.split()}.isdisjoint(SLOW_TO_IMPORT)


def test_the_service_is_imported_without_dagster_or_feast() -> None:
    code = "import sys, serving.app; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd(), timeout=60
    )
    assert {name.split(".")[0] for name in run.stdout.split()}.isdisjoint(
        ("feast", "dagster", "dbt", "orchestration", "pandas")
    )


def test_the_service_answers_over_a_socket_from_many_threads(tmp_path: Path) -> None:
    decided = view_frame("subject_standing", [row | {"ledger_size": 0} for row in STANDING])
    home = open_shop(tmp_path, ftr_subject_standing=decided).home
    open_ledger(home, FixedClock(AT)).close()
    key = keys.first_key(home, AT)
    with socket.create_server((LOOPBACK, 0)) as listener:
        config = uvicorn.Config(create_app(home, FixedClock(AT)), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        address = f"http://{LOOPBACK}:{listener.getsockname()[1]}/v1/customers/{ADA}/features?service=recommend_v1"
        found: list[int] = []

        def ask() -> None:
            with urlopen(Request(address, headers={"Authorization": f"Bearer {key}"}), timeout=30) as response:
                found.append(json.load(response)["features"]["net_cents_90d"])

        callers = [threading.Thread(target=ask) for _ in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        server.should_exit = True
        thread.join(timeout=30)
    assert found == [12_345] * 8


def test_the_first_start_shows_a_key_once_and_listens_to_this_machine_only(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
    code = f"from pathlib import Path; from serving.server import serve; from troth.home import Home; serve(Home(Path({str(tmp_path)!r})), port={port})"
    shown = []
    for _ in range(2):
        run = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, cwd=Path.cwd())
        assert run.stderr is not None
        lines = [run.stderr.readline()]
        if "API key" in lines[0]:
            lines.append(run.stderr.readline())
        run.terminate()
        run.communicate(timeout=30)
        shown.append(lines)
    assert [len(lines) for lines in shown] == [2, 1]
    assert shown[0][0].startswith("API key (shown once, keep it): troth_")
    assert f"http://127.0.0.1:{port}" in shown[1][0]


def test_a_service_told_to_stop_says_it_is_not_ready_before_it_goes(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
    code = f"from pathlib import Path; from serving.server import serve; from troth.home import Home; serve(Home(Path({str(tmp_path)!r})), port={port}, drain_seconds=2)"
    run = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert run.stderr is not None
    while "Troth answers" not in run.stderr.readline():
        assert run.poll() is None
    until = time.monotonic() + 60
    assert "stopping" not in asked_until_it_answers(port, until)
    run.terminate()
    while "stopping" not in asked_until_it_answers(port, until):
        time.sleep(0.05)
    run.communicate(timeout=60)
    assert run.returncode == 0


def asked_until_it_answers(port: int, until: float) -> list[str]:
    while True:
        try:
            with urlopen(f"http://{LOOPBACK}:{port}/v1/ready", timeout=30) as response:
                return list(json.load(response)["reasons"])
        except HTTPError as error:
            return list(json.load(error)["reasons"])
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.05)
