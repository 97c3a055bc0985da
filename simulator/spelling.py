"""How numbers, times and codes are spelled in files: whole columns at a time."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from functools import lru_cache

import numpy as np
import polars as pl

DAY = 86_400
COMPANY_PREFIX = "0614141"  # GS1's own example prefix
EPOCH = date(1970, 1, 1)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def epoch_day(day: date) -> int:
    """Days since 1970-01-01."""
    return (day - EPOCH).days


@lru_cache
def _clock() -> pl.Series:
    second = np.arange(DAY)
    parts = [
        pl.Series(f"{n:02d}" for n in range(60))[part] for part in (second // 3600, second // 60 % 60, second % 60)
    ]
    return pl.select(pl.concat_str([*parts], separator=":")).to_series()


@lru_cache
def _fractions() -> pl.Series:
    return pl.Series([f".{n:02d}" for n in range(100)])


def moments(seconds: np.ndarray, suffix: str | pl.Series = "Z") -> pl.Series:
    """Seconds since the epoch as `2026-03-02T10:15:30` and a suffix: an offset, or nothing for a bare wall clock."""
    seconds = np.asarray(seconds, np.int64)
    days, place = np.unique(seconds // DAY, return_inverse=True)
    dates = pl.Series([f"{EPOCH + timedelta(int(d))}T" for d in days], dtype=pl.String)
    tail = pl.lit(suffix) if isinstance(suffix, str) else suffix
    return pl.select(dates[place] + _clock()[seconds % DAY] + tail).to_series()


def offsets(minutes: np.ndarray) -> pl.Series:
    """Minutes east of UTC as `-05:00`."""
    values, place = np.unique(minutes, return_inverse=True)
    texts = [f"{'-' if m < 0 else '+'}{abs(int(m)) // 60:02d}:{abs(int(m)) % 60:02d}" for m in values]
    return pl.Series(texts, dtype=pl.String)[place]


def money(cents: np.ndarray) -> pl.Series:
    """Cents as `12.50`; negative amounts with a leading minus."""
    cents = np.asarray(cents, np.int64)
    size = np.abs(cents)
    text: pl.Series = pl.Series(size // 100).cast(pl.String) + _fractions()[size % 100]
    if (cents < 0).any():
        text = pl.select(pl.when(pl.Series(cents < 0)).then(pl.lit("-") + text).otherwise(text)).to_series()
    return text


def with_check_digit(codes: Sequence[str]) -> list[str]:
    """GS1 codes completed by their check digit (GS1 General Specifications 7.9: weights 3, 1 from the right)."""
    digits = np.array([list(code) for code in codes], dtype="U1").astype(np.int64)
    weights = np.where(np.arange(digits.shape[1])[::-1] % 2 == 0, 3, 1)
    return [f"{code}{digit}" for code, digit in zip(codes, -(digits @ weights) % 10, strict=True)]


def scatter(*parts: int | np.ndarray) -> np.ndarray:
    """Whole numbers mixed to 64 pseudo-random bits (SplitMix64, Steele et al. 2014): the same parts, the same bits."""
    mixed: np.ndarray = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            mixed = (mixed ^ np.asarray(part).astype(np.uint64)) + _GOLDEN
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed = mixed ^ (mixed >> np.uint64(31))
    return mixed


def fractions(*parts: int | np.ndarray) -> np.ndarray:
    """Numbers in [0, 1) drawn from the parts alone."""
    return (scatter(*parts) >> np.uint64(11)).astype(np.float64) / 2.0**53


def moment_of(seconds: str | pl.Series) -> pl.Expr:
    """Seconds since the epoch, of a column or a series, as the UTC times of the truth."""
    column = pl.col(seconds) if isinstance(seconds, str) else pl.lit(seconds)
    return (column * 1_000_000).cast(pl.Datetime("us", "UTC"))


def json_lines(frame: pl.DataFrame) -> pl.Series:
    """One JSON object per row."""
    return frame.select(pl.struct(pl.all()).struct.json_encode()).to_series()


def csv_lines(frame: pl.DataFrame) -> pl.Series:
    """One CSV line per row, quoted where needed, without a header. Cells must hold no line breaks."""
    return pl.Series(frame.write_csv(include_header=False).splitlines(), dtype=pl.String)


def typed(schema: Mapping[str, type[pl.DataType]]) -> list[pl.Expr]:
    """Columns of a schema, cast to it: what a frame must look like before it is stacked on others."""
    return [pl.col(name).cast(kind) for name, kind in schema.items()]
