"""The service as several processes over one socket: they answer, are replaced, and end together."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from serving.server import LOOPBACK
from tests.integration.two_workers import PATIENCE_SECONDS, Started, until


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    service = Started(tmp_path)
    try:
        until(service.is_whole)
        yield service
    finally:
        service.end()


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
