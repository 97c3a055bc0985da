"""A retailer that never was: writes the files and events real systems write, and keeps the physical truth aside."""

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from simulator.scale import SCALES, TINY, Scale, SimulatorError
from troth.home import Home

if TYPE_CHECKING:
    from simulator.trading import SimulationReport

__all__ = ["SCALES", "TINY", "Scale", "SimulatorError", "simulate", "simulate_whole"]


def simulate(
    home: Home, scale: Scale, seed: int, progress: Callable[[str, int, int], None] | None = None
) -> "SimulationReport":
    """Write `landing/` and `truth/` of a home. The same scale and seed give the same bytes and the same file times."""
    from simulator import trading

    return trading.simulate(home, scale, seed, progress)


def simulate_whole(
    home: Home, scale: Scale, seed: int, progress: Callable[[str, int, int], None] | None = None
) -> "SimulationReport":
    """`simulate` into a home without landed files, whole or not at all: an interruption leaves no half retailer.

    Written beside and moved in, `landing/` last.
    """
    draft = Home(home.root / ".sample.draft")
    shutil.rmtree(draft.root, ignore_errors=True)
    report = simulate(draft, scale, seed, progress)
    for written, place in ((draft.truth, home.truth), (draft.landing, home.landing)):
        shutil.rmtree(place, ignore_errors=True)
        written.rename(place)
    shutil.rmtree(draft.root)
    return report
