"""What a home keeps of segments, below `segments/`: who was contacted and who held out, excluded people, sizes and members of each run.

People stand in Parquet files, in columns of text, where an erasure finds and removes their rows; sizes hold counts alone.
Nothing here holds contact data: people are customer ids and tokens.
"""

import io
import json
import re
import secrets
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from models.segments.conditions import SegmentError
from models.segments.definition import Segment
from troth.home import Home, write_atomically

CONTACT = {
    "customer_id": pl.String,
    "contact_ref": pl.String,
    "channel_code": pl.String,
    "purpose_code": pl.String,
    "segment_name": pl.String,
    "contacted_at": pl.Datetime("us"),
}
ASSIGNED = {
    "customer_id": pl.String,
    "arm": pl.String,
    "segment_name": pl.String,
    "version": pl.Int64,
    "channel_code": pl.String,
    "holdout_percent": pl.Int64,
    "assigned_at": pl.Datetime("us"),
}
_SIZES = "sizes.jsonl"
_VERSIONS = "versions.json"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_CONTACTS = re.compile(r"([0-9]{8}T[0-9]{6})-([a-z_]+)-([a-z_]+)-[0-9a-f]{16}\.parquet")
_ASSIGNED = re.compile(r"([0-9]{8}T[0-9]{6})-([a-z][a-z0-9_]*)-([a-z_]+)-[0-9a-f]{16}\.parquet")
_STAMP = "%Y%m%dT%H%M%S"


def folder_of(home: Home) -> Path:
    return home.root / "segments"


def record_contacts(
    home: Home,
    people: pl.DataFrame,
    segment_name: str,
    purpose_code: str,
    channel_code: str,
    at: datetime,
    mark: str | None = None,
) -> Path | None:
    """Keep who (customer_id, contact_ref) was contacted at a naive UTC time, durable on return. None where it was nobody.

    `mark`: 16 hexadecimal digits by which `forget` finds it; each record its own where none is given.
    """
    if not people.height:
        return None
    frame = people.select("customer_id", "contact_ref").with_columns(
        channel_code=pl.lit(channel_code),
        purpose_code=pl.lit(purpose_code),
        segment_name=pl.lit(segment_name),
        contacted_at=pl.lit(at, pl.Datetime("us")),
    )
    name = f"{at:{_STAMP}}-{purpose_code}-{channel_code}-{mark or secrets.token_hex(8)}.parquet"
    path = folder_of(home) / "contacts" / name
    _write(path, frame.cast(CONTACT))  # type: ignore[arg-type]
    return path


def forget(home: Home, mark: str) -> int:
    """Take back what was recorded under a mark, since nothing went out after all. How many records went."""
    found = [path for name in ("contacts", "assigned") for path in (folder_of(home) / name).glob(f"*-{mark}.parquet")]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def contacts_since(
    home: Home, since: datetime, purposes: Collection[str], channel_code: str | None = None
) -> list[Path]:
    """The files that may hold contacts after a naive UTC time for these purposes, over one channel or any. A person is once in each."""
    earliest = f"{since:{_STAMP}}"
    found = []
    for path in sorted((folder_of(home) / "contacts").glob("*.parquet")):
        if not (named := _CONTACTS.fullmatch(path.name)):
            raise SegmentError(
                f"contacts: expected files named by time, purpose and channel, found {path.name[:60]!r}. Take it away."
            )
        stamp, purpose, channel = named.groups()
        if stamp >= earliest and purpose in purposes and channel in (channel_code or channel,):
            found.append(path)
    return found


def record_assigned(
    home: Home, people: pl.DataFrame, segment: Segment, channel_code: str, at: datetime, mark: str | None = None
) -> Path | None:
    """Keep in which arm (customer_id, arm) people were when a file went out, durable on return. None where nobody was in any."""
    if not people.height:
        return None
    frame = people.select("customer_id", "arm").with_columns(
        segment_name=pl.lit(segment.name),
        version=pl.lit(segment.version),
        channel_code=pl.lit(channel_code),
        holdout_percent=pl.lit(segment.holdout_percent),
        assigned_at=pl.lit(at, pl.Datetime("us")),
    )
    name = f"{at:{_STAMP}}-{segment.name}-{channel_code}-{mark or secrets.token_hex(8)}.parquet"
    path = folder_of(home) / "assigned" / name
    _write(path, frame.cast(ASSIGNED))  # type: ignore[arg-type]
    return path


def assigned_files(home: Home) -> dict[str, list[Path]]:
    """The files of who was in which arm, oldest first, by segment; one for each file that went out. A person is once in each."""
    found: dict[str, list[Path]] = {}
    for path in sorted((folder_of(home) / "assigned").glob("*.parquet")):
        if not (named := _ASSIGNED.fullmatch(path.name)):
            raise SegmentError(
                f"assigned: expected files named by time, segment and channel, found {path.name[:60]!r}. Take it away."
            )
        found.setdefault(named[2], []).append(path)
    return dict(sorted(found.items()))


def exclusion_lists(home: Home) -> dict[str, Path]:
    """The lists of excluded people, by name: files of `identity_ref`, tokens and customer ids."""
    return {path.stem: path for path in sorted((folder_of(home) / "exclusions").glob("*.parquet"))}


def change_exclusions(
    home: Home, name: str, at: datetime, *, add: Collection[str] = (), remove: Collection[str] = ()
) -> tuple[int, int, int]:
    """Put tokens and customer ids on a list or take them off. How many were added, were removed, and are on it now."""
    if not _NAME.fullmatch(name):
        raise SegmentError(
            f"exclusion list: expected small letters, digits and underscores, found {name[:60]!r}. Rename it."
        )
    path = folder_of(home) / "exclusions" / f"{name}.parquet"
    nobody = pl.DataFrame(schema={"identity_ref": pl.String, "added_at": pl.Datetime("us")})
    before = pl.read_parquet(path) if path.exists() else nobody
    kept = before.filter(~pl.col("identity_ref").is_in(list(remove)))
    new = sorted(set(add) - set(kept["identity_ref"]))
    added = pl.DataFrame({"identity_ref": new}, schema={"identity_ref": pl.String}).with_columns(
        added_at=pl.lit(at, pl.Datetime("us"))
    )
    after = pl.concat([kept, added]).sort("identity_ref")
    _write(path, after)
    return len(new), before.height - kept.height, after.height


def record_run(home: Home, at: datetime, counts: Iterable[Mapping[str, Any]], members: Mapping[str, pl.Series]) -> None:
    """Keep the sizes of a run, which take the place of those of the same time, and its members in the place of the last ones'."""
    rows = list(counts)
    mine = {(row["name"], row["as_of_at"]) for row in rows}
    before = [row for row in _sizes(home) if (row["name"], row["as_of_at"]) not in mine]
    text = "".join(f"{json.dumps(row, sort_keys=True, ensure_ascii=False)}\n" for row in [*before, *rows])
    empty = pl.DataFrame(schema={"customer_id": pl.String, "segment_name": pl.String})
    each = [
        people.alias("customer_id").to_frame().with_columns(segment_name=pl.lit(name))
        for name, people in sorted(members.items())
    ]
    together = (
        pl.concat([empty, *each])
        .group_by("customer_id", maintain_order=True)
        .agg(pl.col("segment_name").sort().str.join(" ").alias("segment_names"))
        .sort("customer_id")
        .with_columns(as_of_at=pl.lit(at, pl.Datetime("us")))
    )
    _write(members_file(home), together)
    write_atomically(folder_of(home) / _SIZES, text.encode())


def members_file(home: Home) -> Path:
    """Who matched which segments at the last run: customer_id, segment_names with spaces between, as_of_at."""
    return folder_of(home) / "members.parquet"


def sizes(home: Home, name: str) -> list[dict[str, Any]]:
    """What was counted of a segment run after run, oldest first."""
    return sorted((row for row in _sizes(home) if row["name"] == name), key=lambda row: str(row["as_of_at"]))


def all_sizes(home: Home) -> dict[str, list[dict[str, Any]]]:
    """The same of every segment, by name, read once."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(_sizes(home), key=lambda row: str(row["as_of_at"])):
        found.setdefault(row["name"], []).append(row)
    return found


def gone_out(home: Home, name: str) -> dict[int, str]:
    """The versions of a segment that something went out under, each with the hash of what."""
    return {int(version): hashed for version, hashed in _versions(home).get(name, {}).items()}


def check_version(home: Home, name: str, version: int, hashed: str) -> None:
    """Raises: SegmentError where something else has gone out under this version."""
    known = _versions(home).get(name, {}).get(str(version), hashed)
    if known != hashed:
        raise SegmentError(
            f"segment {name}, version: expected another than {version}, under which a definition of hash {known[:12]} has "
            f"gone out, found {version} with hash {hashed[:12]}. Raise the version."
        )


def keep_version(home: Home, name: str, version: int, hashed: str) -> None:
    """Remember what has gone out under a version."""
    known = _versions(home)
    if known.get(name, {}).get(str(version)) != hashed:
        known.setdefault(name, {})[str(version)] = hashed
        text = json.dumps(known, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
        write_atomically(folder_of(home) / _VERSIONS, text.encode())


def _sizes(home: Home) -> list[dict[str, Any]]:
    path = folder_of(home) / _SIZES
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _versions(home: Home) -> dict[str, dict[str, str]]:
    path = folder_of(home) / _VERSIONS
    return dict(json.loads(path.read_bytes())) if path.exists() else {}


def _write(path: Path, frame: pl.DataFrame) -> None:
    data = io.BytesIO()
    frame.write_parquet(data, compression="zstd")
    write_atomically(path, data.getvalue())
