"""A sender killed behind every step: what it left is sent once, whole, and nobody is counted twice."""

import hashlib
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from models.segments import kept
from serving.activation import members
from serving.activation.deliveries import Delivery, delivery
from serving.activation.sending import staged_folder
from tests.integration.activation_shop import declare, describe, receiving
from tests.integration.segment_shop import Shop
from troth.home import Home

pytestmark = pytest.mark.slow


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(Home(tmp_path / "home"))
    declare(made.home)
    describe(made.home)
    return made


def killed(home: Home, destination: str) -> list[Delivery]:
    """A delivery for every step there is, each after its sender was killed behind it and another went on; the last was not killed."""
    command = [sys.executable, "-m", "tests.integration.dying_sender", str(home.root), destination]
    ran = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    ends = [line.split() for line in ran.stdout.splitlines()]
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert [end[1:] for end in ends] == [[str(-signal.SIGKILL), "0"]] * (len(ends) - 1) + [["0", "0"]], ran.stderr[
        -3000:
    ]
    return [delivery(home, end[0]) for end in ends]


def check_kept(home: Home, done: Delivery) -> None:
    """What the home knows of it afterwards: everybody once, and nothing in the clear."""
    assert done.state == "sent"
    (contacts,) = (kept.folder_of(home) / "contacts").glob(f"*-{done.mark}.parquet")
    assert pl.read_parquet(contacts).height == done.exported
    assert members.read_members(home, done.delivery_id).height == done.exported
    assert not staged_folder(home, done.delivery_id).exists()


def test_a_folder_gets_each_delivery_once_and_whole_wherever_its_sender_is_killed(shop: Shop) -> None:
    found = killed(shop.home, "own_folder")
    assert len(found) > 8
    for done in found:
        check_kept(shop.home, done)
        folder = shop.home.exports / "own" / done.delivery_id
        manifest = (folder / "manifest.json").read_bytes()
        assert hashlib.sha256(manifest).hexdigest() == done.manifest_sha256
        data = (folder / "members.csv").read_bytes()
        assert json.loads(manifest)["files"]["members.csv"]["sha256"] == hashlib.sha256(data).hexdigest()
    names = {path.name for path in (shop.home.exports / "own").iterdir()}
    assert names == {done.delivery_id for done in found}


def test_a_webhook_takes_each_part_once_and_no_part_that_was_taken_is_sent_again(shop: Shop) -> None:
    with receiving(shop.home) as receiver:
        found = killed(shop.home, "letters")
    assert len(found) > 12
    completed = Counter(each["delivery"]["id"] for each in receiver.of("activation.completed"))
    assert completed == {done.delivery_id: 1 for done in found}
    for done in found:
        check_kept(shop.home, done)
        manifest = json.loads(done.manifest or "")
        mine = [each for each in receiver.arrivals if each.startswith(f"{done.delivery_id}.")]
        parts = [f"{done.delivery_id}.{done.attempt}.{number}" for number in range(1, len(manifest["files"]) + 1)]
        assert {*mine} == {*parts, f"{done.delivery_id}.{done.attempt}.manifest"}
        assert len(mine) - len({*mine}) <= 1  # the one in whose middle it was killed comes again, under its own id
        hashes = [hashlib.sha256(receiver.bodies[part]).hexdigest() for part in parts]
        assert hashes == [manifest["files"][name]["sha256"] for name in sorted(manifest["files"])]
        people = [who for part in parts for who in receiver.messages[part]["data"]["members"]]
        assert len({who["member_ref"] for who in people}) == len(people) == done.exported
