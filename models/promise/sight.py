"""Stock as it is seen for one basket: what is available where, how likely it is found, and how old that knowledge is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.promise.asking import MODEL_VERSION, Cell, Evidence, Line
from models.promise.network import Network
from models.promise.rules import EvidenceRules, Rules
from models.stock.atp import PARTS
from models.stock.board.layout import CELL, MOST_FOUND, Cells, Known, time_of


class Shelf(Protocol):
    """What is asked of a board."""

    def known(self) -> Known: ...

    def rows(self, skus: Sequence[str]) -> tuple[Cells, Sequence[str]]: ...


@dataclass(frozen=True)
class Sight:
    """Arrays are lines by places of the network, `data` lines by columns of the board. `is_usable`: young enough to promise anything on."""

    lines: Sequence[Line]
    units: NDArray[np.int64]
    data: NDArray[Any]
    columns: NDArray[np.int64]
    is_known: NDArray[np.bool_]
    available: NDArray[np.int64]
    known: Known
    age_seconds: float | None
    is_usable: bool
    kept_share: float
    rules: Rules
    is_store: NDArray[np.bool_]

    def take(self, lines: Sequence[int]) -> "Sight":
        """The same for some of the lines."""
        return replace(
            self, lines=[self.lines[line] for line in lines], units=self.units[lines], data=self.data[lines],
            is_known=self.is_known[lines], available=self.available[lines],
        )  # fmt: skip

    def found(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """P(all units of a line are found) at some places, shape (lines, places).

        What is committed or held is somebody else's and is taken first: a line of two behind one of three needs five on the shelf.
        Without a belief the default of the rules counts; what is known for long counts for less.
        """
        data = self.data[:, self.columns[places]]
        needed = self._needed(data)
        believed = Cells(data, np.ones(data.shape, dtype=np.bool_)).found_probability(needed)
        told = self._is_believed(data)
        if not told.all():
            believed = np.where(told, believed, self._default(places))
        return believed * self.kept_share

    def evidence(self, taken: Sequence[tuple[int, int, float]], network: Network, is_exact: bool) -> Evidence:
        """What lines at places rest on. `taken`: (line, place, P(found))."""
        return Evidence(
            cells=tuple(self._cell(line, place, found, network.codes[place]) for line, place, found in taken),
            log_offset=self.known.offset,
            known_at=self.known.known_at,
            recomputed_at=self.known.recomputed_at,
            believed_at=self.known.believed_at,
            rules_hash=network.rules_hash,
            network_version=network.version,
            model_version=MODEL_VERSION,
            is_exact=is_exact,
        )

    def _needed(self, data: NDArray[Any]) -> NDArray[np.int64]:
        ahead = np.maximum(data["committed_units"], 0).astype(np.int64) + np.maximum(data["held_units"], 0)
        needed: NDArray[np.int64] = self.units[:, None] + ahead
        return needed

    def _is_believed(self, data: NDArray[Any]) -> NDArray[np.bool_]:
        # A belief never says that a first piece is out of the question: all zeros are a cell nobody has believed of.
        return data["found"][..., 0] > 0

    def _default(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        store, centre = self.rules.found["store"], self.rules.found["distribution_center"]
        first = np.where(self.is_store[places], store.first, centre.first)
        further = np.where(self.is_store[places], store.further, centre.further)
        default: NDArray[np.float64] = first * further ** (self.units[:, None] - 1)
        return default

    def _cell(self, line: int, place: int, found: float, code: str) -> Cell:
        one = dict(zip(CELL.names or (), self.data[line, self.columns[place]].item(), strict=True))
        parts = {part: one[part] for part in PARTS}
        needed = self.lines[line].units + max(0, parts["committed_units"]) + max(0, parts["held_units"])
        basis = "default" if not one["found"][0] else "bound" if needed > MOST_FOUND else "belief"
        return Cell(
            location_code=code,
            sku=self.lines[line].sku,
            units=self.lines[line].units,
            available_units=int(self.available[line, place]),
            **parts,
            found_probability=found,
            basis=basis,
            last_event_at=time_of(one["last_event_at"]),
            log_offset=one["offset"],
        )


def see(
    board: Shelf,
    network: Network,
    lines: Sequence[Line],
    at: datetime,
    at_most: Mapping[tuple[str, str], int] | None = None,
) -> Sight:
    """Stock of some lines at every place of the network.

    `at_most`: by (location, SKU) what is known to be there at most, whatever the board says: a pick failed, a hold was refused.
    """
    known = board.known()
    cells, locations = board.rows([line.sku for line in lines])
    columns = network.columns.on(locations)
    is_known = cells.is_known[:, columns] & (columns >= 0)
    available = cells.available_units[:, columns] * is_known
    rows = {line.sku: number for number, line in enumerate(lines)}
    for (code, sku), units in (at_most or {}).items():
        if code in network.at and sku in rows:
            cell = rows[sku], network.at[code]
            available[cell] = min(available[cell], units)
    age = max(0.0, (at - known.known_at).total_seconds()) if known.known_at else None
    share, is_usable = aged(age, network.rules.evidence)
    return Sight(
        lines=lines,
        units=np.array([line.units for line in lines], dtype=np.int64),
        data=cells.data,
        columns=columns,
        is_known=is_known,
        available=available,
        known=known,
        age_seconds=age,
        is_usable=is_usable,
        kept_share=share,
        rules=network.rules,
        is_store=network.is_store,
    )


def aged(age_seconds: float | None, rules: EvidenceRules) -> tuple[float, bool]:
    """The share of P(found) that is left at an age, and whether anything may be promised on it. A board that never said when is too old."""
    if age_seconds is None or age_seconds > rules.refuse_after_hours * 3600:
        return 0.0, False
    hours = max(0.0, age_seconds / 3600 - rules.fresh_minutes / 60)
    return (1 - rules.lost_per_hour) ** hours, True
