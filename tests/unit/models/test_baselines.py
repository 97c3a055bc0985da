"""Each baseline learns what is there, proves it on people it had not seen, and is kept back when it learns nothing."""

import random
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest

from models import churn, recommendations, rfm
from models.baseline import Fitted, InUse

NOW = datetime(2026, 5, 1, 2)


def customer(number: int) -> str:
    return f"cus_{number:022x}"


# --- rfm


def buyers() -> pl.DataFrame:
    """Five kinds of buyer, far apart: days since, orders, cents."""
    kinds = [(2, 30, 900_000), (5, 12, 150_000), (8, 2, 9_000), (30, 3, 20_000), (80, 1, 4_000)]
    chance = random.Random(1)
    rows = [
        (customer(number), NOW, *(max(1, round(value * chance.uniform(0.9, 1.1))) for value in kinds[number % 5]))
        for number in range(300)
    ]
    return pl.DataFrame(
        rows,
        schema={"customer_id": pl.String, "feature_at": pl.Datetime("us"), **dict.fromkeys(rfm.FEATURES, pl.Int64)},
        orient="row",
    )


@pytest.fixture(scope="module")
def clusters() -> Fitted:
    fitted = rfm.fit(buyers(), None)
    assert fitted is not None
    return fitted


def test_rfm_tells_the_kinds_of_buyer_apart_and_names_them(clusters: Fitted) -> None:
    assert clusters.failures == ()
    assert clusters.metrics["silhouette"] > 0.7
    labels = rfm.predict(clusters.files, buyers())["label"].to_list()
    assert labels[:5] == ["champions", "regulars", "occasional", "slipping", "lapsed"]
    assert labels == labels[:5] * 60


def test_the_same_rows_give_the_same_rfm_bytes(clusters: Fitted) -> None:
    again = rfm.fit(buyers(), None)
    assert again is not None
    assert again.files == clusters.files


def test_rfm_is_kept_back_where_buyers_are_all_alike_or_the_one_in_use_was_clearer(clusters: Fitted) -> None:
    chance = random.Random(2)
    alike = buyers().with_columns(
        pl.Series(name, [chance.randrange(1, 90) for _ in range(300)]) for name in rfm.FEATURES
    )
    fitted = rfm.fit(alike, InUse(clusters.files, clusters.metrics))
    assert fitted is not None
    assert any("below the one in use" in failure for failure in fitted.failures)


def test_rfm_does_not_learn_from_a_handful() -> None:
    assert rfm.fit(buyers().head(99), None) is None
    assert rfm.fit(buyers().head(4).select(pl.all().repeat_by(60).explode()), None) is None


def test_nobody_to_score_is_no_fault(clusters: Fitted) -> None:
    assert rfm.predict(clusters.files, buyers().head(0)).height == 0


# --- churn


def habits(people: int = 900, *, telling: bool = True) -> pl.DataFrame:
    """Three weekly rows a person. Those who look and buy often come back, and recency says little."""
    chance = random.Random(5)
    rows: list[dict[str, Any]] = []
    for number in range(people):
        keen = chance.random()
        for week in (4, 5, 6):
            lost = chance.random() > (keen if telling else 0.5)
            rows.append(
                dict.fromkeys(churn.FEATURES, 0)
                | {
                    "customer_id": customer(number),
                    "feature_at": NOW - timedelta(days=7 * week),
                    "order_count_90d": round(10 * keen),
                    "view_count_30d": round(20 * keen * chance.uniform(0.5, 1.5)),
                    "days_since_last_order": chance.randrange(60),
                    "days_since_last_visit": None if keen < 0.1 else chance.randrange(20),
                    "is_lost": lost,
                }
            )
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col("feature_at").cast(pl.Datetime("us")))


@pytest.fixture(scope="module")
def propensity() -> Fitted:
    fitted = churn.fit(habits(), None)
    assert fitted is not None
    return fitted


def test_churn_beats_recency_on_people_it_has_not_seen_and_means_what_it_says(propensity: Fitted) -> None:
    assert propensity.failures == ()
    assert propensity.metrics["auc"] > propensity.metrics["auc_recency_alone"] + 0.1
    assert propensity.metrics["calibration_error"] < 0.1


def test_the_same_rows_give_the_same_churn_bytes(propensity: Fitted) -> None:
    again = churn.fit(habits(), None)
    assert again is not None
    assert again.files == propensity.files


def test_churn_is_learned_calibrated_and_tested_on_different_people_at_different_times(propensity: Fitted) -> None:
    parts = churn._part(habits())
    people = {name: set(habits().filter(parts == name)["customer_id"]) for name in ("learned", "calibrated", "tested")}
    assert sum(map(len, people.values())) == 900
    assert propensity.metrics["rows_learned"] == 2 * len(people["learned"])
    assert propensity.metrics["rows_calibrated"] == len(people["calibrated"])
    assert propensity.metrics["rows_tested"] == len(people["tested"])


def test_churn_is_kept_back_where_nothing_can_be_learned(propensity: Fitted) -> None:
    fitted = churn.fit(habits(telling=False), InUse(propensity.files, propensity.metrics))
    assert fitted is not None
    assert fitted.metrics["auc_of_the_one_in_use"] > 0
    in_use_is_better = churn._gate(
        {**fitted.metrics, "auc": 0.6, "auc_recency_alone": 0.5, "auc_of_the_one_in_use": 0.9}
    )
    assert any("below the one in use" in failure for failure in in_use_is_better)
    assert any("recency alone" in failure for failure in churn._gate({**fitted.metrics, "auc": 0.5}))
    assert any("calibration_error" in failure for failure in churn._gate({**fitted.metrics, "calibration_error": 0.2}))


def test_churn_does_not_learn_from_a_handful_or_from_one_outcome() -> None:
    assert churn.fit(habits(60), None) is None
    assert churn.fit(habits().with_columns(pl.lit(True).alias("is_lost")), None) is None
    assert churn.fit(habits().head(0), None) is None


def test_a_churn_probability_is_a_probability(propensity: Fitted) -> None:
    scored = churn.predict(propensity.files, habits())
    assert scored["churn_probability"].is_between(0, 1).all()
    assert churn.predict(propensity.files, habits().head(0)).height == 0


# --- recommendations


def baskets(people: int = 400, *, tastes: bool = True) -> pl.DataFrame:
    """Two orders a person; with tastes, everybody buys from one of four shelves of eight."""
    chance = random.Random(9)
    rows = []
    for number in range(people):
        for order in range(2):
            shelf = number % 4 if tastes else chance.randrange(4)
            for sku in chance.sample(range(8 * shelf, 8 * shelf + 8), 3) if tastes else chance.sample(range(32), 3):
                rows.append(
                    (customer(number), f"web/{number}/{order}", NOW - timedelta(days=9 - order), f"SKU-{sku:05d}")
                )
    frame = pl.DataFrame(
        rows,
        schema={"customer_id": pl.String, "order_id": pl.String, "ordered_at": pl.Datetime("us"), "sku": pl.String},
        orient="row",
    )
    shelf = "shelf " + (pl.col("sku").str.slice(4).cast(pl.Int64) // 8).cast(pl.String)
    return frame.with_columns(pl.lit(NOW, pl.Datetime("us")).alias("feature_at"), shelf.alias("category_name"))


def test_recommendations_find_the_shelf_and_beat_popularity() -> None:
    fitted = recommendations.fit(baskets(), None)
    assert fitted is not None
    assert fitted.failures == ()
    assert fitted.metrics["hit_rate_at_10"] > fitted.metrics["hit_rate_at_10_of_popularity"] + 0.2
    pairs = recommendations.predict(fitted.files, pl.DataFrame())
    nearest = pairs.filter(pl.col("rank") <= 7).select("sku", "neighbour_sku")
    shelf = [(int(one[4:]) // 8, int(other[4:]) // 8) for one, other in nearest.iter_rows()]
    assert all(one == other for one, other in shelf)


def test_neighbours_are_ranked_and_never_the_thing_itself() -> None:
    fitted = recommendations.fit(baskets(tastes=False), None)
    assert fitted is not None
    pairs = recommendations.predict(fitted.files, pl.DataFrame())
    assert pairs.columns == ["sku", "neighbour_sku", "score", "rank"]
    assert (pairs["sku"] != pairs["neighbour_sku"]).all()
    assert pairs["score"].is_between(0, 1).all()
    assert pairs["rank"].max() == 20
    for _, ranked in pairs.group_by("sku", maintain_order=True):
        assert ranked["rank"].to_list() == list(range(1, ranked.height + 1))
        assert ranked["score"].is_sorted(descending=True)


def test_the_scores_are_those_of_the_formula() -> None:
    rows = [(f"c{person}", sku) for person in range(4) for sku in ("A", "B")] + [("c9", "A"), ("c8", "C"), ("c8", "A")]
    frame = pl.DataFrame(rows, schema=["customer_id", "sku"], orient="row").with_columns(category_name=pl.lit("tea"))
    bought, _, skus = recommendations._matrix(frame)
    category = recommendations._categories(frame, skus)
    pairs = recommendations._frame(recommendations._neighbours(bought, category, 5), skus)
    # Six people bought A, four B, one C; four bought A and B. C and A were bought together by one person alone: that
    # pair would be about that person, so it counts as none and the category alone speaks.
    assert pairs.rows() == [
        ("A", "B", round((4 + 5 * 4 / 11) / 9, 9), 1),
        ("A", "C", round((0 + 5 * 1 / 11) / 9, 9), 2),
        ("B", "A", round((4 + 5 * 6 / 11) / 9, 9), 1),
        ("B", "C", round((0 + 5 * 1 / 11) / 9, 9), 2),
        ("C", "A", round(6 / 11, 9), 1),
        ("C", "B", round(4 / 11, 9), 2),
    ]


def test_the_same_orders_in_another_order_give_the_same_neighbours() -> None:
    one, other = (
        recommendations.fit(baskets(), None),
        recommendations.fit(baskets().sample(fraction=1, shuffle=True, seed=3), None),
    )
    assert one is not None
    assert other is not None
    assert one.files == other.files


def test_recommendations_are_kept_back_where_popularity_is_as_good_or_the_one_in_use_was_better() -> None:
    metrics = {"hit_rate_at_10": 0.1, "hit_rate_at_10_of_popularity": 0.1}
    better = InUse({}, {"hit_rate_at_10": 0.5, "hit_rate_at_10_of_popularity": 0.1})
    assert "more than popularity's 0.1, found 0.1" in recommendations._gate(metrics, None)[0]
    assert "below the one in use" in recommendations._gate({**metrics, "hit_rate_at_10": 0.2}, better)[0]
    assert recommendations._gate({**metrics, "hit_rate_at_10": 0.45}, better) == ()


def test_recommendations_do_not_learn_from_a_handful() -> None:
    assert recommendations.fit(baskets(40), None) is None
    assert recommendations.fit(baskets().head(0), None) is None
