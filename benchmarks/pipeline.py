"""Raw to marts: one `dbt build`, started as `troth run` starts it, beside one DuckDB script over the same Parquet.

Both sides get the same cores, the same memory limit and an empty database, in turns; the best turn of each counts. Then every
mart and feature table of both is compared row for row: a yardstick that computes something else measures nothing.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Measure, conditions
from troth.errors import TrothError
from troth.home import Home
from troth.settings import here

if TYPE_CHECKING:
    from orchestration.progress import Display
    from simulator import Scale

SUMMARY = (
    "Raw to marts, rows/s: one `dbt build`, tests included, beside one hand-written DuckDB script for the same tables."
)
SEED = 7
GOAL = 3.0
ROUNDS = 2
MEMORY_LIMIT = "2GB"
PEER = "one hand-written DuckDB script"
SCRIPT = Path(__file__).with_name("pipeline_peer.sql")
SAMPLE_SECONDS = 0.1


class BenchmarkError(TrothError):
    """A number could not be made, or would not have meant what it says."""

    code = 1


class UnknownScaleError(BenchmarkError):
    """Nobody named a retailer of that size."""

    code = 2


@dataclass(frozen=True)
class Prepared:
    """A home with everything taken, nothing built; and what it took to get there."""

    home: Home
    as_of_at: datetime
    simulated_rows: int
    simulate_seconds: float
    files: int
    native_bytes: int
    taken_rows: int
    take_seconds: float
    raw_rows: int


@dataclass(frozen=True)
class Turn:
    """One process, from start to exit."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def measure(scale: str | None = None, folder: Path | None = None) -> Iterator[Measure]:
    """Numbers of the way from native files to marts. The home is made in `folder`, or in a temporary one removed at the end.

    Raises: BenchmarkError when either side fails or their tables differ; UnknownScaleError for a scale nobody named.
    """
    from orchestration.progress import RichDisplay
    from simulator import SCALES, TINY

    scales, name = {"tiny": TINY, **SCALES}, scale or "medium"
    if name not in scales:
        raise UnknownScaleError(f"scale: expected one of {', '.join(scales)}, found {name}. Correct --scale.")
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="troth-bench-") as temporary, RichDisplay() as display:
        home = Home((folder or Path(temporary)).resolve())
        prepared = prepare(home, scales[name], SEED, display)
        turns, tables = race(prepared, display)
    stated = conditions(
        scale=name, seed=SEED, raw_rows=prepared.raw_rows, files=prepared.files, native_bytes=prepared.native_bytes,
        rounds=ROUNDS, memory_limit=MEMORY_LIMIT, load_average_at_start=round(load, 1), tables_compared_equal=tables,
        seconds={side: [round(turn.seconds, 2) for turn in taken] for side, taken in turns.items()},
    )  # fmt: skip
    yield from _measures(prepared, turns, stated)


def prepare(home: Home, scale: "Scale", seed: int, display: "Display") -> Prepared:
    """Simulate a retailer and take all of it: raw tables, the ledger and the policy, as SQL finds them."""
    import simulator
    from orchestration import stages, taking
    from orchestration.catalog import SOURCES
    from troth.clock import FixedClock

    simulated = simulator.simulate(home, scale, seed, display.advance)
    plans = [plan for source in SOURCES for plan in taking.plan(home, source.name)]
    began = time.perf_counter()
    with taking.Readers(home, here(home.root).workers) as readers:
        taken = readers.take(plans, lambda done, total: display.advance("read native files", done, total))
    take_seconds = time.perf_counter() - began
    as_of_at = stages.known_until(home)
    stages.append_consents(home, FixedClock(as_of_at), display.advance)
    stages.resolve_identities(home, display.advance)
    return Prepared(
        home, as_of_at, sum(simulated.records.values()), simulated.seconds, simulated.files, simulated.bytes,
        sum(taken.rows.values()), take_seconds, _rows_under(home.raw),
    )  # fmt: skip


def race(prepared: Prepared, display: "Display") -> tuple[dict[str, list[Turn]], int]:
    """Let both sides build from nothing, in turns, and compare what they built. Gives turns by side and the tables compared."""
    home = prepared.home
    parsed = parse(home)
    turns: dict[str, list[Turn]] = {"build": [], "run": [], "peer": []}
    for number in range(1, ROUNDS + 1):
        for side, taken in turns.items():
            what = f"{side if side == 'peer' else f'dbt {side}'}, round {number} of {ROUNDS}"
            display.begin(what)
            taken.append(run_peer(prepared) if side == "peer" else run_dbt(prepared, side, parsed))
            display.end(what)
    display.begin("compare tables")
    tables = compare(home, published_tables(parsed))
    display.end("compare tables")
    return turns, tables


def parse(home: Home) -> Path:
    """dbt's target folder as it is before a run: the project parsed, no time given yet."""
    from orchestration import warehouse

    target = home.root / "dbt_parsed"
    _run([*_dbt("parse"), "--quiet"], {**warehouse.dbt_environment(home, None), "DBT_TARGET_PATH": str(target)})
    return target


def published_tables(parsed: Path) -> list[str]:
    """Names of the marts and feature tables of a parsed project."""
    from orchestration import warehouse

    return sorted(warehouse.published_models(json.loads((parsed / "manifest.json").read_bytes())))


def run_dbt(prepared: Prepared, command: str, parsed: Path) -> Turn:
    """`dbt build` (with tests) or `dbt run` (without) into an empty warehouse.

    Every turn starts from the parsed project and a time that dbt has not seen, as a run over newly landed files does.
    """
    from orchestration import warehouse

    home = prepared.home
    home.warehouse.unlink(missing_ok=True)
    target = home.root / "dbt_target"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(parsed, target)
    environment = {
        **warehouse.dbt_environment(home, prepared.as_of_at),
        "DBT_TARGET_PATH": str(target),
        "TROTH_MEMORY_LIMIT": MEMORY_LIMIT,
    }
    variables = json.dumps({"as_of_at": prepared.as_of_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")})
    return _run([*_dbt(command), "--vars", variables], environment)


def run_peer(prepared: Prepared) -> Turn:
    """The script in a process of its own, Python's start included as it is for dbt."""
    database = peer_database(prepared.home)
    database.unlink(missing_ok=True)
    until = prepared.as_of_at.strftime("%Y-%m-%d %H:%M:%S.%f")
    return _run([sys.executable, "-m", "benchmarks.pipeline", str(database), str(prepared.home.raw), until], {})


def peer_database(home: Home) -> Path:
    return home.root / "peer.duckdb"


def compare(home: Home, tables: Iterable[str]) -> int:
    """Every table of the warehouse beside the script's. Gives how many were compared.

    Equal counts and no row of one side without its twin on the other (EXCEPT ALL) leave no row over on the other side either.
    Raises: BenchmarkError at the first table that differs, with its counts.
    """
    import duckdb

    count = 0
    with duckdb.connect(
        config={"memory_limit": MEMORY_LIMIT, "temp_directory": str(home.root / "spill")}
    ) as connection:
        for name, path in (("troth", home.warehouse), ("peer", peer_database(home))):
            connection.execute(f"attach '{_quoted(path)}' as {name} (read_only)")
        for table in tables:
            _compare_table(connection, table)
            count += 1
    if not count:
        raise BenchmarkError("tables: expected some to compare, found none. Look at the folders of dbt_project/models.")
    return count


def _compare_table(connection: Any, table: str) -> None:
    columns, others = (
        {
            row[0]
            for row in connection.execute(
                "select column_name from duckdb_columns() where database_name = $1 and schema_name = 'main' and table_name = $2",
                [side, table],
            ).fetchall()
        }
        for side in ("troth", "peer")
    )
    if columns != others:
        raise BenchmarkError(
            f"{table}: expected the same columns from dbt and from {SCRIPT.name}, found {sorted(columns ^ others)} on one side "
            "only. Bring the two together."
        )

    def count(query: str) -> int:
        return int(connection.execute(f"select count(*) from ({query})").fetchall()[0][0])  # noqa: S608

    listed = ", ".join(f'"{column}"' for column in sorted(columns))
    ours, theirs = (f"select {listed} from {side}.main.{table}" for side in ("troth", "peer"))  # noqa: S608
    rows, other_rows = count(ours), count(theirs)
    left = count(f"{ours} except all {theirs}")
    if left or rows != other_rows:
        right = count(f"{theirs} except all {ours}")
        raise BenchmarkError(
            f"{table}: expected the same rows from dbt and from {SCRIPT.name}, found {rows:,} and {other_rows:,}, of which "
            f"{left:,} and {right:,} have no equal on the other side. One of the two is wrong: mend it before measuring."
        )


def _measures(prepared: Prepared, turns: Mapping[str, list[Turn]], stated: Mapping[str, Any]) -> Iterator[Measure]:
    build, run, peer = (min(turn.seconds for turn in turns[side]) for side in ("build", "run", "peer"))
    cpu, peer_cpu = (min(turn.cpu_seconds for turn in turns[side]) for side in ("build", "peer"))
    memory, peer_memory = (max(turn.peak_bytes for turn in turns[side]) / 1e6 for side in ("build", "peer"))
    rows = prepared.raw_rows
    yield Measure("raw_to_marts", build, "s", "lower", GOAL, PEER, peer, stated)
    yield Measure("raw_to_marts_without_tests", run, "s", "lower", None, PEER, peer, stated)
    yield Measure("raw_to_marts_rows", rows / build, "raw rows/s", "higher", None, PEER, rows / peer, stated)
    yield Measure("raw_to_marts_processor", cpu, "cpu s", "lower", None, PEER, peer_cpu, stated)
    yield Measure("raw_to_marts_peak_memory", memory, "MB", "lower", None, PEER, peer_memory, stated)
    taking = prepared.take_seconds
    yield Measure("landing_to_raw_rows", prepared.taken_rows / taking, "raw rows/s", "higher", conditions=stated)
    yield Measure("landing_to_raw_bytes", prepared.native_bytes / 1e6 / taking, "MB/s", "higher", conditions=stated)
    simulated = prepared.simulated_rows / prepared.simulate_seconds
    yield Measure("simulated_records", simulated, "records/s", "higher", conditions=stated)


def _dbt(command: str) -> list[str]:
    from orchestration import warehouse

    return [warehouse.dbt_executable(), command, "--project-dir", str(warehouse.PROJECT)]


def _run(arguments: list[str], environment: Mapping[str, str]) -> Turn:
    """Run a program to its end. Raises: BenchmarkError, with the end of what it printed, when it fails."""
    began, used = time.perf_counter(), _cpu_seconds_of_children()
    process = subprocess.Popen(
        arguments, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    peak = [0]
    watcher = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
    watcher.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - began
    watcher.join()
    if process.returncode:
        command = " ".join(Path(part).name for part in arguments[:3])
        raise BenchmarkError(
            f"{command}: expected it to succeed, found exit code {process.returncode}. Mend this:\n{output[-4000:]}"
        )
    return Turn(seconds, _cpu_seconds_of_children() - used, peak[0])


def _cpu_seconds_of_children() -> float:
    """Processor time of every child waited for so far; turns are taken one after another."""
    times = os.times()
    return times.children_user + times.children_system


def _watch(pid: int, peak: list[int]) -> None:
    """Keep the most memory that a process and its children were seen to hold."""
    import psutil

    try:
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            family = [process, *process.children(recursive=True)]
            peak[0] = max(peak[0], sum(member.memory_info().rss for member in family))
            time.sleep(SAMPLE_SECONDS)
    except psutil.NoSuchProcess:
        return


def _rows_under(raw: Path) -> int:
    import duckdb

    files = f"{raw}/**/*.parquet"
    with duckdb.connect() as connection:
        return int(connection.execute("select sum(num_rows) from parquet_file_metadata($1)", [files]).fetchall()[0][0])


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def compute_peer(database: str, raw: str, as_of_at: str) -> None:
    """Run the script over the raw tables into a new DuckDB file. `as_of_at` is UTC, `YYYY-MM-DD HH:MM:SS`."""
    import duckdb

    with duckdb.connect(database, config={"memory_limit": MEMORY_LIMIT}) as connection:
        connection.execute("set variable raw = $1::varchar", [raw])
        connection.execute("set variable as_of_at = $1::timestamp", [as_of_at])
        connection.execute(SCRIPT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    compute_peer(*sys.argv[1:])
