"""Copies outside the tables: segment exports and deliveries that lie in the home, packages and receipts handed out, exports of
the ledger, files of tools, the simulator's truth."""

import csv
import io
import json
import shutil
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl

from consent.receipts.uses import has_seal, sealed_manifest
from orchestration.rights.landed import blotted
from orchestration.rights.tables import erase_file
from orchestration.rights.traces import LEDGER_ENTRIES, Find, Traces
from serving.activation.deliveries import DELIVERY
from serving.activation.recalling import deliveries_of
from troth.clock import Clock
from troth.home import Home, write_atomically
from troth.ids import file_hash

PACKAGES = "access"  # below exports/: what was handed out about one person
ABOUT = "about.json"
_MEMBERS, _MANIFEST = ("members.csv", "members.parquet"), "manifest.json"
# Below these no receipt is kept, and there is much to look through.
_STORES = (
    "landing",
    "raw",
    "quarantine",
    "taken",
    "published",
    "features",
    "artifacts",
    "truth",
    "dagster",
    "dbt",
    "logs",
    "log",
)
# Below these nothing is a record of ours: what a tool wrote there may be blotted out byte by byte.
_TOOLS = ("reports", "logs", "dbt", "dagster", "artifacts", "exports", "taken")


def exported_to(home: Home, texts: Collection[str]) -> list[str]:
    """Names of the segment exports and deliveries that hold the person: whoever was given them has to be told."""
    wanted = set(texts)
    held = [file.parent.name for file in _segment_files(home) if any(_is_about(row, wanted) for row in _rows(file))]
    sent = [each.delivery_id for each in deliveries_of(home, wanted)]
    exports = (f"{'activation' if name.startswith(DELIVERY) else 'export'}:{name}" for name in held)
    return list(dict.fromkeys([*exports, *(f"activation:{each}" for each in sent)]))


def erase_exports(home: Home, clock: Clock, request_id: str, texts: Collection[str]) -> dict[str, int]:
    """Take the person out of everything below `exports/`, and remove receipts wherever they were put. What was done, counted."""
    wanted, rows_removed = set(texts), 0
    for file in _segment_files(home):
        removed = _erased_from(file, wanted)
        if not removed:
            continue
        path = file.parent / _MANIFEST
        manifest = json.loads(path.read_bytes())
        is_sealed = has_seal(home, manifest)
        was = manifest["files"][file.name]
        manifest["files"][file.name] = {"sha256": file_hash(file), "rows": was["rows"] - removed}
        note = {
            "at": clock.now().isoformat(),
            "reason": "erasure",
            "request_id": request_id,
            "rows_removed": removed,
        }
        manifest.setdefault("amendments", []).append({**note, "sha256_before": was["sha256"]})
        if is_sealed:
            manifest = sealed_manifest(home, manifest)
        text = json.dumps(manifest, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
        write_atomically(path, text.encode())
        rows_removed += removed
    return {
        "segment_rows": rows_removed,
        "packages": sum(_removed(folder, wanted) for folder in (home.exports / PACKAGES).glob("*")),
        "receipts": sum(_receipt_removed(path, wanted) for path in list(_documents(home))),
        "ledger_exports": sum(_exported_again(home, clock, folder) for folder in list(_ledger_exports(home))),
    }


def other_tables(home: Home, texts: Collection[str]) -> int:
    """Rows that went from Parquet files that are neither raw nor published: the simulator's truth, artifacts."""
    ours = {home.raw, home.published, home.quarantine, home.landing}
    paths = [path for path in home.root.rglob("*.parquet") if not ours & set(path.parents)]
    return sum(erase_file(path, texts) for path in paths)


def mend(home: Home, traces: Traces, finds: Iterable[Find]) -> set[str]:
    """Blot out what is left in files of tools, and rewrite databases whose free pages still hold it. Which files changed."""
    mended = set()
    for name in {find.path for find in finds}:
        path = home.root / name
        with path.open("rb") as file:
            head = file.read(16)
        if head.startswith(b"SQLite format 3"):
            connection = sqlite3.connect(path, isolation_level=None, timeout=30)
            try:
                connection.execute("vacuum")
                connection.execute("pragma wal_checkpoint(truncate)")
            finally:
                connection.close()
            mended.add(name)
        elif name.split("/", 1)[0] in _TOOLS and not head.startswith(b"PAR1"):
            write_atomically(path, blotted(path.read_bytes(), traces))
            mended.add(name)
    return mended


def _segment_files(home: Home) -> Iterator[Path]:
    for path in sorted(path for name in _MEMBERS for path in home.exports.rglob(name)):
        if (path.parent / _MANIFEST).exists():
            yield path


def _rows(path: Path) -> Iterable[Sequence[str]]:
    if path.suffix == ".parquet":
        return pl.read_parquet(path).iter_rows()
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def _erased_from(path: Path, wanted: Collection[str]) -> int:
    """How many rows went from a file of members."""
    if path.suffix == ".parquet":
        return erase_file(path, wanted)
    header, *rows = _rows(path)
    kept = [row for row in rows if not _is_about(row, wanted)]
    if len(kept) < len(rows):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *kept])
        write_atomically(path, text.getvalue().encode())
    return len(rows) - len(kept)


def _is_about(row: Iterable[str], wanted: Collection[str]) -> bool:
    return any(cell in wanted or cell.removeprefix("'") in wanted for cell in row)


def _removed(folder: Path, wanted: Collection[str]) -> bool:
    """Remove a package that was handed out if it is about the person: its list says whose it is."""
    about = folder / ABOUT
    if not about.exists() or not set(json.loads(about.read_bytes())["identifiers"]) & set(wanted):
        return False
    shutil.rmtree(folder)
    return True


def _documents(home: Home) -> Iterator[Path]:
    """Files that may be a receipt: one JSON object, anywhere but in the stores."""
    for top in home.root.iterdir():
        if top.name not in _STORES:
            yield from (path for path in [top, *top.rglob("*")] if path.is_file() and _begins_as_json(path))


def _begins_as_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == b"{"


def _receipt_removed(path: Path, wanted: Collection[str]) -> bool:
    """Remove a receipt if it is about the person, with the proofs beside it: what it proved, who took it home can still prove."""
    from consent.receipts.decisions import SHOWN
    from consent.receipts.shopper import RECEIPT, STANDING_RECEIPT

    try:
        told = json.loads(path.read_bytes())
    except ValueError:
        return False
    if told.get("format") not in (RECEIPT, STANDING_RECEIPT, SHOWN) or told.get("subject_id") not in wanted:
        return False
    for each in told.get("events", ()):
        if each["tlog_proof"] == f"{each['leaf_index']}.tlog-proof":
            path.with_name(each["tlog_proof"]).unlink(missing_ok=True)
    path.unlink()
    if not any(path.parent.iterdir()):
        path.parent.rmdir()
    return True


def _ledger_exports(home: Home) -> Iterator[Path]:
    for path in sorted(home.exports.rglob(LEDGER_ENTRIES)):
        if (path.parent / "checkpoint").exists():
            yield path.parent


def _exported_again(home: Home, clock: Clock, folder: Path) -> bool:
    from consent.ledger.opening import open_ledger

    with open_ledger(home, clock) as ledger:
        ledger.export(folder)
    return True
