"""What a belief assumes of a retailer: how often records are wrong, goods go missing, counts and picks err. Learned in `learning.py`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
STORE, CENTER = "store", "distribution_center"


@dataclass(frozen=True)
class Parameters:
    """Rates are per piece of evidence, or per position and day where the name says so; expectations until something is learned.

    `odds`: by location type and category (`store/Toys`), how many times as often as the mean its records are wrong and its goods go missing.
    """

    wrong_share: float = 0.5  # opening records that are wrong, in stores
    wrong_share_center: float = 0.08
    surplus_share: float = 0.4  # of wrong records, those with more on the shelf than in the books
    error_tail: float = 0.5  # an error of n pieces is followed by one of n + 1 this many times as often
    loss_per_day: float = 0.005  # a piece stolen, broken or put where nobody looks
    gain_per_day: float = 0.001  # a piece that turns up again
    mis_scan: float = 0.005  # sales rung up as another SKU of the category
    transit_loss: float = 0.005  # lines of a transfer that arrive a piece short
    count_error: float = 0.02
    pick_error: float = 0.05  # pickers who say there is nothing where there is something
    slip: float = 0.002  # records of goods that left which cannot have been so
    likeness: float = 3.0  # gamma shape: how alike the demand for one SKU is from store to store
    units_per_line: float = 1.25
    odds: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), sort_keys=True, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Parameters":
        return cls(**json.loads(text))

    def changed(self, **values: Any) -> "Parameters":
        return replace(self, **values)


def opening_errors(wrong: Floats, parameters: Parameters, width: int) -> Floats:
    """P(shelf minus books = e) for e from -width//2, one row for each share of wrong records; each row sums to one."""
    error = np.arange(width) - width // 2
    size = np.abs(error).astype(np.float32)
    tail = (1 - parameters.error_tail) * parameters.error_tail ** np.maximum(size - 1, 0)
    side = np.where(error > 0, parameters.surplus_share, 1 - parameters.surplus_share)
    shape = np.where(error == 0, 0, tail * side)
    shape = shape / shape.sum()
    rows: Floats = (wrong[:, None] * shape[None, :] + (1 - wrong)[:, None] * (error == 0)).astype(np.float32)
    return rows
