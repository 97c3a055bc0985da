"""`troth serve` on a home, as a process."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.callers import free_port
from serving import keys
from tests.agreement.committed import ROOT
from troth.clock import SystemClock
from troth.home import Home

PATIENCE = 120.0  # a machine can be busy


@dataclass(frozen=True)
class Service:
    """Where it answers, and a key that may do everything but what staff may."""

    home: Home
    address: str
    key: str

    def link(self, kind: str) -> str:
        """Address of a page of somebody's own, as a system asks for it."""
        about = {} if kind == "preferences" else {"purpose_code": "marketing", "channel_code": "email"}
        identifier = {"type": "email", "value": "alma@pier.example"}
        answer = httpx.post(
            f"{self.address}/v1/links",
            json={"links": [{"kind": kind, "identifier": identifier, **about}]},
            headers={"Authorization": f"Bearer {self.key}"},
        )
        assert answer.status_code == 200, answer.text
        path: str = answer.json()["links"][0]["path"]
        return self.address + path


@contextmanager
def running(home: Home) -> Iterator[Service]:
    """The service of a home until the end of the block."""
    key = keys.make_key(home, "browser", keys.ALL_PURPOSES, SystemClock().now(), keys.SCOPES)
    port = free_port()
    log = Path(home.root / "serve.log")
    command = [sys.executable, "-m", "orchestration.cli", "serve", "--port", str(port), "--home", str(home.root)]
    with log.open("wb") as out:
        child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
    try:
        while True:
            try:
                httpx.get(f"{address}/console/sign-in")
                break
            except httpx.TransportError:
                assert child.poll() is None, log.read_text()
                assert time.monotonic() < until, "service: expected an answer, found none. See its log."
                time.sleep(0.05)
        yield Service(home, address, key)
    finally:
        child.terminate()
        child.wait(30)
