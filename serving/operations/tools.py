"""What the tools beside us left in a home, read without them: dbt's results and manifest, Great Expectations' validations, published versions, sizes.

Where their own pages are is said in `tools.yml` of the home (`dagster`, `feast`: an address each). No personal data.
"""

import http.client
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import polars as pl
import yaml

from serving.errors import ServingError
from troth.home import Home, files_below
from troth.published import POINTER

ADDRESSES: Mapping[str, str] = {"dagster": "http://127.0.0.1:3000", "feast": "http://127.0.0.1:8888"}
ADDRESS_FILE = "tools.yml"
DBT_SITE = "static_index.html"  # dbt's documentation in one file, see `troth docs`
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_LOOK_SECONDS = 0.3
_WORST = ("error", "fail", "runtime error", "warn", "skipped")  # of dbt's statuses; others are well


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One model or test of dbt's last run. `failures`: rows a test found."""

    kind: str
    name: str
    status: str
    message: str | None
    failures: int | None
    seconds: float

    @property
    def is_well(self) -> bool:
        return self.status in ("success", "pass")


class DbtRun(msgspec.Struct, frozen=True, kw_only=True):
    """dbt's last run, what did not go well first."""

    at: datetime
    version: str
    seconds: float
    results: Sequence[Result]


class Column(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str
    type: str | None
    personal: str | None
    purposes: Sequence[str]
    tests: Sequence[str]


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model of the dbt project as its YAML describes it. `rests_on` and `feeds` name models and sources."""

    name: str
    folder: str
    description: str
    columns: Sequence[Column]
    rests_on: Sequence[str]
    feeds: Sequence[str]
    tests: Sequence[str]


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """One expectation, of a column or of the whole batch."""

    type: str
    column: str | None
    is_met: bool


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What Great Expectations said of the batch of a table that landed last; what was not met first."""

    table: str
    at: datetime
    is_well: bool
    expectations: Sequence[Expectation]

    @property
    def failures(self) -> list[str]:
        return [f"{each.type} {each.column or ''}".strip() for each in self.expectations if not each.is_met]


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A published table: the version in use, since when, and how many versions are kept."""

    name: str
    version: str
    published_at: datetime
    rows: int
    bytes: int
    versions: int


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """What a part of the home takes on disk."""

    name: str
    files: int
    bytes: int


def addresses(home: Home) -> Mapping[str, str]:
    """Where the tools' own pages are. Raises: ServingError for a file that names something else than http addresses of known tools."""
    path = home.root / ADDRESS_FILE
    if not path.exists():
        return ADDRESSES
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        named = {name: _checked(said[name]) for name in said}
        if not named.keys() <= ADDRESSES.keys():
            raise ValueError
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        raise ServingError(
            f"{ADDRESS_FILE}: expected an http address for each of some of {list(ADDRESSES)}, found otherwise. Correct it."
        ) from None
    return {**ADDRESSES, **named}


def answers(address: str) -> bool | None:
    """Whether somebody answers at an address of this machine; None where it is another's, which is not asked."""
    parts = urlsplit(address)
    if parts.hostname not in _LOOPBACK:
        return None
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname, parts.port, timeout=_LOOK_SECONDS)
        try:
            connection.request("HEAD", "/")
            connection.getresponse()
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return False
    return True


def dbt_run(home: Home) -> DbtRun | None:
    """Results of the last `dbt build`; None where there was none, or its file is another dbt's."""
    path = home.root / "dbt" / "run_results.json"
    return _dbt_run(path, path.stat().st_mtime_ns) if path.exists() else None


def models(home: Home) -> Mapping[str, Model]:
    """The models of the project as the last run knew them, by name; nothing where there was none."""
    path = home.root / "dbt" / "manifest.json"
    return _models(path, path.stat().st_mtime_ns) if path.exists() else {}


def batches(home: Home) -> list[Batch]:
    """The last validation of every table, failures first."""
    folder = home.reports / "gx" / "gx" / "uncommitted" / "validations"
    newest = [
        max(files_below(table, "*.json"), default=None, key=lambda path: path.parent.name) for table in folder.glob("*")
    ]
    found = [_batch(path, path.stat().st_mtime_ns) for path in newest if path is not None]
    return sorted((each for each in found if each), key=lambda each: (each.is_well, each.table))


def data_docs(home: Home) -> Path:
    """Where Great Expectations' own pages begin."""
    return home.reports / "gx" / "gx" / "uncommitted" / "data_docs" / "local_site" / "index.html"


def tables(home: Home) -> list[Table]:
    """Every published table."""
    found = []
    for pointer in sorted(home.published.glob(f"*/{POINTER}")):
        version = pointer.parent / pointer.read_text(encoding="utf-8").strip()
        if version.exists():
            found.append(
                Table(
                    name=pointer.parent.name,
                    version=version.stem,
                    published_at=datetime.fromtimestamp(pointer.stat().st_mtime, UTC),
                    rows=_rows(version),
                    bytes=version.stat().st_size,
                    versions=sum(1 for _ in pointer.parent.glob("*.parquet")),
                )
            )
    return found


def sizes(home: Home) -> list[Size]:
    """What each part of the home takes, the largest first."""
    found = []
    with os.scandir(home.root) as entries:
        for entry in entries:
            files = _walked(entry.path) if entry.is_dir() else [entry.stat().st_size]
            found.append(Size(name=entry.name + ("/" if entry.is_dir() else ""), files=len(files), bytes=sum(files)))
    return sorted(found, key=lambda each: -each.bytes)


def _walked(folder: str) -> list[int]:
    found = []
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                found.append(os.lstat(os.path.join(path, name)).st_size)
            except FileNotFoundError:  # gone meanwhile
                continue
    return found


def _checked(address: Any) -> str:
    parts = urlsplit(address if isinstance(address, str) else "")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise ValueError
    parts.port  # noqa: B018 - raises ValueError where it is none
    return str(address)


@lru_cache(maxsize=4)
def _dbt_run(path: Path, modified_ns: int) -> DbtRun | None:
    try:
        said = msgspec.json.decode(path.read_bytes())
        results = [
            Result(
                kind=each["unique_id"].split(".")[0],
                name=each["unique_id"].split(".")[2],
                status=each["status"],
                message=None if each["status"] in ("success", "pass") else each.get("message"),
                failures=each.get("failures"),
                seconds=each["execution_time"],
            )
            for each in said["results"]
        ]
        return DbtRun(
            at=datetime.fromisoformat(said["metadata"]["generated_at"]),
            version=said["metadata"]["dbt_version"],
            seconds=said["elapsed_time"],
            results=sorted(results, key=lambda each: (each.is_well, _order(each.status), -each.seconds)),
        )
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None


def _order(status: str) -> int:
    return _WORST.index(status) if status in _WORST else len(_WORST)


@lru_cache(maxsize=4)
def _models(path: Path, modified_ns: int) -> Mapping[str, Model]:
    said = msgspec.json.decode(path.read_bytes())
    nodes = {**said["nodes"], **said["sources"]}
    tests: dict[str, list[tuple[str | None, str]]] = {}
    for node in said["nodes"].values():
        if node["resource_type"] == "test":
            about = (node.get("column_name"), (node.get("test_metadata") or {}).get("name") or node["name"])
            for parent in [node.get("attached_node")] if node.get("attached_node") else node["depends_on"]["nodes"]:
                tests.setdefault(parent, []).append(about)

    def names(ids: Sequence[str]) -> list[str]:
        return sorted({nodes[each]["name"] for each in ids if each in nodes and nodes[each]["resource_type"] != "test"})

    return {
        node["name"]: Model(
            name=node["name"],
            folder="/".join(node["fqn"][1:-1]),
            description=node["description"],
            columns=[_column(each, tests.get(key, ())) for each in node["columns"].values()],
            rests_on=names(said["parent_map"].get(key, ())),
            feeds=names(said["child_map"].get(key, ())),
            tests=sorted(name for column, name in tests.get(key, ()) if column is None),
        )
        for key, node in sorted(said["nodes"].items())
        if node["resource_type"] == "model"
    }


def _column(said: Mapping[str, Any], tests: Sequence[tuple[str | None, str]]) -> Column:
    meta = {**(said.get("meta") or {}), **((said.get("config") or {}).get("meta") or {})}
    purposes = meta.get("purposes") or ()
    return Column(
        name=said["name"],
        description=said.get("description") or "",
        type=said.get("data_type"),
        personal=meta.get("personal"),
        purposes=[purposes] if isinstance(purposes, str) else list(purposes),
        tests=sorted(name for column, name in tests if column == said["name"]),
    )


@lru_cache(maxsize=200)
def _batch(path: Path, modified_ns: int) -> Batch | None:
    try:
        said = msgspec.json.decode(path.read_bytes())
        found = [
            Expectation(
                type=each["expectation_config"]["type"],
                column=each["expectation_config"]["kwargs"].get("column"),
                is_met=each["success"],
            )
            for each in said["results"]
        ]
        return Batch(
            table=said["suite_name"],
            at=datetime.fromisoformat(said["meta"]["run_id"]["run_time"]),
            is_well=said["success"],
            expectations=sorted(found, key=lambda each: (each.is_met, each.column or "", each.type)),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


@lru_cache(maxsize=1_000)
def _rows(path: Path) -> int:
    """Of a published version, which never changes."""
    return int(pl.scan_parquet(path).select(pl.len()).collect().item())
