"""A witness on loopback, as a server of its own thread."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from consent.log.witness import Witness, witness_app

LOOPBACK = "127.0.0.1"


@contextmanager
def served(witness: Witness) -> Iterator[str]:
    """The witness's address on loopback."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(witness_app(witness), log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)
