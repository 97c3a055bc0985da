"""Two records compared again and told field by field, in bits that add up to what the matcher says.

Where strangers and two of one household both explain what two records share, the fields are weighed against strangers, and what the household
takes away again is a step of its own. For a handful of pairs DuckDB is asked for the levels at once: Splink takes a second to plan the
same query, and the tests hold both to the same answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from models.identity.explanations import Comparison, FieldStep
from models.identity.fields import EDITS, LIKENESS, Field
from models.identity.keys import column_of
from models.identity.matching import PAIR_SCHEMA, Matcher, levels_of
from models.identity.mixture import HOUSEHOLD, PERSON, STRANGERS
from models.identity.model import Model
from models.identity.resolving import BAR_BITS

_SAID = {
    "first_name": ("first_name",), "last_name": ("last_name",), "birth_date": ("birth_date",), "email": ("email",),
    "phone": ("phone",), "address": ("street_address", "postal_code", "city", "region_code"),
}  # fmt: skip
_NOT_SAID = "not_said"
_WORDS = {
    _NOT_SAID: "at least one of them does not say it", "same": "the same", "different": "different", "alike": "nearly the same",
    "somewhat_alike": "a little alike", "short_form": "a short form of the other", "names_exchanged": "first and last name exchanged",
    "initial": "the same initial", "slip": "one slip apart", "two_slips": "two slips apart",
    "same_shared": "the same, but others use it too", "same_name_elsewhere": "the same name at another provider",
    "same_street": "the same street", "same_place": "the same town or postal code", "near_place": "a town or postal code nearby",
}  # fmt: skip


@dataclass(frozen=True)
class Comparisons:
    """Of the records of a home, named by `record_id`. `said`: what they say in clear, where it was asked for. `among`: of a few records
    out of all, what `Matcher.memory` kept of them."""

    records: pl.DataFrame
    model: Model
    bar: float = BAR_BITS
    said: pl.DataFrame | None = None
    among: pl.DataFrame | None = None

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each record."""
        return {ref: row for row, ref in enumerate(self.names)}

    @property
    def names(self) -> pl.Series:
        return self._matcher.records["record_id"]

    def scored(self, pairs: Sequence[tuple[int, int]]) -> pl.DataFrame:
        """Pairs of rows compared and weighed; first is the smaller row."""
        ordered = sorted({(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]})
        matcher = self._matcher
        return matcher.scored(_compared(matcher.records, ordered, self.model.fields)).sort("first", "second")

    def are_as_remembered(self, key: bytes) -> bool:
        """Whether nothing that comparing reads of these records is otherwise than when `among` was kept of them; else all are needed."""
        if self.among is None or self.among.height != self.records.height:
            return False
        known = self.among.select("record_id", "fingerprint")
        now = self._matcher.memory(key)
        return now.join(known, on=("record_id", "fingerprint"), how="semi").height == now.height

    def told(self, first: int, second: int, row: dict[str, Any]) -> Comparison:
        """A pair of rows with what `scored` gave of it."""
        model, names = self.model, self.names
        levels = levels_of(pl.Series([row["pattern"]], dtype=pl.Int64()), model.fields)[0]
        shares = np.log2(model.mixture.shares)
        prior = float(shares[PERSON] - shares[STRANGERS])
        rarity = self._rarity(first, second)
        steps = []
        for number, field in enumerate(model.fields):
            level = int(levels[number])
            name = _NOT_SAID if level < 0 else field.level_names[level]
            logs = np.zeros(3) if level < 0 else np.log2(model.mixture.levels[number][:, level])
            rare = rarity[number] if level == 0 else 0.0
            steps.append(
                FieldStep(
                    field=field.name, level=name, words=_WORDS.get(name, name.replace("_", " ")), rarity_bits=0.0 - rare,
                    bits=float(logs[PERSON] - logs[STRANGERS]) - rare, bits_against_household=float(logs[PERSON] - logs[HOUSEHOLD]),
                    clear=self._clear(field.name, names[first], names[second]),
                )
            )  # fmt: skip
        shared, common = self._keys(first, second)
        bits = float(row["bits"])
        return Comparison(
            first_record=names[first], second_record=names[second], fields=tuple(steps), prior_bits=prior,
            household_bits=bits - prior - sum(step.bits for step in steps), bits=bits, probability=float(row["probability"]),
            within_bits=float(row["within"]), bar_bits=self.bar, bar_probability=float(1 / (1 + 2**-self.bar)), keys_shared=shared,
            keys_too_common=common,
        )  # fmt: skip

    def _rarity(self, first: int, second: int) -> list[float]:
        """By field, what agreement in this very value weighs otherwise than in values at large: of a pair that agrees in this field alone."""
        patterns, place = [], 1
        for field in reversed(self.model.fields):
            patterns.append(len(field.levels) * place)
            place *= len(field.levels) + 1
        count = len(patterns)
        one, other = min(first, second), max(first, second)
        alone = pl.DataFrame(
            {"first": [one] * count, "second": [other] * count, "pattern": patterns[::-1]}, schema=PAIR_SCHEMA
        )
        return self._matcher.scored(alone)["rarity"].to_list()

    def _clear(self, field: str, first: str, second: str) -> tuple[str | None, str | None] | None:
        if self.said is None or field not in _SAID:
            return None
        said = {
            row["record_id"]: row
            for row in self.said.filter(pl.col("record_id").is_in([first, second])).iter_rows(named=True)
        }
        told = [
            ", ".join(str(said[ref][name]) for name in _SAID[field] if said.get(ref, {}).get(name)) or None
            for ref in (first, second)
        ]
        return told[0], told[1]

    @cached_property
    def _keyed(self) -> pl.DataFrame:
        return self._matcher.keyed()

    def _keys(self, first: int, second: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Keys of the model on which two records agree: those they are compared by, and those that too many share."""
        one, other = (self._keyed.row(row, named=True) for row in (first, second))
        shared, common = [], []
        for each in self.model.keys:
            if one[column_of(each)] is not None and one[column_of(each)] == other[column_of(each)]:
                shared.append(each.key.name)
            elif all(one[name] is not None and one[name] == other[name] for name in each.key.columns):
                common.append(each.key.name)
        return tuple(shared), tuple(common)

    @cached_property
    def _matcher(self) -> Matcher:
        return Matcher(self.records.sort("record_id"), self.model, among=self.among)


def _compared(records: pl.DataFrame, pairs: Sequence[tuple[int, int]], fields: Sequence[Field]) -> pl.DataFrame:
    """As `Matcher.compared_these` of a few pairs, smaller row first."""
    import duckdb

    columns = sorted({column for field in fields for column in field.columns})
    ordered = pl.DataFrame(list(pairs), schema=("first", "second"), orient="row", schema_overrides=PAIR_SCHEMA)
    sides = [
        records[ordered[row].cast(pl.UInt32)].select(pl.col(column).alias(f"{column}_{side}") for column in columns)
        for row, side in (("first", "l"), ("second", "r"))
    ]
    code = "0"
    for field in fields:
        levels = " ".join(
            f"when {level.condition or 'true'} then {len(field.levels) - number}"
            for number, level in enumerate(field.levels)
        )
        code = f"({code}) * {len(field.levels) + 1} + case when {field.missing} then 0 {levels} end"
    code = code.replace(EDITS, "damerau_levenshtein").replace(LIKENESS, "jaro_winkler_similarity")
    with duckdb.connect() as database:
        database.register("pairs", pl.concat([ordered, *sides], how="horizontal").to_arrow())
        # Names and conditions of ours, not values.
        query = f"select first, second, cast({code} as bigint) as pattern from pairs"  # noqa: S608
        return pl.DataFrame(database.sql(query).to_arrow_table()).cast(PAIR_SCHEMA)  # type: ignore[arg-type]
