"""One home and one service for a run of these tests, and a Chromium for each file of them. Screenshots stay in `var/screenshots`."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.agreement.committed import ROOT
from tests.browser.service import Service, running
from tests.browser.staffed_home import staffed
from tests.browser.walking import PATIENCE_MS


@pytest.fixture(scope="session")
def service(ran_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service as `troth serve` starts it, where somebody of each role has an account."""
    with running(staffed(ran_home, tmp_path_factory.mktemp("home"))) as found:
        yield found


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Of a file, not of the run: while it is open, no test of another file could start an event loop."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("a browser: expected Debian's `chromium` on the path, found none. Install it to run these tests.")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    folder = ROOT / "var" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
