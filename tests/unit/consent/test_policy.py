"""The policy that is shipped, and how a wrong file is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from consent.errors import ConsentError
from consent.rule.policy import POLICY_FILE, POLICY_SCHEMA, notices_frame, policy_frame, read_policy

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


def test_silence_is_a_no_everywhere_but_for_what_a_place_names() -> None:
    assert POLICY.mechanism("analytics", "GB") == "opt_out"
    assert POLICY.mechanism("marketing", "GB") == POLICY.mechanism("analytics", "elsewhere") == "opt_in"


def test_a_grant_must_be_confirmed_only_where_purpose_channel_and_place_say_so() -> None:
    assert POLICY.confirm_days("marketing", "email", "DE") == 14
    assert POLICY.confirm_days("marketing", "*", "DE") == 14
    assert POLICY.confirm_days("marketing", "sms", "DE") is None
    assert POLICY.confirm_days("marketing", "email", "US-OR") is None
    assert POLICY.confirm_days("analytics", "*", "DE") is None


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
    assert frame.schema == POLICY_SCHEMA
    here = (pl.col("purpose_code") == "third_party_sharing") & (pl.col("jurisdiction_code") == "US-CA")
    assert frame.filter(here)["expires_after_days"].to_list() == [180]
    britain, germany = pl.col("jurisdiction_code") == "GB", pl.col("jurisdiction_code") == "DE"
    assert frame.filter(pl.col("mechanism") != "opt_in").equals(frame.filter(britain, purpose_code="analytics"))
    mailed = frame.filter(germany, purpose_code="marketing", channel_code="email")
    assert frame.filter(pl.col("confirm_within_days").is_not_null()).equals(mailed)
    assert frame.filter("is_refused_by_gpc")["purpose_code"].unique().to_list() == ["third_party_sharing"]


def test_the_notices_frame_has_a_row_per_notice() -> None:
    assert notices_frame(POLICY).rows() == [
        (n.notice_id, n.minimum_version, n.silence_version) for n in POLICY.notices.values()
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: p["jurisdictions"]["US-CA"].update(mechanism="silence"),
            r"US-CA.mechanism: expected one of opt_in, opt_out, notice_only, found silence",
        ),
        (
            lambda p: p["jurisdictions"]["US-CA"].update(mechanism="notice_only"),
            r"US-CA, .*: expected opt_in or opt_out for what rests on consent, found notice_only",
        ),
        (
            lambda p: p["jurisdictions"]["GB"]["mechanisms"].update(analytics="notice_only"),
            r"GB, analytics: expected opt_in or opt_out for what rests on consent, found notice_only",
        ),
        (
            lambda p: p["jurisdictions"]["GB"]["mechanisms"].update(service="opt_in"),
            r"GB.mechanisms.service: expected no mechanism for what rests on a contract, found opt_in",
        ),
        (lambda p: p["jurisdictions"]["GB"]["mechanisms"].update(gossip="opt_in"), "GB.mechanisms: .* found gossip"),
        (
            lambda p: p["jurisdictions"]["DE"].update(mechanisms={"marketing": "opt_out"}),
            r"DE.double_opt_in.marketing: expected a purpose whose mechanism here is opt_in, found one that needs no yes",
        ),
        (
            lambda p: p["jurisdictions"]["DE"]["double_opt_in"].update(service={"*": {"confirm_within_days": 1}}),
            r"DE.double_opt_in.service: expected a purpose whose mechanism here is opt_in",
        ),
        (
            lambda p: p["jurisdictions"]["DE"]["double_opt_in"].update(analytics={"email": {"confirm_within_days": 1}}),
            r"DE.double_opt_in.analytics: expected one of \*, found email",
        ),
        (
            lambda p: p["jurisdictions"]["DE"]["double_opt_in"]["marketing"].update(email={}),
            r"DE.double_opt_in.marketing.email: expected an entry confirm_within_days, found none",
        ),
        (
            lambda p: p["jurisdictions"]["DE"]["double_opt_in"]["marketing"]["email"].update(confirm_within_days=0),
            r"marketing.email: expected a whole number from 1, found 0",
        ),
        (lambda p: p.update(gpc_purposes=["service"]), "gpc_purposes: expected purposes that a person can refuse"),
        (lambda p: p.update(gpc_purposes=["gossip"]), "gpc_purposes: expected one of .* found gossip"),
        (lambda p: p.update(gpc_purposes=[]), "gpc_purposes: expected a list"),
        (lambda p: p["jurisdictions"].pop("*"), r"jurisdictions: expected an entry for `\*`"),
        (lambda p: p["jurisdictions"]["US-CA"]["expires_after_days"].update(gossip=3), "found gossip"),
        (lambda p: p["purposes"]["marketing"].update(channels=["fax"]), "found fax"),
        (lambda p: p["purposes"]["marketing"].update(channels=["email", "email"]), "a list of different channels"),
        (lambda p: p["purposes"]["marketing"].update(channels=["*", "email"]), r"found \*"),
        (lambda p: p["purposes"]["marketing"].update(expires_after_days=0), "a whole number from 1, found 0"),
        (lambda p: p["purposes"]["marketing"].update(expires_after_days=True), "a whole number from 1"),
        (
            lambda p: p["purposes"]["marketing"].update(legal_basis="habit"),
            "one of consent, contract, legitimate_interest, found habit",
        ),
        (lambda p: p["purposes"]["marketing"].pop("description"), "an entry description, found none"),
        (lambda p: p["purposes"]["marketing"].update(colour="red"), "found colour"),
        (lambda p: p["notices"]["web_banner"].update(minimum_version=9), "at most the current version 2, found 9"),
        (lambda p: p["notices"]["web_banner"].update(silence_version=3), "a version from 1 to 2, or null, found 3"),
        (lambda p: p["notices"]["web_banner"].update(current_version=None), "expected a current_version and a minimum"),
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
