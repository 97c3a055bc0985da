"""The service as a process that can be killed, and senders that do not give up: what a store's till and a shop's webhooks do.

`IntakeProcess` starts it on a port of this machine, kills it with signal 9 and starts it again over the same home; `Sender` sends
batches until each was acknowledged, and remembers which were.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"
_START_SECONDS = 60.0


def main(root: str, port: str) -> None:
    """The child: answers until it is killed."""
    import uvicorn

    from serving.app import create_app
    from troth.clock import SystemClock
    from troth.home import Home

    app = create_app(Home(Path(root)), SystemClock())
    uvicorn.run(app, host=LOOPBACK, port=int(port), log_level="error", access_log=False, lifespan="off")


class IntakeProcess:
    """A service over a home, in a process of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        with socket.create_server((LOOPBACK, 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers. Raises: RuntimeError where it does not."""
        command = [sys.executable, "-m", "tests.integration.intake_process", str(self._root), str(self.port)]
        self._process = subprocess.Popen(command)
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            try:
                socket.create_connection((LOOPBACK, self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        self.kill()
        raise RuntimeError("service: expected it to answer, found it did not. See its errors.")

    def kill(self) -> None:
        """Signal 9: nothing is said goodbye to."""
        if self._process is not None:
            if self._process.poll() is None:
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None


class Sender(threading.Thread):
    """Sends batches of events, one after another, each again and again until it is acknowledged; ends with the batch at hand."""

    def __init__(self, port: int, key: str, make: Callable[[int], list[dict[str, Any]]]) -> None:
        super().__init__(daemon=True)
        self._port, self._key, self._make = port, key, make
        self.stopping = threading.Event()
        self.acknowledged: dict[str, int] = {}  # event id: offset
        self.again = 0

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            events = self._make(number)
            answer = self._sent(events)
            self.acknowledged |= {
                sent["event_id"]: told["offset"] for sent, told in zip(events, answer["events"], strict=True)
            }
            number += 1

    def _sent(self, events: list[dict[str, Any]]) -> dict[str, Any]:
        body = json.dumps({"source_name": "tills", "events": events})
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        while True:
            connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=10)
            try:
                connection.request("POST", "/v1/events", body, headers)
                response = connection.getresponse()
                answer = json.loads(response.read())
                if response.status == 200:
                    found: dict[str, Any] = answer
                    return found
            except (OSError, http.client.HTTPException, ValueError):
                pass  # killed in the middle of it: nobody knows whether it was kept
            finally:
                connection.close()
            self.again += 1
            time.sleep(0.02)


if __name__ == "__main__":
    main(*sys.argv[1:])
