"""What a baseline is: what it reads, learns and answers. A model's module declares one, `build.py` runs them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import polars as pl

from troth.home import Home

SEED = 20_240_229  # every random choice starts here, so that the same rows give the same bytes

Outcome = Literal["promoted", "kept_back", "unchanged", "not_enough_rows"]
Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Fitted:
    """A candidate: its files, what was measured on rows it had not seen, and why it may not be used (empty: it may)."""

    files: Mapping[str, bytes]
    metrics: Metrics
    failures: tuple[str, ...]


@dataclass(frozen=True)
class InUse:
    """The version that answers now: its files and its metrics, each verified."""

    files: Mapping[str, bytes]
    metrics: Metrics


@dataclass(frozen=True)
class Baseline:
    """One model. `rows` gives candidates for training (customer_id, feature_at, ...), allowed or not: to leave
    out is not its business. `fit` returns None when there are too few rows to say anything.
    `subjects` gives the rows to score, or None where the prediction is about no person."""

    name: str
    description: str
    tables: tuple[str, ...]
    features: tuple[str, ...]
    use_purpose_code: str
    settings: Mapping[str, float | int | str]
    rows: Callable[[Home, datetime], pl.DataFrame]
    fit: Callable[[pl.DataFrame, InUse | None], Fitted | None]
    subjects: Callable[[Home, datetime], pl.DataFrame] | None
    predict: Callable[[Mapping[str, bytes], pl.DataFrame], pl.DataFrame]
    nothing: pl.DataFrame  # the empty prediction table: its columns and types

    @property
    def table(self) -> str:
        return f"pred_{self.name}"


@dataclass(frozen=True)
class ModelReport:
    """What became of one model in one run. Kept and left-out rows add up to those considered."""

    model: str
    outcome: Outcome
    version: str | None
    version_in_use: str | None
    rows_considered: int
    rows_kept: int
    left_out: Mapping[str, int]
    metrics: Metrics
    failures: tuple[str, ...]
    scored: int
    unscored: Mapping[str, int]
    seconds: float
