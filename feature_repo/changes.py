"""What changed since a view was last published: only that is encoded and sent, and what is no longer there is taken away.

Kept beside the store, for each view: a hash of each entity's key and one of its row (8 bytes each), and the keys. It counts only where
the store says that it stands at that version and nobody was erased since, and else the whole version is offered and the store compares. Two keys of one hash
among ten million are as likely as 1 in 370,000; then, too, the whole version is offered. A row whose event time is the version's own
counts as unchanged when nothing but that time moved: the store knows that such rows follow.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from feature_repo.catalogue import View
from feature_repo.columns import ROWS_AT_A_TIME, Encoded, ahead, encoded
from feature_repo.packed import layout_of
from feature_repo.store import OnlineStore, Written
from troth.home import write_atomically

Hashes = NDArray[np.uint64]
_COMPARED_AT_A_TIME = 500_000


def refresh(
    store: OnlineStore, view: View, rows: pl.DataFrame, version: str, folder: Path, mark: int | None = None
) -> Written:
    """Bring a view to a version, given its rows, one an entity: write what is new or changed, take away what it no longer has.

    `folder`: where what was last published is remembered. `mark`: as of `Standing`. What came later over the near-time path stays; what came so before gives
    way to the version where they differ.
    """
    store.keep([view])
    times = rows[view.event_column].cast(pl.Datetime("us")).to_physical()
    as_of_us = int(times.max() or 0)  # type: ignore[arg-type]
    keys = rows.select(pl.col(view.entity.join_keys).cast(pl.String)).hash_rows(seed=1).to_numpy()
    (standing,) = store.standings([view])
    erasures = store.erasures()
    last = Last(folder, view)
    is_known = standing.version is not None and (last.version, last.erasures) == (standing.version, erasures)
    before = last.before(keys) if is_known else None
    offered, gone = np.full(rows.height, before is None), set[str]()
    if before is not None:
        offered |= before.is_new
        gone.update(before.gone)
    elif standing.version is not None:
        gone.update(key for key, _ in store.scan(view))
    touched = store.touched(view)
    if gone or touched:
        texts = _texts(view, rows)
        offered |= texts.is_in(list(touched)).to_numpy()
        gone = (gone | touched).difference(texts)
    hashes = np.empty(rows.height, dtype=np.uint64)
    sent = 0
    with store.refresh(view, version, as_of_us, rows.height, mark) as coming:
        for batch in ahead(_changed(view, rows, times, as_of_us, offered, before, hashes)):
            coming.write(batch, (batch.event_us == as_of_us).tolist())
            sent += len(batch)
        if gone:
            coming.remove(sorted(gone))
    if coming.skipped:  # said again with the next version
        hashes = np.where(_texts(view, rows).is_in(coming.skipped).to_numpy(), ~hashes, hashes)
    last.write(version, erasures, keys, hashes, lambda: _texts(view, rows))
    return coming.written + Written(unchanged=rows.height - sent)


@dataclass(frozen=True)
class Before:
    """What was last published, seen from the rows that come: of each the hash of what it said, which are new, and keys that are gone."""

    hashes: Hashes
    is_new: NDArray[np.bool_]
    gone: list[str] = field(default_factory=list)


class Last:
    """What a view was last published as."""

    def __init__(self, folder: Path, view: View) -> None:
        self._folder = folder
        self._mark = folder / f"{view.name}.json"
        self._hashes, self._rows, self._keys = (
            folder / f"{view.name}.{end}" for end in ("hashes.npy", "rows.npy", "keys.parquet")
        )
        told = json.loads(self._mark.read_bytes()) if self._mark.exists() else {}
        self._schema_id = layout_of(view.online_fields).schema_id
        is_ours = told.get("polars") == pl.__version__ and told.get("schema_id") == self._schema_id
        self.version: str | None = told.get("version") if is_ours and told.get("is_unique") else None
        self.erasures: int = told.get("erasures", 0)
        self._is_same = False

    def before(self, keys: Hashes) -> Before | None:
        """What was published, given hashes of the keys that come; None where two of them are one."""
        old, hashes = np.load(self._hashes, allow_pickle=False), np.load(self._rows, allow_pickle=False)
        if np.array_equal(old, keys):
            self._is_same = True
            return Before(hashes, np.zeros(len(keys), dtype=np.bool_))
        if not _are_unique(keys):
            return None
        was = pl.DataFrame({"key": old}).with_row_index("place")
        joined = pl.DataFrame({"key": keys}).join(was, on="key", how="left", maintain_order="left")["place"]
        said = hashes[joined.fill_null(0).to_numpy()] if len(old) else np.zeros(len(keys), dtype=np.uint64)
        gone = pl.read_parquet(self._keys).join(pl.DataFrame({"hash": keys}), on="hash", how="anti")["key"]
        return Before(said, joined.is_null().to_numpy(), gone.to_list())

    def write(self, version: str, erasures: int, keys: Hashes, hashes: Hashes, texts: Callable[[], pl.Series]) -> None:
        """Remember a version. The mark goes first and comes last, so that half of it counts as nothing."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._mark.unlink(missing_ok=True)
        np.save(self._rows, hashes)
        if not self._is_same:
            np.save(self._hashes, keys)
            pl.DataFrame({"hash": keys, "key": texts()}).write_parquet(self._keys, compression="lz4")
        told = {
            "version": version, "erasures": erasures, "polars": pl.__version__, "schema_id": self._schema_id,
            "is_unique": self._is_same or _are_unique(keys),
        }  # fmt: skip
        write_atomically(self._mark, json.dumps(told).encode())


def _changed(
    view: View, rows: pl.DataFrame, times: pl.Series, as_of_us: int, offered: NDArray[np.bool_], before: Before | None, hashes: Hashes
) -> Iterator[Encoded]:  # fmt: skip
    """Rows that are offered or say something else than before, encoded; puts a hash of what each row says into `hashes`."""
    names = [each.name for each in view.online_fields]
    for begin in range(0, rows.height, _COMPARED_AT_A_TIME):
        part = slice(begin, begin + _COMPARED_AT_A_TIME)
        some, at = rows[part], times[part]
        told = some.select(names).with_columns(pl.when(at == as_of_us).then(None).otherwise(at).alias("\0at"))
        hashes[part] = told.hash_rows(seed=2).to_numpy()
        says = offered[part] if before is None else offered[part] | (hashes[part] != before.hashes[part])
        changed = some.filter(pl.Series(says))
        for first in range(0, changed.height, ROWS_AT_A_TIME):
            yield encoded(view, changed.slice(first, ROWS_AT_A_TIME))


def _are_unique(keys: Hashes) -> bool:
    return pl.Series(keys).n_unique() == len(keys)


def _texts(view: View, rows: pl.DataFrame) -> pl.Series:
    """The keys as they are stored."""
    *head, last = [pl.col(name).cast(pl.String) for name in view.entity.join_keys]
    marked = [pl.concat_str(part.str.len_bytes(), pl.lit(":"), part) for part in head]
    return rows.select(pl.concat_str(*marked, last).alias("key"))["key"]
