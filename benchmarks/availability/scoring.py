"""How an engine did: answers against what was there. Arrays in, numbers and curves out."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.availability.engines import Engine
from benchmarks.availability.replay import FIRST_DAY, KINDS, Morning
from models.stock.belief.calibration import brier, calibration_error

Floats = NDArray[np.float64]
COUNTS_A_WEEK = 60
THRESHOLDS = np.linspace(0, 1.0005, 2_002)
FLOOR = 0.001  # of a probability in the log loss: a rule that says never must not cost infinitely much


@dataclass
class Answers:
    """Everything an engine said, and the truth beside it."""

    chance: list[Floats] = field(default_factory=list)
    found: list[NDArray[np.bool_]] = field(default_factory=list)
    kind: list[NDArray[np.int64]] = field(default_factory=list)
    doubt: list[Floats] = field(default_factory=list)  # of positions with books above nothing: 1 - P(a piece)
    phantom: list[NDArray[np.bool_]] = field(default_factory=list)
    counted: int = 0
    counted_phantoms: int = 0
    counted_signs: int = 0  # books and shelf disagree whether anything is there
    idle_cents: float = 0.0  # demand a day that meets the phantoms found
    age: list[Floats] = field(default_factory=list)

    def ask(self, engine: Engine, morning: Morning) -> None:
        """A morning's questions, every shown position's doubt, and once a week the count list."""
        asked = morning.questions
        if asked is None:
            return
        self.chance.append(np.asarray(engine.found(asked.position, asked.units), np.float64))
        self.found.append(morning.found_units[asked.position] >= asked.units)
        self.kind.append(asked.kind)
        self.age.append(morning.heard_days_ago[asked.position])
        shown = np.flatnonzero(morning.books > 0)
        self.doubt.append(1 - np.asarray(engine.found(shown, np.ones(len(shown), np.int64)), np.float64))
        self.phantom.append(morning.found_units[shown] == 0)
        if (morning.told.day - FIRST_DAY) % 7 == 0:
            listed = engine.count_list(COUNTS_A_WEEK)
            has, says = morning.found_units[listed] > 0, morning.books[listed] > 0
            self.counted += len(listed)
            self.counted_phantoms += int((says & ~has).sum())
            self.counted_signs += int((says != has).sum())
            self.idle_cents += float(morning.wanted_cents[listed][says & ~has].sum())

    def count_shares(self) -> dict[str, float]:
        """What a count of its lists finds: phantoms, books that are wrong on whether anything is there, and the demand in cents a day that meets an empty shelf."""
        return {
            "idle_demand": self.idle_cents / max(self.counted, 1),
            "phantoms": self.counted_phantoms / max(self.counted, 1),
            "wrong_signs": self.counted_signs / max(self.counted, 1),
        }

    def joined(self) -> "Joined":
        return Joined(
            *(np.concatenate(each) for each in (self.chance, self.found, self.kind, self.doubt, self.phantom, self.age))
        )


@dataclass(frozen=True)
class Joined:
    """The same, all mornings in one."""

    chance: Floats
    found: NDArray[np.bool_]
    kind: NDArray[np.int64]
    doubt: Floats
    phantom: NDArray[np.bool_]
    age: Floats

    def quality(self) -> dict[str, float]:
        """Brier, log loss and ECE, over all questions and by kind."""
        told = np.clip(self.chance, FLOOR, 1 - FLOOR)
        numbers = {
            "brier": brier(self.chance, self.found), "log_loss": float(-np.log(np.where(self.found, told, 1 - told)).mean()),
            "ece": calibration_error(self.chance, self.found),
        }  # fmt: skip
        for row, kind in enumerate(KINDS):
            own = self.kind == row
            numbers |= {
                f"brier_{kind}": brier(self.chance[own], self.found[own]),
                f"ece_{kind}": calibration_error(self.chance[own], self.found[own]),
            }
        return numbers

    def accepting(self, threshold: float) -> dict[str, float]:
        """Promises above a threshold: share of them not kept (oversell), share of what could have been promised and was not (lost), both of one policy."""
        accepted = self.chance >= threshold
        return {
            "oversell": float((accepted & ~self.found).sum() / max(accepted.sum(), 1)), "lost": float((~accepted & self.found).sum() / max(self.found.sum(), 1)),
        }  # fmt: skip

    def acceptance(self) -> NDArray[np.float64]:
        """Oversell and lost for every threshold."""
        return np.array([list(self.accepting(threshold).values()) for threshold in THRESHOLDS[::20]])

    def flagging(self, threshold: float) -> dict[str, float]:
        """Positions flagged where doubt reaches a threshold: share of phantoms found, share of sound positions flagged, share of flags that are false."""
        flagged = self.doubt >= threshold
        return {
            "phantoms_found": float((flagged & self.phantom).sum() / max(self.phantom.sum(), 1)),
            "false_alarms": float((flagged & ~self.phantom).sum() / max((~self.phantom).sum(), 1)),
            "false_of_alarms": float((flagged & ~self.phantom).sum() / max(flagged.sum(), 1)),
        }

    def accept_at_lost(self, lost: float) -> float:
        """The highest threshold that loses no more than a share of what could be promised; of a rule that says yes or no, its yes."""
        if np.isin(self.chance, (0.0, 1.0)).all():
            return 0.5
        there = np.sort(self.chance[self.found])
        return float(there[min(round(lost * len(there)), len(there) - 1)])

    def flag_at(self, false_alarms: float) -> float:
        """The lowest threshold that flags no more than a share of the sound positions."""
        sound = np.sort(self.doubt[~self.phantom])[::-1]
        return float(np.nextafter(sound[min(int(false_alarms * len(sound)), len(sound) - 1)], 2))

    def flag_at_precision(self, false_of_alarms: float) -> float:
        """The lowest threshold above which no more than a share of flags is false."""
        order = np.argsort(-self.doubt, kind="stable")
        false = np.cumsum(~self.phantom[order]) / np.arange(1, len(order) + 1)
        good = np.flatnonzero(false <= false_of_alarms)
        return float(self.doubt[order[good[-1]]]) if len(good) else 2.0
