"""Stock twice over: what is physically there, and what the books say. The first limits sales; only the second is told.

Positions are flat: place x number of SKUs + SKU. Everything that happens is booked through `Stock.book`, so that both
truths can be written down as movements.
"""

from dataclasses import dataclass, field

import numpy as np

MOVEMENTS = (
    "opening", "sale", "return", "receipt", "transfer_out", "transfer_in", "adjustment", "destruction", "shipment", "pick",
    "web_return", "shrink",
)  # fmt: skip
MOVEMENT_CODE = {name: np.int8(code) for code, name in enumerate(MOVEMENTS)}


@dataclass
class DayBook:
    """Movements of one day: parallel lists of arrays."""

    kind: list[np.ndarray] = field(default_factory=list)
    position: list[np.ndarray] = field(default_factory=list)
    units: list[np.ndarray] = field(default_factory=list)
    at: list[np.ndarray] = field(default_factory=list)

    def add(self, kind: str, position: np.ndarray, units: np.ndarray, at: np.ndarray | None) -> None:
        moved = units != 0
        self.kind.append(np.full(int(moved.sum()), MOVEMENT_CODE[kind]))
        self.position.append(position[moved])
        self.units.append(units[moved])
        if at is not None:
            self.at.append(np.broadcast_to(at, units.shape)[moved])

    def taken(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Kind, position, units and time of everything, and an empty book again."""
        arrays = tuple(
            np.concatenate(part) if part else np.zeros(0, kind)
            for part, kind in (
                (self.kind, np.int8),
                (self.position, np.int64),
                (self.units, np.int64),
                (self.at, np.int64),
            )
        )
        self.kind, self.position, self.units, self.at = [], [], [], []
        return arrays  # type: ignore[return-value]


class Stock:
    """State by position. `misplaced` is there but nobody finds it; `committed` is promised to web orders;
    `unheard` is what left without the web shop being told; `on_order` is on its way; `announced` is the web shop's last word."""

    def __init__(self, places: int, skus: int) -> None:
        self.skus = skus
        size = places * skus
        self.physical, self.recorded, self.misplaced, self.committed, self.unheard, self.on_order, self.announced = (
            np.zeros(size, np.int32) for _ in range(7)
        )
        self.told, self.true = DayBook(), DayBook()
        self.stirred: list[np.ndarray] = []  # positions where goods went astray or turned up again

    def book(
        self, kind: str, position: np.ndarray, recorded: np.ndarray, at: np.ndarray, physical: np.ndarray | None = None
    ) -> None:
        """Move both stocks; `physical` differs from `recorded` where the books are wrong."""
        physical = recorded if physical is None else physical
        np.add.at(self.recorded, position, recorded.astype(np.int32))
        np.add.at(self.physical, position, physical.astype(np.int32))
        self.told.add(kind, position, recorded, at)
        self.true.add(kind, position, physical, None)

    def lose(self, position: np.ndarray, units: np.ndarray) -> None:
        """Units gone without anybody writing it down."""
        np.subtract.at(self.physical, position, units.astype(np.int32))
        self.true.add("shrink", position, -units, None)

    def misplace(self, position: np.ndarray, units: np.ndarray) -> None:
        """So many of them are now where nobody looks."""
        self.stirred.append(position[self.misplaced[position] != units])
        self.misplaced[position] = units

    def findable(self, position: np.ndarray) -> np.ndarray:
        """Units a shopper or picker would find."""
        found: np.ndarray = np.maximum(self.physical[position] - self.misplaced[position], 0)
        return found


def rationed(available: np.ndarray, position: np.ndarray, wanted: np.ndarray, when: np.ndarray) -> np.ndarray:
    """Units each request gets, first come first served; `available` is by request, equal for equal positions."""
    if not len(position):
        return wanted.copy()
    order = np.lexsort((when, position))
    ordered, ask = position[order], wanted[order].astype(np.int64)
    before = np.cumsum(ask) - ask
    starts = np.r_[True, ordered[1:] != ordered[:-1]]
    earlier = before - np.repeat(before[starts], np.diff(np.r_[np.flatnonzero(starts), len(ordered)]))
    granted = np.empty(len(ask), np.int64)
    granted[order] = np.clip(available[order] - earlier, 0, ask)
    return granted


def distinct(rng: np.random.Generator, size: int, expected: float) -> np.ndarray:
    """A Poisson number of different positions out of `size`, in order."""
    return np.unique(rng.integers(0, size, rng.poisson(expected)))
