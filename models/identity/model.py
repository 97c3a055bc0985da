"""What it takes to say of two records whether one person is behind them, as an artifact: learned once, adopted, kept until another is.

An artifact is numbers and names of fields, and first and last names that many people bear; nothing in it points at anybody.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from models.errors import ModelsError
from models.identity.fields import FIELDS, KEYS, Field
from models.identity.keys import Reach, reach
from models.identity.mixture import CLASS_NAMES, Mixture

ARTIFACT = "identity"
FILE = "model.json"
_FORMAT = "troth identity model 1"
_UNLEARNED_KEYS = ("identifier", "email", "phone", "payment", "email_local", "names", "last_start__postal_code",
                   "given_root__postal_code", "house_number__street_name", "last_start__birth_date", "first_start__birth_date")  # fmt: skip


@dataclass(frozen=True)
class Model:
    """Fields, keys, mixture and how frequent names are. `records`: how many it was learned from, 0 for expectations alone."""

    fields: tuple[Field, ...]
    keys: tuple[Reach, ...]
    mixture: Mixture
    frequencies: Mapping[str, pl.DataFrame]  # by column: value, share of records
    records: int

    def encoded(self) -> bytes:
        """As JSON; equal models give equal bytes."""
        mixture = self.mixture
        said = {
            "format": _FORMAT,
            "records": self.records,
            "fields": {field.name: list(field.level_names) for field in self.fields},
            "keys": [each.key.name for each in self.keys],
            "classes": list(CLASS_NAMES),
            "shares": mixture.shares.tolist(),
            "present": mixture.present.tolist(),
            "levels": {field.name: rows.tolist() for field, rows in zip(self.fields, mixture.levels, strict=True)},
            "changes": list(mixture.changes),
            "frequencies": {
                column: dict(frame.sort("value").iter_rows()) for column, frame in sorted(self.frequencies.items())
            },
        }
        return (json.dumps(said, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    def bits(self) -> pl.DataFrame:
        """field, level, share by class, and the bits that the level speaks for one person against strangers and against a household."""
        rows = [
            {"field": field.name, "level": level, **{name: float(part) for name, part in zip(CLASS_NAMES, column, strict=True)},
             "bits_against_strangers": float(np.log2(column[0] / column[2])), "bits_against_household": float(np.log2(column[0] / column[1]))}
            for field, levels in zip(self.fields, self.mixture.levels, strict=True)
            for level, column in zip(field.level_names, levels.T, strict=True)
        ]  # fmt: skip
        return pl.DataFrame(rows)


def decoded(data: bytes) -> Model:
    """A model from its JSON. Raises: ModelsError where it is for other fields, levels or keys than this version's."""
    said: dict[str, Any] = json.loads(data)
    by_name = {field.name: field for field in FIELDS}
    fields = tuple(by_name[name] for name in by_name if name in said["fields"])
    keys = {each.key.name: each for key in KEYS if (each := reach(key, fields))}
    levels = {field.name: list(field.level_names) for field in fields}
    is_ours = (said["format"], said["fields"], said["classes"]) == (_FORMAT, levels, list(CLASS_NAMES))
    if not is_ours or not set(said["keys"]) <= keys.keys():
        raise ModelsError(
            "identity model: expected the fields, levels, keys and classes of this version, found those of another. "
            "Learn one anew with `troth identity train --adopt`."
        )
    frequencies = {
        column: pl.DataFrame({"value": list(shares), "share": list(shares.values())}, schema={"value": pl.String, "share": pl.Float64})
        for column, shares in said["frequencies"].items()
    }  # fmt: skip
    mixture = Mixture(
        np.array(said["shares"]), tuple(np.array(said["levels"][field.name]) for field in fields), np.array(said["present"]),
        len(said["changes"]), tuple(said["changes"]),
    )  # fmt: skip
    return Model(fields, tuple(keys[name] for name in said["keys"]), mixture, frequencies, said["records"])


def unlearned() -> Model:
    """What `fields.py` expects, for as long as there are too few records to learn from."""
    levels = []
    for field in FIELDS:
        rows = np.array([[getattr(level, name) for level in field.levels] for name in CLASS_NAMES])
        levels.append(rows / rows.sum(1, keepdims=True))
    reaches = {each.key.name: each for key in KEYS if (each := reach(key, FIELDS))}
    mixture = Mixture(np.array([1e-5, 1e-5, 1 - 2e-5]), tuple(levels), np.full(len(FIELDS), 0.7), 0, ())
    return Model(FIELDS, tuple(reaches[name] for name in _UNLEARNED_KEYS), mixture, {}, 0)
