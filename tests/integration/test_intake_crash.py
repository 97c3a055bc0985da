"""What was acknowledged is kept, once, however often the service is killed."""

import random
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from serving import keys
from serving.event_log.log import open_log
from serving.intake.landing import land
from tests.integration.intake_process import IntakeProcess, Sender
from troth.home import Home

pytestmark = pytest.mark.slow
KILLS, SENDERS = 3, 3


def batches(sender: int, size: int) -> Any:
    def make(number: int) -> list[dict[str, Any]]:
        return [
            {
                "event_type": "movement",
                "event_id": f"till-{sender}/{number}/{line}",
                "movement_id": f"till-{sender}/{number}/{line}",
                "movement_type": "sale",
                "location_code": f"S{sender:03d}",
                "sku": f"SKU-{line:05d}",
                "units": -1,
                "occurred_at": "2026-03-02T10:00:00Z",
            }
            for line in range(size)
        ]

    return make


def test_acknowledged_events_are_all_there_once_and_in_order_after_kills_at_any_instant(tmp_path: Path) -> None:
    home, chance = Home(tmp_path), random.Random(5)
    key = keys.make_key(home, "tills", [], datetime(2026, 3, 1, tzinfo=UTC), ["events"])
    service = IntakeProcess(home.root)
    senders = [Sender(service.port, key, batches(number, size)) for number, size in enumerate((1, 7, 40))]
    try:
        service.start()
        for sender in senders:
            sender.start()
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.1, 0.9))
            service.kill()
            service.start()
        time.sleep(0.2)
        for sender in senders:
            sender.stopping.set()
        for sender in senders:
            sender.join(timeout=60)
    finally:
        service.kill()
    assert not any(sender.is_alive() for sender in senders)
    acknowledged = {name: offset for sender in senders for name, offset in sender.acknowledged.items()}
    assert sum(sender.again for sender in senders) >= KILLS
    log = open_log(home)
    kept = []
    while page := log.read(kept[-1].offset if kept else 0, 1_000):
        kept += page
    assert [event.offset for event in kept] == list(range(1, len(kept) + 1))
    assert {event.event_id: event.offset for event in kept} == acknowledged
    for sender in range(SENDERS):
        numbers = [int(event.event_id.split("/")[1]) for event in kept if event.event_id.startswith(f"till-{sender}/")]
        assert numbers == sorted(numbers)
    assert land(log, home).events == len(kept)
    log.close()
    lines = b"".join(path.read_bytes() for path in home.landing.rglob("*.jsonl")).splitlines()
    assert len(lines) == len(kept)
