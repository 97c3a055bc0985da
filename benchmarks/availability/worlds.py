"""Worlds to be asked about: simulated, read and modelled by the platform itself, kept in a folder by what made them.

What engines see comes from the platform's tables; what they are judged by comes from the simulator's truth.
"""

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from simulator import Scale, simulate
from troth.errors import TrothError
from troth.home import Home

Progress = Callable[[str, int, int], None]
NAMES = ("movements", "picks", "counts", "products", "locations", "shelves")
ASKED_AT = timedelta(days=1, hours=10, minutes=30)  # after midnight of a trading day: its files have come, unless late
MODELS = ("stock_movements", "stock_picks", "stock_counts", "products", "locations")
# Theft of a little over 1 % of the units sold, and as many pieces put where nobody looks: of the order that surveys report, from memory.
RETAILER = replace(
    Scale(), people=24_000, stores=12, distribution_centers=1, skus=400, days=60, store_cover_days=21.0,
    shrink_per_position_day=0.006, misplacement_per_position_day=0.004, dropped_file_rate=0.01, skewed_clock_rate=0.05,
)  # fmt: skip
PUBLISHED = {
    "movements": "select * from stock_movements",
    "picks": "select * from stock_picks",
    "counts": "select * from stock_counts where count_type = 'cycle'",
    "products": "select * from products",
    "locations": "select * from locations",
}


class WorldError(TrothError):
    """A world could not be made."""


@dataclass(frozen=True)
class World:
    """One retailer's tables as the platform published them, and how many pieces could be found of each position, day by day.

    `shelves`: location_code, sku, day, found_units at close, where it changed; every position has its first day.
    """

    seed: int
    scale: Scale
    movements: pl.DataFrame
    picks: pl.DataFrame
    counts: pl.DataFrame
    products: pl.DataFrame
    locations: pl.DataFrame
    shelves: pl.DataFrame

    def asked_at(self, day: int) -> datetime:
        """When the question about the close of a trading day is asked: naive UTC, on the morning after."""
        midnight = datetime(self.scale.first_day.year, self.scale.first_day.month, self.scale.first_day.day)
        return midnight + timedelta(days=day) + ASKED_AT


def world(folder: Path, scale: Scale, seed: int, progress: Progress = lambda *_: None) -> World:
    """A world from the folder, made first if it is not there. Raises: WorldError when dbt cannot model it."""
    place = folder / name_of(scale, seed)
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".world-", dir=folder) as draft:
            _make(Path(draft), scale, seed, progress)
            shutil.rmtree(Path(draft) / "home")
            Path(draft).rename(place)
            Path(draft).mkdir()
    return World(seed, scale, **{name: pl.read_parquet(place / f"{name}.parquet") for name in NAMES})


def name_of(scale: Scale, seed: int) -> str:
    """Named by what made it: the simulator, the models, the readers, the scale and the seed."""
    root = Path(__file__).resolve().parents[2]
    sources = [
        *root.glob("simulator/**/*.py"),
        *root.glob("dbt_project/models/**/*.sql"),
        *root.glob("dbt_project/macros/*.sql"),
        Path(__file__),
    ]
    told = hashlib.sha256(json.dumps(asdict(scale), default=str, sort_keys=True).encode())
    for path in sorted(sources):
        told.update(path.read_bytes())
    return f"{seed}-{told.hexdigest()[:16]}"


def _make(folder: Path, scale: Scale, seed: int, progress: Progress) -> None:
    home = Home((folder / "home").resolve())
    simulate(home, scale, seed, progress)
    _take(home, progress)
    _model(home)
    _keep(home, folder)
    movements = pl.scan_parquet(home.truth / "physical_stock.parquet")
    movements.select(
        "location_code", "sku", "day", found_units=(pl.col("on_hand") - pl.col("misplaced")).clip(0)
    ).unique(["location_code", "sku", "day"], keep="last").sort("day", "location_code", "sku").collect().write_parquet(
        folder / "shelves.parquet"
    )


def _take(home: Home, progress: Progress) -> None:
    import yaml

    from orchestration import taking, warehouse
    from troth.settings import here

    plans = [plan for source in ("pos", "ecommerce", "wms") for plan in taking.plan(home, source)]
    with taking.Readers(home, here(home.root).workers) as readers:
        readers.take(plans, lambda done, total: progress("read native files", done, total))
    taking.ensure_tables(home)
    # dbt opens every source before it runs; no model selected here reads who people are or what they allowed.
    for text in Path(warehouse.PROJECT).glob("models/staging/*/sources.yml"):
        for source in yaml.safe_load(text.read_text())["sources"]:
            for table in source["tables"]:
                unread = home.raw / table["name"] / "unread.parquet"
                if not unread.parent.exists():
                    unread.parent.mkdir(parents=True)
                    pl.DataFrame(schema={"unread": pl.Boolean}).write_parquet(unread)


def _model(home: Home) -> None:
    import os

    from orchestration import stages, warehouse

    until = stages.known_until(home)
    command = [warehouse.dbt_executable(), "run", "--project-dir", str(warehouse.PROJECT), "--quiet", "--select"]
    command += [f"+{model}" for model in MODELS]
    variables = json.dumps({"as_of_at": until.strftime("%Y-%m-%dT%H:%M:%S.%fZ")})
    done = subprocess.run(
        [*command, "--vars", variables], env={**os.environ, **warehouse.dbt_environment(home, until)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise WorldError(
            f"dbt run: expected it to succeed, found exit code {done.returncode}. Mend this:\n{done.stdout[:3000]}"
        )


def _keep(home: Home, folder: Path) -> None:
    import duckdb

    with duckdb.connect(str(home.warehouse), read_only=True) as connection:
        for name, query in PUBLISHED.items():
            target = str(folder / f"{name}.parquet").replace("'", "''")
            connection.execute(f"copy ({query} order by all) to '{target}' (format parquet, compression zstd)")
