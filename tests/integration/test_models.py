"""Training over real published tables and the real rule of standing: what was left out, what was kept, what changed."""

import json
import random
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from consent.events import SCHEMA
from models import registry
from models.baseline import Fitted, ModelReport
from models.build import BASELINES, RFM, train_all
from models.errors import ModelsError
from models.tables import write
from troth.errors import TrothError
from troth.home import Home
from troth.published import current

AS_OF = datetime(2026, 5, 1, 2, tzinfo=UTC)
NAIVE = AS_OF.replace(tzinfo=None)
PEOPLE = 1_000
WEEKS = range(9)
GROUPS = ("never_asked", "withdrew", "agreed_lately", "agreed", "agreed_too")  # by customer number modulo 5


def customer(number: int) -> str:
    return f"cus_{number:022x}"


def event(number: int, event_type: str, days_ago: float, purpose_code: str = "*") -> dict[str, Any]:
    at = AS_OF - timedelta(days=days_ago)
    return {
        "subject_id": f"account_{number}",
        "event_type": event_type,
        "purpose_code": purpose_code,
        "channel_code": "*",
        "occurred_at": at,
        "recorded_at": at,
        "received_at": at,
        "notice_id": "web_banner",
        "notice_version": 1,
        "language_code": "en",
        "capture_method": "banner_accept",
        "capture_place": "web_banner",
        "actor_type": "subject",
        "jurisdiction_code": "US-OR",
        "signal_id": f"signal-{number}-{event_type}",
    }


def agreements() -> list[dict[str, Any]]:
    told = []
    for number in range(PEOPLE):
        group = GROUPS[number % 5]
        if group != "never_asked":
            told.append(event(number, "grant", 10 if group == "agreed_lately" else 90))
        if group == "withdrew":
            told.append(event(number, "withdraw", 3, "model_training"))
    return told


def publish_consent(home: Home, told: list[dict[str, Any]]) -> None:
    rows = [one | {"leaf_index": index, "ledger_size": len(told)} for index, one in enumerate(told)]
    write(home, "consent_events", pl.DataFrame(rows, schema=SCHEMA))


def published(home: Home) -> Home:
    """A thousand people with habits and a favourite shelf, nine weeks of feature rows, orders of sixty days."""
    chance = random.Random(4)
    orders, lines = [], []
    keenness = [chance.random() for _ in range(PEOPLE)]
    ordered: list[list[datetime]] = [[] for _ in range(PEOPLE)]
    for number, keen in enumerate(keenness):
        for order in range(2 + round(6 * keen)):
            order_id = f"web/{number}/{order}"
            at = NAIVE - timedelta(hours=chance.randrange(24 * 60))
            ordered[number].append(at)
            orders.append(
                {"order_id": order_id, "customer_id": customer(number), "ordered_at": at, "is_cancelled": False}
            )
            lines += [
                {**orders[-1], "sku": f"SKU-{sku:05d}"}
                for sku in chance.sample(range(8 * (number % 4), 8 * (number % 4) + 8), 3)
            ]
    purchases, engagement = [], []
    for number, keen in enumerate(keenness):
        for week in WEEKS:
            at = NAIVE - timedelta(days=7 * week)
            mine = [when for when in ordered[number] if when <= at]
            key = {"customer_id": customer(number), "feature_at": at}
            purchases.append(
                key
                | {
                    "order_count_30d": sum(when > at - timedelta(days=30) for when in mine),
                    "order_count_90d": len(mine),
                    "net_cents_90d": 1_000 * len(mine),
                    "average_order_cents_90d": 1_000.0 if mine else None,
                    "unit_count_90d": 3 * len(mine),
                    "return_count_90d": 0,
                    "days_since_last_order": (at - max(mine)).days if mine else None,
                    "store_order_share_90d": 0.0 if mine else None,
                }
            )
            visits = {"view_count_30d": round(20 * keen * chance.uniform(0.7, 1.3)), "search_count_30d": 0}
            engagement.append(key | visits | {"cart_count_30d": 0, "days_since_last_visit": chance.randrange(20)})
    people = [{"customer_id": customer(number), "is_test": number < 10} for number in range(PEOPLE)]
    links = [
        {"customer_id": customer(number), "identity_ref": f"account_{number}", "link_type": "hub"}
        for number in range(PEOPLE)
    ]
    for table, rows in {
        "customers": people,
        "customer_identities": links,
        "orders": orders,
        "order_lines": lines,
        "products": [{"sku": f"SKU-{sku:05d}", "category_name": f"shelf {sku // 8}"} for sku in range(32)],
        "ftr_customer_purchases": purchases,
        "ftr_customer_engagement": engagement,
    }.items():
        write(home, table, pl.DataFrame(rows, infer_schema_length=None))
    publish_consent(home, agreements())
    return home


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with published tables and nothing trained; tests copy it."""
    return published(Home(tmp_path_factory.mktemp("tables"))).root


@pytest.fixture(scope="module")
def trained(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, dict[str, ModelReport]]:
    home = Home(shutil.copytree(tables, tmp_path_factory.mktemp("trained") / "home"))
    return home, run(home)


@pytest.fixture
def home(tmp_path: Path, trained: tuple[Home, dict[str, ModelReport]]) -> Home:
    """A copy of the trained home that a test may change."""
    return Home(shutil.copytree(trained[0].root, tmp_path / "home"))


def run(home: Home, **named: Any) -> dict[str, ModelReport]:
    told: list[str] = []
    reports = train_all(home, named.pop("as_of_at", AS_OF), 450, "ab" * 32, told.append, **named)
    assert told == [report.model for report in reports]
    return {report.model: report for report in reports}


def predictions(home: Home, model: str) -> pl.DataFrame:
    return pl.read_parquet(current(home, f"pred_{model}"))


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_all_three_are_trained_pass_their_gates_and_are_in_use(trained: tuple[Home, dict[str, ModelReport]]) -> None:
    home, reports = trained
    assert list(reports) == ["rfm", "churn", "recommendations"]
    for report in reports.values():
        assert (report.outcome, report.failures) == ("promoted", ())
        assert report.version == report.version_in_use == registry.pointed(home, report.model)
        assert report.rows_considered == report.rows_kept + sum(report.left_out.values())


def test_what_was_left_out_is_told_by_reason(trained: tuple[Home, dict[str, ModelReport]]) -> None:
    home, reports = trained
    # Ten test customers; of the others a fifth each was never asked, withdrew three days ago, agreed ten days ago.
    now = {"never_asked": 198, "test_customer": 10, "withdrawn": 198}
    assert reports["rfm"].left_out == now
    bought_by_then = pl.col("days_since_last_order").is_not_null() & (
        pl.col("feature_at") <= NAIVE - timedelta(days=28)
    )
    old = (
        pl.read_parquet(current(home, "ftr_customer_purchases"))
        .filter(bought_by_then)
        .with_columns(pl.col("customer_id").str.slice(4).str.to_integer(base=16).alias("number"))
    )
    real = old.filter(pl.col("number") >= 10)
    by_group = dict(real.group_by(pl.col("number") % 5).len().iter_rows())
    # Who agreed ten days ago had not agreed when those rows were facts; who withdrew had.
    assert reports["churn"].left_out == {
        "never_asked": by_group[0] + by_group[2],
        "test_customer": old.height - real.height,
        "withdrawn_since": by_group[1],
    }
    assert reports["churn"].rows_kept == by_group[3] + by_group[4]


def test_predictions_are_for_those_who_allow_their_use_alone(trained: tuple[Home, dict[str, ModelReport]]) -> None:
    home, reports = trained
    # Withdrawing from training is not withdrawing from personalisation.
    for model in ("rfm", "churn"):
        scored = {int(who[4:], 16) for who in predictions(home, model)["customer_id"]}
        assert scored <= {number for number in range(10, PEOPLE) if GROUPS[number % 5] != "never_asked"}
        assert reports[model].scored == len(scored) > 750
        assert reports[model].unscored == {"never_asked": 198, "test_customer": 10}
    assert predictions(home, "rfm").columns == ["customer_id", "cluster", "label", "model_version"]
    assert predictions(home, "churn").columns == ["customer_id", "feature_at", "churn_probability", "model_version"]
    assert predictions(home, "recommendations").columns == ["sku", "neighbour_sku", "score", "rank", "model_version"]


def test_a_manifest_names_data_consent_numbers_and_libraries(trained: tuple[Home, dict[str, ModelReport]]) -> None:
    home, reports = trained
    for report in reports.values():
        assert report.version is not None
        folder = home.artifacts / report.model / report.version
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest == registry.manifest(home, report.model, report.version)
        training = manifest["training"]
        assert (training["purpose_code"], training["ledger_size"]) == ("model_training", 450)
        assert training["ledger_root"] == "ab" * 32
        assert len(training["policy_hash"]) == 64
        assert training["left_out"] == report.left_out
        assert training["features"]
        assert manifest["inputs"]["tables"]["consent_events"] == current(home, "consent_events").stem
        assert set(manifest["inputs"]["libraries"]) == {"numpy", "polars", "scikit-learn", "scipy"}
        assert manifest["gate"]["passed"] is True
        assert manifest["gate"]["thresholds"]
        assert "cus_" not in json.dumps(manifest)


def test_nothing_new_trains_nothing_and_changes_no_byte(home: Home) -> None:
    before = contents(home.root)
    reports = run(home)
    assert {report.outcome for report in reports.values()} == {"unchanged"}
    assert contents(home.root) == before
    for report in reports.values():
        assert report.rows_considered == report.rows_kept + sum(report.left_out.values())


def test_the_same_input_gives_the_same_bytes_in_another_home(
    tables: Path, trained: tuple[Home, dict[str, ModelReport]], tmp_path: Path
) -> None:
    other = Home(shutil.copytree(tables, tmp_path / "home"))
    reports = run(other)
    assert {model: report.version for model, report in reports.items()} == {
        model: report.version for model, report in trained[1].items()
    }
    for model in reports:
        assert current(other, f"pred_{model}").name == current(trained[0], f"pred_{model}").name


def test_a_withdrawal_leaves_the_next_model_and_its_predictions(home: Home) -> None:
    who = 13
    assert customer(who) in predictions(home, "churn")["customer_id"]
    before = run(home)
    publish_consent(home, [*agreements(), event(who, "withdraw", 0.5)])
    after = run(home)
    for model, report in after.items():
        assert report.outcome in ("promoted", "kept_back")
        assert report.rows_kept < before[model].rows_kept
    assert after["rfm"].left_out["withdrawn"] == before["rfm"].left_out["withdrawn"] + 1
    assert customer(who) not in predictions(home, "churn")["customer_id"]
    assert customer(who) not in predictions(home, "rfm")["customer_id"]


def test_where_nobody_agreed_nothing_is_learned_and_nobody_is_scored(tables: Path, tmp_path: Path) -> None:
    home = Home(shutil.copytree(tables, tmp_path / "home"))
    publish_consent(home, [])
    for report in run(home).values():
        assert (report.outcome, report.version, report.rows_kept, report.scored) == ("not_enough_rows", None, 0, 0)
        assert set(report.left_out) == {"never_asked", "test_customer"}
        assert predictions(home, report.model).height == 0
        assert "model_version" in predictions(home, report.model).columns


def test_once_nobody_agrees_any_more_nobody_is_scored_by_the_model_in_use(home: Home) -> None:
    publish_consent(home, [])
    reports = run(home)
    assert reports["rfm"].outcome == "not_enough_rows"
    assert reports["rfm"].version_in_use is not None
    assert (reports["rfm"].scored, reports["churn"].scored) == (0, 0)
    assert predictions(home, "rfm").height == 0


def test_a_candidate_that_fails_its_gate_is_kept_and_not_used(home: Home) -> None:
    in_use = registry.pointed(home, "rfm")

    def fit_badly(rows: pl.DataFrame, in_use: object) -> Fitted:
        return Fitted(
            {"model.pickle": b"poor"}, {"silhouette": 0.01}, ("silhouette: expected at least 0.2, found 0.01",)
        )

    worse = replace(RFM, fit=fit_badly, settings={**RFM.settings, "starts": 1})
    report = run(home, baselines=(worse,))["rfm"]
    assert report.outcome == "kept_back"
    assert report.version_in_use == in_use != report.version
    assert report.version is not None
    assert registry.manifest(home, "rfm", report.version)["gate"]["failures"] == list(report.failures)
    assert predictions(home, "rfm")["model_version"].unique().to_list() == [in_use]
    again = run(home, baselines=(worse,))["rfm"]
    assert (again.outcome, again.failures) == ("unchanged", report.failures)


def test_a_tampered_model_in_use_stops_the_run_and_says_which(home: Home) -> None:
    version = registry.pointed(home, "churn")
    assert version is not None
    (home.artifacts / "churn" / version / "model.pickle").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ModelsError, match=f"churn {version}, model.pickle: expected hash"):
        run(home, as_of_at=AS_OF + timedelta(minutes=1))


def test_a_model_that_was_removed_is_trained_again(home: Home) -> None:
    version = registry.pointed(home, "rfm")
    assert version is not None
    folder = home.artifacts / "rfm" / version
    folder.rename(folder.with_name("elsewhere"))
    report = run(home)["rfm"]
    assert (report.outcome, report.version) == ("promoted", version)


def test_predictions_that_were_replaced_are_made_again(home: Home) -> None:
    before = current(home, "pred_rfm").name
    write(home, "pred_rfm", predictions(home, "rfm").head(1))
    assert run(home)["rfm"].outcome == "unchanged"
    assert current(home, "pred_rfm").name == before


def test_a_table_that_is_not_published_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrothError, match="published table customers: expected a version"):
        run(Home(tmp_path))


def test_a_time_without_a_zone_is_refused(home: Home) -> None:
    with pytest.raises(ModelsError, match="expected one with a zone"):
        run(home, as_of_at=NAIVE)


def test_a_missing_column_is_named(home: Home) -> None:
    write(home, "customers", pl.DataFrame({"customer_id": ["cus_1"]}))
    with pytest.raises(ModelsError, match="published table customers: expected column is_test"):
        run(home)


def test_every_baseline_declares_its_use_and_its_table() -> None:
    assert {baseline.table for baseline in BASELINES} == {"pred_rfm", "pred_churn", "pred_recommendations"}
    assert {baseline.use_purpose_code for baseline in BASELINES} <= {"analytics", "personalization"}
