"""Who reads the environment, what phones home (nothing), what a committed file may not hold, what --help may not import."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from orchestration import instance, warehouse
from tests.agreement import committed
from tests.agreement.committed import ROOT
from troth.home import Home
from troth.settings import TELEMETRY_OFF

# Who besides troth/settings.py reads the environment, and why.
READERS = {
    "orchestration/warehouse.py": "hands its own environment on to the dbt it starts",
    "benchmarks/availability/worlds.py": "hands its own environment on to the dbt it starts",
    "benchmarks/as_of.py": "hands its own environment on to the dbt it starts",
    "benchmarks/feature_http.py": "hands its own environment on to the programs it measures",
    "benchmarks/feature_http_world.py": "hands its own environment on to the programs it measures",
    "benchmarks/leaks.py": "tells the services it starts where their databases are",
    "benchmarks/pipeline.py": "hands its own environment on to the programs it measures",
}
HEAVY = (
    "dagster", "dagster_dbt", "dbt", "duckdb", "feast", "great_expectations", "numpy", "pandas", "polars", "pyarrow", "scipy", "sklearn",
    "sqlglot", "starlette", "uvicorn", "lxml", "yaml",
)  # fmt: skip


def reads_of_the_environment(tree: ast.Module) -> list[int]:
    """Lines that use `os.environ` or `os.getenv` other than to write to it."""
    uses = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb")
    ]
    uses = [node for node in uses if isinstance(node.value, ast.Name) and node.value.id == "os"]
    writes = {
        id(node.value)
        for node in ast.walk(tree)
        if (isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del))
        or (isinstance(node, ast.Attribute) and node.attr in ("update", "setdefault"))
    }
    return [node.lineno for node in uses if id(node) not in writes]


def test_settings_is_the_only_reader_of_the_environment() -> None:
    found = {
        committed.name(path)
        for path in committed.modules()
        if reads_of_the_environment(ast.parse(path.read_text()))
        or re.search(r"from os import .*\b(environ|getenv)", path.read_text())
    }
    assert found - READERS.keys() == {"troth/settings.py"}


def test_reads_and_writes_of_the_environment_are_told_apart() -> None:
    text = "os.environ['A'] = 'b'\nos.environ.update({})\nos.environ['A']\nos.getenv('A')\nf(os.environ)\nos.environ.get('A')"
    assert reads_of_the_environment(ast.parse(text)) == [3, 4, 5, 6]


@pytest.mark.parametrize(
    "switch", ["DAGSTER_TELEMETRY_ENABLED", "DO_NOT_TRACK", "DBT_SEND_ANONYMOUS_USAGE_STATS", "GX_ANALYTICS_ENABLED", "FEAST_USAGE"]
)  # fmt: skip
def test_every_tool_is_told_to_be_silent(switch: str, tmp_path: Path) -> None:
    silent = "1" if switch == "DO_NOT_TRACK" else "false"
    assert TELEMETRY_OFF[switch].lower() == silent
    assert warehouse.dbt_environment(Home(tmp_path), None)[switch] == TELEMETRY_OFF[switch]


def test_dbt_and_dagster_are_told_in_their_own_files_too() -> None:
    project = yaml.safe_load((ROOT / "dbt_project" / "dbt_project.yml").read_text())
    assert project["flags"]["send_anonymous_usage_stats"] is False
    assert yaml.safe_load(instance.CONFIGURATION.format(root="x"))["telemetry"] == {"enabled": False}


def test_help_is_quick_and_silent() -> None:
    """Nothing heavy is imported, and the switches are set before anything else happens."""
    said = (
        "import sys, os\nsys.argv = ['troth', '--help']\nfrom orchestration.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print('imported', *sorted(set({HEAVY!r}) & set(sys.modules)))\n"
        f"print('silent', all(os.environ.get(k) == v for k, v in {TELEMETRY_OFF!r}.items()))\n"
    )
    plain = {name: value for name, value in os.environ.items() if name not in TELEMETRY_OFF}
    done = subprocess.run([sys.executable, "-c", said], cwd=ROOT, env=plain, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["imported", "silent True"]
    assert "quarantine" in done.stdout


def test_no_committed_file_holds_a_path_of_this_machine() -> None:
    folders = {ROOT, ROOT.parent, Path.home(), Path(sys.prefix).resolve()}
    here = [f"{folder.as_posix()}/".encode() for folder in folders if len(folder.parts) > 1]
    found = [
        (committed.name(path), place.decode())
        for path in committed.files()
        for place in here
        if re.search(rb"(?<![\w.~}])" + re.escape(place), path.read_bytes())
    ]
    assert found == []
