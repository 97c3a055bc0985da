"""The service as a process: the first key, the address, the time it answers for."""

import sys

from serving import keys
from serving.answers import clock_of
from serving.app import create_app
from troth.clock import Clock
from troth.home import Home

LOOPBACK = "127.0.0.1"
PORT = 8400


def serve(home: Home, host: str = LOOPBACK, port: int = PORT, clock: Clock | None = None) -> None:
    """Run the service until it is stopped; one process, this machine only unless told otherwise.

    A home without keys gets one for every purpose. It is shown once, on standard error, and only its hash is kept.
    """
    import uvicorn

    told_by = clock or clock_of(home)
    key = keys.first_key(home, told_by.now())
    if key:
        sys.stderr.write(f"API key (shown once, keep it): {key}\n")
    sys.stderr.write(f"Troth answers on http://{host}:{port}, described in /openapi.json\n")
    app = create_app(home, told_by)
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, server_header=False)
