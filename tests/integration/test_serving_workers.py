"""The service as several processes over one socket: they answer, are replaced, and end together."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from serving.server import LOOPBACK

PATIENCE_SECONDS = 60


class Started:
    """A service of two workers over an empty home."""

    def __init__(self, root: Path) -> None:
        with socket.create_server((LOOPBACK, 0)) as listener:
            self.port = listener.getsockname()[1]
        code = f"from pathlib import Path; from serving.server import serve; from troth.home import Home; serve(Home(Path({str(root)!r})), port={self.port}, workers=2)"
        self.run = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, cwd=Path.cwd())
        self.process = psutil.Process(self.run.pid)

    def children(self, named: str) -> list[psutil.Process]:
        found = []
        for child in self.process.children():
            with suppress(psutil.Error):
                if named in " ".join(child.cmdline()):
                    found.append(child)
        return found

    def workers(self) -> list[psutil.Process]:
        return self.children("spawn_main")

    def answers(self) -> bool:
        try:
            with urlopen(f"http://{LOOPBACK}:{self.port}/openapi.json", timeout=PATIENCE_SECONDS) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def is_whole(self) -> bool:
        return len(self.workers()) == 2 and self.answers()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    service = Started(tmp_path)
    family: list[psutil.Process] = []
    try:
        until(service.is_whole)
        family = service.process.children(recursive=True)
        yield service
    finally:
        for each in [service.process, *family]:
            with suppress(psutil.Error):
                each.kill()
        service.run.wait(PATIENCE_SECONDS)


def test_workers_answer_one_that_is_killed_is_replaced_and_all_stop_when_told_to(started: Started) -> None:
    until(lambda: len(started.children("serving.intake.projector")) == 1)
    first = started.workers()
    first[0].kill()
    until(lambda: not psutil.pid_exists(first[0].pid))
    assert all(started.answers() for _ in range(20))
    until(lambda: started.is_whole() and first[0] not in started.workers())
    assert first[1] in started.workers()
    family = started.process.children(recursive=True)
    started.run.send_signal(signal.SIGTERM)
    assert started.run.wait(PATIENCE_SECONDS) == 0
    assert not psutil.wait_procs(family, PATIENCE_SECONDS)[1]
    socket.create_server((LOOPBACK, started.port)).close()


def test_no_worker_outlives_a_service_that_was_killed(started: Started) -> None:
    family = started.process.children(recursive=True)
    started.run.kill()
    assert not psutil.wait_procs(family, PATIENCE_SECONDS)[1]
    assert not started.answers()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)
