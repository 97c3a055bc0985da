"""Item-to-item recommendations: what the same people buy too, by shrunk cosine. One row per SKU and neighbour.

score = c / sqrt(a b) * c / (c + 5) with a, b the people who bought each and c those who bought both: the cosine of
Sarwar et al. 2001 and the shrinkage of Bell & Koren 2007. A pair that rests on one person alone is never written.
On generated orders with known tastes, shrinkage raised the hit rate at 10 from 0.13 to 0.23 (7,000 customers) and from
0.25 to 0.27 (20,000), where popularity alone reached 0.09; weighting people down by how much they buy added nothing.
"""

import io
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from models.baseline import Baseline, Fitted, InUse
from models.tables import read
from troth.home import Home

NEIGHBOURS = "neighbours.parquet"
SCHEMA = {"sku": pl.String, "neighbour_sku": pl.String, "score": pl.Float64, "rank": pl.Int64}
SETTINGS = {
    "neighbours": 20,
    "shrinkage": 5,
    "minimum_people_per_pair": 2,
    "minimum_people_tested": 50,
    "hits_among": 10,
    "margin": 0.1,
}
_PEOPLE_AT_ONCE = 2_000  # bounds the dense scores of one evaluation step: 2,000 x 20,000 SKUs is 320 MB


def candidates(home: Home, as_of_at: datetime) -> pl.DataFrame:
    """What each known customer has bought, as known now. One row per customer, order and SKU."""
    lines = read(home, "order_lines", ("customer_id", "order_id", "ordered_at", "sku", "is_cancelled"))
    bought = lines.filter(
        ~pl.col("is_cancelled").fill_null(False), pl.col("customer_id").is_not_null(), pl.col("ordered_at") <= as_of_at
    )
    rows = bought.select("customer_id", "order_id", "ordered_at", "sku").unique()
    return rows.with_columns(pl.lit(as_of_at, pl.Datetime("us")).alias("feature_at")).sort(
        "customer_id", "order_id", "sku"
    )


def fit(rows: pl.DataFrame, in_use: InUse | None) -> Fitted | None:
    """Neighbours from every order; the gate: without the last orders, they find them better than popularity."""
    metrics = _evaluate(rows)
    if metrics["people_tested"] < SETTINGS["minimum_people_tested"]:
        return None
    bought, _, skus = _matrix(rows)
    neighbours = _frame(_neighbours(bought), skus)
    metrics |= {"skus_with_neighbours": neighbours["sku"].n_unique(), "pairs": neighbours.height}
    data = io.BytesIO()
    neighbours.write_parquet(data)
    return Fitted(files={NEIGHBOURS: data.getvalue()}, metrics=metrics, failures=_gate(metrics, in_use))


def predict(files: Mapping[str, bytes], rows: pl.DataFrame) -> pl.DataFrame:
    """The neighbours themselves: they are about products, not about a person."""
    return pl.read_parquet(io.BytesIO(files[NEIGHBOURS]))


def _matrix(rows: pl.DataFrame, like: pl.DataFrame | None = None) -> tuple[Any, list[str], list[str]]:
    """People x SKUs, 1 where bought, in the shape of another frame where one is given."""
    from scipy.sparse import csr_matrix

    whole = rows if like is None else like
    people, skus = (whole[name].unique().sort().to_list() for name in ("customer_id", "sku"))
    places = rows.select("customer_id", "sku").unique(maintain_order=True)
    row = places["customer_id"].replace_strict(people, range(len(people)), return_dtype=pl.Int32).to_numpy()
    column = places["sku"].replace_strict(skus, range(len(skus)), return_dtype=pl.Int32).to_numpy()
    return csr_matrix((np.ones(len(row)), (row, column)), shape=(len(people), len(skus))), people, skus


def _neighbours(bought: Any) -> Any:
    """SKU x SKU scores, the best twenty of each row; equal scores by SKU."""
    from scipy.sparse import csr_matrix

    both = (bought.T @ bought).tocoo()
    alone = np.asarray(bought.sum(axis=0)).ravel()
    kept = (both.row != both.col) & (both.data >= SETTINGS["minimum_people_per_pair"])
    row, column, count = both.row[kept], both.col[kept], both.data[kept]
    score = (count / np.sqrt(alone[row] * alone[column]) * count / (count + SETTINGS["shrinkage"])).round(6)
    order = np.lexsort((column, -score, row))
    row, column, score = row[order], column[order], score[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    best = rank < SETTINGS["neighbours"]
    return csr_matrix((score[best], (row[best], column[best])), shape=both.shape)


def _frame(scores: Any, skus: list[str]) -> pl.DataFrame:
    entries = scores.tocoo()
    names = pl.Series(skus, dtype=pl.String)
    frame = pl.DataFrame(
        {"sku": names.gather(entries.row), "neighbour_sku": names.gather(entries.col), "score": entries.data}
    ).sort("sku", pl.col("score"), "neighbour_sku", descending=[False, True, False])
    return frame.with_columns(pl.int_range(1, pl.len() + 1).over("sku").cast(pl.Int64).alias("rank")).select(
        list(SCHEMA)
    )


def _evaluate(rows: pl.DataFrame) -> dict[str, float]:
    """Hit rate at 10 on what people bought for the first time in their last order, beside popularity's."""
    orders = rows.select("customer_id", "order_id", "ordered_at").unique().sort("customer_id", "ordered_at", "order_id")
    last = orders.group_by("customer_id", maintain_order=True).agg(pl.col("order_id").last(), pl.len())
    held = last.filter(pl.col("len") > 1).select("customer_id", "order_id")
    before, _, _ = _matrix(rows.join(held, on=["customer_id", "order_id"], how="anti"), like=rows)
    after, _, _ = _matrix(rows.join(held, on=["customer_id", "order_id"], how="semi"), like=rows)
    after = after - after.multiply(before)
    after.eliminate_zeros()
    tested = np.flatnonzero((after.getnnz(axis=1) > 0) & (before.getnnz(axis=1) > 0))
    popularity = np.asarray(before.sum(axis=0)).ravel()
    scores = _neighbours(before)
    hits = popular_hits = 0
    for start in range(0, len(tested), _PEOPLE_AT_ONCE):
        people = tested[start : start + _PEOPLE_AT_ONCE]
        known, wanted = before[people].toarray() > 0, after[people].toarray() > 0
        hits += _hits((before[people] @ scores).toarray(), known, wanted)
        popular_hits += _hits(np.tile(popularity, (len(people), 1)), known, wanted)
    people_tested = max(len(tested), 1)
    return {
        "people_tested": len(tested),
        "hit_rate_at_10": round(hits / people_tested, 6),
        "hit_rate_at_10_of_popularity": round(popular_hits / people_tested, 6),
    }


def _hits(score: Any, known: Any, wanted: Any) -> int:
    """How many people find something they wanted among their best ten; what they have already is not offered."""
    score[known] = 0.0
    among = min(int(SETTINGS["hits_among"]), score.shape[1])
    best = np.argpartition(-score, among - 1, axis=1)[:, :among]
    found = np.take_along_axis(wanted, best, axis=1) & (np.take_along_axis(score, best, axis=1) > 0)
    return int(found.any(axis=1).sum())


def _gate(metrics: Mapping[str, float], in_use: InUse | None) -> tuple[str, ...]:
    """Beside the model in use, lifts over popularity are compared: each was measured on its own last orders."""
    failures = []
    hit, popular = metrics["hit_rate_at_10"], metrics["hit_rate_at_10_of_popularity"]
    if hit <= popular:
        failures.append(f"hit_rate_at_10: expected more than popularity's {popular}, found {hit}")
    if in_use:
        lift = hit - popular
        before = in_use.metrics["hit_rate_at_10"] - in_use.metrics["hit_rate_at_10_of_popularity"]
        if lift < before - SETTINGS["margin"]:
            failures.append(
                f"lift over popularity: expected at most {SETTINGS['margin']} below the one in use ({before:.4f}), "
                f"found {lift:.4f}"
            )
    return tuple(failures)


RECOMMENDATIONS = Baseline(
    name="recommendations",
    description="What the same people buy too. One row per SKU and neighbour.",
    tables=("order_lines",),
    features=("customer_id", "order_id", "sku"),
    use_purpose_code="personalization",
    settings=SETTINGS,
    rows=candidates,
    fit=fit,
    subjects=None,
    predict=predict,
    nothing=pl.DataFrame(schema=SCHEMA),
)
