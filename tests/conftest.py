"""Options of the tests; and a retailer's home after a real run, for tests of pages that show what a run leaves: made once, when the first of them asks."""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--ran-home",
        type=Path,
        help="A home after a run; tests of pages go over a copy of it instead of one made for them.",
    )
    parser.addoption(
        "--audited-uses",
        type=int,
        default=100,
        help="Random uses of people's data that tests of the audit decide again.",
    )


@pytest.fixture(scope="session")
def ran_home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home's folder. Whoever changes it copies it first."""
    from tests.browser.staffed_home import ran

    ready: Path | None = request.config.getoption("--ran-home")
    base = tmp_path_factory.getbasetemp()
    return ready or ran((base.parent if hasattr(request.config, "workerinput") else base) / "ran")


@pytest.fixture(scope="session")
def audited_uses(request: pytest.FixtureRequest) -> int:
    count: int = request.config.getoption("--audited-uses")
    return count
