"""Callers of a service on this machine: connections that are kept, and what the service's processes take meanwhile."""

import selectors
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Any

_PATIENCE = 60
_MOST = 1 << 18


def request(path: str, body: bytes, key: str | None = None) -> bytes:
    """A POST of JSON as it goes over the wire."""
    bearer = f"Authorization: Bearer {key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nHost: shop\r\n{bearer}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Caller:
    """One connection that is kept. An answer is taken as it comes, and only its length is looked at."""

    __slots__ = ("_answer", "_missing", "began", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), _PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began, self._answer, self._missing = 0.0, b"", -1

    def ask(self, sent: bytes) -> None:
        self._answer, self._missing = b"", -1
        self.began = time.perf_counter()
        self.socket.sendall(sent)

    def is_answered(self) -> bool:
        """Take what has come. Raises: SystemExit for any other answer than 200."""
        part = self.socket.recv(_MOST)
        if not part:
            raise SystemExit("callers: expected an answer, found the connection closed.")
        self._answer += part
        if self._missing < 0:
            end = self._answer.find(b"\r\n\r\n")
            if end < 0:
                return False
            head = self._answer[:end].lower()
            if not head.startswith(b"http/1.1 200"):
                raise SystemExit(f"callers: expected 200, found {self._answer[:300]!r}.")
            self._missing = end + 4 + int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        return len(self._answer) >= self._missing

    def answer(self, sent: bytes) -> bytes:
        """Ask, wait, and tell the body."""
        self.ask(sent)
        while not self.is_answered():
            pass
        return self._answer.partition(b"\r\n\r\n")[2]


def asked(
    port: int, requests: Iterable[bytes], callers: int, seconds: float | None = None
) -> tuple[list[float], float]:
    """Milliseconds of each request, sorted, and the seconds all of them took; every caller asks again as soon as it is answered.

    It ends with the requests, or after so many `seconds`. All callers are one thread, which costs a third of a coroutine each.
    """
    times: list[float] = []
    queue = iter(requests)
    lines = [Caller(port) for _ in range(callers)]
    with selectors.DefaultSelector() as ready:
        for line in lines:
            ready.register(line.socket, selectors.EVENT_READ, line)
        began = time.perf_counter()
        waiting = 0
        for line, sent in zip(lines, queue, strict=False):
            line.ask(sent)
            waiting += 1
        until = began + seconds if seconds is not None else float("inf")
        now = began
        while waiting:
            for found, _ in ready.select():
                line = found.data
                if not line.is_answered():
                    continue
                now = time.perf_counter()
                times.append((now - line.began) * 1e3)
                following = next(queue, None) if now < until else None
                if following is None:
                    waiting -= 1
                else:
                    line.ask(following)
    for line in lines:
        line.socket.close()
    return sorted(times), now - began


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def workers(pid: int) -> list[Any]:
    import psutil

    return [each for each in psutil.Process(pid).children() if "spawn_main" in " ".join(each.cmdline())]


def processor(pids: Sequence[int]) -> list[float]:
    """Seconds of processor each process has used, and what it started and waited for."""
    import psutil

    return [sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids]
