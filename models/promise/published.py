"""Stock from the published table, for a home whose projector has never run: as the warehouse last had it, and without beliefs."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import polars as pl

from models.errors import ModelsError
from models.stock.atp import PARTS
from models.stock.board.layout import CELL, Cells, Known
from troth.home import Home
from troth.published import current

_NEEDED = ("location_code", "sku", "last_movement_at", "as_of_at")


class PublishedShelf:
    """A shelf over `availability`. Raises: TrothError where it is not published, or by a release that had other columns."""

    def __init__(self, home: Home) -> None:
        frame = pl.scan_parquet(current(home, "availability"))
        schema = frame.collect_schema()
        if missing := [name for name in _NEEDED if name not in schema]:
            raise ModelsError(
                f"published table availability: expected column {', '.join(missing)}, found none of that name. "
                "Run `troth run` to build and publish it again."
            )
        self._parts = [part for part in PARTS if part in schema]
        self._frame = frame
        head = frame.select(pl.col("as_of_at").max()).collect().item()
        self._as_of: datetime | None = None if head is None else _aware(head)
        self._locations = frame.select(pl.col("location_code").unique().sort()).collect()["location_code"].to_list()

    def known(self) -> Known:
        return Known(0, self._as_of, self._as_of, None)

    def rows(self, skus: Sequence[str]) -> tuple[Cells, Sequence[str]]:
        shape = len(skus), len(self._locations)
        data, is_known = np.zeros(shape, dtype=CELL), np.zeros(shape, dtype=np.bool_)
        row = {sku: number for number, sku in enumerate(skus)}
        column = {code: number for number, code in enumerate(self._locations)}
        moved = pl.col("last_movement_at").dt.epoch("us").fill_null(0)
        found = (
            self._frame.filter(pl.col("sku").is_in(list(skus)))
            .select("sku", "location_code", *self._parts, moved.alias("last_event_at"))
            .collect()
        )
        for sku, code, *values in found.iter_rows():
            at = row[sku], column[code]
            is_known[at] = True
            for name, value in zip((*self._parts, "last_event_at"), values, strict=True):
                data[name][at] = value or 0
        return Cells(data, is_known), self._locations


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)
