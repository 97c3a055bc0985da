"""Records as they are compared: what follows from the normalised columns, and from what all records together say.

A contact point is shared where people of different first names use it; a first name is known where many bear it, so that John and Joan are two
names and no slip of the pen.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from models.identity.fields import FIELDS, Field
from models.identity.keys import Reach, column_of, with_keys
from models.identity.normalise.spelling import vocabulary

FREQUENT = 20  # records that share a value before its frequency is kept: what fewer share could point at someone
CONTACTS = ("email", "phone", "payment")
Frequencies = Mapping[str, pl.DataFrame]
AMONG_ALL = {"shared": pl.UInt8(), "too_common": pl.UInt64()}


def frequencies_of(records: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Frequent values of the columns whose rarity counts: value, share of the records that have one."""
    found = {}
    for column in sorted({field.frequency_of for field in FIELDS if field.frequency_of} & set(records.columns)):
        counts = records.select(value=pl.col(column).cast(pl.String)).drop_nulls().group_by("value").len()
        frequent = counts.filter(pl.col("len") >= FREQUENT).sort("value")
        found[column] = frequent.select("value", share=pl.col("len") / counts["len"].sum())
    return found


def prepared(records: pl.DataFrame, frequencies: Frequencies) -> pl.DataFrame:
    """Text columns of the fields, those that conditions name added where missing; one row per record, in the same order."""
    needed = {column for field in FIELDS for column in field.columns if not column.endswith(FLAGS)}
    frame = records.with_columns(
        pl.lit(None, pl.String()).alias(column) for column in sorted(needed - set(records.columns))
    ).with_columns(pl.col("record_id").cast(pl.String), *(pl.col(column).cast(pl.String) for column in sorted(needed)))
    root, last = pl.coalesce("given_root", "first_name"), pl.col("last_name")
    known = frequencies["first_name"]["value"] if "first_name" in frequencies else pl.Series([], dtype=pl.String)
    frame = frame.with_columns(
        given_root=root, names=pl.min_horizontal(root, last) + " " + pl.max_horizontal(root, last),
        first_start=root.str.slice(0, 3), last_start=last.str.slice(0, 4), street_start=pl.col("street_name").str.slice(0, 6),
        email_number=pl.col("email_local").str.replace_all(r"\D", ""),
        email_is_relay=pl.col("email").str.extract("@(.*)").is_in(vocabulary()["emails"]["relays"]).fill_null(False),
        name_is_known=pl.col("first_name").is_in(known.implode()).fill_null(False),
    )  # fmt: skip
    named = pl.when(pl.col("name_is_known")).then("given_root").drop_nulls()
    return frame.with_columns(
        (pl.col(column).is_not_null() & (named.n_unique().over(column) > 1)).alias(f"{column}_is_shared")
        for column in CONTACTS
    )


FLAGS = ("_is_known", "_is_shared", "_is_relay")


def among_all(keyed: pl.DataFrame, keys: Sequence[Reach]) -> pl.DataFrame:
    """What prepared records with their keys together say of each, as bits: `shared`, which of `CONTACTS` others use; `too_common`, which
    keys too many have. With it a few of them are prepared as they were among all: `as_among_all`."""
    shared = [pl.col(f"{column}_is_shared") for column in CONTACTS]
    common = [
        pl.all_horizontal(pl.col(name).is_not_null() for name in each.key.columns) & pl.col(column_of(each)).is_null()
        for each in keys
    ]
    return keyed.select(
        pl.sum_horizontal(pl.lit(0), *(flag.cast(pl.UInt64) * 2**bit for bit, flag in enumerate(flags))).cast(kind).alias(name)
        for (name, kind), flags in zip(AMONG_ALL.items(), (shared, common), strict=True)
    )  # fmt: skip


def as_among_all(records: pl.DataFrame, among: pl.DataFrame) -> pl.DataFrame:
    """Prepared records, of which `among` (record_id, `AMONG_ALL`) says what more records than these say of them."""
    told = records.join(among.select("record_id", *AMONG_ALL), on="record_id", how="left", maintain_order="left")
    return told.with_columns(
        (pl.col("shared").cast(pl.UInt64) // 2**bit % 2 == 1).alias(f"{column}_is_shared")
        for bit, column in enumerate(CONTACTS)
    )


def keyed_among_all(records: pl.DataFrame, keys: Sequence[Reach]) -> pl.DataFrame:
    """`with_keys`, of records that `as_among_all` gave too."""
    keyed = with_keys(records, keys)
    if "too_common" not in records.columns:
        return keyed
    return keyed.with_columns(
        pl.when(pl.col("too_common") // 2**bit % 2 == 0).then(column_of(each)).alias(column_of(each))
        for bit, each in enumerate(keys)
    )


def fields_in(records: pl.DataFrame) -> tuple[Field, ...]:
    """The fields that these records can be compared by: those of which a column says something."""
    said = {column for column in records.columns if records[column].null_count() < records.height}
    return tuple(field for field in FIELDS if not said.isdisjoint(field.said_in))
