"""The policy that is shipped, and how a wrong file is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from consent.errors import ConsentError
from consent.policy import POLICY_FILE, notices_frame, policy_frame, read_policy

POLICY = read_policy()


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The shipped file with one thing changed."""
    found = yaml.safe_load(POLICY_FILE.read_text())
    change(found)
    path = folder / "policy.yml"
    path.write_text(yaml.safe_dump(found))
    return path


def test_marketing_is_asked_channel_by_channel_and_the_rest_as_a_whole() -> None:
    assert POLICY.purposes["marketing"].channels == ("email", "sms", "push", "post", "in_app", "onsite")
    assert all(purpose.channels == ("*",) for code, purpose in POLICY.purposes.items() if code != "marketing")


def test_only_service_does_without_consent() -> None:
    assert [code for code, purpose in POLICY.purposes.items() if not purpose.rests_on_consent] == ["service"]


def test_a_jurisdiction_replaces_the_days_of_the_purposes_it_names() -> None:
    assert POLICY.days("third_party_sharing", "US-CA") == 180
    assert POLICY.days("third_party_sharing", "US-OR") == POLICY.days("third_party_sharing", "*") == 365
    assert POLICY.days("marketing", "US-CA") == POLICY.days("marketing", "*") == 730


def test_a_grant_needs_a_known_notice_in_a_version_that_still_counts() -> None:
    assert POLICY.is_current("web_banner", 1)
    assert not POLICY.is_current("web_banner", 0)
    assert not POLICY.is_current("web_banner", None)
    assert not POLICY.is_current("old_banner", 5)
    assert not POLICY.is_current(None, 1)


def test_the_frame_has_a_row_for_every_purpose_asked_channel_and_jurisdiction() -> None:
    frame = policy_frame(POLICY)
    assert frame.height == (6 + 6) * len(POLICY.jurisdictions)
    assert not frame.select("purpose_code", "channel_code", "jurisdiction_code").is_duplicated().any()
    assert frame["mechanism"].unique().to_list() == ["opt_in"]
    here = (pl.col("purpose_code") == "third_party_sharing") & (pl.col("jurisdiction_code") == "US-CA")
    assert frame.filter(here)["expires_after_days"].to_list() == [180]


def test_the_notices_frame_has_a_row_per_notice() -> None:
    assert notices_frame(POLICY).rows() == [(n.notice_id, n.minimum_version) for n in POLICY.notices.values()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: p["jurisdictions"]["US-CA"].update(mechanism="opt_out"),
            r"US-CA.mechanism: expected one of opt_in, found opt_out",
        ),
        (lambda p: p["jurisdictions"].pop("*"), r"jurisdictions: expected an entry for `\*`"),
        (lambda p: p["jurisdictions"]["US-CA"]["expires_after_days"].update(gossip=3), "found gossip"),
        (lambda p: p["purposes"]["marketing"].update(channels=["fax"]), "found fax"),
        (lambda p: p["purposes"]["marketing"].update(channels=["email", "email"]), "a list of different channels"),
        (lambda p: p["purposes"]["marketing"].update(channels=["*", "email"]), r"found \*"),
        (lambda p: p["purposes"]["marketing"].update(expires_after_days=0), "a whole number from 1, found 0"),
        (lambda p: p["purposes"]["marketing"].update(expires_after_days=True), "a whole number from 1"),
        (lambda p: p["purposes"]["marketing"].update(legal_basis="habit"), "one of consent, contract, found habit"),
        (lambda p: p["purposes"]["marketing"].pop("description"), "an entry description, found none"),
        (lambda p: p["purposes"]["marketing"].update(colour="red"), "found colour"),
        (lambda p: p["notices"]["web_banner"].update(minimum_version=9), "at most the current version 2, found 9"),
        (lambda p: p.pop("notices"), "policy: expected an entry notices, found none"),
        (lambda p: p.update(purposes=["marketing"]), "purposes: expected named entries, found list"),
    ],
)
def test_a_wrong_policy_is_refused_by_the_place_of_the_fault(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(ConsentError, match=message):
        read_policy(changed(tmp_path, change))


@pytest.mark.parametrize("content", [b"purposes: [", b"\xff\xfe", b"", b"a: !!python/object:os.system {}"])
def test_what_is_no_policy_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "policy.yml"
    path.write_bytes(content)
    with pytest.raises(ConsentError, match="expected"):
        read_policy(path)
