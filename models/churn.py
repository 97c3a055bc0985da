"""Churn propensity: how likely a customer who has bought will not order in the 28 days to come. One row per customer.

Why 28 days: feature rows exist weekly, so four whole weeks end exactly on one, and every weekday counts alike.
Three groups of people by a stable hash, so that nobody is both learned from and judged by: learned (60 %) from
earlier feature times, calibrated (20 %, Platt 1999) and tested (20 %) on the newest time whose outcome is known.
"""

import hashlib
import pickle
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from models.baseline import SEED, Baseline, Fitted, InUse
from models.tables import read
from troth.home import Home

PURCHASES = (
    "order_count_30d", "order_count_90d", "net_cents_90d", "average_order_cents_90d", "unit_count_90d",
    "return_count_90d", "days_since_last_order", "store_order_share_90d",
)  # fmt: skip
ENGAGEMENT = ("view_count_30d", "search_count_30d", "cart_count_30d", "days_since_last_visit")
FEATURES = (*PURCHASES, *ENGAGEMENT)
RECENCY = "days_since_last_order"
HORIZON = timedelta(days=28)
LONG_AGO_DAYS = 365.0  # stands for "never" in a column of days
SETTINGS = {
    "horizon_days": HORIZON.days,
    "minimum_rows_per_part": 50,
    "margin": 0.02,
    "maximum_calibration_error": 0.1,
    "learned_share": 0.6,
    "calibrated_share": 0.2,
    "seed": SEED,
}
MODEL = "model.pickle"


def candidates(home: Home, as_of_at: datetime) -> pl.DataFrame:
    """Feature rows old enough for the outcome `is_lost` to be known. One row per customer and feature time."""
    features = _features(home).filter(pl.col("feature_at") <= as_of_at - HORIZON)
    orders = read(home, "orders", ("customer_id", "ordered_at", "is_cancelled")).filter(
        ~pl.col("is_cancelled").fill_null(False), pl.col("customer_id").is_not_null()
    )
    came_back = (
        features.select("customer_id", "feature_at")
        .join(orders.select("customer_id", "ordered_at"), on="customer_id")
        .filter(pl.col("ordered_at") > pl.col("feature_at"), pl.col("ordered_at") <= pl.col("feature_at") + HORIZON)
        .select("customer_id", "feature_at", pl.lit(False).alias("is_lost"))
        .unique()
    )
    labelled = features.join(came_back, on=["customer_id", "feature_at"], how="left")
    return labelled.with_columns(pl.col("is_lost").fill_null(True)).sort("customer_id", "feature_at")


def subjects(home: Home, as_of_at: datetime) -> pl.DataFrame:
    """Everybody who has bought, at the newest feature time. One row per customer."""
    known = _features(home).filter(pl.col("feature_at") <= as_of_at)
    return known.filter(pl.col("feature_at") == pl.col("feature_at").max()).sort("customer_id")


def fit(rows: pl.DataFrame, in_use: InUse | None) -> Fitted | None:
    """A calibrated logistic regression; the gate: better than recency alone, no worse than the model in use."""
    newest = pl.col("feature_at") == pl.col("feature_at").max()
    part = rows.with_columns(_part(rows).alias("part"), newest.alias("is_newest"))
    learned = part.filter(pl.col("part") == "learned", ~pl.col("is_newest"))
    calibrated = part.filter(pl.col("part") == "calibrated", pl.col("is_newest"))
    tested = part.filter(pl.col("part") == "tested", pl.col("is_newest"))
    if any(
        frame.height < SETTINGS["minimum_rows_per_part"] or frame["is_lost"].n_unique() < 2
        for frame in (learned, calibrated, tested)
    ):
        return None
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import brier_score_loss, roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    pipeline = make_pipeline(FunctionTransformer(np.log1p), StandardScaler(), LogisticRegression(max_iter=500))
    model = CalibratedClassifierCV(FrozenEstimator(pipeline), method="sigmoid")
    with threadpool_limits(limits=1):  # sums then have one order, and the same rows give the same bytes
        pipeline.fit(_matrix(learned), _outcome(learned))
        model.fit(_matrix(calibrated), _outcome(calibrated))

    outcome = _outcome(tested)
    chance = model.predict_proba(_matrix(tested))[:, 1]
    recency = _matrix(tested)[:, FEATURES.index(RECENCY)]
    metrics = {
        "auc": round(float(roc_auc_score(outcome, chance)), 6),
        "auc_recency_alone": round(float(roc_auc_score(outcome, recency)), 6),
        "brier": round(float(brier_score_loss(outcome, chance)), 6),
        "calibration_error": round(_calibration_error(outcome, chance), 6),
        "share_lost": round(float(outcome.mean()), 6),
        "rows_learned": learned.height,
        "rows_calibrated": calibrated.height,
        "rows_tested": tested.height,
    }
    if in_use:
        before = pickle.loads(in_use.files[MODEL]).predict_proba(_matrix(tested))[:, 1]  # noqa: S301 - verified by the registry
        metrics["auc_of_the_one_in_use"] = round(float(roc_auc_score(outcome, before)), 6)
    return Fitted(files={MODEL: pickle.dumps(model, protocol=5)}, metrics=metrics, failures=_gate(metrics))


def predict(files: Mapping[str, bytes], rows: pl.DataFrame) -> pl.DataFrame:
    model = pickle.loads(files[MODEL])  # noqa: S301 - the registry verified these bytes
    chance = model.predict_proba(_matrix(rows))[:, 1] if rows.height else np.zeros(0)
    return rows.select("customer_id", "feature_at").with_columns(
        pl.Series("churn_probability", chance.round(6), pl.Float64)
    )


def _features(home: Home) -> pl.DataFrame:
    purchases = read(home, "ftr_customer_purchases", ("customer_id", "feature_at", *PURCHASES))
    engagement = read(home, "ftr_customer_engagement", ("customer_id", "feature_at", *ENGAGEMENT))
    bought = purchases.filter(pl.col(RECENCY).is_not_null())
    return bought.join(engagement, on=["customer_id", "feature_at"], how="left", validate="m:1")


def _matrix(rows: pl.DataFrame) -> "np.ndarray[Any, np.dtype[np.float64]]":
    return rows.select(
        pl.col(name).cast(pl.Float64).fill_null(LONG_AGO_DAYS if name.startswith("days_") else 0.0).clip(0.0)
        for name in FEATURES
    ).to_numpy()


def _outcome(rows: pl.DataFrame) -> "np.ndarray[Any, np.dtype[np.int8]]":
    return rows["is_lost"].cast(pl.Int8).to_numpy()


def _part(rows: pl.DataFrame) -> pl.Series:
    """learned, calibrated or tested, by person: the same person is in the same part in every run."""

    def part(customer_id: str) -> str:
        place = int.from_bytes(hashlib.sha256(f"churn\0{customer_id}".encode()).digest()[:4]) / 2**32
        if place < SETTINGS["learned_share"]:
            return "learned"
        return "calibrated" if place < SETTINGS["learned_share"] + SETTINGS["calibrated_share"] else "tested"

    people = rows["customer_id"].unique(maintain_order=True)
    return rows["customer_id"].replace_strict(people, [part(person) for person in people], return_dtype=pl.String)


def _calibration_error(outcome: "np.ndarray[Any, Any]", chance: "np.ndarray[Any, Any]", bins: int = 10) -> float:
    """Expected calibration error over bins of equal size (Naeini, Cooper & Hauskrecht 2015)."""
    order = np.argsort(chance, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(abs(outcome[part].mean() - chance[part].mean()) * len(part) for part in parts) / len(outcome))


def _gate(metrics: Mapping[str, float]) -> tuple[str, ...]:
    failures = []
    floor = max(0.5, metrics["auc_recency_alone"])
    if metrics["auc"] <= floor:
        failures.append(f"auc: expected more than {floor} (recency alone), found {metrics['auc']}")
    if metrics["calibration_error"] > SETTINGS["maximum_calibration_error"]:
        failures.append(
            f"calibration_error: expected at most {SETTINGS['maximum_calibration_error']}, "
            f"found {metrics['calibration_error']}"
        )
    before = metrics.get("auc_of_the_one_in_use")
    if before is not None and metrics["auc"] < before - SETTINGS["margin"]:
        failures.append(
            f"auc: expected at most {SETTINGS['margin']} below the one in use ({before} on the same people), "
            f"found {metrics['auc']}"
        )
    return tuple(failures)


CHURN = Baseline(
    name="churn",
    description="How likely a customer who has bought will not order in the 28 days to come. One row per customer.",
    tables=("ftr_customer_purchases", "ftr_customer_engagement", "orders"),
    features=FEATURES,
    use_purpose_code="personalization",
    settings=SETTINGS,
    rows=candidates,
    fit=fit,
    subjects=subjects,
    predict=predict,
    nothing=pl.DataFrame(
        schema={"customer_id": pl.String, "feature_at": pl.Datetime("us"), "churn_probability": pl.Float64}
    ),
)
