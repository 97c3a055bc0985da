"""How old views are, beside how old they may be; and the alerts that follow from it."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from feature_repo.catalogue import AVAILABILITY, CUSTOMER_PURCHASES, INDEXES, SKU_LOCATION_AVAILABILITY, VIEWS
from feature_repo.errors import FeatureError
from feature_repo.store import online_store
from orchestration.cli import app
from serving.operations.alerts import document, rules
from serving.operations.freshness import STREAMED, Shown, ViewLag, shown, tell_shown, view_lags
from serving.operations.metrics import COUNTERS, HISTOGRAMS, standing_now
from tests.unit.serving.open_shop import AT, open_shop
from troth.home import Home

PUBLISHED_AT = AT - timedelta(hours=1)


def lags(home: Home, at: datetime) -> dict[str, ViewLag]:
    return {each.view: each for each in view_lags(home, online_store(home.features), at)}


def test_every_view_declares_a_limit_of_lag_that_is_met_long_before_rows_stop_answering() -> None:
    for view in (*VIEWS, *INDEXES):
        assert view.lag_limit is not None, view.name
        assert timedelta() < view.lag_limit <= view.time_to_live / 4, view.name


def test_a_view_is_late_when_what_it_knows_is_older_than_its_limit_and_not_before(tmp_path: Path) -> None:
    home = open_shop(tmp_path).home
    on_time = lags(home, PUBLISHED_AT + timedelta(hours=30))[CUSTOMER_PURCHASES.name]
    assert (on_time.state, on_time.lag_seconds, on_time.as_of_at) == ("fresh", 30 * 3_600, PUBLISHED_AT)
    late = lags(home, PUBLISHED_AT + timedelta(hours=30, seconds=1))[CUSTOMER_PURCHASES.name]
    assert (late.state, late.is_late) == ("late", True)


def test_what_was_never_published_is_late_whatever_the_stream_says(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(FeatureError, match="found no file"):
        lags(home, AT)
    online_store(home.features).keep(VIEWS)
    tell_shown(home, Shown(offset=3, until=AT))
    assert {each.state for each in lags(home, AT).values()} == {"never_published"}


@settings(deadline=None, max_examples=30)
@given(st.integers(-10_000, 10_000), st.integers(-10_000, 10_000))
def test_the_lag_of_a_streamed_view_is_since_the_newer_of_version_and_stream(streamed: int, now: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        store = online_store(home.features)
        for view in (*STREAMED, CUSTOMER_PURCHASES):
            with store.refresh(view, "a.parquet", 0 + int(AT.timestamp() * 1e6), 0):
                pass
        tell_shown(home, Shown(offset=1, until=AT + timedelta(seconds=streamed)))
        found = lags(home, AT + timedelta(seconds=now))
    for view in STREAMED:
        assert found[view.name].lag_seconds == max(0, now - max(0, streamed))
    assert found[CUSTOMER_PURCHASES.name].lag_seconds == max(0, now)


def test_a_word_of_the_stream_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert shown(home) is None
    told = Shown(offset=7, until=datetime(2026, 3, 2, tzinfo=UTC))
    tell_shown(home, told)
    assert shown(home) == told
    (home.stock / "features.json").write_bytes(b"")
    assert shown(home) is None


def test_the_command_shows_a_table_and_json_and_ends_by_what_is_late(tmp_path: Path) -> None:
    home = open_shop(tmp_path).home
    (home.root / "truth").mkdir()  # a generated retailer's time stands still, so nothing is late there
    on_time = CliRunner().invoke(app, ["watch", "views", "--home", str(tmp_path)])
    assert on_time.exit_code == 0
    assert {"view", "state", "lag_seconds", "lag_limit_seconds"} <= set(on_time.output.split())
    (home.root / "truth").rmdir()
    late = CliRunner().invoke(app, ["watch", "views", "--late", "--json", "--home", str(tmp_path)])
    assert late.exit_code == 1
    told = yaml.safe_load(late.output)
    assert {each["view"] for each in told} == {view.name for view in (*VIEWS, *INDEXES)}
    assert all(each["state"] == "late" and each["lag_seconds"] > each["lag_limit_seconds"] for each in told)


def test_a_home_without_an_online_store_is_one_where_nothing_could_be_read(tmp_path: Path) -> None:
    refused = CliRunner().invoke(app, ["watch", "views", "--home", str(tmp_path)])
    assert getattr(refused.exception, "code", None) == 3


def test_alerts_are_a_file_of_rules_that_prometheus_takes() -> None:
    printed = CliRunner().invoke(app, ["watch", "alerts"])
    told = yaml.safe_load(printed.output)
    assert told == document()
    (group,) = told["groups"]
    for rule in group["rules"]:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"Troth[A-Za-z]+", rule["alert"])
        assert re.fullmatch(r"\d+[smh]", rule["for"])
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
        assert all(rule["expr"].count(a) == rule["expr"].count(b) for a, b in (("(", ")"), ("{", "}"), ("[", "]")))
    names = [rule["alert"] for rule in group["rules"]]
    assert len(names) == len(set(names))


def test_alerts_look_only_at_what_the_service_counts(tmp_path: Path) -> None:
    desk = open_shop(tmp_path)
    gauges = {name: {label} - {None} for name, _, label, _ in standing_now(desk, AT)}
    counted = {f"{name}_total": set(labels) for name, _, labels in COUNTERS.values()}
    counted |= {f"{name}_count": set(labels) for name, _, labels, _ in HISTOGRAMS.values()}
    board = {
        "troth_board_lag_seconds": set[str](),
        "troth_board_recomputed_lag_seconds": set[str](),
    }  # of homes that have one
    told = gauges | counted | board
    for rule in rules():
        used = set(re.findall(r"troth_\w+", rule.expr))
        assert used <= set(told), rule.name
        labels = set().union(*(told[name] for name in used))
        assert set(re.findall(r'(\w+)=~?"', rule.expr)) | set(re.findall(r"by \((\w+)\)", rule.expr)) <= labels, (
            rule.name
        )
        shown_labels = set(re.findall(r"\$labels\.(\w+)", " ".join(rule.annotations.values())))
        assert shown_labels <= labels, rule.name


def test_there_is_an_alarm_for_each_way_freshness_is_lost() -> None:
    looked_at = " ".join(rule.expr for rule in rules())
    for metric in (
        "troth_view_late",
        "troth_standing_lag_events",
        "troth_feature_reads_total",
        "troth_board_lag_seconds",
        "troth_read_log_failures_total",
    ):
        assert metric in looked_at
    assert {view.name for view in STREAMED} == {SKU_LOCATION_AVAILABILITY.name, AVAILABILITY.name}
