"""The service of a home as two workers, started on a port of this machine and ended with all its processes."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import psutil

from serving.server import LOOPBACK

PATIENCE_SECONDS = 60


class Started:
    """A service of two workers over a home."""

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

    def end(self) -> None:
        family: list[psutil.Process] = []
        with suppress(psutil.Error):
            family = self.process.children(recursive=True)
        for each in [self.process, *family]:
            with suppress(psutil.Error):
                each.kill()
        self.run.wait(PATIENCE_SECONDS)

    def is_whole(self) -> bool:
        return len(self.workers()) == 2 and self.answers()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)
