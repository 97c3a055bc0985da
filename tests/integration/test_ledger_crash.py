"""`kill -9` at any moment: every acknowledged event is there once, and the root re-derives."""

import random
import subprocess
import sys
import time
from pathlib import Path

from tests.unit.consent.builders import open_ledger

ROOT = Path(__file__).parents[2]
WRITER = """
import sys, random
from pathlib import Path
from tests.unit.consent.builders import events, open_ledger

chance = random.Random(int(sys.argv[2]))
with open_ledger(Path(sys.argv[1])) as ledger:
    print("open", flush=True)
    while True:
        batch = events(chance.randint(1, 40), first=max(0, ledger.size - chance.randint(0, 5)))
        ledger.append(batch)
        print(*(event.signal_id for event in batch), flush=True)
"""


def test_killed_again_and_again_it_keeps_every_acknowledged_event_once(tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    for seed in range(6):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(seed)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "open\n"
            time.sleep(random.Random(seed).uniform(0.01, 0.15))
            writer.kill()
            # What was printed was acknowledged; a line cut off by the kill may end in half a name.
            lines = writer.stdout.read().split("\n")[:-1]
        acknowledged.update(signal for line in lines for signal in line.split())
        with open_ledger(tmp_path) as ledger:
            ledger.verify()
            kept = [recorded.event.signal_id for recorded in ledger.events()]
        assert len(kept) == len(set(kept))
        assert acknowledged <= set(kept)
    assert acknowledged
