"""What the manifest of an export says, wherever the export is: below `exports/`, or with its recipient. Nothing of it is proved here."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from serving.activation.deliveries import Delivery, deliveries
from serving.activation.members import read_members
from serving.errors import ServingError
from troth.home import Home, files_below

MANIFEST = "manifest.json"
FORMAT = "troth segment export"


_QUESTION = ("decision", "decided_again")


class _Segment(msgspec.Struct):
    name: str
    version: int
    purpose: str
    hash: str


class _Counts(msgspec.Struct):
    matched: int
    exported: int
    refused: dict[str, int]
    test_customers: int


class _Consent(msgspec.Struct):
    ledger_size: int
    ledger_root: str
    checkpoint: str
    policy_hash: str


class _File(msgspec.Struct):
    sha256: str
    rows: int


class _Named(msgspec.Struct):
    number: int
    sha256: str


class _Manifest(msgspec.Struct):
    """What an audit reads of a manifest."""

    segment: _Segment
    channel: str
    exported_at: datetime
    counts: _Counts
    consent: _Consent
    files: dict[str, _File]
    decision: _Named | None = None
    decided_again: _Named | None = None
    also_asked: dict[str, dict[str, _Named]] = {}
    tables: dict[str, str] = {}
    amendments: list[dict[str, Any]] = []
    seal: str | None = None


@dataclass(frozen=True)
class Made:
    """An export, by what its manifest (`text`) says. Nothing of it is proved yet. `delivery`: what was sent, and is with its recipient."""

    name: str
    folder: Path
    manifest: Mapping[str, Any]
    text: bytes
    home: Home
    delivery: Delivery | None = None

    @cached_property
    def fault(self) -> str | None:
        """What it lacks to be a manifest, where it is damaged."""
        try:
            msgspec.convert(self.manifest, _Manifest)
            return None
        except msgspec.ValidationError as fault:
            return str(fault)

    @property
    def segment(self) -> str:
        return str(self.manifest["segment"]["name"])

    @property
    def version(self) -> int:
        return int(self.manifest["segment"]["version"])

    @property
    def channel(self) -> str:
        return str(self.manifest["channel"])

    @property
    def exported_at(self) -> str:
        return str(self.manifest["exported_at"])

    @property
    def numbers(self) -> list[int]:
        """Of its receipts, those of everybody first."""
        return [int(each["number"]) for each in receipts_in(self.manifest).values()]

    def holds(self, customers: Collection[str]) -> bool:
        """Whether one of these customers is in its files."""
        return any(not people.isdisjoint(customers) for people in self.people.values())

    @cached_property
    def people(self) -> dict[str, set[str]]:
        """The customers that each file is about; none where it cannot be read or names none. Of a delivery, those it handed over last."""
        if self.delivery is not None:
            members = read_members(self.home, self.delivery.delivery_id)
            last = members.filter(pl.col("attempt") == self.delivery.attempt)
            return {"members": set(last["customer_id"])}
        return {name: self._named(rows) for name, rows in self.rows.items()}

    @cached_property
    def rows(self) -> dict[str, pl.DataFrame]:
        """Rows of each file, with whatever names people in it; none where it cannot be read."""
        return {name: _rows_in(self.folder / name) for name in self.manifest["files"]}

    def _named(self, rows: pl.DataFrame) -> set[str]:
        """The customers of rows, by their ids, or by the references a recipient knows them by."""
        if "customer_id" in rows.columns:
            return set(rows["customer_id"])
        if "member_ref" in rows.columns and (found := self.manifest.get("delivery", {}).get("id")):
            known = read_members(self.home, str(found))
            return set(known.join(rows.select("member_ref"), on="member_ref", how="semi")["customer_id"])
        return set()


def _rows_in(path: Path) -> pl.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        if path.suffix == ".csv":
            return pl.read_csv(path, infer_schema=False)
        if path.suffix == ".json":
            return pl.DataFrame(json.loads(path.read_bytes())["data"]["members"], infer_schema_length=None)
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        pass
    return pl.DataFrame()


def receipts_in(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Number and hash of each receipt a manifest names, by what it is of: everybody, those asked again, a purpose asked besides."""
    found = {name: manifest[name] for name in _QUESTION if name in manifest}
    for purpose, named in sorted(manifest.get("also_asked", {}).items()):
        found |= {f"also_asked {purpose} {name}": named[name] for name in _QUESTION if name in named}
    return found


def made(home: Home) -> Iterator[Made]:
    """Every export that is still below `exports/`, in order of its folder; then what was sent elsewhere, newest first."""
    here = set()
    for path in sorted(files_below(home.exports, MANIFEST)):
        if (one := made_in(home, path.parent)) is not None and one.fault is None:
            here.add(one.text)
            yield one
    for delivery in deliveries(home):
        if delivery.is_out and delivery.manifest is not None and delivery.manifest.encode() not in here:
            text = delivery.manifest.encode()
            name = f"delivery {delivery.delivery_id}"
            yield Made(name, home.root / "activation", _parsed(text), text, home, delivery)


def made_in(home: Home, folder: Path) -> Made | None:
    """The export of a folder; None where it is none."""
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    manifest = _parsed(text)
    if not (FORMAT.encode() in text or {"segment", "files"} <= set(manifest)):
        return None  # of something else
    place, root = folder.resolve(), home.root.resolve()
    return Made(
        place.relative_to(root).as_posix() if place.is_relative_to(root) else place.name, folder, manifest, text, home
    )


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        told = json.loads(text)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def found(home: Home, which: int | str | Path) -> Made | None:
    """The export of a folder, a delivery by its id, or the one that names a receipt; None where only the receipt may be here."""
    if str(which).isdigit():
        return next((each for each in made(home) if int(str(which)) in each.numbers), None)
    folder = Path(str(which))
    one = made_in(home, folder) or made_in(home, home.root / folder)
    one = one or next((each for each in made(home) if each.delivery and each.delivery.delivery_id == str(which)), None)
    if one is None:
        raise ServingError(
            f"export: expected a folder with the {MANIFEST} of an export, found none at {folder.name[:60]!r}. "
            "Name it, the number of its receipt, or the id of what was sent."
        )
    return one
