import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from serving.app import create_app
from serving.errors import ServingError
from serving.keys import ALL_PURPOSES, SCOPES, Callers, caller_of, callers, drop_key, first_key, make_key
from tests.unit.serving.open_hub import OpenHub, grant, problem
from tests.unit.serving.open_shop import Caller
from troth.home import Home

AT = datetime(2026, 3, 2, tzinfo=UTC)


def test_the_first_key_is_given_once_and_is_for_every_purpose_and_scope(tmp_path: Path) -> None:
    key = first_key(Home(tmp_path), AT)
    assert key is not None
    assert first_key(Home(tmp_path), AT) is None
    caller = caller_of(callers(Home(tmp_path)), key)
    assert caller is not None
    assert all(caller.may(purpose) for purpose in (*ALL_PURPOSES, None))
    assert caller.scopes == SCOPES


def test_no_key_is_kept_and_only_the_owner_reads_the_file(tmp_path: Path) -> None:
    key = make_key(Home(tmp_path), "web shop", ["personalization"], AT)
    path = tmp_path / "keys" / "api.json"
    assert key.encode() not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_opens_what_it_was_made_for_and_what_is_not_personal(tmp_path: Path) -> None:
    key = make_key(Home(tmp_path), "web shop", ["personalization"], AT)
    caller = caller_of(callers(Home(tmp_path)), key)
    assert caller is not None
    assert (caller.may("personalization"), caller.may("marketing"), caller.may(None)) == (True, False, True)


def test_a_caller_that_gets_a_new_key_loses_the_old_one(tmp_path: Path) -> None:
    old = make_key(Home(tmp_path), "web shop", ["personalization"], AT)
    other = make_key(Home(tmp_path), "till", ["service"], AT)
    new = make_key(Home(tmp_path), "web shop", ["personalization"], AT)
    known = callers(Home(tmp_path))
    assert [caller_of(known, key) is not None for key in (old, other, new)] == [False, True, True]


@pytest.mark.parametrize("key", ["", "troth_", "troth_" + "A" * 43, "é"])
def test_a_guess_is_nobody(key: str, tmp_path: Path) -> None:
    make_key(Home(tmp_path), "web shop", ["personalization"], AT)
    assert caller_of(callers(Home(tmp_path)), key) is None


def test_a_key_for_an_unknown_purpose_or_for_none_is_not_made(tmp_path: Path) -> None:
    for purposes in (["astrology"], []):
        with pytest.raises(ServingError, match="API key: expected purposes among"):
            make_key(Home(tmp_path), "web shop", purposes, AT)


def test_a_damaged_file_is_refused_without_repeating_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "api.json"
    path.parent.mkdir()
    path.write_text('[{"name": "web shop"}]')
    with pytest.raises(ServingError, match=r"api\.json: expected a list of callers, found otherwise\. Restore it"):
        callers(Home(tmp_path))


def test_a_key_may_be_for_an_act_alone_and_an_unknown_act_gets_none(tmp_path: Path) -> None:
    key = make_key(Home(tmp_path), "till", [], AT, ["capture"])
    caller = caller_of(callers(Home(tmp_path)), key)
    assert caller is not None
    assert (caller.scopes, caller.purposes, caller.may("marketing")) == (("capture",), (), False)
    with pytest.raises(ServingError, match="API key: expected scopes among"):
        make_key(Home(tmp_path), "till", [], AT, ["everything"])


def test_a_key_made_before_there_were_scopes_has_none(tmp_path: Path) -> None:
    make_key(Home(tmp_path), "web shop", ["personalization"], AT)
    path = tmp_path / "keys" / "api.json"
    kept = json.loads(path.read_text())
    del kept[0]["scopes"]
    path.write_text(json.dumps(kept))
    assert callers(Home(tmp_path))[0].scopes == ()


def test_a_dropped_key_stops_working_and_a_new_one_works_without_a_restart(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    asked = "/v1/availability?sku=SKU-1"
    assert shop.capture.get(asked).status_code != 401
    assert shop.say(grant()).status_code == 200
    assert drop_key(shop.home, "capture")
    assert problem(shop.capture.get(asked)) == (401, "no_key")
    assert problem(shop.say()) == (401, "no_key")
    late = Caller(shop.app, make_key(shop.home, "late", [], AT, ["admin"]))
    assert late.get("/v1/webhooks").status_code == 200
    make_key(shop.home, "late", [], AT, ["links"])
    assert problem(late.get("/v1/webhooks")) == (401, "no_key")


def test_a_change_that_leaves_size_and_times_of_the_file_is_seen(tmp_path: Path) -> None:
    old = make_key(Home(tmp_path), "web shop", ["personalization"], AT)
    path, known = tmp_path / "keys" / "api.json", Callers(Home(tmp_path))
    assert caller_of(known.known(), old)
    before = path.stat()
    new = make_key(Home(tmp_path), "web shop", ["personalization"], AT)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert [caller_of(known.known(), key) is not None for key in (old, new)] == [False, True]


def test_the_file_is_decoded_once_per_version(tmp_path: Path) -> None:
    make_key(Home(tmp_path), "web shop", ["personalization"], AT)
    known = Callers(Home(tmp_path))
    assert known.known() is known.known()


def test_keys_made_and_dropped_at_once_are_neither_lost_nor_written_back(tmp_path: Path) -> None:
    """Whoever changes the file has read it before: without a lock the drop of another would be undone."""
    home = Home(tmp_path)
    for number in range(8):
        make_key(home, f"old-{number}", ["personalization"], AT)

    def change(number: int) -> None:
        make_key(home, f"new-{number}", ["personalization"], AT)
        assert drop_key(home, f"old-{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, range(8)))
    assert {each.name for each in callers(home)} == {f"new-{number}" for number in range(8)}


def test_whoever_looks_while_keys_change_finds_every_other_key_in_place(tmp_path: Path) -> None:
    steady = make_key(Home(tmp_path), "steady", ["personalization"], AT)
    known, stop, seen = Callers(Home(tmp_path)), threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            seen.append(caller_of(known.known(), steady) is not None)

    watchers = [threading.Thread(target=look) for _ in range(3)]
    for watcher in watchers:
        watcher.start()
    for number in range(20):
        changing = make_key(Home(tmp_path), "changing", ["personalization"], AT)
        assert caller_of(known.known(), changing)
        if number % 2:
            drop_key(Home(tmp_path), "changing")
            assert caller_of(known.known(), changing) is None
    stop.set()
    for watcher in watchers:
        watcher.join()
    assert seen
    assert all(seen)


@pytest.mark.parametrize("content", [b"", b"[{", b"{}"])
def test_while_the_file_is_damaged_nobody_is_let_in(content: bytes, tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    path = shop.home.root / "keys" / "api.json"
    kept = path.read_bytes()
    path.write_bytes(content)
    assert problem(shop.say()) == (503, "unavailable")
    with pytest.raises(ServingError, match=r"api\.json: expected a list of callers"):
        create_app(shop.home, shop.clock)
    path.unlink()
    assert problem(shop.say()) == (401, "no_key")
    path.write_bytes(kept)
    assert shop.say(grant()).status_code == 200
