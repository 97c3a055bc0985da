"""RFM clusters: customers by how recently, how often and for how much they buy (Hughes 1994). One row per customer."""

import pickle
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from models.baseline import SEED, Baseline, Fitted, InUse
from models.tables import read
from troth.home import Home

FEATURES = ("days_since_last_order", "order_count_90d", "net_cents_90d")
LABELS = ("champions", "regulars", "occasional", "slipping", "lapsed")
SETTINGS = {
    "clusters": len(LABELS),
    "starts": 5,
    "minimum_rows": 100,
    "minimum_silhouette": 0.2,
    "silhouette_sample_rows": 2_000,
    "minimum_cluster_share": 0.005,
    "margin": 0.1,
    "seed": SEED,
}
MODEL = "model.pickle"


def candidates(home: Home, as_of_at: datetime) -> pl.DataFrame:
    """Everybody who has bought, at the newest feature time. One row per customer."""
    frame = read(home, "ftr_customer_purchases", ("customer_id", "feature_at", *FEATURES))
    known = frame.filter(pl.col("feature_at") <= as_of_at)
    return known.filter(
        pl.col("feature_at") == pl.col("feature_at").max(), pl.col("days_since_last_order").is_not_null()
    ).sort("customer_id")


def fit(rows: pl.DataFrame, in_use: InUse | None) -> Fitted | None:
    """K-means over log and scaled recency, frequency and value; the gate asks for clusters that stand apart."""
    if rows.height < SETTINGS["minimum_rows"] or rows.select(FEATURES).n_unique() < len(LABELS):
        return None
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    pipeline = make_pipeline(
        FunctionTransformer(np.log1p),
        StandardScaler(),
        KMeans(n_clusters=len(LABELS), n_init=int(SETTINGS["starts"]), random_state=SEED),
    )
    values = _matrix(rows)
    with threadpool_limits(limits=1):  # sums then have one order, and the same rows give the same bytes
        clusters = pipeline.fit_predict(values)
    labels = _labels(pipeline)
    points = pipeline[:-1].transform(values)
    sample = np.random.default_rng(SEED).permutation(len(values))[: int(SETTINGS["silhouette_sample_rows"])]
    shares = np.bincount(clusters, minlength=len(LABELS)) / len(clusters)
    apart = len(np.unique(clusters[sample])) > 1
    metrics = {
        "silhouette": round(float(silhouette_score(points[sample], clusters[sample])), 6) if apart else -1.0,
        **{f"share_{label}": round(float(shares[number]), 6) for number, label in enumerate(labels)},
    }
    return Fitted(
        files={MODEL: pickle.dumps({"pipeline": pipeline, "labels": labels}, protocol=5)},
        metrics=metrics,
        failures=_gate(metrics, float(shares.min()), in_use),
    )


def predict(files: Mapping[str, bytes], rows: pl.DataFrame) -> pl.DataFrame:
    model = pickle.loads(files[MODEL])  # noqa: S301 - the registry verified these bytes
    clusters = model["pipeline"].predict(_matrix(rows)).astype(np.int64) if rows.height else np.zeros(0, np.int64)
    return rows.select("customer_id").with_columns(
        pl.Series("cluster", clusters, pl.Int64),
        pl.Series("label", [model["labels"][cluster] for cluster in clusters], pl.String),
    )


def _matrix(rows: pl.DataFrame) -> "np.ndarray[Any, np.dtype[np.float64]]":
    return rows.select(pl.col(name).cast(pl.Float64).fill_null(0.0).clip(0.0) for name in FEATURES).to_numpy()


def _labels(pipeline: Any) -> list[str]:
    """A readable name for each cluster number, by its centre: the most valuable, the two longest gone, the rest."""
    centres = pipeline[-1].cluster_centers_
    recency, frequency, value = centres[:, 0], centres[:, 1], centres[:, 2]
    left = list(range(len(LABELS)))
    named: dict[int, str] = {}
    for label, score in (
        ("champions", frequency + value - recency),
        ("lapsed", recency),
        ("slipping", recency),
        ("regulars", frequency + value),
        ("occasional", value),
    ):
        chosen = max(left, key=lambda number: (score[number], -number))
        named[chosen] = label
        left.remove(chosen)
    return [named[number] for number in range(len(LABELS))]


def _gate(metrics: Mapping[str, float], smallest: float, in_use: InUse | None) -> tuple[str, ...]:
    failures = []
    if metrics["silhouette"] < SETTINGS["minimum_silhouette"]:
        failures.append(
            f"silhouette: expected at least {SETTINGS['minimum_silhouette']}, found {metrics['silhouette']}"
        )
    if smallest < SETTINGS["minimum_cluster_share"]:
        failures.append(
            f"smallest cluster: expected a share of at least {SETTINGS['minimum_cluster_share']}, found {smallest:.4f}"
        )
    if in_use and metrics["silhouette"] < in_use.metrics["silhouette"] - SETTINGS["margin"]:
        failures.append(
            f"silhouette: expected at most {SETTINGS['margin']} below the one in use "
            f"({in_use.metrics['silhouette']}), found {metrics['silhouette']}"
        )
    return tuple(failures)


RFM = Baseline(
    name="rfm",
    description="Customers grouped by how recently, how often and for how much they buy. One row per customer.",
    tables=("ftr_customer_purchases",),
    features=FEATURES,
    use_purpose_code="analytics",
    settings=SETTINGS,
    rows=candidates,
    fit=fit,
    subjects=candidates,
    predict=predict,
    nothing=pl.DataFrame(schema={"customer_id": pl.String, "cluster": pl.Int64, "label": pl.String}),
)
