"""A snapshot of stock of which a twentieth changed: the rows that say something, found before any work; beside a plain DuckDB EXCEPT.

Both sides read the same two Parquet files in a process of their own, and must find the same rows.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Measure, conditions
from troth.errors import TrothError

SUMMARY = "Rows/s and memory of finding what a snapshot of 20 million positions changed, a twentieth of them; beside DuckDB's EXCEPT."
SCALES = {"1M": (50, 20_000), "20M": (1_000, 20_000)}  # locations, SKUs
CHANGED_EVERY = 20
SEED = 7
MEMORY_LIMIT = "2GB"


class SnapshotError(TrothError):
    """A side failed, or the two found different rows."""

    code = 1


def measure(scale: str | None = None) -> Iterator[Measure]:
    """Figures of both sides. Raises: SnapshotError when one fails or they differ."""
    name = scale or "20M"
    if name not in SCALES:
        raise SnapshotError(f"scale: expected one of {', '.join(SCALES)}, found {name}. Correct --scale.")
    with tempfile.TemporaryDirectory(prefix="troth-snapshots-") as place:
        folder = Path(place)
        rows = write_snapshots(folder, *SCALES[name])
        remember(folder)
        ours, peer = (side(which, folder) for which in ("ours", "peer"))
    if (ours["found"], ours["sum"]) != (peer["found"], peer["sum"]):
        raise SnapshotError(
            f"rows that changed: expected {peer['found']:,} as EXCEPT says, found {ours['found']:,}. Mend it before measuring."
        )
    stated = conditions(rows=rows, changed=ours["found"], seed=SEED, peer_memory_limit=MEMORY_LIMIT)
    seconds = rows / ours["seconds"], rows / peer["seconds"]
    yield Measure("snapshot_rows", seconds[0], "rows/s", "higher", 1.0, "DuckDB EXCEPT", seconds[1], stated)
    yield Measure("snapshot_peak_memory", ours["peak_mb"], "MB", "lower", 1.0, "DuckDB EXCEPT", peer["peak_mb"], stated)


def write_snapshots(folder: Path, locations: int, skus: int) -> int:
    """Two snapshots in the order a system exports them; gives the rows of each."""
    import duckdb

    rows = locations * skus
    with duckdb.connect(config={"memory_limit": MEMORY_LIMIT}) as connection:
        for name, change in (("last", "0"), ("next", f"if(hash(i + {SEED}) % {CHANGED_EVERY} = 0, 1, 0)")):
            connection.execute(
                f"copy (select 'S' || lpad((i // {skus})::varchar, 4, '0') as location_code, 'SKU-' || lpad((i % {skus})::varchar, 5, '0') as sku, "  # noqa: S608
                f"(hash(i) % 40)::bigint + {change} as units from range({rows}) as numbers (i)) to '{folder / name}.parquet' (format parquet)"
            )
    return rows


def remember(folder: Path) -> None:
    """What was seen last, as the run before left it."""
    from models.stock.snapshots import LastSeen, news_of

    seen = LastSeen()
    for _ in news_of(folder / "last.parquet", seen):
        pass
    seen.save(folder / "seen.npz")


def side(which: str, folder: Path) -> dict[str, float]:
    """One side in a process of its own: rows found and their sum, seconds, peak memory."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.snapshots", which, str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SnapshotError(
            f"{which}: expected it to succeed, found exit code {done.returncode}. Mend this:\n{done.stderr[-2000:]}"
        )
    told: dict[str, float] = json.loads(done.stdout)
    return told


def run_ours(folder: Path) -> tuple[int, int]:
    """Rows found and the sum of their units, the grid loaded and saved again."""
    from models.stock.snapshots import LastSeen, news_of

    seen, found, units = LastSeen.load(folder / "seen.npz"), 0, 0
    for news in news_of(folder / "next.parquet", seen):
        found, units = found + news.height, units + int(news["units"].sum())
    seen.save(folder / "seen.npz")
    return found, units


def run_peer(folder: Path) -> tuple[int, int]:
    """The same by one EXCEPT over both files."""
    import duckdb

    query = "select count(*), sum(units)::bigint from (from read_parquet($1) except all from read_parquet($2))"
    with duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "temp_directory": str(folder / "spill")}) as connection:
        found, units = connection.execute(
            query, [str(folder / "next.parquet"), str(folder / "last.parquet")]
        ).fetchall()[0]
    return int(found), int(units)


def main(which: str, folder: str) -> None:
    import resource

    import duckdb  # noqa: F401  both sides have their libraries loaded before the clock starts

    import models.stock.snapshots  # noqa: F401

    began = time.perf_counter()
    found, units = (run_ours if which == "ours" else run_peer)(Path(folder))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"found": found, "sum": units, "seconds": seconds, "peak_mb": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
