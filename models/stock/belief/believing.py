"""Beliefs over time: all of what is known day by day, or one more day of it. The same cuts give the same beliefs either way."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.errors import ModelsError
from models.stock.belief.beliefs import Beliefs, Ints, mean_units
from models.stock.belief.calibration import Calibration
from models.stock.belief.evidence import DAY, Tables, gathered
from models.stock.belief.filtering import Scores, found_probability, step
from models.stock.belief.parameters import STORE, Parameters
from models.stock.belief.safety import safety_units

UNITS = (1, 2, 3, 4)
EVIDENCE = ("books alone", "counted", "pick failed", "left")


def cuts(tables: Tables, as_of_at: datetime) -> list[datetime]:
    """Ends of the periods, a day each, from when the first of it was received to `as_of_at`."""
    began = tables.began_at()
    if began is None or began > as_of_at:
        return [as_of_at]
    return [as_of_at - timedelta(days=ago) for ago in range((as_of_at - began) // DAY, -1, -1)]


def beliefs_at(tables: Tables, as_of_at: datetime, parameters: Parameters, scores: Scores | None = None) -> Beliefs:
    """Beliefs from everything received by a time (naive UTC), in periods of a day that end at its time of day."""
    beliefs = Beliefs(parameters=parameters)
    for until in cuts(tables, as_of_at):
        update(beliefs, tables, until, scores)
    return beliefs


def update(beliefs: Beliefs, tables: Tables, until: datetime, scores: Scores | None = None) -> None:
    """Change beliefs by what was received after their time and by another. Of earlier movements only those later than a count told now are looked at.

    Raises: ModelsError for a time that is not later.
    """
    if beliefs.as_of_at is not None and until <= beliefs.as_of_at:
        raise ModelsError(
            f"belief: expected a time after {beliefs.as_of_at}, found {until}. Go on from earlier beliefs, or ask for a later time."
        )
    evidence = gathered(beliefs, tables, until)
    step(beliefs, evidence, scores)
    beliefs.as_of_at = until


def believe(
    tables: Tables,
    as_of_at: datetime,
    parameters: Parameters | None = None,
    calibration: Calibration | None = None,
    model_version: str = "",
) -> pl.DataFrame:
    """What published tables known by a time let us believe of every position: `published`, after `beliefs_at`."""
    return published(beliefs_at(tables, as_of_at, parameters or Parameters()), calibration, model_version)


def published(beliefs: Beliefs, calibration: Calibration | None = None, model_version: str = "") -> pl.DataFrame:
    """Table `stock_belief`, one row per location and SKU: location_code, sku, books_units, mean_units, p_found_1 to p_found_4, p_zero, safety_units,
    evidence, as_of_at (naive UTC), model_version. Probabilities are calibrated where a calibration is given."""
    chances = found_probability(beliefs, UNITS)
    if calibration:
        chances = calibration.applied(chances, groups_of(beliefs))
    return beliefs.positions.with_columns(
        books_units=pl.Series(beliefs.books),
        mean_units=pl.Series(mean_units(beliefs.base, beliefs.mass)),
        **{f"p_found_{units}": pl.Series(chances[:, column]) for column, units in enumerate(UNITS)},
        p_zero=pl.Series(1 - chances[:, 0]),
        safety_units=pl.Series(safety_units(beliefs).astype(np.int64)),
        evidence=pl.Series(_evidence(beliefs), dtype=pl.Enum(EVIDENCE)),
        as_of_at=pl.lit(beliefs.as_of_at, pl.Datetime("us")),
        model_version=pl.lit(model_version),
    ).sort("location_code", "sku")


def groups_of(beliefs: Beliefs, positions: Ints | None = None) -> NDArray[np.str_]:
    """The calibration group of each position: location type (picked in a store, shipped from a centre) and category."""
    place, item = (
        (beliefs.place, beliefs.item) if positions is None else (beliefs.place[positions], beliefs.item[positions])
    )
    types: NDArray[np.str_] = beliefs.locations["location_type"].fill_null(STORE).to_numpy().astype(str)
    categories = beliefs.items["category"].fill_null("").to_numpy().astype(str)
    return np.asarray(np.char.add(np.char.add(types[place], "/"), categories[item]), np.str_)


def _evidence(beliefs: Beliefs) -> NDArray[np.str_]:
    """What speaks last: a count, a failed pick, a piece that left, or the books alone."""
    latest = np.stack([beliefs.counted_day, beliefs.missed_day, beliefs.seen_day])
    names = np.array(EVIDENCE)
    return np.asarray(np.where(latest.max(axis=0) == 0, names[0], names[1 + latest.argmax(axis=0)]), np.str_)
