"""What was learned of a retailer's records and pickers, as an artifact of `models/registry.py`: numbers, their reliability table, and what they rest on."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from models import registry
from models.stock.belief.believing import beliefs_at, groups_of
from models.stock.belief.calibration import Calibration, brier, calibration_error, fitted, picks_of, reliability
from models.stock.belief.evidence import Tables
from models.stock.belief.filtering import Scores
from models.stock.belief.learning import learn
from models.stock.belief.parameters import Parameters
from troth.home import Home

ARTIFACT = "stock_belief"
PARAMETERS, CALIBRATION, RELIABILITY = "parameters.json", "calibration.json", "reliability.csv"
JUDGED = 3  # every third position's picks judge the calibration of the others


@dataclass(frozen=True)
class Model:
    """Parameters and calibration in use, how reliable they were on picks they had not seen, and the version's name ("" before it is kept)."""

    parameters: Parameters
    calibration: Calibration
    reliability: pl.DataFrame
    diagnostics: Mapping[str, Any]
    version: str = ""


def trained(tables: Tables, until: datetime, trials: int = 60) -> Model:
    """A model from a retailer's own counts and picks up to a time (naive UTC). The reliability table is of positions held out of the calibration."""
    found = learn([(tables, until)], trials=trials)
    scores = Scores()
    beliefs = beliefs_at(tables, until, found.parameters, scores)
    position, chance, outcome = picks_of(scores)
    groups = groups_of(beliefs, position)
    judged = position % JUDGED == 0
    unseen = fitted(chance[~judged], outcome[~judged], groups[~judged]).applied(chance[judged], groups[judged])
    diagnostics = {
        **found.diagnostics(), "judged_on_picks": int(judged.sum()), "calibration_error": round(calibration_error(unseen, outcome[judged]), 5),
        "brier": round(brier(unseen, outcome[judged]), 5) if judged.any() else None,
    }  # fmt: skip
    table = reliability(unseen, outcome[judged], groups[judged])
    return Model(found.parameters, fitted(chance, outcome, groups), table, diagnostics)


def keep(home: Home, model: Model, tables: Mapping[str, str], use: bool = True) -> str:
    """Write a model as an artifact, and use it from now on unless told otherwise. `tables`: version of each table it was learned from."""
    files = {
        PARAMETERS: model.parameters.to_json(), CALIBRATION: model.calibration.to_json(), RELIABILITY: model.reliability.write_csv().encode(),
    }  # fmt: skip
    version = registry.save(
        home, ARTIFACT, files, {"model": ARTIFACT, "tables": dict(tables), "diagnostics": dict(model.diagnostics)}
    )
    if use:
        registry.promote(home, ARTIFACT, version)
    return version


def in_use(home: Home) -> Model:
    """The model in use; expectations alone, with no version, while there is none. Raises: ModelsError when it is not what was kept."""
    version = registry.pointed(home, ARTIFACT)
    if version is None:
        return Model(Parameters(), Calibration(), reliability(np.zeros(0, np.float32), np.zeros(0, bool)), {})
    files = registry.read(home, ARTIFACT, version)
    return Model(
        Parameters.from_json(files[PARAMETERS]), Calibration.from_json(files[CALIBRATION]), pl.read_csv(files[RELIABILITY]),
        registry.manifest(home, ARTIFACT, version)["diagnostics"], version,
    )  # fmt: skip
