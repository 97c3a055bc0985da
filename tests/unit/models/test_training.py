"""The consented training set keeps a row only where consent held then and holds now, and counts the rest."""

from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training import consented, permitted

NOW = datetime(2026, 5, 1, 2)
BEFORE = NOW - timedelta(days=28)
NOBODY = pl.Series(dtype=pl.String)


class FakeStanding:
    """Answers from a dictionary: (customer, time) -> reason; `granted` is the only yes."""

    def __init__(self, answers: dict[tuple[str, datetime], str]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str, datetime]] = []

    def known_at(self, purpose_code: str, channel_code: str, at: datetime) -> pl.DataFrame:
        self.asked.append((purpose_code, channel_code, at))
        found = [(who, reason == "granted", reason) for (who, when), reason in self.answers.items() if when == at]
        return pl.DataFrame(
            found, schema={"customer_id": pl.String, "is_allowed": pl.Boolean, "reason_code": pl.String}, orient="row"
        )


def rows(*pairs: tuple[str, datetime]) -> pl.DataFrame:
    return pl.DataFrame(
        [(who, at, number) for number, (who, at) in enumerate(pairs)],
        schema={"customer_id": pl.String, "feature_at": pl.Datetime("us"), "order_count_90d": pl.Int64},
        orient="row",
    )


def test_a_row_is_kept_where_consent_held_then_and_holds_now() -> None:
    standing = FakeStanding({("ada", BEFORE): "granted", ("ada", NOW): "granted"})
    kept = consented(rows(("ada", BEFORE)), standing, NOW, NOBODY)
    assert kept.rows.equals(rows(("ada", BEFORE)))
    assert kept.left_out == {}


def test_a_consent_given_later_does_not_open_the_rows_before_it() -> None:
    standing = FakeStanding({("ada", BEFORE): "never_asked", ("ada", NOW): "granted"})
    assert consented(rows(("ada", BEFORE)), standing, NOW, NOBODY).left_out == {"never_asked": 1}


def test_a_consent_withdrawn_since_closes_the_rows_before_it() -> None:
    standing = FakeStanding({("ada", BEFORE): "granted", ("ada", NOW): "withdrawn"})
    assert consented(rows(("ada", BEFORE)), standing, NOW, NOBODY).left_out == {"withdrawn_since": 1}


def test_a_person_without_a_standing_row_was_never_asked() -> None:
    assert consented(rows(("ada", BEFORE)), FakeStanding({}), NOW, NOBODY).left_out == {"never_asked": 1}


def test_an_answer_without_words_is_a_no() -> None:
    class Mute:
        def known_at(self, purpose_code: str, channel_code: str, at: datetime) -> pl.DataFrame:
            return pl.DataFrame(
                {"customer_id": ["ada"], "is_allowed": [None], "reason_code": [None]},
                schema={"customer_id": pl.String, "is_allowed": pl.Boolean, "reason_code": pl.String},
            )

    assert consented(rows(("ada", NOW)), Mute(), NOW, NOBODY).left_out == {"never_asked": 1}


def test_a_test_customer_teaches_nothing() -> None:
    standing = FakeStanding({("ada", NOW): "granted"})
    assert consented(rows(("ada", NOW)), standing, NOW, pl.Series(["ada"])).left_out == {"test_customer": 1}


def test_training_asks_for_model_training_at_every_feature_time_and_now() -> None:
    standing = FakeStanding({})
    consented(rows(("ada", BEFORE), ("bo", BEFORE), ("ada", NOW)), standing, NOW, NOBODY)
    assert set(standing.asked) == {("model_training", "*", BEFORE), ("model_training", "*", NOW)}


def test_no_rows_are_no_fault() -> None:
    kept = consented(rows(), FakeStanding({}), NOW, NOBODY)
    assert (kept.kept, kept.considered, kept.left_out) == (0, 0, {})


def test_two_answers_for_one_person_are_refused_rather_than_counted_twice() -> None:
    class Twice(FakeStanding):
        def known_at(self, purpose_code: str, channel_code: str, at: datetime) -> pl.DataFrame:
            one = super().known_at(purpose_code, channel_code, at)
            return pl.concat([one, one])

    with pytest.raises(pl.exceptions.ComputeError):
        consented(rows(("ada", NOW)), Twice({("ada", NOW): "granted"}), NOW, NOBODY)


def test_scoring_asks_for_the_use_itself() -> None:
    standing = FakeStanding({("ada", NOW): "granted", ("bo", NOW): "objected"})
    people = pl.DataFrame({"customer_id": ["ada", "bo", "cy"]})
    answer = permitted(people, standing, "analytics", NOW, NOBODY)
    assert answer.rows["customer_id"].to_list() == ["ada"]
    assert answer.left_out == {"never_asked": 1, "objected": 1}
    assert standing.asked == [("analytics", "*", NOW)]


REASONS = st.sampled_from(["granted", "granted", "refused", "withdrawn", "expired", "stale_notice", "never_asked"])
PEOPLE = [f"cus_{number}" for number in range(6)]
TIMES = [NOW - timedelta(days=7 * week) for week in range(4)]


@given(
    answers=st.dictionaries(st.tuples(st.sampled_from(PEOPLE), st.sampled_from(TIMES)), REASONS),
    pairs=st.lists(st.tuples(st.sampled_from(PEOPLE), st.sampled_from(TIMES)), max_size=30),
    tests=st.lists(st.sampled_from(PEOPLE), max_size=2),
)
def test_no_row_without_standing_is_ever_kept_and_the_counts_add_up(
    answers: dict[tuple[str, datetime], str], pairs: list[tuple[str, datetime]], tests: list[str]
) -> None:
    standing = FakeStanding(answers)
    result = consented(rows(*pairs), standing, NOW, pl.Series(tests, dtype=pl.String))
    expected = [
        (who, at)
        for who, at in pairs
        if who not in tests and answers.get((who, at)) == "granted" and answers.get((who, NOW)) == "granted"
    ]
    assert list(result.rows.select("customer_id", "feature_at").iter_rows()) == expected
    assert result.considered == len(pairs) == result.kept + sum(result.left_out.values())
