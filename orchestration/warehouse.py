"""The warehouse: how dbt is started, and how its marts are published. The one place that opens the DuckDB file.

DuckDB has one writer. Steps that write share one Dagster pool of size 1; readers read `published/`, never the file.
"""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from troth.errors import TrothError
from troth.home import Home, files_below
from troth.published import publish
from troth.settings import TELEMETRY_OFF

PROJECT = Path(__file__).resolve().parent.parent / "dbt_project"
POOL = "warehouse"
PUBLISHED_FOLDERS = ("marts", "features")


class WarehouseError(TrothError):
    """dbt or DuckDB could not do what was asked."""


def dbt_environment(home: Home, as_of_at: datetime | None) -> dict[str, str]:
    """What dbt's profile and sources read: paths of the home, the time we know until, and no telemetry."""
    return {
        **TELEMETRY_OFF,
        "TROTH_RAW": str(home.raw),
        "TROTH_WAREHOUSE": str(home.warehouse),
        "TROTH_AS_OF_AT": as_of_at.strftime("%Y-%m-%d %H:%M:%S.%f") if as_of_at else "",
        "DBT_TARGET_PATH": str(home.root / "dbt"),
        "DBT_LOG_PATH": str(home.root / "logs"),
        "DBT_PROFILES_DIR": str(PROJECT),
    }


def export_environment(home: Home) -> None:
    """Put dbt's environment into this process, so that the dbt it starts inherits it."""
    os.environ.update(dbt_environment(home, None))


def build(
    context: Any, home: Home, dbt: Any, as_of_at: datetime | None, advance: Callable[[str, int, int], None]
) -> Iterator[Any]:
    """One `dbt build` of everything selected, as Dagster events, counting finished nodes.

    Raises: WarehouseError before anything was taken; dagster-dbt's own error, with dbt's message, when a model or test fails.
    """
    if as_of_at is None:
        raise WarehouseError("dbt build: expected rows under raw, found none taken. Land files first.")
    export_environment(home)
    # Unit tests ask whether the SQL is right, not whether today's rows are: they belong to the test suite.
    arguments = [
        "build",
        "--exclude-resource-type",
        "unit_test",
        "--vars",
        json.dumps({"as_of_at": as_of_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}),
    ]
    total = len(context.selected_asset_keys) + len(context.selected_asset_check_keys)
    invocation = dbt.cli(arguments, context=context, target_path=home.root / "dbt")
    log = home.root / "logs" / "dbt_build.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        events = invocation.stream()
        for done in itertools.count(1):
            with contextlib.redirect_stdout(file):  # dagster-dbt repeats dbt's log there
                event = next(events, None)
            if event is None:
                break
            advance("build marts", min(done, total - 1), total)
            yield event
    advance("build marts", total, total)


def project_fingerprint() -> str:
    """Hash of every file of the dbt project that says something: when it changes, models must be built again."""
    digest = hashlib.sha256()
    for path in sorted(files_below(PROJECT, without=("target",))):  # where others compile meanwhile
        if path.suffix in (".sql", ".yml", ".csv"):
            digest.update(path.relative_to(PROJECT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def parsed() -> Path:
    """Where the manifest of the project as it is now belongs; the same for every home."""
    return PROJECT / "target" / f"{project_fingerprint()[:16]}.compiled"


def parse(home: Home) -> "Parsing | None":
    """Start `dbt compile` if the project as it is now has no manifest; None when it has.

    The caller may do something else meanwhile and then calls `manifest`, which waits for it.
    """
    folder = parsed()
    if (folder / "manifest.json").exists():
        return None
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    draft.mkdir(parents=True, exist_ok=True)
    return Parsing(_compiling(PROJECT, home, draft), draft, folder)


def _compiling(project: Path, home: Home, folder: Path) -> "subprocess.Popen[bytes]":
    """A running `dbt compile` over an empty database of its own. It needs no rows; what it costs more than to parse is 3 s."""
    places = {
        "TROTH_WAREHOUSE": str(folder / "empty.duckdb"),
        "DBT_TARGET_PATH": str(folder),
        "DBT_LOG_PATH": str(folder / "logs"),
    }
    any_time = json.dumps({"as_of_at": "1970-01-01T00:00:00Z"})  # the SQL is the same at all times but for this word
    arguments = ["compile", "--project-dir", str(project), "--profiles-dir", str(PROJECT), "--vars", any_time]
    return subprocess.Popen(
        [dbt_executable(), "--quiet", *arguments],
        env={**os.environ, **dbt_environment(home, None), **places},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@dataclass(frozen=True)
class Parsing:
    """A running `dbt compile` that writes into a draft folder."""

    process: "subprocess.Popen[bytes]"
    draft: Path
    folder: Path

    def finish(self) -> None:
        """Wait and move the draft in. Raises: WarehouseError when the project does not compile."""
        _finished(self.process)
        (self.draft / "empty.duckdb").unlink(missing_ok=True)
        for name in ("compiled", "logs"):  # the manifest has it all
            shutil.rmtree(self.draft / name, ignore_errors=True)
        try:
            self.draft.rename(self.folder)
        except OSError:  # another process was quicker with the same content
            shutil.rmtree(self.draft)


def manifest(home: Home, parsing: Parsing | None = None) -> Path:
    """dbt's manifest for the project as it is now, compiled SQL in it. Raises: WarehouseError when it does not compile."""
    parsing = parsing or parse(home)
    if parsing is not None:
        parsing.finish()
    return parsed() / "manifest.json"


def compile_project(project: Path, home: Home, folder: Path) -> Path:
    """Compile any dbt project into a folder. Gives the manifest. Raises: WarehouseError when it does not compile."""
    _finished(_compiling(project, home, folder))
    return folder / "manifest.json"


def _finished(compiling: "subprocess.Popen[bytes]") -> None:
    output, _ = compiling.communicate()
    if compiling.returncode != 0:
        said = output.decode(errors="replace")[-4_000:]
        raise WarehouseError(f"dbt project: expected it to compile, found errors. Mend them:\n{said}")


def dbt_executable() -> str:
    """dbt of this environment, wherever PATH points."""
    return str(Path(sys.executable).with_name("dbt"))


def published_models(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Marts and feature tables by name, as the manifest describes them."""
    return {
        node["name"]: node
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["fqn"][1] in PUBLISHED_FOLDERS
    }


def publish_tables(home: Home, tables: list[str]) -> dict[str, tuple[int, bool]]:
    """Export each table, sorted by all its columns, to a new published version. Gives rows and whether it changed.

    The same rows give the same bytes, so that an unchanged table keeps its version.
    """
    import duckdb

    counts = {}
    drafts = home.published / ".drafts"
    drafts.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(home.warehouse), read_only=True) as connection:
        for table in tables:
            draft = drafts / f"{table}.{os.getpid()}.parquet"
            # Table names come from the manifest, not from input; DuckDB cannot bind identifiers or COPY targets.
            target = str(draft).replace("'", "''")
            rows = connection.execute(
                f"copy (select * from {table} order by all) to '{target}' (format parquet, compression zstd)"  # noqa: S608
            ).fetchone()
            counts[table] = (rows[0] if rows else 0, publish(home, table, draft))
    return counts
