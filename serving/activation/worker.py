"""A delivery that is counted, or goes out, while nobody waits for it, in a process of its own. What stops it is in the book; the next round goes on with
what was being sent.

Run as `python -m serving.activation.worker HOME DELIVERY WHO`.
"""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from troth.errors import TrothError
from troth.home import Home

if TYPE_CHECKING:
    from serving.activation.dispatch import Dispatch

_STARTED: list["subprocess.Popen[bytes]"] = []  # until they end, so that none is left undead


def start(home: Home, delivery_id: str, by: str) -> None:
    """Begin, and do not wait. Somebody else who is at it already is left to it."""
    _STARTED[:] = [each for each in _STARTED if each.poll() is None]
    _STARTED.append(
        subprocess.Popen(
            [sys.executable, "-m", __name__, str(home.root.resolve()), delivery_id, by],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    )


def go_on(dispatch: "Dispatch", delivery_id: str, by: str) -> None:
    """Count what is to be counted, send what was let out. Raises as `sending.send`."""
    from serving.activation.approving import count
    from serving.activation.deliveries import delivery
    from serving.activation.sending import send

    if delivery(dispatch.home, delivery_id).state == "counting":
        count(dispatch, delivery_id)
    else:
        send(dispatch, delivery_id, by=by)


def main(home: Home, delivery_id: str, by: str) -> None:
    from serving.activation.dispatch import Dispatch
    from serving.answers import clock_of

    with suppress(TrothError):  # which is in the book
        go_on(Dispatch(home, clock_of(home)), delivery_id, by)


if __name__ == "__main__":
    main(Home(Path(sys.argv[1])), sys.argv[2], sys.argv[3])
