"""A process that writes to a ledger on a disk that fails at the k-th call, again and again in forks of itself.

`python -m tests.integration.failing_writer` reads a JSON request a line and answers a JSON report a line. In a fork it opens, appends, erases,
wraps keys anew and closes; whatever raises is done again. What was acknowledged goes up a pipe, so that it outlives a kill.
"""

import json
import os
import random
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from consent.errors import LedgerError
from consent.events import Event
from consent.ledger.keyring import KeyRing
from consent.ledger.ledger import Ledger
from tests.integration.disk import Answer, Call, Fault, watched
from tests.unit.consent.builders import ALMA, KEK, MONDAY, SIGNER, erasure, event, events, subject
from troth.clock import FixedClock

OTHER_KEK = bytes(range(64, 96))
ERASED = "erased"
_TRIES = 3  # of one thing: the fault, a lasting one, and without it


@dataclass
class Disk:
    """Answers every call; from the `at`-th on something goes wrong, once or until it is repaired."""

    at: int
    fault: Fault
    is_lasting: bool = False
    count: int = 0
    is_repaired: bool = False
    seen: list[Call] = field(default_factory=list)

    def answer(self, call: Call) -> Fault:
        self.count += 1
        if self.is_repaired or not self.at or self.count < self.at:
            return Fault.NONE
        if self.is_lasting:
            return self.fault
        if self.fault is Fault.HALF and self.count == self.at + 1:
            return Fault.DISK_FULL
        return self.fault if self.count == self.at else Fault.NONE


def said(seed: int, first: int) -> Iterator[list[Event]]:
    """What is appended: batches that overlap, of Alma, Bea and others."""
    chance = random.Random(seed)
    at = first
    for _ in range(3):
        count = chance.randint(1, 25)
        batch = events(count, max(0, at - chance.randint(0, 3)))
        yield [*batch, event(MONDAY, subject_id=subject(chance.randint(1, 9)), signal_id=f"other-{at}")]
        at += count


def open_with(folder: Path, keks: list[bytes]) -> Ledger:
    return Ledger.open(folder / "ledger.db", SIGNER, KeyRing(keks), FixedClock(MONDAY))


def work(folder: Path, seed: int, first: int, is_short: bool, disk: Disk, tell: Callable[..., None]) -> None:
    """Do everything there is to do; what raises is told, and done again with the same ledger."""

    def again(action: Callable[[], Any]) -> Any:
        for left in reversed(range(_TRIES)):
            try:
                return action()
            except LedgerError:
                tell("raised")
                disk.is_repaired = left == 1
        raise AssertionError("a repaired disk still fails")

    def append(ledger: Ledger, batch: list[Event]) -> None:
        leaves = again(lambda: ledger.append(batch))
        for each, leaf in zip(batch, leaves, strict=True):
            tell("acknowledged", each.signal_id, leaf)

    ledger = again(lambda: open_with(folder, [KEK]))
    batches = list(said(seed, first))
    append(ledger, batches[0])
    if not is_short:
        tell(
            "acknowledged", ERASED, again(lambda: ledger.erase(erasure(MONDAY + timedelta(days=99), signal_id=ERASED)))
        )
        append(ledger, batches[1])
        with suppress(LedgerError):
            ledger.close()
        ledger = again(lambda: open_with(folder, [OTHER_KEK, KEK]))
        again(ledger.rewrap_keys)
        append(ledger, batches[2])
    with suppress(LedgerError):
        ledger.close()


def examine(folder: Path, seed: int, first: int, acknowledged: dict[str, int]) -> None:
    """That a ledger holds everything acknowledged, where it said, once; nothing half; and takes the rest."""
    with open_with(folder, [OTHER_KEK, KEK]) as ledger:
        ledger.verify()
        kept = {recorded.leaf_index: recorded.event.signal_id for recorded in ledger.events()}
        of_alma = ledger.leaves_of(ALMA)
        is_erased = ERASED in kept.values()
        if is_erased:
            erased_at = next(leaf for leaf, signal in kept.items() if signal == ERASED)
            assert all(leaf not in kept for leaf in of_alma if leaf < erased_at), "erased, and still to be read"
        hidden = set(range(ledger.size)) - set(kept)
        assert hidden <= set(of_alma), "events that cannot be read"
        assert not hidden or is_erased, "keys destroyed without an erasure"
        assert len(set(kept.values())) == len(kept), "an event twice"
        for signal, leaf in acknowledged.items():
            assert kept.get(leaf) == signal or leaf in hidden, f"{signal} was acknowledged as leaf {leaf}"
        wanted = [each for batch in said(seed, first) for each in batch]
        leaves = ledger.append(wanted)
        for each, leaf in zip(wanted, leaves, strict=True):
            assert acknowledged.get(each.signal_id, leaf) == leaf, "an event moved"
        ledger.verify()
    assert not [path for path in folder.iterdir() if path.name.endswith(("-journal", "-wal"))], "a journal is left"


def run(request: dict[str, Any]) -> dict[str, Any]:
    """One fork: what it acknowledged, how it ended, what is wrong afterwards."""
    folder = Path(request["folder"])
    seed, first = request["seed"], request["first"]
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            disk = Disk(request["at"], Fault[request["fault"]], request["is_lasting"])
            answer: Answer = disk.answer

            def tell(*what: object) -> None:
                os.write(writing, json.dumps(what).encode() + b"\n")

            with watched(folder, answer):
                work(folder, seed, first, request["is_short"], disk, tell)
            tell("calls", disk.count)
            status = 0
        except BaseException:
            os.write(writing, json.dumps(["problem", traceback.format_exc(limit=-6)]).encode() + b"\n")
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = [json.loads(line) for line in pipe.read().split(b"\n")[:-1]]
    _, ending = os.waitpid(child, 0)
    report: dict[str, Any] = {"ending": os.waitstatus_to_exitcode(ending), "raised": told.count(["raised"])}
    report["calls"] = next((each[1] for each in told if each[0] == "calls"), 0)
    problems = [each[1] for each in told if each[0] == "problem"]
    acknowledged = {each[1]: each[2] for each in told if each[0] == "acknowledged"}
    report["acknowledged"] = len(acknowledged)
    try:
        examine(folder, seed, first, acknowledged)
    except BaseException:
        problems.append(traceback.format_exc(limit=-4))
    return {**report, "problems": problems}


if __name__ == "__main__":
    # what is imported and looked up on first use is there before the first fork
    with TemporaryDirectory() as warm, watched(Path(warm), lambda _: Fault.NONE):
        open_with(Path(warm), [KEK]).close()
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
