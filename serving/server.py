"""The service as processes: the first key, the address, the time it answers for, the thread that tells webhooks, the projector beside it."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from serving import keys
from serving.answers import clock_of
from serving.app import create_app
from serving.hub import delivery
from serving.hub.routes import Hub
from serving.hub.seams import Seams
from serving.operations.post import Post
from troth.clock import Clock, FixedClock, SystemClock
from troth.errors import TrothError
from troth.home import Home

if TYPE_CHECKING:
    from starlette.applications import Starlette

LOOPBACK = "127.0.0.1"
PORT = 8400
DRAIN_SECONDS = 1.0
_PAUSE_SECONDS = 0.2
_MOST_SAID = 2_000  # bytes of a projector's last words
_PROJECTOR_SECONDS = 5  # for a projector to end; and between two of them
_GRACE_SECONDS = 20  # for requests that are being answered when the service is stopped
_SILENCE_SECONDS = 10  # a worker that says nothing for so long is replaced: machines can be that busy


class ElapsingClock:
    """Goes on from a time at the pace of the machine's clock: for a generated retailer, whose people may still choose."""

    def __init__(self, start: datetime) -> None:
        self._start = start
        self._started = time.monotonic()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=time.monotonic() - self._started)


def serve(
    home: Home,
    host: str = LOOPBACK,
    port: int = PORT,
    clock: Clock | None = None,
    rights: Callable[[Home], Seams] | None = None,
    workers: int = 1,
    drain_seconds: float = DRAIN_SECONDS,
) -> None:
    """Run the service until it is stopped; this machine only unless told otherwise.

    `rights`: who hands out what is held about a person, takes a request for erasure in, and does what requests ask; a function of a module.
    `workers`: processes that answer at one address. More than one are started anew, so whoever calls this from a file of their own
    guards it with `if __name__ == "__main__"`. One that dies is replaced; none outlives this process. Projector and webhooks stay with this one.
    `drain_seconds`: told to stop (SIGTERM), it is not ready from then on, goes on answering for so long, and then lets requests run out.
    A home without keys gets one for every purpose and scope. It is shown once, on standard error, and only its hash is kept.
    """
    told_by = clock or clock_of(home)
    key = keys.first_key(home, told_by.now())
    if key:
        sys.stderr.write(f"API key (shown once, keep it): {key}\n")
    hub = _hub(home, hub_clock(home, told_by), rights)
    run = bound(home, host, port, told_by, hub, rights, workers, drain_seconds)
    sys.stderr.write(f"Troth answers on http://{host}:{port}, described in /openapi.json\n")
    stop = threading.Event()
    telling = threading.Thread(target=tell, args=(hub, stop), name="webhooks", daemon=True)
    telling.start()
    projecting = threading.Thread(target=project, args=(home, stop), name="projector", daemon=True)
    projecting.start()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # told to stop: what is below is still done
    try:
        run()
    except KeyboardInterrupt:
        pass
    finally:
        stop.set()
        telling.join(timeout=delivery.DEADLINE_SECONDS)
        projecting.join(timeout=_PROJECTOR_SECONDS)
        hub.close()


def bound(
    home: Home, host: str, port: int, told_by: Clock, hub: Hub, rights: Callable[[Home], Seams] | None = None, workers: int = 1,
    drain_seconds: float = DRAIN_SECONDS,
) -> Callable[[], None]:  # fmt: skip
    """The address taken, and what answers there until it is stopped: this process, or so many workers that it starts and looks after."""
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    alone = workers == 1
    config = uvicorn.Config(
        create_app(home, told_by, hub, post=Post(home, drain_seconds=drain_seconds))
        if alone
        else partial(_worker, home, told_by, hub.clock, rights, drain_seconds),
        host=host,
        port=port,
        factory=not alone,
        workers=workers,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        timeout_worker_healthcheck=_SILENCE_SECONDS,
    )
    config.get_loop_factory()  # imported before anybody can tell us to stop: an interrupted import of C code may swallow that
    taken = config.bind_socket()
    if alone:
        return partial(uvicorn.Server(config).run, [taken])
    family, address = taken.family, taken.getsockname()
    taken.close()
    listeners: list[socket.socket] = [_listener(family, address)]
    return lambda: Multiprocess(config, listeners).run()  # made when it is run, for it takes the signals over


class _Listener(socket.socket):
    """A socket that becomes another one at the same address in another process, so that the kernel shares connections out among them.

    One socket for all would not do: whoever wakes first takes all who wait, and has them for as long as they stay.
    """

    def __reduce__(self) -> Any:
        return _listener, (self.family, self.getsockname())


def _listener(family: int, address: Any) -> _Listener:
    found = _Listener(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found.bind(address)
    return found


def _hub(home: Home, clock: Clock, rights: Callable[[Home], Seams] | None) -> Hub:
    hub = Hub(home, clock)
    if rights:
        hub.seams = replace(rights(home), receipt=hub.seams.receipt)
    return hub


def _worker(
    home: Home, told_by: Clock, chosen_at: Clock, rights: Callable[[Home], Seams] | None, drain_seconds: float
) -> "Starlette":
    """The service in a process that another one started; it ends with that one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), name="parent", daemon=True).start()
    return create_app(home, told_by, _hub(home, chosen_at, rights), post=Post(home, drain_seconds=drain_seconds))


def _end_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def project(home: Home, stop: threading.Event) -> None:
    """Keep a projector running beside the service, in a process of its own, until told to stop.

    Where another process projects this home already, that one is left to it, and looked after again when it ends.
    """
    said = b""
    while not stop.is_set():
        command = [sys.executable, "-m", "serving.intake.projector", str(home.root), str(os.getpid())]
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while child.poll() is None and not stop.wait(_PAUSE_SECONDS):
            pass
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(_PROJECTOR_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
        told = child.communicate()[1][-_MOST_SAID:]
        if told != said and not stop.is_set():
            sys.stderr.write(told.decode(errors="replace"))  # once, however often it is tried again
        said = told
        stop.wait(_PROJECTOR_SECONDS)


def hub_clock(home: Home, told_by: Clock) -> Clock:
    """The time people choose at. Where time stands still a later no could not be told from an earlier one, so there it
    goes on, from what is answered for or from the newest event, whichever is later."""
    if not isinstance(told_by, FixedClock):
        return told_by
    from consent.ledger.opening import has_ledger, open_ledger

    start = told_by.now()
    if has_ledger(home):
        with open_ledger(home, told_by) as ledger:
            newest = max((each.event.received_at for each in ledger.events(max(0, ledger.size - 1))), default=start)
        start = max(start, newest + timedelta(microseconds=1))
    return ElapsingClock(start)


def tell(hub: Hub, stop: threading.Event, pause_seconds: float = 1.0) -> None:
    """Deliver webhooks until told to stop. A home without destinations is left alone."""
    while not stop.wait(pause_seconds):
        if not hub.has_destinations():
            continue
        try:
            delivery.run(hub.pump(SystemClock()), stop, pause_seconds)
        except (TrothError, OSError):
            continue  # not readable now: tried again
