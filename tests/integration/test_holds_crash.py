"""`kill -9` in the middle of holding, of who holds and of the server it holds in: what was acknowledged is held, and no more than is free."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.integration.held import AT, closing, opened
from tests.integration.postgres import break_down, running_server
from tests.integration.redis_server import running_redis

ROOT = Path(__file__).parents[2]
SKUS = ["bulb", "kettle"]
KILLS = 3


def test_in_sqlite_what_a_killed_process_was_told_is_held(tmp_path: Path) -> None:
    place = str(tmp_path / "stock.db")
    _stock(place)
    told: set[str] = set()
    for kill in range(KILLS):
        told |= _held_until(place, f"k{kill}", 25 + 9 * kill)
        _examine(place, told)


def test_in_postgresql_what_was_told_is_held_after_a_crash_of_process_or_server() -> None:
    with running_server() as server:
        place = server.get_uri()
        _stock(place)
        told = _held_until(place, "k0", 25)
        _examine(place, told)
        told |= _held_until(place, "k1", 25, lambda: break_down(server))
        server.ensure_postgres_running()
        _examine(server.get_uri(), told)


def test_in_redis_what_was_told_is_held_after_a_crash_of_process_or_server() -> None:
    with running_redis() as server:
        _stock(server.address)
        told = _held_until(server.address, "k0", 25)
        _examine(server.address, told)
        for kill in range(1, KILLS):
            told |= _held_until(server.address, f"k{kill}", 25 + 9 * kill, server.kill)
            server.start()
            _examine(server.address, told)


def _stock(place: str) -> None:
    with closing(opened(place)) as store:
        store.set_free([("mitte", sku, 100_000) for sku in SKUS], 1)


def _held_until(place: str, prefix: str, least: int, crash: Callable[[], None] | None = None) -> set[str]:
    """Keys that a process was told it holds, killed (or its server crashed, then it) after so many."""
    command = [sys.executable, "-m", "tests.integration.holder", place, ",".join(SKUS), "0", prefix]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        told = [process.stdout.readline().strip() for _ in range(least)]
        if crash:
            crash()
        process.send_signal(signal.SIGKILL)
        told += [line.strip() for line in process.stdout if line.endswith("\n")]  # said before it died
    return set(told)


def _examine(place: str, told: set[str]) -> None:
    with closing(opened(place)) as store:
        alive = store.active(AT, limit=100_000).holds
        kept = {hold.key for hold in alive}
        assert told <= kept
        assert len(kept - told) <= KILLS, "one each that was held when nobody was left to be told"
        assert sum(store.held([("mitte", sku) for sku in SKUS], AT)) == len(kept)
