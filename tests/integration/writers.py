"""Starts forks of `forking_writer.py` and listens to them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Writers:
    """The process that forks, and what its forks say."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def start(self, place: str, seed: int, writers: int = 1, batches: int = 1_000_000) -> None:
        assert self._process.stdin is not None
        request = {"place": place, "seed": seed, "writers": writers, "batches": batches}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def heard(self) -> Iterator[list[Any]]:
        """Who says what, until all forks have ended. What they say after a kill counts: it was acknowledged before."""
        assert self._process.stdout is not None
        problems = []
        for line in self._process.stdout:
            said = json.loads(line)
            if said[1] == "problem":
                problems.append(said[2])
            elif said[1] != "over":
                yield said
            else:
                break
        assert not problems, "\n".join(problems)


@contextmanager
def forking_process() -> Iterator[Writers]:
    command = [sys.executable, "-m", "tests.integration.forking_writer"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Writers(process)
