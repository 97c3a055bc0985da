"""An export in a process of its own: it ends without whoever began it, and one that is killed is told as stopped."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from models.segments import described, kept
from serving.console import export_work
from serving.console.export_work import Job
from serving.errors import ServingError
from tests.integration.segment_shop import AS_OF, EVERYBODY, Shop, plain_segment
from troth.clock import SystemClock
from troth.home import Home

PATIENCE_SECONDS = 60


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    found = Shop(Home(tmp_path / "home"), people=60, grants=8)
    described.save(found.home, plain_segment(EVERYBODY, name="sent"), "ada", AS_OF, None)
    return found


def begun(shop: Shop) -> Job:
    made = export_work.begin(shop.home, described.load(shop.home, "sent"), "email", "ada", SystemClock().now())
    export_work.start(shop.home, made.job_id)
    return made


def ended(shop: Shop, job_id: str, *states: str) -> Job:
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = export_work.job(shop.home, job_id)
        assert found is not None
        if found.state in states or time.monotonic() > until:
            return found
        time.sleep(0.05)


def processes(job_id: str) -> list[int]:
    """Who is at a job, by what the kernel says of its command line."""
    told = subprocess.run(["pgrep", "-f", f"export_work .*{job_id}"], capture_output=True, text=True, check=False)
    return [int(each) for each in told.stdout.split()]


def gone(job_id: str) -> bool:
    """Whether the last of them has ended within the time there is."""
    until = time.monotonic() + PATIENCE_SECONDS
    while processes(job_id) and time.monotonic() < until:
        time.sleep(0.05)
    return not processes(job_id)


def test_it_is_decided_and_written_beside_whoever_asked(shop: Shop) -> None:
    made = begun(shop)
    with pytest.raises(ServingError, match="found it under way"):
        export_work.start(shop.home, made.job_id)
    decided = ended(shop, made.job_id, "decided", "failed")
    assert (decided.state, decided.fault) == ("decided", None)
    assert decided.matched == decided.expected + sum(decided.refused.values())
    export_work.confirm(shop.home, made.job_id, "ada")
    export_work.start(shop.home, made.job_id)
    done = ended(shop, made.job_id, "written", "failed")
    assert (done.state, done.fault) == ("written", None)
    manifest = json.loads((export_work.folder_of(shop.home, made.job_id) / "manifest.json").read_text())
    assert manifest["counts"]["exported"] == decided.expected
    assert kept.gone_out(shop.home, "sent") == {1: made.definition_hash}
    assert [each.job_id for each in export_work.jobs(shop.home)] == [made.job_id]
    assert gone(made.job_id)


def test_one_that_is_killed_is_stopped_and_wrote_nothing(shop: Shop) -> None:
    made = begun(shop)
    (process,) = processes(made.job_id)
    os.kill(process, signal.SIGKILL)
    assert ended(shop, made.job_id, "stopped").state == "stopped"
    assert not export_work.folder_of(shop.home, made.job_id).exists()
    export_work.start(shop.home, made.job_id)  # what was written down is done when it is begun again
    assert ended(shop, made.job_id, "decided", "failed").state == "decided"
    assert gone(made.job_id)
