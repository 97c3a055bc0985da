"""The check of Dagster that looks at lags between runs."""

from pathlib import Path

import dagster as dg
import pytest

from feature_repo.catalogue import INDEXES, VIEWS
from orchestration.assets import publish_features, watch_views
from orchestration.resources import HomeResource, Reporter
from serving.operations.freshness import STREAMED, Shown, tell_shown
from tests.unit.serving.open_shop import open_shop
from troth.clock import SystemClock
from troth.home import Home


def verdicts(home: Home) -> dict[str, bool]:
    job = dg.define_asset_job("watch_lags", selection=dg.AssetSelection.checks(watch_views))
    definitions = dg.Definitions(
        assets=[publish_features], asset_checks=[watch_views], jobs=[job],
        resources={"troth": HomeResource(root=str(home.root)), "reporter": Reporter()},
    )  # fmt: skip
    with dg.DagsterInstance.ephemeral() as instance:
        done = definitions.resolve_job_def("watch_lags").execute_in_process(instance=instance)
    found = done.get_asset_check_evaluations()
    assert {each.check_name for each in found} == {"keeps_its_limit_of_lag"}
    return {each.asset_key.to_user_string().removeprefix("online_"): each.passed for each in found}


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")
def test_each_view_passes_while_what_it_knows_is_within_its_limit_and_fails_when_it_is_not(tmp_path: Path) -> None:
    home = open_shop(tmp_path).home
    (home.root / "truth").mkdir()  # answers for the time it knows until
    assert verdicts(home) == {view.name: True for view in (*VIEWS, *INDEXES)}
    (home.root / "truth").rmdir()
    tell_shown(home, Shown(offset=0, until=SystemClock().now()))
    late = {name for name, passed in verdicts(home).items() if not passed}
    assert late == {view.name for view in (*VIEWS, *INDEXES) if view not in STREAMED}, "the stream alone goes on"
