"""Processes that append to one ledger, forked from one that has imported everything.

`python -m tests.integration.forking_writer` reads a JSON request a line: where, how many writers, which seed, how much. Every fork
says its number when it is there, then what was acknowledged: signals and their leaves. `over` follows when all forks have ended.
"""

import json
import os
import random
import sys
import traceback
from importlib import import_module
from typing import Any

from tests.unit.consent.builders import MONDAY, erasure, event, events, open_ledger_at, subject

ERASED = "erased-"


def write(place: str, number: int, seed: int, batches: int) -> None:
    """Append batches that overlap with those of every other writer; now and then erase somebody. Says what is acknowledged."""
    chance = random.Random(seed * 100 + number)
    with open_ledger_at(place) as ledger:
        say(number, "open")
        for at in range(batches):
            if chance.random() < 0.1:
                who = chance.randint(1, 5)
                signal = f"{ERASED}{number}-{seed}-{at}"
                say(number, "told", signal, ledger.erase(erasure(MONDAY, subject(who), signal)))
                continue
            batch = events(chance.randint(1, 30), chance.randint(0, 20) + at * 20)
            who = chance.randint(1, 5)
            batch.append(event(subject_id=subject(who), signal_id=f"other-{who}-{at}"))
            chance.shuffle(batch)
            leaves = ledger.append(batch)
            said = [part for each, leaf in zip(batch, leaves, strict=True) for part in (each.signal_id, leaf)]
            say(number, "told", *said)


def say(*what: object) -> None:
    """A line at once; short enough that lines of several processes do not mix."""
    os.write(1, json.dumps(what).encode() + b"\n")


def fork(number: int, request: dict[str, Any]) -> int:
    child = os.fork()
    if not child:
        try:
            say(number, "pid", os.getpid())
            write(request["place"], number, request["seed"], request["batches"])
        except BaseException:
            say(number, "problem", traceback.format_exc(limit=-3))
        finally:
            os._exit(0)
    return child


if __name__ == "__main__":
    for needed in ("alembic.command", "psycopg", "sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.sqlite"):
        import_module(needed)
    for line in sys.stdin:
        asked = json.loads(line)
        children = [fork(number, asked) for number in range(asked["writers"])]
        for child in children:
            os.waitpid(child, 0)
        say(0, "over")
