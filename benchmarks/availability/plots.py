"""Reliability of what was told, oversell against lost sales, phantoms found against false alarms: one figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from benchmarks.availability.scoring import Joined

BINS = 15


def draw(engines: Mapping[str, "Joined"], path: Path) -> None:
    """Three panels, a line for each engine; rules that know only yes and no are points."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (told, kept, alarms) = plt.subplots(1, 3, figsize=(16, 5.2), layout="constrained")
    told.plot([0, 1], [0, 1], color="lightgray", zorder=0)
    for number, (name, joined) in enumerate(engines.items()):
        color = f"C{number}"
        which = np.clip((joined.chance * BINS).astype(int), 0, BINS - 1)
        size = np.bincount(which, minlength=BINS)
        used = size > 0
        mean, found = (
            np.bincount(which, values, BINS)[used] / size[used]
            for values in (joined.chance, joined.found.astype(float))
        )
        told.plot(mean, found, marker="o", markersize=3, label=name, color=color)
        curve = joined.acceptance()
        kept.plot(
            curve[:, 1],
            curve[:, 0],
            marker="o" if len(np.unique(joined.chance)) == 2 else None,
            label=name,
            color=color,
        )
        order = np.argsort(-joined.doubt, kind="stable")
        true = np.r_[0, np.cumsum(joined.phantom[order])] / max(joined.phantom.sum(), 1)
        false = np.r_[0, np.cumsum(~joined.phantom[order])] / max((~joined.phantom).sum(), 1)
        if len(np.unique(joined.doubt)) > 1:
            alarms.plot(false, true, label=name, color=color)
    alarms.plot(0.1552, 0.6348, marker="*", markersize=12, color="black", linestyle="", label="Montoya & Gonzalez 2019")
    told.set(xlabel="probability told", ylabel="share found", title="Reliability")
    kept.set(
        xlabel="lost: could have been promised and was not",
        ylabel="oversell: promised and not found",
        xlim=(0, 0.2),
        ylim=(0, 0.13),
        title="Promises",
    )
    alarms.set(xlabel="sound positions flagged", ylabel="phantoms found", xlim=(0, 0.4), title="Phantom stock")
    for axes in (told, kept, alarms):
        axes.spines[["top", "right"]].set_visible(False)
    told.legend(loc="upper left", fontsize="small")
    alarms.legend(alarms.lines[-1:], ["Montoya & Gonzalez 2019"], loc="lower right", fontsize="small")
    figure.savefig(path)
    plt.close(figure)
