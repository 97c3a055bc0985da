"""Compares records and says how likely two of them are of one person. Splink finds and compares the pairs, on DuckDB or Spark.

What is learned (`Model`) is kept apart from where it is applied, so that one model may serve every run until another is adopted.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import polars as pl

from models.errors import ModelsError
from models.identity.fields import EDITS, LIKENESS, Field
from models.identity.keys import Reach, Reached, chosen, column_of, pair_counts, with_keys
from models.identity.mixture import CLASS_NAMES, HOUSEHOLD, PERSON, STRANGERS, expected, learned
from models.identity.model import Model
from models.identity.preparing import among_all, as_among_all, fields_in, frequencies_of, keyed_among_all, prepared

RANDOM_PAIRS = 150_000
DIM = 0.8  # keys are chosen as if only so many fields of a record were as good as expected: bad ones come together
PAIRS_AT_ONCE = 2_000_000
SEED = 20_260_302
_THEIRS = frozenset({"splink", "duckdb", "_duckdb", "pyspark", "py4j"})  # packages whose faults quote
PAIR_SCHEMA = {"first": pl.Int64(), "second": pl.Int64(), "pattern": pl.Int64()}


def is_interruption(fault: BaseException) -> bool:
    """Ctrl-C, as the database tells of it: by a name of its own, or, where Python was asked while a query ran, as any fault."""
    import duckdb

    is_named = isinstance(fault, duckdb.InterruptException)
    return is_named or (isinstance(fault, RuntimeError) and str(fault) == "Query interrupted")


@contextmanager
def _in_our_words() -> Iterator[None]:
    """What Splink says of a fault quotes whole queries, and what the database said of a value; and to it an interruption is one."""
    try:
        yield
    except Exception as fault:
        cause = fault.__cause__ or fault
        if is_interruption(cause):
            raise KeyboardInterrupt from None
        if _THEIRS.isdisjoint(base.__module__.partition(".")[0] for base in type(fault).__mro__):
            raise
        found = type(cause).__name__
        raise ModelsError(
            f"identity: expected Splink to compare the records, found {found}. Look for free memory and disk, and run again."
        ) from None


class Matcher:
    """Pairs of one set of records, which are known by their row from here on. `database`: Splink's, DuckDB in memory by default, `spark.database`
    for more than one machine can hold.

    `is_linking`: only records of unlike `side` may be of one person. `among`: of a few out of many, what `memory` kept of them.
    """

    def __init__(
        self, records: pl.DataFrame, model: Model | None = None, database: Any = None, is_linking: bool = False,
        among: pl.DataFrame | None = None,
    ) -> None:  # fmt: skip
        self._frequencies = model.frequencies if model else frequencies_of(records)
        self.records = prepared(records, self._frequencies)
        if among is not None:
            self.records = as_among_all(self.records, among)
        self._model = model
        self._given = database
        self._is_linking = is_linking

    @cached_property
    def _database(self) -> Any:
        return self._given or _embedded()

    @property
    def model(self) -> Model:
        if self._model is None:
            raise ModelsError("identity: expected a model, found none. Learn one, or hand one in.")
        return self._model

    @_in_our_words()
    def learn(self) -> pl.DataFrame:
        """Learn a model of these records; the pairs it was learned from, as `compared` gives them."""
        records = self.records
        fields = fields_in(records)
        if not fields:
            raise ModelsError(
                "identity: expected records that say something of people, found none. Learn when there are some."
            )
        present = np.array([self._present(field) for field in fields])
        guess = [DIM * np.array([level.person for level in field.levels]) for field in fields]
        keys = chosen(records, fields, guess, present)
        linker = self._linker(fields, keys[:1], drawn=self._drawn(), is_linking=self._is_linking)
        linker.training.estimate_u_using_random_sampling(
            max_pairs=self._pairs(), min_count_per_level=None, num_chunks=1
        )
        start = expected(fields, _strangers(linker, records, fields), present, self._pairs(), records.height)
        compared = self._compared(fields, keys)
        patterns = compared.group_by("pattern").len().sort("pattern")
        counts = patterns["len"].to_numpy().astype(float)
        numbers = levels_of(patterns["pattern"], fields)
        mixture = learned(start, numbers, counts, self._pairs(), Reached(keys, len(fields)))
        self._model = Model(fields, tuple(keys), mixture, dict(self._frequencies), records.height)
        return compared

    @_in_our_words()
    def compared(self, changed: pl.Series | None = None) -> pl.DataFrame:
        """first, second (rows), pattern: the pairs that share a key of the model, each once; of `changed` records (flags), if given."""
        return self._compared(self.model.fields, self.model.keys, changed)

    def keyed(self) -> pl.DataFrame:
        """The records with a column for each key of the model."""
        return keyed_among_all(self.records, self.model.keys)

    def memory(self, key: bytes) -> pl.DataFrame:
        """record_id, fingerprint, `AMONG_ALL`: what a run keeps of each record, so that the next compares what changed, and an
        explanation prepares no more than it needs."""
        keyed = self.keyed()
        told = keyed.select("record_id", fingerprint=self._fingerprints(keyed, key))
        return told.hstack(among_all(keyed, self.model.keys))

    def fingerprints(self, key: bytes) -> pl.Series:
        """A keyed hash of all that comparing reads of each record, and of how it reads: the same again, and none of its pairs has changed."""
        return self._fingerprints(self.keyed(), key)

    def _fingerprints(self, keyed: pl.DataFrame, key: bytes) -> pl.Series:
        names = sorted({column for field in self.model.fields for column in field.columns})
        rows = keyed.select(pl.struct(*names, *(column_of(each) for each in self.model.keys)).struct.json_encode())
        way = repr((self.model.fields, [each.key for each in self.model.keys]))
        how = blake2b(way.encode(), digest_size=16).digest()
        said = [blake2b(row.encode(), key=key[:64], digest_size=12, person=how) for row in rows.to_series()]
        return pl.Series("fingerprint", [each.digest() for each in said])

    @_in_our_words()
    def compared_these(self, first: np.ndarray, second: np.ndarray) -> pl.DataFrame:
        """The same of given pairs."""
        if not len(first):
            return pl.DataFrame(schema=PAIR_SCHEMA)
        linker = self._linker(self.model.fields, self.model.keys[:1])
        pairs = pl.DataFrame({"join_key_l": first, "join_key_r": second, "match_key": ["0"] * len(first)})
        given = linker.table_management.register_blocked_pairs_for_predict(self._database.register(pairs.to_arrow()))
        found = self._taken(linker, linker.inference.predict(warning_mode="never"), self.model.fields)
        given.drop_table_from_database_and_remove_from_cache(force_non_splink_table=True)  # or it stands for all pairs
        return found

    def scored(self, compared: pl.DataFrame) -> pl.DataFrame:
        """The pairs with `bits`, log2 of the odds that one person is behind both records, `probability`, the same said otherwise,
        and `within`, the bits that remain when one person and two are as likely beforehand."""
        model = self.model
        patterns = compared.select("pattern").unique()
        logs = model.mixture.log_likelihoods(levels_of(patterns["pattern"], model.fields))
        patterns = patterns.with_columns(pl.Series(name, logs[:, kind]) for kind, name in enumerate(CLASS_NAMES))
        person, household, strangers = (pl.col(name) for name in CLASS_NAMES)
        share = [float(each) for each in np.log2(model.mixture.shares)]
        one, other = household + share[HOUSEHOLD], strangers + share[STRANGERS]
        either = pl.max_horizontal(one, other) + (1 + (-(one - other).abs() * math.log(2)).exp()).log(2)
        return (
            compared.with_columns(rarity=self._rarity(compared))
            .join(patterns, on="pattern", how="left", maintain_order="left")
            .with_columns(strangers=strangers + pl.col("rarity"))
            .with_columns(
                bits=person + share[PERSON] - either,
                within=person - pl.max_horizontal(household + share[HOUSEHOLD] - share[PERSON], strangers),
            )
            .with_columns(probability=1 / (1 + (-pl.col("bits") * math.log(2)).exp()))
            .drop(CLASS_NAMES)
        )

    def _linker(
        self,
        fields: Sequence[Field],
        keys: Sequence[Reach],
        changed: pl.Series | None = None,
        drawn: pl.Series | None = None,
        is_linking: bool = False,
    ) -> Any:
        from splink import Linker, SettingsCreator

        # Names of our own columns, not values.
        extra = "" if changed is None else " and (l.is_changed or r.is_changed)"
        settings = SettingsCreator(
            link_type="link_only" if is_linking else "dedupe_only",
            unique_id_column_name="row",
            comparisons=[_comparison(field, self._database.sql_dialect) for field in fields],
            blocking_rules_to_generate_predictions=[
                {"blocking_rule": f"l.{column_of(key)} = r.{column_of(key)}{extra}"} for key in keys
            ],
            retain_matching_columns=True,  # without them, Splink leaves out the levels too
        )
        wanted = {column for field in fields for column in field.columns} | {"row"}
        keyed = with_keys(self.records.with_row_index("row"), keys)
        keyed = keyed if drawn is None else keyed.filter(drawn)
        if changed is not None:
            keyed, wanted = keyed.with_columns(changed.alias("is_changed")), wanted | {"is_changed"}
        keyed = keyed.select(pl.col("row").cast(pl.Int64), *sorted(wanted - {"row"}), *(column_of(key) for key in keys),
                             *(["side"] if is_linking else []))  # fmt: skip
        if is_linking:
            parts = keyed.partition_by("side", maintain_order=True, include_key=False)
            return Linker([self._database.register(part.to_arrow()) for part in parts], settings, log_level=None)
        return Linker(self._database.register(keyed.to_arrow()), settings, log_level=None)

    def _drawn(self) -> pl.Series:
        """Whose pairs are taken for random ones. Splink would draw as well, by the hash of each database: a model would be another on Spark."""
        import duckdb

        share, count = min(math.sqrt(RANDOM_PAIRS / max(self._pairs(), 1.0)), 1.0), self.records.height
        # Numbers of ours, not values.
        query = f"select hash(range || '_{SEED}') % 1000000000 < {share * 1e9:.0f} as drawn from range({count})"  # noqa: S608
        return pl.DataFrame(duckdb.connect().sql(query).to_arrow_table())["drawn"]

    def _compared(
        self, fields: Sequence[Field], keys: Sequence[Reach], changed: pl.Series | None = None
    ) -> pl.DataFrame:
        """In parts, so that no more than some millions of pairs lie in memory with all their columns."""
        expected_pairs = sum(count for count, _ in pair_counts(self.records, [each.key for each in keys]).values())
        if not expected_pairs or (changed is not None and not changed.any()):
            return pl.DataFrame(schema=PAIR_SCHEMA)
        linker = self._linker(fields, keys, changed, is_linking=self._is_linking)
        parts = max(1, math.ceil(expected_pairs / PAIRS_AT_ONCE))
        return pl.concat(
            self._taken(linker, linker.inference.predict_chunk((part, parts), (1, 1), warning_mode="never"), fields)
            for part in range(1, parts + 1)
        )

    def _taken(self, linker: Any, predicted: Any, fields: Sequence[Field]) -> pl.DataFrame:
        code = "0"
        for field in fields:
            code = f"({code}) * {len(field.levels) + 1} + gamma_{field.name} + 1"
        columns = "least(row_l, row_r) as first, greatest(row_l, row_r) as second"
        # Names that Splink and we made, not values.
        query = f"select {columns}, cast({code} as bigint) as pattern from {predicted.physical_name}"  # noqa: S608
        table = linker.misc.query_sql(query, output_type="splinkdf")
        frame = pl.DataFrame(table.as_pyarrow_table())
        for each in (table, predicted):
            each.drop_table_from_database_and_remove_from_cache()
        return frame.cast(PAIR_SCHEMA)  # type: ignore[arg-type]

    def _present(self, field: Field) -> float:
        missing = min(self.records[column].null_count() for column in field.said_in)
        return float(1 - missing / self.records.height) ** 2

    def _pairs(self) -> float:
        count = float(self.records.height)
        if self._is_linking:
            sizes = self.records["side"].value_counts()["count"].to_numpy().astype(float)
            return float((count**2 - (sizes**2).sum()) / 2)
        return count * (count - 1) / 2

    def _rarity(self, compared: pl.DataFrame) -> pl.Series:
        """By how many bits strangers are likelier, or less likely, to agree in this very name than in names at large."""
        total = np.zeros(compared.height)
        levels = levels_of(compared["pattern"], self.model.fields)
        first = compared["first"].to_numpy()
        for number, field in enumerate(self.model.fields):
            if field.frequency_of:
                usual = float(self.model.mixture.levels[number][STRANGERS, 0])
                share = _shares(self.records[field.frequency_of], self.model, field, usual)[first]
                total += np.where(levels[:, number] == 0, np.log2(share / usual), 0.0)
        return pl.Series("rarity", total)


def _shares(values: pl.Series, model: Model, field: Field, usual: float) -> np.ndarray:
    """How large a share of records has the value of each, for all that are rare the share they have on average."""
    known = model.frequencies.get(
        str(field.frequency_of), pl.DataFrame(schema={"value": pl.String, "share": pl.Float64})
    )
    frequent = known["share"].to_numpy()
    rare = max((usual - (frequent**2).sum()) / max(1 - frequent.sum(), 0.01), 1 / max(model.records, 1_000))
    found = values.to_frame("value").join(known, on="value", how="left", maintain_order="left")
    return found["share"].fill_null(float(rare)).to_numpy()


def levels_of(patterns: pl.Series, fields: Sequence[Field]) -> np.ndarray:
    """Patterns x fields: the level of each, counted from the best, -1 for missing. Splink counts from what is left, in `gamma_`."""
    rest = patterns.to_numpy().astype(np.int64)
    columns = []
    for field in reversed(fields):
        count = len(field.levels)
        gamma = rest % (count + 1) - 1
        columns.append(np.where(gamma < 0, -1, count - 1 - gamma))
        rest = rest // (count + 1)
    return np.stack(columns[::-1], 1)


def _embedded() -> Any:
    from splink import DuckDBAPI

    return DuckDBAPI()


def _comparison(field: Field, dialect: Any) -> dict[str, Any]:
    def sql(condition: str) -> str:
        return condition.replace(EDITS, dialect.damerau_levenshtein_function_name).replace(
            LIKENESS, dialect.jaro_winkler_function_name
        )

    return {
        "output_column_name": field.name,
        "comparison_levels": [
            {"sql_condition": sql(field.missing), "label_for_charts": "missing", "is_null_level": True},
            *(
                {
                    "sql_condition": sql(level.condition) or "ELSE",
                    "label_for_charts": level.name,
                    "m_probability": level.person,
                }
                for level in field.levels
            ),
        ],
    }


def _strangers(linker: Any, records: pl.DataFrame, fields: Sequence[Field]) -> list[np.ndarray]:
    """Shares of levels among random pairs, and exactly how often two records say the very same, which random pairs seldom show.

    A level that no pair showed gets what half a pair would.
    """
    saved = linker.misc.save_model_to_json()
    found = []
    for field, comparison in zip(fields, saved["comparisons"], strict=True):
        said = [
            level.get("u_probability") for level in comparison["comparison_levels"] if not level.get("is_null_level")
        ]
        shares = np.array([0.0 if value is None or isinstance(value, str) else value for value in said])
        shares = np.maximum(shares / max(shares.sum(), 1e-12), 0.5 / RANDOM_PAIRS)
        for level, share in _same_shares(records, field).items():
            shares[level] = share
        shares[-1] = max(1 - shares[:-1].sum(), 0.01)
        found.append(shares / shares.sum())
    return found


def _same_shares(records: pl.DataFrame, field: Field) -> dict[int, float]:
    """By level, how often two records that have this field's first column say the same in it; not for a field that reads several."""
    column, flag = field.columns[0], f"{field.columns[0]}_is_shared"
    if field.levels[0].name != "same" or field.name == "address":
        return {}
    said = records.select(value=column, is_shared=flag if flag in records.columns else pl.lit(False)).drop_nulls(
        "value"
    )
    pairs = max(said.height * (said.height - 1), 2)
    counts = said.group_by("value").agg(pl.len().cast(pl.Float64), pl.col("is_shared").first())
    same = counts.group_by("is_shared").agg((pl.col("len") * (pl.col("len") - 1)).sum())
    share = {bool(shared): max(agreeing / pairs, 0.5 / pairs) for shared, agreeing in same.iter_rows()}
    levels = {0: share.get(False, 0.5 / pairs)}
    if field.levels[1].name == "same_shared":
        levels[1] = share.get(True, 0.5 / pairs)
    return levels
