"""From the log to landed files: once, whatever dies when, in shapes that the readers of files know."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.event_log.databases import SQLiteDatabase
from serving.event_log.events import NewEvent
from serving.event_log.log import LANDING, PROJECTOR, Log, open_log
from serving.intake.landing import land
from tests.unit.serving.test_event_log import NOON, sale
from troth.home import Home


def files(home: Home) -> dict[str, tuple[bytes, int]]:
    found = (path for path in home.landing.rglob("*") if path.is_file())
    return {path.relative_to(home.landing).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def order(number: int, **changes: object) -> NewEvent:
    body = b'{"id": %d,\n "name": "#%d"}' % (number, number)
    plain = sale(f"order-{number}", source_name="ecommerce", event_type="order", topic="orders/updated", payload=body)
    return msgspec.structs.replace(plain, **changes)


class PowerCutError(Exception):
    """The machine stops here."""


class DyingLog(Log):
    """A log whose landing is never committed: the machine stops just before."""

    def commit(self, consumer: str, offset: int) -> None:
        raise PowerCutError


def test_a_landed_webhook_is_one_line_with_its_topic_and_a_message_has_the_time_it_came(tmp_path: Path) -> None:
    home, log = Home(tmp_path), open_log(Home(tmp_path))
    message = order(2, event_id="m", event_type="web_event", topic="track", payload=b'{"messageId":"m"}')
    log.append([order(1), message])
    assert land(log, home).offset == 2
    kept = files(home)
    assert set(kept) == {
        "ecommerce/2026-03-02/orders_log_000000000001-000000000002.jsonl",
        "ecommerce/2026-03-02/events_log_000000000001-000000000002.jsonl",
    }
    lines = {name.split("/")[2].split("_")[0]: content for name, (content, _) in kept.items()}
    assert json.loads(lines["orders"]) == {"topic": "orders/updated", "body": {"id": 1, "name": "#1"}}
    assert lines["orders"].count(b"\n") == 1
    assert json.loads(lines["events"]) == {"receivedAt": "2026-03-02T12:00:01.234567+00:00", "messageId": "m"}
    log.close()


def test_landing_again_lands_nothing_and_what_came_since_goes_into_files_of_its_own(tmp_path: Path) -> None:
    home, log = Home(tmp_path), open_log(Home(tmp_path))
    log.append([order(1)])
    assert (land(log, home).events, land(log, home).events) == (1, 0)
    before = files(home)
    log.append([order(2, received_at=NOON + timedelta(days=1))])
    land(log, home)
    after = files(home)
    assert before.items() <= after.items()
    assert set(after) - set(before) == {"ecommerce/2026-03-03/orders_log_000000000002-000000000002.jsonl"}
    log.close()


def test_a_file_was_received_when_the_newest_of_its_events_was(tmp_path: Path) -> None:
    home, log = Home(tmp_path), open_log(Home(tmp_path))
    log.append([order(1), order(2, received_at=NOON + timedelta(hours=3, microseconds=7)), order(3)])
    land(log, home)
    ((_, modified),) = files(home).values()
    assert modified == 1_000 * (int(NOON.timestamp()) * 1_000_000 + 3 * 3_600_000_000 + 7)
    log.close()


@pytest.mark.parametrize("is_written", [False, True])
def test_after_a_power_cut_the_same_files_are_landed_and_no_others(is_written: bool, tmp_path: Path) -> None:
    home = Home(tmp_path)
    dying = DyingLog(SQLiteDatabase(home.log / "events.db"))
    dying.append([order(number) for number in range(5)])
    with pytest.raises(PowerCutError):
        land(dying, home)
    written = files(home)
    if not is_written:
        for name in written:
            os.unlink(home.landing / name)
    dying.close()
    log = open_log(home)
    log.append([order(number) for number in range(5, 9)])
    assert land(log, home).offset == 9
    landed = files(home)
    assert written.items() <= landed.items()
    lines = [line for content, _ in landed.values() for line in content.splitlines()]
    assert sorted(json.loads(line)["body"]["id"] for line in lines) == list(range(9))
    log.close()


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(st.sampled_from(["send", "land", "land small", "cut"]), max_size=14),
)
def test_however_it_is_cut_every_event_is_landed_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    home = Home(tmp_path_factory.mktemp("home"))
    sent = 0
    for step in [*steps, "land"]:
        kind = DyingLog if step == "cut" else Log
        log = kind(SQLiteDatabase(home.log / "events.db"))
        if step == "send":
            log.append([order(sent + more) for more in range(3)])
            sent += 3
        elif step == "cut":
            if log.head() > log.position(LANDING):
                with pytest.raises(PowerCutError):
                    land(log, home, 2)
        else:
            land(log, home, 2 if step == "land small" else 100)
        log.close()
    lines = [line for content, _ in files(home).values() for line in content.splitlines()]
    assert sorted(json.loads(line)["body"]["id"] for line in lines) == list(range(sent))


def test_what_was_erased_or_is_of_no_file_is_passed_over(tmp_path: Path) -> None:
    home, log = Home(tmp_path), open_log(Home(tmp_path))
    log.append([order(1), order(2)])
    log.blank([1])
    assert (land(log, home).events, log.position(LANDING)) == (1, 2)
    log.commit(PROJECTOR, 2)
    assert log.trim(3) == 1
    log.close()


def test_times_of_landing_do_not_depend_on_the_clock_of_the_machine(tmp_path: Path) -> None:
    home, log = Home(tmp_path), open_log(Home(tmp_path))
    log.append([order(1, received_at=datetime(2031, 5, 6, 23, 59, 59, 999_999, tzinfo=UTC))])
    land(log, home)
    assert list(files(home)) == ["ecommerce/2031-05-06/orders_log_000000000001-000000000001.jsonl"]
    log.close()
