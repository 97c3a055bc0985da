"""How much of a slot is promised already: the seam to whoever knows. Capacity renews itself with every slot."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol


class Hands(NamedTuple):
    """Those who get goods ready at a place: for the pickup slot, or for the departure, that begins at a second."""

    location_code: str
    starts_at: int
    is_pickup: bool


class Loads(Protocol):
    """Lines promised of some hands."""

    def load(self, hands: Hands) -> int: ...


class KnownLoads:
    """Loads that somebody counted; of other hands, or where more is known, what `otherwise` says."""

    def __init__(self, lines: Mapping[Hands, int], otherwise: Loads | None = None) -> None:
        self._lines, self._otherwise = lines, otherwise

    def load(self, hands: Hands) -> int:
        counted = self._lines.get(hands, 0)
        return counted if self._otherwise is None else max(counted, self._otherwise.load(hands))


NO_LOADS = KnownLoads({})  # nothing is promised anywhere: for a retailer that does not count
