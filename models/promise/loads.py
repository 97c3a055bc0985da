"""How much of a slot is promised already: the seam to whoever knows. Capacity renews itself with every slot."""

from collections.abc import Mapping
from typing import Protocol


class Loads(Protocol):
    """Lines promised for a place in the slot, or for the departure, that begins at a second."""

    def load(self, location_code: str, starts_at: int) -> int: ...


class NoLoads:
    """Nothing is promised anywhere: for a retailer that does not count."""

    def load(self, location_code: str, starts_at: int) -> int:
        return 0


NO_LOADS = NoLoads()


class KnownLoads:
    """Loads that somebody counted."""

    def __init__(self, lines: Mapping[tuple[str, int], int]) -> None:
        self._lines = lines

    def load(self, location_code: str, starts_at: int) -> int:
        return self._lines.get((location_code, starts_at), 0)
