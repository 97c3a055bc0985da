"""Safety units: what to hold back so that what is promised beyond them is there, with a given confidence."""

import numpy as np

from models.stock.belief.beliefs import CHUNK, Beliefs, Ints
from models.stock.belief.filtering import demand_rates, now, thinned


def safety_units(beliefs: Beliefs, confidence: float = 0.95, lag_days: float = 0.5) -> Ints:
    """Recorded pieces to keep back, by position: books less the units that are there with `confidence` after `lag_days` of plain demand not yet heard of.

    Never negative, and never more than the books say.
    """
    kept, rates = np.zeros(len(beliefs), np.int32), demand_rates(beliefs)
    for start in range(0, len(beliefs), CHUNK):
        part = slice(start, start + CHUNK)
        base, books = beliefs.base[part], beliefs.books[part]
        expected = np.asarray(rates[part] * lag_days * beliefs.parameters.units_per_line, np.float32)
        mass = thinned(base, now(beliefs, part, rates), expected)
        below = np.cumsum(mass, axis=1)
        sure = base + (below <= 1 - confidence + 1e-6).sum(axis=1, dtype=np.int32)
        kept[part] = np.clip(books - sure, 0, np.maximum(books, 0))
    return kept
