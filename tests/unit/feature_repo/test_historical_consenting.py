"""Consent in a historical read: the rule of `models/training.py`, row by row, over spans of standing."""

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.rule.policy import Policy
from consent.rule.spans import SPAN_SCHEMA, standing_spans
from feature_repo.historical.consenting import judged
from feature_repo.historical.joining import Asked, Engine, EntityRows
from models import training
from models.permission import FrameStanding
from models.training import consented
from tests.unit.consent.builders import MONDAY
from tests.unit.consent.histories import DAY, TERMS, crowd, frame_of, linked_frame, policy_of

TRAINED = TERMS.replace("analytics", "model_training")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return policy_of(tmp_path_factory.mktemp("policy"), TRAINED)


def judge(
    folder: Path,
    standing: pl.DataFrame,
    rows: list[tuple[str | None, datetime | None]],
    at: datetime,
    **is_test: bool | None,
) -> tuple[list[int], dict[str, int]]:
    standing.write_parquet(folder / "spans.parquet")
    people = pl.DataFrame(list(is_test.items()), schema={"customer_id": pl.String, "is_test": pl.Boolean}, orient="row")
    people.write_parquet(folder / "customers.parquet")
    table = pa.table(
        {
            "customer_id": pa.array([who for who, _ in rows], pa.string()),
            "event_timestamp": pa.array([when for _, when in rows], pa.timestamp("us", "UTC")),
        }
    )
    with Engine(threads=1).opened() as connection:
        found = judged(
            Asked(connection, EntityRows(table)),
            folder / "spans.parquet",
            folder / "customers.parquet",
            folder / "customers.parquet",
            at,
        )
    return found.kept.tolist(), dict(found.left_out)


def span(who: str, since: datetime, until: datetime | None, reason: str) -> dict[str, Any]:
    plain = {"customer_id": who, "from_at": since, "until_at": until, "is_allowed": reason == "granted"}
    return {**plain, "reason_code": reason, "since_at": since, "expires_at": None, "leaf_index": 0}


def test_a_row_comes_out_where_standing_held_when_it_happened_and_still_holds(tmp_path: Path) -> None:
    table = pl.DataFrame(
        [
            span("ada", MONDAY, None, "granted"),
            span("bram", MONDAY, MONDAY + 2 * DAY, "granted"), span("bram", MONDAY + 2 * DAY, None, "withdrawn"),
            span("cleo", MONDAY, MONDAY + 2 * DAY, "refused"), span("cleo", MONDAY + 2 * DAY, None, "granted"),
            span("test", MONDAY, None, "granted"), span("made", MONDAY, None, "granted"),
        ],
        schema=SPAN_SCHEMA,
    )  # fmt: skip
    rows = [
        ("ada", MONDAY - timedelta(microseconds=1)), ("ada", MONDAY), ("bram", MONDAY + DAY), ("bram", MONDAY + 3 * DAY),
        ("cleo", MONDAY + DAY), ("cleo", MONDAY + 2 * DAY), ("test", MONDAY + DAY), ("made", MONDAY + DAY),
        ("nobody", MONDAY), (None, MONDAY), ("ada", None), ("ada", MONDAY),
    ]  # fmt: skip
    kept, left_out = judge(
        tmp_path, table, rows, MONDAY + 9 * DAY, ada=False, bram=False, cleo=False, test=True, made=None
    )
    assert kept == [1, 5, 11]
    assert left_out == {
        "never_asked": 4, "refused": 1, "test_customer": 2, "withdrawn": 1, "withdrawn_since": 1,
    }  # fmt: skip
    before = judge(tmp_path, table, rows, MONDAY + 2 * DAY - timedelta(microseconds=1), ada=False)[1]
    assert before["refused_since"] == 1


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9))
def test_it_leaves_out_what_training_leaves_out_for_the_same_reasons(
    policy: Policy, tmp_path_factory: pytest.TempPathFactory, seed: int, days: int
) -> None:
    chance = random.Random(seed)
    found, owned = crowd(chance, 25)
    events = frame_of(found).with_columns(pl.col("purpose_code").replace("analytics", training.PURPOSE))
    links = linked_frame(owned)
    people = [*sorted({customer for customer, *_ in owned}), "cus_unknown"]
    times = [MONDAY + chance.randint(-4, 40) * DAY / 4 for _ in range(4)]
    rows = [(chance.choice(people), chance.choice(times)) for _ in range(120)]
    at = MONDAY + days * DAY
    frame = pl.DataFrame(
        [(who, when.replace(tzinfo=None), number) for number, (who, when) in enumerate(rows)],
        schema={"customer_id": pl.String, "feature_at": pl.Datetime("us"), "position": pl.Int64}, orient="row",
    )  # fmt: skip
    tests = people[:3]
    said = consented(frame, FrameStanding(events, links, policy), at.replace(tzinfo=None), pl.Series(tests))
    spans_found = standing_spans(events, links, policy, training.PURPOSE, "*")
    folder = tmp_path_factory.mktemp("rows")
    kept, left_out = judge(folder, spans_found, rows, at, **{who: who in tests for who in people[:-1]})
    assert kept == said.rows["position"].to_list()
    assert left_out == said.left_out
