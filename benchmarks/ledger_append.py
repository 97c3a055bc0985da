"""One event at a time through the public API, answered when a durable signed checkpoint covers it."""

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.harness import Measure, conditions
from troth.errors import TrothError

SUMMARY = "Single consent events through Ledger.append from many clients at once: rate and time to a signed checkpoint"
CLIENTS = 64
SECONDS = 20.0
SECONDS_OF_PEER = 3.0


def measure(scale: str | None) -> Iterator[Measure]:
    """Events/s and milliseconds (p50, p99, longest) until covered, beside pymerkle's durable tree, one by one.

    `scale`: `sqlite` (default) or `postgresql`. Raises: TrothError for another.
    """
    database = scale or "sqlite"
    if database not in ("sqlite", "postgresql"):
        raise TrothError(f"ledger_append: expected --scale sqlite or postgresql, found {database}. Choose one.")
    with tempfile.TemporaryDirectory() as folder:
        said = _events(400_000 if database == "sqlite" else 100_000)
        peer = _peer(Path(folder), said)
        times, seconds, checkpoints = _load(Path(folder), database, said)
    state = conditions(
        database=database, clients=CLIENTS, seconds=round(seconds, 1), events=len(times), checkpoints=checkpoints,
        included="validation, canonical JSON, salted commitment, AES-256-GCM per subject, state index, sync, Ed25519",
    )  # fmt: skip
    times.sort()
    yield Measure(
        "append_covered", len(times) / seconds, "events/s", "higher", 2_500 / peer if peer else 2_500,
        "pymerkle SqliteTree, one by one, no signature, no encryption", peer, state,
    )  # fmt: skip
    for name, at in (("p50", 0.5), ("p99", 0.99), ("longest", 1.0)):
        value = times[min(int(len(times) * at), len(times) - 1)] * 1e3
        yield Measure(
            f"accepted_to_checkpoint_{name}", value, "ms", "lower", 100 if name == "p99" else None, conditions=state
        )
    yield Measure(
        "events_per_checkpoint", statistics.fmean([len(times) / max(checkpoints, 1)]), "events", conditions=state
    )


def _events(count: int) -> list["Event"]:  # type: ignore[name-defined]  # noqa: F821
    from benchmarks.consent_events import Events
    from consent.events import Event

    frame = Events().frame(count)
    return [Event(**row) for row in frame.iter_rows(named=True)]


def _load(folder: Path, database: str, said: Sequence[object]) -> tuple[list[float], float, int]:
    from benchmarks.databases import opened_ledger

    times: list[list[float]] = [[] for _ in range(CLIENTS)]
    with opened_ledger(folder, database) as ledger:
        stop = time.monotonic() + SECONDS

        def client(number: int) -> None:
            for event in said[number::CLIENTS]:
                began = time.perf_counter()
                ledger.append([event])  # type: ignore[list-item]
                times[number].append(time.perf_counter() - began)
                if time.monotonic() >= stop:
                    return

        clients = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        began = time.monotonic()
        for each in clients:
            each.start()
        for each in clients:
            each.join()
        seconds = time.monotonic() - began
        done = [each for mine in times for each in mine]
        if ledger.verify().size != len(done):
            raise TrothError(f"ledger_append: expected {len(done)} events, found {ledger.size}. A fault of the ledger.")
        return done, seconds, len(ledger.checkpoints()) - 1


def _peer(folder: Path, said: Sequence[object]) -> float | None:
    """Appends/s of pymerkle's durable tree; None where it is not installed."""
    try:
        from pymerkle import SqliteTree
    except ImportError:
        return None
    from consent.events import encode

    entries = [encode(event) for event in said[:20_000]]  # type: ignore[arg-type]
    tree = SqliteTree(str(folder / "peer.db"))
    began, count = time.monotonic(), 0
    while time.monotonic() - began < SECONDS_OF_PEER and count < len(entries):
        tree.append_entry(entries[count])
        count += 1
    return count / (time.monotonic() - began)
