"""Erases a person from a home and is killed after every step, before the step is written down: arguments home, subject, time.

Each time a fork of this process takes the erasure up where the one before was killed. It itself does nothing but wait, so
that what it has imported is imported once. Prints how each fork ended.
"""

import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestration.rights import erasing
from troth.clock import FixedClock
from troth.home import Home


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def erase_until(number: int, home: Home, subject: str, at: datetime) -> None:
    """Do everything up to a step and die there; the number after the last step is the certificate."""
    steps = list(erasing.STEPS)
    if number < len(steps):
        name, step = steps[number]

        def last(*given: Any) -> None:
            step(*given)
            die()

        steps[number] = (name, last)
        erasing.STEPS = tuple(steps)
    else:
        vars(erasing)["sign_certificate"] = die
    begun = [path.name for path in (home.root / erasing.FOLDER).glob("req_*")]
    erasing.erase(home, FixedClock(at), [] if begun else [subject], request_id=begun[0] if begun else None)


def main(home: Home, subject: str, at: datetime) -> None:
    for number in range(len(erasing.STEPS) + 1):
        child = os.fork()
        if child == 0:
            erase_until(number, home, subject, at)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(f"-{signal.Signals(-code).name}" if code < 0 else code, flush=True)


if __name__ == "__main__":
    main(Home(Path(sys.argv[1])), sys.argv[2], datetime.fromisoformat(sys.argv[3]))
