"""What changed since a view was last published: only that is encoded and sent, and what is no longer there is taken away.

Kept beside the store, for each view: a hash of each entity's key and one of its row (8 bytes each), and the keys. It counts only where
the store says that it stands at that version and nobody was erased since, and else the whole version is offered and the store compares. Two keys of one hash
among ten million are as likely as 1 in 370,000; then, too, the whole version is offered. A row whose event time is the version's own
counts as unchanged when nothing but that time moved: the store knows that such rows follow.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from feature_repo.catalogue import View
from feature_repo.columns import ROWS_AT_A_TIME, encoded
from feature_repo.packed import layout_of
from feature_repo.store import OnlineStore, Written
from troth.home import write_atomically

Hashes = NDArray[np.uint64]


def refresh(store: OnlineStore, view: View, rows: pl.DataFrame, version: str, folder: Path) -> Written:
    """Bring a view to a version, given its rows, one an entity: write what is new or changed, take away what it no longer has.

    `folder`: where what was last published is remembered. What came later over the near-time path stays; what came so before gives
    way to the version where they differ.
    """
    store.keep([view])
    last = Last(folder, view)
    times = rows[view.event_column].cast(pl.Datetime("us")).to_physical()
    as_of_us = int(times.max() or 0)  # type: ignore[arg-type]
    keys, hashes = _hashed(view, rows, times, as_of_us)
    (standing,) = store.standings([view])
    erasures = store.erasures()
    is_known = standing.version is not None and (last.version, last.erasures) == (standing.version, erasures)
    known = last.read() if is_known else None
    says, gone = np.ones(rows.height, dtype=np.bool_), set[str]()
    if known is not None and pl.Series(keys).n_unique() == len(keys):
        says = _differ(keys, hashes, *known)
        gone.update(last.keys_but(keys))
    elif standing.version is not None:
        gone.update(key for key, _ in store.scan(view))
    touched = store.touched(view)
    if gone or touched:
        texts = _texts(view, rows)
        says |= texts.is_in(list(touched)).to_numpy()
        gone = (gone | touched).difference(texts)
    changed = rows.filter(pl.Series(says))
    with store.refresh(view, version, as_of_us, rows.height) as coming:
        for begin in range(0, changed.height, ROWS_AT_A_TIME):
            batch = encoded(view, changed.slice(begin, ROWS_AT_A_TIME))
            coming.write(batch, (batch.event_us == as_of_us).tolist())
        if gone:
            coming.remove(sorted(gone))
    if coming.skipped:  # said again with the next version
        hashes = np.where(_texts(view, rows).is_in(coming.skipped).to_numpy(), ~hashes, hashes)
    last.write(version, erasures, keys, hashes, lambda: _texts(view, rows))
    return coming.written + Written(unchanged=rows.height - changed.height)


class Last:
    """What a view was last published as."""

    def __init__(self, folder: Path, view: View) -> None:
        self._folder = folder
        self._mark = folder / f"{view.name}.json"
        self._rows, self._keys = folder / f"{view.name}.npy", folder / f"{view.name}.keys.parquet"
        told = json.loads(self._mark.read_bytes()) if self._mark.exists() else {}
        is_ours = (
            told.get("polars") == pl.__version__ and told.get("schema_id") == layout_of(view.online_fields).schema_id
        )
        self.version: str | None = told.get("version") if is_ours else None
        self.erasures: int = told.get("erasures", 0)
        self._schema_id = layout_of(view.online_fields).schema_id

    def read(self) -> tuple[Hashes, Hashes]:
        """Hashes of keys and of rows."""
        found = np.load(self._rows, allow_pickle=False)
        return found[0], found[1]

    def keys_but(self, keys: Hashes) -> list[str]:
        """Keys that are not among the given ones any more."""
        if np.array_equal(self.read()[0], keys):
            return []
        return pl.read_parquet(self._keys).join(pl.DataFrame({"hash": keys}), on="hash", how="anti")["key"].to_list()

    def write(self, version: str, erasures: int, keys: Hashes, hashes: Hashes, texts: Callable[[], pl.Series]) -> None:
        """Remember a version. The mark goes first and comes last, so that half of it counts as nothing."""
        self._folder.mkdir(parents=True, exist_ok=True)
        is_kept = self.version is not None and self._rows.exists() and self._keys.exists()
        same_keys = is_kept and np.array_equal(self.read()[0], keys)
        self._mark.unlink(missing_ok=True)
        np.save(self._rows, np.stack([keys, hashes]))
        if not same_keys:
            pl.DataFrame({"hash": keys, "key": texts()}).write_parquet(self._keys, compression="lz4")
        told = {"version": version, "erasures": erasures, "polars": pl.__version__, "schema_id": self._schema_id}
        write_atomically(self._mark, json.dumps(told).encode())


def _hashed(view: View, rows: pl.DataFrame, times: pl.Series, as_of_us: int) -> tuple[Hashes, Hashes]:
    """For each row a hash of its key, and one of what it says."""
    keys = rows.select(pl.col(view.entity.join_keys).cast(pl.String)).hash_rows(seed=1)
    says = rows.select(each.name for each in view.online_fields).with_columns(
        pl.when(times == as_of_us).then(None).otherwise(times).alias("\0at")
    )
    return keys.to_numpy(), says.hash_rows(seed=2).to_numpy()


def _differ(keys: Hashes, hashes: Hashes, old_keys: Hashes, old_hashes: Hashes) -> NDArray[np.bool_]:
    """Which rows are new or say something else."""
    says: NDArray[np.bool_]
    if np.array_equal(keys, old_keys):
        says = hashes != old_hashes
        return says
    new = pl.DataFrame({"key": keys, "hash": hashes})
    old = pl.DataFrame({"key": old_keys, "was": old_hashes})
    joined = new.join(old, on="key", how="left", maintain_order="left")
    says = joined.select((pl.col("hash") != pl.col("was")).fill_null(True))["hash"].to_numpy()
    return says


def _texts(view: View, rows: pl.DataFrame) -> pl.Series:
    """The keys as they are stored."""
    *head, last = [pl.col(name).cast(pl.String) for name in view.entity.join_keys]
    marked = [pl.concat_str(part.str.len_bytes(), pl.lit(":"), part) for part in head]
    return rows.select(pl.concat_str(*marked, last).alias("key"))["key"]
