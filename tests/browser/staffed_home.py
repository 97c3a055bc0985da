"""A retailer's home after a real run, where somebody of each role has an account. Made once for all workers of a run of the tests; each copies it."""

import fcntl
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from serving.console import accounts
from serving.console.roles import ROLES
from simulator import TINY, simulate
from tests.agreement.committed import ROOT
from troth.home import Home

PASSWORD = "tents and lanterns in march"
AT = datetime(2026, 3, 2, 9, tzinfo=UTC)
SHOP = replace(TINY, people=200, stores=4, skus=40, days=8, malformed_record_rate=0.004)
SEED = 11
BEST_BUYERS = """\
name: best_buyers
version: 1
description: A few, so that others can be written to still.
owner: shop_team
purpose: marketing
channels: [email]
where: customer_purchases.net_cents_90d >= 40000
"""


def account(role: str) -> str:
    return role.replace("_", "-")


def staffed(made: Path, mine: Path) -> Home:
    """A copy of a home, where somebody of each role has an account."""
    shutil.copytree(made, mine, dirs_exist_ok=True)
    home = Home(mine)
    for role in ROLES:
        accounts.add(home, account(role), [role], AT, PASSWORD)
    return home


def ran(shared: Path) -> Path:
    """The home that the first who asks makes in a folder, with one use of people's data in it: an export. Whoever comes second waits.

    A run that failed fails for everybody.
    """
    shared.mkdir(parents=True, exist_ok=True)
    folder, done = shared / "home", shared / "done"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            simulate(Home(folder), SHOP, SEED)
            definition = shared / "best_buyers.yml"
            definition.write_text(BEST_BUYERS)
            for asked in (["run", "--no-sample"], ["segment", "export", str(definition), "--yes"]):
                command = [sys.executable, "-m", "orchestration.cli", *asked, "--json", "--home", str(folder)]
                told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
                assert told.returncode == 0, told.stderr[-2_000:]
            done.touch()
    return folder
