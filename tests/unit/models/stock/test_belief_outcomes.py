from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.stock.belief.beliefs import Beliefs
from models.stock.belief.believing import beliefs_at
from models.stock.belief.calibration import Calibration, brier, calibration_error, fitted, picks_of, reliability
from models.stock.belief.counting import Prices, count_list
from models.stock.belief.evidence import Tables
from models.stock.belief.filtering import Scores
from models.stock.belief.learning import learn
from models.stock.belief.model import in_use, keep, trained
from models.stock.belief.parameters import Parameters
from troth.home import Home

DAWN = datetime(2026, 3, 2, 10, 30)


def drawn(count: int, bend: float = 1.0, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities told, and outcomes that happen with p ** bend."""
    rng = np.random.default_rng(seed)
    told = rng.beta(2, 1, count).astype(np.float32)
    return told, rng.random(count) < told**bend


def test_what_is_calibrated_already_stays_nearly_so() -> None:
    told, found = drawn(20_000)
    assert np.abs(fitted(told, found).applied(told) - told).max() < 0.03


def test_boasting_is_cured() -> None:
    told, found = drawn(20_000, bend=2.5)
    cured = fitted(told, found).applied(told)
    fresh_told, fresh_found = drawn(20_000, bend=2.5, seed=4)
    assert calibration_error(told, found) > 0.1
    assert calibration_error(cured, found) < 0.02
    assert brier(fitted(told, found).applied(fresh_told), fresh_found) < brier(fresh_told, fresh_found)


def test_a_group_of_few_picks_is_believed_little() -> None:
    told, found = drawn(5_000)
    groups = np.array(["store/Toys"] * 4_995 + ["store/Pets"] * 5)
    found[-5:] = False
    level = fitted(told, found, groups).groups["store/Pets"]
    assert -1 < level < 0


def test_too_few_picks_change_nothing() -> None:
    told, found = drawn(50, bend=3)
    assert fitted(told, found) == Calibration(picks=50)


@settings(max_examples=30, deadline=None)
@given(st.integers(200, 400), st.floats(0.2, 4), st.integers(0, 99))
def test_calibration_never_makes_more_likelier_than_fewer(count: int, bend: float, seed: int) -> None:
    calibration = fitted(*drawn(count, bend, seed))
    told = calibration.applied(np.linspace(0, 1, 101, dtype=np.float32))
    assert (np.diff(told) >= -1e-6).all()
    assert told[0] == 0
    assert told[-1] == 1


def test_calibrations_and_parameters_are_read_as_they_were_written() -> None:
    calibration, parameters = (
        Calibration(0.9, 1.1, -0.2, {"store/Toys": 0.1}, 900),
        Parameters(odds={"store/Toys": 1.2}),
    )
    assert Calibration.from_json(calibration.to_json()) == calibration
    assert Parameters.from_json(parameters.to_json()) == parameters


def test_the_reliability_table_counts_every_pick_and_brackets_what_was_found() -> None:
    told, found = drawn(3_000)
    table = reliability(told, found, np.where(told > 0.5, "store/Toys", "store/Pets"))
    everyone = table.filter(pl.col("group") == "all")
    assert everyone["picks"].sum() == 3_000
    assert table["picks"].sum() == 6_000
    assert table.filter((pl.col("lower") > pl.col("observed")) | (pl.col("upper") < pl.col("observed"))).height == 0


def test_a_perfect_forecast_has_no_error() -> None:
    found = np.array([True, False, True])
    assert calibration_error(found.astype(np.float32), found) == 0
    assert brier(found.astype(np.float32), found) == 0


def shelf(rng: np.random.Generator, wrong_share: float, positions: int = 400) -> Tables:
    """A shop whose opening books are wrong by a piece at a rate, sold from and counted after a week."""
    sku = [f"item-{n:03d}" for n in range(positions)]
    wrong = rng.random(positions) < wrong_share
    there = 5 - wrong.astype(int)
    opened = pl.DataFrame({
        "location_code": "S001", "sku": sku, "movement_type": "opening", "units": 5, "occurred_at": DAWN - timedelta(hours=9), "known_at": DAWN,
    })  # fmt: skip
    counted = pl.DataFrame({
        "location_code": "S001", "sku": sku, "counted_units": there, "counted_at": DAWN + timedelta(days=2), "known_at": DAWN + timedelta(days=3),
    })  # fmt: skip
    picks = pl.DataFrame(schema={
        "location_code": pl.String, "sku": pl.String, "asked_units": pl.Int64, "picked_units": pl.Int64, "picked_at": pl.Datetime("us"),
        "known_at": pl.Datetime("us"),
    })  # fmt: skip
    products = pl.DataFrame({"sku": sku, "category_name": "Toys", "price_cents": 1_000})
    locations = pl.DataFrame(
        {"location_code": ["S001"], "location_type": ["store"], "timezone_name": ["America/Chicago"]}
    )
    return Tables(opened, picks, counted, products, locations)


def test_a_retailer_of_wrong_books_is_learned_to_be_one() -> None:
    rng = np.random.default_rng(5)
    careful, careless = (learn([(shelf(rng, share), DAWN + timedelta(days=4))], trials=40) for share in (0.05, 0.6))
    assert careful.parameters.wrong_share < 0.3 < careless.parameters.wrong_share
    assert careless.log_likelihood >= careless.log_likelihood_before
    assert careless.diagnostics()["counts"] == 400


def test_picks_and_counts_are_told_apart() -> None:
    scores = Scores()
    beliefs_at(shelf(np.random.default_rng(1), 0.5), DAWN + timedelta(days=4), Parameters(), scores)
    assert len(picks_of(scores)[0]) == 0
    assert sum(len(each) for each in scores.probability) == 400


def test_what_is_doubtful_dear_and_wanted_is_counted_first() -> None:
    mass = np.zeros((3, 32), np.float32)
    mass[0, [0, 3]] = 0.5  # who knows
    mass[1, 3] = 1  # surely there
    mass[2, 0] = 1  # surely not, and it costs little
    zeros, ones = np.zeros(3, np.float32), np.ones(3, np.float32)
    beliefs = Beliefs(
        locations=pl.DataFrame({"location_code": ["S001"], "location_type": ["store"], "timezone_name": ["UTC"]}),
        items=pl.DataFrame({"sku": ["tent", "kite", "cap"], "category": ["a", "b", "c"]}), place=np.zeros(3, np.int32), item=np.arange(3, dtype=np.int32),
        base=np.zeros(3, np.int32), mass=mass, books=np.full(3, 3, np.int32), sold=ones * 9, exposure=ones * 99, asked=ones, scale=ones, quiet=ones * 4,
        seen_day=np.zeros(3, np.int32), counted_day=np.zeros(3, np.int32), missed_day=np.array([0, 0, 5], np.int32), traffic=ones[:1] * 20, silent=zeros[:1],
        days=30.0,
    )  # fmt: skip
    products = pl.DataFrame({"sku": ["tent", "kite", "cap"], "price_cents": [9_900, 1_600, 100]})
    listed = count_list(beliefs, products, 3, Prices())
    assert listed["sku"].to_list() == ["tent", "cap", "kite"]
    assert listed["value_cents"].to_list()[2] == pytest.approx(0)
    assert "4.0 sales were due" in listed["reason"][0]
    assert "last pick found too little" in listed["reason"][1]


def test_a_model_is_kept_with_what_speaks_for_it_and_read_as_it_was(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert in_use(home).version == ""
    model = trained(shelf(np.random.default_rng(2), 0.4), DAWN + timedelta(days=4), trials=12)
    version = keep(home, model, {"stock_counts": "v1"})
    read = in_use(home)
    assert (read.version, read.parameters, read.calibration) == (version, model.parameters, model.calibration)
    assert read.diagnostics["counts"] == 400
