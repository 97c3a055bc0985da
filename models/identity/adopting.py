"""The model that is in use in a home: learned once there are records enough, kept in the registry, replaced only on purpose."""

from typing import Any

import polars as pl

from models import registry
from models.identity.matching import Matcher
from models.identity.model import ARTIFACT, FILE, Model, decoded, unlearned
from models.identity.preparing import fields_in
from troth.home import Home

ENOUGH_RECORDS, ENOUGH_FIELDS = 2_000, 2
EXPECTED_ONLY = "unlearned"


def adopted(home: Home) -> tuple[str, Model]:
    """The version in use and its model; before one was learned, what is expected of records at large."""
    version = registry.pointed(home, ARTIFACT)
    if version is None:
        return EXPECTED_ONLY, unlearned()
    return version, decoded(registry.read(home, ARTIFACT, version)[FILE])


def adopted_or_learned(home: Home, records: pl.DataFrame, database: Any = None) -> tuple[str, Model]:
    """The same; where there is none and the records suffice, one is learned from them and adopted."""
    if registry.pointed(home, ARTIFACT) is None and telling(records) >= ENOUGH_RECORDS:
        return learn(home, records, adopt=True, database=database)
    return adopted(home)


def telling(records: pl.DataFrame) -> int:
    """How many records say enough to learn from: something in at least two fields."""
    fields = fields_in(records)
    if not fields:
        return 0
    said = [
        pl.any_horizontal(pl.col(name).is_not_null() for name in field.said_in if name in records.columns)
        for field in fields
    ]
    return int(records.select((pl.sum_horizontal(said) >= ENOUGH_FIELDS).sum()).item())


def learn(home: Home, records: pl.DataFrame, *, adopt: bool, database: Any = None) -> tuple[str, Model]:
    """Learn a model of normalised records and keep it, with what there is to judge it by; adopt it if asked. Version and model, the
    same on every database that `Matcher` takes."""
    matcher = Matcher(records.sort("record_id"), database=database)
    compared = matcher.learn()
    model = matcher.model
    version = registry.save(home, ARTIFACT, {FILE: model.encoded()}, diagnostics(matcher, compared))
    if adopt:
        registry.promote(home, ARTIFACT, version)
    return version, model


def diagnostics(matcher: Matcher, compared: pl.DataFrame) -> dict[str, Any]:
    """What a person judges a model by: pairs compared and believed, weights by level, how learning settled, expected errors by bar."""
    model, scored = matcher.model, matcher.scored(compared)
    bars = []
    for bar in (0.5, 0.8, 0.9, 0.95, 0.99):
        above = scored.filter(pl.col("probability") >= bar)["probability"]
        found = float(above.sum())
        bars.append(
            {
                "probability": bar,
                "pairs": above.len(),
                "expected_right": round(found, 1),
                "expected_wrong": round(above.len() - found, 1),
            }
        )
    pairs = float(matcher.records.height) * (matcher.records.height - 1) / 2
    return {
        "model": ARTIFACT,
        "records": matcher.records.height,
        "pairs_compared": compared.height,
        "pairs_of_one_person": round(float(model.mixture.shares[0]) * pairs, 1),
        "pairs_of_one_household": round(float(model.mixture.shares[1]) * pairs, 1),
        "keys": [each.key.name for each in model.keys],
        "steps": model.mixture.steps,
        "last_change": float(model.mixture.changes[-1]) if model.mixture.changes else None,
        "weights": [{name: round(value, 9) if isinstance(value, float) else value for name, value in row.items()} for row in model.bits().to_dicts()],
        "bars": bars,
    }  # fmt: skip
