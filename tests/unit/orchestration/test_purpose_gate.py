"""The gate in Dagster: what was found of the code stops everything after it, what a home described itself is told and stops nothing."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from models.purpose_flow.checking import Use
from models.purpose_flow.kept import keep
from orchestration import purpose_gate
from orchestration.assets import purpose_flow
from orchestration.resources import HomeResource
from tests.unit.models.purpose_flow.small_flow import PLANTED, SERVED, flow
from troth.home import Home

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")
AT = datetime(2026, 5, 1, tzinfo=UTC)


def run(home: Home, *uses: Use) -> tuple[dict[str, bool], bool, bool]:
    """Checks of a home whose flow was found as said, whether what follows was made, and whether the run ended well."""
    keep(home, flow(*uses), purpose_gate.fingerprint(home), AT)
    made = []

    @dg.asset(deps=["purpose_flow"])
    def published() -> None:
        made.append(1)

    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            [purpose_flow, published],
            instance=instance,
            resources={"troth": HomeResource(root=str(home.root))},
            raise_on_error=False,
        )
    return {each.check_name: each.passed for each in done.get_asset_check_evaluations()}, bool(made), done.success


def test_a_finding_of_the_code_fails_its_check_and_nothing_after_it_is_made(tmp_path: Path) -> None:
    checks, is_made, is_done = run(Home(tmp_path), SERVED, PLANTED)
    assert checks["covers_every_use"] is False
    assert not is_made
    assert not is_done


def test_a_finding_of_what_the_home_described_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    checks, is_made, is_done = run(Home(tmp_path), SERVED, replace(PLANTED, is_of_home=True))
    assert checks == {
        "covers_every_use": True, "has_breakers_that_hold": True, "covers_what_the_home_describes": False,
    }  # fmt: skip
    assert is_made
    assert is_done


def test_a_clean_flow_passes_every_check(tmp_path: Path) -> None:
    checks, is_made, is_done = run(Home(tmp_path), SERVED)
    assert all(checks.values())
    assert len(checks) == 3
    assert is_made
    assert is_done
