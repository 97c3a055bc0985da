"""A retailer that never was: writes the files and events real systems write, and keeps the physical truth aside."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from simulator.scale import SCALES, TINY, Scale, SimulatorError
from troth.home import Home

if TYPE_CHECKING:
    from simulator.trading import SimulationReport

__all__ = ["SCALES", "TINY", "Scale", "SimulatorError", "simulate"]


def simulate(
    home: Home, scale: Scale, seed: int, progress: Callable[[str, int, int], None] | None = None
) -> "SimulationReport":
    """Write `landing/` and `truth/` of a home. The same scale and seed give the same bytes and the same file times."""
    from simulator import trading

    return trading.simulate(home, scale, seed, progress)
