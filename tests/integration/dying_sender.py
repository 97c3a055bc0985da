"""Sends deliveries and is killed behind every step of one, each time of a new one: arguments home, destination.

A fork sends until it is killed, another goes on with what it left. This process does nothing but wait, so that what it has imported is
imported once. Prints of each delivery its id and how both forks ended.
"""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from models.segments import kept
from serving.activation import carriers, files, members, sending
from serving.activation.approving import ask
from serving.activation.deliveries import Book, deliveries
from tests.integration.activation_shop import dispatch_of
from troth.home import Home

MOST_INSTANTS = 40


class Instants:
    """Counts what was done, and dies right behind one of them, before anybody hears of it."""

    def __init__(self, dies_after: int) -> None:
        self.left = dies_after

    def follow(self, owner: Any, name: str) -> None:
        done: Callable[..., Any] = getattr(owner, name)

        def watched(*given: Any, **named: Any) -> Any:
            result = done(*given, **named)
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            return result

        setattr(owner, name, watched)


def ask_for_all(home: Home, destination: str) -> None:
    for _ in range(MOST_INSTANTS):
        ask(dispatch_of(home), "everybody", destination, "email", by="kim", why="letter")


def send(home: Home, delivery_id: str, dies_after: int | None) -> None:
    vars(files)["MOST_IN_MESSAGE"] = 4
    if dies_after is not None:
        instants = Instants(dies_after)
        for owner, name in (
            (kept, "forget"), (sending, "export"), (members, "keep_members"), (Book, "change"), (Book, "take"),
            *((each, name) for each in (carriers._Folder, carriers._Webhook) for name in ("put", "commit")),
        ):  # fmt: skip
            instants.follow(owner, name)
    sending.send(dispatch_of(home), delivery_id)


def forked(act: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        act()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(home: Home, destination: str) -> None:
    forked(partial(ask_for_all, home, destination))
    for number, each in enumerate(deliveries(home)):
        first = forked(partial(send, home, each.delivery_id, number))
        second = forked(partial(send, home, each.delivery_id, None))
        print(each.delivery_id, first, second, flush=True)
        if first == 0:
            return


if __name__ == "__main__":
    main(Home(Path(sys.argv[1])), sys.argv[2])
