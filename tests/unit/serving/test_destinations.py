"""What a home declares of destinations, and what it may not."""

from pathlib import Path

import pytest

from serving.activation.destinations import (
    check_fits,
    destination_of,
    parse,
    read_destinations,
    read_schedules,
    s3_credentials,
    webhook_secret,
)
from serving.activation.errors import ActivationError
from troth.home import Home

DECLARED = """\
destinations:
  newsletter:
    kind: folder
    where: exports/newsletter
    format: csv
    purposes: [marketing]
    channels: [email]
    recipient: {legal_name: Letterbird GmbH, role: processor, country: DE}
  partner:
    kind: webhook
    where: https://hooks.example.com/troth
    purposes: [marketing]
    channels: [email, sms]
    recipient: {legal_name: Tent & Trail Co-op, role: third_party, country: US}
    keep_days: 30
  lake:
    kind: s3
    where: troth-exports/crm
    format: parquet
    purposes: [marketing, personalization]
    channels: [in_app]
    recipient: {legal_name: Troth Outfitters, role: own, country: US}
    region: us-west-2
    credentials: lake
schedules:
  weekly: {segment: lapsed_regulars, destination: newsletter, channel: email, cron: "0 6 * * 1", asked_by: kim}
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "destinations.yml").write_text(DECLARED)
    return Home(tmp_path)


def test_a_home_declares_where_segments_may_go(home: Home) -> None:
    lake, newsletter, partner = read_destinations(home)
    assert (lake.name, lake.format, lake.fields) == ("lake", "parquet", ("customer_id", "contact"))
    assert (newsletter.recipient.legal_name, newsletter.is_third_party, newsletter.needs_approval) == (
        "Letterbird GmbH",
        False,
        False,
    )
    assert (partner.is_third_party, partner.needs_approval, partner.fields) == (True, True, ("contact",))
    assert (partner.format, partner.keep_days, partner.answer_hours) == ("json", 30, 72)
    (weekly,) = read_schedules(home)
    assert (weekly.segment, weekly.destination, weekly.asked_by) == ("lapsed_regulars", "newsletter", "kim")


def test_a_home_without_the_file_has_no_destinations(tmp_path: Path) -> None:
    assert read_destinations(Home(tmp_path)) == []
    assert read_schedules(Home(tmp_path)) == []
    with pytest.raises(ActivationError, match="expected one of none, found 'newsletter'"):
        destination_of(Home(tmp_path), "newsletter")


@pytest.mark.parametrize(
    ("said", "instead", "told"),
    [
        ("kind: folder", "kind: pigeon", "line 3, destinations.newsletter.kind: expected one of folder, s3, webhook"),
        ("format: csv", "format: xlsx", "line 5, destinations.newsletter.format: expected one of csv, parquet"),
        ("purposes: [marketing]", "purposes: [fun]", "line 6, destinations.newsletter.purposes: expected a list of"),
        ("channels: [email]", "channels: [push]", "line 7, destinations.newsletter.channels: expected a list of email"),
        ("where: exports/newsletter", "where: landing/pos", "line 4, destinations.newsletter.where: expected a folder below"),
        ("where: exports/newsletter", "where: exports/access", "expected a folder below exports/"),
        ("where: exports/newsletter", "where: exports/../landing", "expected a folder without .."),
        ("role: processor", "role: friend", "recipient.role: expected one of own, processor, third_party"),
        ("country: DE", "country: NO", "country: expected two capitals"),
        ("country: DE}", "country: DE, phone: 1}", "line 8, destinations.newsletter.recipient: expected legal_name, role"),
        ("https://hooks.example.com/troth", "http://hooks.example.com/", "expected https to a public address"),
        ("https://hooks.example.com/troth", "https://10.0.0.8/", "expected https to a public address"),
        ("keep_days: 30", "keep_days: 0", "keep_days: expected a whole number from 1 to 3650"),
        ("keep_days: 30", "needs_approval: false", "needs_approval: expected true for a third party"),
        ("keep_days: 30", "fields: [customer_id, contact]", "expected contact alone, found customer_id"),
        ("keep_days: 30", "secret: hunter2", "expected kind, where, purposes"),
        ("    credentials: lake\n", "", "found no credentials"),
        ("credentials: lake", "credentials: ../lake", "the name of a file in keys/"),
        ("region: us-west-2", "region: us-west-2\n    endpoint: http://10.0.0.8:9000", "endpoint: expected https://host"),
        ("channels: [in_app]", "channels: [in_app]\n    fields: [contact]", "expected customer_id, by which in_app"),
        ("0 6 * * 1", "0 6 * *", 'cron: expected five fields such as "0 6 * * 1"'),
        ("0 6 * * 1", "99 6 * * 1", "cron: expected five fields"),
        ("0 6 * * 1", "0 9-6 * * 1", "cron: expected five fields"),
        ("destination: newsletter", "destination: nowhere", "schedules.weekly.destination: expected one of newsletter"),
        ("channel: email, cron", "channel: sms, cron", "schedules.weekly.channel: expected one of email"),
        ("destinations:", "destination:", "expected destinations, schedules, found unknown destination"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_line_and_place(home: Home, said: str, instead: str, told: str) -> None:
    assert said in DECLARED
    with pytest.raises(ActivationError) as refused:
        parse(DECLARED.replace(said, instead, 1), home)
    assert told in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("cron", ["*/15 * * * *", "0 6 * * 1-5", "5,35 0-6/2 1 1 0", "0 0 31 12 7"])
def test_a_schedule_says_when_as_cron_does(home: Home, cron: str) -> None:
    _, (weekly,) = parse(DECLARED.replace("0 6 * * 1", cron), home)
    assert weekly.cron == cron


def test_a_destination_receives_its_own_purposes_and_channels_and_nothing_else(home: Home) -> None:
    newsletter = destination_of(home, "newsletter")
    check_fits(newsletter, "marketing", "email")
    with pytest.raises(ActivationError, match="purpose: expected one of marketing, found personalization"):
        check_fits(newsletter, "personalization", "email")
    with pytest.raises(ActivationError, match="channel: expected one of email, found sms"):
        check_fits(newsletter, "marketing", "sms")


def test_whatever_changes_in_a_destination_changes_its_hash(home: Home) -> None:
    before = destination_of(home, "newsletter").hash
    for said, instead in (("processor", "own"), ("[email]", "[sms]"), ("exports/newsletter", "exports/other")):
        changed, _ = parse(DECLARED.split("schedules:", maxsplit=1)[0].replace(said, instead, 1), home)
        assert next(each for each in changed if each.name == "newsletter").hash != before


def test_secrets_are_in_files_for_their_owner_only_and_never_in_an_error(home: Home) -> None:
    lake = destination_of(home, "lake")
    with pytest.raises(ActivationError, match=r"expected keys/lake\.s3, found none"):
        s3_credentials(home, lake)
    path = home.root / "keys" / "lake.s3"
    path.parent.mkdir()
    path.write_text('{"access_key": "AKIA", "secret_key": "hunter2"}')
    path.chmod(0o644)
    with pytest.raises(ActivationError, match="found one that others may read"):
        s3_credentials(home, lake)
    path.chmod(0o600)
    assert s3_credentials(home, lake) == {"access_key": "AKIA", "secret_key": "hunter2"}
    path.write_text('{"access_key": "AKIA", "secret": "hunter2"}')
    with pytest.raises(ActivationError, match="expected access_key and secret_key") as refused:
        s3_credentials(home, lake)
    assert "hunter2" not in str(refused.value)


def test_each_webhook_has_a_secret_of_its_own_which_is_kept_nowhere(home: Home) -> None:
    lake, _, partner = read_destinations(home)
    secret = webhook_secret(home, partner)
    assert secret == webhook_secret(home, partner)
    assert secret.startswith("whsec_")
    assert secret != webhook_secret(home, lake)
    written = [path.read_bytes() for path in home.root.rglob("*") if path.is_file()]
    assert not any(secret.encode() in each for each in written)
