import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from serving.errors import ServingError
from serving.keys import ALL_PURPOSES, SCOPES, caller_of, callers, first_key, make_key
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
